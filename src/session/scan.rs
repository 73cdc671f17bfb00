//! `SCAN` over the whole cluster: the nodes one after the other, each by its own cursor, and at the end those again to which
//! slots have come meanwhile.
//!
//! ```text
//!   cursor = tag of the plan (12 bits) │ node's cursor × places + place, below 2⁴¹         0 begins and ends
//! ```
//! A [`Plan`] says whom to visit and who owned what when it was made. Before the scan ends, the nodes are asked what they own
//! *now*. A key that was there all the time was at a node while that was visited, or it has come to a node with a slot which
//! that did not own when the plan was made: such nodes are visited again, by a plan of their own. Only keys of those slots
//! may have been missed so far, so the scan ends although other slots still move. A slot that went and came back is not told
//! from one that stayed, but it has raised the config epoch of its node, all slots of which count as new then. Hence nothing
//! is missed while slots move and nodes come, go, and take over, and keys may come twice.
//!
//! Plans are kept by tag, the same for all workers; a cursor whose plan is not known (it is very old, or another proxy's of
//! another time) begins anew. Cursors stay below 2⁵³, since clients keep them in JavaScript numbers and signed integers.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};

use super::errand::{Asked, Mission, able};
use crate::cluster::parse::{self, View};
use crate::cluster::{Address, NodeId, SLOTS, Slot, Topology};
use crate::refusal::Refusal;
use crate::resp::frame::{Progress, ReplyFramer};
use crate::resp::{Protocol, value, write};

/// Bits of a cursor that JavaScript numbers keep.
const CURSOR_BITS: u32 = 53;
/// Bits of them that name the plan.
const TAG_BITS: u32 = 12;
const LOCAL_BITS: u32 = CURSOR_BITS - TAG_BITS;
/// Most plans that are kept: a new one comes with each topology in which a scan begins or ends.
const PLANS_MAX: usize = 256;
/// Most nodes asked for one page. A node that has no more to give leaves the rest of the page to the next, so that few keys
/// come in one page as from one server, whatever the number of nodes.
const ASKED_MAX: usize = 16;
/// Times that a node is asked which has more to give. An empty page is legal, but not every client likes one.
const ASKED_AGAIN_MAX: usize = 2;
/// Keys that a page is to have if the client does not say, as for a server.
const COUNT: u64 = 10;
/// Plans of one scan after which config epochs are not looked at any more, so that it ends whatever the nodes do.
const ROUNDS_MAX: u32 = 16;
const NODES: &[u8] = b"*2\r\n$7\r\nCLUSTER\r\n$5\r\nNODES\r\n";

type Ranges = Vec<Range<usize>>;

/// Whom a scan visits, and who owned what when that was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Plan {
    nodes: Vec<NodeId>,
    /// The slots of which keys may not have been seen yet, in order; empty for all.
    open: Vec<usize>,
    owned: BTreeMap<NodeId, Owned>,
    /// How many plans of the scan came before.
    round: u32,
}

/// What a node owned, or was taking in, and since which config epoch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Owned {
    epoch: u64,
    ranges: Ranges,
}

/// The plans that cursors stand for, the newest last.
#[derive(Debug, Default)]
pub struct Plans(ArcSwap<Vec<(u64, Arc<Plan>)>>);

/// How far a scan is.
#[derive(Clone, Debug)]
struct Position {
    tag: u64,
    plan: Arc<Plan>,
    /// Whose turn it is; behind the last node, that of the question what has changed.
    place: usize,
    /// The node's own cursor.
    local: u64,
}

/// A node's reply to `SCAN`.
struct Page {
    cursor: u64,
    keys: Keys,
}

/// Keys as they go over the wire, of one page or several.
#[derive(Debug, Default)]
struct Keys {
    count: u64,
    wire: BytesMut,
}

