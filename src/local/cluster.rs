//! `CLUSTER` as a standalone server answers it: the cluster is hidden from clients.

use super::is;
use crate::cluster::Slot;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::write;

/// Only `KEYSLOT`, which is arithmetic, is answered.
pub(super) fn cluster(request: &Request<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    if is(request.arg(1), "KEYSLOT") && request.len() == 3 {
        write::integer(out, i64::from(Slot::of(request.arg(2)).number()));
        return Ok(());
    }
    Err(Refusal::text("ERR This instance has cluster support disabled"))
}
