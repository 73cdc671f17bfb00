//! The cluster's folder: what is in it, what may be used again, and what may be deleted.
//!
//! ```text
//! DIR/local.toml         what `up` made, for `down`, `status` and the next `up --keep`
//! DIR/7001/redis.conf    written by `up`
//! DIR/7001/nodes.conf    the server's own
//! DIR/7001/redis.pid     the server's own
//! DIR/7001/server.log    all that the server says
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::file;
use super::plan::Plan;
use super::server::Server;
use super::{Error, Options};

/// Configuration of a node, in its folder.
pub(super) const CONF: &str = "redis.conf";
/// All that the server of a node says.
pub(super) const LOG: &str = "server.log";
/// Process id of the server, written and deleted by itself.
pub(super) const PID: &str = "redis.pid";
const MANIFEST: &str = "local.toml";

/// The folder of a local cluster.
#[derive(Debug)]
pub(super) struct Folder {
    root: PathBuf,
}

/// What `up` made in a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    /// Port of the first node.
    pub(super) port: u16,
    pub(super) nodes: u16,
    pub(super) replicas: u16,
    /// Whether the data outlives the cluster.
    pub(super) keep: bool,
    /// Whether the cluster was up once; the data of one that never was is of no use.
    pub(super) formed: bool,
}

/// How a cluster begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beginning {
    /// With empty nodes, which have to be joined.
    Fresh,
    /// On the data of an earlier run, which knows its nodes.
    Again,
}

impl Manifest {
    /// Of a cluster that is about to begin.
    pub(super) fn new(plan: &Plan, options: &Options, beginning: Beginning) -> Self {
        let &Options { nodes, replicas, keep, .. } = options;
        Self {
            port: plan.seats[0].port,
            nodes,
            replicas,
            keep,
            formed: beginning == Beginning::Again,
        }
    }

    pub(super) fn ports(self) -> impl Iterator<Item = u16> {
        (self.port..=u16::MAX).take(usize::from(self.nodes))
    }

    fn is_of(self, plan: &Plan, replicas: u16) -> bool {
        self.replicas == replicas && self.ports().eq(plan.ports())
    }

    fn text(self) -> String {
        let Self { port, nodes, replicas, keep, formed } = self;
        format!(
            "# Written by `slotway local up`.\nport = {port}\nnodes = {nodes}\nreplicas = {replicas}\nkeep = {keep}\n\
             formed = {formed}\n"
        )
    }
}

impl Folder {
    /// The folder `dir`, made if need be.
    pub(super) fn create(dir: &Path) -> Result<Self, Error> {
        fs::create_dir_all(dir).map_err(file("create", dir))?;
        let root = dir.canonicalize().map_err(file("find", dir))?;
        Ok(Self { root })
    }

