//! Changes as the nodes tell of them: in which order clients hear, and what becomes of what cannot be told.

use std::time::Duration;

use tokio::time::sleep;

use crate::client::Client;
use crate::fake::Act;
use crate::rig::{Rig, rig, until};

const ALL: &str = ">2\r\n$10\r\ninvalidate\r\n_\r\n";

/// What a node says, and what clients hear.
fn changed(keys: &[&str]) -> String {
    let keys: Vec<String> = keys.iter().map(|key| format!("${}\r\n{key}\r\n", key.len())).collect();
    format!(">2\r\n$10\r\ninvalidate\r\n*{}\r\n{}", keys.len(), keys.concat())
}

async fn tracking(rig: &Rig, options: &str) -> Client {
    let mut client = rig.resp3_client().await;
    assert_eq!(client.ask(format!("CLIENT TRACKING ON {options}").trim()).await, "+OK\r\n");
    client
}

/// Tells of changed keys, and waits until that is passed on.
async fn tell(rig: &Rig, witness: &mut Client, keys: &[&str]) {
    rig.node(0).tell(&changed(keys));
    assert_eq!(witness.read().await, changed(keys));
}

/// Else a client would keep for ever what it is given after it was told to drop it.
#[test]
fn a_change_is_told_behind_the_reply_to_an_earlier_read() {
    rig(1).run(async |rig| {
        let mut witness = tracking(rig, "BCAST").await;
        let mut client = tracking(rig, "").await;
        let reads = [&["GET k"][..], &["MGET j k"], &["MULTI", "GET k", "EXEC"]];
        for (lines, asked) in reads.into_iter().zip(["GET k", "MGET k", "GET k"]) {
            let before = rig.node(0).count(asked);
            rig.node(0).hold();
            client.send_all(lines).await;
            client.read_n(lines.len() - 1).await;
            until("the node is asked", || rig.node(0).count(asked) > before).await;
            tell(rig, &mut witness, &["k"]).await;
            rig.node(0).release();
            let heard = client.read_n(2).await;
            assert_eq!(heard[1], changed(&["k"]), "{lines:?}: {heard:?}");
        }
        // It was told, and has read nothing since.
        tell(rig, &mut witness, &["k"]).await;
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
    });
}

/// It may wait for ever.
#[test]
fn a_client_that_waits_is_told_meanwhile() {
    rig(1).run(async |rig| {
        let mut client = tracking(rig, "").await;
        client.ask("GET k").await;
        rig.node(0).next("BLPOP", Act::HoldReply(b"_\r\n".to_vec()));
        client.send_all(&["BLPOP l 0"]).await;
        until("the node is asked", || rig.node(0).count("BLPOP l 0") == 1).await;
        rig.node(0).tell(&changed(&["k"]));
        assert_eq!(client.read().await, changed(&["k"]));
        rig.node(0).release();
        assert_eq!(client.ask("PING").await, "_\r\n");
        assert_eq!(client.read().await, "+PONG\r\n");
        // What waits and reads is answered first.
        rig.node(0).next("XREAD", Act::HoldReply(b"_\r\n".to_vec()));
        client.send_all(&["XREAD BLOCK 0 STREAMS k 0"]).await;
        until("the node is asked", || rig.node(0).count("XREAD BLOCK 0 STREAMS k 0") == 1).await;
        let mut witness = tracking(rig, "BCAST").await;
        tell(rig, &mut witness, &["k"]).await;
        rig.node(0).release();
        assert_eq!(client.read_n(2).await, ["_\r\n", &changed(&["k"])]);
    });
}

/// Not even the map of the cluster may be known when somebody begins to track.
#[test]
fn who_tracks_early_waits_for_the_map() {
    let before = async |cluster: &crate::fake::Cluster| cluster.node(0).freeze();
    rig(1).run_from(before, async |rig| {
        let mut client = Client::connect(rig.data).await;
        client.send_all(&["CLIENT TRACKING ON"]).await;
        assert!(client.is_silent_for(Duration::from_millis(30)).await);
        rig.node(0).thaw();
        assert_eq!(client.read().await, "+OK\r\n");
    });
}

#[test]
fn who_has_not_read_a_key_is_told_nothing() {
    rig(1).run(async |rig| {
        let mut witness = tracking(rig, "BCAST PREFIX k").await;
        let mut client = tracking(rig, "OPTIN").await;
        assert_eq!(
            client.ask_all(&["SET k v", "GET k", "CLIENT CACHING YES", "GET kk"]).await.len(),
            4
        );
        client.ask_all(&["CLIENT CACHING YES", "PING", "GET kkk"]).await;
        client.ask_all(&["CLIENT CACHING YES", "EVAL redis.call('set',KEYS[1],1) 1 kkkk"]).await;
        rig.node(0).tell(&changed(&["k", "other", "kk", "kkk", "kkkk"]));
        assert_eq!(witness.read().await, changed(&["k", "kk", "kkk", "kkkk"]));
        assert_eq!(client.read().await, changed(&["kk"]));
        assert_eq!(client.ask("CLIENT TRACKING OFF").await, "+OK\r\n");
        client.ask("GET k").await;
        tell(rig, &mut witness, &["k"]).await;
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
    });
}

