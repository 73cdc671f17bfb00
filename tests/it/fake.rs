//! A cluster in this process: nodes that listen on loopback and share one model of who owns what.
//!
//! A node answers as a real one does: it serves the slots it owns, says `MOVED`, `ASK`, `TRYAGAIN` or `CROSSSLOT` where a
//! real one would, and keeps strings and lists in memory. What is true (who serves a slot) and what the nodes tell of it
//! (`CLUSTER NODES`) are two things, so that a test decides when the proxy may learn of a change. A node can be told to
//! answer single requests differently, to hold its replies, to stop as a stopped process does, or to be gone; and it
//! notes every request it was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use slotway::cluster::{SLOTS, Slot};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::sleep;

use crate::migrations::{self, Migrations};
use crate::store::Store;

/// What a node does with a request instead of running it and answering.
pub(crate) enum Act {
    /// Runs it after all.
    Run,
    /// Does not run it and answers these bytes.
    Reply(Vec<u8>),
    /// Runs it, and keeps the reply, and all behind it, until [`Node::release`].
    Hold,
    /// Does not run it, and keeps these bytes as its reply until [`Node::release`].
    HoldReply(Vec<u8>),
    /// Does not run it and closes the connection.
    Close,
    /// Runs it and closes the connection without an answer.
    RunAndClose,
    /// Sends these bytes, whatever they are, and closes the connection.
    Cut(Vec<u8>),
    /// Changes the model, and then runs the request.
    First(Box<dyn FnOnce(&mut Model) + Send>),
}

impl Act {
    /// An error reply, given without `-` and line end.
    pub(crate) fn error(text: &str) -> Self {
        Self::Reply(format!("-{text}\r\n").into_bytes())
    }
}

/// The cluster. Nodes are numbered: primaries first, then the replicas of the first primary, and so on.
pub(crate) struct Cluster {
    model: Arc<Mutex<Model>>,
    nodes: Vec<Node>,
}

/// One node. It goes on until the runtime ends.
pub(crate) struct Node {
    number: usize,
    pub(crate) port: u16,
    model: Arc<Mutex<Model>>,
    state: Arc<Mutex<State>>,
    gate: watch::Sender<Gate>,
    /// Counts how often all connections were closed.
    kills: watch::Sender<u64>,
    listening: watch::Sender<bool>,
    listens: watch::Receiver<bool>,
}

/// What is so, and what is told.
pub(crate) struct Model {
    pub(crate) truth: Truth,
    /// What each node tells.
    told: Vec<Truth>,
    /// The data of each primary; replicas read that of their primary.
    pub(crate) stores: Vec<Store>,
    /// How many clients were told `ASK` for a slot and have not come yet.
    asked: BTreeMap<usize, isize>,
    /// Requests that were run, in the order they were.
    ran: Vec<(usize, String)>,
    /// The scripts that each node knows, by digest.
    pub(crate) scripts: Vec<BTreeMap<String, Vec<u8>>>,
    /// The host in `MOVED` and `ASK`.
    pub(crate) redirect_host: String,
    /// The host in `CLUSTER SLOTS`; empty for a null.
    pub(crate) endpoint: String,
    pub(crate) password: Option<String>,
    /// The reply to `COMMAND`.
    pub(crate) commands: Vec<u8>,
    pub(crate) version: String,
    pub(crate) migrations: Migrations,
}

/// Who there is and who owns what.
#[derive(Clone)]
pub(crate) struct Truth {
    pub(crate) members: Vec<Member>,
    pub(crate) owners: Vec<Option<usize>>,
    /// Slots on their way from one node to another.
    pub(crate) open: BTreeMap<usize, (usize, usize)>,
}

#[derive(Clone)]
pub(crate) struct Member {
    pub(crate) id: String,
    port: u16,
    pub(crate) primary: Option<usize>,
    pub(crate) epoch: u64,
    pub(crate) failed: bool,
    /// Nobody tells of it.
    pub(crate) hidden: bool,
}

/// What a test has told a node, and what the node has noted.
#[derive(Default)]
struct State {
    once: Vec<(String, Act)>,
    always: Vec<(String, Vec<u8>)>,
    holding: bool,
    seen: Vec<(usize, String)>,
    /// Connections so far.
    opened: usize,
    /// Open connections that were greeted with `PING`, as those for requests are.
    lanes: BTreeSet<usize>,
    /// Connections that are to hear of changes.
    trackers: Vec<mpsc::UnboundedSender<Out>>,
}

#[derive(Clone, Copy, Default)]
struct Gate {
    frozen: bool,
    released: u64,
}

/// One connection as a node sees it.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "as many as a server keeps flags")]
struct Peer {
    number: usize,
    asking: bool,
    readonly: bool,
    resp3: bool,
    authenticated: bool,
    transaction: Option<Queued>,
}

