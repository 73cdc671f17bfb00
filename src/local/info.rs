//! `INFO`: the proxy's own text. Fields in braces are filled with the sums over the primaries by `command::info`.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;

use super::Env;

/// A section: its name as clients ask for it, whether it is shown without being asked for, and its text.
type Section = (&'static str, bool, fn(&Env<'_>) -> String);

const SECTIONS: &[Section] = &[
    ("Server", true, server),
    ("Clients", true, clients),
    ("Memory", true, |_| MEMORY.to_owned()),
    ("Persistence", true, |_| {
        "loading:0\r\nasync_loading:0\r\nrdb_bgsave_in_progress:0\r\naof_enabled:0\r\n".to_owned()
    }),
    ("Stats", true, stats),
    ("Replication", true, |_| {
        "role:master\r\nconnected_slaves:0\r\nmaster_failover_state:no-failover\r\n".to_owned()
    }),
    ("CPU", true, |_| String::new()),
    ("Modules", true, |_| String::new()),
    ("Errorstats", true, |_| String::new()),
    ("Cluster", true, |_| "cluster_enabled:0\r\n".to_owned()),
    ("Keyspace", true, |_| "{db0}".to_owned()),
    ("Proxy", false, proxy),
];

const MEMORY: &str = "used_memory:{used_memory}\r\nused_memory_human:{used_memory_human}\r\nused_memory_rss:{used_memory_rss}\r\n\
used_memory_peak:{used_memory_peak}\r\nused_memory_peak_human:{used_memory_peak_human}\r\nused_memory_dataset:{used_memory_dataset}\r\n\
total_system_memory:{total_system_memory}\r\nmaxmemory:{maxmemory}\r\nmaxmemory_human:{maxmemory_human}\r\nmaxmemory_policy:noeviction\r\n";

const STATS: &str = "total_commands_processed:{total_commands_processed}\r\n\
instantaneous_ops_per_sec:{instantaneous_ops_per_sec}\r\nexpired_keys:{expired_keys}\r\nevicted_keys:{evicted_keys}\r\n\
keyspace_hits:{keyspace_hits}\r\nkeyspace_misses:{keyspace_misses}\r\npubsub_channels:0\r\npubsub_patterns:0\r\n";

/// The text for these section names; all usual ones if there are none.
pub fn text<'a>(wanted: impl Iterator<Item = &'a [u8]>, env: &Env<'_>) -> String {
    let wanted: Vec<&[u8]> = wanted.collect();
    let asked = |name: &str| wanted.iter().any(|w| w.eq_ignore_ascii_case(name.as_bytes()));
    let usual = wanted.is_empty() || asked("default") || asked("all") || asked("everything");
    let mut out = String::new();
    for (name, shown, body) in SECTIONS {
        if *shown && usual || asked(name) || asked("everything") {
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
        "redis_version:{}\r\nredis_mode:standalone\r\nos:{} {}\r\narch_bits:64\r\nprocess_id:{}\r\nrun_id:{}\r\ntcp_port:{}\r\n\
         server_time_usec:{}\r\nuptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\nhz:10\r\n",
        env.facts.version,
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
        "connected_clients:{connected}\r\nmaxclients:{}\r\nblocked_clients:0\r\ntracking_clients:0\r\n",
        env.proxy.max_clients.load(Relaxed)
    )
}

fn stats(env: &Env<'_>) -> String {
    let [accepted, rejected] = env.proxy.connections();
    format!("total_connections_received:{accepted}\r\nrejected_connections:{rejected}\r\n{STATS}")
}

fn proxy(env: &Env<'_>) -> String {
    format!("proxy_name:slotway\r\nproxy_version:{}\r\n", env!("CARGO_PKG_VERSION"))
        + &format!("proxy_clients_accepted:{}\r\n", env.proxy.accepted.load(Relaxed))
}
