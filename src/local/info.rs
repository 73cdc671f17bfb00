//! `INFO`: the proxy's own text, with sums over the primaries where it stands for their data.
//!
//! In the text `{name}` is the sum of the nodes' fields of that name (`command::info`), `{=name}` the first node's field,
//! and `{waiting}` and those with a blank what the workers count. Who does not answer soon is not counted.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;

use super::inquiry::{Inquiry, Reach};
use super::muster::{Muster, Share};
use super::{After, Env, View, calls};
use crate::command::info::merge;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// How long the nodes may take: those that are well answer at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// A section: its name as clients ask for it, when it is shown, and its text.
type Section = (&'static str, Shown, fn(&Env<'_>) -> String);

/// When a section is shown besides when it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// Always, unless others are asked for.
    Usually,
    /// With `all`.
    WithAll,
    /// Only when asked for.
    Alone,
}

const SECTIONS: &[Section] = &[
    ("Server", Shown::Usually, server),
    ("Clients", Shown::Usually, clients),
    ("Memory", Shown::Usually, |_| MEMORY.to_owned()),
    ("Persistence", Shown::Usually, |_| PERSISTENCE.to_owned()),
    ("Stats", Shown::Usually, stats),
    ("Replication", Shown::Usually, replication),
    ("CPU", Shown::Usually, |_| CPU.to_owned()),
    ("Modules", Shown::Usually, |_| String::new()),
    ("Errorstats", Shown::Usually, |_| "{errorstats}".to_owned()),
    ("Commandstats", Shown::WithAll, |_| "{commandstats}".to_owned()),
    ("Latencystats", Shown::WithAll, |_| "{latencystats}".to_owned()),
    ("Cluster", Shown::Usually, cluster),
    ("Keyspace", Shown::Usually, |_| "{db0}".to_owned()),
    ("Proxy", Shown::Alone, proxy),
];

const MEMORY: &str = "used_memory:{used_memory}\r\nused_memory_human:{used_memory_human}\r\nused_memory_rss:{used_memory_rss}\r\n\
used_memory_rss_human:{used_memory_rss_human}\r\nused_memory_peak:{used_memory_peak}\r\n\
used_memory_peak_human:{used_memory_peak_human}\r\nused_memory_overhead:{used_memory_overhead}\r\n\
used_memory_startup:{used_memory_startup}\r\nused_memory_dataset:{used_memory_dataset}\r\n\
total_system_memory:{total_system_memory}\r\ntotal_system_memory_human:{total_system_memory_human}\r\n\
used_memory_lua:{used_memory_lua}\r\nused_memory_scripts:{used_memory_scripts}\r\n\
number_of_cached_scripts:{=number_of_cached_scripts}\r\nnumber_of_functions:{=number_of_functions}\r\n\
number_of_libraries:{=number_of_libraries}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:{maxmemory_human}\r\n\
maxmemory_policy:{=maxmemory_policy}\r\nmem_fragmentation_ratio:{=mem_fragmentation_ratio}\r\n\
mem_allocator:{=mem_allocator}\r\nactive_defrag_running:{active_defrag_running}\r\n\
lazyfree_pending_objects:{lazyfree_pending_objects}\r\nlazyfreed_objects:{lazyfreed_objects}\r\n";

const PERSISTENCE: &str = "loading:0\r\nasync_loading:0\r\nrdb_changes_since_last_save:{rdb_changes_since_last_save}\r\n\
rdb_bgsave_in_progress:{any rdb_bgsave_in_progress}\r\nrdb_last_save_time:{=rdb_last_save_time}\r\n\
rdb_last_bgsave_status:{all rdb_last_bgsave_status}\r\n\
rdb_last_bgsave_time_sec:-1\r\nrdb_current_bgsave_time_sec:-1\r\naof_enabled:0\r\naof_rewrite_in_progress:{any aof_rewrite_in_progress}\r\n\
aof_rewrite_scheduled:0\r\naof_last_rewrite_time_sec:-1\r\naof_current_rewrite_time_sec:-1\r\n\
aof_last_bgrewrite_status:ok\r\naof_last_write_status:ok\r\n";

