//! The configuration: TOML in, each layer's own options out.
//!
//! ```text
//!   text ─► keys (one row per key) ─► Config: checked values, one struct per section ─► into_options: secrets read
//! ```
//! A value is checked while it is read, so nothing in a [`Config`] needs another look. All that is wrong with a text is
//! reported at once, each with its line, and no text can make this panic. `config/slotway.toml` documents every key.

mod keys;
mod value;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::acl::Users;
use crate::backend::control::Access;
use crate::cluster::Address;
use crate::local::View;
use crate::net::Way;
use crate::net::tls::{AuthClients, Check, ServerOptions, ServerTls, Tls, TlsOptions};
use crate::observe::log;
use crate::resp::frame::Limits;
use crate::{backend, discovery, proxy, session};

use keys::Key;
pub use value::{endpoint_or_off, seed, workers};

/// All that can be configured, by section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// `[cluster]`: where the cluster is and how its map is kept.
    pub cluster: Cluster,
    /// `[listen]`: where the proxy listens.
    pub listen: Listen,
    /// `[proxy]`: the process.
    pub proxy: Proxy,
    /// `[client]`: how clients are dealt with.
    pub client: Client,
    /// `[node]`: how nodes are dealt with; their credentials stand in `[cluster]`.
    pub node: backend::Options,
    /// `[node] tls…`: how the nodes' connections are secured.
    pub node_tls: NodeTls,
    /// `[admin]`: the admin port.
    pub admin: Admin,
    /// `[log]`: what is logged, and how.
    pub log: log::Options,
}

/// Where the cluster is and how its map is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Nodes that are asked for the map first.
    pub seeds: Vec<Address>,
    /// ACL user for the nodes.
    pub username: Option<String>,
    /// Password for the nodes.
    pub password: Option<Secret>,
    /// File that holds the password for the nodes.
    pub password_file: Option<PathBuf>,
    /// How often the map is asked for without a cause.
    pub refresh_interval: Duration,
    /// Least time between two refreshes, whatever the cause.
    pub refresh_spacing: Duration,
    /// How long a node may take to answer for the map.
    pub query_timeout: Duration,
}

/// Where the proxy listens: `host:port`, `None` for nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For clients.
    pub data: Option<String>,
    /// For clients that speak TLS.
    pub tls: Option<String>,
    /// What they are shown, and who signs for them.
    pub tls_files: TlsFiles,
    /// Whether they have to show a certificate.
    pub tls_auth_clients: AuthClients,
    /// How long they may take to agree on TLS.
    pub tls_handshake_timeout: Duration,
    /// For metrics and health.
    pub http: Option<String>,
    /// For administrators.
    pub admin: Option<String>,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Worker threads; `None` for one per core.
    pub workers: Option<usize>,
    /// What clients see of the cluster.
    pub cluster_view: View,
    /// Whether `DEBUG` is passed on to the nodes.
    pub allow_debug: bool,
    /// How long a busy worker waits for more to do at once; zero for never.
    pub linger: Duration,
    /// How long the proxy goes on as before once it has said that it is not ready any more.
    pub drain_delay: Duration,
    /// How long clients may take to finish after that.
    pub drain_timeout: Duration,
}

/// How clients are dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Password that clients must give.
    pub password: Option<Secret>,
    /// File that holds the password that clients must give.
    pub password_file: Option<PathBuf>,
    /// Lines that say who clients may be.
    pub users: Vec<Secret>,
    /// File with such lines.
    pub acl_file: Option<PathBuf>,
    /// Most clients at once.
    pub max_clients: usize,
    /// What a single client may do.
    pub session: session::Options,
}

/// How the connections to nodes are secured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTls {
    /// Whether they are.
    pub on: bool,
    /// Whom we trust, and what we show.
    pub files: TlsFiles,
    /// The name that certificates have to be for, if not the host that is dialled.
    pub name: Option<String>,
    /// What is looked at in a node's certificate.
    pub check: Check,
}

/// The files that stand behind secure connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificates of CAs.
    pub ca_cert_file: Option<PathBuf>,
    /// Folder of such files.
    pub ca_cert_dir: Option<PathBuf>,
    /// Our certificate.
    pub cert_file: Option<PathBuf>,
    /// Its key.
    pub key_file: Option<PathBuf>,
}

