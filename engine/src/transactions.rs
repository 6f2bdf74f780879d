//! Transactions of one partition, as its log sees them: which are open, and how those ended that a truncation may open again.
//!
//! ```text
//! first batch ── open ── marker ── ended, but the marker is not below the high watermark: undecided ── decided ── forgotten
//!      └────────────── the last stable offset stays here at most ──────────────┘
//! ```
//! A transaction that has ended counts as open for readers until its marker is below the high watermark, as another leader may yet
//! end it otherwise. It is remembered for longer, until its marker is in the segment's file too, so that checkpoints and truncations
//! know what was open at any offset that they go back to. Owned by its log; the state is made of the log's bytes alone, so a
//! follower has the same.

pub(crate) mod aborted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use headwater_protocol::{
    batch::{EndMarker, Outcome, RecordBatch},
    id::{Offset, ProducerEpoch, ProducerId, Timestamp},
};
use serde::{Deserialize, Serialize};

/// A transaction that was aborted: what its producer has appended from the first to the last offset is not for readers of what is
/// committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    /// Whose transaction it was.
    pub producer_id: ProducerId,
    /// Of its first batch.
    pub first_offset: Offset,
    /// Of the marker that has ended it.
    pub last_offset: Offset,
}

/// A transaction that has not ended in this partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenTransaction {
    /// Whose it is.
    pub producer_id: ProducerId,
    /// The producer's epoch in its last batch.
    pub producer_epoch: ProducerEpoch,
    /// Of its first batch.
    pub first_offset: Offset,
    /// The largest timestamp of its last batch.
    pub last_timestamp: Timestamp,
    /// Epoch of the coordinator that has ended the producer's last transaction here; -1 if none has.
    pub coordinator_epoch: i32,
}

/// Which epoch a marker must have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MarkerEpoch {
    /// The producer's own, or a later one: transactions of version 1.
    Same,
    /// A later one than that of the transaction, which each end raises (KIP-890): transactions of version 2. One that comes again,
    /// late, then ends no later transaction.
    Raised,
}

/// An open transaction, as it also stands in the checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Open {
    producer: i64,
    epoch: i16,
    pub(crate) first: u64,
    last_timestamp: i64,
}

/// One that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ended {
    was: Open,
    /// Offset of the marker.
    marker: u64,
}

/// What a checkpoint tells of transactions.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    open: Vec<Open>,
    /// Those whose markers are at or above the high watermark.
    ended: Vec<Ended>,
}

impl Saved {
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty() && self.ended.is_empty()
    }

    /// Whether it can be true of a log that ends there.
    pub(crate) fn is_valid(&self, end: u64) -> bool {
        let is_ended = |ended: &Ended| ended.was.first < ended.marker && ended.marker < end;
        let in_order = self.ended.windows(2).all(|pair| pair[0].marker < pair[1].marker);
        self.open.iter().all(|open| open.first < end) && self.ended.iter().all(is_ended) && in_order
    }
}

/// All transactions of one log that are of any interest.
#[derive(Debug, Clone)]
pub(crate) struct Transactions {
    open: BTreeMap<i64, Open>,
    /// Ended by markers that are not below the high watermark, in the order of those.
    undecided: VecDeque<Ended>,
    /// Ended by markers below it.
    decided: VecDeque<Ended>,
    /// First offsets of those that readers of what is committed must not reach: open and undecided.
    unstable: BTreeSet<u64>,
    /// Of those whose markers are below this offset, some are forgotten.
    forgotten_below: u64,
    /// Nothing is forgotten from here on, whatever is decided: while a log is opened it is not known yet where the high watermark is.
    kept_from: u64,
}

impl Default for Transactions {
    fn default() -> Transactions {
        Transactions::from_checkpoint(Saved::default(), Offset::ZERO)
    }
}

