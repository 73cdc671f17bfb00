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
/// Most keys whose sizes are asked for in one go, which takes a node less than a millisecond.
const SIZES_TOGETHER: usize = 500;
/// Keys of a slot whose sizes are asked for to guess those of the others.
const SAMPLED: usize = 8;
/// Bytes of a key that is small: thousands of them are moved in the time that one batch may take.
const SMALL: u64 = 1024;
/// Most keys that are listed of a slot at a time.
pub(in crate::manage) const KEYS_LISTED: usize = 1000;

/// A node that is talked to.
pub(in crate::manage) struct End {
    pub(in crate::manage) id: NodeId,
    pub(in crate::manage) address: Address,
    control: Control,
}

/// How the sizes of keys are found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage) enum Sizes {
    /// Each is asked for.
    All,
    /// A few are, and if these are small the rest is taken to be like them.
    Sampled,
}

/// A key and how many bytes it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manage) struct Key {
    pub(in crate::manage) name: Vec<u8>,
    pub(in crate::manage) bytes: u64,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::manage) enum Migrated {
    /// Its keys are on the target.
    Done,
    /// None of them was there any more.
    Nothing,
}

/// Where keys are sent to, and how.
pub(in crate::manage) struct Route<'a> {
    /// The target as the source reaches it.
    pub(in crate::manage) address: &'a Address,
    pub(in crate::manage) credentials: Option<&'a Credentials>,
    /// How long the source waits for the target each time.
    pub(in crate::manage) timeout: Duration,
    /// Whether what the target has of the keys is overwritten.
    pub(in crate::manage) replace: bool,
}

impl End {
    /// Connects to a node, which may take `patience` for each answer.
    pub(in crate::manage) async fn open(
        id: &NodeId,
        address: &Address,
        access: &Access,
        patience: Duration,
    ) -> Result<Self, ControlError> {
        let mut control = access.open(address).await?;
        control.allow(patience);
        Ok(Self { id: id.clone(), address: address.clone(), control })
    }

    /// The connection, for requests that are answered one after the other.
    pub(in crate::manage) fn control(&mut self) -> &mut Control {
        &mut self.control
    }

    /// What the node says of itself.
    pub(in crate::manage) async fn lines(&mut self) -> Result<Vec<Line>, Setback> {
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
        self.expect(requests, &replies, excused)?;
        Ok(replies)
    }

    /// Sets the state of slots.
    pub(in crate::manage) async fn set_slots(
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

    /// Makes the node the owner of slots that it is taking in.
    ///
    /// A node tells all others whenever it takes a slot that it was taking in, and they check all slots each time: of 64 at
    /// once that stops every node for milliseconds. A slot that it was not taking in it takes silently, so all but the last
    /// one cease to be taken in first; in one transaction, so that no client sees that.
    pub(in crate::manage) async fn take_slots(&mut self, slots: &[Slot]) -> Result<(), Setback> {
        let Some((last, silent)) = slots.split_last() else { return Ok(()) };
        let stable = |slot: &Slot| words(&["CLUSTER", "SETSLOT", &slot.to_string(), "STABLE"]);
        let own = |slot: &Slot| set_slot(*slot, "NODE", &self.id);
        let taken = silent.iter().flat_map(|slot| [stable(slot), own(slot)]);
        let begin = std::iter::once(words(&["MULTI"]));
        let requests: Vec<_> = begin.chain(taken).chain([own(last), words(&["EXEC"])]).collect();
        let mut replies = self.control.pipeline(&requests).await?;
        let done = match replies.pop() {
            Some(Value::Array(done)) => done,
            Some(refused) => vec![refused],
            None => Vec::new(),
        };
        match replies.into_iter().chain(done).find(|reply| matches!(reply, Value::Error(_))) {
            Some(Value::Error(text)) => Err(Setback::said(&self.address, "SETSLOT NODE", &text)),
            _ => Ok(()),
        }
    }

    /// Number of keys in each of these slots.
    pub(in crate::manage) async fn count_keys(
        &mut self,
        slots: &[Slot],
    ) -> Result<Vec<u64>, Setback> {
        let count = |slot: &Slot| words(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]);
        let requests: Vec<_> = slots.iter().map(count).collect();
        let replies = self.all(&requests, |_| false).await?;
        let number = |reply| value::integer(reply).and_then(|n| u64::try_from(n).ok());
        Ok(replies.iter().map(|reply| number(reply).unwrap_or(0)).collect())
    }

