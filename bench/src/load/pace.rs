//! When records are due: as soon as the one before is taken (closed loop), or by a schedule that waits for nothing (open
//! loop).
//!
//! On a schedule, latency is counted from when a record was due. If the system stalls, the records that were due
//! meanwhile are sent late, and each of them counts what it waited: the stall is seen as often as users would have seen
//! it (no "coordinated omission"). What counts for nothing is how late the generator is by itself, because it woke up late: that is
//! told apart ([`Debt`]), and told.

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

/// How long the system has held up a generator since it last was ahead of its schedule. Whatever else it is late by is its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct Debt {
    held: u64,
}

impl Debt {
    /// The generator is ahead of its schedule, and sleeps.
    #[inline]
    pub fn settle(&mut self) {
        self.held = 0;
    }

    /// The system has held it up for so many nanoseconds.
    #[inline]
    pub fn hold(&mut self, nanos: u64) {
        self.held = self.held.saturating_add(nanos);
    }

    /// Of so many nanoseconds that a record is late by, those that are the generator's own.
    #[inline]
    pub fn own(self, late: u64) -> u64 {
        late.saturating_sub(self.held)
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

    #[test]
    fn a_generator_that_wakes_late_is_late_by_itself_and_one_that_is_held_up_is_not() {
        let mut debt = Debt::default();
        // It woke 10 late, and is so with the records after it, each of which takes 1 to send and was due 4 after the last.
        debt.settle();
        assert_eq!(debt.own(10), 10);
        debt.hold(1);
        assert_eq!(debt.own(10 + 1 - 4), 6);
        debt.hold(1);
        assert_eq!(debt.own(10 + 2 - 8), 2);
        // The system takes 100 for one: what is late then is late because of that.
        debt.hold(100);
        assert_eq!(debt.own(100), 0);
        debt.hold(1);
        assert_eq!(debt.own(50), 0);
        // Once it is ahead again that is over.
        debt.settle();
        assert_eq!(debt.own(3), 3);
    }
}
