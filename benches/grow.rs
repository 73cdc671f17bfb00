//! What clients of a proxy feel while a cluster shrinks and grows, twice in a row: slotway by its admin port beside `redis-cli
//! --cluster`, on clusters of their own with the same data, one after the other.
//!
//! ```text
//! cargo run --release --example grow                     # 200 000 keys of 100 bytes, 3 primaries and a fourth that comes and goes
//! cargo run --release --example grow -- --tool slotway   # one of the two
//! ```
//! Each client does a turn each millisecond: a `SET` and a `GET` that must give what was set, or the program fails. Prints one
//! line of JSON for each stage: seconds, times of the turns in milliseconds, and redirects that the proxy has followed.

mod users;

use std::path::Path;
use std::time::{Duration, Instant};

use clap::Parser;
use slotway::backend::Control;
use slotway::cluster::Address;
use slotway::manage::access::Access;
use slotway::manage::local::Local;
use slotway::manage::view::ClusterView;
use slotway::proxy::{self, Running};
use slotway::resp::value::{self, Value};
use tokio::process::Command;
use tokio::time::sleep;
use users::{Data, Outcome, Pulse, keys_of, proxy_options, quantiles, start};

/// Primaries; the last one leaves and joins.
const PRIMARIES: u16 = 4;
/// How often it does.
const TIMES: usize = 2;
/// How long clients are looked at before and after.
const REST: Duration = Duration::from_secs(5);
/// How often a job is looked at, or a cluster that has yet to agree.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Parser)]
struct Options {
    /// Keys, spread evenly over all slots.
    #[arg(long, default_value_t = 200_000)]
    keys: usize,
    /// Bytes of each value.
    #[arg(long, default_value_t = 100)]
    bytes: usize,
    /// Clients of the proxy.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// `slotway` or `redis-cli`; both unless given.
    #[arg(long)]
    tool: Option<String>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    let tools =
        options.tool.as_deref().map_or_else(|| vec!["redis-cli", "slotway"], |tool| vec![tool]);
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
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.address.clone()).collect();
    let view = gather(&addresses[0]).await?;
    let data = Data { keys: options.keys, bytes: options.bytes };
    data.fill(&view).await?;
    let mut settings = proxy_options(&view)?;
    settings.admin = Some("127.0.0.1:0".to_owned());
    settings.state_folder = Some(folder.to_owned());
    let proxy = proxy::start(settings).await?;
    proxy.ready().await;
    let mut stages = Stages {
        tool,
        clients: data.clients(options.clients, proxy.data),
        admin: admin(&proxy).await?,
    };
    sleep(REST).await;
    stages.end("before", REST).await?;
    let [entry, .., node] = &addresses[..] else { return Err("no nodes".into()) };
    for _ in 0..TIMES {
        for verb in ["shrink", "grow"] {
            let begun = Instant::now();
            match (tool, verb) {
                ("slotway", "shrink") => job(&mut stages.admin, &["DELNODE", node]).await?,
                ("slotway", _) => job(&mut stages.admin, &["ADDNODE", node]).await?,
                (_, "shrink") => shrink_by_redis_cli(entry, node).await?,
                _ => grow_by_redis_cli(&addresses).await?,
            }
            stages.end(verb, begun.elapsed()).await?;
        }
    }
    sleep(REST).await;
    stages.end("after", REST).await?;
    for client in stages.clients {
        client.stop()?;
    }
    proxy.shutdown().await;
    let (view, keys) = (gather(entry).await?, options.keys as u64);
    let found = keys_of(&view);
    if found == keys { Ok(()) } else { Err(format!("{found} keys of {keys} are there").into()) }
}

async fn gather(entry: &str) -> Outcome<ClusterView> {
    let entry = Address::parse(entry, None).ok_or("no address")?;
    Ok(ClusterView::gather(&entry, &Access::default()).await?)
}

async fn admin(proxy: &Running) -> Outcome<Control> {
    let address = proxy.admin.ok_or("no admin port")?.to_string();
    Ok(Control::connect(&address, Duration::from_secs(10)).await?)
}

/// Who tells of each stage when it is over.
struct Stages<'a> {
    tool: &'a str,
    clients: Vec<Pulse>,
    admin: Control,
}

