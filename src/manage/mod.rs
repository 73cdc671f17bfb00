//! What is done *to* clusters rather than through one: asking every node, deciding, and applying the decision.
//!
//! ```text
//!  access   how nodes are reached
//!  uri      servers as URIs                                                         (pure)
//!  view     what every node says of itself and the others
//!  check    what of it is not as it should be                                       (pure)
//!  strays   keys where they do not belong
//!  plan     from a view to what is to be done                                       (pure)
//!  recruit  whether nodes are fit to join
//!  apply    does what is planned, until all nodes know of it
//!  mover    moves slots, at a `pace`, and writes to a `journal` what it is about
//!  repair   makes a cluster whole again; copies of keys that lose go to `quarantine`
//!  import   takes in the keys of a server that is no cluster
//!  likeness whether two nodes have the same under a key, however it is stored
//!  backup   saves what a primary has
//!  every    runs a command on each node
//!  local    a cluster of servers on this machine, to try things on
//! ```
//! Runs on the control thread and in the command line; it never sees a client's session. It prints nothing, asks nobody
//! and never exits: it answers values, and tells of events through a callback.

pub mod access;
pub mod apply;
pub mod backup;
pub mod check;
pub mod every;
pub mod import;
pub mod journal;
mod likeness;
pub mod local;
pub mod mover;
pub mod pace;
pub mod plan;
pub mod quarantine;
pub mod recruit;
pub mod repair;
pub mod strays;
pub mod uri;
pub mod view;
