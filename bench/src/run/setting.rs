//! What a workload runs in: the options, the system under test, and what watches a measurement from outside.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::host::Host;
use super::until_interrupted;
use crate::cli::{AcksArg, RunArgs};
use crate::cost::{UsageWatch, Watch};
use crate::error::BenchError;
use crate::load::consume::{self, Timed, Verify};
use crate::load::hlog::HistogramLog;
use crate::load::meter::{Meter, Sampler};
use crate::load::pace::Pace;
use crate::load::produce::{self, Hooks, Produced};
use crate::payload::Payload;
use crate::progress::Goal;
use crate::report::{Phase, Run};
use crate::stages::{self, Scrape};
use crate::target::{Position, Target};
use crate::workload::{Expectation, StreamId};

/// Longest that removing a topic may take when a run is given up.
const GIVE_UP: Duration = Duration::from_secs(3);

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
    /// Who follows it from outside.
    pub hooks: Hooks,
}

impl Setting<'_> {
    /// Removes the topic, unless somebody wants it.
    pub fn clean_up<T: Target>(&self) -> Result<(), BenchError> {
        // What a broker in this process has goes with its directory.
        let goes_anyway = self.is_last && self.host.is_ours();
        if goes_anyway || !self.is_ours() {
            return Ok(());
        }
        until_interrupted(self.runtime, self.remove_topic::<T>())
    }

    /// Removes what was made of a running broker, as far as it can be at once, after a failure or Ctrl-C: which is what is reported.
    pub fn give_up<T: Target>(&self) {
        if !self.host.is_ours() && self.is_ours() {
            let removed = async { tokio::time::timeout(GIVE_UP, self.remove_topic::<T>()).await };
            let _ = self.runtime.block_on(removed);
        }
    }

    fn is_ours(&self) -> bool {
        self.run.place.topic.is_none() && !self.run.place.broker.keep
    }

    async fn remove_topic<T: Target>(&self) -> Result<(), BenchError> {
        T::connect(&self.host.address()).await?.delete_topic(&self.topic).await
    }

    /// How many records of each stream must be there; `None` if that is not known, as no acknowledgements were asked for.
    pub fn all_acknowledged(&self, produced: &Produced) -> Option<HashMap<StreamId, u64>> {
        let is_known = self.run.load.client.acks != AcksArg::None;
        is_known.then(|| produced.acknowledged.clone())
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
            hooks: self.hooks.clone(),
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
                incidents: None,
            }),
            timed,
        }
    }

    /// Whether there may be several replicas of a partition.
    pub fn is_replicated(&self) -> bool {
        self.run.place.brokers > 1 || self.run.load.replication_factor.is_some()
    }

    /// Begins to watch what a measurement costs.
    pub fn watch(&self) -> Gauge {
        let metrics = self.host.metrics(self.run);
        Gauge {
            before: (!metrics.is_empty()).then(|| Scrape::fetch_all(&metrics)),
            metrics,
            watch: Watch::start(self.host.place()),
        }
    }

    /// Begins to watch who has the CPUs, and nothing else.
    pub fn usage(&self) -> UsageWatch {
        UsageWatch::start(self.host.place())
    }

    /// For a measurement of these meters.
    pub fn sampler(&self, meters: &[&Arc<Meter>]) -> Sampler {
        // Of one whose end is not known yet, the moments are to be seen.
        let known = self.run.load.duration().filter(|_| self.hooks.end.is_none());
        let expected = known.unwrap_or(Duration::from_secs(5));
        Sampler::start(
            meters.iter().map(|&meter| Arc::clone(meter)).collect(),
            expected,
            self.log.clone(),
        )
    }

    /// How far there is to go.
    pub fn goal(&self) -> Goal {
        let load = &self.run.load;
        if self.hooks.end.is_some() {
            return Goal::None;
        }
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
                "from the call that hands a record to the client until the client tells of its acknowledgement; one record \
                 in 61 is measured"
            }
            Pace::Open(_) => {
                "from when a record was due by the schedule, or as much later as the bench itself was late, until the client \
                 tells of its acknowledgement; every record is measured"
            }
        }
    }

    /// What the latency of consumers at the tail is.
    pub fn tail_note(&self) -> &'static str {
        match self.run.load.pace() {
            Pace::Closed => {
                "from the call that hands a record to the client until a consumer's client has it; one record in 61 is \
                 measured"
            }
            Pace::Open(_) => {
                "from when a record was due by the schedule, or as much later as the bench itself was late, until a \
                 consumer's client has it; every record is measured"
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
    metrics: Vec<String>,
    before: Option<Result<Scrape, crate::stages::ScrapeError>>,
    watch: Watch,
}

impl Gauge {
    /// Puts what the measurement cost into the run; so many bytes have gone through.
    pub fn finish(self, done: &mut Run, bytes: u64) {
        let (cost, usage) = self.watch.finish(bytes);
        (done.cost, done.usage) = (Some(cost), Some(usage));
        let Some(before) = self.before else {
            return;
        };
        match before.and_then(|before| Ok((before, Scrape::fetch_all(&self.metrics)?))) {
            Ok((before, after)) => {
                done.stages = stages::between(&before, &after);
                done.fetch_bytes = stages::fetch_paths(&before, &after);
                let text = |(path, bytes): (&String, &u64)| format!("{path} {} MB", bytes / 1_000_000);
                let paths: Vec<_> = done.fetch_bytes.iter().map(text).collect();
                if !paths.is_empty() {
                    done.notes.push(format!("fetches were served by {}", paths.join(", ")));
                }
            }
            Err(error) => done.notes.push(error.to_string()),
        }
    }
}