impl Stages<'_> {
    async fn end(&mut self, stage: &str, time: Duration) -> Outcome<()> {
        let (tool, seconds) = (self.tool, time.as_secs_f64());
        let times =
            quantiles(self.clients.iter().flat_map(|client| client.times.try_iter()).collect());
        let stats = call(&mut self.admin, &["PROXY", "STATS"]).await?;
        let (moved, ask) = (field(&stats, "moved")?, field(&stats, "ask")?);
        #[expect(clippy::print_stdout, reason = "this is what it is for")]
        {
            println!(
                "{{\"tool\":\"{tool}\",\"stage\":\"{stage}\",\"seconds\":{seconds:.2},\"client_ms\":{times},\
                 \"moved_so_far\":{moved},\"ask_so_far\":{ask}}}"
            );
        }
        Ok(())
    }
}

async fn call(admin: &mut Control, words: &[&str]) -> Outcome<Value> {
    let request: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
    Ok(admin.call(&request).await?)
}

/// A field of a map that is a flat list.
fn field(map: &Value, name: &str) -> Outcome<String> {
    let fields = value::array(map).ok_or("no map")?;
    let mut pairs = fields.chunks(2);
    let pair = pairs.find(|pair| value::text(&pair[0]) == Some(name)).ok_or("no such field")?;
    let number = value::integer(&pair[1]).map(|number| number.to_string());
    Ok(number.or_else(|| value::text(&pair[1]).map(str::to_owned)).unwrap_or_default())
}

/// Has the proxy do a job, and waits for its end.
async fn job(admin: &mut Control, order: &[&str]) -> Outcome<()> {
    let id = call(admin, &[&["PROXY", "CLUSTER"], order].concat()).await?;
    let id = value::text(&id).ok_or("no job")?.to_owned();
    loop {
        let status = call(admin, &["PROXY", "JOB", "STATUS", &id]).await?;
        match field(&status, "state")?.as_str() {
            "completed" => return Ok(()),
            "failed" | "cancelled" => return Err(format!("{status:?}").into()),
            _ => sleep(LOOK).await,
        }
    }
}

async fn shrink_by_redis_cli(entry: &str, node: &str) -> Outcome<()> {
    let id = gather(node)
        .await?
        .nodes
        .iter()
        .find(|other| other.address.to_string() == node)
        .map(|node| node.own.id.clone());
    let id = id.ok_or("no such node")?;
    redis_cli(&["rebalance", entry, "--cluster-weight", &format!("{id}=0")]).await?;
    redis_cli(&["del-node", entry, &id.0]).await
}

async fn grow_by_redis_cli(addresses: &[String]) -> Outcome<()> {
    let [entry, .., node] = addresses else { return Err("no nodes".into()) };
    redis_cli(&["add-node", node, entry]).await?;
    // It does not wait until all nodes know the new one, nor until that takes keys.
    while !is_known(node, addresses).await? || !is_well(node).await? {
        sleep(LOOK).await;
    }
    redis_cli(&["rebalance", entry, "--cluster-use-empty-masters"]).await
}

/// Whether all nodes have heard of one; for a minute after it was removed they will not.
async fn is_known(node: &str, addresses: &[String]) -> Outcome<bool> {
    for address in addresses {
        let mut control = Control::connect(address, Duration::from_secs(10)).await?;
        let nodes = call(&mut control, &["CLUSTER", "NODES"]).await?;
        let nodes = value::text(&nodes).unwrap_or_default();
        let known = nodes.lines().find(|line| line.contains(node));
        if known.is_none_or(|line| line.contains("handshake")) {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn is_well(node: &str) -> Outcome<bool> {
    let mut control = Control::connect(node, Duration::from_secs(10)).await?;
    let info = call(&mut control, &["CLUSTER", "INFO"]).await?;
    Ok(value::text(&info).is_some_and(|info| info.contains("cluster_state:ok")))
}

async fn redis_cli(words: &[&str]) -> Outcome<()> {
    let output = Command::new("redis-cli").arg("--cluster").args(words).output().await?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(()) } else { Err(text.into()) }
}
