//! Replies as trees, for the control plane and for merging small replies: the one user of the `redis-protocol` crate.

use bytes::Bytes;
use redis_protocol::resp2::decode::decode_bytes;
pub use redis_protocol::resp2::types::BytesFrame as Value;

use super::frame::{self, Progress, ReplyError, ReplyFramer};

/// Deepest nesting the control plane accepts, since the decoder recurses; `COMMAND`, the deepest reply it asks for, has 6.
const DEPTH_MAX: usize = 32;

/// Decodes the RESP2 reply at the start of `bytes`: the value and its length, or `None` if it is not complete.
pub fn decode(bytes: &Bytes) -> Result<Option<(Value, usize)>, ReplyError> {
    let Progress::Complete(len) = ReplyFramer::default().frame(bytes)? else { return Ok(None) };
    if frame::is_deeper(&bytes[..len], DEPTH_MAX) {
        return Err(ReplyError);
    }
    decode_bytes(&bytes.slice(..len)).map_err(|_| ReplyError)
}

/// The text of a simple or bulk string.
pub fn text(value: &Value) -> Option<&str> {
    match value {
        Value::SimpleString(bytes) | Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

/// The elements of an array.
pub fn array(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(elements) => Some(elements),
        _ => None,
    }
}

/// The integer, also one written as a string.
pub fn integer(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(n) => Some(*n),
        other => text(other)?.parse().ok(),
    }
}

/// The bulk string at `at`, which is moved behind it. Nothing is copied.
pub fn bulk(frame: &Bytes, at: &mut usize) -> Option<Bytes> {
    let rest = frame.get(*at..)?.strip_prefix(b"$")?;
    let end = memchr::memchr(b'\r', rest)?;
    let len: usize = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    let start = *at + 1 + end + 2;
    *at = start.checked_add(len)?.checked_add(2)?;
    (*at <= frame.len()).then(|| frame.slice(start..start + len))
}
