//! `manage::repair` makes clusters whole that others left in pieces, and no stale copy wins.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use slotway::cluster::{NodeId, Slot};
use slotway::manage::journal::{self, Entry, Journal, Setting};
use slotway::manage::mover::Reins;
use slotway::manage::repair::{self, RepairError, RepairReport, Risk, Workshop};
use slotway::resp::value;

use crate::cluster::{Cluster, Node};
use crate::job::{Office, control, count, fill, key, tag};
use crate::ledger::Reader;
use crate::load::{Load, Plan};
use crate::tally::Oddity;
use crate::{beside_others, front, tool, under_load, until};

/// Clients of a load: few, since all of it is on the machine that does the work as well.
const CLIENTS: usize = 4;
/// The slot that is left open, of node 0 at first.
const SLOT: usize = 7;

/// Repairs the cluster as far as is safe, or further.
async fn fix(cluster: &Cluster, entry: Node, office: &Office, consent: Risk) -> RepairReport {
    let report = try_fix(cluster, entry, office, (consent, &Reins::default())).await;
    report.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()))
}

async fn try_fix(
    cluster: &Cluster,
    entry: Node,
    office: &Office,
    (consent, reins): (Risk, &Reins),
) -> Result<RepairReport, RepairError> {
    let view = office.view(cluster, entry).await;
    let keys = repair::examine(&view, &office.access).await.expect("the nodes answer");
    let heirs = repair::heirs(&view, office.folder()).expect("the folder can be read");
    let plan = repair::plan(&view, &keys, &heirs);
    let lines: Vec<_> = plan.repairs.iter().map(|r| format!("{}: {}", r.risk, r.action)).collect();
    eprintln!("{lines:#?}");
    let workshop = Workshop {
        access: &office.access,
        options: &office.options,
        folder: office.folder(),
        consent,
        reins,
    };
    repair::apply(plan, &view, &workshop, &mut |_| ()).await
}

async fn set(cluster: &Cluster, node: Node, state: &[&str]) {
    let slot = SLOT.to_string();
    cluster.call(node, &[&["CLUSTER", "SETSLOT", &slot], state].concat()).await;
}

/// Moves so many keys of the slot, of those that are there.
async fn move_some(cluster: &Cluster, from: Node, to: Node, slot: usize, keys: usize) {
    let list = ["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &keys.to_string()];
    let list = cluster.call(from, &list).await;
    let names = value::array(&list).expect("a list").iter().filter_map(value::text);
    let address = cluster.address(to);
    let port = address.rsplit_once(':').expect("a port").1;
    let head = ["MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"];
    cluster.call(from, &head.into_iter().chain(names).collect::<Vec<_>>()).await;
}

/// Config epochs of all nodes, as one of them knows them.
async fn epochs(cluster: &Cluster, node: Node) -> BTreeMap<String, String> {
    let told = cluster.call(node, &["CLUSTER", "NODES"]).await;
    let lines = value::text(&told).expect("a text").lines();
    let epoch = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        (words[0].to_owned(), words[6].to_owned())
    };
    lines.map(epoch).collect()
}

/// Scenario 63: whatever is set on whichever side, and however many keys have gone over.
#[tokio::test]
async fn slots_left_half_way_are_closed() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    let mut owner = 0;
    for (importing, migrating, moved, finished) in [
        (true, true, 0, false),
        (true, true, 40, false),
        (true, true, 100, false),
        (false, true, 0, false),
        (true, false, 0, false),
        (true, true, 100, true),
    ] {
        let (from, to) = (owner, (owner + 1) % 3);
        let what = format!("{importing} {migrating} {moved} {finished}");
        if importing {
            set(&cluster, to, &["IMPORTING", cluster.id(from)]).await;
        }
        if migrating {
            set(&cluster, from, &["MIGRATING", cluster.id(to)]).await;
        }
        if moved > 0 {
            move_some(&cluster, from, to, SLOT, moved).await;
        }
        if finished {
            set(&cluster, to, &["NODE", cluster.id(to)]).await;
        }
        let report = fix(&cluster, 0, &office, Risk::Safe).await;
        assert!(report.left.is_empty() && report.quarantined.is_empty(), "{what}: {report:?}");
        cluster.agreed().await;
        owner = cluster.owners().await[SLOT];
        assert_eq!(owner, if migrating { to } else { from }, "{what}");
        assert_eq!(count(&cluster, owner, SLOT).await, 100, "{what}");
    }
}

