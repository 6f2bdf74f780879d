//! The report as one page that needs no network: figures, charts, where the time went, machine and options.

use maud::{DOCTYPE, Markup, PreEscaped, html};
use serde_json::Value;

use super::chart::{Axis, COLOURS, Line, Scale, lines};
use super::share::{Figure, Share};
use super::table::{self, microseconds, rate};
use super::{Phase, Report, Run};
use crate::run::sweep::Sweep;

const STYLE: &str = include_str!("page.css");

const TIME: Axis = Axis {
    scale: Scale::Linear,
    show: |seconds| format!("{} s", short(seconds)),
};
const LATENCY: Axis = Axis {
    scale: Scale::Log,
    show: |us| match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.0} s", us / 1e6),
    },
};
const THROUGHPUT: Axis = Axis {
    scale: Scale::Linear,
    show: |bytes| {
        if bytes >= 1e7 {
            format!("{:.0} MB/s", bytes / 1e6)
        } else {
            format!("{} MB/s", short(bytes / 1e6))
        }
    },
};
const QUANTILE: Axis = Axis {
    scale: Scale::Nines,
    show: |quantile| {
        let text = format!("{:.4}", 100.0 * quantile);
        format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
    },
};

/// Three digits, or all those before the point.
fn short(value: f64) -> f64 {
    let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 9.0);
    let scale = 10_f64.powf(decimals);
    (value * scale).round() / scale
}

/// The page of one command.
pub fn page(report: &Report) -> String {
    let run = report.median();
    let content = html! {
        (head(report.workload, report))
        (tiles(run))
        (curves(run))
        (shares(&report.shares()))
        (stages(run))
        (cost(run))
        (runs(report))
        (notes(report))
        (environment(report))
        (options(&report.config))
    };
    document(report.workload, &content)
}

