//! How long it takes to move half of a cluster's slots to one of its nodes, and for how long that stops a source: slotway
//! beside `redis-cli --cluster reshard`, on clusters of their own with the same data, one after the other.
//!
//! ```text
//! cargo run --release --example reshard                     # 1 000 000 keys of 100 bytes on 4 primaries
//! cargo run --release --example reshard -- --keys 0         # empty slots
//! cargo run --release --example reshard -- --tool slotway   # one of the two
//! ```
//! Prints one line of JSON for each tool: seconds, keys a second, and the times of a `PING` that the first source is sent
//! every millisecond, in milliseconds. A third line is the cluster at rest, to tell what the machine adds by itself.

use std::error::Error;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::Parser;
use slotway::backend::Control;
use slotway::cluster::{Address, NodeId, SLOTS, Slot};
use slotway::manage::access::Access;
use slotway::manage::journal::Journal;
use slotway::manage::local::{self, Local};
use slotway::manage::mover::{self, MoveOptions, Reins};
use slotway::manage::plan::Move;
use slotway::manage::view::ClusterView;

/// Primaries; the last one takes slots from the others.
const PRIMARIES: u16 = 4;
/// Keys that are written in one go.
const TOGETHER: usize = 1000;

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
}

type Outcome<T> = Result<T, Box<dyn Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    let tools = match &options.tool {
        Some(tool) => vec![tool.as_str()],
        None => vec!["rest", "redis-cli", "slotway"],
    };
    for tool in tools {
        let folder = tempfile::tempdir()?;
        let cluster = start(folder.path()).await?;
        let result = measure(tool, &cluster, &options, folder.path()).await;
        cluster.stop().await?;
        result?;
    }
    Ok(())
}

async fn start(folder: &Path) -> Outcome<Local> {
    let dir = folder.join("cluster");
    let node_timeout_ms = 15_000;
    let options = local::Options {
        port: 0,
        nodes: PRIMARIES,
        replicas: 0,
        dir,
        node_timeout_ms,
        ..local::Options::default()
    };
    Ok(local::up(&options).await?)
}

async fn measure(tool: &str, cluster: &Local, options: &Options, folder: &Path) -> Outcome<()> {
    let entry = Address::parse(&cluster.nodes[0].address, None).ok_or("no address")?;
    let access = Access::default();
    let view = ClusterView::gather(&entry, &access).await?;
    fill(&view, options).await?;
    let view = ClusterView::gather(&entry, &access).await?;
    let (moves, keys) = (plan(&view, options.slots), keys_of(&view));
    let pulse = Pulse::start(&entry);
    let begun = Instant::now();
    match tool {
        "slotway" => by_slotway(moves, &view, options, folder).await?,
        "redis-cli" => by_redis_cli(&view, options.slots)?,
        _ => tokio::time::sleep(Duration::from_secs(5)).await,
    }
    let seconds = begun.elapsed().as_secs_f64();
    let [half, most, all] = pulse.stop()?;
    let after = ClusterView::gather(&entry, &access).await?;
    if keys_of(&after) != keys {
        return Err(format!("{keys} keys before, {} after", keys_of(&after)).into());
    }
    let receiver = view.nodes.last().and_then(|node| after.node(&node.own.id)).ok_or("no node")?;
    let (slots, arrived) = (receiver.own.slots.len() - SLOTS / 4, keys_of_node(receiver));
    let per_second = rate(arrived - keys / 4, seconds);
    #[expect(clippy::print_stdout, reason = "this is what it is for")]
    {
        println!(
            "{{\"tool\":\"{tool}\",\"slots\":{slots},\"keys\":{keys},\"bytes\":{},\"seconds\":{seconds:.2},\
             \"keys_per_second\":{per_second:.0},\"ping_ms\":{{\"p50\":{half:.2},\"p99\":{most:.2},\"max\":{all:.2}}}}}",
            options.bytes
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "three digits are told")]
fn rate(keys: u64, seconds: f64) -> f64 {
    keys as f64 / seconds
}

fn keys_of(view: &ClusterView) -> u64 {
    view.nodes.iter().map(keys_of_node).sum()
}

fn keys_of_node(node: &slotway::manage::view::NodeView) -> u64 {
    node.info.databases().iter().map(|(_, keys)| keys).sum()
}

/// Writes keys to their owners.
async fn fill(view: &ClusterView, options: &Options) -> Outcome<()> {
    let (owners, value) = (view.owners(), "x".repeat(options.bytes));
    for node in &view.nodes {
        let mut control =
            Control::connect(&node.address.to_string(), Duration::from_secs(10)).await?;
        let keys = (0..options.keys).map(|n| format!("key:{n:012}"));
        let is_own =
            |key: &String| owners[Slot::of(key.as_bytes()).index()].as_ref() == Some(&node.own.id);
        let own: Vec<String> = keys.filter(is_own).collect();
        for some in own.chunks(TOGETHER) {
            let set = |key: &String| vec!["SET".to_owned(), key.clone(), value.clone()];
            control.pipeline(&some.iter().map(set).collect::<Vec<_>>()).await?;
        }
    }
    Ok(())
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

fn by_redis_cli(view: &ClusterView, slots: usize) -> Outcome<()> {
    let id = |node: &slotway::manage::view::NodeView| -> NodeId { node.own.id.clone() };
    let last = view.nodes.last().map(id).ok_or("no node")?;
    let mut command = Command::new("redis-cli");
    command.args(["--cluster", "reshard", &view.nodes[0].address.to_string()]);
    command.args(["--cluster-from", "all", "--cluster-to", &last.0, "--cluster-yes"]);
    command.args(["--cluster-slots", &slots.to_string()]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    if output.status.success() { Ok(()) } else { Err(text.into_owned().into()) }
}

/// Somebody else who uses a source: one `PING` every millisecond, on a thread of its own.
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<std::io::Result<Vec<Duration>>>,
}

impl Pulse {
    fn start(node: &Address) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, node) = (Arc::clone(&stop), node.clone());
        let thread = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let mut stream = std::net::TcpStream::connect((node.host(), node.port()))?;
            stream.set_nodelay(true)?;
            let mut times = Vec::new();
            while !stopped.load(Relaxed) {
                let begun = Instant::now();
                stream.write_all(b"PING\r\n")?;
                stream.read_exact(&mut [0; 7])?;
                times.push(begun.elapsed());
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(times)
        });
        Self { stop, thread }
    }

    /// Half of all times, 99 of 100, and the longest one, in milliseconds.
    fn stop(self) -> Outcome<[f64; 3]> {
        self.stop.store(true, Relaxed);
        let mut times = self.thread.join().map_err(|_| "the pulse has panicked")??;
        times.sort_unstable();
        let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
        Ok([at(50), at(99), at(100)].map(|time| time.as_secs_f64() * 1000.0))
    }
}
