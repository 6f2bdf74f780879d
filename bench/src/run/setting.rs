//! What a workload runs in: the options, the system under test, and what watches a measurement from outside.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::host::Host;
use super::until_interrupted;
use crate::cli::RunArgs;
use crate::cost::{Cost, Watch};
use crate::error::BenchError;
use crate::load::consume::{self, Timed, Verify};
use crate::load::hlog::HistogramLog;
use crate::load::meter::{Meter, Sampler};
use crate::load::pace::Pace;
use crate::load::produce;
use crate::payload::Payload;
use crate::progress::Goal;
use crate::report::{Phase, Run};
use crate::stages::{self, Scrape};
use crate::target::{Position, Target};
use crate::workload::Expectation;

/// What a workload runs in.
pub struct Setting<'a> {
    /// Of the clients.
    pub runtime: &'a Runtime,
    /// The system under test.
    pub host: &'a mut Host,
    /// The options.
    pub run: &'a RunArgs,
    /// The values of records.
    pub payload: Arc<Payload>,
    /// Of this run.
    pub topic: String,
    /// Whether no run follows.
    pub is_last: bool,
    /// Where latencies go each second.
    pub log: Option<Arc<HistogramLog>>,
}

impl Setting<'_> {
    /// Removes the topic, unless somebody wants it.
    pub fn clean_up<T: Target>(&self) -> Result<(), BenchError> {
        let is_ours = self.run.place.topic.is_none();
        // What a broker in this process has goes with its directory.
        let goes_anyway = self.is_last && matches!(self.host, Host::Embedded(_));
        if !is_ours || goes_anyway || self.run.place.broker.keep {
            return Ok(());
        }
        until_interrupted(self.runtime, async {
            T::connect(&self.host.address()).await?.delete_topic(&self.topic).await
        })
    }

    /// What the options say is produced.
    pub fn plan(&self, stamp_each: bool) -> Result<produce::Plan, BenchError> {
        Ok(produce::Plan {
            topic: self.topic.clone(),
            load: self.run.load.clone(),
            payload: Arc::clone(&self.payload),
            keys: self.run.values.keys,
            bytes_max: self.host.room()?,
            stamp_each,
        })
    }

    /// Reads these positions, and verifies.
    pub fn reader(&self, from: Vec<Position>, expectation: Expectation, timed: Timed) -> consume::Plan {
        consume::Plan {
            topic: self.topic.clone(),
            from,
            verify: Some(Verify {
                payload: Arc::clone(&self.payload),
                expectation,
            }),
            keys: self.run.values.keys,
            timed,
        }
    }

    /// Begins to watch what a measurement costs.
    pub fn watch(&self) -> Gauge {
        let metrics = self.host.metrics(self.run);
        Gauge {
            before: metrics.as_deref().map(Scrape::fetch),
            metrics,
            watch: Watch::start(self.host.place()),
        }
    }

    /// For a measurement of these meters.
    pub fn sampler(&self, meters: &[&Arc<Meter>]) -> Sampler {
        let expected = self.run.load.duration().unwrap_or(Duration::from_secs(5));
        Sampler::start(
            meters.iter().map(|&meter| Arc::clone(meter)).collect(),
            expected,
            self.log.clone(),
        )
    }

    /// How far there is to go.
    pub fn goal(&self) -> Goal {
        let load = &self.run.load;
        match (load.bytes, load.duration()) {
            (Some(bytes), _) => Goal::Bytes(bytes),
            (None, Some(time)) => Goal::Time(time + load.warm_up()),
            (None, None) => Goal::None,
        }
    }

    /// What the latency of acknowledgements is.
    pub fn produce_note(&self) -> &'static str {
        match self.run.load.pace() {
            Pace::Closed => {
                "from the call that hands a record to the client until the task that waits for its acknowledgement runs; \
                 one record in 61 is measured"
            }
            Pace::Open(_) => {
                "from when a record was due by the schedule until the task that waits for its acknowledgement runs; \
                 every record is measured"
            }
        }
    }

    /// What the latency of consumers at the tail is.
    pub fn tail_note(&self) -> &'static str {
        match self.run.load.pace() {
            Pace::Closed => {
                "from the call that hands a record to the client until a consumer has it; one record in 61 is measured"
            }
            Pace::Open(_) => {
                "from when a record was due by the schedule until a consumer has it; every record is measured"
            }
        }
    }

    /// Which records consumers at the tail time.
    pub fn tail_timed(&self) -> Timed {
        match self.run.load.pace() {
            Pace::Closed => Timed::Sample,
            Pace::Open(_) => Timed::All,
        }
    }

    /// Says so if the schedule was not kept: then the latency only grows, and says how long the run was.
    pub fn schedule_note(&self, phase: &Phase) -> Option<String> {
        let rate = self.run.load.rate?;
        let reached = phase.records_per_s;
        (reached < 0.95 * rate && phase.seconds > 0.5).then(|| {
            format!(
                "{rate} records/s were due and {reached:.0} were done: the latency grows as long as that lasts, and says \
                 little; lower --rate"
            )
        })
    }
}

/// What was seen before a measurement.
#[derive(Debug)]
pub struct Gauge {
    metrics: Option<String>,
    before: Option<Result<Scrape, crate::stages::ScrapeError>>,
    watch: Watch,
}

impl Gauge {
    /// Puts what the measurement cost into the run; so many bytes have gone through.
    pub fn finish(self, done: &mut Run, bytes: u64) {
        let cost: Cost = self.watch.finish(bytes);
        done.cost = Some(cost);
        let (Some(before), Some(metrics)) = (self.before, self.metrics) else {
            return;
        };
        match before.and_then(|before| Ok((before, Scrape::fetch(&metrics)?))) {
            Ok((before, after)) => {
                done.stages = stages::between(&before, &after);
                let paths = stages::fetch_paths(&before, &after);
                let text = |(path, bytes): (&String, &u64)| format!("{path} {} MB", bytes / 1_000_000);
                let paths: Vec<_> = paths.iter().map(text).collect();
                if !paths.is_empty() {
                    done.notes.push(format!("fetches were served by {}", paths.join(", ")));
                }
            }
            Err(error) => done.notes.push(error.to_string()),
        }
    }
}
