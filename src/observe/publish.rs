//! The numbers as Prometheus text, gathered when somebody asks.
//!
//! Workers count in plain integers; nothing is kept here between two scrapes but the registry. The `metrics` crate takes
//! samples one by one for a histogram, so the workers' buckets are written beside its text, in the same format.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use metrics::{Key, Label, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusRecorder};

use super::names::{self, Kind, Metric};
use super::{Observed, Process};
use crate::cluster::Topology;
use crate::refusal::Reason;
use crate::stats::{BOUNDS_US, Stats};

/// A label and its value, if a series has one besides its worker.
type Tag = Option<(&'static str, &'static str)>;
/// A series and where its number stands.
type Row<T> = (Metric, Tag, fn(&T) -> u64);

/// Counters of the workers.
#[rustfmt::skip]
const COUNTERS: &[Row<Stats>] = &[
    (names::CLIENT_TIMEOUTS, None, |s| s.client_timeouts.get()),
    (names::CLIENT_TLS_FAILED, None, |s| s.failed_handshakes.get()),
    (names::CLIENT_READ, None, |s| s.client_read_bytes.get()),
    (names::CLIENT_WRITTEN, None, |s| s.client_written_bytes.get()),
    (names::COMMANDS, Some(("kind", "forwarded")), forwarded),
    (names::COMMANDS, Some(("kind", "split")), |s| s.commands_split.get()),
    (names::COMMANDS, Some(("kind", "across")), |s| s.commands_across.get()),
    (names::COMMANDS, Some(("kind", "local")), |s| s.commands_local.get()),
    (names::COMMANDS, Some(("kind", "refused")), |s| s.commands_refused.get()),
    (names::REDIRECTS, Some(("kind", "moved")), |s| s.moved.get()),
    (names::REDIRECTS, Some(("kind", "ask")), |s| s.ask.get()),
    (names::REDIRECTS, Some(("kind", "tryagain")), |s| s.try_again.get()),
    (names::REDIRECTS, Some(("kind", "not_now")), |s| s.not_now.get()),
    (names::REDIRECTS, Some(("kind", "readonly")), |s| s.demoted.get()),
    (names::RETRIES, None, |s| s.retries.get()),
    (names::NODE_ERRORS, None, |s| s.node_errors.get()),
    (names::EXCLUSIVE_WAITS, None, |s| s.lease_waits.get()),
    (names::NODE_CONNECTIONS_LOST, None, |s| s.lost_connections.get()),
    (names::NODE_CONNECTIONS_FAILED, None, |s| s.failed_connections.get()),
    (names::PUBSUB_CONNECTIONS_LOST, None, |s| s.pubsub_links_lost.get()),
    (names::PUBSUB_MESSAGES, None, |s| s.pubsub_messages.get()),
    (names::PUBSUB_CUT_OFF, None, |s| s.pubsub_cut_off.get()),
    (names::TRACKING_CONNECTIONS_LOST, None, |s| s.tracking_links_lost.get()),
    (names::INVALIDATIONS, None, |s| s.invalidations.get()),
    (names::NODE_READ, None, |s| s.read_bytes.get()),
    (names::NODE_WRITTEN, None, |s| s.written_bytes.get()),
];

/// Gauges of the workers.
const GAUGES: &[Row<Stats>] = &[
    (names::CLIENTS, None, |s| s.clients.load(Relaxed)),
    (names::NODE_CONNECTIONS, None, |s| s.lanes.get()),
    (names::EXCLUSIVE_CONNECTIONS, None, |s| s.leases.get()),
    (names::PUBSUB_CONNECTIONS, None, |s| s.pubsub_links.get()),
    (names::TRACKING_CLIENTS, None, |s| s.tracking_clients.get()),
    (names::TRACKED_KEYS, None, |s| s.tracked_keys.get()),
    (names::TRACKING_CONNECTIONS, None, |s| s.tracking_links.get()),
];

/// Counters of the process.
const PROCESS_COUNTERS: &[Row<Process>] = &[
    (names::CLIENTS_ACCEPTED, None, |p| p.accepted),
    (names::CLIENTS_REJECTED, None, |p| p.rejected),
    (names::TOPOLOGY_REFRESHES, Some(("result", "ok")), |p| p.refreshes),
    (names::TOPOLOGY_REFRESHES, Some(("result", "failed")), |p| p.failed_refreshes),
];

/// What describes a series to the registry; nothing filters by it.
const METADATA: Metadata<'static> =
    Metadata::new(module_path!(), metrics::Level::INFO, Some(module_path!()));

