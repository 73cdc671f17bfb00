//! A load that checks every reply: pipelining clients, each with keys of its own, in a thread of their own.
//!
//! Every client sends one batch after the other, some before the answers to the last one or two have come:
//! - `SET k 1`, `SET k n`, `GET k` of several keys: the answer must be `n`;
//! - `MSET` of ten keys anywhere and `MGET` of the same, and both of three keys with one hash tag: all must be equal;
//! - `RPUSH` of ascending numbers: in the end each list holds every acknowledged one, none twice, in order;
//! - `INCR` of counters: each answer is larger than the one before, and the last value is what was asked for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use slotway::cluster::Slot;
use slotway::resp::value::{self, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::client::{Client, ok, wire};
use crate::tally::{Fate, Oddity, Tally};
use crate::{Dice, within};

/// A reply that takes longer is not waited for; longer than any proxy under test is patient.
const REPLY: Duration = Duration::from_secs(30);
/// A batch that takes longer may have a failover in it. Writes that the old primary acknowledged may be lost then.
const EXCUSE: Duration = Duration::from_millis(500);
/// How long reading back may take.
const READ_BACK: Duration = Duration::from_secs(15);

/// Keys of one client by what is done with them.
const ORDERED: usize = 128;
const GROUPS: usize = 12;
const LISTS: usize = 8;

/// What a load is like.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the clients connect; each begins with another one, and goes to the next when it is turned out.
    pub(crate) targets: Vec<SocketAddr>,
    /// Number of clients.
    pub(crate) clients: usize,
    /// Whether every fourth client speaks RESP3.
    pub(crate) resp3: bool,
    /// Slots that every other key lies in; the rest lie anywhere.
    pub(crate) focus: Range<usize>,
    /// The longest the load may last.
    pub(crate) limit: Duration,
    /// How long a client rests after each batch.
    pub(crate) rest: Duration,
}

impl Plan {
    /// Sixteen clients whose keys lie anywhere.
    pub(crate) fn new(target: SocketAddr) -> Self {
        let limit = Duration::from_secs(90);
        let (targets, rest) = (vec![target], Duration::ZERO);
        Self { targets, clients: 16, resp3: true, focus: 0..16384, limit, rest }
    }

    /// Eight clients that rest between their batches: what happens meanwhile is to meet with requests at every step, not to be
    /// kept from the processor by them.
    pub(crate) fn light(target: SocketAddr) -> Self {
        Self { clients: 8, rest: Duration::from_millis(20), ..Self::new(target) }
    }
}

/// A load that is under way. It ends when this is dropped.
pub(crate) struct Load {
    doubt: Arc<AtomicBool>,
    stop: watch::Sender<bool>,
    rounds: Vec<watch::Receiver<u64>>,
    thread: JoinHandle<Tally>,
}

impl Load {
    pub(crate) fn start(plan: Plan) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (counts, rounds): (Vec<_>, Vec<_>) =
            (0..plan.clients).map(|_| watch::channel(0)).unzip();
        let doubt = Arc::new(AtomicBool::new(false));
        let doubted = Arc::clone(&doubt);
        let thread = std::thread::spawn(move || {
            let (pulse, begun) = (Pulse::start(), Instant::now());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let mut tally =
                runtime.expect("a runtime").block_on(run(plan, counts, stopped, doubted));
            (tally.pause, tally.lasted) = (pulse.stop(), begun.elapsed());
            tally
        });
        Self { doubt, stop, rounds, thread }
    }

    /// Waits until every client has done so many batches more.
    pub(crate) async fn advance(&mut self, batches: u64) {
        let goals: Vec<u64> = self.rounds.iter().map(|count| *count.borrow() + batches).collect();
        let reached = async {
            for (count, goal) in self.rounds.iter_mut().zip(goals) {
                count.wait_for(|count| *count >= goal).await.expect("the client is at work");
            }
        };
        within(Duration::from_secs(40), "the load goes on", reached).await;
    }

    /// From now on, or no longer, the cluster may have two primaries for a slot, one of which will be told that it is none. What
    /// that one has acknowledged is lost then, however quickly it did.
    pub(crate) fn doubt(&self, doubt: bool) {
        self.doubt.store(doubt, Relaxed);
    }

    /// Lets the clients finish, read everything back, and tell.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.send_replace(true);
        let joined = tokio::task::spawn_blocking(move || self.thread.join());
        let tally = within(Duration::from_secs(60), "the load ends", joined).await;
        tally.expect("joined").expect("the load did not panic")
    }
}

