//! The figures of one part of a run: what was produced, or consumed.
//!
//! Rates are computed once, from what was counted. A figure that there is not is null, with the reason beside it; none
//! is made up.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::table::microseconds;
use crate::cost::Usage;
use crate::load::meter::{Measured, Point};
use crate::load::produce::Produced;
use crate::workload::Findings;

/// One part of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// `produce`, `consume`, `end_to_end`, ...
    pub workload: &'static str,
    /// Acknowledged, or received.
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
    /// From the first record to the last one's acknowledgement or arrival.
    pub seconds: f64,
    /// Of values.
    pub bytes_per_s: f64,
    /// Likewise.
    pub records_per_s: f64,
    /// In microseconds.
    pub latency_us: Option<Latency>,
    /// Why there is none, or what it is.
    pub latency_note: String,
    /// How late records were handed to the client, if there was a schedule: in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_schedule_us: Option<Latency>,
    /// How late the bench itself was, which is no part of the latency: in microseconds.
    pub bench_late_us: BenchLate,
    /// If it was verified.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Why it was not, if that is worth saying.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unverified: Option<String>,
    /// Who had the CPUs, if that was watched for this part alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// The whole distribution of the latency.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percentiles: Vec<Percentile>,
    /// Over time.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<Point>,
}

/// How late the bench itself was, in microseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct BenchLate {
    /// With records that were due by the schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Latency>,
    /// With acknowledgements or records that the client had told of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tasks: Option<Latency>,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of all are below.
    pub p50: f64,
    /// 90 in 100.
    pub p90: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
    /// 9,999 in 10,000.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// How many were measured.
    pub samples: u64,
}

impl Latency {
    /// `None` if nothing was measured.
    pub fn of(nanoseconds: &Histogram<u64>) -> Option<Self> {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        (!nanoseconds.is_empty()).then(|| Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: nanoseconds.max() as f64 / 1e3,
            samples: nanoseconds.len(),
        })
    }
}

/// One point of the distribution.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentile {
    /// From 0 to 1.
    pub quantile: f64,
    /// So many microseconds or less.
    pub us: f64,
}

/// What the verification has found; all null where nothing was verified.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Verdict {
    /// How many records were looked at, those of the warm-up included.
    #[serde(rename = "verified_records")]
    pub verified: Option<u64>,
    /// Records that the bench has not written.
    #[serde(rename = "foreign_records", skip_serializing_if = "Option::is_none")]
    pub foreign: Option<u64>,
    /// Acknowledged, and not there.
    pub lost: Option<u64>,
    /// There more than once.
    pub duplicated: Option<u64>,
    /// Behind a record that was sent later.
    pub reordered: Option<u64>,
    /// With other content.
    pub corrupt: Option<u64>,
}

impl Verdict {
    /// Whether it was verified, and found wanting.
    pub fn is_damaged(&self) -> bool {
        self.counts().iter().any(|count| count.is_some_and(|n| n > 0))
    }

    /// Whether there was anything that could not be verified, as others have written it.
    pub fn is_foreign(&self) -> bool {
        self.foreign.is_some_and(|count| count > 0)
    }

    /// Both together.
    pub fn and(self, other: Self) -> Self {
        let sum = |a: Option<u64>, b: Option<u64>| match (a, b) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
        Self {
            verified: sum(self.verified, other.verified),
            foreign: sum(self.foreign, other.foreign),
            lost: sum(self.lost, other.lost),
            duplicated: sum(self.duplicated, other.duplicated),
            reordered: sum(self.reordered, other.reordered),
            corrupt: sum(self.corrupt, other.corrupt),
        }
    }

    fn counts(&self) -> [Option<u64>; 4] {
        [self.lost, self.duplicated, self.reordered, self.corrupt]
    }

    /// For people, what was found among so many records of a part; `None` if nothing was verified.
    pub fn text(&self, records: u64) -> Option<String> {
        let verified = self.verified?;
        let [Some(lost), Some(duplicated), Some(reordered), Some(corrupt)] = self.counts() else {
            return None;
        };
        let of = if verified < records {
            format!(" of {records}")
        } else {
            String::new()
        };
        Some(format!(
            "{verified}{of} records: {lost} lost, {duplicated} duplicated, {reordered} reordered, {corrupt} corrupt"
        ))
    }
}

impl From<Findings> for Verdict {
    fn from(findings: Findings) -> Self {
        let damage = findings.damage;
        Self {
            verified: Some(findings.verified),
            foreign: (findings.foreign > 0).then_some(findings.foreign),
            lost: Some(damage.lost),
            duplicated: Some(damage.duplicated),
            reordered: Some(damage.reordered),
            corrupt: Some(damage.corrupt),
        }
    }
}