    /// Some keys of each of these slots, with their sizes.
    pub(in crate::manage) async fn keys(
        &mut self,
        slots: &[Slot],
        most: usize,
        sizes: Sizes,
    ) -> Result<Vec<Vec<Key>>, Setback> {
        let most = most.to_string();
        let list = |slot: &Slot| words(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most]);
        let lists = self.all(&slots.iter().map(list).collect::<Vec<_>>(), |_| false).await?;
        let mut keys: Vec<Vec<Key>> = lists.into_iter().map(keys_of).collect();
        if sizes == Sizes::Sampled {
            self.measure(keys.iter_mut().flat_map(|slot| sample(slot)).collect()).await?;
        }
        let unknown = keys.iter_mut().filter_map(|slot| {
            let is_unknown = sizes == Sizes::All || !guess(slot);
            is_unknown.then_some(slot)
        });
        self.measure(unknown.flatten().collect()).await?;
        Ok(keys)
    }

    /// Names of keys of slots, so many of each.
    pub(in crate::manage) async fn names(
        &mut self,
        slots: &[(Slot, u64)],
    ) -> Result<Vec<(Slot, Vec<u8>)>, Setback> {
        let list = |(slot, most): &(Slot, u64)| {
            words(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()])
        };
        let lists = self.all(&slots.iter().map(list).collect::<Vec<_>>(), |_| false).await?;
        let each = slots.iter().zip(lists);
        let named = each
            .flat_map(|((slot, _), list)| keys_of(list).into_iter().map(|key| (*slot, key.name)));
        Ok(named.collect())
    }

    /// Asks for the sizes of keys.
    async fn measure(&mut self, mut keys: Vec<&mut Key>) -> Result<(), Setback> {
        for together in keys.chunks_mut(SIZES_TOGETHER) {
            let usage =
                |key: &&mut Key| [words(&["MEMORY", "USAGE"]), vec![key.name.clone()]].concat();
            let requests: Vec<_> = together.iter().map(usage).collect();
            let sizes = self.about_keys(&requests).await?;
            for (key, size) in together.iter_mut().zip(sizes) {
                // A key that has gone since takes nothing.
                key.bytes = value::integer(&size).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
            }
        }
        Ok(())
    }

    /// Moves keys of one slot to the target.
    pub(in crate::manage) async fn migrate(
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
    pub(in crate::manage) async fn replicas_behind(
        &mut self,
        wanted: Option<u64>,
        time: Duration,
    ) -> Result<u64, Setback> {
        let reply = self.control.call(&[b"INFO", b"replication"]).await?;
        let online = value::text(&reply).unwrap_or_default().matches("state=online").count() as u64;
        let wanted = online.min(wanted.unwrap_or(online));
        if wanted == 0 {
            return Ok(0);
        }
        let wait = words(&["WAIT", &wanted.to_string(), &time.as_millis().to_string()]);
        let replies = self.all(&[words(&["PING"]), wait], |_| false).await?;
        let caught_up = replies.last().and_then(value::integer).unwrap_or(0);
        Ok(wanted.saturating_sub(u64::try_from(caught_up).unwrap_or(0)))
    }

    /// The value of a setting; `None` if there is none of that name.
    pub(in crate::manage) async fn setting(
        &mut self,
        name: &str,
    ) -> Result<Option<String>, Setback> {
        let reply = self.control.call(&[b"CONFIG", b"GET", name.as_bytes()]).await?;
        let pair = value::array(&reply).unwrap_or(&[]);
        Ok(pair.get(1).and_then(value::text).map(str::to_owned))
    }

    /// Changes a setting.
    pub(in crate::manage) async fn set(&mut self, name: &str, value: &str) -> Result<(), Setback> {
        let request = ["CONFIG", "SET", name, value].map(str::as_bytes);
        self.control.call(&request).await.map(drop).map_err(Into::into)
    }

    /// Requests about keys of a slot that the node takes in, each after its `ASKING`; for errors see [`End::about_keys`].
    pub(in crate::manage) async fn ask(
        &mut self,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Value>, Setback> {
        let asking = |request: &Vec<Vec<u8>>| [words(&["ASKING"]), request.clone()];
        let requests: Vec<_> = requests.iter().flat_map(asking).collect();
        let replies = self.about_keys(&requests).await?;
        Ok(replies.into_iter().skip(1).step_by(2).collect())
    }

    /// Requests about keys, in one go, none of which may fail; but a node that gives a slot away says `ASK` of keys that it does
    /// not have.
    pub(in crate::manage) async fn about_keys(
        &mut self,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Value>, Setback> {
        let replies = self.control.pipeline(requests).await?;
        self.expect(requests, &replies, |text| text.starts_with("ASK "))?;
        Ok(replies)
    }

    /// Gives the first error among replies that is not excused.
    fn expect(
        &self,
        requests: &[Vec<Vec<u8>>],
        replies: &[Value],
        excused: fn(&str) -> bool,
    ) -> Result<(), Setback> {
        for (reply, request) in replies.iter().zip(requests) {
            if let Value::Error(text) = reply
                && !excused(text)
            {
                return Err(Setback::said(&self.address, &shown(request), text));
            }
        }
        Ok(())
    }

    /// Requests whose errors are values.
    pub(in crate::manage) async fn pipeline(
        &mut self,
        requests: &[Vec<Vec<u8>>],
    ) -> Result<Vec<Value>, Setback> {
        Ok(self.control.pipeline(requests).await?)
    }

    /// One request for each slot, none of which may fail.
    pub(in crate::manage) async fn each_slot(
        &mut self,
        slots: &[Slot],
        request: impl Fn(&str) -> Vec<Vec<u8>>,
    ) -> Result<(), Setback> {
        let requests: Vec<_> = slots.iter().map(|slot| request(&slot.to_string())).collect();
        self.all(&requests, |_| false).await.map(drop)
    }

    /// One request of plain words.
    pub(in crate::manage) async fn say(&mut self, request: &[&str]) -> Result<Value, ControlError> {
        let request: Vec<&[u8]> = request.iter().map(|word| word.as_bytes()).collect();
        self.control.call(&request).await
    }
}

pub(in crate::manage) fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|word| word.as_bytes().to_vec()).collect()
}

