//! What is written to the terminal, and read from it: lines in the words and colours of the tool that is asked for.

use std::io::{self, BufRead, IsTerminal, Write};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde::Serialize;

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exit {
    /// All is well.
    Success = 0,
    /// It could not be done, or the cluster is not whole.
    Failure = 1,
    /// The words make no sense.
    Usage = 2,
    /// Something spoke against it, and nothing was changed.
    Refused = 3,
    /// It was interrupted, and can be gone on with.
    Resumable = 4,
    /// It was done on some nodes and not on others.
    Partial = 5,
}

/// Success, or why not; what there is to say has been said.
pub(super) type Outcome<T = Exit> = Result<T, Exit>;

/// Whose words are used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Style {
    /// redis-cli.
    #[default]
    Redis,
    /// redis-trib.rb.
    Trib,
    /// valkey-cli.
    Valkey,
}

impl Style {
    /// What a primary is called.
    pub(super) fn primary(self) -> &'static str {
        if self == Self::Valkey { "primary" } else { "master" }
    }

    /// What replicas are called.
    pub(super) fn replicas(self) -> &'static str {
        if self == Self::Valkey { "replicas" } else { "slaves" }
    }
}

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Plain,
    Info,
    Good,
    Warning,
    Error,
}

/// Where lines go. Writing fails when nobody reads any more; then the exit code has to do.
#[derive(Debug)]
pub(super) struct Out {
    pub(super) style: Style,
    pub(super) json: bool,
    pub(super) color: bool,
    pub(super) verbose: bool,
}

impl Out {
    /// A line.
    pub(super) fn line(&self, kind: Kind, text: &str) {
        self.part(kind, &format!("{text}\n"));
    }

    /// Some text without an end of line.
    pub(super) fn part(&self, kind: Kind, text: &str) {
        if self.json {
            return;
        }
        let color = match kind {
            Kind::Plain => "",
            Kind::Info => "29;1",
            Kind::Good => "32;1",
            Kind::Warning => "33;1",
            Kind::Error => "31;1",
        };
        let mut out = io::stdout().lock();
        let _ = if self.color && !color.is_empty() {
            write!(out, "\x1b[{color}m{text}\x1b[0m")
        } else {
            write!(out, "{text}")
        };
        let _ = out.flush();
    }

    pub(super) fn plain(&self, text: &str) {
        self.line(Kind::Plain, text);
    }

    pub(super) fn info(&self, text: &str) {
        self.line(Kind::Info, text);
    }

    pub(super) fn good(&self, text: &str) {
        self.line(Kind::Good, text);
    }

    pub(super) fn warning(&self, text: &str) {
        self.line(Kind::Warning, text);
    }

    pub(super) fn error(&self, text: &str) {
        self.line(Kind::Error, text);
    }

    /// Says why it ends here, as the tools do among the other lines.
    pub(super) fn fail(&self, exit: Exit, text: &str) -> Exit {
        if self.json {
            self.answer(&serde_json::json!({ "ok": false, "error": text }));
        } else {
            self.error(text);
        }
        exit
    }

    /// The same on standard error, where the tools say it there.
    pub(super) fn complain(&self, exit: Exit, text: &str) -> Exit {
        if self.json {
            return self.fail(exit, text);
        }
        let _ = writeln!(io::stderr(), "{text}");
        exit
    }

    /// What machines are answered.
    pub(super) fn answer(&self, value: &impl Serialize) {
        if self.json {
            let text = serde_json::to_string_pretty(value).expect("our values can be written");
            let _ = writeln!(io::stdout(), "{text}");
        }
    }

    /// Asks; the answer is what is typed, or comes through a pipe.
    pub(super) fn ask(&self, question: &str) -> Outcome<String> {
        self.part(Kind::Plain, question);
        let mut answer = String::new();
        match io::stdin().lock().read_line(&mut answer) {
            Ok(read) if read > 0 => Ok(answer.trim().to_owned()),
            _ => {
                self.plain("");
                Err(self.complain(
                    Exit::Usage,
                    "nobody is there to answer: give the answers as options, and --cluster-yes",
                ))
            }
        }
    }

    /// Whether `yes` is answered.
    pub(super) fn confirm(&self, question: &str, yes: bool) -> Outcome<bool> {
        if yes {
            return Ok(true);
        }
        if self.json {
            return Err(self.fail(Exit::Usage, "with --json nobody is asked: pass --cluster-yes"));
        }
        Ok(self.ask(question)? == "yes")
    }
}

/// Something that whoever looks on should know, and that is none of the lines that are read.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Asks for a password without showing it.
pub(super) fn ask_password(question: &str) -> io::Result<String> {
    let (stdin, mut password) = (io::stdin(), String::new());
    write!(io::stderr(), "{question}")?;
    if stdin.is_terminal() {
        let before = tcgetattr(&stdin)?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &silent)?;
        let read = stdin.lock().read_line(&mut password);
        tcsetattr(&stdin, OptionalActions::Flush, &before)?;
        writeln!(io::stderr())?;
        read?;
    } else {
        stdin.lock().read_line(&mut password)?;
    }
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// Whether colours are wanted: `auto` means on a terminal that has some.
pub(super) fn has_color(wanted: &str) -> bool {
    match wanted {
        "always" => true,
        "never" => false,
        _ => io::stdout().is_terminal() && std::env::var("TERM").is_ok_and(|term| term != "dumb"),
    }
}
