//! Functions for new primaries: a node that joins knows none, and a cluster does not give it any.
//!
//! The libraries that it lacks are loaded one by one, so that none of its own is ever replaced.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;

use crate::backend::control::{Access, ControlError};
use crate::cluster::{Address, NodeId, Topology};
use crate::resp::value::{self, Value};

/// Attempts, and the wait between two: a node that has just joined may not answer yet.
const ATTEMPTS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(500);

/// The nodes that are primaries, with slots or without, and where they are.
pub(super) fn primaries(topology: &Topology) -> BTreeMap<NodeId, Address> {
    let nodes = topology.nodes().iter().filter(|node| node.primary.is_none() && !node.failed);
    nodes.map(|node| (node.id.clone(), node.address.clone())).collect()
}

/// Loads the libraries of one node on another that lacks them.
pub(super) async fn equip(source: Address, target: Address, access: Access) {
    for attempt in 1..=ATTEMPTS {
        match copy(&source, &target, &access).await {
            Ok(0) => return,
            Ok(count) => {
                tracing::info!(node = %target, count, "gave the new primary its functions");
                return;
            }
            // One that is a replica by now gets them from its primary, and old servers have no functions.
            Err(error) if error.reply().is_some() || attempt == ATTEMPTS => {
                tracing::debug!(node = %target, %error, "the new primary gets no functions");
            }
            Err(_) => {
                sleep(PAUSE).await;
                continue;
            }
        }
        return;
    }
}

/// Number of libraries that were loaded.
async fn copy(source: &Address, target: &Address, access: &Access) -> Result<usize, ControlError> {
    let mut source = access.open(source).await?;
    let listed = source.call(&[b"FUNCTION", b"LIST", b"WITHCODE"]).await?;
    let libraries = libraries(&listed);
    if libraries.is_empty() {
        return Ok(0);
    }
    let mut node = access.open(target).await?;
    let listed = node.call(&[b"FUNCTION", b"LIST"]).await?;
    let known: BTreeSet<String> = names(&listed).collect();
    let mut count = 0;
    for (name, code) in libraries.into_iter().filter(|(name, _)| !known.contains(name)) {
        match node.call(&[b"FUNCTION", b"LOAD", code.as_slice()]).await {
            Ok(_) => count += 1,
            Err(error) if error.reply().is_some() => {
                tracing::warn!(node = %target, library = name, %error, "cannot load the library");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// Names and code of the libraries that `FUNCTION LIST WITHCODE` tells of.
fn libraries(listed: &Value) -> Vec<(String, Vec<u8>)> {
    let libraries = value::array(listed).unwrap_or(&[]).iter();
    let library = |library| {
        let name = value::text(field(library, "library_name")?)?.to_owned();
        let Value::BulkString(code) = field(library, "library_code")? else { return None };
        Some((name, code.to_vec()))
    };
    libraries.filter_map(library).collect()
}

fn names(listed: &Value) -> impl Iterator<Item = String> {
    let libraries = value::array(listed).unwrap_or(&[]).iter();
    libraries.filter_map(|library| value::text(field(library, "library_name")?).map(str::to_owned))
}

/// The value behind a name.
fn field<'a>(library: &'a Value, name: &str) -> Option<&'a Value> {
    let mut pairs = value::array(library)?.chunks_exact(2);
    pairs.find(|pair| value::text(&pair[0]) == Some(name)).map(|pair| &pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read() {
        let text = |text: &'static str| Value::BulkString(text.into());
        let library = Value::Array(vec![
            text("library_name"),
            text("lib"),
            text("functions"),
            Value::Array(vec![text("library_code")]),
            text("library_code"),
            text("#!lua name=lib"),
        ]);
        let listed = Value::Array(vec![library, Value::Array(vec![text("library_name")])]);
        assert_eq!(libraries(&listed), [("lib".to_owned(), b"#!lua name=lib".to_vec())]);
        assert_eq!(names(&listed).collect::<Vec<_>>(), ["lib"]);
        assert!(libraries(&Value::Null).is_empty());
    }
}
