//! What a script's text says of what it may do.

use super::{Flags, lookup};

/// Ways to the server's functions other than by their plain names.
const DETOURS: [&[u8]; 5] = [b"_G", b"getfenv", b"load", b"server", b"require"];

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
}
