//! What a client says of itself and hears of itself: `HELLO`, `AUTH`, `RESET`, `CLIENT`.

use slotway::acl::Users;

use crate::client::Client;
use crate::rig::{rig, until};

/// A client of a proxy with a password.
fn with_password(test: impl AsyncFnOnce(&mut Client, &str)) {
    rig(1).with(|options| options.users = Users::default().requiring(b"secret")).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        test(&mut client, &key).await;
    });
}

#[test]
fn hello_describes_a_standalone_server() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        let id = client.ask("CLIENT ID").await;
        let fields = |proto: u8| format!(
            "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.2.4\r\n$5\r\nproto\r\n:{proto}\r\n$2\r\nid\r\n{id}$4\r\nmode\r\n\
             $10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
        );
        let mut hello = client.ask("HELLO").await;
        for _ in 0..1000 {
            // Until the version of the nodes has been learned.
            if hello.contains("7.2.4") {
                break;
            }
            tokio::task::yield_now().await;
            hello = client.ask("HELLO").await;
        }
        assert_eq!(hello, format!("*14\r\n{}", fields(2)));
        assert_eq!(client.ask("HELLO 3").await, format!("%7\r\n{}", fields(3)));
        assert_eq!(client.ask("hello").await, format!("%7\r\n{}", fields(3)));
        assert_eq!(client.ask("HELLO 2").await, format!("*14\r\n{}", fields(2)));
    });
}

#[test]
fn hello_that_is_wrong_changes_nothing() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        for (line, error) in [
            ("HELLO 4", "NOPROTO unsupported protocol version"),
            ("HELLO 1", "NOPROTO unsupported protocol version"),
            ("HELLO -3", "NOPROTO unsupported protocol version"),
            ("HELLO x", "ERR Protocol version is not an integer or out of range"),
            (
                "HELLO 99999999999999999999",
                "ERR Protocol version is not an integer or out of range",
            ),
            ("HELLO 3 FOO", "ERR Syntax error in HELLO option 'FOO'"),
            ("HELLO 3 AUTH default", "ERR Syntax error in HELLO option 'AUTH'"),
            ("HELLO 3 SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
            (
                "HELLO 3 AUTH nobody x",
                "WRONGPASS invalid username-password pair or user is disabled.",
            ),
            (
                "HELLO 3 SETNAME a AUTH nobody x",
                "WRONGPASS invalid username-password pair or user is disabled.",
            ),
        ] {
            assert_eq!(client.ask(line).await, format!("-{error}\r\n"), "{line}");
            assert_eq!(client.ask("CLIENT GETNAME").await, "$-1\r\n", "{line}");
        }
        client.send("*4\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$7\r\nSETNAME\r\n$3\r\na b\r\n").await;
        assert_eq!(
            client.read().await,
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        );
        assert_eq!(client.ask("CLIENT GETNAME").await, "$-1\r\n");
        assert!(client.ask("HELLO 3 AUTH default any SETNAME name").await.starts_with("%7\r\n"));
        assert_eq!(client.ask("CLIENT GETNAME").await, "$4\r\nname\r\n");
    });
}

#[test]
fn nothing_goes_without_authentication() {
    with_password(async |client, key| {
        let noauth = "-NOAUTH Authentication required.\r\n";
        for line in [
            format!("GET {key}"),
            "PING".to_owned(),
            "MGET a b".to_owned(),
            "CLIENT ID".to_owned(),
            "FLUSHALL".to_owned(),
            "DBSIZE".to_owned(),
            "INFO".to_owned(),
            "COMMAND".to_owned(),
            "ECHO x".to_owned(),
        ] {
            assert_eq!(client.ask(&line).await, noauth, "{line}");
        }
        assert_eq!(
            client.ask("HELLO 3").await,
            "-NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time\r\n"
        );
        assert_eq!(
            client.ask("AUTH wrong").await,
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        );
        assert_eq!(
            client.ask("AUTH default wrong").await,
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        );
        assert_eq!(
            client.ask("AUTH nobody secret").await,
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
        );
        assert_eq!(client.ask("AUTH a b c").await, "-ERR syntax error\r\n");
        assert_eq!(client.ask(&format!("GET {key}")).await, noauth);
        assert_eq!(
            client.ask_all(&["AUTH secret", &format!("GET {key}")]).await,
            ["+OK\r\n", "$-1\r\n"]
        );
    });
}

