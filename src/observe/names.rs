//! Every metric once: its name, kind, unit, labels and meaning. What is published and what dashboards use comes from here.

use metrics::Unit;

/// What may be read from a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows; its rate counts.
    Counter,
    /// Goes up and down; its value counts.
    Gauge,
    /// Times in buckets, as `_bucket{le=…}`, `_sum` and `_count`.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, which ends in its unit, and in `_total` for a counter.
    pub name: &'static str,
    /// What may be read from it.
    pub kind: Kind,
    /// What is counted.
    pub unit: Unit,
    /// Names of its labels. With `worker` there is a series for each worker, otherwise their sum.
    pub labels: &'static [&'static str],
    /// One sentence for people.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($id:ident = $kind:ident $name:literal $unit:ident $labels:expr, $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $id: Metric = Metric {
                name: $name, kind: Kind::$kind, unit: Unit::$unit, labels: &$labels, help: $help,
            };
        )*

        /// All metrics.
        pub const ALL: &[Metric] = &[$($id),*];
    };
}

metrics! {
    CLIENTS = Gauge "slotway_clients" Count ["worker"], "Clients connected now.";
    CLIENTS_ACCEPTED = Counter "slotway_clients_accepted_total" Count [],
        "Clients accepted.";
    CLIENTS_REJECTED = Counter "slotway_clients_rejected_total" Count [],
        "Connections closed at once because too many clients were connected.";
    CLIENT_TIMEOUTS = Counter "slotway_client_timeouts_total" Count [],
        "Clients disconnected because they were idle for too long.";
    CLIENT_TLS_FAILED = Counter "slotway_client_tls_failed_total" Count [],
        "Connections closed because TLS did not come about: no TLS, no certificate that is trusted, or no word in time.";
    CLIENT_READ = Counter "slotway_client_read_bytes_total" Bytes [], "Bytes read from clients.";
    CLIENT_WRITTEN = Counter "slotway_client_written_bytes_total" Bytes [],
        "Bytes written to clients.";
    COMMANDS = Counter "slotway_commands_total" Count ["kind", "worker"],
        "Commands received: forwarded whole, split over nodes, answered by the proxy, or refused by it at once.";
    REQUEST_SECONDS = Histogram "slotway_request_seconds" Seconds [],
        "Time from reading a request, or making a part of a split one, to a node's answer, all retries included.";
    REFUSALS = Counter "slotway_refusals_total" Count ["fault", "reason"],
        "Errors the proxy itself answered with, by who has to mend the cause and by what it is.";
    REDIRECTS = Counter "slotway_redirects_total" Count ["kind"],
        "Answers by which a node said that it did not run a request; none of them reaches a client.";
    RETRIES = Counter "slotway_retries_total" Count [],
        "Times a request was put aside to be tried again a little later.";
    NODE_ERRORS = Counter "slotway_node_errors_total" Count [],
        "Error replies of nodes that were passed on to clients.";
    NODE_CONNECTIONS = Gauge "slotway_node_connections" Count ["worker"],
        "Connections to nodes that are in use or being made.";
    EXCLUSIVE_CONNECTIONS = Gauge "slotway_exclusive_connections" Count ["worker"],
        "Connections to nodes that one session has for itself, for blocking commands and WATCH, or that wait for the next.";
    EXCLUSIVE_WAITS = Counter "slotway_exclusive_waits_total" Count [],
        "Times that a command found no connection of its own free and looked again later.";
    NODE_CONNECTIONS_LOST = Counter "slotway_node_connections_lost_total" Count [],
        "Connections to nodes that broke or were given up.";
    NODE_CONNECTIONS_FAILED = Counter "slotway_node_connections_failed_total" Count [],
        "Attempts to connect to a node, and to log in there, that failed.";
    NODE_READ = Counter "slotway_node_read_bytes_total" Bytes [], "Bytes read from nodes.";
    NODE_WRITTEN = Counter "slotway_node_written_bytes_total" Bytes [], "Bytes written to nodes.";
    PUBSUB_CONNECTIONS = Gauge "slotway_pubsub_connections" Count ["worker"],
        "Connections to nodes for subscriptions that are in use or being made.";
    PUBSUB_CONNECTIONS_LOST = Counter "slotway_pubsub_connections_lost_total" Count [],
        "Connections for subscriptions that broke; what was published until the next one is lost, as on one server.";
    PUBSUB_MESSAGES = Counter "slotway_pubsub_messages_total" Count [],
        "Messages passed on, each counted once for every subscriber.";
    PUBSUB_CUT_OFF = Counter "slotway_pubsub_cut_off_total" Count [],
        "Subscribers disconnected because they took their messages too slowly.";
    TRACKING_CLIENTS = Gauge "slotway_tracking_clients" Count ["worker"],
        "Clients that are told of changes to what they have read (CLIENT TRACKING).";
    TRACKED_KEYS = Gauge "slotway_tracked_keys" Count ["worker"],
        "Keys that such clients have read since these last changed.";
    TRACKING_CONNECTIONS = Gauge "slotway_tracking_connections" Count ["worker"],
        "Connections to nodes that tell of every change there, or are being made.";
    TRACKING_CONNECTIONS_LOST = Counter "slotway_tracking_connections_lost_total" Count [],
        "Such connections that broke; clients are told to drop all they keep.";
    INVALIDATIONS = Counter "slotway_invalidations_total" Count [],
        "Messages to clients that something has changed which they may have read.";
    TOPOLOGY_NODES = Gauge "slotway_topology_nodes" Count ["role"],
        "Nodes in the map of the cluster, failed ones included.";
    TOPOLOGY_SLOTS = Gauge "slotway_topology_slots_covered" Count [],
        "Slots that have an owner, of 16384.";
    TOPOLOGY_AGE = Gauge "slotway_topology_age_seconds" Seconds [],
        "Time since the map of the cluster was last confirmed; NaN until it has come.";
    TOPOLOGY_REFRESHES = Counter "slotway_topology_refreshes_total" Count ["result"],
        "Times the map of the cluster was asked for.";
    READY = Gauge "slotway_ready" Count [], "1 if /readyz answers 200, else 0.";
    BUILD_INFO = Gauge "slotway_build_info" Count ["version"], "Always 1; the version is a label.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        for metric in ALL {
            let name = metric.name;
            assert!(name.starts_with("slotway_"), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert_eq!(name.contains("_seconds"), metric.unit == Unit::Seconds, "{name}");
            assert_eq!(name.contains("_bytes"), metric.unit == Unit::Bytes, "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
            assert_eq!(ALL.iter().filter(|other| other.name == name).count(), 1, "{name}");
        }
    }
}
