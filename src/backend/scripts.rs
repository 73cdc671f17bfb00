//! The scripts that were loaded through the proxy, and some that were sent whole, so that a node which does not know one can be
//! told.
//!
//! All workers share one book. It is a snapshot like the topology: loading a script, which is rare, makes a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::libraries::Libraries;
use crate::command::script::digest;
use crate::resp::{request, write};

/// Most scripts that are remembered. The one that was used least recently is forgotten first, of those that nobody has loaded as
/// long as there are any, and then a node that does not
/// know it says so to the client, which loads it again.
const MOST_SCRIPTS: usize = 1000;
/// Most bytes of scripts that are remembered.
const MOST_BYTES: usize = 16 << 20;
/// Scripts of `EVAL` are put down one in so many milliseconds, so that who sends a new one each time does not pay for it.
const LEARN_EVERY_MS: u64 = 100;
/// As many more may come at once.
const LEARN_AT_ONCE: u64 = 100;
/// Most bytes of one of those.
const LEARN_MOST_BYTES: usize = 4 << 10;
/// What a node says of a digest that it does not know.
const UNKNOWN: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";

/// The scripts by their digests.
#[derive(Debug, Default)]
pub struct Scripts {
    book: ArcSwap<Book>,
    /// Counts the uses, which tells the older from the newer.
    uses: AtomicU64,
    /// When all scripts of `EVAL` that were put down are paid for, in milliseconds of the workers' clocks, which begin at
    /// about the same time.
    learn_free_ms: AtomicU64,
    /// The libraries of functions.
    pub libraries: Libraries,
}

/// One state of the book.
#[derive(Clone, Debug, Default)]
struct Book {
    scripts: HashMap<Vec<u8>, Arc<Script>>,
    bytes: usize,
}

#[derive(Debug)]
struct Script {
    /// `SCRIPT LOAD` and the script, as it goes over the wire.
    load: Bytes,
    used: AtomicU64,
    /// Nobody has asked for it to be kept.
    is_learned: bool,
}

/// Whether a node says that it does not know a script.
pub(super) fn is_unknown(reply: &[u8]) -> bool {
    reply == UNKNOWN
}

/// Whether a node says that a script uses a key which it does not have: an error of the script's, but the map may be old.
pub(super) fn is_elsewhere(reply: &[u8]) -> bool {
    memchr::memmem::find(reply, b"attempted to access a non local key").is_some()
}

impl Scripts {
    /// Remembers a script by the digest that the nodes have given it.
    pub fn remember(&self, digest: &[u8], body: &[u8]) {
        self.put(digest, body, false);
    }

    fn put(&self, digest: &[u8], body: &[u8], is_learned: bool) {
        let mut load = Vec::with_capacity(body.len() + 64);
        write::request(&mut load, [&b"SCRIPT"[..], b"LOAD", body].into_iter());
        if load.len() > MOST_BYTES {
            return;
        }
        let used = AtomicU64::new(self.uses.fetch_add(1, Relaxed));
        let script = Arc::new(Script { load: load.into(), used, is_learned });
        self.book.rcu(|book| book.with(digest.to_ascii_lowercase(), &script));
    }

    /// Remembers a script that is sent whole, as a server does, for when it is called by its digest; so many new ones at once
    /// and in the long run, for each makes a new book.
    pub fn learn(&self, body: &[u8], now_ms: u64) {
        let free_ms = self.learn_free_ms.load(Relaxed);
        let has_room = free_ms <= now_ms + LEARN_AT_ONCE * LEARN_EVERY_MS;
        if !has_room || body.len() > LEARN_MOST_BYTES {
            return;
        }
        let digest = digest(body);
        if self.load(digest.as_bytes()).is_none() {
            self.learn_free_ms.store(free_ms.max(now_ms) + LEARN_EVERY_MS, Relaxed);
            self.put(digest.as_bytes(), body, true);
        }
    }

    /// Forgets all scripts.
    pub fn clear(&self) {
        self.book.store(Arc::default());
    }