/// The admin port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admin {
    /// Password that administrators must give.
    pub password: Option<Secret>,
    /// File that holds the password that administrators must give.
    pub password_file: Option<PathBuf>,
    /// Whether nodes may be called with any command.
    pub call: bool,
    /// Folder for what is kept of jobs.
    pub state_folder: Option<PathBuf>,
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why there is no configuration.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What happened.
        error: io::Error,
    },
    /// The text is wrong, in one place at least.
    #[error("{}", list(problems))]
    Invalid {
        /// All that is wrong, in the order of the text.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line it stands in, counted from 1; `None` if it is not in one place.
    pub line: Option<usize>,
    /// What is wrong and what is allowed.
    pub text: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "line {line}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl Config {
    /// Reads a text. Keys that are not there have their defaults.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        let problems = keys::read(text, &mut config);
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Invalid { problems }) }
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&text_of(path)?)
    }

    /// What the layers need. Reads the files that hold passwords, and refuses what contradicts itself.
    pub fn into_options(self) -> Result<proxy::Options, ConfigError> {
        let limits = self.client.session.limits;
        if limits.bulk > limits.request {
            return Err(contradiction("[client] max_bulk must not be greater than max_request"));
        }
        let password = secret("client", self.client.password, self.client.password_file)?;
        let users = users(password, &self.client.users, self.client.acl_file.as_deref())?;
        let node_password = secret("cluster", self.cluster.password, self.cluster.password_file)?;
        let admin_password = secret("admin", self.admin.password, self.admin.password_file)?;
        let credentials = credentials(self.cluster.username, node_password)?;
        let way = Way { tls: self.node_tls.into_tls()?, ..Way::default() };
        let listen_tls = self.listen.server_tls()?;
        if self.listen.data.is_none() && listen_tls.is_none() {
            return Err(contradiction(
                "[listen] data and tls are both off; clients need one of them",
            ));
        }
        Ok(proxy::Options {
            listen: self.listen.data,
            listen_tls,
            http: self.listen.http,
            admin: self.listen.admin,
            admin_password,
            admin_call: self.admin.call,
            state_folder: self.admin.state_folder,
            reread: None,
            workers: self.proxy.workers.unwrap_or_else(cores),
            users,
            acl_file: self.client.acl_file,
            max_clients: self.client.max_clients,
            cluster_view: self.proxy.cluster_view,
            allow_debug: self.proxy.allow_debug,
            linger: self.proxy.linger,
            drain_delay: self.proxy.drain_delay,
            drain_timeout: self.proxy.drain_timeout,
            session: self.client.session,
            backend: backend::Options {
                credentials: credentials.clone(),
                way: way.clone(),
                ..self.node
            },
            discovery: discovery::Options {
                seeds: self.cluster.seeds.iter().map(Address::to_string).collect(),
                interval: self.cluster.refresh_interval,
                spacing: self.cluster.refresh_spacing,
                access: Access { credentials, way, limit: self.cluster.query_timeout },
            },
        })
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: Cluster::default(),
            listen: Listen::default(),
            proxy: Proxy {
                workers: None,
                cluster_view: View::Hidden,
                allow_debug: false,
                linger: Duration::from_micros(50),
                drain_delay: Duration::ZERO,
                drain_timeout: Duration::from_secs(10),
            },
            client: Client::default(),
            node: backend::Options {
                connect_timeout: Duration::from_secs(1),
                response_timeout: Duration::from_secs(15),
                request_budget: Duration::from_secs(5),
                queue_requests: 100_000,
                queue_bytes: 256 << 20,
                exclusive_connections: 1000,
                read_from: backend::ReadFrom::Primary,
                near: Vec::new(),
                credentials: None,
                way: Way::default(),
            },
            node_tls: NodeTls::default(),
            admin: Admin::default(),
            log: log::Options::default(),
        }
    }
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            seeds: Vec::new(),
            username: None,
            password: None,
            password_file: None,
            refresh_interval: Duration::from_secs(5),
            refresh_spacing: Duration::from_millis(100),
            query_timeout: Duration::from_millis(500),
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            data: Some("0.0.0.0:6380".to_owned()),
            tls: None,
            tls_files: TlsFiles::default(),
            tls_auth_clients: AuthClients::No,
            tls_handshake_timeout: Duration::from_secs(10),
            http: Some("127.0.0.1:9380".to_owned()),
            admin: Some("127.0.0.1:6381".to_owned()),
        }
    }
}

