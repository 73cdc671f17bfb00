//! The server processes: found, started, recognised, stopped.
//!
//! A process is signalled only if it is a child of ours that has not been waited for, or if `/proc` shows that it works in
//! the node's folder and serves the node's port; a process id alone may long belong to something else.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::Error;
use super::error::file;
use super::folder::{CONF, LOG, PID};
use super::plan::BUS;

/// Programs looked for on `PATH`, the first found is taken.
const PROGRAMS: [&str; 2] = ["valkey-server", "redis-server"];
/// Environment variable that names the program.
const VARIABLE: &str = "SLOTWAY_SERVER";
/// How long a server may take to end before it is killed. A primary waits up to 10 s for its replicas.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often it is looked whether it has.
const LOOK: Duration = Duration::from_millis(20);
/// Lines of a log that are shown when its server ends at start.
const LAST_WORDS: usize = 10;

/// The server of one node.
#[derive(Debug)]
pub(super) struct Server {
    port: u16,
    dir: PathBuf,
    process: Process,
}

#[derive(Debug)]
enum Process {
    /// Started by us; killed if dropped.
    Ours(Child),
    /// Started by an earlier run.
    Found(u32),
    /// Ended or left alone.
    Gone(u32),
}

impl Server {
    /// Starts the node in `dir`, in a process group of its own: a Ctrl-C meant for us must not reach it.
    pub(super) fn start(program: &Path, dir: &Path, port: u16) -> Result<Self, Error> {
        let log = fs::File::options().create(true).append(true).open(dir.join(LOG));
        let log = log.map_err(file("write", dir.join(LOG)))?;
        let errors = log.try_clone().map_err(file("write", dir.join(LOG)))?;
        let child = Command::new(program)
            .arg(dir.join(CONF))
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            .process_group(0)
            .spawn()
            .map_err(file("run", program))?;
        Ok(Self { port, dir: dir.to_owned(), process: Process::Ours(child) })
    }

    /// The running server of the node in `dir`, whoever started it.
    pub(super) fn running(dir: &Path, port: u16) -> Option<Self> {
        let pid = fs::read_to_string(dir.join(PID)).ok()?.trim().parse().ok()?;
        serves(pid, dir, port).then(|| Self {
            port,
            dir: dir.to_owned(),
            process: Process::Found(pid),
        })
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn pid(&self) -> u32 {
        match &self.process {
            Process::Ours(child) => child.id(),
            Process::Found(pid) | Process::Gone(pid) => *pid,
        }
    }

    /// How the server ended, if it was ours and did.
    pub(super) fn exited(&mut self) -> Option<ExitStatus> {
        let Process::Ours(child) = &mut self.process else { return None };
        let status = child.try_wait().ok().flatten()?;
        self.process = Process::Gone(child.id());
        Some(status)
    }

    /// An error if the server has ended, with the last it said.
    pub(super) fn check_alive(&mut self) -> Result<(), Error> {
        let Some(status) = self.exited() else { return Ok(()) };
        let log = fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
        Err(Error::Exited { port: self.port, status, log: last_lines(&log) })
    }

    /// Leaves the server running when this is dropped.
    pub(super) fn detach(mut self) {
        self.process = Process::Gone(self.pid());
    }

    fn is_gone(&mut self) -> bool {
        match self.process {
            Process::Ours(_) => self.exited().is_some(),
            Process::Found(pid) => !serves(pid, &self.dir, self.port),
            Process::Gone(_) => true,
        }
    }

    fn signal(&mut self, signal: Signal) {
        if self.is_gone() {
            return;
        }
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw);
        // An error means that it ended this very moment, which is what the signal is for.
        let _ = pid.map(|pid| kill_process(pid, signal));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Process::Ours(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Ends all of them: asks first, then kills.
pub(super) async fn stop(servers: &mut [Server]) {
    for server in &mut *servers {
        server.signal(Signal::TERM);
        // One that was suspended has to wake up to hear it.
        server.signal(Signal::CONT);
    }
    if !all_gone(servers).await {
        for server in &mut *servers {
            server.signal(Signal::KILL);
        }
        all_gone(servers).await;
    }
}

async fn all_gone(servers: &mut [Server]) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if servers.iter_mut().all(Server::is_gone) {
            return true;
        }
        sleep(LOOK).await;
    }
    false
}

/// Whether that process works in the node's folder and serves its port. One that has ended but was not waited for does not.
fn serves(pid: u32, dir: &Path, port: u16) -> bool {
    let cwd = fs::read_link(format!("/proc/{pid}/cwd"));
    let cmdline = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    cwd.is_ok_and(|cwd| cwd == dir) && names_node(&cmdline, port)
}

/// A server shows itself as `redis-server 127.0.0.1:7001 [cluster]`, and as it was called until it is ready.
fn names_node(cmdline: &[u8], port: u16) -> bool {
    let (address, conf) = (format!(":{port}"), format!("/{port}/{CONF}"));
    let mut words = cmdline.split(|&byte| byte == 0 || byte == b' ');
    words.any(|word| word.ends_with(address.as_bytes()) || word.ends_with(conf.as_bytes()))
}

fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
}

