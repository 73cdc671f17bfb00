//! The words of `slotway cluster`: which subcommands and flags there are, and how a line is cut into them.
//!
//! Lines that were written for redis-trib.rb or `redis-cli --cluster` are understood: flags stand anywhere, with or without
//! `cluster-` in front, and what is not a flag is an argument. One row here makes a flag known, and is its line of help.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What can be done to a cluster.
#[derive(Debug)]
pub(super) struct Verb {
    pub(super) name: &'static str,
    /// Fewest and most arguments.
    pub(super) arity: (usize, usize),
    pub(super) args: &'static str,
    pub(super) help: &'static str,
}

const MANY: usize = usize::MAX;
const ENTRY: &str = "host:port";

/// All of it, in the order of the help.
pub(super) const VERBS: &[Verb] = &[
    verb("create", (1, MANY), "host1:port1 ... hostN:portN", "make one cluster of empty nodes"),
    verb("check", (1, 2), ENTRY, "say whether a cluster is whole"),
    verb("fix", (1, 2), ENTRY, "close, cover and hand over slots until the cluster is whole"),
    verb("info", (1, 2), ENTRY, "count keys, slots and replicas of each primary"),
    verb("nodes", (1, 2), ENTRY, "list the nodes"),
    verb("reshard", (1, 2), ENTRY, "move slots to a primary"),
    verb("rebalance", (1, 2), ENTRY, "give each primary its share of the slots"),
    verb("resume", (0, 1), "[job]", "go on with a reshard or rebalance that was cut off"),
    verb("jobs", (0, 0), "", "list what was moved, and what was cut off"),
    verb("abandon", (1, 1), "job", "let nobody go on with a job any more"),
    verb("add-node", (2, 2), "new_host:new_port host:port", "let an empty node join"),
    verb("del-node", (2, 2), "host:port node_id", "remove a node without slots, dead or alive"),
    verb("failover", (2, 2), "host:port node_id", "put a replica in its primary's place"),
    verb("call", (2, MANY), "host:port command arg ...", "run a command on all nodes"),
    verb("set-timeout", (2, 2), "host:port milliseconds", "set the node timeout of all nodes"),
    verb("import", (1, 1), ENTRY, "take in the keys of a server that is no cluster"),
    verb("backup", (2, 2), "host:port directory", "save the data and the layout"),
    verb("help", (0, MANY), "", "show this"),
];

const fn verb(
    name: &'static str,
    arity: (usize, usize),
    args: &'static str,
    help: &'static str,
) -> Verb {
    Verb { name, arity, args, help }
}

/// A flag.
#[derive(Debug)]
pub(super) struct Flag {
    /// Without dashes and without `cluster-`; the first one is what the code calls it.
    pub(super) names: &'static [&'static str],
    /// What its value is, if it has one.
    pub(super) value: Option<&'static str>,
    /// The subcommands that heed it; none means all.
    pub(super) verbs: &'static [&'static str],
    pub(super) help: &'static str,
}

const fn flag(
    names: &'static [&'static str],
    value: Option<&'static str>,
    verbs: &'static [&'static str],
    help: &'static str,
) -> Flag {
    Flag { names, value, verbs, help }
}

const MOVING: &[&str] = &["fix", "reshard", "rebalance", "resume", "del-node"];
const SENDING: &[&str] = &["fix", "reshard", "rebalance", "resume", "del-node", "import"];
const CARRYING: &[&str] = &["reshard", "rebalance", "resume", "del-node"];
const KEEPING: &[&str] = &["fix", "reshard", "rebalance", "resume", "jobs", "abandon", "del-node"];
const VIA: &[&str] = &[
    "create",
    "fix",
    "reshard",
    "rebalance",
    "add-node",
    "del-node",
    "failover",
    "call",
    "set-timeout",
    "import",
    "backup",
];
const PLANNING: &[&str] = &["reshard", "rebalance"];
const CHANGING: &[&str] = &[
    "fix",
    "create",
    "add-node",
    "del-node",
    "failover",
    "reshard",
    "rebalance",
    "resume",
    "import",
];

