//! Cluster management on real servers, which the tests start themselves on free loopback ports: slots are moved under a
//! load that checks every reply, and nodes, links and the tool itself are killed while it happens.
//!
//! `tool` calls the program with the words of a shell's line, for the tests of `slotway cluster`; `job` moves slots without it.
//!
//! The helpers are those of `tests/live`. `SLOTWAY_TEST_SERVER` names another server program than `redis-server`.

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
#[path = "../live/patience.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod patience;
#[path = "../live/server.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod server;
#[path = "../live/tally.rs"]
#[allow(dead_code, reason = "`tests/live` uses all of it")]
mod tally;

mod create;
mod every;
mod job;
mod members;
mod moves;
mod tool;

use patience::{Dice, alone, until, within};
