//! `CONFIG`: the nodes' own settings, with those in their place that are the proxy's.
//!
//! What is set goes to all primaries, provided that it is safe for many clients to share; the proxy's own settings are set
//! here. Everything else is unknown, as it would be to a server without it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::inquiry::{Inquiry, Reach};
use super::{After, Env, Muster, Proxy, View, help, is, matches, pairs, unknown_subcommand};
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, value, write};

const HELP: &[&str] = &[
    "CONFIG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GET <pattern>",
    "    Return parameters matching the glob-like <pattern> and their values.",
    "SET <directive> <value>",
    "    Set the configuration <directive> to <value>.",
    "RESETSTAT",
    "    Reset statistics reported by the INFO command.",
    "REWRITE",
    "    Rewrite the configuration file.",
    "HELP",
    "    Prints this help.",
];

/// The password of the default user.
const PASSWORD: &str = "requirepass";

/// What may be set on the nodes; names that end in `*` stand for all that begin so.
const SETTABLE: &[&str] = &[
    "active-defrag-*",
    "active-expire-effort",
    "activedefrag",
    "activerehashing",
    "busy-reply-threshold",
    "hash-max-*",
    "hll-sparse-max-bytes",
    "hz",
    "dynamic-hz",
    "latency-monitor-threshold",
    "latency-tracking",
    "latency-tracking-info-percentiles",
    "lazyfree-*",
    "lfu-*",
    "list-compress-depth",
    "list-max-*",
    "lua-time-limit",
    "maxmemory",
    "maxmemory-*",
    "notify-keyspace-events",
    "min-replicas-*",
    "min-slaves-*",
    "proto-max-bulk-len",
    "repl-backlog-*",
    "sanitize-dump-payload",
    "save",
    "set-max-*",
    "stop-writes-on-bgsave-error",
    "stream-node-max-*",
    "zset-max-*",
];

/// What a server is started with and keeps.
const IMMUTABLE: &[&str] = &[
    "aclfile",
    "always-show-logo",
    "aof_rewrite_cpulist",
    "appenddirname",
    "appendfilename",
    "bgsave_cpulist",
    "bio_cpulist",
    "cluster-config-file",
    "cluster-enabled",
    "cluster-port",
    "daemonize",
    "databases",
    "disable-thp",
    "enable-debug-command",
    "enable-module-command",
    "enable-protected-configs",
    "io-threads",
    "io-threads-do-reads",
    "logfile",
    "pidfile",
    "rdbchecksum",
    "server_cpulist",
    "set-proc-title",
    "socket-mark-id",
    "supervised",
    "syslog-enabled",
    "syslog-facility",
    "syslog-ident",
    "tcp-backlog",
    "unixsocket",
    "unixsocketperm",
];

/// A name, and its value by what the proxy is.
type Own = (&'static str, fn(&Proxy) -> String);

/// Settings that are the proxy's own, or that must look as a standalone server's do.
const OWN: &[Own] = &[
    ("aclfile", |proxy| {
        proxy.acl_file.as_ref().map_or_else(String::new, |file| file.display().to_string())
    }),
    ("appendonly", |_| "no".to_owned()),
    ("bind", |proxy| proxy.bind.clone()),
    ("cluster-enabled", |proxy| enabled(proxy).to_owned()),
    ("databases", |_| "1".to_owned()),
    ("masterauth", |_| String::new()),
    ("masteruser", |_| String::new()),
    ("maxclients", |proxy| proxy.max_clients.load(Relaxed).to_string()),
    ("port", |proxy| proxy.port.to_string()),
    ("replica-read-only", |_| "yes".to_owned()),
    ("replicaof", |_| String::new()),
    ("requirepass", |_| String::new()),
    ("slave-read-only", |_| "yes".to_owned()),
    ("slaveof", |_| String::new()),
    ("slowlog-log-slower-than", |proxy| proxy.slow_us.load(Relaxed).to_string()),
    ("slowlog-max-len", |proxy| proxy.slow_max.load(Relaxed).to_string()),
    ("timeout", |proxy| (proxy.idle_ms.load(Relaxed) / 1000).to_string()),
    ("tls-client-key-file-pass", |_| String::new()),
    ("tls-key-file-pass", |_| String::new()),
    ("tracking-table-max-keys", |proxy| proxy.tracked_max.load(Relaxed).to_string()),
    ("unixsocket", |_| String::new()),
];

impl Proxy {
    /// Those of its own settings that can be changed and have such names, with their values.
    pub fn settings(&self, patterns: &[&str]) -> Vec<(&'static str, String)> {
        let is_meant = |(name, _): &&Own| {
            let mut patterns = patterns.iter();
            own_setting(name).is_some()
                && patterns.any(|pattern| matches(pattern.as_bytes(), name.as_bytes()))
        };
        OWN.iter().filter(is_meant).map(|(name, of)| (*name, of(self))).collect()
    }

    /// Changes its own settings: all of these, or none if one of them cannot be so.
    pub fn set(&self, wanted: &[(&str, &str)]) -> Result<(), Refusal> {
        let mut own = Vec::new();
        for (name, value) in wanted {
            let setting = own_setting(name).ok_or_else(|| unknown(name))?;
            own.push((setting, checked(setting, value.as_bytes())?));
        }
        for (setting, number) in own {
            setting.put(self, number);
        }
        Ok(())
    }
}

fn enabled(proxy: &Proxy) -> &'static str {
    if proxy.view == View::Hidden { "no" } else { "yes" }
}

