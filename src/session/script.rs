//! Scripts and functions that are called without keys, as one server lets them be: they go to the owner of the key that they
//! name first, as they came.
//!
//! That key is not declared for them: a node that is asked with `ASKING` lets every call within a script pass, also those on
//! keys that are still elsewhere. A node that does not have a key says so, to the call within the script.

use super::connection::Session;
use crate::cluster::Slot;
use crate::command::function::Library;
use crate::command::{Claim, lookup, script};
use crate::resp::request::Request;
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

    /// Takes note of a script that is sent whole.
    pub(super) fn learn_script(&self, decision: &Decision, request: &Request<'_>) {
        if matches!(decision.name, "eval" | "eval_ro")
            && (matches!(decision.route, Route::One(..)) || is_keyless(decision, request))
        {
            let pool = &self.shared.pool;
            pool.scripts.learn(request.arg(1), pool.clock.millis());
        }
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
        let claim =
            lookup(decision.name.as_bytes()).map_or(Claim::Slot(slot), |spec| spec.claim(slot, 1));
        Decision { route: Route::One(slot, claim), ..decision }
    }

    /// A slot of the node that gets a request which any can answer. A script gets the same for all clients, by its digest or
    /// the function's name: it does the same then whoever calls it, and one node alone has to know it.
    pub(super) fn node_for(&self, decision: &Decision, request: &Request<'_>) -> Option<Slot> {
        if !is_keyless(decision, request) {
            return self.any_slot();
        }
        let slot = match decision.name {
            "eval" | "eval_ro" if request.arg(1).len() > script::READ_MAX => {
                return self.any_slot();
            }
            "eval" | "eval_ro" => Slot::of(script::digest(request.arg(1)).as_bytes()),
            _ => Slot::of(&request.arg(1).to_ascii_lowercase()),
        };
        let is_served = self.shared.pool.owner(slot).is_some();
        if is_served { Some(slot) } else { self.any_slot() }
    }

    #[cold]
    fn named_key(&self, decision: &Decision, request: &Request<'_>) -> Option<Vec<u8>> {
        let args: Vec<&[u8]> = request.args(COUNT + 1).collect();
        if matches!(decision.name, "fcall" | "fcall_ro") {
            let function = request.arg(1);
            let find =
                |library: &Library<'_>| library.named_key(function, &args).map(<[u8]>::to_vec);
            return self.shared.pool.scripts.libraries.with(function, find).flatten();
        }
        let find = |text: &[u8]| script::named_key(text, &args).map(<[u8]>::to_vec);
        self.of_script(decision.name, request, find).flatten()
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
