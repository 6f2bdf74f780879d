//! What a broker would have the coordinator change of the replicas that it has.

use headwater_protocol::id::{BrokerId, LeaderEpoch};

use super::{broker::Incarnation, replicas::PartitionEpoch};
use crate::model::id::PartitionId;

/// Who should be in sync with a leader. The same is asked for again until a newer state of the partition is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsrWish {
    /// The epoch in which it leads.
    pub leader_epoch: LeaderEpoch,
    /// The state of the partition that it is about.
    pub epoch: PartitionEpoch,
    /// Who stays in sync, the leader among them.
    pub stay: Vec<BrokerId>,
    /// Who has caught up, as the process that has.
    pub join: Vec<(BrokerId, Incarnation)>,
}

/// All that a broker wishes at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// Of partitions that it leads, those where others should be in sync.
    pub in_sync: Vec<(PartitionId, IsrWish)>,
    /// Logs that have failed, or cannot be opened, and are reckoned with.
    pub failed: Vec<PartitionId>,
    /// Logs that are open, and are thought to have failed.
    pub opened: Vec<PartitionId>,
}

impl Wishes {
    /// Adds those of another core.
    pub fn join(&mut self, others: Wishes) {
        self.in_sync.extend(others.in_sync);
        self.failed.extend(others.failed);
        self.opened.extend(others.opened);
    }

    /// Whether there is nothing to change.
    pub fn is_empty(&self) -> bool {
        self.in_sync.is_empty() && self.failed.is_empty() && self.opened.is_empty()
    }
}
