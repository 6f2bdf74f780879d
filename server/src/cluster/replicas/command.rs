//! What is asked for, by brokers and by operators.

use headwater_protocol::id::{BrokerId, LeaderEpoch, TopicId};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::levels::Levels;
use crate::{
    image::{Address, Incarnation, KafkaAddress, PartitionEpoch, Terms},
    model::{id::PartitionId, plain},
};

/// A broker's process presents itself. It is fenced until it has asked to be let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    #[serde(with = "plain")]
    pub(crate) id: BrokerId,
    /// Drawn when the process began, so that what it says twice counts once.
    pub(crate) process: Uuid,
    /// The identity of its data directory.
    pub(crate) store: Uuid,
    /// How often that was opened: of two processes the one with the lower number has ended.
    pub(crate) opened: u64,
    /// The process before it has flushed everything before it ended.
    pub(crate) was_clean: bool,
    pub(crate) address: Address,
    pub(crate) rack: Option<String>,
}

/// A leader's wish: who is to be in sync from now on. Holds only if nothing has changed since it was thought of, and changes the
/// partition's epoch even if nobody may join: a wish that was sent twice, or that comes late, has no effect after one that was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IsrChange {
    pub(crate) id: PartitionId,
    #[serde(with = "plain")]
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) epoch: PartitionEpoch,
    /// Who stays in sync, the leader among them.
    #[serde(with = "plain::list")]
    pub(crate) stay: Vec<BrokerId>,
    /// Who has caught up, as the process that the leader knows: one that has begun anew since may lack what the leader counts on.
    #[serde(with = "plain::keyed")]
    pub(crate) join: Vec<(BrokerId, Incarnation)>,
}

/// Which leader an operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Election {
    /// The first replica, if it is in sync.
    Preferred,
    /// This one, though it may lack records that were acknowledged. Only if nobody else can lead.
    Unclean(#[serde(with = "plain")] BrokerId),
}

/// Where the partitions are to be that a topic gets: one list for each, the preferred leader first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Placement {
    #[serde(with = "plain::lists")]
    pub(crate) replicas: Vec<Vec<BrokerId>>,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReplicaCommand {
    /// A broker has begun.
    Register(Registration),
    /// A broker is not heard any more, or is about to stop: others are to lead.
    Fence {
        #[serde(with = "plain")]
        id: BrokerId,
        incarnation: Incarnation,
    },
    /// A broker is up, and knows the cluster as it is.
    Unfence {
        #[serde(with = "plain")]
        id: BrokerId,
        incarnation: Incarnation,
    },
    /// A broker is to get no further replicas, or may again.
    Cordon {
        #[serde(with = "plain")]
        id: BrokerId,
        is_cordoned: bool,
    },
    /// A broker that is fenced and has no replicas is not of the cluster any more.
    Forget {
        #[serde(with = "plain")]
        id: BrokerId,
    },
    /// A topic has these replicas: one list for each partition, the preferred leader first.
    Place {
        #[serde(with = "plain")]
        topic: TopicId,
        terms: Terms,
        #[serde(with = "plain::lists")]
        replicas: Vec<Vec<BrokerId>>,
    },
    /// A topic has these further partitions.
    Extend {
        #[serde(with = "plain")]
        topic: TopicId,
        #[serde(with = "plain::lists")]
        replicas: Vec<Vec<BrokerId>>,
    },
    /// What an acknowledgement of a topic's records promises from now on.
    SetTerms {
        #[serde(with = "plain")]
        topic: TopicId,
        terms: Terms,
    },
    /// A topic is gone.
    Remove {
        #[serde(with = "plain")]
        topic: TopicId,
    },
    /// A leader wants other in-sync replicas, for any number of partitions.
    Alter {
        #[serde(with = "plain")]
        from: BrokerId,
        incarnation: Incarnation,
        changes: Vec<IsrChange>,
    },
    /// Logs of a broker have failed, or are open again. A leader says so of its own log too, as what it has sent and not flushed
    /// may be gone: it must not lead on in the same epoch.
    Report {
        #[serde(with = "plain")]
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
        #[serde(with = "targets")]
        partitions: Vec<(PartitionId, Option<Vec<BrokerId>>)>,
    },
    /// A broker has nothing left of these topics, which are gone.
    Cleared {
        #[serde(with = "plain")]
        from: BrokerId,
        #[serde(with = "plain::list")]
        topics: Vec<TopicId>,
    },
    /// A broker says which feature levels it can do, before it registers.
    Support {
        #[serde(with = "plain")]
        id: BrokerId,
        levels: Levels,
    },
    /// The cluster is to be at this feature level from now on.
    Finalise { level: u16 },
    /// A broker has lost all that it had of these partitions, whose logs are offline. It counts as having nothing from then on, if
    /// others are in sync: nobody is let off the last copy.
    Lost {
        #[serde(with = "plain")]
        from: BrokerId,
        incarnation: Incarnation,
        partitions: Vec<PartitionId>,
    },
    /// Where a broker's process speaks Kafka's protocol.
    SpeaksKafka {
        #[serde(with = "plain")]
        id: BrokerId,
        incarnation: Incarnation,
        at: KafkaAddress,
    },
}

/// What an operator names, as it is written down.
mod targets {
    use headwater_protocol::id::BrokerId;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{PartitionId, plain};

    #[derive(Serialize, Deserialize)]
    struct Target(PartitionId, Option<List>);

    #[derive(Serialize, Deserialize)]
    struct List(#[serde(with = "plain::list")] Vec<BrokerId>);

    type Move = (PartitionId, Option<Vec<BrokerId>>);

    pub(super) fn serialize<S: Serializer>(moves: &[Move], serializer: S) -> Result<S::Ok, S::Error> {
        let form = |(id, to): &Move| Target(*id, to.clone().map(List));
        moves.iter().map(form).collect::<Vec<Target>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Move>, D::Error> {
        let read = Vec::<Target>::deserialize(deserializer)?;
        Ok(read
            .into_iter()
            .map(|Target(id, to)| (id, to.map(|List(list)| list)))
            .collect())
    }
}
