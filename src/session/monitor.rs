//! `MONITOR`: what the clients of all workers ask for, shown as it is sent on.
//!
//! Every worker writes a line per request to the queue of each client that monitors. A queue that is full loses lines,
//! which are counted: nobody waits for those who look on.

use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::connection::Session;
use super::{Message, Shared};
use crate::local::shown;
use crate::replies::Replies;
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::Route;

/// Most lines that wait for a client that monitors.
const QUEUE: usize = 1024;
/// Lines taken from the queue at a time.
const BATCH: usize = 64;

impl Session {
    /// Shows the client everything from now on.
    pub(super) fn monitor(&mut self) {
        self.replies.answer(|out| write::simple(out, "OK"));
        if self.monitoring.is_some() {
            return;
        }
        self.client.borrow_mut().monitors = true;
        let (lines, queue) = channel(QUEUE);
        for worker in &self.shared.workers {
            // A worker that is gone has no clients.
            let _ = worker.send(Message::Monitor(lines.clone()));
        }
        let (shared, replies) = (Rc::clone(&self.shared), self.replies.clone());
        let task = tokio::task::spawn_local(show(shared, replies, queue));
        self.monitoring = Some(task.abort_handle());
    }

    /// Shows the client no more.
    pub(super) fn end_monitor(&mut self) {
        if let Some(task) = self.monitoring.take() {
            task.abort();
            self.client.borrow_mut().monitors = false;
        }
    }

    /// The line that those who monitor see of a request; none of what is an administrator's, or refused.
    #[cold]
    pub(super) fn monitor_line(&self, request: &Request<'_>) -> Option<Bytes> {
        if request.is_empty() {
            return None;
        }
        let decision = self.decide(request);
        let is_shown = !decision.admin && !matches!(decision.route, Route::Refuse(_));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_us = u64::try_from(now.as_micros()).unwrap_or(0);
        let peer = self.client.borrow().peer;
        is_shown.then(|| shown::line(request, peer, unix_us).into())
    }
}

impl Shared {
    /// Somebody wants to see what the clients of this worker ask for.
    pub fn add_monitor(&self, lines: Sender<Bytes>) {
        self.monitors.borrow_mut().push(lines);
        self.is_monitored.set(true);
    }

    /// Shows a line to everybody who monitors.
    pub(super) fn show(&self, line: &Bytes) {
        self.monitors.borrow_mut().retain(|lines| match lines.try_send(line.clone()) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.proxy.monitor_lost.fetch_add(1, Relaxed);
                true
            }
            Err(TrySendError::Closed(_)) => false,
        });
        self.is_monitored.set(!self.monitors.borrow().is_empty());
    }
}

/// Passes lines on to a client as long as it takes them.
async fn show(shared: Rc<Shared>, replies: Replies, mut queue: Receiver<Bytes>) {
    let mut lines = Vec::with_capacity(BATCH);
    while queue.recv_many(&mut lines, BATCH).await > 0 {
        if replies.is_full(usize::MAX, shared.options.output_limit) {
            shared.proxy.monitor_lost.fetch_add(lines.len() as u64, Relaxed);
            lines.clear();
            continue;
        }
        replies.answer(|out| lines.iter().for_each(|line| out.extend_from_slice(line)));
        replies.wake();
        lines.clear();
    }
}
