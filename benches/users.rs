//! Who uses a cluster while something is done to it, and what they use; shared by the programs here.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use slotway::backend::Control;
use slotway::cluster::Slot;
use slotway::config::Config;
use slotway::manage::local::{self, Local};
use slotway::manage::view::{ClusterView, NodeView};
use slotway::proxy;

/// Keys that are written in one go.
const TOGETHER: usize = 1000;
/// Pause between two turns of somebody who uses a node or the proxy.
const PAUSE: Duration = Duration::from_millis(1);

pub(crate) type Outcome<T> = Result<T, Box<dyn Error>>;

/// A cluster of so many primaries.
pub(crate) async fn start(nodes: u16, folder: &Path) -> Outcome<Local> {
    let dir = folder.join("cluster");
    let (replicas, node_timeout_ms) = (0, 15_000);
    let usual = local::Options::default();
    let options = local::Options { port: 0, nodes, replicas, dir, node_timeout_ms, ..usual };
    Ok(local::up(&options).await?)
}

/// A proxy as it is by default, with one worker.
pub(crate) fn proxy_options(view: &ClusterView) -> Outcome<proxy::Options> {
    let mut options = Config::default().into_options()?;
    options.listen = Some("127.0.0.1:0".to_owned());
    options.http = None;
    options.admin = None;
    options.workers = 1;
    options.discovery.seeds = view.nodes.iter().map(|node| node.address.to_string()).collect();
    Ok(options)
}

pub(crate) fn keys_of(view: &ClusterView) -> u64 {
    view.nodes.iter().map(keys_of_node).sum()
}

pub(crate) fn keys_of_node(node: &NodeView) -> u64 {
    node.info.databases().iter().map(|(_, keys)| keys).sum()
}

/// Keys, spread evenly over all slots.
#[derive(Clone, Copy)]
pub(crate) struct Data {
    /// How many.
    pub(crate) keys: usize,
    /// Bytes of each value.
    pub(crate) bytes: usize,
}

fn name(n: usize) -> String {
    format!("key:{n:012}")
}

impl Data {
    /// Writes the keys to their owners.
    pub(crate) async fn fill(self, view: &ClusterView) -> Outcome<()> {
        let (owners, value) = (view.owners(), "x".repeat(self.bytes));
        for node in &view.nodes {
            let address = node.address.to_string();
            let mut control = Control::connect(&address, Duration::from_secs(10)).await?;
            let is_own = |key: &String| {
                owners[Slot::of(key.as_bytes()).index()].as_ref() == Some(&node.own.id)
            };
            let own: Vec<String> = (0..self.keys).map(name).filter(is_own).collect();
            for some in own.chunks(TOGETHER) {
                let set = |key: &String| vec!["SET".to_owned(), key.clone(), value.clone()];
                control.pipeline(&some.iter().map(set).collect::<Vec<_>>()).await?;
            }
        }
        Ok(())
    }

    /// Clients of a proxy, each with a part of the keys: a `SET` and a `GET` that must give what was set.
    pub(crate) fn clients(self, count: usize, proxy: SocketAddr) -> Vec<Pulse> {
        let client = |number: usize| {
            // Strides of a prime number visit all keys, and slots in no order.
            let keys = self.keys.max(1);
            let mut at = (0..).map(move |n: usize| (n * 7919 * count + number) % keys);
            let turn = move |stream: &mut TcpStream| {
                let n = at.next().unwrap_or_default();
                let (name, value) = (name(n), format!("{n:0bytes$}", bytes = self.bytes));
                stream.write_all(format!("SET {name} {value}\r\nGET {name}\r\n").as_bytes())?;
                expect(stream, format!("+OK\r\n${}\r\n{value}\r\n", value.len()).as_bytes())
            };
            Pulse::start((proxy.ip().to_string(), proxy.port()), turn)
        };
        (0..count).map(client).collect()
    }
}

/// Somebody else who uses a node or the proxy: one turn after the other with a pause between, on a thread of its own.
pub(crate) struct Pulse {
    stop: Arc<AtomicBool>,
    /// How long each turn took.
    pub(crate) times: Receiver<Duration>,
    thread: JoinHandle<io::Result<()>>,
}

impl Pulse {
    pub(crate) fn start(
        address: (String, u16),
        mut turn: impl FnMut(&mut TcpStream) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (told, times) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let mut stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            while !stopped.load(Relaxed) {
                let begun = Instant::now();
                turn(&mut stream)?;
                // Whoever ends it hears of what went wrong.
                let _ = told.send(begun.elapsed());
                std::thread::sleep(PAUSE);
            }
            Ok(())
        });
        Self { stop, times, thread }
    }

    /// Ends it, and gives the times that nobody has taken.
    pub(crate) fn stop(self) -> Outcome<Vec<Duration>> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| "a client has panicked")??;
        Ok(self.times.iter().collect())
    }
}

pub(crate) fn expect(stream: &mut TcpStream, reply: &[u8]) -> io::Result<()> {
    let mut read = vec![0; reply.len()];
    stream.read_exact(&mut read)?;
    let strange = || io::Error::other(read.escape_ascii().to_string());
    if read == reply { Ok(()) } else { Err(strange()) }
}

/// Half of all times, 99 of 100, 999 of 1000, and the longest one, in milliseconds, as JSON.
pub(crate) fn quantiles(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at =
        |part: usize| times.get((times.len() * part / 1000).min(times.len().saturating_sub(1)));
    let ms = |part| at(part).map_or(0.0, |time| time.as_secs_f64() * 1000.0);
    let [half, most, nearly_all, all] = [500, 990, 999, 1000].map(ms);
    format!("{{\"p50\":{half:.2},\"p99\":{most:.2},\"p99.9\":{nearly_all:.2},\"max\":{all:.2}}}")
}
