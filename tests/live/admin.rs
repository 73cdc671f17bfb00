//! What an administrator asks of the proxy, where it takes real nodes to answer.

use std::net::SocketAddr;
use std::time::Duration;

use slotway::proxy::Running;
use slotway::resp::value::{self, Value};

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, steady, steady_alone};
use crate::grow::program;
use crate::{front, until};

async fn proxy(cluster: &Cluster) -> Running {
    front::start(front::options(cluster.addresses())).await
}

fn error(text: &str) -> Value {
    Value::Error(text.to_owned().into())
}

#[tokio::test]
async fn waits_are_ended_by_others() {
    let cluster = steady().await;
    let proxy = proxy(&cluster).await;
    let (mut client, mut waiting) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    let Value::Integer(id) = waiting.call("CLIENT ID").await else { panic!("no number") };
    let unblocked = || error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    let (pop, replicas) = (["BLPOP", "nobody-pushes-here", "0"], ["WAIT", "9", "0"]);
    for (request, how, reply) in [
        (pop, "", Value::Null),
        (pop, " TIMEOUT", Value::Null),
        (pop, " ERROR", unblocked()),
        (replicas, " ERROR", unblocked()),
    ] {
        waiting.send(&wire(&request)).await.unwrap();
        until(Duration::from_secs(5), "it waits", async || {
            let list = client.call(&format!("CLIENT LIST ID {id}")).await;
            let list = value::text(&list).unwrap_or_default().to_owned();
            if list.contains(" flags=b ") { Ok(()) } else { Err(list) }
        })
        .await;
        let unblock = format!("CLIENT UNBLOCK {id}{how}");
        assert_eq!(client.call(&unblock).await, Value::Integer(1), "{unblock}");
        assert_eq!(waiting.reply().await.unwrap(), reply, "{unblock}");
        assert_eq!(client.call(&unblock).await, Value::Integer(0), "{unblock}");
    }
    assert_eq!(waiting.call("CLIENT PAUSE 0").await, ok());
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_pause_of_writes_lets_scripts_pass_that_only_read() {
    let cluster = steady().await;
    let proxy = proxy(&cluster).await;
    let (mut client, mut reader) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    let script = "#!lua flags=no-writes\nreturn 'read'";
    let digest = client.ask(&["SCRIPT", "LOAD", script]).await;
    assert_eq!(client.call("CLIENT PAUSE 100000 WRITE").await, ok());
    assert_eq!(reader.ask(&["EVAL", script, "0"]).await, bulk("read"));
    assert_eq!(reader.ask(&["EVALSHA", value::text(&digest).unwrap(), "0"]).await, bulk("read"));
    reader.call("MULTI").await;
    reader.ask(&["EVAL", script, "0"]).await;
    assert_eq!(reader.call("EXEC").await, Value::Array(vec![bulk("read")]));
    assert_eq!(client.call("CLIENT UNPAUSE").await, ok());
    functions_pass_that_only_read(&mut client, &mut reader).await;
    proxy.shutdown().await;
}

/// One says so, one says nothing, and one only looks as if it did, which its node does not fall for.
async fn functions_pass_that_only_read(client: &mut Client, reader: &mut Client) {
    let library = "#!lua name=paused
        redis.register_function{function_name='reads', flags={'no-writes'}, callback=function(k, a) return a[1] end}
        redis.register_function('writes', function(keys) return redis.call('INCR', keys[1]) end)
        redis.register_function('lies', function(keys) return redis.call('INCR', keys[1]) end)
        local flags={'no-writes'}";
    assert_eq!(client.ask(&["FUNCTION", "LOAD", library]).await, bulk("paused"));
    assert_eq!(client.call("CLIENT PAUSE 100000 WRITE").await, ok());
    assert_eq!(reader.call("FCALL reads 1 paused:key x").await, bulk("x"));
    assert_eq!(reader.call("fcall reads 0 y").await, bulk("y"));
    let lie = reader.call("FCALL lies 1 paused:key").await;
    assert!(matches!(&lie, Value::Error(text) if text.contains("write flag")), "{lie:?}");
    reader.send(&wire(&["FCALL", "writes", "1", "paused:key"])).await.expect("it is sent");
    until(Duration::from_secs(10), "it waits", async || {
        let info = value::text(&client.call("CLIENT LIST").await).expect("text").to_owned();
        if info.contains("flags=b ") { Ok(()) } else { Err(info) }
    })
    .await;
    assert_eq!(client.call("EXISTS paused:key").await, Value::Integer(0));
    assert_eq!(client.call("CLIENT UNPAUSE").await, ok());
    assert_eq!(reader.reply().await.expect("a reply"), Value::Integer(1));
    let list = client.call("CLIENT LIST").await;
    assert!(value::text(&list).is_some_and(|list| !list.contains("flags=b")), "{list:?}");
    assert_eq!(reader.call("FCALL lies 1 paused:key").await, Value::Integer(2));
    assert_eq!(client.call("DEL paused:key").await, Value::Integer(1));
    assert_eq!(client.call("FUNCTION DELETE paused").await, ok());
}

#[tokio::test]
async fn settings_are_those_of_all_nodes() {
    let cluster = steady().await;
    let proxy = proxy(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    let pair = |name: &str, value: &str| Value::Array(vec![bulk(name), bulk(value)]);
    assert_eq!(client.call("CONFIG SET list-compress-depth 3 maxmemory-samples 4").await, ok());
    assert_eq!(
        client.call("CONFIG GET list-compress-depth").await,
        pair("list-compress-depth", "3")
    );
    for node in 0..3 {
        let samples = cluster.call(node, &["CONFIG", "GET", "maxmemory-samples"]).await;
        assert_eq!(samples, pair("maxmemory-samples", "4"));
    }
    assert_eq!(client.call("CONFIG SET list-compress-depth 0 maxmemory-samples 5").await, ok());
    assert_eq!(client.call("CONFIG GET databases").await, pair("databases", "1"));
    let all = client.call("CONFIG GET *").await;
    let all: Vec<&str> = value::array(&all).unwrap().iter().filter_map(value::text).collect();
    let of = |name: &str| all.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1]);
    assert_eq!(
        (of("cluster-enabled"), of("save"), of("appendfsync")),
        (Some("no"), Some(""), Some("everysec"))
    );
    assert_eq!(of("port"), Some(proxy.data.port().to_string().as_str()));
    let refused = "ERR Unknown option or number of arguments for CONFIG SET - 'dir'";
    assert_eq!(client.call("CONFIG SET dir /").await, error(refused));
    let dir = of("dir").expect("a folder");
    assert_eq!(client.ask(&["CONFIG", "SET", "dir", dir, "appendonly", "no"]).await, ok());
    assert_eq!(client.ask(&["CONFIG", "SET", "maxmemory", "0", "dir", dir]).await, error(refused));
    assert_eq!(client.call("CONFIG SET min-replicas-to-write 9").await, ok());
    let lacks = client.call("SET k v").await;
    assert!(matches!(&lacks, Value::Error(text) if text.starts_with("NOREPLICAS ")), "{lacks:?}");
    assert_eq!(client.call("CONFIG SET min-replicas-to-write 0").await, ok());
    assert_eq!(client.call("CONFIG SET maxclients 1").await, ok());
    let mut late = Client::to(proxy.data).await;
    assert_eq!(late.reply().await.unwrap(), error("ERR max number of clients reached"));
    assert_eq!(client.call("CONFIG RESETSTAT").await, ok());
    proxy.shutdown().await;
}

