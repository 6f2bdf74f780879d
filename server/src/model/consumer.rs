//! What members of the consumer protocol (KIP-848) and their groups tell each other. Topics have ids here, not names.

use std::{collections::BTreeSet, time::Duration};

use headwater_protocol::id::TopicId;

use crate::model::group::{Client, GroupId, InstanceId, MemberId};

/// A partition of a topic that may no longer exist.
pub(crate) type Spot = (TopicId, i32);

/// Partitions of one member.
pub(crate) type Share = BTreeSet<Spot>;

/// The epoch of a member that joins.
pub(crate) const JOINS: i32 = 0;
/// The epoch of a member that leaves for good.
pub(crate) const LEAVES: i32 = -1;
/// The epoch of a static member that leaves and will come back.
pub(crate) const PAUSES: i32 = -2;

/// How the broker shares partitions among the members of a group.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ServerAssignor {
    /// Evenly, and as few as possible change hands.
    #[default]
    Uniform,
    /// Of each topic neighbouring partitions, and those of the same number of all topics together.
    Range,
}

impl ServerAssignor {
    pub(crate) const ALL: [ServerAssignor; 2] = [ServerAssignor::Uniform, ServerAssignor::Range];

    pub(crate) fn name(self) -> &'static str {
        match self {
            ServerAssignor::Uniform => "uniform",
            ServerAssignor::Range => "range",
        }
    }

    pub(crate) fn named(name: &str) -> Option<ServerAssignor> {
        ServerAssignor::ALL.into_iter().find(|assignor| assignor.name() == name)
    }
}

/// What a member says in a heartbeat. None: the same as before.
#[derive(Debug, Clone)]
pub(crate) struct ConsumerHeartbeat {
    pub(crate) member: MemberId,
    /// The one it was told last, or [`JOINS`], [`LEAVES`], [`PAUSES`].
    pub(crate) epoch: i32,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) rack: Option<String>,
    pub(crate) client: Client,
    pub(crate) rebalance_timeout: Option<Duration>,
    pub(crate) topics: Option<BTreeSet<String>>,
    /// Empty for none.
    pub(crate) pattern: Option<String>,
    pub(crate) assignor: Option<ServerAssignor>,
    /// Partitions that the member owns.
    pub(crate) owned: Option<Share>,
}

impl ConsumerHeartbeat {
    /// The member says all that there is to say, so it is told everything too.
    pub(crate) fn is_full(&self) -> bool {
        let subscribes = self.topics.is_some() || self.pattern.is_some();
        self.epoch == JOINS || (self.rebalance_timeout.is_some() && subscribes && self.owned.is_some())
    }
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reconciled {
    pub(crate) member: MemberId,
    pub(crate) epoch: i32,
    /// When it is to be heard of again; nothing for one that leaves.
    pub(crate) interval: Duration,
    /// All that it may own now; none if it knows.
    pub(crate) assignment: Option<Share>,
}

/// A group of type consumer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerGroup {
    pub(crate) state: &'static str,
    pub(crate) epoch: i32,
    pub(crate) target_epoch: i32,
    pub(crate) assignor: ServerAssignor,
    pub(crate) members: Vec<ConsumerMember>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ConsumerMember {
    pub(crate) id: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) rack: Option<String>,
    pub(crate) epoch: i32,
    pub(crate) client: Client,
    pub(crate) topics: Vec<String>,
    pub(crate) pattern: Option<String>,
    pub(crate) assigned: Share,
    pub(crate) target: Share,
    /// It speaks the classic protocol.
    pub(crate) is_classic: bool,
}

/// Says why there is no group for a heartbeat, in Kafka's words.
pub(crate) fn no_group(group: &GroupId, epoch: i32) -> String {
    if epoch < JOINS {
        format!("Group {group} not found.")
    } else {
        format!("Consumer group {group} not found.")
    }
}
