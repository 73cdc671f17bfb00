//! Where does this frame end? Framing of requests and replies over bytes that may still be arriving.
//!
//! Both framers are resumable: told that a frame is incomplete they remember how far they came, and go on from there when
//! more bytes have been appended to the same buffer. They never look inside bulk strings, and count open elements instead
//! of descending into them, so nesting costs neither stack nor memory.

use memchr::memchr;
use thiserror::Error;

/// Longest line of a request header or an inline command, as in Redis (`PROTO_INLINE_MAX_SIZE`).
const LINE_MAX: usize = 64 * 1024;
/// Longest header line of a reply: a type byte and a 64-bit number would need 22.
const HEADER_MAX: usize = 64;
/// Longest line of a reply: the texts of simple strings and errors.
const REPLY_LINE_MAX: usize = 1024 * 1024;
/// Longest bulk string of a reply; no server stores longer ones.
const REPLY_BULK_MAX: usize = u32::MAX as usize;
/// Most elements a reply may announce in one aggregate; a node sending more is not speaking RESP.
const REPLY_ELEMENTS_MAX: u64 = u32::MAX as u64;

/// What a client sent is not RESP; texts are the server's own and follow `-ERR Protocol error: `.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each variant is its documentation")]
pub enum RequestError {
    #[error("too big mbulk count string")]
    LongCount,
    #[error("too big bulk count string")]
    LongBulkCount,
    #[error("invalid multibulk length")]
    Count,
    #[error("unauthenticated multibulk length")]
    UnauthenticatedCount,
    #[error("expected '$', got '{0}'")]
    Marker(char),
    #[error("invalid bulk length")]
    Bulk,
    #[error("unauthenticated bulk length")]
    UnauthenticatedBulk,
    #[error("invalid CRLF in request")]
    Crlf,
    #[error("too big inline request")]
    LongInline,
    #[error("unbalanced quotes in request")]
    Quotes,
    #[error("request larger than the limit of the proxy")]
    TooLarge,
}

/// What a node sent is not RESP; the connection to it cannot be used any more.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the node sent bytes that are not RESP")]
pub struct ReplyError;

/// Bytes of one argument within its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

/// The arguments of one request. A type of its own because a reference to it is one word: the two words of a slice would be
/// read together right after the length alone was written, which the processor cannot forward.
#[derive(Debug, Default)]
pub struct Spans(Vec<Span>);

impl std::ops::Deref for Spans {
    type Target = [Span];

    fn deref(&self) -> &[Span] {
        &self.0
    }
}

/// Sizes above which a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most arguments of one request.
    pub args: usize,
    /// Longest argument in bytes.
    pub bulk: usize,
    /// Longest request in bytes, all arguments and headers together.
    pub request: usize,
    /// Whether the limits are those for clients that have not said who they are.
    pub unauthenticated: bool,
}

impl Limits {
    /// None, for requests that have been held to others before.
    pub const NONE: Self = Self {
        args: usize::MAX,
        bulk: usize::MAX / 2,
        request: usize::MAX / 2,
        unauthenticated: false,
    };

    /// What a client may send before it has authenticated (redis/redis#9588).
    #[must_use]
    pub fn before_auth(self) -> Self {
        Self { args: 10, bulk: 16 * 1024, unauthenticated: true, ..self }
    }

    fn count_error(&self) -> RequestError {
        if self.unauthenticated { RequestError::UnauthenticatedCount } else { RequestError::Count }
    }

    fn bulk_error(&self) -> RequestError {
        if self.unauthenticated { RequestError::UnauthenticatedBulk } else { RequestError::Bulk }
    }
}

/// How far a frame has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// A whole frame, so many bytes long.
    Complete(usize),
    /// A whole inline command, so many bytes long with its line end.
    Inline(usize),
    /// More bytes are needed; the frame is known to have at least so many.
    Partial(usize),
}

/// Framing of one client's requests. `args` holds the spans of the request that was completed last.
#[derive(Debug, Default)]
pub struct RequestFramer {
    at: usize,
    left: usize,
    open: bool,
    args: Spans,
}

impl RequestFramer {
    /// Spans of the arguments of the request just completed, relative to its first byte.
    pub fn args(&self) -> &Spans {
        &self.args
    }

    /// Frees the list of spans if a large request has blown it up.
    pub fn shrink(&mut self) {
        if !self.open && self.args.0.capacity() > 64 {
            self.args = Spans::default();
        }
    }

