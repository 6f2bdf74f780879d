//! Why what a broker knows of itself and its topics cannot be read or changed.

use std::io;
use std::path::{Path, PathBuf};

use headwater_protocol::error::ErrorCode;
use headwater_protocol::topic::TopicName;

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
        "{} has format version {found}, but this broker knows only up to {newest}; run the newer broker",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest that is known.
        newest: u32,
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
    /// The quorum has not agreed.
    #[error("{reason}")]
    Quorum {
        /// The code that a client gets.
        code: ErrorCode,
        /// Why not.
        reason: String,
    },
    /// It was used by a broker alone, and is to be a member among others.
    #[error(
        "{} has topics of a broker that was alone, and cluster.members names others: start it once without them",
        path.display()
    )]
    Alone {
        /// The directory.
        path: PathBuf,
    },
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
