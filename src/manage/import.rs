//! Takes the keys of a server that is no cluster into one.
//!
//! The source is scanned, and sends the keys itself (`MIGRATE`), many at a time to each owner. Keys are bytes, whatever is
//! in them. What is in the cluster already and the same is no obstacle, so it can be done again after it was cut off.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use thiserror::Error;

use super::access::{Access, Credentials, Way};
use super::likeness::alike;
use super::mover::Reins;
use super::pace::Meter;
use super::view::{ClusterView, Info};
use crate::backend::control::{Control, ControlError};
use crate::cluster::{Address, NodeId, Slot};
use crate::resp::value::{self, Value};

/// Keys asked for in one step of the scan.
const PAGE: &[u8] = b"1000";
/// Keys of one `MIGRATE` unless told otherwise: enough that the way there and back does not count, few enough not to stop the source for long.
pub const BATCH: usize = 100;
/// What an answer may take beyond the time that the source is given for the transfer.
const GRACE: Duration = Duration::from_secs(5);

/// How keys are taken in.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Where they come from.
    pub source: Address,
    /// Which of its databases; in the cluster they are in its only one.
    pub database: u32,
    /// User and password there.
    pub credentials: Option<Credentials>,
    /// Whether they stay there too.
    pub copy: bool,
    /// Whether keys of the cluster with other values give way.
    pub replace: bool,
    /// How long one transfer may take.
    pub timeout: Duration,
    /// Most keys of one transfer.
    pub batch: usize,
    /// Whether the source is reached by the way of the nodes, TLS as the case may be; else by plain TCP.
    pub same_way: bool,
}

/// What is told meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// So many keys are to come.
    Begin(u64),
    /// Databases that are left where they are: a cluster knows one.
    OtherDatabases(Vec<(u32, u64)>),
    /// A key is there.
    Key(&'a [u8], &'a Address),
    /// A key has another value in the cluster, which it keeps.
    Conflict(&'a [u8], &'a Address),
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Keys that are in the cluster now.
    pub keys: u64,
    /// Keys that have another value there.
    pub conflicts: u64,
}

/// Why it could not be done.
#[derive(Debug, Error)]
pub enum ImportError {
    /// A node did not do what it was asked.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// The source is itself a node of a cluster.
    #[error("The source node should not be a cluster node.")]
    IsCluster,
    /// The source would send keys without TLS, to nodes that are reached by TLS.
    #[error("The source sends keys without TLS: it needs tls-cluster yes, cluster or not.")]
    PlainSource,
    /// The source answered something that is not understood.
    #[error("{0} answered {1} in a way that is not understood")]
    Strange(Address, &'static str),
    /// Nobody owns the slot of a key.
    #[error("nobody owns slot {0}")]
    Uncovered(Slot),
    /// It was told to stop.
    #[error("stopped, as it was told to")]
    Stopped,
}

/// How many keys there are to be taken in, if they can be.
pub async fn examine(options: &ImportOptions, access: &Access) -> Result<u64, ImportError> {
    let mut keys = 0;
    let mut tell = |event: Event<'_>| {
        if let Event::Begin(found) = event {
            keys = found;
        }
    };
    open(options, access, &mut tell).await?;
    Ok(keys)
}