/// All flags.
pub(super) const FLAGS: &[Flag] = &[
    flag(&["replicas"], Some("n"), &["create"], "replicas of each primary"),
    flag(
        &["zones"],
        Some("host:port=zone ..."),
        &["create"],
        "where nodes are: no primary has a replica in its own zone",
    ),
    flag(
        &["resume"],
        None,
        &["create"],
        "start over on nodes that an unfinished create has left: without keys, and knowing only each other",
    ),
    flag(
        &["search-multiple-owners"],
        None,
        &["check", "fix"],
        "count keys of each slot on all primaries",
    ),
    flag(
        &["from"],
        Some("id,...|all|host:port"),
        &["reshard", "import"],
        "who gives slots; where keys come from",
    ),
    flag(
        &["to"],
        Some("id"),
        &["reshard", "failover"],
        "who takes slots; which replica takes over",
    ),
    flag(&["slots"], Some("n"), &["reshard"], "how many slots"),
    flag(
        &["weight"],
        Some("id=w ..."),
        &["rebalance"],
        "share of a primary beside the others; 0 empties it",
    ),
    flag(
        &["use-empty-masters", "use-empty-primaries"],
        None,
        &["rebalance"],
        "also give to primaries that own nothing",
    ),
    flag(
        &["threshold"],
        Some("percent"),
        &["rebalance"],
        "what may stay uneven; with 0 all of it [2]",
    ),
    flag(&["auto-weights"], None, &["rebalance"], "taken and not needed, as by redis-trib.rb"),
    flag(&["simulate"], None, &["rebalance"], "the same as --dry-run"),
    flag(
        &["timeout"],
        Some("ms"),
        SENDING,
        "how long one transfer of keys may take [import: 60000; else half the node timeout, at most 5000]",
    ),
    flag(
        &["pipeline"],
        Some("n"),
        SENDING,
        "most keys in one transfer [import: 100; else what --max-block-ms permits]",
    ),
    flag(
        &["replace"],
        None,
        &["import"],
        "keys at the target give way; not needed where slots move: what their owner has is right",
    ),
    flag(&["plan-out"], Some("file"), PLANNING, "write the plan, and do nothing"),
    flag(&["plan-in"], Some("file"), PLANNING, "do exactly what such a plan says"),
    flag(
        &["method"],
        Some("auto|asm|legacy"),
        CARRYING,
        "atomic slot migration where both ends have it, or nothing else, or key by key [auto]",
    ),
    flag(&["use-atomic-slot-migration"], None, CARRYING, "the same as --method asm"),
    flag(
        &["max-block-ms"],
        Some("ms"),
        MOVING,
        "how long a source may be stopped for one batch of keys [3]",
    ),
    flag(&["duty"], Some("percent"), MOVING, "how much of its time a source may spend on it [100]"),
    flag(
        &["rate"],
        Some("keys|nMiB/s"),
        MOVING,
        "most keys, or their size, in a second, key by key",
    ),
    flag(&["parallel"], Some("n"), MOVING, "most pairs of nodes at the same time [8]"),
    flag(
        &["big-keys"],
        Some("fail|skip|allow"),
        MOVING,
        "what becomes of keys that stop their node for long [fail]",
    ),
    flag(&["state-dir"], Some("folder"), KEEPING, "where journals are [~/.local/state/slotway]"),
    flag(&["drain"], None, &["del-node"], "first move its slots to the other primaries"),
    flag(&["promote"], None, &["del-node"], "first put one of its replicas in its place"),
    flag(&["accept-risk"], None, &["fix"], "also do what somebody should have looked at"),
    flag(
        &["accept-data-loss", "fix-with-unreachable-masters", "fix-with-unreachable-primaries"],
        None,
        &["fix"],
        "also do what may lose data for good",
    ),
    flag(&["slave", "replica"], None, &["add-node"], "as a replica"),
    flag(&["master-id", "primary-id"], Some("id"), &["add-node"], "of this primary"),
    flag(
        &["force"],
        None,
        &["failover", "del-node"],
        "without the primary's consent; though fewer than 3 masters are left, or one without replicas",
    ),
    flag(&["takeover"], None, &["failover"], "without anybody's consent"),
    flag(&["only-masters", "only-primaries"], None, &["call"], "on primaries alone"),
    flag(&["only-replicas"], None, &["call"], "on replicas alone"),
    flag(&["from-user"], Some("user"), &["import"], "user at the source"),
    flag(&["from-pass"], Some("password"), &["import"], "password at the source"),
    flag(&["from-askpass"], None, &["import"], "ask for the password at the source"),
    flag(&["from-tls"], None, &["import"], "speak TLS with the source too"),
    flag(&["copy"], None, &["import"], "leave the keys at the source too"),
    flag(
        &["wait"],
        Some("seconds"),
        CHANGING,
        "how long each step may take to reach all nodes [75]",
    ),
    flag(&["yes"], None, CHANGING, "do not ask; also REDISCLI_CLUSTER_YES=1"),
    flag(&["dry-run"], None, CHANGING, "say what would be done, and do nothing"),
    flag(&["json"], None, &[], "answer in JSON"),
    flag(&["style"], Some("redis|trib|valkey"), &[], "whose words to use [redis]"),
    flag(&["color"], Some("auto|always|never"), &[], "colours [auto: on a terminal]"),
    flag(&["exit-compat"], None, &[], "exit with 0 instead of 5, and with 1 instead of 2, 3 and 4"),
    flag(&["pass", "a"], Some("password"), &[], "password; else REDISCLI_AUTH or VALKEYCLI_AUTH"),
    flag(&["user"], Some("name"), &[], "ACL user"),
    flag(&["askpass"], None, &[], "ask for the password"),
    flag(
        &["u"],
        Some("uri"),
        &[],
        "user and password as redis://user:password@; rediss:// is --tls. Host and port are taken and not needed",
    ),
    flag(&["no-auth-warning"], None, &[], "taken and not needed"),
    flag(&["connect-timeout", "t"], Some("seconds"), &[], "how long a node may take to answer [5]"),
    flag(&["tls"], None, &[], "speak TLS with the nodes"),
    flag(
        &["sni"],
        Some("host"),
        &[],
        "the name that nodes are asked for [the host that is dialled]",
    ),
    flag(&["cacert"], Some("file"), &[], "trust these CAs [those of the system]"),
    flag(&["cacertdir"], Some("folder"), &[], "trust the CAs in the files of a folder"),
    flag(&["cert"], Some("file"), &[], "client certificate"),
    flag(&["key"], Some("file"), &[], "its key"),
    flag(
        &["tls-check-name"],
        None,
        &[],
        "certificates have to be for the host that is dialled, or for --sni [only where no CA is named]",
    ),
    flag(&["insecure"], None, &[], "trust whoever answers"),
    flag(&["tls-ciphers"], Some("list"), &[], "cipher suites for TLS 1.2, by name"),
    flag(&["tls-ciphersuites"], Some("list"), &[], "cipher suites for TLS 1.3, by name"),
    flag(&["4"], None, &[], "connect by IPv4 only"),
    flag(&["6"], None, &[], "connect by IPv6 only"),
    flag(
        &["via"],
        Some("host:port"),
        VIA,
        "let a running proxy do it, at its admin port; the cluster's own host:port is left out",
    ),
    flag(&["x"], None, &["call"], "the last argument comes from the standard input"),
    flag(
        &["X"],
        Some("tag"),
        &["call"],
        "the argument that is the tag comes from the standard input",
    ),
    flag(&["h"], Some("host"), &[], "taken and not needed, as by redis-cli"),
    flag(&["p"], Some("port"), &[], "taken and not needed, as by redis-cli"),
    flag(&["verbose"], None, &[], "tell more"),
];