/// How far the keys of a slot have gone over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    None,
    Half,
    All,
}

/// Who was told in the end that the slot is the target's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Nobody,
    Source,
    Target,
}

/// What a slot was left as: `IMPORTING` at the target, `MIGRATING` at the source, how many keys have gone over, and who
/// was told of the end.
#[derive(Clone, Copy, Debug)]
struct Left {
    importing: bool,
    migrating: bool,
    gone: Gone,
    told: Told,
}

/// The five of Redis' own tests, with keys gone over and not; and a target that was replaced by one that knows nothing.
const LEFT: [Left; 9] = [
    Left { importing: false, migrating: true, gone: Gone::None, told: Told::Nobody },
    Left { importing: true, migrating: false, gone: Gone::None, told: Told::Nobody },
    Left { importing: true, migrating: true, gone: Gone::None, told: Told::Nobody },
    Left { importing: true, migrating: true, gone: Gone::Half, told: Told::Nobody },
    Left { importing: true, migrating: true, gone: Gone::All, told: Told::Nobody },
    Left { importing: true, migrating: true, gone: Gone::All, told: Told::Target },
    Left { importing: false, migrating: true, gone: Gone::Half, told: Told::Nobody },
    Left { importing: false, migrating: true, gone: Gone::All, told: Told::Nobody },
    Left { importing: true, migrating: true, gone: Gone::All, told: Told::Source },
];
/// Slots that are left alike.
const EACH: usize = 3;
/// The first slot of node 1 of three.
const BORDER: usize = 5461;

impl Left {
    /// Leaves a slot on its way between two nodes.
    async fn leave(self, cluster: &Cluster, slot: usize, [from, to]: [Node; 2]) {
        let text = slot.to_string();
        let set = async |node: Node, state: &[&str]| {
            cluster.call(node, &[&["CLUSTER", "SETSLOT", &text], state].concat()).await
        };
        if self.importing || self.gone != Gone::None {
            set(to, &["IMPORTING", cluster.id(from)]).await;
        }
        if self.migrating {
            set(from, &["MIGRATING", cluster.id(to)]).await;
        }
        match self.gone {
            Gone::None => {}
            Gone::Half => {
                move_some(cluster, from, to, slot, count(cluster, from, slot).await / 2).await;
            }
            Gone::All => {
                while count(cluster, from, slot).await > 0 {
                    move_some(cluster, from, to, slot, 100).await;
                }
            }
        }
        if !self.importing && self.gone != Gone::None {
            set(to, &["STABLE"]).await;
        }
        match self.told {
            Told::Nobody => {}
            Told::Source => drop(set(from, &["NODE", cluster.id(to)]).await),
            Told::Target => {
                // A node that takes a slot and does not know the newest epoch takes the same one, and may lose this slot again,
                // with all its keys. So does one whose source takes another slot before it has heard of this.
                until(Duration::from_secs(10), "the epochs are known", async || {
                    let (from, to) = (epochs(cluster, from).await, epochs(cluster, to).await);
                    if from == to { Ok(()) } else { Err(format!("{from:?} {to:?}")) }
                })
                .await;
                set(to, &["NODE", cluster.id(to)]).await;
                until(Duration::from_secs(10), "the source hears of it", async || {
                    let is_there = cluster.slots_of(from).await.contains(&slot);
                    if is_there { Err(format!("{slot} is its own")) } else { Ok(()) }
                })
                .await;
            }
        }
    }
}

