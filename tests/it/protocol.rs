//! What clients may send and what they hear when it is wrong: protocol errors, inline commands, refusals.

use std::time::Duration;

use slotway::acl::Users;
use slotway::cluster::Slot;

use crate::client::{bulk, request};
use crate::fake::Act;
use crate::rig::{rig, until};

/// The proxy answers what was right, says what is wrong, and closes.
fn protocol_error(password: Option<&'static str>, cases: &[(&[u8], &str)]) {
    rig(1)
        .with(move |options| {
            options.users = Users::default().requiring(password.unwrap_or_default().as_bytes());
        })
        .run(async |rig| {
            for (bytes, error) in cases {
                let mut client = rig.client().await;
                client.send([b"QUITE\r\n", *bytes].concat()).await;
                let first = client.read().await;
                assert!(
                    first.starts_with("-ERR unknown command 'QUITE'")
                        || first.starts_with("-NOAUTH"),
                    "{first}"
                );
                let shown = &bytes[..bytes.len().min(40)];
                let rest = client.rest().await;
                assert_eq!(
                    rest,
                    format!("-ERR Protocol error: {error}\r\n"),
                    "{}",
                    shown.escape_ascii()
                );
            }
        });
}

#[test]
fn protocol_errors_are_told_in_the_servers_words_and_close() {
    protocol_error(
        None,
        &[
            (b"*1048577\r\n", "invalid multibulk length"),
            (b"*x\r\n", "invalid multibulk length"),
            (b"*\r\n", "invalid multibulk length"),
            (b"*99999999999999999999\r\n", "invalid multibulk length"),
            (b"*1\r\n+4\r\n", "expected '$', got '+'"),
            (b"*2\r\n$3\r\nGET\r\n*1\r\n", "expected '$', got '*'"),
            (b"*1\r\n$x\r\n", "invalid bulk length"),
            (b"*1\r\n$-1\r\n", "invalid bulk length"),
            (b"*1\r\n$67108865\r\n", "invalid bulk length"),
            (&b"a".repeat(64 * 1024 + 1), "too big inline request"),
            (b"SET k \"v\r\n", "unbalanced quotes in request"),
            (b"SET k 'v\r\n", "unbalanced quotes in request"),
            (b"SET k \"v\"w\r\n", "unbalanced quotes in request"),
        ],
    );
}

#[test]
fn header_lines_without_end_are_too_big() {
    let count = [&b"*"[..], &b"1".repeat(64 * 1024 + 1)].concat();
    let bulk = [&b"*1\r\n$"[..], &b"1".repeat(64 * 1024 + 1)].concat();
    protocol_error(
        None,
        &[(&count, "too big mbulk count string"), (&bulk, "too big bulk count string")],
    );
}

#[test]
fn clients_that_have_not_said_who_they_are_may_send_little() {
    protocol_error(
        Some("secret"),
        &[
            (b"*11\r\n", "unauthenticated multibulk length"),
            (b"*1\r\n$16385\r\n", "unauthenticated bulk length"),
        ],
    );
}

#[test]
fn what_is_small_enough_is_read_before_authentication_and_anything_after_it() {
    rig(1).with(|options| options.users = Users::default().requiring(b"secret")).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        assert_eq!(
            client.ask("DEL 1 2 3 4 5 6 7 8 9").await,
            "-NOAUTH Authentication required.\r\n"
        );
        assert_eq!(
            client.ask(&format!("SET {key} {}", "v".repeat(16 * 1024))).await,
            "-NOAUTH Authentication required.\r\n"
        );
        let large = format!("SET {key} {}", "v".repeat(20 * 1024));
        assert_eq!(client.ask_all(&["AUTH secret", &large]).await, ["+OK\r\n", "+OK\r\n"]);
        assert_eq!(rig.node(0).seen().len(), 1);
    });
}

#[test]
fn a_long_inline_command_before_authentication_is_answered() {
    rig(1).with(|options| options.users = Users::default().requiring(b"secret")).run(async |rig| {
        let mut client = rig.client().await;
        client.send("DEL 1 2 3 4 5 6 7 8 9 10 11\r\n").await;
        client.finish().await;
        assert_eq!(client.rest().await, "-NOAUTH Authentication required.\r\n");
    });
}

