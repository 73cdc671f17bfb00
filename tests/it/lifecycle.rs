//! Starting, failing over, losing nodes, reading from replicas, and ending.

use std::time::{Duration, Instant};

use slotway::backend::ReadFrom;
use slotway::cluster::SLOTS;

use crate::client::Client;
use crate::fake::{Act, Cluster, Model, Node};
use crate::rig::{Rig, rig, until};

#[test]
fn a_proxy_starts_while_some_nodes_are_down() {
    rig(3).run_from(
        async |cluster| cluster.node(0).down().await,
        async |rig| {
            rig.proxy().ready().await;
            let mut client = rig.client().await;
            assert_eq!(client.ask(&format!("SET {} v", rig.key(1))).await, "+OK\r\n");
            client.send_all(&[&format!("SET {} v", rig.key(0))]).await;
            assert!(client.is_silent_for(Duration::from_millis(50)).await);
            rig.node(0).up().await;
            assert_eq!(client.read().await, "+OK\r\n");
        },
    );
}

async fn all_down(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.down().await;
    }
}

#[test]
fn requests_wait_for_the_first_map() {
    rig(2).run_from(all_down, async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        client.send_all(&[&format!("SET {key} v"), &format!("GET {key}")]).await;
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        for node in rig.cluster.nodes() {
            node.up().await;
        }
        assert_eq!(client.read_n(2).await, ["+OK\r\n", "$1\r\nv\r\n"]);
    });
}

#[test]
fn requests_without_a_map_are_refused_when_the_budget_is_spent() {
    rig(2).budget(Duration::from_millis(200)).run_from(all_down, async |rig| {
        let (key, other, mut client) = (rig.key(0), rig.key(1), rig.client().await);
        let started = Instant::now();
        assert_eq!(
            client.ask(&format!("SET {key} v")).await,
            "-CLUSTERDOWN Hash slot not served\r\n"
        );
        assert!(started.elapsed() >= Duration::from_millis(200));
        assert_eq!(
            client.ask(&format!("MGET {key} {other}")).await,
            "-CLUSTERDOWN Hash slot not served\r\n"
        );
        assert_eq!(client.ask("DBSIZE").await, "-CLUSTERDOWN The cluster is down\r\n");
    });
}

#[test]
fn commands_without_keys_wait_for_the_first_map_too() {
    rig(2).run_from(all_down, async |rig| {
        let mut client = rig.client().await;
        client.send_all(&["DBSIZE"]).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        for node in rig.cluster.nodes() {
            node.up().await;
        }
        assert_eq!(client.read().await, ":0\r\n");
    });
}

#[test]
fn a_promoted_replica_takes_over() {
    rig(2).replicas(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} 1")).await;
        rig.node(0).down().await;
        client.send_all(&[&format!("SET {key} 2"), &format!("GET {key}")]).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        rig.cluster.model().fail_over(0, 2);
        rig.cluster.announce();
        assert_eq!(client.read_n(2).await, ["+OK\r\n", "$1\r\n2\r\n"]);
        assert_eq!(rig.node(2).seen(), [format!("SET {key} 2"), format!("GET {key}")]);
        // The old primary comes back as a replica of the new one.
        rig.cluster.model().truth.members[0].failed = false;
        rig.cluster.model().truth.members[0].primary = Some(2);
        rig.node(0).up().await;
        rig.announce().await;
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\n2\r\n");
        assert_eq!(rig.node(0).count(&format!("GET {key}")), 0);
    });
}

#[test]
fn a_demoted_primary_is_left_for_the_new_one() {
    rig(2).replicas(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} 1")).await;
        rig.cluster.model().fail_over(0, 2);
        rig.cluster.model().truth.members[0].failed = false;
        rig.cluster.model().truth.members[0].primary = Some(2);
        assert_eq!(client.ask(&format!("SET {key} 2")).await, "+OK\r\n");
        rig.node(0).always("SET", "READONLY You can't write against a read only replica.");
        client.send_all(&[&format!("SET {key} 3")]).await;
        until("the old primary has said READONLY", || rig.node(0).seen().len() > 3).await;
        rig.cluster.announce();
        assert_eq!(client.read().await, "+OK\r\n");
        assert_eq!(rig.cluster.model().stores[2].text(&key).as_deref(), Some("3"));
    });
}

/// A node leaves the cluster; its slots go to another one.
fn leave(model: &mut Model, node: usize, heir: usize) {
    for owner in model.truth.owners.iter_mut().filter(|owner| **owner == Some(node)) {
        *owner = Some(heir);
    }
    model.truth.members[node].hidden = true;
}