/// The keys in a file of copies that lost.
fn kept(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).expect("the file is there");
    let key = |line: &str| {
        let line: BTreeMap<String, Value> = serde_json::from_str(line).expect("JSON");
        let hex = line["key"].as_str().expect("text").to_owned();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        let bytes: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        String::from_utf8(bytes).expect("text")
    };
    text.lines().map(key).collect()
}

/// Tags of all slots.
fn tags() -> Vec<String> {
    let mut tags = vec![String::new(); 16384];
    let mut left = tags.len();
    for n in 0_u32.. {
        let tag = n.to_string();
        let at = &mut tags[Slot::of(tag.as_bytes()).index()];
        if at.is_empty() {
            *at = tag;
            left -= 1;
        }
        if left == 0 {
            break;
        }
    }
    tags
}

/// Writes so many keys of each of these slots to their owner: each is what it is called.
async fn fill_all(cluster: &Cluster, node: Node, slots: Range<usize>, each: usize) -> Vec<String> {
    let (tags, mut control) = (tags(), control(cluster, node).await);
    let keys: Vec<String> =
        slots.flat_map(|slot| (0..each).map(|n| key(&tags[slot], n)).collect::<Vec<_>>()).collect();
    for some in keys.chunks(500) {
        let sets: Vec<_> = some.iter().map(|key| vec!["SET", key, key]).collect();
        let replies = control.pipeline(&sets).await.expect("the node answers");
        assert!(replies.iter().all(|reply| value::text(reply) == Some("OK")));
    }
    keys
}

/// Scenario 63 under load: while slots that were left in every way are repaired, clients get what they have written, and what
/// was there before. What they may not get is an answer at all until the repair begins: some of these states serve nobody.
#[tokio::test]
async fn slots_left_half_way_are_closed_under_load() {
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    let _turn = under_load().await;
    // The last slots of node 0, on their way to node 1, and its first ones on their way back.
    let count = LEFT.len() * EACH;
    let ways = [([0, 1], BORDER - count..BORDER), ([1, 0], BORDER..BORDER + count)];
    let mut keys = Vec::new();
    for ([from, _], slots) in &ways {
        keys.extend(fill_all(&cluster, *from, slots.clone(), 30).await);
    }
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let focus = BORDER - count..BORDER + count;
    let mut load = Load::start(Plan { focus, clients: CLIENTS, ..Plan::light(proxy.data) });
    let reader = Reader::start(proxy.data, keys).await;
    load.advance(5).await;
    // Last those of which the source alone was told: a target may hear of them from it, take them and a new epoch at any time.
    for is_last in [false, true] {
        for (way, slots) in &ways {
            for (n, slot) in slots.clone().enumerate() {
                let left = LEFT[n / EACH];
                if (left.told == Told::Source) == is_last {
                    left.leave(&cluster, slot, *way).await;
                }
            }
        }
    }
    let report = fix(&cluster, 0, &office, Risk::Safe).await;
    assert!(report.left.is_empty() && report.quarantined.is_empty(), "{report:?}");
    load.advance(5).await;
    reader.stop().await;
    let tally = load.stop().await;
    // Where nodes point at each other a request of several keys may have to be given up for the sake of order; it is not run.
    let is_given_up = |text: &String| text.starts_with("TRYAGAIN a later command of this client");
    assert!(tally.errors.keys().all(is_given_up), "{tally}");
    assert!(tally.oddities().all(|oddity| oddity == Oddity::Redirect), "{tally}");
    proxy.shutdown().await;
    cluster.agreed().await;
    let owners = cluster.owners().await;
    for (way, slots) in &ways {
        for (n, slot) in slots.clone().enumerate() {
            let left = LEFT[n / EACH];
            assert_eq!(owners[slot], way[usize::from(left.migrating)], "{left:?} {way:?}");
        }
    }
}

