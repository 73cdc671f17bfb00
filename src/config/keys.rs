//! Every key once: the section it stands in, its name, and how its value becomes a field of [`Config`].

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::value::{
    address_or_off, choice, count, duration, log_filter, path, seeds, size, switch, text, texts,
    worker_count,
};
use super::{Config, Problem, Secret};
use crate::backend::ReadFrom;
use crate::local::View;
use crate::net::tls::{AuthClients, Check};
use crate::observe::log::Format;
use crate::session::{CrossSlot, Ping, Queueing, Transactions};

/// A value, or what would be allowed in its place.
pub(super) type Parsed<T> = Result<T, String>;

/// One key of the configuration.
pub(super) struct Key {
    /// Section it stands in.
    pub(super) section: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// Whether what it says takes effect when it is read again.
    pub(super) is_live: bool,
    set: fn(&mut Config, &DeValue<'_>) -> Parsed<()>,
}

const fn key(
    section: &'static str,
    name: &'static str,
    set: fn(&mut Config, &DeValue<'_>) -> Parsed<()>,
) -> Key {
    Key { section, name, is_live: false, set }
}

impl Key {
    /// Whether it says how TLS is spoken, if it is.
    pub(super) fn is_of_tls(&self) -> bool {
        self.name.starts_with("tls_")
    }

    /// Whether it says who clients may be, in lines and not in a file of users.
    pub(super) fn is_of_users(&self) -> bool {
        self.section == "client" && matches!(self.name, "password" | "password_file" | "users")
    }
}

const fn live(
    section: &'static str,
    name: &'static str,
    set: fn(&mut Config, &DeValue<'_>) -> Parsed<()>,
) -> Key {
    Key { is_live: true, ..key(section, name, set) }
}

fn put<T>(field: &mut T, value: Parsed<T>) -> Parsed<()> {
    *field = value?;
    Ok(())
}

const KB: u64 = 1 << 10;
const GB: u64 = 1 << 30;
const S: u64 = 1000;
const H: u64 = 3_600_000;
/// Times of single requests are taken with a clock that wraps after 71 minutes (`stats::Clock::micros`).
const LONGEST_REQUEST: u64 = H / 2;
/// Offsets within a request have 32 bits (`resp::frame::Span`).
const LARGEST_REQUEST: u64 = 3 * GB;

/// All keys, in the order of `config/slotway.toml`.
#[rustfmt::skip]
pub(super) const KEYS: &[Key] = &[
    key("cluster", "seeds", |c, v| put(&mut c.cluster.seeds, seeds(v))),
    key("cluster", "username", |c, v| put(&mut c.cluster.username, text(v))),
    key("cluster", "password", |c, v| put(&mut c.cluster.password, text(v).map(|t| t.map(Secret)))),
    key("cluster", "password_file", |c, v| put(&mut c.cluster.password_file, path(v))),
    key("cluster", "refresh_interval", |c, v| put(&mut c.cluster.refresh_interval, duration(v, 100..=H))),
    key("cluster", "refresh_spacing", |c, v| put(&mut c.cluster.refresh_spacing, duration(v, 10..=60 * S))),
    key("cluster", "query_timeout", |c, v| put(&mut c.cluster.query_timeout, duration(v, 10..=60 * S))),
    key("listen", "data", |c, v| put(&mut c.listen.data, address_or_off(v))),
    key("listen", "tls", |c, v| put(&mut c.listen.tls, address_or_off(v))),
    live("listen", "tls_cert_file", |c, v| put(&mut c.listen.tls_files.cert_file, path(v))),
    live("listen", "tls_key_file", |c, v| put(&mut c.listen.tls_files.key_file, path(v))),
    live("listen", "tls_auth_clients", |c, v| put(&mut c.listen.tls_auth_clients, choice(v, AUTH_CLIENTS))),
    live("listen", "tls_ca_cert_file", |c, v| put(&mut c.listen.tls_files.ca_cert_file, path(v))),
    live("listen", "tls_ca_cert_dir", |c, v| put(&mut c.listen.tls_files.ca_cert_dir, path(v))),
    live("listen", "tls_handshake_timeout", |c, v| put(&mut c.listen.tls_handshake_timeout, duration(v, 100..=60 * S))),
    key("listen", "http", |c, v| put(&mut c.listen.http, address_or_off(v))),
    key("listen", "admin", |c, v| put(&mut c.listen.admin, address_or_off(v))),
    key("proxy", "workers", |c, v| put(&mut c.proxy.workers, worker_count(v))),
    key("proxy", "cluster_view", |c, v| put(&mut c.proxy.cluster_view, choice(v, VIEW))),
    key("proxy", "allow_debug", |c, v| put(&mut c.proxy.allow_debug, switch(v))),
    key("proxy", "linger", |c, v| put(&mut c.proxy.linger, duration(v, 0..=1))),
    live("proxy", "drain_delay", |c, v| put(&mut c.proxy.drain_delay, duration(v, 0..=H))),
    live("proxy", "drain_timeout", |c, v| put(&mut c.proxy.drain_timeout, duration(v, 0..=H))),
    live("client", "password", |c, v| put(&mut c.client.password, text(v).map(|t| t.map(Secret)))),
    live("client", "password_file", |c, v| put(&mut c.client.password_file, path(v))),
    live("client", "users", |c, v| put(&mut c.client.users, texts(v).map(|t| t.into_iter().map(Secret).collect()))),
    key("client", "acl_file", |c, v| put(&mut c.client.acl_file, path(v))),
    live("client", "max_clients", |c, v| put(&mut c.client.max_clients, count(v, 1..=1_000_000))),
    key("client", "cross_slot", |c, v| put(&mut c.client.session.cross_slot, choice(v, CROSS_SLOT))),
    key("client", "transactions", |c, v| put(&mut c.client.session.transactions, choice(v, TRANSACTIONS))),
    key("client", "queueing", |c, v| put(&mut c.client.session.queueing, choice(v, QUEUEING))),
    key("client", "ping", |c, v| put(&mut c.client.session.ping, choice(v, PING))),
    key("client", "read_own_writes", |c, v| put(&mut c.client.session.read_own_writes, duration(v, 0..=H))),
    live("client", "idle_timeout", |c, v| put(&mut c.client.session.idle_timeout, duration(v, 0..=720 * H))),
    key("client", "window", |c, v| put(&mut c.client.session.window, count(v, 1..=65_536))),
    key("client", "output_limit", |c, v| put(&mut c.client.session.output_limit, size(v, KB..=64 * GB))),
    key("client", "output_max", |c, v| put(&mut c.client.session.output_max, size(v, 1024 * KB..=1024 * GB))),
    key("client", "pubsub_limit", |c, v| put(&mut c.client.session.pubsub_limit, size(v, 64 * KB..=64 * GB))),
    key("client", "max_args", |c, v| put(&mut c.client.session.limits.args, count(v, 1..=16_777_216))),
    key("client", "max_bulk", |c, v| put(&mut c.client.session.limits.bulk, size(v, KB..=LARGEST_REQUEST))),
    key("client", "max_request", |c, v| put(&mut c.client.session.limits.request, size(v, 64 * KB..=LARGEST_REQUEST))),
    key("node", "connect_timeout", |c, v| put(&mut c.node.connect_timeout, duration(v, 10..=60 * S))),
    key("node", "response_timeout", |c, v| put(&mut c.node.response_timeout, duration(v, 100..=LONGEST_REQUEST))),
    key("node", "request_budget", |c, v| put(&mut c.node.request_budget, duration(v, 1..=LONGEST_REQUEST))),
    key("node", "queue_requests", |c, v| put(&mut c.node.queue_requests, count(v, 0..=100_000_000))),
    key("node", "queue_bytes", |c, v| put(&mut c.node.queue_bytes, size(v, 0..=1024 * GB))),
    key("node", "exclusive_connections", |c, v| put(&mut c.node.exclusive_connections, count(v, 1..=1_000_000))),
    key("node", "read_from", |c, v| put(&mut c.node.read_from, choice(v, READ_FROM))),
    key("node", "near", |c, v| put(&mut c.node.near, texts(v))),
    key("node", "tls", |c, v| put(&mut c.node_tls.on, switch(v))),
    live("node", "tls_ca_cert_file", |c, v| put(&mut c.node_tls.files.ca_cert_file, path(v))),
    live("node", "tls_ca_cert_dir", |c, v| put(&mut c.node_tls.files.ca_cert_dir, path(v))),
    live("node", "tls_cert_file", |c, v| put(&mut c.node_tls.files.cert_file, path(v))),
    live("node", "tls_key_file", |c, v| put(&mut c.node_tls.files.key_file, path(v))),
    live("node", "tls_name", |c, v| put(&mut c.node_tls.name, text(v))),
    live("node", "tls_check", |c, v| put(&mut c.node_tls.check, choice(v, CHECK))),
    live("admin", "password", |c, v| put(&mut c.admin.password, text(v).map(|t| t.map(Secret)))),
    live("admin", "password_file", |c, v| put(&mut c.admin.password_file, path(v))),
    live("admin", "call", |c, v| put(&mut c.admin.call, switch(v))),
    key("admin", "state_folder", |c, v| put(&mut c.admin.state_folder, path(v))),
    live("log", "level", |c, v| put(&mut c.log.filter, log_filter(v))),
    key("log", "format", |c, v| put(&mut c.log.format, choice(v, FORMAT))),
];

const READ_FROM: &[(&str, ReadFrom)] = &[
    ("primary", ReadFrom::Primary),
    ("prefer-replica", ReadFrom::PreferReplica),
    ("replica", ReadFrom::Replica),
    ("any", ReadFrom::Any),
    ("zone", ReadFrom::Zone),
];
const CROSS_SLOT: &[(&str, CrossSlot)] =
    &[("strict", CrossSlot::Strict), ("read", CrossSlot::Read), ("emulate", CrossSlot::Emulate)];
const TRANSACTIONS: &[(&str, Transactions)] =
    &[("whole", Transactions::Whole), ("per_slot", Transactions::PerSlot)];
const QUEUEING: &[(&str, Queueing)] = &[("proxy", Queueing::Proxy), ("nodes", Queueing::Nodes)];
const PING: &[(&str, Ping)] = &[("proxy", Ping::Proxy), ("nodes", Ping::Nodes)];
const VIEW: &[(&str, View)] =
    &[("hidden", View::Hidden), ("single", View::Single), ("real", View::Real)];
const CHECK: &[(&str, Check)] =
    &[("name", Check::Name), ("signature", Check::Signature), ("nothing", Check::Nothing)];
const AUTH_CLIENTS: &[(&str, AuthClients)] =
    &[("no", AuthClients::No), ("optional", AuthClients::Optional), ("yes", AuthClients::Yes)];
const FORMAT: &[(&str, Format)] = &[("text", Format::Text), ("json", Format::Json)];

/// Reads `text` into `config` and gives all that is wrong with it.
pub(super) fn read(text: &str, config: &mut Config) -> Vec<Problem> {
    let document = match DeTable::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let at = error.span().map(|span| span.start);
            let line = at.map(|at| line(text, at));
            return vec![Problem { line, text: error.message().to_owned() }];
        }
    };
    let mut problems = Vec::new();
    for (name, value) in document.get_ref() {
        let mut note = |at: &Range<usize>, says: String| problems.push((at.start, says));
        match value.get_ref() {
            DeValue::Table(section) if is_section(name.get_ref()) => {
                read_section(text, name.get_ref(), section, config, &mut note);
            }
            DeValue::Table(_) => note(&name.span(), unknown_section(name.get_ref())),
            _ => note(&name.span(), outside(text, name.get_ref(), &value.span())),
        }
    }
    problems.sort();
    let problem = |(at, says)| Problem { line: Some(line(text, at)), text: says };
    problems.into_iter().map(problem).collect()
}

/// The keys that say something else in one text than in another one; both are right.
pub(super) fn changed(before: &str, after: &str) -> Vec<&'static Key> {
    let read = |text: &str| {
        let mut config = Config::default();
        read(text, &mut config);
        config
    };
    let configs = [read(before), read(after)];
    let (Ok(before), Ok(after)) = (DeTable::parse(before), DeTable::parse(after)) else {
        return Vec::new();
    };
    // Where only one of them has the key, the other one has its default.
    let documents = [after, before];
    let is_other = |key: &&Key| {
        configs.iter().zip(&documents).any(|(config, document)| {
            let section =
                document.get_ref().get(key.section).and_then(|it| it.get_ref().as_table());
            let Some(value) = section.and_then(|section| section.get(key.name)) else {
                return false;
            };
            let mut probe = config.clone();
            (key.set)(&mut probe, value.get_ref()).is_ok() && probe != *config
        })
    };
    KEYS.iter().filter(is_other).collect()
}

