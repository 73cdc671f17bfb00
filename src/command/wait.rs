//! For how long a command waits at its node, and where it says so.

use std::time::Duration;

use super::Keys;
use super::keys::{self, ArgList};
use crate::resp::Protocol;

/// Which argument of a command says how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timeout {
    /// The first behind the name, in seconds.
    First,
    /// The last, in seconds.
    Last,
    /// The one behind `BLOCK`, in milliseconds; without it the command does not wait.
    Block,
}

/// The wait of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Wait {
    at: usize,
    millis: bool,
    timeout: Option<Duration>,
}

impl Wait {
    /// The wait that a request asks for; `None` if it does not wait, or not in words that a server would accept.
    pub fn of(timeout: Timeout, keys: Keys, args: &(impl ArgList + ?Sized)) -> Option<Self> {
        let (at, millis) = place(timeout, keys, args)?;
        let text = std::str::from_utf8((at < args.len()).then(|| args.arg(at))?).ok()?;
        let timeout = if millis {
            Duration::from_millis(text.parse().ok()?)
        } else {
            Duration::try_from_secs_f64(text.parse().ok()?).ok()?
        };
        Some(Self { at, millis, timeout: Some(timeout).filter(|timeout| !timeout.is_zero()) })
    }

    /// Index of the argument.
    pub fn at(self) -> usize {
        self.at
    }

    /// How long it waits; `None` for ever.
    pub fn timeout(self) -> Option<Duration> {
        self.timeout
    }

    /// The argument for a wait of so long.
    pub fn argument(self, wait: Option<Duration>) -> String {
        match wait {
            None => "0".to_owned(),
            Some(wait) if self.millis => wait.as_millis().to_string(),
            Some(wait) => format!("{:.3}", wait.as_secs_f64()),
        }
    }

    /// The reply when nothing came.
    pub fn nothing(self, protocol: Protocol) -> &'static [u8] {
        match protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        }
    }
}

/// Index of the argument that says how long, and whether it does in whole milliseconds.
fn place(timeout: Timeout, keys: Keys, args: &(impl ArgList + ?Sized)) -> Option<(usize, bool)> {
    Some(match timeout {
        Timeout::First => (1, false),
        Timeout::Last => (args.len().checked_sub(1)?, false),
        Timeout::Block => (keys::block_argument(keys, args)?, true),
    })
}

/// What the server says to a request that does not say well how long it waits; `None` if it does not say at all.
pub fn complaint(
    timeout: Timeout,
    keys: Keys,
    args: &(impl ArgList + ?Sized),
) -> Option<&'static str> {
    let (at, millis) = place(timeout, keys, args)?;
    let text =
        (at < args.len()).then(|| args.arg(at)).and_then(|arg| std::str::from_utf8(arg).ok());
    let number: Option<f64> = text.and_then(|text| text.parse().ok());
    Some(match number {
        Some(number) if number < 0.0 => "ERR timeout is negative",
        _ if millis => "ERR timeout is not an integer or out of range",
        _ => "ERR timeout is not a float or out of range",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::table;

    #[test]
    fn waits() {
        let check = |timeout, line: &str, expected: Option<(usize, Option<u64>)>| {
            let args: Vec<&str> = line.split(' ').collect();
            let spec = table::lookup(args[0].as_bytes()).unwrap();
            let wait = Wait::of(timeout, spec.keys, args.as_slice());
            let millis = |wait: Duration| u64::try_from(wait.as_millis()).unwrap();
            assert_eq!(wait.map(|w| (w.at, w.timeout.map(millis))), expected, "{line}");
        };
        check(Timeout::Last, "BLPOP a b 1.5", Some((3, Some(1500))));
        check(Timeout::Last, "BLPOP a 0", Some((2, None)));
        check(Timeout::Last, "BLPOP a -1", None);
        check(Timeout::Last, "BLPOP a x", None);
        check(Timeout::Last, "BLPOP a nan", None);
        check(Timeout::First, "BLMPOP 2 1 a LEFT", Some((1, Some(2000))));
        check(Timeout::Block, "XREAD COUNT 1 BLOCK 50 STREAMS a 0", Some((4, Some(50))));
        check(Timeout::Block, "XREAD STREAMS BLOCK 0", None);
        check(
            Timeout::Block,
            "XREADGROUP GROUP block BLOCK NOACK BLOCK 7 STREAMS s >",
            Some((6, Some(7))),
        );
        check(Timeout::Block, "XREAD BLOCK", None);
        check(Timeout::Block, "XREAD BLOCK -1 STREAMS a 0", None);
    }

    #[test]
    fn what_is_left_is_said_in_the_same_unit() {
        let wait = |timeout, args: &[&str]| {
            Wait::of(timeout, table::lookup(args[0].as_bytes()).unwrap().keys, args).unwrap()
        };
        let left = Some(Duration::from_millis(1234));
        assert_eq!(wait(Timeout::Last, &["BLPOP", "a", "9"]).argument(left), "1.234");
        assert_eq!(wait(Timeout::Last, &["BLPOP", "a", "0"]).argument(None), "0");
        let block = ["XREAD", "BLOCK", "9", "STREAMS", "a", "0"];
        assert_eq!(wait(Timeout::Block, &block).argument(left), "1234");
    }
}