/// A line that was understood.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) verb: &'static Verb,
    pub(super) args: Vec<OsString>,
    flags: Vec<(&'static Flag, OsString)>,
}

impl Line {
    /// Reads the words behind `slotway cluster`, or all words if there is a `--cluster` among them.
    pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut words = words.into_iter().peekable();
        let (mut verb, mut args) = (None, Vec::new());
        let mut flags: Vec<(&'static Flag, OsString)> = Vec::new();
        while let Some(word) = words.next() {
            // What a command is called with may look like a flag: `ZRANGE key 0 -1`.
            let is_operand =
                is_call(verb.as_ref()) && (args.len() > 1 || !args.is_empty() && is_number(&word));
            match find(&word).filter(|_| !(is_operand && is_number(&word))) {
                Some(flag) if takes_pairs(flag) => {
                    if is_weight(flag) && flags.iter().any(|(have, _)| is_weight(have)) {
                        return Err(TWO_WEIGHTS.to_owned());
                    }
                    let pairs = std::iter::from_fn(|| {
                        words.next_if(|word| word.as_bytes().contains(&b'='))
                    });
                    flags.extend(pairs.map(|pair| (flag, pair)));
                }
                Some(_) if word == "-h" && words.peek().is_none() => verb = Some("help".into()),
                Some(flag) if flag.value.is_some() => {
                    let value = words.next().ok_or_else(|| unrecognized(&word))?;
                    flags.push((flag, value));
                }
                Some(flag) => flags.push((flag, OsString::new())),
                None if word == "--cluster" && verb.is_none() => verb = words.next(),
                None if word == "--help" => verb = Some("help".into()),
                None if is_dashed(&word) && !is_operand => return Err(unrecognized(&word)),
                None if verb.is_none() => verb = Some(word),
                None => args.push(word),
            }
        }
        let verb = verb.unwrap_or_else(|| "help".into());
        let verb =
            VERBS.iter().find(|known| verb == known.name).ok_or("Unknown --cluster subcommand")?;
        // A proxy knows where its cluster is.
        let given = args.len() + usize::from(flags.iter().any(|(flag, _)| is_via(flag, verb)));
        if given < verb.arity.0 || given > verb.arity.1 {
            return Err(
                "[ERR] Wrong number of arguments for specified --cluster sub command".to_owned()
            );
        }
        let misplaced = flags
            .iter()
            .find(|(flag, _)| !flag.verbs.is_empty() && !flag.verbs.contains(&verb.name));
        match misplaced {
            // redis-cli takes all flags with all subcommands; scripts give `--cluster-yes` everywhere.
            Some((flag, _))
                if !["yes", "timeout", "pipeline", "replace"].contains(&flag.names[0]) =>
            {
                Err(format!("Unknown option '{}' for command '{}'", flag.names[0], verb.name))
            }
            _ => Ok(Self { verb, args, flags }),
        }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.flags.iter().any(|(flag, _)| flag.names[0] == name)
    }

