//! What holds for all inputs: framing against the `redis-protocol` crate as oracle, splitting and merging against one
//! store, and ordered replies.
//!
//! Where the framers are stricter than the oracle, they are so on purpose, and nowhere else (see [`is_canonical`]):
//! numbers in headers are as servers write them (no sign but minus, no zero in front), a string of known length ends with
//! CRLF, and a line contains no CR. Of strings that are streamed in chunks they know nothing; no server sends any.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::sample::{Index, select};
use proptest::test_runner::TestCaseError;
use redis_protocol::resp2::types::{BytesFrame, RangeFrame};
use redis_protocol::{resp2, resp3};
use slotway::cluster::Slot;
use slotway::command::merge::Gather;
use slotway::command::split::Split;
use slotway::command::{Claim, Merge};
use slotway::replies::{Promise, Replies, Reply};
use slotway::resp::frame::{
    Limits, Progress, ReplyError, ReplyFramer, RequestError, RequestFramer,
};
use slotway::resp::redirect::verdict;
use slotway::resp::request::{Request, from_inline};
use slotway::resp::{Protocol, value, write};

use crate::store::Store;

const LIMITS: Limits =
    Limits { args: 1 << 16, bulk: 1 << 20, request: 1 << 22, unauthenticated: false };

/// A reply as a tree.
#[derive(Clone, Debug)]
enum Tree {
    /// Type byte and text, up to the end of a line.
    Line(char, String),
    /// Type byte, and bytes of known length.
    Bulk(char, Vec<u8>),
    /// Type byte, announced number, and elements.
    Many(char, usize, Vec<Tree>),
}

impl Tree {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Line(kind, text) => out.extend(format!("{kind}{text}\r\n").into_bytes()),
            Self::Bulk(kind, bytes) => {
                out.extend(format!("{kind}{}\r\n", bytes.len()).into_bytes());
                out.extend(bytes);
                out.extend(b"\r\n");
            }
            Self::Many(kind, count, elements) => {
                out.extend(format!("{kind}{count}\r\n").into_bytes());
                for element in elements {
                    element.write(out);
                }
            }
        }
    }

    fn wire(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.write(&mut out);
        out
    }
}

/// Text of one line.
fn text() -> impl Strategy<Value = String> {
    "[^\r\n]{0,12}"
}

/// What both versions have, and what can be a key.
fn plain() -> impl Strategy<Value = Tree> {
    prop_oneof![
        text().prop_map(|text| Tree::Line('+', text)),
        any::<i64>().prop_map(|number| Tree::Line(':', number.to_string())),
        vec(any::<u8>(), 0..40).prop_map(|bytes| Tree::Bulk('$', bytes)),
        // Contents that look like protocol.
        select(&["\r\n", "*2\r\n", "$-1\r\n", "+OK\r\n"][..])
            .prop_map(|text| Tree::Bulk('$', text.into())),
    ]
}

fn array(elements: Vec<Tree>) -> Tree {
    Tree::Many('*', elements.len(), elements)
}

fn resp2_reply() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        4 => plain(),
        1 => text().prop_map(|text| Tree::Line('-', text)),
        1 => Just(Tree::Line('$', "-1".into())),
        1 => Just(Tree::Line('*', "-1".into())),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| vec(inner, 0..6).prop_map(array))
}

fn pairs(kind: char, pairs: Vec<(Tree, Tree)>) -> Tree {
    let count = pairs.len();
    Tree::Many(kind, count, pairs.into_iter().flat_map(|(key, value)| [key, value]).collect())
}

fn resp3_value() -> impl Strategy<Value = Tree> {
    let leaf = prop_oneof![
        4 => plain(),
        1 => text().prop_map(|text| Tree::Line('-', text)),
        1 => Just(Tree::Line('_', String::new())),
        1 => select(&["t", "f"][..]).prop_map(|text| Tree::Line('#', text.into())),
        1 => select(&["1.5", "inf", "-inf", "nan", "-0", "1e10"][..])
            .prop_map(|text| Tree::Line(',', text.into())),
        1 => "-?[1-9][0-9]{0,40}".prop_map(|text| Tree::Line('(', text)),
        1 => vec(any::<u8>(), 0..20).prop_map(|bytes| Tree::Bulk('!', bytes)),
        1 => "[a-z\r\n]{0,20}".prop_map(|text| Tree::Bulk('=', format!("txt:{text}").into())),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(array),
            vec(plain(), 0..6).prop_map(|elements| Tree::Many('~', elements.len(), elements)),
            vec((plain(), inner), 0..4).prop_map(|entries| pairs('%', entries)),
        ]
    })
}

