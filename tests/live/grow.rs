//! A cluster grows and shrinks through the admin port while clients use it, and notices nothing.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::proxy::{self, Options, Running};
use slotway::resp::value::{self, Value};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::client::{Client, bulk, ok};
use crate::cluster::Cluster;
use crate::load::{Load, Plan};
use crate::server::Server;
use crate::{beside_others, front, under_load, until};

/// How long a job may take on a busy machine.
pub(crate) const JOB: Duration = Duration::from_secs(120);

/// As a proxy is that has an admin port, and keeps its journals there.
pub(crate) fn options(cluster: &Cluster, folder: &TempDir) -> Options {
    let mut options = front::options(cluster.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.state_folder = Some(folder.path().to_owned());
    options
}

/// A proxy with an admin port, and where its journals are.
pub(crate) async fn administered(cluster: &Cluster) -> (Running, Client, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = front::start(options(cluster, &folder)).await;
    let admin = Client::to(proxy.admin.expect("an admin port")).await;
    (proxy, admin, folder)
}

/// Begins a job and gives its name.
pub(crate) async fn begin(admin: &mut Client, line: &str) -> String {
    let answer = admin.call(&format!("PROXY CLUSTER {line}")).await;
    value::text(&answer).unwrap_or_else(|| panic!("{line}: {answer:?}")).to_owned()
}

/// One field of a job.
pub(crate) async fn field(admin: &mut Client, id: &str, name: &str) -> String {
    let status = admin.call(&format!("PROXY JOB STATUS {id}")).await;
    let fields = value::array(&status).unwrap_or_else(|| panic!("{status:?}")).to_vec();
    let at = fields.iter().step_by(2).position(|field| value::text(field) == Some(name));
    let value = &fields[2 * at.unwrap_or_else(|| panic!("no {name} in {status:?}")) + 1];
    value::text(value).map_or_else(|| format!("{value:?}"), str::to_owned)
}

/// Waits until a job is so.
pub(crate) async fn becomes(admin: &mut Client, id: &str, state: &str) {
    until(JOB, "another state", async || {
        let is = field(admin, id, "state").await;
        if is == state {
            return Ok(());
        }
        assert!(is != "failed", "{:?}", admin.call(&format!("PROXY JOB LOG {id}")).await);
        Err(is)
    })
    .await;
}

/// Waits until a job has completed; or has failed, and what it told.
pub(crate) async fn ends(admin: &mut Client, id: &str) -> Result<(), String> {
    until(JOB, "the end of a job", async || match &*field(admin, id, "state").await {
        "completed" => Ok(Ok(())),
        "failed" => Ok(Err(format!("{:?}", admin.call(&format!("PROXY JOB LOG {id}")).await))),
        state => Err(state.to_owned()),
    })
    .await
}

pub(crate) fn error(text: &str) -> Value {
    Value::Error(text.to_owned().into())
}

#[tokio::test]
async fn a_node_joins_and_leaves_under_load() {
    let mut cluster = Cluster::start(3, 0).await;
    let _turn = under_load().await;
    let new = cluster.start_node().await;
    let address = cluster.address(new);
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut load = Load::start(Plan::light(proxy.data));
    load.advance(10).await;
    let add = format!("ADDNODE {address} JOBID first");
    let plan = admin.call(&format!("PROXY CLUSTER ADDNODE {address} DRYRUN")).await;
    for part in ["\"join\"", "\"moves\":[{"] {
        assert!(value::text(&plan).is_some_and(|plan| plan.contains(part)), "{part}: {plan:?}");
    }
    let id = begin(&mut admin, &add).await;
    assert_eq!(begin(&mut admin, &add).await, id, "the same token is the same job");
    let other = admin.call("PROXY CLUSTER REBALANCE JOBID first").await;
    let text = format!("CONFLICT first is the token of {id}, which is another one");
    assert_eq!(other, error(&text));
    becomes(&mut admin, &id, "completed").await;
    load.advance(10).await;
    assert_eq!(cluster.slots_of(new).await.len(), 4096);
    assert_eq!(field(&mut admin, &id, "slots_done").await, "Integer(4096)");
    // It is what it is to be already.
    let again = begin(&mut admin, &format!("ADDNODE {address}")).await;
    becomes(&mut admin, &again, "completed").await;
    assert_eq!(cluster.slots_of(new).await.len(), 4096);
    let refused = admin.call(&format!("PROXY CLUSTER DELNODE {address} STRATEGY forget")).await;
    let text = format!("NOTEMPTY Node {address} is not empty! Reshard data away and try again.");
    assert_eq!(refused, error(&text));
    let id = begin(&mut admin, &format!("DELNODE {address}")).await;
    becomes(&mut admin, &id, "completed").await;
    load.advance(10).await;
    load.stop().await.expect_flawless();
    cluster.agreed().await;
    assert_eq!(proxy.topology().nodes().len(), 3);
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_job_is_paused_cut_off_and_resumed() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    for n in 0..3000 {
        assert_eq!(client.ask(&["SET", &format!("key{n}"), &n.to_string()]).await, ok());
    }
    let from = cluster.id(0).to_owned();
    let reshard = format!("RESHARD SLOTS 1500 FROM {from} TO {} RATE 50", cluster.id(1));
    let id = begin(&mut admin, &reshard).await;
    becomes(&mut admin, &id, "running").await;
    let refused = admin.call("PROXY CLUSTER REBALANCE").await;
    assert_eq!(refused, error(&format!("JOBRUNNING {id}")));
    assert_eq!(admin.call(&format!("PROXY JOB PAUSE {id}")).await, ok());
    assert_eq!(field(&mut admin, &id, "state").await, "paused");
    assert_eq!(admin.call(&format!("PROXY JOB RESUME {id}")).await, ok());
    let slower = format!("PROXY JOB SETRATE {id} 1MiB/s MAXBLOCK 5");
    assert_eq!(admin.call(&slower).await, ok());
    let log = format!("{:?}", admin.call(&format!("PROXY JOB LOG {id}")).await);
    assert!(log.contains("at most 1 MiB each second") && log.contains("longer than 5 ms"), "{log}");
    assert_eq!(admin.call(&format!("PROXY JOB SETRATE {id} 50")).await, ok());
    assert_eq!(admin.call(&format!("PROXY JOB CANCEL {id} NOW")).await, ok());
    becomes(&mut admin, &id, "cancelled").await;
    assert_eq!(field(&mut admin, &id, "resumable").await, "yes");
    assert!(cluster.slots_of(1).await.len() < 5461 + 1500);
    let again = admin.call(&format!("PROXY JOB RESUME {id}")).await;
    let again = value::text(&again).unwrap_or_else(|| panic!("{again:?}")).to_owned();
    becomes(&mut admin, &again, "completed").await;
    assert_eq!(cluster.slots_of(1).await.len(), 5461 + 1500);
    for n in 0..3000 {
        assert_eq!(client.ask(&["GET", &format!("key{n}")]).await, bulk(n.to_string()));
    }
    assert_eq!(
        admin.call(&format!("PROXY JOB PAUSE {id}")).await,
        error(&format!("PRECONDITION job {id} is over"))
    );
    proxy.shutdown().await;
}

/// The map follows the slots without a look at the cluster, so that no node has to say where they are; and a node that has left
/// and is on it still is not taken for the cluster.
#[tokio::test]
async fn requests_go_where_slots_have_moved() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(4, 0).await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = options(&cluster, &folder);
    let never = Duration::from_secs(3600);
    (options.discovery.interval, options.discovery.spacing) = (never, never);
    let proxy = front::start(options).await;
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    let mut client = Client::to(proxy.data).await;
    for n in 0..300 {
        assert_eq!(client.ask(&["SET", &format!("key{n}"), &n.to_string()]).await, ok());
    }
    // Who is asked first.
    let leaver = (0..4).min_by_key(|n| cluster.id(*n).to_owned()).expect("nodes");
    let id = begin(&mut admin, &format!("DELNODE {}", cluster.id(leaver))).await;
    becomes(&mut admin, &id, "completed").await;
    for n in 0..300 {
        assert_eq!(client.ask(&["GET", &format!("key{n}")]).await, bulk(n.to_string()));
    }
    let stats = admin.call("PROXY STATS").await;
    let stats = value::array(&stats).expect("numbers");
    let at = stats.iter().position(|name| value::text(name) == Some("moved")).expect("it is there");
    assert_eq!(stats[at + 1], Value::Integer(0));
    let topology = proxy.topology();
    assert_eq!((topology.nodes().len(), topology.primaries().len()), (4, 3));
    let owned = cluster.slots_of((leaver + 1) % 4).await.len();
    assert!((5461..=5462).contains(&owned), "{owned}");
    let plan = admin.call("PROXY CLUSTER REBALANCE DRYRUN").await;
    assert!(value::text(&plan).is_some_and(|plan| plan.contains("\"moves\":[]")), "{plan:?}");
    proxy.shutdown().await;
}

