//! Clients that keep what they read: what they keep is right, whatever happens to the cluster.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use slotway::cluster::Slot;
use slotway::resp::value::Value;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::client::{Client, bulk, ok, wire};
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
    /// By the keys that it has read, but not of its own writes.
    ReadOthers,
    /// By all keys that begin so, but not of its own writes, which it keeps.
    BroadcastOthers,
    /// On another connection, in RESP2, by the keys that it has read, but not of its own writes.
    RedirectOthers,
}

impl Way {
    const ALL: [Self; 6] = [
        Self::Read,
        Self::Broadcast,
        Self::Redirect,
        Self::ReadOthers,
        Self::BroadcastOthers,
        Self::RedirectOthers,
    ];

    fn is_redirected(self) -> bool {
        matches!(self, Self::Redirect | Self::RedirectOthers)
    }

    /// What a client has to say that is to be told so, for it or by the client with this number.
    fn track(self, redirect: Option<i64>) -> String {
        let redirect = redirect.map(|id| format!(" REDIRECT {id}")).unwrap_or_default();
        let rest = match self {
            Self::Read | Self::Redirect => "",
            Self::Broadcast => " BCAST PREFIX kept:",
            Self::ReadOthers | Self::RedirectOthers => " NOLOOP",
            Self::BroadcastOthers => " BCAST PREFIX kept: NOLOOP",
        };
        format!("CLIENT TRACKING ON{redirect}{rest}")
    }

    /// Whether a cache writes as well.
    fn writes(self) -> bool {
        matches!(self, Self::ReadOthers | Self::BroadcastOthers | Self::RedirectOthers)
    }
}

/// A request of a cache that is on its way.
struct Asked {
    key: usize,
    /// What it writes, if it does.
    value: Option<String>,
    /// The key has changed since it was asked for.
    changed: bool,
}

/// What a cache is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Task {
    Read,
    /// To write as well, if it does.
    Write,
    Stop,
}

/// A client that answers itself what it has read before and was not told to drop.
struct Cache {
    way: Way,
    client: Client,
    /// Where it hears of changes, if that is another connection.
    ear: Option<Client>,
    kept: Kept,
    asked: Vec<Asked>,
    done: Done,
}

/// How much a cache has done.
#[derive(Clone, Copy, Debug, Default)]
struct Done {
    hits: u64,
    drops: u64,
    writes: u64,
}

/// A cache at work.
struct AtWork {
    way: Way,
    kept: watch::Receiver<(Kept, Done)>,
    does: watch::Sender<Task>,
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
        let ear = follow(&mut client, proxy, way).await;
        Self { way, client, ear, kept: Kept::new(), asked: Vec::new(), done: Done::default() }
    }

    /// Drops what has changed.
    fn drop_changed(&mut self, told: &Told) {
        self.kept.retain(|key, _| !told.is_of(*key));
        if self.ear.is_some() {
            // On two connections there is no telling what was first.
            self.asked.iter_mut().for_each(|asked| asked.changed |= told.is_of(asked.key));
        }
        self.done.drops += 1;
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
        let Asked { key, value, changed } = self.asked.remove(0);
        match (heard, value) {
            (Value::BulkString(value), None) if !changed => {
                self.kept.insert(key, value);
            }
            (Value::SimpleString(_), Some(value)) => {
                self.done.writes += 1;
                self.kept.remove(&key);
                if matches!(self.way, Way::BroadcastOthers) {
                    self.kept.insert(key, value.into());
                }
            }
            (Value::BulkString(_) | Value::Null, None) => {}
            // A node that is gone may not be replaced in time.
            (Value::Error(text), _) => {
                assert!(!text.starts_with("MOVED"), "{text}");
                self.kept.remove(&key);
            }
            (other, _) => panic!("no reply to GET or SET: {other:?}"),
        }
    }

    /// What it asks for next: keys that it does not keep, and some that it writes. Those of which it is told only once it has
    /// read them it reads behind its write.
    fn requests(&mut self, task: Task, dice: &mut Dice) -> Vec<u8> {
        let mut requests = Vec::new();
        for _ in 0..8 {
            let key = dice.below(KEYS);
            let writes = task == Task::Write && self.way.writes() && dice.below(4) == 0;
            if self.asked.iter().any(|asked| asked.key == key) {
                continue;
            }
            if writes {
                let value = format!("own.{}", dice.roll());
                requests.extend(wire(&["SET", &name(key), &value]));
                self.asked.push(Asked { key, value: Some(value), changed: false });
            } else if self.kept.contains_key(&key) {
                self.done.hits += 1;
                continue;
            }
            if !writes || !matches!(self.way, Way::BroadcastOthers) {
                requests.extend(wire(&["GET", &name(key)]));
                self.asked.push(Asked { key, value: None, changed: false });
            }
        }
        requests
    }

    /// Does as it is told, several requests at a time, until it is to stop; and shows what is kept when there is a moment for it.
    async fn work(
        mut self,
        show: watch::Sender<(Kept, Done)>,
        mut does: watch::Receiver<Task>,
        mut dice: Dice,
    ) {
        loop {
            let task = *does.borrow_and_update();
            if task == Task::Stop {
                return;
            }
            let requests = self.requests(task, &mut dice);
            self.client.send(&requests).await.expect("the requests are taken");
            while !self.asked.is_empty() {
                self.hear().await;
            }
            show.send_replace((self.kept.clone(), self.done));
            tokio::select! {
                () = self.hear() => {}
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
                _ = does.changed() => {}
            }
        }
    }

    fn start(self, dice: Dice) -> AtWork {
        let (show, kept) = watch::channel((Kept::new(), Done::default()));
        let (does, task) = watch::channel(Task::Read);
        let way = self.way;
        let task = tokio::spawn(self.work(show, task, dice));
        AtWork { way, kept, does, task }
    }
}

