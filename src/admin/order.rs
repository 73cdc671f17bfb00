//! What can be ordered to be done to the cluster: words to values. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::complaint::Complaint;
use super::words::short;
use crate::cluster::{Address, SLOTS, Slots};
use crate::manage::access::Credentials;
use crate::manage::mover::{BigKeys, Method, MoveOptions};
use crate::manage::pace::Rate;
use crate::manage::plan::Consent;
use crate::manage::plan::rebalance::Measure;
use crate::manage::recruit;
use crate::manage::repair::Risk;
use crate::manage::uri::Uri;

/// How far from its share a primary may be unless told otherwise, in percent.
const THRESHOLD: f64 = 2.0;
/// Why the rate of an import is not one of bytes.
pub(super) const WEIGHTLESS: &str =
    "what keys weigh that come in is not known: their rate is a number of keys";
/// Port of a URI that has none.
const PORT: u16 = 6379;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Order {
    /// A node becomes a member, with these as its replicas.
    AddNode { address: Address, follow: Follow, rebalance: bool, weight: f64, with: Vec<Address> },
    /// A node leaves, called by its name or address; its slots go to these primaries, or to all others if none is named.
    DelNode { name: String, strategy: Strategy, to: Vec<String>, farewell: Farewell },
    /// Slots go to one primary; from all others if none is named.
    Reshard { which: Which, from: Vec<String>, to: String },
    /// Primaries get their shares.
    Rebalance { weights: Vec<(String, f64)>, with_empty: bool, threshold: f64, by: Measure },
    /// A replica takes its primary's place.
    Failover { name: String, to: Option<String>, consent: Consent },
    /// What is not whole is repaired, as far as it is no riskier than this, and is about these slots if some are named.
    Fix { consent: Risk, slots: Option<Slots> },
    /// Empty nodes become a cluster.
    Create(Create),
    /// The keys of a server that is no cluster are taken in.
    Import(Import),
    /// What primaries have is saved in a folder.
    Backup { folder: PathBuf },
}

/// The cluster that nodes become.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Create {
    pub(super) addresses: Vec<Address>,
    /// Of each primary.
    pub(super) replicas: usize,
    /// The zones of nodes: a primary and its replicas are to be in different ones.
    pub(super) zones: Vec<(Address, String)>,
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

/// Which slots are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Which {
    /// So many.
    Count(usize),
    /// These.
    Ranges(Slots),
}

/// What a node is told that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Farewell {
    /// To forget the others.
    Reset,
    /// To end, too.
    Shutdown,
}

/// What becomes of the slots of a node that leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// Its replica takes its place if one is well and nobody is named who is to get them; else the other primaries do.
    Auto,
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
    /// What may go each second.
    pub(super) rate: Rate,
    /// Only the plan is wanted.
    pub(super) is_dry: bool,
    /// A name by which the same request is known when it comes again.
    pub(super) token: Option<String>,
    /// What is done in spite of.
    pub(super) force: Vec<String>,
    /// Name of the plan that it has to be.
    pub(super) if_plan: Option<String>,
    /// How long the client waits for the end; [`Duration::MAX`] for as long as it takes.
    pub(super) sync: Option<Duration>,
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
            Self::Create(_) => "create",
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

    /// Numbers and ranges of slots, by commas; at least one.
    fn slots(&mut self) -> Result<Slots, Complaint> {
        let slots: Slots = self.next("a slot")?.parse().map_err(bad)?;
        if slots.is_empty() { Err(bad("the slots are missing")) } else { Ok(slots) }
    }

    /// A node, and the zone that it is in.
    fn zone(&mut self) -> Result<(Address, String), Complaint> {
        let word = self.next("the zone")?;
        recruit::zone(word).ok_or_else(|| bad(format!("{:?} is not address=zone", short(word))))
    }

    /// One of these words.
    fn one_of<T: Copy>(&mut self, what: &str, known: &[(&str, T)]) -> Result<T, Complaint> {
        let word = self.next(what)?;
        let found = known.iter().find(|(name, _)| word.eq_ignore_ascii_case(name));
        found.map(|(_, meant)| *meant).ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
            let (last, others) = names.split_last().expect("there is a choice");
            bad(format!("{what} is neither {} nor {last}", others.join(", ")))
        })
    }

    /// Each of several, by commas.
    fn several(&mut self, what: &str) -> Result<impl Iterator<Item = &'a str>, Complaint> {
        Ok(self.next(what)?.split(',').filter(|word| !word.is_empty()))
    }
}

