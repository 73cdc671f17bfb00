//! What clients do to each other and to themselves: `CLIENT KILL`, `PAUSE`, `REPLY`.

use std::time::Duration;

use slotway::local::View;

use crate::client::{Client, bulk};
use crate::fake::Act;
use crate::rig::{rig, until};

/// What `CLIENT INFO` says under a name.
async fn told(client: &mut Client, name: &str) -> String {
    let info = client.ask("CLIENT INFO").await;
    let start = format!("{name}=");
    let field = info.split_whitespace().find_map(|field| field.strip_prefix(&start));
    field.unwrap_or_else(|| panic!("no {name} in {info}")).to_owned()
}

#[test]
fn clients_are_killed_by_what_is_true_of_them() {
    rig(1).with(|options| options.workers = 2).run(async |rig| {
        let mut client = rig.client().await;
        for filter in ["ID", "ADDR", "old"] {
            let mut victim = rig.client().await;
            let (id, address) = (told(&mut victim, "id").await, told(&mut victim, "addr").await);
            let (kill, reply) = match filter {
                "ID" => (format!("CLIENT KILL ID {id} TYPE normal USER default"), ":1\r\n"),
                "ADDR" => (format!("CLIENT KILL ADDR {address}"), ":1\r\n"),
                _ => (format!("CLIENT KILL {address}"), "+OK\r\n"),
            };
            assert_eq!(client.ask(&kill).await, reply, "{kill}");
            assert_eq!(victim.rest().await, "", "{kill}");
        }
        let (mut one, mut other) = (rig.client().await, rig.client().await);
        assert_eq!((one.ask("PING").await, other.ask("PING").await).1, "+PONG\r\n");
        let address = told(&mut client, "laddr").await;
        assert_eq!(client.ask(&format!("CLIENT KILL LADDR {address}")).await, ":2\r\n");
        assert_eq!(one.rest().await + &other.rest().await, "");
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn a_client_that_kills_itself_hears_of_it_and_of_nothing_else() {
    rig(1).run(async |rig| {
        for kill in ["CLIENT KILL ID {id}", "CLIENT KILL ID {id} SKIPME yes"] {
            let mut client = rig.client().await;
            let id = told(&mut client, "id").await;
            let kill = kill.replace("{id}", &id).replace("{id}", &id);
            if kill.ends_with("yes") {
                assert_eq!(client.ask_all(&[&kill, "PING"]).await, [":0\r\n", "+PONG\r\n"]);
            } else {
                client.send_all(&["PING", &format!("{kill} SKIPME no"), "PING"]).await;
                assert_eq!(client.rest().await, "+PONG\r\n:1\r\n");
            }
        }
        let mut client = rig.client().await;
        let address = told(&mut client, "addr").await;
        client.send_all(&[&format!("CLIENT KILL {address}")]).await;
        assert_eq!(client.rest().await, "+OK\r\n");
    });
}

#[test]
fn replies_are_left_out_and_the_rest_keeps_its_order() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        rig.node(0).hold();
        client
            .send_all(&[
                &format!("SET {key} 1"),
                "CLIENT REPLY SKIP",
                &format!("GET {other}"),
                &format!("APPEND {key} 2"),
                "CLIENT REPLY OFF",
                "ECHO quiet",
                "NONSENSE",
                &format!("APPEND {key} 3"),
                &format!("MGET {key} {other}"),
                "CLIENT REPLY ON",
                &format!("GET {key}"),
            ])
            .await;
        until("all are out", || rig.node(0).count(&format!("SET {key} 1")) == 1).await;
        while !rig.cluster.ran().contains(&format!("GET {key}")) {
            rig.node(0).release();
            tokio::task::yield_now().await;
        }
        rig.node(0).release();
        assert_eq!(client.read_n(4).await, ["+OK\r\n", ":2\r\n", "+OK\r\n", "$3\r\n123\r\n"]);
        client.send_all(&["CLIENT REPLY SKIP", "PING a b", "PING"]).await;
        assert_eq!(client.read().await, "+PONG\r\n");
    });
}

#[test]
fn replies_are_on_again_as_soon_as_that_is_said() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        client.send_all(&["CLIENT REPLY SKIP", "CLIENT REPLY ON", "PING"]).await;
        assert_eq!(client.read_n(2).await, ["+OK\r\n", "+PONG\r\n"]);
        client.send_all(&["CLIENT REPLY OFF", "CLIENT REPLY SKIP", "PING", "PING"]).await;
        client.send_all(&["CLIENT REPLY ON"]).await;
        assert_eq!(client.read().await, "+OK\r\n");
        assert_eq!(client.ask("ECHO x").await, "$1\r\nx\r\n");
    });
}

#[test]
fn a_pause_holds_writes_back_until_it_is_over() {
    rig(1).with(|options| options.workers = 2).run(async |rig| {
        let (key, mut client, mut writer) = (rig.key(0), rig.client().await, rig.client().await);
        assert_eq!(client.ask("CLIENT PAUSE 100000 WRITE").await, "+OK\r\n");
        writer.send_all(&["PING", &format!("GET {key}"), &format!("SET {key} 1")]).await;
        assert_eq!(writer.read_n(2).await, ["+PONG\r\n", "$-1\r\n"]);
        let mut queuing = rig.client().await;
        assert_eq!(queuing.ask_all(&["MULTI", "PING"]).await[1], "+QUEUED\r\n");
        assert_eq!(queuing.ask("EXEC").await, "*1\r\n+PONG\r\n");
        assert!(writer.is_silent_for(Duration::from_millis(30)).await);
        assert!(client.ask("CLIENT LIST").await.contains(" flags=b "));
        assert_eq!(client.ask("CLIENT UNPAUSE").await, "+OK\r\n");
        assert_eq!(writer.read().await, "+OK\r\n");
        assert_eq!(client.ask("CLIENT PAUSE 60").await, "+OK\r\n");
        let started = std::time::Instant::now();
        assert_eq!(client.ask_all(&["NONSENSE", &format!("GET {key}")]).await[1], bulk("1"));
        assert!(started.elapsed() >= Duration::from_millis(50));
    });
}

