//! The form of the broker's small metadata files: JSON with a format version and a CRC-32C of the content.
//!
//! A file reads as what was written or not at all: an edit by hand, a disk that lies or a newer broker's format is an
//! error that names which. Atomic replacement is the [`Directory`]'s.

use std::io;
use std::path::{Path, PathBuf};

use headwater_engine::disk::Directory;
use headwater_protocol::topic::TopicName;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

/// The format that this broker writes, and the newest that it reads.
const FORMAT_VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Sealed {
    format_version: u32,
    /// CRC-32C of `content`, byte for byte.
    crc32c: u32,
    content: Box<RawValue>,
}

/// Why the broker's metadata cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk failed.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("{} is corrupt ({reason}); restore it from a backup", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A newer broker wrote the file.
    #[error(
        "{} has format version {found}, but this broker knows only up to {FORMAT_VERSION}; run the newer broker",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// A file is missing although others are there.
    #[error("{} is missing, but the data directory is in use ({evidence}); restore the file from a backup", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// What shows that the directory is in use.
        evidence: String,
    },
    /// What has the name of a directory that is to be made for a topic is not the topic's.
    #[error(
        "{} is in the way of the topic {topic}, which was being given that partition when the broker ended; move it away",
        path.display()
    )]
    InTheWay {
        /// What it is.
        path: PathBuf,
        /// The topic.
        topic: TopicName,
    },
    /// The broker stops in the middle of a removal.
    #[error("the broker is stopping; the next start removes what is left of the topic")]
    Stopping,
    /// The data directory is another broker's.
    #[error("the data directory {} belongs to {owner}, but {setting}; correct the setting or choose another directory", path.display())]
    OtherBroker {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// What the configuration says.
        setting: String,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}

/// Replaces the file atomically and durably.
pub(super) async fn write<T: Serialize>(disk: &impl Directory, path: &Path, content: &T) -> Result<(), StoreError> {
    let written = disk.replace_file(path, seal(content)).await;
    written.map_err(StoreError::io("write", path))
}

/// The same, for a change after which files can be removed.
pub(super) async fn write_to_make_room<T: Serialize>(
    disk: &impl Directory,
    path: &Path,
    content: &T,
) -> Result<(), StoreError> {
    let written = disk.replace_file_to_make_room(path, seal(content)).await;
    written.map_err(StoreError::io("write", path))
}

fn seal<T: Serialize>(content: &T) -> Vec<u8> {
    let content = to_raw_value(content).expect("metadata has only string keys and no failing serializer");
    let crc32c = crc32c::crc32c(content.get().as_bytes());
    let sealed = Sealed {
        format_version: FORMAT_VERSION,
        crc32c,
        content,
    };
    let mut bytes = serde_json::to_vec(&sealed).expect("as above");
    bytes.push(b'\n');
    bytes
}

/// Reads the file; None if there is none.
pub(super) async fn read<T: DeserializeOwned>(disk: &impl Directory, path: &Path) -> Result<Option<T>, StoreError> {
    let bytes = match disk.read_file(path).await {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let corrupt = |reason: String| StoreError::Corrupt {
        path: path.to_owned(),
        reason,
    };
    let sealed: Sealed = serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?;
    if sealed.format_version == 0 {
        return Err(corrupt("no broker writes format version 0".to_owned()));
    }
    if sealed.format_version > FORMAT_VERSION {
        return Err(StoreError::NewerFormat {
            path: path.to_owned(),
            found: sealed.format_version,
        });
    }
    let computed = crc32c::crc32c(sealed.content.get().as_bytes());
    if sealed.crc32c != computed {
        return Err(corrupt(format!(
            "its CRC-32C is {computed:#010x} and should be {:#010x}",
            sealed.crc32c
        )));
    }
    serde_json::from_str(sealed.content.get())
        .map(Some)
        .map_err(|error| corrupt(error.to_string()))
}