#[test]
fn authentication_goes_with_hello_and_with_the_user() {
    with_password(async |client, key| {
        let get = format!("GET {key}");
        assert!(client.ask("HELLO 3 AUTH default secret").await.starts_with("%7\r\n"));
        assert_eq!(client.ask(&get).await, "_\r\n");
        // A wrong password later on does not throw anybody out.
        assert!(client.ask("AUTH wrong").await.starts_with("-WRONGPASS"));
        assert_eq!(client.ask(&get).await, "_\r\n");
        assert_eq!(client.ask("RESET").await, "+RESET\r\n");
        assert_eq!(client.ask(&get).await, "-NOAUTH Authentication required.\r\n");
        assert_eq!(
            client.ask_all(&["AUTH default secret", &get, "QUIT"]).await,
            ["+OK\r\n", "$-1\r\n", "+OK\r\n"]
        );
    });
}

#[test]
fn a_password_that_nobody_asked_for_is_an_error() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask("AUTH x").await, "-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n");
        assert_eq!(client.ask("AUTH default x").await, "+OK\r\n");
    });
}

#[test]
fn names_are_kept_and_checked() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask("CLIENT GETNAME").await, "$-1\r\n");
        assert_eq!(
            client.ask_all(&["CLIENT SETNAME me", "client getname"]).await,
            ["+OK\r\n", "$2\r\nme\r\n"]
        );
        client.send("*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$3\r\na b\r\n").await;
        assert_eq!(
            client.read().await,
            "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
        );
        assert_eq!(client.ask("CLIENT GETNAME").await, "$2\r\nme\r\n");
        assert_eq!(
            client.ask_all(&["CLIENT SETINFO LIB-NAME lib", "CLIENT SETINFO lib-ver 1.2"]).await,
            ["+OK\r\n", "+OK\r\n"]
        );
        assert_eq!(client.ask("CLIENT SETINFO FOO x").await, "-ERR Unrecognized option 'FOO'\r\n");
        client.send("*4\r\n$6\r\nCLIENT\r\n$7\r\nSETINFO\r\n$8\r\nLIB-NAME\r\n$3\r\na b\r\n").await;
        assert_eq!(
            client.read().await,
            "-ERR lib-name cannot contain spaces, newlines or special characters.\r\n"
        );
        let info = client.ask("CLIENT INFO").await;
        assert!(
            info.contains(" name=me ")
                && info.contains(" lib-name=lib lib-ver=1.2 ")
                && info.contains(" resp=2 "),
            "{info}"
        );
        assert_eq!(client.ask_all(&["RESET", "CLIENT GETNAME"]).await, ["+RESET\r\n", "$-1\r\n"]);
        client.ask_all(&["CLIENT SETNAME me", "HELLO 3"]).await;
        assert!(client.ask("CLIENT INFO").await.starts_with('='));
        client.send("*3\r\n$6\r\nCLIENT\r\n$7\r\nSETNAME\r\n$0\r\n\r\n").await;
        assert_eq!(client.read_n(1).await, ["+OK\r\n"]);
        assert_eq!(client.ask("CLIENT GETNAME").await, "_\r\n");
    });
}

#[test]
fn ids_are_different_and_lists_show_all_clients_of_all_workers() {
    rig(1).with(|options| options.workers = 3).run(async |rig| {
        let mut clients = Vec::new();
        for n in 0..7 {
            let mut client = rig.client().await;
            client.ask(&format!("CLIENT SETNAME client-{n}")).await;
            clients.push(client);
        }
        let mut ids = Vec::new();
        for client in &mut clients {
            ids.push(client.ask("CLIENT ID").await);
        }
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), 7);
        let list = clients[0].ask("CLIENT LIST").await;
        for n in 0..7 {
            assert_eq!(list.matches(&format!(" name=client-{n} ")).count(), 1, "{list}");
        }
        let line = list.lines().nth(1).expect("a line");
        let names: Vec<&str> =
            line.split(' ').filter_map(|field| field.split('=').next()).collect();
        assert_eq!(
            names[..12],
            [
                "id", "addr", "laddr", "fd", "name", "age", "idle", "flags", "db", "sub", "psub",
                "ssub"
            ]
        );
        clients.pop().expect("a client").vanish();
        let deadline = std::time::Instant::now() + crate::client::PATIENCE;
        while clients[0].ask("CLIENT LIST").await.contains("name=client-6") {
            assert!(
                std::time::Instant::now() < deadline,
                "the client that left is never forgotten"
            );
        }
    });
}

