//! Which partitions a journal that has failed is to forget: in a file beside it, as it takes no notes itself any more.
//!
//! First line: format name, version and the CRC-32C of what follows, in hexadecimal; then the journal's generation, and a line for
//! each partition. Recovery passes over all that this use of the journal has of them.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use headwater_protocol::id::{PartitionIndex, TopicId};

use super::frame::Generation;
use crate::{disk::Directory, error::LogError, owner::Owner};

const FORMAT: &str = "headwater-forgotten 1";

/// Extension of the file's name.
pub(super) const EXTENSION: &str = "journal-forgotten";

/// What a use of a journal is to forget.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Forgotten {
    pub(super) generation: Generation,
    pub(super) owners: BTreeSet<Owner>,
}

fn path_beside(journal: &Path) -> PathBuf {
    journal.with_extension(EXTENSION)
}

impl Forgotten {
    /// What this use of the journal is to forget; nothing, if nothing says so.
    pub(super) async fn read(
        disk: &impl Directory,
        journal: &Path,
        generation: Generation,
    ) -> Result<BTreeSet<Owner>, LogError> {
        let path = path_beside(journal);
        let file = match disk.read_file(&path).await {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
            Err(error) => return Err(LogError::io("read", &path)(error)),
        };
        let forgotten = Forgotten::decode(&file).ok_or_else(|| LogError::Corrupt {
            path,
            position: 0,
            reason: format!("it does not begin with '{FORMAT}' and the right checksum"),
            resume_at: None,
        })?;
        // Of an earlier use it says nothing.
        let is_of_this_use = forgotten.generation == generation;
        Ok(if is_of_this_use {
            forgotten.owners
        } else {
            BTreeSet::new()
        })
    }

    /// Durable when it returns.
    pub(super) async fn write(&self, disk: &impl Directory, journal: &Path) -> Result<(), LogError> {
        let path = path_beside(journal);
        let written = disk.replace_file_to_make_room(&path, self.encode()).await;
        written.map_err(LogError::io("write", &path))
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = format!("{:032x}\n", self.generation.0);
        for Owner { topic, partition } in &self.owners {
            writeln!(body, "{} {partition}", topic.as_uuid()).expect("a string takes all");
        }
        format!("{FORMAT} {:08x}\n{body}", crc32c::crc32c(body.as_bytes())).into_bytes()
    }

    fn decode(file: &[u8]) -> Option<Forgotten> {
        let text = std::str::from_utf8(file).ok()?;
        let (head, body) = text.split_once('\n')?;
        if head != format!("{FORMAT} {:08x}", crc32c::crc32c(body.as_bytes())) {
            return None;
        }
        let mut lines = body.lines();
        let generation = Generation(u128::from_str_radix(lines.next()?, 16).ok()?);
        let owner = |line: &str| {
            let (topic, partition) = line.split_once(' ')?;
            Some(Owner {
                topic: TopicId::new(uuid::Uuid::try_parse(topic).ok()?),
                partition: PartitionIndex::try_from(partition.parse::<i32>().ok()?).ok()?,
            })
        };
        let owners: Option<BTreeSet<Owner>> = lines.map(owner).collect();
        owners.map(|owners| Forgotten { generation, owners })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_forgotten_reads_back_and_every_flipped_bit_is_noticed() {
        let owner = |partition| Owner {
            topic: TopicId::random(),
            partition: PartitionIndex::new(partition),
        };
        for owners in [vec![], vec![owner(3), owner(0)]] {
            let forgotten = Forgotten {
                generation: Generation(5 << 99),
                owners: owners.into_iter().collect(),
            };
            let file = forgotten.encode();
            assert_eq!(Forgotten::decode(&file), Some(forgotten));
            for bit in 0..file.len() * 8 {
                let mut damaged = file.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(Forgotten::decode(&damaged), None, "bit {bit}");
            }
        }
    }
}
