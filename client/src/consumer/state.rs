//! The partitions of a consumer: what was fetched, what to fetch next, what failed. Decisions only, no I/O.
//!
//! Shared by the consumer, which takes batches out, and its fetcher task, which puts responses in, under one short lock.
//! A partition is in at most one fetch at a time; a seek raises its epoch, so that what was asked for before is dropped.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;
use headwater_protocol::batch::{BatchError, BatchHeader};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{Offset, PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::builder::OffsetReset;
use super::fetcher::FetchSettings;
use super::records::corrupt;
use crate::address::Address;
use crate::admin::OffsetSpec;
use crate::deadline::{Backoff, BackoffLimits};
use crate::error::Error;
use crate::requests::{FetchSlot, Fetched};
use crate::sync::Mutex;

/// Most fetches to one core at once. One is the rule; more where partitions got room while others wait for records.
const FETCHES_MAX: usize = 4;

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
    partition: PartitionIndex,
    topic_id: TopicId,
    /// `None`: to be asked for.
    leader: Option<Address>,
    phase: Phase,
    epoch: u32,
    /// Where the next fetch begins.
    fetch_offset: Offset,
    /// Where the consumer is.
    position: Offset,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// Since when nothing but failures came.
    failing_since: Option<Instant>,
    backoff: Backoff,
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
}

/// One fetch to send.
#[derive(Debug)]
pub(super) struct PlannedFetch {
    pub(super) address: Address,
    pub(super) tickets: Vec<Ticket>,
    pub(super) slots: Vec<FetchSlot>,
    pub(super) bytes_max: u32,
}

/// One offset to look up.
#[derive(Debug)]
pub(super) struct PlannedLookup {
    pub(super) ticket: Ticket,
    pub(super) topic: TopicName,
    pub(super) partition: PartitionIndex,
    pub(super) spec: OffsetSpec,
}

