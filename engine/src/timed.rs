//! How long an operation takes and how much it moves: what metrics are made of. Owned by one core, without locks or atomics;
//! who wants to see it from elsewhere is sent a copy.

use std::{
    cell::{Cell, RefCell},
    time::Duration,
};

use hdrhistogram::Histogram;

/// Shortest time that is told from none, in nanoseconds.
const LOW_NS: u64 = 500;
/// Longer ones count as this.
const HIGH_NS: u64 = 60_000_000_000;
/// Significant decimal digits of a time.
const DIGITS: u8 = 2;

/// A histogram of times in nanoseconds, their sum, and the bytes that were moved.
#[derive(Debug)]
pub struct Timed {
    times: RefCell<Histogram<u64>>,
    sum: Cell<Duration>,
    bytes: Cell<u64>,
}

/// A copy of a [`Timed`].
#[derive(Debug, Clone)]
pub struct TimedSnapshot {
    /// In nanoseconds, to two digits.
    pub times: Histogram<u64>,
    /// Of all times.
    pub sum: Duration,
    /// Of all operations.
    pub bytes: u64,
}

impl Default for Timed {
    fn default() -> Timed {
        let times = Histogram::new_with_bounds(LOW_NS, HIGH_NS, DIGITS);
        Timed {
            times: RefCell::new(times.expect("the bounds are in order and the digits few")),
            sum: Cell::default(),
            bytes: Cell::default(),
        }
    }
}

impl Timed {
    /// Counts one operation.
    pub fn record(&self, time: Duration, bytes: u64) {
        self.times.borrow_mut().saturating_record(time.as_nanos() as u64);
        self.sum.set(self.sum.get() + time);
        self.bytes.set(self.bytes.get() + bytes);
    }

    /// What has been counted so far.
    pub fn snapshot(&self) -> TimedSnapshot {
        TimedSnapshot {
            times: self.times.borrow().clone(),
            sum: self.sum.get(),
            bytes: self.bytes.get(),
        }
    }
}