#[test]
fn the_list_tells_what_clients_do() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(told(&mut client, "cmd").await, "client|info");
        assert_eq!(
            (told(&mut client, "flags").await, told(&mut client, "multi").await),
            ("N".to_owned(), "-1".to_owned())
        );
        let mut other = rig.client().await;
        client.ask_all(&["MULTI", "PING", "PING"]).await;
        let list = other.ask("CLIENT LIST").await;
        assert!(list.contains(" flags=x ") && list.contains(" multi=2 "), "{list}");
        client.ask("DISCARD").await;
        assert_eq!(told(&mut client, "multi").await, "-1");
    });
}

#[test]
fn info_does_not_wait_for_a_node_that_is_down() {
    rig(2).budget(Duration::from_secs(5)).run(async |rig| {
        let mut client = rig.client().await;
        rig.node(1).down().await;
        let started = std::time::Instant::now();
        let info = client.ask("INFO").await;
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        assert!(info.contains("used_memory:1000\r\n"), "{info}");
    });
}

#[test]
fn who_monitors_sees_what_all_clients_ask_for() {
    rig(2).with(|options| options.workers = 2).run(async |rig| {
        let (mut monitor, mut one, mut other) =
            (rig.client().await, rig.client().await, rig.client().await);
        assert_eq!(monitor.ask("MONITOR").await, "+OK\r\n");
        // Every worker has taken it up when it has answered for its clients.
        let list = one.ask("CLIENT LIST").await;
        assert!(list.contains(" flags=O "), "{list}");
        let (key, peer) = (rig.key(0), told(&mut other, "addr").await);
        other.ask(&format!("SET {key} v")).await;
        for line in ["CONFIG GET port", "NONSENSE", "GET", "AUTH secret", "MULTI", "PING", "EXEC"] {
            other.ask(line).await;
        }
        let ends = |line: &str, words: &str| line.ends_with(&format!("[0 {peer}] {words}\r\n"));
        for words in [
            "\"CLIENT\" \"INFO\"",
            &format!("\"SET\" \"{key}\" \"v\""),
            "\"AUTH\" \"(redacted)\"",
            "\"MULTI\"",
            "\"PING\"",
            "\"EXEC\"",
        ] {
            let line = monitor.read().await;
            assert!(ends(&line, words), "{line} for {words}");
        }
        assert_eq!(monitor.ask("RESET").await.lines().count(), 1);
        other.ask("PING").await;
        assert!(monitor.is_silent_for(Duration::from_millis(30)).await);
    });
}

#[test]
fn the_proxy_can_look_like_a_cluster_of_one_node() {
    rig(2).with(|options| options.cluster_view = View::Single).run(async |rig| {
        let (mut client, port) = (rig.client().await, rig.data.port());
        let id = client.ask("CLUSTER MYID").await;
        let expected =
            format!("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$9\r\n127.0.0.1\r\n:{port}\r\n{id}*0\r\n");
        assert_eq!(client.ask("CLUSTER SLOTS").await, expected);
        assert!(client.ask("CLUSTER NODES").await.contains(" connected 0-16383\n"));
        assert!(client.ask("CLUSTER INFO").await.contains("cluster_state:ok\r\n"));
        assert!(client.ask("CLUSTER SHARDS").await.starts_with("*1\r\n*4\r\n$5\r\nslots\r\n"));
        assert!(client.ask("HELLO").await.contains("$7\r\ncluster\r\n"));
        assert!(client.ask("INFO cluster").await.contains("cluster_enabled:1\r\n"));
        let refused = "-ERR command 'cluster|forget' is not allowed through the proxy\r\n";
        assert_eq!(client.ask("CLUSTER FORGET x").await, refused);
    });
}

#[test]
fn the_nodes_can_be_shown_as_they_are() {
    rig(2).with(|options| options.cluster_view = View::Real).run(async |rig| {
        let mut client = rig.client().await;
        let nodes = client.ask("CLUSTER NODES").await;
        assert!(nodes.contains(&rig.node(0).address()) && nodes.contains(&rig.node(1).address()));
        assert_eq!(client.ask("CLUSTER KEYSLOT foo").await, ":12182\r\n");
    });
}

#[test]
fn subcommands_are_described_by_their_full_name() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let info = client.ask("COMMAND INFO Config|GET config|nonsense").await;
        assert!(info.starts_with("*2\r\n*10\r\n$10\r\nconfig|get\r\n:-3\r\n"), "{info}");
        assert!(info.ends_with("$-1\r\n"), "{info}");
        let list = client.ask("COMMAND LIST FILTERBY PATTERN config|*r*").await;
        assert_eq!(list, "*2\r\n$16\r\nconfig|resetstat\r\n$14\r\nconfig|rewrite\r\n");
    });
}

#[test]
fn documents_are_asked_of_a_node_for_what_is_known() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask("COMMAND DOCS hotkeys nonsense").await, "*0\r\n");
        rig.node(0).next("COMMAND", Act::Reply(b"*0\r\n".to_vec()));
        assert_eq!(client.ask("COMMAND DOCS hotkeys Client|LIST nonsense get").await, "*0\r\n");
        let seen = rig.node(0).seen_by_connection().concat();
        assert!(seen.contains(&"COMMAND DOCS Client|LIST get".to_owned()), "{seen:?}");
    });
}
