//! Moves as the tests make them: prepared from what the nodes say, run, cut off, gone on with.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use slotway::backend::Control;
use slotway::cluster::{Address, NodeId, Slot};
use slotway::manage::access::Access;
use slotway::manage::journal::{self, Journal};
use slotway::manage::mover::{
    self, Event, Method, MoveError, MoveOptions, Prepared, Reins, Summary,
};
use slotway::manage::plan::Move;
use slotway::manage::view::ClusterView;
use tempfile::TempDir;

use crate::cluster::{Cluster, Node};

/// Keys that are written to a node in one go.
const TOGETHER: usize = 500;

/// What jobs are done with: the options, and a folder for their journals.
pub(crate) struct Office {
    pub(crate) options: MoveOptions,
    pub(crate) access: Access,
    folder: TempDir,
}

impl Office {
    /// One that sends key after key, whatever servers there are, and gives up on nodes that are gone after a while that a test
    /// can wait.
    pub(crate) fn new() -> Self {
        let patience = Duration::from_secs(20);
        let options = MoveOptions { method: Method::Legacy, patience, ..MoveOptions::default() };
        let folder = tempfile::tempdir().expect("a folder");
        Self { options, access: Access::default(), folder }
    }

    pub(crate) async fn view(&self, cluster: &Cluster, node: Node) -> ClusterView {
        let entry = Address::parse(&cluster.address(node), None).expect("an address");
        ClusterView::gather(&entry, &self.access).await.expect("the node answers")
    }

    pub(crate) async fn prepare(
        &self,
        cluster: &Cluster,
        moves: &[(Node, Node, Range<usize>)],
    ) -> Result<Prepared, MoveError> {
        let id = |node: Node| NodeId(cluster.id(node).into());
        let moves = moves.iter().map(|(from, to, slots)| Move {
            from: id(*from),
            to: id(*to),
            slots: slots.clone().filter_map(Slot::new).collect(),
        });
        let moves: Vec<Move> = moves.collect();
        let view = self.view(cluster, 0).await;
        mover::prepare(moves, &view, &self.access, &self.options).await
    }

    /// Begins a job, and tells of what happens; the caller may want it otherwise then.
    pub(crate) async fn run(
        &self,
        cluster: &Cluster,
        moves: &[(Node, Node, Range<usize>)],
        reins: &Reins,
        tell: impl FnMut(Event),
    ) -> Result<Summary, MoveError> {
        self.begin(self.prepare(cluster, moves).await?, reins, tell).await
    }

    /// Begins a job that is told to end when something happens.
    pub(crate) async fn interrupted(
        &self,
        cluster: &Cluster,
        moves: &[(Node, Node, Range<usize>)],
        when: impl Fn(&Event) -> bool,
        how: impl Fn(&Reins),
    ) -> Result<Summary, MoveError> {
        let reins = Reins::default();
        let interrupt = |event| {
            if when(&event) {
                how(&reins);
            }
        };
        self.run(cluster, moves, &reins, interrupt).await
    }

    /// Begins a job that was prepared.
    pub(crate) async fn begin(
        &self,
        prepared: Prepared,
        reins: &Reins,
        mut tell: impl FnMut(Event),
    ) -> Result<Summary, MoveError> {
        let mut journal = Journal::begin(self.folder.path(), prepared.begun())?;
        prepared.run(&mut journal, reins, &mut tell).await
    }

    /// A job that was cut off before it did anything: what the nodes are like then is up to the test.
    pub(crate) async fn cut_off_at_once(
        &self,
        cluster: &Cluster,
        moves: &[(Node, Node, Range<usize>)],
    ) {
        let prepared = self.prepare(cluster, moves).await.expect("nothing speaks against it");
        Journal::begin(self.folder.path(), prepared.begun()).expect("a journal");
    }

    /// Moves slots, which has to succeed.
    pub(crate) async fn moved(
        &self,
        cluster: &Cluster,
        moves: &[(Node, Node, Range<usize>)],
    ) -> Summary {
        let summary = self.run(cluster, moves, &Reins::default(), |_| ()).await;
        summary.unwrap_or_else(|error| panic!("{error}{}", cluster.logs()))
    }

    /// Where its journals are.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Name of the only job that was cut off.
    pub(crate) fn cut_off(&self) -> String {
        let records = journal::records(self.folder.path()).expect("the folder can be read");
        let mut resumable = records.iter().filter(|record| record.is_resumable());
        let id = resumable.next().expect("a job that was cut off").id.clone();
        assert_eq!(resumable.next(), None);
        id
    }

    /// Goes on with the job that was cut off.
    pub(crate) async fn resume(&self, tell: impl FnMut(Event)) -> Result<Summary, MoveError> {
        let mut tell = tell;
        let (mut journal, record) = Journal::resume(self.folder.path(), &self.cut_off())?;
        let prepared = mover::prepare_again(&record, &self.access, &self.options).await?;
        prepared.run(&mut journal, &Reins::default(), &mut tell).await
    }
}

/// A key of a slot, by number.
pub(crate) fn key(tag: &str, number: usize) -> String {
    format!("{{{tag}}}{number}")
}

/// A tag of a slot.
pub(crate) fn tag(slot: usize) -> String {
    let mut tags = (0..).map(|n| format!("t{n}"));
    tags.find(|tag| Slot::of(tag.as_bytes()).index() == slot).expect("there are many tags")
}

pub(crate) async fn control(cluster: &Cluster, node: Node) -> Control {
    let limit = Duration::from_secs(10);
    Control::connect(&cluster.address(node), limit).await.expect("the node listens")
}

/// Writes so many keys of a slot to its owner: key `n` is `n`.
pub(crate) async fn fill(cluster: &Cluster, node: Node, slot: usize, keys: usize) {
    let (tag, mut control) = (tag(slot), control(cluster, node).await);
    let numbers: Vec<usize> = (0..keys).collect();
    for some in numbers.chunks(TOGETHER) {
        let set = |n: &usize| vec!["SET".to_owned(), key(&tag, *n), n.to_string()];
        let replies = control.pipeline(&some.iter().map(set).collect::<Vec<_>>()).await;
        let replies = replies.expect("the node answers");
        let is_ok = |reply| slotway::resp::value::text(reply) == Some("OK");
        assert!(replies.iter().all(is_ok), "{:?}", replies.iter().find(|reply| !is_ok(reply)));
    }
}

/// Number of keys of a slot that a node has.
pub(crate) async fn count(cluster: &Cluster, node: Node, slot: usize) -> usize {
    let reply = cluster.call(node, &["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await;
    let count = slotway::resp::value::integer(&reply).expect("a number");
    usize::try_from(count).expect("a count")
}
