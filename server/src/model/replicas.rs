//! Brokers, and who has which partition, as somebody is told of them, and what an operator wants of them.

use std::ops::RangeInclusive;

use headwater_protocol::id::BrokerId;

use super::{op::BrokerPlace, refusal::Refusal};

/// Who has a partition.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReplicasDescription {
    /// The first is to lead it when it can.
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) elr: Vec<BrokerId>,
    pub(crate) offline: Vec<BrokerId>,
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
    pub(crate) partition_epoch: u64,
    pub(crate) min_isr: u16,
}

/// All brokers, and how many partitions are not as they should be.
#[derive(Debug, Default)]
pub(crate) struct BrokerList {
    pub(crate) brokers: Vec<ListedBroker>,
    pub(crate) partitions: usize,
    /// Nobody leads them.
    pub(crate) leaderless: usize,
    /// Fewer are in sync than an acknowledgement takes.
    pub(crate) under_min_isr: usize,
    /// Not all replicas are in sync.
    pub(crate) under_replicated: usize,
    /// The cluster's.
    pub(crate) feature_level: u16,
}

/// A broker, and the number of partitions for which it does what.
#[derive(Debug)]
pub(crate) struct ListedBroker {
    pub(crate) place: BrokerPlace,
    pub(crate) rack: Option<String>,
    pub(crate) incarnation: u64,
    pub(crate) is_fenced: bool,
    pub(crate) is_cordoned: bool,
    pub(crate) counts: ReplicaCounts,
    pub(crate) feature_levels: RangeInclusive<u16>,
}

/// Partitions of a broker.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReplicaCounts {
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    pub(crate) leads: usize,
    /// It is to lead them when it can.
    pub(crate) preferred: usize,
}

/// A partition, and who is to have it; `None`: a move that is under way is given up.
#[derive(Debug)]
pub(crate) struct PartitionMove {
    pub(crate) partition: NamedPartition,
    pub(crate) replicas: Option<Vec<BrokerId>>,
}

/// A partition as an operator names it.
#[derive(Debug)]
pub(crate) struct NamedPartition {
    pub(crate) topic: String,
    pub(crate) index: i32,
}

/// A partition for which something was not done, and why.
#[derive(Debug)]
pub(crate) struct RefusedPartition {
    pub(crate) partition: NamedPartition,
    pub(crate) why: Refusal,
}
