//! `DEBUG`, for test suites: refused unless the proxy is told otherwise. What has a key goes to its owner, the rest to all.

use std::time::Duration;

use super::inquiry::{Inquiry, Reach};
use super::{After, Env, is, lossy};
use crate::cluster::Slot;
use crate::refusal::Refusal;
use crate::resp::request::Request;

/// Subcommands that end a server or take it out of service.
const DEADLY: &[&str] =
    &["ASSERT", "CRASH-AND-RECOVER", "JMAP", "OOM", "PANIC", "RESTART", "SEGFAULT"];

/// Subcommands whose third argument is a key.
const KEYED: &[&str] = &[
    "DIGEST-VALUE",
    "HTSTATS-KEY",
    "LISTPACK",
    "LISTPACK-ENTRIES",
    "OBJECT",
    "QUICKLIST",
    "SDSLEN",
    "ZIPLIST",
];

/// Longest time a node may be busy with it.
const LONGEST: Duration = Duration::from_secs(60);

/// Passes `DEBUG …` on.
pub(super) fn debug(request: &Request<'_>, env: &Env<'_>) -> Result<After, Refusal> {
    let sub = request.arg(1);
    if !env.proxy.allow_debug || DEADLY.iter().any(|deadly| is(sub, deadly)) {
        let sub = lossy(sub).to_ascii_lowercase();
        return Err(Refusal::NotAllowed(format!("debug|{sub}")));
    }
    let words: Vec<&[u8]> = request.args(0).collect();
    let is_keyed = KEYED.iter().any(|keyed| is(sub, keyed)) && request.len() > 2;
    let reach = if is_keyed { Reach::Owner(Slot::of(request.arg(2))) } else { Reach::All };
    Ok(After::Inquire(Inquiry::plain(reach, &words).within(LONGEST)))
}
