//! The database file. Owned by the thread that writes; blocks.
//!
//! Every commit has two phases: with one, redb opens the commit before the last, and does not say so, when a page of the last one is
//! damaged, and a vote or an entry that was acknowledged would be forgotten. Opening checks every page.

use std::{
    cell::Cell,
    fs, io,
    path::{Path, PathBuf},
};

use bytes::Bytes;
use redb::{Builder, Database, Durability, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use rustix::fs::{FallocateFlags, fallocate};
use serde::{Serialize, de::DeserializeOwned};

use super::{beginning::Beginning, error::StoreError, kept::Kept};
use crate::cluster::quorum::{
    codec::{decode, encode},
    id::{Identity, Incarnation},
    types::{Entry, LogId, SnapshotMeta, Vote},
};

/// What there is one of, by name.
const STATE: TableDefinition<&str, &[u8]> = TableDefinition::new("state");
/// Entries by index.
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
/// The pieces of the last snapshot, in order.
const SNAPSHOT: TableDefinition<u32, &[u8]> = TableDefinition::new("snapshot");

const IDENTITY: &str = "identity";
const INCARNATION: &str = "incarnation";
const VOTE: &str = "vote";
const COMMITTED: &str = "committed";
const PURGED: &str = "purged";
const SNAPSHOT_META: &str = "snapshot";

/// redb finds no room for one large value where it finds some for many small ones.
const PIECE_LEN: usize = 1 << 20;

/// Memory that redb may use to keep pages. The whole file is a few times that at most.
const CACHE_BYTES: usize = 4 << 20;

/// One change of what is on disk.
pub(super) enum Change {
    Vote(Vote),
    /// Encoded entries, by index, each the next.
    Append(Vec<(u64, Vec<u8>)>),
    /// This index and all above it go.
    Truncate(u64),
    /// This entry and all below it go.
    Purge(LogId),
    /// What is known to be agreed on. Only saves time at a start, so it becomes durable with what comes next.
    Committed(Option<LogId>),
    Snapshot {
        meta: SnapshotMeta,
        data: Bytes,
    },
}

impl Change {
    /// Whether somebody must be able to rely on it.
    pub(super) fn must_be_durable(&self) -> bool {
        !matches!(self, Change::Committed(_))
    }
}

/// Room that the file has on disk from the beginning, so that a full disk does not end the member.
const ROOM_BYTES: u64 = 16 << 20;

pub(super) struct File {
    database: Database,
    path: PathBuf,
    room: Option<Room>,
}

/// The blocks of the file: redb makes it longer without having them.
struct Room {
    file: fs::File,
    /// Length of the file when they were last seen to.
    len: Cell<u64>,
}

impl Room {
    fn of(path: &Path) -> io::Result<Room> {
        let file = fs::OpenOptions::new().write(true).open(path)?;
        let room = Room {
            file,
            len: Cell::new(0),
        };
        room.see_to()?;
        Ok(room)
    }

    /// Takes the blocks that the file lacks, if its length has changed.
    fn see_to(&self) -> io::Result<()> {
        let len = self.file.metadata()?.len();
        if len != self.len.get() {
            fallocate(&self.file, FallocateFlags::KEEP_SIZE, 0, len.max(ROOM_BYTES))?;
            self.len.set(len);
        }
        Ok(())
    }
}

impl File {
    /// Makes one, whole or not at all.
    pub(super) fn create(path: &Path, identity: &Identity, beginning: Option<&Beginning>) -> Result<(), StoreError> {
        if path.try_exists().map_err(StoreError::io("look for", path))? {
            return Err(StoreError::Exists { path: path.to_owned() });
        }
        let new = path.with_extension("new");
        match fs::remove_file(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(StoreError::io("remove", &new)(error));
            }
            _ => {}
        }
        let database = builder().create(&new);
        let database = database.map_err(StoreError::database("make", &new))?;
        let file = File {
            database,
            path: new,
            room: None,
        };
        file.begin(identity, beginning)?;
        file.close()?;
        let new = path.with_extension("new");
        fs::rename(&new, path).map_err(StoreError::io("rename", &new))?;
        let parent = path.parent().unwrap_or(Path::new("."));
        let synced = fs::File::open(parent).and_then(|directory| directory.sync_all());
        synced.map_err(StoreError::io("sync", parent))
    }

    /// Opens the one that must be there.
    pub(super) fn open(path: &Path) -> Result<File, StoreError> {
        if !path.try_exists().map_err(StoreError::io("look for", path))? {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let opened = builder().open(path);
        let database = opened.map_err(StoreError::database("open", path))?;
        let room = Room::of(path).map_err(StoreError::io("take room for", path))?;
        Ok(File {
            database,
            path: path.to_owned(),
            room: Some(room),
        })
    }

    /// One on another kind of disk, made if it is empty.
    #[cfg(test)]
    pub(super) fn on(disk: impl redb::StorageBackend, identity: Option<&Identity>) -> Result<File, StoreError> {
        let path = PathBuf::from("a simulated disk");
        let opened = builder().create_with_backend(disk);
        let database = opened.map_err(StoreError::database("open", &path))?;
        let file = File {
            database,
            path,
            room: None,
        };
        if let Some(identity) = identity {
            file.begin(identity, None)?;
        }
        Ok(file)
    }

    fn begin(&self, identity: &Identity, beginning: Option<&Beginning>) -> Result<(), StoreError> {
        let action = "write";
        let transaction = self.transaction().map_err(StoreError::database(action, &self.path))?;
        let begun = (|| {
            transaction.open_table(LOG)?;
            transaction.open_table(SNAPSHOT)?;
            put(&transaction, IDENTITY, identity)?;
            put(&transaction, INCARNATION, &Incarnation(0))?;
            for change in beginning.into_iter().flat_map(|beginning| beginning.changes(identity)) {
                perform(&transaction, &change)?;
            }
            Ok(transaction.commit()?)
        })();
        begun.map_err(StoreError::database::<redb::Error>(action, &self.path))
    }

    /// All that is there, and a new incarnation, which is durable.
    pub(super) fn load(&self) -> Result<(Identity, Incarnation, Kept), StoreError> {
        let path = &self.path;
        let damaged = |reason: String| StoreError::Damaged {
            path: path.clone(),
            reason,
        };
        let read = Reading::begin(&self.database, path)?;
        let identity = read.state(IDENTITY)?;
        let identity: Identity = identity.ok_or_else(|| damaged("it does not say whose it is".to_owned()))?;
        let last = read.state(INCARNATION)?;
        let Incarnation(last) = last.ok_or_else(|| damaged("it does not say how often it was opened".to_owned()))?;
        let kept = Kept::new(
            read.state(VOTE)?,
            read.state(COMMITTED)?.flatten(),
            read.state(PURGED)?,
            read.entries()?,
            read.snapshot()?,
        );
        let kept = kept.map_err(damaged)?;
        drop(read);
        let incarnation = Incarnation(last + 1);
        let counted = (|| {
            let transaction = self.transaction()?;
            put(&transaction, INCARNATION, &incarnation)?;
            Ok(transaction.commit()?)
        })();
        counted.map_err(StoreError::database::<redb::Error>("write", path))?;
        Ok((identity, incarnation, kept))
    }

    /// Does all of it, or none; it is durable when this returns. After an error nobody knows which.
    pub(super) fn perform<'a>(&self, changes: impl Iterator<Item = &'a Change>) -> Result<(), redb::Error> {
        let transaction = self.transaction()?;
        for change in changes {
            perform(&transaction, change)?;
        }
        transaction.commit()?;
        if let Some(Err(error)) = self.room.as_ref().map(Room::see_to) {
            tracing::warn!(%error, path = %self.path.display(), "there is no room for the quorum's store to grow; make room on the disk");
        }
        Ok(())
    }

    fn transaction(&self) -> Result<WriteTransaction, redb::Error> {
        let mut transaction = self.database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        transaction.set_two_phase_commit(true);
        Ok(transaction)
    }

    /// Closes it; dropping it would hide a failure.
    pub(super) fn close(self) -> Result<(), StoreError> {
        let closed = self.database.close();
        closed.map_err(StoreError::database("close", &self.path))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE_BYTES);
    // After a close in order nothing else would find a damaged page.
    builder.set_check_integrity_on_open(true);
    builder
}

