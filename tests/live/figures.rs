//! The figures of every event, for the proxy and for one to compare with; run by hand:
//!
//! `cargo test --release --test live -- --ignored --nocapture report_faults`
//!
//! `SLOTWAY_LOAD_TARGET` names a proxy to compare with, as `name=command`. The command is run by a shell once for each
//! event, with `{port}` replaced by the port it is to listen on and `{nodes}` by the nodes' addresses, divided by blanks.
//! `SLOTWAY_EVENTS` chooses events by their names, divided by commas.

use std::process::Stdio;
use std::time::Duration;

use slotway::proxy::Running;
use slotway::resp::value::Value;
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::cluster::Cluster;
use crate::events::Event;
use crate::tally::{Oddity, Tally};
use crate::{alone, front, server, until};

/// A proxy that is measured.
enum Target {
    Own(Running),
    Other { port: u16, process: Child },
}

impl Target {
    async fn start(command: Option<&str>, cluster: &Cluster) -> Self {
        match command {
            None => Self::Own(front::start_patient(cluster.addresses()).await),
            Some(command) => Self::other(command, cluster).await,
        }
    }

    async fn other(command: &str, cluster: &Cluster) -> Self {
        let port = server::free_ports().next().expect("a free port");
        let command = command.replace("{port}", &port.to_string());
        let command = command.replace("{nodes}", &cluster.addresses().join(" "));
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("exec {command}")]).kill_on_drop(true);
        let process = shell.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("a shell");
        until(Duration::from_secs(15), "the other proxy", async || {
            let client = Client::connect(("127.0.0.1", port)).await;
            let mut client = client.map_err(|error| error.to_string())?;
            for key in ["foo", "bar", "hello"] {
                match client.call(&format!("GET {key}")).await {
                    Value::Null => {}
                    other => return Err(format!("{other:?}")),
                }
            }
            Ok(())
        })
        .await;
        Self::Other { port, process }
    }

    async fn observe(self, event: Event, cluster: &mut Cluster) -> Tally {
        match self {
            Self::Own(proxy) => {
                let tally = event.happen_under_load(cluster, proxy.data).await;
                proxy.shutdown().await;
                tally
            }
            Self::Other { port, mut process } => {
                let tally = event.happen_under_load(cluster, ([127, 0, 0, 1], port).into()).await;
                process.kill().await.expect("our child");
                tally
            }
        }
    }
}

fn events() -> Vec<Event> {
    let chosen = std::env::var("SLOTWAY_EVENTS").unwrap_or_default();
    let is_chosen = |event: &Event| {
        let name = format!("{event:?}");
        chosen.is_empty() || chosen.split(',').any(|word| word.eq_ignore_ascii_case(&name))
    };
    Event::ALL.into_iter().filter(is_chosen).collect()
}

/// The oddities that have a column, with its heading.
const COLUMNS: [(Oddity, &str); 12] = [
    (Oddity::Redirect, "redirects"),
    (Oddity::Order, "order"),
    (Oddity::Disagreement, "MSET/MGET"),
    (Oddity::Confusion, "mixed up"),
    (Oddity::Excused, "excused"),
    (Oddity::Lost, "lost"),
    (Oddity::Doubled, "doubled"),
    (Oddity::Disordered, "disordered"),
    (Oddity::Ghost, "ghosts"),
    (Oddity::Unsaid, "unsaid"),
    (Oddity::Unverified, "unread"),
    (Oddity::Dropped, "dropped"),
];

fn heading() -> String {
    let columns: String = COLUMNS.iter().map(|(_, heading)| format!(" {heading} |")).collect();
    let names = "| event | proxy | commands | errors |";
    let figures = " longest stall s | p50 ms | p99 ms |";
    let rule = "---|".repeat(names.matches('|').count() - 1 + COLUMNS.len() + 3);
    format!("{names}{columns}{figures}\n|{rule}")
}

fn row(event: Event, name: &str, tally: &mut Tally) -> String {
    let counts: String =
        COLUMNS.iter().map(|(oddity, _)| format!(" {} |", tally.count(*oddity))).collect();
    let (p50, p99) = (tally.per_mille_ms(500), tally.per_mille_ms(990));
    let (commands, errors, stall) =
        (tally.commands, tally.error_count(), tally.stall.as_secs_f64());
    format!("| {event:?} | {name} | {commands} | {errors} |{counts} {stall:.2} | {p50:.2} | {p99:.2} |")
}

#[tokio::test]
#[ignore = "prints figures instead of judging them"]
async fn report_faults() {
    let _turn = alone().await;
    let other = std::env::var("SLOTWAY_LOAD_TARGET").ok();
    let other = other.as_ref().map(|target| target.split_once('=').expect("name=command"));
    let targets = [Some(("slotway", None)), other.map(|(name, command)| (name, Some(command)))];
    let mut rows = vec![heading()];
    for event in events() {
        for (name, command) in targets.into_iter().flatten() {
            let mut cluster = Cluster::start(3, 1).await;
            let target = Target::start(command, &cluster).await;
            let mut tally = target.observe(event, &mut cluster).await;
            eprintln!("{event:?}, {name}: {tally}");
            rows.push(row(event, name, &mut tally));
        }
    }
    eprintln!("\n{}", rows.join("\n"));
}
