//! Every command and subcommand of the table by a number, and sets of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use crate::command::learned::Found;
use crate::command::{Spec, table};

/// What is known of one number.
pub(super) struct Row {
    /// As rules name it: `get`, `config|get`.
    pub(super) name: String,
    pub(super) spec: &'static Spec,
    /// Numbers of its subcommands: as many, from the next one on.
    pub(super) subcommands: usize,
}

/// Every command, its subcommands right behind it.
pub(super) static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    table::TABLE
        .iter()
        .flat_map(|spec| {
            let own = Row { name: spec.name.to_owned(), spec, subcommands: spec.subcommands.len() };
            let subs = spec.subcommands.iter().map(move |sub| Row {
                name: format!("{}|{}", spec.name, sub.name),
                spec: sub,
                subcommands: 0,
            });
            std::iter::once(own).chain(subs)
        })
        .collect()
});

static NUMBERS: LazyLock<HashMap<(&'static str, &'static str), usize>> = LazyLock::new(|| {
    let names = |row: &'static Row| row.name.split_once('|').unwrap_or((&row.name, ""));
    ROWS.iter().enumerate().map(|(at, row)| (names(row), at)).collect()
});

/// The number of a command by the name that rules give it, in small letters.
pub(super) fn number(name: &str) -> Option<usize> {
    let names = name.split_once('|').filter(|(_, sub)| !sub.is_empty());
    NUMBERS.get(&names.unwrap_or((name, ""))).copied()
}

/// The number of a command by its rows. A subcommand that the table does not have counts as its command.
pub(super) fn number_of(found: Found<'_>) -> Option<usize> {
    let sub = found.sub.map_or("", |sub| sub.name);
    NUMBERS.get(&(found.command.name, sub)).copied()
}

/// Commands and subcommands of a category, as rules name them.
pub fn category(name: &str) -> impl Iterator<Item = &'static str> {
    ROWS.iter().filter(move |row| row.spec.belongs_to(name)).map(|row| row.name.as_str())
}

/// A set of numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Set(Vec<u64>);

impl Set {
    pub(super) fn all() -> Self {
        let mut all = Self::default();
        (0..ROWS.len()).for_each(|at| all.put(at, true));
        all
    }

    pub(super) fn has(&self, at: usize) -> bool {
        self.0.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    pub(super) fn put(&mut self, at: usize, is_in: bool) {
        if self.0.len() <= at / 64 {
            self.0.resize(ROWS.len() / 64 + 1, 0);
        }
        let bit = 1 << (at % 64);
        if is_in {
            self.0[at / 64] |= bit;
        } else {
            self.0[at / 64] &= !bit;
        }
    }
}
