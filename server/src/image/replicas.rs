//! Who has the records of a partition, who of them leads, and who has all that was ever acknowledged.

use std::fmt;

use headwater_protocol::id::{BrokerId, LeaderEpoch};
use serde::{Deserialize, Serialize};

use crate::model::plain;

/// The number of a change to a partition's replicas. It grows with each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct PartitionEpoch(u64);

impl PartitionEpoch {
    /// Wraps the number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for PartitionEpoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What it takes for a replica to count as having a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Durability {
    /// The record is on its stable storage.
    #[default]
    Disk,
    /// It has taken the record in: until it is flushed, the end of the process loses it.
    Memory,
}

/// What an acknowledgement promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// In-sync replicas without which nothing is acknowledged (`min.insync.replicas`), at least 1.
    pub min_isr: u16,
    /// What each of them must have done.
    pub durability: Durability,
}

impl Durability {
    pub(super) const ALLOWED: &str = "\"disk\" or \"memory\"";

    pub(super) fn read(text: &str) -> Option<Durability> {
        match text {
            "disk" => Some(Durability::Disk),
            "memory" => Some(Durability::Memory),
            _ => None,
        }
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Durability::Disk => "disk",
            Durability::Memory => "memory",
        }
    }
}

impl Terms {
    /// Those of a topic of so many replicas that asks for so many in sync. One that does not say: where any one of three may be gone, one
    /// that stays besides the leader must have what is acknowledged.
    pub fn of_topic(min_isr: Option<u16>, durability: Durability, replicas: usize) -> Terms {
        let by_default = if replicas >= 3 { 2 } else { 1 };
        Terms {
            min_isr: min_isr.unwrap_or(by_default),
            durability,
        }
    }
}

/// The replicas of one partition at one moment. The terms are part of it, so that whoever leads changes them together with the rest:
/// under the terms of before, it might acknowledge without those who were to be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replicas {
    /// Who has the partition. The first is to lead it when it can.
    #[serde(with = "plain::list")]
    pub replicas: Vec<BrokerId>,
    /// Those of them that are to be taken in, and are not counted among the old ones yet.
    #[serde(with = "plain::list")]
    pub adding: Vec<BrokerId>,
    /// Those of them that go when all others are in sync.
    #[serde(with = "plain::list")]
    pub removing: Vec<BrokerId>,
    /// Those of them whose log is not open, because their disk has failed.
    #[serde(with = "plain::list")]
    pub offline: Vec<BrokerId>,
    /// Who leads, while somebody does. Always in sync.
    #[serde(with = "plain::maybe")]
    pub leader: Option<BrokerId>,
    /// Grows with each change of the leader, and when a replica goes.
    #[serde(with = "plain")]
    pub leader_epoch: LeaderEpoch,
    /// In-sync replicas: without them, nothing is acknowledged. In the order of `replicas`.
    #[serde(with = "plain::list")]
    pub isr: Vec<BrokerId>,
    /// Eligible leader replicas (KIP-966): not in sync, but nothing was acknowledged without them. In the order of `replicas`.
    #[serde(with = "plain::list")]
    pub elr: Vec<BrokerId>,
    /// Grows with each change of anything here.
    pub epoch: PartitionEpoch,
    /// What an acknowledgement promises.
    pub terms: Terms,
}

impl Replicas {
    /// Those of a new partition, all of them in sync: there is nothing yet that one could lack. `leader` is the first that is up.
    pub fn new(replicas: Vec<BrokerId>, isr: Vec<BrokerId>, terms: Terms) -> Replicas {
        Replicas {
            replicas,
            adding: Vec::new(),
            removing: Vec::new(),
            offline: Vec::new(),
            leader: isr.first().copied(),
            leader_epoch: LeaderEpoch::new(0),
            isr,
            elr: Vec::new(),
            epoch: PartitionEpoch::new(0),
            terms,
        }
    }

    /// Whether this broker has the partition.
    pub fn has(&self, broker: BrokerId) -> bool {
        self.replicas.contains(&broker)
    }

    /// Whether this broker is in sync.
    pub fn is_in_sync(&self, broker: BrokerId) -> bool {
        self.isr.contains(&broker)
    }

    /// Whether this broker is reckoned to have all that was acknowledged.
    pub fn counts_on(&self, broker: BrokerId) -> bool {
        self.is_in_sync(broker) || self.elr.contains(&broker)
    }

    /// Whether enough replicas are in sync for anything to be acknowledged.
    pub fn has_quorum(&self) -> bool {
        self.isr.len() >= usize::from(self.terms.min_isr)
    }

    /// The replicas as they are to be once a reassignment is done.
    pub fn target(&self) -> impl Iterator<Item = BrokerId> + '_ {
        let stays = |broker: &&BrokerId| !self.removing.contains(broker);
        self.replicas.iter().filter(stays).copied()
    }
}
