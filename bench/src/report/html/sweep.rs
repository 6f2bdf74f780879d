//! The page of a sweep: a bar and a curve for each point, in the same colour.

use maud::{Markup, html};

use super::charts::{LATENCY, QUANTILE, bar, chart};
use super::sections::{environment, options, times};
use super::{cautions, document, fact, head};
use crate::report::Report;
use crate::report::chart::Line;
use crate::report::table::{self, microseconds, rate};
use crate::run::sweep::{Point, Sweep};

/// Colours that the page's style has for points; those beyond are told apart by their bars alone.
const COLOURS: usize = 8;

/// The page.
pub fn page(sweep: &Sweep) -> String {
    let Some((_, first)) = sweep.cells.first() else {
        return document("sweep", "", &html! {});
    };
    let is_paced = first.median().is_paced();
    let doubted = sweep.cells.iter().flat_map(|(point, report)| {
        let cautions = report.cautions().into_iter();
        cautions.map(move |caution| format!("{}: {caution}", name(point)))
    });
    let doubted: Vec<_> = doubted.collect();
    let content = html! {
        (head("sweep", first))
        section.answer {
            (fact("Verdict", &html! {
                @if sweep.is_damaged() { span.badge.bad { "records damaged" } }
                @else { span.badge.good { "every record verified" } }
            }))
            (cautions(&doubted))
        }
        section {
            h2 { @if is_paced { "Latency, p50" } @else { "Throughput" } }
            (bars(sweep, is_paced))
        }
        (curves(sweep))
        section { h2 { "All points" } (points(sweep)) }
        (environment(first))
        (options(&sweep.config))
    };
    document("sweep", &first.origin.date, &content)
}

fn name(point: &Point) -> String {
    let names: Vec<_> = point.iter().map(|(axis, value)| format!("{axis}={value}")).collect();
    names.join(" ")
}

fn look(number: usize) -> String {
    if number < COLOURS {
        format!("s{number}")
    } else {
        "other".to_owned()
    }
}

/// What each point is about.
fn bars(sweep: &Sweep, is_paced: bool) -> Markup {
    let figure = |report: &Report| {
        let main = report.median().main();
        match main.latency_us {
            Some(latency) if is_paced => (latency.p50, microseconds(latency.p50)),
            _ => (main.bytes_per_s, rate(main.bytes_per_s)),
        }
    };
    let figures = sweep.cells.iter().map(|(point, report)| (name(point), figure(report)));
    let figures: Vec<_> = figures.collect();
    let top = figures.iter().map(|(_, (value, _))| *value).fold(1e-9, f64::max);
    html! {
        @for (number, (name, (value, text))) in figures.iter().enumerate() {
            (bar(name, text, value / top, &look(number), ""))
        }
    }
}

fn curves(sweep: &Sweep) -> Markup {
    let line = |(number, (point, report)): (usize, &(Point, Report))| {
        let percentiles = report.median().main().percentiles.iter();
        Line {
            name: name(point),
            look: look(number),
            points: percentiles.map(|point| (point.quantile, point.us)).collect(),
        }
    };
    let lines: Vec<_> = sweep.cells.iter().enumerate().take(COLOURS).map(line).collect();
    let caption = if sweep.cells.len() > COLOURS {
        format!("The first {COLOURS} of {} points.", sweep.cells.len())
    } else {
        String::new()
    };
    chart("Latency by percentile", &caption, &lines, QUANTILE, LATENCY, &html! {})
}

fn points(sweep: &Sweep) -> Markup {
    let axes = sweep.cells.first().into_iter().flat_map(|(point, _)| point);
    let by_first = sweep.by_first();
    html! {
        div.scroll { table {
            tr { @for (axis, _) in axes { th.text { (axis.to_string()) } } th { "records/s" } th { "MB/s" } th { "p50" } th { "p99" } th { "p99.9" } th { "max" }
                @for (name, _) in &by_first { th { (name) " by first" } } }
            @for (number, (point, report)) in sweep.cells.iter().enumerate() {
                @let phase = report.median().main();
                tr {
                    @for (_, value) in point { td { (value) } }
                    td.number { (format!("{:.0}", phase.records_per_s)) }
                    td.number { (format!("{:.1}", phase.bytes_per_s / 1e6)) }
                    @for us in times(phase) { td.number { (us) } }
                    @for (_, ratios) in &by_first { td.number { (table::ratio(ratios[number])) } }
                }
            }
        } }
    }
}
