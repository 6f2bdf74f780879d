//! What is asked of the records of partitions, and what is found.

use std::{sync::Arc, time::Duration};

use headwater_engine::{Aborted, ReadLimit};
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, LeaderEpoch, Offset, Timestamp},
};

use super::id::PartitionId;

/// What has to be done with records before their producer is told that they are safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// Nothing: it is told nothing.
    None,
    /// They are on the stable storage of the partition's leader.
    Leader,
    /// They are on all replicas that are in sync, or it is told that they are not yet after so long.
    All { within: Duration },
}

/// Record batches for a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Produce<'a> {
    pub(crate) id: PartitionId,
    pub(crate) acks: Acks,
    pub(crate) records: &'a [u8],
    /// An idempotent producer whom the partition does not know may begin with any sequence number, as far as nothing of it was refused.
    pub(crate) begins_anywhere: bool,
    /// The partition is known to be part of the transaction that they are in, if they are.
    pub(crate) is_within: bool,
}

/// What else is known of records that were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RefusedRecords {
    /// Where the log begins that did not take them; none if it was not asked.
    pub(crate) log_start: Option<Offset>,
    pub(crate) blame: Blame,
}

/// Which records are to blame, by their numbers in their batch, from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Blame {
    /// None of them.
    Nobody,
    /// So many that have no key, of which these are the first.
    NoKey { count: u32, first: Vec<u32> },
    /// The one whose timestamp is farthest off, and what is allowed.
    Time {
        index: u32,
        timestamp: i64,
        earliest: i64,
        latest: i64,
    },
}

/// What became of a produce request, once it is as safe as was asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Produced {
    pub(crate) base_offset: Offset,
    pub(crate) append_time: Timestamp,
    pub(crate) log_start_offset: Offset,
}

/// Which replica may answer a fetch (KIP-392).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reads {
    /// The leader.
    Leader,
    /// The leader, which may name an in-sync replica in this rack instead; if need be one whose broker speaks Kafka's protocol.
    Near { rack: Arc<str>, speaks_kafka: bool },
    /// An in-sync follower as well: the leader has named it.
    Follower,
}

/// One partition of a fetch request.
#[derive(Debug, Clone)]
pub(crate) struct FetchItem {
    /// Where in the request: the answer is there in the response.
    pub(crate) place: u32,
    pub(crate) id: PartitionId,
    pub(crate) offset: i64,
    pub(crate) max_bytes: u64,
    pub(crate) reads: Reads,
    pub(crate) isolation: Isolation,
    /// That of the record before the offset, as whoever fetches has it, if that says so: its log may differ from this one.
    pub(crate) last_epoch: Option<LeaderEpoch>,
}

/// A fetch request.
#[derive(Debug)]
pub(crate) struct FetchCall {
    pub(crate) items: Vec<FetchItem>,
    pub(crate) min_bytes: u64,
    pub(crate) max_bytes: u64,
    /// How long to wait for `min_bytes`.
    pub(crate) wait: Duration,
}

impl FetchCall {
    /// Asks for no more than this.
    pub(crate) fn at_most(&mut self, bytes: u64) {
        self.max_bytes = self.max_bytes.min(bytes);
        self.min_bytes = self.min_bytes.min(self.max_bytes);
    }
}

/// What a fetch response has room for, as it goes from partition to partition and from core to core.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Room {
    bytes: u64,
    is_untouched: bool,
}

impl Room {
    pub(crate) fn new(bytes: u64) -> Room {
        Room {
            bytes,
            is_untouched: true,
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        self.bytes
    }

    /// Whether so many bytes of whole batches fit. The first batch of a response always does, or who fetches could never get
    /// beyond it.
    pub(crate) fn takes(self, bytes: u64) -> bool {
        self.is_untouched || bytes <= self.bytes
    }

    pub(crate) fn without(self, bytes: u64) -> Room {
        Room {
            bytes: self.bytes.saturating_sub(bytes),
            is_untouched: self.is_untouched && bytes == 0,
        }
    }
}

/// One partition's answer to a fetch, `records` being whatever names or holds them.
#[derive(Debug)]
pub(crate) struct FetchedItem<R> {
    pub(crate) place: u32,
    pub(crate) id: PartitionId,
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) last_stable: i64,
    pub(crate) log_start_offset: i64,
    /// After the last record; -1 without records.
    pub(crate) next_offset: i64,
    /// Of the records, in bytes.
    pub(crate) size: u64,
    pub(crate) records: Option<R>,
    /// How much of what the fetch wants is there: the bytes of the records, or all that the limits allow if more records are
    /// there than they let through.
    pub(crate) available: u64,
    /// Who is to be asked instead: then there are neither records nor an error.
    pub(crate) preferred: Option<(BrokerId, CoreId)>,
    /// An epoch, and where it ends here: there the log of whoever fetches differs. Then there are neither records nor an error.
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
    /// What a reader of what is committed leaves out of the records.
    pub(crate) aborted: Vec<Aborted>,
}

impl<R> FetchedItem<R> {
    /// The same, with the records named otherwise.
    pub(crate) fn map<S>(self, name: impl FnOnce(R) -> S) -> FetchedItem<S> {
        FetchedItem {
            place: self.place,
            id: self.id,
            error: self.error,
            high_watermark: self.high_watermark,
            last_stable: self.last_stable,
            log_start_offset: self.log_start_offset,
            next_offset: self.next_offset,
            size: self.size,
            records: self.records.map(name),
            available: self.available,
            preferred: self.preferred,
            diverging: self.diverging,
            aborted: self.aborted,
        }
    }
}

/// What a reader is to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Isolation {
    /// All that is on enough replicas.
    #[default]
    Uncommitted,
    /// Of transactions only what was committed.
    Committed,
}

impl Isolation {
    /// As both protocols have it.
    pub(crate) fn of(number: u8) -> Isolation {
        if number == 0 {
            Isolation::Uncommitted
        } else {
            Isolation::Committed
        }
    }

    pub(crate) fn number(self) -> u8 {
        u8::from(self == Isolation::Committed)
    }

    /// How far such a reader may read.
    pub(crate) fn limit(self) -> ReadLimit {
        match self {
            Isolation::Uncommitted => ReadLimit::HighWatermark,
            Isolation::Committed => ReadLimit::LastStable,
        }
    }
}

/// How far a partition was read when a fetch found too little in it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: PartitionId,
    /// Where records for such a reader end.
    pub(crate) end: i64,
    pub(crate) isolation: Isolation,
    /// A follower may answer.
    pub(crate) by_follower: bool,
}

/// One partition of a list-offsets request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListItem {
    pub(crate) id: PartitionId,
    pub(crate) sought: Sought,
    pub(crate) isolation: Isolation,
}

/// Which offset is asked for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sought {
    /// That of the first record that is not older, in the wire's terms: -1 is the high watermark, or the last stable offset, -2 the
    /// log's start.
    Timestamp(i64),
    /// That of the first record with the latest timestamp of all.
    LatestTimestamp,
    /// Where this epoch ends, or the latest before it that the log has.
    EndOfEpoch(LeaderEpoch),
}

/// The answer to a [`ListItem`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListedItem {
    pub(crate) id: PartitionId,
    pub(crate) error: ErrorCode,
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
    /// Of the record there, or before it where there is none yet; or that whose end it is.
    pub(crate) epoch: LeaderEpoch,
}