/// A proxy as a program of its own; its log has to be kept, or it would be written to nobody.
pub(crate) type Program = (Child, Lines<BufReader<ChildStderr>>);

pub(crate) async fn program(cluster: &Cluster, state: &Path) -> (Program, Client) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command.arg("serve").args(cluster.addresses()).args(["--workers", "1", "--http", "off"]);
    command.args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    command.env("XDG_STATE_HOME", state).stdin(Stdio::null()).stdout(Stdio::null());
    let mut process = command.stderr(Stdio::piped()).kill_on_drop(true).spawn().expect("it starts");
    let mut log = BufReader::new(process.stderr.take().expect("a log")).lines();
    loop {
        let line = log.next_line().await.expect("a log").expect("it runs");
        if let Some((_, address)) = line.split_once(" admin=") {
            return ((process, log), Client::to(address.trim()).await);
        }
    }
}

/// Orders something with keys enough to be cut off in the middle, kills the proxy, and starts another one.
async fn cut_off(
    cluster: &Cluster,
    state: &Path,
    ((mut process, log), mut admin): (Program, Client),
    order: &str,
) -> (String, (Program, Client)) {
    let id = begin(&mut admin, &format!("{order} RATE 50")).await;
    until(JOB, "some slots arrive", async || match field(&mut admin, &id, "slots_done").await {
        none if none == "Integer(0)" => Err(field(&mut admin, &id, "phase").await),
        _ => Ok(()),
    })
    .await;
    assert_eq!(field(&mut admin, &id, "state").await, "running");
    process.kill().await.expect("it is ours");
    drop(log);
    (id, program(cluster, state).await)
}

