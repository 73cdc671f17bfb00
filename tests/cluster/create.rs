//! `create` and `check`.

use std::collections::BTreeMap;
use std::sync::Once;
use std::time::Duration;

use memchr::memmem;
use rustix::process::Signal;
use serde_json::Value as Json;
use slotway::proxy;
use tokio::sync::watch;

use crate::cluster::run;
use crate::relay::{Fate, Relay};
use crate::server::{Server, program};
use crate::tool::{Special, Told, ask, begin, call, cluster, ended, known, signal, slotway, text};
use crate::{beside_others, front, until, within};

/// Empty nodes.
async fn empty(count: usize) -> (Vec<Server>, Vec<String>) {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(Server::start().await);
    }
    let addresses = servers.iter().map(Server::address).collect();
    (servers, addresses)
}

/// Nobody knows anybody.
async fn all_untouched(addresses: &[String]) {
    for address in addresses {
        let nodes = text(address, "CLUSTER NODES").await;
        assert_eq!(nodes.lines().count(), 1, "{nodes}");
        assert!(nodes.trim_end().ends_with("connected"), "{address} has slots: {nodes}");
    }
}

/// The same lines as redis-cli's, as they come out of a pipe.
async fn check_reads_as_redis_cli_writes_it(entry: &str) -> Told {
    let told = cluster(&format!("check {entry}")).await;
    let theirs = run(&program("cli"), &["--cluster", "check", entry]).await;
    let theirs = String::from_utf8_lossy(&theirs.stdout).into_owned();
    assert_eq!(told.out, without_colors(&theirs));
    assert_eq!(told.err, "");
    told
}

fn without_colors(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + part.split_once('m').map_or("", |(_, rest)| rest))
}

/// Zones stand for hosts, of which there is one here. Where they do not suffice a proxy wants to be told that it is all right.
async fn zones_keep_replicas_from_their_primaries(addresses: &[String]) {
    let all = addresses.join(" ");
    let zone = |at: usize, first: usize| if at < first { "east" } else { "west" };
    let create = |first: usize| {
        let zones = addresses.iter().enumerate();
        let zones: Vec<_> =
            zones.map(|(at, address)| format!("{address}={}", zone(at, first))).collect();
        format!("create --dry-run --replicas 1 --zones {} {all}", zones.join(" "))
    };
    let mut places = BTreeMap::new();
    for (at, address) in addresses.iter().enumerate() {
        places.insert(text(address, "CLUSTER MYID").await, zone(at, 3));
    }
    let told = cluster(&format!("{} --json", create(3))).await.ends(0);
    let told: Json = serde_json::from_str(told.out.trim()).expect("JSON");
    let steps = told["plan"].as_array().expect("steps").iter();
    let pairs: Vec<_> = steps.filter(|step| step["step"] == "replicate").collect();
    let place = |name: &Json| places[name.as_str().expect("a name")];
    assert_eq!(pairs.len(), 3);
    assert!(pairs.iter().all(|pair| place(&pair["node"]) != place(&pair["primary"])), "{pairs:?}");
    cluster(&create(4))
        .await
        .ends(0)
        .says("[WARNING] Some slaves are in the same zone as their master");
    cluster(&format!("create --zones h:1=a {all}"))
        .await
        .ends(2)
        .mentions("is not one of the nodes");

    let folder = tempfile::tempdir().expect("a folder");
    let mut options = front::options(addresses.to_vec());
    options.admin = Some("127.0.0.1:0".to_owned());
    options.state_folder = Some(folder.path().to_owned());
    let proxy = proxy::start(options).await.expect("the proxy starts");
    let via = format!("--via {}", proxy.admin.expect("an admin port"));
    cluster(&format!("{} {via}", create(3))).await.ends(0).mentions("\"step\":\"replicate\"");
    let refused = cluster(&format!("{} {via}", create(4))).await.ends(3);
    refused.mentions("NEEDFORCE same-zone a replica would be in the zone of its primary");
    proxy.shutdown().await;
}

