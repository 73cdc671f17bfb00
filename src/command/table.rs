//! Every command the proxy knows: one row each, and the way from a name to its row.
//!
//! The rows are the facts; help, `COMMAND`, metrics and tests derive from them. Arity and flags are those of the newest
//! servers, which accept all that older ones do, and the words of a row's flags are the words of the server's `COMMAND`
//! reply. A command that is not here may still be known to the cluster's nodes: see `learned`.

use crate::command::Group::{
    Bitmap, Cluster, Connection, Generic, Geo, Hash, HyperLogLog, List, Module, PubSub, Scripting,
    Server, Set, SortedSet, Stream, String, Transactions,
};
use crate::command::Merge::{AllOk, ByKey, Concat, Sum};
use crate::command::{
    Across, Errand, Flags, Group, Keys, Local, Merge, Policy, Spec, Timeout, Use, Verb,
};

/// Finds the row of a command by its name, in any case.
#[inline]
pub fn lookup(name: &[u8]) -> Option<&'static Spec> {
    if name.len() > LONGEST_NAME {
        return None;
    }
    let mut place = place(name);
    while let Some(entry) = &INDEX[place] {
        let same = (entry.letters == name.len() && entry.word == word(name))
            || entry.spec.name.as_bytes().eq_ignore_ascii_case(name);
        if same {
            return Some(entry.spec);
        }
        place = (place + 1) % INDEX.len();
    }
    None
}

/// Finds the row of a container's subcommand by its name, in any case.
pub fn subcommand(container: &Spec, name: &[u8]) -> Option<&'static Spec> {
    container.subcommands.iter().find(|spec| spec.name.as_bytes().eq_ignore_ascii_case(name))
}

