//! Slots that the servers move by themselves, if those that are at hand can: Valkey from 9.0 on, Redis from 8.4 on. Named by
//! `SLOTWAY_TEST_SERVER`; with the others it is shown that nothing is begun that could not be done.

use slotway::manage::mover::{Event, Method, MoveError, Reins};

use crate::cluster::Cluster;
use crate::front;
use crate::job::{Office, count, fill};
use crate::load::{Load, Plan};
use crate::tool;
use crate::{beside_others, under_load};

/// Batches that every client of a load does before something happens, and after it.
const BATCHES: u64 = 15;

/// Whether the servers at hand know it.
async fn is_known() -> bool {
    let server = tool::Special::start("127.0.0.1", &["--cluster-enabled", "yes"]).await;
    let answers = async |line| tool::ask(&server.address(), line).await.is_ok();
    answers("CLUSTER GETSLOTMIGRATIONS").await || answers("CLUSTER MIGRATION STATUS ALL").await
}

fn office(method: Method) -> Office {
    let mut office = Office::new();
    office.options.method = method;
    office
}

/// Scenario 20, where the servers know it.
#[tokio::test]
async fn the_servers_move_slots_under_load() {
    let _turn = under_load().await;
    if !is_known().await {
        return;
    }
    let (cluster, office) = (Cluster::start(3, 1).await, office(Method::Asm));
    let proxy = front::start(front::patient(cluster.addresses())).await;
    let mut load = Load::start(Plan { focus: 0..1500, ..Plan::light(proxy.data) });
    load.advance(BATCHES).await;
    let summary = office.moved(&cluster, &[(0, 1, 0..1500)]).await;
    load.advance(BATCHES).await;
    load.stop().await.expect_flawless();
    proxy.shutdown().await;
    cluster.agreed().await;
    assert!(cluster.owners().await[..1500].iter().all(|owner| *owner == 1));
    assert_eq!((summary.atomic, summary.suspicions.len()), (1500, 0));
}

/// Told to stop at once, it cancels what runs, and nothing is left behind.
#[tokio::test]
async fn a_migration_is_cancelled_and_gone_on_with() {
    let _turn = beside_others().await;
    if !is_known().await {
        return;
    }
    let (cluster, office) = (Cluster::start(3, 0).await, office(Method::Asm));
    fill(&cluster, 0, 7, 3000).await;
    let is_begun = |event: &Event| matches!(event, Event::Opened(_));
    let stopped = office.interrupted(&cluster, &[(0, 1, 0..1000)], is_begun, Reins::halt).await;
    assert!(matches!(stopped, Err(MoveError::Halted)), "{stopped:?}");
    cluster.agreed().await;
    assert_eq!(count(&cluster, 0, 7).await + count(&cluster, 1, 7).await, 3000);
    office.resume(|_| ()).await.expect("it goes on");
    cluster.agreed().await;
    assert_eq!((count(&cluster, 0, 7).await, count(&cluster, 1, 7).await), (0, 3000));
}

/// Where the servers do not know it.
#[tokio::test]
async fn servers_without_it_are_left_alone_or_served_key_by_key() {
    let _turn = beside_others().await;
    if is_known().await {
        return;
    }
    let cluster = Cluster::start(3, 0).await;
    let folder = tempfile::tempdir().expect("a folder");
    let line = |method: &str| {
        let (entry, from, to) = (cluster.address(0), cluster.id(0), cluster.id(1));
        let folder = folder.path().display();
        format!(
            "reshard {entry} --from {from} --to {to} --slots 10 --yes --json --state-dir {folder} {method}"
        )
    };
    for forced in ["--method asm", "--cluster-use-atomic-slot-migration"] {
        let told = tool::cluster(&line(forced)).await.ends(3);
        told.mentions("there is no atomic slot migration between").mentions("nknown subcommand");
        assert_eq!(cluster.owners().await[..10], [0; 10], "something was changed");
    }
    let told = tool::cluster(&line("--method auto")).await.ends(0);
    told.mentions("\"atomic\": 0,");
    cluster.agreed().await;
    assert_eq!(cluster.owners().await[..10], [1; 10]);
}