/// What came since `MULTI`.
#[derive(Default)]
struct Queued {
    requests: Vec<Vec<Vec<u8>>>,
    /// One of them was refused, so that none will run.
    refused: bool,
}

/// What goes out on a connection.
enum Out {
    /// Bytes, which wait for the gate to have been released so often.
    Bytes(Vec<u8>, u64),
    Close,
}

impl Cluster {
    /// A cluster whose primaries share the slots evenly.
    pub(crate) fn start(primaries: usize, replicas: usize) -> Self {
        let listeners: Vec<Doorway> =
            (0..primaries * (1 + replicas)).map(|_| Doorway::new().expect("a free port")).collect();
        let member = |(number, doorway): (usize, &Doorway)| Member {
            id: format!("{:040x}", number + 1),
            port: doorway.port,
            primary: number.checked_sub(primaries).map(|replica| replica / replicas),
            epoch: number as u64 + 1,
            failed: false,
            hidden: false,
        };
        let truth = Truth {
            members: listeners.iter().enumerate().map(member).collect(),
            owners: (0..SLOTS).map(|slot| Some(slot * primaries / SLOTS)).collect(),
            open: BTreeMap::new(),
        };
        let model = Model {
            told: vec![truth.clone(); listeners.len()],
            stores: vec![Store::default(); listeners.len()],
            truth,
            asked: BTreeMap::new(),
            ran: Vec::new(),
            scripts: vec![BTreeMap::new(); listeners.len()],
            redirect_host: "127.0.0.1".to_owned(),
            endpoint: "127.0.0.1".to_owned(),
            password: None,
            commands: b"*0\r\n".to_vec(),
            version: "7.2.4".to_owned(),
            migrations: Migrations::default(),
        };
        let model = Arc::new(Mutex::new(model));
        let nodes = listeners.into_iter().enumerate();
        let nodes = nodes.map(|(number, doorway)| Node::start(number, doorway, &model)).collect();
        Self { model, nodes }
    }

    pub(crate) fn node(&self, number: usize) -> &Node {
        &self.nodes[number]
    }

    pub(crate) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The model, to look at or to change. Not to be held across an await.
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().expect("no test has failed")
    }

    /// Lets all nodes tell what is true.
    pub(crate) fn announce(&self) {
        let mut model = self.model();
        let truth = model.truth.clone();
        model.told.fill(truth);
    }

    /// Lets one node alone tell what is true.
    pub(crate) fn announce_at(&self, node: usize) {
        let mut model = self.model();
        model.told[node] = model.truth.clone();
    }

    /// What was run, in order, by whichever node.
    pub(crate) fn ran(&self) -> Vec<String> {
        self.model().ran.iter().map(|(_, line)| line.clone()).collect()
    }

    /// A key of a slot that this node owns; another one for each `nth`.
    pub(crate) fn key(&self, node: usize, nth: usize) -> String {
        let model = self.model();
        let keys = (0..).map(|n| format!("k{n}"));
        let mut own =
            keys.filter(|key| model.truth.owners[Slot::of(key.as_bytes()).index()] == Some(node));
        own.nth(nth).expect("there are always more keys")
    }
}

impl Model {
    /// Gives a key's slot, with all that is in it, to another node.
    pub(crate) fn give(&mut self, key: &str, to: usize) {
        let slot = Slot::of(key.as_bytes()).index();
        if let Some(from) = self.truth.owners[slot].replace(to) {
            let keys = self.stores[from].keys_of(slot);
            self.move_keys(&keys, from, to);
        }
        self.truth.open.remove(&slot);
        let newest = self.truth.members.iter().map(|member| member.epoch).max().unwrap_or(0);
        self.truth.members[to].epoch = newest + 1;
    }

    /// Opens a key's slot for migration to another node. No key moves yet.
    pub(crate) fn open(&mut self, key: &str, to: usize) {
        let slot = Slot::of(key.as_bytes()).index();
        let from = self.truth.owners[slot].expect("the slot has an owner");
        self.truth.open.insert(slot, (from, to));
    }

    /// Moves one key over to where its slot is going.
    pub(crate) fn migrate(&mut self, key: &str) {
        let (from, to) = self.truth.open[&Slot::of(key.as_bytes()).index()];
        self.move_keys(&[key.as_bytes().to_vec()], from, to);
    }

    fn move_keys(&mut self, keys: &[Vec<u8>], from: usize, to: usize) {
        for key in keys {
            if let Some(value) = self.stores[from].take(key) {
                self.stores[to].put(key.clone(), value);
            }
        }
    }

    /// A replica takes over all slots of its primary, which is held for failed.
    pub(crate) fn fail_over(&mut self, primary: usize, replica: usize) {
        self.stores[replica] = self.stores[primary].clone();
        for owner in self.truth.owners.iter_mut().filter(|owner| **owner == Some(primary)) {
            *owner = Some(replica);
        }
        let newest = self.truth.members.iter().map(|member| member.epoch).max().unwrap_or(0);
        let members = &mut self.truth.members;
        members[replica].primary = None;
        members[replica].epoch = newest + 1;
        members[primary].failed = true;
    }

