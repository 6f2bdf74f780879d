//! The partitions of a consumer: what was fetched, what to fetch next, what failed. Decisions only, no I/O.
//!
//! Shared by the consumer, which takes batches out, and its fetcher task, which puts responses in, under one short lock.
//! A partition waits for the head of one response at a time, while the records of earlier ones are still coming; they are taken
//! in order. A seek raises its epoch, so that what was asked for before is dropped.
//! Here is the consumer's side; the fetcher's is in `plan` (what to ask for) and `outcome` (what came of it).

mod outcome;
mod plan;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::batch::{BatchError, BatchHeader};
use headwater_protocol::id::{Offset, PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;
use tokio::sync::Notify;

use self::source::Source;
use super::advance::{Skip, SkipCause, Skipped, Totals};
use super::fetcher::FetchSettings;
use super::records::corrupt;
use crate::address::Address;
use crate::deadline::{Backoff, BackoffLimits};
use crate::error::Error;
use crate::requests::Aborted;
use crate::runtime::Instant;
use crate::runtime::sync::Mutex;

pub(in crate::consumer) use plan::{Plan, PlannedFetch, PlannedLookup};

/// A partition to read, and from where.
#[derive(Debug, Clone)]
pub(in crate::consumer) struct Assignment {
    pub(in crate::consumer) topic: TopicName,
    pub(in crate::consumer) partition: PartitionIndex,
    pub(in crate::consumer) topic_id: TopicId,
    pub(in crate::consumer) offset: Offset,
}

/// What the consumer and its fetcher share.
#[derive(Debug)]
pub(in crate::consumer) struct Shared {
    pub(in crate::consumer) state: Mutex<State>,
    /// Wakes the consumer: there is something to take.
    pub(in crate::consumer) arrived: Notify,
    /// Wakes the fetcher: there is room, or a new position.
    pub(in crate::consumer) wanted: Notify,
}

#[derive(Debug)]
pub(in crate::consumer) struct State {
    partitions: Vec<Partition>,
    /// Partitions that have something to take, in the order of their turns.
    ready: VecDeque<usize>,
    queued_bytes: usize,
    /// The partition that comes first in the next fetch.
    turn: usize,
    /// Topics whose new partitions are read as well.
    pub(in crate::consumer) subscribed: Vec<TopicName>,
    skipped: Totals,
    /// A failure that came behind records which were handed out without it: told next.
    deferred: Option<Error>,
    settings: Arc<FetchSettings>,
    backoff: BackoffLimits,
}

#[derive(Debug)]
struct Partition {
    topic: TopicName,
    index: PartitionIndex,
    topic_id: TopicId,
    /// `None`: to be asked for.
    leader: Option<Address>,
    source: Source,
    phase: Phase,
    epoch: u32,
    /// Where the next fetch begins.
    fetch_offset: Offset,
    /// Where the consumer is.
    position: Offset,
    /// It has read up to there, so a batch begins there, and none before it goes on beyond it.
    is_boundary: bool,
    /// Records whose heads have come and which have not, in order.
    arriving: VecDeque<Arriving>,
    queue: VecDeque<Item>,
    /// What is arriving included.
    queued_bytes: usize,
    /// Since when nothing but failures came, and the last of them.
    failing: Option<(Instant, Error)>,
    backoff: Backoff,
    flow: Flow,
    /// As of the last response.
    high_watermark: Option<Offset>,
}

/// Whether a partition's records are to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flow {
    Open,
    /// What was fetched is kept, and nothing more is fetched or taken.
    Closed,
    /// The partition is read no more; its place may be used for another.
    Removed,
}

/// Records that a response's head has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arriving {
    from: Offset,
    next: Offset,
    bytes: usize,
}

impl Partition {
    fn go_to(&mut self, offset: Offset) {
        self.position = offset;
        self.is_boundary = false;
    }
}

#[derive(Debug)]
enum Phase {
    Idle,
    Fetching,
    /// The offset to go on with is to be asked for, or being asked for.
    Lost {
        asking: bool,
        cause: SkipCause,
    },
    Paused(Instant),
    /// Nothing is fetched until a seek.
    Halted(Error),
}

#[derive(Debug)]
enum Item {
    /// Whole batches, one after the other, and what of them is not handed out.
    Batches(Bytes, Arc<[Aborted]>),
    /// What follows begins at `to`, and not where what is before it ends.
    Skip {
        to: Offset,
        cause: SkipCause,
    },
    Failure(Error),
}

/// Names a partition as it was when something was asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::consumer) struct Ticket {
    index: usize,
    epoch: u32,
    /// Where the fetch begins.
    from: Offset,
    /// A replica is asked that the leader has named.
    of_replica: bool,
}

