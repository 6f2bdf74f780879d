//! Whether this broker may take itself for the leader of what it led when it was last told.
//!
//! A broker that is cut off from the others, or has stood still, is not told that another leads. No write of it is acknowledged then, as
//! the others would have to take it in; what it answers of its own memory would be of before. So it does that only for some time after
//! the active coordinator has heard it: until a longer time is over, nobody else is made leader because this broker is silent.
//!
//! One for all cores of a broker; its member of the quorum says when it was heard.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use crate::machine;

/// Leads for so long after it was heard. Shorter than a session by the time for which a coordinator takes itself for the active one
/// after it was last confirmed; clocks may differ by the rest.
pub(crate) const LEASE: Duration = Duration::from_millis(1800);

/// Of one broker.
#[derive(Debug)]
pub(crate) struct Lease {
    began: Instant,
    /// Microseconds after that until which it holds; 0: it was never heard.
    until: AtomicU64,
}

impl Default for Lease {
    fn default() -> Lease {
        Lease {
            began: machine::now(),
            until: AtomicU64::new(0),
        }
    }
}

impl Lease {
    /// The active coordinator has heard this broker at this time, or later.
    pub(crate) fn heard(&self, at: Instant) {
        let until = at.saturating_duration_since(self.began) + LEASE;
        self.until.fetch_max(until.as_micros() as u64, Ordering::Relaxed);
    }

    /// Whether nobody else can lead what this broker leads as far as it knows.
    pub(crate) fn holds(&self) -> bool {
        machine::since(self.began).as_micros() < u128::from(self.until.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_holds_for_a_while_after_the_broker_was_heard_and_an_older_word_does_not_shorten_it() {
        let lease = Lease::default();
        assert!(!lease.holds(), "it was never heard");
        let now = machine::now();
        lease.heard(now);
        assert!(lease.holds());
        let Some(before) = now.checked_sub(LEASE) else { return };
        lease.heard(before);
        assert!(lease.holds());
        let other = Lease {
            began: before,
            ..Lease::default()
        };
        other.heard(before);
        assert!(!other.holds());
    }
}
