//! Parses the arguments, runs what they say, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser;
use slotway::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::run(Arguments::parse()).unwrap_or_else(|error| {
        eprintln!("slotway: {error:#}");
        ExitCode::FAILURE
    })
}
