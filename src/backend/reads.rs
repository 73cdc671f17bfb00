//! Which node answers a read: the primary, or one of its replicas.

use crate::cluster::NodeIndex;

/// Which nodes answer reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ReadFrom {
    /// Primaries only: reads see the client's own writes.
    #[default]
    Primary,
    /// A replica if one is connected, else the primary.
    PreferReplica,
    /// A replica if there is one, connected or not, else the primary.
    Replica,
    /// The primary and the replicas that are connected, in turn.
    Any,
    /// Those among them that are near the proxy, in turn; all of them where none is.
    Zone,
}

/// A primary, its replicas, and what is known of them.
pub(super) struct Choice<'a, U, N> {
    pub(super) primary: NodeIndex,
    pub(super) replicas: &'a [NodeIndex],
    /// Whether a replica is connected, or was never tried.
    pub(super) is_up: U,
    /// Whether a node is in the proxy's zone.
    pub(super) is_near: N,
}

impl<U: Fn(NodeIndex) -> bool, N: Fn(NodeIndex) -> bool> Choice<'_, U, N> {
    /// The replica whose turn it is; `None` if that is the primary's.
    pub(super) fn turn(&self, read_from: ReadFrom, turn: usize) -> Option<NodeIndex> {
        match read_from {
            ReadFrom::Primary => None,
            ReadFrom::Any if turn.is_multiple_of(self.replicas.len() + 1) => None,
            ReadFrom::PreferReplica | ReadFrom::Any => self.next_up(turn),
            ReadFrom::Replica => self.next_up(turn).or_else(|| self.in_turn(turn).next()),
            ReadFrom::Zone => self.near(turn),
        }
    }

    fn in_turn(&self, turn: usize) -> impl Iterator<Item = NodeIndex> {
        let count = self.replicas.len();
        (0..count).map(move |i| self.replicas[(turn + i) % count])
    }

    fn next_up(&self, turn: usize) -> Option<NodeIndex> {
        self.in_turn(turn).find(|node| (self.is_up)(*node))
    }

    fn near(&self, turn: usize) -> Option<NodeIndex> {
        let fits = |node: &NodeIndex| (self.is_near)(*node) && (self.is_up)(*node);
        let replicas = self.replicas.iter().copied().filter(fits);
        let count = replicas.clone().count() + usize::from((self.is_near)(self.primary));
        match count {
            0 => self.turn(ReadFrom::Any, turn),
            // The last turn is the primary's, if it has one.
            _ => replicas.clone().nth(turn % count),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is read from in six turns of a primary 0 with replicas 1, 2 and 3.
    fn check(read_from: ReadFrom, up: &[NodeIndex], near: &[NodeIndex], expected: [NodeIndex; 6]) {
        let (is_up, is_near) = (|node| up.contains(&node), |node| near.contains(&node));
        let choice = Choice { primary: 0, replicas: &[1, 2, 3], is_up, is_near };
        let found = std::array::from_fn(|turn| choice.turn(read_from, turn).unwrap_or(0));
        assert_eq!(found, expected, "{read_from:?}, up {up:?}, near {near:?}");
    }

    #[test]
    fn reads_are_spread() {
        check(ReadFrom::Primary, &[1, 2, 3], &[1], [0, 0, 0, 0, 0, 0]);
        check(ReadFrom::PreferReplica, &[1, 2, 3], &[], [1, 2, 3, 1, 2, 3]);
        check(ReadFrom::PreferReplica, &[3], &[], [3, 3, 3, 3, 3, 3]);
        check(ReadFrom::PreferReplica, &[], &[], [0, 0, 0, 0, 0, 0]);
        check(ReadFrom::Replica, &[], &[], [1, 2, 3, 1, 2, 3]);
        check(ReadFrom::Any, &[1, 2, 3], &[], [0, 2, 3, 1, 0, 3]);
        check(ReadFrom::Any, &[], &[], [0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn nodes_of_the_same_zone_are_read_from() {
        check(ReadFrom::Zone, &[1, 2, 3], &[2], [2, 2, 2, 2, 2, 2]);
        check(ReadFrom::Zone, &[1, 2, 3], &[0, 2, 3], [2, 3, 0, 2, 3, 0]);
        check(ReadFrom::Zone, &[1, 3], &[0, 2], [0, 0, 0, 0, 0, 0]);
        // None is there: all of them.
        check(ReadFrom::Zone, &[1, 3], &[2], [0, 3, 3, 1, 0, 3]);
    }
}
