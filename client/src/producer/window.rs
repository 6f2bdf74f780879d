//! What one partition's sender may send next, and in which order: decisions only, no I/O and no clock of its own.
//!
//! Batches are numbered (producer id, epoch, sequence) when they are first sent and keep their numbers over retries.
//! After any failure nothing more is sent until nothing is in flight; then the oldest batch goes alone, and the others
//! follow once it has been acknowledged. So a partition's batches are appended in order, whatever fails.
//!
//! A broker that knows nothing of a producer takes any number for its first. Were two batches in flight then and the
//! first one refused, the second would be taken, and the first would look like an old repetition when it is sent again.
//! Hence the first batch of an identity goes alone too, and so does the first after a time in which the broker may have
//! forgotten.
//!
//! A batch that the broker finds out of order, with none before it unsettled, was certainly not appended, nor was any
//! after it: a batch before it is missing for good. Only then may what remains be numbered anew, under the next epoch of
//! the producer id (KIP-360), so that the broker refuses what a connection that was cut may still bring under the old one.
//!
//! A batch that is larger than its topic takes is split (KIP-126). It was not appended, nor was any that follows it by number,
//! so its parts take its place and its numbers; only a record that is too large by itself fails.

mod entry;
mod split;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{ProducerEpoch, ProducerId, Sequence};

use super::accumulator::Batch;
use super::delivery::Delivered;
use super::tally::Tally;
use crate::error::Error;
use crate::runtime::Instant;

use entry::{Content, Entry};

/// After so long without a batch, the broker may have forgotten the producer. (Brokers remember for hours.)
const IDLE_MAX: Duration = Duration::from_mins(1);

/// Limits of a window.
#[derive(Debug, Clone, Copy)]
pub(super) struct WindowLimits {
    /// Batches in flight at once.
    pub(super) batches_max: usize,
    /// Bytes in flight at once; one batch may always be.
    pub(super) bytes_max: usize,
    /// From a batch's first record to its end.
    pub(super) delivery_timeout: Duration,
}

/// How batches are numbered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    id: ProducerId,
    epoch: ProducerEpoch,
    next: Sequence,
}

impl Identity {
    pub(super) fn new((id, epoch): (ProducerId, ProducerEpoch)) -> Self {
        Self {
            id,
            epoch,
            next: Sequence::ZERO,
        }
    }

    /// Fences off what was sent under this one; `None` after the last epoch.
    fn bumped(self) -> Option<Self> {
        let epoch = self.epoch.get().checked_add(1)?;
        Some(Self::new((self.id, ProducerEpoch::new(epoch))))
    }
}

/// Names one attempt to send one batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    batch: u64,
    number: u32,
}

/// What the sender is to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing until something happens.
    Wait,
    /// [`Window::take_next`] has a batch to send.
    Send,
    /// A failure is to be got over, and nothing is in flight: pause, then [`Window::resume`].
    Recover,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Good,
    /// After a failure, while others are in flight.
    Draining,
    /// The oldest batch goes alone.
    Probing,
}

/// The batches of one partition from the queue to their end.
#[derive(Debug)]
pub(super) struct Window {
    limits: WindowLimits,
    /// `None` without idempotence.
    identity: Option<Identity>,
    /// What remains is to be numbered anew before anything is sent.
    lost_numbers: bool,
    /// In the order of their numbers; all before those in `waiting`, except while draining.
    in_flight: VecDeque<Entry>,
    waiting: VecDeque<Entry>,
    bytes_in_flight: usize,
    next_number: u64,
    health: Health,
    last_error: Option<Error>,
    tally: Arc<Tally>,
    /// When the last batch was sent.
    sent_at: Option<Instant>,
}

impl Window {
    pub(super) fn new(limits: WindowLimits, identity: Option<Identity>, tally: Arc<Tally>) -> Self {
        Self {
            limits,
            identity,
            lost_numbers: false,
            in_flight: VecDeque::new(),
            waiting: VecDeque::new(),
            bytes_in_flight: 0,
            next_number: 0,
            health: Health::Good,
            last_error: None,
            tally,
            sent_at: None,
        }
    }

    /// Adds a batch behind all others.
    pub(super) fn push(&mut self, batch: Batch) {
        let Batch {
            builder,
            completer,
            reserved,
            opened_at,
        } = batch;
        let records = builder.record_count();
        self.tally.on_closed(records);
        self.waiting.push_back(Entry {
            number: self.next_number,
            attempts: 0,
            records,
            content: Content::Open(builder),
            sequence: None,
            completer: Some(completer),
            reserved,
            opened_at,
            deadline: opened_at + self.limits.delivery_timeout,
            sent_at: opened_at,
            in_doubt: false,
            refused: None,
        });
        self.next_number += u64::from(records);
    }

    /// Whether nothing is waiting or in flight.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// Batches in flight or waiting.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    /// Whether a small batch that came now would be the next to go.
    pub(super) fn has_room(&self) -> bool {
        self.waiting.is_empty() && (self.in_flight.is_empty() || self.may_send(0))
    }

