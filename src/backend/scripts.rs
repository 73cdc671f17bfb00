//! The scripts that were loaded through the proxy, so that a node which does not know one can be told.
//!
//! All workers share one book. It is a snapshot like the topology: loading a script, which is rare, makes a new one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::libraries::Libraries;
use crate::resp::{request, write};

/// Most scripts that are remembered. The one that was used least recently is forgotten first, and then a node that does not
/// know it says so to the client, which loads it again.
const MOST_SCRIPTS: usize = 1000;
/// Most bytes of scripts that are remembered.
const MOST_BYTES: usize = 16 << 20;
/// What a node says of a digest that it does not know.
const UNKNOWN: &[u8] = b"-NOSCRIPT No matching script. Please use EVAL.\r\n";

/// The scripts by their digests.
#[derive(Debug, Default)]
pub struct Scripts {
    book: ArcSwap<Book>,
    /// Counts the uses, which tells the older from the newer.
    uses: AtomicU64,
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
        let mut load = Vec::with_capacity(body.len() + 64);
        write::request(&mut load, [&b"SCRIPT"[..], b"LOAD", body].into_iter());
        if load.len() > MOST_BYTES {
            return;
        }
        let used = AtomicU64::new(self.uses.fetch_add(1, Relaxed));
        let script = Arc::new(Script { load: load.into(), used });
        self.book.rcu(|book| book.with(digest.to_ascii_lowercase(), &script));
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
        let oldest = self.scripts.iter().min_by_key(|(_, script)| script.used.load(Relaxed));
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
    fn a_script_is_told_as_it_was_loaded() {
        let scripts = Scripts::default();
        scripts.remember(b"aB", b"return\r\n1");
        let load = b"*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$9\r\nreturn\r\n1\r\n";
        assert_eq!(scripts.load(b"Ab").unwrap(), &load[..]);
        assert_eq!(scripts.text(b"AB").unwrap(), &b"return\r\n1"[..]);
    }
}
