//! Keys of other slots are copied to the slot where the command runs, under names that nobody else uses. The node itself runs
//! it then, so that it is right to the last bit.
//!
//! A command that only reads runs in one transaction with the making and the deletion of the copies: nobody sees them, and none
//! is left behind. One that writes must not run unless all copies are there, so they are made first, and end by themselves
//! should the proxy not get to delete them.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use super::super::ask::{Step, odd};
use super::super::sort;
use super::{Crossing, READ, integer, question, unit, within};
use crate::cluster::Slot;
use crate::command::across::Gathering;
use crate::resp::Protocol;
use crate::resp::value::Value;

/// How long copies last, in milliseconds.
const COPIES_LAST: &[u8] = b"60000";
const FOR_EVER: &[u8] = b"0";

/// A copy: what it is called, and what is in it.
type Copy = (Bytes, Bytes);

impl Crossing {
    pub(super) async fn gather(&mut self) -> Step<Bytes> {
        // The keys of every hash are others.
        let number = RandomState::new().hash_one(());
        let gathering = Gathering::new(self.spec, &self.args, number).ok_or_else(odd)?;
        let copies = self.dump_all(&gathering.others).await?;
        if self.spec.is_readonly() {
            return self.read_copies(&gathering, &copies).await;
        }
        self.restore_all(gathering.home, &copies).await?;
        let run = words(&gathering.args);
        let transaction = unit(gathering.home, false, std::iter::once(run).chain(delete(&copies)));
        let exec = self.asking.raw(std::iter::once(transaction), self.protocol).await?;
        within(&exec)?.into_iter().next().ok_or_else(odd)
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

    async fn read_copies(&mut self, gathering: &Gathering, copies: &[Copy]) -> Step<Bytes> {
        let made = copies.iter().map(|copy| restore(copy, FOR_EVER));
        let run = std::iter::once(words(&gathering.args));
        let transaction = unit(gathering.home, true, made.chain(run).chain(delete(copies)));
        let exec = self.asking.raw(std::iter::once(transaction), self.protocol).await?;
        let mut replies = within(&exec)?;
        let failed = replies.iter().take(copies.len()).find(|reply| reply.starts_with(b"-"));
        if let Some(failed) = failed {
            return Err(failed.clone());
        }
        if replies.len() <= copies.len() {
            return Err(odd());
        }
        Ok(replies.swap_remove(copies.len()))
    }

    async fn restore_all(&mut self, home: Slot, copies: &[Copy]) -> Step<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let made = unit(home, false, copies.iter().map(|copy| restore(copy, COPIES_LAST)));
        let exec = self.asking.raw(std::iter::once(made), Protocol::Resp2).await?;
        match within(&exec)?.into_iter().find(|reply| reply.starts_with(b"-")) {
            Some(failed) => Err(failed),
            None => Ok(()),
        }
    }

    /// `SORT … STORE`: what the proxy has sorted takes the place of what was there in one transaction.
    pub(super) async fn sort_and_store(&mut self) -> Step<Bytes> {
        let mut args = self.args.clone();
        let is_store = |arg: &Bytes| arg.eq_ignore_ascii_case(b"STORE");
        let mut target = None;
        while let Some(at) = args.iter().skip(2).position(is_store).map(|at| at + 2) {
            let name = args.get(at + 1).cloned().ok_or_else(super::syntax)?;
            args.drain(at..at + 2);
            target = Some(name);
        }
        let target = target.ok_or_else(super::syntax)?;
        let sorted = sort::sorted(&args, &mut self.asking).await?;
        let mut push: Vec<&[u8]> = vec![b"RPUSH", &target];
        // What is nil is stored as an empty text.
        push.extend(sorted.iter().map(|value| value.as_deref().unwrap_or_default()));
        let push = (!sorted.is_empty()).then_some(push);
        let delete = vec![&b"DEL"[..], &target];
        let transaction = unit(Slot::of(&target), false, std::iter::once(delete).chain(push));
        let exec = self.asking.raw(std::iter::once(transaction), Protocol::Resp2).await?;
        match within(&exec)?.into_iter().find(|reply| reply.starts_with(b"-")) {
            Some(failed) => Err(failed),
            None => Ok(integer(i64::try_from(sorted.len()).unwrap_or(i64::MAX))),
        }
    }
}

fn words(args: &[Bytes]) -> Vec<&[u8]> {
    args.iter().map(|arg| &arg[..]).collect()
}

fn restore<'a>((name, payload): &'a Copy, ttl: &'static [u8]) -> Vec<&'a [u8]> {
    vec![b"RESTORE", name, ttl, payload]
}

fn delete(copies: &[Copy]) -> Option<Vec<&[u8]>> {
    let names = copies.iter().map(|(name, _)| &name[..]);
    (!copies.is_empty()).then(|| std::iter::once(&b"UNLINK"[..]).chain(names).collect())
}
