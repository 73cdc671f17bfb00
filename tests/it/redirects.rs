//! `MOVED` and `ASK`: followed, and never shown to a client.

use std::time::Duration;

use crate::client::bulk;
use crate::fake::Act;
use crate::rig::{rig, until};

#[test]
fn moved_to_a_known_node_is_followed() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().give(&key, 1);
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(0).seen(), [format!("SET {key} v")]);
        assert_eq!(rig.node(1).seen(), [format!("SET {key} v")]);
        assert_eq!(rig.cluster.model().stores[1].text(&key).as_deref(), Some("v"));
    });
}

#[test]
fn moved_to_a_node_that_is_not_known_yet_is_followed() {
    let hide = async |cluster: &crate::fake::Cluster| {
        let mut model = cluster.model();
        model.truth.members[1].hidden = true;
        model.truth.owners.fill(Some(0));
        drop(model);
        cluster.announce();
    };
    rig(2).seeds(&[0]).run_from(hide, async |rig| {
        rig.proxy().ready().await;
        let (key, mut client) = (rig.key(0), rig.client().await);
        assert_eq!(rig.proxy().topology().nodes().len(), 1);
        rig.cluster.model().give(&key, 1);
        assert_eq!(
            client.ask_all(&[&format!("SET {key} v"), &format!("GET {key}")]).await,
            ["+OK\r\n", "$1\r\nv\r\n"]
        );
        assert_eq!(rig.node(1).seen(), [format!("SET {key} v"), format!("GET {key}")]);
    });
}

/// `MOVED` that names the host so.
fn moved_to(host: &'static str) {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().give(&key, 1);
        host.clone_into(&mut rig.cluster.model().redirect_host);
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(1).count(&format!("SET {key} v")), 1);
    });
}

#[test]
fn moved_with_an_empty_host_means_the_host_that_said_so() {
    moved_to("");
}

#[test]
fn moved_with_a_question_mark_is_looked_up_in_a_new_map() {
    rig(2).with(|options| options.discovery.interval = Duration::from_secs(60)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().give(&key, 1);
        "?".clone_into(&mut rig.cluster.model().redirect_host);
        rig.cluster.announce();
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(1).count(&format!("SET {key} v")), 1);
    });
}

#[test]
fn moved_to_a_host_name_is_followed() {
    moved_to("localhost");
}

#[test]
fn moved_makes_the_proxy_ask_for_the_new_map() {
    rig(2).with(|options| options.discovery.interval = Duration::from_secs(60)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().give(&key, 1);
        let before = rig.proxy().topology();
        rig.cluster.announce();
        client.ask(&format!("SET {key} 1")).await;
        until("the map is new", || *rig.proxy().topology() != *before).await;
        client.ask(&format!("SET {key} 2")).await;
        assert_eq!(rig.node(0).seen(), [format!("SET {key} 1")]);
        assert_eq!(rig.node(1).seen(), [format!("SET {key} 1"), format!("SET {key} 2")]);
    });
}

#[test]
fn nodes_that_point_at_each_other_are_given_up_when_the_budget_is_spent() {
    rig(2).budget(Duration::from_millis(300)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for (node, other) in [(0, 1), (1, 0)] {
            rig.node(node).always("GET", &format!("MOVED 1 {}", rig.node(other).address()));
        }
        let started = std::time::Instant::now();
        assert_eq!(
            client.ask(&format!("GET {key}")).await,
            "-TRYAGAIN the slot is moving between nodes, the request was not executed\r\n"
        );
        assert!(started.elapsed() >= Duration::from_millis(300));
        let tries = rig.node(0).seen().len() + rig.node(1).seen().len();
        assert!((6..60).contains(&tries), "{tries} tries");
        rig.node(0).obey();
        assert_eq!(client.ask(&format!("GET {key}")).await, "$-1\r\n");
    });
}

#[test]
fn nodes_that_agree_in_time_are_waited_for() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for (node, other) in [(0, 1), (1, 0)] {
            rig.node(node).always("GET", &format!("MOVED 1 {}", rig.node(other).address()));
        }
        client.send_all(&[&format!("GET {key}")]).await;
        until("it goes round", || rig.node(1).seen().len() > 1).await;
        rig.node(0).obey();
        assert_eq!(client.read().await, "$-1\r\n");
    });
}

