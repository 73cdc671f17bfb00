//! `WAIT`: how many replicas have what this session wrote.
//!
//! A node answers `WAIT` for the connection it comes on, and the session's writes came on connections shared with others. So
//! the proxy looks itself: at each primary the session may have written to it notes how far the log of writes is, and then
//! how far every replica has said to be. Replicas say so once a second.

use std::rc::Rc;

use tokio::time::{Duration, Instant, sleep};

use super::blocking::Vigil;
use super::connection::{Flow, Session};
use crate::backend::Pool;
use crate::cluster::Slot;
use crate::local::muster::Unblock;
use crate::refusal::Refusal;
use crate::replies::{Gate, Reply};
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// Time between two looks at how far the replicas are.
const LOOK_EVERY: Duration = Duration::from_millis(20);
const REPLICATION: &[u8] = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";

/// The slots a session has written to, in 64 blocks of 256, and when it did last, in microseconds of the worker's clock.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    blocks: u64,
    last: Option<u32>,
}

impl Written {
    #[inline]
    pub(super) fn note(&mut self, slot: Slot, now: u32) {
        self.blocks |= 1 << (slot.number() >> 8);
        self.last = Some(now);
    }

    /// Whether that was no longer ago than this.
    pub(super) fn is_within(self, window: Duration, now: u32) -> bool {
        self.last.is_some_and(|last| u128::from(now.wrapping_sub(last)) < window.as_micros())
    }

    fn slots(self) -> impl Iterator<Item = Slot> {
        let is_marked = move |slot: &Slot| self.blocks & 1 << (slot.number() >> 8) != 0;
        (0..crate::cluster::SLOTS).filter_map(Slot::new).filter(is_marked)
    }
}

/// A primary that the session wrote to.
struct Shard {
    slot: Slot,
    /// How far its log of writes was when the session began to wait.
    offset: u64,
}

impl Session {
    pub(super) fn wait_for_replicas(&mut self, request: &Request<'_>) -> Flow {
        if self.replies.gate() != Gate::Empty {
            return Flow::Hold;
        }
        let (replicas, timeout) = match numbers(request) {
            Ok(numbers) => numbers,
            Err(refusal) => {
                self.refuse(&refusal);
                return Flow::Next;
            }
        };
        let end = Some(timeout)
            .filter(|timeout| *timeout > 0)
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let (pool, slots) = (Rc::clone(&self.shared.pool), self.primaries_written());
        self.block_on(async move |vigil, promise| {
            let waiting = Waiting { pool: Rc::clone(&pool), replicas, end };
            match waiting.run(&slots, vigil).await {
                Ok(count) => {
                    let mut wire = Vec::new();
                    write::integer(&mut wire, count);
                    promise.fulfil(Reply::Small(&wire));
                }
                Err(refusal) => pool.refuse(promise, &refusal),
            }
        });
        Flow::Next
    }

    /// One slot of each primary that owns any of the slots written to.
    fn primaries_written(&self) -> Vec<Slot> {
        let mut found = Vec::new();
        let mut slots = Vec::new();
        for slot in self.written.slots() {
            if let Some(owner) = self.shared.pool.owner(slot)
                && !found.contains(&owner)
            {
                found.push(owner);
                slots.push(slot);
            }
        }
        slots
    }
}

/// What is waited for, and until when.
struct Waiting {
    pool: Rc<Pool>,
    replicas: i64,
    end: Option<Instant>,
}

