//! What an order may say about how it is done, and what a client may say about how it waits, on real nodes.

use std::time::Duration;

use slotway::cluster::Slot;
use slotway::proxy::Running;
use slotway::resp::value::{self, Value};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::client::{Client, ok};
use crate::cluster::Cluster;
use crate::scenarios::{PASSWORD, http};
use crate::{beside_others, front, until};

/// A proxy that is administered by both ways.
async fn administered(cluster: &Cluster) -> (Running, Client, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = front::options(cluster.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.http = Some("127.0.0.1:0".to_owned());
    options.admin_password = Some(PASSWORD.to_owned());
    options.state_folder = Some(folder.path().to_owned());
    let proxy = front::start(options).await;
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    assert_eq!(admin.call(&format!("AUTH {PASSWORD}")).await, ok());
    (proxy, admin, folder)
}

async fn order(admin: &mut Client, line: &str) -> Value {
    admin.call(&format!("PROXY CLUSTER {line}")).await
}

/// Waits for the end of a job, and gives its status.
async fn done(admin: &mut Client, line: &str) -> Vec<Value> {
    let status = order(admin, &format!("{line} SYNC")).await;
    let fields = value::array(&status).unwrap_or_else(|| panic!("{line}: {status:?}")).to_vec();
    let error = format!("{line}: {:?}", field(&fields, "last_error"));
    assert_eq!(value::text(field(&fields, "state")), Some("completed"), "{error}");
    fields
}

fn field<'f>(fields: &'f [Value], name: &str) -> &'f Value {
    let pair = fields.chunks(2).find(|pair| value::text(&pair[0]) == Some(name));
    &pair.unwrap_or_else(|| panic!("no {name} in {fields:?}"))[1]
}

fn json(answer: &Value) -> serde_json::Value {
    let text = value::text(answer).unwrap_or_else(|| panic!("{answer:?}"));
    serde_json::from_str(text).expect("JSON")
}

fn error(text: &str) -> Value {
    Value::Error(text.to_owned().into())
}

#[tokio::test]
async fn a_primary_joins_with_all_it_needs_and_leaves_for_good() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 0).await;
    let (new, replica) = (cluster.start_node().await, cluster.start_node().await);
    let [address, other] = [new, replica].map(|node| cluster.address(node));
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    for node in 0..3 {
        cluster.call(node, &["FUNCTION", "LOAD", library]).await;
    }
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let add = format!("ADDNODE {address} WITH {other} WEIGHT 0.5");
    let plan = json(&order(&mut admin, &format!("{add} DRYRUN")).await);
    let steps: Vec<&serde_json::Value> =
        plan["steps"].as_array().expect("steps").iter().map(|step| &step["step"]).collect();
    assert_eq!(steps, ["copy-functions", "join", "replicate"]);
    let refused = order(&mut admin, &format!("{add} IFPLAN 0")).await;
    let text = "PRECONDITION the plan is not 0 any more: look at it again with DRYRUN";
    assert_eq!(refused, error(text));
    let hash = plan["plan_hash"].as_str().expect("a name");
    let job = done(&mut admin, &format!("{add} IFPLAN {hash}")).await;
    assert_eq!(value::text(field(&job, "plan_hash")), Some(hash));
    assert!(matches!(field(&job, "started_ms"), Value::Integer(_)));
    assert_eq!(value::array(field(&job, "nodes")).map(<[_]>::len), Some(3));
    // Half of what each of the others has.
    assert_eq!(cluster.slots_of(new).await.len(), 16384 / 7);
    let list = ["FUNCTION", "LIST"];
    assert_eq!(cluster.call(new, &list).await, cluster.call(0, &list).await);
    // It had its replica before it had a slot.
    let id = value::text(field(&job, "id")).expect("a name").to_owned();
    let log = admin.call(&format!("PROXY JOB LOG {id}")).await;
    let log: Vec<&str> =
        value::array(&log).expect("lines").iter().filter_map(value::text).collect();
    let at = |part: &str| log.iter().position(|line| line.contains(part)).expect("it was done");
    assert!(at("\"replicate\"") < at("phase moving"), "{log:?}");
    assert!(value::text(&cluster.call(replica, &["ROLE"]).await).is_none());

    let reshard = format!("RESHARD RANGES 0-9,6000 TO {address}");
    let late = order(&mut admin, &format!("{reshard} WAITREPLICAS 1 SYNC TIMEOUT 0")).await;
    let Value::Error(text) = &late else { panic!("{late:?}") };
    let id = text.strip_prefix("TIMEOUT ").unwrap_or_else(|| panic!("{text}"));
    admin.call(&format!("PROXY JOB WATCH {id}")).await;
    let owned = cluster.slots_of(new).await;
    assert!([0, 9, 6000].iter().all(|slot| owned.contains(slot)), "{owned:?}");

    let refused = order(&mut admin, &format!("DELNODE {other}")).await;
    let text = format!("NEEDFORCE no-replicas {address} would be left without replicas");
    assert_eq!(refused, error(&text));
    let before = cluster.slots_of(1).await.len();
    done(&mut admin, &format!("DELNODE {address} TO {} SHUTDOWN", cluster.address(1))).await;
    assert_eq!(cluster.slots_of(1).await.len(), before + owned.len());
    until(Duration::from_secs(10), "it ends", async || {
        TcpStream::connect(&address).await.map_or(Ok(()), |_| Err("it listens".to_owned()))
    })
    .await;
    assert_eq!(proxy.topology().nodes().len(), 4);
    proxy.shutdown().await;
}

