//! The proxy under test, in this process.

use std::time::Duration;

use slotway::config::Config;
use slotway::proxy::{self, Options, Running};

use crate::within;

/// As a proxy is that was told nothing but the nodes of its cluster, with two workers and without HTTP and admin port.
pub(crate) fn options(seeds: Vec<String>) -> Options {
    let mut options = Config::default().into_options().expect("the defaults fit each other");
    options.listen = Some("127.0.0.1:0".to_owned());
    options.http = None;
    options.admin = None;
    options.workers = 2;
    options.discovery.seeds = seeds;
    options
}

/// As [`options`], with as much patience as a failover takes on a busy machine.
pub(crate) fn patient(seeds: Vec<String>) -> Options {
    let mut options = options(seeds);
    options.backend.request_budget = Duration::from_secs(30);
    options
}

/// Starts a proxy and waits until it is ready.
pub(crate) async fn start(options: Options) -> Running {
    let running = proxy::start(options).await.expect("a proxy");
    within(Duration::from_secs(5), "the proxy is ready", running.ready()).await;
    running
}