/// Each time the next proxy goes on with it by itself, to the end of the order and not only of the moves.
#[tokio::test]
async fn a_job_of_a_proxy_that_was_killed_goes_on_with_the_next() {
    let mut cluster = Cluster::start(3, 0).await;
    let _turn = under_load().await;
    let new = cluster.start_node().await;
    let state = tempfile::tempdir().expect("a folder");
    let serving = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(serving.data).await;
    for n in 0..3000 {
        assert_eq!(client.ask(&["SET", &format!("key{n}"), &n.to_string()]).await, ok());
    }
    let mut load = Load::start(Plan::light(serving.data));
    let mut running = program(&cluster, state.path()).await;
    let address = cluster.address(new);
    let add = format!("ADDNODE {address} WEIGHT 0.25");
    for (order, slots) in [(add, 16384 / 13), (format!("DELNODE {address}"), 0)] {
        let id;
        (id, running) = cut_off(&cluster, state.path(), running, &order).await;
        let admin = &mut running.1;
        let refused = admin.call("PROXY CLUSTER REBALANCE").await;
        assert_eq!(refused, error(&format!("JOBRUNNING {id}")));
        assert_eq!(admin.call(&format!("PROXY JOB SETRATE {id} 0")).await, ok());
        becomes(admin, &id, "completed").await;
        assert_eq!(cluster.slots_of(new).await.len(), slots);
        let list = admin.call("PROXY JOB LIST").await;
        assert!(value::array(&list).is_some_and(|jobs| jobs.len() == 1 + usize::from(slots == 0)));
        load.advance(10).await;
    }
    load.stop().await.expect_flawless();
    cluster.agreed().await;
    for n in 0..3000 {
        assert_eq!(client.ask(&["GET", &format!("key{n}")]).await, bulk(n.to_string()));
    }
    drop(running);
    serving.shutdown().await;
}

