//! Who clients are: users and their rights, changed while clients are connected, and what others see of it.

use std::fs;
use std::sync::Arc;

use slotway::acl::Users;
use slotway::proxy::{Changes, Options, Reading, Reread};

use crate::client::{Client, bulk};
use crate::fake::Act;
use crate::rig::{Rig, Setup, rig};

const OK: &str = "+OK\r\n";
const DENIED_KEY: &str =
    "-NOPERM this user has no permissions to access one of the keys used as arguments\r\n";
const CHANGED: &str = "-NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. This command is no longer allowed for the following reason:";

fn denied(command: &str) -> String {
    format!("-NOPERM this user has no permissions to run the '{command}' command\r\n")
}

/// A proxy with several workers: clients are spread over them.
fn spread() -> Setup {
    rig(1).with(|options| options.workers = 2)
}

/// A client that is the user `me`, made with these rules.
async fn me(rig: &Rig, admin: &mut Client, rules: &str) -> Client {
    let made = admin.ask(&format!("ACL SETUSER me on >secret {rules}")).await;
    assert_eq!(made, OK);
    let mut client = rig.client().await;
    assert_eq!(client.ask("AUTH me secret").await, OK);
    client
}

#[test]
fn a_client_is_who_it_says_and_shows() {
    spread().run(async |rig| {
        let (mut admin, key) = (rig.client().await, rig.key(0));
        let mut client = me(rig, &mut admin, &format!("~{key} +get +acl|whoami")).await;
        assert_eq!(client.ask("ACL WHOAMI").await, bulk("me"));
        assert_eq!(client.ask(&format!("GET {key}")).await, "$-1\r\n");
        assert_eq!(client.ask(&format!("SET {key} 1")).await, denied("set"));
        assert_eq!(client.ask("GET other").await, DENIED_KEY);
        assert_eq!(client.ask("MONITOR").await, denied("monitor"));
        assert_eq!(client.ask("PING").await, denied("ping"));
        let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
        assert_eq!(client.ask("AUTH me wrong").await, wrong);
        assert_eq!(client.ask("ACL WHOAMI").await, bulk("me"));
        assert_eq!(client.ask("RESET").await, "+RESET\r\n");
        assert_eq!(client.ask("ACL WHOAMI").await, bulk("default"));
        assert!(client.ask("HELLO 3 AUTH me secret SETNAME x").await.starts_with("%7\r\n"));
        assert_eq!(client.ask("ACL WHOAMI").await, bulk("me"));
        assert_eq!(admin.ask("ACL SETUSER me off").await, OK);
        assert_eq!(client.ask("ACL WHOAMI").await, bulk("me"));
        assert_eq!(client.ask("AUTH me secret").await, wrong);
    });
}

#[test]
fn rights_change_while_clients_are_connected() {
    spread().run(async |rig| {
        let (mut admin, key) = (rig.client().await, rig.key(0));
        let mut clients = vec![me(rig, &mut admin, "~* +@all").await];
        for _ in 0..3 {
            clients.push(me(rig, &mut admin, "").await);
        }
        for (rules, reply) in [("-get", denied("get")), ("+get", "$-1\r\n".to_owned())] {
            assert_eq!(admin.ask(&format!("ACL SETUSER me {rules}")).await, OK);
            for client in &mut clients {
                assert_eq!(client.ask(&format!("GET {key}")).await, reply);
            }
        }
        let error = "-ERR Error in ACL SETUSER modifier '+nothing': Unknown command or category name in ACL\r\n";
        assert_eq!(admin.ask("ACL SETUSER me -@all +nothing").await, error);
        assert_eq!(clients[0].ask(&format!("GET {key}")).await, "$-1\r\n");
    });
}

