//! Slots that the servers move by themselves, and what the mover does when they do not. What the nodes answer here is what
//! a Valkey 9.1.2 and a Redis 8.6.2 were seen to answer.

use std::cell::RefCell;
use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;

use slotway::cluster::{Address, NodeId, Slot};
use slotway::manage::access::Access;
use slotway::manage::journal::{self, Ending, Journal};
use slotway::manage::mover::{
    self, Event, Method, MoveError, MoveOptions, Prepared, Reins, Summary,
};
use slotway::manage::plan::Move;
use slotway::manage::view::ClusterView;
use tokio::process::Command;

use crate::fake::{Act, Cluster};
use crate::migrations::{Fate, Grammar};

const GRAMMARS: [Grammar; 2] = [Grammar::Valkey, Grammar::Redis];
/// What Valkey says where clients write much to slots that are on their way (valkey-io/valkey issue 4545).
const CRLF: &str = "Protocol error: invalid CRLF in request";

/// A cluster of two nodes, and what a move of the first slots of the first one needs.
struct Scene {
    cluster: Cluster,
    folder: tempfile::TempDir,
    options: MoveOptions,
    reins: Reins,
    events: RefCell<Vec<Event>>,
}

impl Scene {
    async fn new(grammar: Grammar, method: Method) -> Self {
        let cluster = Cluster::start(2, 0);
        // The nodes begin to listen.
        tokio::task::yield_now().await;
        {
            let mut model = cluster.model();
            model.migrations.known = vec![(0, grammar), (1, grammar)];
            for slot in 0..8 {
                model.stores[0].set(&tag(slot), "v");
            }
        }
        let folder = tempfile::tempdir().expect("a folder");
        let options =
            MoveOptions { method, patience: Duration::from_secs(2), ..MoveOptions::default() };
        Self { cluster, folder, options, reins: Reins::default(), events: RefCell::default() }
    }

    fn fated(self, fates: impl IntoIterator<Item = Fate>) -> Self {
        self.cluster.model().migrations.fates.extend(fates);
        self
    }

    fn id(&self, node: usize) -> NodeId {
        NodeId(self.cluster.model().truth.members[node].id.clone().into())
    }

    async fn prepare(&self, slots: Range<usize>) -> Result<Prepared, MoveError> {
        let access = Access::default();
        let entry = Address::parse(&self.cluster.node(0).address(), None).expect("an address");
        let view = ClusterView::gather(&entry, &access).await?;
        let slots = slots.filter_map(Slot::new).collect();
        let moves = vec![Move { from: self.id(0), to: self.id(1), slots }];
        mover::prepare(moves, &view, &access, &self.options).await
    }

    async fn run(&self, slots: Range<usize>) -> Result<Summary, MoveError> {
        let prepared = self.prepare(slots).await?;
        let mut journal = Journal::begin(self.folder.path(), prepared.begun())?;
        self.go(prepared, &mut journal).await
    }

    async fn go(&self, prepared: Prepared, journal: &mut Journal) -> Result<Summary, MoveError> {
        let mut tell = |event| self.events.borrow_mut().push(event);
        prepared.run(journal, &self.reins, &mut tell).await
    }

    async fn resume(&self) -> Result<Summary, MoveError> {
        let id = journal::records(self.folder.path()).expect("a folder")[0].id.clone();
        let (mut journal, record) = Journal::resume(self.folder.path(), &id)?;
        let prepared = mover::prepare_again(&record, &Access::default(), &self.options).await?;
        self.go(prepared, &mut journal).await
    }

    /// The slots of the migrations that were begun.
    fn begun(&self) -> Vec<String> {
        self.cluster.model().migrations.begun.clone()
    }

