//! How requests are shown to others: in the slow log and to those who monitor.

use std::io::Write;
use std::net::SocketAddr;

use crate::resp::request::Request;

use super::is;

/// Longest line shown to those who monitor; what is longer is cut off.
const LINE_MAX: usize = 16 * 1024;

const REDACTED: &[u8] = b"(redacted)";

/// Settings whose values are passwords.
const SECRETS: &[&str] =
    &["requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass"];

/// The arguments, with passwords hidden.
pub fn arguments<'a>(request: &Request<'a>) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = request.args(0).collect();
    match request.name() {
        name if is(name, "AUTH") => hide(args.iter_mut().skip(1)),
        name if is(name, "ACL") && is(request.arg(1), "SETUSER") => hide(args.iter_mut().skip(2)),
        name if is(name, "HELLO") => hide_credentials(&mut args),
        name if is(name, "CONFIG") && is(request.arg(1), "SET") => {
            let secret = |pair: &&mut [&[u8]]| SECRETS.iter().any(|name| is(pair[0], name));
            hide(args[2..].chunks_mut(2).filter(secret).flat_map(|pair| pair.iter_mut().skip(1)));
        }
        _ => {}
    }
    args
}

/// Hides users and passwords of `HELLO`, whose options may be there several times.
fn hide_credentials(args: &mut [&[u8]]) {
    let mut at = 2;
    while at < args.len() {
        let len = match args[at] {
            option if is(option, "AUTH") => {
                hide(args.iter_mut().skip(at + 1).take(2));
                3
            }
            option if is(option, "SETNAME") => 2,
            _ => 1,
        };
        at += len;
    }
}

fn hide<'a, 'b: 'a>(args: impl Iterator<Item = &'a mut &'b [u8]>) {
    args.for_each(|arg| *arg = REDACTED);
}

/// The line that those who monitor see of a request, as it goes over the wire.
pub fn line(request: &Request<'_>, peer: Option<SocketAddr>, unix_us: u64) -> Vec<u8> {
    let mut line = Vec::new();
    let (s, us) = (unix_us / 1_000_000, unix_us % 1_000_000);
    let peer = peer.map_or_else(String::new, |peer| peer.to_string());
    // Writing to a vector cannot fail.
    let _ = write!(line, "+{s}.{us:06} [0 {peer}]");
    for arg in arguments(request) {
        line.extend_from_slice(b" \"");
        let room = LINE_MAX.saturating_sub(line.len());
        arg.iter().take(room).for_each(|byte| quote(*byte, &mut line));
        line.push(b'"');
        if line.len() >= LINE_MAX {
            break;
        }
    }
    line.extend_from_slice(b"\r\n");
    line
}

fn quote(byte: u8, line: &mut Vec<u8>) {
    match byte {
        b'\\' | b'"' => line.extend([b'\\', byte]),
        b'\n' => line.extend(b"\\n"),
        b'\r' => line.extend(b"\\r"),
        b'\t' => line.extend(b"\\t"),
        7 => line.extend(b"\\a"),
        8 => line.extend(b"\\b"),
        b' '..=b'~' => line.push(byte),
        // Writing to a vector cannot fail.
        _ => drop(write!(line, "\\x{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::frame::{Limits, RequestFramer};

    #[test]
    fn lines_are_quoted_and_hide_passwords() {
        let check = |words: &[&[u8]], expected: &str| {
            let mut wire = Vec::new();
            crate::resp::write::request(&mut wire, words.iter().copied());
            let mut framer = RequestFramer::default();
            let limits =
                Limits { args: 9, bulk: 1 << 20, request: 1 << 20, unauthenticated: false };
            framer.frame(&wire, &limits).unwrap();
            let peer = Some("10.0.0.1:5".parse().unwrap());
            let line = line(&Request::new(&wire, framer.args()), peer, 1_700_000_000_000_042);
            let expected = format!("+1700000000.000042 [0 10.0.0.1:5] {expected}\r\n");
            assert_eq!(String::from_utf8_lossy(&line), expected);
        };
        check(&[b"get", b"a\"\\b"], r#""get" "a\"\\b""#);
        check(&[b"set", b"\n\r\t\x07\x08\x00\xff", b""], r#""set" "\n\r\t\a\b\x00\xff" """#);
        check(&[b"AUTH", b"me", b"secret"], r#""AUTH" "(redacted)" "(redacted)""#);
        check(
            &[b"hello", b"3", b"AUTH", b"me", b"secret", b"SETNAME", b"x"],
            r#""hello" "3" "AUTH" "(redacted)" "(redacted)" "SETNAME" "x""#,
        );
        check(
            &[b"hello", b"3", b"setname", b"auth", b"auth", b"me", b"secret", b"AUTH", b"you"],
            r#""hello" "3" "setname" "auth" "auth" "(redacted)" "(redacted)" "AUTH" "(redacted)""#,
        );
        check(
            &[b"acl", b"setuser", b"me", b">secret", b"on"],
            r#""acl" "setuser" "(redacted)" "(redacted)" "(redacted)""#,
        );
        check(&[b"ACL", b"GETUSER", b"me"], r#""ACL" "GETUSER" "me""#);
        check(
            &[b"CONFIG", b"SET", b"hz", b"9", b"RequirePass", b"secret"],
            r#""CONFIG" "SET" "hz" "9" "RequirePass" "(redacted)""#,
        );
        check(&[b"CONFIG", b"SET"], r#""CONFIG" "SET""#);
        let long = vec![b'x'; LINE_MAX + 1000];
        let cut = "x".repeat(LINE_MAX - "+1700000000.000042 [0 10.0.0.1:5] \"".len());
        check(&[&long, b"y"], &format!("\"{cut}\""));
    }
}
