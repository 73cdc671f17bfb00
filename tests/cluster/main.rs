//! Cluster management on real servers, which the tests start themselves on free loopback ports: slots are moved under a
//! load that checks every reply, and nodes, links and the tool itself are killed while it happens.
//!
//! `tool` calls the program with the words of a shell's line, for the tests of `slotway cluster`; `job` moves slots without it.
//!
//! The helpers are those of `tests/live`. `SLOTWAY_TEST_SERVER` names another server program than `redis-server`.
//!
//! Scenarios of the design (numbers of its list), and where they are shown:
//!
//! | | |
//! |---|---|
//! | 1, 3–6, 8, 9, 11 | `create`: six empty nodes, unfit nodes; spreading over hosts (1, 2, 3) in `manage::plan::create` |
//! | 7 | `create`: a bus port that cannot be reached; the port is announced wrong, not filtered |
//! | 10 | `create`: IPv6, passwords, bus ports; names in `members`; announced names and ports in `rights`; ports for TLS in `tls` |
//! | 12, 13 | `create`: check names what is wrong; `claims`: equal epochs; the rest of 13 in `manage::check` |
//! | 14–16 | `every`; 2^33 keys in `manage::view` |
//! | 17 | `service`: under load, and loaded into a new cluster; `data`: what is loaded is what there was, and when it ends |
//! | 18 | `data`, `likeness`; databases beside 0 are named, not moved |
//! | 19 | `moves` |
//! | 20 | `atomic`, with servers that have it (`SLOTWAY_TEST_SERVER`); `tests/it/atomic` on fakes, with every failure |
//! | 44, 45 | `tests/it/atomic`; without the throttling of writes, which is the proxy's |
//! | 21, 22, 39, 40 | `reshard`; what balance means in `manage::plan::rebalance` |
//! | 23, 24 | `reshard`, by the program; `faults` and `moves` |
//! | 25 | `faults`: what is lost is counted, and held against what the replica had not got |
//! | 26–32, 37, 41, 42 | `faults`; 29 with a link that passes keys on and no answers, and with a target that stops; 35 is part of the load of 19; 30 also in `fix` and `likeness` |
//! | 38 | `moves` |
//! | 33 | `rights`: missing rights and passwords; `tls`, where no journal has the password either |
//! | 34 | `tests/it/mover`, by versions; `versions`, if there is a second kind of server (`SLOTWAY_TEST_OTHER_SERVER`) |
//! | 42, 43 | the rate within 15 %, and the time that is left, by a clock of the test: `manage::pace`, `manage::mover::report` |
//! | 63, 64 | `fix`, under load; 63 with `IMPORTING` alone and keys gone over in `claims`, without load |
//! | 65, 66 | `fix`; 66 with a restart in `claims` |
//! | 67 | `claims`; that the owner raises its epoch is planned, but a node does not whose epoch is among the newest |
//! | 47–51, 53, 56–58 | `members`, by the command line; who does not answer or refuses (58) in `rights` |
//! | 47, 54, 55, 59, 62 | `service`, under load; `reshard`, `members`; 62 without a majority in `claims` |
//! | 52, 60 | `service` |
//! | 72 | the tests here are called with the lines of operators, charts and old pages; `cli::cluster::grammar` |
//! | the old page | `walkthrough` |
//!
//! Left out: real hosts (all servers are on loopback); 61 (jobs of the running proxy come with the admin plane); 36 (blocked
//! clients are the proxy's: `sessions` and `pubsub` of `tests/live`); 46 (see `benches/reshard.rs`).

#[path = "../live/client.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod client;
#[path = "../live/cluster.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod cluster;
#[path = "../live/front.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod front;
#[path = "../live/load.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod load;
#[path = "../live/papers.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod papers;
#[path = "../live/patience.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod patience;
#[path = "../live/server.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod server;
#[path = "../live/tally.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod tally;

mod atomic;
mod claims;
mod create;
mod data;
mod every;
mod faults;
mod fix;
mod job;
mod ledger;
mod likeness;
mod members;
mod moves;
mod relay;
mod reshard;
mod rights;
mod service;
mod tls;
mod tool;
mod versions;
mod via;
mod walkthrough;

use patience::{Dice, alone, beside_others, under_load, until, within};
