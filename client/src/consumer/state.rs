//! The partitions of a consumer: what was fetched, what to fetch next, what failed. Decisions only, no I/O.
//!
//! Shared by the consumer, which takes batches out, and its fetcher task, which puts responses in, under one short lock.
//! A partition waits for the head of one response at a time, while the records of earlier ones are still coming; they are taken
//! in order. A seek raises its epoch, so that what was asked for before is dropped.
//! Here is the consumer's side; the fetcher's is in `plan` (what to ask for) and `outcome` (what came of it).

mod outcome;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_protocol::batch::BatchHeader;
use headwater_protocol::id::{Offset, PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fetcher::FetchSettings;
use crate::address::Address;
use crate::deadline::{Backoff, BackoffLimits};
use crate::error::Error;
use crate::sync::Mutex;

pub(super) use plan::{Plan, PlannedFetch, PlannedLookup};

/// A partition to read, and from where.
#[derive(Debug, Clone)]
pub(super) struct Assignment {
    pub(super) topic: TopicName,
    pub(super) partition: PartitionIndex,
    pub(super) topic_id: TopicId,
    pub(super) offset: Offset,
}

/// What the consumer and its fetcher share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) state: Mutex<State>,
    /// Wakes the consumer: there is something to take.
    pub(super) arrived: Notify,
    /// Wakes the fetcher: there is room, or a new position.
    pub(super) wanted: Notify,
}

#[derive(Debug)]
pub(super) struct State {
    partitions: Vec<Partition>,
    /// Partitions that have something to take, in the order of their turns.
    ready: VecDeque<usize>,
    queued_bytes: usize,
    /// The partition that comes first in the next fetch.
    turn: usize,
    /// Topics whose new partitions are read as well.
    pub(super) subscribed: Vec<TopicName>,
    settings: FetchSettings,
    backoff: BackoffLimits,
}

#[derive(Debug)]
struct Partition {
    topic: TopicName,
    index: PartitionIndex,
    topic_id: TopicId,
    /// `None`: to be asked for.
    leader: Option<Address>,
    phase: Phase,
    epoch: u32,
    /// Where the next fetch begins.
    fetch_offset: Offset,
    /// Where the consumer is.
    position: Offset,
    /// Records whose heads have come and which have not, in order.
    arriving: VecDeque<Arriving>,
    queue: VecDeque<Item>,
    /// What is arriving included.
    queued_bytes: usize,
    /// Since when nothing but failures came.
    failing_since: Option<Instant>,
    backoff: Backoff,
}

/// Records that a response's head has announced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Arriving {
    from: Offset,
    next: Offset,
    bytes: usize,
}

#[derive(Debug)]
enum Phase {
    Idle,
    Fetching,
    /// The offset to go on with is to be asked for, or being asked for.
    Lost {
        asking: bool,
    },
    Paused(Instant),
    /// Nothing is fetched until a seek.
    Halted(Error),
}

#[derive(Debug)]
enum Item {
    /// Whole batches, one after the other.
    Batches(Bytes),
    Failure(Error),
}

/// Names a partition as it was when something was asked for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    index: usize,
    epoch: u32,
    /// Where the fetch begins.
    from: Offset,
}

/// What the consumer found.
#[derive(Debug)]
pub(super) enum Taken {
    Batch {
        index: usize,
        topic: TopicName,
        partition: PartitionIndex,
        position: Offset,
        batch: Bytes,
    },
    Failure(Error),
    Nothing,
}

impl Shared {
    pub(super) fn new(
        assignments: Vec<Assignment>,
        subscribed: Vec<TopicName>,
        settings: FetchSettings,
        backoff: BackoffLimits,
    ) -> Self {
        let mut state = State {
            partitions: Vec::new(),
            ready: VecDeque::new(),
            queued_bytes: 0,
            turn: 0,
            subscribed,
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
    pub(super) fn add(&mut self, assignment: Assignment) {
        let Assignment {
            topic,
            partition,
            topic_id,
            offset,
        } = assignment;
        self.partitions.push(Partition {
            topic,
            index: partition,
            topic_id,
            leader: None,
            phase: Phase::Idle,
            epoch: 0,
            fetch_offset: offset,
            position: offset,
            arriving: VecDeque::new(),
            queue: VecDeque::new(),
            queued_bytes: 0,
            failing_since: None,
            backoff: Backoff::new(self.backoff),
        });
    }

    /// Every partition that is read.
    pub(super) fn assigned(&self) -> Vec<(TopicName, PartitionIndex)> {
        self.partitions
            .iter()
            .map(|partition| (partition.topic.clone(), partition.index))
            .collect()
    }

    pub(super) fn find(&self, topic: &str, partition: PartitionIndex) -> Option<usize> {
        self.partitions
            .iter()
            .position(|other| other.index == partition && other.topic.as_str() == topic)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn position(&self, index: usize) -> Offset {
        self.partitions[index].position
    }

    /// Goes on at `offset`, and forgets what was fetched.
    pub(super) fn seek(&mut self, index: usize, offset: Offset) {
        let partition = &mut self.partitions[index];
        partition.position = offset;
        partition.fetch_offset = offset;
        partition.epoch += 1;
        partition.phase = Phase::Idle;
        partition.failing_since = None;
        self.clear_queue(index);
    }

    fn clear_queue(&mut self, index: usize) {
        let partition = &mut self.partitions[index];
        self.queued_bytes -= std::mem::take(&mut partition.queued_bytes);
        partition.queue.clear();
        partition.arriving.clear();
        self.ready.retain(|&other| other != index);
    }

    /// Takes one batch, or one failure, from the partition whose turn it is.
    pub(super) fn take(&mut self) -> Taken {
        while let Some(index) = self.ready.pop_front() {
            let taken = self.take_from(index);
            if !self.partitions[index].queue.is_empty() {
                self.ready.push_back(index);
            }
            if let Some(taken) = taken {
                return taken;
            }
        }
        let halted = self.partitions.iter().map(|partition| match &partition.phase {
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

    /// `None`: only a batch that is not of interest.
    fn take_from(&mut self, index: usize) -> Option<Taken> {
        let partition = &mut self.partitions[index];
        let batches = match partition.queue.front_mut()? {
            Item::Batches(batches) => batches,
            Item::Failure(_) => match partition.queue.pop_front() {
                Some(Item::Failure(error)) => return Some(Taken::Failure(error)),
                _ => return None,
            },
        };
        let (size, next, skipped) = match BatchHeader::read(batches) {
            Ok(header) => {
                // Compaction may leave batches without a record.
                let skipped = header.is_control() || header.record_count() == 0;
                (header.size(), header.next_offset(), skipped)
            }
            // Walked before it was queued.
            Err(_error) => (batches.len(), partition.position, true),
        };
        let batch = batches.split_to(size.min(batches.len()));
        if batches.is_empty() {
            partition.queue.pop_front();
        }
        partition.queued_bytes -= batch.len();
        self.queued_bytes -= batch.len();
        let position = partition.position;
        if skipped || next <= position {
            partition.position = position.max(next);
            return None;
        }
        partition.position = next;
        let (topic, partition) = (partition.topic.clone(), partition.index);
        Some(Taken::Batch {
            index,
            topic,
            partition,
            position,
            batch,
        })
    }

    /// The batch that begins at or before `position` is damaged: stays in front of it.
    pub(super) fn halt(&mut self, index: usize, position: Offset, error: Error) {
        self.seek(index, position);
        self.partitions[index].phase = Phase::Halted(error);
    }
}
