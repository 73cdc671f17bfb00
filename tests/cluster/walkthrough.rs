//! The walk through `walkthrough.txt`: each line of it on a terminal, against real servers.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::beside_others;
use crate::server::{Server, program};
use crate::tool::text;

/// How long anything may take to be said.
const PATIENCE: Duration = Duration::from_secs(60);

/// A program on a terminal of its own.
struct Session {
    process: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    /// What was said and not looked at yet.
    said: String,
    /// Everything.
    all: String,
}

impl Session {
    fn start(command: &mut Command) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it is ours");
        let name = ptsname(&ours, Vec::new()).expect("its name").into_string().expect("text");
        let theirs = || -> OwnedFd {
            let file = File::options().read(true).write(true).open(&name).expect("the other end");
            file.into()
        };
        command
            .stdin(Stdio::from(theirs()))
            .stdout(Stdio::from(theirs()))
            .stderr(Stdio::from(theirs()));
        let process = command.env("TERM", "xterm").spawn().expect("the program");
        let keyboard = File::from(ours);
        let (mut reader, (sender, screen)) = (keyboard.try_clone().expect("a copy"), channel());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // At the end of the program reading fails.
            while let Ok(length @ 1..) = reader.read(&mut buffer) {
                if sender.send(buffer[..length].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { process, keyboard, screen, said: String::new(), all: String::new() }
    }

    /// Waits for more; false at the end.
    fn listen(&mut self) -> bool {
        let Ok(bytes) = self.screen.recv_timeout(PATIENCE) else { return false };
        let text = String::from_utf8_lossy(&bytes).into_owned();
        self.all += &text;
        self.said += &text;
        true
    }

    /// The text without colours, in lines; what a bar has drawn over is a line too.
    fn lines(&self) -> Vec<String> {
        let plain = without_controls(&self.said);
        plain.split(['\r', '\n']).map(str::to_owned).collect()
    }

    /// Waits for a line, and forgets what came before it.
    fn expect(&mut self, pattern: &str, is_question: bool) {
        let end = Instant::now() + PATIENCE;
        loop {
            let lines = self.lines();
            let is_it = |line: &String| {
                if is_question { line.ends_with(pattern) } else { fits(line, pattern) }
            };
            if let Some(at) = lines.iter().position(is_it) {
                self.said = lines[at + 1..].join("\n");
                return;
            }
            let is_heard = self.listen() && Instant::now() < end;
            assert!(is_heard, "no line {pattern:?} in the last ones:\n{}", last(&self.all, 40));
        }
    }

    fn code(mut self) -> i32 {
        while self.listen() {}
        self.process.wait().expect("our child").code().expect("no signal ended it")
    }
}

fn last(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn without_controls(text: &str) -> String {
    let mut parts = text.split("\x1b[");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        let rest = part.trim_start_matches(|c: char| !c.is_ascii_alphabetic());
        text + rest.get(1..).unwrap_or_default()
    })
}

/// Whether a line is as the pattern says, in which `*` stands for anything.
fn fits(line: &str, pattern: &str) -> bool {
    let mut rest = line;
    let parts: Vec<&str> = pattern.split('*').collect();
    let Some((last, front)) = parts.split_last() else { return false };
    for (at, part) in front.iter().enumerate() {
        let found = if at == 0 { rest.starts_with(part).then_some(0) } else { rest.find(part) };
        let Some(found) = found else { return false };
        rest = &rest[found + part.len()..];
    }
    if front.is_empty() { rest == *last } else { rest.ends_with(last) }
}

/// `{7001}` is an address, `{id:7001}` a name, `{at:7001}` how redis-cli is told.
fn filled(line: &str, words: &BTreeMap<String, String>) -> String {
    words.iter().fold(line.to_owned(), |line, (word, value)| line.replace(word, value))
}

fn walk(words: &BTreeMap<String, String>, state: &str) -> usize {
    let mut session: Option<Session> = None;
    let mut colored = 0;
    for line in include_str!("walkthrough.txt")
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
    {
        let line = filled(line, words);
        match (line.split_once(' ').unwrap_or((&line, "")), session.as_mut()) {
            (("$", call), None) => {
                let mut args = call.split(' ').filter(|word| !word.is_empty());
                let path = match args.next() {
                    Some("slotway") => env!("CARGO_BIN_EXE_slotway").to_owned(),
                    _ => program("cli"),
                };
                let mut command = Command::new(path);
                session = Some(Session::start(command.args(args).env("XDG_STATE_HOME", state)));
            }
            (("?", question), Some(session)) => session.expect(question, true),
            (("<", answer), Some(session)) => {
                session.keyboard.write_all(format!("{answer}\n").as_bytes()).expect("it listens");
            }
            (("exit", code), Some(_)) => {
                let session = session.take().expect("it is there");
                colored += session.all.matches("\x1b[32;1m[OK]").count();
                let all = session.all.clone();
                assert_eq!(session.code().to_string(), code, "{all}");
            }
            (_, Some(session)) => session.expect(&line, false),
            (_, None) => panic!("nothing runs that could say {line:?}"),
        }
    }
    colored
}

#[tokio::test]
async fn the_old_page_about_redis_trib_works_line_by_line() {
    let _turn = beside_others().await;
    let (mut servers, mut words) = (Vec::new(), BTreeMap::new());
    for name in 7001..=7008 {
        let server = Server::start().await;
        let id = text(&server.address(), "CLUSTER MYID").await;
        words.insert(format!("{{{name}}}"), server.address());
        words.insert(format!("{{id:{name}}}"), id);
        words.insert(format!("{{at:{name}}}"), format!("-p {}", server.port));
        servers.push(server);
    }
    let state = tempfile::tempdir().expect("a directory");
    let state_path = state.path().to_str().expect("text").to_owned();
    let colored =
        tokio::task::spawn_blocking(move || walk(&words, &state_path)).await.expect("the walk");
    assert!(colored > 10, "a terminal has colours");
}

#[test]
fn patterns_fit() {
    for (line, pattern, expected) in [
        ("abc", "abc", true),
        ("abc", "ab", false),
        ("abc", "a*", true),
        ("abc", "a*c", true),
        ("abc", "*b", false),
        ("a 1 b 2 c", "a * b * c", true),
        ("x", "*", true),
    ] {
        assert_eq!(fits(line, pattern), expected, "{line} {pattern}");
    }
}