#[test]
fn connections_to_nodes_that_are_gone_are_closed() {
    rig(3).run(async |rig| {
        let (key, gone, mut client) = (rig.key(0), rig.key(2), rig.client().await);
        client.ask_all(&[&format!("SET {key} v"), &format!("SET {gone} v")]).await;
        let mut resp3 = rig.resp3_client().await;
        resp3.ask(&format!("GET {gone}")).await;
        assert_eq!(rig.node(2).lanes(), 2);
        leave(&mut rig.cluster.model(), 2, 1);
        rig.announce().await;
        until("the connections are closed", || rig.node(2).lanes() == 0).await;
        assert_eq!(client.ask(&format!("SET {gone} v")).await, "+OK\r\n");
        assert_eq!(rig.node(1).seen(), [format!("SET {gone} v")]);
    });
}

/// A node leaves the cluster while it has a request.
fn leaves_with_a_request(then: impl AsyncFnOnce(&mut Rig)) {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).next("SET", Act::Hold);
        client.send_all(&[&format!("SET {key} v")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        leave(&mut rig.cluster.model(), 0, 1);
        rig.announce().await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        rig.node(0).release();
        assert_eq!(client.read().await, "+OK\r\n");
        then(rig).await;
    });
}

#[test]
fn a_node_that_is_gone_still_answers_what_it_was_asked() {
    leaves_with_a_request(async |_| {});
}

#[test]
fn the_connection_to_a_node_that_is_gone_is_closed_after_the_last_reply() {
    leaves_with_a_request(async |rig| {
        until("the connection is closed", || rig.node(0).lanes() == 0).await;
    });
}

#[test]
fn a_node_that_changes_its_endpoint_is_reached_at_the_new_one() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} v")).await;
        rig.cluster.model().endpoint = "localhost".to_owned();
        until("the map is new", || {
            rig.proxy().topology().nodes().iter().all(|node| node.address.host() == "localhost")
        })
        .await;
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
        until("the old connection is closed", || rig.node(0).lanes() == 1).await;
        rig.cluster.model().endpoint = String::new();
        until("the map is new", || {
            rig.proxy().topology().nodes().iter().all(|node| node.address.host() == "127.0.0.1")
        })
        .await;
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
    });
}

/// Two primaries with a replica each, and reads that may go to replicas.
fn with_replicas(read_from: ReadFrom, test: impl AsyncFnOnce(&mut Rig, &str, Client)) {
    let setup = rig(2).replicas(1).with(move |options| options.backend.read_from = read_from);
    setup.run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} v")).await;
        test(rig, &key, client).await;
    });
}

/// Reads until this node has answered one.
async fn read_until_from(client: &mut Client, key: &str, node: &Node) {
    let (get, before) = (format!("GET {key}"), node.seen().len());
    let deadline = Instant::now() + Duration::from_secs(3);
    while node.seen().len() == before {
        assert_eq!(client.ask(&get).await, "$1\r\nv\r\n");
        assert!(Instant::now() < deadline, "no read ever goes to {}", node.address());
    }
}

#[test]
fn reads_go_to_replicas_on_connections_that_said_readonly() {
    with_replicas(ReadFrom::Replica, async |rig, key, mut client| {
        for _ in 0..5 {
            assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
        }
        client.ask(&format!("SET {key} v")).await;
        assert_eq!(rig.node(0).seen(), [format!("SET {key} v"), format!("SET {key} v")]);
        assert_eq!(rig.node(2).seen(), vec![format!("GET {key}"); 5]);
        let connections = rig.node(2).seen_by_connection();
        let lane = connections
            .iter()
            .find(|lines| lines.contains(&format!("GET {key}")))
            .expect("a connection");
        assert_eq!(lane[..2], ["READONLY", "PING"]);
    });
}

#[test]
fn reads_go_to_the_primary_and_its_replica_in_turn() {
    with_replicas(ReadFrom::Any, async |rig, key, mut client| {
        read_until_from(&mut client, key, rig.node(2)).await;
        let get = format!("GET {key}");
        let (primary, replica) = (rig.node(0).count(&get), rig.node(2).count(&get));
        for _ in 0..6 {
            assert_eq!(client.ask(&get).await, "$1\r\nv\r\n");
        }
        assert_eq!((rig.node(0).count(&get), rig.node(2).count(&get)), (primary + 3, replica + 3));
    });
}

