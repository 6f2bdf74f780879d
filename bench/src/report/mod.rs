//! Results: as a table for people, as one JSON object for programs, as a page with charts. The same figures in all.

pub mod chart;
pub mod compare;
pub mod html;
pub mod phase;
pub mod share;
pub mod table;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cost::Cost;
use crate::environment::Environment;
use crate::limits::Limits;
use crate::limits::beside::Beside;
use crate::stages::Stage;
pub use phase::{Phase, Verdict};
use share::Share;

/// What one run of a workload gave.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The parts; the first is the one that the workload is about.
    #[serde(skip)]
    pub phases: Vec<Phase>,
    /// Throughput as a share of what the machine can do, latency as a multiple.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shares: Vec<Share>,
    /// What the machine could do before and after this run, on average.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What readers of old data cost a program that does a broker's physical work and nothing else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<Beside>,
    /// What it cost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
    /// Where the time went in the broker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// What the reader should know of this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Run {
    /// The part that the workload is about.
    ///
    /// # Panics
    /// If there is none.
    pub fn main(&self) -> &Phase {
        self.phases.first().expect("every workload has a part")
    }

    /// Whether records were due on a schedule, so that it is about latency.
    pub fn is_paced(&self) -> bool {
        self.phases.iter().any(|phase| phase.behind_schedule_us.is_some())
    }

    /// What was found in all parts.
    pub fn verdict(&self) -> Verdict {
        let verdicts = self.phases.iter().map(|phase| phase.verdict);
        verdicts.fold(Verdict::default(), Verdict::and)
    }

    /// As an object: the figures of the main part, and each part under its name if there are several.
    fn json(&self, with_curves: bool) -> Map<String, Value> {
        let figures = |phase: &Phase| {
            let mut value = object(phase);
            if !with_curves {
                value.remove("percentiles");
                value.remove("series");
            }
            value
        };
        let mut json = figures(self.main());
        if self.phases.len() > 1 {
            // The curves are in the parts.
            json.remove("percentiles");
            json.remove("series");
            for phase in &self.phases {
                json.insert(phase.workload.to_owned(), Value::Object(figures(phase)));
            }
        }
        json.extend(object(&self.verdict()));
        json.extend(object(self));
        json
    }
}

fn object(value: &impl Serialize) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("results are objects with string keys: {other:?}"),
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

/// Everything there is to say of a command.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The command.
    pub workload: &'static str,
    /// At least one.
    #[serde(skip)]
    pub runs: Vec<Run>,
    /// The memory it took.
    #[serde(flatten)]
    pub memory: Memory,
    /// The options of the run, with defaults filled in.
    pub config: Value,
    /// Where it ran.
    pub environment: Environment,
    /// What the reader should know.
    pub notes: Vec<String>,
}

impl Report {
    /// Adds the runs of a later report of the same.
    pub fn append(&mut self, later: Report) {
        self.runs.extend(later.runs);
        self.memory = later.memory;
    }

    /// Whether a record was lost, duplicated, reordered or altered, in any run.
    pub fn is_damaged(&self) -> bool {
        self.runs.iter().any(|run| run.verdict().is_damaged())
    }

    /// The run that stands for all: that with the median result, by latency if there was a schedule, else by throughput.
    ///
    /// # Panics
    /// If there is none.
    pub fn median(&self) -> &Run {
        let key = |run: &&Run| {
            let main = run.main();
            match main.latency_us {
                Some(latency) if run.is_paced() => latency.p50,
                _ => main.bytes_per_s,
            }
        };
        let mut runs: Vec<&Run> = self.runs.iter().collect();
        runs.sort_by(|a, b| key(a).total_cmp(&key(b)));
        runs.get(runs.len() / 2).expect("every command runs at least once")
    }

    /// The median run next to what the machine can do, with the ratios of the other runs.
    pub fn shares(&self) -> Vec<Share> {
        share::over_runs(&self.median().shares, &self.runs)
    }

    /// One object: the run that stands for all, and under `runs` each of them.
    pub fn json(&self) -> Value {
        let mut json = self.median().json(true);
        let mut notes = json
            .remove("notes")
            .and_then(|notes| notes.as_array().cloned())
            .unwrap_or_default();
        json.extend(object(self));
        if let Some(Value::Array(all)) = json.get_mut("notes") {
            all.append(&mut notes);
        }
        // Damage in any run is damage.
        let verdict = self
            .runs
            .iter()
            .map(Run::verdict)
            .fold(Verdict::default(), Verdict::and);
        json.extend(object(&verdict));
        if let Some(shares) = json.get_mut("shares") {
            *shares = serde_json::to_value(self.shares()).unwrap_or_default();
        }
        let runs = self.runs.iter().map(|run| Value::Object(run.json(false)));
        json.insert("runs".into(), runs.collect());
        Value::Object(json)
    }
}
