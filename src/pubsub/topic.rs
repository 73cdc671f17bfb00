//! What can be subscribed to, and what nodes say on a connection that subscribes.

use bytes::Bytes;

use crate::cluster::Slot;
use crate::resp::value::bulk;
use crate::resp::{Protocol, write};

/// How much of the namespace of notifications a name must share to have anything to do with it.
const NOTIFICATIONS: [&[u8]; 2] = [b"__keyspace@", b"__keyevent@"];

/// The three kinds of subscriptions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// One channel, which all nodes know.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// One channel of the shard that owns its slot.
    Shard,
}

impl Kind {
    /// All of them, each at the place that its number says.
    pub const ALL: [Self; 3] = [Self::Channel, Self::Pattern, Self::Shard];

    fn prefix(self) -> &'static str {
        match self {
            Self::Channel => "",
            Self::Pattern => "p",
            Self::Shard => "s",
        }
    }
}

/// Something to subscribe to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Topic {
    /// What kind of name it is.
    pub kind: Kind,
    /// The channel, or the pattern.
    pub name: Bytes,
}

impl Topic {
    /// A topic of this name.
    pub fn new(kind: Kind, name: &[u8]) -> Self {
        Self { kind, name: Bytes::copy_from_slice(name) }
    }

    /// The slot that a shard's channel belongs to.
    pub fn slot(&self) -> Slot {
        Slot::of(&self.name)
    }

    /// Whether notifications of key changes may come under it, which every node tells of its own keys only.
    pub fn may_notify(&self) -> bool {
        let literal = match self.kind {
            Kind::Channel => return is_notification(&self.name),
            Kind::Pattern => self.name.iter().take_while(|b| !b"*?[\\".contains(b)).count(),
            Kind::Shard => return false,
        };
        let literal = &self.name[..literal];
        NOTIFICATIONS.iter().any(|names| names.starts_with(literal) || literal.starts_with(names))
    }

    /// Appends the request that subscribes or unsubscribes.
    pub(super) fn request(&self, verb: &str, out: &mut Vec<u8>) {
        let word = format!("{}{verb}", self.kind.prefix());
        write::request(out, [word.as_bytes(), &self.name].into_iter());
    }
}

/// Whether a channel is one on which nodes tell of changes to their own keys.
pub(super) fn is_notification(channel: &[u8]) -> bool {
    NOTIFICATIONS.iter().any(|names| channel.starts_with(names))
}

/// Appends what a client hears when it has subscribed or unsubscribed, with the number of subscriptions it has then.
pub fn confirmation(
    out: &mut Vec<u8>,
    protocol: Protocol,
    word: (&str, Kind),
    name: Option<&[u8]>,
    count: u32,
) {
    write::push(out, protocol, 3);
    write::bulk(out, format!("{}{}", word.1.prefix(), word.0));
    match name {
        Some(name) => write::bulk(out, name),
        None => write::nil(out, protocol),
    }
    write::integer(out, i64::from(count));
}

/// What a node said on a connection that subscribes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message under this topic, published on this channel.
    Message(Topic, Bytes),
    /// The topic is subscribed to.
    Subscribed(Topic),
    /// The topic is not subscribed to any more, on request or because its slot has moved.
    Unsubscribed(Topic),
    /// An error, in answer to the request whose turn it is.
    Error,
    /// Anything else, such as the answer to a ping.
    Nothing,
}

/// Reads a whole frame.
pub(super) fn read(frame: &Bytes) -> Heard {
    if frame.first() == Some(&b'-') {
        return Heard::Error;
    }
    read_message(frame).unwrap_or(Heard::Nothing)
}

fn read_message(frame: &Bytes) -> Option<Heard> {
    let mut at = memchr::memchr(b'\n', frame)? + 1;
    let word = bulk(frame, &mut at)?;
    let name = bulk(frame, &mut at)?;
    let topic = |kind| Topic { kind, name: name.clone() };
    Some(match &word[..] {
        b"message" => Heard::Message(topic(Kind::Channel), name),
        b"pmessage" => Heard::Message(topic(Kind::Pattern), bulk(frame, &mut at)?),
        b"smessage" => Heard::Message(topic(Kind::Shard), name),
        b"subscribe" => Heard::Subscribed(topic(Kind::Channel)),
        b"psubscribe" => Heard::Subscribed(topic(Kind::Pattern)),
        b"ssubscribe" => Heard::Subscribed(topic(Kind::Shard)),
        b"unsubscribe" => Heard::Unsubscribed(topic(Kind::Channel)),
        b"punsubscribe" => Heard::Unsubscribed(topic(Kind::Pattern)),
        b"sunsubscribe" => Heard::Unsubscribed(topic(Kind::Shard)),
        _ => Heard::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames() {
        let check = |frame: &'static str, expected| {
            assert_eq!(read(&Bytes::from_static(frame.as_bytes())), expected, "{frame:?}");
        };
        let topic = |kind, name: &str| Topic::new(kind, name.as_bytes());
        check(
            "*3\r\n$7\r\nmessage\r\n$2\r\nab\r\n$1\r\nx\r\n",
            Heard::Message(topic(Kind::Channel, "ab"), "ab".into()),
        );
        check(
            "*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$2\r\nab\r\n$1\r\nx\r\n",
            Heard::Message(topic(Kind::Pattern, "a*"), "ab".into()),
        );
        check(
            "*3\r\n$12\r\nsunsubscribe\r\n$1\r\na\r\n:0\r\n",
            Heard::Unsubscribed(topic(Kind::Shard, "a")),
        );
        check("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n", Heard::Nothing);
        check("*2\r\n$4\r\npong\r\n$0\r\n\r\n", Heard::Nothing);
        check("+PONG\r\n", Heard::Nothing);
        check("-ERR x\r\n", Heard::Error);
    }

    #[test]
    fn notifications() {
        let check = |kind, name: &str, expected| {
            assert_eq!(Topic::new(kind, name.as_bytes()).may_notify(), expected, "{name}");
        };
        check(Kind::Channel, "__keyspace@0__:k", true);
        check(Kind::Channel, "__keyspace", false);
        check(Kind::Pattern, "__key*", true);
        check(Kind::Pattern, "__keyevent@0__:*", true);
        check(Kind::Pattern, "*", true);
        check(Kind::Pattern, "news.*", false);
        check(Kind::Shard, "__keyspace@0__:k", false);
    }
}
