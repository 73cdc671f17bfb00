//! RESP3: replies pass byte for byte, on connections of their own.

use std::time::Duration;

use crate::fake::Act;
use crate::rig::{rig, until};

#[test]
fn replies_pass_byte_for_byte() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.resp3_client().await);
        for reply in [
            "%2\r\n+a\r\n:1\r\n$1\r\nb\r\n*1\r\n_\r\n",
            "%0\r\n",
            "~3\r\n:1\r\n,2.5\r\n#t\r\n",
            ",3.141592653589793\r\n",
            ",inf\r\n",
            ",-inf\r\n",
            ",nan\r\n",
            ",1e300\r\n",
            "_\r\n",
            "#t\r\n",
            "#f\r\n",
            "=15\r\ntxt:Some string\r\n",
            "(3492890328409238509324850943850943825024385\r\n",
            "(-1\r\n",
            ":-9223372036854775808\r\n",
            "!21\r\nSYNTAX invalid syntax\r\n",
            "*3\r\n%1\r\n+k\r\n~1\r\n_\r\n*0\r\n#f\r\n",
            "$0\r\n\r\n",
            "|1\r\n+key-popularity\r\n%1\r\n$1\r\na\r\n,0.1923\r\n*2\r\n:2039123\r\n:9543892\r\n",
            "+\r\n",
            "-WRONGTYPE x\r\n",
        ] {
            rig.node(0).next("GET", Act::Reply(reply.as_bytes().to_vec()));
            assert_eq!(client.ask(&format!("GET {key}")).await, reply);
        }
    });
}

#[test]
fn deep_and_long_replies_pass() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.resp3_client().await);
        let deep = format!("{}:1\r\n", "*1\r\n".repeat(10_000));
        let long = format!("%50000\r\n{}", "+key\r\n,1.5\r\n".repeat(50_000));
        for reply in [deep, long] {
            rig.node(0).next("GET", Act::Reply(reply.clone().into_bytes()));
            assert!(client.ask(&format!("GET {key}")).await == reply);
        }
    });
}

#[test]
fn pushes_of_a_node_are_swallowed() {
    rig(1).run(async |rig| {
        let key = rig.key(0);
        for mut client in [rig.resp3_client().await, rig.client().await] {
            let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n";
            let large = format!(">1\r\n${}\r\n{}\r\n", 100_000, "p".repeat(100_000));
            rig.node(0)
                .next("GET", Act::Reply(format!("{push}{large}+one\r\n{push}").into_bytes()));
            rig.node(0).next("GET", Act::Reply(format!("{push}+two\r\n").into_bytes()));
            let get = format!("GET {key}");
            assert_eq!(
                client.ask_all(&[&get, &get, "PING"]).await,
                ["+one\r\n", "+two\r\n", "+PONG\r\n"]
            );
        }
    });
}

#[test]
fn each_protocol_has_its_own_connections() {
    rig(1).run(async |rig| {
        let (key, mut old, mut new) = (rig.key(0), rig.client().await, rig.resp3_client().await);
        for _ in 0..10 {
            assert_eq!(old.ask(&format!("GET {key}")).await, "$-1\r\n");
            assert_eq!(new.ask(&format!("GET {key}")).await, "_\r\n");
        }
        let connections = rig.node(0).seen_by_connection();
        let lanes: Vec<_> =
            connections.iter().filter(|lines| lines.contains(&"PING".to_owned())).collect();
        assert_eq!(lanes.len(), 2);
        let greeted = lanes.iter().filter(|lines| lines[0] == "HELLO 3");
        assert_eq!(greeted.count(), 1);
        assert!(
            lanes
                .iter()
                .all(|lines| lines.iter().filter(|line| line.starts_with("GET")).count() == 10)
        );
    });
}

#[test]
fn the_protocol_changes_between_requests_and_not_under_them() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let get = format!("GET {key}");
        rig.node(0).next("GET", Act::Hold);
        client.send_all(&[&get, "HELLO 3", &get, "HELLO 2", &get, "HELLO 3", "RESET", &get]).await;
        until("the first is out", || !rig.node(0).seen().is_empty()).await;
        assert!(client.is_silent_for(Duration::from_millis(30)).await);
        assert_eq!(rig.node(0).seen().len(), 1);
        rig.node(0).release();
        let replies = client.read_n(8).await;
        let gets: Vec<&str> = [0, 2, 4, 7].map(|n| replies[n].as_str()).to_vec();
        assert_eq!(gets, ["$-1\r\n", "_\r\n", "$-1\r\n", "$-1\r\n"]);
        assert!(
            replies[1].starts_with("%7\r\n")
                && replies[3].starts_with("*14\r\n")
                && replies[6] == "+RESET\r\n"
        );
    });
}

#[test]
fn a_node_that_does_not_know_hello_fails_only_those_who_need_it() {
    rig(1).budget(Duration::from_millis(900)).run(async |rig| {
        let (key, mut old, mut new) = (rig.key(0), rig.client().await, rig.resp3_client().await);
        rig.node(0).always("HELLO", "ERR unknown command 'HELLO'");
        let reply = new.ask(&format!("GET {key}")).await;
        assert!(reply.starts_with("-CLUSTERDOWN node"), "{reply}");
        assert_eq!(old.ask(&format!("GET {key}")).await, "$-1\r\n");
    });
}
