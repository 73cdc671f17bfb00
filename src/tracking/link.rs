//! One connection to one primary that tells of every key that changes there.

use std::cell::RefCell;
use std::convert::Infallible;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::{Tracker, notice};
use crate::backend::Inlet;
use crate::cluster::Address;
use crate::net::Stream;
use crate::refusal::Refusal;
use crate::resp::Protocol;

/// First wait before a node that could not be reached is tried again; doubled up to the longest.
const PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(640);
const TRACK: &[u8] = b"*4\r\n$6\r\nCLIENT\r\n$8\r\nTRACKING\r\n$2\r\nON\r\n$5\r\nBCAST\r\n";

/// The connection of one tracker to one node.
#[derive(Debug)]
pub(super) struct Link {
    address: Address,
    state: RefCell<State>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum State {
    /// Changes are not told.
    Down,
    /// Changes are told.
    Up,
    /// The node will not tell, and says why.
    Refused(Refusal),
}

impl Link {
    pub(super) fn new(address: Address) -> Rc<Self> {
        Rc::new(Self { address, state: RefCell::new(State::Down) })
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Keeps the connection until it is aborted.
    pub(super) async fn run(self: Rc<Self>, tracker: Rc<Tracker>) {
        let (mut pause, stats) = (PAUSE, Arc::clone(&tracker.pool.stats));
        loop {
            match tracker.pool.connect(&self.address, Protocol::Resp3).await {
                Ok(stream) => {
                    let Err(error) = self.serve(&tracker, stream).await;
                    if self.state() == State::Up {
                        pause = PAUSE;
                        *self.state.borrow_mut() = State::Down;
                        stats.tracking_links_lost.add(1);
                        tracing::info!(node = %self.address, %error, "a connection that tells of changes is lost");
                        tracker.gap();
                    }
                }
                Err(error) => {
                    stats.failed_connections.add(1);
                    if error.kind() == io::ErrorKind::Other {
                        self.refused(&tracker, Refusal::text(format!("ERR proxy: {error}")));
                    }
                }
            }
            tracker.pool.look_again().await;
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn refused(&self, tracker: &Tracker, refusal: Refusal) {
        *self.state.borrow_mut() = State::Refused(refusal);
        tracker.news.notify_waiters();
    }

    /// Listens to the node until the connection is lost.
    async fn serve(&self, tracker: &Rc<Tracker>, mut stream: Stream) -> io::Result<Infallible> {
        stream.send(TRACK).await?;
        let take = |frame| match notice::read(&frame) {
            Some(changed) => Ok(tracker.changed(&changed)),
            None => self.answered(tracker, &frame).map(|()| 0),
        };
        Inlet::default().listen(&mut stream, &tracker.pool, take).await
    }

    /// The node has answered what it was asked first, or a ping.
    fn answered(&self, tracker: &Tracker, reply: &[u8]) -> io::Result<()> {
        if self.state() == State::Up {
            return Ok(());
        }
        if reply.first() == Some(&b'-') {
            let text = String::from_utf8_lossy(reply);
            let text = text.trim_start_matches('-').trim_end().to_owned();
            self.refused(tracker, Refusal::LastWord(text.clone()));
            return Err(io::Error::other(text));
        }
        *self.state.borrow_mut() = State::Up;
        // What changed before was not told.
        tracker.gap();
        Ok(())
    }
}
