//! Subscriptions as the nodes see them: one for all clients, made again when it is lost, and refused in their words.

use std::time::Duration;

use crate::client::Client;
use crate::fake::Act;
use crate::rig::{Rig, rig, until};

const CONFIRMED: &str = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n";
const MESSAGE: &str = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n";

/// What the one node says to the next who subscribes.
fn answer(rig: &Rig, text: &str) {
    rig.node(0).next("SUBSCRIBE", Act::Reply(text.as_bytes().to_vec()));
}

async fn expect_free(client: &mut Client) {
    let list = client.ask("CLIENT LIST TYPE normal").await;
    assert!(list.contains(" flags=N db=0 sub=0 psub=0 ssub=0 "), "{list}");
}

#[test]
fn nothing_is_confirmed_before_the_node_has() {
    rig(1).run(async |rig| {
        let held = format!("{CONFIRMED}{MESSAGE}").into_bytes();
        rig.node(0).next("SUBSCRIBE", Act::HoldReply(held));
        let (mut first, mut second) = (rig.client().await, rig.resp3_client().await);
        first.send_all(&["SUBSCRIBE a", "PING"]).await;
        second.send_all(&["SUBSCRIBE a"]).await;
        until("the node is asked", || rig.node(0).count("subscribe a") == 1).await;
        assert!(first.is_silent_for(Duration::from_millis(30)).await);
        assert!(second.is_silent_for(Duration::from_millis(30)).await);
        rig.node(0).release();
        let pong = "*2\r\n$4\r\npong\r\n$0\r\n\r\n";
        assert_eq!(first.read_n(3).await, [CONFIRMED, pong, MESSAGE]);
        let pushed = [CONFIRMED, MESSAGE].map(|frame| frame.replacen('*', ">", 1));
        assert_eq!(second.read_n(2).await, pushed);
        assert_eq!(rig.node(0).count("subscribe a"), 1);
    });
}

/// Who publishes until somebody hears it must not be told so before that is true.
#[test]
fn who_is_not_subscribed_yet_is_no_receiver() {
    rig(1).run(async |rig| {
        rig.node(0).next("SUBSCRIBE", Act::HoldReply(CONFIRMED.as_bytes().to_vec()));
        let (mut client, mut publisher) = (rig.client().await, rig.client().await);
        client.send_all(&["SUBSCRIBE a"]).await;
        until("the node is asked", || rig.node(0).count("subscribe a") == 1).await;
        let mut ask = async |command: &str, nodes: &str, expected: &str| {
            let name = command.split(' ').next().unwrap().to_owned();
            rig.node(0).next(&name, Act::Reply(nodes.as_bytes().to_vec()));
            assert_eq!(publisher.ask(command).await, expected, "{command}");
        };
        ask("PUBLISH a x", ":0\r\n", ":0\r\n").await;
        let counts = |count| format!("*2\r\n$1\r\na\r\n:{count}\r\n");
        ask("PUBSUB NUMSUB a", &counts(0), &counts(0)).await;
        rig.node(0).release();
        assert_eq!(client.read().await, CONFIRMED);
        ask("PUBLISH a x", ":1\r\n", ":1\r\n").await;
        ask("PUBSUB NUMSUB a", &counts(1), &counts(1)).await;
    });
}

#[test]
fn messages_are_sent_to_those_who_want_no_replies() {
    rig(1).run(async |rig| {
        answer(rig, &format!("{CONFIRMED}{MESSAGE}"));
        let mut client = rig.resp3_client().await;
        client.send_all(&["CLIENT REPLY OFF", "PING", "SUBSCRIBE a"]).await;
        let pushed = [CONFIRMED, MESSAGE].map(|frame| frame.replacen('*', ">", 1));
        assert_eq!(client.read_n(2).await, pushed);
        client.send_all(&["PING", "UNSUBSCRIBE a", "PING", "CLIENT REPLY SKIP"]).await;
        client.send_all(&["CLIENT REPLY ON", "CLIENT REPLY SKIP", "UNSUBSCRIBE x y", "PING"]).await;
        let left = |name: &str| format!(">3\r\n$11\r\nunsubscribe\r\n$1\r\n{name}\r\n:0\r\n");
        let expected =
            [left("a"), "+OK\r\n".to_owned(), left("x"), left("y"), "+PONG\r\n".to_owned()];
        assert_eq!(client.read_n(5).await, expected);
    });
}

#[test]
fn the_last_one_out_unsubscribes() {
    rig(1).run(async |rig| {
        answer(rig, CONFIRMED);
        let (mut first, mut second) = (rig.client().await, rig.client().await);
        assert_eq!(first.ask("SUBSCRIBE a").await, CONFIRMED);
        assert_eq!(second.ask("SUBSCRIBE a").await, CONFIRMED);
        first.ask("UNSUBSCRIBE a").await;
        expect_free(&mut first).await;
        assert_eq!(rig.node(0).count("unsubscribe a"), 0);
        second.vanish();
        until("the node is told", || rig.node(0).count("unsubscribe a") == 1).await;
        assert_eq!(rig.node(0).count("subscribe a"), 1);
    });
}

#[test]
fn a_lost_connection_is_made_again() {
    rig(1).run(async |rig| {
        answer(rig, CONFIRMED);
        let mut client = rig.client().await;
        assert_eq!(client.ask("SUBSCRIBE a").await, CONFIRMED);
        answer(rig, &format!("{CONFIRMED}{MESSAGE}"));
        rig.node(0).drop_connections();
        assert_eq!(client.read().await, MESSAGE);
    });
}

#[test]
fn a_node_may_refuse() {
    rig(1).run(async |rig| {
        let refused = "-NOPERM this user has no permissions to access one of the channels\r\n";
        answer(rig, refused);
        let mut client = rig.client().await;
        assert_eq!(client.ask("SUBSCRIBE a").await, refused);
        expect_free(&mut client).await;
        answer(rig, CONFIRMED);
        assert_eq!(client.ask("SUBSCRIBE a").await, CONFIRMED);
    });
}

#[test]
fn nobody_waits_for_ever() {
    rig(1).budget(Duration::from_millis(100)).run(async |rig| {
        rig.node(0).next("SUBSCRIBE", Act::HoldReply(CONFIRMED.as_bytes().to_vec()));
        let mut client = rig.client().await;
        assert_eq!(client.ask("SUBSCRIBE a").await, "-CLUSTERDOWN The cluster is down\r\n");
        expect_free(&mut client).await;
    });
}