fn read_section(
    text: &str,
    section: &str,
    values: &DeTable<'_>,
    config: &mut Config,
    note: &mut impl FnMut(&Range<usize>, String),
) {
    for (name, value) in values {
        let known = keys_of(section).find(|key| key.name == name.get_ref());
        let Some(key) = known else {
            note(&name.span(), unknown_key(section, name.get_ref()));
            continue;
        };
        if let Err(allowed) = (key.set)(config, value.get_ref()) {
            note(&name.span(), format!("[{section}] {}: {allowed}", shown(text, key.name, value)));
        }
    }
}

/// `key = value` as it stands in the text; of secrets only the name.
fn shown(text: &str, name: &str, value: &Spanned<DeValue<'_>>) -> String {
    if ["password", "users"].contains(&name) {
        name.to_owned()
    } else {
        assignment(text, name, &value.span())
    }
}

fn assignment(text: &str, name: &str, value: &Range<usize>) -> String {
    let value = text.get(value.clone()).unwrap_or_default();
    let short: String = value.chars().take(80).collect();
    let dots = if short.len() < value.len() { "…" } else { "" };
    format!("{name} = {short}{dots}")
}

fn line(text: &str, at: usize) -> usize {
    text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1
}

fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |key| key.section == section)
}

fn is_section(name: &str) -> bool {
    keys_of(name).next().is_some()
}