async fn run(
    plan: Plan,
    counts: Vec<watch::Sender<u64>>,
    stop: watch::Receiver<bool>,
    doubt: Arc<AtomicBool>,
) -> Tally {
    static LOADS: AtomicU64 = AtomicU64::new(0);
    let (load, mut clients) = (LOADS.fetch_add(1, Relaxed), JoinSet::new());
    for (number, count) in counts.into_iter().enumerate() {
        let worker = Worker { doubt: Arc::clone(&doubt), ..Worker::new(load, number, &plan) };
        clients.spawn(worker.run(count, stop.clone()));
    }
    let mut tally = Tally::default();
    while let Some(seen) = clients.join_next().await {
        tally.add(seen.expect("a client did not panic"));
    }
    tally
}

/// Watches for times at which the machine is so busy that it lets nobody run.
struct Pulse {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Pulse {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Relaxed) {
                let begun = Instant::now();
                std::thread::sleep(Duration::from_millis(5));
                longest = longest.max(begun.elapsed());
            }
            longest
        });
        Self { stop, thread }
    }

    /// The longest time for which a thread that wanted to run did not.
    fn stop(self) -> Duration {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("it did not panic")
    }
}

/// One client of the load.
struct Worker {
    targets: Vec<SocketAddr>,
    /// Which of the targets it is connected to.
    at: usize,
    client: Option<Client>,
    resp3: bool,
    /// Batches that were sent and not settled, the oldest first, and when each was sent.
    underway: VecDeque<(Batch, Instant)>,
    /// Most of them.
    depth: usize,
    end: Instant,
    rest: Duration,
    keys: Keys,
    dice: Dice,
    /// Source of values, so that each is written once.
    last: u64,
    lists: Vec<List>,
    counters: Vec<Counter>,
    tally: Tally,
    /// When the last reply came, or the first batch was sent.
    heard: Option<Instant>,
    /// See [`Load::doubt`].
    doubt: Arc<AtomicBool>,
}

/// The keys of a client.
struct Keys {
    ordered: Vec<String>,
    scattered: Vec<Vec<String>>,
    tagged: Vec<Vec<String>>,
    lists: Vec<String>,
    counters: Vec<String>,
}

impl Keys {
    fn new(load: u64, client: usize, focus: &Range<usize>) -> Self {
        let all = 0..16384;
        let half = |n: usize| if n.is_multiple_of(2) { focus } else { &all };
        let many = |kind: &str, count: usize| -> Vec<String> {
            (0..count).map(|n| place(&format!("{load}:{client}:{kind}:{n}"), half(n))).collect()
        };
        let tagged = |tag: String| (0..3).map(|n| format!("{{{tag}}}{n}")).collect();
        Self {
            ordered: many("order", ORDERED),
            scattered: (0..GROUPS).map(|n| many(&format!("group{n}"), 10)).collect(),
            tagged: many("tag", GROUPS).into_iter().map(tagged).collect(),
            lists: many("list", LISTS),
            counters: many("counter", LISTS),
        }
    }
}

/// A key with this beginning and a slot among these.
fn place(prefix: &str, slots: &Range<usize>) -> String {
    let mut keys = (0..).map(|n| format!("{prefix}:{n}"));
    keys.find(|key| slots.contains(&Slot::of(key.as_bytes()).index())).expect("there are many keys")
}

/// What was pushed to a list.
#[derive(Default)]
struct List {
    acknowledged: Vec<u64>,
    /// Numbers whose fate nobody told.
    unknown: BTreeSet<u64>,
    not_run: BTreeSet<u64>,
}

/// What was asked of a counter.
#[derive(Default)]
struct Counter {
    acknowledged: u64,
    unknown: u64,
    value: u64,
    /// A failover may have been since the last increment: the cluster may have lost some.
    doubtful: bool,
}

/// One request, and what came of it.
enum Answer {
    Reply(Value),
    Error(Fate),
    /// The connection was lost before.
    None,
}

/// What the answers to a batch are held against; the numbers are positions of requests in the batch.
enum Check {
    Order { first: usize, value: u64 },
    Agree { first: usize, value: u64, count: usize },
    Push { at: usize, list: usize, number: u64 },
    Increment { at: usize, counter: usize },
}

#[derive(Default)]
struct Batch {
    wire: Vec<u8>,
    requests: usize,
    checks: Vec<Check>,
}

impl Batch {
    fn push<A: AsRef<[u8]>>(&mut self, args: &[A]) {
        self.wire.extend(wire(args));
        self.requests += 1;
    }
}

