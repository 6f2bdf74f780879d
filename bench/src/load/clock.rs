//! The clock that everything is measured with, and sleep until a moment of it.
//!
//! `CLOCK_MONOTONIC`, which all processes of one machine share: a record that one process sent tells another one when
//! it was due.

use std::time::Duration;

use rustix::thread::{ClockId as SleepClock, NanosleepRelativeResult, clock_nanosleep_relative};
use rustix::time::{ClockId, clock_gettime};

/// A moment: nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(u64);

impl Moment {
    /// Now.
    #[inline]
    pub fn now() -> Self {
        let time = clock_gettime(ClockId::Monotonic);
        Self(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
    }

    /// From the number on the clock.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The number on the clock.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier`; nothing if it was before.
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long after `earlier`, in nanoseconds; 0 if it was before.
    #[inline]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// So much later.
    pub const fn plus(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time.as_nanos() as u64))
    }
}

/// Makes the sleep of this thread end as soon as it can: by default the kernel may add 50 us to each.
pub fn wake_precisely() {
    // Without it latencies are longer by what the kernel adds; there is nothing else to do about it.
    let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
}

/// Blocks this thread for so long, or a little longer; less if a signal comes.
pub fn sleep(time: Duration) {
    let time = rustix::time::Timespec {
        tv_sec: time.as_secs().cast_signed(),
        tv_nsec: i64::from(time.subsec_nanos()),
    };
    match clock_nanosleep_relative(SleepClock::Monotonic, &time) {
        NanosleepRelativeResult::Ok | NanosleepRelativeResult::Interrupted(_) | NanosleepRelativeResult::Err(_) => {}
    }
}