#[test]
fn clients_of_a_user_that_is_deleted_are_disconnected() {
    spread().run(async |rig| {
        let mut admin = rig.client().await;
        let mut client = me(rig, &mut admin, "+@all").await;
        let mut own = me(rig, &mut admin, "").await;
        let error = "-ERR The 'default' user cannot be removed\r\n";
        assert_eq!(admin.ask("ACL DELUSER me default").await, error);
        assert_eq!(own.ask("ACL DELUSER nobody").await, ":0\r\n");
        // Whoever deletes itself hears that it is done.
        own.send_all(&["ACL DELUSER me nobody", "PING"]).await;
        assert_eq!(own.rest().await, ":1\r\n");
        assert_eq!(client.rest().await, "");
        assert_eq!(admin.ask("ACL GETUSER me").await, "$-1\r\n");
        assert_eq!(admin.ask("ACL USERS").await, "*1\r\n$7\r\ndefault\r\n");
    });
}

#[test]
fn within_a_transaction_rights_count_twice() {
    spread().run(async |rig| {
        let (mut admin, key) = (rig.client().await, rig.key(0));
        let mut client = me(rig, &mut admin, "~* +@all -del").await;
        let lines = ["MULTI", &format!("DEL {key}"), "EXEC"];
        let aborted = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        assert_eq!(client.ask_all(&lines).await, [OK, &denied("del"), aborted]);
        let lines =
            ["MULTI", &format!("SET {key} 1"), "PING", &format!("APPEND {key} 2"), "CLIENT ID"];
        client.ask_all(&lines).await;
        admin.ask("ACL SETUSER me -set -client").await;
        let replies = client.ask("EXEC").await;
        let lost = format!("{CHANGED} no permission to execute the command or subcommand\r\n");
        assert_eq!(replies, format!("*4\r\n{lost}+PONG\r\n:1\r\n{lost}"));
        client.ask_all(&["MULTI", &format!("GET {key}")]).await;
        admin.ask("ACL SETUSER me resetkeys").await;
        let lost = format!("*1\r\n{CHANGED} no permission to touch the specified keys\r\n");
        assert_eq!(client.ask("EXEC").await, lost);
        admin.ask("ACL SETUSER me -exec").await;
        client.ask("MULTI").await;
        let refused = denied("exec").replace('-', "-EXECABORT Transaction discarded because of: ");
        assert_eq!(client.ask("EXEC").await, refused);
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn who_may_not_listen_any_more_is_disconnected() {
    spread().run(async |rig| {
        let mut admin = rig.client().await;
        let confirmed = |name: &str| format!("*3\r\n$9\r\nsubscribe\r\n$1\r\n{name}\r\n:1\r\n");
        let mut clients = Vec::new();
        for name in ["a", "b"] {
            let mut client = me(rig, &mut admin, "&a &b +subscribe").await;
            rig.node(0).next("SUBSCRIBE", Act::Reply(confirmed(name).into_bytes()));
            assert_eq!(client.ask(&format!("SUBSCRIBE {name}")).await, confirmed(name));
            clients.push(client);
        }
        let channel =
            "-NOPERM this user has no permissions to access one of the channels used as arguments\r\n";
        assert_eq!(clients[0].ask("SUBSCRIBE c").await, channel);
        assert_eq!(admin.ask("ACL SETUSER me resetchannels &b").await, OK);
        assert_eq!(clients[0].rest().await, "");
        assert_eq!(clients[1].ask("SUBSCRIBE c").await, channel);
    });
}

#[test]
fn what_was_denied_is_logged() {
    spread().run(async |rig| {
        let mut admin = rig.client().await;
        let mut client = me(rig, &mut admin, "~a* +@all -del").await;
        for line in ["GET b", "GET b", "DEL a", "AUTH me wrong", "MULTI", "GET b", "DISCARD"] {
            client.ask(line).await;
        }
        // On the other worker.
        let mut other = me(rig, &mut admin, "").await;
        other.ask("GET b").await;
        let entry = |count: u8, [reason, context, object]: [&str; 3]| {
            format!(
                "$5\r\ncount\r\n:{count}\r\n$6\r\nreason\r\n{}$7\r\ncontext\r\n{}$6\r\nobject\r\n{}$8\r\nusername\r\n$2\r\nme\r\n$11\r\nage-seconds\r\n$5\r\n0.",
                bulk(reason), bulk(context), bulk(object),
            )
        };
        let log = admin.ask("ACL LOG").await;
        let told = [
            entry(3, ["key", "toplevel", "b"]),
            entry(1, ["key", "multi", "b"]),
            entry(1, ["auth", "toplevel", "AUTH"]),
            entry(1, ["command", "toplevel", "del"]),
        ];
        let places: Vec<_> = told.iter().map(|entry| log.find(entry)).collect();
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{places:?} in {log}");
        assert!(log.starts_with("*4\r\n*14\r\n") && log.contains(" user=me "), "{log}");
        assert!(admin.ask("ACL LOG 1").await.starts_with("*1\r\n"));
        assert_eq!(admin.ask("ACL LOG RESET").await, OK);
        assert_eq!(admin.ask("ACL LOG").await, "*0\r\n");
    });
}

#[test]
fn users_are_kept_in_a_file() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_owned();
    let given = path.clone();
    spread().with(move |options| options.acl_file = Some(given)).run(async |rig| {
        let mut admin = rig.client().await;
        let mut client = me(rig, &mut admin, "~* +@all").await;
        assert_eq!(admin.ask("ACL SAVE").await, OK);
        let text = fs::read_to_string(&path).expect("the file is there");
        assert!(text.starts_with("user default on nopass "), "{text}");
        let lines = ["user me on nopass -@all +ping", "user you on", "user default on nopass +@all"];
        fs::write(&path, lines.join("\n")).expect("the file can be written");
        assert_eq!(admin.ask("ACL LOAD").await, OK);
        assert_eq!(client.ask_all(&["PING", "GET x"]).await, ["+PONG\r\n", &denied("get")]);
        assert_eq!(admin.ask("GET x").await, DENIED_KEY);
        fs::write(&path, "user me on +nothing\n").expect("the file can be written");
        let name = path.display();
        let error = format!(
            "-ERR {name}:1: Unknown command or category name in ACL. WARNING: ACL errors detected, no change to the previously active ACL rules was performed\r\n"
        );
        assert_eq!(admin.ask("ACL LOAD").await, error);
        assert_eq!(client.ask("PING").await, "+PONG\r\n");
        fs::write(&path, "").expect("the file can be written");
        assert_eq!(admin.ask("ACL LOAD").await, OK);
        assert_eq!(client.rest().await, "");
        fs::remove_file(&path).expect("the file can go");
        assert!(admin.ask("ACL LOAD").await.contains("opening file"));
    });
    rig(1).run(async |rig| {
        let reply = rig.client().await.ask("ACL SAVE").await;
        assert!(reply.contains("not configured to use an ACL file"), "{reply}");
    });
}

/// Has the configuration be, when it is read again, as it is but for this change.
fn reread(options: &mut Options, change: impl FnOnce(&mut Options)) {
    let mut again = options.clone();
    change(&mut again);
    let read = move || Ok(Reading { options: again.clone(), changes: Changes::default() });
    options.reread = Some(Reread(Arc::new(read)));
}

#[test]
fn a_file_of_users_is_not_loaded_with_the_configuration() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let path = file.path().to_owned();
    let of_file = Users::parse("user me on nopass +@all", "").expect("a line that is right");
    let with = |options: &mut Options| {
        options.acl_file = Some(path);
        reread(options, |again| again.users = of_file);
    };
    spread().with(with).run(async |rig| {
        let mut admin = rig.client().await;
        assert_eq!(admin.ask("ACL SETUSER me off").await, OK);
        rig.proxy().reload().expect("it is read");
        assert!(admin.ask("ACL LIST").await.contains("user me off "));
    });
}

#[test]
fn what_was_set_stays_when_the_configuration_is_read_again() {
    let with = |options: &mut Options| {
        reread(options, |again| again.session.idle_timeout = std::time::Duration::from_secs(9));
    };
    spread().with(with).run(async |rig| {
        let mut admin = rig.client().await;
        assert_eq!(admin.ask("CONFIG SET maxclients 77").await, OK);
        rig.proxy().reload().expect("it is read");
        assert!(admin.ask("CONFIG GET maxclients").await.contains("\r\n77\r\n"));
        assert!(admin.ask("CONFIG GET timeout").await.contains("\r\n9\r\n"));
        assert_eq!(admin.ask("CONFIG SET timeout 5").await, OK);
        rig.proxy().reload().expect("it is read");
        assert!(admin.ask("CONFIG GET timeout").await.contains("\r\n5\r\n"));
    });
}

#[test]
fn a_file_that_several_save_is_whole_at_any_time() {
    const SAVES: usize = 30;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("users.acl");
    let given = path.clone();
    spread().with(move |options| options.acl_file = Some(given)).run(async |rig| {
        let mut admin = rig.client().await;
        for number in 0..200 {
            admin.ask(&format!("ACL SETUSER u{number} on >secret")).await;
        }
        assert_eq!(admin.ask("ACL SAVE").await, OK);
        let expected = fs::read_to_string(&path).expect("it is saved");
        let mut savers = Vec::new();
        for _ in 0..8 {
            let mut client = rig.client().await;
            let save = async move {
                for _ in 0..SAVES {
                    assert_eq!(client.ask("ACL SAVE").await, OK);
                }
            };
            savers.push(tokio::spawn(save));
        }
        while savers.iter().any(|saver| !saver.is_finished()) {
            assert_eq!(fs::read_to_string(&path).expect("it is there"), expected);
            tokio::task::yield_now().await;
        }
        for saver in savers {
            saver.await.expect("it saves");
        }
        assert_eq!(fs::read_dir(folder.path()).expect("it is there").count(), 1);
        let mode = fs::metadata(&path).expect("it is there").permissions();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o777, 0o600);
    });
}

