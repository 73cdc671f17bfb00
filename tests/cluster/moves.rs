//! Slots move, and clients notice nothing.

use std::time::Duration;

use serde_json::{Value, json};
use slotway::manage::mover::{Event, MoveError, Reins};
use slotway::resp::value;

use crate::cluster::{Cluster, Node};
use crate::front;
use crate::job::{Office, control, count, fill, key, tag};
use crate::load::{Load, Plan};
use crate::{beside_others, tool, under_load};

/// Batches that every client of a load does before something happens, and after it.
const BATCHES: u64 = 15;

/// Scenario 19.
#[tokio::test]
async fn a_reshard_under_load_loses_nothing() {
    let (cluster, office) = (Cluster::start(3, 1).await, Office::new());
    let _turn = under_load().await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut load = Load::start(Plan { focus: 0..1500, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    let summary = office.moved(&cluster, &[(0, 1, 0..1500)]).await;
    load.advance(BATCHES).await;
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
    let said = cluster.errors_said().await;
    assert!(
        said.contains_key("MOVED") && said.contains_key("ASK"),
        "the load met nothing: {said:?}"
    );
    let owners = cluster.owners().await;
    assert!(owners[..1500].iter().all(|owner| *owner == 1));
    assert_eq!(owners[1500], 0);
    cluster.agreed().await;
    assert_eq!(summary.progress.slots, 1500);
    assert!(summary.progress.keys > 0, "nothing was in the way");
}

/// Several sources fill one target, and then it is emptied into both: scenario 38, since it gives its last slot.
#[tokio::test]
async fn a_node_is_filled_and_emptied() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 0).await, Office::new());
    let new = cluster.start_node().await;
    let port = cluster.address(new).rsplit_once(':').map(|(_, port)| port.to_owned());
    cluster.call(0, &["CLUSTER", "MEET", "127.0.0.1", &port.expect("a port")]).await;
    cluster.admit(new);
    cluster.agreed().await;
    for (node, slot) in [(0, 5), (1, 5465), (2, 10_925)] {
        fill(&cluster, node, slot, 2500).await;
    }
    let there = [(0, new, 0..400), (1, new, 5461..5861), (2, new, 10_923..11_323)];
    let summary = office.moved(&cluster, &there).await;
    assert_eq!((summary.progress.slots, summary.progress.keys), (1200, 7500));
    assert_eq!((summary.keys_before, summary.keys_after), (7500, 7500));
    for slot in [5, 5465, 10_925] {
        assert_eq!(count(&cluster, new, slot).await, 2500);
    }
    let back = [(new, 0, 0..400), (new, 1, 5461..5861), (new, 2, 10_923..11_323)];
    let summary = office.moved(&cluster, &back).await;
    assert_eq!(summary.progress.keys, 7500);
    cluster.agreed().await;
    let nodes = cluster.call(new, &["ROLE"]).await;
    assert!(format!("{nodes:?}").contains("master"), "it does not stay a primary: {nodes:?}");
    let setting = cluster.call(new, &["CONFIG", "GET", "cluster-allow-replica-migration"]).await;
    assert!(format!("{setting:?}").contains("yes"), "it is not as it was: {setting:?}");
}

/// The source's link to the target is down when it is looked at first.
#[tokio::test]
async fn a_link_that_broke_just_now_is_waited_for() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let mut debug = control(&cluster, 0).await;
    let target = cluster.id(1).to_owned();
    let breaker = async {
        // Ten times as often as it is made again, and for longer than it takes to be seen.
        for _ in 0..100 {
            let nodes = debug.call(&[b"CLUSTER", b"NODES"]).await.expect("it answers");
            // Redis 7.0 crashes when there is no link to break.
            if !value::text(&nodes).expect("text").contains("disconnected") {
                let kill: [&[u8]; 5] =
                    [b"DEBUG", b"CLUSTERLINK", b"KILL", b"TO", target.as_bytes()];
                debug.call(&kill).await.expect("it breaks links");
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (summary, ()) = tokio::join!(office.moved(&cluster, &[(0, 1, 0..3)]), breaker);
    assert_eq!(summary.progress.slots, 3);
}

/// Scenario 24, the first half.
#[tokio::test]
async fn told_to_finish_it_leaves_no_slot_open() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    fill(&cluster, 0, 7, 1000).await;
    let is_begun = |event: &Event| matches!(event, Event::Opened(_));
    let stopped = office.interrupted(&cluster, &[(0, 1, 0..1000)], is_begun, Reins::finish).await;
    assert!(matches!(stopped, Err(MoveError::Stopped(936))), "{stopped:?}");
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, 7).await, count(&cluster, 1, 7).await), (0, 1000));
    let summary = office.resume(|_| ()).await.expect("it goes on");
    assert_eq!((summary.progress.slots, summary.progress.keys), (1000, 0));
    assert!(cluster.owners().await[..1000].iter().all(|owner| *owner == 1));
}