impl Worker {
    fn new(load: u64, number: usize, plan: &Plan) -> Self {
        Self {
            targets: plan.targets.clone(),
            at: number % plan.targets.len(),
            client: None,
            resp3: plan.resp3 && number % 4 == 3,
            underway: VecDeque::new(),
            depth: 1 + number % 3,
            end: Instant::now() + plan.limit,
            rest: plan.rest,
            keys: Keys::new(load, number, &plan.focus),
            dice: Dice(number as u64),
            last: 1,
            lists: (0..LISTS).map(|_| List::default()).collect(),
            counters: (0..LISTS).map(|_| Counter::default()).collect(),
            tally: Tally::default(),
            heard: None,
            doubt: Arc::default(),
        }
    }

    async fn run(mut self, count: watch::Sender<u64>, stop: watch::Receiver<bool>) -> Tally {
        // A sender that is gone was dropped by a test that has failed.
        while !*stop.borrow() && stop.has_changed().is_ok() && Instant::now() < self.end {
            self.round().await;
            count.send_modify(|count| *count += 1);
            if !self.rest.is_zero() {
                sleep(self.rest).await;
            }
        }
        self.settle_all().await;
        self.read_back().await;
        self.tally
    }

    /// Sends a batch, and takes the answers to the oldest one if enough are under way.
    async fn round(&mut self) {
        let batch = self.batch();
        self.underway.push_back((batch, Instant::now()));
        match self.write().await {
            Err(error) if self.client.is_none() => self.give_up(&error),
            // Nobody reads any more, but there may be answers to what was read before.
            Err(_) => self.settle_all().await,
            Ok(()) if self.underway.len() >= self.depth => self.settle().await,
            Ok(()) => {}
        }
    }

    async fn settle_all(&mut self) {
        while !self.underway.is_empty() {
            self.settle().await;
        }
    }

    /// Sends the newest batch.
    async fn write(&mut self) -> io::Result<()> {
        if self.client.is_none() {
            self.client = Some(self.connect().await?);
        }
        let (Some(client), Some((batch, begun))) = (&mut self.client, self.underway.back()) else {
            return Ok(());
        };
        self.heard.get_or_insert(*begun);
        client.send(&batch.wire).await
    }

    /// Takes the answers to the oldest batch, and judges them.
    async fn settle(&mut self) {
        let Some((batch, begun)) = self.underway.pop_front() else { return };
        let mut answers = Vec::with_capacity(batch.requests);
        let taken = self.take(&mut answers, batch.requests, begun).await;
        self.judge_all(&batch, answers, begun);
        if let Err(error) = taken {
            self.give_up(&error);
        }
    }

    /// The connection is lost: what is under way will not be answered.
    fn give_up(&mut self, error: &io::Error) {
        self.tally.note(Oddity::Dropped, || error.to_string());
        self.client = None;
        self.at = (self.at + 1) % self.targets.len();
        while let Some((batch, begun)) = self.underway.pop_front() {
            self.judge_all(&batch, Vec::new(), begun);
        }
    }

    async fn take(
        &mut self,
        answers: &mut Vec<Answer>,
        count: usize,
        begun: Instant,
    ) -> io::Result<()> {
        for _ in 0..count {
            let client = self.client.as_mut().ok_or(io::ErrorKind::NotConnected)?;
            let reply = timeout(REPLY, client.reply()).await;
            let reply = reply.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            self.hear(begun);
            answers.push(match reply {
                Value::Error(text) => Answer::Error(self.tally.error(&text)),
                value => Answer::Reply(value),
            });
        }
        if self.underway.is_empty() && self.client.as_ref().is_some_and(Client::has_bytes) {
            self.tally.note(Oddity::Confusion, || "more replies than requests".to_owned());
        }
        Ok(())
    }

    fn judge_all(&mut self, batch: &Batch, mut answers: Vec<Answer>, begun: Instant) {
        answers.resize_with(batch.requests, || Answer::None);
        let excused = begun.elapsed() > EXCUSE || self.doubt.load(Relaxed);
        for check in &batch.checks {
            self.judge(check, &answers, excused);
        }
        if excused {
            self.counters.iter_mut().for_each(|counter| counter.doubtful = true);
        }
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch::default();
        for _ in 0..6 {
            self.add_order(&mut batch);
            self.add_push(&mut batch);
        }
        let group = self.dice.below(GROUPS);
        let (scattered, tagged) = (&self.keys.scattered[group], &self.keys.tagged[group]);
        self.last += 2;
        add_agree(&mut batch, scattered, self.last - 1);
        add_agree(&mut batch, tagged, self.last);
        for _ in 0..6 {
            self.add_order(&mut batch);
            self.add_increment(&mut batch);
        }
        batch
    }

