//! What the mover does about every error that a node may answer with.

use std::cell::RefCell;
use std::time::Duration;

use slotway::cluster::{Address, Slot};
use slotway::manage::access::Access;
use slotway::manage::journal::Journal;
use slotway::manage::mover::{self, Event, MoveError, MoveOptions, Reins, Summary};
use slotway::manage::plan::Move;
use slotway::manage::view::ClusterView;

use crate::fake::{Act, Cluster};

/// A slot of node 0, and keys of it; one of them is not text.
const TAG: &str = "bar";
const KEYS: usize = 50;

/// A cluster of two nodes, and what a move needs.
struct Scene {
    cluster: Cluster,
    folder: tempfile::TempDir,
    options: MoveOptions,
    setbacks: RefCell<Vec<String>>,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::start(2, 0);
        // The nodes begin to listen.
        tokio::task::yield_now().await;
        {
            let mut model = cluster.model();
            for n in 0..KEYS {
                model.stores[0].set(&format!("{{{TAG}}}{n}\0\r\n"), &n.to_string());
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let options = MoveOptions { patience: Duration::from_secs(1), ..MoveOptions::default() };
        Self { cluster, folder, options, setbacks: RefCell::default() }
    }

    async fn run(&self) -> Result<Summary, MoveError> {
        let access = Access::default();
        let entry = Address::parse(&self.cluster.node(0).address(), None).expect("an address");
        let view = ClusterView::gather(&entry, &access).await?;
        let id = |node: usize| {
            let address = self.cluster.node(node).address();
            let named = view.nodes.iter().find(|node| node.address.to_string() == address);
            named.expect("a node of ours").own.id.clone()
        };
        let slots = [Slot::of(TAG.as_bytes())].into_iter().collect();
        let moves = vec![Move { from: id(0), to: id(1), slots }];
        let prepared = mover::prepare(moves, &view, &access, &self.options).await?;
        let mut journal = Journal::begin(self.folder.path(), prepared.begun())?;
        let mut tell = |event| {
            if let Event::Setback { what, .. } = event {
                self.setbacks.borrow_mut().push(what);
            }
        };
        prepared.run(&mut journal, &Reins::default(), &mut tell).await
    }

    fn expect_moved(&self, what: &str) {
        let model = self.cluster.model();
        assert_eq!((model.stores[0].len(), model.stores[1].len()), (0, KEYS), "{what}");
        assert_eq!(model.truth.owners[Slot::of(TAG.as_bytes()).index()], Some(1), "{what}");
    }

    /// How often the source was told to send keys.
    fn sent(&self) -> usize {
        self.cluster.node(0).seen().iter().filter(|line| line.starts_with("MIGRATE")).count()
    }
}

/// The error as the source says it of itself, and as it passes it on.
fn both(error: &str) -> [String; 2] {
    [error.to_owned(), format!("ERR Target instance replied with error: {error}")]
}

#[tokio::test]
async fn what_passes_is_tried_again() {
    for error in [
        "CLUSTERDOWN The cluster is down",
        "READONLY You can't write against a read only replica.",
        "MOVED 5061 127.0.0.1:1",
        "ASK 5061 127.0.0.1:1",
        "LOADING Redis is loading the dataset in memory",
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "BUSY Redis is busy running a script.",
        "IOERR error or timeout reading to target instance",
    ] {
        for error in both(error) {
            let scene = Scene::new().await;
            scene.cluster.node(0).next("MIGRATE", Act::error(&error));
            scene.run().await.unwrap_or_else(|failed| panic!("{error}: {failed}"));
            scene.expect_moved(&error);
            let setbacks = scene.setbacks.borrow();
            assert_eq!(setbacks.len(), 1, "{setbacks:?}");
            assert!(setbacks[0].contains(&error), "{setbacks:?}");
        }
    }
}

#[tokio::test]
async fn what_does_not_pass_is_not_tried_again() {
    for error in [
        "NOAUTH Authentication required.",
        "WRONGPASS invalid username-password pair or user is disabled.",
        "NOPERM this user has no permissions to run the 'restore-asking' command",
        "ERR unknown command 'MIGRATE'",
        "ERR DUMP payload version or checksum are wrong",
        "BUSYKEY Target key name already exists.",
        "OOM command not allowed when used memory > 'maxmemory'.",
    ] {
        for error in both(error) {
            let scene = Scene::new().await;
            scene.cluster.node(0).always("MIGRATE", &error);
            let failed = scene.run().await.expect_err("it cannot be moved");
            let is_told = matches!(&failed, MoveError::Paused(why) if why.contains(&error));
            assert!(is_told, "{error}: {failed}");
            assert_eq!(scene.sent(), 1, "{error}");
        }
    }
}

/// Scenario 34: by the versions that the two nodes tell, before anything is changed.
#[tokio::test]
async fn a_target_that_is_too_old_is_refused() {
    for (source, target, is_refused) in [
        ("redis_version:7.4.1", "redis_version:7.2.4", true),
        ("redis_version:7.0.15", "redis_version:6.2.7", true),
        ("redis_version:7.2.4\r\nvalkey_version:9.0.0", "redis_version:7.2.4", true),
        ("redis_version:8.6.2", "redis_version:7.0.15", true),
        ("redis_version:8.6.2", "redis_version:8.4.0", true),
        ("redis_version:8.6.2", "redis_version:7.2.4\r\nvalkey_version:9.1.2", true),
        ("redis_version:6.2.7", "redis_version:7.0.15", false),
        ("redis_version:7.0.15", "redis_version:8.6.2", false),
        ("redis_version:8.6.2", "redis_version:255.255.255", false),
        ("redis_version:7.0.15", "redis_version:7.2.4\r\nvalkey_version:9.1.2", false),
        ("redis_version:7.2.4", "redis_version:7.2.4\r\nvalkey_version:8.1.0", false),
        ("redis_version:7.2.4", "redis_version:8.2.0", false),
    ] {
        let scene = Scene::new().await;
        for (node, version) in [(0, source), (1, target)] {
            let info = format!("cluster_enabled:1\r\n{version}\r\n");
            let reply = format!("${}\r\n{info}\r\n", info.len());
            scene.cluster.node(node).next("INFO", Act::Reply(reply.into_bytes()));
        }
        let moved = scene.run().await;
        if !is_refused {
            moved.unwrap_or_else(|failed| panic!("{source}, {target}: {failed}"));
            scene.expect_moved(target);
            continue;
        }
        let refused = moved.expect_err(source);
        let is_told =
            matches!(&refused, MoveError::Refused(why) if why[0].contains("its server is older"));
        assert!(is_told, "{source}, {target}: {refused}");
        let seen = [0, 1].map(|node| scene.cluster.node(node).seen()).concat();
        let changes = ["CLUSTER SETSLOT", "MIGRATE", "CONFIG SET"];
        let is_change = |line: &String| changes.iter().any(|change| line.starts_with(change));
        assert!(!seen.iter().any(is_change), "{source}, {target}: {seen:?}");
    }
}

#[tokio::test]
async fn a_link_that_stays_broken_is_given_up() {
    let mut scene = Scene::new().await;
    scene.options.patience = Duration::from_secs(30);
    scene.cluster.node(0).always("MIGRATE", "IOERR error or timeout writing to target instance");
    let failed = scene.run().await.expect_err("it cannot be moved");
    assert!(matches!(failed, MoveError::Paused(_)), "{failed}");
    assert_eq!(scene.sent(), 6, "five more times");
}

#[tokio::test]
async fn a_transfer_is_as_small_and_as_short_as_is_asked_for() {
    let mut scene = Scene::new().await;
    let (batch, transfer) = (7, Some(Duration::from_millis(1234)));
    let max_block = Duration::from_secs(10);
    scene.options = MoveOptions { batch, transfer, max_block, ..scene.options };
    scene.run().await.expect("it is moved");
    scene.expect_moved("few at a time");
    assert_eq!(scene.sent(), KEYS.div_ceil(7));
    let seen = scene.cluster.node(0).seen();
    let mut sent = seen.iter().filter(|line| line.starts_with("MIGRATE"));
    assert!(sent.all(|line| line.contains(" 0 1234 ")), "{seen:?}");
}

/// Keys that are counted and not there, as expired ones are while clients are paused.
#[tokio::test]
async fn keys_that_are_not_there_are_not_spun_on() {
    let scene = Scene::new().await;
    for _ in 0..5 {
        scene.cluster.node(0).next("MIGRATE", Act::Reply(b"+NOKEY\r\n".to_vec()));
    }
    scene.run().await.expect("it is moved");
    scene.expect_moved("NOKEY");
    let scene = Scene::new().await;
    let reply = || Act::Reply(b"+NOKEY\r\n".to_vec());
    (0..10_000).for_each(|_| scene.cluster.node(0).next("MIGRATE", reply()));
    let failed = scene.run().await.expect_err("it is not moved");
    assert!(failed.to_string().contains("that are not there"), "{failed}");
    assert!(scene.sent() < 500, "{} times", scene.sent());
}

#[tokio::test]
async fn connections_that_break_are_made_anew() {
    for act in [|| Act::Close, || Act::RunAndClose] {
        for request in ["MIGRATE", "MEMORY", "CLUSTER"] {
            let scene = Scene::new().await;
            let node = scene.cluster.node(0);
            // The first ones are those of the preflight, which may fail.
            match request {
                "CLUSTER" => {
                    let slot = Slot::of(TAG.as_bytes());
                    node.next(&format!("=CLUSTER GETKEYSINSLOT {slot} 1000"), act());
                }
                _ => node.next(request, act()),
            }
            scene.run().await.unwrap_or_else(|failed| panic!("{request}: {failed}"));
            scene.expect_moved(request);
        }
    }
}

/// Errors of `SETSLOT`, by who answers what.
#[tokio::test]
async fn slots_that_cannot_be_set_are_looked_at_again() {
    let slot = Slot::of(TAG.as_bytes());
    let (source, target) = (format!("{:040x}", 1), format!("{:040x}", 2));
    for (node, state, peer, error) in [
        (1, "IMPORTING", &source, "ERR I don't know about node 1"),
        (1, "IMPORTING", &source, "ERR I'm already the owner of hash slot 1"),
        (0, "MIGRATING", &target, "ERR I'm not the owner of hash slot 1"),
        (0, "MIGRATING", &target, "ERR Target node is not a master"),
        (
            0,
            "NODE",
            &target,
            "ERR Can't assign hashslot 1 to a different node while I still hold keys for this hash slot.",
        ),
        (1, "NODE", &target, "NOREPLICAS Not enough good replicas to write."),
    ] {
        let scene = Scene::new().await;
        let line = format!("=CLUSTER SETSLOT {slot} {state} {peer}");
        scene.cluster.node(node).next(&line, Act::error(error));
        scene.run().await.unwrap_or_else(|failed| panic!("{error}: {failed}"));
        scene.expect_moved(error);
        assert_eq!(scene.setbacks.borrow().len(), 1, "{error}: {:?}", scene.setbacks.borrow());
    }
    // One that has become a replica of the target with its last slot knows who owns it.
    let scene = Scene::new().await;
    let line = format!("=CLUSTER SETSLOT {slot} NODE {target}");
    scene.cluster.node(0).next(&line, Act::error("ERR Please use SETSLOT only with masters."));
    scene.run().await.expect("it is moved");
    scene.expect_moved("a replica");
    assert!(scene.setbacks.borrow().is_empty(), "{:?}", scene.setbacks.borrow());
}
