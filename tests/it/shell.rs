//! The admin port as any client finds it: its words, what it refuses, and that it is apart from the data port.

use slotway::acl::Users;

use crate::client::bulk;
use crate::rig::rig;

#[test]
fn any_client_can_begin() {
    rig(1).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        let begin =
            ["CLIENT SETINFO LIB-NAME x", "CLIENT SETNAME me", "COMMAND DOCS", "COMMAND", "PING"];
        let expected = ["+OK\r\n", "+OK\r\n", "*0\r\n", "*0\r\n", "+PONG\r\n"];
        assert_eq!(client.ask_all(&begin).await, expected);
        assert_eq!(client.ask("CLIENT GETNAME").await, bulk("me"));
        let hello = client.ask("HELLO 3").await;
        assert!(hello.starts_with("%7\r\n$6\r\nserver\r\n$7\r\nslotway\r\n"), "{hello}");
        assert!(client.ask("PROXY CLIENTS").await.starts_with("%4\r\n"));
        assert!(client.ask("HELLO 2").await.starts_with("*14\r\n"));
        client.send("ping\r\nPROXY \"cli\\x65nts\"\r\n\r\n").await;
        assert_eq!(client.read().await, "+PONG\r\n");
        assert!(client.read().await.starts_with("*8\r\n$9\r\nconnected\r\n:0\r\n"));
        client.send_all(&["QUIT", "PING"]).await;
        assert_eq!(client.rest().await, "+OK\r\n");
    });
}

#[test]
fn what_is_wrong_is_told() {
    rig(1).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        for (request, expected) in [
            ("GET a", "-ERR unknown command 'GET', with args beginning with: 'a'\r\n"),
            ("PROXY", "-ERR wrong number of arguments for 'proxy' command\r\n"),
            ("PROXY NONSENSE", "-ERR unknown subcommand 'NONSENSE'. Try PROXY HELP.\r\n"),
            ("PROXY CLIENTS 1", "-ERR wrong number of arguments for 'proxy|clients' command\r\n"),
            ("PROXY CLUSTER", "-ERR wrong number of arguments for 'proxy|cluster' command\r\n"),
            (
                "PROXY CLUSTER NODES 1",
                "-ERR wrong number of arguments for 'proxy|cluster|nodes' command\r\n",
            ),
            (
                "PROXY CLUSTER NONSENSE",
                "-ERR unknown subcommand 'NONSENSE'. Try PROXY CLUSTER HELP.\r\n",
            ),
            ("PROXY CLUSTER CREATE a", "-BADARG \"a\" is no address\r\n"),
            ("PROXY CLUSTER BACKUP", "-BADARG the folder is missing\r\n"),
            ("PROXY CLUSTER ADDNODE", "-BADARG the address is missing\r\n"),
            ("PROXY CLUSTER DELNODE a TIMEOUT 1", "-BADARG TIMEOUT stands behind SYNC\r\n"),
            ("PROXY JOB", "-ERR wrong number of arguments for 'proxy|job' command\r\n"),
            ("PROXY JOB STATUS j-1", "-NOTFOUND there is no job j-1\r\n"),
            ("PROXY JOB WATCH j-1", "-NOTFOUND there is no job j-1\r\n"),
            ("PROXY JOB WATCH", "-ERR wrong number of arguments for 'proxy|job|watch' command\r\n"),
            (
                "PROXY JOB SETRATE j-1 x",
                "-BADARG the rate is a number of keys each second, or <n>MiB/s; 0 for no limit\r\n",
            ),
            (
                "PROXY JOB SETRATE j-1 MAXBLOCK 0",
                "-BADARG MAXBLOCK is a number of milliseconds from 1 on\r\n",
            ),
            ("PROXY JOB SETRATE j-1", "-ERR wrong number of arguments for 'proxy|job|setrate' command\r\n"),
            ("PROXY DRAIN soon", "-BADARG DRAIN is for 0 to 3600 seconds\r\n"),
            ("PROXY CONFIG NONSENSE", "-ERR unknown subcommand 'NONSENSE'. Try PROXY CONFIG HELP.\r\n"),
            (
                "PROXY CONFIG SET maxclients",
                "-ERR wrong number of arguments for 'proxy|config|set' command\r\n",
            ),
            (
                "PROXY CONFIG SET timeout 5 maxmemory 5",
                "-ERR Unknown option or number of arguments for CONFIG SET - 'maxmemory'\r\n",
            ),
            ("PROXY LOGLEVEL a b", "-ERR wrong number of arguments for 'proxy|loglevel' command\r\n"),
            ("PROXY SLOT", "-ERR wrong number of arguments for 'proxy|slot' command\r\n"),
            (
                "PROXY CLUSTER SETTIMEOUT 99",
                "-BADARG the timeout is a number of milliseconds, 100 at least\r\n",
            ),
            (
                "PROXY CLUSTER CALL masters",
                "-ERR wrong number of arguments for 'proxy|cluster|call' command\r\n",
            ),
            (
                "PROXY CLUSTER CALL PING",
                "-NOPERM nodes can be called once admin.call is set to true in the configuration\r\n",
            ),
            ("CLUSTER FORGET a", "-ERR unknown subcommand 'FORGET'. Try CLUSTER HELP.\r\n"),
            ("CLUSTER INFO a", "-ERR wrong number of arguments for 'cluster|info' command\r\n"),
            ("HELLO 4", "-NOPROTO unsupported protocol version\r\n"),
            ("PING a b", "-ERR wrong number of arguments for 'ping' command\r\n"),
        ] {
            assert_eq!(client.ask(request).await, expected, "{request}");
        }
        client.send(b"*2\r\n$5\r\nPROXY\r\n$1\r\n\xff\r\n").await;
        assert_eq!(client.read().await, "-BADARG a word is not UTF-8\r\n");
        client.send("PING \"\r\n").await;
        assert_eq!(client.rest().await, "-ERR Protocol error: unbalanced quotes in request\r\n");
    });
}

