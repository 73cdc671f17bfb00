//! What an operator does through the admin port of a proxy that clients use meanwhile: the scenarios of the design that are about
//! members, failovers and the port itself (numbers of its list).
//!
//! | | |
//! |---|---|
//! | 47, 54 | `the_same_node_comes_and_goes_again`; names stay unknown for longer than nodes ignore talk of them in `soak` |
//! | 48 | there, and with tokens in `grow` |
//! | 49 | there: the functions stand in the plan before slots do, and are those of the cluster |
//! | 50, 55 | `a_replica_comes_and_takes_the_place_of_the_primary_that_leaves` |
//! | 51 | `nobody_joins_a_cluster_that_is_not_whole`; within a minute of its removal in `tests/cluster/members` |
//! | 52 | `a_node_that_dies_while_it_is_filled`; with a replica in `tests/cluster/service` |
//! | 53 | `grow`: `STRATEGY forget`; with the words of redis-cli in `tests/cluster/members` |
//! | 56–58 | `members_leave_in_whatever_state_they_are` |
//! | 59 | `members_leave_in_whatever_state_they_are` |
//! | 60 | `a_drain_is_stopped_and_gone_on_with` |
//! | 61 | `grow`: `a_job_of_a_proxy_that_was_killed_goes_on_with_the_next` |
//! | 62 | `a_replica_takes_over`; no majority: `tests/cluster/claims`; `TAKEOVER` needs a flag: `members_leave_in_whatever_state_they_are` |
//! | 68 | `tests/it/shell` |
//! | 69 | `http_and_resp_tell_of_the_same_job`; what is wrong in `tests/it/web` |
//! | 70 | `thousands_of_pipelines_meet_slots_on_their_way` |
//! | 71 | `soak` |

use rustix::process::{Resource, getrlimit, setrlimit};
use serde_json::{Value as Json, json};
use slotway::resp::value::{self, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, Node};
use crate::grow::{JOB, administered, becomes, begin, field};
use crate::load::{Load, Plan};
use crate::{alone, beside_others, front, under_load, until};

/// What administrators say.
pub(crate) const PASSWORD: &str = "word";
/// Batches that every client of a load does before something happens, and after it.
const BATCHES: u64 = 5;

/// Orders something and waits until it is done.
async fn order(admin: &mut Client, line: &str) -> String {
    let id = begin(admin, line).await;
    becomes(admin, &id, "completed").await;
    id
}

async fn log(admin: &mut Client, id: &str) -> String {
    let lines = admin.call(&format!("PROXY JOB LOG {id}")).await;
    let lines = value::array(&lines).expect("lines").iter();
    lines.filter_map(value::text).collect::<Vec<_>>().join("\n")
}

/// What is refused, and how the text begins.
async fn refused(admin: &mut Client, line: &str, start: &str) {
    let answer = admin.call(&format!("PROXY CLUSTER {line}")).await;
    let Value::Error(text) = &answer else { panic!("{line}: {answer:?}") };
    assert!(text.starts_with(start), "{line}: {text}");
}

/// All these know so many nodes.
async fn all_know(cluster: &Cluster, nodes: &[Node], count: usize) {
    for node in nodes {
        let known = cluster.call(*node, &["CLUSTER", "NODES"]).await;
        assert_eq!(value::text(&known).expect("lines").lines().count(), count, "{node}: {known:?}");
    }
}

