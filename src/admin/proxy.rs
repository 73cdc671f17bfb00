//! The proxy's own numbers.

use std::sync::atomic::Ordering::Relaxed;

use super::Admin;
use super::answer::Answer;
use crate::cluster::Topology;
use crate::stats::BOUNDS_US;

/// `INFO`: what the proxy is and how it stands.
pub(super) fn info(admin: &Admin) -> String {
    let topology = admin.topology();
    let process = (admin.observed.process)();
    let age =
        process.topology_age.map_or_else(|| "-1".to_owned(), |age| age.as_millis().to_string());
    format!(
        "# Proxy\r\nslotway_version:{}\r\nprocess_id:{}\r\nuptime_in_seconds:{}\r\nworkers:{}\r\nreadiness:{}\r\n\
         # Clients\r\nconnected_clients:{}\r\ntotal_connections_received:{}\r\nrejected_connections:{}\r\n\
         # Cluster\r\nnodes:{}\r\nprimaries:{}\r\nslots_covered:{}\r\ntopology_age_ms:{age}\r\n",
        env!("CARGO_PKG_VERSION"),
        std::process::id(),
        admin.started.elapsed().as_secs(),
        admin.observed.workers.len(),
        admin.observed.readiness(),
        connected(admin),
        process.accepted,
        process.rejected,
        topology.nodes().len(),
        primaries(&topology),
        topology.covered(),
    )
}

fn connected(admin: &Admin) -> u64 {
    admin.observed.workers.iter().map(|stats| stats.clients.load(Relaxed)).sum()
}

/// Primaries, also those without slots.
pub(super) fn primaries(topology: &Topology) -> usize {
    topology.nodes().iter().filter(|node| node.primary.is_none()).count()
}

/// `PROXY CLIENTS`: how many there are, and where.
pub(super) fn clients(admin: &Admin) -> Answer {
    let process = (admin.observed.process)();
    let workers = admin.observed.workers.iter();
    let by_worker = workers.map(|stats| Answer::count(stats.clients.load(Relaxed))).collect();
    Answer::map([
        ("connected", Answer::count(connected(admin))),
        ("by_worker", Answer::List(by_worker)),
        ("accepted", Answer::count(process.accepted)),
        ("rejected", Answer::count(process.rejected)),
    ])
}

/// `PROXY STATS`: what the workers counted, added up.
pub(super) fn stats(admin: &Admin) -> Answer {
    let process = (admin.observed.process)();
    let workers = &admin.observed.workers;
    macro_rules! sums {
        ($($field:ident)*) => {
            [$((stringify!($field), Answer::count(workers.iter().map(|stats| stats.$field.get()).sum::<u64>()))),*]
        };
    }
    let sums = sums![
        commands commands_local commands_split commands_across commands_refused reads client_read_bytes client_written_bytes read_bytes
        written_bytes moved ask try_again not_now demoted retries node_errors lanes leases lease_waits lost_connections
        failed_connections client_timeouts failed_handshakes pubsub_links pubsub_links_lost pubsub_messages pubsub_cut_off
    ];
    let mut fields: Vec<(String, Answer)> =
        sums.into_iter().map(|(name, sum)| (name.to_owned(), sum)).collect();
    fields.push(("topology_refreshes".to_owned(), Answer::count(process.refreshes)));
    fields.push(("topology_refreshes_failed".to_owned(), Answer::count(process.failed_refreshes)));
    Answer::Map(fields)
}

/// All of that, and how long answers take: how many took no longer than each bound, and longer than the one before.
pub(super) fn all(admin: &Admin) -> Answer {
    let buckets = 0..=BOUNDS_US.len();
    let count = |bucket: usize| -> u64 {
        let workers = admin.observed.workers.iter();
        workers.map(|stats| stats.latencies.buckets[bucket].get()).sum()
    };
    let bounds = BOUNDS_US.iter().map(|bound| Answer::count(*bound)).collect();
    Answer::map([
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("uptime_s", Answer::count(admin.started.elapsed().as_secs())),
        ("clients", clients(admin)),
        ("stats", stats(admin)),
        (
            "latencies",
            Answer::map([
                ("bounds_us", Answer::List(bounds)),
                ("counts", Answer::List(buckets.map(count).map(Answer::count).collect())),
            ]),
        ),
    ])
}