fn put(transaction: &WriteTransaction, key: &str, value: &impl Serialize) -> Result<(), redb::Error> {
    let mut state = transaction.open_table(STATE)?;
    state.insert(key, encode(value).as_slice())?;
    Ok(())
}

fn perform(transaction: &WriteTransaction, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Vote(vote) => put(transaction, VOTE, vote),
        Change::Committed(committed) => put(transaction, COMMITTED, committed),
        Change::Append(entries) => {
            let mut log = transaction.open_table(LOG)?;
            for (index, entry) in entries {
                log.insert(index, entry.as_slice())?;
            }
            Ok(())
        }
        Change::Truncate(from) => {
            let mut log = transaction.open_table(LOG)?;
            log.retain_in(*from.., |_, _| false)?;
            Ok(())
        }
        Change::Purge(upto) => {
            put(transaction, PURGED, upto)?;
            let mut log = transaction.open_table(LOG)?;
            log.retain_in(..=upto.index, |_, _| false)?;
            Ok(())
        }
        Change::Snapshot { meta, data } => {
            put(transaction, SNAPSHOT_META, meta)?;
            let mut pieces = transaction.open_table(SNAPSHOT)?;
            pieces.retain(|_, _| false)?;
            for (number, piece) in data.chunks(PIECE_LEN).enumerate() {
                pieces.insert(number as u32, piece)?;
            }
            Ok(())
        }
    }
}