#[tokio::test]
async fn six_empty_nodes_become_a_cluster_and_check_says_what_redis_cli_says() {
    let _turn = beside_others().await;
    let (_servers, addresses) = empty(6).await;
    let all = addresses.join(" ");

    // Too few, twice the same, `no`, and nobody there to answer: nothing happens.
    let five = addresses[..5].join(" ");
    let told = cluster(&format!("create --replicas 1 {five}")).await.ends(3);
    told.says("*** ERROR: Invalid configuration for cluster creation.")
        .says("*** Redis Cluster requires at least 3 master nodes.")
        .says("*** This is not possible with 5 nodes and 1 replicas per node.")
        .says("*** At least 6 nodes are required.");
    let twice = format!("{} {}", addresses[..3].join(" "), addresses[0]);
    cluster(&format!("create {twice}"))
        .await
        .ends(2)
        .says(&format!("[ERR] {} is given twice", addresses[0]));
    let port = addresses[0].split_once(':').expect("a port").1;
    let hidden = format!("create {} localhost:{port}", addresses[..3].join(" "));
    let twin = format!(
        "[ERR] Node localhost:{port} is given twice: it is the same node as {}",
        addresses[0]
    );
    cluster(&hidden).await.ends(3).says(&twin);
    let words: Vec<&str> = ["cluster", "create", "--cluster-replicas", "1"]
        .into_iter()
        .chain(all.split(' '))
        .collect();
    let refused = call(&words, "no\n", &[]).await.ends(1);
    slotway(&words).await.ends(2).mentions("nobody is there to answer");
    let planned = cluster(&format!("create --dry-run --json --replicas 1 {all}")).await.ends(0);
    assert!(planned.out.contains("\"step\": \"add-slots\""), "{}", planned.out);
    zones_keep_replicas_from_their_primaries(&addresses).await;
    all_untouched(&addresses).await;

    // The line of the charts, `yes yes |`, and the same plan as before.
    let created = call(&words, "yes\nyes\nyes\n", &[]).await.ends(0);
    let plan = |told: &Told| told.out.split_once("Can I set").expect("a question").0.to_owned();
    assert_eq!(plan(&created), plan(&refused));
    created
        .says("Master[0] -> Slots 0 - 5460")
        .says("[WARNING] Some slaves are in the same host as their master")
        .mentions("accept): >>> Nodes configuration updated")
        .says("[OK] All 16384 slots covered.");
    let mut epochs: Vec<String> = Vec::new();
    for address in &addresses {
        assert_eq!(known(address).await, 6);
        let info = text(address, "CLUSTER INFO").await;
        let epoch = info.lines().find(|line| line.starts_with("cluster_my_epoch:"));
        epochs.push(epoch.expect("an epoch").to_owned());
    }
    epochs.sort_unstable();
    epochs.dedup();
    assert_eq!(epochs.len(), 3, "the epochs of the primaries, which their replicas show too");

    // What an operator looks for: three times `[OK]`, never `[ERR]`, and no colours in a pipe.
    let told = check_reads_as_redis_cli_writes_it(&addresses[0]).await.ends(0);
    assert_eq!((told.count("[OK]"), told.count("[ERR]")), (3, 0), "{}", told.out);
    assert!(!told.out.contains('\x1b'), "{}", told.out);
    check_reads_as_redis_cli_writes_it(&addresses[4]).await.ends(0);

    leftovers_start_over_when_told_to(&addresses).await;
}

