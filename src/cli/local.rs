//! `slotway local up|down|status`: the words of the command line, and what is written to the terminal.
//!
//! Progress goes to standard error, the table of nodes to standard output.

use std::future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::manage::local::{self, DIR, Local, Options, PORT, Status};

/// What `slotway local` understands.
#[derive(Args, Debug)]
pub struct LocalArgs {
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Start servers and make a cluster of them; runs until Ctrl-C unless detached
    Up(UpArgs),
    /// Stop what `up --detach` left running
    Down(Place),
    /// Show the nodes; exit code 1 unless all run and agree
    Status(Place),
}

#[derive(Args, Debug)]
struct UpArgs {
    #[command(flatten)]
    place: Place,
    /// Port of the first node; the others follow. 0 looks for free ones
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// Number of nodes
    #[arg(long, default_value_t = 6)]
    nodes: u16,
    /// Replicas of each primary
    #[arg(long, default_value_t = 1)]
    replicas: u16,
    /// Keep the data when the cluster stops, and start on the data that was kept
    #[arg(long)]
    keep: bool,
    /// Return when the cluster is up, and leave it running
    #[arg(long)]
    detach: bool,
    /// The server program; else `SLOTWAY_SERVER` names it, else it is valkey-server or redis-server on PATH
    #[arg(long, value_name = "PATH")]
    server: Option<PathBuf>,
    /// How long a node may be silent before the others suspect it, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000)]
    node_timeout: u64,
}

#[derive(Args, Debug)]
struct Place {
    /// Folder of the cluster
    #[arg(long, default_value = DIR)]
    dir: PathBuf,
}

/// Does what the arguments say. Needs a tokio runtime with I/O and time enabled.
pub async fn run(args: &LocalArgs) -> Result<ExitCode> {
    match &args.verb {
        Verb::Up(args) => up(args).await,
        Verb::Down(place) => down(place).await,
        Verb::Status(place) => status(place).await,
    }
}

async fn up(args: &UpArgs) -> Result<ExitCode> {
    let options = args.options();
    let mut stop = Stop::listen()?;
    let local = tokio::select! {
        local = local::up_telling(&options, tell) => local?,
        () = stop.asked() => {
            // The servers ended with the future that started them; their folders are still there.
            local::down(&options.dir).await?;
            tell("stopped before the cluster was up");
            return Ok(ExitCode::FAILURE);
        }
    };
    show(&Status::from(&*local.nodes))?;
    if args.detach {
        local.detach();
        tell(&format!(
            "the cluster runs; stop it with `slotway local down --dir {}`",
            options.dir.display()
        ));
        return Ok(ExitCode::SUCCESS);
    }
    attend(local, stop, args.keep).await
}

/// Stays with a cluster until it is to stop, or has nothing left that could.
async fn attend(mut local: Local, mut stop: Stop, keep: bool) -> Result<ExitCode> {
    let data = if keep { "keeps its data" } else { "deletes its data" };
    tell(&format!("the cluster runs; Ctrl-C stops it and {data}"));
    loop {
        tokio::select! {
            ended = local.next_exit() => match ended {
                Some((address, status)) => tell(&format!("{address} has ended ({status})")),
                None => break,
            },
            () = stop.asked() => break,
        }
    }
    local.stop().await?;
    tell("the cluster has stopped");
    Ok(ExitCode::SUCCESS)
}

async fn down(place: &Place) -> Result<ExitCode> {
    match local::down(&place.dir).await? {
        0 => tell(&format!("no local cluster runs in {}", place.dir.display())),
        stopped => tell(&format!("{stopped} servers stopped")),
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(place: &Place) -> Result<ExitCode> {
    let status = local::status(&place.dir).await?;
    show(&status)?;
    let Some(fault) = status.fault else { return Ok(ExitCode::SUCCESS) };
    tell(&fault);
    Ok(ExitCode::FAILURE)
}

impl UpArgs {
    fn options(&self) -> Options {
        Options {
            port: self.port,
            nodes: self.nodes,
            replicas: self.replicas,
            dir: self.place.dir.clone(),
            keep: self.keep,
            node_timeout_ms: self.node_timeout,
            server: self.server.clone(),
        }
    }
}

/// The signals that ask a program to end.
struct Stop([Signal; 3]);

impl Stop {
    fn listen() -> Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self([
            on(SignalKind::interrupt())?,
            on(SignalKind::terminate())?,
            on(SignalKind::hangup())?,
        ]))
    }

    async fn asked(&mut self) {
        future::poll_fn(|cx| {
            let asked = self.0.iter_mut().any(|signal| signal.poll_recv(cx).is_ready());
            if asked { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
    }
}

fn show(status: &Status) -> Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "{status}").and_then(|()| out.flush()).context("cannot write to standard output")
}

fn tell(line: &str) {
    // Progress that nobody can read is no reason to stop.
    let _ = writeln!(io::stderr().lock(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        local: LocalArgs,
    }

    fn options(line: &str) -> (Options, bool) {
        let words = std::iter::once("local").chain(line.split_whitespace());
        let Verb::Up(args) =
            Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).local.verb
        else {
            panic!("{line}: not `up`")
        };
        (args.options(), args.detach)
    }

    #[test]
    fn defaults_are_those_of_the_library() {
        assert_eq!(options("up"), (Options::default(), false));
    }

    #[test]
    fn every_option_arrives() {
        let line = "up --port 7101 --nodes 9 --replicas 2 --dir /x --keep --detach --server /s --node-timeout 900";
        let expected = Options {
            port: 7101,
            nodes: 9,
            replicas: 2,
            dir: "/x".into(),
            keep: true,
            node_timeout_ms: 900,
            server: Some("/s".into()),
        };
        assert_eq!(options(line), (expected, true));
    }

    #[test]
    fn refuses_what_it_does_not_understand() {
        for line in ["", "up --port 70000", "up --nodes -1", "down --keep", "sideways"] {
            let words = std::iter::once("local").chain(line.split_whitespace());
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }
}
