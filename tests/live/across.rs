//! Commands with keys in several slots are those of one server, where the proxy does them.

use std::cell::Cell;
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use slotway::cluster::Slot;
use slotway::command::CrossSlot;
use slotway::proxy::Running;
use slotway::resp::{Protocol, value};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

use crate::client::{Client, ok, wire};
use crate::cluster::{Cluster, steady};
use crate::commands::Server;
use crate::{Dice, beside_others, front, until};

/// How often the proxy is killed, and how many clients are at each case then.
const ROUNDS: usize = 8;
const EACH: usize = 4;

/// Scripts of commands divided by `;`, each run from nothing. No two keys of a script share a slot, nor do members decide the
/// order in which sets are told.
const SCRIPTS: &[&str] = &[
    "SADD s 1 2 3; SADD t 2 3 4; SINTER s t; SUNION s t; SDIFF s t; SDIFF t s s; SUNION t q; SINTERCARD 2 s t; SINTERCARD 2 s t LIMIT 1; SINTERCARD 3 s t; SUNIONSTORE u s t; SMEMBERS u; SINTERSTORE u s t; SDIFFSTORE u s t; SMEMBERS u; SINTERSTORE u q t; EXISTS u; SUNIONSTORE s s t; SMEMBERS s",
    "SET a v; SADD s 1; SUNION s a; SUNION a s; SDIFFSTORE u s a; SINTERCARD 2 a s; SMOVE s a 1; SMOVE a s 1; RPOPLPUSH a s; PFCOUNT s a; LCS s a; ZUNIONSTORE z 2 a s; XREAD STREAMS a s 0 0; BLPOP s a 0.01; SISMEMBER s 1; GET a",
    "ZADD z 1 a 2.5 b 1e300 c; ZADD y 3 b 4 c -inf d; ZUNION 2 z y WITHSCORES; ZINTER 2 z y WITHSCORES; ZINTER 2 z y WEIGHTS 2 0.1 AGGREGATE MIN WITHSCORES; ZDIFF 2 z y WITHSCORES; ZDIFF 2 z y; ZINTERCARD 2 z y; ZUNIONSTORE x 2 z y WEIGHTS 2 0.5; ZRANGE x 0 -1 WITHSCORES; ZINTERSTORE x 2 z y AGGREGATE MAX; ZDIFFSTORE x 2 z y; ZRANGE x 0 -1 WITHSCORES; ZUNION 2 z; ZUNION 0 z y; ZUNION 2 z y WEIGHTS 1",
    "ZADD z 1 a 2 b 3 c; ZRANGESTORE y z 0 1; ZRANGE y 0 -1 WITHSCORES; ZRANGESTORE y z 2 3 BYSCORE REV; ZRANGESTORE y z 3 2 BYSCORE REV; ZRANGE y 0 -1; ZRANGESTORE y q 0 -1; EXISTS y; SADD s a e; ZUNIONSTORE x 2 z s; ZRANGE x 0 -1 WITHSCORES",
    "GEOADD g 13.361389 38.115556 Palermo 15.087269 37.502669 Catania; GEORADIUS g 15 37 200 km STORE h; ZRANGE h 0 -1 WITHSCORES; GEORADIUSBYMEMBER g Palermo 500 km STOREDIST h; ZRANGE h 0 -1 WITHSCORES; GEOSEARCHSTORE k g FROMMEMBER Palermo BYBOX 400 400 km STOREDIST; ZRANGE k 0 -1 WITHSCORES; GEOSEARCHSTORE k q FROMMEMBER Palermo BYBOX 400 400 km",
    "PFADD p a b c; PFADD q c d e f; PFCOUNT p q; PFCOUNT p z q; PFMERGE r p q; PFCOUNT r; PFMERGE p q; PFCOUNT p; PFCOUNT p r",
    "SET a ohmytext; SET b mynewtext; LCS a b; LCS a b LEN; LCS a b IDX MINMATCHLEN 4 WITHMATCHLEN; LCS a z; BITOP AND c a b; GET c; BITOP XOR c a b z; STRLEN c; BITOP NOT c a; BITOP NOT c a b; BITOP OR a b c; GET a",
    "SET a v; RENAME a b; GET b; EXISTS a; RENAME a c; SET c w; RENAMENX b c; RENAMENX b d; GET d; RENAME d c; GET c; RENAMENX z y; SET e x EX 1000; RENAME e f; TTL f; TTL e; RPUSH l 1 2 3; RENAME l c; LRANGE c 0 -1; TYPE c",
    "SET a v EX 1000; COPY a b; TTL b; COPY a b; COPY a b REPLACE; COPY z b; COPY a b NONSENSE; GET b; COPY a c DB 0; HSET h f v; COPY h a REPLACE; HGETALL a",
    "SADD s a b; SMOVE s t a; SMEMBERS t; SMOVE s t a; SMOVE s t b; EXISTS s; SMOVE q t a; SADD s a; SMOVE s t a; SCARD s; SCARD t",
    "RPUSH l a b c; RPOPLPUSH l m; LMOVE l m LEFT RIGHT; LRANGE m 0 -1; LRANGE l 0 -1; LMOVE l m UP DOWN; RPOPLPUSH q m; LMOVE q m LEFT LEFT; BLMOVE l m LEFT LEFT 1; BRPOPLPUSH q m 0.01; BLMOVE q m LEFT LEFT 0.01; LRANGE m 0 -1; EXISTS l; RPUSH d x x; LMOVE d e LEFT RIGHT; LMOVE d e RIGHT LEFT; LRANGE e 0 -1",
    "RPUSH l a b; BLPOP q l 1; BRPOP l q 0; BLPOP q l 0.01; RPUSH l a b c d; LMPOP 2 q l LEFT COUNT 2; LMPOP 2 q z RIGHT; BLMPOP 1 2 q l RIGHT COUNT 5; BLMPOP 0.01 2 q l LEFT; BLPOP q l -1; BLPOP q l x; LMPOP 2 q l UP; LMPOP 2 l",
    "ZADD z 1 a 2 b 3 c 4.5 d; BZPOPMIN q z 1; BZPOPMAX q z 0; ZMPOP 2 q z MIN COUNT 1; ZMPOP 2 q y MAX; BZMPOP 1 2 q z MAX; BZMPOP 0.01 2 q z MIN; BZPOPMIN q z 0.01",
    "XADD x 1-1 f v; XADD y 2-1 g w h i; XREAD STREAMS x y 0 0; XREAD COUNT 1 STREAMS y x 0 0; XREAD STREAMS x y 1-1 0; XREAD STREAMS x y 9 9; XREAD STREAMS x q 0 0; XREAD BLOCK 10 STREAMS x y $ $; XREAD BLOCK 10 STREAMS x y 0 $; XREAD STREAMS x y 0; XREAD STREAMS x y bad 0; XREAD BLOCK -1 STREAMS x y 0 0; XREAD BLOCK x STREAMS x y 0 0",
    "XGROUP CREATE x g $ MKSTREAM; XGROUP CREATE y g $ MKSTREAM; XADD x 1-1 f v; XADD y 1-1 f v; XREADGROUP GROUP g c STREAMS x y > >; XREADGROUP GROUP g c STREAMS x y > >; XREADGROUP GROUP g c STREAMS x y 0 0; XREADGROUP GROUP g c BLOCK 10 STREAMS x y > >; XPENDING y g; XREADGROUP GROUP z c STREAMS x y > >",
    "MSETNX a 1 b 2; MGET a b; MSETNX b 3 c 4; EXISTS c; MSETNX c 1 d; MSETNX c 1 d 2 e 3; MGET c d e",
    "RPUSH l 3 1 2; SORT l STORE m; LRANGE m 0 -1; SET w_1 9; SET w_2 5; SET w_3 7; SORT l BY w_* STORE m; LRANGE m 0 -1; SORT l BY w_* GET # GET v_* STORE m; LRANGE m 0 -1; SORT q BY w_* STORE m; EXISTS m; SORT l STORE; SORT l BY w_* STORE k STORE m; LRANGE m 0 -1; SORT l BY w_* DESC LIMIT 0 2 STORE l; LRANGE l 0 -1; SADD s b c a; SORT s BY nosort STORE m; LRANGE m 0 -1; SORT s STORE m; SORT s ALPHA DESC STORE m; LRANGE m 0 -1",
];

