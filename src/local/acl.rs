//! `ACL`: the users of the proxy, shown and changed. The nodes know nothing of them.

use super::denials;
use super::muster::Muster;
use super::{After, Env, Proxy, help, is, lossy, misused, unknown_subcommand};
use crate::acl::{Asked, DEFAULT, Denial, User, Users, category};
use crate::client::Client;
use crate::command::learned::full_name;
use crate::command::table::CATEGORIES;
use crate::refusal::Refusal;
use crate::resp::request::Request;
use crate::resp::{Protocol, write};

const HELP: &[&str] = &[
    "ACL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    "CAT [<category>]",
    "    List all commands that belong to <category>, or all command categories",
    "    when no category is specified.",
    "DELUSER <username> [<username> ...]",
    "    Delete a list of users.",
    "DRYRUN <username> <command> [<arg> ...]",
    "    Returns whether the user can execute the given command without executing the command.",
    "GETUSER <username>",
    "    Get the user's details.",
    "GENPASS [<bits>]",
    "    Generate a secure 256-bit user password. The optional `bits` argument can",
    "    be used to specify a different size.",
    "LIST",
    "    Show users details in config file format.",
    "LOAD",
    "    Reload users from the ACL file.",
    "LOG [<count> | RESET]",
    "    Show the ACL log entries.",
    "SAVE",
    "    Save the current config to the ACL file.",
    "SETUSER <username> <attribute> [<attribute> ...]",
    "    Create or modify a user with the specified attributes.",
    "USERS",
    "    List all the registered usernames.",
    "WHOAMI",
    "    Return the current connection username.",
    "HELP",
    "    Prints this help.",
];

/// Bits of a password that `ACL GENPASS` makes, and the most that may be asked for.
const BITS: i64 = 256;
const BITS_MAX: i64 = 4096;

/// Entries that `ACL LOG` shows if it is not told how many.
const SHOWN: u64 = 10;

/// What is done with the file of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UsersFile {
    /// `ACL LOAD`.
    Load,
    /// `ACL SAVE`.
    Save,
}