const STATS: &str = "total_commands_processed:{total_commands_processed}\r\n\
instantaneous_ops_per_sec:{instantaneous_ops_per_sec}\r\ntotal_net_input_bytes:{total_net_input_bytes}\r\n\
total_net_output_bytes:{total_net_output_bytes}\r\nsync_full:0\r\nsync_partial_ok:0\r\nsync_partial_err:0\r\n\
expired_keys:{expired_keys}\r\nexpired_stale_perc:{=expired_stale_perc}\r\n\
expired_time_cap_reached_count:{expired_time_cap_reached_count}\r\nevicted_keys:{evicted_keys}\r\n\
evicted_clients:{evicted_clients}\r\nkeyspace_hits:{keyspace_hits}\r\nkeyspace_misses:{keyspace_misses}\r\n\
pubsub_channels:0\r\npubsub_patterns:0\r\npubsubshard_channels:0\r\nlatest_fork_usec:{latest_fork_usec}\r\n\
total_forks:{total_forks}\r\nactive_defrag_hits:{active_defrag_hits}\r\n\
active_defrag_misses:{active_defrag_misses}\r\nactive_defrag_key_hits:{active_defrag_key_hits}\r\n\
active_defrag_key_misses:{active_defrag_key_misses}\r\ntracking_total_keys:{tracked keys}\r\ntracking_total_items:{tracked items}\r\n\
tracking_total_prefixes:{tracked prefixes}\r\ntotal_error_replies:{total_error_replies}\r\n\
dump_payload_sanitizations:{dump_payload_sanitizations}\r\n";

const CPU: &str = "used_cpu_sys:{=used_cpu_sys}\r\nused_cpu_user:{=used_cpu_user}\r\n\
used_cpu_sys_children:{=used_cpu_sys_children}\r\nused_cpu_user_children:{=used_cpu_user_children}\r\n";

/// Answers `INFO [section …]`; asks nodes and workers only for sections that need it.
pub(super) fn info(
    request: &Request<'_>,
    protocol: Protocol,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> After {
    let own = text(request.args(1), env);
    if !own.contains('{') {
        write::verbatim(out, protocol, &own);
        return After::Next;
    }
    let is_usual = !own.contains("{commandstats}") && !own.contains("{latencystats}");
    let words: &[&[u8]] = if is_usual { &[b"INFO"] } else { &[b"INFO", b"all"] };
    let inquiry = Inquiry::new(Reach::Willing, words, move |answers, share| {
        let own = firsts(&with_shares(&own, share), answers);
        let told: Vec<Vec<u8>> = answers.iter().map(|answer| without_own_calls(answer)).collect();
        let calls = share.calls.lines();
        let told = told.iter().map(|text| &text[..]).chain(std::iter::once(calls.as_bytes()));
        let mut wire = Vec::new();
        write::verbatim(&mut wire, protocol, &merge(&own, told));
        Ok(wire)
    });
    After::Inquire(inquiry.within(PATIENCE).with_muster(Muster::Tally { calls: !is_usual }))
}

/// What a node says, but for its calls of commands that the proxy counts.
fn without_own_calls(told: &[u8]) -> Vec<u8> {
    let is_kept = |line: &&[u8]| {
        let name =
            line.strip_prefix(b"cmdstat_").and_then(|rest| rest.split(|b| *b == b':').next());
        !name.is_some_and(|name| std::str::from_utf8(name).is_ok_and(calls::is_own))
    };
    told.split_inclusive(|byte| *byte == b'\n').filter(is_kept).flatten().copied().collect()
}

/// Fills in what the workers count.
fn with_shares(text: &str, share: &Share) -> String {
    let [clients, keys, items, prefixes] = share.tracking;
    let counts = [
        ("{waiting}", share.count),
        ("{tracking clients}", clients),
        ("{tracked keys}", keys),
        ("{tracked items}", items),
        ("{tracked prefixes}", prefixes),
    ];
    counts.iter().fold(text.to_owned(), |text, (name, n)| text.replace(name, &n.to_string()))
}

/// Fills in the first node's fields; 0 for one that it does not have.
fn firsts(text: &str, answers: &[Bytes]) -> String {
    let first = answers.first().map_or("", |first| std::str::from_utf8(first).unwrap_or(""));
    let field = |wanted: &str| {
        let mut fields = first.lines().filter_map(|line| line.split_once(':'));
        fields.find(|(name, _)| *name == wanted).map_or("0", |(_, value)| value)
    };
    let mut pieces = text.split("{=");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once('}').unwrap_or((piece, ""));
        filled.push_str(field(name));
        filled.push_str(rest);
    }
    filled
}

