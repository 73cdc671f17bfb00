//! Who is to be what: ports, slots, and whose replica. Pure but for the search of free ports.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

use super::{Error, Options};

/// Slots of a cluster (Redis cluster specification).
pub(super) const SLOTS: u32 = 16384;
/// A majority of fewer could not elect a successor.
pub(super) const MIN_PRIMARIES: u16 = 3;
/// What the Redis documentation recommends as the upper bound.
pub(super) const MAX_NODES: u16 = 1000;
/// Distance of a node's bus port from its own (Redis cluster specification).
pub(super) const BUS: u16 = 10_000;
/// Highest port of a node: its bus port has to exist.
pub(super) const MAX_PORT: u16 = u16::MAX - BUS;
/// Free ports are looked for here: these and their bus ports lie below the range that Linux gives to outgoing connections.
const SEARCHED: Range<u16> = 10_000..22_000;
/// Runs of ports tried before giving up.
const TRIES: usize = 500;

/// All seats of a cluster, primaries first.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) seats: Vec<Seat>,
}

/// One node to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seat {
    pub(super) port: u16,
    pub(super) duty: Duty,
}

/// What a node is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Duty {
    /// Serves the slots from the first to the last.
    Serve { first: u16, last: u16 },
    /// Follows the primary in that seat.
    Follow { seat: usize },
}

impl Plan {
    /// Seats for what was asked for. `kept` is the port of an earlier cluster in the same folder, which port 0 means then.
    pub(super) fn new(options: &Options, kept: Option<u16>) -> Result<Self, Error> {
        let &Options { port, nodes, replicas, .. } = options;
        if primaries(nodes, replicas) < MIN_PRIMARIES {
            return Err(Error::TooFewNodes { nodes, replicas });
        }
        if nodes > MAX_NODES {
            return Err(Error::TooManyNodes { nodes });
        }
        let port = match (port, kept) {
            (0, Some(kept)) => kept,
            (0, None) => free_port(nodes)?,
            (port, _) => port,
        };
        if u32::from(port) + u32::from(nodes) - 1 > u32::from(MAX_PORT) {
            return Err(Error::PortsTooHigh { port, nodes });
        }
        let duties = duties(primaries(nodes, replicas), replicas, nodes);
        Ok(Self { seats: (port..).zip(duties).map(|(port, duty)| Seat { port, duty }).collect() })
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = u16> + Clone + '_ {
        self.seats.iter().map(|seat| seat.port)
    }
}

/// Each primary gets its replicas one after the other; nodes left over become one more replica each of the first primaries.
fn duties(primaries: u16, replicas: u16, nodes: u16) -> impl Iterator<Item = Duty> {
    let serve = (0..primaries).map(move |index| Duty::Serve {
        first: first_slot(index, primaries),
        last: first_slot(index + 1, primaries) - 1,
    });
    let follow = (0..nodes - primaries).map(move |index| {
        let own = if index < primaries * replicas {
            index / replicas
        } else {
            index - primaries * replicas
        };
        Duty::Follow { seat: usize::from(own) }
    });
    serve.chain(follow)
}

/// First slot of the primary with that index; rounded as redis-cli rounds, so that the ranges are those of every tutorial.
fn first_slot(index: u16, primaries: u16) -> u16 {
    let primaries = u32::from(primaries);
    let rounded = (2 * u32::from(index) * SLOTS + primaries) / (2 * primaries);
    u16::try_from(rounded).expect("index <= primaries, hence at most 16384")
}

/// Primaries among `nodes` when each has `replicas`.
pub(super) fn primaries(nodes: u16, replicas: u16) -> u16 {
    u16::try_from(u32::from(nodes) / (u32::from(replicas) + 1))
        .expect("a quotient is not greater than its dividend")
}

/// Nodes of the smallest cluster with so many replicas of each primary.
pub(super) fn nodes_needed(replicas: u16) -> u32 {
    u32::from(MIN_PRIMARIES) * (u32::from(replicas) + 1)
}