/// The way from the numbers to Prometheus text.
pub(super) struct Publisher {
    observed: Arc<Observed>,
    recorder: PrometheusRecorder,
}

impl Publisher {
    /// With a registry of its own, so that several proxies can live in one process.
    pub(super) fn new(observed: Arc<Observed>) -> Self {
        let recorder = PrometheusBuilder::new().build_recorder();
        for metric in names::ALL {
            let (name, help) = (metric.name.into(), metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, Some(metric.unit), help),
                Kind::Gauge => recorder.describe_gauge(name, Some(metric.unit), help),
                Kind::Histogram => {}
            }
        }
        Self { observed, recorder }
    }

    /// All metrics as they are now.
    pub(super) fn render(&self) -> String {
        self.publish_workers();
        self.publish_process();
        self.publish_topology(&self.observed.topology.load());
        let mut text = self.recorder.handle().render();
        render_latencies(&mut text, &self.observed.workers);
        text
    }

    fn publish_workers(&self) {
        self.publish_refusals();
        for (metric, tag, read) in COUNTERS {
            self.per_worker(*metric, *tag, |labels, workers| {
                self.count(*metric, labels, workers.iter().map(|stats| read(stats)).sum());
            });
        }
        for (metric, tag, read) in GAUGES {
            self.per_worker(*metric, *tag, |labels, workers| {
                self.set(*metric, labels, workers.iter().map(|stats| real(read(stats))).sum());
            });
        }
    }

    fn publish_refusals(&self) {
        for reason in Reason::ALL {
            let labels = [("fault", reason.fault().label()), ("reason", reason.label())];
            let counts = self.observed.workers.iter().map(|stats| stats.refusals.of(*reason).get());
            self.count(names::REFUSALS, labels.map(label).to_vec(), counts.sum());
        }
    }

    /// Calls `publish` for every worker, or once for all if the metric has no label `worker`.
    fn per_worker(&self, metric: Metric, tag: Tag, publish: impl Fn(Vec<Label>, &[Arc<Stats>])) {
        if !metric.labels.contains(&"worker") {
            return publish(labels(tag), &self.observed.workers);
        }
        for (number, stats) in self.observed.workers.iter().enumerate() {
            let mut labels = labels(tag);
            labels.push(Label::new("worker", number.to_string()));
            publish(labels, std::slice::from_ref(stats));
        }
    }

    fn publish_process(&self) {
        let process = (self.observed.process)();
        for (metric, tag, read) in PROCESS_COUNTERS {
            self.count(*metric, labels(*tag), read(&process));
        }
        let ready = u8::from(self.observed.readiness().is_ready());
        self.set(names::READY, vec![], ready.into());
        let version = Label::new("version", env!("CARGO_PKG_VERSION"));
        self.set(names::BUILD_INFO, vec![version], 1.0);
        let age = process.topology_age.map_or(f64::NAN, |age| age.as_secs_f64());
        self.set(names::TOPOLOGY_AGE, vec![], age);
    }

    fn publish_topology(&self, topology: &Topology) {
        let nodes = topology.nodes();
        let primaries = nodes.iter().filter(|node| node.primary.is_none()).count();
        for (role, count) in [("primary", primaries), ("replica", nodes.len() - primaries)] {
            self.set(names::TOPOLOGY_NODES, labels(Some(("role", role))), real(count as u64));
        }
        self.set(names::TOPOLOGY_SLOTS, vec![], real(topology.covered() as u64));
    }

    fn count(&self, metric: Metric, labels: Vec<Label>, value: u64) {
        let key = Key::from_parts(metric.name, labels);
        self.recorder.register_counter(&key, &METADATA).absolute(value);
    }

    fn set(&self, metric: Metric, labels: Vec<Label>, value: f64) {
        let key = Key::from_parts(metric.name, labels);
        self.recorder.register_gauge(&key, &METADATA).set(value);
    }
}

/// The total is read first: a command counted in between must not make it smaller than its parts.
fn forwarded(stats: &Stats) -> u64 {
    let all = stats.commands.get();
    let others = [
        &stats.commands_split,
        &stats.commands_across,
        &stats.commands_local,
        &stats.commands_refused,
    ];
    all.saturating_sub(others.iter().map(|count| count.get()).sum())
}

fn labels(tag: Tag) -> Vec<Label> {
    tag.into_iter().map(label).collect()
}

fn label((name, value): (&'static str, &'static str)) -> Label {
    Label::from_static_parts(name, value)
}

