//! Instructions that a request costs: the program under `valgrind --tool=callgrind`, one worker, one client, three real nodes, and
//! a fixed replay. What the kernel does is not counted, so the figures hardly depend on the machine or on what else it does.
//!
//! ```text
//! make bench-instructions                      # beside what is recorded in benches/instructions.tsv
//! make bench-instructions ARGS=--record        # and records it
//! ```
//! Each scenario runs twice, the second time with more rounds: what the worker did more is the requests' alone.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use slotway::cluster::{SLOTS, Slot};
use slotway::manage::local;
use slotway::resp::frame::{Progress, ReplyFramer};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Rounds of the first run, and of the second.
const ROUNDS: [usize; 2] = [100, 600];
/// How often each run is made. The least counts: on a busy machine the proxy may hold a node for silent, and be careful.
const REPEATS: usize = 3;
/// How long the proxy takes more care of order after a node could not serve, which it may find at the start; and some more.
const SETTLED: Duration = Duration::from_millis(1500);
/// Keys that the rounds use in turn.
const KEYS: usize = 1000;
/// Bytes of each value, but of those of `get16k`.
const VALUE: usize = 64;

/// What one client sends at a time; it waits for all replies before it sends more.
struct Scenario {
    name: &'static str,
    /// Requests sent together.
    pipeline: usize,
    /// The request with this number.
    request: fn(usize) -> String,
}

const SCENARIOS: [Scenario; 8] = [
    Scenario { name: "get_p1", pipeline: 1, request: get },
    Scenario { name: "set_p1", pipeline: 1, request: set },
    Scenario { name: "get_p16", pipeline: 16, request: get },
    Scenario { name: "set_p16", pipeline: 16, request: set },
    Scenario { name: "get_p64", pipeline: 64, request: get },
    Scenario { name: "set1k_p16", pipeline: 16, request: set_1k },
    Scenario { name: "mget10", pipeline: 1, request: mget_10 },
    Scenario { name: "get16k", pipeline: 1, request: get_16k },
];

fn get(n: usize) -> String {
    wire(&["GET".into(), near_key(n)])
}

fn set(n: usize) -> String {
    wire(&["SET".into(), near_key(n), "x".repeat(VALUE)])
}

fn set_1k(n: usize) -> String {
    wire(&["SET".into(), near_key(n), "x".repeat(1024)])
}

fn mget_10(n: usize) -> String {
    let keys = (0..10).map(|at| key(n * 10 + at));
    wire(&std::iter::once("MGET".into()).chain(keys).collect::<Vec<_>>())
}

fn get_16k(n: usize) -> String {
    wire(&["GET".into(), format!("big:{}", n % 10)])
}

/// A key of the first node: if the replies of several nodes come at once or one after the other is chance, and counts.
fn near_key(n: usize) -> String {
    let names = (0..).map(|part| format!("{}:{part}", key(n)));
    let mut near = names.filter(|name| Slot::of(name.as_bytes()).index() < SLOTS / 3);
    near.next().unwrap_or_default()
}

fn key(n: usize) -> String {
    format!("key:{:012}", n * 7919 % KEYS)
}

fn wire(words: &[String]) -> String {
    let mut out = format!("*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n{word}\r\n", word.len());
    }
    out
}

#[derive(Parser)]
struct Options {
    /// The program.
    #[arg(long, default_value = "target/release/slotway")]
    program: PathBuf,
    /// Some of the scenarios, with commas between; all unless given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Writes what was measured to benches/instructions.tsv.
    #[arg(long)]
    record: bool,
    /// Where callgrind's files stay, for `callgrind_annotate`; nowhere unless given.
    #[arg(long)]
    keep: Option<PathBuf>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;
    let dir = folder.path().join("cluster");
    let (port, nodes, replicas) = (0, 3, 0);
    let usual = local::Options::default();
    let cluster = local::up(&local::Options { port, nodes, replicas, dir, ..usual }).await?;
    let seeds: Vec<String> = cluster.nodes.iter().map(|node| node.address.clone()).collect();
    let folder = options.keep.as_deref().unwrap_or(folder.path());
    let measured = measure_all(&options, &seeds, folder);
    cluster.stop().await?;
    tell(&measured?, options.record)
}

/// Instructions of each scenario, per request.
fn measure_all(
    options: &Options,
    seeds: &[String],
    folder: &Path,
) -> Outcome<BTreeMap<&'static str, u64>> {
    let is_meant = |scenario: &&Scenario| {
        options.only.is_empty() || options.only.iter().any(|name| name == scenario.name)
    };
    let mut measured = BTreeMap::new();
    for scenario in SCENARIOS.iter().filter(is_meant) {
        let mut spent: Vec<BTreeMap<String, u64>> = Vec::new();
        for rounds in ROUNDS {
            let file = folder.join(format!("{}.{rounds}", scenario.name));
            let mut least = BTreeMap::new();
            for _ in 0..REPEATS {
                run(options, seeds, &file, |client| scenario.replay(client, rounds))?;
                for (thread, sum) in threads(&file)? {
                    least.entry(thread).and_modify(|least| *least = sum.min(*least)).or_insert(sum);
                }
            }
            spent.push(least);
        }
        // All threads but one do the same both times.
        let more = spent[1]
            .iter()
            .map(|(thread, sum)| sum.saturating_sub(spent[0].get(thread).copied().unwrap_or(*sum)));
        let requests = (ROUNDS[1] - ROUNDS[0]) * scenario.pipeline;
        measured.insert(scenario.name, more.max().unwrap_or(0) / requests as u64);
    }
    Ok(measured)
}