    /// How many of the first slots the second node owns; the keys have to be where their slots are.
    fn arrived(&self, slots: Range<usize>) -> usize {
        let model = self.cluster.model();
        for slot in 0..8 {
            let owner = model.truth.owners[slot].expect("an owner");
            assert_eq!(model.stores[owner].keys_of(slot), [tag(slot).into_bytes()], "slot {slot}");
        }
        assert!(model.truth.open.is_empty(), "{:?}", model.truth.open);
        slots.filter(|slot| model.truth.owners[*slot] == Some(1)).count()
    }

    /// Whether keys were moved one by one.
    fn went_by_keys(&self) -> bool {
        self.cluster.node(0).seen().iter().any(|line| line.starts_with("MIGRATE"))
    }

    fn told(&self, concerns: impl Fn(&Event) -> bool) -> usize {
        self.events.borrow().iter().filter(|event| concerns(event)).count()
    }

    /// Calls the program.
    async fn call(&self, line: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.arg("cluster").args(line.split(' ')).kill_on_drop(true).stdin(Stdio::null());
        let output = command.arg("--state-dir").arg(self.folder.path()).output().await;
        let output = output.expect("the program");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code().expect("no signal"), String::from_utf8_lossy(&text).into_owned())
    }
}

/// A key of a slot.
fn tag(slot: usize) -> String {
    let mut tags = (0..).map(|n| format!("t{n}"));
    tags.find(|tag| Slot::of(tag.as_bytes()).index() == slot).expect("there are many tags")
}

#[tokio::test]
async fn scenario_20_the_servers_move_slots_in_both_grammars() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await;
        let summary =
            scene.run(0..600).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!((summary.atomic, summary.progress.slots, summary.progress.keys), (600, 600, 8));
        assert_eq!(scene.begun(), ["0-511", "512-599"], "{grammar:?}");
        assert_eq!(scene.arrived(0..600), 600);
        assert!(!scene.went_by_keys() && summary.suspicions.is_empty());
        assert_eq!(scene.told(|event| matches!(event, Event::Setback { .. })), 0);
        let stages = scene.told(|event| matches!(event, Event::Stage { .. }));
        assert!(stages >= 2, "{:?}", scene.events.borrow());
        let record = &journal::records(scene.folder.path()).expect("a folder")[0];
        assert_eq!((record.sent.len(), record.ended), (2, Some(Ending::Completed)));
    }
}

/// A status that nobody keeps any more: the owner decides.
#[tokio::test]
async fn scenario_20_a_status_that_is_trimmed_or_lost() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Asm).await.fated([Fate::SucceedUnseen]);
        scene.run(0..8).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!((scene.begun().len(), scene.arrived(0..8)), (1, 8), "{grammar:?}");
        let scene = Scene::new(grammar, Method::Asm).await.fated([Fate::Forgotten]);
        scene.run(0..8).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!(scene.begun(), ["0-7", "0-3", "4-7"], "{grammar:?}");
        assert_eq!(scene.arrived(0..8), 8);
    }
}

#[tokio::test]
async fn scenario_44_what_fails_once_succeeds_in_halves() {
    for grammar in GRAMMARS {
        for fate in [Fate::Fail(CRLF), Fate::Cancelled] {
            let scene = Scene::new(grammar, Method::Auto).await.fated([fate]);
            let summary = scene.run(0..8).await.expect("it is moved");
            assert_eq!(scene.begun(), ["0-7", "0-3", "4-7"], "{grammar:?}");
            assert_eq!((scene.arrived(0..8), summary.atomic, scene.went_by_keys()), (8, 8, false));
            assert_eq!(scene.told(|event| matches!(event, Event::Setback { .. })), 1);
        }
    }
}

#[tokio::test]
async fn scenario_44_what_fails_three_times_goes_key_by_key() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await;
        scene.cluster.model().migrations.usual = Fate::Fail(CRLF);
        let summary = scene.run(0..600).await.expect("it is moved");
        assert_eq!(scene.begun(), ["0-511", "0-255", "0-127"], "{grammar:?}");
        assert_eq!((scene.arrived(0..600), summary.atomic), (600, 0));
        assert!(scene.went_by_keys());
        let is_told =
            |event: &Event| matches!(event, Event::KeyByKey { why, .. } if why.contains(CRLF));
        assert_eq!(scene.told(is_told), 1);
    }
}

