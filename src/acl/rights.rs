//! What a run of rules amounts to: which commands, which keys, which channels.

use std::collections::BTreeMap;

use super::commands::{ROWS, Set};
use crate::command::{Use, glob};

/// The rights of a user, or of one of its selectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) allowed: Set,
    /// Commands that nobody has spoken of are allowed: those of modules.
    pub(super) future: bool,
    /// Commands that the table does not have, and whether they are allowed.
    pub(super) foreign: BTreeMap<String, bool>,
    /// First arguments that are allowed of a command that otherwise is not.
    pub(super) first_args: BTreeMap<usize, Vec<String>>,
    /// The rules on commands behind `+@all` or `-@all`, none twice.
    pub(super) told: Vec<String>,
    pub(super) all_keys: bool,
    pub(super) key_patterns: Vec<(Vec<u8>, Use)>,
    pub(super) all_channels: bool,
    pub(super) channel_patterns: Vec<Vec<u8>>,
}

impl Rights {
    pub(super) fn is_unlimited(&self) -> bool {
        let every = (0..ROWS.len()).all(|at| self.allowed.has(at));
        let foreign = self.future && self.foreign.values().all(|allowed| *allowed);
        every && foreign && self.all_keys && self.all_channels
    }

    /// `+@all` or `-@all`.
    pub(super) fn put_all(&mut self, allowed: bool) {
        self.allowed = if allowed { Set::all() } else { Set::default() };
        self.future = allowed;
        self.foreign.clear();
        self.first_args.clear();
        self.told.clear();
    }

    /// A command with its subcommands.
    pub(super) fn put(&mut self, number: usize, allowed: bool) {
        self.first_args.remove(&number);
        for at in number..=number + ROWS[number].subcommands {
            self.allowed.put(at, allowed);
        }
    }

    /// All commands of a category.
    pub(super) fn put_category(&mut self, category: &str, allowed: bool) {
        for (number, row) in ROWS.iter().enumerate() {
            if row.spec.belongs_to(category) {
                self.put(number, allowed);
            }
        }
    }

    /// Keeps a rule on commands to be told again, in place of what it makes void.
    pub(super) fn tell(&mut self, rule: &str) {
        let name = &rule[1..];
        self.told.retain(|old| {
            let old = &old[1..];
            let is_sub = old.strip_prefix(name).is_some_and(|rest| rest.starts_with('|'));
            old != name && !is_sub
        });
        self.told.push(rule.to_owned());
    }

    pub(super) fn allows_key(&self, key: &[u8], wanted: Use) -> bool {
        let fits =
            |(pattern, given): &(Vec<u8>, Use)| given.covers(wanted) && glob::matches(pattern, key);
        self.all_keys || self.key_patterns.iter().any(fits)
    }

    /// Whether every key may be read, as who sorts by other keys must.
    pub(super) fn reads_all_keys(&self) -> bool {
        let is_all = |(pattern, given): &(Vec<u8>, Use)| given.reads && pattern == b"*";
        self.all_keys || self.key_patterns.iter().any(is_all)
    }

    pub(super) fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        let fits = |pattern: &Vec<u8>| {
            if is_pattern { pattern == name } else { glob::matches(pattern, name) }
        };
        self.all_channels || self.channel_patterns.iter().any(fits)
    }

    /// The rules on commands.
    pub(super) fn commands(&self) -> Vec<u8> {
        let start = if self.future { "+@all" } else { "-@all" };
        let rules: Vec<&str> =
            std::iter::once(start).chain(self.told.iter().map(String::as_str)).collect();
        rules.join(" ").into_bytes()
    }

    /// The rules on keys.
    pub(super) fn keys(&self) -> Vec<u8> {
        if self.all_keys {
            return b"~*".to_vec();
        }
        let rule = |(pattern, given): &(Vec<u8>, Use)| {
            let sign: &[u8] = match (given.reads, given.writes) {
                (true, true) => b"~",
                (true, false) => b"%R~",
                _ => b"%W~",
            };
            [sign, pattern].concat()
        };
        self.key_patterns.iter().map(rule).collect::<Vec<_>>().join(&b' ')
    }

    /// The rules on channels.
    pub(super) fn channels(&self) -> Vec<u8> {
        if self.all_channels {
            return b"&*".to_vec();
        }
        let rule = |pattern: &Vec<u8>| [b"&", pattern.as_slice()].concat();
        self.channel_patterns.iter().map(rule).collect::<Vec<_>>().join(&b' ')
    }

    /// All rules in the order of `ACL LIST`.
    pub(super) fn rules(&self) -> Vec<u8> {
        let (keys, channels) = (self.keys(), self.channels());
        let reset: &[u8] = if self.all_channels { b"" } else { b"resetchannels" };
        let parts = [&keys, reset, &channels, &self.commands()];
        parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(&b' ')
    }
}
