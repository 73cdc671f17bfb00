//! The log: what is written to standard error, and how.

use std::io::{self, IsTerminal};
use std::str::FromStr;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::reload::Handle;

/// What is logged and how it looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// What is logged.
    pub filter: Filter,
    /// How it looks.
    pub format: Format,
}

/// How the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Lines for people, in colour on a terminal.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What is logged: a level, or levels by module, as in `info,slotway::discovery=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(String);

const ALLOWED: &str = "must be off, error, warn, info, debug or trace, or such levels by module as in \
\"info,slotway::discovery=debug\"";

impl Default for Filter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl Filter {
    /// Reads a filter. A word alone must be a level: `tracing` would take it for a module, and a misspelt level would
    /// silence everything else.
    pub fn parse(text: &str) -> Result<Self, String> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        let is_level = |word: &&str| match *word {
            "" => false,
            word => word.contains(['=', '[']) || LevelFilter::from_str(word).is_ok(),
        };
        let text = words.join(",");
        match EnvFilter::builder().parse(&text) {
            Ok(_) if words.iter().all(is_level) => Ok(Self(text)),
            _ => Err(ALLOWED.to_owned()),
        }
    }
}

/// Reads and changes what is logged, whatever the log looks like.
struct Dial {
    read: Box<dyn Fn() -> Option<String> + Send + Sync>,
    turn: Box<dyn Fn(EnvFilter) -> bool + Send + Sync>,
}

/// The log is the process's, and so is this; empty if somebody else receives the log.
static DIAL: OnceLock<Dial> = OnceLock::new();

impl Dial {
    fn of<S: 'static>(handle: Handle<EnvFilter, S>) -> Self {
        let reader = handle.clone();
        Self {
            read: Box::new(move || reader.with_current(ToString::to_string).ok()),
            turn: Box::new(move |filter| handle.reload(filter).is_ok()),
        }
    }
}

/// What is logged; `None` if somebody else receives the log.
pub fn level() -> Option<String> {
    DIAL.get().and_then(|dial| (dial.read)())
}

/// Changes what is logged from now on; false if somebody else receives the log.
pub fn set_level(filter: &Filter) -> bool {
    DIAL.get().is_some_and(|dial| (dial.turn)(EnvFilter::new(&filter.0)))
}

/// Starts to log to standard error. Whoever already receives the log of this process keeps it.
pub fn init(options: &Options) {
    let filter = EnvFilter::new(&options.filter.0);
    // A line that cannot be written, since the terminal is gone, is lost: to complain about it there would be a panic.
    let base = tracing_subscriber::fmt().log_internal_errors(false);
    let base = base.with_env_filter(filter).with_writer(io::stderr);
    let (dial, begun) = match options.format {
        Format::Text => {
            let base = base.with_ansi(wants_colour()).with_filter_reloading();
            (Dial::of(base.reload_handle()), base.try_init())
        }
        Format::Json => {
            let base = base.json().flatten_event(true).with_filter_reloading();
            (Dial::of(base.reload_handle()), base.try_init())
        }
    };
    // Failing means that a subscriber is there already.
    if begun.is_ok() {
        // Only one is ever begun.
        let _ = DIAL.set(dial);
    }
}

/// On a terminal, unless `NO_COLOR` (no-color.org) says otherwise.
fn wants_colour() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let check = |text, fits| assert_eq!(Filter::parse(text).is_ok(), fits, "{text}");
        check("info", true);
        check("OFF", true);
        check("warn, slotway::discovery=debug", true);
        check("slotway[session]=trace", true);
        check("", false);
        check("inof", false);
        check("slotway=loud", false);
        check("info,,", false);
    }
}
