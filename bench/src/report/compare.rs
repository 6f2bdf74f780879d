//! Two results next to each other: the ratio of each figure, the spread of its runs, and whether the difference is more
//! than noise.
//!
//! The rule is simple and errs on the side of doubt: a difference counts if the ranges of the runs do not overlap, and
//! there are at least three runs on each side.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::table;
use crate::error::BenchError;

/// Fewer runs say nothing about noise.
const RUNS_MIN: usize = 3;

/// The rows of a comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    /// Options that differ: name, in A, in B.
    pub options: Vec<(String, Value, Value)>,
    /// One for each figure that both have.
    pub figures: Vec<Row>,
    /// What the reader should know.
    pub notes: Vec<String>,
}

/// One figure.
#[derive(Debug, Serialize)]
pub struct Row {
    /// Part and figure.
    pub name: String,
    /// Of the runs of A.
    pub a: Spread,
    /// Of the runs of B.
    pub b: Spread,
    /// B's median by A's.
    pub ratio: f64,
    /// What it means.
    pub judgement: Judgement,
    #[serde(skip)]
    figure: Figure,
}

/// Median and range.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// Half of the runs are below.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
    /// How many.
    pub runs: usize,
}

/// What a difference means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// The ranges overlap.
    Noise,
    /// Too few runs.
    Unknown,
    /// B is better.
    Better,
    /// B is worse.
    Worse,
}

#[derive(Debug, Clone, Copy)]
struct Figure {
    name: &'static str,
    path: &'static [&'static str],
    is_better_high: bool,
    unit: Unit,
}

#[derive(Debug, Clone, Copy)]
enum Unit {
    Rate,
    Time,
    Number,
}

const FIGURES: [Figure; 9] = [
    figure("throughput", &["bytes_per_s"], true, Unit::Rate),
    figure("records/s", &["records_per_s"], true, Unit::Number),
    figure("p50", &["latency_us", "p50"], false, Unit::Time),
    figure("p90", &["latency_us", "p90"], false, Unit::Time),
    figure("p99", &["latency_us", "p99"], false, Unit::Time),
    figure("p99.9", &["latency_us", "p999"], false, Unit::Time),
    figure("max", &["latency_us", "max"], false, Unit::Time),
    figure(
        "bench CPU s/GB",
        &["cost", "bench", "cpu_seconds_per_gb"],
        false,
        Unit::Number,
    ),
    figure(
        "broker CPU s/GB",
        &["cost", "broker", "cpu_seconds_per_gb"],
        false,
        Unit::Number,
    ),
];

const fn figure(name: &'static str, path: &'static [&'static str], is_better_high: bool, unit: Unit) -> Figure {
    Figure {
        name,
        path,
        is_better_high,
        unit,
    }
}

impl Comparison {
    /// Of two files that `--output json` gave.
    pub fn of_files(a: &Path, b: &Path) -> Result<Self, BenchError> {
        Ok(Self::of(&read(a)?, &read(b)?))
    }

    /// Of two results.
    fn of(a: &Value, b: &Value) -> Self {
        let mut figures = Vec::new();
        for part in parts(a) {
            for figure in FIGURES {
                // What a run cost is there once, not for each part.
                if part.is_some() && figure.path[0] == "cost" {
                    continue;
                }
                let (Some(in_a), Some(in_b)) = (spread(a, part, figure.path), spread(b, part, figure.path)) else {
                    continue;
                };
                let name = part.map_or_else(|| figure.name.to_owned(), |part| format!("{part} {}", figure.name));
                figures.push(Row::new(name, figure, in_a, in_b));
            }
        }
        figures.extend(shares(a, b));
        let mut notes = Vec::new();
        if a["workload"] != b["workload"] {
            notes.push(format!("the workloads differ: {} and {}", a["workload"], b["workload"]));
        }
        for key in ["kernel", "cpus", "cpu_model", "optimised", "filesystem"] {
            let (a, b) = (&a["environment"][key], &b["environment"][key]);
            if a != b {
                notes.push(format!("the machines differ in {key}: {a} and {b}"));
            }
        }
        if figures.iter().any(|row| row.judgement == Judgement::Unknown) {
            notes.push(format!(
                "fewer than {RUNS_MIN} runs say nothing about noise: give both --repeat 5"
            ));
        }
        Self {
            options: options(a, b),
            figures,
            notes,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut table = table::new(["figure", "A", "spread", "B", "spread", "B/A", ""]);
        for row in &self.figures {
            let show = |value| row.figure.unit.show(value);
            let around = |spread: &Spread| {
                if spread.runs < 2 {
                    "-".to_owned()
                } else {
                    format!("{} to {}", show(spread.min), show(spread.max))
                }
            };
            table::add(
                &mut table,
                vec![
                    row.name.clone(),
                    show(row.a.median),
                    around(&row.a),
                    show(row.b.median),
                    around(&row.b),
                    format!("{:.2}", row.ratio),
                    row.judgement.text().to_owned(),
                ],
            );
        }
        let mut text = format!("{table}\n");
        for (name, a, b) in &self.options {
            table::line(&mut text, "option", &format!("{name}: {a} in A, {b} in B"));
        }
        for note in &self.notes {
            table::line(&mut text, "note", note);
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("names are strings")
    }
}

impl Row {
    fn new(name: String, figure: Figure, a: Spread, b: Spread) -> Self {
        let judgement = if a.runs < RUNS_MIN || b.runs < RUNS_MIN {
            Judgement::Unknown
        } else if a.max >= b.min && b.max >= a.min {
            Judgement::Noise
        } else if (b.median > a.median) == figure.is_better_high {
            Judgement::Better
        } else {
            Judgement::Worse
        };
        Self {
            name,
            a,
            b,
            ratio: b.median / a.median,
            judgement,
            figure,
        }
    }
}

impl Judgement {
    fn text(self) -> &'static str {
        match self {
            Self::Noise => "within noise",
            Self::Unknown => "?",
            Self::Better => "better",
            Self::Worse => "worse",
        }
    }
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Rate => table::rate(value),
            Self::Time => table::microseconds(value),
            Self::Number if value < 100.0 => format!("{value:.2}"),
            Self::Number => format!("{value:.0}"),
        }
    }
}