/// The page of a sweep.
pub fn sweep(sweep: &Sweep) -> String {
    let Some((_, first)) = sweep.cells.first() else {
        return document("sweep", &html! {});
    };
    let axes: Vec<String> = sweep.cells[0].0.iter().map(|(axis, _)| axis.to_string()).collect();
    let percentile = |phase: &Phase| Line {
        name: String::new(),
        points: phase
            .percentiles
            .iter()
            .map(|point| (point.quantile, point.us))
            .collect(),
    };
    let name = |cell: &[(crate::cli::AxisName, String)]| {
        cell.iter()
            .map(|(axis, value)| format!("{axis}={value}"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let curves: Vec<Line> = sweep
        .cells
        .iter()
        .take(COLOURS)
        .map(|(cell, report)| Line {
            name: name(cell),
            ..percentile(report.median().main())
        })
        .collect();
    // What each point is about.
    let is_paced = first.median().is_paced();
    let figure = |report: &Report| {
        let main = report.median().main();
        match main.latency_us {
            Some(latency) if is_paced => (latency.p50, microseconds(latency.p50)),
            _ => (main.bytes_per_s, rate(main.bytes_per_s)),
        }
    };
    let figures: Vec<_> = sweep
        .cells
        .iter()
        .map(|(cell, report)| (name(cell), figure(report)))
        .collect();
    let top = figures.iter().map(|(_, (value, _))| *value).fold(1e-9, f64::max);
    let by_first = sweep.by_first();
    let content = html! {
        (head("sweep", first))
        section {
            h2 { @if is_paced { "Latency, p50" } @else { "Throughput" } }
            @for (name, (value, text)) in &figures {
                (bar(name, text, value / top, 0))
            }
        }
        (chart("Latency by percentile", &curves, QUANTILE, LATENCY, &html! {}))
        section {
            h2 { "All points" }
            div.scroll { table {
                tr { @for axis in &axes { th.text { (axis) } } th { "records/s" } th { "MB/s" } th { "p50" } th { "p99" } th { "p99.9" } th { "max" }
                    @for (name, _) in &by_first { th { (name) " by first" } } }
                @for (number, (cell, report)) in sweep.cells.iter().enumerate() {
                    @let phase = report.median().main();
                    tr {
                        @for (_, value) in cell { td { (value) } }
                        td.number { (format!("{:.0}", phase.records_per_s)) }
                        td.number { (format!("{:.1}", phase.bytes_per_s / 1e6)) }
                        @for us in times(phase) { td.number { (us) } }
                        @for (_, ratios) in &by_first { td.number { (table::ratio(ratios[number])) } }
                    }
                }
            } }
        }
        (environment(first))
        (options(&sweep.config))
    };
    document("sweep", &content)
}

fn times(phase: &Phase) -> [String; 4] {
    let latency = phase
        .latency_us
        .map_or([None; 4], |l| [l.p50, l.p99, l.p999, l.max].map(Some));
    latency.map(|us| us.map_or_else(|| "-".to_owned(), microseconds))
}

fn document(title: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { "headwater-bench " (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { main { (content) } }
        }
    };
    page.into_string()
}

fn head(title: &str, report: &Report) -> Markup {
    let environment = &report.environment;
    let model = environment.cpu_model.as_deref().unwrap_or("CPU");
    html! {
        header {
            div {
                p.brand { "headwater-bench" }
                h1 { (title) }
                p.sub { "Linux " (environment.kernel) ", " (environment.cpus) " x " (model)
                    @if let Some(filesystem) = &environment.filesystem { ", " (filesystem.kind) " on " (filesystem.device) } }
            }
            (verdict(report))
        }
    }
}

fn verdict(report: &Report) -> Markup {
    let verified = report.runs.iter().any(|run| run.verdict().lost.is_some());
    html! {
        @if report.is_damaged() {
            p.badge.bad { "records damaged" }
        } @else if verified {
            p.badge.good { "every record verified" }
        } @else {
            p.badge { "not verified" }
        }
    }
}

fn tiles(run: &Run) -> Markup {
    let is_paced = run.is_paced();
    html! {
        section.tiles {
            @for phase in &run.phases {
                div.tile {
                    h3 { (title(phase)) }
                    // On a schedule the throughput is what the schedule says.
                    @match phase.latency_us.filter(|_| is_paced) {
                        Some(latency) => { p.big { (microseconds(latency.p50)) span { " median" } } }
                        None => { p.big { (format!("{:.1}", phase.bytes_per_s / 1e6)) span { " MB/s" } } }
                    }
                    p.sub {
                        (format!("{:.0}", phase.records_per_s)) " records/s, "
                        @if is_paced { (rate(phase.bytes_per_s)) ", " }
                        (phase.records) " records in " (format!("{:.1}", phase.seconds)) " s"
                    }
                    @if let Some(latency) = phase.latency_us {
                        dl {
                            @for (name, us) in [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)] {
                                div { dt { (name) } dd { (microseconds(us)) } }
                            }
                        }
                    }
                    @if let Some(found) = phase.verdict.text() { p.sub { (found) } }
                }
            }
        }
    }
}

fn title(phase: &Phase) -> String {
    phase.workload.replace('_', " ")
}

fn curves(run: &Run) -> Markup {
    let of = |points: fn(&Phase) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |phase: &Phase| Line {
            name: title(phase),
            points: points(phase),
        };
        run.phases.iter().map(line).collect()
    };
    let percentiles = of(|phase| {
        phase
            .percentiles
            .iter()
            .map(|point| (point.quantile, point.us))
            .collect()
    });
    let throughput = of(|phase| {
        phase
            .series
            .iter()
            .map(|point| (point.at_s, point.bytes_per_s))
            .collect()
    });
    let mut latency = Vec::new();
    for phase in &run.phases {
        let series = |name: &str, figure: fn(&crate::load::meter::Point) -> Option<f64>| Line {
            name: format!("{} {name}", title(phase)),
            points: phase
                .series
                .iter()
                .filter_map(|point| Some((point.at_s, figure(point)?)))
                .collect(),
        };
        latency.push(series("p50", |point| point.p50_us));
        latency.push(series("p99", |point| point.p99_us));
        if run.phases.iter().filter(|phase| phase.latency_us.is_some()).count() == 1 {
            latency.push(series("max", |point| point.max_us));
        }
    }
    let meaning = html! {
        @for phase in run.phases.iter().filter(|phase| phase.latency_us.is_some()) {
            p.meaning { strong { (title(phase)) } " is the time " (phase.latency_note) "." }
        }
    };
    html! {
        (chart("Latency by percentile", &percentiles, QUANTILE, LATENCY, &meaning))
        (chart("Throughput over time", &throughput, TIME, THROUGHPUT, &html! {}))
        (chart("Latency over time", &latency, TIME, LATENCY, &html! {}))
    }
}

/// A chart with its legend; nothing if there is nothing to draw. A line without points keeps no colour.
fn chart(name: &str, all: &[Line], x: Axis, y: Axis, below: &Markup) -> Markup {
    let drawn: Vec<Line> = all.iter().filter(|line| line.points.len() > 1).cloned().collect();
    html! {
        @if let Some(svg) = lines(name, &drawn, x, y) {
            section {
                h2 { (name) }
                (PreEscaped(svg))
                p.legend {
                    @for (number, line) in drawn.iter().enumerate() {
                        span { i class=(format!("c{}", number % COLOURS)) {} (line.name) }
                    }
                }
                (below)
            }
        }
    }
}

fn bar(name: &str, value: &str, share: f64, colour: usize) -> Markup {
    let width = format!("width:{:.1}%", 100.0 * share.clamp(0.0, 1.0));
    html! {
        div.bar {
            span.name { (name) }
            span.track { i class=(format!("c{colour}")) style=(width) {} }
            span.value { (value) }
        }
    }
}

fn shares(shares: &[Share]) -> Markup {
    let most = shares.iter().map(Share::typical).fold(1.0, f64::max);
    html! {
        @if !shares.is_empty() {
            section {
                h2 { "Next to what this machine can do" }
                p.caption { "Measured in turns with the workload, without anything of the engine; of several runs the median ratio, and in brackets from what to what it goes. Throughput: share of the limit, the more the better. Latency: multiple of the floor, the less the better." }
                @for share in shares {
                    @let (ratio, values) = (share.typical(), share.values());
                    @let what = match share.figure { Figure::Throughput => "", Figure::P50 => " p50", Figure::P99 => " p99" };
                    @let name = format!("{}{what} by {}", share.phase.replace('_', " "), share.limit);
                    @if share.figure == Figure::Throughput {
                        (bar(&name, &format!("{:.0}% ({values})", 100.0 * ratio), ratio, 0))
                    } @else {
                        (bar(&name, &format!("{ratio:.2}x ({values})"), ratio / most, 1))
                    }
                }
            }
        }
    }
}

fn stages(run: &Run) -> Markup {
    let most = run.stages.iter().map(|stage| stage.mean_us).fold(1e-9, f64::max);
    html! {
        @if !run.stages.is_empty() {
            section {
                h2 { "Where the time goes in the broker" }
                p.caption { "Mean time in each stage. Stages overlap: a record waits in a flush while the next ones are received." }
                @for stage in &run.stages {
                    @let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), microseconds);
                    (bar(&stage.name.replace('_', " "), &format!("{} (p50 {}, p99 {}, {} times)", microseconds(stage.mean_us), time(stage.p50_us), time(stage.p99_us), stage.count), stage.mean_us / most, 2))
                }
            }
        }
    }
}

