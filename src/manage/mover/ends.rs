//! What is said to the two nodes of a move, and to the others: requests and what their answers mean.

use std::time::Duration;

use super::remedy::{Remedy, Setback};
use crate::backend::control::{Control, ControlError};
use crate::cluster::{Address, NodeId, Slot};
use crate::manage::access::{Access, Credentials};
use crate::manage::view::Line;
use crate::resp::value::{self, Value};

/// Most requests in one go: a node serves nobody else while it answers them (64 `SETSLOT` take it about a millisecond).
const TOGETHER: usize = 64;
/// Most keys asked for at a time; with their sizes that takes the node less than a millisecond.
pub(super) const KEYS_LISTED: usize = 1000;

/// A node that is talked to.
pub(super) struct End {
    pub(super) id: NodeId,
    pub(super) address: Address,
    control: Control,
}

/// A key and how many bytes it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) name: Vec<u8>,
    pub(super) bytes: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Migrated {
    /// Its keys are on the target.
    Done,
    /// None of them was there any more.
    Nothing,
}

/// Where keys are sent to, and how.
pub(super) struct Route<'a> {
    /// The target as the source reaches it.
    pub(super) address: &'a Address,
    pub(super) credentials: Option<&'a Credentials>,
    /// How long the source waits for the target each time.
    pub(super) timeout: Duration,
}

impl End {
    /// Connects to a node, which may take `patience` for each answer.
    pub(super) async fn open(
        id: &NodeId,
        address: &Address,
        access: &Access,
        patience: Duration,
    ) -> Result<Self, ControlError> {
        let mut control = access.open(address).await?;
        control.allow(patience);
        Ok(Self { id: id.clone(), address: address.clone(), control })
    }

    /// What the node says of itself.
    pub(super) async fn lines(&mut self) -> Result<Vec<Line>, Setback> {
        let reply = self.control.call(&[b"CLUSTER", b"NODES"]).await?;
        let text = value::text(&reply).unwrap_or_default();
        Ok(text.lines().filter_map(|line| Line::parse(line, &self.address)).collect())
    }

    /// Sends requests some at a time, and takes the answers; none may be an error, except those that are excused.
    async fn all(
        &mut self,
        requests: &[Vec<Vec<u8>>],
        excused: fn(&str) -> bool,
    ) -> Result<Vec<Value>, Setback> {
        let mut replies = Vec::with_capacity(requests.len());
        for together in requests.chunks(TOGETHER) {
            replies.extend(self.control.pipeline(together).await?);
        }
        for (reply, request) in replies.iter().zip(requests) {
            if let Value::Error(text) = reply
                && !excused(text)
            {
                return Err(Setback::said(&self.address, &shown(request), text));
            }
        }
        Ok(replies)
    }

    /// Sets the state of slots.
    pub(super) async fn set_slots(
        &mut self,
        slots: &[Slot],
        state: &str,
        peer: &NodeId,
    ) -> Result<(), Setback> {
        // A source that has lost its last slot may have become a replica of the target, and knows then who owns the slot.
        let demoted = |text: &str| text.starts_with("ERR Please use SETSLOT only with");
        let excused = if state == "NODE" { demoted } else { |_: &str| false };
        let requests: Vec<_> = slots.iter().map(|slot| set_slot(*slot, state, peer)).collect();
        self.all(&requests, excused).await.map(drop)
    }

