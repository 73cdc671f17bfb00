//! What a script's text says of what it may do.

use ring::digest::SHA1_FOR_LEGACY_USE_ONLY;

use super::keys;
use super::lua::Token::{self, Name, Number, Sign, Text};
use super::{Flags, lookup, lua, table};
use crate::resp::write::hexadecimal;

/// Ways to the server's functions other than by their plain names.
const DETOURS: [&[u8]; 5] = [b"_G", b"getfenv", b"load", b"server", b"require"];
/// Most bytes of a script in which keys are looked for: more than people write, and little work.
pub const READ_MAX: usize = 64 << 10;
/// Most calls of the server in which a key is looked for, and most names of its function: it is mostly in the first one.
const CALLS_MAX: usize = 32;
const ALIASES_MAX: usize = 4;

/// Whether a script may run a command that reads keys. Only a script that names each command where it calls it, and none
/// that reads, is known not to.
pub fn may_read(script: &[u8]) -> bool {
    if DETOURS.iter().any(|way| memchr::memmem::find(script, way).is_some()) {
        return true;
    }
    let calls = memchr::memmem::find_iter(script, b"redis");
    calls.map(|at| called(&script[at + b"redis".len()..])).any(|name| name.is_none_or(reads))
}

/// The name of the command that is called here, if it stands there.
fn called(call: &[u8]) -> Option<&[u8]> {
    let args = call.strip_prefix(b".call").or_else(|| call.strip_prefix(b".pcall"))?;
    let args = args.trim_ascii_start().strip_prefix(b"(")?.trim_ascii_start();
    let (quote, rest) = args.split_first().filter(|(quote, _)| b"'\"".contains(quote))?;
    let end = memchr::memchr(*quote, rest)?;
    let is_whole = matches!(rest[end + 1..].trim_ascii_start().first(), Some(b',' | b')'));
    is_whole.then_some(&rest[..end])
}

/// Whether a command reads, or is not known.
fn reads(name: &[u8]) -> bool {
    lookup(name).is_none_or(|spec| spec.flags.has(Flags::READONLY))
}

/// The first key that a script names which is called without keys, as an argument of a command: in its text, or as one of
/// the script's arguments. What it puts together is not guessed.
pub fn named_key<'a>(script: &'a [u8], args: &[&'a [u8]]) -> Option<&'a [u8]> {
    let tokens: Vec<Token<'_>> = readable(script).collect();
    key_among(&tokens, Args { name: b"ARGV", values: args })
}

/// What a script or function is called with besides keys.
#[derive(Clone, Copy)]
pub(super) struct Args<'a, 'v> {
    /// What it calls them.
    pub(super) name: &'a [u8],
    pub(super) values: &'v [&'a [u8]],
}

/// The first key that is named among these words.
pub(super) fn key_among<'a>(tokens: &[Token<'a>], args: Args<'a, '_>) -> Option<&'a [u8]> {
    let calls = aliases(tokens);
    let found = (0..tokens.len()).filter_map(|at| Some((at, call(&tokens[at..], &calls)?)));
    found.take(CALLS_MAX).find_map(|(at, behind)| {
        let before = &tokens[..at];
        let said: Vec<Option<&[u8]>> =
            arguments(behind).iter().map(|words| value(words, before, args)).collect();
        first_key(&said)
    })
}

/// The name that servers give a script: its SHA-1 in hexadecimal digits.
pub fn digest(script: &[u8]) -> String {
    hexadecimal(ring::digest::digest(&SHA1_FOR_LEGACY_USE_ONLY, script).as_ref())
}

/// Reads the first line of a script, such as `#!lua flags=no-writes,allow-oom`.
pub fn declares_no_writes(script: &[u8]) -> bool {
    let first = script.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut words = first.split(|byte| *byte == b' ');
    words.next().is_some_and(|word| word.starts_with(b"#!"))
        && words
            .filter_map(|word| word.strip_prefix(b"flags="))
            .any(|flags| flags.split(|byte| *byte == b',').any(|flag| flag == b"no-writes"))
}

/// The words of a script that is not too long.
fn readable(script: &[u8]) -> lua::Tokens<'_> {
    lua::tokens(if script.len() > READ_MAX { &[] } else { script })
}

/// Names that a script gives to `redis.call` and `redis.pcall`.
fn aliases<'a>(tokens: &[Token<'a>]) -> Vec<&'a [u8]> {
    let alias = |at: usize| match tokens[at..] {
        [Name(alias), Sign(b'='), ref rest @ ..] => {
            let behind = function(rest)?;
            (behind.first() != Some(&Sign(b'('))).then_some(alias)
        }
        _ => None,
    };
    (0..tokens.len()).filter_map(alias).take(ALIASES_MAX).collect()
}