    /// From now on these nodes tell that they are another cluster, which owns all slots by newer epochs.
    pub(crate) fn estrange(&mut self, nodes: &[usize]) {
        let mut other = self.truth.clone();
        for (number, member) in other.members.iter_mut().enumerate() {
            member.id = format!("{:040x}", 0xb000 + number);
            member.epoch += 1000;
            member.hidden = !nodes.contains(&number);
            (member.primary, member.failed) = (None, false);
        }
        for (slot, owner) in other.owners.iter_mut().enumerate() {
            *owner = Some(nodes[slot * nodes.len() / SLOTS]);
        }
        for node in nodes {
            self.told[*node] = other.clone();
        }
    }

    /// The number of the node of this name.
    pub(crate) fn number(&self, id: &str) -> usize {
        self.truth.members.iter().position(|member| member.id == id).expect("a node")
    }

    /// Gives slots with all that is in them to another node, which all nodes hear of at once.
    pub(crate) fn take_slots(&mut self, slots: &[usize], from: usize, to: usize) {
        for slot in slots {
            let keys = self.stores[from].keys_of(*slot);
            self.move_keys(&keys, from, to);
            self.truth.owners[*slot] = Some(to);
        }
        let truth = self.truth.clone();
        self.told.fill(truth);
    }

    /// The primary whose data a node serves.
    fn source(&self, node: usize) -> usize {
        self.truth.members[node].primary.unwrap_or(node)
    }

    /// Whether a client that was told `ASK` for a key's slot is still on its way. A slot that left and came back in that
    /// time would be taken for migrated, by any client.
    pub(crate) fn is_asked(&self, key: &str) -> bool {
        self.asked.get(&Slot::of(key.as_bytes()).index()).is_some_and(|count| *count > 0)
    }

    /// `CLUSTER SETSLOT slot state [id]`, which all nodes hear of at once.
    fn set_slot(&mut self, node: usize, args: &[Vec<u8>]) -> Vec<u8> {
        let word = |at: usize| std::str::from_utf8(&args[at]).expect("a word");
        let slot: usize = word(2).parse().expect("a slot");
        let peer = args.get(4).map(|_| {
            let id = word(4);
            self.number(id)
        });
        match (word(3), peer) {
            ("IMPORTING", Some(from)) => drop(self.truth.open.insert(slot, (from, node))),
            ("MIGRATING", Some(to)) => drop(self.truth.open.insert(slot, (node, to))),
            ("NODE", Some(owner)) => {
                self.truth.owners[slot] = Some(owner);
                self.truth.open.remove(&slot);
            }
            _ => drop(self.truth.open.remove(&slot)),
        }
        let truth = self.truth.clone();
        self.told.fill(truth);
        b"+OK\r\n".to_vec()
    }

    /// The keys that `CLUSTER …KEYSINSLOT slot` is about.
    fn keys_in(&self, node: usize, args: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let slot = std::str::from_utf8(&args[2]).expect("a word").parse().expect("a slot");
        self.stores[node].keys_of(slot)
    }

    /// `MIGRATE host port "" 0 timeout … KEYS key…`.
    fn migrate_keys(&mut self, node: usize, args: &[Vec<u8>]) -> Vec<u8> {
        let port: u16 = std::str::from_utf8(&args[2]).expect("a word").parse().expect("a port");
        let to = self.truth.members.iter().position(|member| member.port == port).expect("a node");
        let keys = args.iter().position(|word| word == b"KEYS").expect("keys") + 1;
        self.move_keys(&args[keys..], node, to);
        b"+OK\r\n".to_vec()
    }

    /// Runs a request on a node, or says where it belongs.
    fn run(&mut self, node: usize, peer: &Peer, args: &[Vec<u8>]) -> Vec<u8> {
        match self.receive(node, peer, args) {
            Ok(()) => self.perform(node, peer, args),
            Err(error) => error,
        }
    }

    /// Says where a request belongs if it is not this node.
    fn receive(&mut self, node: usize, peer: &Peer, args: &[Vec<u8>]) -> Result<(), Vec<u8>> {
        let command = Command::read(args);
        let slot = command.keys.first().map_or(0, |key| Slot::of(key).index());
        if peer.asking {
            *self.asked.entry(slot).or_default() -= 1;
        }
        if let Err(error) = self.admit(node, peer, &command) {
            if error.starts_with("ASK ") {
                *self.asked.entry(slot).or_default() += 1;
            }
            return Err(format!("-{error}\r\n").into_bytes());
        }
        Ok(())
    }