/// `SAVE` is answered when every primary has saved; none is deaf meanwhile.
#[tokio::test]
async fn what_is_to_be_saved_is_saved_by_all_nodes() {
    let cluster = steady_alone().await;
    let proxy = proxy(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    let unsaved = async || {
        let mut count = 0;
        for node in 0..3 {
            let text = cluster.text(node, &["INFO", "persistence"]).await.expect("figures");
            count += usize::from(!text.contains("rdb_changes_since_last_save:0\r\n"));
        }
        count
    };
    for save in ["SAVE", "BGSAVE"] {
        for n in 0..50 {
            client.call(&format!("SET key:{n} {save}")).await;
        }
        assert_eq!(unsaved().await, 3);
        let said = if save == "SAVE" { "OK" } else { "Background saving started" };
        assert_eq!(client.call(save).await, Value::SimpleString(said.into()));
        until(Duration::from_secs(10), "an end", async || {
            let info = client.call("INFO persistence").await;
            let text = value::text(&info).unwrap_or_default();
            let is_over = text.contains("rdb_bgsave_in_progress:0\r\n");
            if is_over { Ok(()) } else { Err(text.to_owned()) }
        })
        .await;
        assert_eq!(unsaved().await, 0, "{save}");
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn slow_commands_are_shown_with_their_clients() {
    let cluster = steady_alone().await;
    let proxy = proxy(&cluster).await;
    let (mut client, mut slow) = (Client::to(proxy.data).await, Client::to(proxy.data).await);
    assert_eq!(slow.call("CLIENT SETNAME snail").await, ok());
    assert_eq!(client.call("CONFIG SET slowlog-log-slower-than 100000").await, ok());
    assert_eq!(client.call("SLOWLOG RESET").await, ok());
    assert_eq!(slow.call("SET k v").await, ok());
    assert_eq!(client.call("SLOWLOG LEN").await, Value::Integer(0));
    let spin = "local t=redis.call('time'); repeat local n=redis.call('time') until (n[1]-t[1])*1e6+n[2]-t[2] > 150000";
    slow.ask(&["EVAL", spin, "1", "k"]).await;
    assert_eq!(client.call("SLOWLOG LEN").await, Value::Integer(1));
    let log = client.call("SLOWLOG GET").await;
    let entry = value::array(&value::array(&log).unwrap()[0]).unwrap();
    assert!(value::integer(&entry[2]).is_some_and(|us| us >= 150_000), "{entry:?}");
    assert_eq!(value::array(&entry[3]).unwrap()[0], bulk("EVAL"));
    assert_eq!(entry[5], bulk("snail"));
    assert_eq!(client.call("SLOWLOG RESET").await, ok());
    slow.ask(&["EVAL", &format!("{spin}; return redis.error_reply('x')"), "1", "k"]).await;
    slow.call("BLPOP nobody-pushes-here 0.2").await;
    let log = client.call("SLOWLOG GET").await;
    let names: Vec<&Value> = value::array(&log)
        .unwrap()
        .iter()
        .map(|entry| &value::array(&value::array(entry).unwrap()[3]).unwrap()[0])
        .collect();
    assert_eq!(names, [&bulk("EVAL")], "to wait is not to be slow");
    assert_eq!(client.call("CONFIG SET slowlog-log-slower-than 0 slowlog-max-len 10").await, ok());
    client.call("SLOWLOG RESET").await;
    let log = client.call("SLOWLOG GET").await;
    let newest = value::array(&value::array(&log).unwrap()[0]).unwrap();
    assert_eq!(newest[3], Value::Array(vec![bulk("SLOWLOG"), bulk("RESET")]));
    for _ in 0..30 {
        client.call("PING").await;
        client.call("GET k").await;
    }
    assert_eq!(client.call("SLOWLOG LEN").await, Value::Integer(10));
    assert_eq!(client.call("CONFIG SET slowlog-log-slower-than -1").await, ok());
    proxy.shutdown().await;
}

#[tokio::test]
async fn waits_are_ended_when_no_connection_is_left() {
    let cluster = steady().await;
    let mut options = front::options(cluster.addresses());
    options.backend.exclusive_connections = 1;
    options.workers = 1;
    let proxy = front::start(options).await;
    let mut client = Client::to(proxy.data).await;
    // The second finds no connection, and waits for one.
    let mut waiting = Vec::new();
    for n in 0..2 {
        let mut one = Client::to(proxy.data).await;
        let id = value::integer(&one.call("CLIENT ID").await).unwrap();
        one.send(&wire(&["BLPOP", &format!("{{nobody}}{n}"), "0"])).await.unwrap();
        until(Duration::from_secs(5), "it waits", async || {
            let list = client.call(&format!("CLIENT LIST ID {id}")).await;
            let list = value::text(&list).unwrap_or_default().to_owned();
            if list.contains(" flags=b ") { Ok(()) } else { Err(list) }
        })
        .await;
        waiting.push((one, id));
    }
    let unblocked = error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
    for (mut one, id) in waiting.into_iter().rev() {
        assert_eq!(client.call(&format!("CLIENT UNBLOCK {id} ERROR")).await, Value::Integer(1));
        assert_eq!(one.reply().await.unwrap(), unblocked);
    }
    proxy.shutdown().await;
}

#[tokio::test]
async fn calls_are_counted_over_all_nodes() {
    let cluster = steady().await;
    let proxy = proxy(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("CONFIG RESETSTAT").await, ok());
    for n in 0..30 {
        client.call(&format!("SET calls:{n} v")).await;
    }
    client.call("INCR calls:0").await;
    let info = client.call("INFO commandstats errorstats").await;
    let info = value::text(&info).unwrap();
    assert!(info.contains("cmdstat_set:calls=30,usec="), "{info}");
    assert!(info.contains("errorstat_ERR:count=1\r\n"), "{info}");
    let histogram = client.call("LATENCY HISTOGRAM set nonsense").await;
    let [name, calls] = value::array(&histogram).unwrap() else { panic!("{histogram:?}") };
    assert_eq!((name, &value::array(calls).unwrap()[1]), (&bulk("set"), &Value::Integer(30)));
    what_the_proxy_answers_is_counted(&mut client, proxy.data).await;
    let docs = client.call("COMMAND DOCS get hotkeys").await;
    let [name, texts] = value::array(&docs).unwrap() else { panic!("{docs:?}") };
    assert_eq!((name, &value::array(texts).unwrap()[0]), (&bulk("get"), &bulk("summary")));
    proxy.shutdown().await;
}

/// By whichever worker, and not what the proxy asks the nodes for itself.
async fn what_the_proxy_answers_is_counted(client: &mut Client, proxy: SocketAddr) {
    client.call("CONFIG RESETSTAT").await;
    for _ in 0..4 {
        Client::to(proxy).await.call("CLIENT ID").await;
    }
    for line in ["MULTI", "PING", "EXEC", "CLIENT LIST"] {
        client.call(line).await;
    }
    let count = |told: &Value, at: usize| match &value::array(told).expect("pairs")[at..=at + 1] {
        [name, calls] => {
            let name = value::text(name).expect("a name").to_owned();
            (name, value::integer(&value::array(calls).expect("calls")[1]))
        }
        _ => unreachable!(),
    };
    let told = client.call("LATENCY HISTOGRAM client").await;
    let [id, list] = [count(&told, 0), count(&told, 2)];
    assert_eq!((id.0.as_str(), id.1, list.0.as_str()), ("client|id", Some(4), "client|list"));
    assert_eq!((list.1, value::array(&told).map(<[_]>::len)), (Some(1), Some(4)));
    let told = client.call("LATENCY HISTOGRAM client|id ping").await;
    assert_eq!(count(&told, 2), ("ping".to_owned(), Some(1)));
    let info = client.call("INFO commandstats").await;
    let info = value::text(&info).expect("text");
    assert!(info.contains("cmdstat_client|id:calls=4,usec="), "{info}");
    assert!(info.contains("cmdstat_ping:calls=1,usec="), "{info}");
    assert!(info.contains("cmdstat_multi:calls=1,usec="), "{info}");
    assert_eq!(info.matches("cmdstat_multi:").count(), 1, "{info}");
}

#[tokio::test]
async fn info_has_what_clients_look_for() {
    let cluster = steady().await;
    let proxy = proxy(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("FLUSHALL").await, ok());
    for n in 0..30 {
        assert_eq!(client.call(&format!("SET info:{n} v")).await, ok());
    }
    let info = client.call("INFO").await;
    let info = value::text(&info).unwrap();
    for line in [
        "redis_mode:standalone",
        "blocked_clients:0",
        "maxmemory_policy:noeviction",
        "loading:0",
        "role:master",
        "connected_slaves:0",
        "cluster_enabled:0",
        "db0:keys=30,expires=0,avg_ttl=0",
    ] {
        assert!(info.lines().any(|said| said == line), "no {line} in {info}");
    }
    assert!(!info.contains('{') && !info.contains("# Commandstats"), "{info}");
    let some = client.call("INFO server keyspace").await;
    let some = value::text(&some).unwrap();
    assert!(some.starts_with("# Server\r\n") && some.contains("\r\n\r\n# Keyspace\r\n"), "{some}");
    let all = client.call("INFO everything").await;
    assert!(value::text(&all).unwrap().contains("# Commandstats\r\n"));
    proxy.shutdown().await;
}

#[tokio::test]
async fn debug_is_passed_on_if_that_is_allowed() {
    let cluster = steady().await;
    let mut options = front::options(cluster.addresses());
    options.allow_debug = true;
    let proxy = front::start(options).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("SET debugged v").await, ok());
    let refused = error("ERR command 'debug|segfault' is not allowed through the proxy");
    assert_eq!(client.call("DEBUG SEGFAULT").await, refused);
    let slept = client.call("DEBUG SLEEP 0").await;
    let denied = value::text(&slept).is_none()
        && matches!(&slept, Value::Error(text) if text.contains("DEBUG command not allowed"));
    assert!(slept == ok() || denied, "{slept:?}");
    proxy.shutdown().await;
}

#[tokio::test]
async fn all_nodes_are_called_and_set() {
    let cluster = steady().await;
    let mut options = front::options(cluster.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.admin_call = true;
    let proxy = front::start(options).await;
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    let said = admin.call("PROXY CLUSTER CALL masters ECHO x").await;
    let said = value::array(&said).unwrap_or_else(|| panic!("{said:?}")).to_vec();
    let (places, answers): (Vec<_>, Vec<_>) =
        said.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).unzip();
    assert_eq!(answers, vec![bulk("x"); 3]);
    assert!(places.contains(&bulk(cluster.addresses()[0].as_str())), "{places:?}");
    // Any bytes are passed on, and come back.
    admin
        .send(
            b"*5\r\n$5\r\nPROXY\r\n$7\r\nCLUSTER\r\n$4\r\nCALL\r\n$4\r\nECHO\r\n$2\r\n\xff\x00\r\n",
        )
        .await
        .unwrap();
    let said = admin.reply().await.unwrap();
    assert_eq!(value::array(&said).unwrap()[1], Value::BulkString((&b"\xff\0"[..]).into()));
    let said = admin.call("PROXY CLUSTER CALL replicas NONSENSE").await;
    for pair in value::array(&said).unwrap().chunks_exact(2) {
        assert!(
            matches!(&pair[1], Value::Error(text) if text.starts_with("ERR unknown command")),
            "{pair:?}"
        );
    }
    let timeout = cluster.call(0, &["CONFIG", "GET", "cluster-node-timeout"]).await;
    let ms = value::text(&value::array(&timeout).unwrap()[1]).unwrap().to_owned();
    let told = admin.call("PROXY CLUSTER SETTIMEOUT 7777").await;
    for node in 0..3 {
        let set = cluster.call(node, &["CONFIG", "GET", "cluster-node-timeout"]).await;
        assert_eq!(value::array(&set).unwrap()[1], bulk("7777"));
    }
    // Servers without a file cannot write it down.
    let told = format!("{told:?}");
    assert!(told.contains("running without a config file (live, not persisted)"), "{told}");
    admin.call(&format!("PROXY CLUSTER SETTIMEOUT {ms}")).await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn what_administrators_do_is_logged_until_they_end_it() {
    let cluster = steady().await;
    let state = tempfile::tempdir().expect("a folder");
    let ((mut process, mut log), mut admin) = program(&cluster, state.path()).await;
    assert_eq!(admin.call("PROXY LOGLEVEL").await, bulk("info"));
    let refused = admin.call("PROXY LOGLEVEL loud").await;
    assert!(
        matches!(&refused, Value::Error(text) if text.starts_with("BADARG the level must be off,")),
        "{refused:?}"
    );
    assert_eq!(admin.call("PROXY CONFIG SET timeout 9").await, ok());
    admin.call("PROXY JOB CANCEL j-1").await;
    assert_eq!(admin.call("PROXY LOGLEVEL warn").await, ok());
    assert_eq!(admin.call("PROXY CONFIG SET timeout 8").await, ok());
    assert_eq!(admin.call("PROXY LOGLEVEL info").await, ok());
    assert_eq!(admin.call("PROXY DRAIN 1").await, ok());
    let mut lines = Vec::new();
    while let Some(line) = log.next_line().await.expect("a log") {
        lines.push(line);
    }
    assert!(process.wait().await.expect("it ends").success(), "{lines:#?}");
    let told: Vec<&String> =
        lines.iter().filter(|line| line.contains("an administrator's request")).collect();
    let expected =
        ["LOGLEVEL loud", "CONFIG SET timeout 9", "JOB CANCEL j-1", "LOGLEVEL info", "DRAIN 1"];
    assert_eq!(told.len(), expected.len(), "{lines:#?}");
    for (line, request) in told.iter().zip(expected) {
        assert!(
            line.contains("peer=127.0.0.1:") && line.contains(&format!("PROXY {request}")),
            "{line}"
        );
    }
    assert!(told[2].contains("NOTFOUND there is no job j-1"), "{}", told[2]);
}
