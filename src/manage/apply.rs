//! Does the steps of a plan, each until it has taken effect on all nodes.
//!
//! Every wait is a question asked again and again until nothing is missing, or until the deadline, which then says what was.
//! Doing a step again does no harm, so whatever was interrupted can be planned and applied once more.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use thiserror::Error;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::access::Access;
use super::check;
use super::plan::{Consent, Step};
use super::view::{ClusterView, NodeView, ViewError};
use crate::backend::control::{Control, ControlError};
use crate::cluster::{Address, NodeId, SLOTS, Slots};
use crate::resp::value::{self, Value};

/// How often a question is asked again.
const POLL: Duration = Duration::from_millis(100);
/// How often nodes that still do not know each other are introduced once more, and waiting is told of.
const REPEAT: Duration = Duration::from_secs(1);
/// Others that each node of a new cluster is introduced to. One would suffice, but then the rest is left to gossip, which
/// takes seconds; all would be too many in a large cluster.
const MEETS: usize = 16;
/// How long one that loads is waited for to forget a node, twice: the others take it up again after a minute.
const FORGET_PATIENCE: Duration = Duration::from_secs(15);
/// Slots named in one `ADDSLOTS`, to servers that do not know `ADDSLOTSRANGE` (before 7.0).
const SLOTS_AT_ONCE: usize = 1000;

/// What is told while steps are done.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// It begins.
    Step(&'a Step),
    /// It has been waited for a second, for this.
    Waiting(&'a str),
    /// Something that does not keep it from going on.
    Note(String),
}

/// Where events go.
pub type Tell<'a> = &'a mut dyn FnMut(Event<'_>);

/// Why a step could not be done.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// A node answered with an error, or not at all.
    #[error("{0}")]
    Control(#[from] ControlError),
    /// A node could not be asked how it is.
    #[error("{0}")]
    View(#[from] ViewError),
    /// A host name leads nowhere.
    #[error("Invalid IP address or hostname specified: {0}")]
    Unresolved(String),
    /// The step needs a node that does not answer.
    #[error("{0} does not answer")]
    Absent(NodeId),
    /// A replica went over to another primary before it could replace its own: nodes arrange that among themselves.
    #[error(
        "{0} has gone over to another primary, {1}, and replaces none; look again who follows whom"
    )]
    WentOver(Address, NodeId),
    /// Nodes keep introducing themselves to one that was reset.
    #[error("other nodes keep introducing themselves to it; is it in a cluster that still runs?")]
    Acquainted,
    /// A node that joins has functions of its own.
    #[error(
        "New node already contains functions and can not be added to the cluster. Use FUNCTION FLUSH and try again."
    )]
    Functions,
    /// It did not take effect in time.
    #[error("not within {seconds} s: {missing}")]
    Late {
        /// The deadline.
        seconds: u64,
        /// What was missing in the end.
        missing: String,
        /// The nodes that had no link with each other: the address of the one, and address and bus port of the other.
        unlinked: Vec<(Address, Address, Option<u16>)>,
    },
}

/// The nodes that take part, and the connections to them.
#[derive(Debug)]
pub struct Crew {
    access: Access,
    members: BTreeMap<NodeId, Place>,
    open: BTreeMap<NodeId, Control>,
    /// How long each step may take.
    pub patience: Duration,
    /// Nodes on which a step could not be done although it could on others, and why.
    pub shortfalls: Vec<(Address, String)>,
}

/// Where a node is.
#[derive(Clone, Debug)]
struct Place {
    /// Where it is dialled.
    dialled: Address,
    /// Where the other nodes are to find it.
    announced: Address,
    bus_port: Option<u16>,
    /// Whom it follows.
    primary: Option<NodeId>,
}

impl Crew {
    /// The nodes of a cluster that answer.
    pub fn new(view: &ClusterView, access: &Access, patience: Duration) -> Self {
        let mut crew = Self {
            access: access.clone(),
            members: BTreeMap::new(),
            open: BTreeMap::new(),
            patience,
            shortfalls: Vec::new(),
        };
        view.nodes.iter().for_each(|node| crew.enrol(node));
        crew
    }

