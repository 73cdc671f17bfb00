//! What the text of a library says of its functions.

use super::lua;
use super::lua::Token::{self, Name, Sign, Text};
use super::script::{self, Args, READ_MAX};

/// A library's text that can be asked about the functions in it.
#[derive(Debug)]
pub struct Library<'a> {
    tokens: Vec<Token<'a>>,
}

impl<'a> Library<'a> {
    /// Reads a text, which begins with a line such as `#!lua name=lib`; of one that is too long, nothing is known.
    pub fn read(text: &'a [u8]) -> Self {
        let text = if text.len() > READ_MAX { &[] } else { text };
        Self { tokens: lua::tokens(text).collect() }
    }

    /// The library's name.
    pub fn name(text: &[u8]) -> Option<&[u8]> {
        let first = text.split(|byte| *byte == b'\n').next()?;
        first.split(u8::is_ascii_whitespace).find_map(|word| word.strip_prefix(b"name="))
    }

    /// The names under which it registers functions.
    pub fn functions(&self) -> impl Iterator<Item = &'a [u8]> {
        self.registrations().filter_map(name)
    }

    /// The first key that a function names which is called without keys: where it is registered, or, if it is the only
    /// one, anywhere.
    pub fn named_key(&self, function: &[u8], args: &[&'a [u8]]) -> Option<&'a [u8]> {
        let words = self.registrations().find(|words| name(words) == Some(function))?;
        let is_only = self.registrations().count() == 1;
        let words = if is_only { &self.tokens } else { words };
        script::key_among(words, Args { name: second_parameter(words), values: args })
    }

    /// Whether a function is registered with the flag `no-writes`, as its text reads. Its node may know better.
    pub fn declares_no_writes(&self, function: &[u8]) -> bool {
        let mut registrations = self.registrations();
        let Some(words) = registrations.find(|words| name(words) == Some(function)) else {
            return false;
        };
        let flags = [Name(b"flags"), Sign(b'='), Sign(b'{')];
        let Some(at) = words.windows(flags.len()).position(|some| *some == flags) else {
            return false;
        };
        let mut listed = words[at + flags.len()..].iter().take_while(|word| **word != Sign(b'}'));
        listed.any(|word| *word == Text(Some(b"no-writes")))
    }

    /// What stands behind each `register_function`, up to the next one.
    fn registrations(&self) -> impl Iterator<Item = &[Token<'a>]> {
        self.tokens.split(|word| *word == Name(b"register_function")).skip(1)
    }
}

/// What the first function with two parameters calls the second, as all that the server calls do; `ARGV` if there is none.
fn second_parameter<'a>(words: &[Token<'a>]) -> &'a [u8] {
    let found = words.windows(5).find_map(|five| match *five {
        [Sign(b'('), Name(_), Sign(b','), Name(second), Sign(b')')] => Some(second),
        _ => None,
    });
    found.unwrap_or(b"ARGV")
}

/// The name in `('name', …` or `{function_name='name', …`.
fn name<'a>(words: &[Token<'a>]) -> Option<&'a [u8]> {
    match *words {
        [Sign(b'('), Text(name), ..] => name,
        _ => words.windows(3).find_map(|three| match *three {
            [Name(b"function_name"), Sign(b'='), Text(name)] => name,
            _ => None,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "#!lua name=one\nlocal function get(keys, args) return redis.call('get', args[1]) end\n\
        redis.register_function('look', get)";
    const TWO: &str = "#!lua engine=x name=two\n\
        redis.register_function('set', function(KEYS, ARGV) return redis.call('set', 'a', ARGV[1]) end)\n\
        redis.register_function{function_name='get', callback=function() return redis.call('get', 'b') end,\n\
        flags={'allow-stale', 'no-writes'}}";

    #[test]
    fn what_a_library_says() {
        let (one, two) = (Library::read(ONE.as_bytes()), Library::read(TWO.as_bytes()));
        assert_eq!(Library::name(TWO.as_bytes()), Some(&b"two"[..]));
        assert_eq!(Library::name(b"return 1"), None);
        assert_eq!(one.functions().collect::<Vec<_>>(), [b"look"]);
        assert_eq!(two.functions().collect::<Vec<_>>(), [b"set", b"get"]);
        let args: [&[u8]; 1] = [b"key"];
        assert_eq!(one.named_key(b"look", &args), Some(&b"key"[..]));
        assert_eq!(two.named_key(b"set", &args), Some(&b"a"[..]));
        assert_eq!(two.named_key(b"get", &args), Some(&b"b"[..]));
        assert_eq!(two.named_key(b"look", &args), None);
        assert!(two.declares_no_writes(b"get") && !two.declares_no_writes(b"set"));
        assert!(!one.declares_no_writes(b"look") && !two.declares_no_writes(b"look"));
    }
}
