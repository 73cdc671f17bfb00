//! Whose word the proxy takes for the map: its own cluster's, whoever else answers.

use std::time::Duration;

use slotway::cluster::{SLOTS, Slot};

use crate::fake::{Act, Cluster, Model, Node};
use crate::rig::{Rig, Setup, rig, until};

/// Lets the first nodes serve everything, and be all that is known.
fn serve_with(model: &mut Model, nodes: &[usize]) {
    for (slot, owner) in model.truth.owners.iter_mut().enumerate() {
        *owner = Some(nodes[slot * nodes.len() / SLOTS]);
    }
    for (number, member) in model.truth.members.iter_mut().enumerate() {
        member.hidden = !nodes.contains(&number);
        member.epoch += 10;
    }
}

/// Two nodes serve, and a third one is another cluster.
async fn with_a_stranger(cluster: &Cluster) {
    serve_with(&mut cluster.model(), &[0, 1]);
    cluster.announce();
    cluster.model().estrange(&[2]);
}

/// How often a node was asked who owns what.
fn asked(node: &Node) -> usize {
    let connections = node.seen_by_connection();
    connections.iter().flatten().filter(|line| *line == "CLUSTER NODES").count()
}

/// Waits until this node has been asked, and what it said has been taken in or not.
async fn until_heard(node: &Node) {
    let before = asked(node);
    until("the node is asked once more, and again", || asked(node) >= before + 2).await;
}

/// Addresses of the nodes that own slots, in the order of these.
fn owners(rig: &Rig) -> Vec<String> {
    let topology = rig.proxy().topology();
    let mut owners: Vec<String> = (0..SLOTS)
        .filter_map(Slot::new)
        .filter_map(|slot| topology.owner(slot))
        .map(|owner| topology.node(owner).address.to_string())
        .collect();
    owners.dedup();
    owners
}

fn addresses(rig: &Rig, nodes: &[usize]) -> Vec<String> {
    nodes.iter().map(|node| rig.node(*node).address()).collect()
}

#[test]
fn a_redirect_into_another_cluster_does_not_change_the_map() {
    rig(3).seeds(&[0]).run_from(with_a_stranger, async |rig| {
        rig.proxy().ready().await;
        let (key, mut client) = (rig.key(0), rig.client().await);
        let before = rig.proxy().topology();
        rig.node(0).next("GET", Act::error(&format!("MOVED 1 {}", rig.node(2).address())));
        assert_eq!(client.ask(&format!("GET {key}")).await, "$-1\r\n");
        until("the stranger is asked", || asked(rig.node(2)) > 0).await;
        until_heard(rig.node(0)).await;
        assert!(*rig.proxy().topology() == *before, "the map is now {:?}", owners(rig));
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(0).count(&format!("SET {key} v")), 1);
    });
}

#[test]
fn another_cluster_at_the_address_of_a_node_that_is_gone_does_not_change_the_map() {
    rig(2).replicas(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        rig.cluster.model().estrange(&[0]);
        until_heard(rig.node(0)).await;
        assert_eq!(owners(rig), addresses(rig, &[0, 1]));
        rig.cluster.model().fail_over(0, 2);
        for node in 1..4 {
            rig.cluster.announce_at(node);
        }
        until("the replica is followed", || owners(rig) == addresses(rig, &[2, 1])).await;
        until_heard(rig.node(0)).await;
        assert_eq!(owners(rig), addresses(rig, &[2, 1]));
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.cluster.model().stores[2].text(&key).as_deref(), Some("v"));
    });
}

#[test]
fn of_seeds_in_two_clusters_the_first_one_counts() {
    for (seeds, nodes) in [([0, 2], &[0, 1][..]), ([2, 0], &[2])] {
        rig(3).seeds(&seeds).run_from(with_a_stranger, async |rig| {
            rig.proxy().ready().await;
            until_heard(rig.node(0)).await;
            until_heard(rig.node(2)).await;
            assert_eq!(owners(rig), addresses(rig, nodes));
        });
    }
}

