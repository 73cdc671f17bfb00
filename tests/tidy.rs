//! Reads the sources and holds them to the architecture: who imports whom, what is pure, how files and functions look,
//! and that dashboards use metrics that exist.
//!
//! This is text work over rustfmt's output, not a compiler. Comments, texts and unit tests (which stand behind
//! `#[cfg(test)]` at the bottom of a file) are blanked before a rule looks at the code.

use std::fs;
use std::path::{Path, PathBuf};

use slotway::observe::names::{ALL, Kind, Metric};

/// Who may import whom, lowest layer first: what stands here may be imported by name, and everything below it.
/// A path such as `backend::Control` allows that item alone.
const IMPORTS: &[(&str, &[&str])] = &[
    ("resp", &[]),
    ("net", &[]),
    ("cluster", &["resp"]),
    ("refusal", &["resp"]),
    // Beyond §5: `Slot`, by which commands are split and merged.
    ("command", &["resp", "refusal", "cluster::Slot"]),
    // The users' rights, which follow from the rows of commands.
    ("acl", &["resp", "command"]),
    ("client", &["resp", "cluster", "refusal", "command", "acl"]),
    ("replies", &["resp", "cluster", "refusal", "command"]),
    ("stats", &["resp", "cluster", "refusal", "command"]),
    ("route", PURE),
    ("local", PURE),
    ("backend", &["resp", "cluster", "refusal", "command", "replies", "stats", "net"]),
    (
        "pubsub",
        &["resp", "cluster", "refusal", "command", "client", "replies", "stats", "backend", "net"],
    ),
    (
        "tracking",
        &["resp", "cluster", "refusal", "command", "client", "replies", "stats", "backend", "net"],
    ),
    (
        "session",
        &[
            "resp", "cluster", "refusal", "command", "acl", "client", "replies", "stats", "route",
            "local", "backend", "pubsub", "tracking", "net",
        ],
    ),
    // Beyond §5: `Facts`, which it publishes, with the commands it learns for them.
    (
        "discovery",
        &[
            "resp",
            "cluster",
            "backend::control",
            "backend::Control",
            "backend::Hint",
            "local::Facts",
            "command::learned",
        ],
    ),
    // Beyond §5: `net`, on which its connections stand.
    (
        "manage",
        &["resp", "cluster", "net", "backend::control", "backend::Control", "backend::Credentials"],
    ),
    ("observe", &["cluster", "command", "refusal", "stats"]),
    // Beyond §5: what it hands on to sessions and pools.
    (
        "worker",
        &[
            "session",
            "backend",
            "net",
            "stats",
            "cluster::Topology",
            "local::Facts",
            "local::Proxy",
        ],
    ),
    // Beyond §5: the proxy's settings that can be changed.
    (
        "admin",
        &["manage", "observe", "discovery", "resp", "cluster", "refusal", "stats", "local::Proxy"],
    ),
    // The values its sections are made of, and every layer's `Options`; `proxy::Options` is what it makes.
    (
        "config",
        &[
            "backend::Options",
            "backend::Credentials",
            "backend::ReadFrom",
            "backend::control::Access",
            "net",
            "session::CrossSlot",
            "session::Ping",
            "session::Queueing",
            "session::Transactions",
            "acl::Users",
            "cluster::Address",
            "discovery::Options",
            "local::View",
            "observe::log",
            "proxy::Options",
            "resp::frame::Limits",
            "session::Options",
        ],
    ),
    (
        "proxy",
        &[
            "resp",
            "cluster",
            "refusal",
            "command",
            "acl",
            "client",
            "stats",
            "local",
            "net",
            "backend",
            "session",
            "discovery",
            "manage",
            "observe",
            "worker",
            "admin",
        ],
    ),
    // Beyond §5: the names of things in a cluster, and what one node answers to `cluster call`.
    (
        "cli",
        &[
            "proxy",
            "manage",
            "config",
            "cluster",
            "backend::control",
            "resp::value",
            "observe::log",
        ],
    ),
    ("main", &["cli"]),
];

