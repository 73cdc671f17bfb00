//! `import` and `backup`.

use std::collections::BTreeMap;
use std::path::Path;

use slotway::backend::Control;
use slotway::cluster::Slot;
use slotway::resp::value::{self, Value};

use crate::beside_others;
use crate::cluster::Cluster;
use crate::tool::{Special, cluster, slotway};

/// Runs a command whose words may be any bytes; it has to succeed.
async fn run(control: &mut Control, args: &[&[u8]]) -> Value {
    control.call(args).await.unwrap_or_else(|error| panic!("{args:?}: {error}"))
}

/// A server that is no cluster, with keys of every kind.
async fn source() -> (Special, Control, Vec<Vec<u8>>) {
    let server = Special::start("127.0.0.1", &["--requirepass", "p%s"]).await;
    let limit = std::time::Duration::from_secs(5);
    let mut control = Control::connect(&server.address(), limit).await.expect("it listens");
    run(&mut control, &[b"AUTH", b"p%s"]).await;
    let mut keys: Vec<Vec<u8>> = (0..500).map(|n| format!("key:{n}").into_bytes()).collect();
    keys.extend([
        b"".to_vec(),
        b"a\0b".to_vec(),
        b"\0".to_vec(),
        b"a\r\nb".to_vec(),
        b"%s".to_vec(),
        vec![255, 254],
    ]);
    for key in &keys {
        run(&mut control, &[b"SET", key, b"value"]).await;
    }
    run(&mut control, &[b"PEXPIRE", b"a\0b", b"600000"]).await;
    let others: [&[&[u8]]; 5] = [
        &[b"RPUSH", b"list", b"1", b"2"],
        &[b"SADD", b"set", b"1", b"2"],
        &[b"ZADD", b"zset", b"1", b"a"],
        &[b"HSET", b"hash", b"f", b"v"],
        &[b"XADD", b"stream", b"*", b"f", b"v"],
    ];
    for words in others {
        run(&mut control, words).await;
        keys.push(words[1].to_vec());
    }
    (server, control, keys)
}

#[tokio::test]
async fn import_takes_every_key_whatever_is_in_it_and_can_be_done_again() {
    let _turn = beside_others().await;
    let nodes = Cluster::start(3, 0).await;
    let (server, mut control, keys) = source().await;
    run(&mut control, &[b"SELECT", b"1"]).await;
    run(&mut control, &[b"SET", b"elsewhere", b"1"]).await;
    run(&mut control, &[b"SELECT", b"0"]).await;
    let (from, entry) = (server.address(), nodes.address(0));
    let import = format!("import {entry} --cluster-from {from} --cluster-from-pass p%s");

    cluster(&format!("import {entry}"))
        .await
        .ends(2)
        .says("[ERR] Option '--cluster-from' is required for subcommand 'import'.");
    cluster(&format!("import {entry} --from nonsense"))
        .await
        .ends(2)
        .mentions("Invalid --cluster-from host.");
    cluster(&format!("import {entry} --from {}", nodes.address(1)))
        .await
        .ends(3)
        .says("[ERR] The source node should not be a cluster node.");
    cluster(&format!("import {entry} --from {from}")).await.ends(1).mentions("NOAUTH");

    let told = cluster(&format!("{import} --cluster-copy")).await.ends(0);
    told.says(&format!("*** Importing {} keys from DB 0", keys.len()))
        .mentions("1 keys of database 1 stay where they are")
        .mentions("Migrating a\\x00b to ");
    let owners = nodes.owners().await;
    for key in &keys {
        let owner = nodes.address(owners[Slot::of(key).index()]);
        let mut there =
            Control::connect(&owner, std::time::Duration::from_secs(5)).await.expect("it listens");
        let (ours, theirs) =
            (run(&mut there, &[b"DUMP", key]).await, run(&mut control, &[b"DUMP", key]).await);
        assert_eq!(ours, theirs, "{}", key.escape_ascii());
        if key == b"a\0b" {
            let Value::Integer(left) = run(&mut there, &[b"PTTL", key]).await else {
                panic!("a number")
            };
            assert!((500_000..=600_000).contains(&left), "{left}");
        }
    }

    // Once more: what is the same is no obstacle, what differs is named and stays.
    cluster(&format!("{import} --cluster-copy")).await.ends(0);
    run(&mut control, &[b"SET", b"key:7", b"newer"]).await;
    let told = cluster(&import).await.ends(5);
    told.mentions("[WARNING] key:7 has another value at ");
    assert_eq!(run(&mut control, &[b"DBSIZE"]).await, Value::Integer(1));
    cluster(&format!("{import} --cluster-replace")).await.ends(0);
    assert_eq!(run(&mut control, &[b"DBSIZE"]).await, Value::Integer(0));
    cluster(&format!("check {entry}"))
        .await
        .ends(0)
        .says(&format!("[OK] {} keys in 3 masters.", keys.len()));
}

