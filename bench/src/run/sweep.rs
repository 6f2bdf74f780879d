//! The command `sweep`: a workload at each point of a grid, each with a fresh broker and topic; again and again, by turns.

use std::io::Write as _;

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Workload, report};
use crate::cli::{AxisName, ConsumeArgs, LimitsMode, RunArgs, SweepArgs, SweepWorkload, check, grid, set};
use crate::error::BenchError;
use crate::progress::StandardError;
use crate::report::text::Text;
use crate::report::{Report, Run, Verdict, compare::Spread, table};

/// The results at all points.
#[derive(Debug)]
pub struct Sweep {
    /// What was run.
    pub config: Value,
    /// Each point, and its result: one run of each turn.
    pub cells: Vec<(Point, Report)>,
}

/// A value for each axis.
pub type Point = Vec<(AxisName, String)>;

/// Most points of a grid.
const CELLS_MAX: usize = 1000;

/// Runs it.
pub fn run(args: &SweepArgs, runtime: &Runtime) -> Result<Sweep, BenchError> {
    let points = grid(&args.axes);
    if points.len() > CELLS_MAX {
        return Err(BenchError::Options(format!(
            "the grid has {} points; at most {CELLS_MAX} are run: leave out some values",
            points.len()
        )));
    }
    if args.run.output.histogram_log.is_some() && points.len() > 1 {
        return Err(BenchError::Options(
            "--histogram-log is for one run: leave it out, or give each axis one value".into(),
        ));
    }
    // All values are checked before the first point takes its time.
    let mut settings = Vec::new();
    for point in points {
        let mut run = args.run.clone();
        for (axis, value) in &point {
            set(&mut run, axis, value)?;
        }
        check(&run)?;
        // Once for each point would take longer than the points.
        run.output.limits = run.output.limits.or(Some(LimitsMode::Off));
        run.output.repeat = 1;
        settings.push((point, run));
    }
    let mut cells: Vec<(Point, Report)> = Vec::new();
    let (count, turns) = (settings.len(), args.run.output.repeat);
    for turn in 0..turns {
        for (number, (point, run)) in settings.iter().enumerate() {
            let done = report(&workload(args.workload, run), run, super::config_of(run), runtime)?;
            // So that somebody who waits sees how far it is; nobody has to.
            let _ = writeln!(
                StandardError,
                "{}/{} {}: {}",
                usize::from(turn) * count + number + 1,
                usize::from(turns) * count,
                name(point),
                table::rate(done.median().main().bytes_per_s)
            );
            match cells.get_mut(number) {
                Some((_, before)) => before.append(done),
                None => cells.push((point.clone(), done)),
            }
        }
    }
    Ok(Sweep {
        config: super::config_of(args),
        cells,
    })
}

fn name(point: &Point) -> String {
    let names: Vec<_> = point.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    names.join(" ")
}

fn workload(workload: SweepWorkload, run: &RunArgs) -> Workload {
    let consume = |cold| {
        Workload::Consume(Box::new(ConsumeArgs {
            run: run.clone(),
            cold,
            consumers: 1,
            verify: false,
            expect_records: None,
            follow: false,
        }))
    };
    match workload {
        SweepWorkload::Produce => Workload::Produce { verify: true },
        SweepWorkload::EndToEnd => Workload::EndToEnd(1),
        SweepWorkload::Consume => consume(false),
        SweepWorkload::ConsumeCold => consume(true),
    }
}

