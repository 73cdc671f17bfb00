//! One reply of many: what the parts of a split or broadcast command answered, and how that becomes the client's reply.

use super::{Claim, Merge, Standing, info};
use crate::cluster::Slot;
use crate::refusal::Refusal;
use crate::resp::frame::{Progress, ReplyFramer};
use crate::resp::{Protocol, write};

/// The replies to the parts of one request, while they come in.
#[derive(Debug)]
pub struct Gather {
    merge: Merge,
    protocol: Protocol,
    /// For `Merge::ByKey`: the part that each key went to, in the order of the keys.
    order: Vec<u16>,
    parts: Vec<Part>,
    waiting: usize,
    bytes: Vec<u8>,
    /// For `Merge::Info`: the proxy's own text.
    own: String,
    /// For `Merge::Splice`: where the replies come from, in order.
    spliced: Vec<Source>,
    /// Whether the command writes.
    writes: bool,
}

/// Where a reply within a transaction's comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is the next one of this part.
    Node(usize),
    /// The next one of this part is to a command of the proxy's own, and not for the client.
    Aside(usize),
    /// It is the proxy's own.
    Own(Vec<u8>),
    /// It is the proxy's own, and comes as that to the next part behind the nodes'.
    Later,
}

#[derive(Debug)]
struct Part {
    claim: Claim,
    standing: Standing,
    /// Range of its reply in `bytes`.
    reply: Option<(usize, usize)>,
}

impl Gather {
    /// A gathering of one part for each of `claims`.
    pub fn new(merge: Merge, protocol: Protocol, claims: impl Iterator<Item = Claim>) -> Self {
        let parts: Vec<Part> =
            claims.map(|claim| Part { claim, standing: Standing::Out, reply: None }).collect();
        Self {
            merge,
            protocol,
            order: Vec::new(),
            waiting: parts.len(),
            parts,
            bytes: Vec::new(),
            own: String::new(),
            spliced: Vec::new(),
            writes: false,
        }
    }

    /// With the part that each key went to, in the order of the keys.
    #[must_use]
    pub fn ordered(self, order: Vec<u16>) -> Self {
        Self { order, ..self }
    }

    /// With the proxy's own `INFO` text.
    #[must_use]
    pub fn with_own(self, own: String) -> Self {
        Self { own, ..self }
    }

    /// With where the replies of a transaction come from.
    #[must_use]
    pub fn splicing(self, spliced: Vec<Source>) -> Self {
        Self { spliced, ..self }
    }

    /// Where the replies are put: it may be exchanged before the first one has come, and when they are needed no more.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Of a command that writes: an error must not say that it did not run if a part of it did.
    #[must_use]
    pub fn writing(self, writes: bool) -> Self {
        Self { writes, ..self }
    }

    /// Whether the command writes.
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// Number of parts.
    pub fn parts(&self) -> u32 {
        u32::try_from(self.parts.len()).unwrap_or(u32::MAX)
    }

    /// Takes the reply of a part, and gives the claim that is settled with it.
    pub fn answer(&mut self, part: usize, reply: &[u8]) -> Claim {
        let start = self.bytes.len();
        if start == 0 {
            // The other parts' replies will most likely be like this one.
            self.bytes.reserve((reply.len() + 8).min(1024) * self.parts.len());
        }
        self.bytes.extend_from_slice(reply);
        let Some(part) = self.parts.get_mut(part) else { return Claim::None };
        self.waiting -= usize::from(part.reply.is_none());
        part.reply = Some((start, self.bytes.len()));
        part.claim
    }

    /// The replies are needed no more, nor is that to the whole.
    pub fn throw_away(&mut self) {
        self.bytes = Vec::new();
        for part in &mut self.parts {
            part.reply = part.reply.map(|_| (0, 0));
        }
    }

    /// Whether every part has answered.
    pub fn is_complete(&self) -> bool {
        self.waiting == 0
    }

    /// The claims of the parts.
    pub fn claims(&self) -> impl Iterator<Item = Claim> {
        self.parts.iter().map(|part| part.claim)
    }

