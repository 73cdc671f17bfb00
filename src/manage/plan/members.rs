//! Who follows whom when a node comes, goes, or takes another's place. Pure.

use std::collections::BTreeMap;

use thiserror::Error;

use super::{Consent, Step};
use crate::cluster::{Address, NodeId};
use crate::manage::view::{ClusterView, NodeView};

/// Fewest primaries with slots of which one can fail: the others are to be a majority.
const MAJORITY_OF: usize = 3;

/// What cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MemberError {
    /// Nobody has this name.
    #[error("No such node ID {0}")]
    Unknown(String),
    /// The node owns slots.
    #[error("Node {0} is not empty! Reshard data away and try again.")]
    NotEmpty(String),
    /// The node is to follow another one, and owns slots.
    #[error("Node {0} owns slots and cannot become a replica")]
    Owner(Address),
    /// The node owns no slots, and has the only copies of keys all the same.
    #[error(
        "Node {0} owns no slots, but has keys that may be nowhere else: {1}. slotway cluster fix brings stray keys home."
    )]
    StrayKeys(Address, u64),
    /// There is nobody whom the replicas of the node could follow.
    #[error("Could not find a reachable primary node to reassign replica {0}.")]
    NoHome(Address),
    /// No replica can take the place.
    #[error("{0}")]
    NoReplica(String),
}

/// The node that is meant: by its name in any case of letters.
pub fn named<'a>(view: &'a ClusterView, name: &str) -> Option<&'a NodeId> {
    let name = name.to_ascii_lowercase();
    view.lines().map(|line| &line.id).find(|id| *id.0 == *name)
}

/// The primary that a new replica is to follow: one that owns slots, with the fewest replicas, rather in another zone, or on
/// another host.
pub fn least_replicated<'a>(view: &'a ClusterView, new: &NodeView) -> Option<&'a NodeView> {
    let (owners, site) = (view.primaries().filter(|node| !node.own.slots.is_empty()), new.site());
    owners.min_by_key(|node| (view.replicas_of(&node.own.id).count(), node.site() == site))
}

/// What is still missing for a node to be the member it is to be, the replica of `primary` if there is one; nothing if it is
/// that already.
pub fn join(
    view: &ClusterView,
    new: &NodeView,
    primary: Option<&NodeView>,
) -> Result<Vec<Step>, MemberError> {
    let Some(primary) = primary else { return join_with(view, new, &[]) };
    let mut steps = Vec::new();
    if view.node(&new.own.id).is_none() {
        steps.push(Step::Join { nodes: vec![new.own.id.clone()] });
    }
    steps.extend(follow(new, primary)?);
    Ok(steps)
}

/// What is still missing for a node to be a primary that these follow. It has the functions of the others before anything can
/// be asked of it, and its replicas before it is given slots.
pub fn join_with(
    view: &ClusterView,
    new: &NodeView,
    replicas: &[NodeView],
) -> Result<Vec<Step>, MemberError> {
    let is_missing = |node: &&NodeView| view.node(&node.own.id).is_none();
    let mut steps = Vec::new();
    if let (true, Some(from)) = (is_missing(&new), view.primaries().next()) {
        steps.push(Step::CopyFunctions { from: from.own.id.clone(), to: new.own.id.clone() });
    }
    let missing = std::iter::once(new).chain(replicas).filter(is_missing);
    let nodes: Vec<NodeId> = missing.map(|node| node.own.id.clone()).collect();
    if !nodes.is_empty() {
        steps.push(Step::Join { nodes });
    }
    for replica in replicas {
        steps.extend(follow(replica, new)?);
    }
    Ok(steps)
}

/// Has a node follow a primary, if it does not yet.
fn follow(node: &NodeView, primary: &NodeView) -> Result<Option<Step>, MemberError> {
    if node.own.primary.as_ref() == Some(&primary.own.id) {
        return Ok(None);
    }
    if !node.own.slots.is_empty() {
        return Err(MemberError::Owner(node.address.clone()));
    }
    Ok(Some(Step::Replicate { node: node.own.id.clone(), primary: primary.own.id.clone() }))
}