    fn may_send(&self, size: usize) -> bool {
        let alone = self.in_flight.is_empty();
        match self.health {
            Health::Draining => false,
            Health::Probing => alone,
            Health::Good => {
                let fits = self.bytes_in_flight + size <= self.limits.bytes_max;
                self.in_flight.len() < self.limits.batches_max && (alone || fits)
            }
        }
    }

    pub(super) fn action(&self) -> Action {
        match self.waiting.front() {
            Some(_) if self.health == Health::Draining && self.in_flight.is_empty() => Action::Recover,
            Some(entry) if self.may_send(entry.size()) => Action::Send,
            _ => Action::Wait,
        }
    }

    /// The next batch to send, numbered and built; `None` if it is larger than the `size_max` bytes that the topic takes, and
    /// others have taken its place.
    ///
    /// # Panics
    /// Unless [`Window::action`] says [`Action::Send`].
    pub(super) fn take_next(&mut self, now: Instant, size_max: usize) -> Option<(Attempt, Bytes)> {
        assert_eq!(self.action(), Action::Send, "asked for a batch out of turn");
        let mut entry = self.waiting.pop_front().expect("there is a batch to send");
        debug_assert!(
            self.in_flight.back().is_none_or(|last| last.number < entry.number),
            "batches leave in order"
        );
        let was_numbered = entry.sequence.is_some();
        let bytes = entry.build(self.identity.as_mut());
        // What may have been appended is only ever sent again as it was, or it might be stored twice.
        if !entry.in_doubt && (bytes.len() > size_max || entry.refused.is_some()) {
            if let (false, Some(identity), Some(sequence)) = (was_numbered, &mut self.identity, entry.sequence) {
                // They have not been used.
                identity.next = sequence;
                entry.sequence = None;
            }
            self.make_fit(entry, &bytes, size_max);
            return None;
        }
        let idle = self.in_flight.is_empty() && self.sent_at.is_none_or(|last| last + IDLE_MAX <= now);
        if idle && entry.sequence.is_some() {
            self.health = Health::Probing;
        }
        self.sent_at = Some(now);
        entry.attempts += 1;
        entry.sent_at = now;
        self.sent_at = Some(now);
        let attempt = Attempt {
            batch: entry.number,
            number: entry.attempts,
        };
        self.tally.on_sent(bytes.len(), entry.attempts > 1);
        self.bytes_in_flight += bytes.len();
        self.in_flight.push_back(entry);
        Some((attempt, bytes))
    }

    /// Puts the parts of a batch that is too large in its place, or fails the one record that is.
    fn make_fit(&mut self, mut entry: Entry, bytes: &Bytes, size_max: usize) {
        let topic = entry.completer.as_ref().map(|completer| completer.topic().clone());
        match split::split(&mut entry, bytes, size_max) {
            Ok(parts) if parts.is_empty() => {
                let size = bytes.len();
                let too_large = |topic| Error::RecordTooLarge { topic, size, size_max };
                // Where the limit that is known does not tell why, the broker does.
                let refused = entry.refused.take().filter(|_| size <= size_max);
                let error = refused.or_else(|| topic.map(too_large)).unwrap_or(Error::Closed);
                entry.fail(error, &self.tally);
            }
            Ok(parts) => {
                self.tally.on_split();
                tracing::debug!(size = bytes.len(), size_max, parts = parts.len(), "a batch was split");
                parts.into_iter().rev().for_each(|part| self.waiting.push_front(part));
            }
            Err(source) => entry.fail(
                Error::IllegalRecord {
                    source: Arc::new(source),
                },
                &self.tally,
            ),
        }
    }

    /// Takes the end of one attempt. Returns whether it was a failure.
    pub(super) fn on_result(&mut self, attempt: Attempt, result: Result<Delivered, Error>, now: Instant) -> bool {
        let Ok(index) = self
            .in_flight
            .binary_search_by_key(&attempt.batch, |entry| entry.number)
        else {
            return false;
        };
        if self.in_flight[index].attempts != attempt.number {
            return false;
        }
        let mut entry = self.in_flight.remove(index).expect("the index was just found");
        self.bytes_in_flight -= entry.size();
        let error = match result {
            Err(Error::Broker {
                code: ErrorCode::DuplicateSequenceNumber,
                ..
            }) if entry.sequence.is_some() => {
                self.succeed(
                    entry,
                    Delivered {
                        base_offset: None,
                        append_time: None,
                    },
                    now,
                );
                return false;
            }
            Ok(delivered) => {
                self.succeed(entry, delivered, now);
                return false;
            }
            Err(error) => error,
        };
        tracing::debug!(%error, batch = attempt.batch, attempt = attempt.number, "a batch failed");
        // Without numbers a batch that failed for good leaves no gap.
        if entry.sequence.is_some() || error.is_worth_another_attempt() {
            self.health = Health::Draining;
        }
        if refuses_number(&error) && entry.sequence.is_some() {
            let first = |entries: &VecDeque<Entry>| entries.front().is_none_or(|front| front.number > entry.number);
            self.lost_numbers |= first(&self.in_flight) && first(&self.waiting);
            if is_fenced(&error) {
                self.lost_numbers = true;
                self.identity = None;
            }
            self.put_back(entry, error, now);
        } else if error.is_too_large() && !entry.in_doubt {
            // It goes again in parts, and in its place.
            self.health = Health::Draining;
            entry.refused = Some(error.clone());
            self.put_back(entry, error, now);
        } else if error.is_worth_another_attempt() {
            entry.in_doubt |= !is_without_effect(&error);
            self.put_back(entry, error, now);
        } else {
            entry.fail(error, &self.tally);
        }
        true
    }

