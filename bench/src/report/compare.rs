//! Two results next to each other: the ratio of each figure, the spread of its runs, and whether the difference is more
//! than noise.
//!
//! The rule is simple and errs on the side of doubt: a difference counts if the ranges of the runs do not overlap, and
//! there are at least three runs on each side.

use std::path::Path;

use comfy_table::Table;

use serde::Serialize;
use serde_json::Value;

use super::table::{self, three};
use super::text::Text;
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
    /// Of these, the names of those that are worse than allowed.
    pub failed: Vec<String>,
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
    /// Of two files that `--output json` gave; a figure of B may be worse by such a share.
    ///
    /// # Errors
    /// If one is no result, or if nothing can be told of what may not be worse.
    pub fn of_files(a: &Path, b: &Path, allowed: Option<f64>) -> Result<Self, BenchError> {
        let mut comparison = Self::of(&read(a)?, &read(b)?);
        if let Some(allowed) = allowed {
            comparison.judge(allowed)?;
        }
        Ok(comparison)
    }

    /// Finds what is worse by more than allowed. What cannot be told is no success.
    fn judge(&mut self, allowed: f64) -> Result<(), BenchError> {
        if self.figures.iter().any(|row| row.judgement == Judgement::Unknown) {
            return Err(BenchError::Options(format!(
                "--fail-on: fewer than {RUNS_MIN} runs say nothing about noise: give both results --repeat 5"
            )));
        }
        if self.figures.is_empty() {
            return Err(BenchError::Options(
                "--fail-on: there is no figure that both results have: compare two of the same workload".into(),
            ));
        }
        let worse = self.figures.iter().filter(|row| row.is_worse_than(allowed));
        self.failed = worse.map(|row| row.name.clone()).collect();
        Ok(())
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
        notes.extend(
            [("A", a), ("B", b)]
                .into_iter()
                .filter_map(|(name, result)| cautions(name, result)),
        );
        if figures.iter().any(|row| row.judgement == Judgement::Unknown) {
            notes.push(format!(
                "fewer than {RUNS_MIN} runs say nothing about noise: give both --repeat 5"
            ));
        }
        Self {
            options: options(a, b),
            figures,
            failed: Vec::new(),
            notes,
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = Text::for_output();
        text.table(self.table());
        text.gap();
        for name in &self.failed {
            text.line("FAILED", &format!("{name} is worse than --fail-on allows"));
        }
        for (name, a, b) in &self.options {
            text.line("option", &format!("{name}: {a} in A, {b} in B"));
        }
        for note in &self.notes {
            text.line("note", note);
        }
        text.finish()
    }

    /// Never wider than 100 columns.
    fn table(&self) -> Table {
        let mut table = table::new(["figure", "A", "range", "B", "range", "B/A", ""]);
        for row in &self.figures {
            let (unit, divisor) = row.figure.unit.of(row.a.median.max(row.b.median));
            let show = |value: f64| three(value / divisor);
            let around = |spread: &Spread| {
                if spread.runs < 2 {
                    "-".to_owned()
                } else {
                    format!("{}-{}", show(spread.min), show(spread.max))
                }
            };
            let cells = [
                fold(&format!("{}{unit}", row.name)),
                show(row.a.median),
                around(&row.a),
                show(row.b.median),
                around(&row.b),
                format!("{:.2}", row.ratio),
                row.judgement.text().to_owned(),
            ];
            table::add(&mut table, cells);
        }
        table
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

impl Row {
    /// Whether it is worse beyond noise, and by more than this share.
    fn is_worse_than(&self, allowed: f64) -> bool {
        let worse_by = if self.figure.is_better_high {
            1.0 - self.ratio
        } else {
            self.ratio - 1.0
        };
        self.judgement == Judgement::Worse && worse_by > allowed
    }
}

impl Judgement {
    fn text(self) -> &'static str {
        match self {
            Self::Noise => "noise",
            Self::Unknown => "?",
            Self::Better => "better",
            Self::Worse => "WORSE",
        }
    }
}

impl Unit {
    /// The unit that suits a value, to follow the figure's name, and how much of the figure's own it is.
    fn of(self, value: f64) -> (&'static str, f64) {
        match self {
            Self::Rate => (", MB/s", 1e6),
            Self::Time if value < 999.5 => (", us", 1.0),
            Self::Time if value < 999.5e3 => (", ms", 1e3),
            Self::Time => (", s", 1e6),
            Self::Number if value >= 999.5e3 => (", millions", 1e6),
            Self::Number => ("", 1.0),
        }
    }
}

/// A name in lines that leave room for the figures.
fn fold(name: &str) -> String {
    const COLUMNS: usize = 34;
    let mut lines = vec![String::new()];
    for word in name.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].len() + word.len() >= COLUMNS {
            lines.push(word.to_owned());
        } else if lines[last].is_empty() {
            lines[last].push_str(word);
        } else {
            lines[last] = format!("{} {word}", lines[last]);
        }
    }
    lines.join("\n  ")
}

