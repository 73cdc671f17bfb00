//! The proxy against fake clusters: one binary, every test with a cluster, a proxy and ports of its own.
//!
//! `fake` is the cluster, `client` a client, `rig` puts a proxy between them. The tests are grouped by what they are
//! about; those that are ignored show a defect, and say which.

#![expect(clippy::disallowed_types, reason = "the fake nodes run on threads of their own")]

mod client;
mod clients;
mod fake;
mod hello;
mod hostile;
mod lifecycle;
mod loss;
mod multikey;
mod order;
mod properties;
mod protocol;
mod random;
mod redirects;
mod resp3;
mod rig;
mod store;
mod waiting;
