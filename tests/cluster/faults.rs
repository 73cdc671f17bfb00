//! Nodes, links and the tool itself fail in the middle of a slot, and everything ends whole.

use std::collections::BTreeSet;
use std::time::Duration;

use slotway::backend::Control;
use slotway::manage::journal::JournalError;
use slotway::manage::mover::{BigKeys, Event, MoveError, Reins};
use slotway::manage::pace::Rate;
use slotway::resp::value::{self, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::cluster::{Cluster, Node};
use crate::job::{Office, control, count, fill, key, tag};
use crate::ledger::{Ledger, held, missing};
use crate::relay::{Fate, Relay};
use crate::{alone, beside_others, front, until};

/// The slot that the tests look at, and its keys.
const SLOT: usize = 7;
const KEYS: usize = 4000;
/// How many of them are to have been moved when something happens.
const HALFWAY: u64 = 1000;
/// Keys each second until then.
const SLOWLY: u64 = 4000;

/// Tells when a move is half-way, and how far it is.
fn halfway() -> (impl FnMut(Event), watch::Receiver<bool>) {
    let (tell, told) = watch::channel(false);
    let watch = move |event| match event {
        Event::Progress(progress) if progress.keys >= HALFWAY => {
            tell.send_if_modified(|is| !std::mem::replace(is, true));
        }
        Event::Progress(_) => {}
        event => tell_of(&event),
    };
    (watch, told)
}

/// For a test that has failed.
fn tell_of(event: &Event) {
    match event {
        Event::Setback { what, .. } | Event::Warning(what) => eprintln!("{what}"),
        Event::Quarantined { count, .. } => eprintln!("{count} copies are kept"),
        _ => {}
    }
}

/// A hold on a move that is slow, what tells of it, and when it is half-way.
fn slowly() -> (Reins, impl FnMut(Event), watch::Receiver<bool>) {
    let reins = Reins::default();
    reins.set_rate(SLOWLY);
    let (tell, told) = halfway();
    (reins, tell, told)
}

async fn reached(told: &mut watch::Receiver<bool>) {
    told.wait_for(|is| *is).await.expect("the move goes on");
}

/// Keys of the slot that the node has, each with the value that was written.
async fn whole(cluster: &Cluster, node: Node) -> usize {
    let (tag, mut control) = (tag(SLOT), control(cluster, node).await);
    let gets: Vec<_> = (0..KEYS).map(|n| vec!["GET".to_owned(), key(&tag, n)]).collect();
    let replies = control.pipeline(&gets).await.expect("the node answers");
    let is_right = |(n, reply)| value::text(reply) == Some(&*usize::to_string(&n));
    replies.iter().enumerate().filter(|pair| is_right(*pair)).count()
}

/// Scenario 23, as far as the cluster can tell: the tool is gone from one moment to the next.
#[tokio::test]
async fn the_tool_dies_in_the_middle_of_a_slot() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    fill(&cluster, 0, SLOT, KEYS).await;
    let (reins, tell, mut told) = slowly();
    tokio::select! {
        ended = office.run(&cluster, &[(0, 1, 0..64)], &reins, tell) => panic!("{ended:?}"),
        () = reached(&mut told) => {}
    }
    let left = count(&cluster, 0, SLOT).await;
    assert!(left > 0 && left < KEYS);
    let summary = office.resume(|_| ()).await.expect("it goes on");
    assert!(summary.progress.keys <= left as u64, "work was done again");
    assert_eq!(whole(&cluster, 1).await, KEYS);
    cluster.agreed().await;
}

