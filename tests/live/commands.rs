//! The command table against a real server, which is asked for its own table and for the keys of sample requests.
//!
//! The server is `redis-server`, or the program that `SLOTWAY_TEST_SERVER` names. One that is newer than the table may
//! know more commands: those have to be learned.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis_protocol::resp2::decode::decode_bytes;
use redis_protocol::resp2::types::BytesFrame;
use slotway::command::keys::positions;
use slotway::command::learned::Learned;
use slotway::command::{Flags, Group, Keys, Policy, Spec, table};
use slotway::resp::frame::{Progress, ReplyFramer};
use tempfile::TempDir;

use crate::client::wire;

/// A server of its own on a unix socket, ended when dropped.
pub(crate) struct Server {
    process: Child,
    stream: UnixStream,
    _directory: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        let program =
            std::env::var("SLOTWAY_TEST_SERVER").unwrap_or_else(|_| "redis-server".into());
        let directory = tempfile::tempdir().expect("a directory");
        let socket = directory.path().join("socket");
        let mut process = Command::new(&program)
            .args(["--port", "0", "--save", "", "--unixsocket"])
            .arg(&socket)
            .arg("--dir")
            .arg(directory.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let stream = connect(&socket, &mut process);
        Self { process, stream, _directory: directory }
    }

    pub(crate) fn ask<A: AsRef<[u8]>>(&mut self, args: &[A]) -> BytesFrame {
        let (frame, _) = decode_bytes(&self.raw(args)).expect("RESP2").expect("all of it");
        frame
    }

