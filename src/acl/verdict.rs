//! What becomes of a request of a user: whether it may be done, and if not, for want of what.

use super::User;
use super::commands::number_of;
use super::rights::Rights;
use crate::command::keys::{self, ArgList};
use crate::command::learned::Found;
use crate::command::{Flags, Keys, Policy, Spec, Use, Verb};

/// A request in the terms of users' rights.
#[derive(Debug)]
pub struct Asked<'a, A: ArgList + ?Sized> {
    /// Rows of the command and its subcommand.
    pub found: Found<'a>,
    /// The arguments, the command's name first.
    pub args: &'a A,
}

impl<A: ArgList + ?Sized> Clone for Asked<'_, A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A: ArgList + ?Sized> Copy for Asked<'_, A> {}

/// What a user lacks for a request. The later one is told where several selectors each lack something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Denial {
    /// The command.
    Command,
    /// The key that is this argument.
    Key(usize),
    /// The channel that is this argument.
    Channel(usize),
}

impl User {
    /// Whether the user may have this request done, or what is lacking.
    pub fn check<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> Result<(), Denial> {
        let mut worst = Denial::Command;
        for rights in &self.rights {
            match rights.check(asked) {
                Ok(()) => return Ok(()),
                Err(denial) => worst = worst.max(denial),
            }
        }
        Err(worst)
    }

    /// The same, of a request that also reads keys which its arguments do not name, so that it could be any.
    pub fn allows_with_all_keys<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> bool {
        self.rights.iter().any(|rights| rights.check(asked).is_ok() && rights.reads_all_keys())
    }
}

impl Rights {
    fn check<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> Result<(), Denial> {
        if !asked.found.spec().flags.has(Flags::NO_AUTH) && !self.allows_command(asked) {
            return Err(Denial::Command);
        }
        if !self.all_keys {
            self.check_keys(asked)?;
        }
        if !self.all_channels {
            self.check_channels(asked)?;
        }
        Ok(())
    }

    fn allows_command<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> bool {
        let Some(number) = number_of(asked.found) else {
            return self.allows_foreign(asked.args.arg(0));
        };
        let is_first_arg = |allowed: &Vec<String>| {
            let first = asked.args.arg(1);
            allowed.iter().any(|allowed| first.eq_ignore_ascii_case(allowed.as_bytes()))
        };
        let first_args = self.first_args.get(&number).filter(|_| asked.args.len() > 1);
        self.allowed.has(number) || first_args.is_some_and(is_first_arg)
    }

    fn allows_foreign(&self, name: &[u8]) -> bool {
        let told = |(known, _): &(&String, &bool)| name.eq_ignore_ascii_case(known.as_bytes());
        self.foreign.iter().find(told).map_or(self.future, |(_, allowed)| *allowed)
    }

    /// Every key must be allowed. Where keys cannot be found the request is not of its command's form, or nodes do not tell
    /// of all that its command has; whoever may not use all keys is not to find out how a node reads it.
    fn check_keys<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> Result<(), Denial> {
        let spec = asked.found.spec();
        if spec.keys == Keys::None || channels(spec).is_some() {
            return Ok(());
        }
        if spec.flags.has(Flags::MORE_KEYS) {
            return Err(Denial::Key(0));
        }
        let positions = keys::positions(spec.keys, asked.args).map_err(|_| Denial::Key(0))?;
        for (at, position) in positions.enumerate() {
            let wanted = wanted(asked, at.min(1));
            if !self.allows_key(asked.args.arg(position), wanted) {
                return Err(Denial::Key(position));
            }
        }
        Ok(())
    }

    fn check_channels<A: ArgList + ?Sized>(&self, asked: Asked<'_, A>) -> Result<(), Denial> {
        let Some((count, is_pattern)) = channels(asked.found.spec()) else { return Ok(()) };
        let mut named = (1..asked.args.len()).take(count);
        let lacking = named.find(|at| !self.allows_channel(asked.args.arg(*at), is_pattern));
        lacking.map_or(Ok(()), |at| Err(Denial::Channel(at)))
    }
}

/// What a request does with its first key, or with another.
fn wanted<A: ArgList + ?Sized>(asked: Asked<'_, A>, place: usize) -> Use {
    let says = |from: usize, words: &[&str]| {
        (from..asked.args.len()).any(|at| {
            words.iter().any(|word| asked.args.arg(at).eq_ignore_ascii_case(word.as_bytes()))
        })
    };
    match asked.found.command.name {
        // It tells the old value.
        "set" if says(3, &["GET"]) => Use::BOTH,
        "bitfield" if !says(2, &["SET", "INCRBY"]) => Use::READ,
        _ => asked.found.spec().uses[place],
    }
}

/// How many of the arguments behind a command's name are channels, and whether they are patterns; none of those by which
/// a client is told of less.
fn channels(spec: &Spec) -> Option<(usize, bool)> {
    match spec.policy {
        Policy::Publish => Some((1, false)),
        Policy::Session(Verb::Subscribe | Verb::Ssubscribe) => Some((usize::MAX, false)),
        Policy::Session(Verb::Psubscribe) => Some((usize::MAX, true)),
        Policy::Session(Verb::Sunsubscribe) => Some((0, false)),
        _ => None,
    }
}