/// What changed meanwhile is not known.
#[test]
fn everything_is_dropped_when_a_connection_is_lost() {
    rig(1).run(async |rig| {
        let mut client = tracking(rig, "").await;
        let mut idle = tracking(rig, "").await;
        client.ask("GET k").await;
        rig.node(0).drop_connections();
        assert_eq!(client.read().await, ALL);
        until("the next one tells", || rig.node(0).trackers() == 2).await;
        // Whoever reads while nothing is told has to be told once more.
        let mut witness = tracking(rig, "BCAST").await;
        client.ask("GET k").await;
        tell(rig, &mut witness, &["k"]).await;
        let heard = client.read().await;
        assert!(heard == changed(&["k"]) || heard == ALL, "{heard}");
        assert_eq!(idle.ask("PING").await, "+PONG\r\n", "it keeps nothing");
    });
}

#[test]
fn what_is_read_before_a_connection_tells_is_dropped() {
    rig(2).run(async |rig| {
        let (sure, unsure) = (rig.key(0), rig.key(1));
        let mut client = tracking(rig, "").await;
        let mut broadcast = tracking(rig, "BCAST").await;
        rig.node(1).next("=CLIENT TRACKING ON BCAST", Act::HoldReply(b"+OK\r\n".to_vec()));
        rig.node(1).drop_connections();
        until("the node is asked", || rig.node(1).trackers() == 2).await;
        for client in [&mut client, &mut broadcast] {
            client.ask_all(&[&format!("GET {sure}"), &format!("GET {unsure}")]).await;
            assert_eq!(client.read().await, changed(&[&unsure]));
        }
        rig.node(1).release();
        assert_eq!([client.read().await, broadcast.read().await], [ALL, ALL]);
        client.ask(&format!("GET {unsure}")).await;
        rig.node(1).tell(&changed(&[&unsure]));
        assert_eq!(client.read().await, changed(&[&unsure]));
    });
}

/// Whoever has read a key before would not hear of the changes that its new owner makes.
#[test]
fn everything_is_dropped_when_the_new_owner_of_a_slot_does_not_tell() {
    rig(2).run(async |rig| {
        let hot = rig.key(0);
        let mut client = tracking(rig, "").await;
        let mut idle = tracking(rig, "").await;
        rig.node(1).next("=CLIENT TRACKING ON BCAST", Act::HoldReply(b"+OK\r\n".to_vec()));
        rig.node(1).drop_connections();
        until("the node is asked", || rig.node(1).trackers() == 2).await;
        client.ask(&format!("GET {hot}")).await;
        rig.cluster.model().give(&hot, 1);
        rig.announce().await;
        assert_eq!(client.read().await, ALL);
        assert_eq!(idle.ask("PING").await, "+PONG\r\n", "it keeps nothing");
        rig.node(1).release();
    });
}

#[test]
fn everything_is_dropped_when_a_replica_takes_over_that_refuses_to_tell() {
    rig(1).replicas(1).run(async |rig| {
        let mut client = tracking(rig, "").await;
        client.ask("GET hot").await;
        rig.node(1)
            .always("CLIENT", "NOPERM this user has no permissions to run 'client|tracking'");
        {
            let mut model = rig.cluster.model();
            model.fail_over(0, 1);
            let old = &mut model.truth.members[0];
            (old.failed, old.primary) = (false, Some(1));
        }
        rig.announce().await;
        assert_eq!(client.read().await, ALL);
        // What is read from then on is not kept either.
        client.ask("GET hot").await;
        assert_eq!(client.read().await, changed(&["hot"]));
    });
}

/// It is not listened to, and may answer all the same.
#[test]
fn an_owner_that_is_held_for_failed_does_not_tell() {
    rig(2).run(async |rig| {
        let hot = rig.key(0);
        let mut client = tracking(rig, "").await;
        client.ask(&format!("GET {hot}")).await;
        rig.cluster.model().truth.members[0].failed = true;
        rig.announce().await;
        assert_eq!(client.read().await, ALL);
        client.ask(&format!("GET {hot}")).await;
        assert_eq!(client.read().await, changed(&[&hot]));
    });
}

#[test]
fn a_node_may_refuse_to_tell() {
    rig(1).run(async |rig| {
        let refused =
            "ERR unknown subcommand or wrong number of arguments for 'TRACKING'. Try CLIENT HELP.";
        rig.node(0).always("CLIENT", refused);
        let mut client = rig.resp3_client().await;
        assert_eq!(client.ask("CLIENT TRACKING ON").await, format!("-{refused}\r\n"));
        assert_eq!(client.ask("CLIENT GETREDIR").await, ":-1\r\n");
        rig.node(0).obey();
        until_ok(&mut client, "CLIENT TRACKING ON").await;
        assert_eq!(client.ask("CLIENT GETREDIR").await, ":0\r\n");
    });
}