/// What the consumer found.
#[derive(Debug)]
pub(in crate::consumer) enum Taken {
    Batch {
        index: usize,
        topic: TopicName,
        partition: PartitionIndex,
        position: Offset,
        batch: Bytes,
        aborted: Arc<[Aborted]>,
    },
    Skip {
        index: usize,
        skip: Skip,
    },
    Failure(Error),
    Nothing,
}

impl Shared {
    pub(in crate::consumer) fn new(
        assignments: Vec<Assignment>,
        subscribed: Vec<TopicName>,
        settings: Arc<FetchSettings>,
        backoff: BackoffLimits,
    ) -> Self {
        let mut state = State {
            partitions: Vec::new(),
            ready: VecDeque::new(),
            queued_bytes: 0,
            turn: 0,
            subscribed,
            skipped: Totals::default(),
            deferred: None,
            settings,
            backoff,
        };
        for assignment in assignments {
            state.add(assignment);
        }
        Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            wanted: Notify::new(),
        }
    }
}

impl State {
    /// Begins to read a partition. Returns its place, by which it is named until it is removed.
    pub(in crate::consumer) fn add(&mut self, assignment: Assignment) -> usize {
        let Assignment {
            topic,
            partition,
            topic_id,
            offset,
        } = assignment;
        let mut added = Partition {
            topic,
            index: partition,
            topic_id,
            leader: None,
            source: Source::default(),
            phase: Phase::Idle,
            epoch: 0,
            fetch_offset: offset,
            position: offset,
            is_boundary: false,
            arriving: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            failing: None,
            backoff: Backoff::new(self.backoff),
            flow: Flow::Open,
            high_watermark: None,
        };
        let free = self.partitions.iter().position(|other| other.flow == Flow::Removed);
        if let Some(index) = free {
            // What is still on its way for the former partition is dropped.
            added.epoch = self.partitions[index].epoch + 1;
            self.partitions[index] = added;
            return index;
        }
        self.partitions.push(added);
        self.partitions.len() - 1
    }

    /// Reads a partition no more, and forgets what was fetched of it.
    pub(in crate::consumer) fn remove(&mut self, index: usize) {
        let position = self.partitions[index].position;
        self.seek(index, position);
        self.partitions[index].flow = Flow::Removed;
    }

    /// Stops or goes on handing out a partition's records. What is on its way comes, and is kept.
    pub(in crate::consumer) fn set_paused(&mut self, index: usize, paused: bool) {
        let partition = &mut self.partitions[index];
        if partition.flow == Flow::Removed {
            return;
        }
        partition.flow = if paused { Flow::Closed } else { Flow::Open };
        self.ready.retain(|&other| other != index);
        if !paused && !self.partitions[index].queue.is_empty() {
            self.ready.push_back(index);
        }
    }

    fn live(&self) -> impl Iterator<Item = &Partition> {
        self.partitions
            .iter()
            .filter(|partition| partition.flow != Flow::Removed)
    }

    /// Every partition that is read.
    pub(in crate::consumer) fn assigned(&self) -> Vec<(TopicName, PartitionIndex)> {
        self.live()
            .map(|partition| (partition.topic.clone(), partition.index))
            .collect()
    }

    pub(in crate::consumer) fn find(&self, topic: &str, partition: PartitionIndex) -> Option<usize> {
        self.partitions
            .iter()
            .position(|other| other.flow != Flow::Removed && other.index == partition && other.topic.as_str() == topic)
    }

    /// The partitions of a topic that are read.
    pub(in crate::consumer) fn partitions_of(&self, topic: &TopicName) -> HashSet<PartitionIndex> {
        let of_topic = self.live().filter(|partition| partition.topic == *topic);
        of_topic.map(|partition| partition.index).collect()
    }

    /// Why something is asked for again and again, if anything is.
    pub(in crate::consumer) fn retrying_after(&self) -> Option<Error> {
        let mut failures = self.live().filter_map(|partition| partition.failing.as_ref());
        failures.next().map(|(_, error)| error.clone())
    }

    pub(in crate::consumer) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(in crate::consumer) fn position(&self, index: usize) -> Offset {
        self.partitions[index].position
    }

    /// Goes on at `offset`, and forgets what was fetched.
    pub(in crate::consumer) fn seek(&mut self, index: usize, offset: Offset) {
        let partition = &mut self.partitions[index];
        partition.go_to(offset);
        partition.fetch_offset = offset;
        partition.epoch += 1;
        partition.phase = Phase::Idle;
        partition.failing = None;
        self.clear_queue(index);
    }

    fn clear_queue(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        self.queued_bytes -= std::mem::take(&mut partition.queued_bytes);
        partition.queue.clear();
        partition.arriving.clear();
        self.ready.retain(|&other| other != index);
    }