    fn succeed(&mut self, entry: Entry, delivered: Delivered, now: Instant) {
        if let Some(completer) = &entry.completer {
            let took = now.saturating_duration_since(entry.opened_at);
            self.tally
                .deliver(completer, delivered, (entry.records, entry.size()), took);
        }
        if let Content::Built(bytes) = entry.content {
            entry.reserved.recycle(bytes);
        }
        if self.health == Health::Probing {
            self.health = Health::Good;
            self.last_error = None;
        }
    }

    /// To be sent again, in its old place.
    fn put_back(&mut self, entry: Entry, error: Error, now: Instant) {
        self.last_error = Some(error);
        if entry.completer.is_none() {
            return;
        }
        if entry.deadline <= now {
            return self.time_out(entry);
        }
        let place = self.waiting.partition_point(|other| other.number < entry.number);
        self.waiting.insert(place, entry);
    }

    /// Sending failed before anything was sent: no connection, no leader.
    pub(super) fn on_failure(&mut self, error: Error) {
        self.last_error = Some(error);
        self.health = Health::Draining;
    }

    /// Ends what has reached its deadline.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.waiting.front().is_some_and(|entry| entry.deadline <= now) {
            let entry = self.waiting.pop_front().expect("there is a front");
            if entry.sequence.is_some() && self.health == Health::Good {
                // Whether it was appended is not known: the next one finds out.
                self.health = if self.in_flight.is_empty() {
                    Health::Probing
                } else {
                    Health::Draining
                };
            }
            self.time_out(entry);
        }
        for index in 0..self.in_flight.len() {
            if self.in_flight[index].deadline > now {
                break;
            }
            // The batch stays in the window, as its number does in the sequence.
            if self.in_flight[index].completer.is_some() {
                let error = self.timeout();
                self.in_flight[index].fail(error, &self.tally);
            }
        }
    }

    fn time_out(&self, mut entry: Entry) {
        entry.fail(self.timeout(), &self.tally);
    }

    fn timeout(&self) -> Error {
        let last = self.last_error.clone().map(Box::new);
        Error::Timeout {
            operation: "deliver",
            limit: self.limits.delivery_timeout,
            last,
        }
    }

    /// What has failed since the last success.
    pub(super) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Ends everything that waits.
    pub(super) fn fail_waiting(&mut self, error: &Error) {
        for mut entry in self.waiting.drain(..) {
            entry.fail(error.clone(), &self.tally);
        }
    }

    /// The next time at which [`Window::expire`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let in_flight = self.in_flight.iter().find(|entry| entry.completer.is_some());
        in_flight
            .into_iter()
            .chain(self.waiting.front())
            .map(|entry| entry.deadline)
            .min()
    }

    /// Since when the oldest attempt is in flight.
    pub(super) fn oldest_attempt(&self) -> Option<Instant> {
        self.in_flight.front().map(|entry| entry.sent_at)
    }

    /// Whether [`Window::resume`] wants a new identity.
    pub(super) fn needs_identity(&self) -> bool {
        self.lost_numbers && self.identity.and_then(Identity::bumped).is_none()
    }

    /// Goes on after a failure, with the oldest batch alone.
    pub(super) fn resume(&mut self, identity: Option<Identity>) {
        debug_assert!(self.in_flight.is_empty(), "resumed while batches are in flight");
        if self.lost_numbers {
            self.identity = identity.or_else(|| self.identity.and_then(Identity::bumped));
            assert!(self.identity.is_some(), "a spent identity is replaced before going on");
            self.lost_numbers = false;
            tracing::info!(identity = ?self.identity, "batches are numbered anew after a failure");
            for entry in &mut self.waiting {
                entry.sequence = None;
            }
        }
        self.health = Health::Probing;
    }
}

/// Whether the broker refuses the batch for its number or its producer: it was not appended.
fn refuses_number(error: &Error) -> bool {
    matches!(
        error,
        Error::Broker {
            code: ErrorCode::OutOfOrderSequenceNumber | ErrorCode::UnknownProducerId | ErrorCode::InvalidProducerEpoch,
            ..
        }
    )
}

/// Whether nothing can have been appended: there is no such topic.
fn is_without_effect(error: &Error) -> bool {
    let codes = [ErrorCode::UnknownTopicId, ErrorCode::UnknownTopicOrPartition];
    matches!(error, Error::Broker { code, .. } if codes.contains(code))
}

/// Whether the broker knows the producer under a later epoch than the batch has.
fn is_fenced(error: &Error) -> bool {
    let fenced = ErrorCode::InvalidProducerEpoch;
    matches!(error, Error::Broker { code, .. } if *code == fenced)
}

#[cfg(test)]
mod tests;