/// Scenario 24, the second half.
#[tokio::test]
async fn told_to_halt_it_goes_on_in_the_middle_of_a_slot() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    fill(&cluster, 0, 7, 3000).await;
    let is_half_way =
        |event: &Event| matches!(event, Event::Progress(progress) if progress.keys > 0);
    let stopped = office.interrupted(&cluster, &[(0, 1, 0..1000)], is_half_way, Reins::halt).await;
    assert!(matches!(stopped, Err(MoveError::Halted)), "{stopped:?}");
    let (left, moved) = (count(&cluster, 0, 7).await, count(&cluster, 1, 7).await);
    assert!(left > 0 && moved > 0 && left + moved == 3000, "{left} left, {moved} moved");
    let again = office.run(&cluster, &[(0, 1, 0..1000)], &Reins::default(), |_| ()).await;
    assert!(matches!(again, Err(MoveError::Refused(_))), "{again:?}");
    let summary = office.resume(|_| ()).await.expect("it goes on");
    assert_eq!(summary.progress.keys, left as u64);
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, 7).await, count(&cluster, 1, 7).await), (0, 3000));
}

/// Leaves copies of the first keys of a slot at a node that does not own it, as an old tool does, or a restore.
async fn leave_copies(cluster: &Cluster, at: Node, slot: usize, copies: usize) {
    let set = async |state: &[&str]| {
        cluster.call(at, &[&["CLUSTER", "SETSLOT", &slot.to_string()], state].concat()).await;
    };
    set(&["IMPORTING", cluster.id(1 - at)]).await;
    let (tag, mut there) = (tag(slot), control(cluster, at).await);
    for n in 0..copies {
        let key = key(&tag, n);
        let copy = [vec!["ASKING"], vec!["SET", &key, "old"]];
        there.pipeline(&copy).await.expect("the node answers");
    }
    set(&["STABLE"]).await;
}

/// Whatever puts copies aside says so by its exit code, and tells machines where they are.
#[tokio::test]
async fn copies_that_were_put_aside_are_told_of() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let kept = |told: &Value, count: usize| {
        let files = std::fs::read_dir(office.folder().join("quarantine")).expect("the folder");
        let mut files: Vec<_> = files.map(|file| file.expect("a file").path()).collect();
        files.sort_by_key(|path| path.metadata().and_then(|file| file.modified()).expect("a time"));
        let file = files.pop().expect("a file");
        let text = std::fs::read_to_string(&file).expect("text");
        assert_eq!(text.lines().count(), count, "{text}");
        assert_eq!(told["ok"], false, "{told}");
        file.to_str().expect("a path").to_owned()
    };
    let line = |words: &str| {
        let (entry, folder) = (cluster.address(0), office.folder().display());
        format!("{words} {entry} --yes --json --state-dir {folder}")
    };
    for slot in [2, 9] {
        fill(&cluster, 0, slot, 50).await;
    }

    leave_copies(&cluster, 1, 2, 10).await;
    let ends = format!("--from {} --to {} --method legacy", cluster.id(0), cluster.id(1));
    let told = tool::cluster(&format!("{} {ends} --slots 8", line("reshard"))).await.ends(5);
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    let file = kept(&told, 10);
    assert_eq!(told["summary"]["quarantined"], json!([{ "file": file, "count": 10 }]), "{told}");
    assert_eq!(count(&cluster, 1, 2).await, 50);

    leave_copies(&cluster, 1, 9, 7).await;
    if count(&cluster, 1, 9).await == 0 {
        // Redis 8.4 shows no keys of slots that are not a node's own, so nobody can know of those.
        return;
    }
    let told = tool::cluster(&line("fix")).await.ends(5);
    let told: Value = serde_json::from_str(&told.out).expect("JSON");
    let file = kept(&told, 7);
    assert_eq!(told["report"]["quarantined"], json!({ file: 7 }), "{told}");
    assert_eq!((count(&cluster, 0, 9).await, count(&cluster, 1, 9).await), (50, 0));
    tool::cluster(&line("fix")).await.ends(0);
}