/// Answered if no node can be asked.
const FALLBACK: &[(&str, &str)] =
    &[("maxmemory", "0"), ("maxmemory-policy", "noeviction"), ("notify-keyspace-events", "")];

/// Answers `CONFIG …`.
pub(super) fn config(
    request: &Request<'_>,
    protocol: Protocol,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    match request.arg(1) {
        sub if is(sub, "GET") => return Ok(get(request, protocol, env.proxy, out)),
        sub if is(sub, "SET") => return set(request, env.proxy, out),
        sub if is(sub, "RESETSTAT") => {
            env.proxy.reset_stats();
            let inquiry = Inquiry::plain(Reach::All, &[b"CONFIG", b"RESETSTAT"]);
            return Ok(After::Inquire(inquiry.with_muster(Muster::ForgetCalls)));
        }
        sub if is(sub, "HELP") => help(out, HELP),
        sub => return Err(unknown_subcommand("CONFIG", sub)),
    }
    Ok(After::Next)
}

/// Nodes are asked only for what the proxy cannot say itself.
fn get(request: &Request<'_>, protocol: Protocol, proxy: &Proxy, out: &mut Vec<u8>) -> After {
    let patterns: Vec<Vec<u8>> = request.args(2).map(<[u8]>::to_vec).collect();
    let own: BTreeMap<String, String> = OWN
        .iter()
        .filter(|(name, _)| patterns.iter().any(|pattern| matches(pattern, name.as_bytes())))
        .map(|(name, of)| ((*name).to_owned(), of(proxy)))
        .collect();
    let is_own = |pattern: &Vec<u8>| OWN.iter().any(|(name, _)| is(pattern, name));
    if patterns.iter().all(is_own) {
        show(&own, protocol, out);
        return After::Next;
    }
    let words: Vec<&[u8]> = [&b"CONFIG"[..], b"GET"].into_iter().chain(request.args(2)).collect();
    After::Inquire(Inquiry::new(Reach::Willing, &words, move |answers, _| {
        let fallback = FALLBACK.iter().filter(|(name, _)| {
            answers.is_empty() && patterns.iter().any(|pattern| matches(pattern, name.as_bytes()))
        });
        let mut all: BTreeMap<String, String> =
            fallback.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        all.extend(answers.first().map(settings).unwrap_or_default());
        all.extend(own);
        let mut wire = Vec::new();
        show(&all, protocol, &mut wire);
        Ok(wire)
    }))
}

fn show(settings: &BTreeMap<String, String>, protocol: Protocol, out: &mut Vec<u8>) {
    let all: Vec<(&str, String)> =
        settings.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    pairs(out, protocol, &all);
}

/// The settings in a node's answer.
fn settings(answer: &Bytes) -> Vec<(String, String)> {
    let decoded = value::decode(answer).ok().flatten();
    let elements = decoded.as_ref().and_then(|(answer, _)| value::array(answer));
    let texts: Vec<&str> =
        elements.unwrap_or_default().iter().map(|e| value::text(e).unwrap_or_default()).collect();
    texts.chunks_exact(2).map(|pair| (pair[0].to_owned(), pair[1].to_owned())).collect()
}

/// `CONFIG SET name value [name value …]`.
fn set(request: &Request<'_>, proxy: &Proxy, out: &mut Vec<u8>) -> Result<After, Refusal> {
    if !request.len().is_multiple_of(2) {
        return Err(Refusal::text("ERR syntax error"));
    }
    let args: Vec<&[u8]> = request.args(2).collect();
    let wanted: Vec<(String, &[u8])> =
        args.chunks_exact(2).map(|pair| (super::lossy(pair[0]), pair[1])).collect();
    let (mut own, mut password, mut foreign) = (Vec::new(), None, Vec::new());
    let mut words: Vec<&[u8]> = vec![b"CONFIG", b"SET"];
    for (at, (name, value)) in wanted.iter().enumerate() {
        if IMMUTABLE.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            return Err(failed(name, "can't set immutable config"));
        }
        if wanted[..at].iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            return Err(failed(name, "duplicate parameter"));
        }
        match own_setting(name) {
            _ if !is_known(name) => foreign.push((name.clone(), value.to_vec())),
            _ if is(name.as_bytes(), PASSWORD) => password = Some(*value),
            Some(setting) => own.push((setting, checked(setting, value)?)),
            None => words.extend([name.as_bytes(), value]),
        }
    }
    if let Some((name, _)) = foreign.first() {
        let is_alone = foreign.len() == wanted.len();
        return if is_alone {
            Ok(After::Inquire(keep(foreign, proxy)))
        } else {
            Err(unknown(name))
        };
    }
    for (setting, number) in own {
        setting.put(proxy, number);
    }
    let renewal = password.map(|password| require(password, proxy));
    if words.len() > 2 {
        let inquiry = Inquiry::plain(Reach::All, &words);
        return Ok(After::Inquire(Inquiry { muster: renewal, ..inquiry }));
    }
    if let Some(renewal) = renewal {
        return Ok(After::Muster(renewal));
    }
    write::simple(out, "OK");
    Ok(After::Next)
}

