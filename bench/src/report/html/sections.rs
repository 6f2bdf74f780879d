//! The sections of the page that are no charts: figures next to limits, stages, costs, runs, machine, options.

use maud::{Markup, html};
use serde_json::Value;

use super::charts::{bar, look, title};
use crate::report::share::{Figure, Share};
use crate::report::table::{microseconds, rate, three};
use crate::report::{Phase, Report, Run};
use crate::stages;

/// The figures of each part.
pub fn tiles(run: &Run) -> Markup {
    let is_paced = run.is_paced();
    html! {
        section.tiles {
            @for phase in &run.phases {
                div class=(format!("tile {}", look(phase.workload))) {
                    h3 { (title(phase.workload)) }
                    // On a schedule the throughput is what the schedule says.
                    @match phase.latency_us.filter(|_| is_paced) {
                        Some(latency) => { p.big { (microseconds(latency.p50)) span { " median" } } }
                        None => { p.big { (three(phase.bytes_per_s / 1e6)) span { " MB/s" } } }
                    }
                    p.sub {
                        (grouped(phase.records_per_s.round() as u64)) " records/s, "
                        @if is_paced { (rate(phase.bytes_per_s)) ", " }
                        (grouped(phase.records)) " records in " (format!("{:.1}", phase.seconds)) " s"
                    }
                    @if let Some(latency) = phase.latency_us {
                        dl {
                            @for (name, us) in [("p50", latency.p50), ("p99", latency.p99), ("p99.9", latency.p999), ("max", latency.max)] {
                                div { dt { (name) } dd { (microseconds(us)) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The results next to what the machine can do.
pub fn shares(shares: &[Share]) -> Markup {
    let most = shares.iter().map(Share::typical).fold(1.0, f64::max);
    html! {
        @if !shares.is_empty() {
            section {
                h2 { "Next to what this machine can do" }
                p.caption { "Measured in turns with the workload, without anything of the engine; of several runs the median ratio, and in brackets from what to what it goes. Throughput: share of the limit, the more the better. Latency: multiple of the floor, the less the better." }
                @for share in shares {
                    @let (ratio, values) = (share.typical(), share.values());
                    @let what = match share.figure { Figure::Throughput => "", Figure::P50 => " p50", Figure::P99 => " p99" };
                    @let name = format!("{}{what} by {}", title(share.phase), share.limit);
                    @if share.figure == Figure::Throughput {
                        (bar(&name, &format!("{:.0}% ({values})", 100.0 * ratio), ratio, &look(share.phase), ""))
                    } @else {
                        (bar(&name, &format!("{}x ({values})", three(ratio)), ratio / most, &look(share.phase), ""))
                    }
                }
            }
        }
    }
}

/// Where the time goes, and what each stage is.
pub fn stages(run: &Run) -> Markup {
    let most = run.stages.iter().map(|stage| stage.mean_us).fold(1e-9, f64::max);
    html! {
        @if !run.stages.is_empty() {
            section.long {
                h2 { "Where the time goes in the broker" }
                p.caption { "Mean time in each stage, in the order of a record's way. Stages overlap: a record waits in a flush while the next ones are received, so they do not add up. Between \"acknowledge\" and the producer's latency are the client, both sockets, and waiting for a CPU." }
                @for stage in &run.stages {
                    @let time = |us: Option<f64>| us.map_or_else(|| "-".to_owned(), microseconds);
                    @let value = format!("{} (p50 {}, p99 {}, {} times)", microseconds(stage.mean_us), time(stage.p50_us), time(stage.p99_us), grouped(stage.count));
                    @let look = match stage.name.as_str() {
                        "tick" => "other",
                        name if stages::is_of_consumers(name) => "consume",
                        _ => "produce",
                    };
                    (bar(&stage.name.replace('_', " "), &value, stage.mean_us / most, look, stages::meaning(&stage.name)))
                }
            }
        }
    }
}

/// CPU time and system calls.
pub fn cost(run: &Run) -> Markup {
    html! {
        @if let Some(cost) = &run.cost {
            section {
                h2 { "What it costs" }
                div.scroll { table {
                    tr { th { "" } th { "CPU s/GB" } th { "CPU s" } th { "calls/GB" } th { "busiest thread" } }
                    @for (name, side) in [("bench", Some(cost.bench)), ("broker", cost.broker)] {
                        @if let Some(side) = side {
                            tr {
                                td { (name) }
                                td.number { (three(side.cpu_seconds_per_gb)) }
                                td.number { (three(side.cpu_seconds)) }
                                td.number { (side.system_calls_per_gb.map_or_else(|| "-".to_owned(), |calls| format!("{calls:.0}"))) }
                                td.number { (format!("{:.0}%", 100.0 * side.busiest_thread)) }
                            }
                        }
                    }
                } }
                @if let Some(usage) = &run.usage {
                    p.meaning { (format!("{:.1} of {:.0} CPUs were at work, {:.1} of them for other programs; threads of bench and broker waited for a CPU for {:.2} s in each second.", usage.busy, usage.cpus, usage.others, usage.waiting)) }
                }
                @for note in &cost.notes { p.meaning { (note) "." } }
            }
        }
    }
}

/// Each run of several.
pub fn runs(report: &Report) -> Markup {
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
                            td { (number + 1) } td { (title(phase.workload)) }
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

/// A count with its thousands apart.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// p50, p99, p99.9 and the longest.
pub fn times(phase: &Phase) -> [String; 4] {
    let latency = phase
        .latency_us
        .map_or([None; 4], |l| [l.p50, l.p99, l.p999, l.max].map(Some));
    latency.map(|us| us.map_or_else(|| "-".to_owned(), microseconds))
}

/// What the reader should know besides.
pub fn notes(report: &Report) -> Markup {
    let run = &report.median().notes;
    html! {
        @if !(report.notes.is_empty() && run.is_empty()) {
            section { h2 { "Notes" } ul { @for note in run.iter().chain(&report.notes) { li { (note) } } } }
        }
    }
}

/// The machine.
pub fn environment(report: &Report) -> Markup {
    let environment = serde_json::to_value(&report.environment).unwrap_or_default();
    html! { section.long { h2 { "Machine" } (facts(&environment)) } }
}

/// The options.
pub fn options(config: &Value) -> Markup {
    html! { section.long { h2 { "Options" } (facts(config)) } }
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
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        let counts = [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (1_416_448, "1,416,448"),
            (12_345, "12,345"),
        ];
        for (count, text) in counts {
            assert_eq!(grouped(count), text);
        }
    }
}