/// Waits for a job by the one answer that comes when it is over, and gives its state; before that each change is pushed.
async fn watched(client: &mut Client, id: &str) -> String {
    client.send(format!("PROXY JOB WATCH {id}\r\n").as_bytes()).await.expect("it is read");
    let mut pushes = 0;
    loop {
        let reply = client.raw_reply().await.expect("an answer");
        if reply.first() == Some(&b'>') {
            assert!(reply.starts_with(b">2\r\n$3\r\njob\r\n%"), "{reply:?}");
            pushes += 1;
            continue;
        }
        let text = String::from_utf8_lossy(&reply).into_owned();
        assert!(text.starts_with('%') && pushes > 0, "{text}");
        let (_, state) = text.split_once("state\r\n").unwrap_or_else(|| panic!("{text}"));
        return state.lines().nth(1).expect("a state").to_owned();
    }
}

#[tokio::test]
async fn a_cluster_is_made_and_repaired() {
    let _turn = beside_others().await;
    let (one, two, three) = tokio::join!(Server::start(), Server::start(), Server::start());
    let nodes = [one, two, three];
    let addresses: Vec<String> = nodes.iter().map(Server::address).collect();
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = front::options(addresses.clone());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.state_folder = Some(folder.path().to_owned());
    let proxy = proxy::start(options).await.expect("the proxy starts");
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    let few = admin.call(&format!("PROXY CLUSTER CREATE {}", addresses[..2].join(" "))).await;
    assert!(
        matches!(&few, Value::Error(text) if text.starts_with("PRECONDITION 2 nodes are too few")),
        "{few:?}"
    );
    let id = begin(&mut admin, &format!("CREATE {}", addresses.join(" "))).await;
    let mut watcher = Client::to(proxy.admin.expect("an admin port")).await;
    watcher.hello3().await.expect("it speaks RESP3");
    assert_eq!(watched(&mut watcher, &id).await, "completed");
    let again = admin.call(&format!("PROXY CLUSTER CREATE {}", addresses.join(" "))).await;
    assert!(matches!(&again, Value::Error(text) if text.starts_with("NOTEMPTY ")), "{again:?}");
    let mut client = Client::to(proxy.data).await;
    until(JOB, "the cluster is served", async || match client.call("SET a 1").await {
        reply if reply == ok() => Ok(()),
        reply => Err(format!("{reply:?}")),
    })
    .await;
    // A slot that is left on its way, whose key has not gone yet.
    let slot = Slot::of(b"a").to_string();
    let (mut ids, mut owner) = (Vec::new(), 0);
    for (n, address) in addresses.iter().enumerate() {
        let mut node = Client::to(address).await;
        ids.push(value::text(&node.call("CLUSTER MYID").await).expect("a name").to_owned());
        if node.call("DBSIZE").await == Value::Integer(1) {
            owner = n;
        }
    }
    let target = (owner + 1) % 3;
    let open = format!("CLUSTER SETSLOT {slot} MIGRATING {}", ids[target]);
    assert_eq!(Client::to(&addresses[owner]).await.call(&open).await, ok());
    let plan = admin.call("PROXY CLUSTER FIX PLAN").await;
    let names_it = |plan: &str| plan.contains(r#""action":"resume""#) && plan.contains(&slot);
    assert!(value::text(&plan).is_some_and(names_it), "{plan:?}");
    let id = begin(&mut admin, "FIX").await;
    assert_eq!(watched(&mut watcher, &id).await, "completed");
    assert_eq!(Client::to(&addresses[target]).await.call("DBSIZE").await, Value::Integer(1));
    assert_eq!(client.call("GET a").await, bulk("1"));
    proxy.shutdown().await;
}