impl Scenario {
    fn replay(&self, client: &mut TcpStream, rounds: usize) -> Outcome<()> {
        let mut replies = Replies::default();
        for n in 0..KEYS {
            for name in [key(n), near_key(n)] {
                let set = wire(&["SET".into(), name, "x".repeat(VALUE)]);
                replies.exchange(client, &set, 1)?;
            }
        }
        for n in 0..10 {
            let set = wire(&["SET".into(), format!("big:{n}"), "x".repeat(16 * 1024)]);
            replies.exchange(client, &set, 1)?;
        }
        std::thread::sleep(SETTLED);
        for round in 0..rounds {
            let first = round * self.pipeline;
            let batch: String = (first..first + self.pipeline).map(self.request).collect();
            replies.exchange(client, &batch, self.pipeline)?;
        }
        Ok(())
    }
}

/// What a client has read.
#[derive(Default)]
struct Replies {
    framer: ReplyFramer,
    bytes: Vec<u8>,
}

impl Replies {
    /// Sends a batch and reads a reply to each request; an error reply is one here.
    fn exchange(&mut self, client: &mut TcpStream, batch: &str, requests: usize) -> Outcome<()> {
        client.write_all(batch.as_bytes())?;
        let mut missing = requests;
        while missing > 0 {
            if let Progress::Complete(len) = self.framer.frame(&self.bytes)? {
                if self.bytes[0] == b'-' {
                    return Err(self.bytes[..len].escape_ascii().to_string().into());
                }
                self.bytes.drain(..len);
                missing -= 1;
                continue;
            }
            let mut room = [0; 16 * 1024];
            match client.read(&mut room)? {
                0 => return Err("the proxy has closed the connection".into()),
                read => self.bytes.extend_from_slice(&room[..read]),
            }
        }
        Ok(())
    }
}

/// Runs the program under callgrind for as long as a client uses it.
fn run(
    options: &Options,
    seeds: &[String],
    file: &Path,
    replay: impl FnOnce(&mut TcpStream) -> Outcome<()>,
) -> Outcome<()> {
    let config = file.with_extension("toml");
    // Nothing that depends on time: no waiting for more requests, no looking at the cluster between.
    let text = format!(
        "[cluster]\nseeds = {seeds:?}\nrefresh_interval = \"1h\"\n[proxy]\nworkers = 1\nlinger = \"0s\"\n\
         [listen]\ndata = \"127.0.0.1:0\"\nhttp = \"off\"\nadmin = \"off\"\n"
    );
    fs::write(&config, text)?;
    let mut proxy = Command::new("valgrind")
        .args(["--tool=callgrind", "--separate-threads=yes", "--quiet"])
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(&options.program)
        .args(["serve", "--config"])
        .arg(&config)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("valgrind: {error}; install it (apt-get install valgrind)"))?;
    let outcome = address(&mut proxy).and_then(|address| {
        let mut client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        replay(&mut client)
    });
    // Asked to end, it writes what it has counted.
    Command::new("kill").arg(proxy.id().to_string()).status()?;
    proxy.wait()?;
    outcome
}

/// Where it listens, as its log tells.
fn address(proxy: &mut Child) -> Outcome<String> {
    let mut log = BufReader::new(proxy.stderr.take().ok_or("no log")?);
    let (mut told, mut line) = (String::new(), String::new());
    while log.read_line(&mut line)? > 0 {
        if let Some((_, rest)) = line.split_once("data=") {
            let address = rest.split(' ').next().unwrap_or_default().to_owned();
            // The rest is read, so that it never waits for a reader.
            std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
            return Ok(address);
        }
        told.push_str(&std::mem::take(&mut line));
    }
    Err(format!("it did not start: {told}").into())
}

/// What each thread has executed, by the number of the thread.
fn threads(file: &Path) -> Outcome<BTreeMap<String, u64>> {
    let (folder, name) = (file.parent().ok_or("no folder")?, file.file_name().ok_or("no name")?);
    let prefix = format!("{}-", name.to_string_lossy());
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(thread) = name.strip_prefix(&prefix) {
            let text = fs::read_to_string(entry.path())?;
            let sum = text.lines().find_map(|line| line.strip_prefix("totals: "));
            let sum = sum.ok_or("callgrind has counted nothing")?.trim().parse()?;
            threads.insert(thread.to_owned(), sum);
        }
    }
    Ok(threads)
}

/// Prints the figures beside those recorded, which they replace if wanted.
#[expect(clippy::print_stdout, reason = "this is what it is for")]
fn tell(measured: &BTreeMap<&str, u64>, record: bool) -> Outcome<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/instructions.tsv");
    let text = fs::read_to_string(&file).unwrap_or_default();
    let rows = text.lines().filter_map(|line| line.split_once('\t'));
    let mut recorded: BTreeMap<&str, u64> =
        rows.filter_map(|(name, count)| Some((name, count.parse().ok()?))).collect();
    println!("{:12} {:>10} {:>10} {:>8}", "scenario", "recorded", "now", "change");
    for (name, now) in measured {
        let before = recorded.insert(name, *now);
        let permille =
            |before: u64| (now * 1000).cast_signed() / before.max(1).cast_signed() - 1000;
        let change = before.map_or("-".to_owned(), |before| {
            let permille = permille(before);
            format!(
                "{}{}.{} %",
                if permille < 0 { "-" } else { "+" },
                permille.abs() / 10,
                permille.abs() % 10
            )
        });
        let before = before.map_or("-".to_owned(), |before| before.to_string());
        println!("{name:12} {before:>10} {now:>10} {change:>8}");
    }
    if record {
        let mut rows = String::new();
        for (name, count) in &recorded {
            let _ = writeln!(rows, "{name}\t{count}");
        }
        let head = "# Instructions per request of the worker thread, in user space: `make bench-instructions`\n";
        fs::write(&file, format!("{head}{rows}"))?;
    }
    Ok(())
}
