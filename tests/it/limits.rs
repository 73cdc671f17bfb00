//! What is bounded, and that nothing is lost when a bound is met.

use std::time::Duration;

use bytes::Bytes;
use slotway::command::Claim;
use slotway::replies::{Replies, Reply};
use tokio::net::TcpListener;
use tokio::time::Instant;

use crate::client::{bulk, request};
use crate::fake::{Act, Cluster};
use crate::rig::rig;

async fn all_down(cluster: &Cluster) {
    for node in cluster.nodes() {
        node.down().await;
    }
}

#[test]
fn a_large_request_for_any_node_is_answered_when_none_is_known() {
    rig(2).budget(Duration::from_millis(200)).run_from(all_down, async |rig| {
        let mut client = rig.client().await;
        let publish = format!("PUBLISH channel {}", "x".repeat(40_000));
        let replies = client.ask_all(&[&publish, "ECHO second"]).await;
        assert!(replies[0].starts_with("-CLUSTERDOWN "), "{replies:?}");
        assert_eq!(replies[1], bulk("second"));
    });
}

#[test]
fn no_more_is_read_than_a_slow_node_may_owe() {
    const VALUE: usize = 16 * 1024;
    const COUNT: usize = 2000;
    rig(1).with(|options| options.backend.queue_bytes = 1 << 20).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("GET {key}")).await;
        rig.node(0).freeze();
        let set = request(&format!("SET {key} {}", "x".repeat(VALUE)));
        let taken = client.flood(&set.repeat(COUNT), Duration::from_millis(200)).await;
        assert!(taken < COUNT * VALUE / 3, "{taken} bytes were taken for a node that takes none");
        rig.node(0).thaw();
        client.send(&set[taken % set.len()..]).await;
        for reply in client.read_n(taken / set.len() + 1).await {
            assert_eq!(reply, "+OK\r\n");
        }
    });
}

#[test]
fn the_time_for_which_input_is_held_back_is_part_of_the_requests_time() {
    const BUDGET: Duration = Duration::from_millis(300);
    rig(2).budget(BUDGET).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("GET {key}")).await;
        rig.node(0).down().await;
        let start = Instant::now();
        let sets: Vec<String> = (0..20).map(|n| format!("SET {key} {n}")).collect();
        let replies = client.ask_all(&sets.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(replies.iter().all(|reply| reply.starts_with('-')), "{replies:?}");
        assert!(start.elapsed() < 10 * BUDGET, "{:?} for a budget of {BUDGET:?}", start.elapsed());
    });
}

#[test]
fn a_client_that_takes_its_reply_slowly_is_not_idle() {
    const SIZE: usize = 20_000_000;
    let options = |options: &mut slotway::proxy::Options| {
        options.session.idle_timeout = Duration::from_millis(100);
    };
    rig(1).with(options).run(async |rig| {
        let key = rig.key(0);
        rig.cluster.model().stores[0].set(&key, &"x".repeat(SIZE));
        let (mut slow, mut idle) = (rig.client().await, rig.client().await);
        slow.send_all(&[&format!("GET {key}")]).await;
        assert_eq!(idle.rest().await, "", "the idle one is disconnected");
        assert!(slow.read().await.len() > SIZE);
    });
}

#[test]
fn reads_need_no_order_among_themselves() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        client.ask(&format!("SET {key} v")).await;
        rig.node(0).next("GET", Act::error("LOADING Redis is loading the dataset in memory"));
        let get = format!("GET {key}");
        assert_eq!(client.ask_all(&[&get, &get]).await, [bulk("v"), bulk("v")]);
    });
}

#[test]
fn a_scripts_own_error_is_its_reply() {
    rig(1).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        for error in ["TRYAGAIN later", "MOVED away", "LOADING the dishwasher"] {
            rig.node(0).next("EVAL", Act::error(error));
            let line = format!("EVAL {} 1 {key}", error.len());
            assert_eq!(client.ask(&line).await, format!("-{error}\r\n"));
            assert_eq!(rig.node(0).count(&line), 1, "{error}");
        }
    });
}

#[test]
fn a_script_cannot_make_the_proxy_connect_to_an_address_of_its_choice() {
    rig(1).budget(Duration::from_millis(300)).run(async |rig| {
        let (key, mut client) = (rig.key(0), rig.client().await);
        let stranger = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = stranger.local_addr().expect("an address");
        for verdict in ["MOVED", "ASK"] {
            rig.node(0).always("EVAL", &format!("{verdict} 1 {address}"));
            let reply = client.ask(&format!("EVAL x 1 {key}")).await;
            assert!(reply.starts_with("-TRYAGAIN "), "{reply}");
            rig.node(0).obey();
        }
        let came = tokio::time::timeout(Duration::from_millis(1), stranger.accept()).await;
        assert!(came.is_err(), "{came:?}");
    });
}

#[test]
fn replies_for_a_client_that_is_gone_are_thrown_away() {
    let replies = Replies::default();
    let (_first, second) =
        (replies.promise(Claim::None, false), replies.promise(Claim::None, false));
    let third = replies.promise(Claim::None, false);
    second.fulfil(Reply::Large(Bytes::from(vec![0; 1000])));
    assert!(replies.is_full(usize::MAX, 1000));
    replies.close();
    third.fulfil(Reply::Large(Bytes::from(vec![0; 1000])));
    assert!(!replies.is_full(usize::MAX, 1));
}

#[test]
fn a_client_that_lets_too_much_wait_is_disconnected() {
    const SIZE: usize = 1 << 20;
    let options = |options: &mut slotway::proxy::Options| options.session.output_max = 8 * SIZE;
    rig(2).with(options).run(async |rig| {
        let (key, other) = (rig.key(0), rig.key(1));
        rig.cluster.model().stores[0].set(&key, &"x".repeat(SIZE));
        let (mut greedy, mut other_client) = (rig.client().await, rig.client().await);
        greedy.ask(&format!("GET {other}")).await;
        // What comes behind an unanswered request has to wait.
        rig.node(1).freeze();
        let (blocked, get) = (format!("GET {other}"), format!("GET {key}"));
        let mut lines = vec![blocked.as_str()];
        lines.extend(vec![get.as_str(); 20]);
        greedy.send_all(&lines).await;
        assert_eq!(greedy.rest().await, "", "it hears nothing but the end");
        rig.node(1).thaw();
        assert_eq!(other_client.ask(&format!("GET {other}")).await, "$-1\r\n");
    });
}