fn read(path: &Path) -> Result<Value, BenchError> {
    let text = std::fs::read_to_string(path).map_err(|source| BenchError::file(path, source))?;
    let wrong = |reason: String| BenchError::Result {
        path: path.to_owned(),
        reason,
    };
    let value: Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if value["runs"].as_array().is_none_or(Vec::is_empty) {
        return Err(wrong("it has no runs".into()));
    }
    Ok(value)
}

/// The whole, and each part under its name where there are several.
fn parts(result: &Value) -> Vec<Option<&str>> {
    let run = result["runs"][0].as_object();
    let named = run
        .into_iter()
        .flatten()
        .filter(|(_, value)| value["bytes_per_s"].is_number());
    let named: Vec<_> = named.map(|(name, _)| Some(name.as_str())).collect();
    std::iter::once(None).chain(named).collect()
}

fn spread(result: &Value, part: Option<&str>, path: &[&str]) -> Option<Spread> {
    let values = result["runs"].as_array()?.iter().filter_map(|run| {
        let place = part.map_or(run, |part| &run[part]);
        path.iter().fold(place, |value, key| &value[key]).as_f64()
    });
    Spread::of(values.collect())
}

impl Spread {
    /// Of these values; `None` if there are none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.retain(|value| value.is_finite());
        values.sort_by(f64::total_cmp);
        let (&min, &max) = (values.first()?, values.last()?);
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self {
            median,
            min,
            max,
            runs: values.len(),
        })
    }
}

/// Shares of limits and multiples of floors that both have.
fn shares(a: &Value, b: &Value) -> Vec<Row> {
    let ratios = |result: &Value, name: &str| {
        let runs = result["runs"].as_array().into_iter().flatten();
        let all = runs.flat_map(|run| run["shares"].as_array().into_iter().flatten());
        Spread::of(
            all.filter(|share| share_name(share) == name)
                .filter_map(|share| share["ratio"].as_f64())
                .collect(),
        )
    };
    let first = a["runs"][0]["shares"].as_array().into_iter().flatten();
    let row = |share: &Value| {
        let name = share_name(share);
        let figure = figure("", &[], share["figure"] == "throughput", Unit::Number);
        Some(Row::new(name.clone(), figure, ratios(a, &name)?, ratios(b, &name)?))
    };
    first.filter_map(row).collect()
}

fn share_name(share: &Value) -> String {
    let text = |key: &str| share[key].as_str().unwrap_or_default().to_owned();
    format!("{} {} by {}", text("phase"), text("figure"), text("limit"))
}

fn options(a: &Value, b: &Value) -> Vec<(String, Value, Value)> {
    let (Some(in_a), Some(in_b)) = (a["config"].as_object(), b["config"].as_object()) else {
        return Vec::new();
    };
    let names = in_a.keys().chain(in_b.keys().filter(|key| !in_a.contains_key(*key)));
    names
        .filter(|name| !["data_dir", "repeat"].contains(&name.as_str()) && in_a.get(*name) != in_b.get(*name))
        .map(|name| (name.clone(), a["config"][name].clone(), b["config"][name].clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn result(throughput: &[f64], p99: f64) -> Value {
        let runs: Vec<_> = throughput
            .iter()
            .map(|rate| {
                json!({ "bytes_per_s": rate, "latency_us": { "p99": p99 },
                "shares": [{ "phase": "produce", "figure": "throughput", "limit": "disk", "ratio": rate / 1e3 }] })
            })
            .collect();
        json!({ "workload": "produce", "config": { "linger_us": p99 }, "runs": runs })
    }

    fn judgement(a: &[f64], b: &[f64]) -> (f64, Judgement) {
        let comparison = Comparison::of(&result(a, 1.0), &result(b, 1.0));
        let row = comparison.figures.iter().find(|row| row.name == "throughput").unwrap();
        (row.ratio, row.judgement)
    }

    #[test]
    fn a_difference_counts_only_beyond_the_spread_of_the_runs() {
        assert_eq!(
            judgement(&[90.0, 100.0, 110.0], &[105.0, 120.0, 130.0]),
            (1.2, Judgement::Noise)
        );
        assert_eq!(
            judgement(&[90.0, 100.0, 110.0], &[115.0, 120.0, 130.0]),
            (1.2, Judgement::Better)
        );
        assert_eq!(
            judgement(&[90.0, 100.0, 110.0], &[40.0, 50.0, 60.0]),
            (0.5, Judgement::Worse)
        );
        assert_eq!(judgement(&[100.0], &[200.0]), (2.0, Judgement::Unknown));
    }

    #[test]
    fn lower_latency_is_better_and_options_that_differ_are_named() {
        let runs = [1.0, 1.0, 1.0];
        let comparison = Comparison::of(&result(&runs, 10.0), &result(&runs, 5.0));
        let p99 = comparison.figures.iter().find(|row| row.name == "p99").unwrap();
        assert_eq!((p99.ratio, p99.judgement), (0.5, Judgement::Better));
        assert_eq!(comparison.options, [("linger_us".to_owned(), json!(10.0), json!(5.0))]);
        assert!(
            comparison
                .figures
                .iter()
                .any(|row| row.name == "produce throughput by disk")
        );
    }
}
