//! What compaction has done on one core.

use std::{cell::Cell, time::Duration};

use headwater_engine::CompactionReport;

use super::{families::Family, snapshot::CoreSnapshot};

/// What one core has compacted.
#[derive(Debug, Default)]
pub(crate) struct CompactionMetrics {
    pub(crate) passes: Cell<u64>,
    pub(crate) read_bytes: Cell<u64>,
    pub(crate) written_bytes: Cell<u64>,
    pub(crate) removed_records: Cell<u64>,
    pub(crate) time: Cell<Duration>,
    /// Largest share of new records of any partition, when it was looked at last.
    pub(crate) dirty_ratio_max: Cell<f64>,
}

impl CompactionMetrics {
    pub(crate) fn count(&self, report: &CompactionReport, time: Duration) {
        let add = |counter: &Cell<u64>, count| counter.set(counter.get() + count);
        add(&self.passes, report.passes);
        add(&self.read_bytes, report.read_bytes);
        add(&self.written_bytes, report.written_bytes);
        add(&self.removed_records, report.removed_records);
        if report.passes > 0 {
            self.time.set(self.time.get() + time);
        }
    }

    pub(super) fn sample(&self, snapshot: &mut CoreSnapshot) {
        for (family, label, value) in [
            (Family::CompactionBytes, "read", self.read_bytes.get() as f64),
            (Family::CompactionBytes, "write", self.written_bytes.get() as f64),
            (Family::CompactionPasses, "", self.passes.get() as f64),
            (Family::CompactionRemoved, "", self.removed_records.get() as f64),
            (Family::CompactionSeconds, "", self.time.get().as_secs_f64()),
            (Family::CompactionDirty, "", self.dirty_ratio_max.get()),
        ] {
            snapshot.sample(family, label, value);
        }
    }
}
