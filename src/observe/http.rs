//! The HTTP side: `/metrics` for Prometheus, `/livez` and `/readyz` for load balancers, and what others have to show.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::Observed;
use super::publish::Publisher;

/// How long answers under way may take after shutdown was asked for. Answers take milliseconds; who is slower is not
/// waited for.
const GRACE: Duration = Duration::from_secs(1);

/// Serves this and `others` until `shutdown` is done. Must run on a tokio runtime with I/O and time.
pub async fn serve(
    listener: TcpListener,
    observed: Arc<Observed>,
    others: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let (stopping, stopped) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody listens any more if serving has failed.
        let _ = stopping.send(());
    };
    let late = async {
        // Never dropped without being sent as long as the server runs.
        let _ = stopped.await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        result = axum::serve(listener, router(observed).merge(others)).with_graceful_shutdown(shutdown) => result,
        () = late => Ok(()),
    }
}

fn router(observed: Arc<Observed>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(readyz).with_state(Arc::clone(&observed)))
        .route("/metrics", get(metrics).with_state(Arc::new(Publisher::new(observed))))
}

async fn readyz(State(observed): State<Arc<Observed>>) -> impl IntoResponse {
    let readiness = observed.readiness();
    let status =
        if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, format!("{readiness}\n"))
}

async fn metrics(State(publisher): State<Arc<Publisher>>) -> impl IntoResponse {
    let text = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, text)], publisher.render())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::atomic::Ordering::Relaxed;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::task::JoinSet;

    use super::super::tests::observed;
    use super::*;

    struct Server {
        address: SocketAddr,
        stop: oneshot::Sender<()>,
        running: JoinSet<io::Result<()>>,
    }

    async fn start(observed: Observed) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let shutdown = async { drop(stopped.await) };
        let mut running = JoinSet::new();
        running.spawn(serve(listener, Arc::new(observed), Router::new(), shutdown));
        Server { address, stop, running }
    }

    async fn fetch(server: &Server, path: &str) -> String {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn check(server: &Server, path: &str, status: &str, body: &str) {
        let answer = fetch(server, path).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains(body), "{answer}");
    }

    #[tokio::test]
    async fn pages() {
        let observed = observed("0-16000");
        let draining = Arc::clone(&observed.draining);
        let server = start(observed).await;
        check(&server, "/livez", "200", "alive").await;
        check(&server, "/readyz", "200", "\r\nready-partial: 383 slots have no owner\n").await;
        check(&server, "/metrics", "200", "text/plain; version=0.0.4").await;
        check(&server, "/metrics", "200", "\nslotway_ready 1\n").await;
        check(&server, "/nowhere", "404", "").await;
        draining.store(true, Relaxed);
        check(&server, "/readyz", "503", "\r\ndraining\n").await;
        check(&server, "/livez", "200", "alive").await;
    }

    #[tokio::test]
    async fn shutdown_does_not_wait_for_the_silent() {
        let mut server = start(observed("")).await;
        let mut silent = TcpStream::connect(server.address).await.unwrap();
        silent.write_all(b"GET / HT").await.unwrap();
        check(&server, "/readyz", "503", "slots not covered: 16384").await;
        server.stop.send(()).unwrap();
        server.running.join_next().await.unwrap().unwrap().unwrap();
    }
}
