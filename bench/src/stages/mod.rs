//! Where the time goes inside the broker: its histograms of each stage, read from its metrics before and after a run.
//!
//! The broker's `/metrics` holds `headwater_stage_seconds` (a histogram for each core and stage) and counters of the paths
//! that served fetches. A quantile of a histogram with buckets is an estimate: within its bucket, values are taken as
//! evenly spread, as Prometheus' `histogram_quantile` does.

mod scrape;

use std::collections::BTreeMap;

use serde::Serialize;

pub use scrape::{Scrape, ScrapeError};

/// One stage of a request in the broker, over all cores, during a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stage {
    /// Such as `flush`.
    pub name: String,
    /// How often it was gone through.
    pub count: u64,
    /// In all.
    pub total_s: f64,
    /// In microseconds.
    pub mean_us: f64,
    /// An estimate; `None` if it lies beyond the last bucket.
    pub p50_us: Option<f64>,
    /// Likewise.
    pub p99_us: Option<f64>,
    /// The bound of the last bucket that holds one; likewise.
    pub max_us: Option<f64>,
}

/// The order in which a record goes through them.
const ORDER: [&str; 8] = [
    "receive",
    "append",
    "write",
    "flush",
    "acknowledge",
    "fetch_wait",
    "send",
    "tick",
];

/// What a stage is, for people; empty of one that is not known here.
pub fn meaning(stage: &str) -> &'static str {
    match stage {
        "receive" => "From the first bytes of a request to its last.",
        "append" => "Checking the records, numbering them, and the one copy into memory (the tail buffer).",
        "write" => "One write to the disk. Several are under way at once.",
        "flush" => {
            "Making what was written durable (fdatasync), for many records at once. A small write that is durable by itself counts here."
        }
        "acknowledge" => {
            "From the append until the records are durable and the answer is ready: the wait for the writes and flushes above."
        }
        "fetch_wait" => {
            "How long a consumer's request waited until there were records for it. Long is normal for consumers that keep up."
        }
        "send" => {
            "From when an answer has its turn until the socket has taken all of it. Long when consumers read slowly."
        }
        "tick" => "How late a timer of the broker's core had its turn: how long others kept it from a request.",
        _ => "",
    }
}

/// Whether a stage lies on the way of what consumers get, and not of what producers send.
pub fn is_of_consumers(stage: &str) -> bool {
    matches!(stage, "fetch_wait" | "send")
}

/// What happened between two scrapes, in the order of the path of a record.
pub fn between(before: &Scrape, after: &Scrape) -> Vec<Stage> {
    let mut stages: Vec<Stage> = after
        .stages
        .iter()
        .filter_map(|(name, histogram)| stage(name, &histogram.since(before.stages.get(name))))
        .collect();
    let place = |stage: &Stage| ORDER.iter().position(|&name| name == stage.name).unwrap_or(ORDER.len());
    stages.sort_by_key(place);
    stages
}

/// Bytes of fetches by the path that served them, between two scrapes.
pub fn fetch_paths(before: &Scrape, after: &Scrape) -> BTreeMap<String, u64> {
    let grown = |(path, &bytes): (&String, &f64)| {
        let bytes = bytes - before.fetch_bytes.get(path).copied().unwrap_or_default();
        (bytes > 0.0).then(|| (path.clone(), bytes as u64))
    };
    after.fetch_bytes.iter().filter_map(grown).collect()
}

fn stage(name: &str, histogram: &Histogram) -> Option<Stage> {
    (histogram.count > 0.0).then(|| Stage {
        name: name.to_owned(),
        count: histogram.count as u64,
        total_s: histogram.sum,
        mean_us: 1e6 * histogram.sum / histogram.count,
        p50_us: histogram.quantile(0.5).map(|seconds| 1e6 * seconds),
        p99_us: histogram.quantile(0.99).map(|seconds| 1e6 * seconds),
        max_us: histogram.quantile(1.0).map(|seconds| 1e6 * seconds),
    })
}

/// A histogram with buckets, each of which counts what is at most its bound.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Bound in seconds and count, by bound; the last bound is infinite.
    buckets: Vec<(f64, f64)>,
    sum: f64,
    count: f64,
}

impl Histogram {
    /// Adds another one of the same bounds.
    fn add(&mut self, other: &[(f64, f64)]) {
        if self.buckets.is_empty() {
            self.buckets = other.to_vec();
        } else {
            for (mine, other) in self.buckets.iter_mut().zip(other) {
                mine.1 += other.1;
            }
        }
    }

    fn add_all(&mut self, other: &Self) {
        self.add(&other.buckets);
        self.sum += other.sum;
        self.count += other.count;
    }

    fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self.clone();
        };
        let less = |(place, &(bound, count)): (usize, &(f64, f64))| {
            let earlier = before.buckets.get(place).map_or(0.0, |&(_, count)| count);
            (bound, (count - earlier).max(0.0))
        };
        Self {
            buckets: self.buckets.iter().enumerate().map(less).collect(),
            sum: (self.sum - before.sum).max(0.0),
            count: (self.count - before.count).max(0.0),
        }
    }

    fn quantile(&self, quantile: f64) -> Option<f64> {
        let total = self.buckets.last()?.1;
        let rank = quantile * total;
        let place = self
            .buckets
            .iter()
            .position(|&(_, count)| count >= rank && count > 0.0)?;
        let (bound, count) = self.buckets[place];
        let (low, before) = place.checked_sub(1).map_or((0.0, 0.0), |place| self.buckets[place]);
        let share = if count > before {
            (rank - before) / (count - before)
        } else {
            1.0
        };
        bound.is_finite().then_some(low + (bound - low) * share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = include_str!("testdata/before.prom");
    const AFTER: &str = include_str!("testdata/after.prom");

    #[test]
    fn the_difference_of_two_scrapes_is_summed_over_cores_and_in_the_order_of_the_path() {
        let (before, after) = (Scrape::parse(BEFORE).unwrap(), Scrape::parse(AFTER).unwrap());
        let stages = between(&before, &after);
        let names: Vec<_> = stages.iter().map(|stage| stage.name.as_str()).collect();
        assert_eq!(names, ["append", "flush"], "what did not happen is left out");
        let flush = &stages[1];
        assert_eq!(flush.count, 100);
        assert!(
            (flush.total_s - 0.02).abs() < 1e-9 && (flush.mean_us - 200.0).abs() < 1e-6,
            "{flush:?}"
        );
        // Of 100, 80 are at most 100 us and 20 more at most 1 ms: the median is at 50/80 of the first bucket.
        assert!((flush.p50_us.unwrap() - 62.5).abs() < 1e-6, "{flush:?}");
        assert!((flush.p99_us.unwrap() - 955.0).abs() < 1e-6, "{flush:?}");
        assert_eq!(fetch_paths(&before, &after), [("tail".to_owned(), 900)].into());
    }

    #[test]
    fn every_stage_that_has_a_place_is_explained() {
        for stage in ORDER {
            assert!(meaning(stage).ends_with('.'), "{stage}");
        }
    }

    #[test]
    fn a_quantile_beyond_the_last_bound_is_not_known() {
        let histogram = Histogram {
            buckets: vec![(0.1, 1.0), (f64::INFINITY, 10.0)],
            sum: 0.0,
            count: 10.0,
        };
        assert_eq!(histogram.quantile(0.99), None);
        assert!((histogram.quantile(0.05).unwrap() - 0.05).abs() < 1e-12);
    }
}