    /// One more.
    pub fn enrol(&mut self, node: &NodeView) {
        let announced = node.own.address.clone().unwrap_or_else(|| node.address.clone());
        let place = Place {
            dialled: node.address.clone(),
            announced,
            bus_port: node.own.bus_port,
            primary: node.own.primary.clone(),
        };
        self.members.insert(node.own.id.clone(), place);
    }

    /// Does the steps, one after the other.
    pub async fn apply(&mut self, steps: &[Step], tell: Tell<'_>) -> Result<(), ApplyError> {
        for step in steps {
            tell(Event::Step(step));
            self.apply_one(step, tell).await?;
        }
        Ok(())
    }

    async fn apply_one(&mut self, step: &Step, tell: Tell<'_>) -> Result<(), ApplyError> {
        match step {
            Step::AddSlots { node, slots } => self.add_slots(node, slots).await,
            Step::SetEpoch { node, epoch } => self.set_epoch(node, *epoch).await,
            Step::CopyFunctions { from, to } => self.copy_functions(from, to, tell).await,
            Step::Join { nodes } => self.join(nodes, tell).await,
            Step::Replicate { node, primary } => self.replicate(node, primary, tell).await,
            Step::Failover { node, consent } => self.fail_over(node, *consent, tell).await,
            Step::Forget { node } => self.forget(node, tell).await,
            Step::Reset { node } => self.reset(node, tell).await,
            Step::Shutdown { node } => self.shut_down(node, tell).await,
        }
    }

    /// Waits until all members say the same, serve, and all replicas are linked. When a node is `gone` those who do not answer
    /// are not waited for, but are a shortfall.
    pub async fn settle(
        &mut self,
        gone: Option<&NodeId>,
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        let mut wait = Wait::new(self.patience);
        loop {
            let looked = match gone {
                None => self.look().await,
                Some(_) => Ok(self.look_at_the_rest(tell).await),
            };
            let (nodes, missing) = match looked {
                Err(error) => (Vec::new(), Some(error.to_string())),
                Ok(nodes) => {
                    let doubt = check::unsettled(&nodes, gone).map(|doubt| doubt.to_string());
                    let missing =
                        doubt.or_else(|| down_link(&nodes)).or_else(|| not_serving(&nodes));
                    (nodes, missing)
                }
            };
            let Some(missing) = missing else { return Ok(()) };
            wait.once_more(&missing, &nodes, tell).await?;
        }
    }

    /// Makes nodes that have just been introduced forget it all: for what was begun on empty nodes and failed. As long as one
    /// remembers, it introduces itself to others that are reset already: who knows somebody after that is reset once more.
    pub async fn undo(&mut self, nodes: &[NodeId]) -> Vec<(NodeId, ApplyError)> {
        let (start, mut failed, mut left) = (Instant::now(), Vec::new(), nodes.to_vec());
        loop {
            for node in &left {
                let reset = self.call(node, &["CLUSTER", "RESET", "HARD"]).await;
                failed.extend(reset.err().map(|error| (node.clone(), error)));
            }
            // What was on its way between them arrives.
            sleep(POLL).await;
            left.clear();
            for node in nodes {
                if failed.iter().any(|(it, _)| it == node) {
                    continue;
                }
                match self.knows_others(node).await {
                    Ok(true) if start.elapsed() < self.patience => left.push(node.clone()),
                    Ok(true) => failed.push((node.clone(), ApplyError::Acquainted)),
                    Ok(false) => {}
                    Err(error) => failed.push((node.clone(), error)),
                }
            }
            // One that could not be reset goes on introducing itself.
            if left.is_empty() || !failed.is_empty() {
                return failed;
            }
        }
    }

    async fn knows_others(&mut self, node: &NodeId) -> Result<bool, ApplyError> {
        let nodes = self.call(node, &["CLUSTER", "NODES"]).await?;
        Ok(value::text(&nodes).is_some_and(|text| text.lines().count() > 1))
    }

    /// One command to one node; it has to succeed.
    async fn call(&mut self, id: &NodeId, words: &[&str]) -> Result<Value, ApplyError> {
        let args: Vec<&[u8]> = words.iter().map(|word| word.as_bytes()).collect();
        self.call_bytes(id, &args).await
    }

