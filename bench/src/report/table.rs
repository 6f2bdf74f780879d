//! Results as text, for people.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::text::Text;
use super::{Phase, Report, Run, compare::Spread, summary};
use crate::environment::Environment;
use crate::failover;

/// Several lines, the last of them ended.
pub fn text(report: &Report) -> String {
    let run = report.median();
    let mut text = Text::for_output();
    text.table(throughput(run));
    if run.phases.iter().any(|phase| phase.latency_us.is_some()) {
        text.gap();
        text.table(latency(run));
    }
    if let Some(failover) = &run.failover {
        text.gap();
        failover::table(&mut text, failover);
    } else {
        text.gap();
    }
    verdicts(&mut text, report);
    if let Some(replication) = &run.replication {
        text.line("replicas", &replication.to_string());
    }
    for caution in report.cautions() {
        text.line("CAUTION", &caution);
    }
    for bound in run.bounds() {
        text.line("bound", &bound.sentence());
    }
    for phase in &run.phases {
        if let Some(content) = lateness(phase) {
            text.line("schedule", &content);
        }
    }
    if report.runs.len() > 1 {
        text.line("runs", &spread(report));
    }
    for share in &report.shares() {
        text.line(share.title(), &share.text());
    }
    if let Some(cost) = &run.cost {
        for (title, content) in cost.lines() {
            text.line(title, &content);
        }
    }
    if !run.stages.is_empty() {
        text.gap();
        text.table(stages(run));
        text.gap();
    }
    footer(&mut text, report);
    if let Some(summary) = summary::of(report) {
        text.gap();
        for sentence in &summary {
            text.prose(sentence);
        }
    }
    text.finish()
}

/// What was verified of each part, in all runs; and what was not, and why.
fn verdicts(text: &mut Text, report: &Report) {
    let run = report.median();
    for phase in &run.phases {
        let (verdict, records) = report.verdict(phase.workload);
        let mut part = if run.phases.len() > 1 {
            format!("{}: ", phase.workload)
        } else {
            String::new()
        };
        if report.runs.len() > 1 {
            part = format!("{part}in {} runs ", report.runs.len());
        }
        if let Some(found) = verdict.text(records) {
            let title = if verdict.is_damaged() { "DAMAGED" } else { "verified" };
            text.line(title, &format!("{part}{found}"));
        }
        if let Some(reason) = &phase.unverified {
            text.line("verified", &format!("{part}nothing: {reason}"));
        }
    }
}

/// How late records were handed over, if there was a schedule, and the bench itself.
fn lateness(phase: &Phase) -> Option<String> {
    let (behind, late) = (phase.behind_schedule_us?, phase.bench_late_us);
    let times = |latency: super::phase::Latency| {
        let [p50, p99, max] = [latency.p50, latency.p99, latency.max].map(microseconds);
        format!("p50 {p50}, p99 {p99}, max {max}")
    };
    let mut text = format!("{}: records were handed over late by {}", phase.workload, times(behind));
    if let Some(own) = late.schedule {
        text = format!("{text}; by the bench's own fault {}", times(own));
    }
    if let Some(tasks) = late.tasks {
        text = format!("{text}; it looked at acknowledgements late by {}", times(tasks));
    }
    Some(format!("{text}. What is the bench's own is not in the latency"))
}

/// Machine, memory and notes.
pub fn footer(text: &mut Text, report: &Report) {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let peak = report
        .memory
        .peak_rss_bytes
        .map_or_else(|| "unknown".to_owned(), mebibytes);
    let budget = mebibytes(report.memory.memory_budget_bytes);
    text.line("memory", &format!("peak RSS {peak}, configured budgets {budget}"));
    text.line("machine", &machine(&report.environment));
    let run = report.runs.iter().flat_map(|run| &run.notes);
    let mut notes: Vec<&String> = report.notes.iter().chain(run).collect();
    notes.dedup();
    for note in notes {
        text.line("note", note);
    }
}

/// The machine in one line.
pub fn machine(environment: &Environment) -> String {
    let Environment {
        kernel,
        cpus,
        cpu_model,
        filesystem,
        ..
    } = environment;
    let model = cpu_model.as_deref().unwrap_or("CPU");
    let mut text = format!("Linux {kernel}, {cpus} x {model}");
    if let Some(filesystem) = filesystem {
        text = format!("{text}, data on {filesystem}");
    }
    text
}