impl Transactions {
    /// As of the end of a checkpoint that knows of all that have ended at or above `known_from`.
    pub(crate) fn from_checkpoint(saved: Saved, known_from: Offset) -> Transactions {
        let mut transactions = Transactions {
            open: saved.open.into_iter().map(|open| (open.producer, open)).collect(),
            undecided: saved.ended.into(),
            decided: VecDeque::new(),
            unstable: BTreeSet::new(),
            forgotten_below: known_from.get(),
            kept_from: u64::MAX,
        };
        transactions.find_unstable();
        transactions
    }

    fn find_unstable(&mut self) {
        let undecided = self.undecided.iter().map(|ended| ended.was.first);
        self.unstable = self.open.values().map(|open| open.first).chain(undecided).collect();
    }

    /// What a checkpoint has to tell that ends at `end`, when the high watermark is at `high_watermark`.
    pub(crate) fn as_of(&self, end: Offset, high_watermark: Offset) -> Saved {
        if self.open.is_empty() && self.undecided.is_empty() && self.decided.is_empty() {
            return Saved::default();
        }
        let mut then = self.clone();
        then.truncate(end);
        let ended = then.decided.iter().chain(&then.undecided).copied();
        Saved {
            open: then.open.values().copied().collect(),
            ended: ended.filter(|ended| ended.marker >= high_watermark.get()).collect(),
        }
    }

    /// Takes note of a batch at `offset`. Returns the transaction that it has aborted.
    #[inline]
    pub(crate) fn note(&mut self, batch: &RecordBatch<'_>, offset: Offset) -> Option<Aborted> {
        if batch.is_control() {
            return self.end(batch, offset);
        }
        // Of what compaction has emptied nothing is to be read, and its marker may be gone.
        if batch.is_transactional() && batch.record_count() > 0 {
            self.go_on(batch, offset);
        }
        None
    }

    fn go_on(&mut self, batch: &RecordBatch<'_>, offset: Offset) {
        let producer = batch.producer_id();
        if !producer.is_some() {
            return;
        }
        let (epoch, last_timestamp) = (batch.producer_epoch().get(), batch.max_timestamp().get());
        let open = self.open.entry(producer.get()).or_insert_with(|| {
            self.unstable.insert(offset.get());
            Open {
                producer: producer.get(),
                epoch,
                first: offset.get(),
                last_timestamp,
            }
        });
        (open.epoch, open.last_timestamp) = (epoch, last_timestamp);
    }

    #[cold]
    fn end(&mut self, batch: &RecordBatch<'_>, offset: Offset) -> Option<Aborted> {
        let marker = EndMarker::read(batch)?;
        let was = self.open.remove(&marker.producer_id.get())?;
        let ended = Ended {
            was,
            marker: offset.get(),
        };
        self.undecided.push_back(ended);
        (marker.outcome == Outcome::Abort).then(|| Aborted {
            producer_id: marker.producer_id,
            first_offset: Offset::new(was.first),
            last_offset: offset,
        })
    }

    /// The high watermark has moved up to `high_watermark`, or the segments' files reach to `filed`.
    #[inline]
    pub(crate) fn settle(&mut self, high_watermark: Offset, filed: Offset) {
        if self.undecided.is_empty() && self.decided.is_empty() {
            return;
        }
        let high_watermark = high_watermark.get();
        while let Some(ended) = self.undecided.pop_front_if(|ended| ended.marker < high_watermark) {
            self.unstable.remove(&ended.was.first);
            self.decided.push_back(ended);
        }
        let needed_from = high_watermark.min(filed.get()).min(self.kept_from);
        while let Some(ended) = self.decided.pop_front_if(|ended| ended.marker < needed_from) {
            self.forgotten_below = self.forgotten_below.max(ended.marker + 1);
        }
    }

    /// Forgets nothing from this offset on until [`keep_no_more`](Self::keep_no_more).
    pub(crate) fn keep_from(&mut self, offset: Offset) {
        self.kept_from = offset.get();
    }