    fn add_order(&mut self, batch: &mut Batch) {
        let key = &self.keys.ordered[self.dice.below(ORDERED)];
        self.last += 1;
        batch.checks.push(Check::Order { first: batch.requests, value: self.last });
        batch.push(&["SET", key, "1"]);
        batch.push(&["SET", key, &self.last.to_string()]);
        batch.push(&["GET", key]);
    }

    fn add_push(&mut self, batch: &mut Batch) {
        let list = self.dice.below(LISTS);
        self.last += 1;
        batch.checks.push(Check::Push { at: batch.requests, list, number: self.last });
        batch.push(&["RPUSH", &self.keys.lists[list], &self.last.to_string()]);
    }

    fn add_increment(&mut self, batch: &mut Batch) {
        let counter = self.dice.below(LISTS);
        batch.checks.push(Check::Increment { at: batch.requests, counter });
        batch.push(&["INCR", &self.keys.counters[counter]]);
    }

    fn hear(&mut self, begun: Instant) {
        let now = Instant::now();
        self.tally.reply(now - begun);
        let heard = self.heard.replace(now).unwrap_or(now);
        self.tally.stall = self.tally.stall.max(now - heard);
    }

    /// Connects to the target, or after a short while says that nobody is there.
    async fn connect(&mut self) -> io::Result<Client> {
        let mut connected = Client::connect(self.targets[self.at]).await;
        match &mut connected {
            Ok(client) if self.resp3 => client.hello3().await?,
            Ok(_) => {}
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
        connected
    }

    fn judge(&mut self, check: &Check, answers: &[Answer], excused: bool) {
        match *check {
            Check::Order { first, value } => self.judge_order(&answers[first..], value, excused),
            Check::Agree { first, value, count } => {
                self.judge_agree(&answers[first..], value, count, excused);
            }
            Check::Push { at, list, number } => self.judge_push(&answers[at], list, number),
            Check::Increment { at, counter } => {
                self.judge_increment(&answers[at], counter, excused);
            }
        }
    }

    fn judge_order(&mut self, answers: &[Answer], value: u64, excused: bool) {
        for answer in &answers[..2] {
            self.expect_ok(answer);
        }
        let (Answer::Reply(_), Answer::Reply(got)) = (&answers[1], &answers[2]) else { return };
        let oddity = match got {
            Value::BulkString(text) if *text == value.to_string() => return,
            Value::BulkString(_) | Value::Null if excused => Oddity::Excused,
            Value::BulkString(_) | Value::Null => Oddity::Order,
            _ => Oddity::Confusion,
        };
        self.tally.note(oddity, || format!("GET after SET {value} answered {got:?}"));
    }

    fn judge_agree(&mut self, answers: &[Answer], value: u64, count: usize, excused: bool) {
        self.expect_ok(&answers[0]);
        let (Answer::Reply(_), Answer::Reply(got)) = (&answers[0], &answers[1]) else { return };
        let expected = Value::BulkString(value.to_string().into());
        let oddity = match got {
            Value::Array(values) if values.len() != count => Oddity::Confusion,
            Value::Array(values) if values.iter().all(|value| *value == expected) => return,
            Value::Array(_) if excused => Oddity::Excused,
            Value::Array(_) => Oddity::Disagreement,
            _ => Oddity::Confusion,
        };
        self.tally.note(oddity, || format!("MGET of {count} after MSET {value} answered {got:?}"));
    }

    fn judge_push(&mut self, answer: &Answer, list: usize, number: u64) {
        let list = &mut self.lists[list];
        match answer {
            Answer::Reply(Value::Integer(_)) => list.acknowledged.push(number),
            Answer::Error(Fate::NotRun) => drop(list.not_run.insert(number)),
            Answer::Error(Fate::Unknown) | Answer::None => drop(list.unknown.insert(number)),
            Answer::Reply(other) => {
                self.tally.note(Oddity::Confusion, || format!("RPUSH answered {other:?}"));
            }
        }
    }

    fn judge_increment(&mut self, answer: &Answer, counter: usize, excused: bool) {
        let counter = &mut self.counters[counter];
        match answer {
            Answer::Reply(Value::Integer(value)) => {
                let value = u64::try_from(*value).unwrap_or_default();
                counter.acknowledged += 1;
                let before = std::mem::replace(&mut counter.value, value);
                let doubtful = std::mem::take(&mut counter.doubtful) || excused;
                if value <= before {
                    let oddity = if doubtful { Oddity::Excused } else { Oddity::Order };
                    self.tally.note(oddity, || format!("INCR answered {before}, then {value}"));
                }
            }
            Answer::Error(Fate::NotRun) => {}
            Answer::Error(Fate::Unknown) | Answer::None => counter.unknown += 1,
            Answer::Reply(other) => {
                self.tally.note(Oddity::Confusion, || format!("INCR answered {other:?}"));
            }
        }
    }

    fn expect_ok(&mut self, answer: &Answer) {
        let Answer::Reply(reply) = answer else { return };
        if *reply != ok() {
            self.tally.note(Oddity::Confusion, || format!("a write answered {reply:?}"));
        }
    }

    /// Reads the lists and counters and compares them with what was told of them.
    async fn read_back(&mut self) {
        for n in 0..LISTS {
            match self.read(&["LRANGE", &self.keys.lists[n].clone(), "0", "-1"]).await {
                Some(Value::Array(numbers)) => self.judge_list(n, &numbers),
                other => self.tally.note(Oddity::Unverified, || format!("LRANGE: {other:?}")),
            }
            match self.read(&["GET", &self.keys.counters[n].clone()]).await {
                Some(value @ (Value::BulkString(_) | Value::Null)) => self.judge_counter(n, &value),
                other => self.tally.note(Oddity::Unverified, || format!("GET: {other:?}")),
            }
        }
    }

    /// The answer to a read, asked for again while there is an error instead.
    async fn read(&mut self, args: &[&str]) -> Option<Value> {
        let end = Instant::now() + READ_BACK;
        while Instant::now() < end {
            let mut batch = Batch::default();
            batch.push(args);
            self.underway.push_back((batch, Instant::now()));
            let mut answers = Vec::new();
            let taken = match self.write().await {
                Ok(()) => self.take(&mut answers, 1, Instant::now()).await,
                error => error,
            };
            self.underway.clear();
            match (taken, answers.pop()) {
                (Ok(()), Some(Answer::Reply(value))) => return Some(value),
                (Ok(()), _) => sleep(Duration::from_millis(20)).await,
                (Err(error), _) => self.give_up(&error),
            }
        }
        None
    }

    fn judge_list(&mut self, n: usize, numbers: &[Value]) {
        let (list, tally, key) = (&self.lists[n], &mut self.tally, &self.keys.lists[n]);
        let numbers = numbers.iter().map(|number| value::integer(number).unwrap_or_default());
        let numbers: Vec<u64> = numbers.map(|n| u64::try_from(n).unwrap_or_default()).collect();
        let mut seen: HashMap<u64, u64> = HashMap::new();
        let mut largest = 0;
        for number in &numbers {
            let times = seen.entry(*number).or_default();
            *times += 1;
            if *times > 1 {
                tally.note(Oddity::Doubled, || format!("{number} in {key}"));
            } else if *number < largest {
                tally.note(Oddity::Disordered, || format!("{number} behind {largest} in {key}"));
            } else if list.not_run.contains(number) {
                tally.note(Oddity::Ghost, || format!("{number} in {key}"));
            } else if list.unknown.contains(number) {
                tally.note(Oddity::Unsaid, || format!("{number} in {key}"));
            }
            largest = largest.max(*number);
        }
        for number in list.acknowledged.iter().filter(|number| !seen.contains_key(number)) {
            tally.note(Oddity::Lost, || format!("{number} of {key}"));
        }
    }

    fn judge_counter(&mut self, n: usize, value: &Value) {
        let value = value::integer(value).and_then(|n| u64::try_from(n).ok()).unwrap_or_default();
        let (counter, key) = (&self.counters[n], &self.keys.counters[n]);
        let most = counter.acknowledged + counter.unknown;
        let words =
            || format!("{key} is {value}: {} were acknowledged, {most} sent", counter.acknowledged);
        self.tally.note_many(Oddity::Lost, counter.acknowledged.saturating_sub(value), words);
        self.tally.note_many(Oddity::Doubled, value.saturating_sub(most), words);
    }
}

fn add_agree(batch: &mut Batch, keys: &[String], value: u64) {
    let value_text = value.to_string();
    batch.checks.push(Check::Agree { first: batch.requests, value, count: keys.len() });
    let mut set = vec!["MSET"];
    set.extend(keys.iter().flat_map(|key| [key.as_str(), &value_text]));
    batch.push(&set);
    let mut get = vec!["MGET"];
    get.extend(keys.iter().map(String::as_str));
    batch.push(&get);
}