/// What is not for clients to change may be set to what it is shown to be: so they may write back all that they have read.
fn keep(wanted: Vec<(String, Vec<u8>)>, proxy: &Proxy) -> Inquiry {
    let names: Vec<String> = wanted.iter().map(|(name, _)| name.clone()).collect();
    let words: Vec<&[u8]> =
        [&b"CONFIG"[..], b"GET"].into_iter().chain(names.iter().map(String::as_bytes)).collect();
    let own: Vec<(&str, String)> = OWN.iter().map(|(name, of)| (*name, of(proxy))).collect();
    Inquiry::new(Reach::Willing, &words, move |answers, _| {
        let shown = answers.first().map(settings).unwrap_or_default();
        let own = own.iter().map(|(name, value)| (*name, value));
        let shown = shown.iter().map(|(name, value)| (name.as_str(), value));
        let all: Vec<(&str, &String)> = own.chain(shown).collect();
        let is_kept = |(name, value): &&(String, Vec<u8>)| {
            let known = all.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            known.is_some_and(|(_, known)| known.as_bytes() == value)
        };
        match wanted.iter().find(|setting| !is_kept(setting)) {
            Some((name, _)) => Err(unknown(name)),
            None => Ok(b"+OK\r\n".to_vec()),
        }
    })
}

/// Clients that are connected stay who they are.
fn require(password: &[u8], proxy: &Proxy) -> Muster {
    let changed = proxy.change_users(|users| Ok::<_, Infallible>((users.requiring(password), ())));
    let Ok(()) = changed;
    Muster::Renew(None)
}

/// A number among the proxy's settings, and what it may be.
struct Setting {
    name: &'static str,
    least: i64,
    most: i64,
    put: fn(&Proxy, i64),
}

const SETTINGS: &[Setting] = &[
    Setting {
        name: "maxclients",
        least: 1,
        most: u32::MAX as i64,
        put: |proxy, n| proxy.max_clients.store(n.unsigned_abs(), Relaxed),
    },
    Setting {
        name: "timeout",
        least: 0,
        most: i32::MAX as i64,
        put: |proxy, n| proxy.idle_ms.store(n.unsigned_abs() * 1000, Relaxed),
    },
    Setting {
        name: "slowlog-log-slower-than",
        least: -1,
        most: i64::MAX,
        put: |proxy, n| proxy.slow_us.store(n, Relaxed),
    },
    Setting {
        name: "slowlog-max-len",
        least: 0,
        most: i64::MAX,
        put: |proxy, n| proxy.slow_max.store(n.unsigned_abs(), Relaxed),
    },
    Setting {
        name: "tracking-table-max-keys",
        least: 0,
        most: i64::MAX,
        put: |proxy, n| proxy.tracked_max.store(n.unsigned_abs(), Relaxed),
    },
];

impl Setting {
    fn put(&self, proxy: &Proxy, number: i64) {
        (self.put)(proxy, number);
    }
}

fn own_setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name.eq_ignore_ascii_case(name))
}

fn is_known(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    let settable = |known: &str| match known.strip_suffix('*') {
        Some(start) => lower.starts_with(start),
        None => lower == known,
    };
    lower == PASSWORD || own_setting(name).is_some() || SETTABLE.iter().any(|known| settable(known))
}

fn checked(setting: &Setting, value: &[u8]) -> Result<i64, Refusal> {
    let Some(number) = super::integer(value) else {
        return Err(failed(setting.name, "argument couldn't be parsed into an integer"));
    };
    if (setting.least..=setting.most).contains(&number) {
        return Ok(number);
    }
    let Setting { least, most, .. } = setting;
    Err(failed(setting.name, &format!("argument must be between {least} and {most} inclusive")))
}

fn unknown(name: &str) -> Refusal {
    Refusal::text(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'"))
}

fn failed(name: &str, why: &str) -> Refusal {
    Refusal::text(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}
