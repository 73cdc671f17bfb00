//! The program itself: started with `serve`, asked over HTTP, and told by signals.

use std::io;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use slotway::resp::value::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, steady};
use crate::{beside_others, until, within};

/// How long anything but the end of a drain may take.
const SOON: Duration = Duration::from_secs(5);

/// The program, which runs until it is told to end or dropped.
pub(crate) struct Program {
    process: Child,
    log: Option<Lines<BufReader<ChildStderr>>>,
    data: SocketAddr,
    http: SocketAddr,
}

impl Program {
    /// Starts it on free ports, and waits until it is ready.
    async fn serve(seeds: Vec<String>) -> Self {
        Self::serve_with(seeds, &[]).await.0
    }

    /// Also gives what it has logged of where it listens.
    pub(crate) async fn serve_with(seeds: Vec<String>, more: &[&str]) -> (Self, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
        command.arg("serve").args(seeds).args(["--workers", "2"]).args(more);
        command.args([
            "--listen",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn().expect("the program");
        let log = process.stderr.take().map(|log| BufReader::new(log).lines());
        let nowhere = SocketAddr::from(([0; 4], 0));
        let mut program = Self { process, log, data: nowhere, http: nowhere };
        let line = program.logged("listening data=").await;
        (program.data, program.http) = (address(&line, "data="), address(&line, "http="));
        program.becomes("200", "ready").await;
        (program, line)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = self.process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        kill_process(pid.expect("it runs"), signal).expect("it is ours");
    }

    /// Waits until `/readyz` answers this.
    async fn becomes(&self, status: &str, text: &str) {
        until(SOON, "another health", async || {
            let answer = self.page("/readyz").await.map_err(|error| error.to_string())?;
            let is_so = answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(text);
            if is_so { Ok(()) } else { Err(answer) }
        })
        .await;
    }

    async fn page(&self, path: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.http).await?;
        stream.write_all(&get(path)).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    /// Number of requests that were sent on to nodes.
    async fn forwarded(&self) -> u64 {
        let page = self.page("/metrics").await.expect("the numbers");
        let series = "slotway_commands_total{kind=\"forwarded\",worker=";
        let lines = page.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Sends a request to a node that does not answer it yet, and waits until it is under way.
    async fn keep_waiting(&self, client: &mut Client, line: &str) {
        let before = self.forwarded().await;
        let request = wire(&line.split(' ').collect::<Vec<_>>());
        client.send(&request).await.expect("the request is taken");
        until(SOON, "a request is under way", async || match self.forwarded().await {
            count if count == before => Err(format!("still {count}")),
            _ => Ok(()),
        })
        .await;
    }

    /// The next line of the log that contains this.
    pub(crate) async fn logged(&mut self, text: &str) -> String {
        let log = self.log.as_mut().expect("it is read");
        let found = async {
            while let Some(line) = log.next_line().await.expect("the log") {
                if line.contains(text) {
                    return line;
                }
            }
            panic!("the program ended without having logged {text:?}")
        };
        within(SOON, &format!("{text:?} is logged"), found).await
    }

    /// Waits for the end, and gives the exit code.
    async fn code(&mut self) -> Option<i32> {
        let status = within(SOON, "the program ends", self.process.wait()).await;
        status.expect("our child").code()
    }
}

fn get(path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").into_bytes()
}

pub(crate) fn address(line: &str, field: &str) -> SocketAddr {
    let value = line.split(' ').find_map(|word| word.strip_prefix(field));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {field} in {line}"))
}

/// Waits until nobody listens there any more.
async fn closed(address: SocketAddr) {
    until(SOON, "nobody listens", async || {
        let connected = TcpStream::connect(address).await;
        connected.map_or(Ok(()), |_| Err(format!("{address} is open")))
    })
    .await;
}

#[tokio::test]
async fn it_serves_a_cluster_and_finishes_what_is_under_way() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(3, 0).await;
    let mut program = Program::serve(cluster.addresses()).await;
    let mut client = Client::to(program.data).await;
    // Slots 5061, 12182 and 866: of all three nodes.
    assert_eq!(client.call("MSET bar 1 foo 2 hello 3").await, ok());
    assert_eq!(client.call("GET foo").await, bulk("2"));
    let numbers = program.page("/metrics").await.expect("the numbers");
    for line in ["slotway_ready 1", "slotway_topology_slots_covered 16384"] {
        assert!(numbers.lines().any(|have| have == line), "no {line} in {numbers}");
    }
    let mut slow = TcpStream::connect(program.http).await.expect("somebody listens");
    let (begin, rest) = (get("/readyz"), get("/readyz").split_off(10));
    slow.write_all(&begin[..10]).await.expect("it is read");

    cluster.freeze(0);
    program.keep_waiting(&mut client, "GET bar").await;
    program.signal(Signal::TERM);
    program.becomes("503", "draining").await;
    closed(program.data).await;
    program.becomes("503", "draining").await;
    cluster.thaw(0);
    assert_eq!(client.reply().await.expect("the reply"), bulk("1"));
    assert!(client.reply().await.is_err(), "the connection stays open");
    closed(program.http).await;
    slow.write_all(&rest).await.expect("it is read");
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.expect("who has begun to ask is answered");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(program.code().await, Some(0));
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let _turn = beside_others().await;
    let mut cluster = Cluster::start(1, 0).await;
    let mut program = Program::serve(cluster.addresses()).await;
    let mut client = Client::to(program.data).await;
    assert_eq!(client.call("SET bar 1").await, ok());
    cluster.freeze(0);
    program.keep_waiting(&mut client, "GET bar").await;
    program.signal(Signal::TERM);
    program.becomes("503", "draining").await;
    program.signal(Signal::TERM);
    assert_eq!(program.code().await, Some(1));
    assert!(client.reply().await.is_err(), "it was never answered");
    program.logged("stopped by a second signal").await;
}

#[tokio::test]
async fn a_configuration_is_read_again() {
    let cluster = steady().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("it is written");
    write("[client]\nmax_clients = 100\n");
    let more = ["--config", file.path().to_str().expect("UTF-8")];
    let (mut program, line) = Program::serve_with(cluster.addresses(), &more).await;
    let mut before = Client::to(address(&line, "admin=")).await;
    let mut client = Client::to(program.data).await;
    assert_eq!(client.call("SET reload 1").await, ok());

    write("[client]\nmax_clients = 1\nwindow = 7\n[admin]\npassword = \"secret\"\n");
    program.signal(Signal::HUP);
    let told = program.logged("the configuration was read again").await;
    assert!(told.contains(r#"applied=["client.max_clients", "admin.password"]"#), "{told}");
    assert!(told.contains(r#"restart=["client.window"]"#) && !told.contains("secret"), "{told}");
    let mut second = Client::to(program.data).await;
    let refused = Value::Error("ERR max number of clients reached".into());
    assert_eq!(second.reply().await.expect("it is told so"), refused);
    let mut admin = Client::to(address(&line, "admin=")).await;
    let locked = Value::Error("NOAUTH Authentication required.".into());
    assert_eq!(admin.call("PROXY CONFIG RELOAD").await, locked);
    assert_eq!(admin.call("AUTH secret").await, ok());

    // What was said since stays while the file says nothing else.
    assert_eq!(admin.call("PROXY LOGLEVEL debug").await, ok());
    assert!(!matches!(admin.call("PROXY CONFIG RELOAD").await, Value::Error(_)));
    assert_eq!(admin.call("PROXY LOGLEVEL").await, bulk("debug"));

    // What is wrong changes nothing, and is told.
    write("[client]\nmax_clients = 50\nwindow = 0\n");
    let told = format!("{:?}", admin.call("PROXY CONFIG RELOAD").await);
    assert!(
        told.contains("PRECONDITION ") && told.contains("line 3: [client] window = 0"),
        "{told}"
    );
    let limit = format!("{:?}", before.call("PROXY CONFIG GET maxclients").await);
    assert!(limit.contains("\"1\""), "{limit}");
    write("");
    let told = format!("{:?}", admin.call("PROXY CONFIG RELOAD").await);
    for part in ["client.max_clients", "admin.password"] {
        assert!(told.contains(part) && !told.contains("client.window"), "{told}");
    }
    let mut second = Client::to(program.data).await;
    assert_eq!(second.call("DEL reload").await, Value::Integer(1));
    program.signal(Signal::TERM);
    assert_eq!(program.code().await, Some(0));
}

#[tokio::test]
async fn users_are_read_again() {
    let cluster = steady().await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("it is written");
    write("[client]\nusers = [\"user me on >a ~* +@all\", \"user you on >b ~* +@all\"]\n");
    let more = ["--config", file.path().to_str().expect("UTF-8")];
    let (mut program, _) = Program::serve_with(cluster.addresses(), &more).await;
    let [mut me, mut you] = [Client::to(program.data).await, Client::to(program.data).await];
    assert_eq!((me.call("AUTH me a").await, you.call("AUTH you b").await), (ok(), ok()));
    assert_eq!(me.call("ACL SETUSER me -echo").await, ok());
    program.signal(Signal::HUP);
    program.logged("the configuration was read again").await;
    let denied = |name: &str| {
        Value::Error(
            format!("NOPERM this user has no permissions to run the '{name}' command").into(),
        )
    };
    assert_eq!(me.call("ECHO x").await, denied("echo"));

    write("[client]\npassword = \"c\"\nusers = [\"user me on >a ~* +@all -get\"]\n");
    program.signal(Signal::HUP);
    let told = program.logged("the configuration was read again").await;
    assert!(told.contains(r#"applied=["client.password", "client.users"]"#), "{told}");
    until(SOON, "the worker has heard of it", async || {
        let reply = me.call("GET x").await;
        if reply == denied("get") { Ok(()) } else { Err(format!("{reply:?}")) }
    })
    .await;
    assert!(you.reply().await.is_err(), "who is nobody any more is still there");
    let mut other = Client::to(program.data).await;
    let locked = Value::Error("NOAUTH Authentication required.".into());
    assert_eq!((other.call("PING").await, other.call("AUTH c").await), (locked, ok()));
    program.signal(Signal::TERM);
    assert_eq!(program.code().await, Some(0));
}

#[tokio::test]
async fn a_terminal_that_closes_does_not_end_it() {
    let cluster = steady().await;
    let mut program = Program::serve(cluster.addresses()).await;
    program.signal(Signal::HUP);
    program.logged("the proxy was started without a configuration file").await;
    let mut client = Client::to(program.data).await;
    assert_eq!(client.call("SET hangup 1").await, ok());
    assert_eq!(client.call("GET hangup").await, bulk("1"));
    client.call("DEL hangup").await;
    // From here on every line of the log fails.
    program.log = None;
    program.signal(Signal::TERM);
    assert_eq!(program.code().await, Some(0));
}
