//! Deadlines, and the one place that waits between attempts: exponential backoff with jitter.
//!
//! Every wait of this crate runs under a [`Deadline`]. Time is tokio's, so that tests may hold it still.

use std::future::Future;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::error::Error;
use crate::runtime::{self, Instant, sleep, timeout_at};

/// The longest time that a setting may be: far below what a clock can count to, and beyond any use.
pub(crate) const LONGEST: Duration = Duration::from_hours(100 * 365 * 24);

/// The end of the time that a call may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    operation: &'static str,
    limit: Duration,
    at: Instant,
}

impl Deadline {
    /// `limit` from now, for what `operation` says ("create topic").
    pub(crate) fn after(limit: Duration, operation: &'static str) -> Self {
        Self {
            operation,
            limit,
            at: runtime::now() + limit,
        }
    }

    /// Whether it will be over after such a pause.
    pub(crate) fn is_over_after(&self, pause: Duration) -> bool {
        runtime::now() + pause >= self.at
    }

    /// The error for a call whose time is over.
    pub(crate) fn error(&self, last: Option<Error>) -> Error {
        Error::Timeout {
            operation: self.operation,
            limit: self.limit,
            last: last.map(Box::new),
        }
    }

    /// The result of `future`, or the timeout error when the deadline comes first.
    pub(crate) async fn run<T>(&self, future: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        match timeout_at(self.at, future).await {
            Some(result) => result,
            None => Err(self.error(None)),
        }
    }

    /// Repeats `attempt` while it fails with an error that another attempt may cure and there is time.
    pub(crate) async fn retry<T, F>(&self, mut backoff: Backoff, mut attempt: impl FnMut() -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = None;
        loop {
            match timeout_at(self.at, attempt()).await {
                Some(Err(error)) if error.is_worth_another_attempt() => {
                    tracing::debug!(operation = self.operation, %error, "attempt failed");
                    last = Some(error);
                }
                Some(result) => return result,
                None => return Err(self.error(last)),
            }
            let pause = backoff.next_pause();
            if self.is_over_after(pause) {
                return Err(self.error(last));
            }
            sleep(pause).await;
        }
    }
}

/// The shortest and the longest pause between attempts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BackoffLimits {
    pub(crate) min: Duration,
    pub(crate) max: Duration,
    /// Fixed in tests, so that a schedule can be replayed.
    pub(crate) seed: Option<u64>,
}

/// Pauses that grow from `min` to `max` by a quarter each, and so are about a quarter of all the time that it has taken so far: whatever is
/// waited for, such as another leader, is noticed soon after it has come, however long that was. Each is cut by a random share of up to
/// one half: clients that failed together do not come back together.
#[derive(Debug)]
pub(crate) struct Backoff {
    limits: BackoffLimits,
    /// Of which the next pause is a share.
    full: Duration,
    rng: SmallRng,
}

impl Backoff {
    pub(crate) fn new(limits: BackoffLimits) -> Self {
        let rng = SmallRng::seed_from_u64(limits.seed.unwrap_or_else(runtime::random));
        Self {
            limits,
            full: limits.min,
            rng,
        }
    }

    /// The pause before the next attempt.
    pub(crate) fn next_pause(&mut self) -> Duration {
        let full = self.full;
        self.full = (full + full / 4 + Duration::from_nanos(1)).min(self.limits.max);
        full.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// After a success: the next pause is the shortest again.
    pub(crate) fn reset(&mut self) {
        self.full = self.limits.min;
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    const LIMITS: BackoffLimits = BackoffLimits {
        min: Duration::from_millis(10),
        max: Duration::from_millis(100),
        seed: Some(1),
    };

    #[test]
    fn pauses_grow_up_to_the_limit_and_start_over_after_a_success() {
        let mut backoff = Backoff::new(LIMITS);
        for full in [10.0, 12.5, 15.625, 19.53125] {
            let full = Duration::from_secs_f64(full / 1e3) + Duration::from_nanos(10);
            let pause = backoff.next_pause();
            assert!(
                full / 2 <= pause + Duration::from_nanos(10) && pause <= full,
                "{pause:?} of {full:?}"
            );
        }
        for _ in 0..100 {
            assert!(backoff.next_pause() <= LIMITS.max);
        }
        assert!(backoff.next_pause() >= LIMITS.max / 2);
        backoff.reset();
        assert!(backoff.next_pause() <= LIMITS.min);
    }

    #[test]
    fn what_comes_after_a_while_is_noticed_within_half_of_that() {
        let limits = BackoffLimits {
            min: Duration::from_millis(20),
            max: Duration::from_secs(1),
            seed: Some(1),
        };
        for outage in [100, 300, 1_000, 2_000, 3_000].map(Duration::from_millis) {
            let (mut backoff, mut waited) = (Backoff::new(limits), Duration::ZERO);
            while waited < outage {
                waited += backoff.next_pause();
            }
            let late = waited.saturating_sub(outage);
            assert!(late <= outage / 2 + limits.min, "{late:?} after {outage:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn retriable_failures_are_tried_again_until_the_deadline_and_then_named() {
        let deadline = Deadline::after(Duration::from_secs(1), "the test");
        let mut attempts = 0;
        let result: Result<(), Error> = deadline
            .retry(Backoff::new(LIMITS), || {
                attempts += 1;
                ready(Err(Error::WouldBlock("always")))
            })
            .await;
        assert!(attempts > 5, "{attempts}");
        let Err(Error::Timeout {
            operation: "the test",
            last: Some(last),
            ..
        }) = result
        else {
            panic!("{result:?}");
        };
        assert!(matches!(*last, Error::WouldBlock("always")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_final_failure_is_returned_at_once() {
        let deadline = Deadline::after(Duration::from_secs(1), "the test");
        let mut attempts = 0;
        let result: Result<(), Error> = deadline
            .retry(Backoff::new(LIMITS), || {
                attempts += 1;
                ready(Err(Error::Closed))
            })
            .await;
        assert!(matches!(result, Err(Error::Closed)));
        assert_eq!(attempts, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_ends_is_cut_at_the_deadline() {
        let deadline = Deadline::after(Duration::from_secs(1), "the test");
        let start = Instant::now();
        let result: Result<(), Error> = deadline.retry(Backoff::new(LIMITS), std::future::pending).await;
        assert!(matches!(result, Err(Error::Timeout { last: None, .. })));
        assert_eq!(start.elapsed(), Duration::from_secs(1));
    }
}