fn spread(report: &Report) -> String {
    let range = |figure: fn(&Phase) -> Option<f64>| {
        let values: Vec<f64> = report.runs.iter().filter_map(|run| figure(run.main())).collect();
        let min = values.iter().copied().reduce(f64::min)?;
        Some((min, values.iter().copied().fold(min, f64::max)))
    };
    let mut text = format!("{} runs, the median one is shown; ", report.runs.len());
    if let Some((min, max)) = range(|phase| Some(phase.bytes_per_s)) {
        let _ = write!(text, "{:.1} to {:.1} MB/s", min / 1e6, max / 1e6);
    }
    for (name, figure) in [
        (
            "p50",
            (|phase| phase.latency_us.map(|l| l.p50)) as fn(&Phase) -> Option<f64>,
        ),
        ("p99", |phase| phase.latency_us.map(|l| l.p99)),
    ] {
        if let Some((min, max)) = range(figure) {
            let _ = write!(text, ", {name} {} to {}", microseconds(min), microseconds(max));
        }
    }
    text
}

fn throughput(run: &Run) -> Table {
    let mut table = new(["part", "records", "seconds", "records/s", "MB/s"]);
    for phase in &run.phases {
        let row = [
            phase.workload.to_owned(),
            phase.records.to_string(),
            format!("{:.1}", phase.seconds),
            format!("{:.0}", phase.records_per_s),
            format!("{:.1}", phase.bytes_per_s / 1e6),
        ];
        add(&mut table, row);
    }
    table
}

fn latency(run: &Run) -> Table {
    let mut table = new(["latency", "p50", "p90", "p99", "p99.9", "p99.99", "max"]);
    for phase in &run.phases {
        let Some(l) = phase.latency_us else {
            continue;
        };
        let times = [l.p50, l.p90, l.p99, l.p999, l.p9999, l.max].map(microseconds);
        add(&mut table, std::iter::once(phase.workload.to_owned()).chain(times));
    }
    table
}

fn stages(run: &Run) -> Table {
    let mut table = new(["broker stage", "count", "mean", "p50", "p99", "max", "total"]);
    for stage in &run.stages {
        let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), microseconds);
        let row = [
            stage.name.clone(),
            stage.count.to_string(),
            microseconds(stage.mean_us),
            time(stage.p50_us),
            time(stage.p99_us),
            time(stage.max_us),
            format!("{:.2} s", stage.total_s),
        ];
        add(&mut table, row);
    }
    table
}

/// A table with this header: the first column to the left, the others to the right.
pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(aligned(header.into_iter().map(Into::into)));
    table
}

/// Adds a row.
pub fn add(table: &mut Table, row: impl IntoIterator<Item = String>) {
    table.add_row(aligned(row.into_iter()));
}

fn aligned(row: impl Iterator<Item = String>) -> Vec<Cell> {
    let align = |(column, text): (usize, String)| {
        let alignment = if column == 0 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(alignment)
    };
    row.enumerate().map(align).collect()
}

/// Three digits, or all of those before the point.
pub fn three(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        size if size >= 0.9995 || size == 0.0 => format!("{value:.2}"),
        size => {
            let decimals = (2.0 - size.log10().floor()).min(9.0) as usize;
            format!("{value:.decimals$}")
        }
    }
}

/// Three digits, in the unit that suits.
pub fn microseconds(us: f64) -> String {
    match us {
        us if us < 9.95 => format!("{us:.1} us"),
        us if us < 999.5 => format!("{us:.0} us"),
        us if us < 999.5e3 => format!("{} ms", three(us / 1e3)),
        us => format!("{} s", three(us / 1e6)),
    }
}

/// A ratio that was found in several turns, with its range.
pub fn ratio(spread: Option<Spread>) -> String {
    match spread {
        None => "-".to_owned(),
        Some(Spread { median, runs: 1, .. }) => format!("{median:.2}"),
        Some(Spread { median, min, max, .. }) => format!("{median:.2} ({min:.2} to {max:.2})"),
    }
}

/// Bytes a second, for people.
pub fn rate(bytes_per_s: f64) -> String {
    format!("{:.1} MB/s", bytes_per_s / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_three_digits_in_the_unit_that_suits() {
        for (us, text) in [
            (0.52, "0.5 us"),
            (9.96, "10 us"),
            (383.4, "383 us"),
            (999.7, "1.00 ms"),
            (1_234.5, "1.23 ms"),
            (19_990.0, "20.0 ms"),
            (146_410.0, "146 ms"),
            (999_700.0, "1.00 s"),
            (61_000_000.0, "61.0 s"),
        ] {
            assert_eq!(microseconds(us), text);
        }
        for (value, text) in [
            (0.0, "0.00"),
            (0.012_34, "0.0123"),
            (0.999_6, "1.00"),
            (99.96, "100"),
            (12_345.6, "12346"),
        ] {
            assert_eq!(three(value), text);
        }
    }
}