/// Scenario 25. A replica that takes over does not know that slots are on their way, and the target holds them for the dead
/// node's. What is lost is what the dead node had acknowledged and neither of the two had got, and nothing else: not what was
/// pushed to lists at the target after they had moved, though the replica has not heard that they did; nor what is pushed while
/// the replica takes over, to lists that it does not have, or has as they were.
#[tokio::test]
async fn a_source_with_a_replica_is_killed() {
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    let _turn = alone().await;
    let proxy = front::start(front::patient(cluster.addresses())).await;
    // Keys of a slot are listed from the newest to the oldest: these lists are moved first, half-way, and last.
    let early = (0..SLOT).map(|slot| key(&tag(slot), 0));
    let [halfway, late] =
        ["halfway", "late"].map(|when| (0..8).map(move |n| format!("{{{}}}{when}{n}", tag(SLOT))));
    for (lists, keys) in [(late.clone(), KEYS - 700), (halfway.clone(), KEYS)] {
        for list in lists {
            cluster.call(0, &["RPUSH", &list, "-1"]).await;
        }
        fill(&cluster, 0, SLOT, keys).await;
    }
    let lists: Vec<String> = early.chain(halfway).chain(late).collect();
    let mut ledger = Ledger::open(proxy.data, lists).await;
    ledger.advance(20).await;
    let prepared = office.prepare(&cluster, &[(0, 1, 0..64)]).await.expect("it can be done");
    let (reins, mut watch_it, mut told) = slowly();
    let (soon, mut early_told) = watch::channel(false);
    let mut quarantined = 0;
    let tell = |event| {
        match &event {
            Event::Progress(progress) if progress.keys >= HALFWAY / 3 => {
                soon.send_replace(true);
            }
            Event::Quarantined { count, .. } => quarantined += count,
            _ => {}
        }
        watch_it(event);
    };
    let kill = async {
        reached(&mut early_told).await;
        // From here on the replica takes nothing in.
        cluster.call(3, &["CLIENT", "PAUSE", "60000", "WRITE"]).await;
        ledger.advance(20).await;
        reached(&mut told).await;
        cluster.kill9(0);
        cluster.unlinked(3).await;
        cluster.call(3, &["CLIENT", "UNPAUSE"]).await;
        reins.set_rate(0);
        let before = ledger.acknowledged();
        let mut left = held(&cluster, 3, &ledger.lists, "READONLY").await;
        for (list, numbers) in held(&cluster, 1, &ledger.lists, "ASKING").await {
            left.entry(list).or_default().extend(numbers);
        }
        (before, left)
    };
    let (summary, (before, left)) = tokio::join!(office.begin(prepared, &reins, tell), kill);
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    ledger.advance(20).await;
    let lists = ledger.lists.clone();
    let acknowledged = ledger.close().await;
    proxy.shutdown().await;
    cluster.agreed().await;
    assert!(cluster.owners().await[..64].iter().all(|owner| *owner == 1));
    assert_eq!(whole(&cluster, 1).await, KEYS);
    let lost = missing(&acknowledged, &held(&cluster, 1, &lists, "ASKING").await);
    let by_replication = missing(&before, &left);
    let all: usize = acknowledged.values().map(BTreeSet::len).sum();
    eprintln!("{all} acknowledged, {} lost, {quarantined} copies kept", lost.len());
    assert_eq!(lost, by_replication, "lost, and what the replica had not got");
    assert!(quarantined > 0 && !lost.is_empty(), "nothing was put to the test");
}

/// Scenario 26. Without a replica there is nothing to go on with until the source is back.
#[tokio::test]
async fn a_source_without_a_replica_is_killed_and_returns() {
    let _turn = beside_others().await;
    let (mut cluster, mut office) = (Cluster::start(3, 0).await, Office::new());
    office.options.patience = Duration::from_secs(1);
    cluster.make_durable(0).await;
    fill(&cluster, 0, SLOT, KEYS).await;
    let prepared = office.prepare(&cluster, &[(0, 1, 0..64)]).await.expect("it can be done");
    let (reins, tell, mut told) = slowly();
    let kill = async {
        reached(&mut told).await;
        cluster.kill9(0);
    };
    let (paused, ()) = tokio::join!(office.begin(prepared, &reins, tell), kill);
    assert!(matches!(paused, Err(MoveError::Paused(_))), "{paused:?}");
    cluster.restart(0).await;
    office.options.patience = Duration::from_secs(20);
    let summary = office.resume(|event| tell_of(&event)).await;
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    assert_eq!(whole(&cluster, 1).await, KEYS);
    cluster.agreed().await;
}

