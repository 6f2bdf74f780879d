//! A partition as its core serves it: the log, and the task that flushes it while there is something to flush.

use std::{
    cell::Cell,
    future::{Future as _, poll_fn},
    pin::pin,
    rc::Rc,
    time::Duration,
};

use headwater_engine::{AppendError, Appended, Log, LogError, MarkerEpoch, Ticket, Vetted};
use headwater_protocol::{
    batch::{EndMarker, Outcome},
    error::ErrorCode,
};

use super::{acknowledge::Acknowledgements, replicated::Replicated};
use crate::{
    core::{Core, warn_seldom},
    image::Durability,
    machine::{self, Disk},
    model::{
        records::{Acks, Produced},
        refusal::Refusal,
        transaction::{End, Marker},
    },
};

/// Bytes of a marker, about.
const MARKER_BYTES: u64 = 78;

/// How long records wait for a file descriptor before there is another attempt.
const FILES_WAIT: Duration = Duration::from_millis(100);

/// One partition of a topic on the core that owns it.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) log: Log<Disk>,
    /// Of a topic that clients must leave to the broker.
    is_internal: bool,
    flushing: Cell<bool>,
    pub(super) acknowledgements: Acknowledgements,
    /// None: the broker is alone.
    pub(super) replicated: Option<Box<Replicated>>,
    /// It has filled a segment or is to keep less, and retention has not looked since.
    pub(crate) retains_early: Cell<bool>,
    /// What was appended since the last checkpoint.
    pub(crate) unscanned: Unscanned,
    /// Compaction has found bytes that do not read back.
    pub(crate) is_damaged: Cell<bool>,
    /// What counts for an acknowledgement.
    durability: Cell<Durability>,
    /// By producers, since the partition was opened.
    pub(crate) appended_bytes: Cell<u64>,
    /// Found by fetches, since the partition was opened.
    pub(crate) fetched_bytes: Cell<u64>,
}

impl Partition {
    pub(crate) fn new(log: Log<Disk>, is_internal: bool, replicated: Option<Replicated>) -> Rc<Partition> {
        Rc::new(Partition {
            log,
            is_internal,
            flushing: Cell::new(false),
            acknowledgements: Acknowledgements::default(),
            replicated: replicated.map(Box::new),
            retains_early: Cell::new(false),
            unscanned: Unscanned::default(),
            is_damaged: Cell::new(false),
            durability: Cell::default(),
            appended_bytes: Cell::new(0),
            fetched_bytes: Cell::new(0),
        })
    }

    /// Refuses what clients may not do to topics of the broker's own.
    pub(crate) fn check_not_internal(&self) -> Result<(), Refusal> {
        if self.is_internal {
            let message = "the topic belongs to the broker: clients may read it only";
            return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
        }
        Ok(())
    }

    /// Has somebody told what becomes of an append that was made just now.
    pub(crate) fn tell_when_safe(
        &self,
        core: &Core,
        appended: Appended,
        acks: Acks,
        told: impl FnOnce(Result<Produced, Refusal>) + 'static,
    ) {
        // Who asks for the leader alone is told at once where it is enough that the leader has it in memory.
        let is_enough = self.durability.get() == Durability::Memory && !matches!(acks, Acks::All { .. });
        self.acknowledgements
            .wait(core, &self.log, (appended, acks, is_enough), told);
    }

    /// What counts from now on, as the leader of several replicas goes by.
    pub(super) fn counts(&self, durability: Durability) {
        self.durability.set(durability);
        self.log.use_journal(durability == Durability::Disk);
    }

    /// What counts from now on, by the settings of the topic: for a broker that is alone. Of several replicas their terms say it.
    pub(super) fn goes_by(&self, core: &Core, durability: Durability) {
        if self.replicated.is_some() || self.durability.replace(durability) == durability {
            return;
        }
        self.log.use_journal(durability == Durability::Disk);
        match durability {
            Durability::Disk => self.log.follow_durable_offset(),
            Durability::Memory => {
                self.log.hold_high_watermark(self.log.offsets().high_watermark);
                self.has_all();
            }
        }
        self.acknowledge(core);
    }

    /// Nobody else is to have what this log has.
    fn has_all(&self) {
        if self.replicated.is_none() && self.durability.get() == Durability::Memory {
            self.log.advance_high_watermark(self.log.offsets().end);
        }
    }

    /// Tells those who have waited for replicas for too long.
    pub(super) fn expire(&self) {
        self.acknowledgements.expire();
    }

    /// Tells all whose appends are settled.
    pub(super) fn acknowledge(&self, core: &Core) {
        self.acknowledgements.tell_settled(core, &self.log);
    }

    /// Appends record batches of the broker's own.
    pub(crate) fn append(self: &Rc<Self>, core: &Rc<Core>, payload: &[u8]) -> Result<Appended, AppendError> {
        let vetted = Vetted::of_broker(payload, &self.log.config().batch)?;
        self.append_vetted(core, &vetted)
    }