impl Default for Client {
    fn default() -> Self {
        // The sizes are the server's own: `proto-max-bulk-len`, `maxclients`, its limit of a request's arguments.
        let limits =
            Limits { args: 1 << 20, bulk: 512 << 20, request: 1 << 30, unauthenticated: false };
        Self {
            password: None,
            password_file: None,
            users: Vec::new(),
            acl_file: None,
            max_clients: 10_000,
            session: session::Options {
                limits,
                window: 1024,
                output_limit: 1 << 20,
                output_max: 1 << 30,
                pubsub_limit: 32 << 20,
                idle_timeout: Duration::ZERO,
                read_own_writes: Duration::ZERO,
                cross_slot: session::CrossSlot::default(),
                transactions: session::Transactions::default(),
                queueing: session::Queueing::default(),
                ping: session::Ping::default(),
            },
        }
    }
}

impl TlsFiles {
    /// The certificate that is shown, with its key.
    fn identity(&self, section: &str) -> Result<Option<(PathBuf, PathBuf)>, ConfigError> {
        match (self.cert_file.clone(), self.key_file.clone()) {
            (Some(certificate), Some(key)) => Ok(Some((certificate, key))),
            (None, None) => Ok(None),
            _ => Err(contradiction(format!(
                "[{section}] tls_cert_file and tls_key_file need each other"
            ))),
        }
    }

    /// The file or folder that a key names.
    fn named(&self, key: &str) -> Option<&Path> {
        match key {
            "tls_ca_cert_file" => self.ca_cert_file.as_deref(),
            "tls_ca_cert_dir" => self.ca_cert_dir.as_deref(),
            "tls_cert_file" => self.cert_file.as_deref(),
            "tls_key_file" => self.key_file.as_deref(),
            _ => None,
        }
    }
}

impl Listen {
    /// Where TLS is spoken with clients, and how. Reads the files.
    fn server_tls(&self) -> Result<Option<(String, ServerTls)>, ConfigError> {
        let asks = self.tls_auth_clients != AuthClients::No;
        let Some(address) = self.tls.clone() else {
            let is_set = asks || self.tls_files != TlsFiles::default();
            let idle = "[listen] tls_… is set, but nobody can speak TLS: add tls = \"host:port\"";
            return if is_set { Err(contradiction(idle)) } else { Ok(None) };
        };
        let Some((certificate, key)) = self.tls_files.identity("listen")? else {
            return Err(contradiction("[listen] tls needs tls_cert_file and tls_key_file"));
        };
        let TlsFiles { ca_cert_file, ca_cert_dir, .. } = self.tls_files.clone();
        let names_ca = ca_cert_file.is_some() || ca_cert_dir.is_some();
        if asks != names_ca {
            return Err(contradiction(
                "[listen] tls_auth_clients = \"yes\" or \"optional\" and tls_ca_cert_file or tls_ca_cert_dir need each other",
            ));
        }
        let options = ServerOptions {
            certificate,
            key,
            ca_file: ca_cert_file,
            ca_folder: ca_cert_dir,
            auth_clients: self.tls_auth_clients,
            limit: self.tls_handshake_timeout,
        };
        let tls = ServerTls::new(&options);
        Ok(Some((address, tls.map_err(|fault| contradiction(format!("[listen] tls: {fault}")))?)))
    }
}

impl NodeTls {
    /// Reads the files. What is said of TLS without saying that it is wanted would have secrets sent in the clear.
    fn into_tls(self) -> Result<Option<Tls>, ConfigError> {
        let off = Self { on: false, ..self.clone() };
        if !self.on && off != Self::default() {
            return Err(contradiction(
                "[node] tls_… is set, but nothing is secured: add tls = true",
            ));
        }
        if !self.on {
            return Ok(None);
        }
        let options = TlsOptions {
            identity: self.files.identity("node")?,
            name: self.name,
            ca_file: self.files.ca_cert_file,
            ca_folder: self.files.ca_cert_dir,
            check: self.check,
            ..TlsOptions::default()
        };
        Tls::new(&options).map(Some).map_err(|fault| contradiction(format!("[node] tls: {fault}")))
    }
}

/// The text of a file.
pub fn text_of(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path)
        .map_err(|error| ConfigError::Read { path: path.to_owned(), error })
}

