//! Replies as trees, for the control plane and for merging small replies: the one user of the `redis-protocol` crate.

use bytes::Bytes;
use redis_protocol::resp2::decode::decode_bytes;
pub use redis_protocol::resp2::types::BytesFrame as Value;

use super::frame::{Progress, ReplyError, ReplyFramer};

/// Deepest nesting the control plane accepts; `COMMAND`, the deepest reply it asks for, has 6.
const DEPTH_MAX: usize = 32;

/// Decodes the RESP2 reply at the start of `bytes`: the value and its length, or `None` if it is not complete.
pub fn decode(bytes: &Bytes) -> Result<Option<(Value, usize)>, ReplyError> {
    let Progress::Complete(len) = ReplyFramer::default().frame(bytes)? else { return Ok(None) };
    if too_deep(&bytes[..len]) {
        return Err(ReplyError);
    }
    decode_bytes(&bytes.slice(..len)).map_err(|_| ReplyError)
}

/// Whether aggregates nest deeper than the decoder, which recurses, should follow. Counts runs of aggregate headers: an
/// upper bound of the depth is enough here.
fn too_deep(bytes: &[u8]) -> bool {
    let mut run = 0;
    for line in bytes.split(|b| *b == b'\n') {
        run = if line.first() == Some(&b'*') { run + 1 } else { 0 };
        if run > DEPTH_MAX {
            return true;
        }
    }
    false
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