#[test]
fn reads_go_to_the_node_in_the_same_zone() {
    let setup = rig(2).replicas(1).with(|options| {
        options.backend.read_from = ReadFrom::Zone;
        options.backend.near = options.discovery.seeds[..1].to_vec();
    });
    setup.run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let get = format!("GET {key}");
        for _ in 0..6 {
            assert_eq!(client.ask(&get).await, "$-1\r\n");
        }
        assert_eq!((rig.node(0).count(&get), rig.node(2).count(&get)), (6, 0));
        // Of the other shard's nodes none is near: reads go to its replica, too.
        let far = rig.key(1);
        client.ask(&format!("SET {far} v")).await;
        read_until_from(&mut client, &far, rig.node(3)).await;
    });
}

#[test]
fn who_has_written_reads_from_primaries_for_a_while() {
    let setup = rig(2).replicas(1).with(move |options| {
        options.backend.read_from = ReadFrom::Replica;
        options.session.read_own_writes = Duration::from_secs(3600);
    });
    setup.run(async |rig| {
        let (key, mut writer, mut reader) = (rig.key(0), rig.client().await, rig.client().await);
        let get = format!("GET {key}");
        assert_eq!(writer.ask(&get).await, "$-1\r\n");
        writer.ask(&format!("SET {key} v")).await;
        assert_eq!(writer.ask(&get).await, "$1\r\nv\r\n");
        assert_eq!((rig.node(0).count(&get), rig.node(2).count(&get)), (1, 1));
        assert_eq!(reader.ask(&get).await, "$1\r\nv\r\n");
        assert_eq!((rig.node(0).count(&get), rig.node(2).count(&get)), (1, 2));
    });
}

#[test]
fn preferred_replicas_are_read_from_once_they_are_connected() {
    with_replicas(ReadFrom::PreferReplica, async |rig, key, mut client| {
        read_until_from(&mut client, key, rig.node(2)).await;
    });
}

#[test]
fn reads_fall_back_to_the_primary_while_the_replica_is_down() {
    for read_from in [ReadFrom::Replica, ReadFrom::PreferReplica] {
        with_replicas(read_from, async |rig, key, mut client| {
            rig.node(2).down().await;
            for _ in 0..3 {
                assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
            }
            assert!(rig.node(2).seen().is_empty());
        });
    }
}

#[test]
fn reads_that_a_replica_lost_or_refused_go_to_the_primary() {
    with_replicas(ReadFrom::Replica, async |rig, key, mut client| {
        client.ask(&format!("GET {key}")).await;
        let acts = [
            Act::Close,
            Act::Cut(b"$1".to_vec()),
            Act::error("LOADING Redis is loading the dataset in memory"),
            Act::error(
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            ),
            Act::error(&format!("MOVED 1 {}", rig.node(0).address())),
        ];
        for (n, act) in acts.into_iter().enumerate() {
            rig.node(2).next("GET", act);
            assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
            assert_eq!(rig.node(0).count(&format!("GET {key}")), n + 1);
        }
    });
}

#[test]
fn a_replica_that_must_be_read_from_is_read_from_again_after_it_was_down() {
    with_replicas(ReadFrom::Replica, async |rig, key, mut client| {
        rig.node(2).down().await;
        client.ask(&format!("GET {key}")).await;
        rig.node(2).up().await;
        read_until_from(&mut client, key, rig.node(2)).await;
    });
}

#[test]
fn a_preferred_replica_is_read_from_again_after_it_was_down() {
    with_replicas(ReadFrom::PreferReplica, async |rig, key, mut client| {
        read_until_from(&mut client, key, rig.node(2)).await;
        rig.node(2).down().await;
        until("the connection is closed", || rig.node(2).lanes() == 0).await;
        assert_eq!(client.ask(&format!("GET {key}")).await, "$1\r\nv\r\n");
        rig.node(2).up().await;
        read_until_from(&mut client, key, rig.node(2)).await;
    });
}