#[tokio::test]
async fn scenario_44_forced_it_ends_and_says_how_far_it_came() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Asm).await.fated([Fate::Succeed]);
        scene.cluster.model().migrations.usual = Fate::Fail(CRLF);
        let failed = scene.run(0..600).await.expect_err("it cannot be moved");
        assert!(matches!(failed, MoveError::Paused(_)), "{failed}");
        let text = failed.to_string();
        assert!(
            text.contains(CRLF) && text.contains("(512 of 600 slots have been moved)"),
            "{text}"
        );
        assert_eq!((scene.arrived(0..600), scene.went_by_keys()), (512, false));
        scene.cluster.model().migrations.usual = Fate::Succeed;
        let summary = scene.resume().await.expect("it goes on");
        assert_eq!((scene.arrived(0..600), summary.atomic), (600, 600));
    }
}

/// valkey-cli 9.1 ends with 0 here, and its rebalance goes on as if the slots had moved.
#[tokio::test]
async fn scenario_44_a_reshard_that_failed_does_not_exit_with_0() {
    let scene = Scene::new(Grammar::Valkey, Method::Asm).await;
    scene.cluster.model().migrations.usual = Fate::Fail(CRLF);
    let (entry, from, to) = (scene.cluster.node(0).address(), scene.id(0), scene.id(1));
    let line = format!(
        "reshard {entry} --cluster-from {from} --cluster-to {to} --cluster-slots 8 --cluster-yes \
         --cluster-use-atomic-slot-migration"
    );
    let (code, text) = scene.call(&line).await;
    assert_eq!(code, 4, "{text}");
    for part in [CRLF, "(0 of 8 slots have been moved)", "slotway cluster resume"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    assert_eq!(scene.arrived(0..8), 0);
}

#[tokio::test]
async fn scenario_45_a_failure_after_which_the_target_owns_the_slots_is_suspicious() {
    const SAID: &str = "migration may have succeeded with lost writes";
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await.fated([Fate::LoseWrites(SAID)]);
        let summary = scene.run(0..8).await.expect("the slots have moved");
        assert_eq!((scene.begun().len(), scene.arrived(0..8)), (1, 8), "it is not tried again");
        assert_eq!(summary.suspicions.len(), 1);
        assert!(summary.suspicions[0].said.contains(SAID), "{:?}", summary.suspicions);
        assert_eq!(scene.told(|event| matches!(event, Event::Suspicious(_))), 1);
        let record = &journal::records(scene.folder.path()).expect("a folder")[0];
        assert_eq!(record.suspicions, summary.suspicions);
    }
    let scene = Scene::new(Grammar::Valkey, Method::Auto).await.fated([Fate::LoseWrites(SAID)]);
    let (entry, from, to) = (scene.cluster.node(0).address(), scene.id(0), scene.id(1));
    let line = format!("reshard {entry} --from {from} --to {to} --slots 8 --yes");
    let (code, text) = scene.call(&line).await;
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("[WARNING]") && text.contains(SAID), "{text}");
}

#[tokio::test]
async fn a_target_that_is_full_pauses_the_job() {
    const OOM: &str = "Ran out of memory (OOM) during slot import";
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await.fated([Fate::Fail(OOM)]);
        let failed = scene.run(0..8).await.expect_err("there is no room");
        assert!(matches!(&failed, MoveError::Paused(why) if why.contains(OOM)), "{failed}");
        assert_eq!((scene.begun().len(), scene.went_by_keys(), scene.arrived(0..8)), (1, false, 0));
    }
}