fn bad(text: impl Into<String>) -> Complaint {
    Complaint::BadArg(text.into())
}

const STRATEGIES: &[(&str, Strategy)] = &[
    ("auto", Strategy::Auto),
    ("drain", Strategy::Drain),
    ("promote", Strategy::Promote),
    ("forget", Strategy::Forget),
];
const MEASURES: &[(&str, Measure)] =
    &[("slots", Measure::Slots), ("keys", Measure::Keys), ("memory", Measure::Memory)];
const RISKS: &[(&str, Risk)] =
    &[("safe", Risk::Safe), ("confirm", Risk::Confirm), ("all", Risk::DataLoss)];
const METHODS: &[(&str, Method)] =
    &[("auto", Method::Auto), ("asm", Method::Asm), ("legacy", Method::Legacy)];
const POLICIES: &[(&str, BigKeys)] =
    &[("fail", BigKeys::Fail), ("skip", BigKeys::Skip), ("allow", BigKeys::Allow)];

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

/// Whether these words order something.
pub(super) fn is_order(words: &[&str]) -> bool {
    words.first().is_some_and(|verb| VERBS.iter().any(|known| verb.eq_ignore_ascii_case(known)))
}

/// Reads the words from the verb on, which is known to be one of those.
pub(super) fn parse(words: &[&str]) -> Result<Request, Complaint> {
    let mut rest = Words(words[1..].iter());
    let order = match words[0].to_ascii_uppercase().as_str() {
        "ADDNODE" => {
            let address = address(rest.next("the address")?)?;
            let (follow, with) = (Follow::Nobody, Vec::new());
            Order::AddNode { address, follow, rebalance: true, weight: 1.0, with }
        }
        "DELNODE" => {
            let name = rest.next("the node")?.to_owned();
            let (to, farewell) = (Vec::new(), Farewell::Reset);
            Order::DelNode { name, strategy: Strategy::Drain, to, farewell }
        }
        "RESHARD" => Order::Reshard { which: Which::Count(0), from: Vec::new(), to: String::new() },
        "REBALANCE" => Order::Rebalance {
            weights: Vec::new(),
            with_empty: false,
            threshold: THRESHOLD,
            by: Measure::Slots,
        },
        "FIX" => Order::Fix { consent: Risk::Safe, slots: None },
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
        "CREATE" => Order::Create(Create::default()),
        _ => {
            let name = rest.next("the node")?.to_owned();
            Order::Failover { name, to: None, consent: Consent::All }
        }
    };
    let mut request = Request {
        order,
        options: MoveOptions::default(),
        rate: Rate::Any,
        is_dry: false,
        token: None,
        force: Vec::new(),
        if_plan: None,
        sync: None,
    };
    while let Some(word) = rest.0.next() {
        let upper = word.to_ascii_uppercase();
        if request.order.take(&upper, &mut rest)? || request.take(&upper, &mut rest)? {
            continue;
        }
        if let Order::Create(wanted) = &mut request.order {
            wanted.addresses.push(address(word)?);
        } else {
            return Err(bad(format!("{:?} is not understood", short(word))));
        }
    }
    expect_whole(&request.order)?;
    if let (Order::Import(_), Rate::Bytes(_)) = (&request.order, request.rate) {
        return Err(bad(WEIGHTLESS));
    }
    Ok(request)
}

/// Complains of what an order lacks, or has too much.
fn expect_whole(order: &Order) -> Result<(), Complaint> {
    match order {
        Order::Reshard { which: Which::Count(count), .. } if !(1..=SLOTS).contains(count) => {
            Err(bad("SLOTS must be from 1 to 16384"))
        }
        Order::AddNode { follow, with, .. } if *follow != Follow::Nobody && !with.is_empty() => {
            Err(bad("WITH is for a node that becomes a primary"))
        }
        Order::AddNode { weight, .. } if !weight.is_finite() || *weight < 0.0 => {
            Err(bad("WEIGHT must be a number from 0 on"))
        }
        Order::Reshard { to, .. } if to.is_empty() => Err(bad("TO is missing")),
        Order::Create(wanted) => expect_places(wanted),
        _ => Ok(()),
    }
}