fn words(command: &str) -> Vec<&str> {
    command.split(' ').collect()
}

async fn raw(client: &mut Client, command: &str) -> Bytes {
    client.send(&wire(&words(command))).await.expect("the request is taken");
    client.raw_reply().await.expect("a reply")
}

async fn emulating(cluster: &Cluster) -> Running {
    let mut options = front::options(cluster.addresses());
    options.session.cross_slot = CrossSlot::Emulate;
    front::start(options).await
}

async fn check(protocol: Protocol) {
    let cluster = steady().await;
    let proxy = emulating(&cluster).await;
    let (mut client, mut server) = (Client::to(proxy.data).await, Server::start());
    if protocol == Protocol::Resp3 {
        client.hello3().await.expect("RESP3");
        server.raw(&["HELLO", "3"]);
    }
    let mut others = Vec::new();
    for script in SCRIPTS {
        assert_eq!(client.call("FLUSHALL").await, ok());
        server.raw(&["FLUSHALL"]);
        for command in script.split("; ") {
            let expected = server.raw(&words(command)).escape_ascii().to_string();
            let reply = raw(&mut client, command).await.escape_ascii().to_string();
            if reply != expected {
                others.push(format!("{command}\n  {reply}\n  {expected}"));
            }
        }
        let keys = server.raw(&["DBSIZE"]);
        assert_eq!(raw(&mut client, "DBSIZE").await, keys, "copies are left behind: {script}");
    }
    assert!(others.is_empty(), "{}", others.join("\n"));
    proxy.shutdown().await;
}