#[tokio::test]
async fn what_takes_too_long_is_cancelled() {
    for grammar in GRAMMARS {
        let mut scene = Scene::new(grammar, Method::Asm).await.fated([Fate::Linger]);
        scene.options.patience = Duration::from_millis(300);
        scene.run(0..8).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!(scene.begun(), ["0-7", "0-3", "4-7"]);
        assert_eq!(scene.arrived(0..8), 8);
        assert_eq!(scene.cluster.model().migrations.cancelled, 1);
    }
}

/// What was told to be cancelled is looked at until it has ended, and nothing is begun anew before.
#[tokio::test]
async fn what_is_cancelled_has_ended_before_anything_else_is_begun() {
    for grammar in GRAMMARS {
        let mut scene = Scene::new(grammar, Method::Asm).await.fated([Fate::Outlast(5)]);
        scene.options.patience = Duration::from_millis(300);
        scene.run(0..8).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!(scene.begun(), ["0-7", "0-3", "4-7"], "{grammar:?}");
        assert_eq!((scene.arrived(0..8), scene.went_by_keys()), (8, false));
        let stages = scene.told(
            |event| matches!(event, Event::Setback { what, .. } if what.contains("not within")),
        );
        assert_eq!(stages, 1, "{grammar:?}: {:?}", scene.events.borrow());
    }
}

/// Neither is said to be stopped what still runs, nor does anybody send its keys.
#[tokio::test]
async fn what_cannot_be_cancelled_pauses_the_job() {
    for grammar in GRAMMARS {
        for method in [Method::Auto, Method::Asm] {
            let mut scene = Scene::new(grammar, method).await.fated([Fate::Outlast(u32::MAX)]);
            scene.options.patience = Duration::from_millis(300);
            let failed = scene.run(0..8).await.expect_err("it still runs");
            let is_told =
                matches!(&failed, MoveError::Paused(why) if why.contains("cannot be cancelled"));
            assert!(is_told, "{grammar:?}: {failed}");
            assert_eq!(
                (scene.begun().len(), scene.went_by_keys(), scene.arrived(0..8)),
                (1, false, 0)
            );
        }
        let mut scene = Scene::new(grammar, Method::Auto).await.fated([Fate::Outlast(u32::MAX)]);
        scene.options.patience = Duration::from_millis(300);
        let stopped = interrupted(&scene, 0..8, || scene.reins.halt()).await;
        let is_told =
            matches!(&stopped, Err(MoveError::Paused(why)) if why.contains("cannot be cancelled"));
        assert!(is_told, "{grammar:?}: {stopped:?}");
    }
}

/// Runs until slots are on their way, and does something then.
async fn interrupted(
    scene: &Scene,
    slots: Range<usize>,
    interrupt: impl Fn(),
) -> Result<Summary, MoveError> {
    let prepared = scene.prepare(slots).await?;
    let mut journal = Journal::begin(scene.folder.path(), prepared.begun())?;
    let mut tell = |event| {
        if matches!(event, Event::Opened(_)) {
            interrupt();
        }
    };
    prepared.run(&mut journal, &scene.reins, &mut tell).await
}

/// Ctrl-C once: what runs is waited for.
#[tokio::test]
async fn told_to_finish_it_waits_for_the_migration() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await;
        let stopped = interrupted(&scene, 0..600, || scene.reins.finish()).await;
        assert!(matches!(stopped, Err(MoveError::Stopped(88))), "{grammar:?}: {stopped:?}");
        assert_eq!((scene.arrived(0..600), scene.cluster.model().migrations.cancelled), (512, 0));
    }
}

/// Ctrl-C twice.
#[tokio::test]
async fn told_to_stop_it_cancels_the_migration() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await.fated([Fate::Linger]);
        let stopped = interrupted(&scene, 0..600, || scene.reins.halt()).await;
        assert!(matches!(stopped, Err(MoveError::Halted)), "{grammar:?}: {stopped:?}");
        assert_eq!((scene.arrived(0..600), scene.cluster.model().migrations.cancelled), (0, 1));
    }
}