/// A configuration that was read: what its file says, that with what flags say instead, and what comes of it.
#[derive(Clone, Debug)]
pub struct Given {
    /// The text of its file.
    pub text: String,
    /// What is wanted.
    pub config: Config,
    /// The same with what other files say.
    pub options: proxy::Options,
}

/// What is other than before, as `section.key`: first what takes effect, held against what was read last, then what does
/// not, held against what the proxy was started with.
pub fn changes(begun: &Given, last: &Given, now: &Given) -> [Vec<String>; 2] {
    // Users stay those of lines, or those of a file, for as long as the proxy runs, and so does TLS, or its absence.
    let is_other_kind = begun.config.client.acl_file != now.config.client.acl_file;
    let both = |has: fn(&proxy::Options) -> bool| has(&begun.options) && has(&now.options);
    let is_idle = |key: &Key| match key.section {
        "node" => key.is_of_tls() && !both(|options| options.backend.way.tls.is_some()),
        "listen" => key.is_of_tls() && !both(|options| options.listen_tls.is_some()),
        _ => false,
    };
    let is_live = |key: &Key| key.is_live && !(is_other_kind && key.is_of_users()) && !is_idle(key);
    let names = |before: &Given, live: bool| {
        let keys = changed(before, now).into_iter().filter(|key| is_live(key) == live);
        keys.map(|key| format!("{}.{}", key.section, key.name)).collect()
    };
    [names(last, true), names(begun, false)]
}

/// The keys that say something else than before, of which a file of a password or a certificate may be the same with another
/// text.
fn changed(before: &Given, now: &Given) -> Vec<&'static Key> {
    let default_user = |given: &Given| given.options.users.default_user().clone();
    let is_other = |key: &Key| match (key.section, key.name) {
        ("client", "password_file") => {
            now.config.client.password_file.is_some() && default_user(before) != default_user(now)
        }
        ("admin", "password_file") => {
            now.config.admin.password_file.is_some()
                && before.options.admin_password != now.options.admin_password
        }
        ("node", name) => {
            let tls = [before, now].map(|given| given.options.backend.way.tls.as_ref());
            let file = now.config.node_tls.files.named(name);
            matches!((tls, file), ([Some(then), Some(now)], Some(file)) if now.is_other(then, file))
        }
        ("listen", name) => {
            let tls = [before, now].map(|given| given.options.listen_tls.as_ref());
            let file = now.config.listen.tls_files.named(name);
            matches!((tls, file), ([Some((_, then)), Some((_, now))], Some(file)) if now.is_other(then, file))
        }
        _ => false,
    };
    let of_text = keys::changed(&before.text, &now.text);
    let is_told =
        |key: &Key| of_text.iter().any(|told| (told.section, told.name) == (key.section, key.name));
    keys::KEYS.iter().filter(|key| is_told(key) || is_other(key)).collect()
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// One problem in its line, several below each other.
fn list(problems: &[Problem]) -> String {
    match problems {
        [only] => only.to_string(),
        all => all
            .iter()
            .fold(format!("{} problems", all.len()), |text, one| format!("{text}\n  {one}")),
    }
}

fn contradiction(text: impl Into<String>) -> ConfigError {
    ConfigError::Invalid { problems: vec![Problem { line: None, text: text.into() }] }
}

/// A password that is given in itself or in a file, there without the line's end.
fn secret(
    section: &str,
    password: Option<Secret>,
    file: Option<PathBuf>,
) -> Result<Option<String>, ConfigError> {
    let Some(path) = file else { return Ok(password.map(|secret| secret.0)) };
    if password.is_some() {
        return Err(contradiction(format!(
            "[{section}] password and password_file are both set; keep one"
        )));
    }
    match std::fs::read_to_string(&path) {
        Ok(text) if text.trim_end_matches(['\r', '\n']).is_empty() => {
            Err(contradiction(format!("[{section}] password_file {} is empty", path.display())))
        }
        Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
        Err(error) => Err(ConfigError::Read { path, error }),
    }
}

