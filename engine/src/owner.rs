//! Whose a partition's directory is: the topic's id and the partition's number, in a small file that is durable before the first
//! record. The name of a directory says only which topic has that name at the moment.
//!
//! First line: format name, version and the CRC-32C of what follows, in hexadecimal; then one JSON object. The file is written once,
//! and never changed.

use std::{fmt, io::ErrorKind, path::Path};

use headwater_protocol::id::{PartitionIndex, TopicId};
use serde::{Deserialize, Serialize};

use crate::{
    disk::{DirEntry, Directory},
    error::LogError,
    segment::base_offset_of,
};

const FORMAT: &str = "headwater-partition 1";

/// Name of the file in the partition's directory.
const FILE_NAME: &str = "partition";

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The topic, which no later topic of the same name is.
    pub topic: TopicId,
    /// The partition of it.
    pub partition: PartitionIndex,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of the topic with id {}", self.partition, self.topic)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    topic_id: String,
    partition: i32,
}

impl Owner {
    /// No partition at all.
    pub(crate) const NOBODY: Owner = Owner {
        topic: TopicId::NIL,
        partition: PartitionIndex::new(0),
    };

    /// Who the directory says that it belongs to; `None` if it does not say.
    pub async fn read(disk: &impl Directory, directory: &Path) -> Result<Option<Owner>, LogError> {
        let path = directory.join(FILE_NAME);
        match disk.read_file(&path).await {
            Ok(file) => Owner::decode(&file).map(Some).map_err(|reason| LogError::Corrupt {
                reason: format!("{reason}; if the directory is the right one, remove the file"),
                path,
                position: 0,
                resume_at: None,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    }

    /// Makes sure that the directory, which has these entries, is this owner's, before a log is opened in it: what is another's is
    /// refused, and left as it is. A directory that does not say whose it is, is taken over. False if it could not be marked, and has
    /// records: then the log must do without a journal, whose recovery would not find the directory.
    pub async fn claim(self, disk: &impl Directory, directory: &Path, entries: &[DirEntry]) -> Result<bool, LogError> {
        match Owner::read(disk, directory).await? {
            Some(found) if found == self => return Ok(true),
            Some(found) => {
                return Err(LogError::Foreign {
                    directory: directory.to_owned(),
                    found,
                    wanted: self,
                });
            }
            None => {}
        }
        let path = directory.join(FILE_NAME);
        let written = match self.encode() {
            Ok(content) => disk.replace_file(&path, content).await,
            Err(error) => Err(error.into()),
        };
        // From before directories said so: its records must not go offline because the disk is full.
        let has_records = entries.iter().any(|entry| base_offset_of(&entry.name, "log").is_some());
        match written.map_err(LogError::io("write", &path)) {
            Err(error) if has_records => {
                tracing::warn!(%error, "a partition's directory is not marked as its topic's; it is tried again when it is opened next");
                Ok(false)
            }
            written => written.map(|()| true),
        }
    }

    fn encode(self) -> serde_json::Result<Vec<u8>> {
        let stored = Stored {
            topic_id: self.topic.to_string(),
            partition: self.partition.get(),
        };
        let body = serde_json::to_vec(&stored)?;
        let mut out = format!("{FORMAT} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        out.extend_from_slice(&body);
        Ok(out)
    }

    fn decode(file: &[u8]) -> Result<Owner, String> {
        let end_of_line = file.iter().position(|byte| *byte == b'\n');
        let (head, body) = file.split_at(end_of_line.ok_or("it has no first line")?);
        let body = &body[1..];
        let checksum = std::str::from_utf8(head).map_err(|error| error.to_string())?;
        let checksum = checksum.strip_prefix(FORMAT).and_then(|rest| rest.strip_prefix(' '));
        let checksum = checksum.ok_or_else(|| format!("it does not begin with '{FORMAT}'"))?;
        if checksum != format!("{:08x}", crc32c::crc32c(body)) {
            return Err("its checksum is wrong".to_owned());
        }
        let stored: Stored = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        Ok(Owner {
            topic: stored
                .topic_id
                .parse()
                .map_err(|error| format!("its topic id is none: {error}"))?,
            partition: PartitionIndex::try_from(stored.partition).map_err(|error| error.to_string())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_reads_back_and_every_flipped_bit_is_noticed() {
        let owner = Owner {
            topic: TopicId::random(),
            partition: PartitionIndex::new(7),
        };
        let file = owner.encode().unwrap();
        assert_eq!(Owner::decode(&file), Ok(owner));
        for at in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(Owner::decode(&damaged).is_err(), "bit {at}");
        }
    }
}
