//! What a member has on disk: its log, its vote, its last snapshot and who it is, in one redb database.
//!
//! ```text
//! openraft ─► LogStore ─► Kept (all of it, in memory) ─► reads
//!                └─► Hands: a thread ─► File: one transaction for what came together ─► redb ─► done
//! ```
//! The log is short, as snapshots cut it off: it is in memory as a whole, and reads never meet the disk. What is changed is
//! readable at once and reported as done when it is durable, in the order in which it was asked for. A failed write ends it: every
//! later one fails too, until the member is started again.

mod beginning;
mod error;
mod file;
mod hands;
mod kept;
mod log;
#[cfg(test)]
mod tests;

use std::{
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::oneshot;

pub(crate) use beginning::Beginning;
pub(crate) use error::StoreError;
use file::{Change, File};
use hands::Hands;
use kept::Kept;
pub(crate) use log::LogStore;

#[cfg(test)]
pub(crate) use tests::{crash::Chance, disk::Disk};

use super::{
    id::{Identity, Incarnation},
    types::SnapshotMeta,
};
use crate::failure::{Part, StopError};

/// The store of one member. Clones are the same one; it is closed when the last of them is gone.
#[derive(Clone)]
pub(crate) struct Store {
    identity: Identity,
    incarnation: Incarnation,
    kept: Arc<Mutex<Kept>>,
    hands: Hands,
}

impl Store {
    /// Makes the store of a member that has never been one: of the first of a quorum, if it begins something, or of one that waits
    /// until it is added. There must be no file.
    pub(crate) fn create(path: &Path, identity: &Identity, beginning: Option<&Beginning>) -> Result<(), StoreError> {
        File::create(path, identity, beginning)
    }

    /// Opens the store, which must be there, with a thread that writes to it. The thread ends when the store is closed.
    pub(crate) fn open(
        path: &Path,
        tell: impl FnOnce(StopError) + Send + 'static,
    ) -> Result<(Store, Part), StoreError> {
        let file = File::open(path)?;
        let (identity, incarnation, kept) = file.load()?;
        let (hands, part) = Hands::thread(file, tell).map_err(StoreError::io("start the writer of", path))?;
        Ok((Store::new(identity, incarnation, kept, hands), part))
    }

    fn new(identity: Identity, incarnation: Incarnation, kept: Kept, hands: Hands) -> Store {
        Store {
            identity,
            incarnation,
            kept: Arc::new(Mutex::new(kept)),
            hands,
        }
    }

    /// Makes one on another kind of disk.
    #[cfg(test)]
    pub(crate) fn begin_on(disk: &Disk, identity: &Identity) -> Result<(), StoreError> {
        File::on(disk.clone(), Some(identity)).map(drop)
    }

    /// Opens it there. Whoever asks waits for the disk.
    #[cfg(test)]
    pub(crate) fn on(disk: &Disk) -> Result<Store, StoreError> {
        let file = File::on(disk.clone(), None)?;
        let (identity, incarnation, kept) = file.load()?;
        Ok(Store::new(identity, incarnation, kept, Hands::own(file)))
    }

    /// Who it belongs to.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How often it was opened.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The last snapshot, if there is one.
    pub(crate) fn snapshot(&self) -> Option<(SnapshotMeta, Bytes)> {
        self.kept().snapshot.clone()
    }

    /// Puts a snapshot in the place of the last; it is durable when this returns. Of two that are made at one time, the later stays.
    pub(crate) async fn save_snapshot(&self, meta: SnapshotMeta, data: Bytes) -> io::Result<()> {
        let is_durable = {
            let mut kept = self.kept();
            let last = kept.snapshot.as_ref().and_then(|(last, _)| last.last_log_id);
            if last > meta.last_log_id {
                return Ok(());
            }
            kept.snapshot = Some((meta.clone(), data.clone()));
            self.begin(Change::Snapshot { meta, data })
        };
        is_durable.await
    }

    /// Asks for a change, and resolves when it is durable.
    fn begin(&self, change: Change) -> impl Future<Output = io::Result<()>> + use<> {
        let (done, is_done) = oneshot::channel();
        let tell = move |result| {
            // Who asked may have gone.
            let _ = done.send(result);
        };
        self.hands.give(change, Box::new(tell));
        async { is_done.await.unwrap_or_else(|_gone| Err(hands::gone())) }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing in there can panic halfway, and a panic ends the broker.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