impl Plan {
    /// All primaries, as a snapshot has them.
    fn of(topology: &Topology) -> Self {
        let mut ranges: Vec<Ranges> = vec![Vec::new(); topology.nodes().len()];
        for slot in (0..SLOTS).filter_map(Slot::new) {
            let Some(primary) = topology.owner(slot) else { continue };
            let ranges = &mut ranges[usize::from(primary)];
            match ranges.last_mut() {
                Some(last) if last.end == slot.index() => last.end += 1,
                _ => ranges.push(slot.index()..slot.index() + 1),
            }
        }
        let owners = topology.nodes().iter().zip(ranges).filter(|(_, ranges)| !ranges.is_empty());
        let owned: BTreeMap<NodeId, Owned> = owners
            .map(|(node, ranges)| (node.id.clone(), Owned { epoch: node.epoch, ranges }))
            .collect();
        Self { nodes: owned.keys().cloned().collect(), owned, ..Self::default() }
    }

    /// The slots whose keys the next scan has to see.
    fn is_open(&self, slot: usize) -> bool {
        self.open.is_empty() || self.open.binary_search(&slot).is_ok()
    }

    /// The nodes that have keys of this slot, or of any.
    fn visited(&self, slot: Option<Slot>) -> Vec<&NodeId> {
        let has = |node: &&NodeId| {
            slot.is_none_or(|slot| {
                let owned = self.owned.get(*node);
                owned.is_some_and(|owned| owned.ranges.iter().any(|r| r.contains(&slot.index())))
            })
        };
        self.nodes.iter().filter(has).collect()
    }

    /// The plan for what may have been missed by this one; `None` if nothing was. That is in slots which nodes have, or are
    /// taking in, that did not have them by this plan, or may not have had them all the time.
    fn rest(&self, now: &BTreeMap<NodeId, View>, slot: Option<Slot>) -> Option<Self> {
        let mut rest = Self { round: self.round + 1, ..Self::default() };
        for (id, view) in now {
            let epoch = view.line().map_or(0, |line| line.epoch);
            let stayed = |owned: &&Owned| owned.epoch == epoch || rest.round > ROUNDS_MAX;
            let mut known = vec![false; SLOTS];
            for range in self.owned.get(id).filter(stayed).iter().flat_map(|owned| &owned.ranges) {
                known[range.clone()].fill(true);
            }
            let is_new = |at: &usize| {
                !known[*at] && self.is_open(*at) && slot.is_none_or(|slot| slot.index() == *at)
            };
            let before = rest.open.len();
            rest.open.extend(slots(view).filter(is_new));
            if rest.open.len() > before {
                rest.nodes.push(id.clone());
            }
            let importing = view.importing.iter().map(|slot| *slot..slot + 1);
            let ranges = own(view).cloned().chain(importing).collect();
            rest.owned.insert(id.clone(), Owned { epoch, ranges });
        }
        rest.open.sort_unstable();
        rest.open.dedup();
        (!rest.nodes.is_empty()).then_some(rest)
    }

    /// Number of places, so that each of them and the one behind the last has a number above 0.
    fn places(&self) -> u64 {
        self.nodes.len() as u64 + 2
    }

    fn tag(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish() >> (u64::BITS - TAG_BITS)
    }
}

impl Plans {
    /// A scan by this plan from its beginning. A tag that stands for another plan is not given to this one.
    fn begin(&self, plan: Plan) -> Position {
        let wanted = plan.tag();
        if let Some((tag, plan)) = self.0.load().iter().find(|(_, known)| **known == plan) {
            return Position { tag: *tag, plan: Arc::clone(plan), place: 0, local: 0 };
        }
        let plan = Arc::new(plan);
        let mut tag = wanted;
        self.0.rcu(|plans| {
            let is_free =
                |tag: &u64| plans.iter().all(|(known, other)| known != tag || *other == plan);
            let mut tags = (0..1 << TAG_BITS).map(|step| (wanted + step) % (1 << TAG_BITS));
            // There are far more tags than plans.
            tag = tags.find(is_free).unwrap_or(wanted);
            let others = plans.iter().filter(|(known, _)| *known != tag);
            let mut plans: Vec<_> = others.cloned().collect();
            plans.drain(..(plans.len() + 1).saturating_sub(PLANS_MAX));
            plans.push((tag, Arc::clone(&plan)));
            plans
        });
        Position { tag, plan, place: 0, local: 0 }
    }