/// Scenario 17: what is loaded from a backup is what there was, whatever it is and whenever it ends.
#[tokio::test]
async fn a_backup_can_be_loaded() {
    let _turn = beside_others().await;
    let nodes = Cluster::start(3, 1).await;
    let (entry, folder) = (nodes.address(0), tempfile::tempdir().expect("a directory"));
    let owners = nodes.owners().await;
    let strings = (0..300).map(|n| format!("SET key:{n} value{n}"));
    let others = [
        "SET ending value PX 600000",
        "HSET hash f v g w",
        "PEXPIRE hash 700000",
        "RPUSH list 1 2 2",
        "SADD set 1 2 3",
        "ZADD zset 1.5 a 2 b",
        "XADD stream 1-1 f v",
    ];
    for line in strings.chain(others.map(str::to_owned)) {
        let words: Vec<&str> = line.split(' ').collect();
        nodes.call(owners[Slot::of(words[1].as_bytes()).index()], &words).await;
    }
    let mut before = Contents::new();
    for node in 0..3 {
        before.extend(contents(&nodes.address(node)).await);
    }
    assert_eq!(before.len(), 306);
    let missing = folder.path().join("nowhere");
    let told = cluster(&format!("backup {entry} {}", missing.display())).await.ends(3);
    told.mentions("[ERR] The specified backup directory '").mentions("' does not exist.");

    let path = folder.path().to_str().expect("text");
    let told = slotway(&["cluster", "backup", &entry, path]).await.ends(0);
    told.says(&format!(">>> Node {entry} -> Saving RDB..."))
        .says(&format!("[OK] Backup created into: {path}"));
    let saved = std::fs::read_to_string(folder.path().join("nodes.json")).expect("the layout");
    let saved: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(&saved).expect("JSON");
    assert_eq!(saved.len(), 6);
    let files: Vec<_> = std::fs::read_dir(folder.path()).expect("the files").flatten().collect();
    let mut after = Contents::new();
    for node in saved.iter().filter(|node| node["replicate"].is_null()) {
        let (host, port, id) = (&node["host"], &node["port"], &node["name"]);
        let name = format!("-node-{}-{port}-{}.rdb", host.as_str().unwrap(), id.as_str().unwrap());
        // `redis-` or `valkey-` stands in front, whichever it is.
        let mut paths = files.iter().map(std::fs::DirEntry::path);
        let file = paths.find(|path| path.to_string_lossy().ends_with(&name));
        after.extend(loaded(&file.expect(&name)).await);
        assert_eq!(node["slots"].as_array().map(Vec::len), Some(1), "{node:?}");
    }
    assert_eq!(before, after);
}

#[tokio::test]
async fn a_backup_without_a_primary_says_what_is_missing() {
    let _turn = beside_others().await;
    let mut nodes = Cluster::start(3, 0).await;
    let (entry, dead) = (nodes.address(0), nodes.address(1));
    nodes.kill9(1);
    let folder = tempfile::tempdir().expect("a directory");
    let told = cluster(&format!("backup {entry} {}", folder.path().display())).await.ends(5);
    told.mentions(&format!("[WARNING] {dead} does not answer: what it has of slots 5461-10921"))
        .mentions(", without part of the data.");
    assert!(!told.out.contains("[OK] Backup"), "{}", told.out);
}

/// What every key holds, and when it ends.
type Contents = BTreeMap<String, (Value, Value)>;

async fn contents(address: &str) -> Contents {
    let limit = std::time::Duration::from_secs(5);
    let mut control = Control::connect(address, limit).await.expect("it listens");
    let keys = run(&mut control, &[b"KEYS", b"*"]).await;
    let mut contents = Contents::new();
    for key in value::array(&keys).expect("a list").iter().filter_map(value::text) {
        let dump = run(&mut control, &[b"DUMP", key.as_bytes()]).await;
        let end = run(&mut control, &[b"PEXPIRETIME", key.as_bytes()]).await;
        contents.insert(key.to_owned(), (dump, end));
    }
    contents
}

/// What a server has that begins with this file.
async fn loaded(file: &Path) -> Contents {
    let folder = tempfile::tempdir().expect("a directory");
    std::fs::copy(file, folder.path().join("dump.rdb")).expect("it is there");
    let dir = folder.path().to_str().expect("text");
    let server = Special::start("127.0.0.1", &["--dir", dir]).await;
    contents(&server.address()).await
}
