//! What can be ordered to be done to the cluster: words to values. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::complaint::Complaint;
use super::words::short;
use crate::cluster::{Address, SLOTS};
use crate::manage::access::Credentials;
use crate::manage::mover::{BigKeys, Method, MoveOptions};
use crate::manage::plan::Consent;
use crate::manage::repair::Risk;
use crate::manage::uri::Uri;

/// How far from its share a primary may be unless told otherwise, in percent.
const THRESHOLD: f64 = 2.0;
/// Port of a URI that has none.
const PORT: u16 = 6379;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// A node becomes a member.
    AddNode { address: Address, follow: Follow, rebalance: bool },
    /// A node leaves, called by its name or address.
    DelNode { name: String, strategy: Strategy },
    /// Slots go to one primary; from all others if none is named.
    Reshard { count: usize, from: Vec<String>, to: String },
    /// Primaries get their shares.
    Rebalance { weights: Vec<(String, f64)>, with_empty: bool, threshold: f64 },
    /// A replica takes its primary's place.
    Failover { name: String, to: Option<String>, consent: Consent },
    /// What is not whole is repaired, as far as it is no riskier than this.
    Fix { consent: Risk },
    /// Empty nodes become a cluster with so many replicas for each primary.
    Create { addresses: Vec<Address>, replicas: usize },
    /// The keys of a server that is no cluster are taken in.
    Import(Import),
    /// What primaries have is saved in a folder.
    Backup { folder: PathBuf },
}

/// Where keys come from, and what becomes of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) source: Address,
    pub(super) credentials: Option<Credentials>,
    pub(super) database: u32,
    /// Whether they stay there too.
    pub(super) copy: bool,
    /// Whether keys of the cluster with other values give way.
    pub(super) replace: bool,
}

/// Whom a new node follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Follow {
    /// It is a primary.
    Nobody,
    /// The primary that misses a replica most.
    Anybody,
    /// This one.
    Node(String),
}

/// What becomes of the slots of a node that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// The other primaries get them.
    Drain,
    /// Its replica takes its place.
    Promote,
    /// It must have none.
    Forget,
}

/// An order with what is said about it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Request {
    pub(super) order: Order,
    /// How slots are moved.
    pub(super) options: MoveOptions,
    /// Keys each second; 0 for as many as there are.
    pub(super) rate: u64,
    /// Only the plan is wanted.
    pub(super) is_dry: bool,
    /// A name by which the same request is known when it comes again.
    pub(super) token: Option<String>,
    /// What is done in spite of.
    pub(super) force: Vec<String>,
}

impl Order {
    /// As `kind` of a job.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::AddNode { .. } => "addnode",
            Self::DelNode { .. } => "delnode",
            Self::Reshard { .. } => "reshard",
            Self::Rebalance { .. } => "rebalance",
            Self::Failover { .. } => "failover",
            Self::Fix { .. } => "fix",
            Self::Create { .. } => "create",
            Self::Import(_) => "import",
            Self::Backup { .. } => "backup",
        }
    }
}

/// Words that are taken off the front one by one.
struct Words<'a>(std::slice::Iter<'a, &'a str>);

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, Complaint> {
        self.0.next().copied().ok_or_else(|| bad(format!("{what} is missing")))
    }

    fn number<T: std::str::FromStr>(&mut self, what: &str) -> Result<T, Complaint> {
        let word = self.next(what)?;
        word.parse().map_err(|_| bad(format!("{what}: {:?} is no such number", short(word))))
    }
}

fn bad(text: impl Into<String>) -> Complaint {
    Complaint::BadArg(text.into())
}

/// Verbs that are understood.
pub(super) const VERBS: &[&str] = &[
    "CREATE",
    "ADDNODE",
    "DELNODE",
    "RESHARD",
    "REBALANCE",
    "FAILOVER",
    "FIX",
    "IMPORT",
    "BACKUP",
];

