//! What is done *to* clusters rather than through one: asking every node, deciding, and applying the decision.
//!
//! Runs on the control thread and in the command line; it never sees a client's session.

pub mod local;