/// Nodes of a cluster that is whole and without keys.
async fn leftovers_start_over_when_told_to(addresses: &[String]) {
    let all = addresses.join(" ");
    // What was not finished, or not used, starts over when it is told to, and else is refused.
    let told = cluster(&format!("create --replicas 1 --yes {all}")).await.ends(3);
    told.mentions(&format!(
        "[ERR] Node {} is not empty. Either the node already knows",
        addresses[3]
    ))
    .mentions("pass --resume to have them start over");
    cluster(&format!("create --replicas 1 --yes --resume {all}")).await.ends(0);
    check_reads_as_redis_cli_writes_it(&addresses[0]).await.ends(0);
    let owner =
        cluster(&format!("call {} --cluster-only-masters SET foo 1", addresses[0])).await.ends(5);
    assert_eq!(owner.out.matches(": OK").count(), 1, "{}", owner.out);
    cluster(&format!("create --replicas 1 --yes --resume {all}"))
        .await
        .ends(3)
        .mentions("have keys or functions");
    check_reads_as_redis_cli_writes_it(&addresses[0])
        .await
        .ends(0)
        .says("[OK] 1 keys in 3 masters.");
}

/// Where the program is to be stopped: a node does what it is told, and the program hears no more of it.
#[derive(Default)]
struct Stop {
    /// In the request.
    word: &'static str,
    /// How many of those come before it.
    others: usize,
    is_reached: bool,
}

impl Stop {
    fn judge(&mut self, sent: &[u8]) -> Fate {
        let word = self.word.as_bytes();
        let is_it = !word.is_empty() && sent.windows(word.len()).any(|some| some == word);
        if is_it && self.others > 0 {
            self.others -= 1;
        } else if is_it {
            self.is_reached = true;
            return Fate::Unheard;
        }
        Fate::Arrives
    }
}

/// Scenario 8. The program is killed at each of its stages in turn. Another run says what is to be done, and with that gets as
/// far as the next stage, with the nodes as they were left; the last one ends.
#[tokio::test]
async fn create_is_killed_at_each_of_its_stages_and_begun_again() {
    let _turn = beside_others().await;
    let (_servers, addresses) = empty(6).await;
    let (stop, mut told_of) = watch::channel(Stop::default());
    let mut relays = Vec::new();
    for server in &addresses {
        let stop = stop.clone();
        let judge = move |sent: &[u8]| {
            let mut fate = Fate::Arrives;
            stop.send_modify(|stop| fate = stop.judge(sent));
            fate
        };
        relays.push(Relay::start(server.clone(), judge).await);
    }
    let all = relays.iter().map(Relay::address).collect::<Vec<_>>().join(" ");
    let (create, mut how) = (format!("create --replicas 1 --yes {all}"), "");
    for (word, others) in [
        ("ADDSLOTSRANGE", 1),
        ("SET-CONFIG-EPOCH", 1),
        ("RESET", 1),
        ("MEET", 0),
        ("MEET", 7),
        ("REPLICATE", 0),
        ("REPLICATE", 1),
    ] {
        stop.send_replace(Stop { word, others, is_reached: false });
        let mut process = begin(&format!("{create}{how}"));
        let reached = told_of.wait_for(|stop| stop.is_reached);
        within(Duration::from_secs(30), word, reached).await.expect("it goes on");
        signal(&process, Signal::KILL);
        assert_eq!(ended(&mut process).await, None);
        stop.send_replace(Stop::default());
        let told = cluster(&create).await.ends(3);
        told.mentions("is not empty. Either the node already knows").mentions("pass --resume");
        how = " --resume";
    }
    let told = cluster(&format!("{create} --resume")).await.ends(0);
    told.says("[OK] All 16384 slots covered.");
    for address in &addresses {
        assert_eq!(known(address).await, 6, "{address}");
    }
}