#[test]
fn requests_under_way_are_answered_before_the_proxy_ends() {
    rig(2).run(async |rig| {
        let (key, mut busy, mut idle) = (rig.key(0), rig.client().await, rig.client().await);
        idle.ask("PING").await;
        rig.node(0).next("SET", Act::Hold);
        busy.send_all(&[&format!("SET {key} v"), "PING"]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        let ending = tokio::spawn(rig.take_proxy().shutdown());
        assert_eq!(idle.rest().await, "");
        assert!(busy.is_silent_for(Duration::from_millis(50)).await);
        assert!(!ending.is_finished());
        assert!(
            tokio::net::TcpStream::connect(rig.data).await.is_err(),
            "no new clients are accepted"
        );
        rig.node(0).release();
        assert_eq!(busy.rest().await, "+OK\r\n+PONG\r\n");
        ending.await.expect("the proxy ends");
    });
}

#[test]
fn administrators_end_it_as_signals_do() {
    let http =
        |options: &mut slotway::proxy::Options| options.http = Some("127.0.0.1:0".to_owned());
    rig(1).administered().with(http).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        client.send_all(&[&format!("SET {key} v")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        let mut proxy = rig.take_proxy();
        let mut admin = Client::connect(proxy.admin.expect("the admin port is open")).await;
        assert_eq!(admin.ask("PROXY DRAIN 0").await, "+OK\r\n");
        let info = admin.ask("INFO").await;
        assert!(info.contains("readiness:draining\r\n"), "{info}");
        proxy.told_to_drain().await;
        proxy.shutdown().await;
        // No time was given to the request that is under way.
        client.rest().await;
        assert_eq!(rig.node(0).seen().len(), 1);
    });
}

#[test]
fn the_end_does_not_wait_for_ever() {
    rig(1).with(|options| options.drain_timeout = Duration::from_millis(300)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.node(0).hold();
        client.send_all(&[&format!("SET {key} v")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        let started = Instant::now();
        rig.shutdown().await;
        assert!((250..2000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
        client.rest().await;
    });
}

#[test]
fn what_is_sent_after_the_end_has_begun_is_not_taken() {
    rig(1).run(async |rig| {
        let (key, mut client, mut idle) = (rig.key(0), rig.client().await, rig.client().await);
        idle.ask("PING").await;
        rig.node(0).next("SET", Act::Hold);
        client.send_all(&[&format!("SET {key} v")]).await;
        until("it is out", || !rig.node(0).seen().is_empty()).await;
        let ending = tokio::spawn(rig.take_proxy().shutdown());
        assert_eq!(idle.rest().await, "");
        client.send_all(&[&format!("SET {key} later")]).await;
        assert!(client.is_silent_for(Duration::from_millis(50)).await);
        rig.node(0).release();
        assert_eq!(client.rest().await, "+OK\r\n");
        assert_eq!(rig.cluster.ran(), [format!("SET {key} v")]);
        ending.await.expect("the proxy ends");
    });
}

#[test]
fn a_proxy_that_is_dropped_stops() {
    rig(1).run(async |rig| {
        let mut client = rig.client().await;
        client.ask("PING").await;
        drop(rig.take_proxy());
        assert_eq!(client.rest().await, "");
    });
}

/// Three nodes serve and three others stand by, of which only the last one is a seed besides the first.
async fn stand_by(cluster: &Cluster) {
    serve_from(&mut cluster.model(), 0);
    cluster.announce();
}

/// Lets three nodes, from this one on, serve everything, and the others be unknown.
fn serve_from(model: &mut Model, first: usize) {
    for (slot, owner) in model.truth.owners.iter_mut().enumerate() {
        *owner = Some(first + slot * 3 / SLOTS);
    }
    for (number, member) in model.truth.members.iter_mut().enumerate() {
        member.hidden = !(first..first + 3).contains(&number);
        member.epoch += 10;
    }
}

#[test]
fn a_cluster_whose_nodes_were_all_replaced_is_found_by_its_seeds() {
    let quick = |options: &mut slotway::proxy::Options| {
        options.discovery.access.limit = Duration::from_millis(100);
    };
    rig(6).with(quick).seeds(&[0, 5]).run_from(stand_by, async |rig| {
        rig.proxy().ready().await;
        let (key, mut client) = (rig.key(0), rig.client().await);
        assert_eq!(client.ask(&format!("SET {key} 1")).await, "+OK\r\n");
        for node in 0..3 {
            rig.node(node).down().await;
        }
        serve_from(&mut rig.cluster.model(), 3);
        rig.cluster.announce();
        let known = || {
            rig.proxy()
                .topology()
                .nodes()
                .iter()
                .any(|node| node.address.to_string() == rig.node(3).address())
        };
        until("the new nodes are found", known).await;
        assert_eq!(client.ask(&format!("SET {key} 2")).await, "+OK\r\n");
    });
}

#[test]
fn a_cluster_that_starts_over_is_found_again() {
    rig(2).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} 1")).await;
        all_down(&rig.cluster).await;
        client.send_all(&[&format!("SET {key} 2")]).await;
        assert!(client.is_silent_for(Duration::from_millis(100)).await);
        for node in rig.cluster.nodes() {
            node.up().await;
        }
        assert_eq!(client.read().await, "+OK\r\n");
        assert_eq!(rig.cluster.ran(), [format!("SET {key} 1"), format!("SET {key} 2")]);
    });
}
