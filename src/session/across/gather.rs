//! Keys of other slots are copied to the slot where the command runs, under names that nobody else uses. The node itself runs
//! it then, so that it is right to the last bit.
//!
//! The copies are made, used and deleted in one transaction: nobody sees them, and none is left behind. What a command writes it
//! writes under another name first, since a transaction goes on when a copy cannot be made. Only if all went well the result
//! takes the place of the key that was meant; one that is lost before that, with its node, changes nothing.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use super::super::ask::{Question, Step, odd};
use super::super::sort;
use super::{Crossing, READ, integer, question, unit, within};
use crate::cluster::Slot;
use crate::command::across::Gathering;
use crate::command::sort::without_store;
use crate::resp::Protocol;
use crate::resp::value::Value;

/// How long a result lasts that the proxy does not get to put in its place, in milliseconds.
const RESULTS_LAST: &[u8] = b"60000";

/// A copy: what it is called, and what is in it.
type Copy = (Bytes, Bytes);

impl Crossing {
    pub(super) async fn gather(&mut self) -> Step<Bytes> {
        // The keys of every hash are others.
        let number = RandomState::new().hash_one(());
        let gathering = Gathering::new(self.spec, &self.args, number).ok_or_else(odd)?;
        let copies = self.dump_all(&gathering.others).await?;
        let Gathering { home, args, written, .. } = gathering;
        let Some((key, result)) = written else {
            let (reply, _) = self.run_on_copies(home, &copies, words(&args), None).await?;
            return Ok(reply);
        };
        let last = vec![&b"PEXPIRE"[..], &result, RESULTS_LAST];
        let (reply, lasts) = self.run_on_copies(home, &copies, words(&args), Some(last)).await?;
        if !reply.starts_with(b"-") {
            let put = if lasts == b":1\r\n"[..] {
                vec![vec![&b"PERSIST"[..], &result], vec![&b"RENAME"[..], &result, &key]]
            } else {
                vec![vec![&b"DEL"[..], &key]]
            };
            self.all(unit(home, false, put)).await?;
        }
        Ok(reply)
    }

    /// The reply to a command on copies, and to what stands behind it.
    async fn run_on_copies(
        &mut self,
        home: Slot,
        copies: &[Copy],
        run: Vec<&[u8]>,
        last: Option<Vec<&[u8]>>,
    ) -> Step<(Bytes, Bytes)> {
        let made = copies.iter().map(|(name, payload)| vec![&b"RESTORE"[..], name, b"0", payload]);
        let names = copies.iter().map(|(name, _)| &name[..]);
        let delete =
            (!copies.is_empty()).then(|| [&b"UNLINK"[..]].into_iter().chain(names).collect());
        let reads = self.spec.is_readonly();
        let transaction = unit(home, reads, made.chain([run]).chain(delete).chain(last));
        let exec = self.asking.raw(std::iter::once(transaction), self.protocol).await?;
        let replies = within(&exec)?;
        let failed = replies.iter().take(copies.len()).find(|reply| reply.starts_with(b"-"));
        match (failed, replies.get(copies.len()), replies.last()) {
            (Some(failed), ..) => Err(failed.clone()),
            (None, Some(reply), Some(last)) => Ok((reply.clone(), last.clone())),
            _ => Err(odd()),
        }
    }

    /// Commands of which none may fail.
    async fn all(&mut self, transaction: Question) -> Step<()> {
        let exec = self.asking.raw(std::iter::once(transaction), Protocol::Resp2).await?;
        match within(&exec)?.into_iter().find(|reply| reply.starts_with(b"-")) {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// What is to be copied; keys that do not exist are left out.
    async fn dump_all(&mut self, others: &[(Bytes, Bytes)]) -> Step<Vec<Copy>> {
        let questions = others.iter().map(|(key, _)| question(&[&b"DUMP"[..], key], READ));
        let dumps = self.asking.values(questions).await?;
        let mut copies = Vec::new();
        for (dump, (_, name)) in dumps.into_iter().zip(others) {
            match dump {
                Value::BulkString(payload) => copies.push((name.clone(), payload)),
                Value::Null => {}
                Value::Error(text) => return Err(super::error(&text)),
                _ => return Err(odd()),
            }
        }
        Ok(copies)
    }

    /// `SORT … STORE`: what the proxy has sorted takes the place of what was there in one transaction.
    pub(super) async fn sort_and_store(&mut self) -> Step<Bytes> {
        let (args, target) = without_store(&self.args).ok_or_else(super::syntax)?;
        let sorted = sort::sorted(&args, &mut self.asking).await?;
        let mut push: Vec<&[u8]> = vec![b"RPUSH", &target];
        // What is nil is stored as an empty text.
        push.extend(sorted.iter().map(|value| value.as_deref().unwrap_or_default()));
        let push = (!sorted.is_empty()).then_some(push);
        let delete = vec![&b"DEL"[..], &target];
        let transaction = unit(Slot::of(&target), false, std::iter::once(delete).chain(push));
        self.all(transaction).await?;
        Ok(integer(i64::try_from(sorted.len()).unwrap_or(i64::MAX)))
    }
}

fn words(args: &[Bytes]) -> Vec<&[u8]> {
    args.iter().map(|arg| &arg[..]).collect()
}
