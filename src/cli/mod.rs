//! The command line: its grammar, and what each subcommand does with it.

pub mod cluster;
pub mod local;

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use arc_swap::ArcSwap;
use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::cluster::Address;
use crate::config::{self, Config, ConfigError, Given};
use crate::observe::log;
use crate::proxy::{self, Changes, Reading, Reread};

/// Descriptors the process needs besides those of clients: listeners, connections to nodes, files, some to spare.
const OTHER_FILES: u64 = 512;

/// A Redis/Valkey Cluster proxy: one plain address in front of a whole cluster.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy.
    Serve(Box<Serve>),
    /// Say whether a configuration file is right.
    CheckConfig {
        /// The file.
        file: PathBuf,
    },
    /// A cluster of real servers on this machine, to try things on.
    Local(local::LocalArgs),
    /// Make a cluster, look at it, change it: as redis-trib.rb and `redis-cli --cluster` do.
    #[command(disable_help_flag = true)]
    Cluster {
        /// What to do: `slotway cluster help` tells.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

impl Arguments {
    /// The words of a command line. `slotway --cluster check …` means `slotway cluster check …`, for those who are used to
    /// redis-cli.
    pub fn from_words(words: impl IntoIterator<Item = OsString>) -> Self {
        Self::parse_from(with_subcommand(words.into_iter().collect()))
    }
}

fn with_subcommand(mut words: Vec<OsString>) -> Vec<OsString> {
    let has_flags_first =
        words.get(1).is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    if has_flags_first && words.iter().any(|word| word == "--cluster") {
        words.insert(1, "cluster".into());
    }
    words
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "Flags win over the file. All keys of the file: config/slotway.toml")]
struct Serve {
    /// Nodes of the cluster to start from, each as host:port.
    #[arg(value_name = "SEED", value_parser = config::seed)]
    seeds: Vec<Address>,
    /// Configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where clients connect, or off [default: 0.0.0.0:6380].
    #[arg(long, value_name = "ADDR|off", value_parser = or_off)]
    listen: Option<Choice<String>>,
    /// Where metrics and health are served, or off [default: 127.0.0.1:9380].
    #[arg(long, value_name = "ADDR|off", value_parser = or_off)]
    http: Option<Choice<String>>,
    /// Where administrators connect (PROXY commands), or off [default: 127.0.0.1:6381].
    #[arg(long, value_name = "ADDR|off", value_parser = or_off)]
    admin: Option<Choice<String>>,
    /// Worker threads, or auto for one per core [default: auto].
    #[arg(long, value_name = "N|auto", value_parser = or_auto)]
    workers: Option<Choice<usize>>,
    /// What is logged: a level, or levels by module [default: info].
    #[arg(long, value_name = "FILTER", value_parser = log::Filter::parse)]
    log_level: Option<log::Filter>,
    /// File with the password for the nodes.
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

/// What a flag says when one of its words means "none".
#[derive(Clone, Debug)]
struct Choice<T>(Option<T>);

fn or_off(text: &str) -> Result<Choice<String>, String> {
    config::endpoint_or_off(text).map(Choice)
}

fn or_auto(text: &str) -> Result<Choice<usize>, String> {
    config::workers(text).map(Choice)
}

/// Does what the arguments say.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(arguments) => serve(*arguments)?,
        Command::CheckConfig { file } => check(&file)?,
        Command::Local(arguments) => return runtime()?.block_on(local::run(&arguments)),
        Command::Cluster { words } => return Ok(runtime()?.block_on(cluster::run(words))),
    }
    Ok(ExitCode::SUCCESS)
}

fn check(file: &Path) -> anyhow::Result<()> {
    Config::load(file).and_then(Config::into_options).map_err(|error| in_file(file, error))?;
    writeln!(io::stdout(), "{}: ok", file.display()).context("cannot write to standard output")
}

/// Says which file is wrong, where the error does not say so itself.
fn in_file(file: &Path, error: ConfigError) -> anyhow::Error {
    match error {
        ConfigError::Read { .. } => error.into(),
        ConfigError::Invalid { .. } => {
            anyhow::Error::new(error).context(file.display().to_string())
        }
    }
}