#[tokio::test]
async fn create_names_each_node_that_is_not_fit_with_its_reason() {
    let _turn = beside_others().await;
    let (_servers, addresses) = empty(5).await;
    let alone = Special::start("127.0.0.1", &[]).await;
    let locked =
        Special::start("127.0.0.1", &["--cluster-enabled", "yes", "--requirepass", "secret"]).await;
    let gone = format!("127.0.0.1:{}", crate::server::free_ports().next().expect("a port"));
    let [key, one, other, functions, fit] = &addresses[..] else { unreachable!() };
    ask(key, "CLUSTER ADDSLOTSRANGE 0 16383").await.expect("slots");
    until(Duration::from_secs(10), "it takes keys", async || ask(key, "SET k v").await).await;
    let (_, port) = other.split_once(':').expect("a port");
    ask(one, &format!("CLUSTER MEET 127.0.0.1 {port}")).await.expect("they meet");
    until(Duration::from_secs(10), "they know each other", async || {
        if known(one).await == 2 { Ok(()) } else { Err("not yet".to_owned()) }
    })
    .await;
    let library = "#!lua name=lib\nredis.register_function('f', function() return 1 end)";
    let args: Vec<&[u8]> = vec![b"FUNCTION", b"LOAD", library.as_bytes()];
    let mut control = slotway::backend::Control::connect(functions, Duration::from_secs(2))
        .await
        .expect("it listens");
    control.call(&args).await.expect("it is loaded");

    let (alone, locked) = (alone.address(), locked.address());
    let all = [key, one, functions, fit, &alone, &locked, &gone].map(String::as_str).join(" ");
    let told = cluster(&format!("create --cluster-yes {all}")).await.ends(3);
    told.mentions(&format!("[ERR] Node {key} is not empty."))
        .mentions(&format!("{key}: it has 1 keys in database 0, it owns slots 0-16383"))
        .mentions(&format!("{one}: it knows 1 other nodes"))
        .mentions(&format!("{functions} is not empty: it has 1 libraries of functions"))
        .says(&format!("[ERR] Node {alone} is not configured as a cluster node."))
        .mentions(&format!("Node {locked} replied with error:\nNOAUTH"))
        .mentions(&format!("Could not connect to Redis at {gone}: Connection refused"));
    assert!(!told.out.contains(fit.as_str()), "{}", told.out);
    all_untouched(std::slice::from_ref(fit)).await;
}

/// Has a node introduce itself to another, and blocks until that knows it.
fn meets(node: String, other: String) {
    let met = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let port = other.rsplit(':').next().expect("a port");
            ask(&node, &format!("CLUSTER MEET 127.0.0.1 {port}")).await.expect("it tries");
            let met =
                async || if known(&other).await > 1 { Ok(()) } else { Err("alone".to_owned()) };
            until(Duration::from_secs(10), "they meet", met).await;
        });
    });
    met.join().expect("they have met");
}

#[tokio::test]
async fn create_ends_when_a_bus_port_cannot_be_reached_and_leaves_the_nodes_empty() {
    let _turn = beside_others().await;
    let (_servers, addresses) = empty(3).await;
    let all = addresses.join(" ");
    let closed = crate::server::free_ports().next().expect("a port");
    ask(&addresses[2], &format!("CONFIG SET cluster-announce-bus-port {closed}"))
        .await
        .expect("it is set");
    // When it is to be reset, it has just introduced itself to one that was reset before.
    let (last, first) = (addresses[2].clone(), addresses[0].clone());
    let introduces = Once::new();
    let judge = move |sent: &[u8]| {
        if memmem::find(sent, b"RESET").is_some() {
            introduces.call_once(|| meets(last.clone(), first.clone()));
        }
        Fate::Arrives
    };
    let relay = Relay::start(addresses[2].clone(), judge).await;
    let (two, last) = (addresses[..2].join(" "), relay.address());
    // The others reach it nowhere, and it reaches nobody on its own: each is introduced to those after it.
    let told = cluster(&format!("create --yes --wait 3 {two} {last}")).await.ends(1);
    told.mentions(&format!(" - The port {closed} of node 127.0.0.1 may be unreachable from:"))
        .says("The nodes were reset: they are as empty as before.");
    all_untouched(&addresses).await;
    ask(&addresses[2], "CONFIG SET cluster-announce-bus-port 0").await.expect("it is set");
    // An epoch, as a soft reset leaves it, is in nobody's way.
    ask(&addresses[1], "CLUSTER SET-CONFIG-EPOCH 9").await.expect("it is set");
    cluster(&format!("create --yes {all}")).await.ends(0);
}