    fn perform(&mut self, node: usize, peer: &Peer, args: &[Vec<u8>]) -> Vec<u8> {
        let source = self.source(node);
        let args = match self.script(node, args) {
            Script::Runs(args) => args,
            Script::Says(reply) => return reply,
        };
        self.ran.push((node, line(&args)));
        if args[0] == b"SCAN" {
            return self.stores[source].scan(node, &args);
        }
        self.stores[source].run(&args, peer.resp3)
    }

    /// What a request comes to as far as it is about scripts. A script is a command and its last argument: that of digest
    /// `d-APPEND-x` appends `x`.
    fn script(&mut self, node: usize, args: &[Vec<u8>]) -> Script {
        let text = |at: usize| args.get(at).map(|arg| String::from_utf8_lossy(arg).into_owned());
        match (text(0).as_deref(), text(1)) {
            (Some("SCRIPT"), Some(sub)) if sub == "LOAD" => {
                let body = text(2).unwrap_or_default();
                let digest = format!("d-{}", body.replace(' ', "-"));
                self.scripts[node].insert(digest.clone(), body.into_bytes());
                Script::Says(bulk(&digest))
            }
            (Some("SCRIPT"), _) => {
                self.scripts[node].clear();
                Script::Says(b"+OK\r\n".to_vec())
            }
            (Some("EVALSHA"), Some(digest)) => match self.scripts[node].get(&digest) {
                Some(body) => {
                    let mut words = body.split(|byte| *byte == b' ').map(<[u8]>::to_vec);
                    let name = words.next().expect("a command");
                    Script::Runs([name, args[3].clone()].into_iter().chain(words).collect())
                }
                None => {
                    Script::Says(b"-NOSCRIPT No matching script. Please use EVAL.\r\n".to_vec())
                }
            },
            _ => Script::Runs(args.to_vec()),
        }
    }

    /// As `getNodeByQuery` of the server.
    fn admit(&self, node: usize, peer: &Peer, command: &Command<'_>) -> Result<(), String> {
        let Some(first) = command.keys.first() else { return Ok(()) };
        let slot = Slot::of(first).index();
        if command.keys.iter().any(|key| Slot::of(key).index() != slot) {
            return Err("CROSSSLOT Keys in request don't hash to the same slot".to_owned());
        }
        let Some(owner) = self.truth.owners[slot] else {
            return Err("CLUSTERDOWN Hash slot not served".to_owned());
        };
        let source = self.source(node);
        let missing = command.keys.iter().filter(|key| !self.stores[source].has(key)).count();
        let redirect = |code: &str, to: usize| {
            let host = &self.redirect_host;
            Err(format!("{code} {slot} {host}:{}", self.truth.members[to].port))
        };
        match self.truth.open.get(&slot) {
            Some((from, to)) if *from == node && missing > 0 => {
                if missing == command.keys.len() {
                    return redirect("ASK", *to);
                }
                Err("TRYAGAIN Multiple keys request during rehashing of slot".to_owned())
            }
            Some((_, to)) if *to == node && peer.asking => {
                if missing > 0 && command.keys.len() > 1 {
                    return Err(
                        "TRYAGAIN Multiple keys request during rehashing of slot".to_owned()
                    );
                }
                Ok(())
            }
            _ if owner == node => Ok(()),
            _ if owner == source && peer.readonly && command.reads => Ok(()),
            _ => redirect("MOVED", owner),
        }
    }

    /// The reply to `CLUSTER NODES`.
    fn nodes_text(&self, node: usize) -> String {
        let told = &self.told[node];
        let known = told.members.iter().enumerate().filter(|(_, member)| !member.hidden);
        known.map(|(number, member)| told.line(number, member, number == node)).collect()
    }

    /// The reply to `CLUSTER SLOTS`.
    fn slots_reply(&self, node: usize) -> Vec<u8> {
        let told = &self.told[node];
        let ranges = told.ranges();
        let known = ranges.iter().filter(|(owner, ..)| !told.members[*owner].hidden);
        let mut entries = Vec::new();
        for (owner, first, last) in known {
            let endpoint = match self.endpoint.as_str() {
                "" => "$-1\r\n".to_owned(),
                host => format!("${}\r\n{host}\r\n", host.len()),
            };
            let Member { id, port, .. } = &told.members[*owner];
            let entry = format!(
                "*3\r\n:{first}\r\n:{last}\r\n*4\r\n{endpoint}:{port}\r\n${}\r\n{id}\r\n*0\r\n",
                id.len()
            );
            entries.push(entry);
        }
        format!("*{}\r\n{}", entries.len(), entries.concat()).into_bytes()
    }
}

impl Truth {
    /// Runs of slots with one owner: owner, first, last.
    fn ranges(&self) -> Vec<(usize, usize, usize)> {
        let mut ranges: Vec<(usize, usize, usize)> = Vec::new();
        for (slot, owner) in self.owners.iter().enumerate() {
            let Some(owner) = *owner else { continue };
            match ranges.last_mut() {
                Some((same, _, last)) if *same == owner && *last + 1 == slot => *last = slot,
                _ => ranges.push((owner, slot, slot)),
            }
        }
        ranges
    }