    /// Looks for the end of the request at the start of `buf`. After `Partial` call again with the same bytes and more
    /// behind them; after any other answer the next call starts a new request.
    #[inline]
    pub fn frame(&mut self, buf: &[u8], limits: &Limits) -> Result<Progress, RequestError> {
        if !self.open
            && let Some(len) = self.usual(buf, limits)
        {
            return Ok(Progress::Complete(len));
        }
        self.any(buf, limits)
    }

    /// The length of the request if it is whole, valid, and of at most nine arguments, as nearly all are; `None` leaves it
    /// to the thorough way.
    #[inline]
    fn usual(&mut self, buf: &[u8], limits: &Limits) -> Option<usize> {
        let [b'*', count @ b'1'..=b'9', b'\r', b'\n', rest @ ..] = buf else { return None };
        let mut rest = rest;
        self.args.0.clear();
        for _ in b'0'..*count {
            let (len, string) = short_header(rest)?;
            let (_, [b'\r', b'\n', behind @ ..]) = string.split_at_checked(len)? else {
                return None;
            };
            let start = buf.len() - string.len();
            if len > limits.bulk || start + len > limits.request {
                return None;
            }
            self.args.0.push(Span { start: offset(start), end: offset(start + len) });
            rest = behind;
        }
        let len = buf.len() - rest.len();
        (usize::from(count - b'0') <= limits.args && len <= limits.request).then_some(len)
    }

    fn any(&mut self, buf: &[u8], limits: &Limits) -> Result<Progress, RequestError> {
        if !self.open {
            match self.begin(buf, limits)? {
                None => {}
                Some(progress) => return Ok(progress),
            }
        }
        while self.left > 0 {
            let Some((len, from)) = bulk_header(buf, self.at, limits)? else {
                return Ok(Progress::Partial(buf.len() + 1));
            };
            let end = from + len;
            if end + 2 > limits.request {
                return Err(RequestError::TooLarge);
            }
            if buf.len() < end + 2 {
                return Ok(Progress::Partial(end + 2));
            }
            if buf[end..end + 2] != *b"\r\n" {
                return Err(RequestError::Crlf);
            }
            self.args.0.push(Span { start: offset(from), end: offset(end) });
            self.at = end + 2;
            self.left -= 1;
        }
        self.open = false;
        Ok(Progress::Complete(self.at))
    }

    /// Reads the `*N` line; `None` when the arguments can be read next.
    fn begin(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Progress>, RequestError> {
        self.args.0.clear();
        match buf.first() {
            None => return Ok(Some(Progress::Partial(1))),
            Some(b'*') => {}
            Some(_) => return inline(buf).map(Some),
        }
        let Some((count, at)) = header_line(buf, RequestError::LongCount, RequestError::Count)?
        else {
            return Ok(Some(Progress::Partial(buf.len() + 1)));
        };
        self.at = at + 1;
        let count = usize::try_from(count).unwrap_or(0);
        if count > limits.args {
            return Err(limits.count_error());
        }
        self.left = count;
        self.open = count > 0;
        Ok(if count > 0 { None } else { Some(Progress::Complete(self.at)) })
    }
}

/// Reads a `$N` line at `at`: the length and the offset of the first byte of the string.
#[inline]
fn bulk_header(
    buf: &[u8],
    at: usize,
    limits: &Limits,
) -> Result<Option<(usize, usize)>, RequestError> {
    let Some(&marker) = buf.get(at) else { return Ok(None) };
    if marker != b'$' {
        return Err(RequestError::Marker(if marker.is_ascii_graphic() {
            char::from(marker)
        } else {
            '?'
        }));
    }
    let Some((len, used)) =
        header_line(&buf[at..], RequestError::LongBulkCount, RequestError::Bulk)?
    else {
        return Ok(None);
    };
    let len = usize::try_from(len).map_err(|_| RequestError::Bulk)?;
    if len > limits.bulk {
        return Err(limits.bulk_error());
    }
    Ok(Some((len, at + 1 + used)))
}

/// The number behind the marker at the start of `buf`, and the bytes used behind the marker; `None` if the line has not
/// ended. What is wrong with a line is said when it ends, or when it is too long to go on.
#[inline]
fn header_line(
    buf: &[u8],
    long: RequestError,
    wrong: RequestError,
) -> Result<Option<(i64, usize)>, RequestError> {
    match number_line(&buf[1..]) {
        Ok(line) => Ok(line),
        Err(NotANumber) if memchr(b'\r', &buf[..buf.len().min(LINE_MAX)]).is_some() => Err(wrong),
        Err(NotANumber) if buf.len() > LINE_MAX => Err(long),
        Err(NotANumber) => Ok(None),
    }
}

fn inline(buf: &[u8]) -> Result<Progress, RequestError> {
    match memchr(b'\n', &buf[..buf.len().min(LINE_MAX + 1)]) {
        Some(end) => Ok(Progress::Inline(end + 1)),
        None if buf.len() > LINE_MAX => Err(RequestError::LongInline),
        None => Ok(Progress::Partial(buf.len() + 1)),
    }
}

/// Requests are limited far below 4 GiB (`Limits::request`), so offsets fit 32 bits.
#[expect(clippy::cast_possible_truncation, reason = "limited far below")]
fn offset(at: usize) -> u32 {
    at as u32
}

/// The length that the `$N` line at the start of `buf` tells, and the bytes behind the line; `None` if that takes a closer
/// look.
#[inline]
fn short_header(buf: &[u8]) -> Option<(usize, &[u8])> {
    match buf {
        [b'$', a @ b'0'..=b'9', b'\r', b'\n', string @ ..] => Some((usize::from(a - b'0'), string)),
        [b'$', a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', string @ ..] => {
            Some((usize::from(a - b'0') * 10 + usize::from(b - b'0'), string))
        }
        _ => long_header(buf),
    }
}

#[inline(never)]
fn long_header(buf: &[u8]) -> Option<(usize, &[u8])> {
    let [b'$', line @ ..] = buf else { return None };
    let (len, used) = any_number_line(line).ok()??;
    Some((usize::try_from(len).ok()?, &line[used..]))
}

struct NotANumber;

/// A decimal number and its CRLF at the start of `buf`: the number and the bytes used; `None` if the line has not ended.
/// As strict as Redis' `string2ll`: no plus sign, no leading zeros, no blanks.
#[inline]
fn number_line(buf: &[u8]) -> Result<Option<(i64, usize)>, NotANumber> {
    // One or two digits, as nearly every header has.
    match *buf {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Ok(Some((i64::from(a - b'0'), 3))),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Ok(Some((i64::from(a - b'0') * 10 + i64::from(b - b'0'), 4)))
        }
        _ => any_number_line(buf),
    }
}