/// The pure layers 0 to 2, which `route` and `local` stand on.
const PURE: &[&str] =
    &["resp", "cluster", "refusal", "command", "acl", "client", "replies", "stats"];

/// Modules that are plain computation: the same input, the same output.
const PURE_MODULES: &[&str] = &[
    "resp", "cluster", "refusal", "command", "acl", "client", "replies", "stats", "route", "local",
];

/// Words that have no place in pure modules.
const IMPURE: &[&str] =
    &["tokio", "async", "await", "Instant::now", "SystemTime::now", "rand", "tracing"];

/// Exceptions to purity: file, word, reason.
const ALLOWED: &[(&str, &str, &str)] =
    &[("stats.rs", "Instant::now", "Clock is where time comes from; workers hand it down")];

/// Longest function, from the line of its `fn` to its closing brace.
const LONGEST_FUNCTION: usize = 70;

/// A source file.
struct Source {
    /// Path below `src`.
    path: String,
    /// As it stands there.
    text: String,
    /// Without comments, texts and unit tests; the lines are the same.
    code: String,
}

impl Source {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned(), code: without_tests(&blank(text)) }
    }

    /// The module directly below the crate that the file belongs to.
    fn module(&self) -> &str {
        self.path.split('/').next().map_or("", |first| first.trim_end_matches(".rs"))
    }

    /// How many modules deep the file stands: 1 for `route.rs` and `backend/mod.rs`, 2 for `backend/pool.rs`.
    fn depth(&self) -> usize {
        self.path.split('/').filter(|part| *part != "mod.rs").count()
    }
}

#[test]
fn imports_go_downwards() {
    hold(imports);
}

#[test]
fn pure_modules_are_pure() {
    hold(purity);
}

#[test]
fn only_observe_knows_metrics() {
    hold(metrics);
}

#[test]
fn files_say_what_they_are() {
    hold(opening);
}

#[test]
fn functions_fit_a_screen() {
    hold(long_functions);
}

