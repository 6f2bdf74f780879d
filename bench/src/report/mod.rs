//! Results: as a table for people, as one JSON object for programs, as a page with charts. The same figures in all.

pub mod bound;
pub mod chart;
pub mod compare;
pub mod html;
pub mod origin;
pub mod phase;
pub mod share;
pub mod summary;
pub mod table;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::cost::{Cost, Usage};
use crate::environment::Environment;
use crate::failover::kill::Failover;
use crate::limits::Limits;
use crate::limits::beside::Beside;
use crate::stages::Stage;
use crate::target::Replication;
use bound::Bound;
use origin::Origin;
pub use phase::{Phase, Verdict};
use share::Share;

/// What one run of a workload gave.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The parts; the first is the one that the workload is about.
    #[serde(skip)]
    pub phases: Vec<Phase>,
    /// How the topic was replicated, if it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replication: Option<Replication>,
    /// What came of brokers that were killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failover: Option<Failover>,
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
    /// Who had the CPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Where the time went in the broker.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
    /// Bytes that consumers got, by where the broker had them.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub fetch_bytes: BTreeMap<String, u64>,
    /// Why the figures cannot be trusted.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cautions: Vec<String>,
    /// What the reader should know of this run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Run {
    /// A run of these parts, of which nothing else is known yet.
    pub fn of(phases: Vec<Phase>) -> Self {
        Self {
            phases,
            replication: None,
            failover: None,
            shares: Vec::new(),
            limits: None,
            beside: None,
            cost: None,
            usage: None,
            stages: Vec::new(),
            fetch_bytes: BTreeMap::new(),
            cautions: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Whether most of what consumers got came from the disk.
    pub fn is_from_disk(&self) -> bool {
        let bytes = |paths: &[&str]| -> u64 { paths.iter().filter_map(|&path| self.fetch_bytes.get(path)).sum() };
        2 * bytes(&["direct", "buffered"]) > self.fetch_bytes.values().sum()
    }

    /// What bound it: its main part, and each other that was watched for itself.
    pub fn bounds(&self) -> Vec<Bound> {
        bound::all(self)
    }

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
        json.insert(
            "bounds".to_owned(),
            serde_json::to_value(self.bounds()).unwrap_or_default(),
        );
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
    /// When it was run, and how it was called.
    #[serde(flatten)]
    pub origin: Origin,
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

    /// Whether there were records that others have written, which cannot be verified.
    pub fn is_foreign(&self) -> bool {
        self.runs.iter().any(|run| run.verdict().is_foreign())
    }

    /// What was found in a part, in all runs together; and how many records it had in them.
    pub fn verdict(&self, part: &str) -> (Verdict, u64) {
        let phases = self.runs.iter().flat_map(|run| &run.phases);
        let phases = phases.filter(|phase| phase.workload == part);
        phases.fold((Verdict::default(), 0), |(verdict, records), phase| {
            (verdict.and(phase.verdict), records + phase.records)
        })
    }

    /// Why figures cannot be trusted: of each run that there is a reason for.
    pub fn cautions(&self) -> Vec<String> {
        let several = self.runs.len() > 1;
        let runs = self.runs.iter().enumerate();
        let cautions = runs.flat_map(|(number, run)| {
            run.cautions.iter().map(move |caution| {
                let run = if several {
                    format!("run {}: ", number + 1)
                } else {
                    String::new()
                };
                format!("{run}{caution}")
            })
        });
        cautions.collect()
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
        if let Some(summary) = summary::of(self) {
            json.insert("summary".into(), summary.to_vec().into());
        }
        Value::Object(json)
    }
}
