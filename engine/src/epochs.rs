//! Leader epochs of a log: where the records of each begin, and with that, how far two logs are the same.
//!
//! ```text
//! follower: the latest epoch of its log ─► leader: EpochTable::end_of ─► follower: common_point ─► truncate, or ask for an older one
//! ```
//! An epoch has one leader, and a leader writes each offset once. So two logs that both have records of an epoch have the same
//! ones up to where the first of them ends that epoch, and the same before it (KIP-101, KIP-279). Owned by the log. A hole that
//! compaction has left in front of an epoch's first batch belongs to that epoch: a follower then truncates more rather than less.

use headwater_protocol::id::{LeaderEpoch, Offset};
use serde::{Deserialize, Serialize};

/// Where an epoch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Start {
    epoch: i32,
    offset: u64,
}

/// Where an epoch ends in a log: a leader's answer to a follower that asks for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochEnd {
    /// The latest epoch that the log has records of and that is not later than the one that was asked for; that one, if all
    /// records of such epochs are deleted.
    pub epoch: LeaderEpoch,
    /// Offset after the last record of that epoch: where the next one begins, or the log ends.
    pub end: Offset,
}

/// The leader epochs of a log and where each begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct EpochTable {
    /// Both numbers ascend.
    starts: Vec<Start>,
}

impl EpochTable {
    /// What there is to know of a log in which everything has epoch 0, as all had that were written before epochs were noted.
    pub(crate) fn of_before(start: Offset, end: Offset) -> EpochTable {
        let mut table = EpochTable::default();
        if end > start {
            table.note(LeaderEpoch::new(0), start);
        }
        table
    }

    /// The epoch of the newest records.
    pub(crate) fn latest(&self) -> Option<LeaderEpoch> {
        self.starts.last().map(|last| LeaderEpoch::new(last.epoch))
    }

    /// The epoch of the last record before this offset.
    pub(crate) fn before(&self, offset: Offset) -> Option<LeaderEpoch> {
        let later = self.starts.partition_point(|start| start.offset < offset.get());
        later.checked_sub(1).map(|at| LeaderEpoch::new(self.starts[at].epoch))
    }

    /// A batch of this epoch follows at `offset`, the end of the log. An earlier epoch than the latest is not believed: no checksum
    /// covers it, and whoever appends has looked at it before.
    pub(crate) fn note(&mut self, epoch: LeaderEpoch, offset: Offset) {
        if self.latest().unwrap_or(LeaderEpoch::NONE) >= epoch {
            return;
        }
        let (epoch, offset) = (epoch.get(), offset.get());
        assert!(
            self.starts.last().is_none_or(|last| last.offset < offset),
            "epoch {epoch} begins at {offset}, where the one before it has no record yet"
        );
        self.starts.push(Start { epoch, offset });
    }

    /// The log ends at `end`.
    pub(crate) fn truncate(&mut self, end: Offset) {
        self.starts.retain(|start| start.offset < end.get());
    }

    /// The table as it was when the log ended at `end`.
    pub(crate) fn as_of(&self, end: Offset) -> EpochTable {
        let mut table = self.clone();
        table.truncate(end);
        table
    }

    /// The log, which ends at `end`, begins at `start`.
    pub(crate) fn begin_at(&mut self, start: Offset, end: Offset) {
        if start >= end {
            return self.starts.clear();
        }
        let later = self.starts.partition_point(|known| known.offset <= start.get());
        if let Some(first) = later.checked_sub(1) {
            self.starts.drain(..first);
            self.starts[0].offset = start.get();
        }
    }

    /// Where the records end, in a log that ends at `end`, that have this epoch or an earlier one; and the latest epoch that
    /// those have, if there are any.
    fn split(&self, epoch: LeaderEpoch, end: Offset) -> (Option<LeaderEpoch>, Offset) {
        let later = self.starts.partition_point(|start| start.epoch <= epoch.get());
        let floor = later.checked_sub(1).map(|at| LeaderEpoch::new(self.starts[at].epoch));
        let end = self.starts.get(later).map_or(end, |next| Offset::new(next.offset));
        (floor, end)
    }

    /// A leader's answer to a follower that asks where this epoch ends. The leader's log ends at `end`.
    pub(crate) fn end_of(&self, epoch: LeaderEpoch, end: Offset) -> EpochEnd {
        let (floor, end) = self.split(epoch, end);
        EpochEnd {
            epoch: floor.unwrap_or(epoch),
            end,
        }
    }

    /// Whether both numbers ascend, within a log from `start` to `end`.
    pub(crate) fn is_valid(&self, start: u64, end: u64) -> bool {
        let ascend = |pair: &[Start]| pair[0].epoch < pair[1].epoch && pair[0].offset < pair[1].offset;
        let is_in_log = |known: &Start| known.epoch >= 0 && (start..end).contains(&known.offset);
        self.starts.windows(2).all(ascend) && self.starts.iter().all(is_in_log)
    }
}

/// How far a follower's log is the same as its leader's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommonPoint {
    /// Up to this offset, and no further.
    At(Offset),
    /// At most up to `below`; where it is, the leader's answer for this older epoch tells.
    Older {
        /// What to ask for.
        epoch: LeaderEpoch,
        /// The offset from which on nothing is the same.
        below: Offset,
    },
}

/// The common point of a follower's log, which has these epochs and ends at `end`, and its leader's, as far as the leader's
/// answer for the follower's latest epoch tells, or for one that an earlier call has named. The rule is KIP-279's.
pub(crate) fn common_point(own: &EpochTable, end: Offset, leader: EpochEnd) -> CommonPoint {
    let (floor, own_end) = own.split(leader.epoch, end);
    assert!(
        own_end <= end,
        "an epoch begins at {own_end}, behind the end of the log, {end}"
    );
    match floor {
        // Both have it: one has perhaps written less of it than the other has taken over.
        Some(epoch) if epoch == leader.epoch => CommonPoint::At(own_end.min(leader.end)),
        // What this log has of later epochs the leader has not; what it has of this one the leader may have.
        Some(epoch) => {
            assert!(epoch < leader.epoch, "epoch {epoch} is no floor of {}", leader.epoch);
            CommonPoint::Older { epoch, below: own_end }
        }
        // All that is here has epochs that the leader has not.
        None => CommonPoint::At(own_end),
    }
}

#[cfg(test)]
mod tests;
