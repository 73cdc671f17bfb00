//! `manage::repair` makes clusters whole that others left in pieces, and no stale copy wins.

use std::collections::BTreeMap;

use slotway::manage::mover::Reins;
use slotway::manage::repair::{self, RepairReport, Risk, Workshop};
use slotway::resp::value;

use crate::beside_others;
use crate::cluster::{Cluster, Node};
use crate::job::{Office, control, count, fill, key, tag};
use crate::tool;

/// The slot that is left open, of node 0 at first.
const SLOT: usize = 7;

/// Repairs the cluster as far as is safe, or further.
async fn fix(cluster: &Cluster, office: &Office, consent: Risk) -> RepairReport {
    let view = office.view(cluster, 0).await;
    let keys = repair::examine(&view, &office.access).await.expect("the nodes answer");
    let plan = repair::plan(&view, &keys);
    let lines: Vec<_> = plan.repairs.iter().map(|r| format!("{}: {}", r.risk, r.action)).collect();
    eprintln!("{lines:#?}");
    let reins = Reins::default();
    let workshop = Workshop {
        access: &office.access,
        options: &office.options,
        folder: office.folder(),
        consent,
        reins: &reins,
    };
    let report = repair::apply(plan, &view, &workshop, &mut |_| ()).await;
    report.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()))
}

async fn set(cluster: &Cluster, node: Node, state: &[&str]) {
    let slot = SLOT.to_string();
    cluster.call(node, &[&["CLUSTER", "SETSLOT", &slot], state].concat()).await;
}

/// Moves so many keys of the slot, of those that are there.
async fn move_some(cluster: &Cluster, from: Node, to: Node, keys: usize) {
    let slot = SLOT.to_string();
    let list = ["CLUSTER", "GETKEYSINSLOT", &slot, &keys.to_string()];
    let list = cluster.call(from, &list).await;
    let names = value::array(&list).expect("a list").iter().filter_map(value::text);
    let address = cluster.address(to);
    let port = address.rsplit_once(':').expect("a port").1;
    let head = ["MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"];
    cluster.call(from, &head.into_iter().chain(names).collect::<Vec<_>>()).await;
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
            move_some(&cluster, from, to, moved).await;
        }
        if finished {
            set(&cluster, to, &["NODE", cluster.id(to)]).await;
        }
        let report = fix(&cluster, &office, Risk::Safe).await;
        assert!(report.left.is_empty() && report.quarantined.is_none(), "{what}: {report:?}");
        cluster.agreed().await;
        owner = cluster.owners().await[SLOT];
        assert_eq!(owner, if migrating { to } else { from }, "{what}");
        assert_eq!(count(&cluster, owner, SLOT).await, 100, "{what}");
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
    let report = fix(&cluster, &office, Risk::Safe).await;
    cluster.agreed().await;
    let owner = cluster.owners().await[SLOT];
    assert_eq!(count(&cluster, owner, SLOT).await, 100);
    let got = cluster.call(owner, &["GET", &key(&tag, 0)]).await;
    assert_eq!(value::text(&got), Some("newer"));
    let (copies, file) = report.quarantined.expect("the stale copy is kept");
    let text = std::fs::read_to_string(file).expect("the file is there");
    assert_eq!((copies, text.lines().count()), (1, 1), "{text}");
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
    let report = fix(&cluster, &office, Risk::Safe).await;
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, SLOT).await, count(&cluster, 1, SLOT).await), (50, 0));
    let mut values = BTreeMap::new();
    for n in 0..50 {
        let got = cluster.call(0, &["GET", &key(&tag, n)]).await;
        *values.entry(value::text(&got).expect("a value").to_owned()).or_insert(0) += 1;
    }
    assert_eq!(values, BTreeMap::from([("new".to_owned(), 10), ("old".to_owned(), 40)]));
    assert_eq!(report.quarantined.expect("copies are kept").0, 10);
}

/// Scenario 65: slots that nobody owns, without keys, with keys on one node, on two.
#[tokio::test]
async fn slots_without_an_owner_are_covered() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    fill(&cluster, 0, SLOT, 20).await;
    let slots = [SLOT.to_string(), (SLOT + 1).to_string()];
    for node in 0..3 {
        for slot in &slots {
            cluster.call(node, &["CLUSTER", "DELSLOTS", slot]).await;
        }
    }
    fix(&cluster, &office, Risk::Safe).await;
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[SLOT], 0, "it has the keys");
    assert_eq!(count(&cluster, 0, SLOT).await, 20);
}

/// Scenario 64.
#[tokio::test]
async fn a_thousand_slots_left_open_are_closed() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let (mut source, mut target) = (control(&cluster, 0).await, control(&cluster, 1).await);
    let open = |state: &'static str, peer: &str| -> Vec<Vec<String>> {
        let words =
            |slot: usize| ["CLUSTER", "SETSLOT", &slot.to_string(), state, peer].map(str::to_owned);
        (0..1000).map(|slot| words(slot).to_vec()).collect()
    };
    target.pipeline(&open("IMPORTING", cluster.id(0))).await.expect("the node answers");
    source.pipeline(&open("MIGRATING", cluster.id(1))).await.expect("the node answers");
    for slot in [3, 300, 999] {
        let owned = [vec!["SET".to_owned(), tag(slot), "v".to_owned()]];
        source.pipeline(&owned).await.expect("the node answers");
    }
    fix(&cluster, &office, Risk::Safe).await;
    cluster.agreed().await;
    assert!(cluster.owners().await[..1000].iter().all(|owner| *owner == 1));
}

/// A move whose source died and was replaced, with nobody left who knows of the move: the flags tell enough.
#[tokio::test]
async fn a_move_whose_source_was_replaced_goes_on() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    move_some(&cluster, 0, 1, 40).await;
    // The replica is to know that they have gone.
    let mut source = control(&cluster, 0).await;
    let wait = [vec!["PING"], vec!["WAIT", "1", "5000"]];
    source.pipeline(&wait).await.expect("the source answers");
    cluster.kill9(0);
    cluster.promoted(3).await;
    let view = office.view(&cluster, 3).await;
    let keys = repair::examine(&view, &office.access).await.expect("the nodes answer");
    let plan = repair::plan(&view, &keys);
    let reins = Reins::default();
    let workshop = Workshop {
        access: &office.access,
        options: &office.options,
        folder: office.folder(),
        consent: Risk::Safe,
        reins: &reins,
    };
    let report = repair::apply(plan, &view, &workshop, &mut |_| ()).await;
    report.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[SLOT], 1);
    assert_eq!(count(&cluster, 1, SLOT).await, 100);
}

/// The command: it says what it will do, does nothing on `--dry-run`, and then makes the cluster whole.
#[tokio::test]
async fn the_command_tells_what_it_does() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    fill(&cluster, 0, SLOT, 100).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    set(&cluster, 0, &["MIGRATING", cluster.id(1)]).await;
    move_some(&cluster, 0, 1, 40).await;
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
    tool::cluster(&format!("{line} --cluster-yes")).await.ends(0);
}