impl Waiting {
    /// The number of replicas that have everything, at the primary where they are fewest.
    async fn run(&self, slots: &[Slot], mut vigil: Vigil) -> Result<i64, Refusal> {
        let mut shards = Vec::new();
        for slot in slots {
            let offset = self.look(*slot).await?.offset;
            shards.push(Shard { slot: *slot, offset });
        }
        loop {
            let mut fewest = i64::MAX;
            for shard in &shards {
                let there = self.look(shard.slot).await?.replicas;
                let count = there.iter().filter(|offset| **offset >= shard.offset).count();
                fewest = fewest.min(i64::try_from(count).unwrap_or(i64::MAX));
            }
            // Without a write there is nothing that a replica could lack.
            let count = if shards.is_empty() { self.all_replicas().await? } else { fewest };
            if count >= self.replicas || self.end.is_some_and(|end| Instant::now() >= end) {
                return Ok(count);
            }
            vigil.begin();
            tokio::select! {
                how = &mut vigil.unblocked => return match how {
                    Ok(Unblock::Error) => Err(Refusal::Unblocked),
                    _ => Ok(count),
                },
                () = sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Replicas of the primary that has the fewest.
    async fn all_replicas(&self) -> Result<i64, Refusal> {
        let mut fewest = i64::MAX;
        for slot in self.pool.primaries() {
            let replicas = self.look(slot).await?.replicas.len();
            fewest = fewest.min(i64::try_from(replicas).unwrap_or(i64::MAX));
        }
        Ok(if fewest == i64::MAX { 0 } else { fewest })
    }

    /// How far a primary and its replicas are.
    async fn look(&self, slot: Slot) -> Result<Progress, Refusal> {
        let deadline = self.pool.deadline();
        loop {
            let mut lease = self.pool.lease(slot, Protocol::Resp2, deadline).await?;
            if let Ok(reply) = lease.call(REPLICATION).await {
                lease.give_back();
                return Ok(Progress::read(&String::from_utf8_lossy(&reply)));
            }
            self.pool.look_again().await;
        }
    }
}

/// Offsets in a primary's log of writes.
#[derive(Debug, Default, PartialEq, Eq)]
struct Progress {
    offset: u64,
    /// That of each replica that is connected.
    replicas: Vec<u64>,
}

impl Progress {
    /// Reads `INFO replication`: `master_repl_offset:N` and `slaveN:ip=…,state=online,offset=N,…`.
    fn read(info: &str) -> Self {
        let mut progress = Self::default();
        for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
            let is_replica = name.strip_prefix("slave").is_some_and(|n| n.parse::<u32>().is_ok());
            if name == "master_repl_offset" {
                progress.offset = value.trim().parse().unwrap_or(u64::MAX);
            } else if is_replica && value.contains("state=online") {
                let offset = value.split(',').find_map(|field| field.strip_prefix("offset="));
                progress.replicas.extend(offset.and_then(|offset| offset.parse::<u64>().ok()));
            }
        }
        progress
    }
}

/// The arguments of `WAIT`, with the server's words for what is wrong with them.
fn numbers(request: &Request<'_>) -> Result<(i64, u64), Refusal> {
    let number = |at| std::str::from_utf8(request.arg(at)).ok()?.parse::<i64>().ok();
    let replicas = number(1).ok_or(Refusal::text("ERR value is not an integer or out of range"))?;
    let timeout =
        number(2).ok_or(Refusal::text("ERR timeout is not an integer or out of range"))?;
    let timeout = u64::try_from(timeout).map_err(|_| Refusal::text("ERR timeout is negative"))?;
    Ok((replicas, timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_off_info() {
        let info = "# Replication\r\nrole:master\r\nconnected_slaves:2\r\n\
            slave0:ip=127.0.0.1,port=7004,state=online,offset=1414,lag=0\r\n\
            slave1:ip=127.0.0.1,port=7005,state=wait_bgsave,offset=0,lag=0\r\n\
            master_repl_offset:1428\r\n";
        let expected = Progress { offset: 1428, replicas: vec![1414] };
        assert_eq!(Progress::read(info), expected);
    }

    #[test]
    fn what_was_written_is_known_by_blocks_of_slots() {
        let mut written = Written::default();
        assert_eq!(written.slots().count(), 0);
        written.note(Slot::new(16_383).unwrap(), 0);
        written.note(Slot::new(300).unwrap(), u32::MAX);
        let slots: Vec<usize> = written.slots().map(Slot::index).collect();
        assert_eq!((slots.len(), slots[0], slots[511]), (512, 256, 16_383));
        let within = |us| written.is_within(Duration::from_micros(us), 99);
        assert_eq!((within(0), within(100), within(101)), (false, false, true));
        assert!(!Written::default().is_within(Duration::from_secs(1), 0));
    }
}