#[test]
fn inline_commands_are_understood() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let check = async |client: &mut crate::client::Client, line: &str, reply: &str| {
            client.send(line).await;
            assert_eq!(client.read().await, reply, "{line:?}");
        };
        check(&mut client, "PING\r\n", "+PONG\r\n").await;
        check(&mut client, "ping\n", "+PONG\r\n").await;
        check(&mut client, &format!("  SET   {key}  v \r\n"), "+OK\r\n").await;
        check(&mut client, &format!("get {key}\n"), "$1\r\nv\r\n").await;
        check(&mut client, &format!("SET {key} \"a b\\x41\\n\"\r\n"), "+OK\r\n").await;
        check(&mut client, &format!("GET {key}\r\n"), "$5\r\na bA\n\r\n").await;
        check(&mut client, &format!("SET '{key}' 'it\\'s'\r\n"), "+OK\r\n").await;
        check(&mut client, &format!("GET {key}\r\n"), "$4\r\nit's\r\n").await;
        check(&mut client, &format!("SET {key} ''\r\n"), "+OK\r\n").await;
        check(&mut client, &format!("GET {key}\r\n"), "$0\r\n\r\n").await;
        assert_eq!(rig.node(0).seen()[0], format!("SET {key} v"));
    });
}

#[test]
fn what_asks_nothing_is_not_answered() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        client.send("\r\n\n  \r\n*0\r\n*-1\r\n*-5\r\nPING\r\n*0\r\n").await;
        assert_eq!(client.read().await, "+PONG\r\n");
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
    });
}

#[test]
fn inline_commands_and_arrays_mix() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let mut wire = b"PING\r\n".to_vec();
        for n in 0..50 {
            wire.extend(request(&format!("SET {key} {n}")));
            wire.extend(format!("GET {key}\r\n").as_bytes());
            wire.extend(b"\r\n*0\r\n");
        }
        client.send(wire).await;
        assert_eq!(client.read().await, "+PONG\r\n");
        for n in 0..50 {
            assert_eq!(client.read_n(2).await, ["+OK\r\n".to_owned(), bulk(&n.to_string())]);
        }
    });
}

#[test]
fn unknown_commands_are_named_and_keep_the_connection() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let check = async |client: &mut crate::client::Client, line: &str, error: &str| {
            assert_eq!(client.ask(line).await, format!("-ERR {error}\r\n"));
        };
        check(&mut client, "FOO", "unknown command 'FOO', with args beginning with: ").await;
        check(&mut client, "foo a b", "unknown command 'foo', with args beginning with: 'a' 'b' ")
            .await;
        let long = "x".repeat(300);
        check(
            &mut client,
            &format!("FOO {long} b"),
            &format!("unknown command 'FOO', with args beginning with: '{}' ", "x".repeat(128)),
        )
        .await;
        check(
            &mut client,
            &format!("{long} b"),
            &format!("unknown command '{}', with args beginning with: 'b' ", "x".repeat(128)),
        )
        .await;
        client.send("*2\r\n$5\r\nF\r\nOO\r\n$4\r\na\r\nb\r\n").await;
        assert_eq!(
            client.read().await,
            "-ERR unknown command 'F  OO', with args beginning with: 'a  b' \r\n"
        );
        client.send("*1\r\n$0\r\n\r\n").await;
        assert_eq!(client.read().await, "-ERR unknown command '', with args beginning with: \r\n");
        check(&mut client, "CLIENT FOO", "unknown subcommand 'FOO'. Try CLIENT HELP.").await;
        check(
            &mut client,
            "client maint_notifications on",
            "unknown subcommand 'maint_notifications'. Try CLIENT HELP.",
        )
        .await;
        check(&mut client, "COMMAND FOO", "unknown subcommand 'FOO'. Try COMMAND HELP.").await;
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        assert!(rig.node(0).seen().is_empty());
    });
}

