//! The map of slotway: a Redis/Valkey Cluster proxy and cluster manager.

pub mod backend;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod command;
pub mod config;
pub mod discovery;
pub mod local;
pub mod manage;
pub mod observe;
pub mod proxy;
pub mod refusal;
pub mod replies;
pub mod resp;
pub mod route;
pub mod session;
pub mod stats;
pub mod worker;
