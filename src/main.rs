//! Parses the arguments, runs what they say, and turns the outcome into an exit code.

use std::env;
use std::io::{self, Write};
use std::process::ExitCode;

use slotway::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::run(Arguments::from_words(env::args_os())).unwrap_or_else(|error| {
        // With nobody to read it the exit code has to do.
        let _ = writeln!(io::stderr(), "slotway: {error:#}");
        ExitCode::FAILURE
    })
}
