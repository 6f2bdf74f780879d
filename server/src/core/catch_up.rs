//! Bytes that a broker may send in a second to replicas that are not in sync, so that their catching up does not hold up producers.
//!
//! One for all cores of a broker: the partitions that move may all be one core's. Whoever sends takes his part of the time to come, and
//! waits until that begins; what it turns out to be he says afterwards. So all who wait have their turn in the order in which they came,
//! and however large a batch is, it is sent: the next one waits the longer.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// What is sent at once takes this share of a second, within these limits: replicas in sync wait for it on the same stream, while it is read
/// from disk.
const TURNS_PER_SECOND: u64 = 512;
const TURN_BYTES_MIN: u64 = 64 << 10;
const TURN_BYTES_MAX: u64 = 512 << 10;

/// The budget of a broker.
#[derive(Debug)]
pub(crate) struct CatchUp {
    /// 0: as many as there are.
    bytes_per_second: u64,
    began: Instant,
    /// When all that was promised is paid for, in nanoseconds since it began.
    paid: AtomicU64,
}

impl CatchUp {
    /// So many bytes in a second; 0 is no limit.
    pub(crate) fn new(bytes_per_second: u64, now: Instant) -> CatchUp {
        CatchUp {
            bytes_per_second,
            began: now,
            paid: AtomicU64::new(0),
        }
    }

    /// Whether anybody has to wait.
    pub(crate) fn is_limited(&self) -> bool {
        self.bytes_per_second > 0
    }

    /// Bytes that are sent at once.
    pub(crate) fn turn_bytes(&self) -> u64 {
        (self.bytes_per_second / TURNS_PER_SECOND).clamp(TURN_BYTES_MIN, TURN_BYTES_MAX)
    }

    /// Takes a turn, and says when it begins. Time in which nobody took one is lost.
    pub(crate) fn take_turn(&self, now: Instant) -> Instant {
        let (now, cost) = (self.since_began(now), self.cost(self.turn_bytes()));
        let taken = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            Some(paid.max(now).saturating_add(cost))
        });
        // It never refuses.
        let before = taken.unwrap_or_else(|paid| paid);
        self.began + Duration::from_nanos(before.max(now))
    }

    /// So many bytes were sent in a turn.
    pub(crate) fn ends_turn(&self, sent: u64) {
        let (taken, cost) = (self.cost(self.turn_bytes()), self.cost(sent));
        let _paid = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            Some(paid.saturating_add(cost).saturating_sub(taken))
        });
    }

    /// So many bytes were sent without a turn: others have to wait for them.
    pub(crate) fn sent_besides(&self, bytes: u64, now: Instant) {
        let (now, cost) = (self.since_began(now), self.cost(bytes));
        let _paid = self.paid.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |paid| {
            Some(paid.max(now).saturating_add(cost))
        });
    }

    fn since_began(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_nanos() as u64
    }

    /// Nanoseconds that so many bytes take.
    fn cost(&self, bytes: u64) -> u64 {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        u64::try_from(nanoseconds).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine;

    const MIB: u64 = 1 << 20;

    #[test]
    fn turns_follow_one_another_as_the_budget_says_whatever_is_sent_in_them() {
        let began = machine::now();
        let after = |ms| began + Duration::from_millis(ms);
        let budget = CatchUp::new(MIB, began);
        let turn = budget.turn_bytes();
        assert_eq!(turn, 64 << 10, "62.5 ms of a second");
        assert_eq!(budget.take_turn(began), began, "nobody has to wait for nothing");
        budget.ends_turn(turn);
        assert_eq!(budget.take_turn(began), began + Duration::from_micros(62_500));
        budget.ends_turn(0);
        assert_eq!(
            budget.take_turn(after(10)),
            began + Duration::from_micros(62_500),
            "what was not used another has"
        );
        budget.ends_turn(4 * MIB);
        assert_eq!(
            budget.take_turn(after(100)),
            began + Duration::from_micros(4_062_500),
            "a batch that is larger than the budget of a second is sent, and paid for"
        );
        budget.ends_turn(turn);
        assert_eq!(budget.take_turn(after(60_000)), after(60_000), "no burst after a rest");
        budget.ends_turn(0);
        budget.sent_besides(MIB, after(60_000));
        assert_eq!(budget.take_turn(after(60_000)), after(61_000));
    }

    #[test]
    fn in_an_hour_no_more_is_sent_than_the_budget_of_an_hour_and_one_turn_however_many_take_turns() {
        let began = machine::now();
        let budget = CatchUp::new(10 * MIB, began);
        let mut sent = 0;
        let mut waiting: Vec<Instant> = (0..7).map(|_| budget.take_turn(began)).collect();
        loop {
            waiting.sort_unstable();
            let now = waiting.remove(0);
            if now >= began + Duration::from_hours(1) {
                break;
            }
            // Less than a turn, a turn, or a large batch.
            let bytes = [budget.turn_bytes() / 3, budget.turn_bytes(), 3 * MIB][sent as usize % 3];
            budget.ends_turn(bytes);
            sent += bytes;
            waiting.push(budget.take_turn(now));
        }
        let hour = 3600 * 10 * MIB;
        // Seven have one each before them.
        assert!(sent <= hour + 7 * 3 * MIB, "{sent} bytes");
        assert!(sent >= hour - 7 * 3 * MIB, "{sent} bytes: the budget is used");
    }
}
