//! How rules are read. One that is wrong changes nothing, and the error says what is wrong with it in the server's words.

use super::commands::{ROWS, number};
use super::rights::Rights;
use super::{Hash, User, hash};
use crate::command::Use;
use crate::command::table::CATEGORIES;
use crate::resp::request;

/// What is wrong with a rule, without its `ERR`.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum RuleError {
    /// Of `ACL SETUSER`.
    #[error("Error in ACL SETUSER modifier '{0}': {1}")]
    Rule(String, Fault),
    /// A selector that is not closed.
    #[error("Unmatched parenthesis in acl selector starting at '{0}'.")]
    Parenthesis(String),
    /// A name with blanks.
    #[error("Usernames can't contain spaces or null characters")]
    Name,
}

impl RuleError {
    /// The same of a line that others may have written: without the rule, which may be a password.
    pub(super) fn without_rule(&self) -> String {
        match self {
            Self::Rule(_, fault) => fault.to_string(),
            Self::Parenthesis(_) => "Unmatched parenthesis in selector definition".to_owned(),
            Self::Name => self.to_string(),
        }
    }
}

/// Why a rule cannot be taken.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Fault {
    #[error("Unknown command or category name in ACL")]
    Unknown,
    #[error("Syntax error")]
    Syntax,
    #[error(
        "Adding a pattern after the * pattern (or the 'allkeys' flag) is not valid and does not have any effect. Try 'resetkeys' to start with an empty list of patterns"
    )]
    BehindAllKeys,
    #[error(
        "Adding a pattern after the * pattern (or the 'allchannels' flag) is not valid and does not have any effect. Try 'resetchannels' to start with an empty list of channels"
    )]
    BehindAllChannels,
    #[error("The password you are trying to remove from the user does not exist")]
    NoSuchPassword,
    #[error(
        "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
    )]
    Hash,
    #[error("Allowing first-arg of a subcommand is not supported")]
    FirstArgOfSub,
}

impl User {
    /// The user changed by all of these rules, a selector perhaps spread over several of them.
    pub(super) fn with_all<'a>(
        mut self,
        rules: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Self, RuleError> {
        for rule in joined(rules)? {
            self = self.with(&rule).map_err(|fault| RuleError::Rule(lossy(&rule), fault))?;
        }
        Ok(self)
    }

    /// The user changed by one rule.
    pub(super) fn with(mut self, rule: &[u8]) -> Result<Self, Fault> {
        match rule.to_ascii_lowercase().as_slice() {
            b"" => {}
            b"on" => self.on = true,
            b"off" => self.on = false,
            b"skip-sanitize-payload" => self.trusts_payload = Some(true),
            b"sanitize-payload" => self.trusts_payload = Some(false),
            word @ (b"nopass" | b"resetpass") => {
                self.nopass = word == b"nopass";
                self.passwords.clear();
            }
            b"clearselectors" => self.rights.truncate(1),
            b"reset" => {
                self = Self { trusts_payload: Some(false), ..Self::new(&self.name) };
            }
            _ => return self.with_argument(rule),
        }
        Ok(self)
    }

    fn with_argument(mut self, rule: &[u8]) -> Result<Self, Fault> {
        match rule {
            [b'>', password @ ..] => self.add_password(hash(password)),
            [b'#', digits @ ..] => self.add_password(checked_hash(digits)?),
            [b'<', password @ ..] => self.remove_password(&hash(password))?,
            [b'!', digits @ ..] => self.remove_password(&checked_hash(digits)?)?,
            [b'(', rules @ .., b')'] => {
                let mut rights = Rights::default();
                for rule in request::split_quoted(rules).map_err(|_| Fault::Syntax)? {
                    rights.take(&rule)?;
                }
                self.rights.push(rights);
            }
            _ => self.rights[0].take(rule)?,
        }
        Ok(self)
    }

    fn add_password(&mut self, hash: Hash) {
        self.nopass = false;
        if !self.passwords.contains(&hash) {
            self.passwords.push(hash);
        }
    }

    /// With this password only, or without any need for one if it is empty.
    pub(super) fn requiring(mut self, password: &[u8]) -> Self {
        self.passwords.clear();
        self.nopass = password.is_empty();
        if !password.is_empty() {
            self.add_password(hash(password));
        }
        self
    }

    fn remove_password(&mut self, hash: &Hash) -> Result<(), Fault> {
        let at = self.passwords.iter().position(|kept| kept == hash);
        self.passwords.remove(at.ok_or(Fault::NoSuchPassword)?);
        Ok(())
    }
}