#[inline(never)]
fn any_number_line(buf: &[u8]) -> Result<Option<(i64, usize)>, NotANumber> {
    let negative = buf.first() == Some(&b'-');
    let start = usize::from(negative);
    let mut at = start;
    let mut value: i64 = 0;
    while let Some(&byte) = buf.get(at) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value
            .checked_mul(10)
            .and_then(|v| v.checked_add(i64::from(digit)))
            .ok_or(NotANumber)?;
        at += 1;
    }
    let digits = &buf[start..at];
    if digits.len() > 1 && digits[0] == b'0' || negative && digits == b"0" {
        return Err(NotANumber);
    }
    match &buf[at..] {
        [] | [b'\r'] if at > start || buf.len() == start => Ok(None),
        [b'\r', b'\n', ..] if at > start => {
            Ok(Some((if negative { -value } else { value }, at + 2)))
        }
        _ => Err(NotANumber),
    }
}

/// Framing of one node's replies.
#[derive(Debug, Default)]
pub struct ReplyFramer {
    at: usize,
    left: u64,
}

impl ReplyFramer {
    /// Looks for the end of the reply at the start of `buf`; resumable as [`RequestFramer::frame`]. Never says `Inline`.
    #[inline]
    pub fn frame(&mut self, buf: &[u8]) -> Result<Progress, ReplyError> {
        if self.left == 0 {
            if let Some(len) = usual_reply(buf) {
                return Ok(Progress::Complete(len));
            }
            *self = Self { at: 0, left: 1 };
        }
        self.any(buf)
    }

    fn any(&mut self, buf: &[u8]) -> Result<Progress, ReplyError> {
        while self.left > 0 {
            let Some(&kind) = buf.get(self.at) else { return Ok(Progress::Partial(self.at + 1)) };
            match kind {
                b'$' | b'=' | b'!' => match bulk_end(buf, self.at)? {
                    Progress::Complete(end) => self.element(end, 0),
                    partial => return Ok(partial),
                },
                b'*' | b'~' | b'>' | b'%' | b'|' => match aggregate(buf, self.at, kind)? {
                    Some((count, end)) => self.element(end, count),
                    None => return Ok(Progress::Partial(buf.len() + 1)),
                },
                b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => match line_end(buf, self.at)? {
                    Some(end) => self.element(end, 0),
                    None => return Ok(Progress::Partial(buf.len() + 1)),
                },
                _ => return Err(ReplyError),
            }
            if self.left > REPLY_ELEMENTS_MAX {
                return Err(ReplyError);
            }
        }
        Ok(Progress::Complete(self.at))
    }

