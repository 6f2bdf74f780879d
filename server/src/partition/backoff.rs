//! When to try again what has failed: later each time, and not at the same moment as others.

use std::time::Duration;

use headwater_protocol::error::ErrorCode;

use crate::machine;

const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_mins(1);

/// What is damaged does not heal, but may have been repaired by somebody.
const DAMAGED: Duration = Duration::from_mins(10);

/// An attempt may read much: of the time, attempts take at most one part in so many.
const SHARE: u32 = 10;

/// Delays between attempts.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: FIRST }
    }
}

impl Backoff {
    /// How long to wait after an attempt that has failed with this code and taken so long.
    pub(crate) fn delay(&mut self, code: ErrorCode, took: Duration) -> Duration {
        let least = if code == ErrorCode::CorruptMessage {
            DAMAGED
        } else {
            Duration::ZERO
        };
        let delay = self.next.max(least).max(took * SHARE);
        self.next = (self.next * 2).min(LAST);
        delay.mul_f64(0.75 + machine::random::<f64>() / 2.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_are_longer_for_what_is_damaged_and_what_takes_long() {
        let mut backoff = Backoff::default();
        let mut expected = FIRST;
        for _ in 0..12 {
            let delay = backoff.delay(ErrorCode::KafkaStorageError, Duration::from_millis(1));
            assert!(
                delay >= expected.mul_f64(0.7) && delay <= expected.mul_f64(1.3),
                "{delay:?}"
            );
            expected = (expected * 2).min(LAST);
        }
        assert_eq!(expected, LAST);
        let damaged = Backoff::default().delay(ErrorCode::CorruptMessage, Duration::ZERO);
        assert!(damaged >= DAMAGED.mul_f64(0.7));
        let long = Duration::from_secs(1000);
        assert!(Backoff::default().delay(ErrorCode::KafkaStorageError, long) >= long * 7);
    }
}
