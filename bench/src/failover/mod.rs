//! The command `failover`: brokers are killed while records are produced on a schedule, and what of that is seen is told of each.
//!
//! ```text
//! producers on a schedule -> acknowledgements: silences --.
//! killer: SIGKILL, a while, start, in sync again: deaths --+-> kill: judge -> table, JSON, page
//! afterwards everything is read and verified: incidents --'
//! ```
//! A consumer reads at the tail all the while, and verifies what it sees.

pub mod acknowledgements;
pub mod kill;
mod killer;
mod show;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::Args;
use serde::Serialize;

use crate::cli::{LimitsMode, RunArgs};
use crate::error::BenchError;
use crate::load::clock::Moment;
use crate::load::consume::Timed;
use crate::load::meter::Meter;
use crate::load::produce::Hooks;
use crate::progress::{Goal, Progress};
use crate::report::{Phase, Run};
use crate::run::setting::Setting;
use crate::run::until_interrupted;
use crate::run::workloads::{Readers, produce_and_read, read_once, starts};
use crate::target::Target;
use crate::workload::{Expectation, Incidents};
use acknowledgements::Acknowledgements;
use kill::Failover;
use killer::Killer;
pub use show::{section, table};

/// What `--help` says.
pub const LONG_ABOUT: &str = "\
Starts three brokers as one cluster, produces to it on a schedule (an open loop), and meanwhile kills brokers by SIGKILL, by turns the
leader of a partition and the active coordinator. Each is started again after a while, and the next one dies once all replicas
are in sync and some time has passed.

Of each kill it tells for how long no record was acknowledged, and how many records were lost, duplicated or reordered: every
record is read back at the end and verified. A silence is the time between two acknowledgements of a partition, so the rate must be
high enough for it to mean something. With several partitions, a silence is that of the partition that had the longest, of those that the broker
led; `all silent` is for how long nothing was acknowledged of any.

Running brokers of Headwater, or of Kafka, are killed and started by commands of yours, in which {broker} stands for the number
of the broker, such as --kill-command 'docker kill kafka-{broker}' --restart-command 'docker start kafka-{broker}'.";

/// Brokers, if nothing is said.
const BROKERS: u16 = 3;

/// Records a second, if nothing is said.
const RATE: f64 = 5_000.0;

/// Longer than any run takes: it is over when the last broker is back.
const SECONDS_MAX: f64 = 1e6;

/// Options of `failover`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct FailoverArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// How often a broker is killed
    #[arg(long, value_name = "COUNT", default_value_t = 6, value_parser = clap::value_parser!(u16).range(1..=10_000), help_heading = "Failover")]
    pub kills: u16,
    /// How long all is well before a broker is killed, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0, value_parser = crate::cli::seconds, help_heading = "Failover")]
    #[serde(rename = "interval_seconds")]
    pub interval: f64,
    /// How long a broker is dead, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = crate::cli::seconds, help_heading = "Failover")]
    #[serde(rename = "down_seconds")]
    pub down: f64,
    /// How a running broker is killed
    #[arg(long, value_name = "COMMAND", requires_all = ["server", "restart_command"], help_heading = "Failover")]
    pub kill_command: Option<String>,
    /// How it is started again
    #[arg(long, value_name = "COMMAND", requires_all = ["server", "kill_command"], help_heading = "Failover")]
    pub restart_command: Option<String>,
}

impl FailoverArgs {
    /// With what is meant where nothing was said.
    pub fn filled_in(&self) -> Self {
        let mut args = self.clone();
        let run = &mut args.run;
        if run.place.server.is_none() && run.place.brokers == 1 {
            run.place.brokers = BROKERS;
        }
        run.load.rate.get_or_insert(RATE);
        run.load.seconds = SECONDS_MAX;
        // What the machine can do is not asked for.
        run.output.limits = run.output.limits.or(Some(LimitsMode::Off));
        args
    }
}

/// Runs it.
pub fn run<T: Target>(setting: &mut Setting<'_>, args: &FailoverArgs) -> Result<Run, BenchError> {
    let killer = Killer::new(args, setting.host)?;
    let end = Arc::new(AtomicBool::new(false));
    let incidents = Incidents::default();
    until_interrupted(setting.runtime, async {
        let target = T::connect(&setting.host.address()).await?;
        let partitions = target.ensure_topic(&setting.topic, setting.run.load.shape()).await?;
        let begin = Moment::now();
        let acknowledged = Arc::new(Acknowledgements::new(partitions, begin));
        setting.hooks = Hooks {
            acknowledged: Some(Arc::clone(&acknowledged)),
            end: Some(Arc::clone(&end)),
        };
        let readers = Readers {
            tail: ("end_to_end", 1),
            group: ("group", 0),
        };
        let load = produce_and_read(&target, setting, "produce", readers);
        let killing = async {
            let deaths = killer.run(&target, &setting.topic).await?;
            end.store(true, Ordering::Relaxed);
            Ok::<_, BenchError>((deaths, Moment::now()))
        };
        let ((mut phases, produced), (deaths, ended)) = tokio::try_join!(load, killing)?;
        // Everything once more from its beginning: a later death may have taken what was there.
        let progress = Progress::start("verify", Goal::Bytes(produced.bytes));
        let meter = Meter::new("read_back", progress.counter());
        let spans = target.spans(&setting.topic).await?;
        let expectation = Expectation::exactly(produced.acknowledged);
        let mut plan = setting.reader(starts(&spans), expectation, Timed::None);
        plan.verify = plan.verify.map(|verify| verify.noting(&incidents));
        let found = read_once(&target, &plan, &meter, &spans, 1).await?;
        let note = "everything is read once more when the last broker is back";
        phases.push(Phase::new("read_back", meter.finish(), note).verified(found));
        let failover = Failover::judge(&deaths, &acknowledged, &incidents.take(), (begin, ended));
        Ok(Run {
            failover: Some(failover),
            ..Run::of(phases)
        })
    })
}