/// That the figures of some runs cannot be trusted, if it is so.
fn cautions(name: &str, result: &Value) -> Option<String> {
    let runs = result["runs"].as_array()?;
    let of = runs.iter().filter_map(|run| run["cautions"][0].as_str());
    let (count, first) = (of.clone().count(), of.clone().next()?);
    Some(format!(
        "in {name} {count} of {} runs are to be doubted, the first because {first}",
        runs.len()
    ))
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

    /// A result with all the figures that a run can have, as long as they come.
    fn full(scale: f64) -> Value {
        let latency = json!({ "p50": 1234.5 * scale, "p90": 4e5, "p99": 2e6 * scale, "p999": 1e7, "max": 6e8 });
        let part = json!({ "bytes_per_s": 1.4e9 * scale, "records_per_s": 13_698_760.0, "latency_us": latency });
        let side = json!({ "cpu_seconds_per_gb": 1234.5 * scale });
        let limit = "the bare program that is fed records";
        let share =
            json!({ "phase": "beside_slow_group", "figure": "throughput", "limit": limit, "ratio": 53.4 * scale });
        let run = |noise: f64| {
            let mut run = part.clone();
            run["bytes_per_s"] = json!(1.4e9 * scale * noise);
            run["beside_slow_group"] = part.clone();
            run["cost"] = json!({ "bench": side, "broker": side });
            run["shares"] = json!([share]);
            run
        };
        json!({ "workload": "mixed", "runs": [run(1.0), run(1.01), run(0.99)] })
    }

    #[test]
    fn the_table_fits_a_hundred_columns_whatever_the_figures() {
        let table = Comparison::of(&full(1.0), &full(1.5)).text();
        assert!(table.contains("p99.9") && table.contains("the bare program"), "{table}");
        for line in table.lines() {
            assert!(line.chars().count() <= 100, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn a_figure_that_is_worse_by_more_than_allowed_fails_and_what_cannot_be_told_is_refused() {
        let judged = |a: &[f64], b: &[f64], allowed| {
            let mut comparison = Comparison::of(&result(a, 1.0), &result(b, 1.0));
            comparison.judge(allowed).map(|()| comparison.failed)
        };
        let (before, slower) = ([100.0, 101.0, 102.0], [91.0, 92.0, 93.0]);
        let failed = judged(&before, &slower, 0.05).unwrap();
        assert_eq!(failed, ["throughput", "produce throughput by disk"]);
        assert!(judged(&before, &slower, 0.10).unwrap().is_empty(), "9% are allowed");
        assert!(judged(&slower, &before, 0.0).unwrap().is_empty(), "it is better");
        assert!(
            judged(&before, &[50.0, 101.5, 200.0], 0.0).unwrap().is_empty(),
            "that is noise"
        );
        let error = judged(&before[..2], &slower, 0.05).unwrap_err().to_string();
        assert!(error.contains("--repeat"), "{error}");
        let nothing = Comparison::of(&json!({ "runs": [{}] }), &result(&before, 1.0)).judge(0.05);
        assert!(nothing.is_err());
        // Latency is worse when it is more.
        let mut comparison = Comparison::of(&result(&before, 1.0), &result(&before, 1.2));
        comparison.judge(0.05).unwrap();
        assert_eq!(comparison.failed, ["p99"]);
    }

    #[test]
    fn runs_that_are_to_be_doubted_are_named() {
        let mut doubted = result(&[1.0, 1.0, 1.0], 1.0);
        doubted["runs"][1]["cautions"] = json!(["other programs had 1.0 of 2 CPUs"]);
        let comparison = Comparison::of(&result(&[1.0, 1.0, 1.0], 1.0), &doubted);
        let note = "in B 1 of 3 runs are to be doubted, the first because other programs had 1.0 of 2 CPUs";
        assert!(
            comparison.notes.iter().any(|found| found == note),
            "{:?}",
            comparison.notes
        );
    }
}