async fn until_ok(client: &mut Client, line: &str) {
    while client.ask(line).await != "+OK\r\n" {
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn of_too_many_keys_some_are_dropped() {
    rig(1).run(async |rig| {
        let mut client = tracking(rig, "").await;
        client.ask_all(&["CONFIG SET tracking-table-max-keys 2", "GET a", "GET b"]).await;
        client.send_all(&["GET c"]).await;
        let heard = client.read_n(2).await;
        let dropped = ["a", "b", "c"].map(|key| changed(&[key]));
        assert!(heard.iter().any(|heard| dropped.contains(heard)), "{heard:?}");
        let info = client.ask("INFO stats").await;
        assert!(info.contains("tracking_total_keys:2\r\ntracking_total_items:2\r\n"), "{info}");
    });
}

/// Nobody else would forget them as long as the key does not change.
#[test]
fn readers_that_are_gone_are_forgotten() {
    rig(1).run(async |rig| {
        let mut stays = tracking(rig, "").await;
        stays.ask("GET hot").await;
        for _ in 0..40 {
            let mut brief = tracking(rig, "").await;
            brief.ask_all(&["GET hot", "CLIENT TRACKING OFF"]).await;
        }
        let info = stays.ask("INFO stats").await;
        let items = info.split("tracking_total_items:").nth(1).and_then(|rest| rest.lines().next());
        let items: usize = items.and_then(|items| items.parse().ok()).expect("a number");
        assert!((1..=8).contains(&items), "{info}");
        rig.node(0).tell(&changed(&["hot"]));
        assert_eq!(stays.read().await, changed(&["hot"]));
    });
}

#[test]
fn a_change_is_told_by_every_prefix_of_its_key() {
    rig(1).run(async |rig| {
        let mut clients = Vec::new();
        for prefix in ["a", "a:b", "a:b:c", "a:bb", "b"] {
            clients.push(tracking(rig, &format!("BCAST PREFIX {prefix}")).await);
        }
        let mut all = tracking(rig, "BCAST").await;
        tell(rig, &mut all, &["a:b:d", "a:b:c", "a", "", "c"]).await;
        let [a, b, c, others @ ..] = &mut clients[..] else { unreachable!("there are five") };
        assert_eq!(a.read().await, changed(&["a:b:d", "a:b:c", "a"]));
        assert_eq!(b.read().await, changed(&["a:b:d", "a:b:c"]));
        assert_eq!(c.read().await, changed(&["a:b:c"]));
        for other in others {
            assert_eq!(other.ask("PING").await, "+PONG\r\n");
        }
    });
}

#[test]
fn a_client_may_name_so_many_prefixes() {
    rig(1).run(async |rig| {
        let mut client = rig.resp3_client().await;
        let named = |from: usize, to: usize| {
            let prefixes: Vec<_> = (from..to).map(|n| format!("PREFIX {n:05}")).collect();
            format!("CLIENT TRACKING ON BCAST {}", prefixes.join(" "))
        };
        let refused = "-ERR proxy: a client may name up to 1024 prefixes\r\n";
        assert_eq!(client.ask(&named(0, 50_000)).await, refused);
        assert_eq!(client.ask(&named(0, 1024)).await, "+OK\r\n");
        assert_eq!(client.ask(&named(1024, 1025)).await, refused);
    });
}

/// RESP2 has no messages that answer nothing: another client hears them, as one that subscribes.
#[test]
fn another_client_is_told_in_its_place() {
    rig(1).run(async |rig| {
        let (mut ear, mut client) = (rig.client().await, rig.client().await);
        rig.node(0).next(
            "SUBSCRIBE",
            Act::Reply(b"*3\r\n$9\r\nsubscribe\r\n$20\r\n__redis__:invalidate\r\n:1\r\n".to_vec()),
        );
        let id = ear.ask("CLIENT ID").await.trim_matches([':', '\r', '\n']).to_owned();
        ear.ask("SUBSCRIBE __redis__:invalidate").await;
        let track = format!("CLIENT TRACKING ON REDIRECT {id}");
        assert_eq!(client.ask_all(&[&track, "CLIENT GETREDIR"]).await[1], format!(":{id}\r\n"));
        client.ask("GET k").await;
        rig.node(0).tell(&changed(&["k"]));
        let message = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n*1\r\n$1\r\nk\r\n";
        assert_eq!(ear.read().await, message);
        // When it is gone, who has asked for it is told so, if that is possible.
        assert_eq!(ear.ask("QUIT").await, "+OK\r\n");
        assert!(client.ask("HELLO 3").await.starts_with('%'));
        until_gone(&mut client, &id).await;
        client.ask("GET k").await;
        rig.node(0).tell(&changed(&["k"]));
        assert_eq!(client.read().await, format!(">2\r\n$21\r\ntracking-redir-broken\r\n:{id}\r\n"));
        let info = client.ask("CLIENT TRACKINGINFO").await;
        assert!(info.contains("broken_redirect"), "{info}");
        let refused = "-ERR The client ID you want redirect to does not exist\r\n";
        assert_eq!(client.ask(&track).await, refused);
    });
}

async fn until_gone(client: &mut Client, id: &str) {
    while client.ask("CLIENT LIST").await.contains(&format!("id={id} ")) {
        sleep(Duration::from_millis(5)).await;
    }
}