#[tokio::test]
async fn commands_across_slots_are_those_of_one_server() {
    check(Protocol::Resp2).await;
}

#[tokio::test]
async fn commands_across_slots_are_those_of_one_server_in_resp3() {
    check(Protocol::Resp3).await;
}

/// What waits for several nodes hears of what comes to one of them.
#[tokio::test]
async fn waiting_for_several_slots_ends_when_something_comes() {
    let cluster = steady().await;
    let proxy = emulating(&cluster).await;
    let mut other = Client::to(proxy.data).await;
    assert_eq!(other.call("FLUSHALL").await, ok());
    let checks = [
        ("BLPOP q l 0", "RPUSH l v", "*2\\r\\n$1\\r\\nl\\r\\n$1\\r\\nv\\r\\n"),
        ("BRPOPLPUSH l m 0", "RPUSH l w", "$1\\r\\nw\\r\\n"),
        ("BZPOPMIN y z 0", "ZADD z 1 a", "*3\\r\\n$1\\r\\nz\\r\\n$1\\r\\na\\r\\n$1\\r\\n1\\r\\n"),
        (
            "XREAD BLOCK 0 STREAMS x s $ $",
            "XADD s 1-1 f v",
            "*1\\r\\n*2\\r\\n$1\\r\\ns\\r\\n*1\\r\\n*2\\r\\n$3\\r\\n1-1\\r\\n*2\\r\\n$1\\r\\nf\\r\\n$1\\r\\nv\\r\\n",
        ),
    ];
    for (waits, ends, expected) in checks {
        let mut client = Client::to(proxy.data).await;
        let waiting = async { raw(&mut client, waits).await.escape_ascii().to_string() };
        let ending = async {
            until(Duration::from_secs(10), "somebody waits", async || {
                let info = raw(&mut other, "INFO clients").await.escape_ascii().to_string();
                if info.contains("blocked_clients:1") { Ok(()) } else { Err(info) }
            })
            .await;
            raw(&mut other, ends).await
        };
        let (reply, _) = tokio::join!(waiting, ending);
        assert_eq!(reply, expected, "{waits}");
    }
    proxy.shutdown().await;
}