/// Scenario 27. What was moved is not to be had until the target's heir takes the slots in.
#[tokio::test]
async fn a_target_with_a_replica_is_killed() {
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    let _turn = alone().await;
    fill(&cluster, 0, SLOT, KEYS).await;
    let prepared = office.prepare(&cluster, &[(0, 1, 0..64)]).await.expect("it can be done");
    let (reins, tell, mut told) = slowly();
    let kill = async {
        reached(&mut told).await;
        cluster.kill9(1);
        reins.set_rate(0);
    };
    let (summary, ()) = tokio::join!(office.begin(prepared, &reins, tell), kill);
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    cluster.agreed().await;
    assert!(cluster.owners().await[..64].iter().all(|owner| *owner == 4));
    // What had not reached the replica yet: no more than was on its way at that moment.
    let lost = KEYS - whole(&cluster, 4).await;
    eprintln!("lost {lost} of {KEYS} keys with the target");
    assert!(lost < 500, "{lost} keys are lost");
}

/// Scenario 28. The target owns the slot already, and dies before the source has heard of it.
#[tokio::test]
async fn a_target_is_killed_between_the_two_ends_of_the_closing() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    office.cut_off_at_once(&cluster, &[(0, 1, SLOT..SLOT + 1)]).await;
    open(&cluster, 0, 1).await;
    set(&cluster, 1, &["NODE", cluster.id(1)]).await;
    cluster.kill9(1);
    let summary = office.resume(|event| tell_of(&event)).await;
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[SLOT], 4);
}

/// Scenario 29. The target stops, the source gives up on it, clients write what the target had already got: the source is
/// right.
#[tokio::test]
async fn a_link_that_fails_leaves_no_stale_copy() {
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(2, 0).await, Office::new());
    fill(&cluster, 0, SLOT, KEYS).await;
    // The source gives up on the target, after five seconds at most, long before it holds it for dead.
    for node in [0, 1] {
        cluster.call(node, &["CONFIG", "SET", "cluster-node-timeout", "15000"]).await;
    }
    let prepared =
        office.prepare(&cluster, &[(0, 1, SLOT..SLOT + 1)]).await.expect("it can be done");
    let (reins, mut tell, mut told) = slowly();
    let (cut, mut cut_told) = watch::channel(false);
    let tell = |event| {
        if matches!(&event, Event::Setback { what, .. } if what.contains("IOERR")) {
            cut.send_replace(true);
        }
        tell(event);
    };
    let mut source = control(&cluster, 0).await;
    let cut_and_heal = async {
        reached(&mut told).await;
        cluster.freeze(1);
        reached(&mut cut_told).await;
        let written = overwrite(&mut source).await;
        cluster.thaw(1);
        reins.set_rate(0);
        written
    };
    let (summary, written) = tokio::join!(office.begin(prepared, &reins, tell), cut_and_heal);
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    expect_newest(&cluster, &written).await;
}

/// Writes what the source still has anew, and tells which keys that were.
async fn overwrite(source: &mut Control) -> Vec<bool> {
    let newer = |n| vec!["SET".to_owned(), key(&tag(SLOT), n), "newer".to_owned()];
    let newer: Vec<_> = (0..KEYS).map(newer).collect();
    let replies = source.pipeline(&newer).await.expect("the source answers");
    assert!(replies.contains(&Value::SimpleString("OK".into())), "{:?}", replies.last());
    replies.iter().map(|reply| value::text(reply) == Some("OK")).collect()
}

