//! Clusters that speak TLS, and what is said when it does not come about.

use std::time::Duration;

use slotway::backend::Control;
use slotway::resp::value::{self, Value};

use crate::beside_others;
use crate::job::tag;
use crate::papers::Papers;
use crate::server::program;
use crate::tool::{Special, Told, call};

/// What servers and clients are to know, and the environment keeps from the list of processes.
const SECRET: &str = "xyzzy-s3cret";

/// What speaks with servers that want a password.
impl Papers {
    /// A server that knows nothing but TLS, and what it demands of others.
    async fn node(&self, more: &str) -> Special {
        let options = "--port 0 --cluster-enabled yes --tls-replication yes --tls-ca-cert-file @ca.crt \
                       --tls-cert-file @node.crt --tls-key-file @node.key";
        let options =
            self.filled(&format!("{options} --requirepass {SECRET} --masterauth {SECRET} {more}"));
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        Special::start_for(&program("server"), &options, "--tls-port", async |port| {
            self.open(&format!("127.0.0.1:{port}"))
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        })
        .await
    }

    /// A connection with everything that it takes.
    async fn open(
        &self,
        address: &str,
    ) -> Result<Control, slotway::backend::control::ControlError> {
        let mut control = Control::connect_by(&self.way(), address, Duration::from_secs(2)).await?;
        control.call(&[b"AUTH", SECRET.as_bytes()]).await?;
        Ok(control)
    }