    /// Where a cursor stands; `None` if its plan is not known.
    fn find(&self, cursor: u64) -> Result<Option<Position>, Refusal> {
        let (tag, rest) = (cursor >> LOCAL_BITS, cursor & ((1 << LOCAL_BITS) - 1));
        let plans = self.0.load();
        let Some((_, plan)) = plans.iter().find(|(known, _)| *known == tag) else {
            return Ok(None);
        };
        let (local, place) = (rest / plan.places(), rest % plan.places());
        let place = usize::try_from(place).unwrap_or(0).checked_sub(1).ok_or_else(invalid)?;
        Ok(Some(Position { tag, plan: Arc::clone(plan), place, local }))
    }
}

impl Position {
    /// The number for the client; `None` if the node's cursor leaves no room.
    fn cursor(&self) -> Option<u64> {
        let rest =
            self.local.checked_mul(self.plan.places())?.checked_add(self.place as u64 + 1)?;
        (rest < 1 << LOCAL_BITS).then_some(self.tag << LOCAL_BITS | rest)
    }

    /// Goes on behind a page.
    fn advance(&mut self, local: u64) {
        self.local = local;
        self.place += usize::from(local == 0);
    }
}

impl Page {
    fn read(reply: &Bytes) -> Option<Self> {
        const HEADER: usize = b"*2\r\n".len();
        let rest = reply.strip_prefix(b"*2\r\n")?;
        let Ok(Progress::Complete(len)) = ReplyFramer::default().frame(rest) else { return None };
        let cursor = rest[..len].split(|byte| *byte == b'\n').nth(1)?.strip_suffix(b"\r")?;
        let cursor = std::str::from_utf8(cursor).ok()?.parse().ok()?;
        Some(Self { cursor, keys: Keys::read(&reply[HEADER + len..])? })
    }
}

impl Keys {
    fn read(array: &[u8]) -> Option<Self> {
        let end = memchr::memchr(b'\r', array)?;
        let count = std::str::from_utf8(array[..end].strip_prefix(b"*")?).ok()?.parse().ok()?;
        Some(Self { count, wire: array.get(end + 2..)?.into() })
    }

    fn append(&mut self, other: Self) {
        self.count += other.count;
        self.wire.unsplit(other.wire);
    }
}

/// One call of `SCAN`.
pub(super) async fn run(mission: &Mission) -> Asked {
    let cursor = match cursor(mission.args.get(1).map_or(&[][..], |arg| arg)) {
        Some(0) => None,
        Some(cursor) => mission.shared.plans.find(cursor)?,
        None => return Err(invalid()),
    };
    let mut at = match cursor {
        Some(position) => position,
        None => begin(mission).await?,
    };
    let slot = option(&mission.args, "MATCH").and_then(literal_slot);
    let (most, mut keys) = (count(&mission.args), Keys::default());
    let plan = Arc::clone(&at.plan);
    let visited = plan.visited(slot);
    if at.place > visited.len() {
        return Err(invalid());
    }
    let mut asked = 0;
    while asked < ASKED_MAX && at.place < visited.len() {
        match visit(mission, visited[at.place], at.local).await {
            Ok(None) => at.advance(0),
            Ok(Some(reply)) => {
                let Some(page) = Page::read(&reply) else { return Ok(reply) };
                at.advance(page.cursor);
                asked += 1;
                keys.append(page.keys);
                let is_short = keys.count < most && page.cursor == 0;
                let is_empty = keys.count == 0 && asked < ASKED_AGAIN_MAX;
                if !is_short && !is_empty {
                    break;
                }
            }
            // What was found is not lost; the next call asks again.
            Err(_) if asked > 0 => break,
            Err(refusal) => return Err(refusal),
        }
    }
    if at.place < visited.len() {
        return reply(&at, &keys);
    }
    match finish(mission, &at.plan, slot).await {
        Ok(None) => Ok(page(0, &keys)),
        Ok(Some(again)) => reply(&again, &keys),
        Err(_) if asked > 0 => reply(&at, &keys),
        Err(refusal) => Err(refusal),
    }
}

/// A scan of all primaries, once any are known.
async fn begin(mission: &Mission) -> Result<Position, Refusal> {
    loop {
        let topology = mission.pool().topology();
        if !topology.primaries().is_empty() {
            return Ok(mission.shared.plans.begin(Plan::of(&topology)));
        }
        if mission.is_over() {
            return Err(Refusal::ClusterDown);
        }
        mission.pool().look_again().await;
    }
}

