//! Nodes that are to become members of a cluster: asked whether they are fit for it. Nothing is changed.

use std::collections::BTreeSet;
use std::fmt;

use tokio::task::JoinSet;

use super::access::Access;
use super::view::{NodeView, ViewError, zone_site};
use crate::backend::control::ControlError;
use crate::cluster::{Address, NodeId, Slots};
use crate::resp::value;

/// A node as it was found.
#[derive(Clone, Debug)]
pub struct Recruit {
    /// What it says.
    pub view: NodeView,
    /// How many libraries of functions it has.
    pub functions: usize,
}

/// Why a node cannot join.
#[derive(Debug)]
pub enum Unfit {
    /// It could not be asked.
    Unknown(ViewError),
    /// It has something that would be lost or mixed up.
    NotEmpty {
        /// The nodes it knows.
        knows: Vec<NodeId>,
        /// The keys it has, by database.
        keys: Vec<(u32, u64)>,
        /// The slots it owns.
        slots: Slots,
    },
    /// It has functions.
    Functions(usize),
    /// It does not tell at which port other nodes and clients are to reach it.
    NoPort,
    /// It is the node that another address leads to.
    Twin(Address),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(error) => error.fmt(f),
            Self::NotEmpty { knows, keys, slots } => {
                let mut what = Vec::new();
                if !knows.is_empty() {
                    what.push(format!("it knows {} other nodes", knows.len()));
                }
                what.extend(
                    keys.iter().map(|(db, count)| format!("it has {count} keys in database {db}")),
                );
                if !slots.is_empty() {
                    what.push(format!("it owns slots {slots}"));
                }
                f.write_str(&what.join(", "))
            }
            Self::Functions(count) => write!(f, "it has {count} libraries of functions"),
            Self::NoPort => f.write_str(
                "it announces port 0: a node that listens for TLS alone needs tls-cluster yes",
            ),
            Self::Twin(other) => write!(f, "it is the same node as {other}"),
        }
    }
}

impl Recruit {
    /// Asks a node.
    pub async fn ask(address: &Address, access: &Access) -> Result<Self, ViewError> {
        let view = NodeView::ask(address, access).await?;
        let mut control = access.open(address).await?;
        let functions = match control.call(&[b"FUNCTION", b"LIST"]).await {
            Ok(list) => value::array(&list).map_or(0, <[_]>::len),
            // Servers before 7.0 have none.
            Err(ControlError::Reply(..)) => 0,
            Err(error) => return Err(error.into()),
        };
        Ok(Self { view, functions })
    }

    /// What speaks against it.
    pub fn unfit(&self) -> Option<Unfit> {
        let knows: Vec<NodeId> = self.view.others.iter().map(|line| line.id.clone()).collect();
        let (keys, slots) = (self.view.info.databases(), self.view.own.slots.clone());
        if !knows.is_empty() || !keys.is_empty() || !slots.is_empty() {
            return Some(Unfit::NotEmpty { knows, keys, slots });
        }
        if self.view.own.address.is_none() {
            return Some(Unfit::NoPort);
        }
        (self.functions > 0).then_some(Unfit::Functions(self.functions))
    }
}

/// What copies of a slot are not to share, for each node: its zone, as it is given here or told by the node, else its host.
pub fn sites(recruits: &[Recruit], zones: &[(Address, String)]) -> Vec<String> {
    let site = |node: &NodeView| {
        let given = zones.iter().find(|(address, _)| *address == node.address);
        given.map_or_else(|| node.site(), |(_, zone)| zone_site(zone))
    };
    recruits.iter().map(|recruit| site(&recruit.view)).collect()
}

/// Reads `host:port=zone`.
pub fn zone(pair: &str) -> Option<(Address, String)> {
    let (address, zone) = pair.split_once('=')?;
    let address = Address::parse(address, None).filter(|address| !address.host().is_empty())?;
    (!zone.is_empty()).then(|| (address, zone.to_owned()))
}

/// Asks all of them; the answers are in the order of the addresses.
pub async fn ask_all(addresses: &[Address], access: &Access) -> Vec<Result<Recruit, ViewError>> {
    let mut asking = JoinSet::new();
    for (at, address) in addresses.iter().cloned().enumerate() {
        let access = access.clone();
        asking.spawn(async move { (at, Recruit::ask(&address, &access).await) });
    }
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(at, _)| *at);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// What speaks against each, as all of them are to be one cluster; none if everything is well.
pub fn all_unfit(
    addresses: &[Address],
    recruits: Vec<Result<Recruit, ViewError>>,
) -> Result<Vec<Recruit>, Vec<(Address, Unfit)>> {
    let (mut fit, mut unfit): (Vec<Recruit>, Vec<(Address, Unfit)>) = (Vec::new(), Vec::new());
    for (address, recruit) in addresses.iter().zip(recruits) {
        match recruit {
            Err(error) => unfit.push((address.clone(), Unfit::Unknown(error))),
            Ok(recruit) => {
                let twin = fit.iter().find(|other| other.view.own.id == recruit.view.own.id);
                let twin = twin.map(|other| Unfit::Twin(other.view.address.clone()));
                if let Some(fault) = twin.or_else(|| recruit.unfit()) {
                    unfit.push((address.clone(), fault));
                }
                fit.push(recruit);
            }
        }
    }
    if unfit.is_empty() { Ok(fit) } else { Err(unfit) }
}

/// Whether these are the nodes of a cluster that was not finished, or is not used: no keys, no functions, and nobody known
/// but each other. Then making them forget everything loses nothing.
pub fn are_leftovers(recruits: &[Recruit]) -> bool {
    let ids: BTreeSet<&NodeId> = recruits.iter().map(|recruit| &recruit.view.own.id).collect();
    ids.len() == recruits.len()
        && recruits.iter().all(|Recruit { view, functions }| {
            let strangers =
                view.others.iter().filter(|line| !line.is("handshake") && !ids.contains(&line.id));
            *functions == 0 && view.info.databases().is_empty() && strangers.count() == 0
        })
}
