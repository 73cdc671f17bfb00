//! Requests that a node did not run and that are tried again a little later: `TRYAGAIN`, `CLUSTERDOWN`, `LOADING`, …

use std::cell::{Cell, RefCell};
use std::collections::BinaryHeap;
use std::rc::Rc;

use tokio::sync::Notify;
use tokio::time::{Duration, Instant, sleep_until};

use super::lane::Parcel;
use super::pool::Pool;
use crate::refusal::Refusal;

/// Requests waiting for their next attempt.
#[derive(Debug, Default)]
pub(super) struct Retries {
    waiting: RefCell<BinaryHeap<Waiting>>,
    count: RefCell<u64>,
    /// Bytes of the waiting requests.
    bytes: Cell<usize>,
    changed: Notify,
}

#[derive(Debug)]
struct Waiting {
    due: Instant,
    /// Keeps requests that are due together in the order they came.
    number: u64,
    parcel: Parcel,
    last_word: Refusal,
}

impl Retries {
    /// Whether a request of this size may wait when `most` bytes of them may; one always may.
    pub(super) fn has_room(&self, size: usize, most: usize) -> bool {
        let bytes = self.bytes.get();
        bytes == 0 || bytes + size <= most
    }

    /// Whether no request waits.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    /// Puts a request aside until it is due; `last_word` is for the client if it has no more time then.
    pub(super) fn put(&self, parcel: Parcel, wait: Duration, last_word: Refusal) {
        self.bytes.set(self.bytes.get() + parcel.bytes.len());
        let mut count = self.count.borrow_mut();
        *count += 1;
        self.waiting.borrow_mut().push(Waiting {
            due: Instant::now() + wait,
            number: *count,
            parcel,
            last_word,
        });
        self.changed.notify_one();
    }

    /// Sends requests again as they fall due, for as long as the worker lives.
    pub(super) async fn run(pool: Rc<Pool>) {
        loop {
            let due = pool.retries.waiting.borrow().peek().map(|next| next.due);
            match due {
                None => pool.retries.changed.notified().await,
                Some(due) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = pool.retries.changed.notified() => continue,
                    }
                    for (parcel, last_word) in pool.retries.take_due() {
                        pool.try_again(parcel, last_word);
                    }
                }
            }
        }
    }

    fn take_due(&self) -> Vec<(Parcel, Refusal)> {
        let now = Instant::now();
        let mut waiting = self.waiting.borrow_mut();
        let mut due = Vec::new();
        while waiting.peek().is_some_and(|next| next.due <= now) {
            due.extend(waiting.pop().map(|next| (next.parcel, next.last_word)));
        }
        for (parcel, _) in &due {
            self.bytes.set(self.bytes.get() - parcel.bytes.len());
        }
        due
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (other.due, other.number).cmp(&(self.due, self.number))
    }
}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}