    fn line(&self, number: usize, member: &Member, myself: bool) -> String {
        let role = if member.primary.is_some() { "slave" } else { "master" };
        let myself_flag = if myself { "myself," } else { "" };
        let failed = if member.failed { ",fail" } else { "" };
        let primary = member.primary.map_or("-", |primary| &self.members[primary].id);
        let epoch = self.members[member.primary.unwrap_or(number)].epoch;
        let own = self.ranges().into_iter().filter(|(owner, ..)| *owner == number);
        let mut slots: Vec<String> =
            own.map(|(_, first, last)| format!(" {first}-{last}")).collect();
        for (slot, (from, to)) in self.open.iter().filter(|_| myself) {
            if *from == number {
                slots.push(format!(" [{slot}->-{}]", self.members[*to].id));
            } else if *to == number {
                slots.push(format!(" [{slot}-<-{}]", self.members[*from].id));
            }
        }
        let Member { id, port, .. } = member;
        format!(
            "{id} 127.0.0.1:{port}@1 {myself_flag}{role}{failed} {primary} 0 0 {epoch} connected{}\n",
            slots.concat()
        )
    }
}

/// What a request comes to.
enum Script {
    Runs(Vec<Vec<u8>>),
    Says(Vec<u8>),
}

/// A request as far as routing sees it.
struct Command<'a> {
    keys: Vec<&'a [u8]>,
    reads: bool,
}

impl<'a> Command<'a> {
    fn read(args: &'a [Vec<u8>]) -> Self {
        let name = args[0].to_ascii_uppercase();
        let keys = args.iter().skip(1).map(Vec::as_slice);
        let keys = match name.as_slice() {
            b"MGET" | b"DEL" | b"EXISTS" | b"UNLINK" | b"TOUCH" => keys.collect(),
            b"MSET" => keys.step_by(2).collect(),
            b"DBSIZE" | b"FLUSHALL" | b"KEYS" | b"RANDOMKEY" | b"SCAN" | b"SCRIPT" => Vec::new(),
            b"EVAL" | b"EVALSHA" => keys.skip(2).take(1).collect(),
            _ => keys.take(1).collect(),
        };
        let reads = matches!(name.as_slice(), b"GET" | b"MGET" | b"EXISTS" | b"LRANGE");
        Self { keys, reads }
    }
}

impl Node {
    fn start(number: usize, doorway: Doorway, model: &Arc<Mutex<Model>>) -> Self {
        let (listening, wanted) = watch::channel(true);
        let (announced, listens) = watch::channel(true);
        let node = Self {
            number,
            port: doorway.port,
            model: Arc::clone(model),
            state: Arc::default(),
            gate: watch::Sender::default(),
            kills: watch::Sender::default(),
            listening,
            listens,
        };
        tokio::spawn(listen(doorway, wanted, announced, node.server()));
        node
    }