    /// The text of a script.
    pub fn text(&self, digest: &[u8]) -> Option<Bytes> {
        let load = self.load(digest)?;
        request::argument(&load, 2).map(|text| load.slice_ref(text))
    }

    /// The request that makes a script known to a node; `None` if the script is not known here either.
    pub fn load(&self, digest: &[u8]) -> Option<Bytes> {
        let book = self.book.load();
        let script = match book.scripts.get(digest) {
            Some(script) => script,
            None => book.scripts.get(&digest.to_ascii_lowercase())?,
        };
        script.used.store(self.uses.fetch_add(1, Relaxed), Relaxed);
        Some(script.load.clone())
    }
}

impl Book {
    fn with(&self, digest: Vec<u8>, script: &Arc<Script>) -> Self {
        let mut book = self.clone();
        book.bytes += script.load.len();
        if let Some(known) = book.scripts.insert(digest, Arc::clone(script)) {
            book.bytes -= known.load.len();
        }
        while book.scripts.len() > MOST_SCRIPTS || book.bytes > MOST_BYTES {
            book.forget_one();
        }
        book
    }

    fn forget_one(&mut self) {
        let oldest = self
            .scripts
            .iter()
            .min_by_key(|(_, script)| (!script.is_learned, script.used.load(Relaxed)));
        let Some(digest) = oldest.map(|(digest, _)| digest.clone()) else { return };
        if let Some(script) = self.scripts.remove(&digest) {
            self.bytes -= script.load.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_is_forgotten_first() {
        let scripts = Scripts::default();
        for n in 0..=MOST_SCRIPTS {
            scripts.remember(format!("digest{n}").as_bytes(), b"return 1");
            assert!(scripts.load(b"DIGEST0").is_some());
        }
        assert_eq!(scripts.load(b"digest1"), None);
        assert!(scripts.load(b"digest2").is_some());
        scripts.remember(b"large", &vec![b'x'; MOST_BYTES - 1000]);
        assert_eq!(scripts.load(b"digest900"), None);
        assert!(scripts.load(b"digest0").is_some());
        scripts.remember(b"too large", &vec![b'x'; MOST_BYTES]);
        assert_eq!(scripts.load(b"too large"), None);
        scripts.clear();
        assert_eq!(scripts.load(b"digest0"), None);
    }

    #[test]
    fn not_too_many_scripts_are_learned() {
        let (scripts, digest) = (Scripts::default(), b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
        let learned = || scripts.book.load().scripts.len() as u64;
        scripts.learn(&vec![b' '; LEARN_MOST_BYTES + 1], 7);
        assert_eq!((scripts.text(digest), learned()), (None, 0));
        scripts.learn(b"return 1", 7);
        assert_eq!(scripts.text(digest).unwrap(), &b"return 1"[..]);
        for n in 0..3 * LEARN_AT_ONCE {
            scripts.learn(format!("return {n}").as_bytes(), 7);
            scripts.learn(b"return 1", 7);
        }
        assert_eq!(learned(), LEARN_AT_ONCE + 1);
        scripts.learn(b"return 'later'", 7 + LEARN_EVERY_MS);
        assert_eq!(learned(), LEARN_AT_ONCE + 2);
    }

    #[test]
    fn what_was_loaded_is_not_forgotten_for_what_was_learned() {
        let scripts = Scripts::default();
        scripts.remember(b"loaded", b"return 1");
        for n in 0..=MOST_SCRIPTS as u64 {
            scripts.learn(format!("return 'x{n}'").as_bytes(), n * LEARN_EVERY_MS);
        }
        assert!(scripts.load(b"loaded").is_some());
        assert_eq!(scripts.book.load().scripts.len(), MOST_SCRIPTS);
    }

    #[test]
    fn a_script_is_told_as_it_was_loaded() {
        let scripts = Scripts::default();
        scripts.remember(b"aB", b"return\r\n1");
        let load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$9\r\nreturn\r\n1\r\n";
        assert_eq!(scripts.load(b"Ab").unwrap(), &load[..]);
        assert_eq!(scripts.text(b"AB").unwrap(), &b"return\r\n1"[..]);
    }
}