fn expect_places(wanted: &Create) -> Result<(), Complaint> {
    if wanted.addresses.is_empty() {
        return Err(bad("the addresses are missing"));
    }
    match wanted.zones.iter().find(|(address, _)| !wanted.addresses.contains(address)) {
        Some((stranger, _)) => Err(bad(format!("{stranger} has a zone, and is none of the nodes"))),
        None => Ok(()),
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
        Ok(self.take_of_nodes(word, rest)? || self.take_of_slots(word, rest)?)
    }

    /// A word about who is a member, and as what.
    fn take_of_nodes(&mut self, word: &str, rest: &mut Words<'_>) -> Result<bool, Complaint> {
        match (self, word) {
            (Self::AddNode { follow, .. }, "REPLICA") => *follow = Follow::Anybody,
            (Self::AddNode { follow, .. }, "REPLICAOF") => {
                *follow = Follow::Node(rest.next("the primary")?.to_owned());
            }
            (Self::AddNode { rebalance, .. }, "REBALANCE") => {
                *rebalance = rest.one_of("REBALANCE", &[("yes", true), ("no", false)])?;
            }
            (Self::AddNode { weight, .. }, "WEIGHT") => *weight = rest.number("WEIGHT")?,
            (Self::AddNode { with, .. }, "WITH") => {
                for word in rest.several("the replica")? {
                    with.push(address(word)?);
                }
            }
            (Self::DelNode { to, .. }, "TO") => {
                to.extend(rest.several("the primary")?.map(str::to_owned));
            }
            (Self::DelNode { farewell, .. }, "SHUTDOWN") => *farewell = Farewell::Shutdown,
            (Self::DelNode { strategy, .. }, "STRATEGY") => {
                *strategy = rest.one_of("STRATEGY", STRATEGIES)?;
            }
            (Self::Failover { to, .. }, "TO") => *to = Some(rest.next("the replica")?.to_owned()),
            // What is called FORCE elsewhere has a flag behind it.
            (Self::Failover { consent, .. }, "FORCE") if *consent == Consent::All => {
                *consent = Consent::Majority;
            }
            (Self::Failover { consent, .. }, "TAKEOVER") => *consent = Consent::Nobody,
            (Self::Create(wanted), "REPLICAS") => wanted.replicas = rest.number("REPLICAS")?,
            (Self::Create(wanted), "ZONES") => {
                wanted.zones.push(rest.zone()?);
                // More of them may stand behind the first.
                while rest.0.as_slice().first().is_some_and(|word| recruit::zone(word).is_some()) {
                    wanted.zones.push(rest.zone()?);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A word about slots.
    fn take_of_slots(&mut self, word: &str, rest: &mut Words<'_>) -> Result<bool, Complaint> {
        match (self, word) {
            (Self::Reshard { which, .. }, "SLOTS") => *which = Which::Count(rest.number("SLOTS")?),
            (Self::Reshard { which, .. }, "RANGES") => *which = Which::Ranges(rest.slots()?),
            (Self::Reshard { from, .. }, "FROM") => {
                let names = rest.several("the source")?;
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
            (Self::Rebalance { by, .. }, "BY") => {
                *by = rest.one_of("BY", MEASURES)?;
            }
            (Self::Fix { slots, .. }, "SLOT") => {
                let mut all = slots.take().unwrap_or_default().to_vec();
                all.extend(rest.slots()?);
                // More of them may stand behind the first.
                while rest.0.as_slice().first().is_some_and(|word| word.parse::<Slots>().is_ok()) {
                    all.extend(rest.slots()?);
                }
                *slots = Some(all.into_iter().collect());
            }
            (Self::Fix { consent, .. }, "APPLY") => {
                *consent = rest.one_of("APPLY", RISKS)?;
            }
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
            "IFPLAN" => self.if_plan = Some(rest.next("the plan's name")?.to_owned()),
            "SYNC" => self.sync = Some(Duration::MAX),
            "TIMEOUT" => {
                let limit = Duration::from_millis(rest.number("TIMEOUT")?);
                let sync = self.sync.as_mut();
                *sync.ok_or_else(|| bad("TIMEOUT stands behind SYNC"))? = limit;
            }
            "FORCE" => {
                let flags = rest.next("what is forced")?.split(',');
                self.force.extend(flags.map(str::to_ascii_lowercase));
            }
            "METHOD" => {
                options.method = rest.one_of("METHOD", METHODS)?;
            }
            "BIGKEYS" => {
                options.big_keys = rest.one_of("BIGKEYS", POLICIES)?;
            }
            "BATCH" => options.batch = rest.number::<usize>("BATCH")?.max(1),
            "PARALLEL" => options.parallel = rest.number::<usize>("PARALLEL")?.max(1),
            "MAXBLOCKMS" => options.max_block = Duration::from_millis(rest.number("MAXBLOCKMS")?),
            "RATE" => {
                self.rate = rest.number("RATE")?;
                // The servers cannot be told to be slower.
                options.method = Method::Legacy;
            }
            "WAITREPLICAS" => options.replicas = Some(rest.number("WAITREPLICAS")?),
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
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let add = |follow: Follow, rebalance, weight, with: &[Address]| Order::AddNode {
            address: address(),
            follow,
            rebalance,
            weight,
            with: with.to_vec(),
        };
        check("addnode h:1", add(Follow::Nobody, true, 1.0, &[]));
        let line = "ADDNODE h:1 ReplicaOf a REBALANCE no";
        check(line, add(Follow::Node("a".into()), false, 1.0, &[]));
        let line = "ADDNODE h:1 WITH h:1,h:1 WITH h:1 WEIGHT 0.5";
        check(line, add(Follow::Nobody, true, 0.5, &[address(), address(), address()]));
        let leave = |strategy, to: &[&str], farewell| Order::DelNode {
            name: "a".into(),
            strategy,
            to: names(to),
            farewell,
        };
        check("DELNODE a STRATEGY auto", leave(Strategy::Auto, &[], Farewell::Reset));
        check("DELNODE a STRATEGY promote", leave(Strategy::Promote, &[], Farewell::Reset));
        let line = "DELNODE a TO b,c TO d SHUTDOWN";
        check(line, leave(Strategy::Drain, &["b", "c", "d"], Farewell::Shutdown));
        let reshard =
            |which, from: &[&str]| Order::Reshard { which, from: names(from), to: "d".into() };
        let five = || Which::Count(5);
        check("RESHARD SLOTS 5 FROM a,b FROM c TO d", reshard(five(), &["a", "b", "c"]));
        check("RESHARD SLOTS 5 FROM ALL TO d", reshard(five(), &[]));
        let some = || "1-3,7".parse::<Slots>().unwrap();
        check("RESHARD RANGES 7,1-3 TO d", reshard(Which::Ranges(some()), &[]));
        let rebalance = |weights, with_empty, threshold, by| Order::Rebalance {
            weights,
            with_empty,
            threshold,
            by,
        };
        check(
            "REBALANCE WEIGHT a=2 USEEMPTY THRESHOLD 0",
            rebalance(vec![("a".into(), 2.0)], true, 0.0, Measure::Slots),
        );
        check("REBALANCE BY keys", rebalance(Vec::new(), false, THRESHOLD, Measure::Keys));
        check("REBALANCE BY Memory", rebalance(Vec::new(), false, THRESHOLD, Measure::Memory));
        check("FIX", Order::Fix { consent: Risk::Safe, slots: None });
        check("FIX APPLY all", Order::Fix { consent: Risk::DataLoss, slots: None });
        check("FIX SLOT 1-3 7 DRYRUN", Order::Fix { consent: Risk::Safe, slots: Some(some()) });
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
    fn nodes_that_become_a_cluster() {
        let check = |line: &str, wanted| {
            assert_eq!(read(line).unwrap().order, Order::Create(wanted), "{line}");
        };
        let address = |word: &str| Address::parse(word, None).unwrap();
        let create = Create {
            addresses: vec![address("h:1"), address("h:2")],
            replicas: 2,
            ..Create::default()
        };
        check("CREATE h:1 h:2 REPLICAS 2", create.clone());
        let zones = vec![(address("h:1"), "a=b".into()), (address("h:2"), "c".into())];
        let apart = Create { zones, ..create };
        check("CREATE h:1 ZONES h:1=a=b h:2=c h:2 REPLICAS 2", apart.clone());
        check("CREATE ZONES h:1=a=b ZONES h:2=c REPLICAS 2 h:1 h:2", apart);
    }

    #[test]
    fn what_is_said_about_them() {
        let line = "REBALANCE RATE 100 WAITREPLICAS 2 DRYRUN JOBID x FORCE Few,y IFPLAN z";
        let request = read(line).unwrap();
        assert_eq!(request.options.replicas, Some(2));
        assert_eq!(
            (request.rate, request.is_dry, request.token.as_deref()),
            (Rate::Keys(100), true, Some("x"))
        );
        assert_eq!(
            (request.options.method, request.force),
            (Method::Legacy, vec!["few".into(), "y".into()])
        );
        // What has a flag behind it is the second FORCE, and any behind TAKEOVER.
        let force = |line: &str| read(line).unwrap().force;
        assert_eq!(force("FAILOVER a FORCE FORCE x"), ["x"]);
        assert_eq!(force("FAILOVER a TAKEOVER FORCE no-majority"), ["no-majority"]);
        assert_eq!(read("REBALANCE RATE 8MiB/s").unwrap().rate, Rate::Bytes(8 << 20));
        assert_eq!((request.if_plan.as_deref(), request.sync), (Some("z"), None));
        let sync = |line: &str| read(line).unwrap().sync;
        assert_eq!(sync("DELNODE a SYNC"), Some(Duration::MAX));
        assert_eq!(sync("DELNODE a SYNC TIMEOUT 5"), Some(Duration::from_millis(5)));
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
        check("RESHARD RANGES 5-3 TO a", "BADARG \"5-3\" is neither a slot nor a range of slots");
        check("RESHARD RANGES , TO a", "BADARG the slots are missing");
        check("ADDNODE h:1 REPLICA WITH h:2", "BADARG WITH is for a node that becomes a primary");
        check("ADDNODE h:1 WEIGHT -1", "BADARG WEIGHT must be a number from 0 on");
        check("REBALANCE BY size", "BADARG BY is neither slots, keys nor memory");
        check("FIX SLOT", "BADARG a slot is missing");
        check("CREATE REPLICAS 1", "BADARG the addresses are missing");
        check("CREATE h", "BADARG \"h\" is no address");
        check("CREATE h:1 ZONES h:1", "BADARG \"h:1\" is not address=zone");
        check("CREATE h:1 ZONES h:2=a", "BADARG h:2 has a zone, and is none of the nodes");
        check("IMPORT redis://h:1", "BADARG FROM has to come first");
        check("IMPORT FROM h:1", "BADARG the URI has to begin with redis:// or rediss://");
        check("IMPORT FROM redis://h:1/x", "BADARG the database of the URI is no number");
        check("REBALANCE RATE fast", "BADARG RATE: \"fast\" is no such number");
        let text =
            "BADARG what keys weigh that come in is not known: their rate is a number of keys";
        check("IMPORT FROM redis://h:1 RATE 8MiB/s", text);
        check("IMPORT FROM rediss://h:1", "UNSUPPORTED IMPORT by TLS is not built yet");
        check(
            "BACKUP a",
            "BADARG the folder has to begin with /; it is one of the proxy's machine",
        );
        check("FIX APPLY most", "BADARG APPLY is neither safe, confirm nor all");
        check("REBALANCE WEIGHT a", "BADARG \"a\" is not id=weight");
        check("REBALANCE SLOTS 5", "BADARG \"SLOTS\" is not understood");
        check("DELNODE a TIMEOUT 5", "BADARG TIMEOUT stands behind SYNC");
    }
}
