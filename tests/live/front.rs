//! The proxy under test, in this process.

use std::time::Duration;

use slotway::proxy::{self, Running};
use slotway::resp::frame::Limits;
use slotway::{backend, discovery, session};

use crate::within;

/// A proxy with two workers for the cluster that has these nodes.
pub(crate) fn options(seeds: Vec<String>) -> proxy::Options {
    let limits =
        Limits { args: 1 << 20, bulk: 512 << 20, request: 1 << 30, unauthenticated: false };
    proxy::Options {
        listen: "127.0.0.1:0".to_owned(),
        http: None,
        workers: 2,
        password: None,
        max_clients: 10_000,
        drain_delay: Duration::ZERO,
        drain_timeout: Duration::from_secs(5),
        session: session::Options {
            limits,
            window: 1024,
            output_limit: 1 << 20,
            output_max: 1 << 30,
            idle_timeout: Duration::ZERO,
        },
        backend: backend::Options {
            connect_timeout: Duration::from_secs(1),
            response_timeout: Duration::from_secs(15),
            request_budget: Duration::from_secs(5),
            queue_requests: 100_000,
            queue_bytes: 256 << 20,
            read_from: backend::ReadFrom::Primary,
            credentials: None,
        },
        discovery: discovery::Options {
            seeds,
            interval: Duration::from_secs(5),
            spacing: Duration::from_millis(100),
            query_timeout: Duration::from_millis(500),
            credentials: None,
        },
    }
}

/// Starts a proxy and waits until it is ready.
pub(crate) async fn start(options: proxy::Options) -> Running {
    let running = proxy::start(options).await.expect("a proxy");
    within(Duration::from_secs(5), "the proxy is ready", running.ready()).await;
    running
}

/// As [`start`], with as much patience as a failover takes on a busy machine.
pub(crate) async fn start_patient(seeds: Vec<String>) -> Running {
    let mut options = options(seeds);
    options.backend.request_budget = Duration::from_secs(8);
    start(options).await
}
