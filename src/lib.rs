//! slotway: one plain Redis address in front of a whole Redis or Valkey Cluster. This is the map of the code.
//!
//! # The life of a request
//!
//! ```text
//!  client socket                 net::Stream, TCP or TLS over it, as to the nodes
//!    │ session::connection       one read into a lent buffer
//!    ▼
//!  resp::frame                   where does the command end, where are its arguments?
//!    ▼
//!  route::decide                 command::table + keys + client → Route                       (pure)
//!    ▼
//!  session::dispatch             one match on the Route; a Promise holds the reply's place in line
//!    │    └─ a script without keys ─► session::script: the owner of the key that its text names
//!    ▼
//!  backend::pool                 slot → owner → lane; the request's bytes go to the lane's log
//!    ▼
//!  backend::connection           writes the log, reads replies, hands each to the promise of its request
//!    │    └─ MOVED, ASK, TRYAGAIN, … ─► Pool::follow ─► another lane, or the same one later
//!    ▼
//!  replies                       replies in the order of the requests; command::merge for those in parts
//!    ▼
//!  session::connection           one write for all that came in one read, unless a reply is late (replies::patience)
//! ```
//!
//! What clients subscribe to goes its own way: `session::subscribe` hands it to the worker's hub (`pubsub`), which has
//! connections of its own to the nodes and puts messages in line with the clients' replies. What clients keep and are to
//! hear of when it changes is the business of `tracking`.
//!
//! Every worker thread (`worker`) has its own sessions and its own connections to the nodes; workers share nothing but
//! immutable snapshots. The control thread (`proxy`) accepts clients, keeps the map of the cluster up to date
//! (`discovery`), serves metrics and health (`observe`) and the admin port (`admin`).
//!
//! # What always holds
//!
//! 1. Every accepted request gets exactly one reply, and a client's replies come in the order of its requests.
//! 2. Commands of one client on one slot run in the order sent, unless answered with an error. A session that has requests
//!    out does not route by a newer snapshot; while redirects are about it sends one request per slot at a time; and a
//!    request that waited is not sent behind a later one that already ran.
//! 3. A request that reached a socket is sent again only if the node said that it did not run it, or if it only reads.
//!    Otherwise the client hears `outcome unknown`.
//! 4. `MOVED` and `ASK` never reach a client, nor does `NOSCRIPT` for a script that was loaded through the proxy.
//! 5. Nothing on the way of a request locks, logs, or is shared between threads.
//! 6. A fact about a command stands in one row of `command::table`.
//! 7. A topology is never edited; the views of several nodes, all of one cluster (`cluster::membership`), are merged per
//!    slot by the highest config epoch.
//! 8. Every queue, buffer and retry has a limit, and input that cannot be passed on stays unread: that is the back-pressure.
//! 9. No bytes from a client or a node panic, recurse, or allocate without bound.
//!
//! `tests/tidy.rs` holds the modules to their layers: each imports only from those listed before it.

// Pure: bytes and values in, bytes and values out.
pub mod resp;

pub mod cluster;

pub mod refusal;

pub mod command;

pub mod acl;

pub mod client;

pub mod replies;

pub mod stats;

pub mod route;

pub mod local;

// Sockets.
pub mod net;

// On a worker thread.
pub mod backend;

pub mod pubsub;

pub mod tracking;

pub mod session;

pub mod worker;

// On the control thread.
pub mod discovery;

pub mod observe;

pub mod manage;

pub mod admin;

// Putting it together.
pub mod config;

pub mod proxy;

pub mod cli;
