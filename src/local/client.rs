//! `CLIENT`: what clients say of themselves and see of themselves.

use super::{Env, help, is, unknown_subcommand};
use crate::client::Client;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

const HELP: &[&str] = &[
    "CLIENT <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "GETNAME",
    "    Return the name of the current connection.",
    "GETREDIR",
    "    Return the client ID we are redirecting to when tracking is enabled.",
    "ID",
    "    Return the ID of the current connection.",
    "INFO",
    "    Return information about the current client connection.",
    "LIST",
    "    Return information about client connections of this proxy.",
    "NO-EVICT (ON|OFF)",
    "    Accepted, and without effect on the nodes' shared connections.",
    "SETINFO <LIB-NAME|LIB-VER> <value>",
    "    Set client meta attr.",
    "SETNAME <name>",
    "    Assign the name <name> to the current connection.",
    "TRACKINGINFO",
    "    Report tracking status for the current connection.",
    "HELP",
    "    Print this help.",
];

/// Whether this is `CLIENT LIST`, in any of its forms.
pub(super) fn is_list(request: &Request<'_>) -> bool {
    is(request.arg(1), "LIST")
}

/// Answers all subcommands but `LIST`.
pub(super) fn client(
    request: &Request<'_>,
    client: &mut Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let sub = request.arg(1).to_ascii_lowercase();
    let expect = |argc: usize| {
        if request.len() == argc {
            Ok(())
        } else {
            Err(Refusal::Arity(format!("client|{}", super::lossy(&sub))))
        }
    };
    match &sub[..] {
        b"id" => {
            expect(2).map(|()| write::integer(out, i64::try_from(client.id).unwrap_or(i64::MAX)))
        }
        b"getname" => expect(2).map(|()| get_name(client, out)),
        b"setname" => expect(3).and_then(|()| set_name(request.arg(2), client, out)),
        b"setinfo" => expect(4).and_then(|()| set_info(request, client, out)),
        b"info" => {
            expect(2).map(|()| write::verbatim(out, client.protocol, &line(client, env.now_ms)))
        }
        b"getredir" => expect(2).map(|()| write::integer(out, -1)),
        b"trackinginfo" => expect(2).map(|()| tracking_info(client.protocol, out)),
        b"tracking" if is(request.arg(2), "OFF") => expect(3).map(|()| write::simple(out, "OK")),
        b"tracking" => Err(Refusal::text("ERR CLIENT TRACKING is not supported by this proxy")),
        b"no-evict" | b"no-touch" => expect(3).and_then(|()| switch(request.arg(2), out)),
        b"reply" if is(request.arg(2), "ON") => expect(3).map(|()| write::simple(out, "OK")),
        b"reply" | b"kill" | b"pause" | b"unpause" | b"unblock" | b"caching" => {
            Err(Refusal::NotYet(format!("client|{}", super::lossy(&sub))))
        }
        b"help" => expect(2).map(|()| help(out, HELP)),
        _ => Err(unknown_subcommand("CLIENT", request.arg(1))),
    }
}

fn get_name(client: &Client, out: &mut Vec<u8>) {
    match client.names.as_ref().map(|names| names.name.as_str()).filter(|name| !name.is_empty()) {
        Some(name) => write::bulk(out, name),
        None => write::nil(out, client.protocol),
    }
}

fn set_name(name: &[u8], client: &mut Client, out: &mut Vec<u8>) -> Result<(), Refusal> {
    client.names_mut().name = checked_name(name)?;
    write::simple(out, "OK");
    Ok(())
}

/// A name with nothing in it that would break the columns of `CLIENT LIST`.
pub(super) fn checked_name(name: &[u8]) -> Result<String, Refusal> {
    if name.iter().all(u8::is_ascii_graphic) {
        return Ok(String::from_utf8_lossy(name).into_owned());
    }
    Err(Refusal::text("ERR Client names cannot contain spaces, newlines or special characters."))
}

fn set_info(request: &Request<'_>, client: &mut Client, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (attribute, value) = (request.arg(2), request.arg(3));
    let names = client.names_mut();
    let (place, label) = match attribute {
        a if is(a, "LIB-NAME") => (&mut names.library, "lib-name"),
        a if is(a, "LIB-VER") => (&mut names.library_version, "lib-ver"),
        other => {
            return Err(Refusal::text(format!(
                "ERR Unrecognized option '{}'",
                super::lossy(other)
            )));
        }
    };
    if !value.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::text(format!(
            "ERR {label} cannot contain spaces, newlines or special characters."
        )));
    }
    *place = String::from_utf8_lossy(value).into_owned();
    write::simple(out, "OK");
    Ok(())
}

fn switch(arg: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    if !is(arg, "ON") && !is(arg, "OFF") {
        return Err(Refusal::text("ERR syntax error"));
    }
    write::simple(out, "OK");
    Ok(())
}

fn tracking_info(protocol: Protocol, out: &mut Vec<u8>) {
    write::map(out, protocol, 3);
    write::bulk(out, "flags");
    write::set(out, protocol, 1);
    write::bulk(out, "off");
    write::bulk(out, "redirect");
    write::integer(out, -1);
    write::bulk(out, "prefixes");
    write::array(out, 0);
}

/// One client's line of `CLIENT LIST`, with the server's fields in the server's order, and its line end.
pub fn line(client: &Client, now_ms: u64) -> String {
    let address =
        |address: Option<std::net::SocketAddr>| address.map_or_else(String::new, |a| a.to_string());
    let none = crate::client::Names::default();
    let names = client.names.as_deref().unwrap_or(&none);
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    format!(
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags=N db=0 sub=0 psub=0 ssub=0 multi=-1 qbuf=0 qbuf-free=0 argv-mem=0 \
         multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user=default redir=-1 resp={} lib-name={} lib-ver={} tot-cmds={}\n",
        client.id,
        address(client.peer),
        address(client.local),
        names.name,
        seconds(client.since_ms),
        seconds(client.active_ms),
        client.last,
        if client.protocol == Protocol::Resp3 { 3 } else { 2 },
        names.library,
        names.library_version,
        client.commands,
    )
}