fn cost(run: &Run) -> Markup {
    html! {
        @if let Some(cost) = &run.cost {
            section {
                h2 { "What it costs" }
                div.scroll { table {
                    tr { th { "" } th { "CPU s/GB" } th { "CPU s" } th { "system calls/GB" } th { "busiest thread" } }
                    @for (name, side) in [("bench", Some(cost.bench)), ("broker", cost.broker)] {
                        @if let Some(side) = side {
                            tr {
                                td { (name) }
                                td.number { (format!("{:.2}", side.cpu_seconds_per_gb)) }
                                td.number { (format!("{:.2}", side.cpu_seconds)) }
                                td.number { (side.system_calls_per_gb.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.0}"))) }
                                td.number { (format!("{:.0}%", 100.0 * side.busiest_thread)) }
                            }
                        }
                    }
                } }
                @if cost.bench_is_bottleneck { p.badge.bad { "The bench itself is the limit here: " (cost.saturated.join(", ")) } }
                @else if !cost.saturated.is_empty() { p.caption { "Limited by " (cost.saturated.join(", ")) "." } }
                @for note in &cost.notes { p.caption { (note) "." } }
            }
        }
    }
}

fn runs(report: &Report) -> Markup {
    html! {
        @if report.runs.len() > 1 {
            section {
                h2 { "Runs" }
                p.caption { "The charts show the median run." }
                div.scroll { table {
                    tr { th { "run" } th.text { "part" } th { "MB/s" } th { "p50" } th { "p99" } th { "p99.9" } th { "max" } th { "first share" } }
                    @for (number, run) in report.runs.iter().enumerate() {
                        @let phase = run.main();
                        tr {
                            td { (number + 1) } td { (title(phase)) }
                            td.number { (format!("{:.1}", phase.bytes_per_s / 1e6)) }
                            @for us in times(phase) { td.number { (us) } }
                            td.number { (run.shares.first().map_or_else(|| "-".to_owned(), |share| format!("{:.2}", share.ratio))) }
                        }
                    }
                } }
            }
        }
    }
}

fn notes(report: &Report) -> Markup {
    let run = &report.median().notes;
    html! {
        @if !(report.notes.is_empty() && run.is_empty()) {
            section { h2 { "Notes" } ul { @for note in run.iter().chain(&report.notes) { li { (note) } } } }
        }
    }
}

fn environment(report: &Report) -> Markup {
    let environment = serde_json::to_value(&report.environment).unwrap_or_default();
    html! { section { h2 { "Machine" } (facts(&environment)) } }
}

fn options(config: &Value) -> Markup {
    html! { section { h2 { "Options" } (facts(config)) } }
}

/// The leaves of an object, each with its path.
fn facts(value: &Value) -> Markup {
    let mut rows = Vec::new();
    flatten("", value, &mut rows);
    html! { table.facts { @for (name, value) in &rows { tr { td { (name) } td { (value) } } } } }
}

fn flatten(name: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let name = if name.is_empty() {
                    key.clone()
                } else {
                    format!("{name} {key}")
                };
                flatten(&name, value, rows);
            }
        }
        Value::Null => rows.push((name.replace('_', " "), "-".to_owned())),
        Value::String(text) => rows.push((name.replace('_', " "), text.clone())),
        other => rows.push((name.replace('_', " "), other.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_steps_of_an_axis_look_the_same_however_short_or_slow_the_run_was() {
        for (seconds, bytes_per_s) in [(0.3, 700.0), (2.4, 12e3), (7.0, 1e6), (60.0, 9e6), (5_000.0, 3e9)] {
            let line = Line {
                name: String::new(),
                points: vec![(0.0, 0.0), (seconds, bytes_per_s)],
            };
            let svg = lines("", &[line], TIME, THROUGHPUT).unwrap();
            let labels = svg.split(r#"class="tick""#).skip(1);
            let labels: Vec<_> = labels.map(|rest| rest.split(['>', '<']).nth(1).unwrap()).collect();
            let different: BTreeSet<_> = labels.iter().collect();
            assert!(labels.len() > 6 && different.len() == labels.len(), "{labels:?}");
        }
    }
}