#[expect(clippy::cast_precision_loss, reason = "gauges are far below 2^53")]
fn real(value: u64) -> f64 {
    value as f64
}

/// The buckets of all workers together, each with all shorter ones, as the format wants it.
fn render_latencies(text: &mut String, workers: &[Arc<Stats>]) {
    let Metric { name, help, .. } = names::REQUEST_SECONDS;
    let bounds = BOUNDS_US.iter().map(|us| (f64::from(*us) / 1e6).to_string());
    let mut count = 0;
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} histogram");
    for (bucket, bound) in bounds.chain(["+Inf".to_owned()]).enumerate() {
        count += workers.iter().map(|stats| stats.latencies.buckets[bucket].get()).sum::<u64>();
        let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {count}");
    }
    let sum_us: u64 = workers.iter().map(|stats| stats.latencies.sum_us.get()).sum();
    let _ = writeln!(text, "{name}_sum {}\n{name}_count {count}", real(sum_us) / 1e6);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::observed;
    use super::*;
    use crate::refusal::Refusal;

    fn check(publisher: &Publisher, expected: &[&str]) {
        let text = publisher.render();
        for line in expected {
            assert!(text.lines().any(|have| have == *line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn every_metric_is_published_with_its_labels_and_help() {
        let text = Publisher::new(Arc::new(observed("0-16383"))).render();
        for metric in names::ALL {
            assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
            let name = match metric.kind {
                Kind::Histogram => format!("{}_bucket", metric.name),
                _ => metric.name.to_owned(),
            };
            let of_it = |line: &&str| {
                line.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            };
            let series = text.lines().find(of_it).unwrap_or_else(|| panic!("no {}", metric.name));
            for label in metric.labels {
                assert!(series.contains(&format!("{label}=\"")), "{label} is not in {series}");
            }
        }
    }

    #[test]
    fn workers_are_told_apart_or_added_up() {
        let publisher = Publisher::new(Arc::new(observed("0-16383")));
        for (stats, n) in publisher.observed.workers.iter().zip(1..) {
            stats.clients.store(n, Relaxed);
            stats.commands.add(10 * n);
            stats.commands_local.add(n);
            stats.moved.add(n);
            stats.refusals.count(&Refusal::ClusterDown);
            stats.latencies.observe(50);
            stats.latencies.observe(99_999_999);
        }
        check(
            &publisher,
            &[
                "slotway_clients{worker=\"0\"} 1",
                "slotway_clients{worker=\"1\"} 2",
                "slotway_commands_total{kind=\"forwarded\",worker=\"1\"} 18",
                "slotway_commands_total{kind=\"local\",worker=\"1\"} 2",
                "slotway_redirects_total{kind=\"moved\"} 3",
                "slotway_refusals_total{fault=\"cluster\",reason=\"cluster_down\"} 2",
                "slotway_refusals_total{fault=\"client\",reason=\"arity\"} 0",
                "slotway_request_seconds_bucket{le=\"0.00005\"} 2",
                "slotway_request_seconds_bucket{le=\"10\"} 2",
                "slotway_request_seconds_bucket{le=\"+Inf\"} 4",
                "slotway_request_seconds_sum 200.000098",
                "slotway_request_seconds_count 4",
            ],
        );
        publisher.observed.workers[0].clients.store(0, Relaxed);
        check(&publisher, &["slotway_clients{worker=\"0\"} 0"]);
    }

    #[test]
    fn the_process_and_the_map_are_published() {
        let mut observed = observed("0-99");
        let age = Duration::from_millis(1500);
        let process = Process {
            rejected: 3,
            failed_refreshes: 1,
            topology_age: Some(age),
            ..Process::default()
        };
        observed.process = Box::new(move || process);
        let publisher = Publisher::new(Arc::new(observed));
        check(
            &publisher,
            &[
                "slotway_clients_accepted_total 0",
                "slotway_clients_rejected_total 3",
                "slotway_topology_refreshes_total{result=\"ok\"} 0",
                "slotway_topology_refreshes_total{result=\"failed\"} 1",
                "slotway_topology_age_seconds 1.5",
                "slotway_topology_slots_covered 100",
                "slotway_topology_nodes{role=\"primary\"} 1",
                "slotway_topology_nodes{role=\"replica\"} 0",
                "slotway_ready 1",
            ],
        );
        publisher.observed.draining.store(true, Relaxed);
        check(&publisher, &["slotway_ready 0"]);
    }
}
