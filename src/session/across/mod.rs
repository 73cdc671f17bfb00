//! Commands whose keys are in several slots: the proxy does them in steps, each of which one node does.
//!
//! ```text
//!  gather   keys are copied to the slot where the command runs on the copies
//!  carry    keys, members and elements go from one slot to another
//!  first    key by key, stream by stream
//! ```
//! The steps are not one: others see what is between them. But whatever stops them, at worst something is there twice:
//! it is written where it belongs before it is taken from where it was.

mod carry;
mod first;
mod gather;

use std::rc::Rc;

use bytes::Bytes;
use tokio::time::{Duration, Instant, sleep};

use super::Shared;
use super::ask::{Asking, Question, Step, error, odd};
use super::blocking::Vigil;
use super::connection::Session;
use super::slow::Timed;
use crate::cluster::Slot;
use crate::command::across::Across;
use crate::command::{Claim, Nature, Spec, Wait, keys, lookup};
use crate::local::muster::Unblock;
use crate::replies::{Promise, Reply};
use crate::resp::frame::{Progress, ReplyFramer};
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// What such a command is called in errors.
const NAME: &str = "a command with keys in several slots";
/// First pause between two looks of a command that waits; each further one is half as long again.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest pause between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
const READ: Nature = Nature { reads: true, scripted: false, unit: false };

/// One command on its way.
struct Crossing {
    shared: Rc<Shared>,
    asking: Asking,
    protocol: Protocol,
    spec: &'static Spec,
    args: Vec<Bytes>,
    /// Until when it may be tried again.
    deadline: Instant,
}

impl Session {
    /// Does a command whose keys are in several slots; the client's later commands wait until it is done.
    pub(super) fn cross(&mut self, (across, wait): (Across, Option<Wait>), request: &Request<'_>) {
        let Some(spec) = lookup(request.name()) else { return };
        let args: Vec<Bytes> = request.args(0).map(Bytes::copy_from_slice).collect();
        if !spec.is_readonly() {
            let keys = keys::positions(spec.keys, args.as_slice()).into_iter().flatten();
            keys.for_each(|at| self.written.note(Slot::of(&args[at]), self.now));
        }
        let shared = Rc::clone(&self.shared);
        shared.pool.stats.commands_across.add(1);
        let crossing = Crossing {
            asking: Asking::new(&shared, NAME),
            protocol: self.protocol(),
            deadline: shared.pool.deadline(),
            shared,
            spec,
            args,
        };
        let timed = self.timed(request);
        match wait {
            None => {
                let promise = self.replies.promise(Claim::All, spec.is_readonly());
                tokio::task::spawn_local(crossing.once(across, promise, timed));
            }
            Some(wait) => self.block_on(async move |vigil, promise| {
                crossing.until_something_comes(across, wait, vigil, promise).await;
            }),
        }
    }
}

impl Crossing {
    async fn once(mut self, across: Across, promise: Promise, timed: Timed) {
        let reply = match self.attempt(across).await {
            Ok(Some(reply)) | Err(reply) => reply,
            Ok(None) => self.nothing(across),
        };
        promise.fulfil(Reply::whole(reply));
        timed.end(&self.shared.pool);
    }

