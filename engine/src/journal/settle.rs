//! What has a log forgotten by the journal, so that no recovery brings back what the log has dropped since.

use std::{io, sync::Arc};

use super::{Condition, EXTENSION_OLD, Journal};
use crate::{disk::Disk, error::LogError, owner::Owner};

impl<D: Disk> Journal<D> {
    /// Lets go of all that is held for a partition, and makes sure that recovery will not bring back anything of it. To be called
    /// before a log drops what it has, once what is to stay is in its segments, or set aside, and while it commits nothing. After an
    /// error it may be tried again, and what was held is held until then, unless the journal has failed: then nothing takes its place.
    pub(crate) async fn settle(&self, owner: Owner) -> Result<(), LogError> {
        if self.may_bring_back(owner) {
            if self.is_in_doubt() {
                self.state.borrow_mut().holds.release(owner);
                return self.put_away().await;
            }
            if !self.note(owner).await {
                return Err(self.refusal());
            }
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

    /// The partition is given up, and was not settled: no log may have its place before the journal is put away.
    pub(crate) fn doubt(&self, owner: Owner) {
        let mut state = self.state.borrow_mut();
        // Nobody will file it.
        state.holds.release(owner);
        state.doubted.insert(owner);
    }

    /// Whether recovery might bring something into a new log of this partition that is not its own.
    pub(crate) async fn check_undoubted(&self, owner: Owner) -> Result<(), LogError> {
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
            Condition::Works | Condition::PutAway => LogError::Io {
                operation: "write",
                path: self.path.clone(),
                source: Arc::new(io::Error::new(io::ErrorKind::StorageFull, "the journal is full")),
            },
        }
    }

    /// Of a journal that has failed: takes care that no recovery finds it, once nothing is held in it.
    async fn put_away(&self) -> Result<(), LogError> {
        if self.state.borrow().holds.len() > 0 {
            return Err(self.refusal());
        }
        let old = self.path.with_extension(EXTENSION_OLD);
        match self.disk.rename(&self.path, &old).await {
            // Somebody else has done it, or the last attempt did it and has failed all the same.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(LogError::io("rename", &self.path))?,
        }
        let mut state = self.state.borrow_mut();
        state.condition = Condition::PutAway;
        state.newest.clear();
        state.doubted.clear();
        Ok(())
    }

    /// Leaves nothing to recover, if nothing is held any more: after all logs are closed.
    pub async fn close(&self) -> Result<(), LogError> {
        if self.state.borrow().holds.len() > 0 {
            return Ok(());
        }
        if self.is_in_doubt() {
            return self.put_away().await;
        }
        let is_clean = {
            let state = self.state.borrow();
            state.first_needed == state.sequence
        };
        if is_clean || self.entry_bytes_max().is_none() {
            return Ok(());
        }
        if self.note(Owner::NOBODY).await {
            Ok(())
        } else {
            Err(self.refusal())
        }
    }
}