    /// The value of a flag; the last one counts.
    pub(super) fn value(&self, name: &str) -> Result<Option<&str>, String> {
        let value = self.flags.iter().rev().find(|(flag, _)| flag.names[0] == name);
        value.map(|(_, value)| text(value)).transpose()
    }

    /// The values of a flag that has several.
    pub(super) fn values(&self, name: &str) -> Result<Vec<&str>, String> {
        let values = self.flags.iter().filter(|(flag, _)| flag.names[0] == name);
        values.map(|(_, value)| text(value)).collect()
    }

    /// The value of a flag, read.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, String> {
        let Some(value) = self.value(name)? else { return Ok(None) };
        value
            .parse()
            .map(Some)
            .map_err(|_| format!("--{name}: {value:?} is not a number that fits"))
    }

    pub(super) fn arg(&self, at: usize) -> Result<&str, String> {
        self.args.get(at).map_or(Ok(""), |arg| text(arg))
    }
}

const TWO_WEIGHTS: &str = "WARNING: you cannot use --cluster-weight more than once.\n\
    You can set more weights by adding them as a space-separated list, ie:\n\
    --cluster-weight n1=w n2=w";

fn text(word: &OsStr) -> Result<&str, String> {
    word.to_str().ok_or_else(|| format!("{} is not UTF-8", word.display()))
}

fn is_dashed(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 1 && bytes[0] == b'-'
}

fn is_number(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| word.parse::<f64>().is_ok())
}

fn is_call(verb: Option<&OsString>) -> bool {
    verb.is_some_and(|verb| verb == "call")
}

fn is_via(flag: &Flag, verb: &Verb) -> bool {
    flag.names[0] == "via" && verb.name != "create"
}

/// Whether all words behind it that have `=` are its own.
fn takes_pairs(flag: &Flag) -> bool {
    is_weight(flag) || flag.names[0] == "zones"
}

fn is_weight(flag: &Flag) -> bool {
    flag.names[0] == "weight"
}

/// `--name`, `--cluster-name`, or `-n` for names of one letter.
fn find(word: &OsStr) -> Option<&'static Flag> {
    let word = word.to_str()?;
    let (name, dashes) = match word.strip_prefix("--") {
        Some(name) => (name.strip_prefix("cluster-").unwrap_or(name), 2),
        None => (word.strip_prefix('-')?, 1),
    };
    let is_it = |known: &&str| *known == name && (known.len() == 1) == (dashes == 1);
    FLAGS.iter().find(|flag| flag.names.iter().any(is_it))
}

