//! Clients that keep what they read: what they keep is right, whatever happens to the cluster.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use slotway::cluster::Slot;
use slotway::resp::value::Value;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::{Client, ok, wire};
use crate::cluster::{Cluster, steady};
use crate::{Dice, front, under_load, until, within};

/// Longest wait for something that has to happen.
const PATIENCE: Duration = Duration::from_secs(20);
/// Few enough for each to be read and written all the time.
const KEYS: usize = 60;
/// Writes of each client at a time, and clients that write.
const BATCH: usize = 20;
const WRITERS: usize = 4;

/// What a cache has kept, as others see it.
type Kept = HashMap<usize, Bytes>;

/// How a cache hears of changes.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// By the keys that it has read.
    Read,
    /// By all keys that begin so.
    Broadcast,
    /// On another connection, in RESP2.
    Redirect,
}

/// A client that answers itself what it has read before and was not told to drop.
struct Cache {
    client: Client,
    /// Where it hears of changes, if that is another connection.
    ear: Option<Client>,
    kept: Kept,
    /// Keys on their way, each with whether it has changed since it was asked for.
    asked: Vec<(usize, bool)>,
    hits: u64,
    drops: u64,
}

/// A cache at work.
struct AtWork {
    kept: watch::Receiver<(Kept, u64, u64)>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

fn name(key: usize) -> String {
    format!("kept:{key}")
}

fn number(name: &[u8]) -> usize {
    let name = std::str::from_utf8(name).expect("a name of ours");
    name.strip_prefix("kept:").expect("a name of ours").parse().expect("a number")
}

/// What has changed.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Keys(HashSet<usize>),
    All,
}

impl Told {
    fn is_of(&self, key: usize) -> bool {
        match self {
            Self::Keys(keys) => keys.contains(&key),
            Self::All => true,
        }
    }
}

/// What a message says of changes; nothing if it is none.
fn told(message: &Value) -> Option<Told> {
    let Value::Array(words) = message else { return None };
    let keys = match &words[..] {
        [Value::BulkString(word), keys] if word == "invalidate" => keys,
        [Value::BulkString(word), _, keys] if word == "message" => keys,
        _ => return None,
    };
    let name = |key: &Value| match key {
        Value::BulkString(name) => number(name),
        other => panic!("no key: {other:?}"),
    };
    Some(match keys {
        Value::Array(keys) => Told::Keys(keys.iter().map(name).collect()),
        _ => Told::All,
    })
}

impl Cache {
    async fn new(proxy: SocketAddr, way: Way) -> Self {
        let mut client = Client::to(proxy).await;
        let mut ear = None;
        let track = match way {
            Way::Read => "CLIENT TRACKING ON".to_owned(),
            Way::Broadcast => "CLIENT TRACKING ON BCAST PREFIX kept:".to_owned(),
            Way::Redirect => {
                let mut other = Client::to(proxy).await;
                let Value::Integer(id) = other.call("CLIENT ID").await else { panic!("no number") };
                other.call("SUBSCRIBE __redis__:invalidate").await;
                ear = Some(other);
                format!("CLIENT TRACKING ON REDIRECT {id}")
            }
        };
        if ear.is_none() {
            client.hello3().await.expect("RESP3");
        }
        assert_eq!(client.call(&track).await, ok());
        Self { client, ear, kept: Kept::new(), asked: Vec::new(), hits: 0, drops: 0 }
    }

    /// Drops what has changed.
    fn drop_changed(&mut self, told: &Told) {
        self.kept.retain(|key, _| !told.is_of(*key));
        if self.ear.is_some() {
            // On two connections there is no telling what was first.
            self.asked.iter_mut().for_each(|(key, changed)| *changed |= told.is_of(*key));
        }
        self.drops += 1;
    }

    /// Takes the next reply or message in.
    async fn hear(&mut self) {
        let heard = match &mut self.ear {
            Some(ear) => tokio::select! {
                heard = self.client.reply() => heard,
                heard = ear.reply() => heard,
            },
            None => self.client.reply().await,
        };
        let heard = heard.expect("the proxy stays");
        if let Some(told) = told(&heard) {
            return self.drop_changed(&told);
        }
        let (key, changed) = self.asked.remove(0);
        match heard {
            Value::BulkString(value) if !changed => {
                self.kept.insert(key, value);
            }
            Value::BulkString(_) | Value::Null => {}
            // A node that is gone may not be replaced in time.
            Value::Error(text) => assert!(!text.starts_with("MOVED"), "{text}"),
            other => panic!("no reply to GET: {other:?}"),
        }
    }

    /// Reads keys, several at a time, until told to stop; and shows what is kept when there is a moment for it.
    async fn work(
        mut self,
        show: watch::Sender<(Kept, u64, u64)>,
        mut stop: watch::Receiver<bool>,
        mut dice: Dice,
    ) {
        loop {
            let mut requests = Vec::new();
            for _ in 0..8 {
                let key = dice.below(KEYS);
                if self.kept.contains_key(&key) {
                    self.hits += 1;
                } else if !self.asked.iter().any(|(asked, _)| *asked == key) {
                    self.asked.push((key, false));
                    requests.extend(wire(&["GET", &name(key)]));
                }
            }
            self.client.send(&requests).await.expect("the requests are taken");
            while !self.asked.is_empty() {
                self.hear().await;
            }
            show.send_replace((self.kept.clone(), self.hits, self.drops));
            tokio::select! {
                () = self.hear() => {}
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
                _ = stop.changed() => return,
            }
        }
    }