/// What stands behind the name of the server's function, if it is here.
fn function<'t, 'a>(tokens: &'t [Token<'a>]) -> Option<&'t [Token<'a>]> {
    match tokens {
        [Name(b"redis" | b"server"), Sign(b'.'), Name(b"call" | b"pcall"), rest @ ..] => Some(rest),
        _ => None,
    }
}

/// What stands behind the bracket of a call of the server, if there is one here.
fn call<'t, 'a>(tokens: &'t [Token<'a>], aliases: &[&[u8]]) -> Option<&'t [Token<'a>]> {
    let behind = match tokens {
        [Name(name), rest @ ..] if aliases.contains(name) => rest,
        _ => function(tokens)?,
    };
    behind.split_first().filter(|(sign, _)| **sign == Sign(b'(')).map(|(_, rest)| rest)
}

/// The arguments of the call whose opening bracket was the last token.
fn arguments<'t, 'a>(tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let (mut all, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Sign(b'(' | b'[' | b'{') => depth += 1,
            Sign(b')' | b']' | b'}') if depth == 0 => {
                all.push(&tokens[start..at]);
                return all;
            }
            Sign(b')' | b']' | b'}') => depth -= 1,
            Sign(b',') if depth == 0 => {
                all.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    // It is not closed, and no node will run it.
    Vec::new()
}

/// What an expression comes to, if it is a text, a number, one of the script's arguments, or the name of one of these.
fn value<'a>(
    expression: &[Token<'a>],
    before: &[Token<'a>],
    args: Args<'a, '_>,
) -> Option<&'a [u8]> {
    match *expression {
        [Name(b"unpack"), Sign(b'('), Name(name), Sign(b')')] if name == args.name => {
            args.values.first().copied()
        }
        [Name(name)] => local(name, before, args),
        _ => plain(expression, args).filter(|(_, rest)| rest.is_empty()).map(|(value, _)| value),
    }
}

/// What a plain expression comes to, and what stands behind it.
fn plain<'t, 'a>(
    tokens: &'t [Token<'a>],
    args: Args<'a, '_>,
) -> Option<(&'a [u8], &'t [Token<'a>])> {
    match tokens {
        [Text(text), rest @ ..] => Some(((*text)?, rest)),
        [Number(digits), rest @ ..] if is_index(digits) => Some((digits, rest)),
        [Name(name), Sign(b'['), Number(digits), Sign(b']'), rest @ ..] if *name == args.name => {
            let at: usize = str::from_utf8(digits).ok()?.parse().ok()?;
            Some((*args.values.get(at.checked_sub(1)?)?, rest))
        }
        _ => None,
    }
}

/// Whether Lua writes a number as it stands here.
fn is_index(digits: &[u8]) -> bool {
    digits.len() < 10 && digits[0] != b'0' && digits.iter().all(u8::is_ascii_digit)
}

/// What a name was given when it was last made, if all that it was given is plain.
fn local<'a>(name: &[u8], before: &[Token<'a>], args: Args<'a, '_>) -> Option<&'a [u8]> {
    let made = |at: &usize| matches!(before[*at..], [Name(b"local"), Name(of), Sign(b'='), ..] if of == name);
    let at = (0..before.len()).rev().find(made)?;
    let (value, rest) = plain(&before[at + 3..], args)?;
    let is_whole = match rest {
        [] | [Sign(b';'), ..] => true,
        [Name(word), ..] => !matches!(*word, b"and" | b"or"),
        _ => false,
    };
    is_whole.then_some(value)
}