/// Reads at one moment.
struct Reading<'a> {
    transaction: redb::ReadTransaction,
    path: &'a Path,
}

impl Reading<'_> {
    fn begin<'a>(database: &Database, path: &'a Path) -> Result<Reading<'a>, StoreError> {
        let begun = database.begin_read();
        let transaction = begun.map_err(StoreError::database("read", path))?;
        Ok(Reading { transaction, path })
    }

    fn state<T: DeserializeOwned>(&self, key: &'static str) -> Result<Option<T>, StoreError> {
        let read = || -> Result<_, redb::Error> { Ok(self.transaction.open_table(STATE)?.get(key)?) };
        let value = read().map_err(StoreError::database("read", self.path))?;
        let value = value.map(|value| decode(value.value()));
        value.transpose().map_err(StoreError::value(key, self.path))
    }

    /// The log with the length of each entry as it is written down.
    fn entries(&self) -> Result<Vec<(Entry, u32)>, StoreError> {
        let mut entries = Vec::new();
        let mut read = |entry: &[u8]| {
            let len = entry.len() as u32;
            let entry = decode(entry).map_err(StoreError::value("an entry of the log", self.path))?;
            entries.push((entry, len));
            Ok(())
        };
        let log = self.transaction.open_table(LOG);
        let log = log.map_err(StoreError::database("read", self.path))?;
        for entry in log.iter().map_err(StoreError::database("read", self.path))? {
            let (_, entry) = entry.map_err(StoreError::database("read", self.path))?;
            read(entry.value())?;
        }
        Ok(entries)
    }

    fn snapshot(&self) -> Result<Option<(SnapshotMeta, Bytes)>, StoreError> {
        let Some(meta) = self.state(SNAPSHOT_META)? else {
            return Ok(None);
        };
        let mut data = Vec::new();
        let mut read = || -> Result<(), redb::Error> {
            for piece in self.transaction.open_table(SNAPSHOT)?.iter()? {
                data.extend_from_slice(piece?.1.value());
            }
            Ok(())
        };
        read().map_err(StoreError::database("read", self.path))?;
        Ok(Some((meta, data.into())))
    }
}