    /// One element ends at `end` and opens `inner` more.
    fn element(&mut self, end: usize, inner: u64) {
        self.at = end;
        self.left = self.left - 1 + inner;
    }
}

/// The length of the reply if it is a whole bulk string, none, `+OK`, or a digit, as most are; or one bulk string in an array,
/// as those to the parts of an `MGET`.
#[inline]
fn usual_reply(buf: &[u8]) -> Option<usize> {
    match buf {
        [b'*', b'1', b'\r', b'\n', element @ ..] if element.first() == Some(&b'$') => {
            usual_bulk(element).map(|len| len + 4)
        }
        _ => usual_bulk(buf),
    }
}

#[inline]
fn usual_bulk(buf: &[u8]) -> Option<usize> {
    match buf {
        [b'+', b'O', b'K', b'\r', b'\n', ..] | [b'$', b'-', b'1', b'\r', b'\n', ..] => Some(5),
        [b':', b'0'..=b'9', b'\r', b'\n', ..] => Some(4),
        [b'$', ..] => {
            let (len, string) = short_header(buf)?;
            let (_, [b'\r', b'\n', behind @ ..]) = string.split_at_checked(len)? else {
                return None;
            };
            Some(buf.len() - behind.len())
        }
        _ => None,
    }
}

fn bulk_end(buf: &[u8], at: usize) -> Result<Progress, ReplyError> {
    let Some((len, used)) = number_line(&buf[at + 1..]).map_err(|_| ReplyError)? else {
        return unfinished(buf, at);
    };
    let from = at + 1 + used;
    if len == -1 && buf[at] == b'$' {
        return Ok(Progress::Complete(from));
    }
    let len = usize::try_from(len).ok().filter(|len| *len <= REPLY_BULK_MAX).ok_or(ReplyError)?;
    let end = from + len + 2;
    if buf.len() < end {
        return Ok(Progress::Partial(end));
    }
    if buf[end - 2..end] == *b"\r\n" { Ok(Progress::Complete(end)) } else { Err(ReplyError) }
}

fn aggregate(buf: &[u8], at: usize, kind: u8) -> Result<Option<(u64, usize)>, ReplyError> {
    let Some((count, used)) = number_line(&buf[at + 1..]).map_err(|_| ReplyError)? else {
        return unfinished(buf, at).map(|_| None);
    };
    let count = match (kind, count) {
        (b'*', -1) => 0,
        (_, n) => u64::try_from(n).map_err(|_| ReplyError)?,
    };
    if count > REPLY_ELEMENTS_MAX {
        return Err(ReplyError);
    }
    let inner = match kind {
        b'%' => 2 * count,
        // An attribute precedes the element it describes and is none itself.
        b'|' => 2 * count + 1,
        _ => count,
    };
    Ok(Some((inner, at + 1 + used)))
}

fn unfinished(buf: &[u8], at: usize) -> Result<Progress, ReplyError> {
    if buf.len() - at > HEADER_MAX { Err(ReplyError) } else { Ok(Progress::Partial(buf.len() + 1)) }
}

fn line_end(buf: &[u8], at: usize) -> Result<Option<usize>, ReplyError> {
    match memchr(b'\r', &buf[at..]) {
        None if buf.len() - at > REPLY_LINE_MAX => Err(ReplyError),
        None => Ok(None),
        Some(cr) => match buf.get(at + cr + 1) {
            None => Ok(None),
            Some(b'\n') => Ok(Some(at + cr + 2)),
            Some(_) => Err(ReplyError),
        },
    }
}

/// How many more bytes to make room for when a frame of at least `want` bytes has `have` of them: four times as many as there
/// are already, so that what is only announced takes no memory, and what comes is moved once or twice.
pub fn growth(have: usize, want: usize) -> usize {
    /// Enough for most frames at once, and as much as is read at a time.
    const FIRST: usize = 256 * 1024;
    want.saturating_sub(have).min((4 * have).max(FIRST))
}

