//! Results as text, for people.

use std::fmt::Write as _;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};

use super::{Phase, Report, Run, compare::Spread};
use crate::environment::Environment;

/// Several lines, the last of them ended.
pub fn text(report: &Report) -> String {
    let run = report.median();
    let mut text = format!("{}\n", phases(run));
    for phase in &run.phases {
        if let Some(found) = phase.verdict.text() {
            let verdict = if phase.verdict.is_damaged() {
                "DAMAGED"
            } else {
                "verified"
            };
            let name = if run.phases.len() > 1 {
                format!(" ({})", phase.workload)
            } else {
                String::new()
            };
            line(&mut text, verdict, &format!("{} records{name}: {found}", phase.records));
        }
        if let Some(behind) = phase.behind_schedule_us {
            let content = format!(
                "{}: records were handed over p50 {}, p99 {}, max {} after they were due; this is part of the latency",
                phase.workload,
                microseconds(behind.p50),
                microseconds(behind.p99),
                microseconds(behind.max)
            );
            line(&mut text, "schedule", &content);
        }
    }
    if report.runs.len() > 1 {
        line(&mut text, "runs", &spread(report));
    }
    for share in &report.shares() {
        line(&mut text, share.title(), &share.text());
    }
    if let Some(cost) = &run.cost {
        for (title, content) in cost.lines() {
            line(&mut text, title, &content);
        }
    }
    if !run.stages.is_empty() {
        let _ = writeln!(text, "{}", stages(run));
    }
    footer(&mut text, report);
    text
}

/// Machine, memory and notes.
pub fn footer(text: &mut String, report: &Report) {
    let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
    let peak = report
        .memory
        .peak_rss_bytes
        .map_or_else(|| "unknown".to_owned(), mebibytes);
    let budget = mebibytes(report.memory.memory_budget_bytes);
    line(text, "memory", &format!("peak RSS {peak}, configured budgets {budget}"));
    line(text, "machine", &machine(&report.environment));
    let run = report.runs.iter().flat_map(|run| &run.notes);
    let mut notes: Vec<&String> = report.notes.iter().chain(run).collect();
    notes.dedup();
    for note in notes {
        line(text, "note", note);
    }
}

fn machine(environment: &Environment) -> String {
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

fn phases(run: &Run) -> Table {
    let mut table = new([
        "part",
        "records",
        "records/s",
        "MB/s",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "p99.99",
        "max",
    ]);
    for phase in &run.phases {
        let latency = phase.latency_us.map_or_else(
            || vec!["-".to_owned(); 6],
            |l| [l.p50, l.p90, l.p99, l.p999, l.p9999, l.max].map(microseconds).to_vec(),
        );
        let mut row = vec![
            phase.workload.to_owned(),
            phase.records.to_string(),
            format!("{:.0}", phase.records_per_s),
            format!("{:.1}", phase.bytes_per_s / 1e6),
        ];
        row.extend(latency);
        add(&mut table, row);
    }
    table
}

fn stages(run: &Run) -> Table {
    let mut table = new(["broker stage", "count", "mean", "p50", "p99", "max", "total"]);
    for stage in &run.stages {
        let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), microseconds);
        add(
            &mut table,
            vec![
                stage.name.clone(),
                stage.count.to_string(),
                microseconds(stage.mean_us),
                time(stage.p50_us),
                time(stage.p99_us),
                time(stage.max_us),
                format!("{:.2} s", stage.total_s),
            ],
        );
    }
    table
}

/// A table with this header.
pub fn new<const N: usize>(header: [&str; N]) -> Table {
    let mut table = empty();
    table.set_header(header);
    table
}

/// A table in the style of all tables here.
pub fn empty() -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table
}

/// Adds a row: the first column to the left, figures to the right.
pub fn add(table: &mut Table, row: Vec<String>) {
    let align = |(column, text): (usize, String)| {
        let alignment = if column == 0 {
            CellAlignment::Left
        } else {
            CellAlignment::Right
        };
        Cell::new(text).set_alignment(alignment)
    };
    table.add_row(row.into_iter().enumerate().map(align));
}

/// A line of text with its title.
pub fn line(text: &mut String, title: &str, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{title:<9} {content}");
}

/// Three digits or more, in the unit that suits.
pub fn microseconds(us: f64) -> String {
    match us {
        us if us < 10.0 => format!("{us:.1} us"),
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
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