/// What the fetcher is to do now.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) fetches: Vec<PlannedFetch>,
    pub(super) lookups: Vec<PlannedLookup>,
    /// Topics whose leaders are not known.
    pub(super) leaderless: Vec<TopicName>,
    /// When to plan again, if nothing happens before.
    pub(super) wake_at: Option<Instant>,
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
        assignments.into_iter().for_each(|assignment| state.add(assignment));
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
            partition,
            topic_id,
            leader: None,
            phase: Phase::Idle,
            epoch: 0,
            fetch_offset: offset,
            position: offset,
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
            .map(|partition| (partition.topic.clone(), partition.partition))
            .collect()
    }

    pub(super) fn find(&self, topic: &str, partition: PartitionIndex) -> Option<usize> {
        self.partitions
            .iter()
            .position(|other| other.partition == partition && other.topic.as_str() == topic)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.queued_bytes
    }

    pub(super) fn position(&self, index: usize) -> Offset {
        self.partitions[index].position
    }

    // --- The consumer's side ------------------------------------------------------------------------------------

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
        let (size, next, control) = match BatchHeader::read(batches) {
            Ok(header) => (header.size(), header.next_offset(), header.is_control()),
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
        if control || next <= position {
            partition.position = position.max(next);
            return None;
        }
        partition.position = next;
        let (topic, partition) = (partition.topic.clone(), partition.partition);
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

    // --- The fetcher's side -------------------------------------------------------------------------------------

    /// What to do now; `in_flight` counts the fetches that each core has not answered.
    pub(super) fn plan(&mut self, now: Instant, in_flight: &HashMap<Address, usize>) -> Plan {
        let mut plan = Plan::default();
        let count = self.partitions.len();
        self.turn = (self.turn + 1) % count.max(1);
        let budget = self.settings.prefetch_bytes.saturating_sub(self.queued_bytes) as u32;
        let bytes_max = self.settings.fetch_bytes_max.min(budget);
        for index in (self.turn..count).chain(0..self.turn) {
            let settings = self.settings;
            let partition = &mut self.partitions[index];
            match partition.phase {
                Phase::Paused(until) if until > now => {
                    plan.wake_at = Some(plan.wake_at.map_or(until, |at| at.min(until)));
                    continue;
                }
                Phase::Paused(_) => partition.phase = Phase::Idle,
                Phase::Fetching | Phase::Halted(_) | Phase::Lost { asking: true } => continue,
                Phase::Idle | Phase::Lost { asking: false } => {}
            }
            let ticket = Ticket {
                index,
                epoch: partition.epoch,
            };
            if let Phase::Lost { asking } = &mut partition.phase {
                *asking = true;
                let spec = settings.reset.spec();
                let (topic, partition) = (partition.topic.clone(), partition.partition);
                plan.lookups.push(PlannedLookup {
                    ticket,
                    topic,
                    partition,
                    spec,
                });
                continue;
            }
            let Some(address) = &partition.leader else {
                if !plan.leaderless.contains(&partition.topic) {
                    plan.leaderless.push(partition.topic.clone());
                }
                continue;
            };
            let has_room = partition.queued_bytes < settings.partition_bytes_max as usize && budget > 0;
            if !has_room || in_flight.get(address).is_some_and(|&count| count >= FETCHES_MAX) {
                continue;
            }
            let slot = FetchSlot {
                topic: partition.topic_id,
                partition: partition.partition,
                offset: partition.fetch_offset,
                bytes_max: settings.partition_bytes_max,
            };
            partition.phase = Phase::Fetching;
            plan.add(address.clone(), ticket, slot, bytes_max);
        }
        plan
    }

    fn current(&mut self, ticket: Ticket) -> Option<&mut Partition> {
        self.partitions
            .get_mut(ticket.index)
            .filter(|partition| partition.epoch == ticket.epoch)
    }

    /// Takes one partition's share of a response.
    pub(super) fn on_fetched(&mut self, ticket: Ticket, fetched: &Fetched, records: Bytes, now: Instant) {
        let reset = self.settings.reset;
        let Some(partition) = self.current(ticket) else { return };
        partition.phase = Phase::Idle;
        match &fetched.result {
            Ok(()) => {}
            Err(Error::Broker {
                code: ErrorCode::OffsetOutOfRange,
                ..
            }) => {
                return self.on_out_of_range(ticket, fetched.log_start_offset, reset);
            }
            Err(error) => return self.on_failure(ticket, error, now),
        }
        partition.failing_since = None;
        partition.backoff.reset();
        match walk(&records, partition.fetch_offset) {
            Ok((0, _)) => {}
            Ok((size, next)) => {
                partition.fetch_offset = next;
                partition.queued_bytes += size;
                self.queued_bytes += size;
                self.enqueue(ticket.index, Item::Batches(records.slice(..size)));
            }
            Err(source) => {
                let error = corrupt(&partition.topic, partition.partition, partition.fetch_offset, source);
                self.halt_behind(ticket.index, error);
            }
        }
    }

    fn enqueue(&mut self, index: usize, item: Item) {
        let queue = &mut self.partitions[index].queue;
        queue.push_back(item);
        if queue.len() == 1 {
            self.ready.push_back(index);
        }
    }

    /// Fetches nothing more, and reports the error behind what is queued.
    fn halt_behind(&mut self, index: usize, error: Error) {
        self.partitions[index].phase = Phase::Halted(error.clone());
        self.enqueue(index, Item::Failure(error));
    }

    fn on_out_of_range(&mut self, ticket: Ticket, log_start: Option<Offset>, reset: OffsetReset) {
        let Some(partition) = self.current(ticket) else { return };
        let (topic, index, offset) = (partition.topic.clone(), partition.partition, partition.fetch_offset);
        tracing::info!(%topic, partition = %index, %offset, ?reset, "the position is out of range");
        if reset == OffsetReset::Error {
            let error = Error::OffsetOutOfRange {
                topic,
                partition: index,
                offset,
                log_start,
            };
            self.halt_behind(ticket.index, error);
        } else {
            partition.phase = Phase::Lost { asking: false };
        }
    }

    /// The answer to a [`PlannedLookup`].
    pub(super) fn on_lookup(&mut self, ticket: Ticket, result: Result<Offset, Error>, now: Instant) {
        let Some(partition) = self.current(ticket) else { return };
        match result {
            Ok(offset) => {
                partition.fetch_offset = offset;
                // Backwards too, if the topic was created anew: what is still queued has gone past it.
                if partition.queue.is_empty() || offset < partition.position {
                    partition.position = offset;
                    self.clear_queue(ticket.index);
                }
                self.partitions[ticket.index].phase = Phase::Idle;
            }
            Err(error) => {
                self.on_failure(ticket, &error, now);
                if let Some(partition) = self.current(ticket)
                    && matches!(partition.phase, Phase::Paused(_))
                {
                    partition.phase = Phase::Lost { asking: false };
                }
            }
        }
    }

    /// A fetch or a lookup failed for one partition.
    pub(super) fn on_failure(&mut self, ticket: Ticket, error: &Error, now: Instant) {
        let settings = self.settings;
        let Some(partition) = self.current(ticket) else { return };
        let unknown = matches!(error, Error::UnknownTopic(_) | Error::UnknownPartition { .. });
        if !unknown && !error.is_worth_another_attempt() {
            return self.halt_behind(ticket.index, error.clone());
        }
        if unknown || error.calls_for_metadata() {
            partition.leader = None;
        }
        partition.phase = Phase::Paused(now + partition.backoff.next_pause());
        let since = *partition.failing_since.get_or_insert(now);
        let patience = if unknown {
            settings.unknown_patience
        } else {
            settings.failing_patience
        };
        if now.duration_since(since) >= patience {
            // Reported once for each span of patience; the fetcher keeps trying.
            partition.failing_since = Some(now);
            let error = match error {
                error if unknown => error.clone(),
                error => Error::Timeout {
                    operation: "fetch",
                    limit: patience,
                    last: Some(Box::new(error.clone())),
                },
            };
            self.enqueue(ticket.index, Item::Failure(error));
        }
    }

    /// Partitions of this topic that wait for a leader.
    pub(super) fn leaderless(&self, topic: &TopicName) -> Vec<(Ticket, PartitionIndex)> {
        let waits = |(_, partition): &(usize, &Partition)| {
            partition.leader.is_none() && matches!(partition.phase, Phase::Idle) && partition.topic == *topic
        };
        let ticket = |(index, partition): (usize, &Partition)| {
            (
                Ticket {
                    index,
                    epoch: partition.epoch,
                },
                partition.partition,
            )
        };
        self.partitions.iter().enumerate().filter(waits).map(ticket).collect()
    }

    /// A leader was found for a partition, in a topic with this id.
    pub(super) fn on_leader(&mut self, ticket: Ticket, topic_id: TopicId, leader: Address) {
        let reset = self.settings.reset;
        let Some(partition) = self.current(ticket) else { return };
        partition.leader = Some(leader);
        if partition.topic_id != topic_id {
            // Another topic of the same name: the position means nothing in it.
            partition.topic_id = topic_id;
            self.on_out_of_range(ticket, None, reset);
        }
    }
}

impl Plan {
    fn add(&mut self, address: Address, ticket: Ticket, slot: FetchSlot, bytes_max: u32) {
        let fetch = match self.fetches.iter_mut().find(|fetch| fetch.address == address) {
            Some(fetch) => fetch,
            None => {
                self.fetches.push(PlannedFetch {
                    address,
                    tickets: Vec::new(),
                    slots: Vec::new(),
                    bytes_max,
                });
                self.fetches.last_mut().expect("a fetch was just added")
            }
        };
        fetch.tickets.push(ticket);
        fetch.slots.push(slot);
    }
}

/// Walks over the batches of a response by their headers. Returns the bytes of all whole batches and the offset after
/// the last.
fn walk(records: &[u8], from: Offset) -> Result<(usize, Offset), BatchError> {
    let (mut size, mut next) = (0, from);
    while size < records.len() {
        let header = BatchHeader::read(&records[size..])?;
        let end = size + header.size();
        if end > records.len() {
            return Err(BatchError::Truncated {
                need: end - size,
                have: records.len() - size,
            });
        }
        // A batch that lies before what was asked for, or goes back, would be handed out twice.
        next = next.max(header.next_offset());
        size = end;
    }
    Ok((size, next))
}