/// The keys of a module's command that moves them may be more than the first one, which is all that its node tells of.
#[test]
fn who_is_limited_by_keys_is_denied_commands_with_others() {
    let teach = async |cluster: &crate::fake::Cluster| {
        cluster.model().commands =
            b"*1\r\n*7\r\n$7\r\nmod.set\r\n:-3\r\n*2\r\n+write\r\n+movablekeys\r\n:1\r\n:1\r\n:1\r\n*0\r\n"
                .to_vec();
    };
    rig(1).run_from(teach, async |rig| {
        rig.proxy().ready().await;
        let mut admin = rig.client().await;
        rig.node(0).always("MOD.SET", "ERR as you wish");
        let wanted = "-ERR as you wish\r\n";
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        while admin.ask("MOD.SET a b").await != wanted {
            assert!(std::time::Instant::now() < deadline, "the command is never learned");
        }
        let mut client = me(rig, &mut admin, "~a +@all").await;
        assert_eq!(client.ask("MOD.SET a b").await, DENIED_KEY);
        admin.ask("ACL SETUSER me ~*").await;
        assert_eq!(client.ask("MOD.SET a b").await, wanted);
    });
}

/// Of `DEBUG` the table has few subcommands; rules are on all of them.
#[test]
fn who_may_not_debug_is_told_so() {
    spread().run(async |rig| {
        let mut admin = rig.client().await;
        let mut client = me(rig, &mut admin, "~* +@all -debug").await;
        assert_eq!(client.ask("DEBUG SLEEP 0").await, denied("debug"));
        assert!(admin.ask("ACL LOG").await.contains("\r\ndebug\r\n"));
    });
}