/// A whole RESP3 reply: also pushes, and values with attributes in front.
fn resp3_reply() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        6 => resp3_value().prop_map(|tree| tree.wire()),
        1 => vec(resp3_value(), 1..4).prop_map(|all| Tree::Many('>', all.len(), all).wire()),
        1 => (vec((plain(), resp3_value()), 0..3), plain()).prop_map(|(entries, value)| {
            [pairs('|', entries).wire(), value.wire()].concat()
        }),
    ]
}

/// Frames `wire` as it arrives in pieces. What it says before the end must be true.
fn reply_in_pieces(wire: &[u8], cuts: &[Index]) -> Result<Progress, ReplyError> {
    let mut framer = ReplyFramer::default();
    for end in ends(wire.len(), cuts) {
        match framer.frame(&wire[..end])? {
            Progress::Partial(want) => assert!(want > end, "wants {want} of {end}"),
            whole => return Ok(whole),
        }
    }
    framer.frame(wire)
}

/// As `reply_in_pieces`, for requests; gives the arguments, too.
fn request_in_pieces(
    wire: &[u8],
    cuts: &[Index],
) -> Result<(Progress, Vec<Vec<u8>>), RequestError> {
    let mut framer = RequestFramer::default();
    let ends = ends(wire.len(), cuts).into_iter().chain([wire.len()]);
    let mut progress = Progress::Partial(1);
    for end in ends {
        progress = framer.frame(&wire[..end], &LIMITS)?;
        if !matches!(progress, Progress::Partial(_)) {
            break;
        }
    }
    let whole = matches!(progress, Progress::Complete(_));
    let args = Request::new(wire, framer.args()).args(0);
    Ok((progress, if whole { args.map(<[u8]>::to_vec).collect() } else { Vec::new() }))
}

fn ends(len: usize, cuts: &[Index]) -> Vec<usize> {
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    ends.sort_unstable();
    ends
}

/// Bytes behind a whole frame.
fn behind() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..9)
}

fn cuts() -> impl Strategy<Value = Vec<Index>> {
    vec(any::<Index>(), 0..12)
}

/// Damage done to bytes.
#[derive(Clone, Debug)]
enum Damage {
    Change(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Cut(Index),
}

fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let byte = prop_oneof![
        6 => select(&b"+-:$*_,#(=!~%|>\r\n0123456789?. "[..]),
        1 => any::<u8>(),
    ];
    let piece = select(
        &[
            "\r\n",
            "\r",
            "\n",
            "$-1\r\n",
            "*-1\r\n",
            "*0\r\n",
            "$0\r\n\r\n",
            "00",
            "-",
            "+1",
            "99999999999999999999",
            "$?\r\n",
            "_\r\n",
        ][..],
    );
    let one = prop_oneof![
        4 => (any::<Index>(), byte).prop_map(|(at, byte)| Damage::Change(at, byte)),
        2 => (any::<Index>(), piece).prop_map(|(at, piece)| Damage::Insert(at, piece.into())),
        2 => (any::<Index>(), 1..4_usize).prop_map(|(at, count)| Damage::Remove(at, count)),
        1 => any::<Index>().prop_map(Damage::Cut),
    ];
    vec(one, 1..5)
}

fn damaged(mut wire: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        let len = wire.len();
        match one {
            Damage::Change(at, byte) if len > 0 => wire[at.index(len)] = *byte,
            Damage::Insert(at, piece) => {
                let at = at.index(len + 1);
                wire.splice(at..at, piece.iter().copied());
            }
            Damage::Remove(at, count) if len > 0 => {
                let at = at.index(len);
                wire.drain(at..(at + count).min(len));
            }
            Damage::Cut(at) => wire.truncate(at.index(len + 1)),
            Damage::Change(..) | Damage::Remove(..) => {}
        }
    }
    wire
}

/// Length of the reply by either version of the protocol, if the oracle takes it for whole.
fn oracle(wire: &[u8]) -> Option<usize> {
    let bytes = Bytes::copy_from_slice(wire);
    let old = resp2::decode::decode_bytes(&bytes).ok().flatten().map(|(_, len)| len);
    let new = resp3::decode::complete::decode_bytes(&bytes).ok().flatten().map(|(_, len)| len);
    old.or(new)
}

