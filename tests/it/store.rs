//! Strings and lists in memory, and the few commands on them that the tests use.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use slotway::cluster::Slot;

/// The data of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Store(BTreeMap<Vec<u8>, Value>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Text(Vec<u8>),
    List(Vec<Vec<u8>>),
}

/// Nil as RESP2 and RESP3 have it.
pub(crate) fn nil(resp3: bool) -> &'static [u8] {
    if resp3 { b"_\r\n" } else { b"$-1\r\n" }
}

impl Store {
    pub(crate) fn has(&self, key: &[u8]) -> bool {
        self.0.contains_key(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn keys_of(&self, slot: usize) -> Vec<Vec<u8>> {
        self.0.keys().filter(|key| Slot::of(key).index() == slot).cloned().collect()
    }

    pub(crate) fn take(&mut self, key: &[u8]) -> Option<Value> {
        self.0.remove(key)
    }

    pub(crate) fn put(&mut self, key: Vec<u8>, value: Value) {
        self.0.insert(key, value);
    }

    /// The string at a key.
    pub(crate) fn text(&self, key: &str) -> Option<String> {
        match self.0.get(key.as_bytes())? {
            Value::Text(text) => Some(String::from_utf8_lossy(text).into_owned()),
            Value::List(_) => None,
        }
    }

    pub(crate) fn set(&mut self, key: &str, text: &str) {
        self.put(key.as_bytes().to_vec(), Value::Text(text.as_bytes().to_vec()));
    }

    /// A page of keys, in an order that differs from node to node. The cursor is where the next page begins in it.
    pub(crate) fn scan(&self, node: usize, args: &[Vec<u8>]) -> Vec<u8> {
        let argument = |at: usize| String::from_utf8_lossy(&args[at]).parse::<u64>().ok();
        let place = |key: &[u8]| {
            let mut hasher = DefaultHasher::new();
            (node, key).hash(&mut hasher);
            hasher.finish() >> 40
        };
        let count = args.iter().position(|arg| arg == b"COUNT").and_then(|at| argument(at + 1));
        let count = usize::try_from(count.unwrap_or(2)).expect("a count");
        let from = argument(1).expect("a cursor");
        let mut keys: Vec<(u64, &Vec<u8>)> = self.0.keys().map(|key| (place(key), key)).collect();
        keys.sort_unstable();
        let mut left = keys.into_iter().skip_while(|(place, _)| *place < from);
        let page: Vec<Vec<u8>> = left.by_ref().take(count).map(|(_, key)| bulk(key)).collect();
        let next = left.next().map_or(0, |(place, _)| place).to_string();
        array(&[bulk(next.as_bytes()), array(&page)])
    }

    /// Runs a command and gives its reply.
    pub(crate) fn run(&mut self, args: &[Vec<u8>], resp3: bool) -> Vec<u8> {
        let name = args[0].to_ascii_uppercase();
        match (name.as_slice(), &args[1..]) {
            (b"GET", [key]) => self.get(key, resp3),
            (b"SET", [key, value, ..]) => {
                self.put(key.clone(), Value::Text(value.clone()));
                b"+OK\r\n".to_vec()
            }
            (b"APPEND", [key, tail]) => self.append(key, tail),
            (b"INCR", [key]) => self.incr(key),
            (b"MGET", keys) => {
                array(&keys.iter().map(|key| self.text_or_nil(key, resp3)).collect::<Vec<_>>())
            }
            (b"MSET", pairs) => {
                for pair in pairs.chunks_exact(2) {
                    self.put(pair[0].clone(), Value::Text(pair[1].clone()));
                }
                b"+OK\r\n".to_vec()
            }
            (b"DEL" | b"UNLINK", keys) => {
                integer(keys.iter().filter(|key| self.0.remove(*key).is_some()).count())
            }
            (b"EXISTS" | b"TOUCH", keys) => {
                integer(keys.iter().filter(|key| self.has(key)).count())
            }
            (b"RPUSH", [key, items @ ..]) => self.push(key, items),
            (b"LRANGE", [key, ..]) => self.range(key),
            (b"DBSIZE", []) => integer(self.len()),
            (b"FLUSHALL", _) => {
                self.0.clear();
                b"+OK\r\n".to_vec()
            }
            (b"KEYS", _) => array(&self.0.keys().map(|key| bulk(key)).collect::<Vec<_>>()),
            (b"RANDOMKEY", _) => self.0.keys().next().map_or(nil(resp3).to_vec(), |key| bulk(key)),
            _ => format!("-ERR the fake node does not know {}\r\n", args[0].escape_ascii())
                .into_bytes(),
        }
    }

    fn get(&self, key: &[u8], resp3: bool) -> Vec<u8> {
        match self.0.get(key) {
            Some(Value::List(_)) => {
                b"-WRONGTYPE Operation against a key holding the wrong kind of value\r\n".to_vec()
            }
            _ => self.text_or_nil(key, resp3),
        }
    }

    fn text_or_nil(&self, key: &[u8], resp3: bool) -> Vec<u8> {
        match self.0.get(key) {
            Some(Value::Text(text)) => bulk(text),
            _ => nil(resp3).to_vec(),
        }
    }

    fn append(&mut self, key: &[u8], tail: &[u8]) -> Vec<u8> {
        let value = self.0.entry(key.to_vec()).or_insert(Value::Text(Vec::new()));
        let Value::Text(text) = value else { return b"-WRONGTYPE\r\n".to_vec() };
        text.extend_from_slice(tail);
        integer(text.len())
    }

    fn incr(&mut self, key: &[u8]) -> Vec<u8> {
        let value = self.0.entry(key.to_vec()).or_insert(Value::Text(b"0".to_vec()));
        let Value::Text(text) = value else { return b"-WRONGTYPE\r\n".to_vec() };
        let number: usize = String::from_utf8_lossy(text).parse().unwrap_or(0) + 1;
        *text = number.to_string().into_bytes();
        integer(number)
    }

    fn push(&mut self, key: &[u8], items: &[Vec<u8>]) -> Vec<u8> {
        let value = self.0.entry(key.to_vec()).or_insert(Value::List(Vec::new()));
        let Value::List(list) = value else { return b"-WRONGTYPE\r\n".to_vec() };
        list.extend_from_slice(items);
        integer(list.len())
    }

    fn range(&self, key: &[u8]) -> Vec<u8> {
        match self.0.get(key) {
            Some(Value::List(items)) => {
                array(&items.iter().map(|item| bulk(item)).collect::<Vec<_>>())
            }
            _ => b"*0\r\n".to_vec(),
        }
    }
}

fn bulk(bytes: &[u8]) -> Vec<u8> {
    [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn integer(number: usize) -> Vec<u8> {
    format!(":{number}\r\n").into_bytes()
}

fn array(elements: &[Vec<u8>]) -> Vec<u8> {
    [format!("*{}\r\n", elements.len()).into_bytes(), elements.concat()].concat()
}