/// The target has every key, as it was written last.
async fn expect_newest(cluster: &Cluster, written: &[bool]) {
    let mut target = control(cluster, 1).await;
    let gets: Vec<_> = (0..KEYS).map(|n| vec!["GET".to_owned(), key(&tag(SLOT), n)]).collect();
    let values = target.pipeline(&gets).await.expect("the target answers");
    for (n, (value, newer)) in values.iter().zip(written).enumerate() {
        let expected = if *newer { "newer".to_owned() } else { n.to_string() };
        assert_eq!(value::text(value), Some(expected.as_str()), "key {n}");
    }
}

/// Scenario 29. Only the link between the two nodes fails, in the middle of a slot, so that the target takes keys in and the
/// source does not hear of it. The move is given up, with nothing lost; it is gone on with when the link is back, though not
/// at once, and what clients have written meanwhile counts.
#[tokio::test]
async fn a_link_is_cut_in_the_middle_of_a_slot() {
    let _turn = beside_others().await;
    let (cluster, mut office) = (Cluster::start(2, 0).await, Office::new());
    office.options.transfer = Some(Duration::from_millis(200));
    fill(&cluster, 0, SLOT, KEYS).await;
    let (fate, link) = watch::channel(Fate::Arrives);
    let is_transfer = |sent: &[u8]| sent.windows(14).any(|word| word == b"RESTORE-ASKING");
    let judge = move |sent: &[u8]| if is_transfer(sent) { *link.borrow() } else { Fate::Arrives };
    let relay = Relay::start(cluster.address(1), judge).await;
    cluster.announce(1, relay.port).await;
    let moves = [(0, 1, SLOT..SLOT + 1)];
    let prepared = office.prepare(&cluster, &moves).await.expect("it can be done");

    let (reins, tell, mut told) = slowly();
    let cut = async {
        reached(&mut told).await;
        fate.send_replace(Fate::Unheard);
        reins.set_rate(0);
    };
    let (paused, ()) = tokio::join!(office.begin(prepared, &reins, tell), cut);
    assert!(matches!(&paused, Err(MoveError::Paused(why)) if why.contains("IOERR")), "{paused:?}");
    let [left, arrived] = [count(&cluster, 0, SLOT).await, count(&cluster, 1, SLOT).await];
    assert!(left < KEYS && left + arrived > KEYS, "{left} and {arrived}: no key is on both sides");

    let written = overwrite(&mut control(&cluster, 0).await).await;
    fate.send_replace(Fate::Lost);
    let mut quarantined = 0;
    let tell = |event| {
        match &event {
            Event::Setback { what, .. } if what.contains("IOERR") => {
                fate.send_replace(Fate::Arrives);
            }
            Event::Quarantined { count, .. } => quarantined += count,
            _ => {}
        }
        tell_of(&event);
    };
    let summary = office.resume(tell).await;
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    assert_eq!(*fate.borrow(), Fate::Arrives, "it went on without the link");
    expect_newest(&cluster, &written).await;
    // Once for each time that it was gone on with.
    assert!(quarantined >= left + arrived - KEYS, "of the older copies {quarantined} are kept");
    cluster.agreed().await;
}

/// Scenario 30, the part of the mover: the other value is kept.
#[tokio::test]
async fn of_two_values_the_owner_s_survives() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    office.cut_off_at_once(&cluster, &[(0, 1, SLOT..SLOT + 1)]).await;
    let key = key(&tag(SLOT), 0);
    cluster.call(0, &["SET", &key, "newer"]).await;
    open(&cluster, 0, 1).await;
    let mut target = control(&cluster, 1).await;
    let stale = [vec!["ASKING"], vec!["SET", &key, "v0"]];
    target.pipeline(&stale).await.expect("the target answers");
    let mut kept = 0;
    let tell = |event| {
        if let Event::Quarantined { count, .. } = event {
            kept += count;
        }
    };
    let summary = office.resume(tell).await.expect("it goes on");
    assert_eq!(value::text(&cluster.call(1, &["GET", &key]).await), Some("newer"));
    assert_eq!(kept, 1);
    assert_eq!(summary.quarantined.iter().map(|kept| kept.count).sum::<usize>(), 1);
    assert!(!summary.is_clean());
    cluster.agreed().await;
}

