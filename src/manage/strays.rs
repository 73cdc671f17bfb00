//! Keys where they do not belong: on primaries that do not own their slot.

use std::collections::BTreeMap;

use super::access::Access;
use super::check::Finding;
use super::view::{ClusterView, NodeView};
use crate::backend::control::ControlError;
use crate::cluster::{Address, Slot, Slots};
use crate::resp::value::{self, Value};

/// Slots asked about in one go.
const AT_ONCE: usize = 2048;

/// The slots that several primaries have a claim on, be it that they own them or that they have keys of them.
pub async fn claims(
    view: &ClusterView,
    access: &Access,
) -> Result<BTreeMap<Slot, Vec<Address>>, ControlError> {
    let mut claims: BTreeMap<Slot, Vec<Address>> = BTreeMap::new();
    for node in view.primaries() {
        let with_keys = with_keys(node, access).await?;
        for slot in node.own.slots.iter().copied().chain(with_keys) {
            claims.entry(slot).or_default().push(node.address.clone());
        }
    }
    claims.retain(|_, by| by.len() > 1);
    Ok(claims)
}

/// The same as findings: slots with the same claimants together.
pub async fn findings(view: &ClusterView, access: &Access) -> Result<Vec<Finding>, ControlError> {
    let mut groups: BTreeMap<Vec<Address>, Vec<Slot>> = BTreeMap::new();
    for (slot, by) in claims(view, access).await? {
        groups.entry(by).or_default().push(slot);
    }
    let finding = |(by, slots): (Vec<Address>, Vec<Slot>)| Finding::Strays {
        slots: slots.into_iter().collect(),
        by,
    };
    Ok(groups.into_iter().map(finding).collect())
}

/// The slots that a node has keys of and does not own.
async fn with_keys(node: &NodeView, access: &Access) -> Result<Vec<Slot>, ControlError> {
    let mut control = access.open(&node.address).await?;
    let foreign: Vec<Slot> =
        Slots::all().into_iter().filter(|slot| !node.own.slots.contains(*slot)).collect();
    let mut found = Vec::new();
    for some in foreign.chunks(AT_ONCE) {
        let requests: Vec<_> = some.iter().copied().map(count_keys).collect();
        let counts = control.pipeline(&requests).await?;
        let has_keys = |count: &Value| value::integer(count).is_some_and(|count| count > 0);
        found.extend(
            some.iter().zip(&counts).filter(|(_, count)| has_keys(count)).map(|(slot, _)| *slot),
        );
    }
    Ok(found)
}

fn count_keys(slot: Slot) -> Vec<Vec<u8>> {
    vec![b"CLUSTER".to_vec(), b"COUNTKEYSINSLOT".to_vec(), slot.to_string().into_bytes()]
}