#[test]
fn a_wrong_number_of_arguments_is_told_and_nothing_is_sent() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        for (line, name) in [
            ("GET", "get"),
            ("get a b", "get"),
            ("SET k", "set"),
            ("MSET a", "mset"),
            ("MSET a 1 b", "mset"),
            ("CLIENT", "client"),
            ("CLIENT ID x", "client|id"),
            ("OBJECT ENCODING", "object|encoding"),
            ("ECHO", "echo"),
            ("PING a b", "ping"),
            ("RESET x", "reset"),
        ] {
            assert_eq!(
                client.ask(line).await,
                format!("-ERR wrong number of arguments for '{name}' command\r\n"),
                "{line}"
            );
        }
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        assert!(rig.node(0).seen().is_empty());
    });
}

#[test]
fn what_is_not_allowed_is_refused_and_nothing_is_sent() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        for (line, name) in [
            ("SHUTDOWN", "shutdown"),
            ("REPLICAOF a 1", "replicaof"),
            ("SLAVEOF NO ONE", "slaveof"),
            ("PSYNC ? -1", "psync"),
            ("MIGRATE h 1 k 0 1", "migrate"),
            ("MOVE k 1", "move"),
            ("SWAPDB 0 1", "swapdb"),
            ("CONFIG REWRITE", "config|rewrite"),
            ("DEBUG SLEEP 0", "debug|sleep"),
            ("MODULE NEWER x", "module|newer"),
        ] {
            assert_eq!(
                client.ask(line).await,
                format!("-ERR command '{name}' is not allowed through the proxy\r\n"),
                "{line}"
            );
        }
        assert!(rig.node(0).seen().is_empty());
    });
}

#[test]
fn a_server_answers_subcommands_that_are_not_known_here() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(1), rig.client().await);
        let line = format!("OBJECT FOO {key}");
        let moved = format!("MOVED {} {}", Slot::of(key.as_bytes()), rig.node(1).address());
        rig.node(0).always("OBJECT", &moved);
        rig.node(1).always("OBJECT", "ERR unknown subcommand 'FOO'. Try OBJECT HELP.");
        for _ in 0..2 {
            // Clients are given their nodes in turn.
            assert_eq!(
                client.ask(&line).await,
                "-ERR unknown subcommand 'FOO'. Try OBJECT HELP.\r\n"
            );
            client = rig.client().await;
        }
        assert_eq!((rig.node(0).count(&line), rig.node(1).count(&line)), (1, 2));
    });
}

#[test]
fn keys_of_several_slots_are_refused_and_nothing_is_sent() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        for line in [
            format!("RENAME {key} {other}"),
            format!("MSETNX {key} 1 {other} 2"),
            format!("SINTERSTORE {key} {key} {other}"),
            format!("EVAL return 2 {key} {other}"),
            format!("PFCOUNT {key} {other}"),
            format!("LMOVE {key} {other} LEFT RIGHT"),
        ] {
            assert_eq!(
                client.ask(&line).await,
                "-CROSSSLOT Keys in request don't hash to the same slot\r\n",
                "{line}"
            );
        }
        assert!(rig.node(0).seen().is_empty() && rig.node(1).seen().is_empty());
        rig.node(0).next("RENAME", Act::Reply(b"+OK\r\n".to_vec()));
        assert_eq!(client.ask(&format!("RENAME {key} {{{key}}}2")).await, "+OK\r\n");
    });
}

#[test]
fn requests_and_replies_of_all_sizes_pass_unchanged() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for size in
            [0, 1, 100, 16_383, 16_384, 32_767, 32_768, 65_536, 65_537, 1_000_000, 5_000_000]
        {
            let value: Vec<u8> =
                (0..size).map(|at| u8::try_from(at % 251).expect("small")).collect();
            let mut wire = Vec::new();
            slotway::resp::write::request(&mut wire, [b"SET", key.as_bytes(), &value].into_iter());
            let get = request(&format!("GET {key}"));
            client.send([wire.as_slice(), &get, &wire, &get, b"PING\r\n"].concat()).await;
            for _ in 0..2 {
                assert_eq!(client.read().await, "+OK\r\n");
                let reply = client.read_bytes().await;
                let expected = [format!("${size}\r\n").as_bytes(), &value, b"\r\n"].concat();
                assert!(reply == expected, "{size} bytes");
            }
            assert_eq!(client.read().await, "+PONG\r\n");
        }
    });
}