#[test]
fn words_that_order_nothing() {
    rig(1).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        for (request, expected) in [
            ("PROXY CLUSTER CHECK DEEPER", "-BADARG \"DEEPER\" is not understood\r\n"),
            ("PROXY CLUSTER CHECK FORMAT xml", "-BADARG FORMAT is neither text nor json\r\n"),
            (
                "PROXY CLUSTER TOPOLOGY AGE",
                "-ERR wrong number of arguments for 'proxy|cluster|topology' command\r\n",
            ),
            ("PROXY JOB CANCEL ALL", ":0\r\n"),
            (
                "PROXY CONFIG RELOAD",
                "-PRECONDITION the proxy was started without a configuration file\r\n",
            ),
        ] {
            assert_eq!(client.ask(request).await, expected, "{request}");
        }
    });
}

#[test]
fn no_argument_is_large() {
    rig(1).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        let word = "x".repeat(10 << 20);
        client.send(format!("*2\r\n$4\r\nPING\r\n${}\r\n{word}\r\n", word.len())).await;
        assert_eq!(client.rest().await, "-ERR Protocol error: invalid bulk length\r\n");
        assert_eq!(rig.administrator().await.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn settings_are_those_of_the_proxy() {
    rig(1).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        let of = |pairs: &[(&str, &str)]| {
            let texts = pairs.iter().flat_map(|(name, value)| [bulk(name), bulk(value)]);
            format!("*{}\r\n{}", pairs.len() * 2, texts.collect::<String>())
        };
        let all = client.ask("PROXY CONFIG GET *").await;
        assert!(all.starts_with("*10\r\n$10\r\nmaxclients\r\n$4\r\n1000\r\n"), "{all}");
        assert_eq!(client.ask("PROXY CONFIG SET timeout 7 maxclients 9").await, "+OK\r\n");
        let told = client.ask("PROXY CONFIG GET timeout max*").await;
        assert_eq!(told, of(&[("maxclients", "9"), ("timeout", "7")]));
        let refused = client.ask("PROXY CONFIG SET maxclients 5 timeout no").await;
        assert!(refused.starts_with("-ERR CONFIG SET failed"), "{refused}");
        let mut data = rig.client().await;
        assert_eq!(data.ask("CONFIG GET maxclients").await, of(&[("maxclients", "9")]));
    });
}

#[test]
fn a_key_has_a_slot_and_that_an_owner() {
    rig(2).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        let told = client.ask("PROXY SLOT foo").await;
        assert!(told.starts_with("*6\r\n$4\r\nslot\r\n:12182\r\n"), "{told}");
        assert!(told.ends_with(&format!("address\r\n{}", bulk(&rig.node(1).address()))), "{told}");
    });
}

#[test]
fn the_password_is_its_own() {
    let secrets = |options: &mut slotway::proxy::Options| {
        options.users = Users::default().requiring(b"data");
        options.admin_password = Some("admin".to_owned());
    };
    rig(1).administered().with(secrets).run(async |rig| {
        let mut client = rig.administrator().await;
        let (no, wrong) = (
            "-NOAUTH Authentication required.\r\n",
            "-WRONGPASS invalid username-password pair or user is disabled.\r\n",
        );
        assert_eq!(client.ask("PROXY CLUSTER INFO").await, no);
        assert_eq!(client.ask("CLUSTER INFO").await, no);
        assert!(client.ask("HELLO 3").await.starts_with("-NOAUTH HELLO must be called"));
        assert_eq!(client.ask("AUTH data").await, wrong);
        assert_eq!(client.ask("HELLO 3 AUTH default data").await, wrong);
        assert_eq!(client.ask("AUTH admin").await, "+OK\r\n");
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        let mut client = rig.administrator().await;
        client.send("*11\r\n").await;
        assert_eq!(
            client.rest().await,
            "-ERR Protocol error: unauthenticated multibulk length\r\n"
        );
    });
}

#[test]
fn the_data_port_has_no_such_words() {
    rig(1).administered().run(async |rig| {
        let refusal = "-ERR PROXY is for the admin port\r\n";
        assert_eq!(rig.client().await.ask("PROXY CLUSTER INFO").await, refusal);
        assert_eq!(rig.client().await.ask("proxy").await, refusal);
    });
}

#[test]
fn the_cluster_as_the_proxy_has_it() {
    rig(2).administered().run(async |rig| {
        let mut client = rig.administrator().await;
        let nodes = client.ask("PROXY CLUSTER NODES").await;
        let (first, second) = (rig.node(0).address(), rig.node(1).address());
        assert!(nodes.contains(&first) && nodes.contains(&second), "{nodes}");
        assert_eq!(nodes.matches(" primary - ").count(), 2, "{nodes}");
        let slots = client.ask("PROXY CLUSTER SLOTS").await;
        assert!(slots.starts_with("*2\r\n*3\r\n:0\r\n"), "{slots}");
        let info = client.ask("PROXY CLUSTER INFO").await;
        assert!(info.contains("slots_covered\r\n:16384\r\n"), "{info}");
        let mut data = rig.client().await;
        assert_eq!(data.ask(&format!("SET {} 1", rig.key(1))).await, "+OK\r\n");
        let stats = client.ask("PROXY STATS").await;
        assert!(stats.contains("commands\r\n:1\r\n"), "{stats}");
        let seen = client.ask("CLUSTER NODES").await;
        assert!(seen.contains("myself") && seen.contains(&second), "{seen}");
        assert_eq!(client.ask("PROXY REFRESH").await, "+OK\r\n");
    });
}
