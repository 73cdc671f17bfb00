//! Scripts and functions that are called without keys, as one server lets them be: they go to the owner of the key that they
//! name first.
//!
//! A script that cannot see which keys it is given is given that one. So its call is redirected as any other on that key is,
//! and never runs where the key is not. Of a script that may see its keys the call goes out as it came: a node that does not
//! have the key says so. So it is with functions, which see their keys by names of their own.

use bytes::Bytes;

use super::connection::{Flow, Session};
use crate::backend::Payload;
use crate::cluster::Slot;
use crate::command::function::Library;
use crate::command::{Claim, script};
use crate::resp::frame::{Limits, Progress, RequestFramer};
use crate::resp::request::Request;
use crate::resp::write;
use crate::route::{Decision, Route};

/// Where the count of keys stands, and behind it the script's arguments if that is 0.
const COUNT: usize = 2;

impl Session {
    /// What a script's text says, if a request runs one whose text is known.
    pub(super) fn of_script<T>(
        &self,
        command: &str,
        request: &Request<'_>,
        look: impl FnOnce(&[u8]) -> T,
    ) -> Option<T> {
        match command {
            "eval" | "eval_ro" => Some(look(request.arg(1))),
            "evalsha" | "evalsha_ro" => {
                self.shared.pool.scripts.text(request.arg(1)).map(|text| look(&text))
            }
            _ => None,
        }
    }

    /// The text of the library with the function that a request calls, if it was loaded through the proxy.
    fn library_of(&self, command: &str, request: &Request<'_>) -> Option<Bytes> {
        let calls = matches!(command, "fcall" | "fcall_ro");
        let scripts = calls.then_some(&self.shared.pool.scripts)?;
        scripts.libraries.with(request.arg(1))
    }

    /// Whether a script or function says of itself that it does not write.
    pub(super) fn only_reads(&self, command: &str, request: &Request<'_>) -> bool {
        if let Some(text) = self.library_of(command, request) {
            return Library::read(&text).only_reads(request.arg(1));
        }
        self.of_script(command, request, script::declares_no_writes).unwrap_or(false)
    }

    /// Forgets functions that are about to be changed otherwise than by `FUNCTION LOAD`.
    pub(super) fn forget_functions(&self, decision: &Decision, request: &Request<'_>) {
        let libraries = &self.shared.pool.scripts.libraries;
        match (decision.name, decision.sub) {
            ("function", "delete") => libraries.forget(request.arg(2)),
            ("function", "flush" | "restore") => libraries.clear(),
            _ => {}
        }
    }

    /// A decision that is good for any node, or where the script goes that is called.
    #[inline]
    pub(super) fn placed(&self, decision: Decision, request: &Request<'_>) -> Decision {
        if !matches!(decision.route, Route::Any) || !is_keyless(&decision, request) {
            return decision;
        }
        let Some(key) = self.named_key(&decision, request) else { return decision };
        let slot = Slot::of(&key);
        // As with keys that are declared, the node may have to be told the script first.
        let told_first = matches!(decision.name, "evalsha" | "evalsha_ro");
        let claim = if told_first { Claim::Whole(slot) } else { Claim::Slot(slot) };
        Decision { route: Route::One(slot, claim), ..decision }
    }

    #[cold]
    fn named_key(&self, decision: &Decision, request: &Request<'_>) -> Option<Vec<u8>> {
        let args: Vec<&[u8]> = request.args(COUNT + 1).collect();
        if let Some(text) = self.library_of(decision.name, request) {
            let key = Library::read(&text).named_key(request.arg(1), &args);
            return key.map(<[u8]>::to_vec);
        }
        let find = |text: &[u8]| script::named_key(text, &args).map(<[u8]>::to_vec);
        self.of_script(decision.name, request, find).flatten()
    }

    /// The call of a script with the key declared that it names first; `None` if it is to go as it came.
    pub(super) fn declared(&self, decision: &Decision, request: &Request<'_>) -> Option<Vec<u8>> {
        if !matches!(decision.route, Route::One(..)) || !is_keyless(decision, request) {
            return None;
        }
        let sees_keys = self.of_script(decision.name, request, script::may_see_keys)?;
        let key = self.named_key(decision, request).filter(|_| !sees_keys)?;
        let mut words: Vec<&[u8]> = request.args(0).collect();
        words[COUNT] = b"1";
        words.insert(COUNT + 1, &key);
        let mut wire = Vec::new();
        write::request(&mut wire, words.into_iter());
        Some(wire)
    }

    /// Dispatches a request in place of the one that came.
    pub(super) fn dispatch_instead(&mut self, wire: &[u8]) -> Flow {
        let mut framer = RequestFramer::default();
        let progress = framer.frame(wire, &Limits::NONE);
        debug_assert_eq!(progress, Ok(Progress::Complete(wire.len())));
        let request = Request::new(wire, framer.args());
        if self.transaction.is_some() {
            self.dispatch_queued(&request)
        } else {
            self.dispatch_any(&request, Payload::Small(wire))
        }
    }
}

/// Whether a script or function is called, without keys.
pub(super) fn is_keyless(decision: &Decision, request: &Request<'_>) -> bool {
    let calls = matches!(
        decision.name,
        "eval" | "eval_ro" | "evalsha" | "evalsha_ro" | "fcall" | "fcall_ro"
    );
    calls && request.arg(COUNT) == b"0"
}
