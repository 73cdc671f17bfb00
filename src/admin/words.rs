//! Which words the admin port knows, and who answers them.

use std::sync::Arc;

use super::answer::Answer;
use super::complaint::Complaint;
use super::connection::{Session, Watched};
use super::jobs::{self, Begun};
use super::{Admin, cluster, order, proxy, settings};
use crate::refusal::Refusal;
use crate::resp::Protocol;

/// What comes of a request.
pub(super) type Outcome = Result<Answer, Complaint>;

const HELP: &[&str] = &[
    "PROXY <word> … on the admin port. Words are:",
    "CLUSTER INFO|NODES|SLOTS",
    "    The cluster as the proxy has it.",
    "CLUSTER TOPOLOGY [EPOCH]",
    "    The same, and what each node says of the owners of slots; EPOCH names the proxy's map only.",
    "CLUSTER CHECK [DEEP] [FORMAT text|json]",
    "    What is wrong with the cluster; DEEP also looks for keys where their slots are not.",
    "CLUSTER ADDNODE <addr> [REPLICA|REPLICAOF <id>] [REBALANCE yes|no] [WEIGHT <w>] [WITH <addr>[,<addr> ...]]",
    "    A job: a node joins and gets its share of the slots, WITH replicas before that, or follows a primary.",
    "CLUSTER DELNODE <id|addr> [STRATEGY auto|drain|promote|forget] [TO <id>[,<id> ...]] [SHUTDOWN]",
    "    A job: a node gives its slots away (drain, unless said otherwise), or its replica takes its place (promote; auto if one is",
    "    well), and it leaves.",
    "CLUSTER RESHARD SLOTS <n>|RANGES <a-b>[,<c-d> ...] [FROM ALL|<id>[,<id> ...]] TO <id>",
    "    A job: slots go to a primary.",
    "CLUSTER REBALANCE [WEIGHT <id>=<w> ...] [USEEMPTY] [THRESHOLD <percent>] [BY slots|keys|memory]",
    "    A job: primaries get their shares.",
    "CLUSTER FAILOVER <id> [TO <replica-id>] [FORCE|TAKEOVER]",
    "    A job: a replica takes its primary's place; TAKEOVER asks nobody, and needs FORCE no-majority.",
    "CLUSTER FIX [PLAN] [APPLY safe|confirm|all] [SLOT <s>[,<a-b> ...] ...]",
    "    A job: what is not whole is repaired, as far as that is no riskier; PLAN shows it.",
    "CLUSTER CALL [MASTERS|REPLICAS|ALL] <command> [<arg> ...]",
    "    What each node answers to a command, if admin.call permits it.",
    "CLUSTER SETTIMEOUT <ms>",
    "    Each node's cluster-node-timeout.",
    "CLUSTER CREATE <addr> ... [REPLICAS <n>] [ZONES <addr>=<zone> ...]",
    "    A job: empty nodes become a cluster; no primary has a replica in its own zone.",
    "CLUSTER IMPORT FROM redis://[[<user>]:<password>@]<host>[:<port>][/<db>] [COPY] [REPLACE] [DB <n>]",
    "    A job: the keys of a server that is no cluster move into it, or are copied.",
    "CLUSTER BACKUP <folder>",
    "    A job: what all primaries have is saved in files on the proxy's machine.",
    "    All jobs: [DRYRUN] [IFPLAN <plan_hash>] [JOBID <token>] [SYNC [TIMEOUT <ms>]] [FORCE <flag>[,<flag> ...]]",
    "    [METHOD auto|asm|legacy] [BATCH <n>] [MAXBLOCKMS <n>] [PARALLEL <n>]",
    "    [RATE <keys/s>|<n>MiB/s] [WAITREPLICAS <n>] [BIGKEYS fail|skip|allow].",
    "JOB LIST [ACTIVE] | STATUS <id>|ALL | LOG <id> [COUNT <n>] | PLAN <id>",
    "    Jobs, how far they are, what they did, and what they were to do.",
    "JOB WATCH <id>",
    "    Answers when it is over; with RESP3 each change is pushed before.",
    "JOB CANCEL <id>|ALL [NOW] | PAUSE <id> | RESUME <id> | SETRATE <id> [<keys/s>|<n>MiB/s] [MAXBLOCK <ms>]",
    "    Stop one after the slots on their way, or at once; hold it; go on, also with one that was cut off; slow it down.",
    "CLIENTS",
    "    How many clients there are, and where.",
    "STATS",
    "    The proxy's numbers.",
    "SLOT <key>",
    "    The slot of a key, and who owns it.",
    "CONFIG GET <pattern> ... | SET <name> <value> ... | RELOAD",
    "    The proxy's settings that can be changed while it runs; RELOAD reads the file again, and tells what waits for a restart.",
    "LOGLEVEL [<level>]",
    "    What is logged, as log.level of the configuration has it.",
    "DRAIN [<seconds>]",
    "    The proxy is not ready any more, lets clients finish, for so long at most, and ends, as on SIGTERM.",
    "REFRESH",
    "    Look at the cluster's map again.",
    "Beside PROXY: CLUSTER INFO|NODES|SLOTS|SHARDS|MYID as a node tells it, INFO, PING, AUTH, HELLO, QUIT.",
];

