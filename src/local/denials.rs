//! `ACL LOG`: what clients wanted to do and may not. Every worker keeps its own; they are shown as one.

use std::collections::VecDeque;

use crate::client::Client;
use crate::refusal::Refusal;
use crate::resp::{Protocol, write};

/// Most entries kept, and how many of the newest are looked at for one that a new one repeats: the server's own numbers.
const MOST: usize = 128;
const COMPARED: usize = 10;
/// How many milliseconds later something is no repetition any more.
const APART_MS: u64 = 60_000;

/// How much `ACL LOG` is to show, and when that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Most entries shown.
    pub most: u64,
    /// Milliseconds since 1970.
    pub now_ms: u64,
}

/// Something that was denied, perhaps several times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    count: u64,
    reason: &'static str,
    context: &'static str,
    /// The command, key or channel.
    object: Vec<u8>,
    user: String,
    /// Milliseconds since 1970 of the last time.
    unix_ms: u64,
    /// The client of the last time, as `CLIENT LIST` shows it.
    client: String,
}

impl Entry {
    /// For what a client is told, if that is a denial.
    pub fn of(
        refusal: &Refusal,
        client: &Client,
        unix_ms: u64,
        line: impl Fn() -> String,
    ) -> Option<Self> {
        let own = &client.user.name;
        let (reason, object, user) = match refusal {
            Refusal::DeniedCommand(name) => ("command", name.as_bytes(), own),
            Refusal::DeniedKey(key) => ("key", &key[..], own),
            Refusal::DeniedChannel(channel) => ("channel", &channel[..], own),
            Refusal::WrongPass { command, user } => ("auth", command.as_bytes(), user),
            _ => return None,
        };
        let context = if client.queued.is_some() { "multi" } else { "toplevel" };
        let (object, user) = (object.to_vec(), user.clone());
        Some(Self { count: 1, reason, context, object, user, unix_ms, client: line() })
    }

    fn repeats(&self, other: &Self) -> bool {
        self.unix_ms.abs_diff(other.unix_ms) <= APART_MS
            && (self.reason, self.context, &self.object, &self.user)
                == (other.reason, other.context, &other.object, &other.user)
    }

    fn write(&self, protocol: Protocol, now_ms: u64, out: &mut Vec<u8>) {
        let age_ms = now_ms.saturating_sub(self.unix_ms);
        write::map(out, protocol, 7);
        write::bulk(out, "count");
        write::integer(out, i64::try_from(self.count).unwrap_or(i64::MAX));
        write::bulk(out, "reason");
        write::bulk(out, self.reason);
        write::bulk(out, "context");
        write::bulk(out, self.context);
        write::bulk(out, "object");
        write::bulk(out, &self.object);
        write::bulk(out, "username");
        write::bulk(out, &self.user);
        write::bulk(out, "age-seconds");
        write::double(out, protocol, &format!("{}.{:03}", age_ms / 1000, age_ms % 1000));
        write::bulk(out, "client-info");
        write::bulk(out, &self.client);
    }
}

/// Takes an entry in as the newest, together with one that it repeats. The oldest goes if there are too many.
pub fn keep(log: &mut VecDeque<Entry>, mut entry: Entry) {
    let known = log.iter().take(COMPARED).position(|known| entry.repeats(known));
    if let Some(known) = known.and_then(|at| log.remove(at)) {
        entry.count += known.count;
    }
    log.push_front(entry);
    log.truncate(MOST);
}

/// The newest of all workers' entries, newest first.
pub(super) fn show(mut entries: Vec<Entry>, look: Look, protocol: Protocol, out: &mut Vec<u8>) {
    // Those of one worker and one millisecond stay in their order.
    entries.reverse();
    entries.sort_by_key(|entry| entry.unix_ms);
    let mut log = VecDeque::new();
    for entry in entries {
        keep(&mut log, entry);
    }
    log.truncate(usize::try_from(look.most).unwrap_or(usize::MAX));
    write::array(out, log.len());
    for entry in &log {
        entry.write(protocol, look.now_ms, out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acl::Users;

    fn entry(refusal: &Refusal, unix_ms: u64) -> Entry {
        let client = Client::new(1, None, None, Users::default().default_user(), 0);
        Entry::of(refusal, &client, unix_ms, || "line".to_owned()).unwrap()
    }

    #[test]
    fn what_is_repeated_within_a_minute_is_one_entry() {
        let mut log = VecDeque::new();
        let (get, key) = (Refusal::DeniedCommand("get".into()), Refusal::DeniedKey(b"k".into()));
        for (refusal, unix_ms) in [(&get, 0), (&key, 1), (&get, 60_000), (&get, 120_001)] {
            keep(&mut log, entry(refusal, unix_ms));
        }
        let told: Vec<_> = log.iter().map(|entry| (entry.reason, entry.count)).collect();
        assert_eq!(told, [("command", 1), ("command", 2), ("key", 1)]);
    }

    #[test]
    fn only_denials_are_kept_and_only_so_many() {
        let client = Client::new(1, None, None, Users::default().default_user(), 0);
        assert_eq!(Entry::of(&Refusal::CrossSlot, &client, 0, String::new), None);
        let mut log = VecDeque::new();
        for number in 0..2 * MOST {
            let object = number.to_string().into_bytes();
            keep(&mut log, entry(&Refusal::DeniedKey(object), number as u64));
        }
        assert_eq!((log.len(), &log[0].object[..]), (MOST, &b"255"[..]));
    }
}
