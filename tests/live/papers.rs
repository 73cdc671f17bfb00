//! Certificates and their keys, made for one test.

use std::path::PathBuf;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use slotway::net::Way;
use slotway::net::tls::{AuthClients, ServerOptions, ServerTls, Tls, TlsOptions};
use tempfile::TempDir;

/// Certificates and their keys, in files.
pub(crate) struct Papers {
    folder: TempDir,
}

impl Papers {
    /// A CA called `ca` with certificates for a `node` and a `client`, one for a host by its name only (`named`) and one that
    /// has `expired`; and a `stranger` with a CA of its own.
    pub(crate) fn issue() -> Self {
        let papers = Self { folder: tempfile::tempdir().expect("a directory") };
        let ca = papers.authority("ca");
        papers.sign("node", &["127.0.0.1", "localhost"], &ca);
        papers.sign("client", &[], &ca);
        papers.sign("named", &["localhost"], &ca);
        papers.sign_expired("expired", "127.0.0.1", &ca);
        papers.sign("stranger", &["127.0.0.1"], &papers.authority("stranger-ca"));
        papers
    }

    /// The flags by which redis-cli speaks TLS.
    pub(crate) fn flags(&self) -> Vec<String> {
        self.filled("--tls --cacert @ca.crt --cert @client.crt --key @client.key")
    }

    /// The way to servers that have their certificate from this CA, and are shown this one.
    pub(crate) fn way_of(&self, ca: &str, shown: Option<&str>) -> Way {
        let file = |name: &str, kind: &str| self.path(&format!("{name}.{kind}"));
        let options = TlsOptions {
            ca_file: Some(file(ca, "crt")),
            identity: shown.map(|name| (file(name, "crt"), file(name, "key"))),
            ..TlsOptions::default()
        };
        Way { tls: Some(Tls::new(&options).expect("papers in order")), ..Way::default() }
    }

    /// The way to servers that want to know who comes.
    pub(crate) fn way(&self) -> Way {
        self.way_of("ca", Some("client"))
    }

    /// What a proxy has that speaks TLS with its clients.
    pub(crate) fn server(&self, auth_clients: AuthClients, limit: Duration) -> ServerTls {
        let asks = auth_clients != AuthClients::No;
        let options = ServerOptions {
            certificate: self.path("node.crt"),
            key: self.path("node.key"),
            ca_file: asks.then(|| self.path("ca.crt")),
            ca_folder: None,
            auth_clients,
            limit,
        };
        ServerTls::new(&options).expect("papers in order")
    }

    pub(crate) fn authority(&self, name: &str) -> Issuer<'static, KeyPair> {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("a certificate");
        self.write(&format!("{name}.crt"), &certificate.pem());
        Issuer::new(params, key)
    }

    pub(crate) fn sign(&self, name: &str, hosts: &[&str], ca: &Issuer<'_, KeyPair>) {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        self.sign_as(name, CertificateParams::new(hosts).expect("names of hosts"), ca);
    }

    fn sign_as(&self, name: &str, mut params: CertificateParams, ca: &Issuer<'_, KeyPair>) {
        let key = KeyPair::generate().expect("a key");
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, ca).expect("a certificate");
        self.write(&format!("{name}.crt"), &certificate.pem());
        self.write(&format!("{name}.key"), &key.serialize_pem());
    }

    /// A certificate for this host that is of no use any more.
    pub(crate) fn sign_expired(&self, name: &str, host: &str, ca: &Issuer<'_, KeyPair>) {
        let mut params = CertificateParams::new([host.to_owned()]).expect("names of hosts");
        params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        self.sign_as(name, params, ca);
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("a file");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A line in which `@name` is the file of that name.
    pub(crate) fn filled(&self, line: &str) -> Vec<String> {
        let folder = self.folder.path().display();
        let fill = |word: &str| match word.strip_prefix('@') {
            Some(name) => format!("{folder}/{name}"),
            None => word.to_owned(),
        };
        line.split_whitespace().map(fill).collect()
    }
}