/// Who clients may be: said in lines, or in a file; else the default user alone, who may do everything.
fn users(
    password: Option<String>,
    lines: &[Secret],
    file: Option<&Path>,
) -> Result<Users, ConfigError> {
    let (text, name) = match file {
        Some(_) if password.is_some() || !lines.is_empty() => {
            return Err(contradiction(
                "[client] acl_file is set beside a password or users; keep one of them",
            ));
        }
        Some(path) => {
            let read = std::fs::read_to_string(path);
            let text = read.map_err(|error| ConfigError::Read { path: path.to_owned(), error })?;
            (text, path.display().to_string())
        }
        None => {
            let lines: Vec<&str> = lines.iter().map(|line| line.0.as_str()).collect();
            (lines.join("\n"), "[client] users".to_owned())
        }
    };
    let users = Users::parse(&text, &name).map_err(contradiction)?;
    match password {
        Some(_) if users.default_user() != Users::default().default_user() => Err(contradiction(
            "[client] users has a line for the default user, and password is that user's; keep one",
        )),
        Some(password) => Ok(users.requiring(password.as_bytes())),
        None => Ok(users),
    }
}

fn credentials(
    username: Option<String>,
    password: Option<String>,
) -> Result<Option<backend::Credentials>, ConfigError> {
    match (username, password) {
        (username, Some(password)) => Ok(Some(backend::Credentials { username, password })),
        (Some(_), None) => {
            Err(contradiction("[cluster] username needs a password or a password_file"))
        }
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DOCUMENTED: &str = include_str!("../../config/slotway.toml");

    #[test]
    fn the_documented_file_is_the_default() {
        assert_eq!(Config::parse(DOCUMENTED).unwrap(), Config::default());
        assert_eq!(Config::parse("").unwrap(), Config::default());
    }

    #[test]
    fn every_key_is_documented_in_its_section() {
        let mut section = String::new();
        let mut documented = Vec::new();
        let mut comment = String::new();
        for line in DOCUMENTED.lines() {
            if let Some(name) = line.strip_prefix('[') {
                section = name.trim_end_matches(']').to_owned();
            } else if let Some((key, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#'))
            {
                assert!(comment.contains('.'), "{key} has no sentence");
                assert!(comment.contains("Default"), "{key} has no default");
                let is_live = keys::KEYS
                    .iter()
                    .any(|known| (known.section, known.name) == (&section, key) && known.is_live);
                assert_eq!(comment.contains("Read again on SIGHUP."), is_live, "{section}.{key}");
                documented.push((section.clone(), key.to_owned()));
            }
            comment = if line.starts_with('#') { comment + line } else { String::new() };
        }
        let known: Vec<(String, String)> =
            keys::KEYS.iter().map(|key| (key.section.to_owned(), key.name.to_owned())).collect();
        assert_eq!(documented, known);
    }

    fn given(text: &str) -> Given {
        let config = Config::parse(text).unwrap();
        let options = config.clone().into_options().unwrap();
        Given { text: text.to_owned(), config, options }
    }

    fn check_changes(before: &str, after: &str, applied: &[&str], pending: &[&str]) {
        let (before, after) = (given(before), given(after));
        let told = changes(&before, &before, &after);
        assert_eq!(told, [owned(applied), owned(pending)], "{}", after.text);
    }

    fn owned(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn users_that_are_of_a_file_stay_so() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let of_file = format!("[client]\nacl_file = \"{}\"", file.path().display());
        let users = "[client]\nusers = [\"user me on\"]\npassword = \"a\"\nmax_clients = 5";
        let other = ["client.password", "client.users", "client.acl_file"];
        check_changes(&of_file, users, &["client.max_clients"], &other);
        check_changes(users, &of_file, &["client.max_clients"], &other);
        check_changes(users, "", &["client.password", "client.users", "client.max_clients"], &[]);
    }

    #[test]
    fn files_with_another_password_are_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let line = format!("password_file = \"{}\"\n", file.path().display());
        std::fs::write(file.path(), "one").unwrap();
        let text = format!("[client]\n{line}[admin]\n{line}");
        let before = given(&text);
        assert_eq!(changes(&before, &before, &given(&text)), [const { Vec::<String>::new() }; 2]);
        std::fs::write(file.path(), "two").unwrap();
        let both = owned(&["client.password_file", "admin.password_file"]);
        let told = changes(&before, &before, &given(&text));
        assert_eq!(told, [both, Vec::new()]);
        check_changes("", "[client]\nusers = [\"user default off\"]", &["client.users"], &[]);
    }

    #[test]
    fn what_is_other_in_a_text_is_named() {
        let check = |before: &str, after: &str, is_live: bool, expected: &[&str]| {
            let [before, after] = [before, after].map(given);
            let [applied, pending] = changes(&before, &before, &after);
            let told = if is_live { applied } else { pending };
            assert_eq!(told, expected, "{:?} {:?}", before.text, after.text);
        };
        let text = "[client]\nmax_clients = 5\nwindow = 7\n[log]\nlevel = \"warn\"";
        check(text, text, true, &[]);
        check(text, "[client]\nwindow = 8\nmax_clients = 5", true, &["log.level"]);
        check(text, "[client]\nwindow = 8\nmax_clients = 5", false, &["client.window"]);
        check("", text, true, &["client.max_clients", "log.level"]);
        // It says what it would be without saying so.
        check("[client]\nmax_clients = 10000", "", true, &[]);
        check("[admin]\npassword = \"a\"", "[admin]\npassword = \"b\"", true, &["admin.password"]);
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(Config::parse(text).unwrap_err().to_string(), expected, "{text}");
    }

    #[test]
    fn what_is_wrong_is_named() {
        check(
            "[client]\nwindow = 0",
            "line 2: [client] window = 0: must be a whole number between 1 and 65536",
        );
        check(
            "[client]\nwindow = \"many\"",
            "line 2: [client] window = \"many\": must be a whole number between 1 and 65536",
        );
        check(
            "[log]\nlevle = \"info\"",
            "line 2: unknown key [log] levle; did you mean level? known keys are level, format",
        );
        check(
            "[log]\nzzzzzz = 1",
            "line 2: unknown key [log] zzzzzz; known keys are level, format",
        );
        check(
            "[clinet]\nwindow = 1",
            "line 1: unknown section [clinet]; did you mean client? known sections are cluster, listen, proxy, client, node, admin, log",
        );
        check("window = 1", "line 1: window: belongs under [client]");
        check("client = 1", "line 1: client = 1: must be a section, [client]");
        check(
            "[node]\nread_from = \"slave\"",
            "line 2: [node] read_from = \"slave\": must be \"primary\", \"prefer-replica\", \"replica\", \"any\" or \"zone\"",
        );
        check(
            "[listen]\nhttp = \"9380\"",
            "line 2: [listen] http = \"9380\": must be \"host:port\" or \"off\"",
        );
        check(
            "[cluster]\nseeds = [\"a:1\", \"b\"]",
            "line 2: [cluster] seeds = [\"a:1\", \"b\"]: \"b\" is not a node's address; must be a list of \"host:port\"",
        );
        check("[client]\npassword = 12345", "line 2: [client] password: must be a text in quotes");
        check("[client", "line 1: unclosed table, expected `]`");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once_in_the_order_of_the_text() {
        check(
            "[log]\nformat = 1\n[client]\nwindow = -1\n",
            "2 problems\n  line 2: [log] format = 1: must be \"text\" or \"json\"\n  \
             line 4: [client] window = -1: must be a whole number between 1 and 65536",
        );
    }

    #[test]
    fn values_reach_the_layers() {
        let options = Config::parse(
            "[cluster]\nseeds = [\"10.0.0.1:7001\", \"[::1]:7002\"]\nusername = \"u\"\npassword = \"p\"\n\
             [proxy]\nworkers = 3\n[client]\nidle_timeout = \"1m 30s\"\nmax_bulk = \"16kb\"\nmax_request = 65536\n\
             [listen]\nhttp = \"off\"\n[node]\nread_from = \"replica\"\n",
        )
        .unwrap()
        .into_options()
        .unwrap();
        assert_eq!(options.discovery.seeds, ["10.0.0.1:7001", "::1:7002"]);
        assert_eq!(options.backend.credentials.unwrap().username.as_deref(), Some("u"));
        assert_eq!(options.discovery.access.credentials.unwrap().password, "p");
        assert_eq!((options.workers, options.http), (3, None));
        assert_eq!(options.session.idle_timeout, Duration::from_secs(90));
        assert_eq!(options.session.limits.bulk, 16 * 1024);
        assert_eq!(options.session.limits.request, 65536);
        assert_eq!(options.backend.read_from, backend::ReadFrom::Replica);
    }

    #[test]
    fn contradictions_are_refused() {
        let check = |text: &str, expected: &str| {
            let error = Config::parse(text).unwrap().into_options().unwrap_err();
            assert_eq!(error.to_string(), expected, "{text}");
        };
        check(
            "[client]\nmax_request = \"1mb\"",
            "[client] max_bulk must not be greater than max_request",
        );
        check(
            "[listen]\ndata = \"off\"",
            "[listen] data and tls are both off; clients need one of them",
        );
        check(
            "[listen]\ntls = \"h:1\"\ntls_cert_file = \"/f\"",
            "[listen] tls_cert_file and tls_key_file need each other",
        );
        check(
            "[listen]\ntls_auth_clients = \"yes\"",
            "[listen] tls_… is set, but nobody can speak TLS: add tls = \"host:port\"",
        );
        check("[listen]\ntls = \"h:1\"", "[listen] tls needs tls_cert_file and tls_key_file");
        let listen =
            "[listen]\ntls = \"h:1\"\ntls_cert_file = \"/nowhere\"\ntls_key_file = \"/f\"\n";
        check(listen, "[listen] tls: /nowhere: No such file or directory (os error 2)");
        let need_each_other = "[listen] tls_auth_clients = \"yes\" or \"optional\" and tls_ca_cert_file or tls_ca_cert_dir need each other";
        check(&format!("{listen}tls_auth_clients = \"yes\""), need_each_other);
        check(&format!("{listen}tls_ca_cert_dir = \"/f\""), need_each_other);
        check(
            "[node]\ntls_ca_cert_file = \"/f\"",
            "[node] tls_… is set, but nothing is secured: add tls = true",
        );
        check(
            "[node]\ntls = true\ntls_ca_cert_file = \"/nowhere\"",
            "[node] tls: /nowhere: No such file or directory (os error 2)",
        );
        check(
            "[cluster]\nusername = \"u\"",
            "[cluster] username needs a password or a password_file",
        );
        check(
            "[client]\npassword = \"p\"\npassword_file = \"/nowhere\"",
            "[client] password and password_file are both set; keep one",
        );
        check(
            "[client]\npassword = \"p\"\nacl_file = \"/nowhere\"",
            "[client] acl_file is set beside a password or users; keep one of them",
        );
        check(
            "[client]\npassword = \"p\"\nusers = [\"user default on\"]",
            "[client] users has a line for the default user, and password is that user's; keep one",
        );
        check(
            "[client]\nusers = [\"user a +nothing\", \"b on\"]",
            "[client] users:1: Unknown command or category name in ACL. [client] users:2 should start with user keyword followed by the username.",
        );
    }

    #[test]
    fn users_stand_in_lines_or_in_a_file() {
        let text = "[client]\npassword = \"p\"\nusers = [\"user a on >s ~a* +@all\"]";
        let users = Config::parse(text).unwrap().into_options().unwrap().users;
        assert!(users.admit(b"a", b"s").is_some() && users.admit(b"default", b"p").is_some());
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), users.text()).unwrap();
        let mut config = Config::default();
        config.client.acl_file = Some(file.path().to_owned());
        assert_eq!(config.into_options().unwrap().users, users);
    }

    #[test]
    fn a_password_can_stand_in_a_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "se cret \r\n").unwrap();
        let mut config = Config::default();
        config.client.password_file = Some(file.path().to_owned());
        let user = config.clone().into_options().unwrap().users.default_user();
        assert!(user.admits(b"se cret ") && !user.admits(b"se cret") && !user.is_open());
        std::fs::write(file.path(), "\n").unwrap();
        assert!(config.into_options().unwrap_err().to_string().ends_with("is empty"));
    }

    #[test]
    fn secrets_are_not_shown() {
        let text = "[client]\npassword = \"hush\"\nusers = [\"user a >hush\"]";
        let config = Config::parse(text).unwrap();
        assert!(!format!("{config:?}").contains("hush"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[\\[\\]a-z_=\" \\n0-9.{}#é\\\\,-]{0,200}") {
            let _ = Config::parse(&text);
        }

        #[test]
        fn no_value_makes_it_panic(at in 0..keys::KEYS.len(), value in "\"[ -~é]{0,30}\"|[0-9.e:-]{0,25}") {
            let key = &keys::KEYS[at];
            let _ = Config::parse(&format!("[{}]\n{} = {value}", key.section, key.name));
        }
    }
}