    /// The folder `dir` and what `up` made there, if it did.
    pub(super) fn find(dir: &Path) -> Result<Option<(Self, Manifest)>, Error> {
        let Ok(root) = dir.canonicalize() else { return Ok(None) };
        let folder = Self { root };
        Ok(folder.manifest()?.map(|manifest| (folder, manifest)))
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Folder of the node on `port`.
    pub(super) fn node(&self, port: u16) -> PathBuf {
        self.root.join(port.to_string())
    }

    pub(super) fn manifest(&self) -> Result<Option<Manifest>, Error> {
        let path = self.root.join(MANIFEST);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file("read", path)(error)),
        };
        let refused =
            |error: toml::de::Error| Error::Manifest { path, reason: error.message().to_owned() };
        toml::from_str(&text).map(Some).map_err(refused)
    }

    pub(super) fn write_manifest(&self, manifest: Manifest) -> Result<(), Error> {
        let path = self.root.join(MANIFEST);
        fs::write(&path, manifest.text()).map_err(file("write", path))
    }

    /// Whether the cluster of `plan` can begin here, and how. What a start left that never got to the end is deleted.
    pub(super) fn beginning(
        &self,
        plan: &Plan,
        replicas: u16,
        keep: bool,
    ) -> Result<Beginning, Error> {
        let manifest = self.manifest()?;
        let ports: Vec<u16> =
            plan.ports().chain(manifest.into_iter().flat_map(Manifest::ports)).collect();
        if let Some(server) = ports.iter().find_map(|&port| Server::running(&self.node(port), port))
        {
            let (port, pid) = (server.port(), server.pid());
            return Err(Error::AlreadyRunning { dir: self.root.clone(), port, pid });
        }
        if let Some(unfinished) = manifest.filter(|manifest| !manifest.formed) {
            self.clear(unfinished.ports())?;
        }
        let Some(found) = ports.iter().find_map(|&port| first_entry(&self.node(port))) else {
            return Ok(Beginning::Fresh);
        };
        let dir = self.root.clone();
        match manifest {
            None | Some(Manifest { formed: false, .. }) => Err(Error::Remains { found, dir }),
            Some(_) if !keep => Err(Error::Leftover { found, dir }),
            Some(earlier) if earlier.is_of(plan, replicas) => Ok(Beginning::Again),
            Some(Manifest { port, nodes, replicas, .. }) => {
                Err(Error::OtherCluster { dir, port, nodes, replicas })
            }
        }
    }

    /// Writes the manifest and each node's folder and configuration.
    pub(super) fn prepare(
        &self,
        plan: &Plan,
        manifest: Manifest,
        node_timeout_ms: u64,
    ) -> Result<(), Error> {
        self.write_manifest(manifest)?;
        for port in plan.ports() {
            let node = self.node(port);
            fs::create_dir_all(&node).map_err(file("create", &node))?;
            let conf = node.join(CONF);
            let text = conf_text(&node, port, node_timeout_ms, manifest.keep);
            fs::write(&conf, text).map_err(file("write", conf))?;
        }
        Ok(())
    }

    /// Deletes the nodes' folders and the manifest, and the folder itself if that leaves it empty.
    pub(super) fn remove(&self, ports: impl IntoIterator<Item = u16>) -> Result<(), Error> {
        self.clear(ports)?;
        let manifest = self.root.join(MANIFEST);
        absent_is_fine(fs::remove_file(&manifest)).map_err(file("delete", manifest))?;
        self.remove_if_empty();
        Ok(())
    }

    fn clear(&self, ports: impl IntoIterator<Item = u16>) -> Result<(), Error> {
        for port in ports {
            let node = self.node(port);
            absent_is_fine(fs::remove_dir_all(&node)).map_err(file("delete", node))?;
        }
        Ok(())
    }

    /// Whatever lies in the folder now is not ours, and then it has to stay.
    pub(super) fn remove_if_empty(&self) {
        let _ = fs::remove_dir(&self.root);
    }
}

/// Something in that folder that tells of an earlier cluster, `nodes.conf` if there is one.
fn first_entry(node: &Path) -> Option<PathBuf> {
    let nodes_conf = node.join("nodes.conf");
    if nodes_conf.exists() {
        return Some(nodes_conf);
    }
    fs::read_dir(node).ok()?.find_map(|entry| Some(entry.ok()?.path()))
}

