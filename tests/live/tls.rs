//! TLS on either side of the proxy, and what is said when it does not come about.

use std::fmt::Write as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use slotway::net::tls::{AuthClients, TlsTrouble};
use slotway::proxy::{Options, Running};
use slotway::resp::value::{self, Value};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::binary::{Program, address};
use crate::client::{Client, bulk, ok, wire};
use crate::cluster::{Cluster, run, steady};
use crate::load::{Load, Plan};
use crate::papers::Papers;
use crate::server::{Server, program};
use crate::{beside_others, events, front, under_load, until, within};

/// How long anything may take that needs no failover.
const SOON: Duration = Duration::from_secs(5);

async fn secure_cluster(primaries: usize, replicas: usize) -> (Cluster, Arc<Papers>) {
    let papers = Arc::new(Papers::issue());
    (Cluster::start_with(primaries, replicas, Some(Arc::clone(&papers))).await, papers)
}

/// As a proxy is whose nodes speak TLS.
fn to_nodes(cluster: &Cluster, papers: &Papers) -> Options {
    let mut options = front::patient(cluster.addresses());
    options.backend.way = papers.way();
    options.discovery.access.way = options.backend.way.clone();
    options
}

/// The same proxy, of which clients want TLS.
fn of_clients(options: Options, papers: &Papers, auth_clients: AuthClients) -> Options {
    let tls = papers.server(auth_clients, Duration::from_secs(1));
    Options { listen_tls: Some(("127.0.0.1:0".to_owned(), tls)), ..options }
}

async fn secure_client(papers: &Papers, proxy: &Running) -> Client {
    let address = proxy.tls.expect("it speaks TLS");
    let client = Client::connect_by(&papers.way(), address).await;
    client.unwrap_or_else(|error| panic!("no TLS with the proxy: {error}"))
}

#[tokio::test]
async fn nodes_that_speak_nothing_but_tls() {
    let (mut cluster, papers) = secure_cluster(3, 1).await;
    let _turn = under_load().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = of_clients(to_nodes(&cluster, &papers), &papers, AuthClients::No);
    options.admin = Some("127.0.0.1:0".to_owned());
    options.state_folder = Some(folder.path().to_owned());
    let proxy = front::start(options).await;
    everything_works(async || Client::to(proxy.data).await).await;
    everything_works(async || secure_client(&papers, &proxy).await).await;
    administrators_reach_the_nodes(&cluster, &proxy).await;
    under_load_over_tls(&mut cluster, &proxy).await;
    proxy.shutdown().await;
}