fn set_slot(slot: Slot, state: &str, peer: &NodeId) -> Vec<Vec<u8>> {
    words(&["CLUSTER", "SETSLOT", &slot.to_string(), state, &peer.0])
}

fn migrate<'a>(keys: impl Iterator<Item = &'a [u8]>, route: &Route<'_>) -> Vec<Vec<u8>> {
    let (host, port) = (route.address.host(), route.address.port().to_string());
    let timeout = route.timeout.as_millis().to_string();
    let mut request = words(&["MIGRATE", host, &port, "", "0", &timeout]);
    request.extend(route.replace.then(|| b"REPLACE".to_vec()));
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

fn keys_of(list: Value) -> Vec<Key> {
    let Value::Array(names) = list else { return Vec::new() };
    names.into_iter().filter_map(bytes).map(|name| Key { name, bytes: 0 }).collect()
}

/// Some of the keys of a slot, from all over it.
fn sample(slot: &mut [Key]) -> impl Iterator<Item = &mut Key> {
    let step = slot.len().div_ceil(SAMPLED).max(1);
    slot.iter_mut().step_by(step)
}

/// Takes all keys of a slot for as large as those of its sample, if these are small.
fn guess(slot: &mut [Key]) -> bool {
    let largest = sample(slot).map(|key| key.bytes).max().unwrap_or(0);
    if largest <= SMALL {
        for key in &mut *slot {
            key.bytes = largest;
        }
    }
    largest <= SMALL
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) | Value::SimpleString(bytes) => Some(bytes.to_vec()),
        _ => None,
    }
}

/// Slots, given the number of keys in each, in groups whose keys are listed together: enough that the source has work until
/// the next group is listed.
pub(in crate::manage) fn groups(slots: &[(Slot, u64)]) -> Vec<Vec<Slot>> {
    let (mut groups, mut held) = (Vec::new(), u64::MAX);
    for (slot, keys) in slots {
        if held >= SIZES_TOGETHER as u64 {
            groups.push(Vec::new());
            held = 0;
        }
        held += keys;
        groups.last_mut().expect("one was pushed first").push(*slot);
    }
    groups
}

/// A request as people are told of it; those that are sent many at a time carry no secrets.
fn shown(request: &[Vec<u8>]) -> String {
    request.join(&b' ').escape_ascii().to_string()
}

/// A key of this size would stop the source for longer than the others bear.
pub(in crate::manage) fn too_big(key: &Key, limit: u64) -> Setback {
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
        let route = Route { address: &address, credentials, timeout, replace: true };
        let keys = [&b"a\0b"[..], b"\xff\r\n"];
        assert_eq!(shown(&migrate(keys.into_iter(), &route)), expected);
    }

    #[test]
    fn small_keys_are_taken_for_alike() {
        let check = |sizes: &[u64], expected: Option<u64>| {
            let key = |bytes: &u64| Key { name: Vec::new(), bytes: *bytes };
            let mut slot: Vec<Key> = sizes.iter().map(key).collect();
            let sampled = sample(&mut slot).count();
            assert!(sampled <= SAMPLED && (sampled > 0 || sizes.is_empty()), "{sizes:?}");
            let guessed = guess(&mut slot).then(|| slot.iter().map(|key| key.bytes).max());
            assert_eq!(guessed, expected.map(|bytes| Some(bytes).filter(|_| !sizes.is_empty())));
        };
        check(&[], Some(0));
        check(&[100], Some(100));
        check(&[100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Some(100));
        check(&[100, 5000], None);
    }

    #[test]
    fn slots_are_listed_together_unless_they_are_full() {
        let check = |keys: &[u64], expected: &[usize]| {
            let slots = (0..).filter_map(Slot::new).zip(keys.iter().copied());
            let groups = groups(&slots.collect::<Vec<_>>());
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), expected, "{keys:?}");
        };
        check(&[], &[]);
        check(&[100; 12], &[5, 5, 2]);
        check(&[20_000, 1, 20_000, 1], &[1, 2, 1]);
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
