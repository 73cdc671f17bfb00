//! The proxy against fake clusters: one binary, every test with a cluster, a proxy and ports of its own.
//!
//! `fake` is the cluster, `client` a client, `rig` puts a proxy between them. The tests are grouped by what they are
//! about.

#![expect(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "the fake nodes are no workers: they have threads of their own"
)]

mod admin;
mod atomic;
mod client;
mod clients;
mod discovery;
mod fake;
mod hello;
mod hostile;
mod http;
mod lifecycle;
mod limits;
mod loss;
mod migrations;
mod mover;
mod multikey;
mod order;
mod properties;
mod protocol;
mod pubsub;
mod queueing;
mod random;
mod redirects;
mod resp3;
mod rig;
mod scan;
mod scripts;
mod shell;
mod store;
mod topology;
mod tracking;
mod transactions;
mod users;
mod waiting;
mod web;
