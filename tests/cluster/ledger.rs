//! Clients that know exactly what has to be there: what was acknowledged, and what was there before.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use slotway::resp::value::{self, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, bulk, wire};
use crate::cluster::{Cluster, Node};
use crate::job::control;
use crate::within;

/// Clients that push numbers to lists of some slots through a proxy, and remember which were acknowledged.
pub(crate) struct Ledger {
    pub(crate) lists: Vec<String>,
    stop: watch::Sender<bool>,
    acknowledged: Vec<watch::Receiver<Acknowledged>>,
    writers: JoinSet<()>,
}

/// Numbers by list.
pub(crate) type Acknowledged = BTreeMap<String, BTreeSet<i64>>;

impl Ledger {
    /// One writer for each few lists.
    pub(crate) async fn open(proxy: SocketAddr, lists: Vec<String>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (mut all, mut writers) = (Vec::new(), JoinSet::new());
        for some in lists.chunks(4) {
            let (mut client, some, stopped) =
                (Client::to(proxy).await, some.to_vec(), stopped.clone());
            let (acknowledged, told) = watch::channel(Acknowledged::new());
            writers.spawn(async move {
                let mut numbers = (0_i64..).zip(some.iter().cycle());
                while !*stopped.borrow() {
                    let (number, list) = numbers.next().expect("there are always more");
                    match client.call(&format!("RPUSH {list} {number}")).await {
                        Value::Integer(_) => acknowledged.send_modify(|lists| {
                            lists.entry(list.clone()).or_default().insert(number);
                        }),
                        Value::Error(text) if text.contains("outcome unknown") => {}
                        other => panic!("RPUSH answered {other:?}"),
                    }
                }
            });
            all.push(told);
        }
        Self { lists, stop, acknowledged: all, writers }
    }

    /// Waits until every writer has had so many numbers more acknowledged.
    pub(crate) async fn advance(&mut self, more: usize) {
        let count = |lists: &Acknowledged| lists.values().map(BTreeSet::len).sum::<usize>();
        for told in &mut self.acknowledged {
            let goal = count(&told.borrow()) + more;
            let reached = told.wait_for(|lists| count(lists) >= goal);
            within(Duration::from_secs(30), "writers go on", reached).await.expect("it writes");
        }
    }

    /// What was acknowledged until now.
    pub(crate) fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.iter().flat_map(|told| told.borrow().clone()).collect()
    }

    /// Lets them finish; gives all that was acknowledged.
    pub(crate) async fn close(mut self) -> Acknowledged {
        self.stop.send_replace(true);
        while let Some(ended) = self.writers.join_next().await {
            ended.expect("only what may be was answered");
        }
        self.acknowledged()
    }
}

/// What a node has of lists, no number twice.
pub(crate) async fn held(
    cluster: &Cluster,
    node: Node,
    lists: &[String],
    leave: &str,
) -> Acknowledged {
    let (mut control, mut held) = (control(cluster, node).await, Acknowledged::new());
    for list in lists {
        let requests = [vec![leave], vec!["LRANGE", list, "0", "-1"]];
        let replies = control.pipeline(&requests).await.expect("the node answers");
        let numbers = value::array(&replies[1]).unwrap_or_else(|| panic!("{replies:?}"));
        let set: BTreeSet<i64> = numbers.iter().filter_map(value::integer).collect();
        assert_eq!(set.len(), numbers.len(), "{list} has a number twice");
        held.insert(list.clone(), set);
    }
    held
}

/// Numbers that are in the first and not in the second.
pub(crate) fn missing(from: &Acknowledged, there: &Acknowledged) -> BTreeSet<(String, i64)> {
    let numbers = from.iter().flat_map(|(list, numbers)| numbers.iter().map(move |n| (list, *n)));
    let is_missing = |(list, n): &(&String, i64)| there.get(*list).is_none_or(|t| !t.contains(n));
    numbers.filter(is_missing).map(|(list, n)| (list.clone(), n)).collect()
}

/// Reads keys over and over, each of which has to be what it is called.
pub(crate) struct Reader {
    stop: watch::Sender<bool>,
    task: JoinSet<usize>,
}

impl Reader {
    /// Begins, with the first answers still to come.
    pub(crate) async fn start(proxy: SocketAddr, keys: Vec<String>) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut client = Client::to(proxy).await;
        let gets: Vec<_> = keys.iter().map(|key| wire(&["GET", key])).collect();
        let values: Vec<Value> = keys.iter().map(bulk).collect();
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut rounds = 0;
            while !*stopped.borrow() {
                let replies = client.pipeline(&gets).await;
                let wrong = keys.iter().zip(replies.iter().zip(&values));
                let wrong: Vec<_> = wrong.filter(|(_, (is, should))| is != should).collect();
                assert!(
                    wrong.is_empty(),
                    "round {rounds}: {} wrong: {:?}",
                    wrong.len(),
                    &wrong[..1]
                );
                rounds += 1;
            }
            rounds
        });
        Self { stop, task }
    }

    /// Ends after the round that is under way.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        let rounds = self.task.join_next().await.expect("there is one");
        assert!(rounds.expect("every answer was right") > 0);
    }
}