/// Without being told to, the proxy does what only reads; what writes is refused as by a node, as all is within `MULTI`.
#[tokio::test]
async fn only_reads_are_done_across_slots_unless_told() {
    let cluster = steady().await;
    assert_ne!(Slot::of(b"s"), Slot::of(b"t"));
    let refused = "-CROSSSLOT Keys in request don\\'t hash to the same slot\\r\\n";
    for (mode, sunion) in [(CrossSlot::Strict, refused), (CrossSlot::Read, "*0\\r\\n")] {
        let mut options = front::options(cluster.addresses());
        options.session.cross_slot = mode;
        let proxy = front::start(options).await;
        let mut client = Client::to(proxy.data).await;
        assert_eq!(client.call("FLUSHALL").await, ok());
        let writes = ["SUNIONSTORE u s t", "RENAME s t", "BLPOP s t 0", "SORT s STORE t"];
        let reads = ["SUNION s t"].map(|line| (line, sunion));
        let all = writes.map(|line| (line, refused)).into_iter().chain(reads);
        for (line, expected) in all {
            let reply = raw(&mut client, line).await.escape_ascii().to_string();
            assert_eq!(reply, expected, "{mode:?} {line}");
        }
        assert_eq!(client.call("MULTI").await, ok());
        let reply = raw(&mut client, "SUNION s t").await.escape_ascii().to_string();
        assert_eq!(reply, refused);
        proxy.shutdown().await;
    }
}

/// What a client does over and over, and what has to be true wherever it was stopped. `%` stands for keys of its own, whose slots
/// are others.
struct Case {
    prepare: &'static [&'static str],
    repeat: &'static [&'static str],
    rules: &'static [Rule],
}