fn sections() -> Vec<&'static str> {
    let mut names: Vec<_> = KEYS.iter().map(|key| key.section).collect();
    names.dedup();
    names
}

fn unknown_section(name: &str) -> String {
    let known = sections();
    format!(
        "unknown section [{name}];{} known sections are {}",
        guess(name, &known),
        known.join(", ")
    )
}

fn unknown_key(section: &str, name: &str) -> String {
    let known: Vec<_> = keys_of(section).map(|key| key.name).collect();
    format!(
        "unknown key [{section}] {name};{} known keys are {}",
        guess(name, &known),
        known.join(", ")
    )
}

/// What is wrong with a key that stands before all sections.
fn outside(text: &str, name: &str, value: &Range<usize>) -> String {
    if is_section(name) {
        return format!("{}: must be a section, [{name}]", assignment(text, name, value));
    }
    let homes: Vec<_> = KEYS
        .iter()
        .filter(|key| key.name == name)
        .map(|key| format!("[{}]", key.section))
        .collect();
    if homes.is_empty() {
        return format!("unknown key {name}; keys stand in sections: {}", sections().join(", "));
    }
    format!("{name}: belongs under {}", homes.join(" or "))
}

fn guess(name: &str, known: &[&str]) -> String {
    let near = known.iter().map(|known| (distance(name, known), *known)).min();
    match near {
        Some((edits, known)) if edits <= 2 => format!(" did you mean {known}?"),
        _ => String::new(),
    }
}

/// Letters to change, add or leave out to make one word of the other (Levenshtein). Words longer than any key are far.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, to) in b.iter().enumerate() {
            let changed = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