    fn start(self, dice: Dice) -> AtWork {
        let (show, kept) = watch::channel((Kept::new(), 0, 0));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(self.work(show, stopped, dice));
        AtWork { kept, stop, task }
    }
}

impl AtWork {
    async fn stop(self) -> (u64, u64) {
        self.stop.send_replace(true);
        within(PATIENCE, "the cache stops", self.task).await.expect("no panic");
        let (_, hits, drops) = &*self.kept.borrow();
        (*hits, *drops)
    }
}

/// Writes random keys, a batch at a time, until so many are written.
async fn write(proxy: SocketAddr, writes: usize, mut dice: Dice) {
    let mut client = Client::to(proxy).await;
    for batch in 0..writes / BATCH {
        let mut set =
            |n| wire(&["SET", &name(dice.below(KEYS)), &format!("{batch}.{n}.{}", dice.0)]);
        let requests: Vec<_> = (0..BATCH).map(&mut set).collect();
        client.pipeline(&requests).await;
    }
}

/// Many writes by several clients, and `meanwhile` in their midst.
async fn write_all(proxy: SocketAddr, count: usize, dice: &mut Dice, meanwhile: impl Future) {
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(proxy, count / WRITERS, Dice(dice.roll())));
    }
    meanwhile.await;
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
}

/// Waits until what every cache keeps is what the cluster has.
async fn settle(proxy: SocketAddr, caches: &[AtWork]) {
    let mut client = Client::to(proxy).await;
    for cache in caches {
        until(PATIENCE, "what is kept is right", async || {
            let kept = cache.kept.borrow().0.clone();
            if kept.len() < KEYS {
                return Err(format!("{} keys are kept", kept.len()));
            }
            for (key, value) in kept {
                let now = client.ask(&["GET", &name(key)]).await;
                if now != Value::BulkString(value.clone()) {
                    return Err(format!("{} is {now:?}, not {value:?}", name(key)));
                }
            }
            Ok(())
        })
        .await;
    }
}

async fn caches(proxy: SocketAddr, dice: &mut Dice) -> Vec<AtWork> {
    let mut caches = Vec::new();
    for way in [Way::Read, Way::Broadcast, Way::Redirect] {
        caches.push(Cache::new(proxy, way).await.start(Dice(dice.roll())));
    }
    caches
}

/// Ten thousand writes by others, a reshard and two failovers.
#[tokio::test]
async fn what_is_kept_is_right() {
    let mut cluster = Cluster::start(3, 1).await;
    let _turn = under_load().await;
    let mut dice = Dice::from_env();
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let data = proxy.data;
    let caches = caches(data, &mut dice).await;
    write_all(data, 10_000, &mut dice, async {}).await;
    settle(data, &caches).await;
    write_all(data, 4_000, &mut dice, async {
        for key in 0..6 {
            let slot = Slot::of(name(key).as_bytes());
            let owner = cluster.owners().await[slot.index()];
            cluster.move_slot(slot, (owner + 1) % 3, async || {}).await;
        }
    })
    .await;
    settle(data, &caches).await;
    write_all(data, 2_000, &mut dice, async {
        cluster.call(3, &["CLUSTER", "FAILOVER"]).await;
        cluster.promoted(3).await;
    })
    .await;
    settle(data, &caches).await;
    write_all(data, 2_000, &mut dice, async {
        cluster.kill9(1);
        cluster.promoted(4).await;
    })
    .await;
    settle(data, &caches).await;
    for cache in caches {
        let (hits, drops) = cache.stop().await;
        assert!(hits > 1000 && drops > 100, "{hits} hits, told {drops} times: this shows nothing");
        eprintln!("{hits} hits, told {drops} times");
    }
    proxy.shutdown().await;
}

/// A client of one worker is told in the place of one of another, and everybody is told of `FLUSHALL`.
#[tokio::test]
async fn clients_of_all_workers_are_told() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let (mut writer, mut ear) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    ear.hello3().await.expect("RESP3");
    let Value::Integer(id) = ear.call("CLIENT ID").await else { panic!("no number") };
    let mut clients = Vec::new();
    for _ in 0..4 {
        let mut client = Client::to(proxy.data).await;
        assert_eq!(client.call(&format!("CLIENT TRACKING ON REDIRECT {id}")).await, ok());
        clients.push(client);
    }
    let hear = async |ear: &mut Client| {
        within(PATIENCE, "a message", ear.reply()).await.expect("a message")
    };
    for key in 0..20 {
        for client in &mut clients {
            client.ask(&["GET", &name(key)]).await;
        }
        assert_eq!(writer.ask(&["SET", &name(key), "1"]).await, ok());
        for _ in &clients {
            let message = hear(&mut ear).await;
            assert_eq!(told(&message), Some(Told::Keys(HashSet::from([key]))), "{message:?}");
        }
    }
    let mut own = Client::to(proxy.data).await;
    own.hello3().await.expect("RESP3");
    assert_eq!(own.call("CLIENT TRACKING ON").await, ok());
    own.ask(&["MGET", &name(0), &name(1), &name(2)]).await;
    assert_eq!(writer.call("FLUSHALL").await, ok());
    assert_eq!(told(&hear(&mut own).await), Some(Told::All));
    // Each node says so, but who has read nothing since need not hear it again.
    assert_eq!(own.call("PING").await, Value::SimpleString("PONG".into()));
    proxy.shutdown().await;
}
