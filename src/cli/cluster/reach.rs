//! How nodes are reached: what flags and the environment say of passwords, TLS and addresses, and what helps when a node is
//! not reached by it.

use std::io;
use std::time::Duration;

use super::grammar::Line;
use super::{out, seconds};
use crate::manage::access::{
    Access, Check, Credentials, Family, Tls, TlsOptions, TlsTrouble, Way, is_hung_up,
};
use crate::manage::uri::Uri;

/// How long a node may take to answer unless told otherwise.
const ANSWER: Duration = Duration::from_secs(5);
/// Flags that are about TLS.
const ABOUT_TLS: &[&str] = &[
    "sni",
    "cacert",
    "cacertdir",
    "cert",
    "key",
    "insecure",
    "tls-check-name",
    "tls-ciphers",
    "tls-ciphersuites",
];

/// What a line says of it.
pub(super) fn access(line: &Line) -> Result<Access, String> {
    let uri = line.value("u")?.map(Uri::parse).transpose();
    let uri = uri.map_err(|error| format!("-u: {error}"))?.unwrap_or_default();
    let family = match (line.has("4"), line.has("6")) {
        (true, false) => Family::V4,
        (false, true) => Family::V6,
        _ => Family::Any,
    };
    let way = Way { tls: tls(line, uri.is_secure)?, family };
    let limit = seconds(line, "connect-timeout", ANSWER)?;
    Ok(Access { credentials: credentials(line, uri.credentials)?, way, limit })
}

/// Flags win over the URI, and that over the environment; those who pass passwords through files leave an end of line behind
/// them.
fn credentials(line: &Line, said: Option<Credentials>) -> Result<Option<Credentials>, String> {
    let (said_user, said_password) =
        said.map_or((None, None), |said| (said.username, Some(said.password)));
    let from_env =
        || ["REDISCLI_AUTH", "VALKEYCLI_AUTH"].iter().find_map(|name| std::env::var(name).ok());
    let password = match line.value("pass")? {
        Some(password) => Some(password.to_owned()),
        None if line.has("askpass") => Some(
            out::ask_password("Please input password: ")
                .map_err(|error| format!("no password: {error}"))?,
        ),
        None => said_password.or_else(from_env),
    };
    let password = password.map(|password| password.trim_end_matches(['\r', '\n']).to_owned());
    let username = line.value("user")?.map(str::to_owned).or(said_user);
    match (username, password) {
        (username, Some(password)) => Ok(Some(Credentials { username, password })),
        (Some(_), None) => {
            Err("--user needs a password: --pass, --askpass or REDISCLI_AUTH".to_owned())
        }
        (None, None) => Ok(None),
    }
}

fn tls(line: &Line, is_secure: bool) -> Result<Option<Tls>, String> {
    if !is_secure && !line.has("tls") {
        // To go on without it would send passwords in the clear.
        let idle = ABOUT_TLS.iter().find(|name| line.has(name));
        return idle.map_or(Ok(None), |name| Err(format!("--{name} is about TLS: add --tls")));
    }
    let identity = match (line.value("cert")?, line.value("key")?) {
        (Some(certificate), Some(key)) => Some((certificate.into(), key.into())),
        (None, None) => None,
        (Some(_), None) => return Err("--cert needs its --key".to_owned()),
        (None, Some(_)) => return Err("--key needs its --cert".to_owned()),
    };
    let check = if line.has("insecure") {
        Check::Nothing
    } else if names_ca(line) && !line.has("tls-check-name") {
        Check::Signature
    } else {
        Check::Name
    };
    let options = TlsOptions {
        name: line.value("sni")?.map(str::to_owned),
        ca_file: line.value("cacert")?.map(Into::into),
        ca_folder: line.value("cacertdir")?.map(Into::into),
        identity,
        check,
        ciphers: line.value("tls-ciphers")?.map(str::to_owned),
        suites: line.value("tls-ciphersuites")?.map(str::to_owned),
    };
    Tls::new(&options).map(Some).map_err(|fault| format!("TLS Error: {fault}"))
}

/// Whether the line says whom to trust. A CA that is named signs for these nodes, whose certificates often do not have the
/// addresses by which nodes are found, and is trusted whatever the name, as by redis-cli and by the nodes themselves. One of
/// the system's signs for anybody.
fn names_ca(line: &Line) -> bool {
    line.has("cacert") || line.has("cacertdir")
}

/// What helps against trouble with TLS.
pub(super) fn advice(trouble: &TlsTrouble) -> &'static str {
    match trouble {
        TlsTrouble::Plain | TlsTrouble::Silent => {
            ". Leave --tls out, or give the port on which it does (tls-port)."
        }
        TlsTrouble::Stranger => ". Name the CA's certificate with --cacert or --cacertdir.",
        TlsTrouble::Name { .. } => {
            ". Give the right name with --sni, or name the CA with --cacert and leave --tls-check-name out."
        }
        TlsTrouble::Date => ". Renew it, and look at the clocks of both machines.",
        TlsTrouble::Anonymous => ". Give one with --cert and --key.",
        TlsTrouble::Refused(_) => {
            ". Give one with --cert and --key that a CA of the node (tls-ca-cert-file) has signed."
        }
        TlsTrouble::Unnamed | TlsTrouble::Other(_) => "",
    }
}

/// What may help when a connection broke: a node that speaks TLS hangs up on those who do not.
pub(super) fn advice_on(error: &io::Error, access: &Access) -> &'static str {
    if is_hung_up(error) && access.way.tls.is_none() {
        ". If this is a port for TLS (tls-port), add --tls."
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Result<Access, String> {
        let words = format!("check h:1 {words}");
        access(&Line::parse(words.split_whitespace().map(Into::into))?)
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let check = |words: &str, expected: &str| {
            let error = of(words).expect_err(words);
            assert!(error.contains(expected), "{error}");
        };
        check("--cacert f", "--cacert is about TLS: add --tls");
        check("--insecure", "--insecure is about TLS: add --tls");
        check("--tls --cert f", "--cert needs its --key");
        check("--tls --key f", "--key needs its --cert");
        check("--tls --cacert /nowhere", "TLS Error: /nowhere: No such file");
        check("-u rediss://h:1 --cacertdir /nowhere", "TLS Error: /nowhere: No such file");
        check("--tls --insecure --tls-ciphers ALL", "\"ALL\" is not a cipher suite");
        check("--user u", "--user needs a password");
        check("-u http://h:1", "-u: the URI has to begin with redis://");
    }

    #[test]
    fn flags_win_over_the_uri() {
        let access = of("-u redis://u:p@h:1 --pass secret -4").unwrap();
        let expected = Credentials { username: Some("u".into()), password: "secret".into() };
        assert_eq!(access.credentials, Some(expected));
        assert_eq!((access.way.tls.is_some(), access.way.family), (false, Family::V4));
        assert!(of("-u rediss://h:1 --insecure").unwrap().way.tls.is_some());
        assert!(!format!("{access:?}").contains("secret"), "passwords are not shown");
    }
}
