//! The program under test, called as from a shell, and servers that are not like the others.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use slotway::backend::Control;
use slotway::resp::value::{self, Value};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use crate::server::{free_ports, program};
use crate::{until, within};

/// How long a call may take: much longer than any does.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a node may take to answer.
const ANSWER: Duration = Duration::from_secs(2);

/// What the program said.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Told {
    /// It has to have ended like this.
    #[track_caller]
    pub(crate) fn ends(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        self
    }

    /// This has to be a line of it, on either stream.
    #[track_caller]
    pub(crate) fn says(&self, line: &str) -> &Self {
        let found = self.out.lines().chain(self.err.lines()).any(|have| have == line);
        assert!(found, "no {line:?} in:\n{}{}", self.out, self.err);
        self
    }

    /// This has to stand somewhere in it.
    #[track_caller]
    pub(crate) fn mentions(&self, text: &str) -> &Self {
        let found = self.out.contains(text) || self.err.contains(text);
        assert!(found, "no {text:?} in:\n{}{}", self.out, self.err);
        self
    }

    /// How many of its lines begin like this.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.out.lines().filter(|line| line.starts_with(start)).count()
    }
}

/// Calls the program with these words, and nobody to answer questions.
pub(crate) async fn slotway(words: &[&str]) -> Told {
    call(words, "", &[]).await
}

/// Calls `slotway cluster` with the words of a line.
pub(crate) async fn cluster(line: &str) -> Told {
    let words: Vec<&str> = ["cluster"].into_iter().chain(line.split_whitespace()).collect();
    slotway(&words).await
}

/// Calls the program with these words, this on its standard input, and these variables.
pub(crate) async fn call(words: &[&str], input: &str, vars: &[(&str, &str)]) -> Told {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command.args(words).envs(vars.iter().copied()).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = command.spawn().expect("the program");
    let mut stdin = process.stdin.take().expect("its input");
    // It may end without reading everything.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = within(PATIENCE, &format!("{words:?}"), process.wait_with_output()).await;
    let output = output.expect("its output");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().expect("no signal ended it");
    Told { code, out: text(&output.stdout), err: text(&output.stderr) }
}

/// Begins `slotway cluster` with the words of a line.
pub(crate) fn begin(line: &str) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command.arg("cluster").args(line.split_whitespace()).kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("the program")
}

pub(crate) fn signal(process: &Child, signal: Signal) {
    let pid = process.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    kill_process(pid.expect("it runs"), signal).expect("it is ours");
}

/// Waits until a program has ended, and gives its exit code. It may itself wait a minute for a node that is gone.
pub(crate) async fn ended(process: &mut Child) -> Option<i32> {
    within(Duration::from_secs(180), "it ends", process.wait()).await.expect("our child").code()
}

/// Asks a node.
pub(crate) async fn ask(address: &str, line: &str) -> Result<Value, String> {
    let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
    let control = Control::connect(address, ANSWER).await.map_err(|error| error.to_string());
    control?.call(&args).await.map_err(|error| error.to_string())
}

/// Asks a node for text; it has to answer.
pub(crate) async fn text(address: &str, line: &str) -> String {
    let loaded =
        until(Duration::from_secs(60), "it has loaded", async || match ask(address, line).await {
            Err(error) if error.contains("LOADING ") => Err(error),
            answer => Ok(answer),
        });
    let reply = loaded.await.unwrap_or_else(|error| panic!("{line}: {error}"));
    value::text(&reply).unwrap_or_else(|| panic!("{line}: {reply:?}")).to_owned()
}

/// How many nodes a node knows, itself included.
pub(crate) async fn known(address: &str) -> usize {
    text(address, "CLUSTER NODES").await.lines().count()
}

/// A server with options of its own, which ends with the test.
pub(crate) struct Special {
    pub(crate) port: u16,
    _process: Child,
    _folder: TempDir,
}

impl Special {
    /// Starts it; `ip` is where it listens.
    pub(crate) async fn start(ip: &str, options: &[&str]) -> Self {
        Self::start_program(&program("server"), ip, options).await
    }

    /// Starts another program than that of the other servers.
    pub(crate) async fn start_program(program: &str, ip: &str, options: &[&str]) -> Self {
        let options: Vec<&str> = ["--bind", ip].iter().chain(options).copied().collect();
        Self::start_for(program, &options, "--port", async |port| {
            let pinged = ask(&format!("{ip}:{port}"), "PING").await.map(drop);
            // With this error it is there, and wants a password.
            pinged.or_else(|error| if error.contains("NOAUTH") { Ok(()) } else { Err(error) })
        })
        .await
    }

    /// Starts it with a port that is given with this option, and waits until it is up.
    pub(crate) async fn start_for(
        program: &str,
        options: &[&str],
        port_option: &str,
        is_up: impl AsyncFn(u16) -> Result<(), String>,
    ) -> Self {
        for port in free_ports().take(20) {
            let folder = tempfile::tempdir().expect("a directory");
            let mut command = Command::new(program);
            command.args([port_option, &port.to_string(), "--save", ""]);
            command.args(["--logfile", "log", "--cluster-node-timeout", "2000"]);
            // What the test says comes last, and counts.
            command
                .arg("--dir")
                .arg(folder.path())
                .args(options)
                .stdin(Stdio::null())
                .stdout(Stdio::null());
            let mut process = command.kill_on_drop(true).spawn().expect("the server");
            let is_its_own = until(Duration::from_secs(10), "a server", async || {
                if process.try_wait().expect("our child").is_some() {
                    return Ok(false);
                }
                is_up(port).await.map(|()| true)
            });
            if is_its_own.await {
                return Self { port, _process: process, _folder: folder };
            }
        }
        panic!("every port was taken by somebody else");
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
