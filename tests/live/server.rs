//! One server process: on free loopback ports, in a directory of its own, and gone when the test is.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime};

use rustix::process::{Pid, Signal, kill_process};
use slotway::backend::Control;
use slotway::net::Way;
use slotway::resp::value;
use tempfile::TempDir;

use crate::papers::Papers;
use crate::until;

/// Ports tried; the bus ports lie 10000 above. Both stay below the ports that the kernel gives to outgoing connections.
const PORTS: std::ops::Range<u16> = 12_000..22_000;
/// Distance of a node's bus port.
const BUS: u16 = 10_000;
/// Time for a server to end by itself.
const GRACE: Duration = Duration::from_millis(300);

/// How long a node may be silent before the others suspect it.
pub(crate) const NODE_TIMEOUT: Duration = Duration::from_secs(2);

/// A server in cluster mode, ended when dropped.
pub(crate) struct Server {
    pub(crate) port: u16,
    process: Child,
    /// Ends the server if this process is gone before it could: a shell that waits for its input to be closed.
    guard: Child,
    directory: TempDir,
    /// Whether it keeps its data for when it is started again.
    durable: bool,
    /// Where the other nodes are told to find it, if not at its own bus port.
    bus: Option<u16>,
    /// What it speaks TLS with, and nothing else.
    papers: Option<Arc<Papers>>,
}

/// The server program, or a tool that stands beside it.
pub(crate) fn program(role: &str) -> String {
    let server = std::env::var("SLOTWAY_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
    let sibling = match server.rsplit_once("server") {
        Some((front, behind)) if role != "server" => format!("{front}{role}{behind}"),
        _ => return server,
    };
    let is_there = !sibling.contains('/') || Path::new(&sibling).exists();
    if is_there { sibling } else { format!("redis-{role}") }
}

impl Server {
    /// Starts a server that answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(None).await
    }

    /// Starts one that speaks TLS with these, if there are any.
    pub(crate) async fn start_with(papers: Option<Arc<Papers>>) -> Self {
        for port in free_ports().take(20) {
            let mut server = Self::spawn(port, papers.clone());
            if server.is_up().await {
                return server;
            }
        }
        panic!("every port was taken by somebody else");
    }

    /// Starts a server that was killed once more, as the node that it was, perhaps on another port.
    pub(crate) async fn restart(&mut self, port: u16) {
        self.port = port;
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        self.process.wait().expect("our child");
        let options = options(self.port, self.durable, self.bus, self.papers.as_deref());
        (self.process, self.guard) = processes(&options, self.directory.path());
        assert!(self.is_up().await, "somebody else has taken the port");
    }

    fn spawn(port: u16, papers: Option<Arc<Papers>>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let options = options(port, false, None, papers.as_deref());
        let (process, guard) = processes(&options, directory.path());
        Self { port, process, guard, directory, durable: false, bus: None, papers }
    }

    /// Waits until the server answers; false if somebody else has its port.
    async fn is_up(&mut self) -> bool {
        let pid = format!("process_id:{}\r", self.process.id());
        let (address, log) = (self.address(), self.directory.path().join("log"));
        let way = self.way();
        let process = &mut self.process;
        until(Duration::from_secs(10), "a server", async || {
            if process.try_wait().expect("our child").is_some() {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                assert!(log.contains("ddress already in use") || log.contains("port"), "{log}");
                return Ok(false);
            }
            let limit = Duration::from_secs(1);
            let control = Control::connect_by(&way, &address, limit).await;
            let info = control.map_err(|e| e.to_string())?.call(&[b"INFO", b"server"]).await;
            let info = info.map_err(|e| e.to_string())?;
            Ok(value::text(&info).is_some_and(|info| info.contains(&pid)))
        })
        .await
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// What connections to it travel on.
    pub(crate) fn way(&self) -> Way {
        self.papers.as_ref().map(|papers| papers.way()).unwrap_or_default()
    }

    /// When it is started again it is to have its data: the caller has it write them.
    pub(crate) fn keep_data(&mut self) {
        self.durable = true;
    }

    /// When it is started again it is to tell the other nodes of this port: the caller has it do so now.
    pub(crate) fn keep_bus(&mut self, port: u16) {
        self.bus = Some(port);
    }

    /// What the server has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Sends the process a signal. It is waited for only when the server is dropped, so that its number stays its own.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        // One that has ended needs no signal any more.
        let _ = kill_process(pid.expect("the number of a child"), signal);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.guard.kill();
        let _ = self.guard.wait();
        self.signal(Signal::TERM);
        let end = Instant::now() + GRACE;
        while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The options of a server.
fn options(port: u16, durable: bool, bus: Option<u16>, papers: Option<&Papers>) -> Vec<String> {
    let mut lines = vec![match papers {
        None => format!("--port {port}"),
        Some(_) => format!(
            "--port 0 --tls-port {port} --tls-cluster yes --tls-replication yes --tls-ca-cert-file @ca.crt \
             --tls-cert-file @node.crt --tls-key-file @node.key"
        ),
    }];
    lines.push(format!("--appendonly {}", if durable { "yes" } else { "no" }));
    lines.push("--bind 127.0.0.1 --repl-diskless-sync-delay 0 --logfile log".to_owned());
    let timeout = NODE_TIMEOUT.as_millis();
    lines.push(format!("--cluster-enabled yes --cluster-node-timeout {timeout}"));
    lines.extend(bus.map(|bus| format!("--cluster-announce-bus-port {bus}")));
    if knows_options_of_7() {
        lines.push("--enable-debug-command local --shutdown-timeout 0".to_owned());
    }
    let line = lines.join(" ");
    match papers {
        None => line.split(' ').map(str::to_owned).collect(),
        Some(papers) => papers.filled(&line),
    }
}

/// Starts a server, and a shell that ends it if this process is gone before it could.
fn processes(options: &[String], directory: &Path) -> (Child, Child) {
    let mut command = Command::new(program("server"));
    command.args(options).args(["--save", ""]).arg("--dir").arg(directory);
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn();
    let process = process.unwrap_or_else(|error| panic!("{}: {error}", program("server")));
    let mut guard = Command::new("sh");
    guard.args(["-c", "read _; kill -9 \"$1\"; rm -rf \"$2\"", "guard"]);
    guard.arg(process.id().to_string()).arg(directory);
    let guard = guard.stdin(Stdio::piped()).spawn().expect("a shell");
    (process, guard)
}

/// Whether the server has the options that came with Redis 7.
fn knows_options_of_7() -> bool {
    static KNOWS: OnceLock<bool> = OnceLock::new();
    *KNOWS.get_or_init(|| {
        let output = Command::new(program("server")).arg("--version").output().expect("a server");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let major = text.split_once("v=").and_then(|(_, v)| v.split('.').next()?.parse().ok());
        major.is_none_or(|major: u32| major >= 7)
    })
}

/// Ports that are free now, and whose bus ports are. Others may be as quick: whoever starts a server looks again.
pub(crate) fn free_ports() -> impl Iterator<Item = u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    static START: OnceLock<u16> = OnceLock::new();
    let start = *START.get_or_init(|| {
        let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mixed = time.subsec_micros().wrapping_add(std::process::id().wrapping_mul(7919));
        u16::try_from(mixed % u32::from(PORTS.end - PORTS.start)).expect("a port's offset")
    });
    std::iter::repeat_with(move || {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Relaxed)) % (PORTS.end - PORTS.start);
        PORTS.start + offset
    })
    .filter(|port| is_free(*port) && is_free(*port + BUS))
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
