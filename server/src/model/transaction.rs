//! What a transaction's coordinator is asked and what it answers, in the terms of the state machine; no protocol's tables.

use std::{borrow::Borrow, collections::BTreeSet, fmt, sync::Arc};

use headwater_protocol::{
    error::ErrorCode,
    id::{ProducerEpoch, ProducerId, Timestamp},
};

use super::{id::PartitionId, refusal::Refusal};

/// What a program calls its transactions, from one start to the next.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransactionalId(Arc<str>);

impl TransactionalId {
    pub(crate) fn new(id: impl Into<Arc<str>>) -> TransactionalId {
        TransactionalId(id.into())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for TransactionalId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TransactionalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A partition, by its topic's name, as the log of transactions has it.
pub(crate) type Place = (String, i32);

/// A producer, as it names itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Producer {
    pub(crate) id: ProducerId,
    pub(crate) epoch: ProducerEpoch,
}

impl Producer {
    pub(crate) const NONE: Producer = Producer {
        id: ProducerId::NONE,
        epoch: ProducerEpoch::NONE,
    };

    pub(crate) fn new(id: i64, epoch: i16) -> Producer {
        Producer {
            id: ProducerId::new(id),
            epoch: ProducerEpoch::new(epoch),
        }
    }
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Commit,
    Abort,
}

/// Where a transactional id is in its life. The names and numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Empty,
    Ongoing,
    /// It is decided; the partitions are told.
    Prepare(End),
    Complete(End),
}

impl Phase {
    pub(crate) const ALL: [Phase; 6] = [
        Phase::Empty,
        Phase::Ongoing,
        Phase::Prepare(End::Commit),
        Phase::Prepare(End::Abort),
        Phase::Complete(End::Commit),
        Phase::Complete(End::Abort),
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::Ongoing => "Ongoing",
            Phase::Prepare(End::Commit) => "PrepareCommit",
            Phase::Prepare(End::Abort) => "PrepareAbort",
            Phase::Complete(End::Commit) => "CompleteCommit",
            Phase::Complete(End::Abort) => "CompleteAbort",
        }
    }

    pub(crate) const fn number(self) -> i8 {
        match self {
            Phase::Empty => 0,
            Phase::Ongoing => 1,
            Phase::Prepare(End::Commit) => 2,
            Phase::Prepare(End::Abort) => 3,
            Phase::Complete(End::Commit) => 4,
            Phase::Complete(End::Abort) => 5,
        }
    }
}

/// Whether a partition is made part of a transaction, or only looked for in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Adding {
    Add,
    Verify,
}

#[derive(Debug, Clone)]
pub(crate) enum Request {
    /// Begins anew under the id; what its former self has left open is aborted.
    Init {
        timeout_ms: i32,
        /// Who it was, if it goes on as that.
        known: Option<Producer>,
        /// An id that nobody has, once it is known that one is needed.
        fresh: Option<ProducerId>,
    },
    Add {
        producer: Producer,
        places: Vec<Place>,
        adding: Adding,
    },
    End {
        producer: Producer,
        end: End,
        /// The producer goes on with the next epoch (KIP-890).
        bumps: bool,
        fresh: Option<ProducerId>,
    },
    Describe,
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Ask again with a producer id that nobody has.
    NeedsId,
    /// Who the producer is now.
    Producer(Producer),
    /// One code for each place.
    Added(Vec<ErrorCode>),
    /// As which the producer goes on.
    Ended(Producer),
    Described(Described),
}

pub(crate) type Reply = Result<Answer, Refusal>;

/// A transactional id as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Described {
    pub(crate) id: TransactionalId,
    pub(crate) producer: Producer,
    pub(crate) phase: Phase,
    pub(crate) timeout_ms: i32,
    /// When the transaction began; none: there is none.
    pub(crate) began: Timestamp,
    pub(crate) places: BTreeSet<Place>,
}

/// A request on its way to the core that coordinates the transaction.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) place: PartitionId,
    pub(crate) id: TransactionalId,
    pub(crate) request: Request,
}

/// What is written into partitions at the end of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) producer: Producer,
    pub(crate) end: End,
    /// The leader epoch of the partition that the coordinator has its records in.
    pub(crate) coordinator_epoch: i32,
    /// The epoch is later than that of the transaction (KIP-890).
    pub(crate) is_raised: bool,
}

/// Something that one broker asks a core of another.
#[derive(Debug)]
pub(crate) enum Errand {
    Mark(Marker, Vec<PartitionId>),
    Add {
        id: TransactionalId,
        producer: Producer,
        places: Vec<Place>,
        adding: Adding,
    },
}