    /// Takes note of where a part stands, and gives where it stood.
    pub fn mark(&mut self, part: usize, standing: Standing) -> Standing {
        self.parts
            .get_mut(part)
            .map_or(standing, |part| std::mem::replace(&mut part.standing, standing))
    }

    /// Where the parts on this slot stand.
    pub fn standings(&self, slot: Slot) -> impl Iterator<Item = Standing> {
        self.parts.iter().filter(move |part| part.claim.covers(slot)).map(|part| part.standing)
    }

    /// Bytes of the replies that have come.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Writes the client's reply, once every part has answered: the first part's error if there is one, else all parts
    /// merged.
    pub fn merge(&mut self, out: &mut Vec<u8>) {
        // Within a transaction what fails is an element like others.
        let is_split = self.merge != Merge::Splice;
        if let Some(error) = self.replies().find(|reply| is_split && is_error(reply)) {
            if self.writes && self.ran_in_part() && is_retryable(error) {
                return write::error(out, &partly(error));
            }
            return out.extend_from_slice(error);
        }
        let start = out.len();
        let merged = match self.merge {
            Merge::ByKey => self.by_key(out),
            Merge::Sum => self.sum(i64::MIN, out),
            // Who subscribes or leaves meanwhile may be counted on one side only.
            Merge::Receivers => self.sum(0, out),
            Merge::AllOk => self.replies().next().map(|first| out.extend_from_slice(first)),
            Merge::Concat => self.concat(out),
            Merge::Splice => self.splice(out),
            Merge::Info => {
                write::verbatim(out, self.protocol, &info::merge(&self.own, self.replies()));
                Some(())
            }
        };
        if merged.is_none() {
            out.truncate(start);
            write::error(out, &Refusal::PartLost.to_string());
        }
    }

    /// Whether some part has run, or may have.
    fn ran_in_part(&self) -> bool {
        self.replies().any(|reply| !is_error(reply) || !is_retryable(reply))
    }

    fn replies(&self) -> impl Iterator<Item = &[u8]> {
        self.parts
            .iter()
            .map(|part| part.reply.map_or(&[][..], |(start, end)| &self.bytes[start..end]))
    }

    /// Takes the elements off the parts' arrays one by one, in the order of the keys.
    fn by_key(&mut self, out: &mut Vec<u8>) -> Option<()> {
        for part in &mut self.parts {
            let (start, end) = part.reply?;
            let (_, elements) = array(&self.bytes[start..end])?;
            part.reply = Some((end - elements.len(), end));
        }
        out.reserve(self.bytes.len() + 16);
        write::array(out, self.order.len());
        for part in &self.order {
            let part = self.parts.get_mut(usize::from(*part))?;
            let (start, end) = part.reply?;
            let len = element_len(&self.bytes[start..end])?;
            out.extend_from_slice(&self.bytes[start..start + len]);
            part.reply = Some((start + len, end));
        }
        Some(())
    }

    fn sum(&self, least: i64, out: &mut Vec<u8>) -> Option<()> {
        let mut total: i64 = 0;
        for reply in self.replies() {
            let digits = reply.strip_prefix(b":")?.strip_suffix(b"\r\n")?;
            total = total.checked_add(std::str::from_utf8(digits).ok()?.parse().ok()?)?;
        }
        write::integer(out, total.max(least));
        Some(())
    }

    /// A node's part that did not run has no array: what it answered is said of each of its commands, or of the transaction
    /// if all of the nodes' parts answered that.
    fn splice(&self, out: &mut Vec<u8>) -> Option<()> {
        let count = |source| self.spliced.iter().filter(|other| **other == source).count();
        let replies: Vec<&[u8]> = self.replies().collect();
        let (nodes, later) = replies.split_at(replies.len() - count(Source::Later));
        let mut elements: Vec<Option<&[u8]>> =
            nodes.iter().map(|reply| array(reply).map(|(_, elements)| elements)).collect();
        let word = *nodes.first()?;
        if elements[0].is_none() && nodes.iter().all(|reply| *reply == word) {
            out.extend_from_slice(word);
            return Some(());
        }
        let is_shown = |source: &&Source| !matches!(source, Source::Aside(_));
        write::array(out, self.spliced.iter().filter(is_shown).count());
        let mut later = later.iter();
        for source in &self.spliced {
            match source {
                Source::Own(own) => out.extend_from_slice(own),
                Source::Later => out.extend_from_slice(later.next()?),
                Source::Node(part) => {
                    out.extend_from_slice(next(&mut elements[*part], nodes[*part])?);
                }
                Source::Aside(part) => drop(next(&mut elements[*part], nodes[*part])?),
            }
        }
        Some(())
    }