/// Takes in all keys of a database.
pub async fn run(
    options: &ImportOptions,
    view: &ClusterView,
    access: &Access,
    reins: &Reins,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Imported, ImportError> {
    let source = open(options, access, tell).await?;
    let (owners, meter, done) = (view.owners(), Meter::default(), Imported::default());
    let mut import = Import { options, view, access, owners, source, reins, meter, done };
    let mut cursor = Bytes::from_static(b"0");
    loop {
        let (next, keys) = import.scan(&cursor).await?;
        for (owner, keys) in import.by_owner(keys)? {
            let mut rest = keys.as_slice();
            while !rest.is_empty() {
                let size = options.batch.max(1).min(reins.rate().burst().0).min(rest.len());
                let batch;
                (batch, rest) = rest.split_at(size);
                import.wait(batch.len()).await?;
                import.send(batch, &owner, tell).await?;
            }
        }
        // Compared as text: the cursor is a number of 64 bits, which not everything holds.
        if &*next == b"0" {
            return Ok(import.done);
        }
        cursor = next;
    }
}

/// The source, if keys can be had from it; tells of what it has.
async fn open(
    options: &ImportOptions,
    access: &Access,
    tell: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Control, ImportError> {
    let limit = options.timeout + GRACE;
    let way = if options.same_way { access.way.clone() } else { Way::default() };
    let way = Access { credentials: options.credentials.clone(), way, limit };
    let mut source = way.open(&options.source).await?;
    let info = source.call(&[b"INFO"]).await?;
    let info = Info(value::text(&info).unwrap_or_default().to_owned());
    if info.get("cluster_enabled") == Some("1") {
        return Err(ImportError::IsCluster);
    }
    if access.way.tls.is_some() && !speaks_tls(&mut source).await? {
        return Err(ImportError::PlainSource);
    }
    if options.database != 0 {
        source.call(&[b"SELECT", options.database.to_string().as_bytes()]).await?;
    }
    let (meant, others): (Vec<_>, Vec<_>) =
        info.databases().into_iter().partition(|(db, _)| *db == options.database);
    tell(Event::Begin(meant.iter().map(|(_, keys)| keys).sum()));
    if !others.is_empty() {
        tell(Event::OtherDatabases(others));
    }
    Ok(source)
}

/// Whether the source sends keys by TLS, as far as it tells.
async fn speaks_tls(source: &mut Control) -> Result<bool, ImportError> {
    match source.call(&[b"CONFIG", b"GET", b"tls-cluster"]).await {
        Ok(pair) => {
            Ok(value::array(&pair).and_then(|pair| value::text(pair.get(1)?)) != Some("no"))
        }
        Err(ControlError::Reply(..)) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

struct Import<'a> {
    options: &'a ImportOptions,
    view: &'a ClusterView,
    access: &'a Access,
    owners: Vec<Option<NodeId>>,
    source: Control,
    reins: &'a Reins,
    meter: Meter,
    done: Imported,
}

impl Import<'_> {
    /// Until so many keys may go.
    async fn wait(&mut self, keys: usize) -> Result<(), ImportError> {
        let stopped = |_| ImportError::Stopped;
        self.reins.leave().await.map_err(stopped)?;
        if self.reins.is_ending() {
            return Err(ImportError::Stopped);
        }
        // What they weigh is not known: their rate is one of keys.
        let time = self.meter.wait((keys, 0), self.reins.rate(), Instant::now());
        self.reins.sleep(time).await.map_err(stopped)
    }

    async fn scan(&mut self, cursor: &Bytes) -> Result<(Bytes, Vec<Bytes>), ImportError> {
        let page = self.source.call(&[b"SCAN", cursor, b"COUNT", PAGE]).await?;
        let strange = || ImportError::Strange(self.options.source.clone(), "SCAN");
        let Some([Value::BulkString(next), Value::Array(keys)]) = value::array(&page) else {
            return Err(strange());
        };
        let bytes = |key: &Value| match key {
            Value::BulkString(key) => Ok(key.clone()),
            _ => Err(strange()),
        };
        Ok((next.clone(), keys.iter().map(bytes).collect::<Result<_, _>>()?))
    }

    fn by_owner(&self, keys: Vec<Bytes>) -> Result<BTreeMap<Address, Vec<Bytes>>, ImportError> {
        let mut by_owner: BTreeMap<Address, Vec<Bytes>> = BTreeMap::new();
        for key in keys {
            let slot = Slot::of(&key);
            let owner = self.owners[slot.index()].as_ref().and_then(|id| self.view.node(id));
            let owner = owner.ok_or(ImportError::Uncovered(slot))?;
            by_owner.entry(owner.address.clone()).or_default().push(key);
        }
        Ok(by_owner)
    }

    /// Sends many keys at once; if one is in the way there, each by itself.
    async fn send(
        &mut self,
        keys: &[Bytes],
        owner: &Address,
        tell: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), ImportError> {
        match self.migrate(keys, owner, self.options.replace).await {
            Ok(()) => keys.iter().for_each(|key| self.arrived(key, owner, tell)),
            Err(error) if is_busy(&error) => {
                for key in keys {
                    self.send_one(key, owner, tell).await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn send_one(
        &mut self,
        key: &Bytes,
        owner: &Address,
        tell: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<(), ImportError> {
        match self.migrate(std::slice::from_ref(key), owner, self.options.replace).await {
            Ok(()) => self.arrived(key, owner, tell),
            Err(error) if is_busy(&error) => {
                let mut target = self.access.open(owner).await?;
                if self.is_alike(key, &mut target).await? {
                    // It stays there: to send it again would undo what a client has written to it since.
                    if !self.options.copy {
                        self.source.call(&[b"DEL", key]).await?;
                    }
                    self.arrived(key, owner, tell);
                } else {
                    self.done.conflicts += 1;
                    tell(Event::Conflict(key, owner));
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    async fn is_alike(&mut self, key: &[u8], target: &mut Control) -> Result<bool, ControlError> {
        let dumps = (self.source.call(&[b"DUMP", key]).await?, target.call(&[b"DUMP", key]).await?);
        Ok(dumps.0 == dumps.1 || alike(&mut self.source, target, key).await?)
    }

    fn arrived(&mut self, key: &[u8], owner: &Address, tell: &mut (dyn FnMut(Event<'_>) + Send)) {
        self.done.keys += 1;
        tell(Event::Key(key, owner));
    }

    /// `MIGRATE host port "" 0 timeout [COPY] [REPLACE] [AUTH password | AUTH2 user password] KEYS key …`
    async fn migrate(
        &mut self,
        keys: &[Bytes],
        owner: &Address,
        replace: bool,
    ) -> Result<(), ControlError> {
        let (port, timeout) =
            (owner.port().to_string(), self.options.timeout.as_millis().to_string());
        let mut args: Vec<&[u8]> = vec![
            b"MIGRATE",
            owner.host().as_bytes(),
            port.as_bytes(),
            b"",
            b"0",
            timeout.as_bytes(),
        ];
        args.extend(self.options.copy.then_some(&b"COPY"[..]));
        args.extend(replace.then_some(&b"REPLACE"[..]));
        match &self.access.credentials {
            Some(Credentials { username: Some(user), password }) => {
                args.extend([&b"AUTH2"[..], user.as_bytes(), password.as_bytes()]);
            }
            Some(Credentials { username: None, password }) => {
                args.extend([&b"AUTH"[..], password.as_bytes()]);
            }
            None => {}
        }
        args.push(b"KEYS");
        args.extend(keys.iter().map(AsRef::<[u8]>::as_ref));
        self.source.call(&args).await.map(drop)
    }
}

fn is_busy(error: &ControlError) -> bool {
    error.reply().is_some_and(|text| text.contains("BUSYKEY"))
}
