//! One whole request as bytes and argument spans, and the reading of inline commands.

use super::frame::{Limits, Progress, RequestError, RequestFramer, Spans};

/// A framed request: its bytes on the wire and where its arguments lie in them. Has at least one argument, the name.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    bytes: &'a [u8],
    args: &'a Spans,
}

impl<'a> Request<'a> {
    /// Puts together what a framer found.
    pub fn new(bytes: &'a [u8], args: &'a Spans) -> Self {
        Self { bytes, args }
    }

    /// The request as it goes over the wire.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Number of arguments, the command's name counted.
    pub fn len(&self) -> usize {
        self.args.len()
    }

    /// Whether there are no arguments, as in `*0`.
    pub fn is_empty(&self) -> bool {
        self.args.is_empty()
    }

    /// Argument `i`; empty if there is none.
    pub fn arg(&self, i: usize) -> &'a [u8] {
        self.args.get(i).map_or(&[], |span| &self.bytes[span.start as usize..span.end as usize])
    }

    /// Arguments `from..to` as they stand on the wire, headers and line ends included; not the name.
    pub fn wire(&self, from: usize, to: usize) -> &'a [u8] {
        match (self.args.get(from.wrapping_sub(1)), self.args.get(to.wrapping_sub(1))) {
            (Some(before), Some(last)) if from < to => {
                &self.bytes[before.end as usize + 2..last.end as usize + 2]
            }
            _ => &[],
        }
    }

    /// The arguments from `from` on.
    pub fn args(&self, from: usize) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let bytes = self.bytes;
        self.args.iter().skip(from).map(move |span| &bytes[span.start as usize..span.end as usize])
    }

    /// The command's name as the client wrote it.
    pub fn name(&self) -> &'a [u8] {
        self.arg(0)
    }
}

/// Number of requests in bytes that hold nothing but whole ones.
pub fn count(bytes: &[u8]) -> usize {
    ends(bytes).count()
}

/// Offsets behind each of the requests.
fn ends(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let (mut framer, mut at) = (RequestFramer::default(), 0);
    std::iter::from_fn(move || match framer.frame(&bytes[at..], &Limits::NONE) {
        Ok(Progress::Complete(len)) => {
            at += len;
            Some(at)
        }
        _ => None,
    })
}

/// An argument of the first request in bytes.
pub fn argument(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let mut framer = RequestFramer::default();
    framer.frame(bytes, &Limits::NONE).ok()?;
    framer.args().get(at).map(|span| &bytes[span.start as usize..span.end as usize])
}

/// Offset of the last request in bytes that hold nothing but whole ones.
pub fn last(bytes: &[u8]) -> usize {
    ends(bytes).fold((0, 0), |(_, before), end| (before, end)).0
}

/// Rewrites an inline command as the array it stands for, by Redis' quoting rules (`sdssplitargs`). An empty line gives
/// no bytes.
pub fn from_inline(line: &[u8]) -> Result<Vec<u8>, RequestError> {
    let args = split_quoted(line)?;
    let mut wire = Vec::new();
    if !args.is_empty() {
        super::write::request(&mut wire, args.iter().map(Vec::as_slice));
    }
    Ok(wire)
}

pub(crate) fn split_quoted(line: &[u8]) -> Result<Vec<Vec<u8>>, RequestError> {
    let mut args = Vec::new();
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Ok(args);
        }
        let mut arg = Vec::new();
        rest = word(rest, &mut arg)?;
        args.push(arg);
    }
}

/// Takes one word off the front of `rest`, which starts with no blank.
fn word<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        match rest {
            [] => return Ok(rest),
            [b, ..] if b.is_ascii_whitespace() || *b == 0 => return Ok(&rest[1..]),
            [b'"', tail @ ..] => return closed(double_quoted(tail, arg)?),
            [b'\'', tail @ ..] => return closed(single_quoted(tail, arg)?),
            [b, tail @ ..] => {
                arg.push(*b);
                rest = tail;
            }
        }
    }
}

/// A closing quote must be followed by a blank or the end.
fn closed(rest: &[u8]) -> Result<&[u8], RequestError> {
    match rest.first() {
        None => Ok(rest),
        Some(b) if b.is_ascii_whitespace() => Ok(rest),
        Some(_) => Err(RequestError::Quotes),
    }
}

fn double_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(RequestError::Quotes),
            [b'"', tail @ ..] => return Ok(tail),
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                (hex(*high) << 4 | hex(*low), tail)
            }
            [b'\\', escaped, tail @ ..] => (unescape(*escaped), tail),
            [b, tail @ ..] => (*b, tail),
        };
        arg.push(byte);
        rest = tail;
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], arg: &mut Vec<u8>) -> Result<&'a [u8], RequestError> {
    loop {
        let (byte, tail) = match rest {
            [] => return Err(RequestError::Quotes),
            [b'\\', b'\'', tail @ ..] => (b'\'', tail),
            [b'\'', tail @ ..] => return Ok(tail),
            [b, tail @ ..] => (*b, tail),
        };
        arg.push(byte);
        rest = tail;
    }
}

fn unescape(byte: u8) -> u8 {
    match byte {
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        b'b' => 8,
        b'a' => 7,
        other => other,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inline_commands() {
        let check = |line: &[u8], expected: Result<&[u8], RequestError>| {
            assert_eq!(
                from_inline(line).as_deref(),
                expected.as_ref().copied(),
                "{}",
                line.escape_ascii()
            );
        };
        check(b"\r\n", Ok(b""));
        check(b"PING\r\n", Ok(b"*1\r\n$4\r\nPING\r\n"));
        check(b"  set  a b \n", Ok(b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$1\r\nb\r\n"));
        check(b"set a \"x\\x41\\n\"\r\n", Ok(b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$3\r\nxA\n\r\n"));
        check(b"set a 'it\\'s'\r\n", Ok(b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$4\r\nit's\r\n"));
        check(b"set a \"x\r\n", Err(RequestError::Quotes));
        check(b"set a \"x\"y\r\n", Err(RequestError::Quotes));
        check(b"set a ''\r\n", Ok(b"*3\r\n$3\r\nset\r\n$1\r\na\r\n$0\r\n\r\n"));
    }
}
