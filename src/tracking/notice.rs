//! What nodes say of changed keys, and what clients hear of them.

use std::cell::OnceCell;

use bytes::Bytes;

use crate::resp::value::bulk;
use crate::resp::{Protocol, write};

/// The channel on which clients of RESP2 hear of changes, as messages that answer nothing.
const CHANNEL: &str = "__redis__:invalidate";

/// What clients must not go on using.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Changed {
    /// What they have read of these keys.
    Keys(Vec<Bytes>),
    /// Everything.
    All,
}

/// Reads a frame of a connection that tracks; `None` if it tells of no change.
pub(super) fn read(frame: &Bytes) -> Option<Changed> {
    let mut at = frame.starts_with(b">2\r\n").then_some(4)?;
    if bulk(frame, &mut at)? != "invalidate" {
        return None;
    }
    let Some(keys) = frame[at..].strip_prefix(b"*") else { return Some(Changed::All) };
    let digits = memchr::memchr(b'\r', keys)?;
    let count: usize = std::str::from_utf8(&keys[..digits]).ok()?.parse().ok()?;
    at += 1 + digits + 2;
    (0..count).map(|_| bulk(frame, &mut at)).collect::<Option<_>>().map(Changed::Keys)
}

/// A change in the words of either version of the protocol, made when first needed.
pub(super) struct Notice<'a> {
    pub(super) changed: &'a Changed,
    wires: [OnceCell<Bytes>; 2],
}

impl<'a> Notice<'a> {
    pub(super) fn new(changed: &'a Changed) -> Self {
        Self { changed, wires: Default::default() }
    }

    pub(super) fn of(&self, protocol: Protocol) -> &Bytes {
        let wire = &self.wires[usize::from(protocol == Protocol::Resp3)];
        wire.get_or_init(|| encode(self.changed, protocol).into())
    }
}

fn encode(changed: &Changed, protocol: Protocol) -> Vec<u8> {
    let mut out = Vec::new();
    match protocol {
        Protocol::Resp3 => {
            write::push(&mut out, protocol, 2);
            write::bulk(&mut out, "invalidate");
        }
        Protocol::Resp2 => {
            write::array(&mut out, 3);
            write::bulk(&mut out, "message");
            write::bulk(&mut out, CHANNEL);
        }
    }
    match changed {
        Changed::All => write::nil(&mut out, protocol),
        Changed::Keys(keys) => {
            write::array(&mut out, keys.len());
            for key in keys {
                write::bulk(&mut out, key);
            }
        }
    }
    out
}

/// What a client hears when the one that is told in its place is gone.
pub(super) fn broken(redirect: u64) -> Vec<u8> {
    let mut out = Vec::new();
    write::push(&mut out, Protocol::Resp3, 2);
    write::bulk(&mut out, "tracking-redir-broken");
    write::integer(&mut out, i64::try_from(redirect).unwrap_or(i64::MAX));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nodes_say_is_what_clients_hear() {
        let check = |frame: &'static str, changed: Option<Changed>| {
            let frame = Bytes::from_static(frame.as_bytes());
            assert_eq!(read(&frame), changed, "{frame:?}");
            if let Some(changed) = changed {
                assert_eq!(encode(&changed, Protocol::Resp3), frame);
            }
        };
        let keys = |keys: &[&'static str]| {
            Some(Changed::Keys(keys.iter().map(|key| Bytes::from_static(key.as_bytes())).collect()))
        };
        check(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$2\r\nbc\r\n", keys(&["a", "bc"]));
        check(">2\r\n$10\r\ninvalidate\r\n*0\r\n", keys(&[]));
        check(">2\r\n$10\r\ninvalidate\r\n_\r\n", Some(Changed::All));
        check(">2\r\n$21\r\ntracking-redir-broken\r\n:1\r\n", None);
        check(">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n", None);
        check("+PONG\r\n", None);
    }

    #[test]
    fn clients_of_resp2_hear_a_message() {
        let check = |changed: &Changed, expected: &str| {
            assert_eq!(String::from_utf8(encode(changed, Protocol::Resp2)).unwrap(), expected);
        };
        let channel = "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n";
        check(&Changed::Keys(vec!["a".into()]), &format!("{channel}*1\r\n$1\r\na\r\n"));
        check(&Changed::All, &format!("{channel}$-1\r\n"));
    }
}