impl Serve {
    /// The text of the file; nothing if there is none.
    fn text(&self) -> anyhow::Result<String> {
        Ok(self.config.as_deref().map(config::text_of).transpose()?.unwrap_or_default())
    }

    /// All that the file and the flags say now.
    fn given(&self) -> anyhow::Result<Given> {
        let text = self.text()?;
        let config = self.clone().into_config(&text)?;
        let options = config.clone().into_options()?;
        Ok(Given { text, config, options })
    }

    /// What the text of the file says, with what the flags say instead.
    fn into_config(self, text: &str) -> anyhow::Result<Config> {
        let file = self.config.as_deref().unwrap_or(Path::new(""));
        let mut config = Config::parse(text).map_err(|error| in_file(file, error))?;
        if let Some(file) = self.password_file {
            config.cluster.password = None;
            config.cluster.password_file = Some(file);
        }
        if !self.seeds.is_empty() {
            config.cluster.seeds = self.seeds;
        }
        replace(&mut config.listen.data, self.listen.map(|choice| choice.0));
        replace(&mut config.listen.http, self.http.map(|choice| choice.0));
        replace(&mut config.listen.admin, self.admin.map(|choice| choice.0));
        replace(&mut config.proxy.workers, self.workers.map(|choice| choice.0));
        replace(&mut config.log.filter, self.log_level);
        ensure!(
            !config.cluster.seeds.is_empty(),
            "no node of a cluster is given; say where one is, for example: slotway serve 127.0.0.1:7001\n\
             or name some in a file with `seeds = [\"127.0.0.1:7001\"]` under [cluster], and give it with --config"
        );
        Ok(config)
    }
}

fn replace<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// Reads the file of a proxy again. What takes effect is held against what was read last, and what does not against what the
/// proxy was started with.
fn reread(arguments: Serve, begun: Given) -> Reread {
    let last = ArcSwap::from_pointee(begun.clone());
    let read = move || -> anyhow::Result<Reading> {
        let now = arguments.given()?;
        let last = last.swap(Arc::new(now.clone()));
        // What administrators have said since stays, unless the file says something else than before.
        if now.config.log.filter != last.config.log.filter {
            // Who already received the log of this process keeps it.
            log::set_level(&now.config.log.filter);
        }
        let [applied, pending] = config::changes(&begun, &last, &now);
        Ok(Reading { options: now.options, changes: Changes { applied, pending } })
    };
    Reread(Arc::new(move || read().map_err(|error| format!("{error:#}"))))
}

/// Says what has become of a configuration that was read again.
fn tell(reloaded: Result<Changes, String>) {
    match reloaded {
        Ok(Changes { applied, pending }) => {
            info!(?applied, restart = ?pending, "the configuration was read again");
        }
        Err(error) => warn!(error, "the configuration is as it was"),
    }
}

fn serve(arguments: Serve) -> anyhow::Result<()> {
    let begun = arguments.given()?;
    log::init(&begun.config.log);
    let mut options = begun.options.clone();
    options.reread = arguments.config.is_some().then(|| reread(arguments, begun));
    raise_file_limit(options.max_clients);
    let runtime = runtime()?;
    let outcome = runtime.block_on(serve_until_told(options));
    // Waits for nobody: after a second signal the workers are still draining.
    runtime.shutdown_background();
    outcome
}

/// For all that is not a worker's.
fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread().enable_all().build().context("cannot start the control thread")
}

/// Runs the proxy until the first signal, and its shutdown until that is done or a second one comes.
async fn serve_until_told(options: proxy::Options) -> anyhow::Result<()> {
    let (mut stop, mut hangup) = (Stop::new()?, signal(SignalKind::hangup())?);
    let mut running = tokio::select! {
        started = proxy::start(options) => started?,
        () = stop.told() => return Ok(()),
    };
    let shown = |address: Option<SocketAddr>| {
        address.map_or("off".to_owned(), |address| address.to_string())
    };
    let data = shown(Some(running.data).filter(|data| running.tls != Some(*data)));
    let (tls, http, admin) = (shown(running.tls), shown(running.http), shown(running.admin));
    info!(%data, %tls, %http, %admin, "listening");
    loop {
        tokio::select! {
            () = stop.told() => break,
            () = running.told_to_drain() => break,
            _ = hangup.recv() => tell(running.reload()),
        }
    }
    info!("shutting down");
    tokio::select! {
        () = running.shutdown() => Ok(()),
        () = stop.told() => bail!("stopped by a second signal before all clients had finished"),
    }
}