/// Address of the local node on `port`.
pub(super) fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// First port of a run of ports that are all free, with their bus ports. Clusters of one process never get the same run, so
/// tests can start theirs side by side.
fn free_port(nodes: u16) -> Result<u16, Error> {
    static NEXT: LazyLock<AtomicU16> = LazyLock::new(|| {
        let random = RandomState::new().hash_one(0) % u64::from(SEARCHED.end - SEARCHED.start);
        AtomicU16::new(u16::try_from(random).expect("below the length of a range of ports"))
    });
    let room = SEARCHED.end - SEARCHED.start - nodes;
    (0..TRIES)
        .map(|_| SEARCHED.start + NEXT.fetch_add(nodes, Ordering::Relaxed) % room)
        .find(|&port| (port..port + nodes).all(|port| is_free(port) && is_free(port + BUS)))
        .ok_or(Error::NoFreePorts { nodes })
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(port: u16, nodes: u16, replicas: u16) -> Result<Plan, Error> {
        Plan::new(&Options { port, nodes, replicas, ..Options::default() }, None)
    }

    /// `first-last` of each primary, then `port>port` of each replica and its primary.
    fn shown(nodes: u16, replicas: u16) -> String {
        let plan = plan(7001, nodes, replicas).unwrap();
        let show = |seat: &Seat| match seat.duty {
            Duty::Serve { first, last } => format!("{first}-{last}"),
            Duty::Follow { seat: primary } => format!("{}>{}", seat.port, plan.seats[primary].port),
        };
        plan.seats.iter().map(show).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn spreads_slots_as_redis_cli_does() {
        assert_eq!(shown(3, 0), "0-5460 5461-10922 10923-16383");
        assert_eq!(shown(4, 0), "0-4095 4096-8191 8192-12287 12288-16383");
        assert_eq!(shown(6, 0), "0-2730 2731-5460 5461-8191 8192-10922 10923-13652 13653-16383");
    }

    #[test]
    fn places_replicas_one_behind_the_other() {
        assert_eq!(shown(6, 1), "0-5460 5461-10922 10923-16383 7004>7001 7005>7002 7006>7003");
        let two_each = "7004>7001 7005>7001 7006>7002 7007>7002 7008>7003 7009>7003";
        assert_eq!(shown(9, 2), format!("0-5460 5461-10922 10923-16383 {two_each}"));
    }

    #[test]
    fn gives_nodes_left_over_to_the_first_primaries() {
        assert_eq!(
            shown(7, 1),
            "0-5460 5461-10922 10923-16383 7004>7001 7005>7002 7006>7003 7007>7001"
        );
        assert!(shown(11, 2).ends_with("7009>7003 7010>7001 7011>7002"));
    }

    #[test]
    fn covers_every_slot_once_whatever_the_number_of_primaries() {
        for primaries in MIN_PRIMARIES..=MAX_NODES {
            let mut next = 0;
            for seat in plan(7001, primaries, 0).unwrap().seats {
                let Duty::Serve { first, last } = seat.duty else {
                    panic!("{primaries}: a replica of nobody")
                };
                assert_eq!(u32::from(first), next, "{primaries} primaries");
                next = u32::from(last) + 1;
            }
            assert_eq!(next, SLOTS, "{primaries} primaries");
        }
    }

    #[test]
    fn refuses_what_cannot_be() {
        let text = |port, nodes, replicas| plan(port, nodes, replicas).unwrap_err().to_string();
        let too_few = "a cluster needs at least 3 primaries, and 5 nodes with 1 replicas each make 2: use at least 6 nodes, \
                       or fewer replicas";
        assert_eq!(text(7001, 5, 1), too_few);
        assert!(text(7001, 0, 0).contains("and 0 nodes with 0 replicas each make 0"));
        assert!(text(7001, 6, u16::MAX).contains("use at least 196608 nodes"));
        assert!(text(7001, 1001, 0).contains("use at most 1000"));
        assert!(text(55_531, 6, 1).contains("beyond 55535"));
        assert!(plan(55_530, 6, 1).is_ok());
    }

    #[test]
    fn port_0_means_the_kept_cluster_or_free_ports() {
        let any = Options { port: 0, ..Options::default() };
        assert_eq!(Plan::new(&any, Some(7301)).unwrap().seats[0].port, 7301);
        let (one, two) = (Plan::new(&any, None).unwrap(), Plan::new(&any, None).unwrap());
        assert!(one.ports().all(|port| two.ports().all(|other| other != port)), "{one:?} {two:?}");
    }
}