enum Rule {
    /// The reply is one of these.
    OneOf(&'static str, &'static [&'static str]),
    /// It is not this.
    Not(&'static str, &'static str),
    /// One of these commands is answered so, at least.
    Somewhere(&'static [&'static str], &'static str),
    /// One of these commands is not answered nil.
    Anywhere(&'static [&'static str]),
}

use Rule::{Anywhere, Not, OneOf, Somewhere};

/// Every command that is done across slots and writes.
const CASES: &[Case] = &[
    Case {
        prepare: &["SET %a v PX 900000"],
        repeat: &["RENAME %a %b", "RENAME %b %a"],
        rules: &[
            Somewhere(&["GET %a", "GET %b"], "$1\r\nv\r\n"),
            OneOf("GET %a", &["$1\r\nv\r\n", "$-1\r\n"]),
            OneOf("GET %b", &["$1\r\nv\r\n", "$-1\r\n"]),
            Not("TTL %a", ":-1\r\n"),
            Not("TTL %b", ":-1\r\n"),
        ],
    },
    Case {
        prepare: &["HSET %a f v", "PEXPIRE %a 900000"],
        repeat: &["RENAMENX %a %b", "RENAMENX %b %a"],
        rules: &[
            Somewhere(&["HGET %a f", "HGET %b f"], "$1\r\nv\r\n"),
            Not("TTL %a", ":-1\r\n"),
            Not("TTL %b", ":-1\r\n"),
        ],
    },
    Case {
        prepare: &["SET %a v PX 900000"],
        repeat: &["COPY %a %b REPLACE", "DEL %b"],
        rules: &[
            OneOf("GET %a", &["$1\r\nv\r\n"]),
            OneOf("GET %b", &["$1\r\nv\r\n", "$-1\r\n"]),
            Not("TTL %b", ":-1\r\n"),
        ],
    },
    Case {
        prepare: &["SADD %s m n", "SADD %t o"],
        repeat: &["SMOVE %s %t m", "SMOVE %t %s m"],
        rules: &[
            Somewhere(&["SISMEMBER %s m", "SISMEMBER %t m"], ":1\r\n"),
            OneOf("SISMEMBER %s n", &[":1\r\n"]),
            OneOf("SISMEMBER %t o", &[":1\r\n"]),
        ],
    },
    Case {
        prepare: &["RPUSH %l a b", "RPUSH %m c"],
        repeat: &[
            "LMOVE %l %m LEFT LEFT",
            "RPOPLPUSH %m %l",
            "BLMOVE %m %l LEFT RIGHT 1",
            "BRPOPLPUSH %l %m 1",
        ],
        rules: &[
            Anywhere(&["LPOS %l a", "LPOS %m a"]),
            Anywhere(&["LPOS %l b", "LPOS %m b"]),
            Anywhere(&["LPOS %l c", "LPOS %m c"]),
        ],
    },
    Case {
        prepare: &["SADD %s 1 2", "SADD %t 2 3"],
        repeat: &["SUNIONSTORE %u %s %t", "SINTERSTORE %u %s %t", "SDIFFSTORE %u %s %t"],
        rules: &[
            OneOf("SCARD %s", &[":2\r\n"]),
            OneOf("SCARD %t", &[":2\r\n"]),
            OneOf(
                "SMEMBERS %u",
                &[
                    "*0\r\n",
                    "*3\r\n$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n",
                    "*1\r\n$1\r\n2\r\n",
                    "*1\r\n$1\r\n1\r\n",
                ],
            ),
        ],
    },
    Case {
        prepare: &["ZADD %s 1 a 2 b", "ZADD %t 3 b 4 c"],
        repeat: &[
            "ZUNIONSTORE %u 2 %s %t",
            "ZINTERSTORE %u 2 %s %t",
            "ZDIFFSTORE %u 2 %s %t",
            "ZRANGESTORE %u %s 0 0",
        ],
        rules: &[
            OneOf("ZCARD %s", &[":2\r\n"]),
            OneOf("ZCARD %t", &[":2\r\n"]),
            OneOf(
                "ZRANGE %u 0 -1 WITHSCORES",
                &[
                    "*0\r\n",
                    "*6\r\n$1\r\na\r\n$1\r\n1\r\n$1\r\nc\r\n$1\r\n4\r\n$1\r\nb\r\n$1\r\n5\r\n",
                    "*2\r\n$1\r\nb\r\n$1\r\n5\r\n",
                    "*2\r\n$1\r\na\r\n$1\r\n1\r\n",
                ],
            ),
        ],
    },
    Case {
        prepare: &["GEOADD %g 13.361389 38.115556 p 15.087269 37.502669 c"],
        repeat: &[
            "GEOSEARCHSTORE %h %g FROMMEMBER p BYRADIUS 500 km",
            "GEORADIUS %g 15 37 1 km STORE %h",
            "GEORADIUSBYMEMBER %g p 1 km STORE %h",
        ],
        rules: &[
            OneOf("ZCARD %g", &[":2\r\n"]),
            OneOf("ZCARD %h", &[":0\r\n", ":1\r\n", ":2\r\n"]),
        ],
    },
    Case {
        prepare: &["SET %a aa", "SET %b ba", "PFADD %p a b", "PFADD %q b c"],
        repeat: &["BITOP AND %c %a %b", "BITOP OR %c %a %b", "PFMERGE %r %p %q"],
        rules: &[
            OneOf("GET %c", &["$-1\r\n", "$2\r\n`a\r\n", "$2\r\nca\r\n"]),
            OneOf("PFCOUNT %r", &[":0\r\n", ":3\r\n"]),
            OneOf("PFCOUNT %p", &[":2\r\n"]),
        ],
    },
    Case {
        prepare: &["RPUSH %l 2 1", "MSET {%}x v {%}y w"],
        repeat: &["SORT %l STORE %m", "SORT %l BY nosort_* GET # STORE %m", "DEL %m"],
        rules: &[
            OneOf("LLEN %l", &[":2\r\n"]),
            OneOf("LRANGE %m 0 -1", &["*0\r\n", "*2\r\n$1\r\n1\r\n$1\r\n2\r\n"]),
        ],
    },
    Case {
        prepare: &["RPUSH %l a b c d e f g h", "ZADD %z 1 a 2 b 3 c 4 d"],
        repeat: &[
            "RPUSH %l x",
            "BLPOP %q %l 1",
            "LMPOP 2 %q %l RIGHT",
            "ZADD %z 1 a",
            "BZPOPMIN %q %z 1",
            "ZADD %z 1 a",
            "ZMPOP 2 %q %z MIN",
        ],
        rules: &[
            Not("LLEN %l", ":0\r\n"),
            Not("ZCARD %z", ":0\r\n"),
            OneOf("EXISTS %q", &[":0\r\n"]),
        ],
    },
    Case {
        prepare: &[],
        repeat: &["MSETNX %a v %b w", "DEL %a %b"],
        rules: &[
            OneOf("GET %a", &["$1\r\nv\r\n", "$-1\r\n"]),
            OneOf("GET %b", &["$1\r\nw\r\n", "$-1\r\n"]),
        ],
    },
];

impl Rule {
    async fn check(&self, client: &mut Client, name: &str) -> Result<(), String> {
        let mut reply = async |command: &str| {
            let reply = raw(client, &command.replace('%', name)).await;
            String::from_utf8_lossy(&reply).into_owned()
        };
        let (is_kept, what) = match self {
            OneOf(command, allowed) => {
                let reply = reply(command).await;
                (allowed.contains(&reply.as_str()), format!("{command}: {reply:?}"))
            }
            Not(command, refused) => {
                let reply = reply(command).await;
                (reply != *refused, format!("{command}: {reply:?}"))
            }
            Somewhere(commands, expected) => {
                let mut replies = Vec::new();
                for command in *commands {
                    replies.push(reply(command).await);
                }
                (
                    replies.iter().any(|reply| reply == expected),
                    format!("{commands:?}: {replies:?}"),
                )
            }
            Anywhere(commands) => {
                let mut replies = Vec::new();
                for command in *commands {
                    replies.push(reply(command).await);
                }
                (
                    replies.iter().any(|reply| reply != "$-1\r\n"),
                    format!("{commands:?}: {replies:?}"),
                )
            }
        };
        if is_kept { Ok(()) } else { Err(format!("{name}: {what}")) }
    }
}

/// A proxy as a program that can be killed, and where it listens.
async fn program(cluster: &Cluster) -> (Child, Lines<BufReader<ChildStderr>>, String) {
    let config = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(config.path(), "[client]\ncross_slot = \"emulate\"\n").expect("it is ours");
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command.arg("serve").arg("--config").arg(config.path()).args(cluster.addresses());
    command.args(["--workers", "1", "--http", "off", "--admin", "off", "--listen", "127.0.0.1:0"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.kill_on_drop(true).spawn().expect("it starts");
    let mut log = BufReader::new(process.stderr.take().expect("a log")).lines();
    loop {
        let line = log.next_line().await.expect("a log").expect("it runs");
        if let Some((_, rest)) = line.split_once(" data=") {
            let address = rest.split(' ').next().expect("an address").to_owned();
            return (process, log, address);
        }
    }
}

/// Repeats what a case says until the proxy is gone; gives how many commands were answered.
async fn repeat(case: &Case, name: String, mut client: Client, answered: &Cell<usize>) {
    loop {
        for command in case.repeat {
            let command = command.replace('%', &name);
            if client.send(&wire(&words(&command))).await.is_err() {
                return;
            }
            let Ok(reply) = client.raw_reply().await else { return };
            assert!(!reply.starts_with(b"-"), "{command}: {reply:?}");
            answered.set(answered.get() + 1);
        }
    }
}

/// Whatever steps the clients' commands are at when the proxy is killed.
#[tokio::test]
async fn a_proxy_that_is_killed_loses_nothing() {
    let cluster = steady().await;
    let judge = emulating(&cluster).await;
    let mut client = Client::to(judge.data).await;
    assert_eq!(client.call("FLUSHALL").await, ok());
    let mut dice = Dice::from_env();
    for round in 0..ROUNDS {
        let (mut process, log, address) = program(&cluster).await;
        let answered = Cell::new(0);
        let mut names = Vec::new();
        let mut clients = Vec::new();
        for (number, case) in CASES.iter().enumerate().flat_map(|one| [one; EACH]).enumerate() {
            let (number, case) = (format!("r{round}n{number}"), case.1);
            for command in case.prepare {
                let reply = raw(&mut client, &command.replace('%', &number)).await;
                assert!(!reply.starts_with(b"-"), "{command}: {reply:?}");
            }
            clients.push(repeat(case, number.clone(), Client::to(&address).await, &answered));
            names.push((case, number));
        }
        let enough = clients.len() * 4 + dice.below(400);
        let killing = async {
            while answered.get() < enough {
                tokio::task::yield_now().await;
            }
            process.kill().await.expect("it is ours");
        };
        tokio::join!(killing, join_all(clients));
        drop(log);
        for (case, name) in &names {
            for rule in case.rules {
                assert_eq!(rule.check(&mut client, name).await, Ok(()));
            }
        }
    }
    copies_end(&mut client).await;
    judge.shutdown().await;
}

/// Copies that were left behind end by themselves.
async fn copies_end(client: &mut Client) {
    let keys = client.call("KEYS slotway:copy:*").await;
    for key in value::array(&keys).expect("keys") {
        let key = value::text(key).expect("a name");
        let left = client.call(&format!("PTTL {key}")).await;
        assert!(value::integer(&left).is_some_and(|left| left <= 60_000 && left != -1), "{left:?}");
    }
}

/// Who does the same at the same time, over connections to nodes that are not shared.
const RIVALS: usize = 6;
/// How often they do it.
const CONTESTS: usize = 300;

/// Clients that move the same member at once do not take it back from each other.
#[tokio::test]
async fn a_member_that_several_move_is_not_lost() {
    let cluster = steady().await;
    let proxies = [emulating(&cluster).await, emulating(&cluster).await];
    let mut clients = Vec::new();
    for number in 0..RIVALS {
        clients.push(Client::to(proxies[number % proxies.len()].data).await);
    }
    assert_eq!(clients[0].call("FLUSHALL").await, ok());
    for contest in 0..CONTESTS {
        let member = format!("m{contest}");
        clients[0].call(&format!("SADD s {member}")).await;
        let command = format!("SMOVE s t {member}");
        let moving = clients.iter_mut().map(|client| raw(client, &command));
        join_all(moving).await;
        let replies = clients[0].call(&format!("SISMEMBER t {member}")).await;
        assert_eq!(value::integer(&replies), Some(1), "{member} is lost");
    }
    for proxy in proxies {
        proxy.shutdown().await;
    }
}

/// What others have written meanwhile is not deleted with what `MSETNX` takes back.
#[tokio::test]
async fn what_others_set_is_not_taken_back() {
    let cluster = steady().await;
    let proxies = [emulating(&cluster).await, emulating(&cluster).await];
    let mut setter = Client::to(proxies[0].data).await;
    let mut rival = Client::to(proxies[1].data).await;
    assert_eq!(setter.call("FLUSHALL").await, ok());
    for contest in 0..CONTESTS {
        let (a, b) = (format!("a{contest}"), format!("b{contest}"));
        let theirs = async {
            rival.call(&format!("SETNX {b} theirs")).await;
            rival.call(&format!("SET {a} theirs")).await
        };
        let command = format!("MSETNX {a} ours {b} ours");
        tokio::join!(raw(&mut setter, &command), theirs);
        let kept = raw(&mut setter, &format!("GET {a}")).await;
        assert_eq!(kept, "$6\r\ntheirs\r\n", "contest {contest}");
    }
    for proxy in proxies {
        proxy.shutdown().await;
    }
}

/// The copies cannot be made in a slot on its way until it has arrived.
#[tokio::test]
async fn a_slot_on_its_way_is_waited_for() {
    let cluster = Cluster::start(3, 0).await;
    let _turn = beside_others().await;
    let proxy = emulating(&cluster).await;
    let mut client = Client::to(proxy.data).await;
    let mut other = Client::to(proxy.data).await;
    for command in ["SADD {bar}s 1 2", "SADD t 2 3", "SET {bar}x 1"] {
        raw(&mut client, command).await;
    }
    let (mut moved, asking) = (0, [&mut client, &mut other]);
    let [reader, writer] = asking;
    let halfway = async || {
        moved += 1;
        if moved == 2 {
            reader.send(&wire(&words("SINTER {bar}s t"))).await.expect("it is taken");
            writer.send(&wire(&words("SINTERSTORE {bar}u {bar}s t"))).await.expect("it is taken");
            until(Duration::from_secs(5), "TRYAGAIN", async || {
                let said = cluster.errors_said().await;
                if said.contains_key("TRYAGAIN") { Ok(()) } else { Err(format!("{said:?}")) }
            })
            .await;
        }
    };
    cluster.move_slot(Slot::of(b"bar"), 1, halfway).await;
    let reply = client.raw_reply().await.expect("a reply");
    assert_eq!(reply.escape_ascii().to_string(), "*1\\r\\n$1\\r\\n2\\r\\n");
    let reply = other.raw_reply().await.expect("a reply");
    assert_eq!(reply.escape_ascii().to_string(), ":1\\r\\n");
    proxy.shutdown().await;
}