    async fn call_bytes(&mut self, id: &NodeId, args: &[&[u8]]) -> Result<Value, ApplyError> {
        if !self.open.contains_key(id) {
            let place = self.members.get(id).ok_or_else(|| ApplyError::Absent(id.clone()))?;
            self.open.insert(id.clone(), self.access.open(&place.dialled).await?);
        }
        let control = self.open.get_mut(id).expect("it has just been put there");
        let answer = call_loaded(control, args, self.patience).await;
        if !matches!(answer, Ok(_) | Err(ControlError::Reply(..))) {
            self.open.remove(id);
        }
        Ok(answer?)
    }

    /// What all members say now.
    async fn look(&self) -> Result<Vec<NodeView>, ApplyError> {
        Ok(self.answers().await.into_iter().map(|(_, answer)| answer).collect::<Result<_, _>>()?)
    }

    /// What those members say that answer; the others are left out from here on.
    async fn look_at_the_rest(&mut self, tell: Tell<'_>) -> Vec<NodeView> {
        let mut nodes = Vec::new();
        for (id, answer) in self.answers().await {
            match answer {
                Ok(node) => nodes.push(node),
                Err(error) => self.excuse(&id, error.to_string(), tell),
            }
        }
        nodes
    }

    async fn answers(&self) -> Vec<(NodeId, Result<NodeView, ViewError>)> {
        let mut asking = JoinSet::new();
        for (id, place) in self.members.clone() {
            let access = self.access.clone();
            asking.spawn(async move { (id, NodeView::ask(&place.dialled, &access).await) });
        }
        let mut answers = asking.join_all().await;
        answers.sort_by(|(a, _), (b, _)| a.cmp(b));
        answers
    }

    /// From here on nothing depends on a member.
    fn excuse(&mut self, id: &NodeId, why: String, tell: Tell<'_>) {
        let Some(place) = self.members.remove(id) else { return };
        tell(Event::Note(format!("{} is left out: {why}", place.dialled)));
        self.shortfalls.push((place.dialled, why));
    }

