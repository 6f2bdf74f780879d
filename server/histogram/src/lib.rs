//! Stands in for the crate of this name, by `[patch.crates-io]` of the workspace. openraft counts in its histograms how many entries
//! a message has and the like, and without its feature `runtime-stats` nobody can read them. The first histogram of a process has
//! tables built for every width that one can have: 25 MiB, and tens of milliseconds of each start of a broker.
//!
//! Has what openraft names, and counts nothing.

use std::fmt;

/// Into which nothing goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram<T = ()>(std::marker::PhantomData<T>);

impl<T> Histogram<T> {
    /// One in which nothing is.
    pub fn new() -> Histogram<T> {
        Histogram(std::marker::PhantomData)
    }

    /// Takes a value.
    pub fn record(&mut self, _value: u64) {}

    /// Takes a value so many times.
    pub fn record_n(&mut self, _value: u64, _count: u64) {}

    /// Says that there is nothing.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats::default()
    }
}

/// Of nothing, so all are 0.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "their names say which percentiles they are")]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad("none")
    }
}

/// A drawing of nothing.
#[derive(Debug, Default)]
pub struct AsciiChart;

impl AsciiChart {
    /// An empty one.
    pub fn new() -> AsciiChart {
        AsciiChart
    }

    /// Adds nothing.
    #[must_use]
    pub fn add<T>(self, _name: &str, _: Histogram<T>) -> AsciiChart {
        self
    }

    /// Leaves nothing out.
    #[must_use]
    pub fn detailed(self) -> AsciiChart {
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Ok(())
    }
}