/// Status, tag and body of the answer.
async fn post(
    proxy: &Running,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, String, serde_json::Value) {
    let (status, head, body) = http(proxy, &format!("POST {path}"), headers, body).await;
    let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).unwrap_or_default();
    (status, tag.to_owned(), body)
}

#[tokio::test]
async fn keys_are_shared_and_slots_are_looked_after_one_by_one() {
    let _turn = beside_others().await;
    let cluster = Cluster::start(3, 0).await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    let of_first = |n: &usize| Slot::of(format!("key{n}").as_bytes()).index() < 5461;
    for n in (0..).filter(of_first).take(90) {
        assert_eq!(client.ask(&["SET", &format!("key{n}"), "v"]).await, ok());
    }
    let path = "/v1/cluster/rebalance";
    let body = r#"{"by":"keys","sync":true}"#;
    let (status, tag, plan) = post(&proxy, &format!("{path}?dry_run=1"), "", body).await;
    assert_eq!((status, tag), (200, format!("{}", plan["plan_hash"])));
    let (status, _, told) = post(&proxy, path, "If-Match: \"0\"\r\n", body).await;
    assert_eq!((status, &told["error"]), (412, &"PRECONDITION".into()), "{told}");
    let header = format!("If-Match: {}\r\n", plan["plan_hash"]);
    let (status, _, job) = post(&proxy, path, &header, body).await;
    assert_eq!((status, &job["state"]), (200, &"completed".into()), "{job}");
    for node in 0..3 {
        let Value::Integer(keys) = cluster.call(node, &["DBSIZE"]).await else {
            panic!("no number")
        };
        assert!((28..=32).contains(&keys), "{node} has {keys}");
    }

    // Two slots are left open; one is looked after.
    let (one, two) = ("16000", "16001");
    for slot in [one, two] {
        let open = ["CLUSTER", "SETSLOT", slot, "MIGRATING", cluster.id(0)];
        assert_eq!(cluster.call(2, &open).await, ok());
    }
    let refused = order(&mut admin, "REBALANCE").await;
    assert!(
        matches!(&refused, Value::Error(text) if text.starts_with("OPENSLOTS 2 ")),
        "{refused:?}"
    );
    done(&mut admin, &format!("FIX SLOT {one}")).await;
    let found = json(&order(&mut admin, "CHECK FORMAT json").await);
    assert_eq!(found["ok"], false);
    assert_eq!(found["details"][0]["slots"][0][0], 16001, "{found}");
    done(&mut admin, "FIX").await;

    // A key lies where its slot is not.
    let slot =
        (0..100_000).find(|n| Slot::of(format!("stray{n}").as_bytes()).index() < 100).expect("one");
    let key = format!("stray{slot}");
    let number = Slot::of(key.as_bytes()).to_string();
    let mut node = Client::to(cluster.address(1)).await;
    for line in [
        format!("CLUSTER SETSLOT {number} IMPORTING {}", cluster.id(0)),
        "ASKING".to_owned(),
        format!("SET {key} v"),
        format!("CLUSTER SETSLOT {number} STABLE"),
    ] {
        assert_eq!(node.call(&line).await, ok(), "{line}");
    }
    assert_eq!(json(&order(&mut admin, "CHECK FORMAT json").await)["ok"], true);
    let found = json(&order(&mut admin, "CHECK DEEP FORMAT json").await);
    assert_eq!((&found["ok"], &found["details"][0]["finding"]), (&false.into(), &"strays".into()));
    let epoch = order(&mut admin, "TOPOLOGY EPOCH").await;
    let hash = field(value::array(&epoch).expect("fields"), "view_hash").clone();
    let topology = order(&mut admin, "TOPOLOGY").await;
    let nodes = field(value::array(&topology).expect("fields"), "nodes").clone();
    let told = value::array(&nodes).expect("nodes").iter().filter_map(value::array);
    let told: Vec<&Value> = told.map(|node| field(node, "view_hash")).collect();
    assert_eq!(told, [&hash, &hash, &hash]);
    proxy.shutdown().await;
}