/// The program to start: the one asked for, else the one in the environment, else the first on `PATH`.
pub(super) fn find(asked: Option<&Path>) -> Result<PathBuf, Error> {
    let named = env::var_os(VARIABLE).filter(|name| !name.is_empty()).map(PathBuf::from);
    match asked.map(Path::to_owned).or(named) {
        Some(path) => locate(path.as_os_str()).ok_or(Error::NoProgram { path }),
        None => PROGRAMS.iter().find_map(|name| locate(name.as_ref())).ok_or(Error::NoServer),
    }
}

/// As the shell does it: a name with a slash is a path, any other is searched on `PATH`. The answer holds in every folder, and
/// links are not followed: a server looks at the name it is called by (Debian's redis-server links to redis-check-rdb).
fn locate(name: &OsStr) -> Option<PathBuf> {
    if Path::new(name).components().count() > 1 {
        return is_program(Path::new(name)).then(|| std::path::absolute(name).ok())?;
    }
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// An error if one of the ports or bus ports is taken. They may still be taken before the servers start, which then say so.
pub(super) fn check_ports(ports: impl Iterator<Item = u16> + Clone) -> Result<(), Error> {
    let own = ports.clone().map(|port| (port, None));
    let bus = ports.map(|port| (port + BUS, Some(port)));
    for (port, bus_of) in own.chain(bus) {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|cause| Error::PortTaken {
            port,
            bus_of,
            cause,
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recognises_a_server_by_its_port() {
        let check = |cmdline: &str, expected| {
            assert_eq!(names_node(cmdline.as_bytes(), 7001), expected, "{cmdline}");
        };
        check("/usr/bin/redis-server 127.0.0.1:7001 [cluster]", true);
        check("valkey-server 127.0.0.1:7001 [cluster]\0\0\0", true);
        check("redis-server\0/x/7001/redis.conf\0", true);
        check("/usr/bin/redis-server 127.0.0.1:17001 [cluster]", false);
        check("redis-server\0/x/17001/redis.conf\0", false);
        check("sleep\x007001\0", false);
        check("", false);
    }

    #[test]
    fn runs_a_server_under_the_name_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("redis-server");
        std::os::unix::fs::symlink("/bin/sh", &link).unwrap();
        assert_eq!(locate(link.as_os_str()), Some(link));
    }

    #[test]
    fn does_not_take_this_process_for_a_server() {
        let here = env::current_dir().unwrap();
        assert!(!serves(std::process::id(), &here, 7001));
        assert!(!serves(u32::MAX, &here, 7001));
    }

    #[test]
    fn finds_programs_as_the_shell_does() {
        assert!(locate("sh".as_ref()).is_some_and(|path| path.is_absolute()));
        assert_eq!(locate("no-such-server".as_ref()), None);
        assert_eq!(locate("./sh".as_ref()), None);
        assert_eq!(locate("/etc/passwd".as_ref()), None, "not executable");
        let text = find(Some(Path::new("./no-such-server"))).unwrap_err().to_string();
        assert!(
            text.starts_with(
                "there is no program ./no-such-server: name an installed redis-server"
            ),
            "{text}"
        );
    }

    #[test]
    fn says_which_port_is_taken_and_whose_bus_it_is() {
        let holder = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let taken = holder.local_addr().unwrap().port();
        let text = |ports: [u16; 1]| check_ports(ports.into_iter()).unwrap_err().to_string();
        let expected = "cannot be had (Address already in use (os error 98)): stop what listens there, or use another --port";
        assert_eq!(text([taken]), format!("port {taken} {expected}"));
        let node = taken - BUS;
        assert_eq!(text([node]), format!("port {taken} (the cluster bus of {node}) {expected}"));
    }

    #[test]
    fn keeps_the_last_lines_of_a_log() {
        let log: Vec<String> = (1..=12).map(|n| format!("line {n}\n\n")).collect();
        let last = last_lines(&log.concat());
        assert!(last.starts_with("line 3\n") && last.ends_with("line 12"), "{last}");
        assert_eq!(last_lines(""), "");
    }
}