    fn concat(&self, out: &mut Vec<u8>) -> Option<()> {
        let arrays: Vec<(usize, &[u8])> = self.replies().map(array).collect::<Option<_>>()?;
        out.reserve(self.bytes.len() + 16);
        write::array(out, arrays.iter().map(|(count, _)| count).sum());
        for (_, elements) in arrays {
            out.extend_from_slice(elements);
        }
        Some(())
    }
}

/// The error of one part of a write of which another part ran. Clients send again by themselves what failed with some
/// prefixes, on the understanding that it did not run.
fn partly(error: &[u8]) -> String {
    let error = String::from_utf8_lossy(error);
    let error = error.trim_start_matches('-').trim_end();
    let error = error.strip_suffix(", the request was not executed").unwrap_or(error);
    format!("ERR proxy: a part of the command was executed, another failed: {error}")
}

fn is_error(reply: &[u8]) -> bool {
    reply.first() == Some(&b'-')
}

/// Whether the error has a prefix which says that the command did not run.
fn is_retryable(error: &[u8]) -> bool {
    [&b"-CLUSTERDOWN "[..], b"-TRYAGAIN ", b"-LOADING ", b"-MASTERDOWN ", b"-READONLY "]
        .iter()
        .any(|prefix| error.starts_with(prefix))
}

/// Number of elements of an array reply, and the bytes of the elements.
fn array(reply: &[u8]) -> Option<(usize, &[u8])> {
    if let [b'*', digit @ b'0'..=b'9', b'\r', b'\n', elements @ ..] = reply {
        return Some((usize::from(digit - b'0'), elements));
    }
    let end = memchr::memchr(b'\n', reply)?;
    let count = std::str::from_utf8(reply[..end].strip_prefix(b"*")?.strip_suffix(b"\r")?)
        .ok()?
        .parse()
        .ok()?;
    Some((count, &reply[end + 1..]))
}

/// The next of the elements, which is taken off; or the whole reply if it has none.
fn next<'a>(elements: &mut Option<&'a [u8]>, reply: &'a [u8]) -> Option<&'a [u8]> {
    let Some(rest) = elements else { return Some(reply) };
    let (element, behind) = rest.split_at_checked(element_len(rest)?)?;
    *rest = behind;
    Some(element)
}

