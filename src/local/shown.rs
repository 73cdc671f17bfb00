//! How requests are shown to others: in the slow log and to those who monitor.

use crate::resp::request::Request;

use super::is;

const REDACTED: &[u8] = b"(redacted)";

/// The arguments, with passwords hidden.
pub fn arguments<'a>(request: &Request<'a>) -> Vec<&'a [u8]> {
    let mut args: Vec<&[u8]> = request.args(0).collect();
    if is(request.name(), "AUTH") {
        args.iter_mut().skip(1).for_each(|arg| *arg = REDACTED);
    } else if is(request.name(), "HELLO")
        && let Some(at) = args.iter().position(|arg| is(arg, "AUTH"))
    {
        args.iter_mut().skip(at + 1).take(2).for_each(|arg| *arg = REDACTED);
    }
    args
}