    /// The reply as it came.
    pub(crate) fn raw<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Bytes {
        self.stream.write_all(&wire(args)).expect("the server reads");
        let (mut reply, mut part) = (Vec::new(), [0; 1 << 14]);
        loop {
            let count = self.stream.read(&mut part).expect("the server writes");
            assert_ne!(count, 0, "the server closed the connection");
            reply.extend(&part[..count]);
            let framed = ReplyFramer::default().frame(&reply).expect("RESP");
            if framed == Progress::Complete(reply.len()) {
                return reply.into();
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Connects as soon as the server accepts, within a few seconds.
fn connect(socket: &Path, process: &mut Child) -> UnixStream {
    let limit = Instant::now() + Duration::from_secs(10);
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => return stream,
            Err(error) => assert!(Instant::now() < limit, "no connection: {error}"),
        }
        if let Some(status) = process.try_wait().expect("our child") {
            panic!("the server ended: {status}");
        }
        std::thread::yield_now();
    }
}

fn items(frame: &BytesFrame) -> &[BytesFrame] {
    if let BytesFrame::Array(items) = frame { items } else { panic!("no array: {frame:?}") }
}

fn text(frame: &BytesFrame) -> String {
    let (BytesFrame::SimpleString(text) | BytesFrame::BulkString(text)) = frame else {
        panic!("no text: {frame:?}")
    };
    String::from_utf8(text.to_vec()).expect("UTF-8")
}

fn number(frame: &BytesFrame) -> i64 {
    if let BytesFrame::Integer(number) = frame { *number } else { panic!("no number: {frame:?}") }
}

/// Where older servers differ from the row, which is that of newer ones: name, and arity or flag.
const DIFFERENCES: &[(&str, &str)] = &[
    ("zrank", "arity"),
    ("zrevrank", "arity"),
    ("command|getkeys", "arity"),
    ("command|getkeysandflags", "arity"),
    ("blmove", "noscript"),
    ("blpop", "noscript"),
    ("brpop", "noscript"),
    ("brpoplpush", "noscript"),
    ("bzpopmax", "noscript"),
    ("bzpopmin", "noscript"),
    ("wait", "noscript"),
    ("wait", "blocking"),
];

/// Flags that newer servers have come to set or not to set on old commands, and that mean nothing to the proxy.
const DRIFTING: &[&str] =
    &["loading", "stale", "no_multi", "no_async_loading", "module", "denyoom"];

/// Compares a row with the server's, and gives all that is amiss.
fn compare(name: &str, spec: &Spec, row: &[BytesFrame], exact: bool) -> Vec<String> {
    let mut amiss = Vec::new();
    let mut expect = |what: &str, server: String, table: String| {
        if server != table && !DIFFERENCES.contains(&(name, what)) {
            amiss.push(format!("{name}: {what} is {server} to the server, {table} in the table"));
        }
    };
    if spec.arity != -1 {
        expect("arity", number(&row[1]).to_string(), spec.arity.to_string());
    }
    let server: Vec<_> = items(&row[2]).iter().map(text).collect();
    let table: Vec<_> = spec.flags.words().map(str::to_owned).collect();
    for word in
        server.iter().chain(&table).filter(|word| exact || !DRIFTING.contains(&word.as_str()))
    {
        expect(word, server.contains(word).to_string(), table.contains(word).to_string());
    }
    let (first, last, step) = spec.keys.legacy();
    let keys: Vec<_> = row[3..6].iter().map(number).collect();
    expect(
        "keys",
        format!("{keys:?}"),
        format!("{:?}", [first.into(), last.into(), i64::from(step)]),
    );
    if exact && !DIFFERENCES.iter().any(|(differing, _)| *differing == name) {
        let categories: Vec<_> = spec.categories().map(|category| format!("@{category}")).collect();
        expect(
            "categories",
            items(&row[6]).iter().map(text).collect::<Vec<_>>().join(" "),
            categories.join(" "),
        );
        expect("flags' order", server.join(" "), table.join(" "));
    }
    amiss
}

fn is_exact(server: &mut Server) -> bool {
    let info = text(&server.ask(&["INFO", "server"]));
    info.contains("redis_version:7.0.") && !info.contains("valkey_version")
}

#[test]
fn rows_are_those_of_the_server() {
    let mut server = Server::start();
    let exact = is_exact(&mut server);
    let reply = server.ask(&["COMMAND"]);
    let learned = Learned::from_reply(&reply);
    let mut amiss = Vec::new();
    for row in items(&reply).iter().map(items) {
        let name = text(&row[0]);
        let Some(spec) = table::lookup(name.as_bytes()) else {
            let covered = !exact && learned.lookup(name.as_bytes()).is_some();
            amiss.extend((!covered).then(|| format!("{name} is not in the table")));
            continue;
        };
        amiss.extend(compare(&name, spec, row, exact));
        if spec.subcommands.is_empty() {
            continue;
        }
        for row in row.get(9).map_or(&[][..], items).iter().map(items) {
            let full = text(&row[0]);
            let (_, subcommand) = full.split_once('|').unwrap();
            match table::subcommand(spec, subcommand.as_bytes()) {
                Some(spec) => amiss.extend(compare(&full, spec, row, exact)),
                None => amiss.extend(exact.then(|| format!("{full} is not in the table"))),
            }
        }
    }
    assert!(amiss.is_empty(), "{}", amiss.join("\n"));
}

/// What learning can tell of a row's keys: not the words that announce one, for which the server has no key spec, and of
/// `STREAMS` only that there is the word.
fn learnable(keys: Keys) -> Keys {
    match keys {
        Keys::Worded { .. } => Keys::Range { first: 1, last: 1, step: 1 },
        Keys::Streams { .. } => Keys::Streams { from: 0 },
        keys => keys,
    }
}

#[test]
fn learning_finds_the_keys_that_the_table_has() {
    let mut server = Server::start();
    let BytesFrame::Array(mut rows) = server.ask(&["COMMAND"]) else { panic!("no array") };
    for row in &mut rows {
        let BytesFrame::Array(row) = row else { panic!("no row: {row:?}") };
        row[0] = BytesFrame::BulkString(format!("x.{}", text(&row[0])).into());
    }
    let learned = Learned::from_reply(&BytesFrame::Array(rows));
    let mut count = 0;
    for (name, spec) in learned.iter() {
        let Some(known) = table::lookup(&name.as_bytes()["x.".len()..]) else { continue };
        if known.subcommands.is_empty() {
            assert_eq!(learnable(spec.keys), learnable(known.keys), "{name}");
            count += 1;
        }
    }
    assert!(count > 200, "only {count} rows were learned");
}

/// Requests of every way in which keys can be placed; every command of the table with keys is tried besides.
const REQUESTS: &[&str] = &[
    "GET k",
    "SET k v",
    "SET k v EX 10 GET",
    "SET k v NX PX 10",
    "GETEX k PERSIST",
    "MGET a b c",
    "MGET a a",
    "MSET a 1 b 2",
    "MSETNX a 1 b 2 c 3",
    "DEL a b",
    "UNLINK a",
    "EXISTS a a",
    "TOUCH a b",
    "RENAME a b",
    "COPY a b DB 0 REPLACE",
    "LCS a b LEN",
    "DUMP k",
    "RESTORE k 0 data REPLACE",
    "OBJECT ENCODING k",
    "OBJECT FREQ k",
    "MEMORY USAGE k",
    "MEMORY USAGE k SAMPLES 5",
    "SORT k",
    "SORT k STORE d",
    "SORT k BY w_* LIMIT 0 5 GET # GET o_* ASC ALPHA STORE d",
    "SORT k BY store GET store STORE d",
    "SORT k LIMIT store store",
    "SORT k STORE d STORE e",
    "SORT_RO k BY w_* GET store",
    "BITCOUNT k 0 -1",
    "BITFIELD k GET u8 0",
    "BITFIELD k SET u8 0 1",
    "BITFIELD_RO k GET u8 0",
    "BITOP AND d a b",
    "BITOP NOT d a",
    "HSET k f v g w",
    "LPUSH k a b",
    "LMOVE a b LEFT RIGHT",
    "RPOPLPUSH a b",
    "LMPOP 1 a LEFT",
    "LMPOP 2 a b RIGHT COUNT 3",
    "BLMPOP 0 2 a b LEFT",
    "BLPOP a b 0",
    "BRPOPLPUSH a b 0",
    "BLMOVE a b LEFT LEFT 0",
    "SMOVE a b m",
    "SUNION a b c",
    "SDIFFSTORE d a b",
    "SINTERCARD 2 a b LIMIT 5",
    "ZADD k 1 m",
    "ZMPOP 1 a MIN",
    "ZMPOP 2 a b MAX COUNT 2",
    "BZMPOP 0 2 a b MIN",
    "BZPOPMIN a b 0",
    "ZUNION 2 a b WEIGHTS 1 2",
    "ZINTER 3 a b c WITHSCORES",
    "ZDIFF 1 a",
    "ZINTERCARD 2 a b LIMIT 1",
    "ZUNIONSTORE d 2 a b AGGREGATE MAX",
    "ZINTERSTORE d 1 a",
    "ZDIFFSTORE d 2 a b",
    "ZRANGESTORE d k 0 -1",
    "ZUNIONSTORE d 3 a b",
    "GEOADD k 1 2 m",
    "GEORADIUS k 1 2 3 km",
    "GEORADIUS k 1 2 3 km COUNT 5 STORE d",
    "GEORADIUS_RO k 1 2 3 km",
    "GEORADIUSBYMEMBER k m 3 km STOREDIST d",
    "GEORADIUSBYMEMBER k m 3 km ASC",
    "GEOSEARCHSTORE d k FROMMEMBER m BYRADIUS 1 km",
    "PFCOUNT a b",
    "PFMERGE d a b",
    "XADD k * f v",
    "XREAD STREAMS a 0",
    "XREAD COUNT 5 BLOCK 0 STREAMS a b 0 0",
    "XREAD COUNT streams STREAMS STREAMS 0",
    "XREADGROUP GROUP g c STREAMS a >",
    "XREADGROUP GROUP STREAMS c COUNT 1 NOACK STREAMS a b > >",
    "XREADGROUP GROUP g STREAMS STREAMS a >",
    "XGROUP CREATE k g $",
    "XGROUP CREATECONSUMER k g c",
    "XGROUP DESTROY k g",
    "XINFO STREAM k FULL",
    "XINFO CONSUMERS k g",
    "XAUTOCLAIM k g c 0 0",
    "EVAL s 2 a b c",
    "EVAL s 1 a",
    "EVAL s 0",
    "EVAL s 0 a",
    "EVAL s x a",
    "EVAL s -1 a",
    "EVAL s 5 a",
    "EVALSHA s 1 a b",
    "EVAL_RO s 2 a b",
    "EVALSHA_RO s 1 a",
    "FCALL f 2 a b c",
    "FCALL_RO f 1 a",
    "FCALL f 0",
    "WATCH a b",
];

/// The row of a request, its subcommand's if it has one.
fn row(args: &[&str]) -> &'static Spec {
    let container = table::lookup(args[0].as_bytes()).expect("a row");
    let subcommand = args.get(1).and_then(|name| table::subcommand(container, name.as_bytes()));
    subcommand.unwrap_or(container)
}

/// A request of a row whose keys stand still, with as many arguments as it needs and one or two more.
fn plain(name: &str, spec: &Spec, more: usize) -> Vec<String> {
    let count = usize::from(spec.arity.unsigned_abs()) + if spec.arity < 0 { more } else { 0 };
    let names = name.split('|').map(str::to_owned);
    let arguments = (0..).map(|index| format!("a{index}"));
    names.chain(arguments).take(count).collect()
}

/// Whether the server, too, sees keys in the plain requests of a row: not those that it refuses for their number of
/// arguments, nor a channel, which has a slot but is no key, nor what only the proxy routes by a key.
fn is_comparable(name: &str, spec: &Spec) -> bool {
    let moving = spec.flags.has(Flags::MOVABLE_KEYS);
    let narrower = DIFFERENCES.contains(&(name, "arity")) || spec.arity == -1;
    let keyless =
        spec.group == Group::PubSub || name == "debug|object" || spec.policy == Policy::Refuse;
    !moving && !narrower && !keyless
}

/// The keys in their argument's order; the server's order is its own.
fn sorted<T: Ord>(mut keys: Vec<T>) -> Vec<T> {
    keys.sort();
    keys
}

fn check_keys(server: &mut Server, args: &[&str]) {
    let found = positions(row(args).keys, args).map_or(Vec::new(), Iterator::collect);
    let ours = sorted(found.into_iter().map(|position| args[position].to_owned()).collect());
    let reply = server.ask(&[&["COMMAND", "GETKEYS"], args].concat());
    let theirs = match &reply {
        BytesFrame::Error(_) => Vec::new(),
        reply => sorted(items(reply).iter().map(text).collect()),
    };
    assert_eq!(ours, theirs, "{}: {reply:?}", args.join(" "));
}

#[test]
fn keys_are_those_of_the_server() {
    let mut server = Server::start();
    for request in REQUESTS {
        check_keys(&mut server, &request.split(' ').collect::<Vec<_>>());
    }
    let reply = server.ask(&["COMMAND"]);
    for name in items(&reply).iter().map(|row| text(&items(row)[0])) {
        let Some(spec) = table::lookup(name.as_bytes()) else { continue };
        let subcommands = spec.subcommands.iter().map(|sub| (format!("{name}|{}", sub.name), sub));
        for (name, spec) in subcommands.chain([(name.clone(), spec)]) {
            if !is_comparable(&name, spec) {
                continue;
            }
            for more in 1..=2 {
                let args = plain(&name, spec, more);
                check_keys(&mut server, &args.iter().map(String::as_str).collect::<Vec<_>>());
            }
        }
    }
}
