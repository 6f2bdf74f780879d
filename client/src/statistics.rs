//! What a client and its producers have done, in numbers: snapshots to look at, or to export at an interval.
//!
//! Counted for each batch or request and never for each record, without locks that are not taken anyway but for the latencies.

#[cfg(feature = "metrics")]
mod export;

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::address::Address;
use crate::runtime::sync::Mutex;

/// What a producer has done since it was made; from [`Producer::statistics`](crate::Producer::statistics).
///
/// Records are counted once their batch is closed: one that still lingers is not yet among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProducerStatistics {
    /// Records that were taken and are in closed batches, whatever became of them.
    pub records: u64,
    /// Records that were delivered.
    pub records_acknowledged: u64,
    /// Records whose delivery has failed.
    pub records_failed: u64,
    /// Records that [`Producer::send_and_forget`](crate::Producer::send_and_forget) could not even take. Not among `records`.
    pub records_refused: u64,
    /// Bytes of batches that were handed to connections, as they were sent: compressed, and with repetitions.
    pub bytes_sent: u64,
    /// Bytes of batches that were delivered, each once.
    pub bytes_acknowledged: u64,
    /// Batches that were handed to connections, with repetitions.
    pub batches_sent: u64,
    /// How many of these were repetitions.
    pub retries: u64,
    /// Batches that were larger than their topic takes and went on in parts.
    pub splits: u64,
    /// Bytes of memory that hold records now.
    pub memory_used: usize,
    /// From the first record of a batch to its acknowledgement, retries included; every record counts with its batch's time.
    pub latency: Latencies,
}

impl ProducerStatistics {
    /// Records in closed batches that have not ended.
    pub fn records_in_flight(&self) -> u64 {
        self.records
            .saturating_sub(self.records_acknowledged + self.records_failed)
    }
}

/// What has passed between a client and the brokers; from [`Client::statistics`](crate::Client::statistics).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStatistics {
    /// One for each address that a connection was ever wanted to, in the order of the addresses. Each core of a broker has one.
    pub addresses: Vec<AddressStatistics>,
}

/// What has passed between a client and one address, over all connections to it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AddressStatistics {
    /// The address.
    pub address: Address,
    /// Whether there is a connection now.
    pub is_connected: bool,
    /// Connections that were made.
    pub connects: u64,
    /// Attempts to make one that failed.
    pub connect_failures: u64,
    /// Connections that have ended: the broker closed them, as it does when they are idle for long, the network failed, or they were given
    /// up for an answer that did not come.
    pub losses: u64,
    /// Requests that were handed to a connection.
    pub requests: u64,
    /// Requests that wait for their answer.
    pub in_flight: usize,
    /// From handing over a request to its answer. Without those that a broker holds back, as fetches at the end of a partition.
    pub round_trip: Latencies,
}

/// How long something took, over all the times that it happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Latencies {
    /// How often it happened.
    pub count: u64,
    /// The mean.
    pub mean: Duration,
    /// The median. This and the following to within a percent.
    pub p50: Duration,
    /// 90 of 100 took at most this.
    pub p90: Duration,
    /// 99 of 100 took at most this.
    pub p99: Duration,
    /// 999 of 1000 took at most this.
    pub p999: Duration,
    /// The longest.
    pub max: Duration,
}

/// Collects latencies in microseconds.
pub(crate) struct Timings(Histogram<u64>);

/// Whatever takes longer counts as this long, which bounds the histogram's memory.
const LONGEST: Duration = Duration::from_hours(1);

impl Default for Timings {
    fn default() -> Self {
        Self(Histogram::new(2).expect("two digits are few enough"))
    }
}

impl Timings {
    /// Notes that `count` times it took so long.
    pub(crate) fn note(&mut self, took: Duration, count: u64) {
        let noted = self.0.record_n(took.min(LONGEST).as_micros() as u64, count);
        debug_assert!(noted.is_ok(), "a histogram grows up to an hour");
    }

    pub(crate) fn add(&mut self, other: &Self) {
        let added = self.0.add(&other.0);
        debug_assert!(added.is_ok(), "a histogram grows up to an hour");
    }

    pub(crate) fn snapshot(&self) -> Latencies {
        let at = |quantile| Duration::from_micros(self.0.value_at_quantile(quantile));
        Latencies {
            count: self.0.len(),
            mean: Duration::from_secs_f64(self.0.mean() / 1e6),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: Duration::from_micros(self.0.max()),
        }
    }
}

impl fmt::Debug for Timings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// [`Timings`] that several tasks share.
#[derive(Debug, Default)]
pub(crate) struct SharedTimings(Mutex<Timings>);

impl SharedTimings {
    pub(crate) fn note(&self, took: Duration, count: u64) {
        self.0.lock().note(took, count);
    }

    pub(crate) fn snapshot(&self) -> Latencies {
        self.0.lock().snapshot()
    }
}

/// What has passed over one connection, or over several that have ended.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) requests: u64,
    pub(crate) round_trips: Timings,
}

impl Traffic {
    pub(crate) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.round_trips.add(&other.round_trips);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_tell_the_quantiles_to_within_a_percent_and_nothing_is_too_long_to_count() {
        let mut timings = Timings::default();
        assert_eq!(timings.snapshot(), Latencies::default());
        for millis in 1..=1000 {
            timings.note(Duration::from_millis(millis), 10);
        }
        let found = timings.snapshot();
        assert_eq!(found.count, 10_000);
        for (found, millis) in [
            (found.p50, 500.0),
            (found.p99, 990.0),
            (found.max, 1000.0),
            (found.mean, 500.5),
        ] {
            let ratio = found.as_secs_f64() * 1000.0 / millis;
            assert!((0.99..1.01).contains(&ratio), "{found:?} for {millis} ms");
        }
        timings.note(Duration::MAX, 1);
        assert!(timings.snapshot().max >= LONGEST);
    }
}