/// The steps that remove a node: whoever follows it is given another primary first, never the node itself.
pub fn remove(view: &ClusterView, name: &str) -> Result<Vec<Step>, MemberError> {
    let id = named(view, name).ok_or_else(|| MemberError::Unknown(name.to_owned()))?;
    let line = view
        .lines()
        .find(|line| line.id == *id)
        .ok_or_else(|| MemberError::Unknown(name.to_owned()))?;
    let owns = view.owners().iter().flatten().any(|owner| owner == id);
    if owns || !line.slots.is_empty() {
        let place = line.place();
        return Err(MemberError::NotEmpty(place));
    }
    if let Some(primary) = view.primaries().find(|node| node.own.id == *id) {
        let keys = primary.info.databases().iter().map(|(_, keys)| keys).sum();
        if keys > 0 {
            return Err(MemberError::StrayKeys(primary.address.clone(), keys));
        }
    }
    let mut load: BTreeMap<&NodeId, usize> = view
        .primaries()
        .filter(|node| node.own.id != *id && !node.own.slots.is_empty())
        .map(|node| (&node.own.id, view.replicas_of(&node.own.id).count()))
        .collect();
    let mut steps = Vec::new();
    for replica in view.replicas_of(id) {
        let home = load.iter_mut().min_by_key(|(_, count)| **count);
        let (primary, count) = home.ok_or_else(|| MemberError::NoHome(replica.address.clone()))?;
        *count += 1;
        steps.push(Step::Replicate { node: replica.own.id.clone(), primary: (*primary).clone() });
    }
    steps.push(Step::Forget { node: id.clone() });
    if view.node(id).is_some() {
        steps.push(Step::Reset { node: id.clone() });
    }
    Ok(steps)
}

/// What becomes of the slots of a node that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayOut {
    /// It has none, or it cannot leave.
    Plain,
    /// Others take them.
    Drained,
    /// Its replica takes them with its place.
    Promoted,
}

/// What the cluster would lack without a node.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Lack {
    /// Primaries enough to replace one that fails.
    #[error("only {0} masters with slots would be left")]
    Primaries(usize),
    /// Somebody who could take this primary's place.
    #[error("{0} would be left without replicas")]
    Replicas(Address),
}

/// What the cluster would lack without a node, if anything.
pub fn lack(view: &ClusterView, name: &str, way: WayOut) -> Option<Lack> {
    let node = named(view, name).and_then(|id| view.node(id))?;
    let owners = view.primaries().filter(|node| !node.own.slots.is_empty()).count();
    let bare = |node: &NodeView| Lack::Replicas(node.address.clone());
    match (&node.own.primary, way) {
        (Some(primary), _) => {
            let primary = view.node(primary).filter(|primary| !primary.own.slots.is_empty())?;
            (view.replicas_of(&primary.own.id).count() == 1).then(|| bare(primary))
        }
        (None, WayOut::Drained) if !node.own.slots.is_empty() && owners <= MAJORITY_OF => {
            Some(Lack::Primaries(owners - 1))
        }
        (None, WayOut::Promoted) if view.replicas_of(&node.own.id).count() == 1 => {
            best_replica(view, &node.own.id).map(bare)
        }
        _ => None,
    }
}

/// The step that puts a replica in the place of its primary. `name` is that of the primary, or of the replica itself; with
/// the consent of all, the replica has to be linked.
pub fn failover(
    view: &ClusterView,
    name: &str,
    to: Option<&str>,
    consent: Consent,
) -> Result<Step, MemberError> {
    let unknown = |name: &str| MemberError::Unknown(name.to_owned());
    let id = named(view, name).ok_or_else(|| unknown(name))?;
    let chosen = match to {
        Some(to) => named(view, to).ok_or_else(|| unknown(to))?,
        None if view.node(id).is_some_and(|node| node.own.is_replica()) => id,
        None => {
            &best_replica(view, id)
                .ok_or_else(|| MemberError::NoReplica(format!("{id} has no replica that answers")))?
                .own
                .id
        }
    };
    let replica = view
        .node(chosen)
        .ok_or_else(|| MemberError::NoReplica(format!("{chosen} does not answer")))?;
    let fault = match &replica.own.primary {
        None => Some("is no replica"),
        Some(primary) if primary != id && chosen != id => Some("is no replica of that node"),
        Some(_) if consent == Consent::All && !is_linked(replica) => {
            Some("has no link to its primary; if that is down, use --force")
        }
        Some(_) => None,
    };
    match fault {
        Some(fault) => Err(MemberError::NoReplica(format!("{} {fault}", replica.address))),
        None => Ok(Step::Failover { node: chosen.clone(), consent }),
    }
}