#[test]
fn ask_sends_asking_and_the_request_side_by_side() {
    rig(2).run(async |rig| {
        let (key, busy) = (rig.key(0), rig.key(1));
        rig.cluster.model().open(&key, 1);
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(rig.client().await);
        }
        for round in 0..20 {
            for (number, client) in clients.iter_mut().enumerate() {
                let lines = [
                    format!("GET {busy}"),
                    format!("APPEND {key} {}", number % 10),
                    format!("GET {busy}"),
                ];
                client.send_all(&lines.each_ref().map(String::as_str)).await;
            }
            for client in &mut clients {
                let replies = client.read_n(3).await;
                assert!(
                    replies.iter().all(|reply| !reply.starts_with('-')),
                    "{round}: {replies:?}"
                );
            }
        }
        let connections = rig.node(1).seen_by_connection();
        let asked = connections
            .iter()
            .flat_map(|lines| lines.windows(2))
            .filter(|pair| pair[0] == "ASKING");
        let asked: Vec<_> = asked.collect();
        assert_eq!(asked.len(), 160);
        assert!(asked.iter().all(|pair| pair[1].starts_with("APPEND")), "{asked:?}");
        assert_eq!(rig.cluster.model().stores[1].text(&key).map(|text| text.len()), Some(160));
        assert_eq!(rig.node(0).seen().len(), 160);
    });
}

#[test]
fn ask_is_followed_for_large_requests_and_in_resp3() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.resp3_client().await);
        rig.cluster.model().open(&key, 1);
        let value = "v".repeat(200_000);
        assert_eq!(client.ask(&format!("SET {key} {value}")).await, "+OK\r\n");
        assert_eq!(client.ask(&format!("GET {key}")).await, bulk(&value));
        assert_eq!(rig.cluster.model().stores[1].text(&key), Some(value));
        let data = rig
            .node(1)
            .seen_by_connection()
            .into_iter()
            .find(|lines| lines.contains(&"ASKING".to_owned()));
        assert_eq!(data.expect("a connection")[0], "HELLO 3");
    });
}

#[test]
fn ask_does_not_change_the_map() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().open(&key, 1);
        for n in 0..3 {
            client.ask(&format!("GET {key}{{{key}}}{n}")).await;
        }
        assert_eq!(rig.node(0).seen().len(), 3);
        assert_eq!(rig.node(1).seen().len(), 6);
    });
}

#[test]
fn a_migration_that_ends_while_asking_is_followed_on() {
    rig(3).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().open(&key, 1);
        let moved = key.clone();
        rig.node(1).next("SET", Act::First(Box::new(move |model| model.give(&moved, 2))));
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.cluster.model().stores[2].text(&key).as_deref(), Some("v"));
        assert_eq!(rig.cluster.ran().len(), 1);
    });
}

#[test]
fn asking_that_is_refused_answers_nobody() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        rig.cluster.model().open(&key, 1);
        for error in
            ["ERR what", "LOADING Redis is loading the dataset in memory", "MOVED 1 127.0.0.1:1"]
        {
            rig.node(1).next("ASKING", Act::error(error));
            // The node has not heard of asking and so sends the request back; the second time it has.
            let replies =
                client.ask_all(&[&format!("GET {key}"), &format!("GET {other}"), "PING"]).await;
            assert_eq!(replies, ["$-1\r\n", "$-1\r\n", "+PONG\r\n"], "{error}");
        }
    });
}

#[test]
fn redirects_stay_in_the_protocol_of_the_client() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.resp3_client().await);
        rig.cluster.model().give(&key, 1);
        assert_eq!(client.ask(&format!("GET {key}")).await, "_\r\n");
    });
}

#[test]
fn what_only_looks_like_a_redirect_is_the_clients() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for reply in [
            "-ERR MOVED 1 127.0.0.1:1\r\n",
            "-MOVEDX 1 127.0.0.1:1\r\n",
            "-ASKING 1 a:1\r\n",
            "+MOVED 1 a:1\r\n",
            "$12\r\n-MOVED 1 a:1\r\n",
            "*1\r\n-MOVED 1 a:1\r\n",
            "-moved 1 127.0.0.1:1\r\n",
        ] {
            rig.node(0).next("GET", Act::Reply(reply.as_bytes().to_vec()));
            assert_eq!(client.ask(&format!("GET {key}")).await, reply);
        }
    });
}

#[test]
fn a_redirect_that_cannot_be_read_never_reaches_a_client() {
    rig(1).budget(Duration::from_millis(200)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for error in [
            "MOVED",
            "MOVED 1",
            "MOVED 1 host",
            "MOVED 1 host:70000",
            "MOVED one 127.0.0.1:1",
            "ASK 1 :x",
        ] {
            rig.node(0).next("GET", Act::error(error));
            let reply = client.ask(&format!("GET {key}")).await;
            assert!(!reply.starts_with("-MOVED") && !reply.starts_with("-ASK"), "{reply}");
        }
    });
}

#[test]
fn a_redirect_to_port_zero_is_waited_out() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("GET", Act::error("MOVED 1 127.0.0.1:0"));
        assert_eq!(client.ask(&format!("GET {key}")).await, "$-1\r\n");
    });
}