/// Whether a reply that the RESP2 oracle accepts is written as servers write it.
fn is_canonical(wire: &[u8], frame: &RangeFrame, at: &mut usize) -> bool {
    let line_end =
        |from: usize| wire[from..].windows(2).position(|two| two == b"\r\n").map(|len| from + len);
    let Some(end) = line_end(*at) else { return false };
    let header = &wire[*at + 1..end];
    let number = || {
        let text = String::from_utf8_lossy(header);
        text.parse::<i64>().is_ok_and(|number| number.to_string() == text)
    };
    *at = end + 2;
    match frame {
        RangeFrame::SimpleString(_) | RangeFrame::Error(_) | RangeFrame::Integer(_) => {
            !header.contains(&b'\r')
        }
        RangeFrame::Null => number(),
        RangeFrame::BulkString((_, end)) => {
            *at = *end + 2;
            number() && wire[*end..*end + 2] == *b"\r\n"
        }
        RangeFrame::Array(elements) => {
            number() && elements.iter().all(|element| is_canonical(wire, element, at))
        }
    }
}

fn request_args() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let arg = prop_oneof![
        vec(any::<u8>(), 0..30),
        select(&["GET", "", "\r\n", "$3\r\n", "*1\r\n"][..])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    vec(arg, 1..100)
}

fn request_wire(args: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    write::request(&mut wire, args.iter().map(Vec::as_slice));
    wire
}

/// The arguments and the length if the oracle takes the bytes for a request, and whether they are canonical.
fn request_oracle(wire: &[u8]) -> Option<(Vec<Vec<u8>>, usize, bool)> {
    let (frame, len) = resp2::decode::decode_bytes(&Bytes::copy_from_slice(wire)).ok()??;
    let BytesFrame::Array(elements) = frame else { return None };
    let args = elements.iter().map(|element| match element {
        BytesFrame::BulkString(bytes) => Some(bytes.to_vec()),
        _ => None,
    });
    let args = args.collect::<Option<Vec<_>>>()?;
    let (ranges, _) = resp2::decode::decode_range(wire).ok()??;
    Some((args, len, is_canonical(wire, &ranges, &mut 0)))
}

