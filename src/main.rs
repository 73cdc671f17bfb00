//! Temporary entry point.

use std::time::Duration;
use slotway::*;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let options = proxy::Options {
        listen: args[1].clone(), http: None, workers: args[2].parse().unwrap(), password: None, max_clients: 10000,
        drain_delay: Duration::ZERO, drain_timeout: Duration::from_secs(5),
        session: session::Options { limits: resp::frame::Limits { args: 1<<20, bulk: 512<<20, request: 1<<30, unauthenticated: false }, window: 1024, output_limit: 1<<20, idle_timeout: Duration::ZERO },
        backend: backend::Options { connect_timeout: Duration::from_secs(1), response_timeout: Duration::from_secs(15), request_budget: Duration::from_secs(5), queue_requests: 100000, queue_bytes: 256<<20, read_from: backend::ReadFrom::Primary, credentials: None },
        discovery: discovery::Options { seeds: args[3..].to_vec(), interval: Duration::from_secs(5), spacing: Duration::from_millis(100), query_timeout: Duration::from_millis(500), credentials: None },
    };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let _running = proxy::start(options).await.unwrap();
        std::future::pending::<()>().await;
    });
}
