//! `CLUSTER NODES` and `CLUSTER SLOTS` → what one node says of the cluster.

use std::collections::HashMap;
use std::ops::Range;

use thiserror::Error;

use super::node::{Address, NodeId};
use super::slot::SLOTS;
use crate::resp::value::{self, Value};

/// What one node says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// One line per node it knows and that has an address.
    pub nodes: Vec<NodeLine>,
    /// How many slots it is giving away or taking in.
    pub open_slots: usize,
    /// The slots it is taking in.
    pub importing: Vec<usize>,
}

/// What one node says of another, or of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeLine {
    /// Name of the node.
    pub id: NodeId,
    /// Where clients reach it.
    pub address: Address,
    /// Whether the line is about the node that said it.
    pub myself: bool,
    /// Whether it is held for failed (`fail`, not the mere suspicion `fail?`).
    pub failed: bool,
    /// The primary it replicates.
    pub primary: Option<NodeId>,
    /// Its config epoch.
    pub epoch: u64,
    /// The slots it owns.
    pub slots: Vec<Range<usize>>,
}

/// A reply that is not what `CLUSTER NODES` gives.
#[derive(Debug, Error)]
#[error("cannot read the CLUSTER NODES reply of {address}: {line:?}")]
pub struct ParseError {
    address: Address,
    line: String,
}

/// Reads a `CLUSTER NODES` reply. `from` is where it was asked, and stands in for hosts the node does not know.
pub fn nodes(text: &str, from: &Address) -> Result<View, ParseError> {
    let mut view = View::default();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [id, address, flags, primary, _, _, epoch, _, slots @ ..] = fields.as_slice() else {
            return Err(ParseError { address: from.clone(), line: line.to_owned() });
        };
        let has = |flag| flags.split(',').any(|f| f == flag);
        view.open_slots += slots.iter().filter(|s| s.starts_with('[')).count();
        view.importing.extend(slots.iter().filter_map(|s| imported(s)));
        if has("noaddr") || has("handshake") {
            continue;
        }
        let Some(address) = node_address(address, from) else { continue };
        view.nodes.push(NodeLine {
            id: NodeId((*id).into()),
            address,
            myself: has("myself"),
            failed: has("fail"),
            primary: (*primary != "-").then(|| NodeId((*primary).into())),
            epoch: epoch.parse().unwrap_or(0),
            slots: slots.iter().filter_map(|s| slot_range(s)).collect(),
        });
    }
    Ok(view)
}

/// `ip:port@bus[,hostname[,…]]`; an empty ip means the host that was asked.
fn node_address(text: &str, from: &Address) -> Option<Address> {
    let address = text.split(',').next()?;
    let address = address.split('@').next()?;
    Address::parse(address, Some(from))
}

/// `[slot-<-id]` marks a slot that is being taken in.
fn imported(text: &str) -> Option<usize> {
    let (slot, _) = text.strip_prefix('[')?.split_once("-<-")?;
    slot.parse().ok().filter(|slot| *slot < SLOTS)
}

/// `a-b` or `a`; `[slot->-id]` marks a migration and is no range.
fn slot_range(text: &str) -> Option<Range<usize>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && last < SLOTS).then_some(first..last + 1)
}

/// The addresses that a `CLUSTER SLOTS` reply announces to clients, by node id: what `cluster-preferred-endpoint-type`
/// chose. A null or empty host is the one that was asked. Nodes without slots are missing, and so are nodes whose host is
/// `?`, for which `CLUSTER NODES` has to do.
pub fn endpoints(reply: &Value, from: &Address) -> HashMap<NodeId, Address> {
    let shards = value::array(reply).unwrap_or(&[]).iter().filter_map(value::array);
    shards
        .flat_map(|shard| shard.iter().skip(2))
        .filter_map(|node| endpoint(value::array(node)?, from))
        .collect()
}

fn endpoint(node: &[Value], from: &Address) -> Option<(NodeId, Address)> {
    let [host, port, id, ..] = node else { return None };
    let host = value::text(host).unwrap_or("");
    let address = Address::parse(&format!("{host}:{}", value::integer(port)?), Some(from))?;
    Some((NodeId(value::text(id)?.into()), address))
}

impl View {
    /// The node that says this.
    pub fn myself(&self) -> Option<&NodeId> {
        self.line().map(|line| &line.id)
    }

    /// What it says of itself.
    pub fn line(&self) -> Option<&NodeLine> {
        self.nodes.iter().find(|line| line.myself)
    }

    /// Whether any node owns a slot.
    pub fn has_slots(&self) -> bool {
        self.nodes.iter().any(|line| !line.slots.is_empty())
    }

    /// Replaces addresses by the ones announced to clients.
    #[must_use]
    pub fn with_endpoints(mut self, endpoints: &HashMap<NodeId, Address>) -> Self {
        for node in &mut self.nodes {
            if let Some(address) = endpoints.get(&node.id) {
                node.address = address.clone();
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_nodes() {
        let from = Address::parse("10.1.1.1:7000", None).unwrap();
        let view = nodes(
            "aa :7000@17000 myself,master - 0 0 3 connected 0-5 7 [8->-bb] [9-<-bb]\n\
             bb 10.1.1.2:7001@17001,host-b master,fail? - 0 1 2 disconnected 10-16383\n\
             cc 10.1.1.3:7002@17002 slave,fail bb 0 1 2 connected\n\
             dd :0@0 master,noaddr - 0 1 2 disconnected\n",
            &from,
        )
        .unwrap();
        assert_eq!(view.open_slots, 2);
        assert_eq!(view.nodes.len(), 3);
        assert_eq!(view.nodes[0].address, from);
        assert_eq!(view.nodes[0].slots, [0..6, 7..8]);
        assert!(view.nodes[0].myself && !view.nodes[1].failed && view.nodes[2].failed);
        assert_eq!(view.nodes[2].primary, Some(NodeId("bb".into())));
        assert!(nodes("nonsense", &from).is_err());
    }

    #[test]
    fn endpoints_replace_addresses_where_they_are_known() {
        let from = Address::parse("10.1.1.1:7000", None).unwrap();
        let line = "bb 10.1.1.2:7001@17001 master - 0 1 2 connected 0-16383\n";
        let check = |host: &str, expected: &str| {
            let wire = format!("*1\r\n*3\r\n:0\r\n:16383\r\n*3\r\n{host}\r\n:7001\r\n$2\r\nbb\r\n");
            let (reply, _) = value::decode(&wire.into_bytes().into()).unwrap().unwrap();
            let view = nodes(line, &from).unwrap().with_endpoints(&endpoints(&reply, &from));
            assert_eq!(view.nodes[0].address.to_string(), expected, "{host:?}");
        };
        check("$6\r\nhost-b", "host-b:7001");
        check("$-1", "10.1.1.1:7001");
        check("$0\r\n", "10.1.1.1:7001");
        check("$1\r\n?", "10.1.1.2:7001");
    }
}