    async fn add_slots(&mut self, node: &NodeId, slots: &Slots) -> Result<(), ApplyError> {
        let mut words = vec!["CLUSTER".to_owned(), "ADDSLOTSRANGE".to_owned()];
        for range in slots.ranges() {
            words.extend([range.start().to_string(), range.end().to_string()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match self.call(node, &words).await {
            Err(error) if is_unknown_command(&error) => {}
            outcome => return outcome.map(drop),
        }
        let numbers: Vec<String> = slots.iter().map(ToString::to_string).collect();
        for some in numbers.chunks(SLOTS_AT_ONCE) {
            let words = ["CLUSTER", "ADDSLOTS"].into_iter().chain(some.iter().map(String::as_str));
            self.call(node, &words.collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    /// One that has an epoch, as a soft reset leaves it, keeps it: should it be another's too, they settle that.
    async fn set_epoch(&mut self, node: &NodeId, epoch: u64) -> Result<(), ApplyError> {
        let set = self.call(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch.to_string()]).await;
        match set {
            Err(ApplyError::Control(ControlError::Reply(_, text)))
                if text.contains("epoch is already non-zero") =>
            {
                Ok(())
            }
            set => set.map(drop),
        }
    }

    async fn copy_functions(
        &mut self,
        from: &NodeId,
        to: &NodeId,
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        let dump = match self.call(from, &["FUNCTION", "DUMP"]).await {
            Ok(Value::BulkString(dump)) => dump,
            Ok(_) => return Ok(()),
            Err(ApplyError::Control(ControlError::Reply(_, text))) => {
                tell(Event::Note(format!("the cluster knows no functions ({text})")));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let have = self.call(to, &["FUNCTION", "DUMP"]).await?;
        if have == Value::BulkString(dump.clone()) {
            return Ok(());
        }
        match self.call(to, &["FUNCTION", "LIST"]).await? {
            Value::Array(list) if list.is_empty() => {}
            _ => return Err(ApplyError::Functions),
        }
        self.call_bytes(to, &[b"FUNCTION", b"RESTORE", &dump]).await.map(drop)
    }

    /// Introduces nodes to the others, and again to those who do not know them after a while: one that was forgotten less
    /// than a minute ago is not accepted on hearsay, but it is when it introduces itself.
    async fn join(&mut self, nodes: &[NodeId], tell: Tell<'_>) -> Result<(), ApplyError> {
        let all: Vec<NodeId> = self.members.keys().cloned().collect();
        for (at, node) in nodes.iter().enumerate() {
            let known = all.iter().filter(|other| !nodes.contains(other));
            let later = nodes[at + 1..].iter();
            for other in known.chain(later).take(MEETS).cloned().collect::<Vec<_>>() {
                self.meet(node, &other).await?;
            }
        }
        let mut wait = Wait::new(self.patience);
        let mut next = Instant::now() + REPEAT;
        loop {
            let looked = self.look().await;
            let Some(views) = wait.unless_loading(looked, tell).await? else { continue };
            let Some(doubt) = check::unsettled(&views, None) else { return Ok(()) };
            if Instant::now() >= next {
                next = Instant::now() + REPEAT;
                let strangers = check::unlinked(&views);
                for (from, to) in strangers
                    .iter()
                    .filter(|(from, to)| nodes.contains(&from.own.id) || nodes.contains(&to.own.id))
                    .take(MEETS * MEETS)
                {
                    self.meet(&to.own.id, &from.own.id).await?;
                }
            }
            wait.once_more(&doubt.to_string(), &views, tell).await?;
        }
    }

    async fn meet(&mut self, node: &NodeId, other: &NodeId) -> Result<(), ApplyError> {
        let place =
            self.members.get(other).ok_or_else(|| ApplyError::Absent(other.clone()))?.clone();
        let ip = resolve(place.announced.host()).await?.to_string();
        let (port, usual) = (place.announced.port(), place.announced.port().checked_add(10_000));
        let (port, bus) = (
            port.to_string(),
            place.bus_port.filter(|bus| Some(*bus) != usual).map(|bus| bus.to_string()),
        );
        let words = ["CLUSTER", "MEET", &ip, &port].into_iter().chain(bus.as_deref());
        self.call(node, &words.collect::<Vec<_>>()).await.map(drop)
    }

    /// A node may know the primary by name and still not by role, and says so.
    async fn replicate(
        &mut self,
        node: &NodeId,
        primary: &NodeId,
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        let mut wait = Wait::new(self.patience);
        loop {
            match self.call(node, &["CLUSTER", "REPLICATE", primary.0.as_ref()]).await {
                Err(ApplyError::Control(ControlError::Reply(_, text)))
                    if text.contains("Unknown node") || text.contains("only replicate") =>
                {
                    wait.once_more(&text, &[], tell).await?;
                }
                outcome => return outcome.map(drop),
            }
        }
    }

    async fn fail_over(
        &mut self,
        node: &NodeId,
        consent: Consent,
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        let words: &[&str] = match consent {
            Consent::All => &["CLUSTER", "FAILOVER"],
            Consent::Majority => &["CLUSTER", "FAILOVER", "FORCE"],
            Consent::Nobody => &["CLUSTER", "FAILOVER", "TAKEOVER"],
        };
        let place = self.members.get(node).ok_or_else(|| ApplyError::Absent(node.clone()))?.clone();
        let mut wait = Wait::new(self.patience);
        // A node gives a try up after five seconds, and says so to nobody.
        let mut again = Instant::now();
        loop {
            let looked = NodeView::ask(&place.dialled, &self.access).await.map_err(Into::into);
            let Some(view) = wait.unless_loading(looked, tell).await? else { continue };
            if !view.own.is_replica() {
                return Ok(());
            }
            if let (Some(meant), Some(primary)) = (&place.primary, &view.own.primary)
                && meant != primary
            {
                return Err(ApplyError::WentOver(view.address, primary.clone()));
            }
            if Instant::now() >= again {
                self.call(node, words).await?;
                again = Instant::now() + REPEAT * 6;
            }
            wait.once_more(&format!("{} is still a replica", view.address), &[], tell).await?;
        }
    }

    /// Everybody forgets the node at the same time, before somebody who still knows it can tell the others of it. Those who
    /// did not are told once more, and then left out.
    async fn forget(&mut self, node: &NodeId, tell: Tell<'_>) -> Result<(), ApplyError> {
        let others = self.members.keys().filter(|id| *id != node).cloned().collect();
        let missed = self.all_forget(others, node).await;
        let missed = missed.into_iter().map(|(id, _)| id).collect();
        for (id, error) in self.all_forget(missed, node).await {
            self.excuse(&id, format!("it did not forget the node: {error}"), tell);
        }
        Ok(())
    }

    /// Has these members forget a node; gives those who did not.
    async fn all_forget(&self, members: Vec<NodeId>, node: &NodeId) -> Vec<(NodeId, ControlError)> {
        let mut asking = JoinSet::new();
        for id in members {
            let (address, access, node) =
                (self.members[&id].dialled.clone(), self.access.clone(), node.clone());
            let patience = self.patience.min(FORGET_PATIENCE);
            asking
                .spawn(async move { (id, forget_at((&address, &access), &node, patience).await) });
        }
        let answers = asking.join_all().await;
        answers.into_iter().filter_map(|(id, answer)| Some((id, answer.err()?))).collect()
    }

    async fn reset(&mut self, node: &NodeId, tell: Tell<'_>) -> Result<(), ApplyError> {
        let reset = self.call(node, &["CLUSTER", "RESET", "HARD"]).await;
        self.part(node, ("reset", reset), tell)
    }

    /// Should it be started again, it is nobody's.
    async fn shut_down(&mut self, node: &NodeId, tell: Tell<'_>) -> Result<(), ApplyError> {
        let reset = self.call(node, &["CLUSTER", "RESET", "HARD"]).await;
        if reset.is_err() {
            return self.part(node, ("reset", reset), tell);
        }
        let stopped = match self.call(node, &["SHUTDOWN", "NOSAVE"]).await {
            Err(error @ ApplyError::Control(ControlError::Reply(..))) => Err(error),
            // That it is gone is all it answers.
            _ => Ok(Value::Null),
        };
        self.part(node, ("stopped", stopped), tell)
    }

    /// The node has left: that it could not be told so is a shortfall.
    fn part(
        &mut self,
        node: &NodeId,
        (what, told): (&str, Result<Value, ApplyError>),
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        self.open.remove(node);
        let place = self.members.remove(node).ok_or_else(|| ApplyError::Absent(node.clone()))?;
        if let Err(error) = told {
            let why = format!("it was removed, but not {what}: {error}");
            tell(Event::Note(format!("{}: {why}", place.dialled)));
            self.shortfalls.push((place.dialled, why));
        }
        Ok(())
    }
}

async fn forget_at(
    (address, access): (&Address, &Access),
    node: &NodeId,
    patience: Duration,
) -> Result<(), ControlError> {
    let mut control = access.open(address).await?;
    let words: &[&[u8]] = &[b"CLUSTER", b"FORGET", node.0.as_bytes()];
    match call_loaded(&mut control, words, patience).await {
        Err(ControlError::Reply(_, text)) if text.contains("Unknown node") => Ok(()),
        outcome => outcome.map(drop),
    }
}

/// One command, again and again while the node answers that it is loading its data: a replica does so whenever it has lost too
/// much of its primary's stream.
async fn call_loaded(
    control: &mut Control,
    args: &[&[u8]],
    patience: Duration,
) -> Result<Value, ControlError> {
    let start = Instant::now();
    loop {
        let answer = control.call(args).await;
        let is_loading = answer.as_ref().is_err_and(says_loading);
        if !is_loading || start.elapsed() >= patience {
            return answer;
        }
        sleep(POLL).await;
    }
}

/// Whether a node is to be asked again when it has loaded its data.
fn is_loading(error: &ApplyError) -> bool {
    match error {
        ApplyError::Control(error) | ApplyError::View(ViewError::Control(error)) => {
            says_loading(error)
        }
        _ => false,
    }
}

fn says_loading(error: &ControlError) -> bool {
    error.reply().is_some_and(|text| text.starts_with("LOADING "))
}

/// `CLUSTER MEET` takes no names.
async fn resolve(host: &str) -> Result<IpAddr, ApplyError> {
    if let Ok(ip) = host.parse() {
        return Ok(ip);
    }
    let found = tokio::net::lookup_host((host, 0)).await.ok().and_then(|mut found| found.next());
    found.map(|address| address.ip()).ok_or_else(|| ApplyError::Unresolved(host.to_owned()))
}

/// A replica without a link to its primary, if that is there to be linked with.
fn down_link(nodes: &[NodeView]) -> Option<String> {
    let is_there = |id: &NodeId| nodes.iter().any(|node| node.own.id == *id);
    let is_down = |node: &&NodeView| {
        node.info.get("master_link_status").is_some_and(|link| link != "up")
            && node.own.primary.as_ref().is_some_and(is_there)
    };
    let down = nodes.iter().find(is_down)?;
    Some(format!("replica {} has no link to its primary yet", down.address))
}

/// A node that joins serves nothing for some seconds. Where slots have no owner among those who answer, others do not either.
fn not_serving(nodes: &[NodeView]) -> Option<String> {
    let owned: usize = nodes.iter().map(|node| node.own.slots.len()).sum();
    let down = nodes.iter().find(|node| node.cluster.get("cluster_state") == Some("fail"))?;
    (owned == SLOTS).then(|| format!("{} does not serve yet", down.address))
}

/// Redis says `Unknown subcommand or wrong number of arguments`, newer ones `unknown subcommand`.
fn is_unknown_command(error: &ApplyError) -> bool {
    matches!(error, ApplyError::Control(ControlError::Reply(_, text)) if text.contains("nknown"))
}

/// A bounded wait.
struct Wait {
    start: Instant,
    limit: Duration,
    told: Instant,
}

impl Wait {
    fn new(limit: Duration) -> Self {
        let start = Instant::now();
        Self { start, limit, told: start }
    }

    /// What nodes answered; none, after a little, if one of them is loading its data.
    async fn unless_loading<T>(
        &mut self,
        answer: Result<T, ApplyError>,
        tell: Tell<'_>,
    ) -> Result<Option<T>, ApplyError> {
        match answer {
            Err(error) if is_loading(&error) => {
                self.once_more(&error.to_string(), &[], tell).await.map(|()| None)
            }
            answer => answer.map(Some),
        }
    }

    /// Waits a little before it is tried once more; an error if there is no time left.
    async fn once_more(
        &mut self,
        missing: &str,
        nodes: &[NodeView],
        tell: Tell<'_>,
    ) -> Result<(), ApplyError> {
        if self.start.elapsed() >= self.limit {
            let address = |node: &NodeView| node.address.clone();
            let pairs = check::unlinked(nodes).into_iter();
            let unlinked =
                pairs.map(|(from, to)| (address(from), address(to), to.own.bus_port)).collect();
            return Err(ApplyError::Late {
                seconds: self.limit.as_secs(),
                missing: missing.to_owned(),
                unlinked,
            });
        }
        if self.told.elapsed() >= REPEAT {
            self.told = Instant::now();
            tell(Event::Waiting(missing));
        }
        sleep(POLL).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manage::view::Info;

    #[test]
    fn links_are_waited_for_where_there_is_somebody_to_be_linked_with() {
        let view = ClusterView::said(&[
            "a 10.0.0.1:1 myself,master - 0 0 1 connected 0-5\nb 10.0.0.2:1 slave a 0 0 1 connected\n",
            "b 10.0.0.2:1 myself,slave a 0 0 1 connected\na 10.0.0.1:1 master - 0 0 1 connected 0-5\n",
        ]);
        let mut nodes = view.nodes;
        nodes[1].info = Info("master_link_status:down\r\n".into());
        let waiting = "replica 10.0.0.2:1 has no link to its primary yet";
        assert_eq!(down_link(&nodes).as_deref(), Some(waiting));
        assert_eq!(down_link(&nodes[1..]), None, "its primary does not answer");
        nodes[1].info = Info("master_link_status:up\r\n".into());
        assert_eq!(down_link(&nodes), None);
    }
}