impl AtWork {
    async fn stop(self) -> Done {
        self.does.send_replace(Task::Stop);
        within(PATIENCE, "the cache stops", self.task).await.expect("no panic");
        self.kept.borrow().1
    }
}

/// Has a client told of changes; gives the one that is told in its place, if there is one.
async fn follow(client: &mut Client, proxy: SocketAddr, way: Way) -> Option<Client> {
    let (mut ear, mut redirect) = (None, None);
    if way.is_redirected() {
        let mut other = Client::to(proxy).await;
        let Value::Integer(id) = other.call("CLIENT ID").await else { panic!("no number") };
        other.call("SUBSCRIBE __redis__:invalidate").await;
        (ear, redirect) = (Some(other), Some(id));
    } else {
        client.hello3().await.expect("RESP3");
    }
    assert_eq!(client.call(&way.track(redirect)).await, ok());
    ear
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
async fn write_all(
    (proxy, caches): (SocketAddr, &[AtWork]),
    count: usize,
    dice: &mut Dice,
    meanwhile: impl Future,
) {
    for cache in caches {
        cache.does.send_replace(Task::Write);
    }
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        writers.spawn(write(proxy, count / WRITERS, Dice(dice.roll())));
    }
    meanwhile.await;
    while let Some(done) = writers.join_next().await {
        done.expect("no panic");
    }
    for cache in caches {
        cache.does.send_replace(Task::Read);
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
                    return Err(format!(
                        "{:?}: {} is {now:?}, not {value:?}",
                        cache.way,
                        name(key)
                    ));
                }
            }
            Ok(())
        })
        .await;
    }
}

