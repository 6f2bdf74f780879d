//! Which operations on a segment file come next: decided from positions alone, without I/O.

use std::collections::VecDeque;

use crate::{disk::BLOCK_SIZE, log::FlushConfig};

/// Least space that is reserved ahead, so that an idle partition costs little.
const PREPARE_BYTES_MIN: u64 = 64 << 10;

/// Zeros are written ahead of writes up to this size; they cost as many bytes as they make cheap, so larger ones gain less than that.
const SPARSE_BYTES_MAX: u64 = 16 << 10;

/// Space that is reserved behind a journal, in what was written this time.
const SELDOM_STEPS: u64 = 4;

/// One operation on the segment file. Positions are bytes in the segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Reserve space.
    Prepare {
        from: u64,
        to: u64,
    },
    /// Fill reserved space with zeros.
    Zero {
        from: u64,
        to: u64,
    },
    Write {
        from: u64,
        to: u64,
    },
    /// A write that needs no flush after it.
    WriteDurable {
        from: u64,
        to: u64,
    },
    /// Flush; covers everything below.
    Sync {
        covers: u64,
    },
}

/// Which operations to start next for one segment.
#[derive(Debug)]
pub(super) struct Plan {
    config: FlushConfig,
    /// Writes have been started for all below.
    pub(super) issued: u64,
    /// Writes have been completed for all below.
    written: u64,
    pub(super) durable: u64,
    /// What was durable before.
    began: u64,
    /// Ends of the writes under way, in order, and whether they have completed.
    writes: VecDeque<(u64, bool)>,
    syncing: bool,
    preparing: bool,
    /// Zeros are being written from here on.
    zeroing: Option<u64>,
    /// The last write was a very small one that makes itself durable.
    is_sparse: bool,
}

impl Plan {
    pub(super) fn new(config: FlushConfig, durable: u64) -> Plan {
        let writes = VecDeque::new();
        Plan {
            config,
            issued: durable,
            written: durable,
            durable,
            began: durable,
            writes,
            syncing: false,
            preparing: false,
            zeroing: None,
            is_sparse: false,
        }
    }

    /// `end`: what is appended. `full_end`: where a write that begins at the first byte not yet issued would be full.
    pub(super) fn next_write(&mut self, end: u64, full_end: u64) -> Option<Step> {
        if self.issued >= end || self.writes.len() >= self.config.writes_in_flight_max {
            return None;
        }
        if !self.issued.is_multiple_of(BLOCK_SIZE as u64) && self.writes.back().is_some() {
            return None; // The write of this block's first part has to complete first.
        }
        let full_end = full_end.min(self.zeroing.unwrap_or(u64::MAX));
        if self.issued >= full_end {
            return None; // The zeros have to be written first.
        }
        let is_full = end >= full_end;
        if !is_full && !self.writes.is_empty() && !self.is_first_round() {
            return None; // Let it fill while others are being written.
        }
        let to = end.min(full_end);
        let alone = self.writes.is_empty() && self.is_first_round() && to == end;
        let bytes = to - self.issued;
        let from = std::mem::replace(&mut self.issued, to);
        self.writes.push_back((to, false));
        self.is_sparse = alone && bytes <= SPARSE_BYTES_MAX;
        Some(if alone && bytes <= self.config.single_write_bytes_max {
            Step::WriteDurable { from, to }
        } else {
            Step::Write { from, to }
        })
    }

    /// Nothing was under way when the writes of now began: what was appended then goes out with them, as one flush covers all of it. It
    /// would else wait for them, and for a flush of its own after theirs.
    fn is_first_round(&self) -> bool {
        !self.syncing && self.written == self.durable
    }

    pub(super) fn next_sync(&mut self) -> Option<Step> {
        let uncovered = self.written - self.durable;
        if self.syncing || uncovered == 0 {
            return None;
        }
        if uncovered < self.config.uncovered_bytes_max && !self.writes.is_empty() {
            return None;
        }
        self.syncing = true;
        Some(Step::Sync { covers: self.written })
    }

