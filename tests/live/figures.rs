//! The figures of every event, for the proxy and for one to compare with; run by hand:
//!
//! `cargo test --release --test live -- --ignored --nocapture report_faults`
//!
//! `SLOTWAY_LOAD_TARGET` names a proxy to compare with, as `name=command`. The command is run by a shell once for each
//! event, with `{port}` replaced by the port it is to listen on and `{nodes}` by the nodes' addresses, divided by blanks.
//! `SLOTWAY_EVENTS` chooses events by their names, divided by commas.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use slotway::proxy::Running;
use slotway::resp::value::Value;
use tokio::process::{Child, Command};

use crate::client::Client;
use crate::cluster::Cluster;
use crate::events::{Event, Story};
use crate::load::Plan;
use crate::tally::Oddity;
use crate::{alone, front, server, until};

/// A proxy that is measured.
enum Target {
    Own(Running),
    Other { port: u16, process: Child },
}

impl Target {
    async fn start(command: Option<&str>, cluster: &Cluster) -> Self {
        match command {
            None => Self::Own(front::start(front::patient(cluster.addresses())).await),
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

    async fn observe(self, event: Event, cluster: &mut Cluster) -> Story {
        match self {
            Self::Own(proxy) => {
                let story = event.happen_under_load(cluster, plan(proxy.data)).await;
                proxy.shutdown().await;
                story
            }
            Self::Other { port, mut process } => {
                let plan = plan(([127, 0, 0, 1], port).into());
                let story = event.happen_under_load(cluster, plan).await;
                process.kill().await.expect("our child");
                story
            }
        }
    }
}

/// The same load for all; not every proxy knows RESP3.
fn plan(target: SocketAddr) -> Plan {
    Plan { resp3: false, ..Plan::new(target) }
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

fn line(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |", cells.collect::<Vec<_>>().join(" | "))
}

fn heading() -> Vec<String> {
    let columns = COLUMNS.iter().map(|(_, heading)| *heading);
    let front = ["event", "proxy", "commands", "errors"].into_iter();
    let back =
        ["commands/s", "took s", "outage s", "longest stall s", "p50 ms", "p99 ms"].into_iter();
    let cells: Vec<String> = front.chain(columns).chain(back).map(str::to_owned).collect();
    let rule = line(cells.iter().map(|_| "---".to_owned()));
    vec![line(cells.into_iter()), rule]
}

fn row(event: Event, name: &str, story: &mut Story) -> String {
    let tally = &mut story.tally;
    let rate = u128::from(tally.commands) * 1000 / tally.lasted.as_millis().max(1);
    let times = [story.took, story.outage, tally.stall].map(|time| time.as_secs_f64());
    let latencies = [tally.per_mille_ms(500), tally.per_mille_ms(990)];
    let odd = COLUMNS.iter().map(|(oddity, _)| tally.count(*oddity).to_string());
    let cells = [format!("{event:?}"), name.to_owned()].into_iter();
    let cells = cells.chain([tally.commands, tally.error_count()].map(|count| count.to_string()));
    let cells = cells.chain(odd).chain([rate.to_string()]);
    line(cells.chain(times.into_iter().chain(latencies).map(|figure| format!("{figure:.2}"))))
}

#[tokio::test]
#[ignore = "prints figures instead of judging them"]
async fn report_faults() {
    let _turn = alone().await;
    let other = std::env::var("SLOTWAY_LOAD_TARGET").ok();
    let other = other.as_ref().map(|target| target.split_once('=').expect("name=command"));
    let targets = [Some(("slotway", None)), other.map(|(name, command)| (name, Some(command)))];
    let mut rows = heading();
    for event in events() {
        for (name, command) in targets.into_iter().flatten() {
            let mut cluster = Cluster::start(3, 1).await;
            let target = Target::start(command, &cluster).await;
            let mut story = target.observe(event, &mut cluster).await;
            eprintln!("{event:?}, {name}: {story}");
            rows.push(row(event, name, &mut story));
        }
    }
    eprintln!("\n{}", rows.join("\n"));
}