/// Answers `ACL …`.
pub(super) fn acl(
    request: &Request<'_>,
    client: &Client,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<After, Refusal> {
    let users = env.proxy.users.load();
    match (request.arg(1), request.len()) {
        (sub, _) if is(sub, "SETUSER") => return set_user(request, env.proxy),
        (sub, _) if is(sub, "DELUSER") => return remove_users(request, env.proxy),
        (sub, _) if is(sub, "LOAD") => return file(UsersFile::Load, env.proxy),
        (sub, _) if is(sub, "SAVE") => return file(UsersFile::Save, env.proxy),
        (sub, 2..=3) if is(sub, "LOG") => return log(request, env),
        (sub, _) if is(sub, "GETUSER") => {
            show_user(users.find(request.arg(2)).map(|user| &**user), client.protocol, out);
        }
        (sub, _) if is(sub, "LIST") => list(users.iter().map(|user| user.line()), out),
        (sub, _) if is(sub, "USERS") => list(users.iter().map(|user| &user.name), out),
        (sub, _) if is(sub, "WHOAMI") => write::bulk(out, &client.user.name),
        (sub, 2) if is(sub, "CAT") => list(CATEGORIES.iter(), out),
        (sub, 3) if is(sub, "CAT") => commands_of(request.arg(2), out)?,
        (sub, _) if is(sub, "DRYRUN") => try_out(request, &users, env, out)?,
        (sub, 2..=3) if is(sub, "GENPASS") => make_password(request, env, out)?,
        (sub, _) if is(sub, "HELP") => help(out, HELP),
        (sub, _) if is(sub, "LOG") || is(sub, "CAT") || is(sub, "GENPASS") => {
            return Err(misused("ACL", sub));
        }
        (sub, _) => return Err(unknown_subcommand("ACL", sub)),
    }
    Ok(After::Next)
}

fn set_user(request: &Request<'_>, proxy: &Proxy) -> Result<After, Refusal> {
    let changed = proxy.change_users(|users| Ok((users.set(request.arg(2), request.args(3))?, ())));
    changed.map_err(|error: crate::acl::RuleError| Refusal::text(format!("ERR {error}")))?;
    Ok(After::Muster(Muster::Renew(None)))
}

fn remove_users(request: &Request<'_>, proxy: &Proxy) -> Result<After, Refusal> {
    if request.args(2).any(|name| name == DEFAULT.as_bytes()) {
        return Err(Refusal::text("ERR The 'default' user cannot be removed"));
    }
    let gone = proxy.change_users(|users| Ok::<_, Refusal>(users.without(request.args(2))))?;
    Ok(After::Muster(Muster::Renew(Some(gone))))
}

fn file(what: UsersFile, proxy: &Proxy) -> Result<After, Refusal> {
    match &proxy.acl_file {
        Some(_) => Ok(After::File(what)),
        None => Err(Refusal::text(
            "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store users in the Redis configuration.",
        )),
    }
}

fn log(request: &Request<'_>, env: &Env<'_>) -> Result<After, Refusal> {
    let most = match request.arg(2) {
        _ if request.len() == 2 => SHOWN,
        word if is(word, "RESET") => return Ok(After::Muster(Muster::ForgetDenials)),
        number => super::integer(number)
            .map(|number| u64::try_from(number).unwrap_or(0))
            .ok_or(Refusal::text("ERR value is not an integer or out of range"))?,
    };
    Ok(After::Muster(Muster::ShowDenials(denials::Look { most, now_ms: env.unix_us / 1000 })))
}

fn list(items: impl ExactSizeIterator<Item = impl AsRef<[u8]>>, out: &mut Vec<u8>) {
    write::array(out, items.len());
    items.for_each(|item| write::bulk(out, item));
}

fn show_user(user: Option<&User>, protocol: Protocol, out: &mut Vec<u8>) {
    let Some(user) = user else { return write::nil(out, protocol) };
    let mut rights = user.described();
    write::map(out, protocol, 6);
    write::bulk(out, "flags");
    write::set(out, protocol, user.flags().count());
    user.flags().for_each(|flag| write::bulk(out, flag));
    write::bulk(out, "passwords");
    list(user.passwords().iter(), out);
    rights.next().iter().for_each(|own| show_rights(own, out));
    write::bulk(out, "selectors");
    write::array(out, rights.len());
    for selector in rights {
        write::map(out, protocol, 3);
        show_rights(&selector, out);
    }
}

fn show_rights(rights: &[Vec<u8>; 3], out: &mut Vec<u8>) {
    for (name, rules) in ["commands", "keys", "channels"].iter().zip(rights) {
        write::bulk(out, name);
        write::bulk(out, rules);
    }
}

fn commands_of(name: &[u8], out: &mut Vec<u8>) -> Result<(), Refusal> {
    let known = CATEGORIES.iter().find(|category| is(name, category));
    let unknown = || Refusal::text(format!("ERR Unknown category '{}'", lossy(name)));
    let commands: Vec<&str> = category(known.ok_or_else(unknown)?).collect();
    list(commands.into_iter(), out);
    Ok(())
}

/// `ACL DRYRUN user command …`.
fn try_out(
    request: &Request<'_>,
    users: &Users,
    env: &Env<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Refusal> {
    let no_user = || Refusal::text(format!("ERR User '{}' not found", lossy(request.arg(2))));
    let user = users.find(request.arg(2)).ok_or_else(no_user)?;
    let args: Vec<&[u8]> = request.args(3).collect();
    let found = env.facts.learned.find(&args[..]);
    let found = found.filter(|found| found.words == 1 || found.sub.is_some());
    let no_command = || Refusal::text(format!("ERR Command '{}' not found", lossy(args[0])));
    let found = found.ok_or_else(no_command)?;
    if !found.spec().accepts(args.len()) {
        return Err(Refusal::Arity(full_name(&args[..], found.words)));
    }
    let lacking = match user.check(Asked { found, args: &args[..] }) {
        Ok(()) => {
            write::simple(out, "OK");
            return Ok(());
        }
        Err(Denial::Command) => {
            format!("run the '{}' command", full_name(&args[..], found.words))
        }
        Err(Denial::Key(at)) => {
            format!("access the '{}' key", String::from_utf8_lossy(args[at]))
        }
        Err(Denial::Channel(at)) => {
            format!("access the '{}' channel", String::from_utf8_lossy(args[at]))
        }
    };
    write::bulk(out, format!("This user has no permissions to {lacking}"));
    Ok(())
}

/// `ACL GENPASS [bits]`: as many hexadecimal digits as it takes.
fn make_password(request: &Request<'_>, env: &Env<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let bits = if request.len() == 2 { Some(BITS) } else { super::integer(request.arg(2)) };
    let bits = bits.ok_or(Refusal::text("ERR value is not an integer or out of range"))?;
    if !(1..=BITS_MAX).contains(&bits) {
        return Err(Refusal::text(format!(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to {BITS_MAX}"
        )));
    }
    let digits = usize::try_from(bits).unwrap_or(0).div_ceil(4);
    let mut bytes = vec![0; digits.div_ceil(2)];
    (env.fill_by_chance)(&mut bytes);
    write::bulk(out, &write::hexadecimal(&bytes)[..digits]);
    Ok(())
}
