//! Results next to what the machine can do: throughput as a share of a limit, latency as a multiple of a floor.
//!
//! A ratio of figures that were measured in turns cancels most of the machine's noise, which no figure alone does.

use serde::Serialize;
use serde_json::Value;

use super::compare::Spread;
use super::table::{microseconds, rate};
use super::{Phase, Run};
use crate::limits::Limits;
use crate::limits::figures::Percentiles;

/// One result and its limit.
#[derive(Debug, Clone, Serialize)]
pub struct Share {
    /// The part of the run.
    pub phase: &'static str,
    /// What is compared.
    pub figure: Figure,
    /// The limit, in words.
    pub limit: &'static str,
    /// Of the run, in bytes a second or microseconds.
    pub value: f64,
    /// Of the machine, in the same unit.
    pub limit_value: f64,
    /// The first by the second: at most about 1 for throughput, at least about 1 for latency.
    pub ratio: f64,
    /// This ratio in each of several runs. Its median is the figure to quote, as a single run may have met a bad moment of
    /// either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_runs: Option<Spread>,
}

/// What is compared with a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Figure {
    /// `bytes_per_s`
    Throughput,
    /// `latency_us.p50`
    P50,
    /// `latency_us.p99`
    P99,
}

impl Share {
    /// For the table.
    pub fn title(&self) -> &'static str {
        match self.figure {
            Figure::Throughput => "share",
            Figure::P50 | Figure::P99 => "multiple",
        }
    }

    /// For the table.
    pub fn text(&self) -> String {
        let Self { phase, limit, .. } = self;
        let (ratio, values) = (self.typical(), self.values());
        match self.figure {
            Figure::Throughput => format!("{phase}: {ratio:.2} of {limit} ({values})"),
            Figure::P50 => format!("{phase}: p50 is {ratio:.2}x that of {limit} ({values})"),
            Figure::P99 => format!("{phase}: p99 is {ratio:.2}x that of {limit} ({values})"),
        }
    }

    /// The ratio to quote: of several runs the median.
    pub fn typical(&self) -> f64 {
        self.over_runs.map_or(self.ratio, |spread| spread.median)
    }

    /// What was compared, and of several runs how far they lie apart.
    pub fn values(&self) -> String {
        let values = match self.figure {
            Figure::Throughput => format!("{} of {}", rate(self.value), rate(self.limit_value)),
            Figure::P50 | Figure::P99 => {
                format!("{} by {}", microseconds(self.value), microseconds(self.limit_value))
            }
        };
        match self.over_runs {
            Some(Spread { min, max, .. }) => format!("{min:.2} to {max:.2}; in the run shown {values}"),
            None => values,
        }
    }
}

/// The shares of the run that stands for all, with those of the others.
pub fn over_runs(shown: &[Share], runs: &[Run]) -> Vec<Share> {
    let same = |a: &Share, b: &Share| (a.phase, a.figure, a.limit) == (b.phase, b.figure, b.limit);
    let with_others = |share: &Share| {
        let all = runs
            .iter()
            .filter_map(|run| run.shares.iter().find(|other| same(share, other)));
        let over_runs = Spread::of(all.map(|share| share.ratio).collect()).filter(|spread| spread.runs > 1);
        Share {
            over_runs,
            ..share.clone()
        }
    };
    shown.iter().map(with_others).collect()
}

/// The throughput limits that go with a part.
fn ceilings(phase: &str, limits: &Limits) -> Vec<(&'static str, Option<f64>)> {
    let least = |a: Option<f64>, b: Option<f64>| Some(a?.min(b?));
    let (disk, network, bare) = (&limits.disk, &limits.network, &limits.bare);
    let loopback = network.loopback_bytes_per_s;
    match phase {
        "produce" | "alone" => vec![
            ("the bare program that is fed records", bare.built_bytes_per_s),
            ("the bare program", bare.bytes_per_s),
            (
                "the slower of disk write and loopback",
                least(disk.write_bytes_per_s, loopback),
            ),
        ],
        "end_to_end" | "tail" => vec![("the bare program that pushes", bare.push_bytes_per_s)],
        "consume" => vec![
            ("loopback", loopback),
            ("sendfile over loopback", network.sendfile_bytes_per_s),
        ],
        "consume_cold" => vec![(
            "the slower of disk read and loopback",
            least(disk.read_bytes_per_s, loopback),
        )],
        "catch_up" => vec![("disk read", disk.read_bytes_per_s)],
        _ => Vec::new(),
    }
}