#[tokio::test]
async fn ipv6_passwords_and_bus_ports_of_ones_own() {
    let _turn = beside_others().await;
    let mut nodes = Vec::new();
    for _ in 0..4 {
        let bus = crate::server::free_ports().next().expect("a port").to_string();
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-port",
            &bus,
            "--requirepass",
            "pä%ss",
            "--masterauth",
            "pä%ss",
        ];
        nodes.push(Special::start("::1", &options).await);
    }
    let [a, b, c, d] = nodes.iter().map(|node| node.port).collect::<Vec<_>>()[..] else {
        unreachable!()
    };
    let create = format!("--cluster create [::1]:{a} ::1:{b} ::1:{c} --cluster-yes");
    let words: Vec<&str> = create.split(' ').collect();
    call(&words, "", &[]).await.ends(3).mentions("NOAUTH");
    call(&words, "", &[("REDISCLI_AUTH", "wrong")]).await.ends(3).mentions("WRONGPASS");
    call(&words, "", &[("REDISCLI_AUTH", "pä%ss\r\n")])
        .await
        .ends(0)
        .says("[OK] All 16384 slots covered.");
    let add = format!("cluster add-node -a pä%ss ::1:{d} [::1]:{a} --cluster-replica");
    let told = slotway(&add.split(' ').collect::<Vec<_>>()).await.ends(0);
    told.says("[OK] New node added correctly.");
    assert!(!format!("{}{}", told.out, told.err).contains("pä%ss"), "it tells the password");
    let check =
        call(&["cluster", "check", &format!("::1:{d}")], "", &[("VALKEYCLI_AUTH", "pä%ss")]).await;
    check.ends(0).says("   1 additional replica(s)");
}

#[tokio::test]
async fn check_names_what_is_wrong() {
    let _turn = beside_others().await;
    let mut nodes = crate::cluster::Cluster::start(3, 1).await;
    let entry = nodes.address(0);
    nodes.call(1, &["CLUSTER", "SETSLOT", "0", "IMPORTING", nodes.id(0)]).await;
    nodes.call(0, &["CLUSTER", "SETSLOT", "0", "MIGRATING", nodes.id(1)]).await;
    let told = check_reads_as_redis_cli_writes_it(&entry).await.ends(1);
    told.says(&format!("[WARNING] Node {entry} has slots in migrating state 0."))
        .says(&format!("[WARNING] Node {} has slots in importing state 0.", nodes.address(1)))
        .says("[WARNING] The following slots are open: 0.");
    let told = cluster(&format!("check {entry} --json")).await.ends(1);
    assert!(
        told.out.contains("\"finding\": \"migrating\"") && told.out.contains("\"ok\": false"),
        "{}",
        told.out
    );
    for node in [0, 1] {
        nodes.call(node, &["CLUSTER", "SETSLOT", "0", "STABLE"]).await;
    }
    let search = format!("check {entry} --cluster-search-multiple-owners");
    cluster(&search).await.ends(0).says("[OK] No multiple owners found.");
    cluster(&format!("check {entry}")).await.ends(0);

    // A replica that is gone is worth a warning; a primary that is gone is a fault.
    nodes.kill9(5);
    let told = cluster(&format!("check {entry}")).await.ends(0);
    told.mentions(&format!(
        "[WARNING] Node {} ({}) does not answer: ",
        nodes.address(5),
        nodes.id(5)
    ));
    assert_eq!(told.count("[OK]"), 3, "{}", told.out);
    nodes.kill9(2);
    let told = cluster(&format!("check {entry}")).await.ends(1);
    told.says("[ERR] Not all 16384 slots are covered by nodes.");
    let told = cluster(&format!("check {}", nodes.address(2))).await.ends(1);
    told.mentions(&format!(
        "Could not connect to Redis at {}: Connection refused",
        nodes.address(2)
    ));
}
