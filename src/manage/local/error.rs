//! Everything that can keep a local cluster from coming up: what happened, to which port or folder, and what to do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use super::plan;
use crate::backend::control::ControlError;

/// Why a local cluster could not be started, stopped or looked at. The text is complete: a cause is part of it, and is not
/// told once more by `source()`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither program is installed.
    #[error(
        "neither valkey-server nor redis-server is on PATH: install one (apt-get install redis-server, or \
         valkey-server), or name the program with --server or SLOTWAY_SERVER"
    )]
    NoServer,
    /// The program that was asked for does not exist.
    #[error(
        "there is no program {}: name an installed redis-server or valkey-server with --server or SLOTWAY_SERVER",
        .path.display()
    )]
    NoProgram {
        /// As it was given.
        path: PathBuf,
    },
    /// The nodes do not suffice for three primaries.
    #[error(
        "a cluster needs at least {} primaries, and {nodes} nodes with {replicas} replicas each make {}: use at least \
         {} nodes, or fewer replicas", plan::MIN_PRIMARIES, plan::primaries(*nodes, *replicas),
        plan::nodes_needed(*replicas)
    )]
    TooFewNodes {
        /// Nodes asked for.
        nodes: u16,
        /// Replicas asked for, of each primary.
        replicas: u16,
    },
    /// More nodes than a cluster is made for.
    #[error("{nodes} nodes are more than a cluster is made for: use at most {}", plan::MAX_NODES)]
    TooManyNodes {
        /// Nodes asked for.
        nodes: u16,
    },
    /// A bus port would lie beyond the last port there is.
    #[error(
        "{nodes} nodes from port {port} on would need ports beyond {}, and the bus port of each is 10000 higher: use \
         a lower port",
        plan::MAX_PORT
    )]
    PortsTooHigh {
        /// Port of the first node.
        port: u16,
        /// Nodes asked for.
        nodes: u16,
    },
    /// Somebody else listens there.
    #[error("port {port}{} cannot be had ({cause}): stop what listens there, or use another --port", bus_note(*.bus_of))]
    PortTaken {
        /// The port that is taken.
        port: u16,
        /// The node whose bus it would have been, if it is not a node's own port.
        bus_of: Option<u16>,
        /// What the system said.
        cause: io::Error,
    },
    /// No run of free ports was found.
    #[error("no {nodes} free ports in a row were found: name the first with --port")]
    NoFreePorts {
        /// Nodes asked for.
        nodes: u16,
    },
    /// The folder's servers are running.
    #[error(
        "a local cluster already runs in {} (port {port}, pid {pid}): use it, or stop it with `slotway local down \
         --dir {}`", .dir.display(), .dir.display()
    )]
    AlreadyRunning {
        /// The folder.
        dir: PathBuf,
        /// One of the nodes.
        port: u16,
        /// Its process.
        pid: u32,
    },
    /// There are files of an earlier cluster that can be used again.
    #[error(
        "{} is left of an earlier cluster: pass --keep to start on its data, or remove {}", .found.display(),
        .dir.display()
    )]
    Leftover {
        /// What was found.
        found: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// There are files in the way that cannot be used again.
    #[error("{} is in the way and belongs to no complete cluster: remove {}", .found.display(), .dir.display())]
    Remains {
        /// What was found.
        found: PathBuf,
        /// The folder.
        dir: PathBuf,
    },
    /// The data there is that of another cluster.
    #[error(
        "{} keeps the data of {nodes} nodes from port {port} on with {replicas} replicas each: start it with `--port \
         {port} --nodes {nodes} --replicas {replicas} --keep`, or use another --dir", .dir.display()
    )]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// Port of its first node.
        port: u16,
        /// Its nodes.
        nodes: u16,
        /// Its replicas of each primary.
        replicas: u16,
    },
    /// Nothing to look at.
    #[error("no local cluster in {}: start one with `slotway local up`", .dir.display())]
    NoCluster {
        /// The folder.
        dir: PathBuf,
    },
    /// A server ended while the cluster was being made.
    #[error("the server of port {port} ended at start ({status}); its last words:\n{log}")]
    Exited {
        /// The node.
        port: u16,
        /// How it ended.
        status: ExitStatus,
        /// The last lines of its log.
        log: String,
    },
    /// A node did not do as it was told.
    #[error("{address} did not answer `{command}` as it should: {cause}")]
    Refused {
        /// The node.
        address: String,
        /// What it was asked.
        command: String,
        /// What went wrong.
        cause: ControlError,
    },
    /// A node answered something that no server answers.
    #[error(
        "{address} answered `{command}` with a reply of an unexpected type: is it a Redis or Valkey server?"
    )]
    Strange {
        /// The node.
        address: String,
        /// What it was asked.
        command: String,
    },
    /// A stage took too long.
    #[error(
        "the cluster did not come up within {seconds} s: {missing}; with --keep the nodes' folders and logs stay"
    )]
    Late {
        /// How long it was waited for.
        seconds: u64,
        /// What was still missing.
        missing: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}: {cause}", .path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// `local.toml` is not what `up` wrote.
    #[error("{} cannot be understood ({reason}): remove it", .path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// For `map_err`: the I/O error of doing `action` with `path`.
pub(super) fn file(
    action: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |cause| Error::File { action, path, cause }
}

fn bus_note(bus_of: Option<u16>) -> impl fmt::Display {
    bus_of.map_or_else(String::new, |port| format!(" (the cluster bus of {port})"))
}
