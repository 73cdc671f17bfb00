//! Copies that lose: where two nodes have a key and one of them is right, the other one's copy is written to a file before it
//! goes.
//!
//! ```text
//!  <state>/quarantine/j-01764277531123-4242.jsonl
//!    {"node":"127.0.0.1:7002","slot":7,"key":"6b3a31","ttl_ms":-1,"dump":"00027630…"}
//! ```
//! Keys and dumps are bytes, in hexadecimal. A copy comes back with `RESTORE key ttl dump`, under a name of its own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::likeness::alike;
use super::mover::ends::End;
use super::mover::remedy::{Remedy, Setback};
use crate::cluster::{Address, Slot};
use crate::resp::value::{self, Value};
use crate::resp::write::hexadecimal;

/// Folder of these files below the state folder.
const FOLDER: &str = "quarantine";

/// Keys that are looked for in one go.
const SOUGHT: usize = 500;
/// Keys that are compared in one go; each copy may be large.
pub(super) const COMPARED: usize = 20;

/// A file of copies, made when there is the first one.
#[derive(Debug)]
pub struct Quarantine {
    path: PathBuf,
    file: Option<File>,
    count: usize,
}

/// Whose copies of keys that two nodes have are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Right {
    /// The owner's of their slot, as long as it serves them.
    Owner,
    /// Those of the node that takes the slot in: the owner has taken over from one that had given them away, and served
    /// nobody since.
    Other,
}

/// A copy that has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Who had it.
    pub node: Address,
    /// Its slot.
    pub slot: Slot,
    /// Its key.
    pub key: Vec<u8>,
    /// What it had left to live, in milliseconds; -1 for ever.
    pub ttl_ms: i64,
    /// What `DUMP` gave.
    pub dump: Vec<u8>,
}

#[derive(Serialize)]
struct Line<'a> {
    node: &'a Address,
    slot: Slot,
    key: String,
    ttl_ms: i64,
    dump: String,
}

impl Quarantine {
    /// The copies of a job.
    pub fn new(folder: &Path, job: &str) -> Self {
        let path = folder.join(FOLDER).join(format!("{job}.jsonl"));
        Self { path, file: None, count: 0 }
    }

    /// Writes copies; they are on disk when this returns.
    pub fn keep(&mut self, copies: &[Copy]) -> io::Result<()> {
        if copies.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for Copy { node, slot, key, ttl_ms, dump } in copies {
            let line = Line {
                node,
                slot: *slot,
                key: hexadecimal(key),
                ttl_ms: *ttl_ms,
                dump: hexadecimal(dump),
            };
            text.push_str(&serde_json::to_string(&line)?);
            text.push('\n');
        }
        let mut file = self.open()?;
        file.write_all(text.as_bytes())?;
        file.sync_data()?;
        self.count += copies.len();
        Ok(())
    }

    /// Keeps the copies that lose of these keys of a slot, which the owner and another node have, where they differ. The other
    /// node has to be taking the slot in.
    pub(super) async fn keep_conflicts(
        &mut self,
        (slot, both): (Slot, &[Vec<u8>]),
        owner: &mut End,
        other: &mut End,
        right: Right,
    ) -> Result<(), Setback> {
        for some in both.chunks(COMPARED) {
            let request = |verb: &str| -> Vec<_> {
                some.iter().map(|key| vec![verb.as_bytes().to_vec(), key.clone()]).collect()
            };
            let dumps = (owner.ask(&request("DUMP")).await?, other.ask(&request("DUMP")).await?);
            let loser = if right == Right::Owner { &mut *other } else { &mut *owner };
            let ttls = loser.ask(&request("PTTL")).await?;
            let node = loser.address.clone();
            let (winners, losers) = match right {
                Right::Owner => dumps,
                Right::Other => (dumps.1, dumps.0),
            };
            let mut copies = Vec::new();
            for (((key, wins), loses), ttl) in some.iter().zip(winners).zip(losers).zip(ttls) {
                // A key that has gone since has no copy to lose; if the one that wins has gone, the other is the last. An owner
                // that is held, with its clients, is not held on for a closer look: it may give up copies that are kept for
                // nothing.
                if let Value::BulkString(loses) = &loses
                    && wins != Value::BulkString(loses.clone())
                    && (right == Right::Other
                        || !alike(owner.control(), other.control(), key).await?)
                {
                    copies.push(Copy {
                        node: node.clone(),
                        slot,
                        key: key.clone(),
                        ttl_ms: value::integer(&ttl).unwrap_or(-1),
                        dump: loses.to_vec(),
                    });
                }
            }
            self.keep(&copies).map_err(|error| self.lost(&error))?;
        }
        Ok(())
    }

    fn lost(&self, error: &io::Error) -> Setback {
        let path = self.path.display();
        Setback::new(
            Remedy::Nothing,
            format!("cannot keep a copy that would be lost: {path}: {error}"),
        )
    }

    fn open(&mut self) -> io::Result<&File> {
        if self.file.is_none() {
            fs::create_dir_all(self.path.parent().unwrap_or(Path::new(".")))?;
            self.file = Some(OpenOptions::new().create(true).append(true).open(&self.path)?);
        }
        Ok(self.file.as_ref().expect("it was just opened"))
    }

    /// How many copies there are, and where.
    pub fn kept(&self) -> Option<(usize, &Path)> {
        (self.count > 0).then_some((self.count, &self.path))
    }
}

/// The keys of slots that two nodes have, by slot.
pub(super) async fn held_by_both(
    slots: &[Slot],
    owner: &mut End,
    other: &mut End,
) -> Result<BTreeMap<Slot, Vec<Vec<u8>>>, Setback> {
    let counts = other.count_keys(slots).await?;
    let counted = slots.iter().copied().zip(counts).filter(|(_, count)| *count > 0);
    let keys = other.names(&counted.collect::<Vec<_>>()).await?;
    let mut both: BTreeMap<Slot, Vec<Vec<u8>>> = BTreeMap::new();
    for some in keys.chunks(SOUGHT) {
        let exists = |(_, key): &(Slot, Vec<u8>)| vec![b"EXISTS".to_vec(), key.clone()];
        // An owner that gives the slot away says `ASK` of keys that it does not have.
        let there = owner.about_keys(&some.iter().map(exists).collect::<Vec<_>>()).await?;
        let is_there = |reply: &Value| value::integer(reply) == Some(1);
        for ((slot, key), _) in some.iter().zip(&there).filter(|(_, reply)| is_there(reply)) {
            both.entry(*slot).or_default().push(key.clone());
        }
    }
    Ok(both)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_kept_byte_for_byte() {
        let folder = tempfile::tempdir().unwrap();
        let mut quarantine = Quarantine::new(folder.path(), "j-1");
        quarantine.keep(&[]).unwrap();
        assert_eq!(quarantine.kept(), None);
        let copy = Copy {
            node: Address::parse("10.0.0.1:7001", None).unwrap(),
            slot: Slot::new(7).unwrap(),
            key: b"a\0\xff".to_vec(),
            ttl_ms: -1,
            dump: vec![0, 1, 254],
        };
        quarantine.keep(&[copy.clone(), copy]).unwrap();
        let (count, path) = quarantine.kept().unwrap();
        let text = fs::read_to_string(path).unwrap();
        assert_eq!((count, text.lines().count()), (2, 2));
        let line =
            r#"{"node":"10.0.0.1:7001","slot":7,"key":"6100ff","ttl_ms":-1,"dump":"0001fe"}"#;
        assert_eq!(text.lines().next(), Some(line));
    }
}
