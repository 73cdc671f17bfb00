//! The worker's slow log: what the pool noted of slow requests, with what is known of their clients.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::time::Instant;

use super::Shared;
use super::connection::Session;
use crate::backend::Pool;
use crate::local::{shown, slowlog};
use crate::resp::frame::{Limits, RequestFramer};
use crate::resp::request::Request;

/// A command that takes its own time, which is noted if it was long.
pub(super) struct Timed {
    owner: u64,
    wire: Bytes,
    since: Instant,
}

impl Timed {
    /// The command has been answered.
    pub(super) fn end(self, pool: &Pool) {
        let us = u64::try_from(self.since.elapsed().as_micros()).unwrap_or(u64::MAX);
        pool.note_slow(self.owner, us, self.wire);
    }

    /// The command has been answered, and did nothing but wait: that does not count.
    pub(super) fn waited(self, pool: &Pool) {
        pool.note_slow(self.owner, 0, self.wire);
    }
}

impl Session {
    /// A command that begins now.
    pub(super) fn timed(&self, request: &Request<'_>) -> Timed {
        Timed {
            owner: self.client.borrow().id,
            wire: Bytes::copy_from_slice(request.bytes()),
            since: Instant::now(),
        }
    }
}

impl Shared {
    /// Counts a command that was answered here, how long that took, and whether with an error.
    pub(super) fn count_call(
        &self,
        names: (&'static str, &'static str),
        since: std::time::Instant,
        failed: bool,
    ) {
        let us = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
        self.calls.borrow_mut().count(names, us, failed);
    }

    /// Takes up what the pool has noted; a client that has gone since leaves no address.
    pub fn gather_slow(&self) {
        let limits = Limits { args: usize::MAX, ..self.options.limits };
        for slow in self.pool.take_slow() {
            let mut framer = RequestFramer::default();
            if framer.frame(&slow.wire, &limits).is_err() {
                continue;
            }
            let args = shown::arguments(&Request::new(&slow.wire, framer.args()));
            let id = self.proxy.slow_count.fetch_add(1, Relaxed);
            let member = self.roster.find(slow.owner);
            let client = member.as_ref().map(|member| member.client.borrow());
            let entry = slowlog::Entry::new(id, (slow.unix_s, slow.us), &args, client.as_deref());
            slowlog::keep(&mut self.slow.borrow_mut(), entry, self.proxy.slow_max.load(Relaxed));
        }
    }
}
