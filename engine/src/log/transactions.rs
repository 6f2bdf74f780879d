//! What a log does for transactions: markers, the last stable offset, and which transactions were aborted.
//!
//! The state of a transaction is made of the log's bytes (`transactions.rs`), whether they were appended, came from a leader, or were
//! found by recovery. Here is what needs the log: appending a marker, and the index of aborted transactions, which is read, written
//! and made again as the other indexes are.

use std::{io::ErrorKind, rc::Rc};

use headwater_protocol::{
    batch::{BatchLimits, EndMarker, RecordBatch},
    id::{Offset, ProducerEpoch, ProducerId},
};

use super::{
    Appended, DurablePoint, Log, State,
    scan::{Stretch, WINDOW},
    walk::Walk,
};
use crate::{
    disk::Disk,
    error::{LogError, MarkerError},
    moment::Moment,
    segment::{Segment, Sight, segment_path},
    transactions::{Aborted, MarkerEpoch, OpenTransaction, Transactions, aborted::EXTENSION},
};

impl<D: Disk> Log<D> {
    /// Ends a producer's transaction in this partition: appends a control batch in Kafka's own form. Without an open transaction it
    /// only raises the producer's epoch. As with [`append`](Self::append), something must poll [`flush`](Self::flush).
    ///
    /// Readers of what is committed see the end when the marker is below the high watermark:
    /// [`committed`](Self::committed) tells.
    pub fn append_marker(
        &self,
        marker: &EndMarker,
        rule: MarkerEpoch,
        now: impl Into<Moment>,
    ) -> Result<Appended, MarkerError> {
        let now = now.into();
        let (id, epoch) = (marker.producer_id, marker.producer_epoch);
        if id.get() < 0 || epoch.get() < 0 {
            return Err(MarkerError::NoProducer {
                producer: id.get(),
                epoch: epoch.get(),
            });
        }
        let bytes = marker.encode(now.clock);
        let limits = BatchLimits {
            batch_size_max: bytes.len(),
        };
        let batch = RecordBatch::parse(&bytes, &limits)?;
        let state = self.state.borrow_mut();
        if let Some(fence) = &state.fence {
            return Err(fence.clone().into());
        }
        let is_open = state.transactions.first_of(id).is_some();
        state.producers.check_marker(marker, rule, is_open)?;
        Ok(self.append_checked(state, &[batch], bytes.len(), now))
    }

    /// The transactions that are open at the end of the log, the oldest first.
    pub fn open_transactions(&self) -> Vec<OpenTransaction> {
        let state = self.state.borrow();
        state.transactions.list(|id| state.producers.coordinator_epoch(id))
    }

    /// The epoch in which the producer has its open transaction here, if it has one.
    pub fn open_epoch(&self, producer: ProducerId) -> Option<ProducerEpoch> {
        self.state.borrow().transactions.epoch_of(producer)
    }

    /// Whether the producer has an open transaction here.
    pub fn has_open_transaction(&self, producer: ProducerId) -> bool {
        self.state.borrow().transactions.first_of(producer).is_some()
    }

    /// The aborted transactions that have something from `from` up to `to`, in the order of their markers: what a reader of what is
    /// committed must know of such a range below the last stable offset.
    pub async fn aborted(&self, from: Offset, to: Offset) -> Result<Vec<Aborted>, LogError> {
        loop {
            match self.aborted_now(from, to).await {
                // Where it looked, the log is another one by now.
                Err(LogError::Truncated) => {}
                found => return found,
            }
        }
    }

    async fn aborted_now(&self, from: Offset, to: Offset) -> Result<Vec<Aborted>, LogError> {
        let segments = {
            let state = self.state.borrow();
            let first = state.segment_of(from).base_offset;
            // One that has ended in a later segment and began before `to` was open where that one begins.
            let is_over = |segment: &&Rc<Segment<D>>| {
                let open_since = segment.transactions.open_since.get();
                segment.base_offset < to || open_since.is_some_and(|since| since < to)
            };
            let segments = state.segments.iter().filter(|segment| segment.base_offset >= first);
            let concerned = segments.take_while(is_over);
            let has_some = concerned.filter(|segment| !segment.transactions.is_empty());
            has_some.map(Sight::of).collect::<Vec<_>>()
        };
        let mut found = Vec::new();
        for segment in segments {
            segment.check()?;
            let loaded = self.load_aborted(&segment).await;
            if loaded.is_err() && segment.extent.get().next_offset <= self.offsets().start {
                // Retention has taken it meanwhile.
                continue;
            }
            loaded?;
            segment.transactions.overlapping(from, to, &mut found);
        }
        Ok(found)
    }

    /// Makes sure that the aborted transactions of a segment are in memory.
    pub(super) async fn load_aborted(&self, segment: &Sight<D>) -> Result<(), LogError> {
        if segment.transactions.is_loaded() {
            return Ok(());
        }
        let stored = self.read_aborted(segment).await;
        segment.check()?;
        // The side file may have become that of another segment while it was read.
        let stored = stored.filter(|_| !segment.retired.get());
        let is_stored = stored.is_some();
        let entries = match stored {
            Some(entries) => entries,
            None => segment.still(self.replay(segment, segment.end()).await)?.1,
        };
        if !segment.transactions.is_loaded() {
            segment.transactions.put(entries, is_stored);
        }
        Ok(())
    }