/// Whether the elements of a whole reply nest deeper than `most`. For decoders that recurse.
pub(super) fn is_deeper(reply: &[u8], most: usize) -> bool {
    let mut open: Vec<u64> = Vec::new();
    let mut at = 0;
    while let Some(&kind) = reply.get(at) {
        let (end, inner) = match kind {
            b'$' | b'=' | b'!' => match bulk_end(reply, at) {
                Ok(Progress::Complete(end)) => (end, 0),
                _ => return false,
            },
            b'*' | b'~' | b'>' | b'%' | b'|' => match aggregate(reply, at, kind) {
                Ok(Some((inner, end))) => (end, inner),
                _ => return false,
            },
            _ => match line_end(reply, at) {
                Ok(Some(end)) => (end, 0),
                _ => return false,
            },
        };
        at = end;
        if inner > 0 {
            open.push(inner);
            if open.len() > most {
                return true;
            }
            continue;
        }
        while let Some(left) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { args: 1024, bulk: 1 << 20, request: 1 << 24, unauthenticated: false };

    fn request(input: &[u8]) -> Result<Progress, RequestError> {
        RequestFramer::default().frame(input, &LIMITS)
    }

    fn reply(input: &[u8]) -> Result<Progress, ReplyError> {
        ReplyFramer::default().frame(input)
    }

    #[test]
    fn requests() {
        let check = |input: &[u8], expected| {
            assert_eq!(request(input), expected, "{}", input.escape_ascii());
        };
        check(b"", Ok(Progress::Partial(1)));
        check(b"*1\r\n$4\r\nPING\r\n*1", Ok(Progress::Complete(14)));
        check(b"*2\r\n$3\r\nGET\r\n$5\r\nab", Ok(Progress::Partial(24)));
        check(b"*0\r\n", Ok(Progress::Complete(4)));
        check(b"*-1\r\n", Ok(Progress::Complete(5)));
        check(b"PING\r\nx", Ok(Progress::Inline(6)));
        check(b"\r\n", Ok(Progress::Inline(2)));
        check(b"*2000\r\n", Err(RequestError::Count));
        check(b"*x\r\n", Err(RequestError::Count));
        check(b"*1\r\n+4\r\n", Err(RequestError::Marker('+')));
        check(b"*1\r\n$-1\r\n", Err(RequestError::Bulk));
        check(b"*1\r\n$9999999\r\n", Err(RequestError::Bulk));
        check(b"*1\r\n$03\r\nabc\r\n", Err(RequestError::Bulk));
        check(b"*1\r\n$1\r\nabc", Err(RequestError::Crlf));
        check(&[b"*".to_vec(), b"1".repeat(70_000)].concat(), Err(RequestError::LongCount));
        check(&b"a".repeat(70_000), Err(RequestError::LongInline));
    }

    #[test]
    fn unauthenticated_requests_are_small() {
        let limits = LIMITS.before_auth();
        let check = |input: &[u8], expected| {
            assert_eq!(RequestFramer::default().frame(input, &limits), Err(expected));
        };
        check(b"*11\r\n", RequestError::UnauthenticatedCount);
        check(b"*1\r\n$16385\r\n", RequestError::UnauthenticatedBulk);
    }

    #[test]
    fn replies() {
        let check =
            |input: &[u8], expected| assert_eq!(reply(input), expected, "{}", input.escape_ascii());
        check(b"+OK\r\n:1\r\n", Ok(Progress::Complete(5)));
        check(b"$-1\r\n", Ok(Progress::Complete(5)));
        check(b"$3\r\nab", Ok(Progress::Partial(9)));
        check(b"*-1\r\n", Ok(Progress::Complete(5)));
        check(b"*2\r\n*1\r\n:1\r\n$0\r\n\r\n", Ok(Progress::Complete(18)));
        check(b"%1\r\n+a\r\n*0\r\n", Ok(Progress::Complete(12)));
        check(b"|1\r\n+a\r\n+b\r\n:1\r\n", Ok(Progress::Complete(16)));
        check(b"_\r\n", Ok(Progress::Complete(3)));
        check(b"*99999999999999\r\n", Err(ReplyError));
        check(b"?\r\n", Err(ReplyError));
        check(b"+a\rb", Err(ReplyError));
    }

    #[test]
    fn resuming_at_every_byte_gives_the_same_answer() {
        let whole = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";
        let mut framer = RequestFramer::default();
        for end in 0..whole.len() {
            assert!(
                matches!(framer.frame(&whole[..end], &LIMITS), Ok(Progress::Partial(n)) if n > end && n <= whole.len())
            );
        }
        assert_eq!(framer.frame(whole, &LIMITS), Ok(Progress::Complete(whole.len())));
        assert_eq!(framer.args().len(), 3);
        let deep = [b"*1\r\n".repeat(100_000), b":1\r\n".to_vec()].concat();
        let mut framer = ReplyFramer::default();
        for end in (0..deep.len()).step_by(997) {
            assert!(matches!(framer.frame(&deep[..end]), Ok(Progress::Partial(_))));
        }
        assert_eq!(framer.frame(&deep), Ok(Progress::Complete(deep.len())));
    }
}
