//! What came of what was asked: records, new positions, leaders, and failures of all kinds.

use std::sync::Arc;

use bytes::Bytes;
use headwater_protocol::batch::{BatchError, BatchHeader};
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{Offset, PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;

use super::{Arriving, Flow, Item, Partition, Phase, Source, State, Ticket};
use crate::address::Address;
use crate::consumer::advance::SkipCause;
use crate::consumer::builder::OffsetReset;
use crate::consumer::records::corrupt;
use crate::error::Error;
use crate::requests::Fetched;
use crate::runtime::Instant;

/// A response came before another one that belongs in front of it.
#[derive(Debug)]
struct Overtaken;

impl State {
    pub(super) fn current(&mut self, ticket: Ticket) -> Option<&mut Partition> {
        self.partitions
            .get_mut(ticket.index)
            .filter(|partition| partition.epoch == ticket.epoch)
    }

    /// The head of a response has come: what follows its records can be asked for now.
    pub(in crate::consumer) fn on_begun(&mut self, ticket: Ticket, fetched: &Fetched) {
        let Some(partition) = self.current(ticket) else { return };
        partition.high_watermark = fetched.high_watermark.or(partition.high_watermark);
        let (Ok(()), Some(next)) = (&fetched.result, fetched.next_offset) else {
            return;
        };
        let is_asked_for = matches!(partition.phase, Phase::Fetching) && partition.fetch_offset == ticket.from;
        if !is_asked_for || next <= ticket.from || fetched.records_size == 0 {
            return;
        }
        let bytes = fetched.records_size;
        partition.arriving.push_back(Arriving {
            from: ticket.from,
            next,
            bytes,
        });
        partition.fetch_offset = next;
        partition.phase = Phase::Idle;
        partition.queued_bytes += bytes;
        self.queued_bytes += bytes;
    }

    /// The records that the head of this response announced, which now come or fail. `Err`: the response overtook another one, as
    /// when the partition has moved, so that what came and all behind it must be asked for again.
    fn take_arriving(&mut self, ticket: Ticket) -> Result<Option<Arriving>, Overtaken> {
        let Some(partition) = self.current(ticket) else {
            return Ok(None);
        };
        let Some(&first) = partition.arriving.front() else {
            return Ok(None);
        };
        if first.from != ticket.from {
            self.ask_again(ticket.index, first.from);
            return Err(Overtaken);
        }
        partition.arriving.pop_front();
        partition.queued_bytes -= first.bytes;
        self.queued_bytes -= first.bytes;
        Ok(Some(first))
    }

    /// Forgets everything that is on its way, and goes on at `from`.
    fn ask_again(&mut self, index: usize, from: Offset) {
        let partition = &mut self.partitions[index];
        let bytes: usize = partition.arriving.drain(..).map(|arriving| arriving.bytes).sum();
        partition.queued_bytes -= bytes;
        partition.epoch += 1;
        partition.fetch_offset = from;
        partition.phase = Phase::Idle;
        self.queued_bytes -= bytes;
    }

    /// Takes one partition's share of a response.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "what holds the response's memory is handed over"
    )]
    pub(in crate::consumer) fn on_fetched(&mut self, ticket: Ticket, fetched: &Fetched, records: Bytes, now: Instant) {
        let reset = self.settings.reset;
        if let Err(error) = &fetched.result
            && (ticket.of_replica || !is_out_of_range(error))
        {
            return self.on_failure(ticket, error, now);
        }
        let Ok(announced) = self.take_arriving(ticket) else {
            return;
        };
        let Some(partition) = self.current(ticket) else { return };
        if announced.is_none() {
            partition.phase = Phase::Idle;
            partition.high_watermark = fetched.high_watermark.or(partition.high_watermark);
        }
        if fetched.result.is_err() {
            return self.on_out_of_range(ticket, fetched.log_start_offset, reset);
        }
        partition.failing = None;
        partition.backoff.reset();
        let walked = walk(&records, ticket.from, fetched.next_offset);
        match announced {
            Some(announced) if announced.next == walked.next => {}
            // The head was wrong: what was asked for since does not follow these records.
            Some(_) => self.ask_again(ticket.index, walked.next),
            None => partition.fetch_offset = walked.next,
        }
        if walked.size > 0 {
            let batches = Item::Batches(records.slice(..walked.size), Arc::clone(&fetched.aborted));
            self.enqueue(ticket.index, batches);
        }
        if let Some(source) = walked.damage {
            let partition = &self.partitions[ticket.index];
            let error = corrupt(&partition.topic, partition.index, walked.next, source);
            self.ask_again(ticket.index, walked.next);
            self.halt_behind(ticket.index, error);
        }
    }

    fn enqueue(&mut self, index: usize, item: Item) {
        if let Item::Batches(batches, _) = &item {
            self.partitions[index].queued_bytes += batches.len();
            self.queued_bytes += batches.len();
        }
        let partition = &mut self.partitions[index];
        partition.queue.push_back(item);
        if partition.queue.len() == 1 && partition.flow == Flow::Open {
            self.ready.push_back(index);
        }
    }

    /// Fetches nothing more, and reports the error behind what is queued.
    fn halt_behind(&mut self, index: usize, error: Error) {
        self.partitions[index].phase = Phase::Halted(error.clone());
        self.enqueue(index, Item::Failure(error));
    }

    /// The position is not in the log: what lay there was deleted, or the log ends before it.
    fn on_out_of_range(&mut self, ticket: Ticket, log_start: Option<Offset>, reset: OffsetReset) {
        let Some(partition) = self.current(ticket) else { return };
        let (topic, index, offset) = (partition.topic.clone(), partition.index, partition.fetch_offset);
        if reset == OffsetReset::Error {
            let error = Error::OffsetOutOfRange {
                topic,
                partition: index,
                offset,
                log_start,
            };
            return self.halt_behind(ticket.index, error);
        }
        let cause = SkipCause::Reset;
        partition.phase = Phase::Lost { asking: false, cause };
        let Some(to) = log_start.filter(|start| *start > offset) else {
            tracing::warn!(%topic, partition = %index, %offset, ?reset, "the position is not in the log");
            return;
        };
        tracing::warn!(%topic, partition = %index, from = %offset, %to, "records were deleted before they were read");
        partition.fetch_offset = to;
        if reset == OffsetReset::Earliest {
            partition.phase = Phase::Idle;
        }
        let cause = SkipCause::Deleted;
        self.enqueue(ticket.index, Item::Skip { to, cause });
    }

    /// The answer to a [`PlannedLookup`].
    pub(in crate::consumer) fn on_lookup(&mut self, ticket: Ticket, result: Result<Offset, Error>, now: Instant) {
        let Some(partition) = self.current(ticket) else { return };
        let Phase::Lost { cause, .. } = partition.phase else {
            return;
        };
        match result {
            Ok(to) => {
                partition.phase = Phase::Idle;
                let from = std::mem::replace(&mut partition.fetch_offset, to);
                if to != from || cause == SkipCause::Recreated {
                    self.enqueue(ticket.index, Item::Skip { to, cause });
                }
            }
            Err(error) => {
                self.on_failure(ticket, &error, now);
                if let Some(partition) = self.current(ticket)
                    && matches!(partition.phase, Phase::Paused(_))
                {
                    partition.phase = Phase::Lost { asking: false, cause };
                }
            }
        }
    }

    /// A fetch or a lookup failed for one partition.
    pub(in crate::consumer) fn on_failure(&mut self, ticket: Ticket, error: &Error, now: Instant) {
        let (unknown_patience, failing_patience) = (self.settings.unknown_patience, self.settings.failing_patience);
        let mut ticket = ticket;
        match self.take_arriving(ticket) {
            Ok(None) => {}
            // What was asked for since begins behind records that will not come.
            Ok(Some(lost)) => {
                self.ask_again(ticket.index, lost.from);
                ticket.epoch += 1;
            }
            Err(Overtaken) => return,
        }
        if ticket.of_replica {
            return self.on_replica_failure(ticket, error, now);
        }
        let Some(partition) = self.current(ticket) else { return };
        if is_damage(error) {
            // Another attempt would find the same.
            let error = corrupt(&partition.topic, partition.index, ticket.from, BatchError::Unreadable);
            return self.halt_behind(ticket.index, error);
        }
        let unknown = matches!(error, Error::UnknownTopic(_) | Error::UnknownPartition { .. });
        if !unknown && !error.is_worth_another_attempt() {
            return self.halt_behind(ticket.index, error.clone());
        }
        if unknown || error.calls_for_metadata() {
            partition.leader = None;
        }
        partition.phase = Phase::Paused(now + partition.backoff.next_pause());
        let since = partition.failing.take().map_or(now, |(since, _)| since);
        let patience = if unknown { unknown_patience } else { failing_patience };
        let is_over = now.duration_since(since) >= patience;
        partition.failing = Some((if is_over { now } else { since }, error.clone()));
        if is_over {
            // Reported once for each span of patience; the fetcher keeps trying.
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
    pub(in crate::consumer) fn leaderless(&self, topic: &TopicName) -> Vec<(Ticket, PartitionIndex)> {
        let waits = |(_, partition): &(usize, &Partition)| {
            partition.leader.is_none()
                && partition.flow == Flow::Open
                && matches!(partition.phase, Phase::Idle)
                && partition.topic == *topic
        };
        let ticket = |(index, partition): (usize, &Partition)| {
            (
                Ticket {
                    index,
                    epoch: partition.epoch,
                    from: partition.fetch_offset,
                    of_replica: false,
                },
                partition.index,
            )
        };
        self.partitions.iter().enumerate().filter(waits).map(ticket).collect()
    }

    /// A leader was found for a partition, in a topic with this id.
    pub(in crate::consumer) fn on_leader(&mut self, ticket: Ticket, topic_id: TopicId, leader: Address) {
        let reset = self.settings.reset;
        let Some(partition) = self.current(ticket) else { return };
        partition.leader = Some(leader);
        if partition.topic_id != topic_id {
            // Another topic of the same name: the position means nothing in it.
            partition.topic_id = topic_id;
            partition.high_watermark = None;
            partition.source = Source::default();
            if reset == OffsetReset::Error {
                return self.on_out_of_range(ticket, None, reset);
            }
            let (topic, index) = (&partition.topic, partition.index);
            tracing::warn!(%topic, partition = %index, ?reset, "the topic was deleted and created anew");
            let cause = SkipCause::Recreated;
            partition.phase = Phase::Lost { asking: false, cause };
        }
    }
}

fn is_out_of_range(error: &Error) -> bool {
    matches!(
        error,
        Error::Broker {
            code: ErrorCode::OffsetOutOfRange,
            ..
        }
    )
}

/// The broker cannot read what was asked for.
fn is_damage(error: &Error) -> bool {
    matches!(
        error,
        Error::Broker {
            code: ErrorCode::CorruptMessage,
            ..
        }
    )
}

/// The batches of a response up to where they are damaged.
struct Walked {
    /// Bytes of whole batches.
    size: usize,
    /// The offset after them.
    next: Offset,
    /// Why there are no more, if there are more bytes.
    damage: Option<BatchError>,
}

impl Walked {
    /// What follows is damaged.
    fn with(self, damage: BatchError) -> Self {
        let damage = Some(damage);
        Self { damage, ..self }
    }

    /// What was taken in from there on is damaged already.
    fn up_to(self, (size, next): (usize, Offset), damage: BatchError) -> Self {
        Self { size, next, ..self }.with(damage)
    }
}

/// Walks over the batches of a response by their headers, which are only believed as far as they fit each other and `end`, where
/// the records end according to the response's head: whoever takes a batch looks at its checksum, but that does not cover the
/// base offset.
fn walk(records: &[u8], from: Offset, end: Option<Offset>) -> Walked {
    let mut walked = Walked {
        size: 0,
        next: from,
        damage: None,
    };
    // Where the last batch begins, and what is wrong with that, if it is the batch that is out of place and not the next.
    let (mut last, mut suspect) = ((0, from), None);
    while walked.size < records.len() {
        let header = match header_of(&records[walked.size..]) {
            Ok(header) => header,
            Err(error) => return walked.with(error),
        };
        let (base_offset, expected) = (header.base_offset(), walked.next);
        let is_first = walked.size == 0;
        if base_offset < expected && !is_first {
            return match suspect {
                Some(damage) => walked.up_to(last, damage),
                None => walked.with(BatchError::OutOfPlace { base_offset, expected }),
            };
        }
        last = (walked.size, expected);
        // Compaction may have taken out what is missing.
        suspect = (base_offset > expected).then_some(BatchError::OutOfPlace { base_offset, expected });
        walked.size += header.size();
        walked.next = expected.max(header.next_offset());
    }
    match suspect {
        Some(damage) if end.is_some_and(|end| walked.next > end) => walked.up_to(last, damage),
        _ => walked,
    }
}

/// The header of the whole batch that the bytes begin with.
fn header_of(bytes: &[u8]) -> Result<BatchHeader<'_>, BatchError> {
    let header = BatchHeader::read(bytes)?;
    let (need, have) = (header.size(), bytes.len());
    if need > have {
        return Err(BatchError::Truncated { need, have });
    }
    Ok(header)
}