fn element_len(bytes: &[u8]) -> Option<usize> {
    match ReplyFramer::default().frame(bytes) {
        Ok(Progress::Complete(len)) => Some(len),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gather: Gather, replies: &[&str], expected: &str) {
        let mut gather = gather;
        for (part, reply) in replies.iter().enumerate().rev() {
            gather.answer(part, reply.as_bytes());
            assert_eq!(gather.is_complete(), part == 0);
        }
        let mut merged = Vec::new();
        gather.merge(&mut merged);
        assert_eq!(String::from_utf8_lossy(&merged), expected, "{replies:?}");
    }

    fn gather(merge: Merge, parts: usize) -> Gather {
        Gather::new(merge, Protocol::Resp2, std::iter::repeat_n(Claim::None, parts))
    }

    #[test]
    fn merges() {
        let by_key = || gather(Merge::ByKey, 2).ordered(vec![0, 1, 0]);
        check(
            by_key(),
            &["*2\r\n$1\r\na\r\n$-1\r\n", "*1\r\n$2\r\nbb\r\n"],
            "*3\r\n$1\r\na\r\n$2\r\nbb\r\n$-1\r\n",
        );
        check(by_key(), &["*2\r\n$1\r\na\r\n$-1\r\n", "-ERR x\r\n"], "-ERR x\r\n");
        check(
            by_key(),
            &["*1\r\n$1\r\na\r\n", "*1\r\n$2\r\nbb\r\n"],
            "-ERR proxy: a part of the command failed to come back, outcome unknown\r\n",
        );
        check(gather(Merge::Sum, 3), &[":1\r\n", ":0\r\n", ":41\r\n"], ":42\r\n");
        check(gather(Merge::Receivers, 2), &[":3\r\n", ":-1\r\n"], ":2\r\n");
        check(gather(Merge::Receivers, 2), &[":0\r\n", ":-1\r\n"], ":0\r\n");
        check(gather(Merge::AllOk, 2), &["+OK\r\n", "+OK\r\n"], "+OK\r\n");
        check(gather(Merge::AllOk, 2), &["+OK\r\n", "-OOM x\r\n"], "-OOM x\r\n");
        check(
            gather(Merge::Concat, 2),
            &["*0\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n"],
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n",
        );
        let exec = || {
            let pong = Source::Own(b"+PONG\r\n".to_vec());
            gather(Merge::Splice, 1).splicing(vec![
                Source::Node(0),
                pong,
                Source::Aside(0),
                Source::Node(0),
            ])
        };
        check(
            exec(),
            &["*3\r\n:1\r\n$3\r\nsha\r\n*1\r\n:2\r\n"],
            "*3\r\n:1\r\n+PONG\r\n*1\r\n:2\r\n",
        );
        check(exec(), &["*-1\r\n"], "*-1\r\n");
        check(exec(), &["_\r\n"], "_\r\n");
        check(exec(), &["-EXECABORT x\r\n"], "-EXECABORT x\r\n");
        let later = || {
            let sources = vec![Source::Later, Source::Node(0), Source::Later];
            gather(Merge::Splice, 3).splicing(sources)
        };
        let parts = ["*1\r\n:1\r\n", "-ERR y\r\n", "+OK\r\n"];
        check(later(), &parts, "*3\r\n-ERR y\r\n:1\r\n+OK\r\n");
        check(later(), &["-EXECABORT x\r\n", "-ERR y\r\n", "+OK\r\n"], "-EXECABORT x\r\n");
        let parts = ["-CLUSTERDOWN x\r\n", "+OK\r\n", "+OK\r\n"];
        check(later().writing(true), &parts, "-CLUSTERDOWN x\r\n");
    }

    #[test]
    fn the_parts_of_a_transaction_are_put_together() {
        let exec = |parts| {
            let own = Source::Own(b"+PONG\r\n".to_vec());
            let (a, b) = (Source::Node(0), Source::Node(1));
            let sources = vec![b.clone(), a.clone(), own, Source::Aside(1), b, Source::Later, a];
            gather(Merge::Splice, parts).splicing(sources).writing(true)
        };
        check(
            exec(3),
            &["*2\r\n:1\r\n*1\r\n:2\r\n", "*3\r\n-ERR b\r\n$1\r\nx\r\n_\r\n", "+OK\r\n"],
            "*6\r\n-ERR b\r\n:1\r\n+PONG\r\n_\r\n+OK\r\n*1\r\n:2\r\n",
        );
        // What one slot's part answers is said of its commands and of no other.
        check(
            exec(3),
            &["*2\r\n:1\r\n:2\r\n", "-CLUSTERDOWN x\r\n", "-ERR y\r\n"],
            "*6\r\n-CLUSTERDOWN x\r\n:1\r\n+PONG\r\n-CLUSTERDOWN x\r\n-ERR y\r\n:2\r\n",
        );
        check(
            exec(3),
            &["-EXECABORT x\r\n", "-ERR unknown\r\n", "+OK\r\n"],
            "*6\r\n-ERR unknown\r\n-EXECABORT x\r\n+PONG\r\n-ERR unknown\r\n+OK\r\n-EXECABORT x\r\n",
        );
        check(exec(3), &["-EXECABORT x\r\n", "-EXECABORT x\r\n", "+OK\r\n"], "-EXECABORT x\r\n");
        let lost = "-ERR proxy: a part of the command failed to come back, outcome unknown\r\n";
        check(exec(3), &["*1\r\n:1\r\n", "*3\r\n:1\r\n:2\r\n:3\r\n", "+OK\r\n"], lost);
    }
}
