//! Why a member's store cannot be used.

use std::{
    io,
    path::{Path, PathBuf},
};

use crate::cluster::quorum::codec::CodecError;

/// Why a member's store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    /// The file system refuses.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The database refuses.
    #[error("cannot {action} the quorum's store {}: {source}", path.display())]
    Database {
        /// What was tried.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: Box<redb::Error>,
    },
    /// What is there is not what was written.
    #[error(
        "the quorum's store {} is damaged ({reason}): what this member has promised is lost. Remove the member from the quorum, move \
         the file away, and add the member again; of a quorum of one, restore the file from a backup",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it shows.
        reason: String,
    },
    /// A newer broker wrote it.
    #[error("the quorum's store {} was written by a newer broker ({source}); run that one", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// What says so.
        source: CodecError,
    },
    /// There is none where there must be one.
    #[error(
        "the quorum's store {} is missing: what this member has promised is lost. Restore the file; or remove the member from the \
         quorum, and add it again with an empty data directory",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{} is there already, and is not overwritten: it may hold what a member has promised", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
}

impl StoreError {
    pub(super) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// What redb says. What it finds damaged, and a disk that fails, are told apart.
    pub(super) fn database<E: Into<redb::Error>>(action: &'static str, path: &Path) -> impl FnOnce(E) -> StoreError {
        let path = path.to_owned();
        move |error| match error.into() {
            redb::Error::Corrupted(reason) => StoreError::Damaged { path, reason },
            error @ (redb::Error::RepairAborted
            | redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TableDoesNotExist(_)
            | redb::Error::TypeDefinitionChanged { .. }) => StoreError::Damaged {
                path,
                reason: error.to_string(),
            },
            source => StoreError::Database {
                action,
                path,
                source: Box::new(source),
            },
        }
    }

    /// A value that cannot be read.
    pub(super) fn value(what: &'static str, path: &Path) -> impl FnOnce(CodecError) -> StoreError {
        let path = path.to_owned();
        move |error| match error {
            CodecError::Version { found } if found > 0 => StoreError::Newer { path, source: error },
            _ => StoreError::Damaged {
                path,
                reason: format!("{what}: {error}"),
            },
        }
    }
}
