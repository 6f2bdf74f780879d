//! The command `sweep`: a workload at each point of a grid, each with a fresh broker and topic.

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use super::{Workload, report};
use crate::cli::{AxisName, LimitsMode, SweepArgs, SweepWorkload, grid, set};
use crate::error::BenchError;
use crate::report::{Report, table};

/// The results at all points.
#[derive(Debug)]
pub struct Sweep {
    /// What was run.
    pub config: Value,
    /// Each point, and its result.
    pub cells: Vec<(Vec<(AxisName, String)>, Report)>,
}

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
    // All values are checked before the first point takes its time.
    let mut settings = Vec::new();
    for point in points {
        let mut run = args.run.clone();
        for (axis, value) in &point {
            set(&mut run, *axis, value)?;
        }
        // Once for each point would take longer than the points.
        run.output.limits = run.output.limits.or(Some(LimitsMode::Off));
        settings.push((point, run));
    }
    let workload = match args.workload {
        SweepWorkload::Produce => Workload::Produce,
        SweepWorkload::EndToEnd => Workload::EndToEnd(1),
    };
    let mut cells = Vec::new();
    let count = settings.len();
    for (number, (point, run)) in settings.into_iter().enumerate() {
        let names: Vec<_> = point
            .iter()
            .map(|(axis, value)| format!("{}={value}", axis.option()))
            .collect();
        let config = super::config_of(&run);
        let done = report(&workload, &run, config, runtime)?;
        // On standard error, so that somebody who waits sees how far it is.
        eprintln!(
            "{}/{count} {}: {}",
            number + 1,
            names.join(" "),
            table::rate(done.median().main().bytes_per_s)
        );
        cells.push((point, done));
    }
    Ok(Sweep {
        config: super::config_of(args),
        cells,
    })
}

impl Sweep {
    /// Whether a record was lost, duplicated, reordered or altered at any point.
    pub fn is_damaged(&self) -> bool {
        self.cells.iter().any(|(_, report)| report.is_damaged())
    }

    /// One row for each point.
    pub fn text(&self) -> String {
        let mut table = table::empty();
        let Some((first, last_report)) = self.cells.first() else {
            return String::new();
        };
        let axes = first.iter().map(|(axis, _)| axis.option());
        let figures = [
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
            .chain(figures.map(str::to_owned))
            .chain(has_shares.then(|| "share".to_owned()));
        table.set_header(header.collect::<Vec<_>>());
        for (point, report) in &self.cells {
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
                    run.shares
                        .first()
                        .map_or_else(|| "-".into(), |share| format!("{:.2}", share.ratio)),
                );
            }
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
        table::footer(&mut text, last_report);
        text
    }

    /// One object; the result of each point has its place on the axes under `point`.
    pub fn json(&self) -> Value {
        let cells = self.cells.iter().map(|(point, report)| {
            let point: Map<String, Value> = point
                .iter()
                .map(|(axis, value)| (axis.option(), Value::from(value.as_str())))
                .collect();
            let mut cell = Map::new();
            cell.insert("point".into(), Value::Object(point));
            if let Value::Object(result) = report.json() {
                cell.extend(result);
            }
            Value::Object(cell)
        });
        json!({ "workload": "sweep", "config": self.config, "cells": cells.collect::<Vec<_>>() })
    }
}