#[test]
fn dashboards_use_metrics_that_exist() {
    let folder = root().join("grafana");
    let files = files_below(&folder, "json");
    assert!(!files.is_empty(), "there is no dashboard in {}", folder.display());
    let faults: Vec<String> = files.iter().flat_map(|path| unknown_metrics(&read(path))).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_module_has_a_row() {
    let faults: Vec<String> = sources()
        .iter()
        .filter(|source| source.path != "lib.rs")
        .filter(|source| !IMPORTS.iter().any(|(module, _)| *module == source.module()))
        .map(|source| format!("{} stands in no layer", source.path))
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Fails with every fault that a rule finds in the sources.
fn hold(rule: fn(&Source) -> Vec<String>) {
    let sources = sources();
    assert!(sources.len() > 10, "the sources are not where they are looked for");
    let faults: Vec<String> = sources
        .iter()
        .flat_map(|source| {
            rule(source).into_iter().map(|fault| format!("src/{}{fault}", source.path))
        })
        .collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources() -> Vec<Source> {
    let folder = root().join("src");
    let mut paths = files_below(&folder, "rs");
    paths.sort();
    let source = |path: &PathBuf| {
        let below = path.strip_prefix(&folder).expect("it was found below");
        Source::new(&below.to_string_lossy(), &read(path))
    };
    paths.iter().map(source).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn files_below(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("the repository can be listed") {
        let path = entry.expect("the repository can be listed").path();
        if path.is_dir() {
            files.extend(files_below(&path, extension));
        } else if path.extension().is_some_and(|have| have == extension) {
            files.push(path);
        }
    }
    files
}

// ── rules: each gives `:line: what is wrong` ───────────────────────────────────────────────────────────────────

fn imports(source: &Source) -> Vec<String> {
    let module = source.module();
    let Some((_, allowed)) = IMPORTS.iter().find(|(name, _)| *name == module) else {
        return Vec::new();
    };
    let is_allowed = |path: &str| {
        let within = |allowed: &str| {
            path.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
        };
        within(module) || allowed.iter().any(|allowed| within(allowed))
    };
    let used = used_paths(source).into_iter();
    used.filter(|(_, path)| !is_allowed(path))
        .map(|(line, path)| format!(":{line}: {module} must not import {path}"))
        .collect()
}

fn purity(source: &Source) -> Vec<String> {
    if !PURE_MODULES.contains(&source.module()) {
        return Vec::new();
    }
    let is_allowed = |word: &str| {
        ALLOWED.iter().any(|(path, allowed, _)| *path == source.path && *allowed == word)
    };
    let words = IMPURE.iter().filter(|word| !is_allowed(word));
    words.flat_map(|word| mentions(source, word, "has no place in a pure module")).collect()
}

fn metrics(source: &Source) -> Vec<String> {
    if source.module() == "observe" {
        return Vec::new();
    }
    let crates = ["metrics", "metrics_exporter_prometheus"];
    crates
        .iter()
        .flat_map(|name| mentions(source, &format!("{name}::"), "belongs in observe"))
        .collect()
}

fn opening(source: &Source) -> Vec<String> {
    let opens = source.text.starts_with("//! ");
    if opens { Vec::new() } else { vec![":1: does not open with `//!`".to_owned()] }
}

/// Relies on rustfmt: a function ends at the first `}` that stands as far left as its `fn`.
fn long_functions(source: &Source) -> Vec<String> {
    let code = blank(&source.text);
    let lines: Vec<&str> = code.lines().map(str::trim_end).collect();
    let mut faults = Vec::new();
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| begins_function(line)) {
        let end = format!("{:1$}}}", "", line.len() - line.trim_start().len());
        let is_one_line = line.ends_with(['}', ';']);
        let more = lines[at..].iter().position(|line| !is_one_line && *line == end).unwrap_or(0);
        if more + 1 > LONGEST_FUNCTION {
            faults.push(format!(":{}: a function of {} lines", at + 1, more + 1));
        }
    }
    faults
}

fn unknown_metrics(dashboard: &str) -> Vec<String> {
    let is_known = |name: &str| ALL.iter().any(|metric| is_series(name, metric));
    words(dashboard)
        .filter(|(_, word)| word.starts_with("slotway_") && !is_known(word))
        .map(|(_, word)| format!("no metric is called {word}"))
        .collect()
}

fn is_series(name: &str, metric: &Metric) -> bool {
    let suffixes: &[&str] = match metric.kind {
        Kind::Histogram => &["_bucket", "_sum", "_count"],
        Kind::Counter | Kind::Gauge => &[""],
    };
    name.strip_prefix(metric.name).is_some_and(|rest| suffixes.contains(&rest))
}

// ── reading code ────────────────────────────────────────────────────────────────────────────────────────────

/// The code with comments, texts and single characters turned into spaces; lines stay where they are.
fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = code.ends_with(is_word);
        let length = if in_word { 0 } else { literal(rest) };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.extend(rest[..length].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[length..];
        }
    }
    code
}

/// Length of the comment, text or character that stands at the front; 0 if none does.
fn literal(code: &str) -> usize {
    let until = |from: usize, end: &str| {
        code[from..].find(end).map_or(code.len(), |at| from + at + end.len())
    };
    if code.starts_with("//") {
        return code.find('\n').unwrap_or(code.len());
    }
    if code.starts_with("/*") {
        return until(2, "*/");
    }
    if code.starts_with('\'') {
        return character(code);
    }
    let body = code.strip_prefix('b').unwrap_or(code);
    let prefix = code.len() - body.len();
    if body.starts_with('"') {
        return prefix + quoted(body);
    }
    let fence = body
        .strip_prefix('r')
        .map_or("", |raw| &raw[..raw.len() - raw.trim_start_matches('#').len()]);
    let open = prefix + 1 + fence.len();
    if body.starts_with('r') && code[open..].starts_with('"') {
        return until(open + 1, &format!("\"{fence}"));
    }
    0
}

/// Length of the text at the front, its quotes included.
fn quoted(code: &str) -> usize {
    let mut escaped = false;
    for (at, c) in code.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            _ => escaped = c == '\\' && !escaped,
        }
    }
    code.len()
}