/// Scenario 30, and what `redis-cli --cluster fix` does wrong: the target has more keys, and older values.
#[tokio::test]
async fn a_stale_copy_does_not_win_however_many_there_are() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    let (tag, mut target) = (tag(SLOT), control(&cluster, 1).await);
    for n in 0..100 {
        let key = key(&tag, n);
        let stale = [vec!["ASKING"], vec!["SET", &key, "v0"]];
        target.pipeline(&stale).await.expect("the target answers");
    }
    cluster.call(0, &["CLUSTER", "SETSLOT", &SLOT.to_string(), "STABLE"]).await;
    cluster.call(0, &["SET", &key(&tag, 0), "newer"]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    let report = fix(&cluster, 0, &office, Risk::Safe).await;
    cluster.agreed().await;
    let owner = cluster.owners().await[SLOT];
    assert_eq!(count(&cluster, owner, SLOT).await, 100);
    let got = cluster.call(owner, &["GET", &key(&tag, 0)]).await;
    assert_eq!(value::text(&got), Some("newer"));
    let (file, copies) = report.quarantined.into_iter().next().expect("the stale copy is kept");
    assert_eq!((copies, kept(&file)), (1, vec![key(&tag, 0)]));
}

/// Scenario 66: keys that lie where their slot is not go to its owner, and do not overwrite what it has.
#[tokio::test]
async fn stray_keys_come_home() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    let (tag, mut stray) = (tag(SLOT), control(&cluster, 1).await);
    for n in 0..50 {
        let key = key(&tag, n);
        let old = [vec!["ASKING"], vec!["SET", &key, "old"]];
        stray.pipeline(&old).await.expect("the node answers");
    }
    for n in 0..10 {
        cluster.call(0, &["SET", &key(&tag, n), "new"]).await;
    }
    let told_to_stop = Reins::default();
    told_to_stop.halt();
    let stopped = try_fix(&cluster, 0, &office, (Risk::Safe, &told_to_stop)).await;
    assert!(matches!(stopped, Err(RepairError::Stopped)), "{stopped:?}");
    assert_eq!(count(&cluster, 1, SLOT).await, 50);
    let report = fix(&cluster, 0, &office, Risk::Safe).await;
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, SLOT).await, count(&cluster, 1, SLOT).await), (50, 0));
    let mut values = BTreeMap::new();
    for n in 0..50 {
        let got = cluster.call(0, &["GET", &key(&tag, n)]).await;
        *values.entry(value::text(&got).expect("a value").to_owned()).or_insert(0) += 1;
    }
    assert_eq!(values, BTreeMap::from([("new".to_owned(), 10), ("old".to_owned(), 40)]));
    assert_eq!(report.quarantined.values().sum::<usize>(), 10);
}

/// Scenario 65: slots that nobody owns, with keys on one node, without keys, with keys on two.
#[tokio::test]
async fn slots_without_an_owner_are_covered() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    fill(&cluster, 0, SLOT, 20).await;
    let both = SLOT + 2;
    fill(&cluster, 0, both, 20).await;
    cluster.call(1, &["CLUSTER", "SETSLOT", &both.to_string(), "IMPORTING", cluster.id(0)]).await;
    let (tag, mut other) = (tag(both), control(&cluster, 1).await);
    for n in 10..30 {
        let set =
            [vec!["ASKING".to_owned()], ["SET", &key(&tag, n), "other"].map(Into::into).to_vec()];
        other.pipeline(&set).await.expect("the node answers");
    }
    cluster.call(1, &["CLUSTER", "SETSLOT", &both.to_string(), "STABLE"]).await;
    // Redis 8.4 shows no keys of slots that are not a node's own, so nobody can know of those.
    let strays = count(&cluster, 1, both).await;
    let slots = (SLOT..=both).map(|slot| slot.to_string()).collect::<Vec<_>>();
    for node in 0..3 {
        for slot in &slots {
            cluster.call(node, &["CLUSTER", "DELSLOTS", slot]).await;
        }
    }
    let report = fix(&cluster, 0, &office, Risk::Confirm).await;
    cluster.agreed().await;
    let owners = cluster.owners().await;
    assert_ne!(owners[SLOT + 1], usize::MAX);
    if strays == 0 {
        return;
    }
    assert_eq!(owners[SLOT], 0, "it has the keys");
    assert_eq!(count(&cluster, 0, SLOT).await, 20);
    assert_eq!(count(&cluster, owners[both], both).await, 30);
    assert_eq!(report.quarantined.values().sum::<usize>(), 10);
}