fn unrecognized(word: &OsStr) -> String {
    format!("Unrecognized option or bad number of args for: '{}'", word.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &str) {
        let parsed = Line::parse(line.split_whitespace().map(Into::into));
        let shown = parsed.map_or_else(
            |error| error,
            |line| {
                let args: Vec<_> = line.args.iter().map(|arg| arg.to_string_lossy()).collect();
                let flags: Vec<_> = line
                    .flags
                    .iter()
                    .map(|(f, v)| format!("{}={}", f.names[0], v.display()))
                    .collect();
                format!("{} {} {}", line.verb.name, args.join(" "), flags.join(" "))
                    .trim_end()
                    .to_owned()
            },
        );
        assert_eq!(shown, expected, "{line}");
    }

    #[test]
    fn lines_of_redis_trib() {
        check("create --replicas 1 a:1 b:2 c:3", "create a:1 b:2 c:3 replicas=1");
        check("add-node --slave --master-id x a:1 b:2", "add-node a:1 b:2 slave= master-id=x");
        check(
            "reshard --from x --to y --slots 5 --yes a:1",
            "reshard a:1 from=x to=y slots=5 yes=",
        );
        check("rebalance --auto-weights h:1", "rebalance h:1 auto-weights=");
        check(
            "rebalance --weight a=1 --use-empty-masters h:1",
            "rebalance h:1 weight=a=1 use-empty-masters=",
        );
    }

    #[test]
    fn lines_of_redis_cli() {
        check("-a pw --cluster check h:1", "check h:1 pass=pw");
        check(
            "--cluster create a:1 --cluster-replicas 1 --cluster-yes",
            "create a:1 replicas=1 yes=",
        );
        check(
            "--cluster add-node --user u -a p n:1 h:2 --cluster-slave",
            "add-node n:1 h:2 user=u pass=p slave=",
        );
        check(
            "--cluster rebalance --cluster-weight a=1 b=2 h:1",
            "rebalance h:1 weight=a=1 weight=b=2",
        );
        check("create --zones h:1=a h:2=b h:1 h:2", "create h:1 h:2 zones=h:1=a zones=h:2=b");
        check("--cluster reshard h 1 --cluster-slots -1", "reshard h 1 slots=-1");
        check("--cluster fix h:1 --cluster-yes", "fix h:1 yes=");
        check(
            "--cluster reshard h:1 --cluster-use-atomic-slot-migration",
            "reshard h:1 use-atomic-slot-migration=",
        );
        check("--cluster check h:1 --cluster-yes", "check h:1 yes=");
        check(
            "call h:1 ZRANGE k 0 -1 --cluster-only-masters",
            "call h:1 ZRANGE k 0 -1 only-masters=",
        );
        check("call h:1 LRANGE k -6 -4 -4", "call h:1 LRANGE k -6 -4 -4");
        check("-4 call h:1 SET k -x -6x", "call h:1 SET k -6x 4= x=");
        check("-h h -p 1 --cluster check h:1", "check h:1 h=h p=1");
        check(
            "--cluster add-node --tls --cert X --key Y --cacert Z n:1 h:2 --cluster-slave",
            "add-node n:1 h:2 tls= cert=X key=Y cacert=Z slave=",
        );
        check("-u rediss://u:p@h:1 --cluster check h:1", "check h:1 u=rediss://u:p@h:1");
        check("check h:1 -x", "Unknown option 'x' for command 'check'");
        check(
            "check h:1 -t 3 --cluster-primary-id x",
            "Unknown option 'master-id' for command 'check'",
        );
    }

    #[test]
    fn wrong_lines() {
        check("sideways h:1", "Unknown --cluster subcommand");
        check(
            "del-node h:1",
            "[ERR] Wrong number of arguments for specified --cluster sub command",
        );
        check(
            "check h:1 --nonsense",
            "Unrecognized option or bad number of args for: '--nonsense'",
        );
        check("check h:1 --user", "Unrecognized option or bad number of args for: '--user'");
        check("create h:1 --a x", "Unrecognized option or bad number of args for: '--a'");
        check("rebalance h:1 --weight a=1 --weight b=2", TWO_WEIGHTS);
        check("", "help");
        check("create --help", "help");
        check("-h", "help");
    }

    #[test]
    fn every_flag_belongs_to_subcommands_that_exist() {
        for flag in FLAGS {
            for verb in flag.verbs {
                assert!(VERBS.iter().any(|known| known.name == *verb), "{verb}");
            }
        }
    }
}