/// What a target has of a slot beforehand, as after a restore, is older than what the owner has, even if that dies on the way
/// and a replica takes over that clients were kept from until it knew of the move.
#[tokio::test]
async fn old_copies_at_the_target_do_not_win() {
    const OLD: usize = 50;
    let _turn = beside_others().await;
    let (mut cluster, office) = (Cluster::start(3, 1).await, Office::new());
    fill(&cluster, 0, SLOT, KEYS).await;
    set(&cluster, 1, &["IMPORTING", cluster.id(0)]).await;
    let (tag, mut target) = (tag(SLOT), control(&cluster, 1).await);
    for n in 0..OLD {
        let key = key(&tag, n);
        let old = [vec!["ASKING"], vec!["SET", &key, "old"]];
        target.pipeline(&old).await.expect("the target answers");
    }
    set(&cluster, 1, &["STABLE"]).await;
    let prepared = office.prepare(&cluster, &[(0, 1, 0..64)]).await.expect("it can be done");
    let (reins, mut watch_it, mut told) = slowly();
    let mut kept = 0;
    let tell = |event| {
        if let Event::Quarantined { count, .. } = &event {
            kept += count;
        }
        watch_it(event);
    };
    let kill = async {
        reached(&mut told).await;
        cluster.kill9(0);
        reins.set_rate(0);
    };
    let (summary, ()) = tokio::join!(office.begin(prepared, &reins, tell), kill);
    summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()));
    cluster.agreed().await;
    assert_eq!(whole(&cluster, 1).await, KEYS);
    // Those that were still there when the replica had taken over are kept once more.
    assert!(kept >= OLD, "{kept}");
}

/// The states that a slot can be left in by a tool or a failover, which all lead to the same end: scenario 63 for the mover.
#[tokio::test]
async fn slots_that_were_left_half_way_are_gone_on_with() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(3, 0).await, Office::new());
    let mut there = 0;
    for begin in ["source", "target", "both", "closed at the target"] {
        office.cut_off_at_once(&cluster, &[(there, 1 - there, SLOT..SLOT + 1)]).await;
        let (from, to) = (cluster.id(there).to_owned(), cluster.id(1 - there).to_owned());
        let keys = if begin == "closed at the target" { 0 } else { 100 };
        fill(&cluster, there, SLOT, keys).await;
        if begin != "source" {
            set(&cluster, 1 - there, &["IMPORTING", &from]).await;
        }
        if begin != "target" {
            set(&cluster, there, &["MIGRATING", &to]).await;
        }
        if begin == "closed at the target" {
            let clear: Vec<_> = (0..100).map(|n| key(&tag(SLOT), n)).collect();
            let clear: Vec<&str> = clear.iter().map(String::as_str).collect();
            cluster.call(there, &[&["DEL"], &clear[..]].concat()).await;
            set(&cluster, 1 - there, &["NODE", &to]).await;
        }
        let summary = office.resume(|event| tell_of(&event)).await;
        summary.unwrap_or_else(|error| panic!("{begin}: {error}{}", cluster.logs()));
        cluster.agreed().await;
        there = 1 - there;
        assert_eq!(cluster.owners().await[SLOT], there, "{begin}");
        assert_eq!(count(&cluster, there, SLOT).await, keys, "{begin}");
    }
}

