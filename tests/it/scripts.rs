//! Scripts that were loaded through the proxy run on every node, whether it knows them or not.

use crate::client::{Client, bulk};
use crate::fake::Act;
use crate::rig::{Rig, rig};

const LOAD: &str = "SCRIPT LOAD APPEND\\x20s";
const NOSCRIPT: &str = "-NOSCRIPT No matching script. Please use EVAL.\r\n";

/// Loads the script that appends `s` and gives its digest.
async fn load(rig: &Rig) -> String {
    let mut client = rig.client().await;
    let mut wire = Vec::new();
    let words = [&b"SCRIPT"[..], b"LOAD", b"APPEND s"];
    slotway::resp::write::request(&mut wire, words.into_iter());
    client.send(wire).await;
    assert_eq!(client.read().await, bulk("d-APPEND-s"));
    "d-APPEND-s".to_owned()
}

fn forget(rig: &Rig, node: usize) {
    rig.cluster.model().scripts[node].clear();
}

#[test]
fn a_script_is_loaded_everywhere() {
    rig(3).run(async |rig| {
        let (digest, mut client) = (load(rig).await, rig.client().await);
        for node in 0..3 {
            let key = rig.key(node);
            assert_eq!(client.ask(&format!("EVALSHA {digest} 1 {key}")).await, ":1\r\n");
            let asked = rig.node(node).seen();
            assert_eq!(asked.len(), 2, "{asked:?}");
        }
    });
}

#[test]
fn a_node_that_forgot_a_script_is_told() {
    rig(2).run(async |rig| {
        let (digest, mut client) = (load(rig).await, rig.client().await);
        forget(rig, 0);
        let line = format!("EVALSHA {digest} 1 {}", rig.key(0));
        assert_eq!(client.ask_all(&[&line, &line]).await, [":1\r\n", ":2\r\n"]);
        let told = LOAD.replace("\\x20", " ");
        assert_eq!(rig.node(0).seen(), [&told, &line, &told, &line, &line].map(Clone::clone));
    });
}

#[test]
fn a_script_that_nobody_loaded_is_unknown() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        assert_eq!(client.ask(&format!("EVALSHA d-GET 1 {key}")).await, NOSCRIPT);
        let digest = load(rig).await;
        assert_eq!(client.ask("SCRIPT FLUSH").await, "+OK\r\n");
        assert_eq!(client.ask(&format!("EVALSHA {digest} 1 {key}")).await, NOSCRIPT);
    });
}

#[test]
fn a_node_that_does_not_learn_is_not_told_again() {
    rig(1).run(async |rig| {
        let (digest, mut client) = (load(rig).await, rig.client().await);
        rig.node(0).always("EVALSHA", NOSCRIPT.trim_end().trim_start_matches('-'));
        let line = format!("EVALSHA {digest} 1 {}", rig.key(0));
        assert_eq!(client.ask_all(&[&line, "PING"]).await, [NOSCRIPT, "+PONG\r\n"]);
        assert_eq!(rig.node(0).count(&line), 2);
    });
}

/// What stands behind a script on the same slot does not run before it, though the node has to be told the script first.
#[test]
fn order_is_kept_while_a_node_is_told() {
    rig(2).run(async |rig| {
        let (digest, mut client, key) = (load(rig).await, rig.client().await, rig.key(0));
        for _ in 0..5 {
            forget(rig, 0);
            let script = format!("EVALSHA {digest} 1 {key}");
            let append = format!("APPEND {key} a");
            let get = format!("GET {key}");
            let replies = client
                .ask_all(&[&format!("SET {key} -"), &script, &append, &script, &append, &get])
                .await;
            assert_eq!(replies[5], bulk("-sasa"), "{replies:?}");
        }
    });
}

#[test]
fn a_node_that_is_taking_the_slot_in_is_told() {
    rig(2).run(async |rig| {
        let (digest, mut client, key) = (load(rig).await, rig.client().await, rig.key(0));
        forget(rig, 1);
        rig.cluster.model().open(&key, 1);
        let line = format!("EVALSHA {digest} 1 {key}");
        assert_eq!(client.ask(&line).await, ":1\r\n");
        let told = LOAD.replace("\\x20", " ");
        let seen = rig.node(1).seen();
        assert_eq!(seen[1..], ["ASKING", &line, &told, "ASKING", &line]);
    });
}

#[test]
fn a_slot_that_leaves_while_its_node_is_told_is_followed() {
    rig(2).run(async |rig| {
        let (digest, mut client, key) = (load(rig).await, rig.client().await, rig.key(0));
        forget(rig, 0);
        forget(rig, 1);
        let leaving = key.clone();
        rig.node(0).next("SCRIPT", Act::First(Box::new(move |model| model.give(&leaving, 1))));
        let line = format!("EVALSHA {digest} 1 {key}");
        assert_eq!(client.ask_all(&[&line, &line]).await, [":1\r\n", ":2\r\n"]);
        assert_eq!(rig.cluster.ran(), [format!("APPEND {key} s"), format!("APPEND {key} s")]);
    });
}

/// A script without keys goes where the key is that it names, as it came.
#[test]
fn a_script_goes_where_the_key_is_that_it_names() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        for node in 0..3 {
            let key = rig.key(node);
            let check = async |client: &mut Client, script: &str, args: &str| {
                let line = format!("EVAL {script} 0{args}");
                client.ask(&line).await;
                let asked = rig.node(node).seen();
                assert_eq!(asked.last(), Some(&line), "{script}");
            };
            let literal = format!("redis.call([[get]],[[{key}]])");
            check(&mut client, &literal, "").await;
            check(&mut client, &literal, " x y").await;
            let argument = "redis.pcall([[get]],ARGV[1])";
            check(&mut client, argument, &format!(" {key}")).await;
            check(&mut client, &format!("return{{#KEYS,{literal}}}"), "").await;
            check(&mut client, &literal, &format!(" {}", "x".repeat(40_000))).await;
        }
    });
}

#[test]
fn a_loaded_script_goes_where_the_key_is_that_it_names() {
    rig(3).run(async |rig| {
        let mut client = rig.client().await;
        for node in 0..3 {
            let key = rig.key(node);
            let script = format!("redis.call([[get]],[[{key}]])");
            for node in 0..3 {
                rig.node(node).next("SCRIPT", Act::Reply(bulk("digest").into()));
            }
            assert_eq!(client.ask(&format!("SCRIPT LOAD {script}")).await, bulk("digest"));
            client.ask("EVALSHA DIGEST 0 x").await;
            let asked = "EVALSHA DIGEST 0 x".to_owned();
            assert!(rig.node(node).seen().contains(&asked), "{:?}", rig.node(node).seen());
        }
    });
}