/// Answers a request, which has at least one word.
pub(super) async fn answer(admin: &Arc<Admin>, session: &mut Session, words: &[&str]) -> Outcome {
    let name = words[0].to_ascii_uppercase();
    match (name.as_str(), session.is_known) {
        ("AUTH", _) => authenticate(admin, session, words),
        ("HELLO", _) => hello(admin, session, words),
        ("QUIT", _) => {
            session.is_leaving = true;
            Ok(Answer::ok())
        }
        (_, false) => Err(Refusal::NoAuth.into()),
        ("PING", _) => match words {
            [_] => Ok(Answer::Simple("PONG".to_owned())),
            [_, text] => Ok((*text).into()),
            _ => Err(arity("ping")),
        },
        ("CLIENT", _) => client(session, words),
        // What a shell asks for its completions: none are better than those of other commands.
        ("COMMAND", _) => match words.get(1).map(|sub| sub.to_ascii_uppercase()).as_deref() {
            Some("DOCS") => Ok(Answer::Map(Vec::new())),
            Some("COUNT") => Ok(Answer::Integer(0)),
            _ => Ok(Answer::List(Vec::new())),
        },
        ("INFO", _) => Ok(Answer::Lines(proxy::info(admin))),
        ("CLUSTER", _) => cluster::of_a_node(admin, words).await,
        ("PROXY", _) => match *words {
            [_, job, watch, ref rest @ ..]
                if job.eq_ignore_ascii_case("job") && watch.eq_ignore_ascii_case("watch") =>
            {
                session.watched = Some(Watched::pushed(jobs::watched(admin, rest)?));
                Ok(Answer::Nil)
            }
            [_, cluster, ref order @ ..]
                if cluster.eq_ignore_ascii_case("cluster") && order::is_order(order) =>
            {
                begin(admin, session, order).await
            }
            _ => proxy_words(admin, words).await,
        },
        _ => Err(unknown(words)),
    }
}

/// Begins what changes the cluster.
async fn begin(admin: &Arc<Admin>, session: &mut Session, words: &[&str]) -> Outcome {
    Ok(match jobs::begin(admin, words).await? {
        Begun::Plan(plan) => Answer::Json(plan),
        Begun::Job(job, None) => job.id.as_str().into(),
        Begun::Job(job, Some(limit)) => {
            session.watched = Some(Watched::for_at_most(job, limit));
            Answer::Nil
        }
    })
}

async fn proxy_words(admin: &Arc<Admin>, words: &[&str]) -> Outcome {
    let word = words.get(1).ok_or_else(|| arity("proxy"))?.to_ascii_uppercase();
    match (word.as_str(), words.len()) {
        ("HELP", 2) => Ok(Answer::List(HELP.iter().map(|line| (*line).into()).collect())),
        ("CLIENTS", 2) => Ok(proxy::clients(admin)),
        ("STATS", 2) => Ok(proxy::stats(admin)),
        ("REFRESH", 2) => {
            (admin.refresh)();
            Ok(Answer::ok())
        }
        ("SLOT", 3) => Ok(cluster::slot(&admin.topology(), words[2])),
        ("CONFIG", 3..) => settings::config(admin, &words[2..]),
        ("LOGLEVEL", 2 | 3) => settings::log_level(words.get(2).copied()),
        ("DRAIN", 2 | 3) => settings::drain(admin, words.get(2).copied()),
        ("CLUSTER", 3..) => cluster::answer(admin, &words[2..]).await,
        ("JOB", 3..) => jobs::answer(admin, &words[2..]),
        (
            "HELP" | "CLIENTS" | "STATS" | "REFRESH" | "SLOT" | "CONFIG" | "LOGLEVEL" | "DRAIN"
            | "CLUSTER" | "JOB",
            _,
        ) => Err(arity(&format!("proxy|{}", word.to_ascii_lowercase()))),
        _ => Err(unknown_subcommand("PROXY", words[1])),
    }
}