    fn server(&self) -> Server {
        Server {
            number: self.number,
            model: Arc::clone(&self.model),
            state: Arc::clone(&self.state),
            gate: self.gate.subscribe(),
            kills: self.kills.subscribe(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test has failed")
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Does this with the next request of this name or this whole line, `=line` only the line, `*` any for data.
    pub(crate) fn next(&self, name: &str, act: Act) {
        self.state().once.push((name.to_owned(), act));
    }

    /// Answers every request of this name with this error until [`Self::obey`].
    pub(crate) fn always(&self, name: &str, error: &str) {
        self.state().always.push((name.to_owned(), format!("-{error}\r\n").into_bytes()));
    }

    /// Serves again as usual.
    pub(crate) fn obey(&self) {
        let mut state = self.state();
        state.once.clear();
        state.always.clear();
    }

    /// Runs requests and keeps the replies until [`Self::release`].
    pub(crate) fn hold(&self) {
        self.state().holding = true;
    }

    /// Sends all replies that were held.
    pub(crate) fn release(&self) {
        self.state().holding = false;
        self.gate.send_modify(|gate| gate.released += 1);
    }

    /// Does nothing any more, as a stopped process: its kernel still accepts connections and bytes.
    pub(crate) fn freeze(&self) {
        self.gate.send_modify(|gate| gate.frozen = true);
    }

    pub(crate) fn thaw(&self) {
        self.gate.send_modify(|gate| gate.frozen = false);
    }

    /// Says something to those who are to hear of changes.
    pub(crate) fn tell(&self, text: &str) {
        for tracker in &self.state().trackers {
            // Some are closed.
            let _ = tracker.send(Out::Bytes(text.as_bytes().to_vec(), 0));
        }
    }

    /// How many connections were to hear of changes so far.
    pub(crate) fn trackers(&self) -> usize {
        self.state().trackers.len()
    }

    /// Closes all connections; new ones are accepted.
    pub(crate) fn drop_connections(&self) {
        self.kills.send_modify(|kills| *kills += 1);
    }

    /// Refuses connections and closes those that are open.
    pub(crate) async fn down(&self) {
        self.set_listening(false).await;
        self.drop_connections();
        while self.lanes() > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }

    /// Accepts connections again, on the same port.
    pub(crate) async fn up(&self) {
        self.set_listening(true).await;
    }

    async fn set_listening(&self, on: bool) {
        self.listening.send_replace(on);
        self.listens.clone().wait_for(|is| *is == on).await.expect("the node runs");
    }

    /// Requests for data that the node was sent, and `ASKING`, in the order they came.
    pub(crate) fn seen(&self) -> Vec<String> {
        let state = self.state();
        let lines = state.seen.iter().filter(|(_, line)| !is_greeting(line));
        lines.map(|(_, line)| line.clone()).collect()
    }

    /// All requests, by connection.
    pub(crate) fn seen_by_connection(&self) -> Vec<Vec<String>> {
        let state = self.state();
        let mut connections: BTreeMap<usize, Vec<String>> = BTreeMap::new();
        for (connection, line) in &state.seen {
            connections.entry(*connection).or_default().push(line.clone());
        }
        connections.into_values().collect()
    }

    /// How often a request came.
    pub(crate) fn count(&self, line: &str) -> usize {
        self.seen().iter().filter(|seen| *seen == line).count()
    }

    /// Number of open connections for requests.
    pub(crate) fn lanes(&self) -> usize {
        self.state().lanes.len()
    }
}

/// Requests that belong to no client.
fn is_greeting(line: &str) -> bool {
    let name = line.split(' ').next().unwrap_or(line);
    ["PING", "READONLY", "HELLO", "AUTH", "CLUSTER", "COMMAND", "INFO", "CLIENT"].contains(&name)
}

/// A request as a log shows it.
fn line(args: &[Vec<u8>]) -> String {
    args.join(&b' ').escape_ascii().to_string()
}

/// A port that stays this node's own while nobody listens on it.
struct Doorway {
    port: u16,
    _guard: TcpSocket,
}

impl Doorway {
    fn new() -> io::Result<Self> {
        let guard = Self::bind(0)?;
        Ok(Self { port: guard.local_addr()?.port(), _guard: guard })
    }

    fn bind(port: u16) -> io::Result<TcpSocket> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(socket)
    }

    fn listen(&self) -> TcpListener {
        let socket = Self::bind(self.port).expect("the port is kept");
        socket.listen(1024).expect("a listener")
    }
}

async fn listen(
    doorway: Doorway,
    mut wanted: watch::Receiver<bool>,
    announced: watch::Sender<bool>,
    server: Server,
) {
    let mut listener = Some(doorway.listen());
    loop {
        tokio::select! {
            Ok((stream, _)) = accept(listener.as_ref()) => {
                tokio::spawn(server.clone().serve(stream));
            }
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                let on = *wanted.borrow_and_update();
                match (on, &listener) {
                    (true, None) => listener = Some(doorway.listen()),
                    (true, Some(_)) => {}
                    (false, _) => listener = None,
                }
                announced.send_replace(on);
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// The node's side of its connections.
#[derive(Clone)]
struct Server {
    number: usize,
    model: Arc<Mutex<Model>>,
    state: Arc<Mutex<State>>,
    gate: watch::Receiver<Gate>,
    kills: watch::Receiver<u64>,
}

impl Server {
    async fn serve(mut self, stream: TcpStream) {
        let (mut read, write) = stream.into_split();
        let (out, outbox) = mpsc::unbounded_channel();
        let mut peer = self.welcome();
        let writer = tokio::spawn(send(write, outbox, self.gate.clone()));
        let mut buf = Vec::new();
        loop {
            let thawed = self.gate.wait_for(|gate| !gate.frozen);
            tokio::select! {
                _ = thawed => {}
                _ = self.kills.changed() => break,
            }
            while let Some(args) = take_request(&mut buf) {
                for item in self.handle(&mut peer, &args) {
                    // The writer has closed the connection.
                    let _ = out.send(item);
                }
                if line(&args) == "CLIENT TRACKING ON BCAST" {
                    self.state.lock().expect("no test has failed").trackers.push(out.clone());
                }
            }
            tokio::select! {
                read = read.read_buf(&mut buf) => if !matches!(read, Ok(1..)) { break },
                _ = self.kills.changed() => break,
                () = out.closed() => break,
            }
        }
        writer.abort();
        self.state.lock().expect("no test has failed").lanes.remove(&peer.number);
    }

    fn welcome(&mut self) -> Peer {
        self.kills.mark_unchanged();
        let mut state = self.state.lock().expect("no test has failed");
        state.opened += 1;
        Peer { number: state.opened, ..Peer::default() }
    }

    fn handle(&self, peer: &mut Peer, args: &[Vec<u8>]) -> Vec<Out> {
        let line = line(args);
        let act = {
            let mut state = self.state.lock().expect("no test has failed");
            state.seen.push((peer.number, line.clone()));
            if line == "PING" {
                state.lanes.insert(peer.number);
            }
            state.act(&line)
        };
        let turn = self.gate.borrow().released + 1;
        let mut run = || self.answer(peer, args);
        match act {
            Act::Run => {
                let holding = self.state.lock().expect("no test has failed").holding;
                let held = holding && !is_greeting(&line) && line != "ASKING";
                vec![Out::Bytes(run(), if held { turn } else { 0 })]
            }
            Act::Reply(bytes) => {
                if let Some(queued) = &mut peer.transaction {
                    queued.refused |= bytes.starts_with(b"-");
                }
                vec![Out::Bytes(bytes, 0)]
            }
            Act::Hold => vec![Out::Bytes(run(), turn)],
            Act::HoldReply(bytes) => vec![Out::Bytes(bytes, turn)],
            Act::Close => vec![Out::Close],
            Act::RunAndClose => {
                run();
                vec![Out::Close]
            }
            Act::Cut(bytes) => vec![Out::Bytes(bytes, 0), Out::Close],
            Act::First(change) => {
                change(&mut self.model.lock().expect("no test has failed"));
                vec![Out::Bytes(run(), 0)]
            }
        }
    }

    fn answer(&self, peer: &mut Peer, args: &[Vec<u8>]) -> Vec<u8> {
        let mut model = self.model.lock().expect("no test has failed");
        let name = args[0].to_ascii_uppercase();
        if name == b"AUTH" {
            let right =
                model.password.as_ref().map(String::as_bytes) == args.last().map(Vec::as_slice);
            peer.authenticated = right;
            return if right { b"+OK\r\n".to_vec() } else { b"-WRONGPASS invalid\r\n".to_vec() };
        }
        if model.password.is_some() && !peer.authenticated {
            return b"-NOAUTH Authentication required.\r\n".to_vec();
        }
        match name.as_slice() {
            b"MULTI" => {
                peer.transaction = Some(Queued::default());
                b"+OK\r\n".to_vec()
            }
            b"EXEC" => self.execute(&mut model, peer),
            b"DISCARD" if peer.transaction.take().is_some() => {
                peer.asking = false;
                b"+OK\r\n".to_vec()
            }
            b"DISCARD" => b"-ERR DISCARD without MULTI\r\n".to_vec(),
            _ if peer.transaction.is_some() => self.queue(&mut model, peer, args),
            _ => self.reply(&mut model, peer, &name, args),
        }
    }

    fn queue(&self, model: &mut Model, peer: &mut Peer, args: &[Vec<u8>]) -> Vec<u8> {
        let is_data = args[0] != b"CLUSTER";
        let received = if is_data { model.receive(self.number, peer, args) } else { Ok(()) };
        let Some(queued) = &mut peer.transaction else { return Vec::new() };
        match received {
            Ok(()) => {
                queued.requests.push(args.to_vec());
                b"+QUEUED\r\n".to_vec()
            }
            Err(error) => {
                queued.refused = true;
                error
            }
        }
    }

    fn execute(&self, model: &mut Model, peer: &mut Peer) -> Vec<u8> {
        peer.asking = false;
        let Some(Queued { requests, refused }) = peer.transaction.take() else {
            return b"-ERR EXEC without MULTI\r\n".to_vec();
        };
        if refused {
            return b"-EXECABORT Transaction discarded because of previous errors.\r\n".to_vec();
        }
        let run = |args: &Vec<Vec<u8>>| match args[0].as_slice() {
            name @ b"CLUSTER" => self.reply(model, peer, name, args),
            _ => model.perform(self.number, peer, args),
        };
        let replies: Vec<Vec<u8>> = requests.iter().map(run).collect();
        [format!("*{}\r\n", replies.len()).into_bytes(), replies.concat()].concat()
    }

    fn reply(&self, model: &mut Model, peer: &mut Peer, name: &[u8], args: &[Vec<u8>]) -> Vec<u8> {
        if name == b"CLUSTER"
            && let Some(reply) = migrations::answer(model, self.number, args)
        {
            return reply;
        }
        match name {
            b"PING" => b"+PONG\r\n".to_vec(),
            b"READONLY" => {
                peer.readonly = true;
                b"+OK\r\n".to_vec()
            }
            b"HELLO" => {
                peer.resp3 = args.get(1).is_some_and(|version| version == b"3");
                b"%2\r\n$6\r\nserver\r\n$5\r\nredis\r\n$5\r\nproto\r\n:3\r\n".to_vec()
            }
            b"ASKING" => {
                peer.asking = true;
                b"+OK\r\n".to_vec()
            }
            b"CLUSTER" if args[1] == b"NODES" => bulk(&model.nodes_text(self.number)),
            b"CLUSTER" if args[1] == b"INFO" => bulk("cluster_state:ok\r\n"),
            b"CLUSTER" if args[1] == b"SETSLOT" => model.set_slot(self.number, args),
            b"CLUSTER" if args[1] == b"COUNTKEYSINSLOT" => {
                format!(":{}\r\n", model.keys_in(self.number, args).len()).into_bytes()
            }
            b"CLUSTER" if args[1] == b"GETKEYSINSLOT" => list(&model.keys_in(self.number, args)),
            b"MIGRATE" => model.migrate_keys(self.number, args),
            b"MEMORY" => b":100\r\n".to_vec(),
            b"CONFIG" => b"*0\r\n".to_vec(),
            b"ACL" => b"-ERR unknown command 'ACL'\r\n".to_vec(),
            b"CLUSTER" => model.slots_reply(self.number),
            b"COMMAND" => model.commands.clone(),
            b"CLIENT" => b":1\r\n".to_vec(),
            b"INFO" => bulk(&format!(
                "# Server\r\ncluster_enabled:1\r\nredis_version:{}\r\nused_memory:1000\r\ndb0:keys={},expires=0,avg_ttl=0\r\n",
                model.version,
                model.stores[self.number].len()
            )),
            _ => {
                let reply = model.run(self.number, peer, args);
                peer.asking = false;
                reply
            }
        }
    }
}

/// An array of bulk strings.
fn list(items: &[Vec<u8>]) -> Vec<u8> {
    let item = |item: &Vec<u8>| [format!("${}\r\n", item.len()).as_bytes(), item, b"\r\n"].concat();
    let items: Vec<Vec<u8>> = items.iter().map(item).collect();
    [format!("*{}\r\n", items.len()).into_bytes(), items.concat()].concat()
}

impl State {
    /// What is to be done with this request.
    fn act(&mut self, line: &str) -> Act {
        let name = line.split(' ').next().unwrap_or(line).to_ascii_uppercase();
        let is_data = !is_greeting(&name) && name != "ASKING";
        let concerns = |wanted: &str| match wanted.strip_prefix('=') {
            Some(whole) => whole == line,
            None => wanted == name || wanted == line || wanted == "*" && is_data,
        };
        if let Some(at) = self.once.iter().position(|(wanted, _)| concerns(wanted)) {
            return self.once.remove(at).1;
        }
        let always = self.always.iter().find(|(wanted, _)| concerns(wanted));
        always.map_or(Act::Run, |(_, bytes)| Act::Reply(bytes.clone()))
    }
}

/// Sends replies in order, each when the gate lets it.
async fn send(
    mut write: OwnedWriteHalf,
    mut outbox: mpsc::UnboundedReceiver<Out>,
    mut gate: watch::Receiver<Gate>,
) {
    let mut next = outbox.recv().await;
    while let Some(Out::Bytes(mut bytes, turn)) = next {
        if gate.wait_for(|gate| !gate.frozen && gate.released >= turn).await.is_err() {
            return;
        }
        // What is ready goes in one write, so that it also arrives together.
        next = outbox.try_recv().ok();
        while let Some(Out::Bytes(more, turn)) = &next {
            if *turn > gate.borrow().released {
                break;
            }
            bytes.extend_from_slice(more);
            next = outbox.try_recv().ok();
        }
        if write.write_all(&bytes).await.is_err() {
            return;
        }
        if next.is_none() {
            next = outbox.recv().await;
        }
    }
    // Told to close: dropping the channel lets the reader go, too.
}

/// Takes one whole request, an array of bulk strings, off the front of the buffer.
fn take_request(buf: &mut Vec<u8>) -> Option<Vec<Vec<u8>>> {
    let mut at = 0;
    let count = number_line(buf, &mut at, b'*')?;
    let mut args = Vec::new();
    for _ in 0..count {
        let len = number_line(buf, &mut at, b'$')?;
        args.push(buf.get(at..at + len)?.to_vec());
        buf.get(at + len..at + len + 2)?;
        at += len + 2;
    }
    buf.drain(..at);
    Some(args)
}

fn number_line(buf: &[u8], at: &mut usize, kind: u8) -> Option<usize> {
    let rest = buf.get(*at..).filter(|rest| !rest.is_empty())?;
    assert_eq!(char::from(rest[0]), char::from(kind), "not a request: {}", rest.escape_ascii());
    let end = rest.iter().position(|byte| *byte == b'\n')?;
    let digits = std::str::from_utf8(&rest[1..end - 1]).expect("digits");
    *at += end + 1;
    Some(digits.parse().expect("a number"))
}

/// A bulk string.
pub(crate) fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}
