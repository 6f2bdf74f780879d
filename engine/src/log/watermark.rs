//! The high watermark: below it every replica that counts has the log, so clients may read it and nothing takes it back.
//!
//! A log is opened with one replica: its high watermark is its durable offset, and follows it by itself. Where there are others,
//! the partition's role says so and moves it (`hold`, `advance`): up only, and never beyond the end of the log. It is a whole
//! number of batches as long as replicas tell what they have in whole batches. Who waits for it waits in the order of the log.

use std::collections::VecDeque;

use headwater_protocol::id::Offset;

use super::{Appended, Log, Ticket};
use crate::{disk::Disk, error::LogError, signal::Wait};

/// How far a fetch may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadLimit {
    /// What is on this log's own stable storage.
    Durable,
    /// What is on enough replicas: for clients.
    HighWatermark,
    /// The same, up to the first transaction that has not ended: for clients that read what is committed.
    LastStable,
    /// All that was appended, durable or not: for replicas.
    LogEnd,
}

/// The offsets of a log, in Kafka's terms; with one replica the high watermark is the durable offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogOffsets {
    /// Log start offset: the first record that can be fetched.
    pub start: Offset,
    /// High watermark: the first record that is not yet on all replicas that count.
    pub high_watermark: Offset,
    /// Last stable offset: the first record of the oldest transaction that has not ended, or whose end is not on all replicas that
    /// count; the high watermark if there is none. Never above that.
    pub last_stable: Offset,
    /// Durable offset: the first record that is not yet on stable storage.
    pub durable: Offset,
    /// Log end offset: what the next record gets.
    pub end: Offset,
}

impl LogOffsets {
    /// Offset after the last record that such a fetch may read.
    pub fn limit(&self, limit: ReadLimit) -> Offset {
        match limit {
            ReadLimit::Durable => self.durable,
            ReadLimit::HighWatermark => self.high_watermark,
            ReadLimit::LastStable => self.last_stable,
            ReadLimit::LogEnd => self.end,
        }
    }
}

/// The high watermark of one log, and who waits for it.
#[derive(Debug)]
pub(super) struct Watermark {
    offset: Offset,
    /// Others than the log itself decide where it is.
    is_held: bool,
    /// By the offsets that it has to reach, in order.
    waiting: VecDeque<(Offset, Ticket)>,
}

impl Watermark {
    /// Of a log whose durable offset is `durable`.
    pub(super) fn new(durable: Offset) -> Watermark {
        Watermark {
            offset: durable,
            is_held: false,
            waiting: VecDeque::new(),
        }
    }

    pub(super) fn offset(&self) -> Offset {
        self.offset
    }

    /// Whether it has to be stored: it cannot be known from what is durable.
    pub(super) fn is_held(&self) -> bool {
        self.is_held
    }

    /// The log's own storage has come so far.
    pub(super) fn made_durable(&mut self, durable: Offset) {
        if !self.is_held {
            self.advance(durable);
        }
    }

    /// Moves up to `to`; never back. Returns whether it moved.
    fn advance(&mut self, to: Offset) -> bool {
        if to <= self.offset {
            return false;
        }
        self.offset = to;
        while let Some((_, ticket)) = self.waiting.pop_front_if(|(wanted, _)| *wanted <= to) {
            ticket.settle(&Ok(()));
        }
        true
    }

    /// A ticket for when it has reached `wanted`.
    fn ticket(&mut self, wanted: Offset) -> Ticket {
        if wanted <= self.offset {
            return Ticket::settled();
        }
        let ticket = Ticket::open();
        self.wait_for(wanted, ticket.clone());
        ticket
    }

    fn wait_for(&mut self, wanted: Offset, ticket: Ticket) {
        if wanted <= self.offset {
            return ticket.settle(&Ok(()));
        }
        let at = self.waiting.partition_point(|(offset, _)| *offset <= wanted);
        self.waiting.insert(at, (wanted, ticket));
    }

    /// The log ends at `end`: what lay behind it is gone.
    pub(super) fn truncate(&mut self, end: Offset, error: &LogError) {
        self.offset = self.offset.min(end);
        while let Some((_, ticket)) = self.waiting.pop_back_if(|(wanted, _)| *wanted > end) {
            ticket.settle(&Err(error.clone()));
        }
    }

    /// The log has nothing any more, and goes on at `start`.
    pub(super) fn begin_at(&mut self, start: Offset, error: &LogError) {
        self.fail(error);
        self.offset = start;
    }

    /// Nobody will learn any more whether it gets further.
    pub(super) fn fail(&mut self, error: &LogError) {
        for (_, ticket) in self.waiting.drain(..) {
            ticket.settle(&Err(error.clone()));
        }
    }
}

impl<D: Disk> Log<D> {
    /// From now on the partition has other replicas: the high watermark is at `at`, if that is not beyond where it was, until
    /// [`advance_high_watermark`](Self::advance_high_watermark) moves it. Whoever opens a log of several replicas calls this before
    /// anybody else sees it, with [`Recovery::high_watermark`](super::Recovery::high_watermark), as the durable offset says nothing of
    /// what others have.
    ///
    /// Who waits for what was appended before and is not durable waits for the high watermark from now on.
    pub fn hold_high_watermark(&self, at: Offset) {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        state.watermark.offset = at.clamp(state.start, state.watermark.offset);
        state.transactions.unsettle(state.watermark.offset);
        state.transactions.keep_no_more();
        if !state.watermark.is_held {
            state.watermark.is_held = true;
            // They were handed out for both: being durable here is not enough any more.
            for (wanted, ticket) in state.pending.renew() {
                state.watermark.wait_for(wanted, ticket);
            }
        }
        state.changed();
        state.check();
    }

    /// The partition has no other replica (any more): the high watermark is the durable offset from now on.
    pub fn follow_durable_offset(&self) {
        let mut state = self.state.borrow_mut();
        let durable = state.durable.offset;
        state.watermark.is_held = false;
        state.watermark.made_durable(durable);
        state.settle_transactions();
        state.changed();
        state.check();
        drop(state);
        self.advanced.notify();
    }

    /// Moves the high watermark up to `to`, as far as the log reaches; never back.
    ///
    /// # Panics
    /// If the log follows its durable offset: there are no others who could have said so.
    pub fn advance_high_watermark(&self, to: Offset) {
        let mut state = self.state.borrow_mut();
        assert!(
            state.watermark.is_held,
            "the high watermark of a log without other replicas is its own"
        );
        let end = state.end();
        if !state.watermark.advance(to.min(end)) {
            return;
        }
        state.settle_transactions();
        state.changed();
        state.check();
        drop(state);
        self.advanced.notify();
    }

    /// Resolves when the high watermark has passed an append: what `acks=all` waits for. `acks=1` waits for
    /// [`Appended::durable`]. Take it before anything else is awaited, as a truncation may put others in its place.
    pub fn committed(&self, appended: &Appended) -> Ticket {
        let mut state = self.state.borrow_mut();
        if state.watermark.is_held {
            state.watermark.ticket(appended.next_offset)
        } else {
            appended.durable.clone()
        }
    }

    /// Resolves when such a fetch may find more than now, or never will: for fetches that wait for records. It may resolve early.
    pub fn advanced(&self, limit: ReadLimit) -> Wait<'_> {
        match limit {
            // The last stable offset moves only with the high watermark: a marker counts when that has passed it.
            ReadLimit::Durable | ReadLimit::HighWatermark | ReadLimit::LastStable => self.advanced.wait(),
            ReadLimit::LogEnd => self.appended.wait(),
        }
    }
}
