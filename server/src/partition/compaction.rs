//! Compaction of the partitions of one core: which comes next, and how fast it may go.
//!
//! One partition at a time, that with the largest share of new records first, so that a core needs the memory for one only. It
//! runs in the background queue, gives way after each turn, and keeps to a number of bytes in a second.

use std::{
    cell::Cell,
    rc::Rc,
    time::{Duration, Instant},
};

use headwater_engine::LogError;

use super::{partitions::Partitions, served::Partition};
use crate::{
    core::{Core, warn_seldom},
    machine,
    metrics::Failure,
};

/// How long it works before it lets others go first.
const TURN_MAX: Duration = Duration::from_micros(200);

/// Shortest wait that is worth a timer.
const WAIT_MIN: Duration = Duration::from_millis(5);

/// Spreads bytes evenly over time, and turns among tasks.
#[derive(Debug)]
struct Pace {
    bytes_per_second: u64,
    /// When all that was spent will be paid for.
    paid: Cell<Instant>,
    /// When this turn began.
    turn: Cell<Instant>,
}

impl Pace {
    fn new(bytes_per_second: u64) -> Pace {
        let now = machine::now();
        Pace {
            bytes_per_second,
            paid: Cell::new(now),
            turn: Cell::new(now),
        }
    }

    /// How long to wait after so many more bytes. Time in which nothing was spent is lost.
    fn spend(&self, bytes: u64, now: Instant) -> Duration {
        let cost = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let paid = self.paid.get().max(now) + cost;
        self.paid.set(paid);
        paid.saturating_duration_since(now)
    }

    async fn wait(&self, bytes: u64) {
        let now = machine::now();
        let wait = self.spend(bytes, now);
        if wait >= WAIT_MIN {
            machine::sleep(wait).await;
        } else if now.saturating_duration_since(self.turn.get()) >= TURN_MAX {
            machine::yield_now().await;
        } else {
            return;
        }
        self.turn.set(machine::now());
    }
}

/// Looks for partitions to compact as long as the core runs.
pub(super) async fn run(partitions: Rc<Partitions>) {
    let core = &partitions.core;
    let config = &core.config.compaction;
    let pace = Pace::new(config.bytes_per_second_max.bytes());
    loop {
        machine::sleep(config.check_interval_ms.duration()).await;
        let mut due = dirty(&partitions);
        core.metrics
            .compaction
            .dirty_ratio_max
            .set(due.first().map_or(0.0, |(ratio, _)| *ratio));
        for (_, partition) in due.drain(..) {
            if core.is_stopping() {
                return;
            }
            compact(core, &partition, &pace).await;
        }
    }
}

/// The partitions that may be compacted, those with the most new records first. Others may have tombstones to drop.
fn dirty(partitions: &Partitions) -> Vec<(f64, Rc<Partition>)> {
    let now = machine::moment();
    let compacted =
        |partition: &Rc<Partition>| partition.log.config().compaction.is_some() && !partition.is_damaged.get();
    let mut found: Vec<_> = partitions
        .online()
        .into_iter()
        .filter(compacted)
        .map(|partition| (partition.log.dirty_ratio(now), partition))
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

async fn compact(core: &Core, partition: &Partition, pace: &Pace) {
    let _working = core.working();
    let (log, began) = (&partition.log, machine::now());
    let map_bytes_max = core.config.compaction.map_bytes_max.as_usize();
    let compacted = log.compact(machine::moment(), map_bytes_max, async |bytes| pace.wait(bytes).await);
    match compacted.await {
        Ok(report) => {
            core.metrics.compaction.count(&report, machine::since(began));
            if report.passes > 0 {
                tracing::debug!(directory = %log.directory().display(), ?report, "a partition was compacted");
            }
        }
        Err(error) => {
            core.metrics.failed(Failure::Compaction);
            // Reading it again would find the same.
            partition.is_damaged.set(matches!(error, LogError::Corrupt { .. }));
            core.metrics.log_failed(&error);
            warn_seldom!(directory = %log.directory().display(), %error, "a partition could not be compacted");
        }
    }
    machine::yield_now().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_spread_over_time_and_what_was_not_used_is_lost() {
        let pace = Pace::new(1000);
        let began = pace.paid.get();
        let after = |ms| began + Duration::from_millis(ms);
        assert_eq!(pace.spend(500, began), Duration::from_millis(500));
        assert_eq!(pace.spend(500, began), Duration::from_secs(1));
        assert_eq!(pace.spend(100, after(900)), Duration::from_millis(200));
        assert_eq!(
            pace.spend(100, after(60_000)),
            Duration::from_millis(100),
            "no burst after a rest"
        );
        assert_eq!(pace.spend(0, after(60_000)), Duration::from_millis(100));
    }
}
