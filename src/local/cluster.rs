//! `CLUSTER` by what clients are to see of the cluster: nothing, one node that owns everything, or the nodes themselves.

use super::inquiry::{Inquiry, Reach};
use super::{After, Env, is};
use crate::client::Client;
use crate::cluster::Slot;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::write;

/// What clients see of the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// A standalone server.
    #[default]
    Hidden,
    /// A cluster of one node, the proxy, for clients that insist on one.
    Single,
    /// The nodes, for clients that go there by themselves.
    Real,
}

impl View {
    /// `redis_mode`, and `mode` of `HELLO`.
    pub fn mode(self) -> &'static str {
        if self == Self::Hidden { "standalone" } else { "cluster" }
    }
}

/// Subcommands that only look, and whether the owner of a slot has to be asked.
const READERS: &[(&str, bool)] = &[
    ("COUNTKEYSINSLOT", true),
    ("GETKEYSINSLOT", true),
    ("COUNT-FAILURE-REPORTS", false),
    ("INFO", false),
    ("LINKS", false),
    ("MYID", false),
    ("NODES", false),
    ("REPLICAS", false),
    ("SHARDS", false),
    ("SLAVES", false),
    ("SLOTS", false),
    ("HELP", false),
];

/// Answers `CLUSTER …`. `KEYSLOT` is arithmetic and is answered in every view.
pub(super) fn cluster(
    request: &Request<'_>,
    client: &Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    let sub = request.arg(1);
    if is(sub, "KEYSLOT") && request.len() == 3 {
        write::integer(out, i64::from(Slot::of(request.arg(2)).number()));
        return Ok(After::Next);
    }
    let view = env.proxy.view;
    if view == View::Hidden {
        return Err(Refusal::text("ERR This instance has cluster support disabled"));
    }
    let reader = READERS.iter().find(|(name, _)| is(sub, name));
    let Some((_, of_slot)) = reader else {
        let sub = super::lossy(sub).to_ascii_lowercase();
        return Err(Refusal::NotAllowed(format!("cluster|{sub}")));
    };
    if view == View::Single && !of_slot && single(sub, client, env, out) {
        return Ok(After::Next);
    }
    let slot = super::integer(request.arg(2)).and_then(|n| usize::try_from(n).ok());
    let owner = slot.filter(|_| *of_slot).and_then(Slot::new);
    let words: Vec<&[u8]> = request.args(0).collect();
    Ok(After::Inquire(Inquiry::plain(owner.map_or(Reach::Any, Reach::Owner), &words)))
}

/// As a node that owns everything would; false for what it does not know better than others.
fn single(sub: &[u8], client: &Client, env: &Env<'_>, out: &mut Vec<u8>) -> bool {
    let id = &env.proxy.run_id[..40];
    let host = client.local.map_or_else(String::new, |local| local.ip().to_string());
    let port = client.local.map_or(env.proxy.port, |local| local.port());
    match sub {
        sub if is(sub, "MYID") => write::bulk(out, id),
        sub if is(sub, "INFO") => write::verbatim(out, client.protocol, INFO),
        sub if is(sub, "NODES") => {
            let nodes = format!(
                "{id} {host}:{port}@{} myself,master - 0 0 1 connected 0-16383\n",
                u32::from(port) + 10_000
            );
            write::verbatim(out, client.protocol, &nodes);
        }
        sub if is(sub, "SLOTS") => {
            write::array(out, 1);
            write::array(out, 3);
            write::integer(out, 0);
            write::integer(out, 16_383);
            write::array(out, 4);
            write::bulk(out, &host);
            write::integer(out, i64::from(port));
            write::bulk(out, id);
            write::array(out, 0);
        }
        sub if is(sub, "SHARDS") => shards(id, &host, port, client, out),
        sub if ["LINKS", "REPLICAS", "SLAVES"].iter().any(|name| is(sub, name)) => {
            write::array(out, 0);
        }
        sub if is(sub, "COUNT-FAILURE-REPORTS") => write::integer(out, 0),
        _ => return false,
    }
    true
}

const INFO: &str = "cluster_state:ok\r\ncluster_slots_assigned:16384\r\ncluster_slots_ok:16384\r\ncluster_slots_pfail:0\r\n\
cluster_slots_fail:0\r\ncluster_known_nodes:1\r\ncluster_size:1\r\ncluster_current_epoch:1\r\ncluster_my_epoch:1\r\n\
cluster_stats_messages_sent:0\r\ncluster_stats_messages_received:0\r\ntotal_cluster_links_buffer_limit_exceeded:0\r\n";

fn shards(id: &str, host: &str, port: u16, client: &Client, out: &mut Vec<u8>) {
    let protocol = client.protocol;
    write::array(out, 1);
    write::map(out, protocol, 2);
    write::bulk(out, "slots");
    write::array(out, 2);
    write::integer(out, 0);
    write::integer(out, 16_383);
    write::bulk(out, "nodes");
    write::array(out, 1);
    write::map(out, protocol, 7);
    for (name, text) in [("id", id), ("ip", host), ("endpoint", host), ("role", "master")] {
        write::bulk(out, name);
        write::bulk(out, text);
    }
    write::bulk(out, "port");
    write::integer(out, i64::from(port));
    write::bulk(out, "replication-offset");
    write::integer(out, 0);
    write::bulk(out, "health");
    write::bulk(out, "online");
}