#[tokio::test]
async fn the_same_node_comes_and_goes_again() {
    let mut cluster = Cluster::start(3, 0).await;
    let new = cluster.start_node().await;
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    for node in 0..3 {
        cluster.call(node, &["FUNCTION", "LOAD", library]).await;
    }
    let _turn = under_load().await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut load = Load::start(Plan { clients: 4, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    for _ in 0..2 {
        cluster.rename(new).await;
        let (address, id) = (cluster.address(new), cluster.id(new).to_owned());
        // How much it gets is not the point; in `grow` it is as much as the others have.
        let add = format!("ADDNODE {address} WEIGHT 0.25");
        let job = order(&mut admin, &add).await;
        cluster.admit(new);
        let told = log(&mut admin, &job).await;
        let at = |text: &str| told.find(text).unwrap_or_else(|| panic!("no {text} in {told}"));
        assert!(
            at("copy-functions") < at("\"join\"") && at("\"join\"") < at("phase moving"),
            "{told}"
        );
        assert!(at("phase applying") < at("phase verifying"), "{told}");
        let dump = cluster.call(0, &["FUNCTION", "DUMP"]).await;
        assert_eq!(cluster.call(new, &["FUNCTION", "DUMP"]).await, dump);
        cluster.agreed().await;
        assert_eq!(cluster.slots_of(new).await.len(), 16384 / 13);
        // What was under way when the last slot went is answered; from here on no node has to say where slots are.
        load.advance(BATCHES).await;
        let said = cluster.errors_said().await;
        load.advance(BATCHES).await;
        assert_eq!(cluster.errors_said().await.get("MOVED"), said.get("MOVED"));
        let again = order(&mut admin, &add).await;
        assert_eq!(field(&mut admin, &again, "slots_total").await, "Integer(0)");

        order(&mut admin, &format!("DELNODE {id}")).await;
        cluster.dismiss(new);
        cluster.agreed().await;
        for node in 0..3 {
            assert!([5461, 5462].contains(&cluster.slots_of(node).await.len()), "node {node}");
        }
        cluster.has_forgotten(&id).await;
        all_know(&cluster, &[new], 1).await;
        refused(&mut admin, &format!("DELNODE {id}"), "NOTFOUND ").await;
        load.advance(BATCHES).await;
    }
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_drain_is_stopped_and_gone_on_with() {
    let mut cluster = Cluster::start(4, 0).await;
    let _turn = under_load().await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut load = Load::start(Plan { clients: 4, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    let mut id = begin(&mut admin, &format!("DELNODE {} RATE 100", cluster.id(3))).await;
    for (stop, is_soft) in [("", true), (" NOW", false)] {
        let before = field(&mut admin, &id, "slots_done").await;
        until(JOB, "slots go", async || match field(&mut admin, &id, "slots_done").await {
            now if now == before => Err(now),
            _ => Ok(()),
        })
        .await;
        assert_eq!(admin.call(&format!("PROXY JOB CANCEL {id}{stop}")).await, ok());
        becomes(&mut admin, &id, "cancelled").await;
        assert_eq!(field(&mut admin, &id, "resumable").await, "yes");
        if is_soft {
            cluster.agreed().await;
        }
        let left = cluster.slots_of(3).await.len();
        assert!(left > 0 && left < 4096, "{left} slots are left");
        let next = admin.call(&format!("PROXY JOB RESUME {id}")).await;
        value::text(&next).unwrap_or_else(|| panic!("{next:?}")).clone_into(&mut id);
    }
    assert_eq!(admin.call(&format!("PROXY JOB SETRATE {id} 0")).await, ok());
    becomes(&mut admin, &id, "completed").await;
    let gone = cluster.id(3).to_owned();
    cluster.dismiss(3);
    cluster.agreed().await;
    cluster.has_forgotten(&gone).await;
    load.advance(BATCHES).await;
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_replica_takes_over() {
    let mut cluster = Cluster::start(3, 1).await;
    let _turn = under_load().await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut load = Load::start(Plan { clients: 4, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    order(&mut admin, &format!("FAILOVER {}", cluster.id(0))).await;
    assert_eq!(cluster.slots_of(3).await.len(), 5461);
    assert_eq!(cluster.followers(3).await, [0]);
    load.advance(BATCHES).await;
    load.stop().await.expect_flawless();

    // One that does not get what its primary has must not take over.
    cluster.call(1, &["ACL", "SETUSER", "default", "-psync", "-sync"]).await;
    cluster.call(1, &["CLIENT", "KILL", "TYPE", "replica"]).await;
    cluster.unlinked(4).await;
    refused(&mut admin, &format!("FAILOVER {}", cluster.id(1)), "PRECONDITION ").await;
    assert_eq!(cluster.slots_of(4).await, [0_usize; 0]);
    cluster.call(1, &["ACL", "SETUSER", "default", "+psync", "+sync"]).await;
    cluster.agreed().await;

    // A primary that is frozen, before the others notice that: nobody replaces it but by order, which it cannot consent to.
    for node in 0..6 {
        cluster.call(node, &["CONFIG", "SET", "cluster-node-timeout", "60000"]).await;
    }
    let mut options = front::patient(cluster.addresses());
    options.backend.request_budget = JOB;
    let patient = front::start(options).await;
    let mut load = Load::start(Plan { clients: 4, limit: JOB, ..Plan::light(patient.data) });
    load.advance(BATCHES).await;
    cluster.freeze(2);
    order(&mut admin, &format!("FAILOVER {} FORCE", cluster.id(2))).await;
    assert_eq!(cluster.slots_of(5).await.len(), 5462);
    cluster.thaw(2);
    cluster.agreed().await;
    load.advance(BATCHES).await;
    load.stop().await.expect_survived(JOB);
    patient.shutdown().await;
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_node_that_dies_while_it_is_filled() {
    let mut cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let new = cluster.start_node().await;
    cluster.make_durable(new).await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    let keys: Vec<String> = (0..2000).map(|n| format!("key{n}")).collect();
    let sets: Vec<_> = keys.iter().map(|key| wire(&["SET", key, key])).collect();
    assert!(client.pipeline(&sets).await.iter().all(|reply| *reply == ok()));
    let id = begin(&mut admin, &format!("ADDNODE {} RATE 100", cluster.address(new))).await;
    until(JOB, "slots arrive", async || match field(&mut admin, &id, "slots_done").await {
        none if none == "Integer(0)" => Err(none),
        _ => Ok(()),
    })
    .await;
    cluster.kill9(new);
    until(JOB, "the job stops", async || match field(&mut admin, &id, "state").await {
        state if state == "failed" => Ok(()),
        state => Err(state),
    })
    .await;
    assert_eq!(field(&mut admin, &id, "resumable").await, "yes");
    assert_ne!(field(&mut admin, &id, "last_error").await, "Null");
    refused(&mut admin, "REBALANCE", "PRECONDITION ").await;
    cluster.restart(new).await;
    let next = admin.call(&format!("PROXY JOB RESUME {id}")).await;
    let next = value::text(&next).unwrap_or_else(|| panic!("{next:?}")).to_owned();
    assert_eq!(admin.call(&format!("PROXY JOB SETRATE {next} 0")).await, ok());
    becomes(&mut admin, &next, "completed").await;
    cluster.agreed().await;
    assert_eq!(cluster.slots_of(new).await.len(), 4096);
    order(&mut admin, &format!("DELNODE {}", cluster.id(new))).await;
    cluster.dismiss(new);
    cluster.agreed().await;
    let gets: Vec<_> = keys.iter().map(|key| wire(&["GET", key])).collect();
    let values: Vec<_> = keys.iter().map(bulk).collect();
    assert_eq!(client.pipeline(&gets).await, values);
    proxy.shutdown().await;
}

#[tokio::test]
async fn a_replica_comes_and_takes_the_place_of_the_primary_that_leaves() {
    let mut cluster = Cluster::start(3, 1).await;
    let new = cluster.start_node().await;
    let _turn = under_load().await;
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut load = Load::start(Plan { clients: 4, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    let address = cluster.address(new);
    refused(&mut admin, &format!("ADDNODE {address} REPLICAOF nobody"), "NOTFOUND ").await;
    // Node 3 is a replica: its primary is meant.
    order(&mut admin, &format!("ADDNODE {address} REPLICAOF {}", cluster.id(3))).await;
    cluster.admit(new);
    let info = cluster.call(new, &["INFO", "replication"]).await;
    let info = value::text(&info).expect("lines");
    assert!(info.contains("master_link_status:up"), "{info}");
    assert!(info.contains(&format!("master_port:{}\r", address_port(&cluster, 0))), "{info}");

    let (before, id) = (cluster.owners().await, cluster.id(0).to_owned());
    // With one of two replicas in its place there is one left.
    order(&mut admin, &format!("DELNODE {id} STRATEGY auto")).await;
    cluster.dismiss(0);
    cluster.agreed().await;
    let heir = cluster.owners().await[0];
    assert!([3, new].contains(&heir), "node {heir}");
    let expected: Vec<Node> =
        before.into_iter().map(|owner| if owner == 0 { heir } else { owner }).collect();
    assert!(cluster.owners().await == expected, "other slots have moved");
    cluster.has_forgotten(&id).await;
    assert_eq!(cluster.followers(heir).await.len(), 1);
    load.advance(BATCHES).await;
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
}

fn address_port(cluster: &Cluster, node: Node) -> String {
    cluster.address(node).rsplit(':').next().expect("a port").to_owned()
}

#[tokio::test]
async fn members_leave_in_whatever_state_they_are() {
    let mut cluster = Cluster::start(3, 1).await;
    let _turn = beside_others().await;
    let (empty, follower) = (cluster.start_node().await, cluster.start_node().await);
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    refused(&mut admin, &format!("DELNODE {}", cluster.id(2)), "NEEDFORCE few-primaries").await;
    assert_eq!(cluster.slots_of(2).await.len(), 5462);

    // Its replica would take its place, and have none itself.
    let auto = format!("DELNODE {} STRATEGY auto", cluster.id(2));
    refused(&mut admin, &auto, "NEEDFORCE no-replicas").await;
    let elsewhere = format!("{auto} TO {}", cluster.id(0));
    refused(&mut admin, &elsewhere, "NEEDFORCE few-primaries").await;
    let takeover = format!("FAILOVER {} TAKEOVER", cluster.id(2));
    refused(&mut admin, &takeover, "NEEDFORCE no-majority").await;
    let plan = admin.call(&format!("PROXY CLUSTER {takeover} FORCE no-majority DRYRUN")).await;
    assert!(value::text(&plan).is_some_and(|plan| plan.contains("\"failover\"")), "{plan:?}");

    // A primary without slots, which somebody follows: that one gets another primary, and never the one that leaves.
    order(&mut admin, &format!("ADDNODE {} REBALANCE no", cluster.address(empty))).await;
    let follow = format!("REPLICAOF {}", cluster.id(empty));
    order(&mut admin, &format!("ADDNODE {} {follow}", cluster.address(follower))).await;
    cluster.admit(follower);
    order(&mut admin, &format!("DELNODE {}", cluster.address(empty))).await;
    all_know(&cluster, &[0, 1, 2, 3, 4, 5, follower], 7).await;
    all_know(&cluster, &[empty], 1).await;
    cluster.agreed().await;

    // A replica that is dead, while another node does not hear of it.
    cluster.kill9(follower);
    cluster.freeze(4);
    until(JOB, "it is known that they are gone", async || {
        let nodes = cluster.call(0, &["CLUSTER", "NODES"]).await;
        let failed = value::text(&nodes).expect("lines").matches(",fail ").count();
        if failed == 0 { Err(format!("{nodes:?}")) } else { Ok(()) }
    })
    .await;
    let id = cluster.id(follower).to_owned();
    let job = order(&mut admin, &format!("DELNODE {id}")).await;
    all_know(&cluster, &[0, 1, 2, 3, 5], 6).await;
    let told = log(&mut admin, &job).await;
    assert!(told.contains(&cluster.address(4)), "who was left out is named: {told}");
    cluster.thaw(4);
    cluster.agreed().await;

    // A dead primary has slots of which nobody knows what was in them.
    cluster.kill9(5);
    cluster.kill9(2);
    cluster.down(0).await;
    let leave = format!("DELNODE {} STRATEGY forget", cluster.id(2));
    let answer = admin.call(&format!("PROXY CLUSTER {leave}")).await;
    let Value::Error(text) = &answer else { panic!("{answer:?}") };
    assert!(text.starts_with("UNREACHABLE ") && text.ends_with("or see FIX PLAN"), "{text}");
    proxy.shutdown().await;
}

#[tokio::test]
async fn nobody_joins_a_cluster_that_is_not_whole() {
    let mut cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let new = cluster.start_node().await;
    let address = cluster.address(new);
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    cluster.call(0, &["CLUSTER", "SETSLOT", "0", "MIGRATING", cluster.id(1)]).await;
    refused(&mut admin, &format!("ADDNODE {address}"), "OPENSLOTS 1 ").await;
    cluster.call(0, &["CLUSTER", "SETSLOT", "0", "STABLE"]).await;
    cluster.kill9(2);
    cluster.down(0).await;
    let missed = format!("UNREACHABLE {} ", cluster.id(2));
    refused(&mut admin, &format!("ADDNODE {address}"), &missed).await;
    all_know(&cluster, &[new], 1).await;
    all_know(&cluster, &[0, 1], 3).await;
    proxy.shutdown().await;
}

/// One request over HTTP by an administrator; status, headers in lower case and what is said.
pub(crate) async fn http(
    proxy: &slotway::proxy::Running,
    request: &str,
    headers: &str,
    body: &str,
) -> (u16, String, Json) {
    let mut stream = TcpStream::connect(proxy.http.expect("it is served")).await.expect("it is");
    let request = format!(
        "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {PASSWORD}\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head.to_ascii_lowercase(), serde_json::from_str(body).expect("JSON"))
}

/// The next event of a job after this one: its number and its name.
async fn next_event(
    proxy: &slotway::proxy::Running,
    job: &str,
    last: &str,
) -> (String, String, Json) {
    let mut stream = TcpStream::connect(proxy.http.expect("it is served")).await.expect("it is");
    let last = if last.is_empty() { String::new() } else { format!("Last-Event-ID: {last}\r\n") };
    let request = format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\n{last}\r\n");
    stream.write_all(request.as_bytes()).await.expect("it is read");
    let mut lines = BufReader::new(stream).lines();
    let (mut id, mut name) = (String::new(), String::new());
    loop {
        let line = lines.next_line().await.expect("it is there").expect("an event");
        if let Some(text) = line.strip_prefix("id: ") {
            text.clone_into(&mut id);
        } else if let Some(text) = line.strip_prefix("event: ") {
            text.clone_into(&mut name);
        } else if let Some(text) = line.strip_prefix("data: ") {
            let data = serde_json::from_str(text).expect("JSON");
            // The parts of an event come in any order, in one piece.
            while let Some(line) = lines.next_line().await.expect("it is there") {
                if let Some(text) = line.strip_prefix("id: ") {
                    text.clone_into(&mut id);
                }
                if line.is_empty() {
                    break;
                }
            }
            return (id, name, data);
        }
    }
}

#[tokio::test]
async fn http_and_resp_tell_of_the_same_job() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = front::options(cluster.addresses());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.http = Some("127.0.0.1:0".to_owned());
    options.admin_password = Some(PASSWORD.to_owned());
    options.state_folder = Some(folder.path().to_owned());
    let proxy = front::start(options).await;
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    assert_eq!(admin.call("AUTH word").await, ok());
    let mut client = Client::to(proxy.data).await;
    for n in 0..1000 {
        assert_eq!(client.ask(&["SET", &format!("key{n}"), "v"]).await, ok());
    }
    let body = json!({ "slots": 1000, "from": [cluster.id(0)], "to": cluster.id(1), "rate": 20 });
    let (body, post) = (body.to_string(), "POST /v1/cluster/reshard");
    let (status, _, plan) = http(&proxy, &format!("{post}?dry_run=1"), "", &body).await;
    assert_eq!((status, plan["moves"][0]["to"].as_str()), (200, Some(cluster.id(1))));
    let key = "Idempotency-Key: once\r\n";
    // Who does not hear at once may ask again before the first one is planned.
    let (first, second) =
        tokio::join!(http(&proxy, post, key, &body), http(&proxy, post, key, &body));
    let (status, head, job) = first;
    let id = job["id"].as_str().expect("a name").to_owned();
    assert_eq!((status, second.0, &second.2["id"]), (202, 202, &job["id"]));
    assert!(head.contains(&format!("location: /v1/jobs/{id}")), "{head}");
    let (status, _, again) = http(&proxy, post, key, &body).await;
    assert_eq!((status, again["id"].as_str()), (202, Some(id.as_str())));
    let (status, _, other) = http(&proxy, "POST /v1/cluster/rebalance", key, "").await;
    assert_eq!((status, &other["error"]), (409, &json!("CONFLICT")));
    let (status, _, busy) = http(&proxy, "POST /v1/cluster/rebalance", "", "").await;
    let expected = json!({ "error": "JOBRUNNING", "message": id, "details": { "job": id } });
    assert_eq!((status, busy), (409, expected));

    // Who was cut off hears what has changed since, and not what it knows.
    becomes(&mut admin, &id, "running").await;
    assert_eq!(admin.call(&format!("PROXY JOB PAUSE {id}")).await, ok());
    let (first, name, _) = next_event(&proxy, &id, "").await;
    assert_eq!(name, "status");
    let (waiting, ()) = tokio::join!(next_event(&proxy, &id, &first), async {
        assert_eq!(admin.call(&format!("PROXY JOB SETRATE {id} 0")).await, ok());
        assert_eq!(admin.call(&format!("PROXY JOB RESUME {id}")).await, ok());
    });
    assert_ne!(waiting.0, first);
    becomes(&mut admin, &id, "completed").await;
    let (last, name, told) = next_event(&proxy, &id, &waiting.0).await;
    assert_eq!((name.as_str(), &told["state"]), ("end", &json!("completed")));
    // The end is told to whoever asks, or they would ask for ever.
    assert_eq!(next_event(&proxy, &id, &last).await.1, "end");
    let (_, _, job) = http(&proxy, &format!("GET /v1/jobs/{id}"), "", "").await;
    for name in ["state", "phase"] {
        assert_eq!(job[name].as_str(), Some(field(&mut admin, &id, name).await.as_str()), "{name}");
    }
    proxy.shutdown().await;
}

/// Clients at once, each with a pipeline under way; fewer if there cannot be so many files.
const CROWD: u64 = 10_000;

#[tokio::test]
async fn thousands_of_pipelines_meet_slots_on_their_way() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = alone().await;
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("up to the hard limit");
    // Each is a socket here and one in the proxy, which is in this process too.
    let crowd = limit.current.map_or(CROWD, |files| CROWD.min(files / 2 - 200));
    let (proxy, mut admin, _folder) = administered(&cluster).await;
    let mut clients = Vec::new();
    for n in 0..crowd {
        clients.push((n, Client::to(proxy.data).await));
    }
    let line = format!("RESHARD SLOTS 2000 FROM {} TO {}", cluster.id(0), cluster.id(1));
    let (mut job, mut round) = (None, 0_i64);
    // One round before slots move, one after, and as many as there is time for meanwhile.
    loop {
        round += 1;
        if round == 2 {
            job = Some(begin(&mut admin, &line).await);
        }
        let is_over = match &job {
            Some(id) => field(&mut admin, id, "state").await == "completed",
            None => false,
        };
        let mut speaking = JoinSet::new();
        for (n, mut client) in clients {
            speaking.spawn(async move {
                let (key, text) = (format!("of{n}"), round.to_string());
                let wires = [
                    wire(&["INCR", &key]),
                    wire(&["SET", &format!("last{n}"), &text]),
                    wire(&["GET", &format!("last{n}")]),
                    wire(&["GET", &key]),
                ];
                client.send(&wires.concat()).await.expect("it is taken");
                let expected = [Value::Integer(round), ok(), bulk(&text), bulk(&text)];
                for expected in expected {
                    assert_eq!(client.reply().await.expect("no connection is lost"), expected);
                }
                (n, client)
            });
        }
        clients = speaking.join_all().await;
        if is_over {
            break;
        }
    }
    assert!(round > 2, "no slot moved meanwhile");
    cluster.agreed().await;
    assert_eq!(cluster.slots_of(1).await.len(), 5461 + 2000);
    drop(clients);
    proxy.shutdown().await;
}