/// Scenario 64, with 40 000 keys and under load.
#[tokio::test]
async fn a_thousand_slots_left_open_are_closed() {
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let _turn = under_load().await;
    let keys = fill_all(&cluster, 0, 0..1000, 40).await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut load =
        Load::start(Plan { focus: 500..1000, clients: CLIENTS, ..Plan::light(proxy.data) });
    load.advance(5).await;
    let (mut source, mut target) = (control(&cluster, 0).await, control(&cluster, 1).await);
    let open = |state: &'static str, peer: &str| -> Vec<Vec<String>> {
        let words =
            |slot: usize| ["CLUSTER", "SETSLOT", &slot.to_string(), state, peer].map(str::to_owned);
        (0..1000).map(|slot| words(slot).to_vec()).collect()
    };
    target.pipeline(&open("IMPORTING", cluster.id(0))).await.expect("the node answers");
    source.pipeline(&open("MIGRATING", cluster.id(1))).await.expect("the node answers");
    // Half-way, but none of those to which clients send requests of several keys: those would wait for long.
    for slot in (0..500).step_by(50) {
        move_some(&cluster, 0, 1, slot, 20).await;
    }
    let reader = Reader::start(proxy.data, keys.into_iter().step_by(20).collect()).await;
    fix(&cluster, 0, &office, Risk::Safe).await;
    load.advance(5).await;
    reader.stop().await;
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
    cluster.agreed().await;
    assert!(cluster.owners().await[..1000].iter().all(|owner| *owner == 1));
    let (source, target) = (cluster.call(0, &["DBSIZE"]).await, cluster.call(1, &["DBSIZE"]).await);
    assert!(value::integer(&target) >= Some(40_000), "{source:?} {target:?}");
}

/// A move whose source died and was replaced, with nobody left who knows of the move: the flags tell enough.
#[tokio::test]
async fn a_move_whose_source_was_replaced_goes_on() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    move_some(&cluster, 0, 1, SLOT, 40).await;
    // The replica is to know that they have gone.
    let mut source = control(&cluster, 0).await;
    let wait = [vec!["PING"], vec!["WAIT", "1", "5000"]];
    source.pipeline(&wait).await.expect("the source answers");
    cluster.kill9(0);
    cluster.promoted(3).await;
    // Keys that have moved are made anew: those are newer, and what was before is kept. A server that tells its replicas which
    // slots are on their way sends the client to the target instead.
    let told = cluster.call(3, &["CLUSTER", "NODES"]).await;
    let is_open = value::text(&told).is_some_and(|nodes| nodes.contains(&format!("[{SLOT}->-")));
    let (tag, mut heir, mut anew) = (tag(SLOT), control(&cluster, 3).await, 0);
    for n in 0..100 {
        let key = key(&tag, n);
        let replies = heir.pipeline(&[vec!["SET", &key, "anew", "NX"]]).await.expect("it answers");
        anew += usize::from(value::text(&replies[0]) == Some("OK"));
    }
    assert_eq!(anew, if is_open { 0 } else { 40 });
    let report = fix(&cluster, 3, &office, Risk::Safe).await;
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[SLOT], 1);
    assert_eq!(count(&cluster, 1, SLOT).await, 100);
    let copies: usize = report.quarantined.values().sum();
    let kept: Vec<String> = report.quarantined.keys().flat_map(|file| kept(file)).collect();
    assert_eq!((copies, kept.len()), (anew, anew));
    for n in 0..100 {
        let got = cluster.call(1, &["GET", &key(&tag, n)]).await;
        let is_kept = kept.contains(&key(&tag, n));
        let expected = if is_kept { "anew".to_owned() } else { n.to_string() };
        assert_eq!(value::text(&got), Some(&*expected), "key {n}");
    }
}