#[test]
fn a_password_can_be_required_from_now_on() {
    spread().run(async |rig| {
        let (mut admin, mut other) = (rig.client().await, rig.client().await);
        // Connected is who has been answered.
        assert_eq!(other.ask("PING").await, "+PONG\r\n");
        assert_eq!(admin.ask("CONFIG SET requirepass secret maxclients 99").await, OK);
        assert_eq!(other.ask("PING").await, "+PONG\r\n");
        let mut late = rig.client().await;
        assert_eq!(late.ask("PING").await, "-NOAUTH Authentication required.\r\n");
        assert_eq!(late.ask_all(&["AUTH secret", "PING"]).await, [OK, "+PONG\r\n"]);
        let mut never = rig.client().await;
        assert_eq!(never.ask("PING").await, "-NOAUTH Authentication required.\r\n");
        let line = "CONFIG";
        let words = [line, "SET", "requirepass", ""];
        let mut wire = Vec::new();
        slotway::resp::write::request(&mut wire, words.iter().map(|word| word.as_bytes()));
        admin.send(wire).await;
        assert_eq!(admin.read().await, OK);
        assert_eq!(never.ask("PING").await, "+PONG\r\n");
    });
}

#[test]
fn others_see_who_a_client_is_and_no_passwords() {
    spread().run(async |rig| {
        let mut admin = rig.client().await;
        let mut monitor = rig.client().await;
        admin.ask("CONFIG SET slowlog-log-slower-than 0").await;
        let mut client = me(rig, &mut admin, "+@all").await;
        assert!(client.ask("CLIENT INFO").await.contains(" user=me "));
        let list = admin.ask("CLIENT LIST").await;
        assert_eq!(list.matches(" user=default ").count(), 2, "{list}");
        let log = admin.ask("SLOWLOG GET -1").await;
        assert!(log.contains("(redacted)") && !log.contains("secret"), "{log}");
        monitor.ask("MONITOR").await;
        admin.ask("CLIENT LIST").await;
        client.ask("HELLO 2 AUTH me secret").await;
        let line = monitor.read().await;
        assert!(
            line.ends_with("\"HELLO\" \"2\" \"AUTH\" \"(redacted)\" \"(redacted)\"\r\n"),
            "{line}"
        );
        assert_eq!(admin.ask("CLIENT KILL USER nobody").await, "-ERR No such user 'nobody'\r\n");
        assert_eq!(admin.ask("CLIENT KILL USER me").await, ":1\r\n");
        assert_eq!(client.rest().await, "");
    });
}

