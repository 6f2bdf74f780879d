//! What a group is asked and what it answers, in the terms of the state machine; no protocol's tables.
//!
//! Requests cross cores, so they own what they carry. Sizes were limited where they were read.

use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
pub(crate) use headwater_engine::{Moment, Since};
use headwater_protocol::{error::ErrorCode, id::LeaderEpoch};

use crate::model::{
    bounds::AnswerSize,
    consumer::{ConsumerGroup, ConsumerHeartbeat, Reconciled},
    id::PartitionId,
    refusal::Refusal,
    transaction::Producer,
};

macro_rules! ids {
    ($($(#[$doc:meta])* $Name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $Name(Arc<str>);

        impl $Name {
            pub(crate) fn new(id: impl Into<Arc<str>>) -> $Name {
                $Name(id.into())
            }

            pub(crate) fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $Name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $Name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )*};
}

ids! {
    /// Name of a group.
    GroupId;
    /// What a member is called from its first join to its end.
    MemberId;
    /// What a static member is called, also after it was started again.
    InstanceId;
}

/// Number of a rebalance of a group. A negative one stands for no membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Generation(i32);

impl Generation {
    /// Of a group that has never had members.
    pub(crate) const ZERO: Generation = Generation(0);

    pub(crate) const fn new(generation: i32) -> Generation {
        Generation(generation)
    }

    pub(crate) const fn get(self) -> i32 {
        self.0
    }

    pub(crate) const fn next(self) -> Generation {
        Generation(if self.0 == i32::MAX { 1 } else { self.0 + 1 })
    }
}

/// Ties an answer to its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct CallId(pub(crate) u64);

/// Who a request comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) host: String,
}

/// A protocol that a member supports, with what it tells the group in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// How long a member may be silent, and how long the group waits for it to join again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) session: Duration,
    pub(crate) rebalance: Duration,
}

#[derive(Debug, Clone)]
pub(crate) struct Join {
    /// None for a new member.
    pub(crate) member: Option<MemberId>,
    /// What a new member is called from now on.
    pub(crate) fresh: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) client: Client,
    pub(crate) timeouts: Timeouts,
    pub(crate) protocol_type: String,
    /// The member's favourite first.
    pub(crate) protocols: Vec<Protocol>,
    /// A new member is told its id first, so that one whose answer is lost leaves nothing behind (KIP-394).
    pub(crate) in_two_steps: bool,
}

/// A member, as it names itself.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) generation: Generation,
    /// Empty for none.
    pub(crate) member: MemberId,
    pub(crate) instance: Option<InstanceId>,
}

#[derive(Debug, Clone)]
pub(crate) struct Sync {
    pub(crate) who: Identity,
    /// Checked if they are there.
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// From the leader only.
    pub(crate) assignments: Vec<(MemberId, Bytes)>,
}

/// One offset to be committed.
#[derive(Debug, Clone)]
pub(crate) struct CommitItem {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: String,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    Join(Join),
    Sync(Sync),
    Heartbeat(Identity),
    Leave(Vec<(MemberId, Option<InstanceId>)>),
    Commit(Identity, Vec<CommitItem>),
    /// The same within a producer's transaction, which the producer has made the group part of.
    CommitIn(Producer, Identity, Vec<CommitItem>),
    /// Of which partitions an offset waits for the end of a transaction.
    Unstable,
    ConsumerHeartbeat(ConsumerHeartbeat),
    /// Who asks, if it says so. None of the places: every offset that is committed.
    Offsets(Option<Identity>, Option<Vec<(String, i32)>>),
    ForgetOffsets(Vec<(String, i32)>),
    Describe,
    /// In the terms of groups of type consumer, which it must be.
    DescribeConsumers,
    Delete,
}

impl Request {
    /// It is about who belongs to the group.
    pub(crate) fn is_of_member(&self) -> bool {
        matches!(
            self,
            Request::Join(_)
                | Request::Sync(_)
                | Request::Heartbeat(_)
                | Request::Leave(_)
                | Request::ConsumerHeartbeat(_)
                | Request::Delete
        )
    }
}

/// A request on its way to the core that runs the group.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) place: PartitionId,
    pub(crate) group: GroupId,
    pub(crate) request: Request,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The next record to be read.
    pub(crate) offset: i64,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: String,
    /// When.
    pub(crate) at: Since,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: Generation,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) leader: MemberId,
    pub(crate) member: MemberId,
    /// Nobody is asked for an assignment.
    pub(crate) skip_assignment: bool,
    /// For the leader only.
    pub(crate) members: Vec<(MemberId, Option<InstanceId>, Bytes)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Synced {
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) id: MemberId,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) client: Client,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) kind: Kind,
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    pub(crate) protocol: String,
    pub(crate) generation: Generation,
    pub(crate) members: Vec<DescribedMember>,
}

/// Which protocol decides who gets what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Members join, and one of them or the broker assigns.
    Classic,
    /// Each member comes by itself to what the broker says (KIP-848).
    Consumer,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Classic => "classic",
            Kind::Consumer => "consumer",
        }
    }
}

/// A line of a list of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) group: GroupId,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
    pub(crate) kind: Kind,
    pub(crate) members: usize,
}

impl Listed {
    /// Counts what it takes of an answer.
    pub(crate) fn count(&self, size: &mut AnswerSize) -> Result<(), Refusal> {
        let text_len = self.group.as_str().len() + self.protocol_type.len() + self.state.len();
        size.add(text_len, "ask for the groups of one state")
    }
}

/// The states whose groups are to be listed; `None` for all.
#[derive(Debug, Clone)]
pub(crate) struct Wanted(pub(crate) Option<Arc<[String]>>);

impl Wanted {
    pub(crate) fn has(&self, state: &str) -> bool {
        let states = self.0.as_ref();
        states.is_none_or(|states| states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state)))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Join again as this member.
    MemberIdRequired(MemberId),
    Joined(Joined),
    Synced(Synced),
    /// The heartbeat of a member of a group at rest.
    Alive,
    /// One code for each member.
    Left(Vec<ErrorCode>),
    /// One code for each offset.
    Committed(Vec<ErrorCode>),
    Offsets(Vec<(String, i32, Option<Committed>)>),
    Unstable(BTreeSet<(String, i32)>),
    /// A transaction has ended in all groups of the partition.
    Marked,
    /// One code for each partition.
    Forgotten(Vec<ErrorCode>),
    Described(Description),
    Reconciled(Reconciled),
    DescribedConsumers(ConsumerGroup),
    Deleted,
}

pub(crate) type Reply = Result<Answer, Refusal>;

/// A refusal in the words of its code.
pub(crate) fn refusal(code: ErrorCode) -> Refusal {
    Refusal::new(code, code.description())
}