/// Whatever goes over connections of another kind, or over their buffers.
async fn everything_works(connect: impl AsyncFn() -> Client) {
    let (mut client, mut other) = (connect().await, connect().await);
    // Values of many records, in both directions; then many requests.
    let large = "x".repeat(10 << 20);
    assert_eq!(client.ask(&["SET", "large", &large]).await, ok());
    assert!(client.ask(&["GET", "large"]).await == bulk(&large), "it comes back whole");
    let requests: Vec<u8> =
        (0..5000).flat_map(|n| wire(&["INCR", &format!("p{}", n % 50)])).collect();
    client.send(&requests).await.expect("they are taken");
    for n in 0..5000 {
        assert_eq!(client.reply().await.expect("a reply"), Value::Integer(n / 50 + 1));
    }
    assert_eq!(client.call("MSET one 1 two 2 three 3").await, ok());
    let all = ["1", "2", "3"].map(bulk).to_vec();
    assert_eq!(client.call("MGET one two three").await, Value::Array(all));

    // A connection of its own, and its use by another one afterwards.
    for round in 0..2 {
        other.send(&wire(&["BLPOP", "list", "0"])).await.expect("it is taken");
        until(SOON, "it waits", async || {
            let list = client.call("CLIENT LIST").await;
            let list = value::text(&list).unwrap_or_default();
            if list.contains(" flags=b ") { Ok(()) } else { Err(list.to_owned()) }
        })
        .await;
        assert_eq!(client.call(&format!("RPUSH list {round}")).await, Value::Integer(1));
        let popped = Value::Array(vec![bulk("list"), bulk(round.to_string())]);
        assert_eq!(other.reply().await.expect("it is woken"), popped);
        assert_eq!(client.call("WATCH one").await, ok());
        assert_eq!(client.call("MULTI").await, ok());
        client.call("INCR one").await;
        let done = Value::Array(vec![Value::Integer(round + 2)]);
        assert_eq!(client.call("EXEC").await, done);
    }

    // What nodes say unasked.
    let mut tracking = connect().await;
    tracking.hello3().await.expect("RESP3");
    assert_eq!(tracking.call("CLIENT TRACKING ON").await, ok());
    assert_eq!(tracking.call("GET two").await, bulk("2"));
    other.call("SUBSCRIBE news").await;
    assert_eq!(client.call("PUBLISH news hello").await, Value::Integer(1));
    let news = ["message", "news", "hello"].map(bulk).to_vec();
    assert_eq!(other.reply().await.expect("a message"), Value::Array(news));
    assert_eq!(client.call("SET two 3").await, ok());
    let changed = Value::Array(vec![bulk("invalidate"), Value::Array(vec![bulk("two")])]);
    assert_eq!(tracking.reply().await.expect("it is told"), changed);
    assert_eq!(client.call("FLUSHALL").await, ok());
}

async fn administrators_reach_the_nodes(cluster: &Cluster, proxy: &Running) {
    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    for line in ["CLUSTER INFO", "PROXY CLUSTER NODES", "PROXY CLUSTER CHECK"] {
        let answer = format!("{:?}", admin.call(line).await);
        assert!(!answer.contains("Error("), "{line}: {answer}");
    }
    let order = format!("PROXY CLUSTER RESHARD SLOTS 20 TO {} SYNC", cluster.id(2));
    let answer = format!("{:?}", admin.call(&order).await);
    assert!(answer.contains("completed"), "{answer}");
}