impl Phase {
    /// With what was measured; the note says what the latency is, or why there is none.
    pub fn new(workload: &'static str, measured: Measured, note: impl Into<String>) -> Self {
        let seconds = measured.elapsed.as_secs_f64();
        // Nothing was done in no time at all: a rate of 0, which JSON can say.
        let rate = |count: u64| {
            if count == 0 {
                0.0
            } else {
                count as f64 / seconds.max(1e-9)
            }
        };
        Self {
            workload,
            records: measured.records,
            bytes: measured.bytes,
            seconds,
            bytes_per_s: rate(measured.bytes),
            records_per_s: rate(measured.records),
            latency_us: Latency::of(&measured.latencies),
            latency_note: note.into(),
            behind_schedule_us: None,
            bench_late_us: BenchLate {
                schedule: None,
                tasks: Latency::of(&measured.late),
            },
            verdict: Verdict::default(),
            unverified: None,
            usage: None,
            percentiles: distribution(&measured.latencies),
            series: measured.series,
        }
    }

    /// With how late records were handed over, if there was a schedule.
    pub fn behind(mut self, produced: &Produced) -> Self {
        self.behind_schedule_us = Latency::of(&produced.behind);
        self.bench_late_us.schedule = Latency::of(&produced.own);
        self
    }

    /// With what the verification found, if there was one.
    pub fn verified(mut self, findings: Option<Findings>) -> Self {
        self.verdict = findings.map_or_else(Verdict::default, Into::into);
        self
    }

    /// With why nothing was verified.
    pub fn unverified(mut self, reason: impl Into<String>) -> Self {
        self.unverified = Some(reason.into());
        self
    }

    /// With who had the CPUs meanwhile.
    pub fn with(mut self, usage: Usage) -> Self {
        self.usage = Some(usage);
        self
    }

    /// Why its latencies cannot be trusted, if the bench itself was late by as much as a latency is long.
    pub fn caution(&self) -> Option<String> {
        let (late, latency) = (self.bench_late_us.schedule?, self.latency_us?);
        let name = self.workload;
        let (p99, p50) = (microseconds(late.p99), microseconds(latency.p50));
        (late.p99 >= latency.p50).then(|| {
            format!(
                "{name}: the bench itself was behind its schedule by {p99} in p99, and the records that were due then came all at \
                 once: with a p50 of {p50} that shows in the latency, though it is not counted there; lower --rate, or give the \
                 bench CPUs of its own (--client-cpus)"
            )
        })
    }
}

/// Points that are even on the axis of a percentile curve: each nine has as much room as the one before.
fn distribution(nanoseconds: &Histogram<u64>) -> Vec<Percentile> {
    if nanoseconds.is_empty() {
        return Vec::new();
    }
    let mut points: Vec<Percentile> = Vec::new();
    for step in 0..=120 {
        let rest = 10_f64.powf(-f64::from(step) / 20.0);
        // Beyond the last record there is nothing to know.
        if rest * (nanoseconds.len() as f64) < 1.0 {
            break;
        }
        let quantile = 1.0 - rest;
        let us = nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        points.push(Percentile { quantile, us });
    }
    let max = nanoseconds.max() as f64 / 1e3;
    let quantile = 1.0 - 1.0 / nanoseconds.len() as f64;
    points.push(Percentile { quantile, us: max });
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::meter::histogram;
    use crate::workload::Damage;

    #[test]
    fn a_distribution_rises_to_the_maximum_and_ends_where_knowledge_does() {
        let mut latencies = histogram();
        (1..=10_000_u64).for_each(|us| latencies.record(us * 1000).unwrap());
        let points = distribution(&latencies);
        assert!(
            points.is_sorted_by(|a, b| a.quantile <= b.quantile && a.us <= b.us),
            "{points:?}"
        );
        let last = points.last().unwrap();
        assert!(
            (last.quantile - 0.9999).abs() < 1e-9 && (last.us - 10_000.0).abs() < 10.0,
            "{last:?}"
        );
        let median = points.iter().find(|point| point.quantile >= 0.5).unwrap();
        assert!((4_900.0..5_700.0).contains(&median.us), "{median:?}");
    }

    #[test]
    fn damage_of_several_parts_adds_up_and_what_was_not_verified_stays_unknown() {
        let unknown = Verdict::default();
        let damaged = Verdict::from(Findings {
            verified: 7,
            damage: Damage {
                lost: 1,
                ..Damage::default()
            },
            ..Findings::default()
        });
        let both = unknown.and(damaged).and(damaged);
        assert_eq!((both.lost, both.verified), (Some(2), Some(14)));
        assert!(unknown.and(damaged).is_damaged() && !unknown.is_damaged() && unknown.text(7).is_none());
        assert_eq!(
            both.text(16).unwrap(),
            "14 of 16 records: 2 lost, 0 duplicated, 0 reordered, 0 corrupt"
        );
    }
}