async fn caches(proxy: SocketAddr, dice: &mut Dice) -> Vec<AtWork> {
    let mut caches = Vec::new();
    for way in Way::ALL {
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
    write_all((data, &caches), 10_000, &mut dice, async {}).await;
    settle(data, &caches).await;
    write_all((data, &caches), 4_000, &mut dice, async {
        for key in 0..6 {
            let slot = Slot::of(name(key).as_bytes());
            let owner = cluster.owners().await[slot.index()];
            cluster.move_slot(slot, (owner + 1) % 3, async || {}).await;
        }
    })
    .await;
    settle(data, &caches).await;
    write_all((data, &caches), 2_000, &mut dice, async {
        cluster.call(3, &["CLUSTER", "FAILOVER"]).await;
        cluster.promoted(3).await;
    })
    .await;
    settle(data, &caches).await;
    write_all((data, &caches), 2_000, &mut dice, async {
        cluster.kill9(1);
        cluster.promoted(4).await;
    })
    .await;
    settle(data, &caches).await;
    for cache in caches {
        let way = cache.way;
        let done = cache.stop().await;
        let is_enough = done.hits > 1000 && done.drops > 100 && (done.writes > 200) == way.writes();
        assert!(is_enough, "{way:?}: {done:?}: this shows nothing");
        eprintln!("{way:?}: {done:?}");
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

/// All that a client says and all that it hears: replies, and keys that have changed.
struct Listening {
    client: Client,
    ear: Option<Client>,
}

impl Listening {
    async fn new(proxy: SocketAddr, way: Way) -> Self {
        let mut client = Client::to(proxy).await;
        let ear = follow(&mut client, proxy, way).await;
        Self { client, ear }
    }

    /// The next key that has changed.
    async fn changed(&mut self) -> Value {
        let ear = self.ear.as_mut().unwrap_or(&mut self.client);
        within(PATIENCE, "a message", ear.reply()).await.expect("a message")
    }

    /// What it hears next, other than that it is to drop all.
    async fn heard_but_all(&mut self) -> Value {
        loop {
            let heard = self.changed().await;
            if told(&heard) != Some(Told::All) {
                return heard;
            }
        }
    }

    /// Reads and writes all keys in all ways that have no connection of their own.
    async fn write_all(&mut self, keys: &[String]) {
        let get: Vec<&str> = ["MGET"].into_iter().chain(keys.iter().map(String::as_str)).collect();
        for key in keys {
            assert_eq!(self.client.ask(&["GET", key]).await, bulk("others'"));
            assert_eq!(self.client.ask(&["SET", key, "1"]).await, ok());
        }
        self.client.ask(&get).await;
        let set = keys.iter().flat_map(|key| [key.as_str(), "2"]);
        assert_eq!(
            self.client.ask(&["MSET"].into_iter().chain(set).collect::<Vec<_>>()).await,
            ok()
        );
        self.client.ask(&get).await;
        for key in keys {
            assert_eq!(self.client.call("MULTI").await, ok());
            self.client.ask(&["SET", key, "3"]).await;
            let done = self.client.call("EXEC").await;
            assert_eq!(done, Value::Array(vec![ok()]), "{done:?}");
        }
        assert_eq!(self.client.ask(&get).await, Value::Array(vec![bulk("3"); keys.len()]));
    }
}

/// Who was told that a key is not there hears of it when others may have put it elsewhere, where nobody knows that it was asked for.
#[tokio::test]
async fn what_is_not_there_may_appear_elsewhere() {
    let cluster = Cluster::start(2, 0).await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut writer = Client::to(proxy.data).await;
    let mut it = Listening::new(proxy.data, Way::ReadOthers).await;
    let (key, slot) = (name(0), Slot::of(name(0).as_bytes()));
    let (from, to) =
        (cluster.owners().await[slot.index()], 1 - cluster.owners().await[slot.index()]);
    assert_eq!(it.client.ask(&["GET", &key]).await, Value::Null);
    cluster.move_slot(slot, to, async || {}).await;
    assert_eq!(writer.ask(&["SET", &key, "1"]).await, ok());
    assert_eq!(told(&it.changed().await), Some(Told::All));

    assert_eq!(it.client.ask(&["GET", &key]).await, bulk("1"));
    assert_eq!(writer.ask(&["DEL", &key]).await, Value::Integer(1));
    assert_eq!(told(&it.changed().await), Some(Told::Keys(HashSet::from([0]))));
    // It is on its way back, and asked for at both.
    cluster
        .move_slot(slot, from, async || {
            assert_eq!(it.client.ask(&["GET", &key]).await, Value::Null);
            assert_eq!(told(&it.changed().await), Some(Told::All));
        })
        .await;
    proxy.shutdown().await;
}

/// A number in a line of `CLIENT LIST`.
fn field(line: &str, name: &str) -> i64 {
    let word = line.split(' ').find_map(|word| word.strip_prefix(name));
    word.expect("every client has it").parse().expect("a number")
}

/// Neither of the two connections by which a node knows a client and tells it of changes is of use without the other.
#[tokio::test]
async fn who_loses_a_connection_drops_all() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut writer = Client::to(proxy.data).await;
    for way in [Way::ReadOthers, Way::BroadcastOthers] {
        let mut it = Listening::new(proxy.data, way).await;
        let owner = cluster.owners().await[Slot::of(name(0).as_bytes()).index()];
        for which in ["id=", "redir="] {
            assert_eq!(it.client.ask(&["SET", &name(0), "1"]).await, ok());
            assert_eq!(it.client.ask(&["GET", &name(0)]).await, bulk("1"));
            let list = cluster.text(owner, &["CLIENT", "LIST"]).await.expect("a list");
            let lane = list.lines().find(|line| field(line, "redir=") > 0).expect("a lane");
            let id = field(lane, which).to_string();
            cluster.call(owner, &["CLIENT", "KILL", "ID", &id]).await;
            assert_eq!(told(&it.changed().await), Some(Told::All), "{way:?} {which}");
            // It goes on with new ones. Of all keys it is to drop what it got before its node tells again.
            assert_eq!(it.client.ask(&["SET", &name(0), "2"]).await, ok());
            it.client.send(&wire(&["GET", &name(0)])).await.expect("the request is taken");
            assert_eq!(it.heard_but_all().await, bulk("2"));
            assert_eq!(writer.ask(&["SET", &name(0), "3"]).await, ok());
            let heard = it.heard_but_all().await;
            assert_eq!(told(&heard), Some(Told::Keys(HashSet::from([0]))), "{way:?} {which}");
        }
        assert_eq!(it.client.call("CLIENT TRACKING OFF").await, ok());
        until(PATIENCE, "the lanes are closed", async || {
            let list = cluster.text(owner, &["CLIENT", "LIST"]).await?;
            if list.lines().all(|line| line.contains(" redir=-1 ")) { Ok(()) } else { Err(list) }
        })
        .await;
    }
    proxy.shutdown().await;
}

/// A client goes over to the other version of the protocol and knows its own writes still; and ceases to want that.
#[tokio::test]
async fn own_writes_are_known_in_either_protocol() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut writer = Client::to(proxy.data).await;
    let mut it = Listening::new(proxy.data, Way::Redirect).await;
    let Value::Integer(id) = it.client.call("CLIENT GETREDIR").await else { panic!("no number") };
    assert_eq!(it.client.call("CLIENT TRACKING OFF").await, ok());
    assert_eq!(it.client.call(&Way::BroadcastOthers.track(Some(id))).await, ok());
    let keys: Vec<String> = (0..12).map(name).collect();
    for resp3 in [false, true] {
        if resp3 {
            it.client.hello3().await.expect("RESP3");
        }
        for (n, key) in keys.iter().enumerate() {
            assert_eq!(it.client.ask(&["SET", key, "1"]).await, ok());
            assert_eq!(writer.ask(&["SET", key, "2"]).await, ok());
            assert_eq!(told(&it.heard_but_all().await), Some(Told::Keys(HashSet::from([n]))));
        }
    }
    let on = format!("CLIENT TRACKING ON REDIRECT {id} BCAST PREFIX other:");
    assert_eq!(it.client.call(&on).await, ok());
    assert_eq!(it.client.ask(&["SET", &keys[0], "3"]).await, ok());
    assert_eq!(told(&it.heard_but_all().await), Some(Told::Keys(HashSet::from([0]))));
    proxy.shutdown().await;
}

/// There are only so many connections for clients that want to hear nothing of their own writes; they are free when one has gone.
#[tokio::test]
async fn few_may_have_lanes_of_their_own() {
    let cluster = steady().await;
    let mut options = front::options(cluster.addresses());
    options.workers = 1;
    options.backend.exclusive_connections = 3;
    let proxy = front::start(options).await;
    let track = "CLIENT TRACKING ON NOLOOP";
    let (mut first, mut second) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    assert_eq!(first.call(track).await, ok());
    let refused = second.call(track).await;
    let text = "ERR proxy: up to 1 clients of a worker may track with NOLOOP";
    assert_eq!(refused, Value::Error(text.into()));
    // Again is not once more.
    assert_eq!(first.call(track).await, ok());
    drop(first);
    until(PATIENCE, "one may", async || {
        let reply = second.call(track).await;
        if reply == ok() { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    proxy.shutdown().await;
}

/// A client is told of others' writes and not of its own, be it told itself or another, and when it ceases to track and begins again.
#[tokio::test]
async fn own_writes_are_not_told() {
    let cluster = steady().await;
    let proxy = front::start(front::options(cluster.addresses())).await;
    let mut writer = Client::to(proxy.data).await;
    let keys: Vec<String> = (0..12).map(name).collect();
    for way in [Way::ReadOthers, Way::BroadcastOthers, Way::RedirectOthers] {
        for key in &keys {
            assert_eq!(writer.ask(&["SET", key, "others'"]).await, ok());
        }
        let mut it = Listening::new(proxy.data, way).await;
        it.write_all(&keys).await;
        for (n, key) in keys.iter().enumerate() {
            if !matches!(way, Way::BroadcastOthers) {
                // A server itself tells of all keys that scripts change.
                let script = "return redis.call('SET', KEYS[1], '4')";
                assert_eq!(it.client.ask(&["EVAL", script, "1", key]).await, ok());
                assert_eq!(it.client.ask(&["GET", key]).await, bulk("4"));
            }
            assert_eq!(writer.ask(&["SET", key, "others'"]).await, ok());
            assert_eq!(told(&it.changed().await), Some(Told::Keys(HashSet::from([n]))), "{way:?}");
        }
        assert_eq!(it.client.call("CLIENT TRACKING OFF").await, ok());
        it.client.ask(&["GET", &keys[0]]).await;
        assert_eq!(writer.ask(&["SET", &keys[0], "others'"]).await, ok());
        let again = if matches!(way, Way::BroadcastOthers) { way } else { Way::ReadOthers };
        it.client.hello3().await.expect("RESP3");
        it.ear = None;
        assert_eq!(it.client.call(&again.track(None)).await, ok());
        it.write_all(&keys).await;
        assert_eq!(writer.ask(&["SET", &keys[1], "others'"]).await, ok());
        assert_eq!(told(&it.changed().await), Some(Told::Keys(HashSet::from([1]))), "{way:?}");
    }
    proxy.shutdown().await;
}