/// The first key of a command of which some arguments are known.
fn first_key<'a>(said: &[Option<&'a [u8]>]) -> Option<&'a [u8]> {
    let words: Vec<&[u8]> = said.iter().map(|word| word.unwrap_or_default()).collect();
    let command = lookup(words.first()?)?;
    let command = words.get(1).and_then(|sub| table::subcommand(command, sub)).unwrap_or(command);
    let mut positions = keys::positions(command.keys, &words[..]).ok()?;
    positions.find_map(|at| said[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_told_may_read() {
        let check = |script: &str, expected| {
            assert_eq!(may_read(script.as_bytes()), expected, "{script}");
        };
        check("return 1", false);
        check("redis.call('set', KEYS[1], 'x')", false);
        check("redis.pcall( \"SET\" ,KEYS[1], ARGV[1]); redis.call('ping')", false);
        check("redis.call('get', KEYS[1])", true);
        check("redis.call('set', KEYS[1], redis.call('GET', KEYS[2]))", true);
        check("redis.call(ARGV[1], KEYS[1])", true);
        check("redis.call('g' .. 'et', KEYS[1])", true);
        check("local c = redis.call c('get', KEYS[1])", true);
        check("redis['call']('get', KEYS[1])", true);
        check("local r = redis r.call('get', KEYS[1])", true);
        check("_G['re' .. 'dis'].call('get', KEYS[1])", true);
        check("redis.call('nonsense', KEYS[1])", true);
        check("redis.call('set", true);
    }

    #[test]
    fn keys_are_found_where_they_are_named() {
        let args: [&[u8]; 2] = [b"one", b"two"];
        let check = |script: &str, expected: Option<&str>| {
            assert_eq!(
                named_key(script.as_bytes(), &args),
                expected.map(str::as_bytes),
                "{script}"
            );
        };
        check("return redis.call('get', 'foo')", Some("foo"));
        check("return redis.pcall(\"GET\",\"foo\")", Some("foo"));
        check("redis.call([[SET]], [=[foo]=], 1)", Some("foo"));
        check("return server.call ( 'get' , 'foo' )", Some("foo"));
        check("redis.call('incr', ARGV[1])", Some("one"));
        check("redis.call('incr', ARGV[ 2 ])", Some("two"));
        check("redis.call('del', unpack(ARGV))", Some("one"));
        check("redis.call('lpush', 'l', unpack(t))", Some("l"));
        check("redis.call('get', 17)", Some("17"));
        check("redis.pcall('randomkey'); return redis.pcall('set','x','ciao')", Some("x"));
        check(
            "if redis.call('EXISTS', 'a') == 1 then return redis.call('GET', 'b') end",
            Some("a"),
        );
        check("redis.call('set', 'a', redis.call('get', 'b'))", Some("a"));
        check("redis.call('zunionstore', 'd', 2, 'a', 'b')", Some("d"));
        check("redis.call('bitop', 'and', 'd', 'a')", Some("d"));
        check("redis.call('xread', 'count', '1', 'streams', 's', '0')", Some("s"));
        check("redis.call('object', 'encoding', 'k')", Some("k"));
        check("local c = redis.call c('get', 'foo')", Some("foo"));
        check("local call, x = redis.call, 1 call('get', 'foo')", None);
        check("local k = ARGV[1]\nreturn redis.call('get', k)", Some("one"));
        check("local k = 'a'; local k = 'b'; return redis.call('get', k)", Some("b"));
        check("local k = 'a' .. ARGV[1] return redis.call('get', k)", None);
        check("local k = ARGV[1] or 'a' return redis.call('get', k)", None);
        check("local k = f('a') return redis.call('get', k)", None);
        check("for _, k in ipairs(ARGV) do redis.call('del', k) end", None);
        check("redis.call('get', 'a' .. ARGV[1])", None);
        check("redis.call('get', ARGV[1] .. 'a'); redis.call('get', 'b')", Some("b"));
        check("redis.call('get', prefix(ARGV[1], 2))", None);
        check("redis.call('get', 'a\\n')", None);
        check("redis.call('get', ARGV[3])", None);
        check("redis.call('get', ARGV[0])", None);
        check("redis.call('get', KEYS[1])", None);
        check("-- redis.call('get', 'a')\nreturn redis.call('get', 'b')", Some("b"));
        check("--[[ redis.call('get', 'a')\n]] return redis.call('get', 'b')", Some("b"));
        check("return \"redis.call('get', 'a')\"", None);
        check("redis.call('publish', 'a', 'b')", None);
        check("redis.call('nonsense', 'a')", None);
        check("redis.call('get'", None);
        check("redis.call('get', 'a'", None);
        check("redis.call(", None);
        check("return 1", None);
    }

    #[test]
    fn scripts_say_that_they_do_not_write() {
        let check = |script: &str, expected| {
            assert_eq!(declares_no_writes(script.as_bytes()), expected, "{script}");
        };
        check("#!lua flags=no-writes\nreturn 1", true);
        check("#!lua name=x flags=allow-oom,no-writes", true);
        check("#!lua\nflags=no-writes", false);
        check("#!lua flags=allow-stale\nreturn 1", false);
        check("return 1 -- flags=no-writes", false);
        check("", false);
    }
}
