//! Watching over a source that does not answer, until one of its replicas takes over.
//!
//! ```text
//!  source dies ──────── replica is promoted ──── it is told which slots are on their way
//!       └─ CLIENT PAUSE … WRITE, again and again ─┘└─ and lets writes through ─┘
//! ```
//! A replica does not know which slots are on their way (before Valkey 8), and cannot be told. When it has taken over it answers
//! that keys which have moved are not there, and clients would make them anew beside what the target has of them. So it lets no
//! write through from before it takes over until it knows. Where that holds without a gap, and the target had no keys of these
//! slots before, what the target has of a key is right: the heir has at most what the source had sent on before the key moved.
//!
//! A replica that is held takes nothing from its source either. So only one is held that has lost its source itself: that this
//! program does not reach it may be this program's fault.
//!
//! A server has one pause, whoever asks for it, keeps the later end of two, and tells nobody whether it is paused. So it cannot be
//! known whether an administrator has paused writes there too: letting them through ends that pause as well. The manual says so.

use std::time::{Duration, Instant};

use super::Work;
use super::ends::{End, words};
use super::remedy::{Remedy, Setback};
use crate::cluster::NodeId;
use crate::manage::quarantine::Right;
use crate::manage::view::ClusterView;
use crate::resp::value;

/// For how long a node is held each time. Should this program die meanwhile, so long do clients wait for nothing.
const HOLD: Duration = Duration::from_secs(2);
/// Bytes of keys that are deleted in one go with letting clients through: a node reads so much in one piece.
const DELETED: usize = 8 << 10;

/// Nodes that are held.
#[derive(Default)]
pub(super) struct Vigil {
    held: Vec<Held>,
    /// Something has failed since the slots were opened.
    has_failed: bool,
    /// What the target has of a key may be older than what the source has, or had: it was there before, or the source may have
    /// served the key after it had failed to send it.
    in_doubt: bool,
}

struct Held {
    end: End,
    /// It lets no write through until then.
    until: Instant,
    /// It was a replica when that began, and there was no gap since.
    is_unbroken: bool,
}

impl Vigil {
    /// Whether somebody is about to take over.
    pub(super) fn is_kept(&self) -> bool {
        !self.held.is_empty()
    }

    /// Takes note of what went wrong.
    pub(super) fn note(&mut self, setback: &Setback) {
        self.has_failed = true;
        self.in_doubt |= setback.remedy == Remedy::Again;
    }

    /// The target may have old copies.
    pub(super) fn doubt(&mut self) {
        self.in_doubt = true;
    }

    /// Whether both ends may have copies of a key that differ.
    pub(super) fn expects_conflicts(&self) -> bool {
        self.has_failed || self.in_doubt
    }

    /// Holds the replicas of a source that does not answer, and who has taken over from it until it knows of the move.
    pub(super) async fn keep(&mut self, work: &Work<'_>, source: &NodeId, view: &ClusterView) {
        let source = work.company.borrow().now(source);
        for mut held in std::mem::take(&mut self.held) {
            if held.again().await {
                self.held.push(held);
            }
        }
        if view.node(&source).is_some() {
            self.in_doubt |= self.held.iter().all(|held| held.end.id != source);
            return;
        }
        for node in view.replicas_of(&source) {
            if self.held.iter().all(|held| held.end.id != node.own.id)
                && let Ok(end) = work.open(&node.own.id).await
            {
                self.held.extend(Held::begin(end).await);
            }
        }
    }

    /// Whose copies are right of keys that a source and its target have, for as long as a node is held each time.
    pub(super) async fn right(&mut self, source: &NodeId) -> Right {
        let Some(held) = self.held.iter_mut().find(|held| held.end.id == *source) else {
            return Right::Owner;
        };
        let is_held = held.again().await;
        if is_held && held.is_unbroken && !self.in_doubt { Right::Other } else { Right::Owner }
    }

    /// Deletes copies of a source that are wrong, before it lets any client through who would use them. Tells whose copies are
    /// right after all: those of a source that was not held meanwhile may be newer by now, and are left.
    pub(super) async fn delete(
        &mut self,
        source: &NodeId,
        keys: &[Vec<u8>],
    ) -> Result<Right, Setback> {
        for some in pieces(keys) {
            if self.right(source).await == Right::Owner {
                return Ok(Right::Owner);
            }
            let held = self.held.iter_mut().find(|held| held.end.id == *source);
            held.expect("whoever is not held is right").delete(some).await?;
        }
        Ok(Right::Other)
    }

    /// Lets everybody go.
    pub(super) async fn end(&mut self) {
        for mut held in self.held.drain(..) {
            // What does not hear of it goes on by itself soon.
            let _ = held.end.say(&["CLIENT", "UNPAUSE"]).await;
        }
    }
}

impl Held {
    /// Holds a replica that has lost its source, if it can be: servers before 6.2 cannot hold writes alone.
    async fn begin(mut end: End) -> Option<Self> {
        if link(&mut end).await != Some(Link::Lost) {
            return None;
        }
        let until = Instant::now() + HOLD;
        // One that could not be let go again is not held.
        let requests = [unpause(), pause(), words(&["ROLE"])];
        let replies = end.about_keys(&requests).await.ok()?;
        let role = value::array(replies.last()?)?.first().and_then(value::text);
        Some(Self { end, until, is_unbroken: role == Some("slave") })
    }