#[test]
fn the_default_user_may_be_limited_or_off() {
    let users = "user default off nopass ~* +@all\nuser me on nopass ~* +@all";
    let users = Users::parse(users, "").expect("lines that are right");
    spread().with(move |options| options.users = users).run(async |rig| {
        let mut client = rig.client().await;
        assert_eq!(client.ask("PING").await, "-NOAUTH Authentication required.\r\n");
        assert_eq!(client.ask_all(&["AUTH me x", "PING"]).await, [OK, "+PONG\r\n"]);
        assert_eq!(client.ask("ACL SETUSER default on -@all +get").await, OK);
        let mut other = rig.client().await;
        assert_eq!(other.ask("PING").await, denied("ping"));
        assert_eq!(other.ask(&format!("GET {}", rig.key(0))).await, "$-1\r\n");
    });
}

#[test]
fn questions_about_users_are_answered() {
    rig(1).run(async |rig| {
        let (mut client, mut other) = (rig.client().await, rig.resp3_client().await);
        client.ask("ACL SETUSER me on >a ~k* %R~r* &c* +@all -set (+get ~s)").await;
        let hash = "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb";
        let line = format!("user me on #{hash} ~k* %R~r* resetchannels &c* +@all -set (~s resetchannels -@all +get)");
        assert!(client.ask("ACL LIST").await.ends_with(&bulk(&line)));
        let told = |map: &str, set: &str, inner: &str| {
            let words = |words: &[&str]| words.iter().map(|word| bulk(word)).collect::<String>();
            let own = words(&["commands", "+@all -set", "keys", "~k* %R~r*", "channels", "&c*"]);
            let selector = words(&["commands", "-@all +get", "keys", "~s", "channels", ""]);
            let (flags, passwords, selectors) = (bulk("flags"), bulk("passwords"), bulk("selectors"));
            format!("{map}\r\n{flags}{set}1\r\n$2\r\non\r\n{passwords}*1\r\n{}{own}{selectors}*1\r\n{inner}\r\n{selector}", bulk(hash))
        };
        assert_eq!(client.ask("ACL GETUSER me").await, told("*12", "*", "*6"));
        assert_eq!(other.ask("ACL GETUSER me").await, told("%6", "~", "%3"));
        assert_eq!(other.ask("ACL GETUSER nobody").await, "_\r\n");
        assert!(client.ask("ACL CAT").await.starts_with("*21\r\n$8\r\nkeyspace\r\n"));
        assert!(client.ask("ACL CAT Scripting").await.contains("\r\n$11\r\nscript|load\r\n"));
        assert_eq!(client.ask("ACL CAT x").await, "-ERR Unknown category 'x'\r\n");
        for (bits, digits) in [("", 64), (" 5", 2), (" 4096", 1024)] {
            let password = client.ask(&format!("ACL GENPASS{bits}")).await;
            assert_ne!(password, client.ask("ACL GENPASS 4096").await);
            let digit = |c: &char| matches!(c, '0'..='9' | 'a'..='f');
            let body = password.split_once("\r\n").map_or("", |(_, body)| body);
            assert_eq!(body.chars().filter(digit).count(), digits, "{password}");
        }
        assert!(client.ask("ACL GENPASS 4097").await.starts_with("-ERR ACL GENPASS argument"));
        assert_eq!(client.ask("ACL DRYRUN me get k").await, OK);
        let lacking = "This user has no permissions to access the 'x' key";
        assert_eq!(client.ask("ACL DRYRUN me get x").await, bulk(lacking));
        for (line, error) in [
            ("nobody get x", "User 'nobody' not found"),
            ("me nonsense x", "Command 'nonsense' not found"),
            ("me client nonsense", "Command 'client' not found"),
            ("me get", "wrong number of arguments for 'get' command"),
        ] {
            assert_eq!(client.ask(&format!("ACL DRYRUN {line}")).await, format!("-ERR {error}\r\n"));
        }
        assert!(client.ask("ACL HELP").await.contains("+GENPASS [<bits>]\r\n"));
        let misused = "-ERR unknown subcommand or wrong number of arguments for 'CAT'. Try ACL HELP.\r\n";
        assert_eq!(client.ask("ACL CAT a b").await, misused);
        assert_eq!(client.ask("ACL X").await, "-ERR unknown subcommand 'X'. Try ACL HELP.\r\n");
    });
}

