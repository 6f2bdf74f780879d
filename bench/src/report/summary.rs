//! What `quick` ends with: three lines for somebody who has never seen the figures before.

use serde_json::Value;

use super::bound::Bound;
use super::origin::quoted;
use super::table::three;
use super::{Phase, Report, Run};

/// The highest rate that is proposed: far below what a core takes in, so that queues stay short.
const RATE_MAX: f64 = 10_000.0;

/// Share of the disk and of loopback; what bound it; what to run next for latency. `None` of other commands.
pub fn of(report: &Report) -> Option<[String; 3]> {
    if report.workload != "quick" {
        return None;
    }
    let run = report.median();
    let bounds: Vec<_> = run.bounds().iter().map(Bound::sentence).collect();
    let bound = if bounds.is_empty() {
        "What bound it is not known.".to_owned()
    } else {
        format!("{}.", bounds.join(". "))
    };
    Some([shares(report, run), bound, next(report, run.main())])
}

/// The same with a capital letter.
pub fn upper(sentence: &str) -> String {
    let mut letters = sentence.chars();
    letters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

fn shares(report: &Report, run: &Run) -> String {
    let of = |phase: &Phase, words: &str, limit: Option<f64>| {
        let limit = limit?;
        let share = 100.0 * phase.bytes_per_s / limit;
        Some(format!("{share:.0}% of {words} ({})", short(limit)))
    };
    let Some(limits) = &run.limits else {
        let reason = if report.config["limits"] == "off" {
            "as --limits off says"
        } else {
            "from here"
        };
        return format!(
            "What share of the disk and of loopback this is was not measured {reason}; `headwater-bench limits` measures both."
        );
    };
    let loopback = limits.network.loopback_bytes_per_s;
    let parts = run.phases.iter().filter_map(|phase| {
        let (verb, disk) = match phase.workload {
            "produce" => (
                "produced",
                of(phase, "what this disk writes", limits.disk.write_bytes_per_s),
            ),
            "consume" if run.is_from_disk() => ("consumed", of(phase, "what it reads", limits.disk.read_bytes_per_s)),
            "consume" => ("consumed from memory", None),
            _ => return None,
        };
        let shares: Vec<_> = [disk, of(phase, "loopback", loopback)].into_iter().flatten().collect();
        Some(format!("{verb} {}, {}", short(phase.bytes_per_s), shares.join(" and ")))
    });
    format!("{}.", upper(&parts.collect::<Vec<_>>().join("; ")))
}

/// Three digits of a rate.
fn short(bytes_per_s: f64) -> String {
    if bytes_per_s >= 1e9 {
        format!("{} GB/s", three(bytes_per_s / 1e9))
    } else {
        format!("{} MB/s", three(bytes_per_s / 1e6))
    }
}

/// An open loop, at a rate that leaves the queues empty, with the options that say what is sent and where to.
fn next(report: &Report, produce: &Phase) -> String {
    let tenth = (0.1 * produce.records_per_s).min(RATE_MAX);
    let power = 10_f64.powf(tenth.max(1.0).log10().floor());
    let rate = ((tenth / power).floor() * power).max(1.0);
    let mut command = format!("headwater-bench end-to-end --rate {rate:.0}");
    for (option, key) in [
        ("--server", "server"),
        ("--record-size", "record_size_bytes"),
        ("--payload", "payload"),
        ("--keys", "keys"),
    ] {
        let value = match &report.config[key] {
            Value::String(text) if text != "none" => quoted(text),
            Value::Number(number) if key != "record_size_bytes" || number.as_u64() != Some(1024) => number.to_string(),
            _ => continue,
        };
        command = format!("{command} {option} {value}");
    }
    format!("For latency run next: {command} --seconds 20")
}
