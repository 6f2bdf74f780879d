//! The command `sweep`: a workload at each point of a grid, each with a fresh broker and topic; again and again, by turns.

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Workload, report};
use crate::cli::{AxisName, ConsumeArgs, LimitsMode, RunArgs, SweepArgs, SweepWorkload, check, grid, set};
use crate::error::BenchError;
use crate::report::{Report, Run, compare::Spread, table};

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
            // On standard error, so that somebody who waits sees how far it is.
            eprintln!(
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
        SweepWorkload::Produce => Workload::Produce,
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

    /// One row for each point.
    pub fn text(&self) -> String {
        let mut table = table::empty();
        let Some((first, first_report)) = self.cells.first() else {
            return String::new();
        };
        let axes = first.iter().map(|(axis, _)| axis.to_string());
        let by_first = self.by_first();
        let columns = [
            "records/s",
            "MB/s",
            "p50",
            "p99",
            "p99.9",
            "max",
            "bench CPU s/GB",
            "broker CPU s/GB",
        ];
        let has_shares = self.cells.iter().any(|(_, report)| !report.median().shares.is_empty());
        let header = axes
            .chain(columns.map(str::to_owned))
            .chain(has_shares.then(|| "share".to_owned()))
            .chain(by_first.iter().map(|(name, _)| format!("{name} by first")));
        table.set_header(header.collect::<Vec<_>>());
        for (number, (point, report)) in self.cells.iter().enumerate() {
            let run = report.median();
            let phase = run.main();
            let mut row: Vec<String> = point.iter().map(|(_, value)| value.clone()).collect();
            row.push(format!("{:.0}", phase.records_per_s));
            row.push(format!("{:.1}", phase.bytes_per_s / 1e6));
            let latency = phase.latency_us;
            let times = latency.map_or([None; 4], |l| [l.p50, l.p99, l.p999, l.max].map(Some));
            row.extend(times.map(|us| us.map_or_else(|| "-".to_owned(), table::microseconds)));
            let cost = run.cost.as_ref();
            let sides = [cost.map(|cost| cost.bench), cost.and_then(|cost| cost.broker)];
            row.extend(
                sides.map(|side| side.map_or_else(|| "-".into(), |side| format!("{:.2}", side.cpu_seconds_per_gb))),
            );
            if has_shares {
                row.push(
                    report
                        .shares()
                        .first()
                        .map_or_else(|| "-".into(), |share| format!("{:.2}", share.typical())),
                );
            }
            row.extend(by_first.iter().map(|(_, ratios)| table::ratio(ratios[number])));
            table::add(&mut table, row);
        }
        let mut text = format!("{table}\n");
        let damaged = self.cells.iter().filter(|(_, report)| report.is_damaged()).count();
        if damaged > 0 {
            table::line(
                &mut text,
                "DAMAGED",
                &format!("records at {damaged} points; see --output json"),
            );
        }
        let limited = |report: &Report| {
            report
                .median()
                .cost
                .as_ref()
                .is_some_and(|cost| cost.bench_is_bottleneck)
        };
        let limited = self.cells.iter().filter(|(_, report)| limited(report)).count();
        if limited > 0 {
            let count = self.cells.len();
            table::line(
                &mut text,
                "limited",
                &format!("at {limited} of {count} points a thread of the bench itself was the limit"),
            );
        }
        table::footer(&mut text, first_report);
        text
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