impl Rights {
    /// Takes one rule on commands, keys or channels.
    fn take(&mut self, rule: &[u8]) -> Result<(), Fault> {
        match rule.to_ascii_lowercase().as_slice() {
            b"allkeys" | b"~*" => (self.all_keys, self.key_patterns) = (true, Vec::new()),
            b"resetkeys" => (self.all_keys, self.key_patterns) = (false, Vec::new()),
            b"allchannels" | b"&*" => {
                (self.all_channels, self.channel_patterns) = (true, Vec::new());
            }
            b"resetchannels" => (self.all_channels, self.channel_patterns) = (false, Vec::new()),
            b"allcommands" | b"+@all" => self.put_all(true),
            b"nocommands" | b"-@all" => self.put_all(false),
            _ => return self.take_argument(rule),
        }
        Ok(())
    }

    fn take_argument(&mut self, rule: &[u8]) -> Result<(), Fault> {
        match rule {
            [b'~', pattern @ ..] => self.add_keys(pattern, Use::BOTH),
            [b'%', rest @ ..] => {
                let (given, pattern) = permission(rest)?;
                self.add_keys(pattern, given)
            }
            [b'&', pattern @ ..] => self.add_channel(pattern),
            [sign @ (b'+' | b'-'), ..] => {
                let rule = str::from_utf8(rule).map_err(|_| Fault::Unknown)?.to_ascii_lowercase();
                let (name, allowed) = (&rule[1..], *sign == b'+');
                match name.strip_prefix('@') {
                    Some(category) if CATEGORIES.contains(&category) => {
                        self.put_category(category, allowed);
                    }
                    Some(_) => return Err(Fault::Unknown),
                    None => self.take_command(name, allowed)?,
                }
                self.tell(&rule);
                Ok(())
            }
            _ => Err(Fault::Syntax),
        }
    }

    fn add_keys(&mut self, pattern: &[u8], given: Use) -> Result<(), Fault> {
        if self.all_keys {
            return Err(Fault::BehindAllKeys);
        }
        if has_blanks(pattern) {
            return Err(Fault::Syntax);
        }
        match self.key_patterns.iter_mut().find(|(known, _)| known == pattern) {
            Some((_, known)) => {
                *known =
                    Use { reads: known.reads || given.reads, writes: known.writes || given.writes };
            }
            None => self.key_patterns.push((pattern.to_vec(), given)),
        }
        Ok(())
    }

    fn add_channel(&mut self, pattern: &[u8]) -> Result<(), Fault> {
        if self.all_channels {
            return Err(Fault::BehindAllChannels);
        }
        if has_blanks(pattern) {
            return Err(Fault::Syntax);
        }
        if !self.channel_patterns.iter().any(|known| known == pattern) {
            self.channel_patterns.push(pattern.to_vec());
        }
        Ok(())
    }

    /// A command, a subcommand, or a command with a first argument. The names of modules' commands have a dot, and are
    /// taken as they are: the nodes may not have been asked yet.
    fn take_command(&mut self, name: &str, allowed: bool) -> Result<(), Fault> {
        // What is kept as it is has to be one word in a line.
        if has_blanks(name.as_bytes()) {
            return Err(Fault::Syntax);
        }
        if let Some(number) = number(name) {
            self.put(number, allowed);
            return Ok(());
        }
        let Some((container, argument)) = name.rsplit_once('|') else {
            if !name.contains('.') {
                return Err(Fault::Unknown);
            }
            self.foreign.insert(name.to_owned(), allowed);
            return Ok(());
        };
        let Some(number) = number(container) else {
            return Err(Fault::Unknown);
        };
        match &ROWS[number] {
            _ if !allowed => Err(Fault::Unknown),
            row if row.name.contains('|') => Err(Fault::FirstArgOfSub),
            _ if argument.is_empty() => Err(Fault::Syntax),
            row if row.subcommands > 0 => Err(Fault::Unknown),
            _ => {
                let known = self.first_args.entry(number).or_default();
                if !known.iter().any(|known| known == argument) {
                    known.push(argument.to_owned());
                }
                Ok(())
            }
        }
    }
}

/// What `%R~`, `%W~` and `%RW~` give, and the pattern behind.
fn permission(rest: &[u8]) -> Result<(Use, &[u8]), Fault> {
    let mut given = Use::NONE;
    for (at, letter) in rest.iter().enumerate() {
        match letter {
            b'R' | b'r' if !given.reads => given.reads = true,
            b'W' | b'w' if !given.writes => given.writes = true,
            // A pattern for nothing would be told as one for writing.
            b'~' if given != Use::NONE => return Ok((given, &rest[at + 1..])),
            _ => return Err(Fault::Syntax),
        }
    }
    Err(Fault::Syntax)
}

