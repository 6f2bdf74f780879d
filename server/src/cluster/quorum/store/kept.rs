//! What is on disk, or on its way there, in memory.

use std::{
    collections::VecDeque,
    io,
    ops::{Bound, RangeBounds},
};

use bytes::Bytes;

use crate::cluster::quorum::types::{Entry, LogId, SnapshotMeta, Vote};

/// The log as a whole, and what there is beside it.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) vote: Option<Vote>,
    pub(super) committed: Option<LogId>,
    /// The last entry that snapshots have made needless.
    pub(super) purged: Option<LogId>,
    /// What follows, without a gap, each with its length as it is written down.
    entries: VecDeque<(Entry, u32)>,
    pub(super) snapshot: Option<(SnapshotMeta, Bytes)>,
}

impl Kept {
    /// What was read from disk, if it can be what was written.
    pub(super) fn new(
        vote: Option<Vote>,
        committed: Option<LogId>,
        purged: Option<LogId>,
        entries: Vec<(Entry, u32)>,
        snapshot: Option<(SnapshotMeta, Bytes)>,
    ) -> Result<Kept, String> {
        let first = purged.map_or(0, |purged| purged.index + 1);
        for ((entry, _), expected) in entries.iter().zip(first..) {
            if entry.log_id.index != expected {
                let found = entry.log_id;
                return Err(format!(
                    "its log has the entry {found} where the entry {expected} should be"
                ));
            }
        }
        // The first entry makes the quorum, and whoever makes it writes it down before it votes for itself.
        let has_agreed = entries.iter().any(|(entry, _)| entry.log_id.index > 0);
        if vote.is_none() && (purged.is_some() || has_agreed) {
            return Err("it has a log and no vote".to_owned());
        }
        let covered = snapshot.as_ref().and_then(|(meta, _)| meta.last_log_id);
        if purged > covered {
            return Err("the start of its log is gone, and no snapshot has what was there".to_owned());
        }
        Ok(Kept {
            vote,
            committed,
            purged,
            entries: entries.into(),
            snapshot,
        })
    }

    /// The last entry that there is or was.
    pub(super) fn last(&self) -> Option<LogId> {
        self.entries.back().map(|(entry, _)| entry.log_id).or(self.purged)
    }

    fn first_index(&self) -> Option<u64> {
        self.entries.front().map(|(entry, _)| entry.log_id.index)
    }

    /// Adds entries, each of which must be the next.
    pub(super) fn append(&mut self, entries: impl Iterator<Item = (Entry, u32)>) -> io::Result<()> {
        for (entry, len) in entries {
            if let Some(last) = self.last().filter(|last| last.index + 1 != entry.log_id.index) {
                let message = format!("the entry {} cannot follow {last} in the log", entry.log_id);
                return Err(io::Error::other(message));
            }
            self.entries.push_back((entry, len));
        }
        Ok(())
    }

    /// This index and all above it go.
    pub(super) fn truncate(&mut self, from: u64) {
        let kept = self.first_index().map_or(0, |first| from.saturating_sub(first));
        self.entries.truncate(kept as usize);
    }

    /// This entry and all below it go.
    pub(super) fn purge(&mut self, upto: LogId) {
        let gone = self
            .first_index()
            .map_or(0, |first| (upto.index + 1).saturating_sub(first));
        let gone = (gone as usize).min(self.entries.len());
        self.entries.drain(..gone);
        self.purged = self.purged.max(Some(upto));
    }

    /// Those of the range that there are, in order.
    pub(super) fn range(&self, range: &impl RangeBounds<u64>) -> impl Iterator<Item = &(Entry, u32)> {
        let first = self.first_index().unwrap_or(0);
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(last) => last.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => u64::MAX,
        };
        let place = |index: u64| (index.saturating_sub(first) as usize).min(self.entries.len());
        let (start, end) = (place(start), place(end));
        self.entries.range(start.min(end)..end)
    }
}