/// All commands by family. A row without a policy is `Keyed` if it has keys, else `Any`.
///
/// A container's own policy is for a subcommand that has no row. `Any` has it done as was learned of it, or else lets a
/// server answer it, and if it has a key after all, the server redirects it.
#[rustfmt::skip]
pub static TABLE: &[Spec] = &[
    // Generic.
    row("copy",        -3, TWO,   Generic, "write denyoom").across(Across::Copy).uses(Use::READ, Use::WRITE),
    row("del",         -2, KEYS,  Generic, "write").split(Sum),
    row("dump",         2, KEY,   Generic, "readonly"),
    row("exists",      -2, KEYS,  Generic, "readonly fast").split(Sum).uses(Use::NONE, Use::NONE),
    row("expire",      -3, KEY,   Generic, "write fast"),
    row("expireat",    -3, KEY,   Generic, "write fast"),
    row("expiretime",   2, KEY,   Generic, "readonly fast"),
    row("keys",         2, NONE,  Generic, "readonly").every(Concat),
    row("migrate",     -6, THIRD, Generic, "write movablekeys").refuse().uses(Use::BOTH, Use::BOTH),
    row("move",         3, KEY,   Generic, "write fast").refuse().uses(Use::BOTH, Use::BOTH),
    row("object",      -2, NONE,  Generic, "").of(OBJECT),
    row("persist",      2, KEY,   Generic, "write fast"),
    row("pexpire",     -3, KEY,   Generic, "write fast"),
    row("pexpireat",   -3, KEY,   Generic, "write fast"),
    row("pexpiretime",  2, KEY,   Generic, "readonly fast"),
    row("pttl",         2, KEY,   Generic, "readonly fast"),
    row("randomkey",    1, NONE,  Generic, "readonly").errand(Errand::RandomKey),
    row("rename",       3, TWO,   Generic, "write").across(Across::Rename).uses(Use::BOTH, Use::WRITE),
    row("renamenx",     3, TWO,   Generic, "write fast").across(Across::Rename).uses(Use::BOTH, Use::WRITE),
    row("restore",     -4, KEY,   Generic, "write denyoom"),
    row("scan",        -2, NONE,  Generic, "readonly").errand(Errand::Scan),
    row("sort",        -2, SORT,  Generic, "write denyoom movablekeys").policy(Policy::Sort).across(Across::SortStore).uses(Use::READ, Use::WRITE),
    row("sort_ro",     -2, KEY,   Generic, "readonly movablekeys").policy(Policy::Sort),
    row("touch",       -2, KEYS,  Generic, "readonly fast").split(Sum).uses(Use::NONE, Use::NONE),
    row("ttl",          2, KEY,   Generic, "readonly fast"),
    row("type",         2, KEY,   Generic, "readonly fast").uses(Use::NONE, Use::NONE),
    row("unlink",      -2, KEYS,  Generic, "write fast").split(Sum),
    row("wait",         3, NONE,  Generic, "blocking").verb(Verb::Wait),
    row("waitaof",      4, NONE,  Generic, "blocking").later(),

    // String.
    row("append",       3, KEY,           String, "write denyoom fast"),
    row("decr",         2, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("decrby",       3, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("delex",       -2, KEY,           String, "write fast").uses(Use::BOTH, Use::BOTH),
    row("delifeq",      3, KEY,           String, "write").uses(Use::BOTH, Use::BOTH),
    row("digest",       2, KEY,           String, "readonly fast"),
    row("get",          2, KEY,           String, "readonly fast"),
    row("getdel",       2, KEY,           String, "write fast").uses(Use::BOTH, Use::BOTH),
    row("getex",       -2, KEY,           String, "write fast").uses(Use::BOTH, Use::BOTH),
    row("getrange",     4, KEY,           String, "readonly"),
    row("getset",       3, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("incr",         2, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("incrby",       3, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("incrbyfloat",  3, KEY,           String, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("lcs",         -3, TWO,           String, "readonly").across(Across::Gather),
    row("mget",        -2, KEYS,          String, "readonly fast").split(ByKey),
    row("mset",        -3, PAIRS,         String, "write denyoom").split(AllOk),
    row("msetex",      -4, COUNTED_PAIRS, String, "write denyoom movablekeys").uses(Use::BOTH, Use::BOTH),
    row("msetnx",      -3, PAIRS,         String, "write denyoom").across(Across::SetAll),
    row("psetex",       4, KEY,           String, "write denyoom"),
    row("set",         -3, KEY,           String, "write denyoom"),
    row("setex",        4, KEY,           String, "write denyoom"),
    row("setnx",        3, KEY,           String, "write denyoom fast"),
    row("setrange",     4, KEY,           String, "write denyoom"),
    row("strlen",       2, KEY,           String, "readonly fast").uses(Use::NONE, Use::NONE),
    row("substr",       4, KEY,           String, "readonly"),

    // Bitmap.
    row("bitcount",    -2, KEY,         Bitmap, "readonly"),
    row("bitfield",    -2, KEY,         Bitmap, "write denyoom").uses(Use::BOTH, Use::BOTH),
    row("bitfield_ro", -2, KEY,         Bitmap, "readonly fast"),
    row("bitop",       -4, FROM_SECOND, Bitmap, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("bitpos",      -3, KEY,         Bitmap, "readonly"),
    row("getbit",       3, KEY,         Bitmap, "readonly fast"),
    row("setbit",       4, KEY,         Bitmap, "write denyoom").uses(Use::BOTH, Use::BOTH),

    // Hash.
    row("hdel",         -3, KEY, Hash, "write fast"),
    row("hexists",       3, KEY, Hash, "readonly fast").uses(Use::NONE, Use::NONE),
    row("hexpire",      -6, KEY, Hash, "write denyoom fast"),
    row("hexpireat",    -6, KEY, Hash, "write denyoom fast"),
    row("hexpiretime",  -5, KEY, Hash, "readonly fast"),
    row("hget",          3, KEY, Hash, "readonly fast"),
    row("hgetall",       2, KEY, Hash, "readonly"),
    row("hgetdel",      -5, KEY, Hash, "write fast").uses(Use::BOTH, Use::BOTH),
    row("hgetex",       -5, KEY, Hash, "write fast").uses(Use::BOTH, Use::BOTH),
    row("hincrby",       4, KEY, Hash, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("hincrbyfloat",  4, KEY, Hash, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("hkeys",         2, KEY, Hash, "readonly"),
    row("hlen",          2, KEY, Hash, "readonly fast").uses(Use::NONE, Use::NONE),
    row("hmget",        -3, KEY, Hash, "readonly fast"),
    row("hmset",        -4, KEY, Hash, "write denyoom fast"),
    row("hpersist",     -5, KEY, Hash, "write fast"),
    row("hpexpire",     -6, KEY, Hash, "write denyoom fast"),
    row("hpexpireat",   -6, KEY, Hash, "write denyoom fast"),
    row("hpexpiretime", -5, KEY, Hash, "readonly fast"),
    row("hpttl",        -5, KEY, Hash, "readonly fast"),
    row("hrandfield",   -2, KEY, Hash, "readonly"),
    row("hscan",        -3, KEY, Hash, "readonly"),
    row("hset",         -4, KEY, Hash, "write denyoom fast"),
    row("hsetex",       -6, KEY, Hash, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("hsetnx",        4, KEY, Hash, "write denyoom fast"),
    row("hstrlen",       3, KEY, Hash, "readonly fast").uses(Use::NONE, Use::NONE),
    row("httl",         -5, KEY, Hash, "readonly fast"),
    row("hvals",         2, KEY, Hash, "readonly"),

    // List.
    row("blmove",      6, TWO,          List, "write denyoom blocking").blocking(Timeout::Last).across(Across::Element).uses(Use::BOTH, Use::WRITE),
    row("blmpop",     -5, counted(2),   List, "write blocking movablekeys").blocking(Timeout::First).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("blpop",      -3, ALL_BUT_LAST, List, "write blocking").blocking(Timeout::Last).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("brpop",      -3, ALL_BUT_LAST, List, "write blocking").blocking(Timeout::Last).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("brpoplpush",  4, TWO,          List, "write denyoom blocking").blocking(Timeout::Last).across(Across::Element).uses(Use::BOTH, Use::WRITE),
    row("lindex",      3, KEY,          List, "readonly"),
    row("linsert",     5, KEY,          List, "write denyoom"),
    row("llen",        2, KEY,          List, "readonly fast").uses(Use::NONE, Use::NONE),
    row("lmove",       5, TWO,          List, "write denyoom").across(Across::Element).uses(Use::BOTH, Use::WRITE),
    row("lmpop",      -4, counted(1),   List, "write movablekeys").across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("lpop",       -2, KEY,          List, "write fast").uses(Use::BOTH, Use::BOTH),
    row("lpos",       -3, KEY,          List, "readonly"),
    row("lpush",      -3, KEY,          List, "write denyoom fast"),
    row("lpushx",     -3, KEY,          List, "write denyoom fast"),
    row("lrange",      4, KEY,          List, "readonly"),
    row("lrem",        4, KEY,          List, "write"),
    row("lset",        4, KEY,          List, "write denyoom"),
    row("ltrim",       4, KEY,          List, "write"),
    row("rpop",       -2, KEY,          List, "write fast").uses(Use::BOTH, Use::BOTH),
    row("rpoplpush",   3, TWO,          List, "write denyoom").across(Across::Element).uses(Use::BOTH, Use::WRITE),
    row("rpush",      -3, KEY,          List, "write denyoom fast"),
    row("rpushx",     -3, KEY,          List, "write denyoom fast"),

    // Set.
    row("sadd",        -3, KEY,        Set, "write denyoom fast"),
    row("scard",        2, KEY,        Set, "readonly fast").uses(Use::NONE, Use::NONE),
    row("sdiff",       -2, KEYS,       Set, "readonly").across(Across::Gather),
    row("sdiffstore",  -3, KEYS,       Set, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("sinter",      -2, KEYS,       Set, "readonly").across(Across::Gather),
    row("sintercard",  -3, counted(1), Set, "readonly movablekeys").across(Across::Gather),
    row("sinterstore", -3, KEYS,       Set, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("sismember",    3, KEY,        Set, "readonly fast").uses(Use::NONE, Use::NONE),
    row("smembers",     2, KEY,        Set, "readonly"),
    row("smismember",  -3, KEY,        Set, "readonly fast"),
    row("smove",        4, TWO,        Set, "write fast").across(Across::Member).uses(Use::BOTH, Use::WRITE),
    row("spop",        -2, KEY,        Set, "write fast").uses(Use::BOTH, Use::BOTH),
    row("srandmember", -2, KEY,        Set, "readonly"),
    row("srem",        -3, KEY,        Set, "write fast"),
    row("sscan",       -3, KEY,        Set, "readonly"),
    row("sunion",      -2, KEYS,       Set, "readonly").across(Across::Gather),
    row("sunionstore", -3, KEYS,       Set, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),

    // Sorted set.
    row("bzmpop",           -5, counted(2),    SortedSet, "write blocking movablekeys").blocking(Timeout::First).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("bzpopmax",         -3, ALL_BUT_LAST,  SortedSet, "write blocking fast").blocking(Timeout::Last).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("bzpopmin",         -3, ALL_BUT_LAST,  SortedSet, "write blocking fast").blocking(Timeout::Last).across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("zadd",             -4, KEY,           SortedSet, "write denyoom fast"),
    row("zcard",             2, KEY,           SortedSet, "readonly fast").uses(Use::NONE, Use::NONE),
    row("zcount",            4, KEY,           SortedSet, "readonly fast"),
    row("zdiff",            -3, counted(1),    SortedSet, "readonly movablekeys").across(Across::Gather),
    row("zdiffstore",       -4, STORE_COUNTED, SortedSet, "write denyoom movablekeys").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("zincrby",           4, KEY,           SortedSet, "write denyoom fast").uses(Use::BOTH, Use::BOTH),
    row("zinter",           -3, counted(1),    SortedSet, "readonly movablekeys").across(Across::Gather),
    row("zintercard",       -3, counted(1),    SortedSet, "readonly movablekeys").across(Across::Gather),
    row("zinterstore",      -4, STORE_COUNTED, SortedSet, "write denyoom movablekeys").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("zlexcount",         4, KEY,           SortedSet, "readonly fast"),
    row("zmpop",            -4, counted(1),    SortedSet, "write movablekeys").across(Across::First).uses(Use::BOTH, Use::BOTH),
    row("zmscore",          -3, KEY,           SortedSet, "readonly fast"),
    row("zpopmax",          -2, KEY,           SortedSet, "write fast").uses(Use::BOTH, Use::BOTH),
    row("zpopmin",          -2, KEY,           SortedSet, "write fast").uses(Use::BOTH, Use::BOTH),
    row("zrandmember",      -2, KEY,           SortedSet, "readonly"),
    row("zrange",           -4, KEY,           SortedSet, "readonly"),
    row("zrangebylex",      -4, KEY,           SortedSet, "readonly"),
    row("zrangebyscore",    -4, KEY,           SortedSet, "readonly"),
    row("zrangestore",      -5, TWO,           SortedSet, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),
    row("zrank",            -3, KEY,           SortedSet, "readonly fast"),
    row("zrem",             -3, KEY,           SortedSet, "write fast"),
    row("zremrangebylex",    4, KEY,           SortedSet, "write"),
    row("zremrangebyrank",   4, KEY,           SortedSet, "write"),
    row("zremrangebyscore",  4, KEY,           SortedSet, "write"),
    row("zrevrange",        -4, KEY,           SortedSet, "readonly"),
    row("zrevrangebylex",   -4, KEY,           SortedSet, "readonly"),
    row("zrevrangebyscore", -4, KEY,           SortedSet, "readonly"),
    row("zrevrank",         -3, KEY,           SortedSet, "readonly fast"),
    row("zscan",            -3, KEY,           SortedSet, "readonly"),
    row("zscore",            3, KEY,           SortedSet, "readonly fast"),
    row("zunion",           -3, counted(1),    SortedSet, "readonly movablekeys").across(Across::Gather),
    row("zunionstore",      -4, STORE_COUNTED, SortedSet, "write denyoom movablekeys").across(Across::Gather).uses(Use::WRITE, Use::READ),

    // Stream.
    row("xack",       -4, KEY,     Stream, "write fast"),
    row("xackdel",    -6, KEY,     Stream, "write fast").uses(Use::BOTH, Use::BOTH),
    row("xadd",       -5, KEY,     Stream, "write denyoom fast"),
    row("xautoclaim", -6, KEY,     Stream, "write fast"),
    row("xcfgset",    -2, KEY,     Stream, "write fast").uses(Use::BOTH, Use::BOTH),
    row("xclaim",     -6, KEY,     Stream, "write fast"),
    row("xdel",       -3, KEY,     Stream, "write fast"),
    row("xdelex",     -5, KEY,     Stream, "write fast").uses(Use::BOTH, Use::BOTH),
    row("xgroup",     -2, NONE,    Stream, "").of(XGROUP),
    row("xinfo",      -2, NONE,    Stream, "").of(XINFO),
    row("xlen",        2, KEY,     Stream, "readonly fast").uses(Use::NONE, Use::NONE),
    row("xpending",   -3, KEY,     Stream, "readonly"),
    row("xrange",     -4, KEY,     Stream, "readonly"),
    row("xread",      -4, STREAMS, Stream, "readonly blocking movablekeys").blocking(Timeout::Block).across(Across::Streams),
    row("xreadgroup", -7, STREAMS, Stream, "write blocking movablekeys").blocking(Timeout::Block).across(Across::Streams).uses(Use::READ, Use::READ),
    row("xrevrange",  -4, KEY,     Stream, "readonly"),
    row("xsetid",     -3, KEY,     Stream, "write denyoom fast"),
    row("xtrim",      -4, KEY,     Stream, "write"),

    // Geo.
    row("geoadd",               -5, KEY,      Geo, "write denyoom"),
    row("geodist",              -4, KEY,      Geo, "readonly"),
    row("geohash",              -2, KEY,      Geo, "readonly"),
    row("geopos",               -2, KEY,      Geo, "readonly"),
    row("georadius",            -6, store(6), Geo, "write denyoom movablekeys").across(Across::Gather).uses(Use::READ, Use::WRITE),
    row("georadius_ro",         -6, KEY,      Geo, "readonly"),
    row("georadiusbymember",    -5, store(5), Geo, "write denyoom movablekeys").across(Across::Gather).uses(Use::READ, Use::WRITE),
    row("georadiusbymember_ro", -5, KEY,      Geo, "readonly"),
    row("geosearch",            -7, KEY,      Geo, "readonly"),
    row("geosearchstore",       -8, TWO,      Geo, "write denyoom").across(Across::Gather).uses(Use::WRITE, Use::READ),

    // HyperLogLog.
    row("pfadd",      -2, KEY,    HyperLogLog, "write denyoom fast"),
    row("pfcount",    -2, KEYS,   HyperLogLog, "readonly may_replicate").across(Across::Gather),
    row("pfdebug",     3, SECOND, HyperLogLog, "write denyoom admin").uses(Use::READ, Use::READ),
    row("pfmerge",    -2, KEYS,   HyperLogLog, "write denyoom").across(Across::Gather).uses(Use::BOTH, Use::READ),
    row("pfselftest",  1, NONE,   HyperLogLog, "admin"),

    // Pub/sub.
    row("psubscribe",   -2, NONE, PubSub, "pubsub noscript loading stale").verb(Verb::Psubscribe),
    row("publish",       3, NONE, PubSub, "pubsub loading stale fast may_replicate").publish(),
    row("pubsub",       -2, NONE, PubSub, "").verb(Verb::Pubsub).of(PUBSUB),
    row("punsubscribe", -1, NONE, PubSub, "pubsub noscript loading stale").verb(Verb::Punsubscribe),
    row("spublish",      3, KEY,  PubSub, "pubsub loading stale fast may_replicate").publish(),
    row("ssubscribe",   -2, KEYS, PubSub, "pubsub noscript loading stale").verb(Verb::Ssubscribe),
    row("subscribe",    -2, NONE, PubSub, "pubsub noscript loading stale").verb(Verb::Subscribe),
    row("sunsubscribe", -1, KEYS, PubSub, "pubsub noscript loading stale").verb(Verb::Sunsubscribe),
    row("unsubscribe",  -1, NONE, PubSub, "pubsub noscript loading stale").verb(Verb::Unsubscribe),

    // Scripting.
    row("eval",       -3, counted(2), Scripting, EVAL),
    row("eval_ro",    -3, counted(2), Scripting, EVAL_RO),
    row("evalsha",    -3, counted(2), Scripting, EVAL),
    row("evalsha_ro", -3, counted(2), Scripting, EVAL_RO),
    row("fcall",      -3, counted(2), Scripting, EVAL),
    row("fcall_ro",   -3, counted(2), Scripting, EVAL_RO),
    row("function",   -2, NONE,       Scripting, "").of(FUNCTION),
    row("script",     -2, NONE,       Scripting, "").of(SCRIPT),

    // Transactions.
    row("discard",  1, NONE, Transactions, "noscript loading stale fast allow_busy").verb(Verb::Discard),
    row("exec",     1, NONE, Transactions, "noscript loading stale skip_slowlog").verb(Verb::Exec),
    row("multi",    1, NONE, Transactions, "noscript loading stale fast allow_busy").verb(Verb::Multi),
    row("unwatch",  1, NONE, Transactions, "noscript loading stale fast allow_busy").verb(Verb::Unwatch),
    row("watch",   -2, KEYS, Transactions, "noscript loading stale fast allow_busy").verb(Verb::Watch).uses(Use::NONE, Use::NONE),

    // Connection.
    row("auth",   -2, NONE, Connection, "noscript loading stale fast no_auth allow_busy").local(Local::Auth),
    row("client", -2, NONE, Connection, "").local(Local::Client).of(CLIENT),
    row("echo",    2, NONE, Connection, "loading stale fast").local(Local::Echo),
    row("hello",  -1, NONE, Connection, "noscript loading stale fast no_auth allow_busy").local(Local::Hello),
    row("ping",   -1, NONE, Connection, "fast").local(Local::Ping),
    row("quit",   -1, NONE, Connection, "noscript loading stale fast no_auth allow_busy").local(Local::Quit),
    row("reset",   1, NONE, Connection, "noscript loading stale fast no_auth allow_busy").local(Local::Reset),
    row("select",  2, NONE, Connection, "loading stale fast").local(Local::Select),

    // Server.
    row("acl",            -2, NONE, Server, "").local(Local::Acl).of(ACL),
    row("bgrewriteaof",    1, NONE, Server, "admin noscript no_async_loading").every(AllOk),
    row("bgsave",         -1, NONE, Server, "admin noscript no_async_loading").every(AllOk),
    row("command",        -1, NONE, Server, "loading stale").local(Local::Command).of(COMMAND),
    row("commandlog",     -2, NONE, Server, "").later(),
    row("config",         -2, NONE, Server, "").local(Local::Config).of(CONFIG),
    row("dbsize",          1, NONE, Server, "readonly fast").every(Sum),
    row("debug",          -2, NONE, Server, "admin noscript loading stale").local(Local::Debug).of(DEBUG),
    row("failover",       -1, NONE, Server, "admin noscript stale").refuse(),
    row("flushall",       -1, NONE, Server, "write").every(AllOk),
    row("flushdb",        -1, NONE, Server, "write").every(AllOk),
    row("hotkeys",        -2, NONE, Server, "").later(),
    row("info",           -1, NONE, Server, "loading stale").local(Local::Info),
    row("lastsave",        1, NONE, Server, "loading stale fast").local(Local::LastSave),
    row("latency",        -2, NONE, Server, "").of(LATENCY),
    row("lolwut",         -1, NONE, Server, "readonly fast"),
    row("memory",         -2, NONE, Server, "").of(MEMORY),
    row("module",         -2, NONE, Server, "").refuse().of(MODULE),
    row("monitor",         1, NONE, Server, "admin noscript loading stale").local(Local::Monitor),
    row("psync",          -3, NONE, Server, "admin noscript no_async_loading no_multi").refuse(),
    row("replconf",       -1, NONE, Server, "admin noscript loading stale allow_busy").refuse(),
    row("replicaof",       3, NONE, Server, "admin noscript stale no_async_loading").refuse(),
    row("restore-asking", -4, KEY,  Server, "write denyoom asking").refuse(),
    row("role",            1, NONE, Server, "noscript loading stale fast").local(Local::Role),
    row("save",            1, NONE, Server, "admin noscript no_async_loading no_multi").errand(Errand::Save),
    row("sflush",         -3, NONE, Server, "write").refuse(),
    row("shutdown",       -1, NONE, Server, "admin noscript loading stale no_multi allow_busy").refuse(),
    row("slaveof",         3, NONE, Server, "admin noscript stale no_async_loading").refuse(),
    row("slowlog",        -2, NONE, Server, "").local(Local::Slowlog).of(SLOWLOG),
    row("swapdb",          3, NONE, Server, "write fast").refuse(),
    row("sync",            1, NONE, Server, "admin noscript no_async_loading no_multi").refuse(),
    row("time",            1, NONE, Server, "loading stale fast").local(Local::Time),
    row("trimslots",      -5, NONE, Server, "write").refuse(),

    // Cluster.
    row("asking",       1, NONE, Cluster, "fast").local(Local::Asking),
    row("cluster",     -2, NONE, Cluster, "").local(Local::Cluster).of(CLUSTER),
    row("clusterscan", -2, KEY,  Cluster, "readonly").later(),
    row("readonly",     1, NONE, Cluster, "loading stale fast").local(Local::Readonly),
    row("readwrite",    1, NONE, Cluster, "loading stale fast").local(Local::Readwrite),

    // Vector sets: their arity is told by newer servers only, so it is left to the server.
    row("vadd",        -1, KEY, Module, "write denyoom").uses(Use::BOTH, Use::BOTH),
    row("vcard",       -1, KEY, Module, "readonly fast"),
    row("vdim",        -1, KEY, Module, "readonly fast"),
    row("vemb",        -1, KEY, Module, "readonly fast"),
    row("vgetattr",    -1, KEY, Module, "readonly fast"),
    row("vinfo",       -1, KEY, Module, "readonly fast"),
    row("vismember",   -1, KEY, Module, "readonly fast"),
    row("vlinks",      -1, KEY, Module, "readonly fast"),
    row("vrandmember", -1, KEY, Module, "readonly fast"),
    row("vrange",      -1, KEY, Module, "readonly"),
    row("vrem",        -1, KEY, Module, "write").uses(Use::BOTH, Use::BOTH),
    row("vsetattr",    -1, KEY, Module, "write fast").uses(Use::BOTH, Use::BOTH),
    row("vsim",        -1, KEY, Module, "readonly"),
];

// Subcommands, where the policy of a container differs by subcommand or will.

#[rustfmt::skip]
const OBJECT: &[Spec] = &[
    row("encoding",  3, SECOND, Generic, "readonly").uses(Use::NONE, Use::NONE),
    row("freq",      3, SECOND, Generic, "readonly").uses(Use::NONE, Use::NONE),
    row("help",      2, NONE,   Generic, "loading stale"),
    row("idletime",  3, SECOND, Generic, "readonly").uses(Use::NONE, Use::NONE),
    row("refcount",  3, SECOND, Generic, "readonly").uses(Use::NONE, Use::NONE),
];

#[rustfmt::skip]
const XINFO: &[Spec] = &[
    row("consumers",  4, SECOND, Stream, "readonly"),
    row("groups",     3, SECOND, Stream, "readonly"),
    row("help",       2, NONE,   Stream, "loading stale"),
    row("stream",    -3, SECOND, Stream, "readonly"),
];

#[rustfmt::skip]
const XGROUP: &[Spec] = &[
    row("create",         -5, SECOND, Stream, "write denyoom"),
    row("createconsumer",  5, SECOND, Stream, "write denyoom"),
    row("delconsumer",     5, SECOND, Stream, "write"),
    row("destroy",         4, SECOND, Stream, "write"),
    row("help",            2, NONE,   Stream, "loading stale"),
    row("setid",          -5, SECOND, Stream, "write"),
];

#[rustfmt::skip]
const MEMORY: &[Spec] = &[
    row("doctor",        2, NONE,   Server, ""),
    row("help",          2, NONE,   Server, "loading stale"),
    row("malloc-stats",  2, NONE,   Server, ""),
    row("purge",         2, NONE,   Server, "").every(AllOk),
    row("stats",         2, NONE,   Server, ""),
    row("usage",        -3, SECOND, Server, "readonly").uses(Use::NONE, Use::NONE),
];

#[rustfmt::skip]
const DEBUG: &[Spec] = &[
    row("object", -3, SECOND, Server, "admin noscript loading stale"),
];

#[rustfmt::skip]
const CLIENT: &[Spec] = &[
    row("caching",       3, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("getname",       2, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("getredir",      2, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("help",          2, NONE, Connection, "loading stale").local(Local::Client),
    row("id",            2, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("info",          2, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("kill",         -3, NONE, Connection, "admin noscript loading stale").local(Local::Client),
    row("list",         -2, NONE, Connection, "admin noscript loading stale").local(Local::Client),
    row("no-evict",      3, NONE, Connection, "admin noscript loading stale").local(Local::Client),
    row("no-touch",      3, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("pause",        -3, NONE, Connection, "admin noscript loading stale").local(Local::Client),
    row("reply",         3, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("setinfo",       4, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("setname",       3, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("tracking",     -3, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("trackinginfo",  2, NONE, Connection, "noscript loading stale").local(Local::Client),
    row("unblock",      -3, NONE, Connection, "admin noscript loading stale").local(Local::Client),
    row("unpause",       2, NONE, Connection, "admin noscript loading stale").local(Local::Client),
];

/// In the group whose ACL category they have. How a command uses its keys is known to the servers alone.
#[rustfmt::skip]
const COMMAND: &[Spec] = &[
    row("count",            2, NONE, Connection, "loading stale").local(Local::Command),
    row("docs",            -2, NONE, Connection, "loading stale").local(Local::Command),
    row("getkeys",         -3, NONE, Connection, "loading stale").local(Local::Command),
    row("getkeysandflags", -3, NONE, Connection, "loading stale"),
    row("help",             2, NONE, Connection, "loading stale").local(Local::Command),
    row("info",            -2, NONE, Connection, "loading stale").local(Local::Command),
    row("list",            -2, NONE, Connection, "loading stale").local(Local::Command),
];

#[rustfmt::skip]
const SCRIPT: &[Spec] = &[
    row("debug",   3, NONE, Scripting, "noscript").refuse(),
    row("exists", -3, NONE, Scripting, "noscript").errand(Errand::HaveScripts),
    row("flush",  -2, NONE, Scripting, "noscript").errand(Errand::FlushScripts),
    row("help",    2, NONE, Scripting, "loading stale"),
    row("kill",    2, NONE, Scripting, "noscript allow_busy").errand(Errand::Kill),
    row("load",    3, NONE, Scripting, "noscript stale").errand(Errand::LoadScript),
    row("show",    3, NONE, Scripting, "noscript"),
];

#[rustfmt::skip]
const FUNCTION: &[Spec] = &[
    row("delete",   3, NONE, Scripting, "write noscript").every(AllOk),
    row("dump",     2, NONE, Scripting, "noscript"),
    row("flush",   -2, NONE, Scripting, "write noscript").every(AllOk),
    row("help",     2, NONE, Scripting, "loading stale"),
    row("kill",     2, NONE, Scripting, "noscript allow_busy").errand(Errand::Kill),
    row("list",    -2, NONE, Scripting, "noscript"),
    row("load",    -3, NONE, Scripting, "write denyoom noscript").errand(Errand::LoadLibrary),
    row("restore", -3, NONE, Scripting, "write denyoom noscript").every(AllOk),
    row("stats",    2, NONE, Scripting, "noscript allow_busy").errand(Errand::RunningFunction),
];

#[rustfmt::skip]
const PUBSUB: &[Spec] = &[
    row("channels",      -2, NONE, PubSub, "pubsub loading stale").verb(Verb::Pubsub),
    row("help",           2, NONE, PubSub, "loading stale"),
    row("numpat",         2, NONE, PubSub, "pubsub loading stale").verb(Verb::Pubsub),
    row("numsub",        -2, NONE, PubSub, "pubsub loading stale").verb(Verb::Pubsub),
    row("shardchannels", -2, NONE, PubSub, "pubsub loading stale").verb(Verb::Pubsub),
    row("shardnumsub",   -2, NONE, PubSub, "pubsub loading stale").verb(Verb::Pubsub),
];

#[rustfmt::skip]
const LATENCY: &[Spec] = &[
    row("doctor",     2, NONE, Server, "admin noscript loading stale"),
    row("graph",      3, NONE, Server, "admin noscript loading stale"),
    row("help",       2, NONE, Server, "loading stale"),
    row("histogram", -2, NONE, Server, "admin noscript loading stale").local(Local::Latency),
    row("history",    3, NONE, Server, "admin noscript loading stale").local(Local::Latency),
    row("latest",     2, NONE, Server, "admin noscript loading stale").local(Local::Latency),
    row("reset",     -2, NONE, Server, "admin noscript loading stale").every(Sum),
];

#[rustfmt::skip]
const CONFIG: &[Spec] = &[
    row("get",       -3, NONE, Server, "admin noscript loading stale").local(Local::Config),
    row("help",       2, NONE, Server, "loading stale").local(Local::Config),
    row("resetstat",  2, NONE, Server, "admin noscript loading stale").local(Local::Config),
    row("rewrite",    2, NONE, Server, "admin noscript loading stale").refuse(),
    row("set",       -4, NONE, Server, "admin noscript loading stale").local(Local::Config),
];

/// What becomes of them depends on what clients are to see of the cluster.
#[rustfmt::skip]
const CLUSTER: &[Spec] = &[
    row("addslots",              -3, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("addslotsrange",         -4, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("bumpepoch",              2, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("count-failure-reports",  3, NONE, Cluster, "admin stale").local(Local::Cluster),
    row("countkeysinslot",        3, NONE, Cluster, "stale").local(Local::Cluster),
    row("delslots",              -3, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("delslotsrange",         -4, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("failover",              -2, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("flushslots",             2, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("forget",                 3, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("getkeysinslot",          4, NONE, Cluster, "stale").local(Local::Cluster),
    row("help",                   2, NONE, Cluster, "loading stale").local(Local::Cluster),
    row("info",                   2, NONE, Cluster, "stale").local(Local::Cluster),
    row("keyslot",                3, NONE, Cluster, "stale").local(Local::Cluster),
    row("links",                  2, NONE, Cluster, "stale").local(Local::Cluster),
    row("meet",                  -4, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("myid",                   2, NONE, Cluster, "stale").local(Local::Cluster),
    row("nodes",                  2, NONE, Cluster, "stale").local(Local::Cluster),
    row("replicas",               3, NONE, Cluster, "admin stale").local(Local::Cluster),
    row("replicate",              3, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("reset",                 -2, NONE, Cluster, "admin noscript stale").local(Local::Cluster),
    row("saveconfig",             2, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("set-config-epoch",       3, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("setslot",               -4, NONE, Cluster, "admin stale no_async_loading").local(Local::Cluster),
    row("shards",                 2, NONE, Cluster, "stale").local(Local::Cluster),
    row("slaves",                 3, NONE, Cluster, "admin stale").local(Local::Cluster),
    row("slots",                  2, NONE, Cluster, "stale").local(Local::Cluster),
];

#[rustfmt::skip]
const SLOWLOG: &[Spec] = &[
    row("get",   -2, NONE, Server, "admin loading stale").local(Local::Slowlog),
    row("help",   2, NONE, Server, "loading stale").local(Local::Slowlog),
    row("len",    2, NONE, Server, "admin loading stale").local(Local::Slowlog),
    row("reset",  2, NONE, Server, "admin loading stale").local(Local::Slowlog),
];

#[rustfmt::skip]
const ACL: &[Spec] = &[
    row("cat",     -2, NONE, Server, "noscript loading stale").local(Local::Acl),
    row("deluser", -3, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("dryrun",  -4, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("genpass", -2, NONE, Server, "noscript loading stale").local(Local::Acl),
    row("getuser",  3, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("help",     2, NONE, Server, "loading stale").local(Local::Acl),
    row("list",     2, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("load",     2, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("log",     -2, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("save",     2, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("setuser", -3, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("users",    2, NONE, Server, "admin noscript loading stale").local(Local::Acl),
    row("whoami",   2, NONE, Server, "noscript loading stale").local(Local::Acl),
];

#[rustfmt::skip]
const MODULE: &[Spec] = &[
    row("help",    2, NONE, Server, "loading stale"),
    row("list",    2, NONE, Server, "admin noscript"),
    row("load",   -3, NONE, Server, "admin noscript no_async_loading").refuse(),
    row("loadex", -3, NONE, Server, "admin noscript no_async_loading").refuse(),
    row("unload",  3, NONE, Server, "admin noscript no_async_loading").refuse(),
];

/// Flags of what runs a script or function that may write.
const EVAL: &str = "noscript stale skip_monitor no_mandatory_keys movablekeys may_replicate";

/// Flags of what runs a script or function that only reads.
const EVAL_RO: &str = "readonly noscript stale skip_monitor no_mandatory_keys movablekeys";

const NONE: Keys = Keys::None;
const KEY: Keys = Keys::Range { first: 1, last: 1, step: 1 };
const TWO: Keys = Keys::Range { first: 1, last: 2, step: 1 };
const KEYS: Keys = Keys::Range { first: 1, last: -1, step: 1 };
const PAIRS: Keys = Keys::Range { first: 1, last: -1, step: 2 };
const ALL_BUT_LAST: Keys = Keys::Range { first: 1, last: -2, step: 1 };
const SECOND: Keys = Keys::Range { first: 2, last: 2, step: 1 };
const FROM_SECOND: Keys = Keys::Range { first: 2, last: -1, step: 1 };
const THIRD: Keys = Keys::Range { first: 3, last: 3, step: 1 };
const COUNTED_PAIRS: Keys = Keys::Counted { count: 1, step: 2, also: 0 };
const STORE_COUNTED: Keys = Keys::Counted { count: 2, step: 1, also: 1 };
const STREAMS: Keys = Keys::Streams { from: 1 };
const SORT: Keys =
    Keys::Worded { from: 2, words: &["STORE"], skip: &[("LIMIT", 2), ("BY", 1), ("GET", 1)] };

const fn counted(count: u8) -> Keys {
    Keys::Counted { count, step: 1, also: 0 }
}

const fn store(from: u8) -> Keys {
    Keys::Worded { from, words: &["STORE", "STOREDIST"], skip: &[] }
}

const fn row(name: &'static str, arity: i16, keys: Keys, group: Group, words: &str) -> Spec {
    let policy = if matches!(keys, Keys::None) { Policy::Any } else { Policy::Keyed };
    let flags = flags(words);
    let uses = Use::of(flags);
    Spec { name, arity, keys, policy, flags, group, uses, across: None, subcommands: &[] }
}

impl Spec {
    /// What it does with its first key, and with the others.
    const fn uses(self, first: Use, others: Use) -> Self {
        Self { uses: [first, others], ..self }
    }

    const fn across(self, across: Across) -> Self {
        Self { across: Some(across), ..self }
    }

    const fn split(self, merge: Merge) -> Self {
        self.policy(Policy::Split(merge))
    }

    const fn every(self, merge: Merge) -> Self {
        self.policy(Policy::Every(merge))
    }

    const fn local(self, local: Local) -> Self {
        self.policy(Policy::Local(local))
    }

    const fn refuse(self) -> Self {
        self.policy(Policy::Refuse)
    }

    const fn blocking(self, timeout: Timeout) -> Self {
        self.policy(Policy::Blocking(timeout))
    }

    const fn verb(self, verb: Verb) -> Self {
        self.policy(Policy::Session(verb))
    }

    const fn errand(self, errand: Errand) -> Self {
        self.policy(Policy::Errand(errand))
    }

    const fn publish(self) -> Self {
        self.policy(Policy::Publish)
    }

    const fn later(self) -> Self {
        self.policy(Policy::Later)
    }

    const fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    const fn of(mut self, subcommands: &'static [Self]) -> Self {
        self.subcommands = subcommands;
        self
    }
}

/// Longer than any command of a server or a module; what is longer need not be looked at.
pub(super) const LONGEST_NAME: usize = 32;

const MULTIPLIER: u64 = 0x5bd0_39e2_c16e_6bef;

/// Over three times the rows: most names find an empty place or their own row at once.
const PLACES: usize = 1024;
const _: () = assert!(TABLE.len() * 3 < PLACES, "the search for a name must end at an empty place");

/// A row in the index.
struct Entry {
    word: u64,
    /// Length of the name if all of it is letters in `word`, so that equal words are equal names in any case; else 0.
    letters: usize,
    spec: &'static Spec,
}

/// The rows by their hash, a row whose place is taken in the next place that is not.
static INDEX: [Option<Entry>; PLACES] = {
    let mut places = [const { None }; PLACES];
    let mut row = 0;
    while row < TABLE.len() {
        let name = TABLE[row].name.as_bytes();
        let mut place = place(name);
        while places[place].is_some() {
            place = (place + 1) % PLACES;
        }
        places[place] = Some(Entry { word: word(name), letters: letters(name), spec: &TABLE[row] });
        row += 1;
    }
    places
};

/// Length of a name of up to eight letters and nothing else, else 0.
const fn letters(name: &[u8]) -> usize {
    let mut at = 0;
    while at < name.len() {
        if !name[at].is_ascii_lowercase() {
            return 0;
        }
        at += 1;
    }
    if at <= 8 { at } else { 0 }
}

/// A name's place in the index: the top bits of a product, in which the length and up to eight bytes, folded to one case,
/// are mixed. The multiplier was found by trial: with it no row is more than one place off.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "as few bits are left as a place has")]
const fn place(name: &[u8]) -> usize {
    let hash = (word(name) ^ name.len() as u64).wrapping_mul(MULTIPLIER);
    (hash >> (u64::BITS - PLACES.ilog2())) as usize
}

/// The first and the last four bytes, folded to one case; all of a name of up to eight.
#[inline]
const fn word(name: &[u8]) -> u64 {
    const FOLD: u64 = 0x2020_2020_2020_2020;
    match (name, name.first_chunk(), name.last_chunk()) {
        (_, Some(first), Some(last)) => {
            FOLD | u32::from_le_bytes(*first) as u64 | (u32::from_le_bytes(*last) as u64) << 32
        }
        ([a, b, c], ..) => FOLD | *a as u64 | (*b as u64) << 8 | (*c as u64) << 16,
        ([a, b], ..) => FOLD | *a as u64 | (*b as u64) << 8,
        ([a], ..) => FOLD | *a as u64,
        _ => FOLD,
    }
}

/// The flags by their words, in the order of the server's `COMMAND` reply.
const WORDS: [(&str, Flags); 20] = [
    ("write", Flags::WRITE),
    ("readonly", Flags::READONLY),
    ("denyoom", Flags::DENYOOM),
    ("admin", Flags::ADMIN),
    ("pubsub", Flags::PUBSUB),
    ("noscript", Flags::NOSCRIPT),
    ("blocking", Flags::BLOCKING),
    ("loading", Flags::LOADING),
    ("stale", Flags::STALE),
    ("skip_monitor", Flags::SKIP_MONITOR),
    ("skip_slowlog", Flags::SKIP_SLOWLOG),
    ("asking", Flags::ASKING),
    ("fast", Flags::FAST),
    ("no_auth", Flags::NO_AUTH),
    ("may_replicate", Flags::MAY_REPLICATE),
    ("no_mandatory_keys", Flags::NO_MANDATORY_KEYS),
    ("no_async_loading", Flags::NO_ASYNC_LOADING),
    ("no_multi", Flags::NO_MULTI),
    ("movablekeys", Flags::MOVABLE_KEYS),
    ("allow_busy", Flags::ALLOW_BUSY),
];

/// The one flag that the server does not tell.
const HIDDEN: Flags = Flags::MAY_REPLICATE;

impl Flags {
    /// The flags' words as the server's `COMMAND` tells them, in its order.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        let told = WORDS.iter().filter(move |(_, flag)| self.has(*flag) && *flag != HIDDEN);
        told.map(|(word, _)| *word)
    }

    /// The flag of one of the server's words; none for a word without a meaning here, such as `module`.
    pub(super) fn of_word(word: &str) -> Self {
        WORDS.iter().find(|(known, _)| *known == word).map_or(Self::NONE, |(_, flag)| *flag)
    }
}

/// The set of flags written in words, one space between two. A word that is none stops the build.
const fn flags(words: &str) -> Flags {
    let words = words.as_bytes();
    let mut set = Flags::NONE;
    let (mut start, mut at) = (0, 0);
    while at < words.len() {
        at += 1;
        if at == words.len() || words[at] == b' ' {
            set = set.with(flag(words.split_at(at).0.split_at(start).1));
            start = at + 1;
        }
    }
    set
}

const fn flag(word: &[u8]) -> Flags {
    let mut at = 0;
    while at < WORDS.len() {
        if same(word, WORDS[at].0.as_bytes()) {
            return WORDS[at].1;
        }
        at += 1;
    }
    panic!("a row has a flag that is none of the server's")
}

/// Equality, which the standard library does not offer to constants.
const fn same(one: &[u8], other: &[u8]) -> bool {
    if one.len() != other.len() {
        return false;
    }
    let mut at = 0;
    while at < one.len() {
        if one[at] != other[at] {
            return false;
        }
        at += 1;
    }
    true
}

/// The server's ACL categories in its order.
#[rustfmt::skip]
pub const CATEGORIES: [&str; 21] = [
    "keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo",
    "stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting",
];

impl Spec {
    /// The ACL categories that the server's `COMMAND` tells, in its order, each without its `@`.
    pub fn categories(&self) -> impl Iterator<Item = &'static str> {
        CATEGORIES.into_iter().filter(|category| self.belongs_to(category))
    }

    /// The server's own rule: most categories follow from the flags, the rest from the family.
    pub fn belongs_to(&self, category: &str) -> bool {
        match category {
            "read" => self.flags.has(Flags::READONLY) && self.group != Scripting,
            "write" => self.flags.has(Flags::WRITE),
            "pubsub" => self.flags.has(Flags::PUBSUB),
            "fast" => self.flags.has(Flags::FAST),
            "slow" => !self.flags.has(Flags::FAST),
            "blocking" => self.flags.has(Flags::BLOCKING),
            "admin" => self.is_admin(),
            "dangerous" => self.is_admin() || self.is_dangerous(),
            _ => self.families().contains(&category),
        }
    }

    fn is_admin(&self) -> bool {
        self.flags.has(Flags::ADMIN)
            || matches!((self.group, self.name), (Server, "lastsave" | "role"))
    }

    fn is_dangerous(&self) -> bool {
        match self.group {
            Generic => matches!(self.name, "keys" | "migrate" | "restore" | "sort" | "sort_ro"),
            Server => matches!(
                self.name,
                "flushall"
                    | "flushdb"
                    | "info"
                    | "restore-asking"
                    | "sflush"
                    | "swapdb"
                    | "trimslots"
            ),
            _ => false,
        }
    }

    fn families(&self) -> &'static [&'static str] {
        match (self.group, self.name) {
            (Generic, "sort" | "sort_ro") => &["set", "sortedset", "list"],
            (Generic, "wait" | "waitaof")
            | (Server, "command")
            | (Cluster, "asking" | "readonly" | "readwrite") => &["connection"],
            // A container, which is slow and nothing else.
            _ if self.flags == Flags::NONE => &[],
            (
                Server,
                "dbsize" | "flushall" | "flushdb" | "restore-asking" | "sflush" | "swapdb"
                | "trimslots",
            )
            | (Cluster, "clusterscan") => &["keyspace"],
            (group, _) => family(group),
        }
    }
}

fn family(group: Group) -> &'static [&'static str] {
    match group {
        Generic => &["keyspace"],
        String => &["string"],
        Bitmap => &["bitmap"],
        Hash => &["hash"],
        List => &["list"],
        Set => &["set"],
        SortedSet => &["sortedset"],
        Stream => &["stream"],
        Geo => &["geo"],
        HyperLogLog => &["hyperloglog"],
        Scripting => &["scripting"],
        Transactions => &["transaction"],
        Connection => &["connection"],
        PubSub | Server | Cluster | Module => &[],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{INDEX, LONGEST_NAME, TABLE, lookup, place, subcommand};
    use crate::command::{Flags, Keys, Policy, Spec};

    /// That a name in either case finds the row that bears it, or none.
    fn check(name: &str, row: Option<&str>) {
        for written in [name.to_lowercase(), name.to_uppercase()] {
            assert_eq!(lookup(written.as_bytes()).map(|spec| spec.name), row, "{written}");
        }
    }

    #[test]
    fn every_row_is_found() {
        for spec in TABLE {
            check(spec.name, Some(spec.name));
        }
    }

    #[test]
    fn other_names_are_not_found() {
        let cut_or_longer =
            ["", "g", "ge", "gett", "georadiusbymember_rx", "ping\0", "P\u{f6}NG", "[et", "g%t"];
        for name in cut_or_longer {
            check(name, None);
        }
        check(&"x".repeat(LONGEST_NAME + 1), None);
    }

    #[test]
    fn subcommands_are_found() {
        let object = lookup(b"object").unwrap();
        assert_eq!(subcommand(object, b"EnCoding").unwrap().name, "encoding");
        assert!(subcommand(object, b"encodin").is_none());
        assert!(subcommand(lookup(b"get").unwrap(), b"encoding").is_none());
    }

    #[test]
    fn rows_are_sound() {
        let mut names = HashSet::new();
        let rows = TABLE.iter().flat_map(|spec| {
            let subcommands =
                spec.subcommands.iter().map(|sub| format!("{}|{}", spec.name, sub.name));
            [(spec.name.to_owned(), spec)].into_iter().chain(subcommands.zip(spec.subcommands))
        });
        for (name, spec) in rows {
            assert!(names.insert(name.clone()), "{name} twice");
            assert_eq!(name, name.to_lowercase());
            assert!(spec.name.len() <= LONGEST_NAME, "{name}");
            assert_ne!(spec.arity, 0, "{name}");
            assert!(!spec.flags.has(Flags::READONLY.with(Flags::WRITE)), "{name}");
            let keyed = matches!(spec.policy, Policy::Keyed | Policy::Sort | Policy::Split(_));
            assert!(!keyed || spec.keys != Keys::None, "{name}");
        }
    }

    #[test]
    fn rows_are_near_their_place() {
        let far = |spec: &&Spec| {
            let start = place(spec.name.as_bytes());
            let at = |offset: usize| INDEX[(start + offset) % INDEX.len()].as_ref();
            !(0..=1).filter_map(at).any(|found| found.spec.name == spec.name)
        };
        assert_eq!(TABLE.iter().find(far).map(|spec| spec.name), None);
    }

    #[test]
    fn words_are_those_of_the_server() {
        let words = |name: &str| {
            lookup(name.as_bytes()).unwrap().flags.words().collect::<Vec<_>>().join(" ")
        };
        assert_eq!(words("get"), "readonly fast");
        assert_eq!(words("client"), "");
        assert_eq!(words("auth"), "noscript loading stale fast no_auth allow_busy");
        assert_eq!(words("eval"), "noscript stale skip_monitor no_mandatory_keys movablekeys");
    }
}