    /// Number of keys in each of these slots.
    pub(super) async fn count_keys(&mut self, slots: &[Slot]) -> Result<Vec<u64>, Setback> {
        let count = |slot: &Slot| words(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        let requests: Vec<_> = slots.iter().map(count).collect();
        let replies = self.all(&requests, |_| false).await?;
        let number = |reply| value::integer(reply).and_then(|n| u64::try_from(n).ok());
        Ok(replies.iter().map(|reply| number(reply).unwrap_or(0)).collect())
    }

    /// Some keys of a slot with their sizes.
    pub(super) async fn keys(&mut self, slot: Slot, most: usize) -> Result<Vec<Key>, Setback> {
        let (slot, most) = (slot.to_string(), most.to_string());
        let request = ["CLUSTER", "GETKEYSINSLOT", &slot, &most];
        let reply = self.control.call(&request.map(str::as_bytes)).await?;
        let names: Vec<Vec<u8>> = match reply {
            Value::Array(names) => names.into_iter().filter_map(bytes).collect(),
            _ => Vec::new(),
        };
        let usage = |name: &Vec<u8>| [words(&["MEMORY", "USAGE"]), vec![name.clone()]].concat();
        let requests: Vec<_> = names.iter().map(usage).collect();
        let sizes =
            if requests.is_empty() { Vec::new() } else { self.control.pipeline(&requests).await? };
        let keys = names.into_iter().zip(sizes).map(|(name, size)| {
            // A key that has gone since takes nothing; one that must not be asked about takes what most do.
            let bytes = value::integer(&size).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            Key { name, bytes }
        });
        Ok(keys.collect())
    }

    /// Moves keys of one slot to the target. What the target has of them is overwritten: the source owns the slot.
    pub(super) async fn migrate(
        &mut self,
        keys: &[Key],
        route: &Route<'_>,
    ) -> Result<Migrated, Setback> {
        let request = migrate(keys.iter().map(|key| key.name.as_slice()), route);
        let request: Vec<&[u8]> = request.iter().map(Vec::as_slice).collect();
        // The source gives up on the target first, and tells of it.
        self.control.allow(route.timeout * 3);
        match self.control.call(&request).await {
            Ok(reply) if value::text(&reply) == Some("NOKEY") => Ok(Migrated::Nothing),
            Ok(_) => Ok(Migrated::Done),
            Err(error) => match error.reply() {
                Some(text) => Err(Setback::said(&self.address, "MIGRATE", text)),
                None => Err(error.into()),
            },
        }
    }

    /// Waits until the replicas have what the node has now, but no longer than `time`; gives how many are behind.
    ///
    /// `WAIT` is about what its own connection wrote, but any request counts as the last one, so `PING` makes it about all.
    pub(super) async fn replicas_behind(&mut self, time: Duration) -> Result<u64, Setback> {
        let reply = self.control.call(&[b"INFO", b"replication"]).await?;
        let online = value::text(&reply).unwrap_or_default().matches("state=online").count() as u64;
        if online == 0 {
            return Ok(0);
        }
        let wait = words(&["WAIT", &online.to_string(), &time.as_millis().to_string()]);
        let replies = self.all(&[words(&["PING"]), wait], |_| false).await?;
        let caught_up = replies.last().and_then(value::integer).unwrap_or(0);
        Ok(online.saturating_sub(u64::try_from(caught_up).unwrap_or(0)))
    }

    /// The value of a setting; `None` if there is none of that name.
    pub(super) async fn setting(&mut self, name: &str) -> Result<Option<String>, Setback> {
        let reply = self.control.call(&[b"CONFIG", b"GET", name.as_bytes()]).await?;
        let pair = value::array(&reply).unwrap_or(&[]);
        Ok(pair.get(1).and_then(value::text).map(str::to_owned))
    }

    /// Changes a setting.
    pub(super) async fn set(&mut self, name: &str, value: &str) -> Result<(), Setback> {
        let request = ["CONFIG", "SET", name, value].map(str::as_bytes);
        self.control.call(&request).await.map(drop).map_err(Into::into)
    }

    /// One request of plain words.
    pub(super) async fn say(&mut self, request: &[&str]) -> Result<Value, ControlError> {
        let request: Vec<&[u8]> = request.iter().map(|word| word.as_bytes()).collect();
        self.control.call(&request).await
    }
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn set_slot(slot: Slot, state: &str, peer: &NodeId) -> Vec<Vec<u8>> {
    words(&["CLUSTER", "SETSLOT", &slot.to_string(), state, &peer.0])
}

fn migrate<'a>(keys: impl Iterator<Item = &'a [u8]>, route: &Route<'_>) -> Vec<Vec<u8>> {
    let (host, port) = (route.address.host(), route.address.port().to_string());
    let timeout = route.timeout.as_millis().to_string();
    let mut request = words(&["MIGRATE", host, &port, "", "0", &timeout, "REPLACE"]);
    match route.credentials {
        Some(Credentials { username: Some(user), password }) => {
            request.extend(words(&["AUTH2", user, password]));
        }
        Some(Credentials { username: None, password }) => {
            request.extend(words(&["AUTH", password]));
        }
        None => {}
    }
    request.push(b"KEYS".to_vec());
    request.extend(keys.map(<[u8]>::to_vec));
    request
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) | Value::SimpleString(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// A request as people are told of it; those that are sent many at a time carry no secrets.
fn shown(request: &[Vec<u8>]) -> String {
    request.join(&b' ').escape_ascii().to_string()
}

/// A key of this size would stop the source for longer than the others bear.
pub(super) fn too_big(key: &Key, limit: u64) -> Setback {
    let name = key.name.escape_ascii();
    let bytes = key.bytes;
    Setback::new(
        Remedy::Nothing,
        format!("key {name} takes {bytes} bytes, more than the limit of {limit}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(credentials: Option<&Credentials>, expected: &str) {
        let address = Address::parse("10.0.0.1:7001", None).unwrap();
        let timeout = Duration::from_millis(1500);
        let route = Route { address: &address, credentials, timeout };
        let keys = [&b"a\0b"[..], b"\xff\r\n"];
        assert_eq!(shown(&migrate(keys.into_iter(), &route)), expected);
    }

    #[test]
    fn keys_are_bytes_and_targets_want_passwords() {
        let password = "pw %s".to_owned();
        let keys = r"KEYS a\x00b \xff\r\n";
        check(None, &format!("MIGRATE 10.0.0.1 7001  0 1500 REPLACE {keys}"));
        let plain = Credentials { username: None, password: password.clone() };
        check(Some(&plain), &format!("MIGRATE 10.0.0.1 7001  0 1500 REPLACE AUTH pw %s {keys}"));
        let user = Credentials { username: Some("u".into()), password };
        check(Some(&user), &format!("MIGRATE 10.0.0.1 7001  0 1500 REPLACE AUTH2 u pw %s {keys}"));
    }
}
