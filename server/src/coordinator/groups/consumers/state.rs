//! What is known of a group of type consumer, and of its members.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{keys::Journal, pattern::Pattern};
use crate::model::{
    consumer::{ServerAssignor, Share, Spot},
    group::{CallId, Client, InstanceId, MemberId, Protocol},
};

/// Who a member is, and what it subscribes to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) instance: Option<InstanceId>,
    pub(crate) rack: Option<String>,
    pub(crate) client: Client,
    /// How long it may take to give partitions up.
    pub(crate) rebalance_timeout: Duration,
    pub(crate) assignor: Option<ServerAssignor>,
    pub(crate) topics: BTreeSet<String>,
    pub(crate) pattern: Option<String>,
    /// It speaks the classic protocol.
    pub(crate) classic: Option<Classic>,
}

/// How a member of a group of type consumer speaks the classic protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Classic {
    pub(crate) session_timeout: Duration,
    pub(crate) protocols: Vec<Protocol>,
}

/// What a member does about its target.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing, until there is another one.
    #[default]
    Stable,
    /// It is to give partitions up, and has not said that it has.
    Revoking,
    /// Others have not given up what it is to get.
    Waiting,
}

impl State {
    /// Kafka's number.
    pub(crate) fn number(self) -> i8 {
        match self {
            State::Stable => 1,
            State::Revoking => 2,
            State::Waiting => 3,
        }
    }

    pub(crate) fn numbered(number: i8) -> State {
        match number {
            2 => State::Revoking,
            3 => State::Waiting,
            _ => State::Stable,
        }
    }
}

/// Members of the classic protocol that leave with one request.
pub(super) type Leavers = Vec<(MemberId, Option<InstanceId>)>;

/// How far a member is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Current {
    pub(crate) epoch: i32,
    /// It may come with this one if it has not heard of the other.
    pub(crate) previous_epoch: i32,
    pub(crate) state: State,
    /// What it was told that it has.
    pub(crate) assigned: Share,
    /// What it may still have, until it says that it has given it up.
    pub(crate) revoking: Share,
}

#[derive(Debug, Default)]
pub(in crate::coordinator::groups) struct Member {
    pub(in crate::coordinator::groups) subscriber: Subscriber,
    pub(in crate::coordinator::groups) current: Current,
    pub(in crate::coordinator::groups) target: Share,
    /// When its silence has been too long.
    pub(in crate::coordinator::groups) session_end: Duration,
    /// Until when it must have given up what it is to.
    pub(in crate::coordinator::groups) revoke_until: Option<Duration>,
}

/// The members of a group of type consumer.
#[derive(Debug)]
pub(in crate::coordinator::groups) struct Consumers {
    /// One more with each change of members, subscriptions or topics.
    pub(in crate::coordinator::groups) epoch: i32,
    /// Of the topics that are subscribed to, as they were then.
    pub(super) hash: i64,
    /// The epoch that the targets were made for.
    pub(in crate::coordinator::groups) target_epoch: i32,
    pub(in crate::coordinator::groups) members: BTreeMap<MemberId, Member>,
    pub(super) instances: BTreeMap<InstanceId, MemberId>,
    /// Who may have a partition in its hands.
    pub(super) owners: BTreeMap<Spot, MemberId>,
    pub(super) patterns: BTreeMap<String, Pattern>,
    /// When the targets were made.
    pub(super) assigned_at: Option<Duration>,
    pub(super) journal: Journal,
    /// It is becoming a classic group.
    pub(in crate::coordinator::groups) is_turning: bool,
    /// Who leaves once it is.
    pub(super) leaving: Vec<(CallId, Leavers)>,
}