/// Reads the words from the verb on, which is known to be one of those.
pub(super) fn parse(words: &[&str]) -> Result<Request, Complaint> {
    let mut rest = Words(words[1..].iter());
    let order = match words[0].to_ascii_uppercase().as_str() {
        "ADDNODE" => {
            let address = address(rest.next("the address")?)?;
            Order::AddNode { address, follow: Follow::Nobody, rebalance: true }
        }
        "DELNODE" => {
            let name = rest.next("the node")?.to_owned();
            Order::DelNode { name, strategy: Strategy::Drain }
        }
        "RESHARD" => Order::Reshard { count: 0, from: Vec::new(), to: String::new() },
        "REBALANCE" => {
            Order::Rebalance { weights: Vec::new(), with_empty: false, threshold: THRESHOLD }
        }
        "FIX" => Order::Fix { consent: Risk::Safe },
        "IMPORT" => {
            if !rest.next("FROM")?.eq_ignore_ascii_case("from") {
                return Err(bad("FROM has to come first"));
            }
            Order::Import(source(rest.next("the URI")?)?)
        }
        "BACKUP" => {
            let folder = PathBuf::from(rest.next("the folder")?);
            if !folder.is_absolute() {
                return Err(bad(
                    "the folder has to begin with /; it is one of the proxy's machine",
                ));
            }
            Order::Backup { folder }
        }
        "CREATE" => Order::Create { addresses: Vec::new(), replicas: 0 },
        _ => {
            let name = rest.next("the node")?.to_owned();
            Order::Failover { name, to: None, consent: Consent::All }
        }
    };
    let mut request = Request {
        order,
        options: MoveOptions::default(),
        rate: 0,
        is_dry: false,
        token: None,
        force: Vec::new(),
    };
    while let Some(word) = rest.0.next() {
        let upper = word.to_ascii_uppercase();
        if request.order.take(&upper, &mut rest)? || request.take(&upper, &mut rest)? {
            continue;
        }
        if let Order::Create { addresses, .. } = &mut request.order {
            addresses.push(address(word)?);
        } else {
            return Err(bad(format!("{:?} is not understood", short(word))));
        }
    }
    match &request.order {
        Order::Reshard { count, .. } if !(1..=SLOTS).contains(count) => {
            Err(bad("SLOTS must be from 1 to 16384"))
        }
        Order::Reshard { to, .. } if to.is_empty() => Err(bad("TO is missing")),
        Order::Create { addresses, .. } if addresses.is_empty() => {
            Err(bad("the addresses are missing"))
        }
        _ => Ok(request),
    }
}

/// `redis://[[user]:password@]host[:port][/database]`.
fn source(word: &str) -> Result<Import, Complaint> {
    let uri = Uri::parse(word).map_err(bad)?;
    if uri.is_secure {
        return Err(Complaint::Unsupported("IMPORT by TLS".to_owned()));
    }
    let place = if uri.place.contains(':') { uri.place } else { format!("{}:{PORT}", uri.place) };
    let database = uri.database.map_or(Ok(0), |database| database.parse());
    let database = database.map_err(|_| bad("the database of the URI is no number"))?;
    let (source, credentials) = (address(&place)?, uri.credentials);
    Ok(Import { source, credentials, database, copy: false, replace: false })
}

fn address(word: &str) -> Result<Address, Complaint> {
    let address = Address::parse(word, None).filter(|address| !address.host().is_empty());
    address.ok_or_else(|| bad(format!("{:?} is no address", short(word))))
}

