//! What kept a part of a run from going faster: the bench, the broker, the CPUs, the disk, the network, or the schedule.
//!
//! Decided by what was measured next to it, the most certain first. What was not measured is not named.

use serde::Serialize;

use super::table::{microseconds, rate};
use super::{Phase, Run};
use crate::cost::{SATURATED, Usage};
use crate::limits::Limits;

/// A limit that was measured counts as reached from this share on.
const REACHED: f64 = 0.75;

/// With this share of the time one flush or more was under way, flushes are what everything waits for.
const FLUSHING: f64 = 0.6;

/// What it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binding {
    /// The bench itself.
    Bench,
    /// A core of the broker.
    Broker,
    /// All CPUs were at work.
    Cpus,
    /// Bandwidth of the disk.
    Disk,
    /// Bandwidth of loopback.
    Loopback,
    /// The disk's flushes.
    Flushes,
    /// The schedule that was asked for.
    Schedule,
    /// Nothing that was looked at.
    Nothing,
}

/// What bound a part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bound {
    /// The part.
    pub phase: &'static str,
    /// What it was.
    pub by: Binding,
    /// In words, to follow "bound by".
    pub text: String,
}

impl Bound {
    /// A whole sentence without its point.
    pub fn sentence(&self) -> String {
        let phase = match self.phase {
            "produce" => "Producing".to_owned(),
            "consume" => "Consuming".to_owned(),
            other => format!("The part {other}"),
        };
        match self.by {
            Binding::Nothing => format!("{phase}: {}", self.text),
            _ => format!("{phase} was bound by {}", self.text),
        }
    }
}

/// What bound a part of a run; `None` if nobody watched.
pub fn of(run: &Run, phase: &Phase) -> Option<Bound> {
    let usage = phase.usage.as_ref().or(run.usage.as_ref())?;
    let is_paced = run.is_paced() && phase.latency_us.is_some();
    let (by, text) = if is_paced {
        scheduled(run, phase)
    } else {
        threads(usage)
            .or_else(|| bandwidth(phase, run.limits.as_ref()))
            .or_else(|| flushes(run, phase))
            .unwrap_or_else(|| nothing(usage, phase))
    };
    let phase = phase.workload;
    Some(Bound { phase, by, text })
}

/// The first part, and each other that was watched for itself.
pub fn all(run: &Run) -> Vec<Bound> {
    let watched = |(place, phase): &(usize, &Phase)| *place == 0 || phase.usage.is_some();
    let phases = run.phases.iter().enumerate().filter(watched);
    phases.filter_map(|(_, phase)| of(run, phase)).collect()
}

fn scheduled(run: &Run, phase: &Phase) -> (Binding, String) {
    let mut text = format!("its schedule ({:.0} records/s)", phase.records_per_s);
    let flush = run.stages.iter().find(|stage| stage.name == "flush");
    if let (Some(latency), Some(flush)) = (phase.latency_us, flush.and_then(|stage| stage.p50_us)) {
        let (flush, p50) = (microseconds(flush), microseconds(latency.p50));
        text = format!("{text}; half of the broker's flushes took {flush} and less, half of the records {p50}");
    }
    (Binding::Schedule, text)
}

fn threads(usage: &Usage) -> Option<(Binding, String)> {
    let busiest = |busiest: &Option<crate::cost::Busiest>| busiest.clone().filter(|busiest| busiest.share >= SATURATED);
    let percent = |share: f64| (100.0 * share).round();
    if let Some(busiest) = busiest(&usage.bench) {
        let text = format!(
            "the bench itself, whose thread {} was on a CPU for {}% of the time: the broker may be faster",
            busiest.thread,
            percent(busiest.share)
        );
        return Some((Binding::Bench, text));
    }
    if let Some(busiest) = busiest(&usage.broker) {
        let text = format!(
            "one core of the broker, whose thread {} was on a CPU for {}% of the time",
            busiest.thread,
            percent(busiest.share)
        );
        return Some((Binding::Broker, text));
    }
    (usage.busy >= SATURATED * usage.cpus).then(|| {
        let others = if usage.others >= 0.05 {
            format!(", {:.1} of them for other programs", usage.others)
        } else {
            String::new()
        };
        let text = format!(
            "the CPUs, of which {:.1} of {:.0} were at work{others}",
            usage.busy, usage.cpus
        );
        (Binding::Cpus, text)
    })
}

/// The limits that a part's bytes go through, by its name.
fn bandwidth(phase: &Phase, limits: Option<&Limits>) -> Option<(Binding, String)> {
    let limits = limits?;
    let loopback = (
        Binding::Loopback,
        "loopback, which carries",
        limits.network.loopback_bytes_per_s,
    );
    let write = (Binding::Disk, "the disk, which writes", limits.disk.write_bytes_per_s);
    let read = (Binding::Disk, "the disk, which reads", limits.disk.read_bytes_per_s);
    let through = match phase.workload {
        "produce" | "alone" => vec![write, loopback],
        "consume" => vec![loopback],
        "catch_up" => vec![read, loopback],
        _ => return None,
    };
    let shares = through.into_iter().filter_map(|(by, words, limit)| {
        let limit = limit?;
        Some((by, words, limit, phase.bytes_per_s / limit))
    });
    let (by, words, limit, share) = shares.max_by(|a, b| a.3.total_cmp(&b.3))?;
    (share >= REACHED).then(|| {
        let share = (100.0 * share).round();
        (by, format!("{words} {}; this is {share}% of it", rate(limit)))
    })
}

fn flushes(run: &Run, phase: &Phase) -> Option<(Binding, String)> {
    let is_producing = matches!(phase.workload, "produce" | "alone" | "end_to_end");
    let flush = run.stages.iter().find(|stage| stage.name == "flush" && is_producing)?;
    let share = flush.total_s / phase.seconds.max(1e-9);
    (share >= FLUSHING).then(|| {
        let text = format!(
            "flushes of the disk, {} each on average: one was under way {}",
            microseconds(flush.mean_us),
            if share < 1.0 {
                format!("for {:.0}% of the time", 100.0 * share)
            } else {
                "all the time".to_owned()
            }
        );
        (Binding::Flushes, text)
    })
}

fn nothing(usage: &Usage, phase: &Phase) -> (Binding, String) {
    let busiest = [("bench", &usage.bench), ("broker", &usage.broker)].map(|(side, busiest)| {
        let busiest = busiest.as_ref()?;
        Some(format!(
            "{side} thread {} {:.0}%",
            busiest.thread,
            100.0 * busiest.share
        ))
    });
    let busiest: Vec<_> = busiest.into_iter().flatten().collect();
    let more = match phase.workload {
        "consume" => "more --consumers or --partitions",
        _ => "more --producers, --partitions or --in-flight-bytes",
    };
    let text = format!(
        "nothing was at its limit ({}; {:.1} of {:.0} CPUs at work): {more} may give more",
        busiest.join(", "),
        usage.busy,
        usage.cpus
    );
    (Binding::Nothing, text)
}
