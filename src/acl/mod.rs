//! Users and what they may do, in the server's own words: rules are read, kept, told again, and asked about requests.
//!
//! Pure: a set of users is a value that is never edited; a change makes a new one, which all workers then share.
//! `rights` is what rules amount to, `rules` how they are read, `verdict` what becomes of a request.

mod commands;
mod file;
mod rights;
mod rules;
mod verdict;

use std::collections::BTreeMap;
use std::sync::Arc;

use ring::digest::{SHA256, digest};

use crate::resp::write;
use rights::Rights;

pub use commands::category;
pub use rules::RuleError;
pub use verdict::{Asked, Denial};

/// A password as it is kept: its SHA-256 in hexadecimal digits.
type Hash = String;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its name.
    pub name: String,
    on: bool,
    /// Any password will do.
    nopass: bool,
    /// `RESTORE` trusts its payloads; told again, and left to the nodes.
    trusts_payload: Option<bool>,
    passwords: Vec<Hash>,
    /// The user's own rights, and those of its selectors; a request needs one of them to allow all of it.
    rights: Vec<Rights>,
}

/// All users by name. There is always one that is called `default`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Users(BTreeMap<String, Arc<User>>);

/// Name of the user that clients are before they say otherwise.
pub const DEFAULT: &str = "default";

impl User {
    /// A user that may do nothing, as one is that has just been made.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            on: false,
            nopass: false,
            trusts_payload: None,
            passwords: Vec::new(),
            rights: vec![Rights::default()],
        }
    }

    /// The default user as long as nothing is said of it.
    fn all_powerful() -> Self {
        let rules = ["on", "nopass", "~*", "&*", "+@all"];
        rules.iter().fold(Self::new(DEFAULT), |user, rule| {
            user.with(rule.as_bytes()).expect("rules without arguments are right")
        })
    }

    /// Whether anybody is this user who says so.
    pub fn needs_no_password(&self) -> bool {
        self.nopass
    }

    /// Whether a client that has just connected may be this user without a word.
    pub fn is_open(&self) -> bool {
        self.on && self.nopass
    }

    /// Whether a client may become this user with this password.
    pub fn admits(&self, password: &[u8]) -> bool {
        if !self.on || self.nopass {
            return self.on;
        }
        let given = hash(password);
        // All are looked at, each in a time that tells nothing of it.
        let same = |kept: &Hash| {
            kept.bytes().zip(given.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
        };
        self.passwords.iter().filter(|kept| same(kept)).count() > 0
    }

    /// Whether there is anything that the user may not do.
    pub fn is_limited(&self) -> bool {
        !self.rights.iter().any(Rights::is_unlimited)
    }

    /// Whether it may listen to, or tell others by, this channel; a pattern must be allowed in the same letters.
    pub fn allows_channel(&self, name: &[u8], is_pattern: bool) -> bool {
        self.rights.iter().any(|rights| rights.allows_channel(name, is_pattern))
    }

    /// The words of `flags` in `ACL GETUSER`.
    pub fn flags(&self) -> impl Iterator<Item = &'static str> {
        let payload = self
            .trusts_payload
            .map(|trusts| if trusts { "skip-sanitize-payload" } else { "sanitize-payload" });
        let on = if self.on { "on" } else { "off" };
        [Some(on), self.nopass.then_some("nopass"), payload].into_iter().flatten()
    }

    /// Its passwords as they are kept.
    pub fn passwords(&self) -> &[String] {
        &self.passwords
    }

    /// Commands, keys and channels of its own rights, and those of its selectors behind them.
    pub fn described(&self) -> impl ExactSizeIterator<Item = [Vec<u8>; 3]> {
        self.rights.iter().map(|rights| [rights.commands(), rights.keys(), rights.channels()])
    }

    /// The line that makes this user, as `ACL LIST` and files of users have it.
    pub fn line(&self) -> Vec<u8> {
        let mut line = format!("user {}", self.name).into_bytes();
        for flag in self.flags() {
            line.extend([b" ", flag.as_bytes()].concat());
        }
        for password in &self.passwords {
            line.extend([b" #", password.as_bytes()].concat());
        }
        for (at, rights) in self.rights.iter().enumerate() {
            let rules = rights.rules();
            let open_close: [&[u8]; 2] = if at == 0 { [b" ", b""] } else { [b" (", b")"] };
            line.extend([open_close[0], &rules, open_close[1]].concat());
        }
        line
    }
}

impl Default for Users {
    fn default() -> Self {
        let user = User::all_powerful();
        Self(BTreeMap::from([(user.name.clone(), Arc::new(user))]))
    }
}

impl Users {
    /// The default user.
    pub fn default_user(&self) -> Arc<User> {
        // There always is one.
        self.0.get(DEFAULT).cloned().unwrap_or_else(|| Arc::new(User::new(DEFAULT)))
    }

    /// The user of this name.
    pub fn find(&self, name: &[u8]) -> Option<&Arc<User>> {
        self.0.get(str::from_utf8(name).ok()?)
    }

    /// The user of this name, if the password is right and it may be used.
    pub fn admit(&self, name: &[u8], password: &[u8]) -> Option<&Arc<User>> {
        self.find(name).filter(|user| user.admits(password))
    }

    /// All users in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Arc<User>> {
        self.0.values()
    }

    /// The same users, but one made or changed.
    #[must_use]
    pub fn having(&self, user: User) -> Self {
        let mut users = self.0.clone();
        users.insert(user.name.clone(), Arc::new(user));
        Self(users)
    }

    /// `ACL SETUSER`: the same users, with one made or changed by all of these rules.
    pub fn set<'a>(
        &self,
        name: &[u8],
        rules: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, RuleError> {
        let name = rules::checked_name(name)?;
        let user = self.0.get(name).map_or_else(|| User::new(name), |user| User::clone(user));
        Ok(self.having(user.with_all(rules)?))
    }

    /// `requirepass`: the same users, the default one with this password only, or with none if that is empty.
    #[must_use]
    pub fn requiring(&self, password: &[u8]) -> Self {
        let user = User::clone(&self.default_user());
        self.having(user.requiring(password))
    }

    /// `ACL DELUSER`: the same users without these, and how many are gone. The default user stays.
    pub fn without<'a>(&self, names: impl Iterator<Item = &'a [u8]>) -> (Self, usize) {
        let mut users = self.0.clone();
        let gone = names
            .filter_map(|name| str::from_utf8(name).ok())
            .filter(|name| *name != DEFAULT && users.remove(*name).is_some())
            .count();
        (Self(users), gone)
    }
}

fn hash(password: &[u8]) -> Hash {
    write::hexadecimal(digest(&SHA256, password).as_ref())
}
