//! Replies that wait for the rest of their batch, and the end of their patience.
//!
//! The requests that came in one read are answered in one write: the nodes answer a pipeline's requests some microseconds
//! apart, and a write for the share of each of them costs more than all else that is done for the requests. But an early
//! reply does not wait for a late one beyond the second look (`press`) at those that wait: two to four milliseconds.

use std::cell::RefCell;
use std::fmt;
use std::task::{Context, Poll, Waker};

use super::Replies;

/// The clients of one worker that have replies ready which wait for more.
#[derive(Default)]
pub struct Patience(RefCell<Waiting>);

#[derive(Default)]
struct Waiting {
    /// Since the last look.
    fresh: Vec<Replies>,
    /// Since the one before it.
    old: Vec<Replies>,
    /// Who is to look.
    looker: Option<Waker>,
}

impl fmt::Debug for Patience {
    /// Without the clients, each of which shows its worker's patience.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patience").finish_non_exhaustive()
    }
}

impl Patience {
    /// Takes note of replies that have begun to wait.
    pub(super) fn add(&self, replies: Replies) {
        let mut waiting = self.0.borrow_mut();
        waiting.fresh.push(replies);
        let looker = waiting.looker.take();
        drop(waiting);
        if let Some(looker) = looker {
            looker.wake();
        }
    }

    /// Ready when replies wait.
    pub fn poll_waiting(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut waiting = self.0.borrow_mut();
        if waiting.fresh.is_empty() && waiting.old.is_empty() {
            waiting.looker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }

    /// Has those sent that have waited since before the last look.
    pub fn press(&self) {
        let mut pressed = {
            let mut waiting = self.0.borrow_mut();
            let fresh = std::mem::take(&mut waiting.fresh);
            std::mem::replace(&mut waiting.old, fresh)
        };
        for replies in pressed.drain(..) {
            replies.press();
        }
        // The list is used again.
        let mut waiting = self.0.borrow_mut();
        if waiting.fresh.capacity() == 0 {
            waiting.fresh = pressed;
        }
    }
}
