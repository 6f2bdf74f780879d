//! What a follower appends: batches as its leader has them, with their offsets, their epochs, and the holes between them.
//!
//! Nothing is renumbered and nothing stamped, so both logs are the same byte for byte. What the leader has checked of the records is
//! not checked again; what the network may have done to them, and whether they follow what is here, is. Idempotent producers and
//! epochs are noted as they come.

mod truncate;

use headwater_protocol::{
    batch::{BatchLimits, Batches, HEADER_LEN, RecordBatch},
    id::{LeaderEpoch, Offset},
};

use super::{
    Appended, DurablePoint, Log, State,
    append::{Placed, put},
};
use crate::{
    disk::Disk,
    error::{LogError, ReplicaError},
    moment::{Moment, Since},
    segment::Extent,
};

impl<D: Disk> Log<D> {
    /// Appends whole batches as the leader has them, from the end of this log on: all of them or none. They may be larger than this
    /// log would take from a client. As with [`append`](Self::append), something must poll [`flush`](Self::flush).
    pub fn append_replica(&self, payload: &[u8], now: impl Into<Moment>) -> Result<Appended, ReplicaError> {
        let now = now.into();
        // Whatever the leader has taken in is right, also if less is allowed by now; the payload bounds it.
        let limits = BatchLimits {
            batch_size_max: payload.len(),
        };
        let batches = Batches::new(payload, &limits).collect::<Result<Vec<_>, _>>()?;
        let first = batches.first().ok_or(ReplicaError::Empty)?;
        let mut state = self.state.borrow_mut();
        if let Some(fence) = &state.fence {
            return Err(fence.clone().into());
        }
        state.check_follows(&batches)?;
        let end = self.put_all(&mut state, &batches, now, Since::now(now));
        let durable = state.pending.push(end);
        state.last_append = Some(now.monotonic);
        state.transactions.keep_no_more();
        state.changed();
        state.check();
        drop(state);
        self.appended.notify();
        Ok(Appended {
            base_offset: first.base_offset(),
            next_offset: end.offset,
            duplicate: false,
            append_time: None,
            durable,
        })
    }

    /// Puts batches that follow the log's end there, as they are. Returns the end, for which nobody waits yet.
    pub(super) fn put_all(
        &self,
        state: &mut State<D>,
        batches: &[RecordBatch<'_>],
        now: Moment,
        appended: Since,
    ) -> DurablePoint {
        let config = self.config();
        let mut segment = self.segment_for(state, batches.first().map_or(0, |first| first.size()), now);
        for batch in batches {
            let fitting = self.segment_for(state, batch.size(), now);
            if fitting.base_offset != segment.base_offset {
                // An append ends in the segment where it began; here another begins.
                let _others = state.pending.push(end_of(segment.base_offset, segment.extent.get()));
                segment = fitting;
            }
            let (epoch, offset) = (batch.leader_epoch(), batch.base_offset());
            if state.epochs.latest() != Some(epoch) {
                let before = state.end();
                state.begin_epoch(epoch, before);
            }
            let header = &batch.bytes()[..HEADER_LEN];
            put(state, &segment, batch, Placed { offset, header }, appended, &config);
        }
        end_of(segment.base_offset, segment.extent.get())
    }

    /// The offset below which compaction may have left holes. A follower must know its leader's
    /// ([`expect_holes_below`](Self::expect_holes_below)) before it appends what lies below.
    pub fn holes_below(&self) -> Offset {
        self.state.borrow().compaction.record.holes_below()
    }

    /// Expects holes below `offset` from now on, as the leader has them there; anywhere else a hole is damage. Durable when it
    /// returns. To be called again when the log has been opened anew, or was truncated.
    pub async fn expect_holes_below(&self, offset: Offset) -> Result<(), LogError> {
        let _entered = self.upkeep_gate.enter().await;
        if let Some(fence) = self.fence() {
            return Err(fence);
        }
        let before = self.state.borrow().compaction.record;
        let after = before.with_holes_below(offset);
        if after == before {
            return Ok(());
        }
        // Before any batch behind a hole can be on the disk, where recovery would cut it off.
        after.write(&self.disk, &self.directory).await?;
        let mut state = self.state.borrow_mut();
        state.compaction.record = after;
        for segment in &state.segments {
            segment
                .has_holes
                .set(segment.has_holes.get() || after.has_holes(segment.base_offset));
        }
        Ok(())
    }
}

pub(super) fn end_of(segment: Offset, extent: Extent) -> DurablePoint {
    DurablePoint {
        segment,
        position: extent.end,
        offset: extent.next_offset,
    }
}

impl<D: Disk> State<D> {
    /// Whether the batches go on where the log ends.
    pub(super) fn check_follows(&self, batches: &[RecordBatch<'_>]) -> Result<(), ReplicaError> {
        let mut end = self.end();
        let mut latest = self.epochs.latest().unwrap_or(LeaderEpoch::new(0));
        for batch in batches {
            let (base, next, epoch) = (batch.base_offset(), batch.next_offset(), batch.leader_epoch());
            if base < end {
                return Err(ReplicaError::Overlap { base, next, end });
            }
            if base > end && base > self.compaction.record.holes_below() {
                return Err(ReplicaError::Gap { base, end });
            }
            if epoch < latest {
                return Err(ReplicaError::EarlierEpoch { base, epoch, latest });
            }
            (end, latest) = (next, epoch);
        }
        Ok(())
    }
}