    /// Ends a producer's transaction here. The ticket says when that is as safe as the partition's records are.
    pub(crate) fn append_marker(self: &Rc<Self>, core: &Rc<Core>, marker: Marker) -> Result<Ticket, ErrorCode> {
        self.led().map_err(|refusal| refusal.code)?;
        let written = EndMarker {
            producer_id: marker.producer.id,
            producer_epoch: marker.producer.epoch,
            outcome: match marker.end {
                End::Commit => Outcome::Commit,
                End::Abort => Outcome::Abort,
            },
            coordinator_epoch: marker.coordinator_epoch,
        };
        let rule = if marker.is_raised {
            MarkerEpoch::Raised
        } else {
            MarkerEpoch::Same
        };
        let appended = self.log.append_marker(&written, rule, machine::moment());
        let appended = appended.map_err(|error| {
            warn_seldom!(directory = %self.log.directory().display(), %error, "a transaction could not be ended here");
            error.code()
        })?;
        let ticket = self.log.committed(&appended);
        self.has_more();
        self.has_all();
        self.has_grown(core, MARKER_BYTES);
        Ok(ticket)
    }

    /// Appends record batches and sees to it that they are flushed.
    pub(crate) fn append_vetted(
        self: &Rc<Self>,
        core: &Rc<Core>,
        vetted: &Vetted<'_>,
    ) -> Result<Appended, AppendError> {
        let appended = self.log.append_vetted(vetted, machine::moment())?;
        let bytes = vetted.size() as u64;
        self.appended_bytes.set(self.appended_bytes.get() + bytes);
        self.has_more();
        self.has_all();
        self.has_grown(core, bytes);
        Ok(appended)
    }

    /// So many bytes were appended: they are flushed, and upkeep begins as soon as it is due.
    pub(super) fn has_grown(self: &Rc<Self>, core: &Rc<Core>, bytes: u64) {
        if self.log.take_filled() {
            self.retains_early.set(true);
            core.is_needed_early();
        }
        let limit = core.config.log.checkpoint_bytes_max.bytes();
        if self.unscanned.add(bytes, limit) {
            core.is_needed_early();
        }
        if self.log.needs_flush() && !self.flushing.replace(true) {
            machine::spawn(flush(Rc::clone(self), Rc::clone(core)));
        }
    }
}

/// Bytes appended since the last checkpoint, which recovery would scan.
#[derive(Debug, Default)]
pub(crate) struct Unscanned(Cell<u64>);

impl Unscanned {
    /// Takes note of an append. True if a checkpoint is due from now on: once, however much follows before it is written.
    fn add(&self, bytes: u64, limit: u64) -> bool {
        let before = self.0.get();
        self.0.set(before + bytes);
        before < limit && self.is_due(limit)
    }

    /// Whether a checkpoint should not wait for its interval.
    pub(crate) fn is_due(&self, limit: u64) -> bool {
        self.0.get() >= limit
    }

    /// A checkpoint is being written.
    pub(crate) fn clear(&self) {
        self.0.set(0);
    }
}

/// Runs from the first append until everything is durable.
async fn flush(partition: Rc<Partition>, core: Rc<Core>) {
    let _working = core.working();
    let delay = Duration::from_micros(core.config.flush.delay_us.get());
    if !delay.is_zero() {
        machine::sleep(delay).await;
    }
    while partition.log.needs_flush() {
        let mut flushing = pin!(partition.log.flush());
        let flushed = poll_fn(|context| {
            let polled = flushing.as_mut().poll(context);
            // As soon as they are durable, and not only when all is that has come meanwhile.
            partition.has_moved();
            partition.acknowledge(&core);
            polled
        });
        match flushed.await {
            Ok(()) => {}
            Err(error @ LogError::DiskFull { .. }) => {
                warn_seldom!(directory = %partition.log.directory().display(), %error, "records were refused");
            }
            // They wait meanwhile, and so do their producers.
            Err(error @ LogError::OutOfFiles { .. }) => {
                warn_seldom!(directory = %partition.log.directory().display(), %error, "records wait; raise the limit of open files");
                machine::sleep(FILES_WAIT).await;
            }
            // The log has said so itself, and answers everybody who waits.
            Err(_) => {
                partition.log_failed();
                core.failed.notify();
                break;
            }
        }
    }
    partition.has_moved();
    partition.acknowledge(&core);
    partition.flushing.set(false);
}

#[cfg(test)]
mod tests {
    use super::Unscanned;

    #[test]
    fn a_checkpoint_is_called_for_once_each_time_that_the_limit_is_reached() {
        let unscanned = Unscanned::default();
        let calls: Vec<bool> = (0..5).map(|_| unscanned.add(40, 100)).collect();
        assert_eq!(calls, [false, false, true, false, false]);
        assert!(unscanned.is_due(100));
        unscanned.clear();
        assert!(!unscanned.is_due(100) && !unscanned.add(99, 100));
        assert!(unscanned.add(1, 100), "at the limit, not only beyond it");
        unscanned.clear();
        assert!(
            unscanned.add(1_000, 100),
            "one append may be more than all that there may be"
        );
    }
}