    /// Space is reserved in steps that grow with the segment, so that only busy partitions reserve much. What is written behind a journal is
    /// `seldom` written: there is to be room for several times as much as this time, since without it appends cannot go to the journal.
    pub(super) fn next_prepare(&mut self, end: u64, prepared: u64, segment_size: u64, seldom: bool) -> Option<Step> {
        let ahead = if seldom { (end - self.began) * SELDOM_STEPS } else { 0 };
        let step = end
            .max(ahead)
            .next_power_of_two()
            .clamp(PREPARE_BYTES_MIN, self.config.prepare_bytes_max.max(PREPARE_BYTES_MIN));
        if self.preparing || prepared >= segment_size || end + step / 2 <= prepared {
            return None;
        }
        self.preparing = true;
        let from = prepared.max(end.next_multiple_of(BLOCK_SIZE as u64));
        let to = (from + step).min(segment_size.next_multiple_of(BLOCK_SIZE as u64));
        (from < to).then_some(Step::Prepare { from, to })
    }

    /// So many zeros that the next are not due before half of them are used.
    pub(super) fn next_zero(&mut self, zeroed: u64, prepared: u64) -> Option<Step> {
        let ahead = self.config.zero_ahead_bytes.next_multiple_of(BLOCK_SIZE as u64);
        let is_enough = zeroed >= self.issued + ahead / 2;
        if !self.is_sparse || self.preparing || is_enough || ahead == 0 {
            return None;
        }
        // A little ahead, so that the next writes need not wait.
        let near = (self.issued + ahead / 8).next_multiple_of(BLOCK_SIZE as u64);
        let from = zeroed.max(near);
        // A crash may have left a file of any size.
        let to = (from + ahead).min(prepared / BLOCK_SIZE as u64 * BLOCK_SIZE as u64);
        if from >= to {
            return None;
        }
        self.preparing = true;
        self.zeroing = Some(from);
        Some(Step::Zero { from, to })
    }

    /// An operation has succeeded. Returns whether more is durable now.
    pub(super) fn done(&mut self, step: Step) -> bool {
        let before = self.durable;
        match step {
            Step::Prepare { .. } => self.preparing = false,
            Step::Zero { .. } => {
                self.preparing = false;
                self.zeroing = None;
            }
            Step::Sync { covers } => {
                self.syncing = false;
                self.durable = self.durable.max(covers);
            }
            Step::Write { to, .. } | Step::WriteDurable { to, .. } => {
                if let Some(write) = self.writes.iter_mut().find(|(end, _)| *end == to) {
                    write.1 = true;
                }
                while let Some((end, _)) = self.writes.pop_front_if(|(_, done)| *done) {
                    self.written = end;
                }
                if matches!(step, Step::WriteDurable { .. }) {
                    self.durable = self.durable.max(to);
                }
            }
        }
        self.durable > before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: u64 = 1 << 10;
    const FULL: u64 = 512 * KIB;

    /// All writes that are begun now.
    fn writes(plan: &mut Plan, end: u64) -> Vec<(u64, u64)> {
        let mut begun = Vec::new();
        while let Some(step) = plan.next_write(end, (plan.issued + 1).next_multiple_of(FULL)) {
            let Step::Write { from, to } = step else {
                panic!("{step:?} of several")
            };
            begun.push((from, to));
        }
        begun
    }

    #[test]
    fn what_was_appended_at_once_is_written_at_once_and_flushed_once() {
        let mut plan = Plan::new(FlushConfig::default(), 0);
        // It ends in the second of two full writes, and not where a block ends.
        let end = FULL + 200 * KIB + 7;
        assert_eq!(writes(&mut plan, end), [(0, FULL), (FULL, end)]);
        assert!(!plan.done(Step::Write { from: 0, to: FULL }));
        assert_eq!(plan.next_sync(), None, "the other is not written yet");
        plan.done(Step::Write { from: FULL, to: end });
        let sync = plan.next_sync().unwrap();
        assert_eq!(sync, Step::Sync { covers: end });
        // While that goes on: full ones go out, and what is left fills.
        let later = 2 * FULL + 100;
        assert_eq!(writes(&mut plan, later), [(end, 2 * FULL)]);
        assert!(plan.done(sync));
        assert_eq!(plan.durable, end);
    }
}
