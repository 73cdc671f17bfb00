//! What a session holds: transactions, watched keys, commands that wait.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::resp::value::{self, Value};
use tokio::task::{JoinHandle, JoinSet};

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, steady};
use crate::{Dice, beside_others, front, under_load, until, within};

const LONG: Duration = Duration::from_secs(300);

/// Connections that the nodes hold open.
async fn connections(cluster: &Cluster) -> usize {
    let mut count = 0;
    for node in 0..3 {
        let list = cluster.call(node, &["CLIENT", "LIST", "TYPE", "NORMAL"]).await;
        count += value::text(&list).map_or(0, |list| list.lines().count());
    }
    count
}

/// A number from the environment, for a longer run.
fn times(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |times| times.parse().expect("a number"))
}

/// So many `MULTI INCR GET EXEC` in pipelines; every answer must be the transaction's own.
async fn count_up(proxy: SocketAddr, times: usize) {
    let mut client = Client::to(proxy).await;
    let one = [wire(&["MULTI"]), wire(&["INCR", "n"]), wire(&["GET", "n"]), wire(&["EXEC"])];
    for _ in 0..times / 50 {
        let requests: Vec<Vec<u8>> = std::iter::repeat_n(one.clone(), 50).flatten().collect();
        let replies = client.pipeline(&requests).await;
        for exec in replies.iter().skip(3).step_by(4) {
            let both = value::array(exec).unwrap_or_else(|| panic!("{exec:?}"));
            let count = value::integer(&both[0]).expect("a count");
            assert_eq!(both[1], bulk(count.to_string()), "something came in between");
        }
    }
}

#[tokio::test]
async fn transactions_on_one_counter_add_up_while_its_slot_moves() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = under_load().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let each = times("SLOTWAY_TRANSACTIONS", 8000) / 8;
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        clients.spawn(count_up(proxy.data, each));
    }
    let slot = Slot::of(b"n");
    let owner = cluster.owners().await[slot.index()];
    for to in 1..6 {
        cluster.move_slot(slot, (owner + to) % 3, async || {}).await;
    }
    within(LONG, "the clients", clients.join_all()).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("GET n").await, bulk((8 * each).to_string()));
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_transaction_mixes_what_the_node_and_the_proxy_answer() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let lines = ["MULTI", "SET {t}1 a", "PING", "GET {t}1", "SELECT 0", "INCR {t}1", "EXEC"];
    let requests: Vec<Vec<u8>> =
        lines.iter().map(|line| wire(&line.split(' ').collect::<Vec<_>>())).collect();
    let replies = client.pipeline(&requests).await;
    let exec = value::array(&replies[6]).expect("an array");
    assert_eq!(exec[..4], [ok(), Value::SimpleString("PONG".into()), bulk("a"), ok()]);
    assert!(
        matches!(&exec[4], Value::Error(error) if error.contains("not an integer")),
        "{exec:?}"
    );
    for line in ["MULTI", "CONFIG SET maxmemory x", "SET {t}1 b", "CLIENT LIST", "INFO"] {
        client.call(line).await;
    }
    let exec = client.call("EXEC").await;
    let [Value::Error(error), set, clients, info] = value::array(&exec).expect("an array") else {
        panic!("{exec:?}")
    };
    assert!(error.starts_with("ERR CONFIG SET failed"), "{error}");
    assert_eq!(set, &ok());
    assert!(value::text(clients).is_some_and(|list| list.contains(" cmd=exec ")), "{clients:?}");
    assert!(value::text(info).is_some_and(|info| info.contains("redis_version:")), "{info:?}");
    for (value, name) in [("101", "300"), ("128", "0")] {
        let set = format!("CONFIG SET slowlog-max-len {value} latency-monitor-threshold {name}");
        for line in ["MULTI", &set, "CONFIG GET latency-monitor-threshold"] {
            client.call(line).await;
        }
        let exec = client.call("EXEC").await;
        let got = vec![bulk("latency-monitor-threshold"), bulk(name)];
        assert_eq!(exec, Value::Array(vec![ok(), Value::Array(got)]), "one after the other");
    }
    for line in ["MULTI", "SET a 1", "SET b 1"] {
        client.call(line).await;
    }
    assert!(
        matches!(client.call("EXEC").await, Value::Error(error) if error.starts_with("EXECABORT "))
    );
    proxy.shutdown().await;
}

#[tokio::test]
async fn an_aborted_transaction_tells_why() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("CONFIG SET maxmemory 1").await, ok());
    for first in ["PING", "WATCH {t}1"] {
        for line in [first, "MULTI", "GET {t}1", "SET {t}1 a"] {
            client.call(line).await;
        }
        let exec = client.call("EXEC").await;
        let why = "EXECABORT Transaction discarded because of: OOM command not allowed";
        assert!(matches!(&exec, Value::Error(error) if error.starts_with(why)), "{exec:?}");
    }
    assert_eq!(client.call("CONFIG SET maxmemory 0").await, ok());
    client.call("MULTI").await;
    let refused = "ERR Command not allowed inside a transaction";
    assert_eq!(client.call("SAVE").await, Value::Error(refused.into()));
    let why = "EXECABORT Transaction discarded because of previous errors.";
    assert_eq!(client.call("EXEC").await, Value::Error(why.into()));
    proxy.shutdown().await;
}

