//! Whether two nodes have the same under a key, where what `DUMP` gives differs.
//!
//! Equal values need not be stored alike: members of a set stand in the order of a table that each server seeds by itself, small
//! values are packed by limits that each server has of its own, and each version writes its own format. So values are read, page
//! by page, and compared by what is in them:
//!
//! ```text
//!  WATCH, TYPE, size ── page, page, … ── MULTI, EXEC      null: somebody has changed it meanwhile
//! ```
//! When in doubt they differ: what has changed meanwhile, what is larger than [`LARGEST`], what the user may not read, and what is
//! no string, list, set, sorted set or hash. A stream is none: its consumer groups, and what waits in them, are not told whole. How
//! long a key has to live is not compared, but how long the fields of a hash have is.

use bytes::Bytes;

use crate::backend::control::{Control, ControlError};
use crate::resp::value::{self, Value};

/// Largest value that is read, in bytes of memory by the node's own account: both copies are held here to be compared.
const LARGEST: usize = 8 << 20;
/// Elements of one page, which take a node less than a millisecond.
const PAGE: usize = 500;
/// What an element counts for beside its bytes, so that empty ones have a limit too.
const OVERHEAD: usize = 16;

/// Parts that belong together: a member, or one with its score, or a field with its value and when it expires.
type Element = Vec<Bytes>;

/// What is under a key.
#[derive(Debug, PartialEq)]
struct Content {
    kind: Kind,
    elements: Vec<Element>,
}

/// The types of values that can be told whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    String,
    List,
    Set,
    SortedSet,
    Hash,
}

/// Whether two nodes have the same under a key. Either may be taking in the key's slot.
pub(super) async fn alike(
    one: &mut Control,
    other: &mut Control,
    key: &[u8],
) -> Result<bool, ControlError> {
    let Some(expected) = content(one, key).await? else { return Ok(false) };
    Ok(content(other, key).await? == Some(expected))
}

/// What a node has under a key, if it can be told and does not change meanwhile.
async fn content(node: &mut Control, key: &[u8]) -> Result<Option<Content>, ControlError> {
    // Without samples every element is counted.
    let size: [&[u8]; 5] = [b"MEMORY", b"USAGE", key, b"SAMPLES", b"0"];
    let [watched, kind, size] = ask(node, [&[b"WATCH", key], &[b"TYPE", key], &size]).await?;
    let is_watched = value::text(&watched) == Some("OK");
    let size = value::integer(&size).and_then(|size| usize::try_from(size).ok());
    let is_small = size.is_some_and(|size| size <= LARGEST);
    let kind = value::text(&kind).and_then(Kind::of).filter(|_| is_watched && is_small);
    let content = match kind {
        Some(kind) => kind.read(node, key).await?,
        None => None,
    };
    // Ends the watch in any case.
    let ended = node.pipeline(&[vec!["MULTI"], vec!["EXEC"]]).await?;
    Ok(content.filter(|_| matches!(ended.last(), Some(Value::Array(_)))))
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name {
            "string" => Some(Self::String),
            "list" => Some(Self::List),
            "set" => Some(Self::Set),
            "zset" => Some(Self::SortedSet),
            "hash" => Some(Self::Hash),
            _ => None,
        }
    }

    async fn read(self, node: &mut Control, key: &[u8]) -> Result<Option<Content>, ControlError> {
        let (mut elements, mut bytes, mut next) = (Vec::new(), 0, Some(0));
        while let Some(at) = next {
            let reply = self.page(node, key, at).await?;
            let Some((words, behind)) = self.words(reply, at) else { return Ok(None) };
            bytes += words.iter().map(|word| word.len() + OVERHEAD).sum::<usize>();
            let some = words.chunks(self.parts()).map(<[Bytes]>::to_vec).collect();
            let Some(some) = self.complete(some, node, key).await? else { return Ok(None) };
            // It may have grown since it was measured.
            if bytes > LARGEST {
                return Ok(None);
            }
            elements.extend(some);
            next = behind;
        }
        if matches!(self, Self::Set | Self::Hash) {
            elements.sort_unstable();
            // A scan may give some twice.
            elements.dedup();
        }
        Ok(Some(Content { kind: self, elements }))
    }

    /// The page at a place, which is a rank or the cursor of a scan.
    async fn page(self, node: &mut Control, key: &[u8], at: u64) -> Result<Value, ControlError> {
        let [first, last, count] = [at, at + PAGE as u64 - 1, PAGE as u64].map(|n| n.to_string());
        let [first, last, count] = [first.as_bytes(), last.as_bytes(), count.as_bytes()];
        let request: &[&[u8]] = match self {
            Self::String => &[b"GET", key],
            Self::List => &[b"LRANGE", key, first, last],
            Self::Set => &[b"SSCAN", key, first, b"COUNT", count],
            Self::SortedSet => &[b"ZRANGE", key, first, last, b"WITHSCORES"],
            Self::Hash => &[b"HSCAN", key, first, b"COUNT", count],
        };
        let [reply] = ask(node, [request]).await?;
        Ok(reply)
    }

    /// The parts of a page's elements, and the place of the next page if there is one.
    fn words(self, reply: Value, at: u64) -> Option<(Vec<Bytes>, Option<u64>)> {
        match (self, reply) {
            (Self::String, Value::BulkString(text)) => Some((vec![text], None)),
            (Self::List | Self::SortedSet, Value::Array(words)) => {
                let is_full = words.len() == PAGE * self.parts();
                Some((texts(words)?, is_full.then_some(at + PAGE as u64)))
            }
            (Self::Set | Self::Hash, Value::Array(page)) => {
                let [cursor, Value::Array(words)] = <[Value; 2]>::try_from(page).ok()? else {
                    return None;
                };
                let cursor: u64 = value::text(&cursor)?.parse().ok()?;
                Some((texts(words)?, (cursor != 0).then_some(cursor)))
            }
            _ => None,
        }
    }

    /// Parts of an element in a page.
    fn parts(self) -> usize {
        match self {
            Self::String | Self::List | Self::Set => 1,
            Self::SortedSet | Self::Hash => 2,
        }
    }

    /// Makes elements comparable: scores are numbers, which versions write differently, and fields have their times.
    async fn complete(
        self,
        elements: Vec<Element>,
        node: &mut Control,
        key: &[u8],
    ) -> Result<Option<Vec<Element>>, ControlError> {
        match self {
            Self::SortedSet => Ok(elements.into_iter().map(scored).collect()),
            Self::Hash => timed(elements, node, key).await,
            Self::String | Self::List | Self::Set => Ok(Some(elements)),
        }
    }
}