/// The floor of latency that goes with a part: at the same rate if there is one, else one record at a time.
fn floor(phase: &str, limits: &Limits) -> Vec<(&'static str, Option<Percentiles>)> {
    let floor = &limits.floor;
    match phase {
        "produce" | "alone" => vec![
            ("the floor at this rate", floor.paced_ack_us),
            ("the floor", floor.ack_us),
        ],
        "end_to_end" | "tail" => vec![
            ("the floor at this rate", floor.paced_end_to_end_us),
            ("the floor", floor.end_to_end_us),
        ],
        _ => Vec::new(),
    }
}

/// Everything that can be compared. Throughput on a schedule is what the schedule says, and latency without one is the
/// length of the queues: neither is compared.
pub fn shares(phases: &[Phase], limits: &Limits, is_paced: bool, is_cold: bool) -> Vec<Share> {
    let mut shares = Vec::new();
    for phase in phases {
        let name = phase.workload;
        let share = |figure, limit, value: f64, limit_value: f64| Share {
            phase: name,
            figure,
            limit,
            value,
            limit_value,
            ratio: value / limit_value,
            over_runs: None,
        };
        let is_free = !is_paced || matches!(name, "consume" | "catch_up");
        if is_free {
            let place = if name == "consume" && is_cold {
                "consume_cold"
            } else {
                name
            };
            let known = ceilings(place, limits)
                .into_iter()
                .filter_map(|(of, limit)| Some((of, limit?)));
            shares.extend(known.map(|(of, limit)| share(Figure::Throughput, of, phase.bytes_per_s, limit)));
        } else if let Some(latency) = phase.latency_us {
            for (of, limit) in floor(name, limits)
                .into_iter()
                .filter_map(|(of, limit)| Some((of, limit?)))
            {
                shares.push(share(Figure::P50, of, latency.p50, limit.p50));
                shares.push(share(Figure::P99, of, latency.p99, limit.p99));
            }
        }
    }
    shares
}

/// The mean of each figure, of those measured before and after a run.
pub fn mean(before: &Limits, after: &Limits) -> Limits {
    let values = (serde_json::to_value(before), serde_json::to_value(after));
    match values {
        (Ok(before), Ok(after)) => serde_json::from_value(mean_of(&before, &after)).unwrap_or_default(),
        _ => Limits::default(),
    }
}

fn mean_of(before: &Value, after: &Value) -> Value {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let both = before
                .iter()
                .filter_map(|(key, value)| Some((key, value, after.get(key)?)));
            both.map(|(key, a, b)| (key.clone(), mean_of(a, b))).collect()
        }
        (Value::Number(a), Value::Number(b)) => match (a.as_u64(), b.as_u64(), a.as_f64(), b.as_f64()) {
            // Counts stay whole.
            (Some(a), Some(b), ..) => Value::from(u64::midpoint(a, b)),
            (.., Some(a), Some(b)) => Value::from(f64::midpoint(a, b)),
            _ => Value::Null,
        },
        _ => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_before_and_after_are_averaged_figure_by_figure() {
        let limits = |disk: f64, floor: f64| {
            let mut limits = Limits::default();
            limits.disk.write_bytes_per_s = Some(disk);
            limits.floor.ack_us = Some(Percentiles {
                p50: floor,
                samples: 7,
                ..Percentiles::default()
            });
            limits
        };
        let mean = mean(&limits(1e9, 10.5), &limits(2e9, 30.0));
        assert_eq!(mean.disk.write_bytes_per_s, Some(1.5e9));
        let floor = mean.floor.ack_us.unwrap();
        assert_eq!((floor.p50, floor.samples), (20.25, 7));
        assert_eq!(mean.network.loopback_bytes_per_s, None);
    }

    #[test]
    fn of_several_runs_the_median_ratio_is_quoted_and_not_that_of_the_run_shown() {
        let run = |value: f64, limit_value: f64| {
            let mut run = Run::of(Vec::new());
            run.shares.push(Share {
                phase: "consume",
                figure: Figure::Throughput,
                limit: "loopback",
                value,
                limit_value,
                ratio: value / limit_value,
                over_runs: None,
            });
            run
        };
        // The second met a bad moment of the limit.
        let runs = [run(2e9, 4e9), run(2.1e9, 1.75e9), run(2.2e9, 4e9)];
        let shares = over_runs(&runs[1].shares, &runs);
        assert_eq!(
            shares[0].text(),
            "consume: 0.55 of loopback (0.50 to 1.20; in the run shown 2100.0 MB/s of 1750.0 MB/s)"
        );
        assert_eq!(
            over_runs(&runs[1].shares, &runs[1..2])[0].text(),
            "consume: 1.20 of loopback (2100.0 MB/s of 1750.0 MB/s)"
        );
    }
}
