//! A log line that many may have cause to write, and that helps nobody more than once in a while. Owned by one core.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// Time between two lines.
const PAUSE: Duration = Duration::from_secs(10);

/// Lets one through in a while, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// Whether it may be said now, and then how often it was not since the last time.
    pub fn may_speak(&self, now: Instant) -> Option<u64> {
        let is_soon = |last| now.saturating_duration_since(last) < PAUSE;
        if self.last.get().is_some_and(is_soon) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.unsaid.take())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_those_of_the_next_while_are_counted() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.may_speak(start), Some(0));
        assert_eq!(seldom.may_speak(start), None);
        assert_eq!(seldom.may_speak(start + PAUSE / 2), None);
        assert_eq!(seldom.may_speak(start + PAUSE), Some(2));
        assert_eq!(seldom.may_speak(start + PAUSE), None);
    }
}