fn absent_is_fine(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Only directives that every server since Redis 3.2 knows: an unknown one keeps it from starting. Replicas are served
/// without delay, because waiting for more of them (5 s by default) is of no use here.
fn conf_text(node: &Path, port: u16, node_timeout_ms: u64, keep: bool) -> String {
    let dir = quoted(&node.to_string_lossy());
    let pid = quoted(&node.join(PID).to_string_lossy());
    let appendonly = if keep { "yes" } else { "no" };
    format!(
        "# Written by `slotway local up` at every start.\n\
         port {port}\n\
         bind 127.0.0.1\n\
         protected-mode yes\n\
         daemonize no\n\
         dir {dir}\n\
         pidfile {pid}\n\
         logfile \"\"\n\
         cluster-enabled yes\n\
         cluster-config-file nodes.conf\n\
         cluster-node-timeout {node_timeout_ms}\n\
         repl-diskless-sync yes\n\
         repl-diskless-sync-delay 0\n\
         save \"\"\n\
         appendonly {appendonly}\n"
    )
}

/// As the server's configuration wants a value that may contain blanks.
fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(keep: bool) -> Options {
        Options { port: 20_001, keep, ..Options::default() }
    }

    fn plan() -> Plan {
        Plan::new(&options(false), None).unwrap()
    }

    /// A folder with the given files in it; the temporary folder has to live as long.
    fn folder_with(files: &[(&str, &str)]) -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let folder = Folder::create(dir.path()).unwrap();
        (dir, folder)
    }

    fn manifest(keep: bool, formed: bool) -> Manifest {
        Manifest { formed, ..Manifest::new(&plan(), &options(keep), Beginning::Fresh) }
    }

    #[test]
    fn writes_a_configuration_that_names_its_folder() {
        let text = conf_text(Path::new("/a \"b\"/7001"), 7001, 5000, false);
        let expected = "# Written by `slotway local up` at every start.\nport 7001\nbind 127.0.0.1\nprotected-mode yes\n\
                        daemonize no\ndir \"/a \\\"b\\\"/7001\"\npidfile \"/a \\\"b\\\"/7001/redis.pid\"\nlogfile \"\"\n\
                        cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-node-timeout 5000\n\
                        repl-diskless-sync yes\nrepl-diskless-sync-delay 0\nsave \"\"\nappendonly no\n";
        assert_eq!(text, expected);
        assert!(conf_text(Path::new("/x"), 7001, 5000, true).contains("\nappendonly yes\n"));
    }

    #[test]
    fn reads_the_manifest_that_it_wrote() {
        let (_dir, folder) = folder_with(&[]);
        assert_eq!(folder.manifest().unwrap(), None);
        folder.write_manifest(manifest(true, true)).unwrap();
        assert_eq!(folder.manifest().unwrap(), Some(manifest(true, true)));
    }

    #[test]
    fn names_a_manifest_that_it_cannot_read() {
        let (_dir, folder) = folder_with(&[(MANIFEST, "port = 'x'")]);
        let text = folder.manifest().unwrap_err().to_string();
        assert!(text.contains("local.toml cannot be understood (invalid type: string"), "{text}");
    }

    #[test]
    fn begins_only_where_nothing_can_be_lost() {
        let check = |files: &[(&str, &str)], keep, expected: &str| {
            let (dir, folder) = folder_with(files);
            let root = dir.path().canonicalize().unwrap();
            let answer = match folder.beginning(&plan(), 1, keep) {
                Ok(beginning) => format!("{beginning:?}"),
                Err(error) => error.to_string().replace(root.to_str().unwrap(), "DIR"),
            };
            assert_eq!(answer, expected, "{files:?} keep={keep}");
        };
        let whole = manifest(true, true).text();
        let (whole, half) =
            ((MANIFEST, whole.as_str()), (MANIFEST, &*manifest(true, false).text()));
        let other = Manifest { nodes: 8, ..manifest(true, true) }.text();
        let data = ("20003/nodes.conf", "");

        check(&[], false, "Fresh");
        check(&[("notes.txt", "mine")], false, "Fresh");
        check(&[whole], false, "Fresh");
        check(&[whole, data], true, "Again");
        let leftover = "DIR/20003/nodes.conf is left of an earlier cluster: pass --keep to start on its data, or remove DIR";
        check(&[whole, data], false, leftover);
        let remains =
            "DIR/20003/nodes.conf is in the way and belongs to no complete cluster: remove DIR";
        check(&[half, data], false, "Fresh");
        check(&[data], true, remains);
        let foreign =
            "DIR/20004/notes.txt is in the way and belongs to no complete cluster: remove DIR";
        check(&[("20004/notes.txt", "mine")], false, foreign);
        let another = "DIR keeps the data of 8 nodes from port 20001 on with 1 replicas each: start it with `--port 20001 \
                       --nodes 8 --replicas 1 --keep`, or use another --dir";
        check(&[(MANIFEST, &other), data], true, another);
    }

    #[test]
    fn deletes_only_what_up_made() {
        let (dir, folder) =
            folder_with(&[("20001/nodes.conf", ""), ("20009/mine", ""), (MANIFEST, "")]);
        folder.remove(plan().ports()).unwrap();
        assert!(!dir.path().join("20001").exists() && !dir.path().join(MANIFEST).exists());
        assert!(dir.path().join("20009/mine").exists());
        folder.remove(plan().ports()).unwrap();
    }
}
