//! Results next to what the machine can do: throughput as a share of a limit, latency as a multiple of a floor.
//!
//! A ratio of figures that were measured in turns cancels most of the machine's noise, which no figure alone does.

use serde::Serialize;
use serde_json::Value;

use super::Phase;
use super::table::{microseconds, rate};
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
        let Self {
            phase,
            limit,
            value,
            limit_value,
            ratio,
            ..
        } = self;
        match self.figure {
            Figure::Throughput => format!(
                "{phase}: {ratio:.2} of {limit} ({} of {})",
                rate(*value),
                rate(*limit_value)
            ),
            Figure::P50 => multiple("p50", phase, limit, *ratio, *value, *limit_value),
            Figure::P99 => multiple("p99", phase, limit, *ratio, *value, *limit_value),
        }
    }
}

fn multiple(name: &str, phase: &str, limit: &str, ratio: f64, value: f64, limit_value: f64) -> String {
    format!(
        "{phase}: {name} is {ratio:.2}x that of {limit} ({} by {})",
        microseconds(value),
        microseconds(limit_value)
    )
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
}