proptest! {
    #[test]
    fn whole_resp2_replies_are_framed(tree in resp2_reply(), behind in behind(), cuts in cuts()) {
        let wire = tree.wire();
        let more = [wire.as_slice(), &behind].concat();
        prop_assert_eq!(oracle(&more), Some(wire.len()));
        prop_assert_eq!(ReplyFramer::default().frame(&more), Ok(Progress::Complete(wire.len())));
        prop_assert_eq!(reply_in_pieces(&wire, &cuts), Ok(Progress::Complete(wire.len())));
    }

    #[test]
    fn whole_resp3_replies_are_framed(wire in resp3_reply(), behind in behind(), cuts in cuts()) {
        let more = [wire.as_slice(), &behind].concat();
        prop_assert_eq!(oracle(&more), Some(wire.len()));
        prop_assert_eq!(ReplyFramer::default().frame(&more), Ok(Progress::Complete(wire.len())));
        prop_assert_eq!(reply_in_pieces(&wire, &cuts), Ok(Progress::Complete(wire.len())));
    }

    #[test]
    fn half_a_reply_is_never_whole(wire in resp3_reply(), cut in any::<Index>()) {
        let half = &wire[..cut.index(wire.len())];
        match ReplyFramer::default().frame(half) {
            Ok(Progress::Partial(want)) => prop_assert!(half.len() < want && want <= wire.len()),
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn damaged_replies_are_framed_as_the_oracle_does_or_refused(
        wire in prop_oneof![resp3_reply(), resp2_reply().prop_map(|tree| tree.wire())],
        damage in damage(),
        cuts in cuts(),
    ) {
        let wire = damaged(wire, &damage);
        let ours = ReplyFramer::default().frame(&wire);
        prop_assert_eq!(reply_in_pieces(&wire, &cuts), ours);
        match (ours, oracle(&wire)) {
            (Ok(Progress::Complete(ours)), Some(theirs)) => prop_assert_eq!(ours, theirs),
            (Ok(partial), Some(_)) => prop_assert!(false, "{partial:?}, but the oracle knows its end"),
            (Err(ReplyError), Some(_)) => {
                if let Ok(Some((frame, _))) = resp2::decode::decode_range(&wire) {
                    prop_assert!(!is_canonical(&wire, &frame, &mut 0), "refused without reason");
                }
            }
            _ => {}
        }
    }

    #[test]
    fn noise_is_framed_or_refused(noise in vec(any::<u8>(), 0..200), cuts in cuts()) {
        let ours = ReplyFramer::default().frame(&noise);
        prop_assert_eq!(reply_in_pieces(&noise, &cuts), ours);
        if let (Ok(Progress::Complete(ours)), Some(theirs)) = (ours, oracle(&noise)) {
            prop_assert_eq!(ours, theirs);
        }
        // These must merely not panic.
        let _ = verdict(&noise);
        let _ = value::decode(&Bytes::from(noise));
    }

    #[test]
    fn whole_requests_are_framed(args in request_args(), behind in behind(), cuts in cuts()) {
        let wire = request_wire(&args);
        let more = [wire.as_slice(), &behind].concat();
        prop_assert_eq!(request_oracle(&more), Some((args.clone(), wire.len(), true)));
        let whole = Ok((Progress::Complete(wire.len()), args));
        prop_assert_eq!(&request_in_pieces(&more, &[]), &whole);
        prop_assert_eq!(&request_in_pieces(&wire, &cuts), &whole);
    }

    #[test]
    fn damaged_requests_are_framed_as_the_oracle_does_or_refused(
        args in request_args(),
        damage in damage(),
        cuts in cuts(),
    ) {
        let wire = damaged(request_wire(&args), &damage);
        let ours = request_in_pieces(&wire, &[]);
        prop_assert_eq!(&request_in_pieces(&wire, &cuts), &ours);
        match (ours, request_oracle(&wire)) {
            (Ok((Progress::Complete(len), args)), Some((their_args, their_len, _))) => {
                prop_assert_eq!((args, len), (their_args, their_len));
            }
            (Ok((partial, _)), Some(_)) => prop_assert!(false, "{partial:?}, but the oracle knows its end"),
            (Err(error), Some((.., canonical))) => prop_assert!(!canonical, "refused: {error}"),
            (_, None) => {}
        }
    }

    #[test]
    fn noise_is_a_request_or_refused(noise in vec(any::<u8>(), 0..200), cuts in cuts()) {
        let ours = request_in_pieces(&noise, &[]);
        prop_assert_eq!(&request_in_pieces(&noise, &cuts), &ours);
        if let Ok((Progress::Inline(len), _)) = ours
            && let Ok(wire) = from_inline(&noise[..len])
        {
            let framed = RequestFramer::default().frame(&wire, &LIMITS);
            prop_assert!(wire.is_empty() || framed == Ok(Progress::Complete(wire.len())));
        }
    }

    #[test]
    fn inline_words_are_arguments(
        words in vec("[a-zA-Z0-9:{}$*-]{1,10}", 1..20),
        blanks in "[ \t]{1,3}",
    ) {
        let line = format!("{blanks}{}{blanks}\r\n", words.join(&blanks));
        let args: Vec<Vec<u8>> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        prop_assert_eq!(from_inline(line.as_bytes()), Ok(request_wire(&args)));
    }

    #[test]
    fn what_is_quoted_comes_back(arg in vec(any::<u8>(), 0..30)) {
        let escaped: Vec<String> = arg.iter().map(|byte| format!("\\x{byte:02x}")).collect();
        let escaped = escaped.concat();
        let line = format!("SET k \"{escaped}\"\r\n");
        let args = [b"SET".to_vec(), b"k".to_vec(), arg];
        prop_assert_eq!(from_inline(line.as_bytes()), Ok(request_wire(&args)));
    }
}

/// Part of a command's name, with how its parts' replies are merged and how far its keys are apart.
fn split_command() -> impl Strategy<Value = (&'static str, Merge, usize)> {
    select(
        &[
            ("MGET", Merge::ByKey, 1),
            ("DEL", Merge::Sum, 1),
            ("EXISTS", Merge::Sum, 1),
            ("MSET", Merge::AllOk, 2),
        ][..],
    )
}

fn key() -> impl Strategy<Value = String> {
    prop_oneof!["[a-d]", "\\{[ab]\\}[0-9]", "[a-z]{1,6}"]
}

fn args_of(wire: &[u8]) -> Vec<Vec<u8>> {
    request_in_pieces(wire, &[]).expect("a request").1
}

/// Runs a command on one store as it is, and on another in parts, answered in some order.
fn whole_and_in_parts(
    stored: &[(String, String)],
    (name, merge, step): (&str, Merge, usize),
    keys: &[(String, String)],
    order: &[Index],
) -> Result<(), TestCaseError> {
    let mut whole = Store::default();
    for (key, value) in stored {
        whole.set(key, value);
    }
    let mut parts = whole.clone();
    let words = keys.iter().flat_map(|(key, value)| [key, value].into_iter().take(step));
    let args = [name].into_iter().chain(words.map(String::as_str));
    let args: Vec<Vec<u8>> = args.map(|word| word.as_bytes().to_vec()).collect();
    let expected = whole.run(&args, false);

    let wire = request_wire(&args);
    let mut framer = RequestFramer::default();
    framer.frame(&wire, &LIMITS).expect("a request");
    let request = Request::new(&wire, framer.args());
    let split = Split::by_slot(&request, 1, step);
    let gather = Gather::new(merge, Protocol::Resp2, split.parts().map(|part| part.claim()));
    let mut gather = if merge == Merge::ByKey { gather.ordered(split.order()) } else { gather };
    let written = split.parts().map(|part| {
        let mut wire = Vec::new();
        part.write(&request, &mut wire);
        args_of(&wire)
    });
    let mut waiting: Vec<(usize, Vec<Vec<u8>>)> = written.enumerate().collect();
    for (_, args) in &waiting {
        let mut slots = args[1..].iter().step_by(step).map(|key| Slot::of(key));
        let first = slots.next();
        prop_assert!(slots.all(|slot| Some(slot) == first), "two slots in one part");
    }
    for index in order.iter().take(waiting.len()) {
        let (number, args) = waiting.remove(index.index(waiting.len()));
        let reply = parts.run(&args, false);
        gather.answer(number, &reply);
        prop_assert_eq!(gather.is_complete(), waiting.is_empty());
    }
    let mut merged = Vec::new();
    gather.merge(&mut merged);
    prop_assert_eq!(merged, expected);
    prop_assert_eq!(parts, whole);
    Ok(())
}

proptest! {
    #[test]
    fn splitting_and_merging_is_as_if_it_were_one(
        stored in vec((key(), "[0-9]{0,3}"), 0..12),
        command in split_command(),
        keys in vec((key(), "[0-9]{0,3}"), 1..40),
        order in vec(any::<Index>(), 40),
    ) {
        whole_and_in_parts(&stored, command, &keys, &order)?;
    }
}

#[test]
fn replies_that_nest_deeply_are_not_decoded() {
    for level in ["*1\r\n", "*2\r\n:1\r\n"] {
        let wire = format!("{}:1\r\n", level.repeat(100));
        assert!(value::decode(&Bytes::from(wire)).is_err(), "{level:?} a hundred times");
    }
}

/// What is done to the replies of a client.
#[derive(Clone, Debug)]
enum Step {
    Promise,
    Gather(u8),
    Local(usize),
    Fulfil(Index, usize),
    Drop(Index),
    Send(Index),
}

fn step() -> impl Strategy<Value = Step> {
    let size = || prop_oneof![4 => 0..50_usize, 1 => 30_000..40_000_usize];
    prop_oneof![
        4 => Just(Step::Promise),
        1 => (1..4_u8).prop_map(Step::Gather),
        1 => size().prop_map(Step::Local),
        4 => (any::<Index>(), size()).prop_map(|(which, size)| Step::Fulfil(which, size)),
        1 => any::<Index>().prop_map(Step::Drop),
        2 => any::<Index>().prop_map(Step::Send),
    ]
}

/// A reply that tells which one it is, as long as asked for.
fn numbered(number: usize, size: usize) -> Vec<u8> {
    format!("+{number}{}\r\n", "x".repeat(size)).into_bytes()
}

/// Takes so many of the unsent bytes.
fn take(replies: &Replies, count: usize) -> Vec<u8> {
    let mut output = replies.output();
    let mut taken = Vec::new();
    {
        let mut room = [std::io::IoSlice::new(&[]); 3];
        let used = output.slices(&mut room, usize::MAX);
        room[..used].iter().for_each(|slice| taken.extend_from_slice(slice));
    }
    taken.truncate(count);
    output.advance(taken.len());
    taken
}

const DROPPED: &[u8] = b"-ERR proxy: the request was dropped, outcome unknown\r\n";

/// A client's replies, and what they should be.
#[derive(Default)]
struct Ledger {
    replies: Replies,
    /// Promises not settled, each with the number of its request.
    open: Vec<(usize, Promise)>,
    /// The answer to each request, once there is one.
    answers: Vec<Option<Vec<u8>>>,
    /// For requests in parts: how many are open, and whether one was dropped.
    parts: BTreeMap<usize, (u8, bool)>,
    sent: Vec<u8>,
}

impl Ledger {
    fn take(&mut self, step: &Step) {
        let number = self.answers.len();
        match step {
            Step::Promise => {
                self.open.push((number, self.replies.promise(Claim::None, true)));
                self.answers.push(None);
            }
            Step::Gather(count) => {
                let none = (0..*count).map(|_| Claim::None);
                let gather = Gather::new(Merge::AllOk, Protocol::Resp2, none);
                self.open.extend(self.replies.gather(gather).map(|promise| (number, promise)));
                self.parts.insert(number, (*count, false));
                self.answers.push(None);
            }
            Step::Local(size) => {
                let reply = numbered(number, *size);
                self.replies.answer(|out| out.extend_from_slice(&reply));
                self.answers.push(Some(reply));
            }
            Step::Fulfil(which, size) if !self.open.is_empty() => {
                self.fulfil(which.index(self.open.len()), *size);
            }
            Step::Drop(which) if !self.open.is_empty() => {
                let (number, promise) = self.open.swap_remove(which.index(self.open.len()));
                drop(promise);
                self.settle(number, DROPPED.to_vec());
            }
            Step::Send(count) => self.sent.extend(take(&self.replies, count.index(40_000))),
            Step::Fulfil(..) | Step::Drop(_) => {}
        }
    }

    fn fulfil(&mut self, which: usize, size: usize) {
        let (number, promise) = self.open.swap_remove(which);
        let is_part = self.parts.contains_key(&number);
        let reply = if is_part { b"+OK\r\n".to_vec() } else { numbered(number, size) };
        let large = reply.len() >= slotway::replies::LARGE;
        let bytes = Bytes::copy_from_slice(&reply);
        promise.fulfil(if large { Reply::Large(bytes) } else { Reply::Small(&reply) });
        self.settle(number, reply);
    }

    fn settle(&mut self, number: usize, answer: Vec<u8>) {
        let Some((open, dropped)) = self.parts.get_mut(&number) else {
            self.answers[number] = Some(answer);
            return;
        };
        *open -= 1;
        *dropped |= answer == DROPPED;
        if *open == 0 {
            let merged = if *dropped { DROPPED } else { b"+OK\r\n" };
            self.answers[number] = Some(merged.to_vec());
        }
    }

    /// The bytes that are ready are those of the answered requests at the front.
    fn check(&self) -> Result<(), TestCaseError> {
        let front = self.answers.iter().map_while(Option::as_ref);
        let ready: usize = front.clone().map(Vec::len).sum();
        prop_assert_eq!(self.sent.len() + self.replies.unsent(), ready);
        prop_assert_eq!(self.replies.waiting(), self.answers.len() - front.count());
        Ok(())
    }

    /// Drops what is open and compares all that was ever sent.
    fn close(mut self) -> Result<(), TestCaseError> {
        while let Some((number, promise)) = self.open.pop() {
            drop(promise);
            self.settle(number, DROPPED.to_vec());
            self.check()?;
        }
        while self.replies.unsent() > 0 {
            self.sent.extend(take(&self.replies, usize::MAX));
        }
        let all: Vec<u8> = self.answers.into_iter().flatten().flatten().collect();
        prop_assert!(self.sent == all, "other bytes, or another order");
        prop_assert_eq!(self.replies.waiting(), 0);
        Ok(())
    }
}

proptest! {
    #[test]
    fn replies_come_in_order_whatever_the_order_of_the_answers(steps in vec(step(), 1..120)) {
        let mut ledger = Ledger::default();
        for step in &steps {
            ledger.take(step);
            ledger.check()?;
        }
        ledger.close()?;
    }
}

#[test]
fn a_pipeline_that_never_runs_empty_does_not_grow() {
    let replies = Replies::default();
    let mut last = replies.promise(Claim::None, true);
    for _ in 0..2000 {
        replies.answer(|out| out.extend_from_slice(&[b'x'; 1000]));
        let next = replies.promise(Claim::None, true);
        replies.answer(|out| out.extend_from_slice(b"+OK\r\n"));
        std::mem::replace(&mut last, next).fulfil(Reply::Small(b"+OK\r\n"));
        take(&replies, usize::MAX);
    }
    assert!(replies.waiting() <= 2);
    // The buffer is private, but shown.
    let shown = format!("{replies:?}").len();
    assert!(shown < 3_000_000, "{shown} bytes to show two replies");
    last.fulfil(Reply::Small(b"+OK\r\n"));
}
