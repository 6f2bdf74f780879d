//! What is asked for, by brokers and by operators.

use headwater_protocol::id::{BrokerId, LeaderEpoch, TopicId};
use uuid::Uuid;

use crate::{
    image::{Address, Incarnation, PartitionEpoch, Terms},
    model::id::PartitionId,
};

/// A broker's process presents itself. It is fenced until it has asked to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Registration {
    pub(crate) id: BrokerId,
    /// Drawn when the process began, so that what it says twice counts once.
    pub(crate) process: Uuid,
    /// The identity of its data directory.
    pub(crate) store: Uuid,
    /// The process before it has flushed everything before it ended.
    pub(crate) was_clean: bool,
    pub(crate) address: Address,
    pub(crate) rack: Option<String>,
}

/// A leader's wish: who is to be in sync from now on. Holds only if nothing has changed since it was thought of, and changes the
/// partition's epoch even if nobody may join: a wish that was sent twice, or that comes late, has no effect after one that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IsrChange {
    pub(crate) id: PartitionId,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) epoch: PartitionEpoch,
    /// Who stays in sync, the leader among them.
    pub(crate) stay: Vec<BrokerId>,
    /// Who has caught up, as the process that the leader knows: one that has begun anew since may lack what the leader counts on.
    pub(crate) join: Vec<(BrokerId, Incarnation)>,
}

/// Which leader an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// This one, though it may lack records that were acknowledged. Only if nobody else can lead.
    Unclean(BrokerId),
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReplicaCommand {
    /// A broker has begun.
    Register(Registration),
    /// A broker is not heard any more, or is about to stop: others are to lead.
    Fence { id: BrokerId, incarnation: Incarnation },
    /// A broker is up, and knows the cluster as it is.
    Unfence { id: BrokerId, incarnation: Incarnation },
    /// A broker is to get no further replicas, or may again.
    Cordon { id: BrokerId, is_cordoned: bool },
    /// A broker that is fenced and has no replicas is not of the cluster any more.
    Forget { id: BrokerId },
    /// A topic has these replicas: one list for each partition, the preferred leader first.
    Place {
        topic: TopicId,
        terms: Terms,
        replicas: Vec<Vec<BrokerId>>,
    },
    /// A topic has these further partitions.
    Extend {
        topic: TopicId,
        replicas: Vec<Vec<BrokerId>>,
    },
    /// What an acknowledgement of a topic's records promises from now on.
    SetTerms { topic: TopicId, terms: Terms },
    /// A topic is gone.
    Remove { topic: TopicId },
    /// A leader wants other in-sync replicas, for any number of partitions.
    Alter {
        from: BrokerId,
        incarnation: Incarnation,
        changes: Vec<IsrChange>,
    },
    /// Logs of a broker have failed, or are open again. A leader says so of its own log too, as what it has sent and not flushed
    /// may be gone: it must not lead on in the same epoch.
    Report {
        from: BrokerId,
        incarnation: Incarnation,
        failed: Vec<PartitionId>,
        opened: Vec<PartitionId>,
    },
    /// An operator wants other leaders.
    Elect {
        partitions: Vec<PartitionId>,
        how: Election,
    },
    /// Partitions are to move to these replicas, or to stay where they are.
    Reassign {
        partitions: Vec<(PartitionId, Option<Vec<BrokerId>>)>,
    },
}
