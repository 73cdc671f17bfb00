//! Writing RESP into a byte vector.

use super::Protocol;

/// Appends `n` in decimal.
pub fn decimal(out: &mut Vec<u8>, n: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(n).as_bytes());
}

fn header(out: &mut Vec<u8>, kind: u8, n: impl itoa::Integer) {
    out.push(kind);
    decimal(out, n);
    out.extend_from_slice(b"\r\n");
}

/// A header with a small number in one piece, as most are.
fn length(out: &mut Vec<u8>, kind: u8, n: usize) {
    match u8::try_from(n) {
        Ok(digit) if digit < 10 => out.extend_from_slice(&[kind, b'0' + digit, b'\r', b'\n']),
        _ => header(out, kind, n),
    }
}

/// Appends a bulk string.
pub fn bulk(out: &mut Vec<u8>, bytes: impl AsRef<[u8]>) {
    let bytes = bytes.as_ref();
    length(out, b'$', bytes.len());
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// Appends a text that may span lines: a verbatim string for RESP3, a bulk string for RESP2.
pub fn verbatim(out: &mut Vec<u8>, protocol: Protocol, text: &str) {
    match protocol {
        Protocol::Resp2 => bulk(out, text),
        Protocol::Resp3 => {
            header(out, b'=', text.len() + 4);
            out.extend_from_slice(b"txt:");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends the header of an array of `n` elements.
pub fn array(out: &mut Vec<u8>, n: usize) {
    length(out, b'*', n);
}

/// Appends the header of a map of `n` pairs: a flat array of `2 n` for RESP2.
pub fn map(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array(out, 2 * n),
        Protocol::Resp3 => header(out, b'%', n),
    }
}

/// Appends the header of a set of `n` elements: an array for RESP2.
pub fn set(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array(out, n),
        Protocol::Resp3 => header(out, b'~', n),
    }
}

/// Appends the header of a message of `n` elements that answers nothing: an array for RESP2.
pub fn push(out: &mut Vec<u8>, protocol: Protocol, n: usize) {
    match protocol {
        Protocol::Resp2 => array(out, n),
        Protocol::Resp3 => header(out, b'>', n),
    }
}

/// Appends an integer.
pub fn integer(out: &mut Vec<u8>, n: i64) {
    header(out, b':', n);
}

/// Appends a number with a fraction, given in decimal: a bulk string for RESP2.
pub fn double(out: &mut Vec<u8>, protocol: Protocol, digits: &str) {
    match protocol {
        Protocol::Resp2 => bulk(out, digits),
        Protocol::Resp3 => line(out, b',', digits),
    }
}

/// Appends nil.
pub fn nil(out: &mut Vec<u8>, protocol: Protocol) {
    out.extend_from_slice(match protocol {
        Protocol::Resp2 => b"$-1\r\n",
        Protocol::Resp3 => b"_\r\n",
    });
}

/// Appends a simple string.
pub fn simple(out: &mut Vec<u8>, text: &str) {
    line(out, b'+', text);
}

/// Appends an error, given without its leading `-`.
pub fn error(out: &mut Vec<u8>, text: &str) {
    line(out, b'-', text);
}

/// Line ends inside the text would break the frame; they become blanks.
fn line(out: &mut Vec<u8>, kind: u8, text: &str) {
    out.push(kind);
    out.extend(text.bytes().map(|b| if b == b'\r' || b == b'\n' { b' ' } else { b }));
    out.extend_from_slice(b"\r\n");
}

/// Appends a request: an array of bulk strings.
pub fn request<'a>(out: &mut Vec<u8>, args: impl ExactSizeIterator<Item = &'a [u8]>) {
    array(out, args.len());
    for arg in args {
        bulk(out, arg);
    }
}

/// Two digits for each byte.
pub fn hexadecimal(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from(b"0123456789abcdef"[usize::from(value)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
