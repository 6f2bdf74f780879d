//! Time by two clocks, and how long ago something was.
//!
//! The machine's clock may be wrong, and jumps when that is put right; the monotonic one never does, but means nothing to another
//! process. So what happened in this process is measured by the monotonic clock, and only what came from outside or from an
//! earlier process by the other. Such a time can be absent, ahead of the clock, or behind it: whoever subtracts one from now
//! does it here.

use std::{fmt, time::Duration};

use headwater_protocol::id::Timestamp;
use serde::{Deserialize, Serialize};

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Since some moment of this process: for all that happens within it.
    pub monotonic: Duration,
    /// The time of day: for what is stored and shown.
    pub clock: Timestamp,
}

impl From<Timestamp> for Moment {
    /// For whoever has one clock only, such as a simulation. It must never jump.
    fn from(clock: Timestamp) -> Moment {
        let monotonic = Duration::from_millis(clock.get().max(0).cast_unsigned());
        Moment { monotonic, clock }
    }
}

/// A change of the clock that what is stored follows.
const CLOCK_TOLERANCE_MS: u64 = 60_000;

/// When something happened, as far as that is known.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "i64", into = "i64")]
pub struct Since {
    clock: Timestamp,
    /// When somebody looked, by the monotonic clock, and how long ago it was then. `None`: an earlier process has noted it.
    looked: Option<(Duration, Duration)>,
}

impl Since {
    /// It happened before this process, nobody knows when.
    pub const UNKNOWN: Since = Since::stored(Timestamp::NONE);

    /// It happens now.
    pub fn now(now: Moment) -> Since {
        Since {
            clock: now.clock,
            looked: Some((now.monotonic, Duration::ZERO)),
        }
    }

    /// An earlier process has noted it, by the clock of then.
    pub const fn stored(clock: Timestamp) -> Since {
        Since { clock, looked: None }
    }

    /// How long ago it was. A time that is absent, or ahead of the clock, says nothing: from the first look on it counts as now.
    ///
    /// What there is to be stored follows the clock, so that it is right for the next process when the clock has been put right.
    pub fn age(&mut self, now: Moment) -> Duration {
        let (at, age) = *self
            .looked
            .get_or_insert_with(|| (now.monotonic, age_of(self.clock, Duration::ZERO, now.clock)));
        let age = age + now.monotonic.saturating_sub(at);
        let clock = before(now.clock, age);
        if clock.get().abs_diff(self.clock.get()) >= CLOCK_TOLERANCE_MS {
            self.clock = clock;
        }
        age
    }

    /// The time to be stored.
    pub const fn clock(self) -> Timestamp {
        self.clock
    }
}

impl fmt::Debug for Since {
    /// The same in every process.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Since").field(&self.clock.get()).finish()
    }
}

impl Default for Since {
    fn default() -> Since {
        Since::UNKNOWN
    }
}

impl From<i64> for Since {
    fn from(clock: i64) -> Since {
        Since::stored(Timestamp::new(clock))
    }
}

impl From<Since> for i64 {
    fn from(since: Since) -> i64 {
        since.clock.get()
    }
}

/// How old a record with this timestamp is, which was appended so long ago. The timestamp counts, as in Kafka, unless there is none or
/// it is ahead of the clock: it then says nothing, and the append counts.
pub(crate) fn age_of(timestamp: Timestamp, appended: Duration, clock: Timestamp) -> Duration {
    let age = clock.get().checked_sub(timestamp.get()).map(u64::try_from);
    match age {
        Some(Ok(age)) if timestamp.is_some() => Duration::from_millis(age),
        _ => appended,
    }
}

fn before(clock: Timestamp, age: Duration) -> Timestamp {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    Timestamp::new(clock.get().saturating_sub_unsigned(age).max(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const NOON: i64 = 1_700_000_000_000;

    /// So many hours after the process began, when the clock shows this.
    fn moment(monotonic_hours: u64, clock: i64) -> Moment {
        Moment {
            monotonic: Duration::from_hours(monotonic_hours),
            clock: Timestamp::new(clock),
        }
    }

    #[test]
    fn a_records_age_goes_by_its_timestamp_unless_that_is_absent_or_ahead() {
        let appended = Duration::from_hours(3);
        for (timestamp, hours) in [
            (NOON - 5 * HOUR, 5),
            (NOON, 0),
            (-1, 3),
            (i64::MIN, 3),
            (NOON + 1, 3),
            (i64::MAX, 3),
        ] {
            let age = age_of(Timestamp::new(timestamp), appended, Timestamp::new(NOON));
            assert_eq!(age, Duration::from_hours(hours), "{timestamp}");
        }
    }

    #[test]
    fn within_a_process_no_jump_of_the_clock_counts() {
        let mut since = Since::now(moment(10, NOON));
        for clock in [NOON + 2 * HOUR, NOON + 1000 * HOUR, 0, NOON - 1000 * HOUR] {
            assert_eq!(since.age(moment(12, clock)), Duration::from_hours(2));
        }
        since.age(moment(12, NOON));
        assert_eq!(since.clock(), Timestamp::new(NOON - 2 * HOUR));
    }

    #[test]
    fn what_an_earlier_process_noted_counts_by_the_clock_if_that_can_be() {
        for (stored, hours) in [(NOON - 5 * HOUR, 5), (-1, 0), (NOON + 5 * HOUR, 0), (i64::MAX, 0)] {
            let mut since = Since::stored(Timestamp::new(stored));
            assert_eq!(since.age(moment(1, NOON)), Duration::from_hours(hours), "{stored}");
            // From then on it is as good as any other, and so is what the next process will find.
            let later = moment(4, NOON + 3 * HOUR);
            assert_eq!(since.age(later), Duration::from_hours(hours + 3));
            assert_eq!(Since::stored(since.clock()).age(later), Duration::from_hours(hours + 3));
        }
    }
}