fn scored(element: Element) -> Option<Element> {
    let [member, score] = <[Bytes; 2]>::try_from(element).ok()?;
    let score: f64 = std::str::from_utf8(&score).ok()?.parse().ok()?;
    Some(vec![member, Bytes::copy_from_slice(&score.to_be_bytes())])
}

/// Adds when fields expire, where servers know of it (Redis 7.4, Valkey 9.0) and these do.
async fn timed(
    mut elements: Vec<Element>,
    node: &mut Control,
    key: &[u8],
) -> Result<Option<Vec<Element>>, ControlError> {
    let count = elements.len().to_string();
    let mut request: Vec<&[u8]> = vec![b"HPEXPIRETIME", key, b"FIELDS", count.as_bytes()];
    request.extend(elements.iter().map(|element| &*element[0]));
    let [reply] = ask(node, [&request]).await?;
    match reply {
        Value::Array(times) if times.len() == elements.len() => {
            for (element, time) in elements.iter_mut().zip(times) {
                let Some(time) = value::integer(&time) else { return Ok(None) };
                element.extend((time != -1).then(|| time.to_string().into()));
            }
            Ok(Some(elements))
        }
        Value::Error(text) if text.starts_with("ERR unknown command") => Ok(Some(elements)),
        _ if elements.is_empty() => Ok(Some(elements)),
        _ => Ok(None),
    }
}

fn texts(words: Vec<Value>) -> Option<Vec<Bytes>> {
    let text = |word| match word {
        Value::BulkString(text) => Some(text),
        _ => None,
    };
    words.into_iter().map(text).collect()
}