/// Length of the character at the front, which is 0 if it is a lifetime.
fn character(code: &str) -> usize {
    let mut chars = code.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, _))) => code[at + 1..].find('\'').map_or(0, |end| at + end + 2),
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The code without the unit tests at its end.
fn without_tests(code: &str) -> String {
    let end = code.find("\n#[cfg(test)]\nmod ").unwrap_or(code.len());
    code[..end].to_owned()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every word with its offset.
fn words(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(|word| (word.as_ptr() as usize - text.as_ptr() as usize, word))
}

fn line(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Where a word or path stands by itself, not as a part of a longer one.
fn places<'a>(code: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    code.match_indices(word).map(|(at, _)| at).filter(move |at| {
        let open = word.ends_with(':') || !code[at + word.len()..].starts_with(is_word);
        open && !code[..*at].ends_with(|c| is_word(c) || c == ':')
    })
}

fn mentions(source: &Source, word: &str, why: &str) -> Vec<String> {
    places(&source.code, word)
        .map(|at| format!(":{}: `{word}` {why}", line(&source.code, at)))
        .collect()
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.find(|word| !is_modifier(word)) == Some("fn")
}

fn is_modifier(word: &str) -> bool {
    ["const", "async", "extern"].contains(&word) || word.starts_with("pub")
}

/// Every path within the crate that the code names, from the module below the crate on, with its line.
fn used_paths(source: &Source) -> Vec<(usize, String)> {
    let code = &source.code;
    let up = "super::".repeat(source.depth());
    let roots = [places(code, "crate::"), places(code, "slotway::"), places(code, &up)];
    let starts = roots.into_iter().zip(["crate::", "slotway::", &up]);
    let mut used = Vec::new();
    for (at, root) in starts.flat_map(|(places, root)| places.map(move |at| (at, root))) {
        for path in paths(&code[at + root.len()..]) {
            if path.contains("::") {
                used.push((line(code, at), path));
            } else {
                used.extend(uses_of_module(code, &path));
            }
        }
    }
    used
}

/// What is named through an imported module: `backend::Options` after `use crate::backend`.
fn uses_of_module(code: &str, module: &str) -> Vec<(usize, String)> {
    let start = format!("{module}::");
    places(code, &start)
        .flat_map(|at| paths(&code[at..]).into_iter().map(move |path| (line(code, at), path)))
        .collect()
}

/// The paths of an import tree: `a::{b, c::d}` names `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let end = tree.find(|c| !is_word(c) && c != ':').unwrap_or(tree.len());
    let (head, rest) = tree.split_at(end);
    let Some(branches) = rest.strip_prefix('{').filter(|_| head.is_empty() || head.ends_with("::"))
    else {
        return vec![head.trim_end_matches(':').to_owned()];
    };
    let below = branches_of(branches).into_iter().flat_map(|branch| paths(branch.trim()));
    below
        .filter(|path| !path.is_empty())
        .map(|path| format!("{head}{path}").trim_end_matches("::self").to_owned())
        .collect()
}

/// The parts between commas up to the brace that closes the tree.
fn branches_of(tree: &str) -> Vec<&str> {
    let (mut depth, mut start, mut branches) = (0, 0, Vec::new());
    for (at, c) in tree.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                branches.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if c == '}' && depth == 0 && start == at + 1 {
            break;
        }
    }
    branches
}

mod checker {
    //! The rules find what breaks them.

    use super::*;

    fn check(rule: fn(&Source) -> Vec<String>, path: &str, text: &str, expected: &[&str]) {
        assert_eq!(rule(&Source::new(path, text)), expected, "{text}");
    }