/// The text for these section names; all usual ones if there are none.
fn text<'a>(wanted: impl Iterator<Item = &'a [u8]>, env: &Env<'_>) -> String {
    let wanted: Vec<&[u8]> = wanted.collect();
    let asked = |name: &str| wanted.iter().any(|w| w.eq_ignore_ascii_case(name.as_bytes()));
    let all = asked("all") || asked("everything");
    let usual = wanted.is_empty() || asked("default") || all;
    let mut out = String::new();
    for (name, shown, body) in SECTIONS {
        let is_shown = match shown {
            Shown::Usually => usual,
            Shown::WithAll => all,
            Shown::Alone => false,
        };
        if is_shown || asked(name) {
            if !out.is_empty() {
                out.push_str("\r\n");
            }
            // Writing to a string cannot fail.
            let _ = write!(out, "# {name}\r\n{}", body(env));
        }
    }
    out
}

fn server(env: &Env<'_>) -> String {
    let uptime = (env.unix_us / 1_000_000).saturating_sub(env.proxy.started_s);
    format!(
        "redis_version:{}\r\nredis_git_sha1:00000000\r\nredis_git_dirty:0\r\nredis_build_id:0\r\n\
         redis_mode:{}\r\nos:{} {}\r\narch_bits:64\r\nmultiplexing_api:epoll\r\nprocess_id:{}\r\n\
         process_supervised:no\r\nrun_id:{}\r\ntcp_port:{}\r\nserver_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\n\
         uptime_in_days:{}\r\nhz:10\r\nconfigured_hz:10\r\nexecutable:\r\nconfig_file:\r\nio_threads_active:0\r\n",
        env.facts.version,
        env.proxy.view.mode(),
        std::env::consts::OS,
        std::env::consts::ARCH,
        std::process::id(),
        env.proxy.run_id,
        env.proxy.port,
        env.unix_us,
        uptime / 86_400,
    )
}

fn clients(env: &Env<'_>) -> String {
    let connected = env.proxy.clients.load(Relaxed);
    format!(
        "connected_clients:{connected}\r\ncluster_connections:0\r\nmaxclients:{}\r\n\
         client_recent_max_input_buffer:0\r\nclient_recent_max_output_buffer:0\r\nblocked_clients:{{waiting}}\r\n\
         tracking_clients:{{tracking clients}}\r\nclients_in_timeout_table:0\r\n",
        env.proxy.max_clients.load(Relaxed)
    )
}

fn stats(env: &Env<'_>) -> String {
    let [accepted, rejected] = env.proxy.connections();
    format!("total_connections_received:{accepted}\r\nrejected_connections:{rejected}\r\n{STATS}")
}

fn replication(env: &Env<'_>) -> String {
    format!(
        "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\nmaster_replid:{}\r\n\
         master_replid2:0000000000000000000000000000000000000000\r\nmaster_repl_offset:0\r\nsecond_repl_offset:-1\r\n\
         repl_backlog_active:0\r\nrepl_backlog_size:1048576\r\nrepl_backlog_first_byte_offset:0\r\nrepl_backlog_histlen:0\r\n",
        env.proxy.run_id
    )
}

fn cluster(env: &Env<'_>) -> String {
    format!("cluster_enabled:{}\r\n", u8::from(env.proxy.view != View::Hidden))
}

fn proxy(env: &Env<'_>) -> String {
    format!(
        "proxy_name:slotway\r\nproxy_version:{}\r\nproxy_clients_accepted:{}\r\nproxy_slow_commands:{}\r\n\
         proxy_monitor_lines_lost:{}\r\n",
        env!("CARGO_PKG_VERSION"),
        env.proxy.accepted.load(Relaxed),
        env.proxy.slow_count.load(Relaxed),
        env.proxy.monitor_lost.load(Relaxed),
    )
}
