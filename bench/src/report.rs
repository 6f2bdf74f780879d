//! Results: as a table for people, as one JSON object for programs. The same figures in both.
//!
//! Rates are computed once, from what was counted. A figure that there is not is null (a dash in the table), with the
//! reason beside it; none is made up.

use std::fmt::Write as _;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::environment::Environment;
use crate::workload::Damage;

/// One part of a run: everything that was produced, or consumed.
#[derive(Debug, Clone, Serialize)]
pub struct Phase {
    /// `produce` or `consume`.
    pub workload: &'static str,
    /// Acknowledged, or received.
    pub records: u64,
    /// Of their values.
    pub bytes: u64,
    /// From the first record to the last one's acknowledgement or arrival.
    pub seconds: f64,
    /// Of values.
    pub bytes_per_s: f64,
    /// Likewise.
    pub records_per_s: f64,
    /// In microseconds.
    pub latency_us: Option<Latency>,
    /// Why there is none, or what it is.
    pub latency_note: String,
    /// If it was verified.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// Percentiles, in microseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of all are below.
    pub p50: f64,
    /// 90 in 100.
    pub p90: f64,
    /// 99 in 100.
    pub p99: f64,
    /// 999 in 1,000.
    pub p999: f64,
    /// 9,999 in 10,000.
    pub p9999: f64,
    /// The longest.
    pub max: f64,
    /// How many were measured.
    pub samples: u64,
}

/// The counts of damage; all null where nothing was verified.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Verdict {
    lost: Option<u64>,
    duplicated: Option<u64>,
    reordered: Option<u64>,
    corrupt: Option<u64>,
}

impl Verdict {
    /// Whether it was verified, and found wanting.
    pub fn is_damaged(&self) -> bool {
        [self.lost, self.duplicated, self.reordered, self.corrupt]
            .iter()
            .any(|count| count.is_some_and(|n| n > 0))
    }
}

impl From<Damage> for Verdict {
    fn from(damage: Damage) -> Self {
        Self {
            lost: Some(damage.lost),
            duplicated: Some(damage.duplicated),
            reordered: Some(damage.reordered),
            corrupt: Some(damage.corrupt),
        }
    }
}

impl Phase {
    /// So many records, with values of so many bytes, in so much time.
    pub fn new(workload: &'static str, records: u64, bytes: u64, elapsed: Duration) -> Self {
        let seconds = elapsed.as_secs_f64();
        // Nothing was done in no time at all: a rate of 0, which JSON can say.
        let rate = |count: u64| if count == 0 { 0.0 } else { count as f64 / seconds };
        Self {
            workload,
            records,
            bytes,
            seconds,
            bytes_per_s: rate(bytes),
            records_per_s: rate(records),
            latency_us: None,
            latency_note: String::new(),
            verdict: Verdict::default(),
        }
    }

    /// With what was measured, in nanoseconds.
    pub fn with_latency(mut self, nanoseconds: &Histogram<u64>, note: impl Into<String>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        self.latency_us = (!nanoseconds.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            p9999: at(0.9999),
            max: nanoseconds.max() as f64 / 1e3,
            samples: nanoseconds.len(),
        });
        self.latency_note = note.into();
        self
    }

    /// With the reason why there is no latency.
    pub fn without_latency(mut self, reason: impl Into<String>) -> Self {
        self.latency_note = reason.into();
        self
    }

    /// With what the verification found.
    pub fn verified(mut self, damage: Damage) -> Self {
        self.verdict = damage.into();
        self
    }
}

/// What was measured.
#[derive(Debug, Serialize)]
#[serde(untagged)]
#[expect(clippy::large_enum_variant, reason = "there is one of it in a run")]
pub enum Outcome {
    /// One command, one phase.
    One(Phase),
    /// Both, one after the other.
    Quick {
        /// `quick`.
        workload: &'static str,
        /// The first.
        produce: Phase,
        /// The second, verified.
        consume: Phase,
        /// That of the second.
        #[serde(flatten)]
        verdict: Verdict,
    },
}

impl Outcome {
    /// Of `quick`.
    pub fn quick(produce: Phase, consume: Phase) -> Self {
        Self::Quick {
            workload: "quick",
            verdict: consume.verdict,
            produce,
            consume,
        }
    }

    fn phases(&self) -> Vec<&Phase> {
        match self {
            Self::One(phase) => vec![phase],
            Self::Quick { produce, consume, .. } => vec![produce, consume],
        }
    }
}

/// The memory of this process.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Memory {
    /// The most that was resident.
    pub peak_rss_bytes: Option<u64>,
    /// What the broker (if it is in this process), the client and the payload may take by their configuration.
    pub memory_budget_bytes: u64,
}

/// Everything there is to say of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What was measured.
    #[serde(flatten)]
    pub outcome: Outcome,
    /// The memory it took.
    #[serde(flatten)]
    pub memory: Memory,
    /// The options of the run, with defaults filled in.
    pub config: serde_json::Value,
    /// Where it ran.
    pub environment: Environment,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether a record was lost, duplicated, reordered or altered.
    pub fn is_damaged(&self) -> bool {
        self.outcome.phases().iter().any(|phase| phase.verdict.is_damaged())
    }

    /// One line.
    pub fn json(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    /// Several lines, the last of them ended.
    pub fn text(&self) -> String {
        let mut text = format!("{}\n", self.table());
        for phase in self.outcome.phases() {
            let Verdict {
                lost: Some(lost),
                duplicated: Some(duplicated),
                reordered: Some(reordered),
                corrupt: Some(corrupt),
            } = phase.verdict
            else {
                continue;
            };
            let verdict = if phase.verdict.is_damaged() {
                "DAMAGED"
            } else {
                "verified"
            };
            line(
                &mut text,
                verdict,
                &format!(
                    "{} records: {lost} lost, {duplicated} duplicated, {reordered} reordered, {corrupt} corrupt",
                    phase.records
                ),
            );
        }
        let mebibytes = |bytes: u64| format!("{} MiB", bytes >> 20);
        let peak = self
            .memory
            .peak_rss_bytes
            .map_or_else(|| "unknown".to_owned(), mebibytes);
        let budget = mebibytes(self.memory.memory_budget_bytes);
        line(
            &mut text,
            "memory",
            &format!("peak RSS {peak}, configured budgets {budget}"),
        );
        line(&mut text, "machine", &self.machine());
        for note in &self.notes {
            line(&mut text, "note", note);
        }
        text
    }

    fn machine(&self) -> String {
        let Environment {
            kernel,
            cpus,
            cpu_model,
            filesystem,
            ..
        } = &self.environment;
        let model = cpu_model.as_deref().unwrap_or("CPU");
        let mut text = format!("Linux {kernel}, {cpus} x {model}");
        if let Some(filesystem) = filesystem {
            text = format!("{text}, data on {filesystem}");
        }
        text
    }

    fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_content_arrangement(ContentArrangement::Disabled);
        table.set_header([
            "phase",
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
        for phase in self.outcome.phases() {
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
        table
    }
}

fn line(text: &mut String, title: &str, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{title:<9} {content}");
}

/// Three digits or more, in the unit that suits.
fn microseconds(us: f64) -> String {
    match us {
        us if us < 1e3 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}