/// A figure that points are compared by.
type Figure = (&'static str, fn(&Run) -> Option<f64>);

/// Throughput where it is what is asked, latency where there is a schedule, and what the broker spends in any case.
fn figures(run: &Run) -> Vec<Figure> {
    let latency: [Figure; 2] = [
        ("p50", |run| Some(run.main().latency_us?.p50)),
        ("p99", |run| Some(run.main().latency_us?.p99)),
    ];
    let throughput: Figure = ("MB/s", |run| Some(run.main().bytes_per_s));
    let cost: Figure = ("broker CPU", |run| Some(run.cost.as_ref()?.broker?.cpu_seconds_per_gb));
    let mut figures = if run.is_paced() {
        latency.to_vec()
    } else {
        vec![throughput]
    };
    figures.push(cost);
    figures
}

/// The name of an axis in lines that leave room for figures, broken behind dots and underscores.
fn folded(axis: &str) -> String {
    const COLUMNS: usize = 14;
    let mut lines = vec![String::new()];
    for part in axis.split_inclusive(['.', '_']) {
        match lines.last_mut() {
            Some(last) if last.is_empty() || last.len() + part.len() <= COLUMNS => last.push_str(part),
            _ => lines.push(part.to_owned()),
        }
    }
    lines.join("\n")
}

impl Sweep {
    /// Whether a record was lost, duplicated, reordered or altered at any point.
    pub fn is_damaged(&self) -> bool {
        self.cells.iter().any(|(_, report)| report.is_damaged())
    }

    /// By which figures the points are compared, and each point's multiple of the first in the same turn.
    pub fn by_first(&self) -> Vec<(&'static str, Vec<Option<Spread>>)> {
        let Some((_, first)) = self.cells.first() else {
            return Vec::new();
        };
        let ratios = |figure: fn(&Run) -> Option<f64>| {
            let of_cell = |(_, report): &(Point, Report)| {
                let turns = report.runs.iter().zip(&first.runs);
                Spread::of(
                    turns
                        .filter_map(|(run, first)| Some(figure(run)? / figure(first)?))
                        .collect(),
                )
            };
            self.cells.iter().map(of_cell).collect()
        };
        let figures = figures(first.median()).into_iter();
        figures.map(|(name, figure)| (name, ratios(figure))).collect()
    }

    /// Two tables with one row for each point: what it gave; and what it cost, and how it compares. Neither is wider than 100
    /// columns with two axes.
    pub fn text(&self) -> String {
        let mut text = Text::for_output();
        let Some((_, first)) = self.cells.first() else {
            return String::new();
        };
        text.table(self.results());
        text.gap();
        text.table(self.comparison());
        text.gap();
        self.judgements(&mut text);
        table::footer(&mut text, first);
        text.finish()
    }

    /// A table of these columns after those of the axes.
    fn table<'a>(
        &self,
        columns: impl Iterator<Item = &'a str>,
        row: impl Fn(usize, &Report) -> Vec<String>,
    ) -> comfy_table::Table {
        let axes = self.cells.first().into_iter().flat_map(|(point, _)| point);
        let axes = axes.map(|(axis, _)| folded(&axis.to_string()));
        let mut table = table::new(axes.chain(columns.map(str::to_owned)));
        for (number, (point, report)) in self.cells.iter().enumerate() {
            let point = point.iter().map(|(_, value)| value.clone());
            table::add(&mut table, point.chain(row(number, report)));
        }
        table
    }

    fn results(&self) -> comfy_table::Table {
        let columns = ["records/s", "MB/s", "p50", "p99", "p99.9", "max"];
        self.table(columns.into_iter(), |_, report| {
            let phase = report.median().main();
            let latency = phase.latency_us;
            let times = latency.map_or([None; 4], |l| [l.p50, l.p99, l.p999, l.max].map(Some));
            let times = times.map(|us| us.map_or_else(|| "-".to_owned(), table::microseconds));
            let throughput = [
                format!("{:.0}", phase.records_per_s),
                format!("{:.1}", phase.bytes_per_s / 1e6),
            ];
            throughput.into_iter().chain(times).collect()
        })
    }

    fn comparison(&self) -> comfy_table::Table {
        let by_first = self.by_first();
        let has_shares = self.cells.iter().any(|(_, report)| !report.median().shares.is_empty());
        let costs = ["bench\nCPU s/GB", "broker\nCPU s/GB"];
        let names: Vec<_> = by_first.iter().map(|(name, _)| format!("{name} by first")).collect();
        let columns = costs.into_iter().chain(has_shares.then_some("share"));
        let columns = columns.chain(names.iter().map(String::as_str));
        self.table(columns, |number, report| {
            let cost = report.median().cost.as_ref();
            let sides = [cost.map(|cost| cost.bench), cost.and_then(|cost| cost.broker)];
            let sides = sides.map(|side| side.map_or_else(|| "-".into(), |side| table::three(side.cpu_seconds_per_gb)));
            let share = report.shares().first().map(|share| format!("{:.2}", share.typical()));
            let share = has_shares.then(|| share.unwrap_or_else(|| "-".into()));
            let ratios = by_first.iter().map(|(_, ratios)| table::ratio(ratios[number]));
            sides.into_iter().chain(share).chain(ratios).collect()
        })
    }

    /// Whether records were as they should be, and whether the figures can be trusted.
    fn judgements(&self, text: &mut Text) {
        let reports = || self.cells.iter().map(|(_, report)| report);
        let count = self.cells.len();
        let damaged = reports().filter(|report| report.is_damaged()).count();
        if damaged > 0 {
            text.line("DAMAGED", &format!("records at {damaged} points; see --output json"));
        }
        let runs = || reports().flat_map(|report| &report.runs);
        let verdict = runs().map(Run::verdict).fold(Verdict::default(), Verdict::and);
        if let Some(found) = verdict.text(0) {
            text.line("verified", &format!("at {count} points {found}"));
        }
        let doubted = reports().filter(|report| !report.cautions().is_empty());
        if let Some(first) = doubted.clone().next() {
            let (doubted, cautions) = (doubted.count(), first.cautions());
            let content = format!(
                "{doubted} of {count} points are to be doubted, the first because {}",
                cautions[0]
            );
            text.line("CAUTION", &content);
        }
        let is_limited = |report: &&Report| {
            let cost = report.median().cost.as_ref();
            cost.is_some_and(|cost| cost.bench_is_bottleneck)
        };
        let limited = reports().filter(is_limited).count();
        if limited > 0 {
            let content = format!("at {limited} of {count} points a thread of the bench itself was the limit");
            text.line("limited", &content);
        }
    }

    /// One object; the result of each point has its place on the axes under `point`, and how it compares with the first
    /// under `by_first`.
    pub fn json(&self) -> Value {
        let by_first = self.by_first();
        let cells = self.cells.iter().enumerate().map(|(number, (point, report))| {
            let point: Map<String, Value> = point
                .iter()
                .map(|(axis, value)| (axis.to_string(), Value::from(value.as_str())))
                .collect();
            let mut cell = Map::new();
            cell.insert("point".into(), Value::Object(point));
            let ratios = by_first
                .iter()
                .map(|(name, ratios)| ((*name).to_owned(), json!(ratios[number])));
            cell.insert("by_first".into(), Value::Object(ratios.collect()));
            if let Value::Object(result) = report.json() {
                cell.extend(result);
            }
            Value::Object(cell)
        });
        json!({ "workload": "sweep", "config": self.config, "cells": cells.collect::<Vec<_>>() })
    }
}
