//! Servers of two kinds in one cluster: the second program is named by `SLOTWAY_TEST_OTHER_SERVER`, and without that nothing is
//! shown here.

use slotway::resp::value;

use crate::beside_others;
use crate::tool::{Special, ask, cluster, text};

/// The first slot of each of three primaries, and a tag of it.
const SLOTS: [usize; 3] = [0, 5461, 10_923];
const KEYS: usize = 200;

/// How many keys of a slot a node has.
async fn count(node: &Special, slot: usize) -> usize {
    let reply = ask(&node.address(), &format!("CLUSTER COUNTKEYSINSLOT {slot}")).await;
    let count = value::integer(&reply.expect("a number")).expect("a number");
    usize::try_from(count).expect("a count")
}

/// Scenario 34: keys go from one kind to the other, or it is said beforehand that they cannot.
#[tokio::test]
async fn keys_go_to_the_other_kind_of_server_or_it_is_said_that_they_cannot() {
    let Ok(other) = std::env::var("SLOTWAY_TEST_OTHER_SERVER") else {
        eprintln!("skipped: SLOTWAY_TEST_OTHER_SERVER names no second server program");
        return;
    };
    let _turn = beside_others().await;
    let options = ["--cluster-enabled", "yes"];
    let nodes = [
        Special::start("127.0.0.1", &options).await,
        Special::start("127.0.0.1", &options).await,
        Special::start_program(&other, "127.0.0.1", &options).await,
    ];
    let addresses = nodes.each_ref().map(Special::address);
    cluster(&format!("create --yes {}", addresses.join(" "))).await.ends(0);
    let state = tempfile::tempdir().expect("a folder");
    let mut went = 0;
    for (from, to) in [(0, 2), (2, 0)] {
        let (slot, tag) = (SLOTS[from], crate::job::tag(SLOTS[from]));
        for n in 0..KEYS {
            ask(&addresses[from], &format!("SET {} v", crate::job::key(&tag, n)))
                .await
                .expect("OK");
        }
        let source = text(&addresses[from], "CLUSTER MYID").await;
        let target = text(&addresses[to], "CLUSTER MYID").await;
        let line = format!(
            "reshard {} --from {} --to {} --slots 1 --yes --method legacy --state-dir {}",
            addresses[1],
            source,
            target,
            state.path().display()
        );
        let told = cluster(&line).await;
        let [left, arrived] = [count(&nodes[from], slot).await, count(&nodes[to], slot).await];
        if told.code == 0 {
            assert_eq!((left, arrived), (0, KEYS), "{}", told.out);
            went += 1;
        } else {
            told.ends(3).mentions("its server is older");
            assert_eq!((left, arrived), (KEYS, 0));
        }
        cluster(&format!("check {}", addresses[1])).await.ends(0);
    }
    assert!(went > 0, "no way is open");
}