/// Requests about a key, whose errors are values. Only of a node that takes in the key's slot it has to be asked like this; others
/// do not mind, though those that are no cluster say so.
async fn ask<const N: usize>(
    node: &mut Control,
    requests: [&[&[u8]]; N],
) -> Result<[Value; N], ControlError> {
    let requests: Vec<Vec<&[u8]>> =
        requests.into_iter().flat_map(|request| [vec![&b"ASKING"[..]], request.to_vec()]).collect();
    let mut replies = node.pipeline(&requests).await?.into_iter().skip(1).step_by(2);
    Ok(std::array::from_fn(|_| replies.next().unwrap_or(Value::Null)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    const WHOLE: &str = "*0\r\n";
    const CHANGED: &str = "*-1\r\n";
    const OK: &str = "+OK\r\n";
    const UNKNOWN: &str = "-ERR unknown command 'HPEXPIRETIME'\r\n";

    /// A connection to a node that gives these replies, whatever it is asked. `ASKING` comes before each request but the last two.
    async fn node(replies: &[&str]) -> (Control, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let connect = Control::connect(&address, Duration::from_secs(5));
        let (control, accepted) = tokio::join!(connect, listener.accept());
        let (pages, end) = replies.split_at(replies.len() - 1);
        let pages = pages.iter().flat_map(|reply| [OK, reply]).collect::<String>();
        let mut stream = accepted.unwrap().0;
        stream.write_all(format!("{pages}{OK}{}", end[0]).as_bytes()).await.unwrap();
        // Requests are not read, and wait in the sockets' buffers.
        (control.unwrap(), stream)
    }

    /// The value of a kind, in these replies to what is asked about it, and how the watch ends.
    fn told<'a>(kind: &'a str, pages: &[&'a str], end: &'a str) -> Vec<&'a str> {
        [&[OK, kind, ":100\r\n"], pages, &[end]].concat()
    }

    async fn check(one: Vec<&str>, other: Vec<&str>, expected: bool) {
        for (first, second) in [(&one, &other), (&other, &one)] {
            let (mut first_node, mut second_node) = (node(first).await, node(second).await);
            let is_alike = alike(&mut first_node.0, &mut second_node.0, b"k").await.unwrap();
            assert_eq!(is_alike, expected, "{first:?} {second:?}");
        }
    }

    #[tokio::test]
    async fn order_counts_where_there_is_one() {
        let (ab, ba) = ("*2\r\n$1\r\na\r\n$1\r\nb\r\n", "*2\r\n$1\r\nb\r\n$1\r\na\r\n");
        let list = |page| told("+list\r\n", &[page], WHOLE);
        check(list(ab), list(ab), true).await;
        check(list(ab), list(ba), false).await;
        let set = |cursor: &str, page: &str| format!("*2\r\n$1\r\n{cursor}\r\n{page}");
        let (one, other) = (set("0", ab), set("0", ba));
        check(told("+set\r\n", &[&one], WHOLE), told("+set\r\n", &[&other], WHOLE), true).await;
        // Two pages, of which the second one repeats a member.
        let (first, second) = (set("7", ba), set("0", "*1\r\n$1\r\na\r\n"));
        let pages = told("+set\r\n", &[&first, &second], WHOLE);
        check(pages.clone(), told("+set\r\n", &[&one], WHOLE), true).await;
        check(pages, told("+set\r\n", &[&second], WHOLE), false).await;
        check(told("+set\r\n", &[&one], WHOLE), list(ab), false).await;
    }

    #[tokio::test]
    async fn when_in_doubt_they_differ() {
        let text = |end| told("+string\r\n", &["$1\r\na\r\n"], end);
        check(text(WHOLE), text(WHOLE), true).await;
        check(text(WHOLE), text(CHANGED), false).await;
        check(text(WHOLE), told("+string\r\n", &["-NOPERM no\r\n"], WHOLE), false).await;
        let stream = || told("+stream\r\n", &[], WHOLE);
        check(stream(), stream(), false).await;
        let unwatched = || vec!["-NOPERM no\r\n", "+string\r\n", ":100\r\n", WHOLE];
        check(unwatched(), unwatched(), false).await;
        let large = || vec![OK, "+string\r\n", ":9000000\r\n", WHOLE];
        check(large(), large(), false).await;
        let gone = || vec![OK, "+none\r\n", "$-1\r\n", WHOLE];
        check(gone(), gone(), false).await;
    }

    #[tokio::test]
    async fn scores_are_numbers_and_fields_have_their_times() {
        let sorted = |page| told("+zset\r\n", &[page], WHOLE);
        let long = "*2\r\n$1\r\na\r\n$19\r\n0.10000000000000001\r\n";
        check(sorted(long), sorted("*2\r\n$1\r\na\r\n$3\r\n0.1\r\n"), true).await;
        check(sorted(long), sorted("*2\r\n$1\r\na\r\n$3\r\n0.2\r\n"), false).await;
        let page = "*2\r\n$1\r\n0\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        let hash = |times| told("+hash\r\n", &[page, times], WHOLE);
        check(hash(UNKNOWN), hash("*1\r\n:-1\r\n"), true).await;
        check(hash("*1\r\n:1800000000000\r\n"), hash("*1\r\n:1800000000000\r\n"), true).await;
        check(hash("*1\r\n:1800000000000\r\n"), hash("*1\r\n:-1\r\n"), false).await;
        check(hash("-NOPERM no\r\n"), hash("-NOPERM no\r\n"), false).await;
    }
}