/// Scenario 31.
#[tokio::test]
async fn big_keys_are_found_before_anything_is_moved() {
    let _turn = beside_others().await;
    let (cluster, mut office) = (Cluster::start(2, 0).await, Office::new());
    office.options.big_key_bytes = Some(1 << 20);
    let big = key(&tag(SLOT), 0);
    let script = "for n = 1, 30000 do redis.call('HSET', KEYS[1], n, string.rep('x', 50)) end";
    cluster.call(0, &["EVAL", script, "1", &big]).await;
    fill(&cluster, 0, SLOT + 1, 100).await;
    let moves = [(0, 1, SLOT..SLOT + 2)];
    let refused = office.prepare(&cluster, &moves).await.expect_err("a big key is in the way");
    assert!(refused.to_string().contains(&big), "{refused}");
    office.options.big_keys = BigKeys::Skip;
    let summary = office.moved(&cluster, &moves).await;
    assert_eq!(summary.skipped.to_string(), SLOT.to_string());
    assert_eq!(cluster.owners().await[SLOT..SLOT + 2], [0, 1]);
    office.options.big_keys = BigKeys::Allow;
    let summary = office.moved(&cluster, &[(0, 1, SLOT..SLOT + 1)]).await;
    assert_eq!(summary.progress.keys, 1);
    assert_eq!(value::integer(&cluster.call(1, &["HLEN", &big]).await), Some(30_000));
    cluster.agreed().await;
}

/// Scenario 32.
#[tokio::test]
async fn a_target_without_room_is_refused_or_waited_for() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    fill(&cluster, 0, SLOT, KEYS).await;
    let moves = [(0, 1, 0..64)];
    let limit = async |bytes: &str| {
        cluster.call(1, &["CONFIG", "SET", "maxmemory", bytes]).await;
    };
    let info = cluster.call(1, &["INFO", "memory"]).await;
    let used =
        value::text(&info).and_then(|text| text.split("used_memory:").nth(1)?.lines().next());
    let used: u64 = used.and_then(|number| number.parse().ok()).expect("its memory");
    limit(&(used + 100_000).to_string()).await;
    let refused = office.prepare(&cluster, &moves).await.expect_err("there is no room");
    assert!(refused.to_string().contains("too little room"), "{refused}");
    limit("0").await;
    let prepared = office.prepare(&cluster, &moves).await.expect("it can be done");
    let (reins, tell, mut told) = slowly();
    let fill_up = async {
        reached(&mut told).await;
        limit("1mb").await;
    };
    let (paused, ()) = tokio::join!(office.begin(prepared, &reins, tell), fill_up);
    assert!(matches!(&paused, Err(MoveError::Paused(why)) if why.contains("OOM")), "{paused:?}");
    limit("0").await;
    office.resume(|_| ()).await.expect("it goes on");
    assert_eq!(whole(&cluster, 1).await, KEYS);
    cluster.agreed().await;
}

/// Scenario 37.
#[tokio::test]
async fn keys_that_expire_on_their_way_stay_away() {
    let _turn = beside_others().await;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let (tag, mut source) = (tag(SLOT), control(&cluster, 0).await);
    let set = |n: usize| {
        let ms = (1 + n / 10).to_string();
        ["SET", &key(&tag, n), "v", "PX", &ms].map(str::to_owned).to_vec()
    };
    source.pipeline(&(0..KEYS).map(set).collect::<Vec<_>>()).await.expect("the source answers");
    cluster.call(0, &["CLIENT", "PAUSE", "200", "WRITE"]).await;
    let reins = Reins::default();
    reins.set_rate(4 * SLOWLY);
    office.run(&cluster, &[(0, 1, 0..64)], &reins, |_| ()).await.expect("it is moved");
    cluster.agreed().await;
    until(Duration::from_secs(10), "all keys expire", async || {
        match count(&cluster, 1, SLOT).await {
            0 => Ok(()),
            left => Err(format!("{left} left")),
        }
    })
    .await;
}