/// Asks a node for a page; `None` if it owns no slots any more. Then others have them, and are visited for that.
async fn visit(mission: &Mission, node: &NodeId, local: u64) -> Result<Option<Bytes>, Refusal> {
    let local = local.to_string();
    let mut wire = Vec::new();
    let args: Vec<&[u8]> = mission.args.iter().map(|arg| &arg[..]).collect();
    let words =
        args.iter().enumerate().map(|(at, arg)| if at == 1 { local.as_bytes() } else { arg });
    write::request(&mut wire, words);
    loop {
        let Some(address) = primary(&mission.pool().topology(), node) else { return Ok(None) };
        match mission.pool().ask_at(&address, Protocol::Resp2, &wire).await.and_then(able) {
            Ok(reply) => return Ok(Some(reply)),
            Err(refusal) if mission.is_over() => return Err(refusal),
            Err(_) => mission.pool().look_again().await,
        }
    }
}

/// Where a node is that owns slots.
fn primary(topology: &Topology, id: &NodeId) -> Option<Address> {
    let mut primaries = topology.primaries().iter().map(|(index, _)| topology.node(*index));
    primaries.find(|node| node.id == *id).map(|node| node.address.clone())
}

/// A scan for what may have been missed by the plan; `None` if nothing was.
async fn finish(
    mission: &Mission,
    plan: &Plan,
    slot: Option<Slot>,
) -> Result<Option<Position>, Refusal> {
    let now = loop {
        let now = views(mission).await;
        if covers(&now, &mission.pool().topology(), slot) {
            break now;
        }
        if mission.is_over() {
            return Err(Refusal::ClusterDown);
        }
        mission.pool().look_again().await;
    };
    Ok(plan.rest(&now, slot).map(|rest| mission.shared.plans.begin(rest)))
}

/// What each primary says of itself, those that do not answer left out.
async fn views(mission: &Mission) -> BTreeMap<NodeId, View> {
    let topology = mission.pool().topology();
    let primaries = topology.nodes().iter().filter(|node| node.primary.is_none() && !node.failed);
    let nodes: BTreeMap<NodeId, Address> =
        primaries.map(|node| (node.id.clone(), node.address.clone())).collect();
    let wire = Bytes::from_static(NODES);
    let answers = mission.ask(nodes.clone(), &wire, Protocol::Resp2).await;
    let views = answers.into_iter().filter_map(|(id, asked)| {
        let (value, _) = value::decode(&asked.ok()?).ok()??;
        let view = parse::nodes(value::text(&value)?, nodes.get(&id)?).ok()?;
        Some((view.line()?.id.clone(), view))
    });
    views.collect()
}

/// The slots that a node says it owns.
fn own(view: &View) -> impl Iterator<Item = &Range<usize>> {
    view.line().into_iter().flat_map(|line| &line.slots)
}

/// The same, and those that it is taking in.
fn slots(view: &View) -> impl Iterator<Item = usize> {
    own(view).cloned().flatten().chain(view.importing.iter().copied())
}

/// Whether every slot that has an owner, or this one, is somebody's by his own words. If not, it is on its way, or its owner
/// is not known yet.
fn covers(now: &BTreeMap<NodeId, View>, topology: &Topology, only: Option<Slot>) -> bool {
    let mut owned = vec![false; SLOTS];
    now.values().flat_map(own).for_each(|range| owned[range.clone()].fill(true));
    let all = (0..SLOTS).filter_map(Slot::new).filter(|slot| only.is_none_or(|only| only == *slot));
    all.filter(|slot| topology.owner(*slot).is_some()).all(|slot| owned[slot.index()])
}

/// The page for the client.
fn reply(at: &Position, keys: &Keys) -> Asked {
    let cursor = at.cursor().ok_or_else(|| {
        Refusal::text("ERR proxy: the node's cursor is too large to be told apart from others")
    })?;
    Ok(page(cursor, keys))
}

fn page(cursor: u64, keys: &Keys) -> Bytes {
    let mut out = Vec::with_capacity(keys.wire.len() + 64);
    write::array(&mut out, 2);
    write::bulk(&mut out, cursor.to_string());
    out.extend_from_slice(format!("*{}\r\n", keys.count).as_bytes());
    out.extend_from_slice(&keys.wire);
    out.into()
}