/// Adds one by `WATCH`, `GET` and `SET` until nobody came in between; so many times.
async fn count_watched(proxy: SocketAddr, times: usize) -> usize {
    let mut client = Client::to(proxy).await;
    let mut nils = 0;
    for _ in 0..times {
        loop {
            assert_eq!(client.call("WATCH w").await, ok());
            let n = client.call("GET w").await;
            let n: i64 = value::text(&n).map_or(0, |n| n.parse().expect("a number"));
            let next = (n + 1).to_string();
            let set = [wire(&["MULTI"]), wire(&["SET", "w", &next]), wire(&["EXEC"])];
            match &client.pipeline(&set).await[2] {
                Value::Null => nils += 1,
                exec => {
                    assert_eq!(value::array(exec), Some(&[ok()][..]));
                    break;
                }
            }
        }
    }
    nils
}

#[tokio::test]
async fn watched_counters_add_up_and_connections_are_used_again() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = under_load().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let each = times("SLOTWAY_WATCHES", 1200) / 12;
    let run = async || {
        let mut clients = JoinSet::new();
        for _ in 0..6 {
            clients.spawn(count_watched(proxy.data, each));
        }
        within(LONG, "the clients", clients.join_all()).await.iter().sum::<usize>()
    };
    let nils = run().await;
    assert!(nils > 0, "nobody ever came in between");
    let before = connections(&cluster).await;
    run().await;
    assert!(connections(&cluster).await <= before, "new connections for new transactions");
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("GET w").await, bulk((12 * each).to_string()));
    proxy.shutdown().await;
}

#[tokio::test]
async fn exec_is_nil_when_the_watched_slot_has_moved() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    let slot = Slot::of(b"w");
    let from = cluster.owners().await[slot.index()];
    assert_eq!(client.call("WATCH w").await, ok());
    cluster.move_slot(slot, (from + 1) % 3, async || {}).await;
    for line in ["MULTI", "SET w 1"] {
        client.call(line).await;
    }
    assert_eq!(client.call("EXEC").await, Value::Null);
    assert_eq!(client.call("GET w").await, Value::Null, "the transaction did not run");
    for line in ["WATCH w", "MULTI", "SET w 1"] {
        client.call(line).await;
    }
    assert_eq!(value::array(&client.call("EXEC").await), Some(&[ok()][..]));
    proxy.shutdown().await;
}

/// Pops with `BLPOP` until it gets `end`, and gives all it got.
async fn pop(proxy: SocketAddr, queue: String) -> Vec<i64> {
    let mut client = Client::to(proxy).await;
    let mut got = Vec::new();
    loop {
        let popped = client.ask(&["BLPOP", &queue, "0"]).await;
        let popped = value::array(&popped).unwrap_or_else(|| panic!("{popped:?}"));
        match value::text(&popped[1]).expect("a text").parse() {
            Ok(number) => got.push(number),
            Err(_) => return got,
        }
    }
}

/// Many clients that pop, one that pushes, and what became of the elements.
struct Belt {
    over: Arc<AtomicBool>,
    pusher: JoinHandle<Vec<i64>>,
    poppers: JoinSet<Vec<i64>>,
}

impl Belt {
    fn start(proxy: SocketAddr, queues: usize, clients: usize) -> Self {
        let queue = move |n: usize| format!("queue:{}", n % queues);
        let over = Arc::new(AtomicBool::new(false));
        let mut poppers = JoinSet::new();
        for n in 0..clients {
            poppers.spawn(pop(proxy, queue(n)));
        }
        let is_over = Arc::clone(&over);
        let pusher = tokio::spawn(async move {
            let mut client = Client::to(proxy).await;
            let mut dice = Dice::from_env();
            let mut pushed = Vec::new();
            for n in 0.. {
                if is_over.load(Relaxed) {
                    break;
                }
                let at = queue(dice.below(queues));
                match client.ask(&["RPUSH", &at, &n.to_string()]).await {
                    Value::Integer(_) => pushed.push(n),
                    // It may be in the list or not.
                    Value::Error(error) if error.contains("outcome unknown") => {}
                    other => panic!("{other:?}"),
                }
            }
            for n in 0..clients {
                client.ask(&["RPUSH", &queue(n), "end"]).await;
            }
            pushed
        });
        Self { over, pusher, poppers }
    }

