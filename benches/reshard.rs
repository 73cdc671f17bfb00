//! How long it takes to move half of a cluster's slots to one of its nodes, and for how long that stops a source: slotway
//! beside `redis-cli --cluster reshard`, on clusters of their own with the same data, one after the other.
//!
//! ```text
//! cargo run --release --example reshard                     # 1 000 000 keys of 100 bytes on 4 primaries
//! cargo run --release --example reshard -- --keys 0         # empty slots
//! cargo run --release --example reshard -- --tool slotway   # one of the two
//! cargo run --release --example reshard -- --clients 8      # while eight clients of a proxy use the keys
//! ```
//! Prints one line of JSON for each tool: seconds, keys a second, and the times of a `PING` that the first source is sent
//! every millisecond, in milliseconds; with clients also theirs, each of a `SET` and a `GET` that must give what was set.
//! A third line is the cluster at rest, to tell what the machine adds by itself.

mod users;

use std::io::{self, Write};
use std::net::TcpStream;
use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use slotway::cluster::{Address, NodeId, SLOTS};
use slotway::manage::access::Access;
use slotway::manage::journal::Journal;
use slotway::manage::local::Local;
use slotway::manage::mover::{self, MoveOptions, Reins};
use slotway::manage::plan::Move;
use slotway::manage::view::{ClusterView, NodeView};
use slotway::proxy;
use tokio::process::Command;
use users::{Data, Outcome, Pulse, expect, keys_of, keys_of_node, proxy_options, quantiles, start};

/// Primaries; the last one takes slots from the others.
const PRIMARIES: u16 = 4;

#[derive(Parser)]
struct Options {
    /// Keys, spread evenly over all slots.
    #[arg(long, default_value_t = 1_000_000)]
    keys: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Slots that are moved.
    #[arg(long, default_value_t = SLOTS / 2)]
    slots: usize,
    /// `slotway`, `redis-cli` or `rest`; all of them unless given.
    #[arg(long)]
    tool: Option<String>,
    /// Longest that slotway may stop a source for one batch, in milliseconds.
    #[arg(long)]
    max_block_ms: Option<u64>,
    /// Most pairs of nodes that slotway lets work at the same time.
    #[arg(long)]
    parallel: Option<usize>,
    /// Share of its time that slotway may keep a source busy, in percent.
    #[arg(long)]
    duty: Option<u32>,
    /// Clients of a proxy of slotway that use the keys meanwhile, one turn each millisecond.
    #[arg(long, default_value_t = 0)]
    clients: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    let tools = match &options.tool {
        Some(tool) => vec![tool.as_str()],
        None => vec!["rest", "redis-cli", "slotway"],
    };
    for tool in tools {
        let folder = tempfile::tempdir()?;
        let cluster = start(PRIMARIES, folder.path()).await?;
        let result = measure(tool, &cluster, &options, folder.path()).await;
        cluster.stop().await?;
        result?;
    }
    Ok(())
}

async fn measure(tool: &str, cluster: &Local, options: &Options, folder: &Path) -> Outcome<()> {
    let entry = Address::parse(&cluster.nodes[0].address, None).ok_or("no address")?;
    let access = Access::default();
    let view = ClusterView::gather(&entry, &access).await?;
    let data = Data { keys: options.keys, bytes: options.bytes };
    data.fill(&view).await?;
    let view = ClusterView::gather(&entry, &access).await?;
    let (moves, keys) = (plan(&view, options.slots), keys_of(&view));
    let proxy =
        if options.clients > 0 { Some(proxy::start(proxy_options(&view)?).await?) } else { None };
    if let Some(proxy) = &proxy {
        proxy.ready().await;
    }
    let pulse = Pulse::start((entry.host().to_owned(), entry.port()), ping);
    let clients = proxy.iter().flat_map(|proxy| data.clients(options.clients, proxy.data));
    let clients: Vec<Pulse> = clients.collect();
    let begun = Instant::now();
    match tool {
        "slotway" => by_slotway(moves, &view, options, folder).await?,
        "redis-cli" => by_redis_cli(&view, options.slots).await?,
        _ => tokio::time::sleep(Duration::from_secs(5)).await,
    }
    let seconds = begun.elapsed().as_secs_f64();
    let pings = quantiles(pulse.stop()?);
    let turns: Outcome<Vec<_>> = clients.into_iter().map(Pulse::stop).collect();
    let turns = quantiles(turns?.concat());
    if let Some(proxy) = proxy {
        proxy.shutdown().await;
    }
    let after = ClusterView::gather(&entry, &access).await?;
    if keys_of(&after) != keys {
        return Err(format!("{keys} keys before, {} after", keys_of(&after)).into());
    }
    let receiver = view.nodes.last().and_then(|node| after.node(&node.own.id)).ok_or("no node")?;
    let (slots, arrived) = (receiver.own.slots.len() - SLOTS / 4, keys_of_node(receiver));
    let per_second = rate(arrived - keys / 4, seconds);
    let bytes = options.bytes;
    #[expect(clippy::print_stdout, reason = "this is what it is for")]
    {
        println!(
            "{{\"tool\":\"{tool}\",\"slots\":{slots},\"keys\":{keys},\"bytes\":{bytes},\"seconds\":{seconds:.2},\
             \"keys_per_second\":{per_second:.0},\"ping_ms\":{pings},\"client_ms\":{turns}}}"
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "three digits are told")]
fn rate(keys: u64, seconds: f64) -> f64 {
    keys as f64 / seconds
}

/// The lowest slots of all nodes but the last one, as many of each, for the last one.
fn plan(view: &ClusterView, slots: usize) -> Vec<Move> {
    let Some((last, sources)) = view.nodes.split_last() else { return Vec::new() };
    let mut left = slots;
    let moves = sources.iter().enumerate().map(|(n, node)| {
        let share = left / (sources.len() - n);
        left -= share;
        let slots = node.own.slots.iter().take(share).copied().collect();
        Move { from: node.own.id.clone(), to: last.own.id.clone(), slots }
    });
    moves.collect()
}

async fn by_slotway(
    moves: Vec<Move>,
    view: &ClusterView,
    options: &Options,
    folder: &Path,
) -> Outcome<()> {
    let usual = MoveOptions::default();
    let how = MoveOptions {
        max_block: options.max_block_ms.map_or(usual.max_block, Duration::from_millis),
        duty: options.duty.unwrap_or(usual.duty),
        parallel: options.parallel.unwrap_or(usual.parallel),
        ..usual
    };
    let prepared = mover::prepare(moves, view, &Access::default(), &how).await?;
    let mut journal = Journal::begin(folder, prepared.begun())?;
    prepared.run(&mut journal, &Reins::default(), &mut |_| ()).await?;
    Ok(())
}

async fn by_redis_cli(view: &ClusterView, slots: usize) -> Outcome<()> {
    let id = |node: &NodeView| -> NodeId { node.own.id.clone() };
    let last = view.nodes.last().map(id).ok_or("no node")?;
    let mut command = Command::new("redis-cli");
    command.args(["--cluster", "reshard", &view.nodes[0].address.to_string()]);
    command.args(["--cluster-from", "all", "--cluster-to", &last.0, "--cluster-yes"]);
    command.args(["--cluster-slots", &slots.to_string()]);
    let output = command.output().await?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() { Ok(()) } else { Err(text.into_owned().into()) }
}

fn ping(stream: &mut TcpStream) -> io::Result<()> {
    stream.write_all(b"PING\r\n")?;
    expect(stream, b"+PONG\r\n")
}
