//! The proxy in front of real servers, which the tests start themselves on free loopback ports.
//!
//! `SLOTWAY_TEST_SERVER` names another server program than `redis-server`; its `…-cli` and `…-benchmark` are used if they
//! stand beside it. The figures of every fault and change, for the proxy and for another one to compare with, come from
//! `cargo test --release --test live -- --ignored --nocapture report_faults`; see `figures`.
//!
//! ```text
//!   server ─► cluster ─► the cluster under test ◄──┐
//!   front  ─► the proxy, in this process ──────────┤
//!   binary ─► the program that it makes ───────────┘
//!   load   ─► many pipelining clients that check every reply ─► tally
//! ```

#![expect(
    clippy::disallowed_methods,
    reason = "tests run on one thread of their own, not on a worker"
)]

mod across;
mod admin;
mod big;
mod binary;
mod client;
#[allow(dead_code, reason = "`tests/cluster` uses all of it")]
mod cluster;
mod commands;
mod drain;
mod events;
mod faults;
mod figures;
mod front;
mod grow;
mod load;
mod local;
mod moves;
mod orders;
mod papers;
mod partition;
mod patience;
mod pubsub;
mod queueing;
#[path = "../cluster/relay.rs"]
#[allow(dead_code, reason = "`tests/cluster` uses all of it")]
mod relay;
mod replies;
mod routing;
mod scan;
mod scenarios;
mod scripts;
#[allow(dead_code, reason = "`tests/cluster` uses all of it")]
mod server;
mod sessions;
mod soak;
mod sorting;
mod splits;
mod tally;
mod tls;
mod tools;
mod tracking;
mod transactions;
mod users;
mod words;

use patience::{Dice, alone, beside_others, under_load, until, within};