/// A move whose target died and was replaced. The job that was cut off tells by whom, and is only given up when all is
/// repaired, with what it had changed as it was before.
#[tokio::test]
async fn a_move_whose_target_was_replaced_goes_on() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    office.cut_off_at_once(&cluster, &[(0, 1, SLOT..SLOT + 1)]).await;
    let (mut job, _) = Journal::resume(office.folder(), &office.cut_off()).expect("a job");
    let (node, name) = (NodeId(cluster.id(0).into()), "cluster-allow-replica-migration");
    let setting = Setting { node, name: name.to_owned(), before: "yes".to_owned() };
    job.write(&Entry::Setting(setting)).expect("it is written");
    drop(job);
    cluster.call(0, &["CONFIG", "SET", name, "no"]).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    move_some(&cluster, 0, 1, SLOT, 40).await;
    let mut target = control(&cluster, 1).await;
    let wait = [vec!["PING"], vec!["WAIT", "1", "5000"]];
    target.pipeline(&wait).await.expect("the target answers");
    cluster.kill9(1);
    cluster.promoted(4).await;
    let told_to_stop = Reins::default();
    told_to_stop.finish();
    let stopped = try_fix(&cluster, 0, &office, (Risk::Safe, &told_to_stop)).await;
    assert!(matches!(stopped, Err(RepairError::Stopped)), "{stopped:?}");
    office.cut_off();
    let report = fix(&cluster, 0, &office, Risk::Safe).await;
    assert!(report.left.is_empty(), "{report:?}");
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[SLOT], 4);
    assert_eq!((count(&cluster, 0, SLOT).await, count(&cluster, 4, SLOT).await), (0, 100));
    let told = cluster.call(0, &["CONFIG", "GET", name]).await;
    assert_eq!(value::array(&told).and_then(|pair| value::text(&pair[1])), Some("yes"));
    let records = journal::records(office.folder()).expect("the folder can be read");
    assert!(records.iter().all(|record| record.ended.is_some()), "{records:?}");
}

/// The command: it says what it will do, does nothing on `--dry-run`, and then makes the cluster whole.
#[tokio::test]
async fn the_command_tells_what_it_does() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    move_some(&cluster, 0, 1, SLOT, 40).await;
    let line = format!("fix {} --state-dir {}", cluster.address(2), office.folder().display());
    let repair = format!(
        "    go on with moving slots {SLOT} from {} to {} (a move was cut off): safe",
        cluster.id(0),
        cluster.id(1)
    );
    tool::cluster(&format!("{line} --dry-run")).await.ends(0).says(&repair);
    assert_eq!((count(&cluster, 0, SLOT).await, count(&cluster, 1, SLOT).await), (60, 40));
    let told = tool::cluster(&format!("{line} --cluster-yes")).await.ends(0);
    told.says(&repair).says("[OK] All 16384 slots covered.");
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, SLOT).await, count(&cluster, 1, SLOT).await), (0, 100));
    let line = format!("{line} --cluster-yes --cluster-search-multiple-owners");
    let told = tool::cluster(&line).await.ends(0);
    told.says("[OK] 100 keys in 3 masters.").says(">>> Check for multiple slot owners...");
    told.says("[OK] No multiple owners found.");
}
