//! One bench per step of a request's way that is pure: framing, routing, splitting and merging, ordering replies.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use slotway::acl::Users;
use slotway::client::Client;
use slotway::cluster::Slot;
use slotway::command::learned::Learned;
use slotway::command::merge::Gather;
use slotway::command::split::Split;
use slotway::command::{Claim, CrossSlot, Merge, table};
use slotway::replies::{Replies, Reply};
use slotway::resp::frame::{Limits, Progress, ReplyFramer, RequestFramer};
use slotway::resp::request::Request;
use slotway::resp::{Protocol, write};
use slotway::route;

const LIMITS: Limits =
    Limits { args: 1 << 20, bulk: 512 << 20, request: 1 << 30, unauthenticated: false };
const BATCH: usize = 64;

fn wire(words: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    write::request(&mut out, words.iter().map(|word| word.as_bytes()));
    out
}

fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("frame");
    let requests = wire(&["SET", "memtier-12345", &"x".repeat(64)]).repeat(BATCH);
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("request", |b| {
        let mut framer = RequestFramer::default();
        b.iter(|| {
            let mut at = 0;
            while let Ok(Progress::Complete(len)) =
                framer.frame(black_box(&requests[at..]), &LIMITS)
            {
                at += len;
            }
            at
        });
    });
    let replies = [format!("$64\r\n{}\r\n", "x".repeat(64)).into_bytes(), b"+OK\r\n".to_vec()]
        .concat()
        .repeat(BATCH / 2);
    group.bench_function("reply", |b| {
        let mut framer = ReplyFramer::default();
        b.iter(|| {
            let mut at = 0;
            while let Ok(Progress::Complete(len)) = framer.frame(black_box(&replies[at..])) {
                at += len;
            }
            at
        });
    });
    group.finish();
}

fn routes(c: &mut Criterion) {
    c.bench_function("slot", |b| b.iter(|| Slot::of(black_box(b"memtier-12345"))));
    c.bench_function("lookup", |b| b.iter(|| table::lookup(black_box(b"hgetall"))));
    let (client, learned) =
        (Client::new(1, None, None, Users::default().default_user(), 0), Learned::default());
    for words in
        [&["GET", "memtier-12345"][..], &["MGET", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"]]
    {
        let bytes = wire(words);
        let mut framer = RequestFramer::default();
        assert!(matches!(framer.frame(&bytes, &LIMITS), Ok(Progress::Complete(_))));
        let request = Request::new(&bytes, framer.args());
        c.bench_function(&format!("decide/{}", words[0]), |b| {
            b.iter(|| route::decide(black_box(&request), &client, &learned, CrossSlot::Read));
        });
    }
}

fn merges(c: &mut Criterion) {
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    let words: Vec<&str> = std::iter::once("MGET").chain(keys.iter().map(String::as_str)).collect();
    let bytes = wire(&words);
    let mut framer = RequestFramer::default();
    assert!(matches!(framer.frame(&bytes, &LIMITS), Ok(Progress::Complete(_))));
    let request = Request::new(&bytes, framer.args());
    c.bench_function("split and merge/MGET 100", |b| {
        b.iter(|| {
            let split = Split::by_slot(&request, 1, 1);
            let mut gather =
                Gather::new(Merge::ByKey, Protocol::Resp2, split.parts().map(|part| part.claim()))
                    .ordered(split.order());
            let mut part_wire = Vec::new();
            for (number, part) in split.parts().enumerate() {
                part_wire.clear();
                part.write(&request, &mut part_wire);
                gather.answer(number, b"*1\r\n$5\r\nvalue\r\n");
            }
            let mut out = Vec::new();
            gather.merge(&mut out);
            out
        });
    });
}

fn ordering(c: &mut Criterion) {
    let mut group = c.benchmark_group("replies");
    group.throughput(Throughput::Elements(BATCH as u64));
    let reply = b"$5\r\nvalue\r\n";
    for (name, step) in [("in order", 1), ("out of order", 7)] {
        group.bench_function(name, |b| {
            let replies = Replies::default();
            b.iter(|| {
                let mut promises: Vec<_> =
                    (0..BATCH).map(|_| Some(replies.promise(Claim::None, true))).collect();
                for n in 0..BATCH {
                    if let Some(promise) = promises[n * step % BATCH].take() {
                        promise.fulfil(Reply::Small(reply));
                    }
                }
                let unsent = replies.unsent();
                replies.output().advance(unsent);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, frames, routes, merges, ordering);
criterion_main!(benches);
