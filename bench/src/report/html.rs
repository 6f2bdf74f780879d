//! The report as one page that needs no network: first whether it can be trusted and what bound it, then figures, charts, where the
//! time went, machine and options.

pub mod charts;
mod sections;
mod sweep;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Report, summary};
use crate::failover;
use sections::{cost, environment, notes, options, runs, shares, stages, tiles};
pub use sweep::page as sweep;

const STYLE: &str = include_str!("html/page.css");
const SCRIPT: &str = include_str!("html/page.js");

/// The page of one command.
pub fn page(report: &Report) -> String {
    let run = report.median();
    let content = html! {
        (head(report.workload, report))
        (answer(report))
        (tiles(run))
        @if let Some(failover) = &run.failover { (failover::section(failover)) }
        (charts::curves(run))
        (shares(&report.shares()))
        (stages(run))
        (cost(run))
        (runs(report))
        (notes(report))
        (environment(report))
        (options(&report.config))
    };
    document(report.workload, &report.origin.date, &content)
}

fn document(title: &str, date: &str, content: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " " (date) " - headwater-bench" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                main { (content) }
                script { (PreEscaped(SCRIPT)) }
            }
        }
    };
    page.into_string()
}

/// What was run, and when.
fn head(title: &str, report: &Report) -> Markup {
    let environment = &report.environment;
    let model = environment.cpu_model.as_deref().unwrap_or("CPU");
    let date = report.origin.date.replace('T', " ").replace('Z', " UTC");
    html! {
        header {
            p.brand { "headwater-bench " (environment.version) @if let Some(commit) = environment.commit { " (" (commit) ")" } ", " time datetime=(report.origin.date) { (date) } }
            h1 { (title) }
            code.command { (report.origin.command) }
            p.brand { "Linux " (environment.kernel) ", " (environment.cpus) " x " (model)
                @if let Some(filesystem) = &environment.filesystem { ", " (filesystem.kind) " on " (filesystem.device) } }
        }
    }
}

/// Whether records are as they were sent, whether figures can be trusted, and what bound them.
fn answer(report: &Report) -> Markup {
    let run = report.median();
    let summary = summary::of(report);
    let found = run.phases.iter().filter_map(|phase| {
        let (verdict, records) = report.verdict(phase.workload);
        Some((charts::title(phase.workload), verdict.text(records)?))
    });
    let unverified = run.phases.iter().filter_map(|phase| {
        let reason = phase.unverified.as_ref()?;
        Some((charts::title(phase.workload), format!("nothing verified: {reason}")))
    });
    let is_limited = run.cost.as_ref().is_some_and(|cost| cost.bench_is_bottleneck);
    let bounds = run.bounds();
    html! {
        section.answer {
            (fact("Verdict", &html! {
                (verdict(report))
                @for (part, text) in found.chain(unverified) { p.sub { (part) ": " (text) } }
            }))
            @if !bounds.is_empty() {
                (fact("Bottleneck", &html! {
                    @if is_limited { p { span.badge.warn { "the bench itself" } } }
                    @for bound in &bounds { p { (bound.sentence()) "." } }
                }))
            }
            @if let Some(replication) = &run.replication { (fact("Replicas", &html! { p { (replication) "." } })) }
            (cautions(&report.cautions()))
            @if let Some([shares, _, next]) = &summary {
                (fact("Share", &html! { p { (shares) } }))
                (fact("Next", &html! { p { (next) } }))
            }
        }
    }
}

/// What the page begins with, each with its name beside it.
fn fact(name: &str, content: &Markup) -> Markup {
    html! { div.fact { h3 { (name) } div { (content) } } }
}

/// Why figures cannot be trusted; nothing if they can.
fn cautions(cautions: &[String]) -> Markup {
    html! {
        @if !cautions.is_empty() {
            (fact("Caution", &html! { @for caution in cautions { p.caution { (summary::upper(caution)) "." } } }))
        }
    }
}

fn verdict(report: &Report) -> Markup {
    let run = report.median();
    let of = |part: &str| report.verdict(part);
    let is_verified = run.phases.iter().any(|phase| of(phase.workload).0.verified.is_some());
    let is_whole = run.phases.iter().all(|phase| {
        let (verdict, records) = of(phase.workload);
        phase.unverified.is_none() && verdict.verified.is_none_or(|verified| verified >= records)
    });
    html! {
        @if report.is_damaged() {
            span.badge.bad { "records damaged" }
        } @else if is_verified && is_whole {
            span.badge.good { "every record verified" }
        } @else if is_verified {
            span.badge { "verified in part" }
        } @else {
            span.badge { "not verified" }
        }
    }
}