    pub(crate) fn keep_no_more(&mut self) {
        self.kept_from = u64::MAX;
    }

    /// The high watermark is at `high_watermark`, further back than it was taken to be.
    pub(crate) fn unsettle(&mut self, high_watermark: Offset) {
        while let Some(ended) = self.decided.pop_back_if(|ended| ended.marker >= high_watermark.get()) {
            self.unstable.insert(ended.was.first);
            self.undecided.push_front(ended);
        }
    }

    /// Whether it is known what was open at `end`.
    pub(crate) fn knows(&self, end: Offset) -> bool {
        end.get() >= self.forgotten_below
    }

    /// Learns again what was open at `end`, from what was `found` in the log up to there.
    pub(crate) fn recall(&mut self, found: &Transactions, end: Offset) {
        self.decided.retain(|ended| ended.marker >= end.get());
        // Known from when it began, perhaps below what is left of the log.
        let is_same = |known: &Open, open: &Open| known.producer == open.producer && known.first <= open.first;
        let is_among = |list: &VecDeque<Ended>, open: &Open| {
            let mut list = list.iter().filter(|ended| ended.marker >= end.get());
            list.any(|ended| is_same(&ended.was, open))
        };
        for open in found.open.values() {
            let known = self.open.get(&open.producer);
            let is_open = known.is_some_and(|known| is_same(known, open));
            if !is_open && !is_among(&self.decided, open) && !is_among(&self.undecided, open) {
                // Wherever its marker was: behind the end.
                let ended = Ended {
                    was: *open,
                    marker: end.get(),
                };
                self.decided.push_front(ended);
            }
        }
        self.forgotten_below = self.forgotten_below.min(end.get());
    }

    /// The log ends at `end`: what was ended behind it is open again.
    pub(crate) fn truncate(&mut self, end: Offset) {
        let end = end.get();
        self.open.retain(|_, open| open.first < end);
        for list in [&mut self.undecided, &mut self.decided] {
            while let Some(ended) = list.pop_back_if(|ended| ended.marker >= end) {
                if ended.was.first < end {
                    self.open.insert(ended.was.producer, ended.was);
                }
            }
        }
        self.forgotten_below = self.forgotten_below.min(end);
        self.find_unstable();
    }

    /// First offset of the oldest that readers of what is committed must not reach.
    #[inline]
    pub(crate) fn first_unstable(&self) -> Option<Offset> {
        self.unstable.first().map(|first| Offset::new(*first))
    }

    /// First offset of the oldest that is open at the end of the log.
    pub(crate) fn open_since(&self) -> Option<Offset> {
        self.open.values().map(|open| Offset::new(open.first)).min()
    }

    /// First offset of a producer's open transaction.
    /// The epoch in which a producer has its open transaction.
    pub(crate) fn epoch_of(&self, producer: ProducerId) -> Option<ProducerEpoch> {
        let open = self.open.get(&producer.get())?;
        Some(ProducerEpoch::new(open.epoch))
    }

    pub(crate) fn first_of(&self, producer: ProducerId) -> Option<Offset> {
        self.open.get(&producer.get()).map(|open| Offset::new(open.first))
    }

    pub(crate) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// All that are open, the oldest first; `coordinator_epoch` knows that of each producer.
    pub(crate) fn list(&self, coordinator_epoch: impl Fn(ProducerId) -> i32) -> Vec<OpenTransaction> {
        let open = self.open.values().map(|open| {
            let producer_id = ProducerId::new(open.producer);
            OpenTransaction {
                producer_id,
                producer_epoch: ProducerEpoch::new(open.epoch),
                first_offset: Offset::new(open.first),
                last_timestamp: Timestamp::new(open.last_timestamp),
                coordinator_epoch: coordinator_epoch(producer_id),
            }
        });
        let mut open: Vec<OpenTransaction> = open.collect();
        open.sort_unstable_by_key(|open| open.first_offset);
        open
    }
}
