//! `AUTH` and `HELLO`.

use std::sync::Arc;

use super::{Env, is, lossy};
use crate::acl::{User, Users};
use crate::client::Client;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

/// `AUTH password` or `AUTH user password`.
pub(super) fn auth(
    request: &Request<'_>,
    client: &mut Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let (user, password) = match request.len() {
        2 => (&b"default"[..], request.arg(1)),
        3 => (request.arg(1), request.arg(2)),
        _ => return Err(Refusal::text("ERR syntax error")),
    };
    let users = env.proxy.users.load();
    if request.len() == 2 && users.default_user().needs_no_password() {
        return Err(Refusal::NoPassword);
    }
    client.log_in(admit(request, (user, password), &users)?);
    write::simple(out, "OK");
    Ok(())
}

/// A user without a password accepts any, as in the server.
fn admit(
    request: &Request<'_>,
    (user, password): (&[u8], &[u8]),
    users: &Users,
) -> Result<Arc<User>, Refusal> {
    users
        .admit(user, password)
        .cloned()
        .ok_or_else(|| Refusal::WrongPass { command: lossy(request.name()), user: lossy(user) })
}

/// What a `HELLO` asks for.
struct Hello<'a> {
    protocol: Protocol,
    credentials: Option<(&'a [u8], &'a [u8])>,
    name: Option<&'a [u8]>,
}

/// `HELLO [2|3] [AUTH user password] [SETNAME name]`. A failure changes nothing.
pub(super) fn hello(
    request: &Request<'_>,
    client: &mut Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let hello = parse(request, client.protocol)?;
    let user = match hello.credentials {
        Some(credentials) => Some(admit(request, credentials, &env.proxy.users.load())?),
        None if !client.authenticated => return Err(Refusal::HelloNoAuth),
        None => None,
    };
    let name = hello.name.map(super::client::checked_name).transpose()?;
    if let Some(user) = user {
        client.log_in(user);
    }
    client.protocol = hello.protocol;
    if let Some(name) = name {
        client.names_mut().name = name;
    }
    greet(client, env, out);
    Ok(())
}

fn parse<'a>(request: &Request<'a>, current: Protocol) -> Result<Hello<'a>, Refusal> {
    let mut hello = Hello { protocol: current, credentials: None, name: None };
    if request.len() > 1 {
        hello.protocol = match super::integer(request.arg(1)) {
            Some(2) => Protocol::Resp2,
            Some(3) => Protocol::Resp3,
            Some(_) => return Err(Refusal::NoProto),
            None => {
                return Err(Refusal::text(
                    "ERR Protocol version is not an integer or out of range",
                ));
            }
        };
    }
    let mut at = 2;
    while at < request.len() {
        let left = request.len() - at - 1;
        if is(request.arg(at), "AUTH") && left >= 2 {
            hello.credentials = Some((request.arg(at + 1), request.arg(at + 2)));
            at += 3;
        } else if is(request.arg(at), "SETNAME") && left >= 1 {
            hello.name = Some(request.arg(at + 1));
            at += 2;
        } else {
            return Err(Refusal::text(format!(
                "ERR Syntax error in HELLO option '{}'",
                lossy(request.arg(at))
            )));
        }
    }
    Ok(hello)
}

fn greet(client: &Client, env: &Env<'_>, out: &mut Vec<u8>) {
    write::map(out, client.protocol, 7);
    write::bulk(out, "server");
    write::bulk(out, "redis");
    write::bulk(out, "version");
    write::bulk(out, &env.facts.version);
    write::bulk(out, "proto");
    write::integer(out, if client.protocol == Protocol::Resp3 { 3 } else { 2 });
    write::bulk(out, "id");
    write::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX));
    write::bulk(out, "mode");
    write::bulk(out, env.proxy.view.mode());
    write::bulk(out, "role");
    write::bulk(out, "master");
    write::bulk(out, "modules");
    write::array(out, 0);
}