    /// Takes one batch, one skip or one failure from the partition whose turn it is.
    pub(in crate::consumer) fn take(&mut self) -> Taken {
        if let Some(error) = self.deferred.take() {
            return Taken::Failure(error);
        }
        while let Some(index) = self.ready.pop_front() {
            let taken = self.take_from(index);
            if !self.partitions[index].queue.is_empty() {
                self.ready.push_back(index);
            }
            if let Some(taken) = taken {
                return taken;
            }
        }
        let halted = self.live().map(|partition| match &partition.phase {
            Phase::Halted(error) => Some(error),
            _ => None,
        });
        // With every partition halted nothing will ever come.
        match halted
            .collect::<Option<Vec<_>>>()
            .and_then(|errors| errors.first().copied())
        {
            Some(error) => Taken::Failure(error.clone()),
            None => Taken::Nothing,
        }
    }

    /// `None`: nothing is queued. Nobody has looked at the batch yet but for its place, which its checksum does not cover.
    fn take_from(&mut self, index: usize) -> Option<Taken> {
        let partition = &mut self.partitions[index];
        let (batches, aborted) = match partition.queue.front_mut()? {
            Item::Batches(batches, aborted) => (batches, Arc::clone(aborted)),
            &mut Item::Skip { to, cause } => {
                partition.queue.pop_front();
                return Some(self.skip(index, to, cause));
            }
            Item::Failure(_) => match partition.queue.pop_front() {
                Some(Item::Failure(error)) => return Some(Taken::Failure(error)),
                _ => return None,
            },
        };
        let header = BatchHeader::read(batches);
        let (position, is_boundary) = (partition.position, partition.is_boundary);
        let place = header.and_then(|header| Ok((header.size(), check_place(header, position, is_boundary)?)));
        let (size, (base, next)) = match place {
            Ok(place) => place,
            Err(source) => {
                let error = corrupt(&partition.topic, partition.index, position, source);
                self.halt(index, position, error.clone());
                return Some(Taken::Failure(error));
            }
        };
        if base > partition.position {
            // Compaction has taken out whole batches.
            return Some(self.skip(index, base, SkipCause::NoRecord));
        }
        let batch = batches.split_to(size.min(batches.len()));
        if batches.is_empty() {
            partition.queue.pop_front();
        }
        partition.queued_bytes -= batch.len();
        self.queued_bytes -= batch.len();
        (partition.position, partition.is_boundary) = (next, true);
        let (topic, partition) = (partition.topic.clone(), partition.index);
        Some(Taken::Batch {
            index,
            topic,
            partition,
            position,
            batch,
            aborted,
        })
    }

    /// Moves the position without a record.
    fn skip(&mut self, index: usize, to: Offset, cause: SkipCause) -> Taken {
        let partition = &mut self.partitions[index];
        let from = partition.position;
        partition.go_to(to);
        // Where a batch begins, or somewhere else where the log goes on.
        partition.is_boundary = cause == SkipCause::NoRecord;
        let (topic, partition) = (partition.topic.clone(), partition.index);
        let skip = Skip {
            topic,
            partition,
            from,
            to,
            cause,
        };
        self.note_skipped(&skip.topic, partition, cause, skip.offsets());
        Taken::Skip { index, skip }
    }

    /// Counts offsets without a record that is handed out.
    pub(in crate::consumer) fn note_skipped(
        &mut self,
        topic: &TopicName,
        partition: PartitionIndex,
        cause: SkipCause,
        offsets: u64,
    ) {
        if offsets > 0 {
            self.skipped.add(topic, partition, cause, offsets);
        }
    }

    /// What has been skipped of each partition of which something has.
    pub(in crate::consumer) fn skipped(&self) -> Vec<Skipped> {
        self.skipped.all()
    }

    /// Has a failure that was taken already told by the next call.
    pub(in crate::consumer) fn defer(&mut self, error: Error) {
        self.deferred = Some(error);
    }

    /// The batch that begins at or before `position` is damaged: stays in front of it.
    pub(in crate::consumer) fn halt(&mut self, index: usize, position: Offset, error: Error) {
        self.seek(index, position);
        self.partitions[index].phase = Phase::Halted(error);
    }
}

/// Whether a batch may come next. Returns its first offset and the one after it. It may begin behind the position, where compaction has taken offsets
/// out, and in front of it only where reading begins in the middle of a batch.
fn check_place(header: BatchHeader<'_>, position: Offset, is_boundary: bool) -> Result<(Offset, Offset), BatchError> {
    let (base_offset, next) = (header.base_offset(), header.next_offset());
    if next <= position || (is_boundary && base_offset < position) {
        let expected = position;
        return Err(BatchError::OutOfPlace { base_offset, expected });
    }
    Ok((base_offset, next))
}