    /// Stops pushing and gives what was pushed and what was popped, in order.
    async fn stop(self) -> (Vec<i64>, Vec<i64>) {
        self.over.store(true, Relaxed);
        let pushed = within(LONG, "the pusher", self.pusher).await.expect("it pushed all");
        let popped = within(LONG, "the poppers", self.poppers.join_all()).await;
        let mut popped: Vec<i64> = popped.into_iter().flatten().collect();
        popped.sort_unstable();
        (pushed, popped)
    }
}

#[tokio::test]
async fn every_element_is_popped_once_while_slots_move_and_a_primary_fails_over() {
    const QUEUES: usize = 30;
    const MOVED: usize = 10;
    let cluster = Cluster::start(3, 1).await;
    let _turn = under_load().await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let belt = Belt::start(proxy.data, QUEUES, 3 * QUEUES);
    for n in 0..MOVED {
        let slot = Slot::of(format!("queue:{n}").as_bytes());
        let from = cluster.owners().await[slot.index()];
        cluster.move_slot(slot, (from + 1) % 3, async || {}).await;
        // Moves that overtake each other's news can leave the nodes at odds for good.
        cluster.agreed().await;
    }
    assert_eq!(cluster.call(3, &["CLUSTER", "FAILOVER"]).await, ok());
    cluster.promoted(3).await;
    let (pushed, popped) = belt.stop().await;
    assert!(pushed.len() > 100, "{}", pushed.len());
    assert_eq!(pushed, popped);
    proxy.shutdown().await;
}

/// What a kill -9 costs: replication is asynchronous, so what the dead primary alone knew may be lost, or popped again.
#[tokio::test]
#[ignore = "prints figures"]
async fn report_blocked() {
    let mut cluster = Cluster::start(3, 1).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let belt = Belt::start(proxy.data, 200, 500);
    let (source, target) = (cluster.id(0).to_owned(), cluster.id(1).to_owned());
    let moved = ["--cluster-from", &source, "--cluster-to", &target, "--cluster-slots", "1500"];
    let address = cluster.address(0);
    cluster
        .cli(&[&["--cluster", "reshard", &address][..], &moved, &["--cluster-yes"]].concat())
        .await;
    cluster.kill9(2);
    cluster.promoted(5).await;
    let (pushed, popped) = belt.stop().await;
    let lost = pushed.iter().filter(|n| popped.binary_search(n).is_err()).count();
    let doubled = popped.windows(2).filter(|pair| pair[0] == pair[1]).count();
    eprintln!(
        "{} pushed, {} popped, {lost} lost, {doubled} popped twice",
        pushed.len(),
        popped.len()
    );
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_client_that_leaves_takes_nothing_with_it() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut leaving = Client::to(proxy.data).await;
    leaving.send(&wire(&["BLPOP", "left", "0"])).await.expect("it is sent");
    let node = cluster.owners().await[Slot::of(b"left").index()];
    let blocked = async |count: &str| {
        let line = format!("blocked_clients:{count}");
        until(LONG, "the node's count of blocked clients", async || {
            let info = cluster.call(node, &["INFO", "clients"]).await;
            let info = value::text(&info).unwrap_or_default().to_owned();
            if info.contains(&line) { Ok(()) } else { Err(info) }
        })
        .await;
    };
    blocked("1").await;
    drop(leaving);
    blocked("0").await;
    let mut client = Client::to(proxy.data).await;
    client.call("RPUSH left x").await;
    assert_eq!(client.call("LPOP left").await, bulk("x"));
    proxy.shutdown().await;
}

#[tokio::test]
async fn waiting_ends_with_its_time_and_wrong_times_are_the_servers_matter() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("BLPOP nothing 0.05").await, Value::Null);
    assert_eq!(client.call("BLMOVE nothing{1} other{1} LEFT LEFT 0.05").await, Value::Null);
    assert_eq!(client.call("XREAD BLOCK 20 STREAMS nothing $").await, Value::Null);
    let error = |value: Value| match value {
        Value::Error(error) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(
        error(client.call("BLPOP nothing x").await),
        "ERR timeout is not a float or out of range"
    );
    assert_eq!(error(client.call("BLPOP nothing -1").await), "ERR timeout is negative");
    client.call("RPUSH full 1 2").await;
    client.call("MULTI").await;
    client.call("BLPOP nothing{x} 0").await;
    assert_eq!(value::array(&client.call("EXEC").await), Some(&[Value::Null][..]));
    assert_eq!(client.call("DEL full").await, Value::Integer(1));
    proxy.shutdown().await;
}

#[tokio::test]
async fn wait_tells_how_many_replicas_have_what_was_written() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 1).await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut client = Client::to(proxy.data).await;
    for n in 0..20 {
        assert_eq!(client.ask(&["SET", &format!("w{n}"), "x"]).await, ok());
    }
    assert_eq!(client.call("WAIT 1 10000").await, Value::Integer(1));
    assert_eq!(client.call("WAIT 2 50").await, Value::Integer(1));
    assert_eq!(
        client.call("WAIT x 50").await,
        Value::Error("ERR value is not an integer or out of range".into())
    );
    proxy.shutdown().await;
}