#[test]
fn a_request_of_many_arguments_may_arrive_in_pieces() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        // Were the front of the request forgotten, the rest would run as a command of its own.
        let other = rig.cluster.key(0, 1);
        client.ask(&format!("SET {other} v")).await;
        let pairs: Vec<String> = (0..100).map(|n| format!("{{{key}}}{n} DEL {other} 1")).collect();
        let mset = format!("MSET {}", pairs.join(" "));
        for cut in [400, 1500, 2500, 3600] {
            let wire = request(&mset);
            client.send(&wire[..cut]).await;
            assert!(client.is_silent_for(Duration::from_millis(30)).await);
            client.send(&wire[cut..]).await;
            assert_eq!(client.read().await, "+OK\r\n", "cut at {cut} of {}", wire.len());
        }
        assert_eq!(client.ask(&format!("EXISTS {other}")).await, ":1\r\n");
    });
}

#[test]
fn a_long_pipeline_goes_through_the_window() {
    rig(2).run(async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        let mut wire = Vec::new();
        for n in 0..4000 {
            wire.extend(request(&format!("SET {} {n}", if n % 3 == 0 { &key } else { &other })));
            wire.extend(request(if n % 2 == 0 { "PING" } else { "ECHO hello" }));
        }
        client.send(wire).await;
        for n in 0..4000 {
            let local = if n % 2 == 0 { "+PONG\r\n" } else { "$5\r\nhello\r\n" };
            assert_eq!(client.read_n(2).await, ["+OK\r\n", local]);
        }
        assert_eq!(rig.cluster.ran().len(), 4000);
    });
}

#[test]
fn quit_answers_what_came_before_it_and_closes() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("SET", Act::Hold);
        client.send_all(&[&format!("SET {key} v"), "QUIT", "PING"]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        rig.node(0).release();
        assert_eq!(client.rest().await, "+OK\r\n+OK\r\n");
    });
}

#[test]
fn a_protocol_error_behind_requests_under_way_is_told_after_them() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("SET", Act::Hold);
        client.send([request(&format!("SET {key} v")), b"*1\r\n$x\r\n".to_vec()].concat()).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        assert!(client.is_silent_for(Duration::from_millis(20)).await);
        rig.node(0).release();
        assert_eq!(client.rest().await, "+OK\r\n-ERR Protocol error: invalid bulk length\r\n");
    });
}

#[test]
fn commands_the_nodes_know_are_learned() {
    let teach = async |cluster: &crate::fake::Cluster| {
        cluster.model().commands =
            b"*1\r\n*7\r\n$7\r\nmod.set\r\n:3\r\n*1\r\n+write\r\n:1\r\n:1\r\n:1\r\n*0\r\n".to_vec();
    };
    rig(2).run_from(teach, async |rig| {
        rig.proxy().ready().await;
        let (key, mut client) = (rig.key(1), rig.client().await);
        rig.node(1).always("MOD.SET", "ERR as you wish");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while client.ask(&format!("MOD.SET {key} v")).await.starts_with("-ERR unknown command") {
            assert!(std::time::Instant::now() < deadline, "the command is never learned");
        }
        assert_eq!(client.ask(&format!("MOD.SET {key} v")).await, "-ERR as you wish\r\n");
        assert_eq!(
            client.ask("mod.set k").await,
            "-ERR wrong number of arguments for 'mod.set' command\r\n"
        );
        assert!(rig.node(0).seen().is_empty());
    });
}

#[test]
fn an_exec_that_is_not_taken_ends_the_transaction() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let replies = client.ask_all(&["MULTI", "EXEC x", "EXEC"]).await;
        let aborted = "-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command\r\n";
        assert_eq!(replies[1..], [aborted, "-ERR EXEC without MULTI\r\n"]);
    });
}