#[test]
fn lists_can_be_of_some_clients() {
    rig(1).with(|options| options.workers = 2).run(async |rig| {
        let mut clients = Vec::new();
        for n in 0..5 {
            let mut client = rig.client().await;
            client.ask(&format!("CLIENT SETNAME client-{n}")).await;
            clients.push(client);
        }
        let mut ids = Vec::new();
        for client in &mut clients {
            ids.push(client.ask("CLIENT ID").await[1..].trim_end().to_owned());
        }
        let client = &mut clients[0];
        let mut check = async |filter: &str, expected: &[usize]| {
            let list = client.ask(&format!("CLIENT LIST {filter}")).await;
            let names: Vec<&str> =
                list.split(' ').filter_map(|f| f.strip_prefix("name=")).collect();
            let expected: Vec<String> = expected.iter().map(|n| format!("client-{n}")).collect();
            assert_eq!(names, expected, "{filter}");
        };
        let of = |numbers: &[usize]| {
            let ids: Vec<&str> = numbers.iter().map(|n| ids[*n].as_str()).collect();
            format!("ID {}", ids.join(" "))
        };
        check(&of(&[3]), &[3]).await;
        check(&of(&[4, 0, 2]), &[4, 0, 2]).await;
        check(&of(&[1, 1]), &[1]).await;
        check(&format!("{} 99999 0 -1", of(&[2])), &[2]).await;
        check("id 99999", &[]).await;
        check("type Normal", &[0, 1, 2, 3, 4]).await;
        for none in ["master", "REPLICA", "slave", "pubsub"] {
            check(&format!("TYPE {none}"), &[]).await;
        }
        for (filter, error) in [
            ("ID", "syntax error"),
            ("FOO", "syntax error"),
            ("TYPE", "syntax error"),
            ("TYPE normal x", "syntax error"),
            ("TYPE foo", "Unknown client type 'foo'"),
            ("ID x", "Invalid client ID"),
            ("ID 1 99999999999999999999", "Invalid client ID"),
        ] {
            let reply = client.ask(&format!("CLIENT LIST {filter}")).await;
            assert_eq!(reply, format!("-ERR {error}\r\n"), "{filter}");
        }
    });
}

#[test]
fn a_list_keeps_its_place_among_the_replies() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        client
            .send_all(&[
                &format!("SET {key} v"),
                "CLIENT LIST",
                "PING",
                &format!("GET {key}"),
                "CLIENT LIST",
            ])
            .await;
        until("both are out", || rig.node(0).seen().len() == 2).await;
        rig.node(0).release();
        let replies = client.read_n(5).await;
        assert_eq!(
            (replies[0].as_str(), replies[2].as_str(), replies[3].as_str()),
            ("+OK\r\n", "+PONG\r\n", "$1\r\nv\r\n")
        );
        assert!(replies[1].contains("id=") && replies[4].contains("id="));
    });
}

#[test]
fn local_commands_answer_as_a_standalone_server() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        for (line, reply) in [
            ("PING", "+PONG\r\n"),
            ("PING hi", "$2\r\nhi\r\n"),
            ("ECHO hi", "$2\r\nhi\r\n"),
            ("SELECT 0", "+OK\r\n"),
            ("SELECT 1", "-ERR DB index is out of range\r\n"),
            ("SELECT x", "-ERR value is not an integer or out of range\r\n"),
            ("READONLY", "+OK\r\n"),
            ("READWRITE", "+OK\r\n"),
            ("ASKING", "+OK\r\n"),
            ("ROLE", "*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n"),
            ("CLUSTER INFO", "-ERR This instance has cluster support disabled\r\n"),
            ("CLUSTER KEYSLOT foo", ":12182\r\n"),
            ("CONFIG GET databases", "*2\r\n$9\r\ndatabases\r\n$1\r\n1\r\n"),
            ("CLIENT TRACKING OFF", "+OK\r\n"),
            ("CLIENT GETREDIR", ":-1\r\n"),
            ("CLIENT NO-EVICT ON", "+OK\r\n"),
        ] {
            assert_eq!(client.ask(line).await, reply, "{line}");
        }
        assert!(client.ask("TIME").await.starts_with("*2\r\n$10\r\n"));
        assert!(rig.node(0).seen().is_empty());
    });
}

#[test]
fn the_proxy_authenticates_with_the_nodes() {
    let require = async |cluster: &crate::fake::Cluster| {
        cluster.model().password = Some("node-secret".to_owned());
    };
    let credentials = |options: &mut slotway::proxy::Options| {
        let credentials =
            slotway::backend::Credentials { username: None, password: "node-secret".to_owned() };
        options.backend.credentials = Some(credentials.clone());
        options.discovery.access.credentials = Some(credentials);
    };
    rig(2).with(credentials).run_from(require, async |rig| {
        rig.proxy().ready().await;
        let (key, mut old, mut new) = (rig.key(1), rig.client().await, rig.resp3_client().await);
        assert_eq!(old.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(new.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
        let connections = rig.node(1).seen_by_connection();
        assert!(connections.iter().all(|lines| lines[0] == "AUTH node-secret"), "{connections:?}");
    });
}