    async fn ask(&self, address: &str, line: &str) -> Value {
        let args: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        let mut control = self.open(address).await.expect("it listens");
        control.call(&args).await.unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    async fn text(&self, address: &str, line: &str) -> String {
        value::text(&self.ask(address, line).await).expect("text").to_owned()
    }

    /// Calls the program with the words of a line, and the password in the environment.
    async fn told(&self, line: &str) -> Told {
        let words = self.filled(line);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (state, system) = (self.path("state"), self.path("ca.crt"));
        let vars = [
            ("REDISCLI_AUTH", SECRET),
            ("XDG_STATE_HOME", state.to_str().expect("a path")),
            // What the system trusts.
            ("SSL_CERT_FILE", system.to_str().expect("a path")),
        ];
        let told = call(&words, "", &vars).await;
        assert!(!format!("{}{}", told.out, told.err).contains(SECRET), "it tells the password");
        told
    }
}

#[tokio::test]
async fn a_cluster_that_speaks_nothing_but_tls() {
    let _turn = beside_others().await;
    let papers = Papers::issue();
    let mut nodes = Vec::new();
    for _ in 0..4 {
        nodes.push(papers.node("--tls-cluster yes").await);
    }
    let [a, b, c, d] =
        nodes.iter().map(Special::address).collect::<Vec<_>>().try_into().expect("four");
    let papers_shown = "--tls --cert @client.crt --key @client.key --cacert @ca.crt";

    // As charts write it: flags between the subcommand and the addresses.
    let line = format!("--cluster create {papers_shown} {a} {b} {c} --cluster-yes");
    papers.told(&line).await.ends(0).says("[OK] All 16384 slots covered.");
    trouble_is_named(&papers, &a).await;
    let told = papers.told(&format!("--cluster add-node {papers_shown} {d} {a}")).await.ends(0);
    told.says("[OK] New node added correctly.");
    let known = papers.text(&d, "CLUSTER NODES").await;
    for node in &nodes {
        // The port for TLS, which is the only one, and the bus by it.
        assert!(known.contains(&format!(":{0}@{1}", node.port, node.port + 10_000)), "{known}");
    }

    for n in 0..50 {
        papers.ask(&a, &format!("SET {{{}}}{n} value", tag(7))).await;
    }
    let (from, to) = (papers.text(&a, "CLUSTER MYID").await, papers.text(&d, "CLUSTER MYID").await);
    let line =
        format!("cluster reshard {a} {papers_shown} --from {from} --to {to} --slots 10 --yes");
    papers.ask(&a, "CONFIG SET tls-cluster no").await;
    papers.told(&line).await.ends(3).mentions("it needs tls-cluster yes");
    papers.ask(&a, "CONFIG SET tls-cluster yes").await;
    papers.told(&line).await.ends(0);
    assert_eq!(papers.ask(&d, "CLUSTER COUNTKEYSINSLOT 7").await, Value::Integer(50));
    no_file_has_the_password(&papers);

    let line = format!("cluster del-node {papers_shown} {a} {to} --drain --yes");
    papers.told(&line).await.ends(0);
    papers.told(&format!("cluster check -u rediss://{a} --cacert @ca.crt --cert @client.crt --key @client.key {b}"))
        .await
        .ends(0)
        .says("[OK] 50 keys in 3 masters.");
    import_needs_a_source_that_speaks_tls(&papers, &a, papers_shown).await;
    let backup = papers.path("backup");
    std::fs::create_dir(&backup).expect("a directory");
    papers.told(&format!("cluster backup {papers_shown} {a} @backup")).await.ends(0);
    let saved = std::fs::read_dir(&backup).expect("it is there").count();
    assert_eq!(saved, 4, "three files of data and one of the layout");
}

async fn import_needs_a_source_that_speaks_tls(papers: &Papers, node: &str, papers_shown: &str) {
    let server = papers.node("--cluster-enabled no").await;
    let source = server.address();
    papers.ask(&source, "SET imported 1").await;
    let line = format!(
        "cluster import {papers_shown} {node} --from {source} --from-pass {SECRET} --from-tls"
    );
    papers.told(&line).await.ends(3).mentions("it needs tls-cluster yes, cluster or not");
    papers.ask(&source, "CONFIG SET tls-cluster yes").await;
    papers.told(&line).await.ends(0).mentions("Migrating imported to ");
    papers.told(&line.replace(" --from-tls", "")).await.ends(1).mentions("reset by peer");
}

/// The words for everything that may be wrong.
async fn trouble_is_named(papers: &Papers, node: &str) {
    let client = "--cert @client.crt --key @client.key";
    let check = async |flags: &str, code: i32, expected: &str| {
        let told = papers.told(&format!("cluster check {node} {flags}")).await.ends(code);
        told.mentions(expected);
    };
    let failed = |why: &str| format!("Could not connect to Redis at {node}: TLS Error: {why}");
    check("", 1, "If this is a port for TLS (tls-port), add --tls.").await;
    check(
        &format!("--tls --cacert @stranger-ca.crt {client}"),
        1,
        &failed("its certificate is signed by nobody who is trusted here. Name the CA's"),
    )
    .await;
    check(&format!("--tls {client}"), 0, "[OK] All 16384 slots covered.").await;
    check("--tls --cacert @ca.crt", 1, &failed("it wants a client certificate. Give one with"))
        .await;
    check(
        "--tls --cacert @ca.crt --tls-ciphersuites TLS_AES_128_GCM_SHA256",
        1,
        "it wants a client certificate",
    )
    .await;
    check(
        "--tls --cacert @ca.crt --cert @stranger.crt --key @stranger.key",
        1,
        &failed("it does not accept our certificate"),
    )
    .await;
    check(
        &format!("--tls --cacert @ca.crt {client} --sni elsewhere --tls-check-name"),
        1,
        &failed("its certificate is not for elsewhere, but for "),
    )
    .await;
    check(
        &format!("--tls --cacert @ca.crt {client} --sni localhost --tls-check-name"),
        0,
        "[OK] All 16384",
    )
    .await;
    check(&format!("--tls --cacert @ca.crt {client} --sni elsewhere"), 0, "[OK] All 16384").await;
    check(
        &format!("--tls --cacert @stranger-ca.crt {client} --sni elsewhere"),
        1,
        "signed by nobody",
    )
    .await;
    check(&format!("--tls --insecure {client}"), 0, "[OK] All 16384 slots covered.").await;
    check(&format!("--tls --cacertdir @ {client}"), 0, "[OK] All 16384 slots covered.").await;
    check(
        "--tls --cacert @ca.crt --cert @client.crt --key @node.key",
        2,
        "is not the key of the certificate",
    )
    .await;
    check("--tls --cacert @nowhere.crt", 2, "nowhere.crt: No such file or directory").await;
    check("--tls --cacert @ca.crt --tls-ciphers HIGH", 2, "ECDHE-RSA-AES256-GCM-SHA384").await;
}

/// What is kept of jobs is not for everybody's eyes, and still has no secrets.
fn no_file_has_the_password(papers: &Papers) {
    let jobs = papers.path("state").join("slotway").join("jobs");
    let files: Vec<_> = std::fs::read_dir(jobs).expect("the journals").flatten().collect();
    assert!(!files.is_empty(), "there is a journal");
    for file in files {
        let text = std::fs::read_to_string(file.path()).expect("a journal");
        assert!(!text.contains(SECRET), "{text}");
    }
}

#[tokio::test]
async fn nodes_that_cannot_be_reached_by_tls_are_named_before_anything_is_done() {
    let _turn = beside_others().await;
    let papers = Papers::issue();
    let (odd, plain) = (
        papers.node("--tls-cluster no").await,
        Special::start("127.0.0.1", &["--cluster-enabled", "yes"]).await,
    );
    let (odd, plain) = (odd.address(), plain.address());
    let line = format!(
        "cluster create --tls --cacert @ca.crt --cert @client.crt --key @client.key -t 1 {odd} {plain}"
    );
    let told = papers.told(&line).await.ends(3);
    told.mentions(&format!("Node {odd} cannot join: it announces port 0"))
        .mentions(&format!("Could not connect to Redis at {plain}: TLS Error: it does not "))
        .mentions("Leave --tls out, or give the port on which it does (tls-port).");
}