/// A node has to be told a script in front of the transaction's command that names it.
#[test]
fn scripts_in_a_transaction_are_checked_again_too() {
    spread().run(async |rig| {
        let (mut admin, key) = (rig.client().await, rig.key(0));
        let mut client = me(rig, &mut admin, "~* +@all").await;
        let mut wire = Vec::new();
        let words = [&b"SCRIPT"[..], b"LOAD", b"APPEND s"];
        slotway::resp::write::request(&mut wire, words.into_iter());
        admin.send(wire).await;
        let digest = admin.read().await.lines().nth(1).expect("a digest").to_owned();
        let (script, get) = (format!("EVALSHA {digest} 1 {key}"), format!("GET {key}"));
        let lost = format!("{CHANGED} no permission to execute the command or subcommand\r\n");
        client.ask_all(&["MULTI", &format!("SET {key} 1"), &script, &get]).await;
        admin.ask("ACL SETUSER me -set").await;
        assert_eq!(client.ask("EXEC").await, format!("*3\r\n{lost}:1\r\n$1\r\ns\r\n"));
        client.ask_all(&["MULTI", &script, &get]).await;
        admin.ask("ACL SETUSER me -evalsha").await;
        assert_eq!(client.ask("EXEC").await, format!("*2\r\n{lost}$1\r\ns\r\n"));
        admin.ask("ACL SETUSER me +evalsha").await;
        client.ask_all(&["MULTI", &script]).await;
        admin.ask("ACL SETUSER me -evalsha").await;
        assert_eq!(client.ask("EXEC").await, format!("*1\r\n{lost}"));
        assert_eq!(client.ask(&get).await, "$1\r\ns\r\n");
    });
}

#[test]
fn changes_at_the_same_time_are_all_made() {
    spread().run(async |rig| {
        let mut admins = [rig.client().await, rig.client().await];
        for number in 0..50 {
            for (at, admin) in admins.iter_mut().enumerate() {
                admin.send_all(&[&format!("ACL SETUSER u{at}-{number}")]).await;
            }
        }
        for admin in &mut admins {
            assert!(admin.read_n(50).await.iter().all(|reply| reply == OK));
        }
        assert!(admins[0].ask("ACL USERS").await.starts_with("*101\r\n"));
    });
}