/// The rules, those of a selector put together.
fn joined<'a>(rules: impl Iterator<Item = &'a [u8]>) -> Result<Vec<Vec<u8>>, RuleError> {
    let (mut joined, mut open) = (Vec::new(), None::<(Vec<u8>, &[u8])>);
    for rule in rules {
        let (whole, first) = match open.take() {
            Some((begun, first)) => ([&begun, b" ".as_slice(), rule].concat(), Some(first)),
            None if rule.starts_with(b"(") => (rule.to_vec(), Some(rule)),
            None => (rule.to_vec(), None),
        };
        match first {
            Some(first) if !whole.ends_with(b")") => open = Some((whole, first)),
            _ => joined.push(whole),
        }
    }
    match open {
        Some((_, first)) => Err(RuleError::Parenthesis(lossy(first))),
        None => Ok(joined),
    }
}

/// The name of a user, which stands in lines between blanks.
pub(super) fn checked_name(name: &[u8]) -> Result<&str, RuleError> {
    str::from_utf8(name).ok().filter(|name| !has_blanks(name.as_bytes())).ok_or(RuleError::Name)
}

fn checked_hash(digits: &[u8]) -> Result<Hash, Fault> {
    let fits = digits.len() == 64 && digits.iter().all(|d| matches!(d, b'0'..=b'9' | b'a'..=b'f'));
    fits.then(|| lossy(digits)).ok_or(Fault::Hash)
}

fn has_blanks(text: &[u8]) -> bool {
    text.iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, 0 | 0x0b))
}

fn lossy(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::{User, Users};

    /// What comes of rules, as `ACL LIST` has it, or why they cannot be taken.
    fn check(rules: &str, expected: &str) {
        let made = Users::default().set(b"me", rules.split(' ').map(str::as_bytes));
        let told = made.map(|users| {
            let line = users.find(b"me").map(|user| user.line()).unwrap_or_default();
            String::from_utf8(line).unwrap().trim_start_matches("user me ").to_owned()
        });
        assert_eq!(told.unwrap_or_else(|error| error.to_string()), expected, "{rules}");
    }

    #[test]
    fn rules_add_up() {
        check("", "off resetchannels -@all");
        check("on nopass allkeys allchannels allcommands", "on nopass ~* &* +@all");
        check("+get +@read -get +get", "off resetchannels -@all +@read +get");
        check("+config|set +config", "off resetchannels -@all +config");
        check("+client -client|kill", "off resetchannels -@all +client -client|kill");
        check("+@all -@dangerous nocommands", "off resetchannels -@all");
        check("%R~a %W~a %RW~b %r~c", "off ~a ~b %R~c resetchannels -@all");
        check("~* resetkeys ~x &y", "off ~x resetchannels &y -@all");
        check("+select|0 +select|1", "off resetchannels -@all +select|0 +select|1");
        check(
            "(~x +get) ( %W~y +set )",
            "off resetchannels -@all (~x resetchannels -@all +get) (%W~y resetchannels -@all +set)",
        );
        check("(~x) clearselectors", "off resetchannels -@all");
        check("on >a ~x &y +@all reset", "off sanitize-payload resetchannels -@all");
        check("+json.get -ft.search", "off resetchannels -@all +json.get -ft.search");
    }

    #[test]
    fn what_cannot_be_taken_is_told() {
        let fault = |rule: &str, why: &str| {
            check(rule, &format!("Error in ACL SETUSER modifier '{rule}': {why}"));
        };
        let unknown = "Unknown command or category name in ACL";
        for rule in ["+nothing", "-@nothing", "+config|nothing", "-select|0"] {
            fault(rule, unknown);
        }
        for rule in ["nothing", "%X~a", "%~a", "%RR~a", "+select|"] {
            fault(rule, "Syntax error");
        }
        for rule in ["+get|a\nuser", "+x.get\t", "(+get|\"a\\nb\")"] {
            fault(rule, "Syntax error");
        }
        fault("+config|set|x", "Allowing first-arg of a subcommand is not supported");
        fault("<x", "The password you are trying to remove from the user does not exist");
        fault(
            "#12",
            "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters",
        );
        check("(+get", "Unmatched parenthesis in acl selector starting at '(+get'.");
        let names = Users::default().set(b"a b", std::iter::empty()).unwrap_err();
        assert_eq!(names.to_string(), "Usernames can't contain spaces or null characters");
    }

    #[test]
    fn passwords_are_known_by_their_hash() {
        let user = |rules: &[&[u8]]| User::new("me").with_all(rules.iter().copied()).unwrap();
        let hash = b"#2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
        let both = user(&[b"on", b">a b", hash]);
        assert!(
            both.admits(b"a b") && both.admits(b"secret") && !both.admits(b"") && !both.is_open()
        );
        assert!(!user(&[b">a", b"off"]).admits(b"a"));
        assert!(!user(&[b"on", b">a", b"<a"]).admits(b"a"));
        assert!(user(&[b"on", b">a", b"nopass"]).admits(b"anything"));
        assert!(!user(&[b"on", b"nopass", b"resetpass"]).admits(b"anything"));
        assert!(!user(&[b"on", b"nopass", b">a"]).admits(b"b"));
    }
}