    /// Looks again and again: nobody tells what comes to several nodes.
    async fn until_something_comes(
        mut self,
        across: Across,
        wait: Wait,
        mut vigil: Vigil,
        promise: Promise,
    ) {
        let end = wait.timeout().and_then(|timeout| Instant::now().checked_add(timeout));
        let mut pause = PAUSE;
        if let Err(reply) = self.settle_ids(across).await {
            return promise.fulfil(Reply::whole(reply));
        }
        loop {
            self.deadline = self.shared.pool.deadline();
            self.asking = Asking::new(&self.shared, NAME);
            match self.attempt(across).await {
                Ok(Some(reply)) | Err(reply) => return promise.fulfil(Reply::whole(reply)),
                Ok(None) => {}
            }
            let left = end.map(|end| end.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return promise.fulfil(Reply::Small(wait.nothing(self.protocol)));
            }
            vigil.begin();
            tokio::select! {
                () = sleep(left.map_or(pause, |left| left.min(pause))) => {}
                Ok(how) = &mut vigil.unblocked => {
                    let reply = match how {
                        Unblock::TimeOut => wait.nothing(self.protocol),
                        Unblock::Error => b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n",
                    };
                    return promise.fulfil(Reply::Small(reply));
                }
            }
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }

    /// Does it; `None` if there is nothing to be had yet.
    async fn attempt(&mut self, across: Across) -> Step<Option<Bytes>> {
        match across {
            Across::Gather => self.gather().await.map(Some),
            Across::SortStore => self.sort_and_store().await.map(Some),
            Across::Rename => self.rename().await.map(Some),
            Across::Copy => self.copy().await.map(Some),
            Across::Member => self.move_member().await.map(Some),
            Across::SetAll => self.set_all().await.map(Some),
            Across::Element => self.move_element().await,
            Across::First => self.first().await,
            Across::Streams => self.streams().await,
        }
    }

    /// The reply of a command that has found nothing and does not wait.
    fn nothing(&self, across: Across) -> Bytes {
        Bytes::from_static(match (self.protocol, across) {
            (Protocol::Resp3, _) => b"_\r\n",
            (_, Across::Element) => b"$-1\r\n",
            _ => b"*-1\r\n",
        })
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.deadline
    }

    fn keys(&self) -> Vec<Bytes> {
        let positions = keys::positions(self.spec.keys, self.args.as_slice());
        positions.into_iter().flatten().map(|at| self.args[at].clone()).collect()
    }
}

/// A question to the owner of a key, which comes right behind the command's name.
fn question(args: &[impl AsRef<[u8]>], nature: Nature) -> Question {
    let slot = Slot::of(args[1].as_ref());
    Question { slot, wire: wire(args), nature }
}

fn wire(args: &[impl AsRef<[u8]>]) -> Bytes {
    let mut wire = Vec::new();
    write::request(&mut wire, args.iter().map(AsRef::as_ref));
    wire.into()
}

/// Commands as one transaction, of which the reply to `EXEC` counts.
fn unit<'a>(
    slot: Slot,
    reads: bool,
    commands: impl IntoIterator<Item = Vec<&'a [u8]>>,
) -> Question {
    let mut wire = Vec::new();
    let one = |wire: &mut Vec<u8>, args: &[&[u8]]| write::request(wire, args.iter().copied());
    one(&mut wire, &[b"MULTI"]);
    commands.into_iter().for_each(|args| one(&mut wire, &args));
    one(&mut wire, &[b"EXEC"]);
    let nature = Nature { reads, scripted: false, unit: true };
    Question { slot, wire: wire.into(), nature }
}

/// The replies within that to `EXEC`, as they are; or the error because of which it did not run.
fn within(exec: &Bytes) -> Step<Vec<Bytes>> {
    if let Some(text) = exec.strip_prefix(b"-") {
        return Err(error(cause(String::from_utf8_lossy(text).trim_end())));
    }
    let head = exec.iter().position(|byte| *byte == b'\n').ok_or_else(odd)?;
    let (mut rest, mut replies) = (exec.slice(head + 1..), Vec::new());
    while !rest.is_empty() {
        match ReplyFramer::default().frame(&rest) {
            Ok(Progress::Complete(len)) => replies.push(rest.split_to(len)),
            _ => return Err(odd()),
        }
    }
    Ok(replies)
}

/// Why a transaction did not run; the client does not know that there was one.
fn cause(text: &str) -> &str {
    text.strip_prefix("EXECABORT Transaction discarded because of: ").unwrap_or(text)
}

fn integer(n: i64) -> Bytes {
    let mut wire = Vec::new();
    write::integer(&mut wire, n);
    wire.into()
}

fn syntax() -> Bytes {
    error("ERR syntax error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_do_not_hear_of_transactions() {
        let check = |exec: &str, expected: Result<&[&str], &str>| {
            let replies = within(&Bytes::copy_from_slice(exec.as_bytes()));
            let expected = match expected {
                Ok(replies) => {
                    Ok(replies.iter().map(|one| Bytes::copy_from_slice(one.as_bytes())).collect())
                }
                Err(text) => Err(Bytes::copy_from_slice(text.as_bytes())),
            };
            assert_eq!(replies, expected, "{exec:?}");
        };
        check("*2\r\n+OK\r\n:1\r\n", Ok(&["+OK\r\n", ":1\r\n"]));
        check(
            "-EXECABORT Transaction discarded because of: OOM no more\r\n",
            Err("-OOM no more\r\n"),
        );
        check("-TRYAGAIN later\r\n", Err("-TRYAGAIN later\r\n"));
    }
}