#[test]
fn a_node_that_only_says_itself_that_it_belongs_is_not_heard() {
    rig(3).seeds(&[0, 1, 2]).run(async |rig| {
        serve_with(&mut rig.cluster.model(), &[0, 1]);
        for node in [0, 1] {
            rig.cluster.announce_at(node);
        }
        until("the node is forgotten", || owners(rig) == addresses(rig, &[0, 1])).await;
        // It was not told, and has had newer epochs than anyone.
        serve_with(&mut rig.cluster.model(), &[0, 1, 2]);
        rig.cluster.announce_at(2);
        until_heard(rig.node(2)).await;
        assert_eq!(owners(rig), addresses(rig, &[0, 1]));
        // Now the others name it, too.
        rig.cluster.announce();
        until("the node is back", || owners(rig) == addresses(rig, &[0, 1, 2])).await;
    });
}

#[test]
fn nodes_may_be_replaced_one_by_one() {
    let start = async |cluster: &Cluster| {
        serve_with(&mut cluster.model(), &[0, 1]);
        cluster.announce();
    };
    rig(6).seeds(&[0]).run_from(start, async |rig| {
        rig.proxy().ready().await;
        for first in 0..4 {
            let three = [first, first + 1, first + 2];
            serve_with(&mut rig.cluster.model(), &three);
            rig.cluster.announce();
            until("it joins", || owners(rig) == addresses(rig, &three)).await;
            serve_with(&mut rig.cluster.model(), &three[1..]);
            rig.cluster.announce();
            until("another one leaves", || owners(rig) == addresses(rig, &three[1..])).await;
            rig.node(first).down().await;
        }
        let (key, mut client) = (rig.key(5), rig.client().await);
        assert_eq!(client.ask(&format!("SET {key} v")).await, "+OK\r\n");
        assert_eq!(rig.node(5).seen(), [format!("SET {key} v")]);
    });
}

/// All answer, so that there is nothing to wait for.
#[test]
fn a_cluster_made_anew_of_the_same_nodes_is_taken_up_at_once() {
    rig(3).with(|options| options.discovery.interval = Duration::from_secs(60)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let before = rig.proxy().topology();
        rig.cluster.model().estrange(&[0, 1, 2]);
        // It goes round and round, and each time the proxy has reason to ask.
        rig.node(0).always("GET", &format!("MOVED 1 {}", rig.node(1).address()));
        client.send_all(&[&format!("GET {key}")]).await;
        let is_new = || rig.proxy().topology().nodes()[0].id != before.nodes()[0].id;
        until("the new map is there", is_new).await;
        assert_eq!(owners(rig), addresses(rig, &[0, 1, 2]));
        rig.node(0).obey();
        assert_eq!(client.read().await, "$-1\r\n");
    });
}

/// Two nodes and a stranger are seeds; a refresh is due every so often, and when a request finds no node.
fn with_a_strange_seed(interval: Duration) -> Setup {
    rig(3).seeds(&[0, 1, 2]).with(move |options| options.discovery.interval = interval)
}

#[test]
fn a_stranger_does_not_replace_a_cluster_that_is_silent_for_a_moment() {
    with_a_strange_seed(Duration::from_secs(60)).run_from(with_a_stranger, async |rig| {
        rig.proxy().ready().await;
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} 1")).await;
        for node in [0, 1] {
            rig.node(node).down().await;
        }
        client.send_all(&[&format!("SET {key} 2")]).await;
        until_heard(rig.node(2)).await;
        assert_eq!(owners(rig), addresses(rig, &[0, 1]));
        for node in [0, 1] {
            rig.node(node).up().await;
        }
        assert_eq!(client.read().await, "+OK\r\n");
        assert_eq!(rig.cluster.model().stores[0].text(&key).as_deref(), Some("2"));
    });
}

#[test]
fn a_cluster_that_stays_silent_is_given_up_for_the_one_at_its_seeds() {
    with_a_strange_seed(Duration::from_millis(30)).run_from(with_a_stranger, async |rig| {
        rig.proxy().ready().await;
        for node in [0, 1] {
            rig.node(node).down().await;
        }
        until("the other cluster is taken up", || owners(rig) == addresses(rig, &[2])).await;
    });
}