fn invalid() -> Refusal {
    Refusal::text("ERR invalid cursor")
}

fn cursor(arg: &[u8]) -> Option<u64> {
    let digits =
        std::str::from_utf8(arg).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    digits.parse().ok().filter(|cursor| *cursor < 1 << CURSOR_BITS)
}

/// What stands behind an option; behind the last one of the name, as for a server.
fn option<'a>(args: &'a [Bytes], name: &str) -> Option<&'a [u8]> {
    let options = args.get(2..)?.chunks_exact(2);
    let option = options.rev().find(|option| option[0].eq_ignore_ascii_case(name.as_bytes()));
    option.map(|option| &option[1][..])
}

/// Keys that a page is to have. A number that is none is the node's matter.
fn count(args: &[Bytes]) -> u64 {
    let count = option(args, "COUNT").and_then(|count| std::str::from_utf8(count).ok());
    count.and_then(|count| count.parse().ok()).unwrap_or(COUNT)
}

/// The slot of all keys that a pattern can match: it has a hash tag, or is a key, before anything that stands for others.
fn literal_slot(pattern: &[u8]) -> Option<Slot> {
    let wild = pattern.iter().position(|byte| b"*?[\\".contains(byte));
    let Some(wild) = wild else { return Some(Slot::of(pattern)) };
    let start = memchr::memchr(b'{', &pattern[..wild])?;
    let len = memchr::memchr(b'}', &pattern[start + 1..wild])?;
    (len > 0).then(|| Slot::of(&pattern[start + 1..start + 1 + len]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(n: usize) -> NodeId {
        NodeId(format!("{n:040x}").into())
    }

    fn plan(nodes: usize, seed: usize) -> Plan {
        let owned = |n| Owned { epoch: 1, ranges: std::iter::once(seed..seed + n).collect() };
        let owned = (0..nodes).map(|n| (node(n), owned(n)));
        Plan { nodes: (0..nodes).map(node).collect(), owned: owned.collect(), ..Plan::default() }
    }

    proptest! {
        #[test]
        fn cursors_come_back_as_they_went(
            nodes in 1_usize..200,
            seed in 0_usize..5000,
            place in 0_usize..200,
            local in 0_u64..1 << 33,
        ) {
            let plans = Plans::default();
            let begun = plans.begin(plan(nodes, seed));
            let at = Position { place: place.min(nodes), local, ..begun };
            let cursor = at.cursor().unwrap();
            prop_assert!(cursor > 0 && cursor < 1 << 53);
            let found = plans.find(cursor).unwrap().unwrap();
            prop_assert_eq!((found.place, found.local, found.plan), (at.place, local, at.plan));
        }

        #[test]
        fn any_number_is_a_place_or_none(cursor in 1_u64..1 << 53) {
            let plans = Plans::default();
            let begun = plans.begin(plan(3, 1));
            if let Ok(Some(found)) = plans.find(cursor | begun.tag << LOCAL_BITS) {
                prop_assert!(found.place <= found.plan.nodes.len());
            }
        }
    }

    #[test]
    fn a_cursor_without_room_is_none() {
        let begun = Plans::default().begin(plan(3, 1));
        assert_eq!(Position { local: 1 << 40, ..begun.clone() }.cursor(), None);
        assert_eq!(Position { local: u64::MAX, ..begun }.cursor(), None);
    }

    #[test]
    fn a_tag_stands_for_one_plan_and_old_plans_go() {
        let plans = Plans::default();
        let first = plans.begin(plan(3, 0));
        let again = plans.begin(plan(3, 0));
        assert_eq!(first.cursor(), again.cursor());
        let mut tags: Vec<u64> = (1..PLANS_MAX).map(|n| plans.begin(plan(3, n)).tag).collect();
        tags.push(first.tag);
        tags.sort_unstable();
        tags.dedup();
        assert_eq!(tags.len(), PLANS_MAX);
        assert!(plans.find(first.cursor().unwrap()).unwrap().is_some());
        plans.begin(plan(4, 0));
        assert!(plans.find(first.cursor().unwrap()).unwrap().is_none());
        assert_eq!(plans.0.load().len(), PLANS_MAX);
    }

    /// What a node says of itself: its slots, and behind a slash its config epoch if that is not 1.
    fn view(n: usize, told: &str) -> (NodeId, View) {
        let (slots, epoch) = told.split_once('/').unwrap_or((told, "1"));
        let id = node(n).0;
        let text = format!("{id} 10.0.0.1:7001@1 myself,master - 0 0 {epoch} connected {slots}\n");
        (node(n), parse::nodes(&text, &Address::parse("10.0.0.1:7001", None).unwrap()).unwrap())
    }

    fn views(slots: [&str; 3]) -> BTreeMap<NodeId, View> {
        slots.iter().zip(1..).map(|(slots, n)| view(n, slots)).collect()
    }

    #[test]
    fn what_may_have_been_missed() {
        let check = |steps: &[[&str; 3]], slot: Option<usize>, nodes: &[usize], open: &[usize]| {
            let (first, later) = steps.split_first().unwrap();
            let owned = views(*first).into_iter();
            let owned = owned.map(|(id, view)| {
                let line = view.line().unwrap();
                (id, Owned { epoch: line.epoch, ranges: line.slots.clone() })
            });
            let mut plan = Some(Plan { owned: owned.collect(), ..Plan::default() });
            for step in later {
                plan = plan.unwrap().rest(&views(*step), slot.and_then(Slot::new));
            }
            let plan = plan.unwrap_or_default();
            assert_eq!(plan.nodes, nodes.iter().map(|n| node(*n)).collect::<Vec<_>>(), "{steps:?}");
            assert_eq!(plan.open, open, "{steps:?}");
        };
        let start = ["0-9", "10-99", "100-16383"];
        check(&[start, start], None, &[], &[]);
        check(&[start, ["0-8", "9-99", "100-16383"]], None, &[2], &[9]);
        check(&[start, ["0-8", "9-99", "100-16383"]], Some(8), &[], &[]);
        check(&[start, ["0-8", "9-99", "100-16383"]], Some(9), &[2], &[9]);
        check(&[start, ["0-9 [10-<-x]", "10-99 [10->-y]", "100-16383"]], None, &[1], &[10]);
        check(&[start, ["", "0-99", "100-16383"]], Some(3), &[2], &[3]);
        // What was seen where it was may go on moving; what may have been missed may not.
        let moved = ["0-10", "11-99", "100-16383"];
        check(&[start, moved, ["0-11", "12-99", "100-16383"]], None, &[], &[]);
        check(&[start, moved, ["0-9", "11-99", "10 100-16383"]], None, &[3], &[10]);
        let importing = ["0-9 [10-<-x]", "10-99", "100-16383"];
        check(&[start, importing, moved], None, &[], &[]);
        // A slot may have gone and come back since; its epoch tells for each round anew.
        let back = ["0-9/5", "10-99", "100-16383"];
        check(&[start, back], None, &[1], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        check(&[start, back, back], None, &[], &[]);
        check(&[start, back, ["0-8/5", "9-99/6", "100-16383"]], None, &[2], &[9]);
        let epochs: Vec<String> = (2..50).map(|epoch| format!("0-9/{epoch}")).collect();
        let endless: Vec<[&str; 3]> =
            epochs.iter().map(|first| [first.as_str(), start[1], start[2]]).collect();
        check(&endless[..16], None, &[1], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        check(&endless[..18], None, &[], &[]);
    }

    #[test]
    fn patterns_that_match_keys_of_one_slot() {
        let check = |pattern: &str, tag: Option<&str>| {
            assert_eq!(
                literal_slot(pattern.as_bytes()),
                tag.map(|t| Slot::of(t.as_bytes())),
                "{pattern}"
            );
        };
        check("{user}:*", Some("user"));
        check("a{user}b?", Some("user"));
        check("key", Some("key"));
        check("key{a}", Some("a"));
        check("*{user}", None);
        check("{us*er}", None);
        check("{}*", None);
        check("{\\}}*", None);
        check("*", None);
    }

    #[test]
    fn cursors_are_numbers() {
        let check = |text: &str, expected| assert_eq!(cursor(text.as_bytes()), expected, "{text}");
        check("0", Some(0));
        check("9007199254740991", Some((1 << 53) - 1));
        check("9007199254740992", None);
        check("", None);
        check("-1", None);
        check("+1", None);
        check(" 1", None);
        check("1x", None);
    }
}
