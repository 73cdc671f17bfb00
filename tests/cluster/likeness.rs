//! Values that are the same and stored differently: what `DUMP` gives differs, and nobody is told of a conflict.

use std::time::Duration;

use slotway::backend::Control;
use slotway::cluster::Slot;
use slotway::resp::value;

use crate::beside_others;
use crate::cluster::Cluster;
use crate::job::{Office, control, tag};
use crate::tool::{Special, cluster};

/// The slot that the tests look at.
const SLOT: usize = 7;
/// Elements of a value: more than are read in one go.
const ELEMENTS: usize = 1200;
const KINDS: [&str; 5] = ["string", "list", "set", "zset", "hash"];

/// Has a server store values, and dump them, in another way than it is used to.
async fn unlike(control: &mut Control) {
    for (name, value) in [
        ("rdbcompression", "no"),
        ("list-max-ziplist-size", "1"),
        ("zset-max-ziplist-entries", "10000"),
        ("stream-node-max-entries", "1"),
    ] {
        run(control, &["CONFIG", "SET", name, value]).await;
    }
}

/// Asks a node, be it that it takes the slot in.
async fn run(control: &mut Control, words: &[&str]) -> value::Value {
    let replies = control.pipeline(&[vec!["ASKING"], words.to_vec()]).await;
    let reply = replies.expect("the node answers").pop().expect("a reply");
    assert!(!matches!(reply, value::Value::Error(_)), "{words:?}: {reply:?}");
    reply
}

/// Writes a value of a kind, the last part of which is this number.
async fn write(control: &mut Control, (key, kind): (&str, &str), last: usize) {
    let numbers = (0..ELEMENTS - 1).chain([last]);
    let parts: Vec<String> = match kind {
        "string" => vec![format!("{}{last}", "x".repeat(1000))],
        "list" | "set" => numbers.map(|n| n.to_string()).collect(),
        "zset" => numbers
            .enumerate()
            .flat_map(|(n, score)| [score.to_string(), format!("m{n}")])
            .collect(),
        _ => numbers
            .enumerate()
            .flat_map(|(n, value)| [format!("f{n}"), value.to_string()])
            .collect(),
    };
    let verbs = ["SET", "RPUSH", "SADD", "ZADD", "HSET"];
    let verb = verbs[KINDS.iter().position(|known| *known == kind).expect("it is one of them")];
    let parts = parts.iter().map(String::as_str);
    run(control, &[verb, key].into_iter().chain(parts).collect::<Vec<_>>()).await;
}

/// Writes two values of each kind, one of them with this last part.
async fn fill(control: &mut Control, tag: &str, last: usize) {
    for kind in KINDS {
        write(control, (&format!("{{{tag}}}same:{kind}"), kind), ELEMENTS).await;
        write(control, (&format!("{{{tag}}}other:{kind}"), kind), last).await;
    }
}

/// What `DUMP` gives has to differ, or nothing is put to the test.
async fn expect_unlike(one: &mut Control, other: &mut Control, tag: &str) {
    for kind in KINDS {
        let key = format!("{{{tag}}}same:{kind}");
        let (one, other) = (run(one, &["DUMP", &key]).await, run(other, &["DUMP", &key]).await);
        assert_ne!(one, other, "{kind}");
    }
}

/// Also what cannot be compared: streams, and what is too large to be read.
#[tokio::test]
async fn import_knows_what_is_there_already_however_it_is_stored() {
    let _turn = beside_others().await;
    let (nodes, server) = (Cluster::start(3, 0).await, Special::start("127.0.0.1", &[]).await);
    let tag = tag(SLOT);
    let limit = Duration::from_secs(10);
    let mut source = Control::connect(&server.address(), limit).await.expect("it listens");
    let mut owner = control(&nodes, nodes.owners().await[Slot::of(tag.as_bytes()).index()]).await;
    unlike(&mut source).await;
    let (stream, large) = (format!("{{{tag}}}stream"), format!("{{{tag}}}large"));
    for (node, last) in [(&mut source, 7777), (&mut owner, 8888)] {
        fill(node, &tag, last).await;
        for n in 1..200 {
            run(node, &["XADD", &stream, &format!("{n}-1"), "f", "v"]).await;
        }
        run(node, &["SETRANGE", &large, "9000000", "x"]).await;
    }
    expect_unlike(&mut source, &mut owner, &tag).await;
    let (from, entry) = (server.address(), nodes.address(0));
    let told = cluster(&format!("import {entry} --from {from} --copy")).await.ends(5);
    let others = KINDS.map(|kind| format!("{{{tag}}}other:{kind}"));
    for key in others.iter().chain([&stream, &large]) {
        told.mentions(&format!("[WARNING] {key} has another value at "));
    }
    assert_eq!(told.count("[WARNING]"), others.len() + 2, "{}", told.out);
    cluster(&format!("import {entry} --from {from} --replace")).await.ends(0);
}

/// Of a target's copies those alone are put aside that differ.
#[tokio::test]
async fn copies_that_are_the_same_are_not_put_aside() {
    let _turn = beside_others().await;
    let (nodes, office) = (Cluster::start(2, 0).await, Office::new());
    office.cut_off_at_once(&nodes, &[(0, 1, SLOT..SLOT + 1)]).await;
    let (mut source, mut target) = (control(&nodes, 0).await, control(&nodes, 1).await);
    let slot = SLOT.to_string();
    unlike(&mut target).await;
    fill(&mut source, &tag(SLOT), 7777).await;
    nodes.call(1, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", nodes.id(0)]).await;
    nodes.call(0, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", nodes.id(1)]).await;
    fill(&mut target, &tag(SLOT), 8888).await;
    expect_unlike(&mut source, &mut target, &tag(SLOT)).await;
    let summary = office.resume(|_| ()).await.expect("it goes on");
    assert_eq!(summary.quarantined.iter().map(|kept| kept.count).sum::<usize>(), KINDS.len());
    nodes.agreed().await;
}