/// Scenario 41.
#[tokio::test]
async fn of_two_jobs_at_once_the_second_is_refused() {
    let _turn = beside_others().await;
    let (cluster, office, elsewhere) = (Cluster::start(2, 0).await, Office::new(), Office::new());
    fill(&cluster, 0, SLOT, KEYS).await;
    let moves = [(0, 1, SLOT..SLOT + 1)];
    let prepared = office.prepare(&cluster, &moves).await.expect("it can be done");
    let same = prepared.clone();
    let (reins, tell, mut told) = slowly();
    let meddle = async {
        reached(&mut told).await;
        let second = office.begin(same, &Reins::default(), |_| ()).await;
        assert!(matches!(second, Err(MoveError::Journal(JournalError::Running(_)))), "{second:?}");
        let foreign = elsewhere.prepare(&cluster, &moves).await.expect_err("a slot is open");
        assert!(foreign.to_string().contains("slot 7 is open"), "{foreign}");
        reins.set_rate(0);
    };
    let (summary, ()) = tokio::join!(office.begin(prepared, &reins, tell), meddle);
    summary.expect("the first one is not disturbed");
    assert_eq!(whole(&cluster, 1).await, KEYS);
}

/// Scenario 42: no faster than was asked for, and nothing at all in a pause.
#[tokio::test]
async fn a_move_keeps_to_its_rate_and_rests_when_told() {
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let _turn = alone().await;
    fill(&cluster, 0, SLOT, KEYS).await;
    let (reins, mut tell, mut told) = slowly();
    let (begun, mut passed) = (std::time::Instant::now(), None);
    let tell = |event| {
        if let Event::Progress(progress) = &event
            && progress.keys >= HALFWAY
            && passed.is_none()
        {
            passed = Some(begun.elapsed());
            reins.pause();
        }
        tell(event);
    };
    let rest = async {
        reached(&mut told).await;
        // What was in flight arrives, and then nothing more.
        let before = until(Duration::from_secs(5), "it rests", async || {
            let before = count(&cluster, 1, SLOT).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
            let after = count(&cluster, 1, SLOT).await;
            if before == after { Ok(after) } else { Err(format!("{before}, then {after}")) }
        });
        assert!(before.await < KEYS);
        reins.set_rate(0);
        reins.resume();
    };
    let run = office.run(&cluster, &[(0, 1, SLOT..SLOT + 1)], &reins, tell);
    let both = async { tokio::join!(run, rest) };
    let (summary, ()) = timeout(Duration::from_secs(30), both).await.expect("it ends");
    assert_eq!(summary.expect("it is moved").progress.keys, KEYS as u64);
    let passed = passed.expect("it was half-way");
    let least = Duration::from_millis(HALFWAY * 1000 / SLOWLY * 85 / 100);
    assert!(passed > least, "{HALFWAY} keys in {passed:?}");
}

/// Keys of 10 KiB, of which there are a hundred for each MiB.
#[tokio::test]
async fn a_move_keeps_to_a_rate_of_bytes() {
    const MANY: usize = 200;
    let (cluster, office) = (Cluster::start(2, 0).await, Office::new());
    let _turn = alone().await;
    let (tag, mut source, value) = (tag(SLOT), control(&cluster, 0).await, "v".repeat(10 << 10));
    let set = |n| ["SET", &key(&tag, n), &value].map(str::to_owned).to_vec();
    source.pipeline(&(0..MANY).map(set).collect::<Vec<_>>()).await.expect("the source answers");
    let (reins, begun) = (Reins::default(), std::time::Instant::now());
    reins.set_rate(Rate::Bytes(1 << 20));
    let run = office.run(&cluster, &[(0, 1, SLOT..SLOT + 1)], &reins, |_| ());
    let summary = timeout(Duration::from_secs(30), run).await.expect("it ends");
    assert_eq!(summary.expect("it is moved").progress.keys, MANY as u64);
    let (took, least) = (begun.elapsed(), Duration::from_millis(1600));
    assert!(took > least, "2 MiB in {took:?}");
}

async fn open(cluster: &Cluster, from: Node, to: Node) {
    set(cluster, to, &["IMPORTING", cluster.id(from)]).await;
    set(cluster, from, &["MIGRATING", cluster.id(to)]).await;
}

async fn set(cluster: &Cluster, node: Node, state: &[&str]) {
    let slot = SLOT.to_string();
    cluster.call(node, &[&["CLUSTER", "SETSLOT", &slot], state].concat()).await;
}
