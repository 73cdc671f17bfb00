//! Who the clients are: what is noted of those who want more than they may, and what becomes of all when users change.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::connection::Session;
use super::{Member, Shared};
use crate::acl::Users;
use crate::local::muster::{Muster, Share};
use crate::local::{self, Proxy, UsersFile, denials};
use crate::refusal::Refusal;
use crate::replies::{Promise, Reply};

/// Held by the one who writes the file of users.
static SAVING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

impl Session {
    /// Takes note of a refusal for `ACL LOG`, if it has to do with what the client may do.
    pub(super) fn note_denial(&self, refusal: &Refusal) {
        let client = self.client.borrow();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let unix_ms = u64::try_from(now.as_millis()).unwrap_or(0);
        let line = || {
            let now_ms = self.shared.pool.clock.millis();
            let line = local::client_line(&client, &local::client_letters(&client), now_ms);
            line.trim_end().to_owned()
        };
        if let Some(entry) = denials::Entry::of(refusal, &client, unix_ms, line) {
            denials::keep(&mut self.shared.denials.borrow_mut(), entry);
        }
    }

    /// Reads or writes the file of users, and answers when that has come into effect.
    pub(super) fn use_file(
        &self,
        what: UsersFile,
        promise: Promise,
    ) -> impl Future<Output = ()> + use<> {
        let (shared, asker) = (Rc::clone(&self.shared), Rc::clone(&self.client));
        async move {
            let proxy = Arc::clone(&shared.proxy);
            let done = tokio::task::spawn_blocking(move || match what {
                UsersFile::Load => load(&proxy),
                UsersFile::Save => save(&proxy),
            });
            if let Err(refusal) = done.await.unwrap_or(Err(Refusal::Dropped)) {
                return shared.pool.refuse(promise, &refusal);
            }
            let id = asker.borrow().id;
            let share = shared.shares(&Muster::Renew(None), id).await;
            asker.borrow_mut().leaving |= share.is_asker;
            promise.fulfil(Reply::Small(b"+OK\r\n"));
        }
    }
}

impl Shared {
    /// Makes the clients the users that are in force now. Those end whose user is no more, or who listen to what it may
    /// not hear; whoever asks ends when it has its reply.
    pub(super) fn renew_users(&self, asker: u64) -> Share {
        let users = self.proxy.users.load();
        let mut ended: HashSet<u64> = HashSet::new();
        self.roster.each(|member| {
            let mut client = member.client.borrow_mut();
            if !client.renew(&users) {
                ended.insert(client.id);
            }
        });
        ended.extend(self.hub.trespassers());
        let is_asker = ended.remove(&asker);
        let is_ended = |member: &Member| ended.contains(&member.client.borrow().id);
        if !ended.is_empty() {
            self.roster.end_where(is_ended);
        }
        Share { is_asker, ..Share::default() }
    }

    /// What was denied to this worker's clients.
    pub(super) fn show_denials(&self) -> Share {
        let denials = self.denials.borrow().iter().cloned().collect();
        Share { denials, ..Share::default() }
    }
}

fn load(proxy: &Proxy) -> Result<(), Refusal> {
    let Some(path) = &proxy.acl_file else { return Ok(()) };
    let name = path.display().to_string();
    let text = fs::read_to_string(path).map_err(|error| {
        Refusal::text(format!("ERR Error loading ACLs, opening file '{name}': {error}"))
    })?;
    let users = Users::parse(&text, &name);
    let users = users.map_err(|problems| {
        let end = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed";
        Refusal::text(format!("ERR {problems} {end}"))
    })?;
    proxy.users.store(Arc::new(users));
    Ok(())
}

fn save(proxy: &Proxy) -> Result<(), Refusal> {
    let Some(path) = &proxy.acl_file else { return Ok(()) };
    // Users that were read earlier must not be written later.
    let _turn = SAVING.blocking_lock();
    replace(path, &proxy.users.load().text()).map_err(|error| {
        tracing::warn!(file = %path.display(), %error, "cannot save the users");
        Refusal::text(
            "ERR There was an error trying to save the ACLs. Please check the server logs for more information",
        )
    })
}

/// The file is there as it was or as it is to be, whatever happens meanwhile, and has the rights that it had.
fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    let (name, file) = beside(path)?;
    let replaced = fill(file, path, text).and_then(|()| fs::rename(&name, path));
    if replaced.is_err() {
        // What cannot be removed either is of no use, and harms nobody.
        let _ = fs::remove_file(&name);
    }
    replaced
}

/// A new file in the same folder, which nobody else writes and only its owner may read.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    // Processes that were killed may have left files, and may have had the same number.
    const TRIES: u32 = 1000;
    for number in 0..TRIES {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{}-{number}.tmp", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (name.into(), file)),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

fn fill(mut file: File, path: &Path, text: &[u8]) -> io::Result<()> {
    if let Ok(known) = fs::metadata(path) {
        file.set_permissions(known.permissions())?;
    }
    file.write_all(text)?;
    file.sync_all()
}