    #[test]
    fn imports_against_the_order() {
        check(imports, "route.rs", "use crate::resp::Slot;\nuse crate::client::Client;", &[]);
        check(
            imports,
            "route.rs",
            "\nuse crate::session;\nfn f() {\n    session::run();\n}\n",
            &[":4: route must not import session::run"],
        );
        check(
            imports,
            "resp/frame.rs",
            "use crate::{cluster::Slot, resp::{write, Protocol}};",
            &[":1: resp must not import cluster::Slot"],
        );
        check(
            imports,
            "resp/frame.rs",
            "let x = crate::cluster::SLOTS;",
            &[":1: resp must not import cluster::SLOTS"],
        );
        check(
            imports,
            "resp/frame.rs",
            "use super::write;\nuse super::super::cluster::Slot;",
            &[":2: resp must not import cluster::Slot"],
        );
        check(
            imports,
            "backend/mod.rs",
            "use super::client::Client;",
            &[":1: backend must not import client::Client"],
        );
        check(
            imports,
            "discovery.rs",
            "use crate::backend::{Control, Pool};",
            &[":1: discovery must not import backend::Pool"],
        );
        check(
            imports,
            "config/mod.rs",
            "use crate::backend;\ntype A = backend::Options;\ntype B = backend::Pool;",
            &[":3: config must not import backend::Pool"],
        );
        check(
            imports,
            "main.rs",
            "use slotway::session::Session;",
            &[":1: main must not import session::Session"],
        );
    }

    #[test]
    fn comments_texts_and_tests_do_not_count() {
        let text = "// crate::session::A\nlet a = \"crate::session::A\";\nlet b = r#\"\"crate::session::A\"#;\n\
                    let c = '\"';\nlet d = b'\\'';\n\n#[cfg(test)]\nmod tests {\n    use crate::session::A;\n}\n";
        check(imports, "route.rs", text, &[]);
        check(
            purity,
            "route.rs",
            "fn a<'a>(b: &'a str) {}\nuse tokio::net;",
            &[":2: `tokio` has no place in a pure module"],
        );
    }

    #[test]
    fn impurity() {
        check(
            purity,
            "resp/mod.rs",
            "async fn f() {}",
            &[":1: `async` has no place in a pure module"],
        );
        check(
            purity,
            "resp/mod.rs",
            "let t = Instant::now();",
            &[":1: `Instant::now` has no place in a pure module"],
        );
        check(
            purity,
            "resp/mod.rs",
            "let x = rand::random();\nlet operand = brand;",
            &[":1: `rand` has no place in a pure module"],
        );
        check(purity, "stats.rs", "let t = Instant::now();", &[]);
        check(purity, "session/mod.rs", "async fn f() {}", &[]);
    }

    #[test]
    fn metrics_elsewhere() {
        check(
            metrics,
            "session/mod.rs",
            "metrics::counter!(\"x\");",
            &[":1: `metrics::` belongs in observe"],
        );
        check(metrics, "observe/publish.rs", "metrics::counter!(\"x\");", &[]);
    }

    #[test]
    fn files_without_an_opening() {
        check(opening, "x.rs", "//! What it is.\n", &[]);
        check(opening, "x.rs", "use std::io;\n", &[":1: does not open with `//!`"]);
    }

    #[test]
    fn functions_that_are_too_long() {
        let function = |lines: usize| {
            format!(
                "impl X {{\n    pub(super) async fn f(\n    ) {{\n{}    }}\n}}\n",
                "        g();\n".repeat(lines)
            )
        };
        check(long_functions, "x.rs", &function(LONGEST_FUNCTION - 3), &[]);
        check(
            long_functions,
            "x.rs",
            &function(LONGEST_FUNCTION - 2),
            &[":2: a function of 71 lines"],
        );
        check(long_functions, "x.rs", "fn f() {}\nfn g();\n", &[]);
    }

    #[test]
    fn metrics_that_do_not_exist() {
        let text = "sum(rate(slotway_request_seconds_bucket[1m])) slotway_clients{x=\"slotway\"} slotway_clients_bucket";
        assert_eq!(unknown_metrics(text), ["no metric is called slotway_clients_bucket"]);
    }
}