/// The signals that mean: stop. A hangup does not: clients have nothing to do with the terminal that a proxy was started
/// from, and it has the configuration read again.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn told(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lets the process open as many files as the system allows it, and warns if that is not enough.
fn raise_file_limit(max_clients: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, wanted) {
        warn!(%error, "cannot raise the limit of open files");
    }
    // No limit is no number.
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let needed = max_clients as u64 + OTHER_FILES;
    if files < needed {
        warn!(
            files,
            needed,
            max_clients,
            "not enough open files are allowed for max_clients; raise the hard limit (ulimit -Hn, LimitNOFILE=)"
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn config(line: &str) -> anyhow::Result<Config> {
        let arguments = Arguments::try_parse_from(line.split(' '))?;
        match arguments.command {
            Command::Serve(serve) => {
                let text = serve.text()?;
                serve.into_config(&text)
            }
            Command::CheckConfig { .. } | Command::Local(_) | Command::Cluster { .. } => {
                bail!("not serve")
            }
        }
    }

    #[test]
    fn the_grammar_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn cluster_may_be_a_flag() {
        let check = |line: &str, expected: &str| {
            let words = with_subcommand(line.split(' ').map(Into::into).collect());
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(words.join(" "), expected);
        };
        check("slotway --cluster check a:1", "slotway cluster --cluster check a:1");
        check("slotway -a x --cluster check a:1", "slotway cluster -a x --cluster check a:1");
        check("slotway serve --cluster", "slotway serve --cluster");
        check("slotway --version", "slotway --version");
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "[cluster]\nseeds = [\"a:1\"]\npassword = \"p\"\n[listen]\nhttp = \"127.0.0.1:1\"\n[client]\nwindow = 7\n";
        std::fs::write(file.path(), text).unwrap();
        let path = file.path().display();
        let of_file = config(&format!("slotway serve --config {path}")).unwrap();
        assert_eq!(of_file, Config::parse(text).unwrap());
        let both = config(&format!(
            "slotway serve b:2 c:3 --config {path} --listen [::]:0 --http off --admin off --workers 2 --log-level debug --password-file /p"
        ))
        .unwrap();
        assert_eq!(
            both.cluster.seeds.iter().map(Address::to_string).collect::<Vec<_>>(),
            ["b:2", "c:3"]
        );
        assert_eq!((both.cluster.password, both.cluster.password_file), (None, Some("/p".into())));
        assert_eq!((both.listen.http, both.listen.admin), (None, None));
        assert_eq!((both.listen.data.as_deref(), both.proxy.workers), (Some("[::]:0"), Some(2)));
        assert_eq!(both.log.filter, log::Filter::parse("debug").unwrap());
        assert_eq!(both.client.session.window, 7);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let check = |line: &str, expected: &str| {
            let error = format!("{:#}", config(line).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check("slotway serve", "for example: slotway serve 127.0.0.1:7001");
        check("slotway serve nonsense", "\"nonsense\" is not a node's address");
        check("slotway serve a:1 --http 9380", "must be \"host:port\" or \"off\"");
        check("slotway serve a:1 --workers 0", "must be \"auto\" or a whole number");
        check("slotway serve a:1 --log-level inof", "must be off, error, warn");
        check("slotway serve --config /nowhere.toml", "cannot read /nowhere.toml");
    }

    #[test]
    fn files_can_be_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let check = || {
            let path = file.path().to_str().unwrap();
            run(Arguments::try_parse_from(["slotway", "check-config", path]).unwrap())
        };
        check().unwrap();
        std::fs::write(file.path(), "[client]\nwindow = 0").unwrap();
        let error = format!("{:#}", check().unwrap_err());
        assert!(error.contains("line 2: [client] window = 0"), "{error}");
    }
}