impl Order {
    /// Takes a word of its own; false if it is none.
    fn take(&mut self, word: &str, rest: &mut Words<'_>) -> Result<bool, Complaint> {
        match (self, word) {
            (Self::AddNode { follow, .. }, "REPLICA") => *follow = Follow::Anybody,
            (Self::AddNode { follow, .. }, "REPLICAOF") => {
                *follow = Follow::Node(rest.next("the primary")?.to_owned());
            }
            (Self::AddNode { rebalance, .. }, "REBALANCE") => {
                *rebalance = match rest.next("yes or no")?.to_ascii_lowercase().as_str() {
                    "yes" => true,
                    "no" => false,
                    _ => return Err(bad("REBALANCE is neither yes nor no")),
                };
            }
            (Self::DelNode { strategy, .. }, "STRATEGY") => {
                *strategy = match rest.next("the strategy")?.to_ascii_lowercase().as_str() {
                    "auto" | "drain" => Strategy::Drain,
                    "promote" => Strategy::Promote,
                    "forget" => Strategy::Forget,
                    _ => return Err(bad("STRATEGY is neither auto, drain, promote nor forget")),
                };
            }
            (Self::Reshard { count, .. }, "SLOTS") => *count = rest.number("SLOTS")?,
            (Self::Reshard { from, .. }, "FROM") => {
                let names = rest.next("the source")?.split(',');
                from.extend(
                    names.filter(|name| !name.eq_ignore_ascii_case("all")).map(str::to_owned),
                );
            }
            (Self::Reshard { to, .. }, "TO") => rest.next("the target")?.clone_into(to),
            (Self::Rebalance { weights, .. }, "WEIGHT") => {
                let word = rest.next("the weight")?;
                let pair =
                    word.split_once('=').and_then(|(id, w)| Some((id.to_owned(), w.parse().ok()?)));
                weights
                    .push(pair.ok_or_else(|| bad(format!("{:?} is not id=weight", short(word))))?);
            }
            (Self::Rebalance { with_empty, .. }, "USEEMPTY") => *with_empty = true,
            (Self::Rebalance { threshold, .. }, "THRESHOLD") => {
                *threshold = rest.number("THRESHOLD")?;
            }
            (Self::Failover { to, .. }, "TO") => *to = Some(rest.next("the replica")?.to_owned()),
            // What is called FORCE elsewhere has a flag behind it.
            (Self::Failover { consent, .. }, "FORCE") => *consent = Consent::Majority,
            (Self::Failover { consent, .. }, "TAKEOVER") => *consent = Consent::Nobody,
            (Self::Fix { consent }, "APPLY") => {
                *consent = match rest.next("how much")?.to_ascii_lowercase().as_str() {
                    "safe" => Risk::Safe,
                    "confirm" => Risk::Confirm,
                    "all" => Risk::DataLoss,
                    _ => return Err(bad("APPLY is neither safe, confirm nor all")),
                };
            }
            (Self::Create { replicas, .. }, "REPLICAS") => *replicas = rest.number("REPLICAS")?,
            (Self::Import(import), "COPY") => import.copy = true,
            (Self::Import(import), "REPLACE") => import.replace = true,
            (Self::Import(import), "DB") => import.database = rest.number("DB")?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl Request {
    /// Takes a word that any order may have; false if it is none.
    fn take(&mut self, word: &str, rest: &mut Words<'_>) -> Result<bool, Complaint> {
        let options = &mut self.options;
        match word {
            "DRYRUN" | "PLAN" => self.is_dry = true,
            "JOBID" => self.token = Some(rest.next("the token")?.to_owned()),
            "FORCE" => self.force.push(rest.next("what is forced")?.to_ascii_lowercase()),
            "METHOD" => {
                options.method = match rest.next("the method")?.to_ascii_lowercase().as_str() {
                    "auto" => Method::Auto,
                    "asm" => Method::Asm,
                    "legacy" => Method::Legacy,
                    _ => return Err(bad("METHOD is neither auto, asm nor legacy")),
                };
            }
            "BIGKEYS" => {
                options.big_keys = match rest.next("the policy")?.to_ascii_lowercase().as_str() {
                    "fail" => BigKeys::Fail,
                    "skip" => BigKeys::Skip,
                    "allow" => BigKeys::Allow,
                    _ => return Err(bad("BIGKEYS is neither fail, skip nor allow")),
                };
            }
            "BATCH" => options.batch = rest.number::<usize>("BATCH")?.max(1),
            "PARALLEL" => options.parallel = rest.number::<usize>("PARALLEL")?.max(1),
            "MAXBLOCKMS" => options.max_block = Duration::from_millis(rest.number("MAXBLOCKMS")?),
            "RATE" => {
                self.rate = rest.number("RATE")?;
                // The servers cannot be told to be slower.
                options.method = Method::Legacy;
            }
            "SYNC" | "SHUTDOWN" | "BY" | "RANGES" | "WAITREPLICAS" => {
                return Err(Complaint::Unsupported(word.to_owned()));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Request, Complaint> {
        parse(&line.split(' ').collect::<Vec<_>>())
    }

    #[test]
    fn orders() {
        let check =
            |line: &str, order: Order| assert_eq!(read(line).unwrap().order, order, "{line}");
        let address = || Address::parse("h:1", None).unwrap();
        check(
            "addnode h:1",
            Order::AddNode { address: address(), follow: Follow::Nobody, rebalance: true },
        );
        check(
            "ADDNODE h:1 ReplicaOf a REBALANCE no",
            Order::AddNode {
                address: address(),
                follow: Follow::Node("a".into()),
                rebalance: false,
            },
        );
        check(
            "DELNODE a STRATEGY promote",
            Order::DelNode { name: "a".into(), strategy: Strategy::Promote },
        );
        check(
            "RESHARD SLOTS 5 FROM a,b FROM c TO d",
            Order::Reshard {
                count: 5,
                from: ["a", "b", "c"].map(str::to_owned).to_vec(),
                to: "d".into(),
            },
        );
        check(
            "RESHARD SLOTS 5 FROM ALL TO d",
            Order::Reshard { count: 5, from: Vec::new(), to: "d".into() },
        );
        check(
            "REBALANCE WEIGHT a=2 USEEMPTY THRESHOLD 0",
            Order::Rebalance { weights: vec![("a".into(), 2.0)], with_empty: true, threshold: 0.0 },
        );
        check("FIX", Order::Fix { consent: Risk::Safe });
        check("FIX APPLY all", Order::Fix { consent: Risk::DataLoss });
        check(
            "CREATE h:1 h:1 REPLICAS 2",
            Order::Create { addresses: vec![address(), address()], replicas: 2 },
        );
        let import = Import {
            source: address(),
            credentials: None,
            database: 0,
            copy: false,
            replace: false,
        };
        check("IMPORT FROM redis://h:1", Order::Import(import.clone()));
        let credentials = Some(Credentials { username: Some("u".into()), password: "p@".into() });
        let full = Import { credentials, database: 3, copy: true, replace: true, ..import };
        check("import from redis://u:p%40@h:1/3 copy replace", Order::Import(full.clone()));
        check("IMPORT FROM redis://u:p%40@h:1 REPLACE COPY DB 3", Order::Import(full));
        check("BACKUP /a", Order::Backup { folder: "/a".into() });
        check(
            "FAILOVER a TO b FORCE",
            Order::Failover { name: "a".into(), to: Some("b".into()), consent: Consent::Majority },
        );
    }

    #[test]
    fn what_is_said_about_them() {
        let request = read("REBALANCE RATE 100 DRYRUN JOBID x FORCE Min-Primaries").unwrap();
        assert_eq!(
            (request.rate, request.is_dry, request.token.as_deref()),
            (100, true, Some("x"))
        );
        assert_eq!(
            (request.options.method, request.force),
            (Method::Legacy, vec!["min-primaries".into()])
        );
    }

    #[test]
    fn nonsense() {
        let check = |line: &str, text: &str| {
            assert_eq!(read(line).unwrap_err().to_string(), text, "{line}");
        };
        check("ADDNODE", "BADARG the address is missing");
        check("ADDNODE h", "BADARG \"h\" is no address");
        check("ADDNODE h:1 REBALANCE maybe", "BADARG REBALANCE is neither yes nor no");
        check("RESHARD SLOTS 0 TO a", "BADARG SLOTS must be from 1 to 16384");
        check("RESHARD SLOTS 5", "BADARG TO is missing");
        check("CREATE REPLICAS 1", "BADARG the addresses are missing");
        check("CREATE h", "BADARG \"h\" is no address");
        check("IMPORT redis://h:1", "BADARG FROM has to come first");
        check("IMPORT FROM h:1", "BADARG the URI has to begin with redis:// or rediss://");
        check("IMPORT FROM redis://h:1/x", "BADARG the database of the URI is no number");
        check("IMPORT FROM rediss://h:1", "UNSUPPORTED IMPORT by TLS is not built yet");
        check(
            "BACKUP a",
            "BADARG the folder has to begin with /; it is one of the proxy's machine",
        );
        check("FIX APPLY most", "BADARG APPLY is neither safe, confirm nor all");
        check("REBALANCE WEIGHT a", "BADARG \"a\" is not id=weight");
        check("REBALANCE SLOTS 5", "BADARG \"SLOTS\" is not understood");
        check("DELNODE a SYNC", "UNSUPPORTED SYNC is not built yet");
    }
}
