//! When records are due: as soon as the one before is taken (closed loop), or by a schedule that waits for nothing (open
//! loop).
//!
//! On a schedule, latency is counted from when a record was due. If the system stalls, the records that were due
//! meanwhile are sent late, and each of them counts what it waited: the stall is seen as often as users would have seen
//! it (no "coordinated omission").

use std::time::Duration;

use super::clock::Moment;

/// How records follow each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// Each as soon as the client takes it.
    Closed,
    /// So many a second, whatever the system does.
    Open(f64),
}

/// When the records of one of several producers are due.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    start: Moment,
    /// Nanoseconds between two records of this producer.
    step: f64,
    /// Nanoseconds from the start to its first record.
    first: f64,
}

impl Schedule {
    /// For producer `index` of `count`, which take turns in sending `rate` records a second in all.
    pub fn new(start: Moment, rate: f64, index: u16, count: u16) -> Self {
        let between = 1e9 / rate;
        Self {
            start,
            step: between * f64::from(count),
            first: between * f64::from(index),
        }
    }

    /// When the record with this number, from 0, is due.
    #[inline]
    pub fn due(&self, number: u64) -> Moment {
        let nanos = self.step.mul_add(number as f64, self.first);
        self.start.plus(Duration::from_nanos(nanos as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn producers_take_turns_in_an_even_schedule_that_does_not_drift() {
        let start = Moment::from_nanos(1_000);
        let due = |producer, number| Schedule::new(start, 1_000_000.0, producer, 4).due(number).as_nanos();
        assert_eq!(
            [due(0, 0), due(1, 0), due(3, 0), due(0, 1)],
            [1_000, 2_000, 4_000, 5_000]
        );
        // After a million seconds it is still exact.
        assert_eq!(due(2, 250_000_000_000), 1_000 + 1_000_000_000_000_000 + 2_000);
    }
}