fn is_linked(replica: &NodeView) -> bool {
    replica.info.get("master_link_status") == Some("up")
}

/// Linked rather than not, and as far as possible.
fn best_replica<'a>(view: &'a ClusterView, primary: &NodeId) -> Option<&'a NodeView> {
    let offset = |node: &NodeView| node.info.number("slave_repl_offset").unwrap_or(0);
    view.replicas_of(primary).max_by_key(|node| (is_linked(node), offset(node)))
}

#[cfg(test)]
mod tests {
    use super::super::model::Model;
    use super::*;
    use crate::manage::view::{Absent, Info};

    /// Three primaries, `d` without slots; `e` follows `d`, `f` follows `a`.
    fn cluster() -> ClusterView {
        let line = |own: char, name: char| {
            let port = u32::from(name);
            let myself = if own == name { "myself," } else { "" };
            let rest = match name {
                'a' => "master - 0 0 1 connected 0-5460",
                'b' => "master - 0 0 2 connected 5461-10922",
                'c' => "master - 0 0 3 connected 10923-16383",
                'd' => "master - 0 0 4 connected",
                'e' => "slave d 0 0 4 connected",
                _ => "slave a 0 0 1 connected",
            };
            format!("{name} 10.0.0.{port}:{port}@{port} {myself}{rest}\n")
        };
        let texts: Vec<String> =
            ('a'..='f').map(|own| ('a'..='f').map(|name| line(own, name)).collect()).collect();
        ClusterView::said(&texts.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn model() -> Model {
        let mut model = Model::cut(&[5461, 10923, 16384]).with_replicas(&[("e", "d"), ("f", "a")]);
        model.covers_all_once();
        assert!(model.slots(&NodeId("d".into())).is_empty());
        model.after(&Step::Reset { node: NodeId("x".into()) });
        model
    }

    fn check(name: &str, expected: &[Step]) {
        let steps = remove(&cluster(), name).unwrap();
        assert_eq!(steps, expected);
        let mut model = model();
        for step in &steps {
            model.after(step);
        }
        assert!(!model.following().contains_key(&NodeId(name.into())));
        model.covers_all_once();
    }

    fn id(name: &str) -> NodeId {
        NodeId(name.into())
    }

    #[test]
    fn del_node_never_chooses_the_node_being_deleted() {
        let steps = [
            Step::Replicate { node: id("e"), primary: id("b") },
            Step::Forget { node: id("d") },
            Step::Reset { node: id("d") },
        ];
        check("d", &steps);
        check("f", &[Step::Forget { node: id("f") }, Step::Reset { node: id("f") }]);
    }

    #[test]
    fn a_primary_has_functions_and_replicas_before_slots() {
        let new = |name: &str| {
            let text = format!("{name} 10.0.0.9:9@19 myself,master - 0 0 0 connected");
            ClusterView::said(&[&text]).nodes.remove(0)
        };
        let (x, y, z) = (new("x"), new("y"), new("z"));
        let replicate = |node| Step::Replicate { node: id(node), primary: id("x") };
        let steps = [
            Step::CopyFunctions { from: id("a"), to: id("x") },
            Step::Join { nodes: vec![id("x"), id("y"), id("z")] },
            replicate("y"),
            replicate("z"),
        ];
        assert_eq!(join_with(&cluster(), &x, &[y.clone(), z]).unwrap(), steps);
        let mut known = cluster();
        known.nodes.push(x.clone());
        let steps = [Step::Join { nodes: vec![id("y")] }, replicate("y")];
        assert_eq!(join_with(&known, &x, &[y]).unwrap(), steps);
        assert_eq!(join_with(&known, &x, &[]).unwrap(), []);
        let owner = cluster().nodes.remove(0);
        assert!(matches!(join_with(&known, &x, &[owner]), Err(MemberError::Owner(_))));
    }

    #[test]
    fn a_dead_node_is_removable() {
        let mut cluster = cluster();
        let gone = cluster.nodes.remove(5);
        cluster.absent.push(Absent { line: gone.own, reason: "refused".into() });
        assert_eq!(remove(&cluster, "F").unwrap(), [Step::Forget { node: id("f") }]);
    }

    #[test]
    fn a_node_with_slots_stays() {
        let text = "Node 10.0.0.97:97 is not empty! Reshard data away and try again.";
        assert_eq!(remove(&cluster(), "a").unwrap_err().to_string(), text);
        let mut cluster = cluster();
        let gone = cluster.nodes.remove(0);
        cluster.absent.push(Absent { line: gone.own, reason: "refused".into() });
        assert_eq!(remove(&cluster, "a").unwrap_err().to_string(), text);
        assert_eq!(remove(&cluster, "zz").unwrap_err().to_string(), "No such node ID zz");
    }

    #[test]
    fn what_would_be_lacking_is_told() {
        let bare = |node: &str| Some(format!("{node} would be left without replicas"));
        let check = |name, slots, expected: Option<String>| {
            let lack = lack(&cluster(), name, slots).map(|lack| lack.to_string());
            assert_eq!(lack, expected, "{name} {slots:?}");
        };
        check("f", WayOut::Plain, bare("10.0.0.97:97"));
        check("e", WayOut::Plain, None);
        check("d", WayOut::Drained, None);
        check("b", WayOut::Drained, Some("only 2 masters with slots would be left".to_owned()));
        check("a", WayOut::Promoted, bare("10.0.0.102:102"));
        check("a", WayOut::Plain, None);
        check("zz", WayOut::Plain, None);
    }

    #[test]
    fn a_new_replica_goes_where_it_is_missed() {
        let zone = |zone: &str| Info(format!("availability_zone:{zone}\r\n"));
        let mut cluster = cluster();
        let chosen = |cluster: &ClusterView, host: &str, info: Info| {
            let text = format!("x {host}:9@19 myself,master - 0 0 0 connected");
            let mut new = ClusterView::said(&[&text]).nodes.remove(0);
            (new.address, new.info) = (Address::parse(&format!("{host}:9"), None).unwrap(), info);
            least_replicated(cluster, &new).unwrap().own.id.to_string()
        };
        assert_eq!(chosen(&cluster, "10.0.0.200", zone("")), "b");
        assert_eq!(chosen(&cluster, "10.0.0.98", zone("")), "c", "b stands on its own host");
        cluster.nodes[1].info = zone("east");
        assert_eq!(chosen(&cluster, "10.0.0.200", zone("east")), "c", "b is in its own zone");
        assert_eq!(chosen(&cluster, "10.0.0.98", zone("west")), "b", "it is in another zone");
    }

    #[test]
    fn who_takes_over() {
        let with_link = |status: &str| {
            let mut cluster = cluster();
            cluster.nodes[5].info =
                Info(format!("master_link_status:{status}\r\nslave_repl_offset:5\r\n"));
            cluster
        };
        let check = |status, name, to, consent, expected: Result<&str, &str>| {
            let outcome = failover(&with_link(status), name, to, consent);
            let expected = expected
                .map(|node| Step::Failover { node: id(node), consent })
                .map_err(ToOwned::to_owned);
            assert_eq!(outcome.map_err(|error| error.to_string()), expected);
        };
        check("up", "a", None, Consent::All, Ok("f"));
        check("up", "f", None, Consent::All, Ok("f"));
        check("up", "a", Some("f"), Consent::All, Ok("f"));
        check("down", "a", None, Consent::Majority, Ok("f"));
        let text = "10.0.0.102:102 has no link to its primary; if that is down, use --force";
        check("down", "a", None, Consent::All, Err(text));
        check("up", "b", None, Consent::All, Err("b has no replica that answers"));
        check("up", "b", Some("f"), Consent::All, Err("10.0.0.102:102 is no replica of that node"));
        check("up", "a", Some("b"), Consent::All, Err("10.0.0.98:98 is no replica"));
    }
}
