//! What has a log forgotten by the journal, so that no recovery brings back what the log has dropped since.

use std::{io, sync::Arc};

use super::{Condition, EXTENSION_OLD, Journal, beside::Forgotten};
use crate::{disk::Disk, error::LogError, owner::Owner};

impl<D: Disk> Journal<D> {
    /// Lets go of all that is held for a partition, and makes sure that recovery will not bring back anything of it. To be called
    /// before a log drops what it has, once what is to stay is in its segments, or set aside, and while it commits nothing. After an
    /// error it may be tried again, and what was held is held until then.
    pub(crate) async fn settle(&self, owner: Owner) -> Result<(), LogError> {
        if self.may_bring_back(owner) && !self.note(owner).await {
            if !self.has_failed() {
                return Err(self.refusal());
            }
            self.note_beside(owner).await?;
        }
        let mut state = self.state.borrow_mut();
        state.holds.release(owner);
        state.newest.remove(&owner);
        Ok(())
    }

    /// Whether recovery may find batches of this partition, also such that are about to be written.
    fn may_bring_back(&self, owner: Owner) -> bool {
        let state = self.state.borrow();
        let newest = state.newest.get(&owner);
        let is_to_be_written = || matches!(state.condition, Condition::Works) && state.filling.has(owner);
        newest.is_some_and(|newest| *newest >= state.first_needed) || is_to_be_written()
    }

    /// Whether what was under way here of this partition when the journal failed may be on the disk, and recovery would bring it back.
    pub(crate) fn is_in_doubt(&self, owner: Owner) -> bool {
        self.has_failed() && self.may_bring_back(owner)
    }

    /// A journal that has failed takes no notes: a file beside it does.
    async fn note_beside(&self, owner: Owner) -> Result<(), LogError> {
        let _entered = self.beside_gate.enter().await;
        let mut owners = self.state.borrow().forgotten.clone();
        owners.insert(owner);
        let forgotten = Forgotten {
            generation: self.generation,
            owners,
        };
        forgotten.write(&self.disk, &self.path).await?;
        self.state.borrow_mut().forgotten = forgotten.owners;
        Ok(())
    }

    /// The partition is given up, and was not settled: no log may have its place before it is.
    pub(crate) fn doubt(&self, owner: Owner) {
        let mut state = self.state.borrow_mut();
        // Nobody will file it.
        state.holds.release(owner);
        state.doubted.insert(owner);
    }

    /// Makes sure that recovery brings nothing into a new log of this partition that is not its own: to be called before a directory is
    /// the partition's again.
    pub async fn check_undoubted(&self, owner: Owner) -> Result<(), LogError> {
        if !self.state.borrow().doubted.contains(&owner) {
            return Ok(());
        }
        self.settle(owner).await?;
        self.state.borrow_mut().doubted.remove(&owner);
        Ok(())
    }

    /// Why it takes nothing.
    fn refusal(&self) -> LogError {
        let condition = self.state.borrow().condition.clone();
        match condition {
            Condition::Failed(error) => error,
            Condition::Works => LogError::Io {
                operation: "write",
                path: self.path.clone(),
                source: Arc::new(io::Error::new(io::ErrorKind::StorageFull, "the journal is full")),
            },
        }
    }

    /// Leaves nothing to recover, if nothing is held any more: after all logs are closed.
    pub async fn close(&self) -> Result<(), LogError> {
        if self.state.borrow().holds.len() > 0 {
            return Ok(());
        }
        if self.has_failed() {
            let old = self.path.with_extension(EXTENSION_OLD);
            let renamed = self.disk.rename(&self.path, &old).await;
            return renamed.map_err(LogError::io("rename", &self.path));
        }
        let is_clean = {
            let state = self.state.borrow();
            state.first_needed == state.sequence
        };
        if is_clean || self.note(Owner::NOBODY).await {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }
}