    /// What the side file says; `None` if it is missing or damaged, or is not this segment's.
    async fn read_aborted(&self, segment: &Segment<D>) -> Option<Vec<Aborted>> {
        if segment.retired.get() {
            return None;
        }
        let path = segment_path(&self.directory, segment.base_offset, EXTENSION);
        let end = segment.extent.get().next_offset;
        let reason = match self.disk.read_file(&path).await {
            Ok(file) => match segment.transactions.decode(segment.base_offset, end, &file) {
                Some(entries) => return Some(entries),
                None => "it is damaged".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        if let Some(unsaid) = self.memory.indexes.said_rebuilt.may_speak(self.disk.now()) {
            tracing::warn!(path = %path.display(), reason, unsaid, "the index of aborted transactions is rebuilt from the log");
        }
        None
    }

    /// Writes the aborted transactions of a segment that have ended before `end`, if there are any and they are in memory. That they
    /// cannot be written stops nothing.
    pub(super) async fn store_aborted(&self, segment: &Segment<D>, end: Offset) {
        let transactions = &segment.transactions;
        if transactions.is_stored.get() || transactions.count_to_store(end) == 0 {
            return;
        }
        let Some(file) = transactions.encode(segment.base_offset, end) else {
            return;
        };
        let is_all = end >= segment.extent.get().next_offset;
        let path = segment_path(&self.directory, segment.base_offset, EXTENSION);
        let written = match self.disk.replace_file(&path, file).await {
            Err(error) if error.kind() == ErrorKind::IsADirectory => {
                // For the next attempt.
                let _ = self.disk.remove_dir_all(&path).await;
                Err(error)
            }
            written => written,
        };
        match written {
            // One may have ended meanwhile.
            Ok(()) => transactions
                .is_stored
                .set(is_all && end >= segment.extent.get().next_offset),
            Err(error) => {
                tracing::debug!(path = %path.display(), %error, "the index of aborted transactions is not written; it is tried again");
                if crate::disk::is_full(&error) {
                    self.is_short().await;
                }
            }
        }
    }

    /// Reads the log again up to `position` of a segment, from where the oldest transaction began that was open at the segment's
    /// beginning. Returns what is open there, and what was aborted by markers in this segment.
    async fn replay(&self, segment: &Rc<Segment<D>>, position: u64) -> Result<(Transactions, Vec<Aborted>), LogError> {
        let mut segments: Vec<Rc<Segment<D>>> = Vec::new();
        if let Some(since) = segment.transactions.open_since.get() {
            let state = self.state.borrow();
            let is_before = |other: &&Rc<Segment<D>>| other.base_offset < segment.base_offset;
            let is_concerned = |other: &&Rc<Segment<D>>| other.extent.get().next_offset > since && other.end() > 0;
            segments = state
                .segments
                .iter()
                .take_while(is_before)
                .filter(is_concerned)
                .cloned()
                .collect();
        }
        segments.push(Rc::clone(segment));
        let (mut transactions, mut aborted) = (Transactions::default(), Vec::new());
        for one in &segments {
            let is_last = Rc::ptr_eq(one, segment);
            let size = if is_last { position } else { one.end() };
            if size == 0 {
                continue;
            }
            let file = one.open(&self.disk).await?;
            let mut walk = Walk::over(self, one, &file, Stretch::up_to(one, size), WINDOW);
            while let Some(bytes) = walk.next().await? {
                let limits = BatchLimits {
                    batch_size_max: bytes.len(),
                };
                let Ok(batch) = RecordBatch::parse(&bytes, &limits) else {
                    continue;
                };
                let ended = transactions.note(&batch, batch.base_offset());
                aborted.extend(ended.filter(|_| is_last));
                // Only what is open is of interest.
                transactions.settle(Offset::MAX, Offset::MAX);
            }
            if walk.is_cut() {
                return Err(LogError::Truncated);
            }
        }
        Ok((transactions, aborted))
    }

    /// Before the log is cut at `end`, within a segment: finds out what was open there, if that was forgotten, and has in memory
    /// what was aborted in the segment.
    pub(super) async fn recall_transactions(
        &self,
        segment: &Rc<Segment<D>>,
        end: DurablePoint,
    ) -> Result<(), LogError> {
        self.load_aborted(&Sight::of(segment)).await?;
        let transactions = &segment.transactions;
        let has_any = transactions.has_any.get() || transactions.open_since.get().is_some();
        if !has_any || self.state.borrow().transactions.knows(end.offset) {
            return Ok(());
        }
        let (found, _) = self.replay(segment, end.position).await?;
        self.state.borrow_mut().transactions.recall(&found, end.offset);
        Ok(())
    }

    /// Opening has found markers, of which those that are not below this offset may count as undecided again.
    pub(super) fn settle_opened(&self, high_watermark: Offset) {
        let mut state = self.state.borrow_mut();
        let end = state.watermark.offset();
        state.transactions.settle(end, high_watermark);
        state.transactions.keep_from(high_watermark);
    }
}

impl<D: Disk> State<D> {
    /// The last stable offset: below it every transaction has ended, on all replicas that count.
    pub(super) fn last_stable(&self) -> Offset {
        let high_watermark = self.watermark.offset();
        let unstable = self.transactions.first_unstable();
        // What was deleted of an open transaction holds nobody back.
        unstable.map_or(high_watermark, |first| first.clamp(self.start, high_watermark))
    }

    /// The high watermark has moved, or more is in the segments' files.
    #[inline]
    pub(super) fn settle_transactions(&mut self) {
        let filed = self.filed.offset;
        self.transactions.settle(self.watermark.offset(), filed);
    }
}