pub(super) fn arity(command: &str) -> Complaint {
    Refusal::Arity(command.to_owned()).into()
}

pub(super) fn unknown_subcommand(command: &str, sub: &str) -> Complaint {
    Refusal::UnknownSubcommand { command: command.to_owned(), sub: short(sub) }.into()
}

fn unknown(words: &[&str]) -> Complaint {
    let args: Vec<String> =
        words[1..].iter().take(8).map(|word| format!("'{}'", short(word))).collect();
    Refusal::UnknownCommand { name: short(words[0]), args: args.join(" ") }.into()
}

/// As much of a word as an error repeats.
pub(super) fn short(word: &str) -> String {
    word.chars().take(128).collect()
}

fn authenticate(admin: &Admin, session: &mut Session, words: &[&str]) -> Outcome {
    let (user, password) = match words {
        [_, password] if admin.rights.load().password.is_none() && !password.is_empty() => {
            return Err(Refusal::NoPassword.into());
        }
        [_, password] => ("default", *password),
        [_, user, password] => (*user, *password),
        _ => return Err(arity("auth")),
    };
    check(admin, user, password)?;
    session.is_known = true;
    Ok(Answer::ok())
}

/// The default user without a password accepts any, as in the server.
fn check(admin: &Admin, user: &str, password: &str) -> Result<(), Complaint> {
    let rights = admin.rights.load();
    let is_right = rights.password.as_ref().is_none_or(|expected| same(expected, password));
    if user == "default" && is_right {
        return Ok(());
    }
    Err(Refusal::WrongPass { command: "auth".to_owned(), user: user.to_owned() }.into())
}

/// Compares in a time that tells nothing but the length.
pub(super) fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |all, (a, b)| all | (a ^ b)) == 0
}

/// `HELLO [2|3] [AUTH user password] [SETNAME name]`. A failure changes nothing.
fn hello(admin: &Admin, session: &mut Session, words: &[&str]) -> Outcome {
    let protocol = match words.get(1) {
        None => session.protocol,
        Some(&"2") => Protocol::Resp2,
        Some(&"3") => Protocol::Resp3,
        Some(_) => return Err(Refusal::NoProto.into()),
    };
    let (mut is_known, mut name, mut rest) =
        (session.is_known, None, words.get(2..).unwrap_or(&[]));
    loop {
        rest = match rest {
            [] => break,
            [auth, user, password, rest @ ..] if auth.eq_ignore_ascii_case("auth") => {
                check(admin, user, password)?;
                is_known = true;
                rest
            }
            [setname, given, rest @ ..] if setname.eq_ignore_ascii_case("setname") => {
                name = Some((*given).to_owned());
                rest
            }
            [word, ..] => {
                let text = format!("ERR Syntax error in HELLO option '{}'", short(word));
                return Err(Refusal::text(text).into());
            }
        };
    }
    if !is_known {
        return Err(Refusal::HelloNoAuth.into());
    }
    (session.is_known, session.protocol) = (is_known, protocol);
    session.name = name.unwrap_or_else(|| std::mem::take(&mut session.name));
    Ok(Answer::map([
        ("server", "slotway".into()),
        ("version", env!("CARGO_PKG_VERSION").into()),
        ("proto", Answer::Integer(if protocol == Protocol::Resp3 { 3 } else { 2 })),
        ("id", Answer::count(session.number)),
        ("mode", "admin".into()),
        ("role", "master".into()),
        ("modules", Answer::List(Vec::new())),
    ]))
}

fn client(session: &mut Session, words: &[&str]) -> Outcome {
    let sub = words.get(1).ok_or_else(|| arity("client"))?.to_ascii_uppercase();
    match (sub.as_str(), words) {
        ("SETINFO", [_, _, _, _]) => Ok(Answer::ok()),
        ("SETNAME", [_, _, name]) => {
            (*name).clone_into(&mut session.name);
            Ok(Answer::ok())
        }
        ("GETNAME", [_, _]) if session.name.is_empty() => Ok(Answer::Nil),
        ("GETNAME", [_, _]) => Ok(session.name.as_str().into()),
        ("ID", [_, _]) => Ok(Answer::count(session.number)),
        ("SETINFO" | "SETNAME" | "GETNAME" | "ID", _) => {
            Err(arity(&format!("client|{}", sub.to_ascii_lowercase())))
        }
        _ => Err(unknown_subcommand("CLIENT", words[1])),
    }
}