/// Keys are met half-way, an owner changes, and connections break.
async fn under_load_over_tls(cluster: &mut Cluster, proxy: &Running) {
    let mut load = Load::start(Plan { focus: 0..200, ..Plan::light(proxy.data) });
    load.advance(5).await;
    events::reshard(cluster, 0, 1, 150).await;
    events::fail_over(cluster, 3).await;
    load.advance(5).await;
    let (tally, met) = (load.stop().await, cluster.errors_said().await);
    eprintln!("nodes said {met:?}; {tally}");
    assert!(met.contains_key("MOVED"), "{met:?}");
    tally.expect_flawless();
    let mut client = Client::to(proxy.data).await;
    for node in 0..3 {
        cluster.call(node, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    }
    until(SOON, "connections are opened again", async || match client.call("DBSIZE").await {
        Value::Integer(_) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

#[tokio::test]
async fn clients_that_speak_tls() {
    let cluster = steady().await;
    let papers = Papers::issue();
    // The one listener is enough.
    let options = Options { listen: None, ..front::options(cluster.addresses()) };
    let proxy = front::start(of_clients(options, &papers, AuthClients::Optional)).await;
    assert_eq!(proxy.tls, Some(proxy.data));
    everything_works(async || secure_client(&papers, &proxy).await).await;

    nothing_stays_behind(secure_client(&papers, &proxy).await).await;

    let port = proxy.data.port().to_string();
    let with_flags = |args: &[&str]| {
        let port = ["-p".to_owned(), port.clone()].into_iter().chain(papers.flags());
        port.chain(args.iter().map(|arg| (*arg).to_owned())).collect::<Vec<_>>()
    };
    for (role, args) in [
        ("cli", &["SET", "key", "value"][..]),
        ("benchmark", &["-q", "-t", "set,get,lrange_600", "-n", "2000", "-P", "64", "-c", "20"]),
    ] {
        let args = with_flags(args);
        let output =
            run(&program(role), &args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    }
    proxy.shutdown().await;
}

/// A client that leaves before it has read gets all of it.
async fn nothing_stays_behind(mut client: Client) {
    let large = "y".repeat(20 << 20);
    assert_eq!(client.ask(&["SET", "large", &large]).await, ok());
    let requests = [wire(&["GET", "large"]), wire(&["QUIT"])].concat();
    client.send(&requests).await.expect("they are taken");
    assert!(client.reply().await.expect("a reply") == bulk(&large), "it comes whole");
    assert_eq!(client.reply().await.expect("a reply"), ok());
    let end = client.reply().await.expect_err("the connection ends");
    assert_eq!(end.kind(), std::io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn who_is_turned_away_keeps_nobody_up() {
    let cluster = steady().await;
    let papers = Papers::issue();
    let options = of_clients(front::options(cluster.addresses()), &papers, AuthClients::Yes);
    let options = Options { admin: Some("127.0.0.1:0".to_owned()), max_clients: 3, ..options };
    let proxy = front::start(options).await;
    let address = proxy.tls.expect("it speaks TLS");
    let mut served = secure_client(&papers, &proxy).await;

    // As many as there may be, and who says nothing counts until its time is up.
    let mut silent = TcpStream::connect(address).await.expect("it listens");
    let mut also_silent = TcpStream::connect(address).await.expect("it listens");
    for n in 0..100 {
        assert_eq!(served.call(&format!("SET key {n}")).await, ok());
    }
    assert_eq!(said(&mut TcpStream::connect(address).await.expect("it listens")).await, "");
    assert_eq!(
        (said(&mut silent).await, said(&mut also_silent).await),
        (String::new(), String::new())
    );

    let check = async |ca: &str, shown: Option<&str>, expected: fn(&TlsTrouble) -> bool| {
        let trouble =
            trouble_of(Client::connect_by(&papers.way_of(ca, shown), address).await).await;
        assert!(trouble.as_ref().is_none_or(expected), "{ca} {shown:?}: {trouble:?}");
    };
    check("ca", None, |trouble| *trouble == TlsTrouble::Anonymous).await;
    check("ca", Some("stranger"), |trouble| matches!(trouble, TlsTrouble::Refused(_))).await;
    check("ca", Some("expired"), |trouble| matches!(trouble, TlsTrouble::Refused(_))).await;
    check("stranger-ca", Some("client"), |trouble| *trouble == TlsTrouble::Stranger).await;
    let mut plain = TcpStream::connect(address).await.expect("it listens");
    plain.write_all(&wire(&["PING"])).await.expect("it is taken");
    assert!(!said(&mut plain).await.contains("PONG"));

    let mut admin = Client::to(proxy.admin.expect("an admin port")).await;
    until(SOON, "all are counted", async || {
        let stats = format!("{:?}", admin.call("PROXY STATS").await);
        if stats.contains("\"failed_handshakes\"), Integer(7)") { Ok(()) } else { Err(stats) }
    })
    .await;
    assert_eq!(served.call("GET key").await, bulk("99"));
    proxy.shutdown().await;
}

/// All that somebody says until it closes the connection.
async fn said(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    // Who was not listened to is closed without ceremony.
    let _ = within(SOON, "it is closed", stream.read_to_end(&mut all)).await;
    String::from_utf8_lossy(&all).into_owned()
}

/// What is wrong with a connection that must not be of use. The other end may have hung up before it was heard why.
async fn trouble_of(client: std::io::Result<Client>) -> Option<TlsTrouble> {
    let error = match client {
        Err(error) => error,
        Ok(mut client) => {
            // Of its own certificate a client hears after it has begun to speak.
            let _ = client.send(&wire(&["PING"])).await;
            within(SOON, "it is turned away", client.reply()).await.expect_err("it is of no use")
        }
    };
    TlsTrouble::of(&error)
}

#[tokio::test]
async fn certificates_are_read_again_on_sighup() {
    let cluster = steady().await;
    let papers = Papers::issue();
    let text = "[listen]\ntls = \"127.0.0.1:0\"\ntls_cert_file = \"@node.crt\"\ntls_key_file = \"@node.key\"\n";
    let file = config(&papers, text);
    let (mut proxy, line) = Program::serve_with(cluster.addresses(), &["--config", &file]).await;
    let (tls, administrators) = (address(&line, "tls="), address(&line, "admin="));
    let connect = async |ca: &str| Client::connect_by(&papers.way_of(ca, None), tls).await;
    let mut early = connect("ca").await.expect("its certificate is of this CA");

    let [was_cert, was_key] = ["node.crt", "node.key"].map(|name| read(&papers, name));
    papers.write("node.crt", &read(&papers, "stranger.crt"));
    proxy.signal(Signal::HUP);
    let line = proxy.logged("the configuration is as it was").await;
    assert!(line.contains("node.key is not the key of the certificate in"), "{line}");
    assert!(connect("ca").await.is_ok(), "the old one is in use");

    papers.write("node.key", &read(&papers, "stranger.key"));
    proxy.signal(Signal::HUP);
    let line = proxy.logged("the configuration was read again").await;
    assert!(line.contains("[\"listen.tls_cert_file\", \"listen.tls_key_file\"]"), "{line}");
    let mut late = connect("stranger-ca").await.expect("the new one is in use");
    let trouble = TlsTrouble::of(&connect("ca").await.err().expect("it is of another CA"));
    assert_eq!(trouble, Some(TlsTrouble::Stranger));
    assert_eq!((early.call("SET key 1").await, late.call("GET key").await), (ok(), bulk("1")));

    papers.write("node.crt", &was_cert);
    papers.write("node.key", &was_key);
    let mut admin = Client::to(administrators).await;
    admin.call("PROXY CONFIG RELOAD").await;
    assert!(connect("ca").await.is_ok(), "an administrator's word does it too");
}

/// So is whom to trust among nodes: it counts for every connection that is made from then on.
#[tokio::test]
async fn whom_to_trust_is_read_again_on_sighup() {
    let (cluster, papers) = secure_cluster(1, 0).await;
    let _turn = beside_others().await;
    let text = "[node]\ntls = true\ntls_ca_cert_file = \"@trusted.crt\"\n\
        tls_cert_file = \"@client.crt\"\ntls_key_file = \"@client.key\"\n";
    papers.write("trusted.crt", &read(&papers, "ca.crt"));
    let file = config(&papers, text);
    let (mut proxy, line) = Program::serve_with(cluster.addresses(), &["--config", &file]).await;
    let mut client = Client::to(address(&line, "data=")).await;
    assert_eq!(client.call("SET key 1").await, ok());
    papers.write("trusted.crt", &read(&papers, "stranger-ca.crt"));
    proxy.signal(Signal::HUP);
    let line = proxy.logged("the configuration was read again").await;
    assert!(line.contains("[\"node.tls_ca_cert_file\"]"), "{line}");
    assert_eq!(client.call("GET key").await, bulk("1"), "what is open stays");
    cluster.call(0, &["CLIENT", "KILL", "TYPE", "normal"]).await;
    client.send(&wire(&["GET", "key"])).await.expect("it is taken");
    proxy.logged("signed by nobody who is trusted here").await;
    papers.write("trusted.crt", &read(&papers, "ca.crt"));
    proxy.signal(Signal::HUP);
    within(SOON, "a reply", client.reply()).await.expect("one reply");
    until(SOON, "the node is trusted again", async || match client.call("GET key").await {
        reply if reply == bulk("1") => Ok(()),
        reply => Err(format!("{reply:?}")),
    })
    .await;
}

fn read(papers: &Papers, name: &str) -> String {
    std::fs::read_to_string(papers.path(name)).expect("a file")
}

/// A configuration in a file, in which `@name` is the file of that name.
fn config(papers: &Papers, text: &str) -> String {
    let folder = papers.path("").display().to_string();
    papers.write("slotway.toml", &text.replace('@', &folder));
    papers.path("slotway.toml").display().to_string()
}

/// Nodes that are dialled by the names that they announce, for which their certificates are.
#[tokio::test]
async fn nodes_are_told_the_names_that_they_announce() {
    let (cluster, papers) = secure_cluster(1, 0).await;
    let _turn = beside_others().await;
    let [cert, key] =
        ["named.crt", "named.key"].map(|name| papers.path(name).display().to_string());
    let set = ["CONFIG", "SET", "cluster-announce-hostname", "localhost"];
    let preferred = ["cluster-preferred-endpoint-type", "hostname"];
    cluster.call(0, &[&set[..], &preferred].concat()).await;
    cluster.call(0, &["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key]).await;
    let mut options = to_nodes(&cluster, &papers);
    options.discovery.seeds = vec![format!("localhost:{}", cluster.port(0))];
    let proxy = front::start(options).await;
    let mut client = Client::to(proxy.data).await;
    assert_eq!(client.call("SET key 1").await, ok());
    assert_eq!(client.call("BLPOP none 0.01").await, Value::Null);
    proxy.shutdown().await;
}

/// The words for everything that may be wrong, and what helps.
#[tokio::test]
async fn trouble_with_nodes_is_named() {
    let (cluster, papers) = secure_cluster(1, 0).await;
    let _turn = beside_others().await;
    let with_client = "tls_cert_file = \"@client.crt\"\ntls_key_file = \"@client.key\"\n";
    let with_ca = |ca: &str| format!("tls = true\ntls_ca_cert_file = \"@{ca}.crt\"\n");
    let node = cluster.address(0);
    let check = async |keys: &str, expected: &str| {
        let file = config(&papers, &format!("[node]\n{keys}"));
        let line = complaint(&node, &file).await;
        assert!(line.contains(expected), "{keys}: {line}");
    };
    check("", "if this is a port for TLS (tls-port), set [node] tls = true").await;
    let stranger = with_ca("stranger-ca") + with_client;
    check(&stranger, "signed by nobody who is trusted here; name the CA's certificate with [node] tls_ca_cert_file").await;
    check(&with_ca("ca"), "it wants a client certificate; give one with [node] tls_cert_file")
        .await;
    let elsewhere = with_ca("ca") + with_client + "tls_name = \"elsewhere\"\n";
    check(&elsewhere, "its certificate is not for elsewhere, but for ").await;
    let [cert, key] =
        ["expired.crt", "expired.key"].map(|name| papers.path(name).display().to_string());
    cluster.call(0, &["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key]).await;
    check(&(with_ca("ca") + with_client), "its certificate has expired").await;
    let plain = Server::start().await;
    let file = config(&papers, &format!("[node]\n{}", with_ca("ca")));
    let line = complaint(&plain.address(), &file).await;
    assert!(line.contains("give the ports on which the nodes do (tls-port;"), "{line}");
}

/// What a proxy logs that cannot reach its node.
async fn complaint(node: &str, config: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_slotway"));
    command.args(["serve", node, "--config", config, "--listen", "127.0.0.1:0"]);
    command.args(["--http", "off", "--admin", "off", "--workers", "1"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut process = command.kill_on_drop(true).spawn().expect("the program");
    let mut log = BufReader::new(process.stderr.take().expect("its log")).lines();
    let mut all = String::new();
    let found = async {
        while let Some(line) = log.next_line().await.expect("the log") {
            if line.contains("no node of the cluster answers") {
                return line;
            }
            let _ = writeln!(all, "{line}");
        }
        panic!("it ended: {all}")
    };
    within(SOON, "a complaint", found).await
}