/// The tool is killed: the servers go on without it, and it finds that when it comes back.
#[tokio::test]
async fn a_migration_that_runs_already_is_waited_for() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Auto).await.fated([Fate::Linger]);
        let begun = tokio::sync::Notify::new();
        tokio::select! {
            moved = interrupted(&scene, 0..8, || begun.notify_one()) => panic!("{moved:?}"),
            () = begun.notified() => {}
        }
        let foreign = scene.prepare(100..200).await.expect_err("somebody is at it");
        assert!(foreign.to_string().contains("by somebody else"), "{foreign}");
        scene.cluster.model().migrations.decide(&Fate::Succeed);
        let summary = scene.resume().await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!((scene.begun().len(), scene.arrived(0..8), summary.atomic), (1, 8, 8));
    }
}

#[tokio::test]
async fn what_stands_in_the_way_of_the_start_is_waited_for() {
    for (grammar, node, start, error) in [
        (
            Grammar::Redis,
            1,
            "=CLUSTER MIGRATION IMPORT 0 7",
            "ERR another ASM task is already in progress",
        ),
        (
            Grammar::Redis,
            1,
            "=CLUSTER MIGRATION IMPORT 0 7",
            "ERR trim in progress for some of the slots",
        ),
        (Grammar::Valkey, 0, "", "ERR I am already migrating slot 5."),
    ] {
        let scene = Scene::new(grammar, Method::Asm).await;
        let push = format!("=CLUSTER MIGRATESLOTS SLOTSRANGE 0 7 NODE {}", scene.id(1));
        let start = if start.is_empty() { &push } else { start };
        scene.cluster.node(node).next(start, Act::error(error));
        scene.run(0..8).await.unwrap_or_else(|failed| panic!("{error}: {failed}"));
        assert_eq!((scene.begun(), scene.arrived(0..8)), (vec!["0-7".to_owned()], 8), "{error}");
        let is_told =
            |event: &Event| matches!(event, Event::Setback { what, .. } if what.contains(error));
        assert_eq!(scene.told(is_told), 1, "{error}");
    }
}

#[tokio::test]
async fn connections_that_break_do_not_begin_it_twice() {
    for grammar in GRAMMARS {
        let scene = Scene::new(grammar, Method::Asm).await.fated([Fate::Linger]);
        let model = || scene.cluster.model();
        let cut = || {
            scene.cluster.nodes().iter().for_each(crate::fake::Node::drop_connections);
            model().migrations.decide(&Fate::Succeed);
        };
        interrupted(&scene, 0..8, cut).await.unwrap_or_else(|error| panic!("{grammar:?}: {error}"));
        assert_eq!((scene.begun().len(), scene.arrived(0..8)), (1, 8));
    }
}

#[tokio::test]
async fn one_end_that_does_not_know_it_is_enough_to_go_key_by_key() {
    for grammar in GRAMMARS {
        for lacking in [0, 1] {
            let scene = Scene::new(grammar, Method::Auto).await;
            scene.cluster.model().migrations.known.retain(|(node, _)| *node != lacking);
            let summary = scene.run(0..8).await.expect("it is moved");
            assert_eq!((summary.atomic, scene.arrived(0..8), scene.begun().len()), (0, 8, 0));
        }
    }
    let scene = Scene::new(Grammar::Valkey, Method::Asm).await;
    scene.cluster.model().migrations.known.truncate(1);
    let refused = scene.run(0..8).await.expect_err("the target does not know it");
    let text = refused.to_string();
    assert!(matches!(refused, MoveError::Refused(_)), "{text}");
    assert!(
        text.contains("CLUSTER GETSLOTMIGRATIONS") && text.contains("unknown subcommand"),
        "{text}"
    );
    let scene = Scene::new(Grammar::Valkey, Method::Legacy).await;
    assert_eq!(scene.run(0..8).await.expect("it is moved").atomic, 0);
    assert_eq!((scene.arrived(0..8), scene.begun().len()), (8, 0));
}