    /// Deletes keys: it lets writes through for that one.
    async fn delete(&mut self, keys: &[Vec<u8>]) -> Result<(), Setback> {
        let begun = Instant::now();
        let delete = [words(&["DEL"]), keys.to_vec()].concat();
        self.end.about_keys(&[unpause(), delete, pause()]).await?;
        self.is_unbroken &= Instant::now() < self.until;
        self.until = begun + HOLD;
        Ok(())
    }

    /// Holds it on, unless it has its source back; tells whether it does.
    async fn again(&mut self) -> bool {
        let begun = Instant::now();
        if link(&mut self.end).await == Some(Link::Up) {
            // What does not hear of it goes on by itself soon.
            let _ = self.end.say(&["CLIENT", "UNPAUSE"]).await;
            self.is_unbroken = false;
            return false;
        }
        let is_paused = self.end.about_keys(&[pause()]).await.is_ok();
        let is_held = is_paused && Instant::now() < self.until;
        self.is_unbroken &= is_held;
        self.until = begun + HOLD;
        true
    }
}

/// What a node says of its link to its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Up,
    Lost,
    /// It is a primary.
    None,
}

async fn link(end: &mut End) -> Option<Link> {
    let reply = end.say(&["INFO", "replication"]).await.ok()?;
    Link::of(value::text(&reply)?)
}

impl Link {
    fn of(info: &str) -> Option<Self> {
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        match (field("role:")?.trim(), field("master_link_status:").map(str::trim)) {
            ("master", _) => Some(Self::None),
            (_, Some("up")) => Some(Self::Up),
            (_, Some("down")) => Some(Self::Lost),
            _ => None,
        }
    }
}

/// Keys in pieces of a bounded size; one that is longer goes alone.
fn pieces(keys: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let (mut pieces, mut rest) = (Vec::new(), keys);
    while !rest.is_empty() {
        let mut bytes = 0;
        let fits = |key: &&Vec<u8>| {
            bytes += key.len() + 16;
            bytes <= DELETED
        };
        let (piece, behind) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

fn unpause() -> Vec<Vec<u8>> {
    words(&["CLIENT", "UNPAUSE"])
}

fn pause() -> Vec<Vec<u8>> {
    words(&["CLIENT", "PAUSE", &HOLD.as_millis().to_string(), "WRITE"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Address;
    use crate::manage::access::Access;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    /// Whose copies are right after a source that was held until then was to delete some, and what it was asked.
    async fn deleted(until: Instant) -> (Right, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (id, address) = (NodeId("a".into()), Address::parse(&address, None).unwrap());
        let access = Access::default();
        let opened = End::open(&id, &address, &access, access.limit);
        let (end, accepted) = tokio::join!(opened, listener.accept());
        let held = Held { end: end.unwrap(), until, is_unbroken: true };
        let mut vigil = Vigil { held: vec![held], ..Vigil::default() };
        let told = async move { vigil.delete(&id, &[b"k".to_vec()]).await.unwrap() };
        tokio::join!(told, answer(accepted.unwrap().0))
    }

    /// Answers as a node that is a primary by now, and gives what it was asked.
    async fn answer(mut stream: TcpStream) -> String {
        let answers = [
            ("INFO", "$11\r\nrole:master\r\n"),
            ("PAUSE", "+OK\r\n"),
            ("DEL", "+OK\r\n:1\r\n+OK\r\n"),
        ];
        let (mut asked, mut answers) = (Vec::new(), answers.into_iter().peekable());
        while stream.read_buf(&mut asked).await.unwrap() > 0 {
            let text = String::from_utf8_lossy(&asked);
            if let Some((_, reply)) =
                answers.next_if(|(word, _)| text.contains(&format!("{word}\r\n")))
            {
                stream.write_all(reply.as_bytes()).await.unwrap();
            }
        }
        String::from_utf8(asked).unwrap()
    }

    #[tokio::test]
    async fn nothing_is_deleted_of_a_source_that_was_not_held_meanwhile() {
        let (right, asked) = deleted(Instant::now() + 10 * HOLD).await;
        assert!(right == Right::Other && asked.contains("DEL\r\n"), "{right:?} {asked}");
        let (right, asked) = deleted(Instant::now()).await;
        assert!(right == Right::Owner && !asked.contains("DEL\r\n"), "{right:?} {asked}");
    }

    #[test]
    fn only_a_replica_that_has_lost_its_primary_is_held() {
        let check = |info: &str, expected: Option<Link>| assert_eq!(Link::of(info), expected);
        check("# Replication\r\nrole:slave\r\nmaster_link_status:up\r\n", Some(Link::Up));
        check("# Replication\r\nrole:slave\r\nmaster_link_status:down\r\n", Some(Link::Lost));
        check("# Replication\r\nrole:master\r\nconnected_slaves:0\r\n", Some(Link::None));
        check("", None);
    }

    #[test]
    fn keys_are_deleted_in_pieces_that_are_read_at_once() {
        let check = |sizes: &[usize], expected: &[usize]| {
            let keys: Vec<_> = sizes.iter().map(|size| vec![b'k'; *size]).collect();
            let pieces: Vec<_> = pieces(&keys).iter().map(|piece| piece.len()).collect();
            assert_eq!(pieces, expected);
        };
        check(&[], &[]);
        check(&[10; 5], &[5]);
        check(&[4000, 4000, 4000], &[2, 1]);
        check(&[10, 100_000, 10], &[1, 1, 1]);
    }
}
