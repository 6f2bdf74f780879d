//! Runs a command: the system under test is made ready, the workload runs as often as asked for, with the limits in
//! between, and everything is put into a report.
//!
//! ```text
//! host (embedded or running) -> [limits, workload]* limits -> Report
//! ```

pub mod host;
mod limits;
mod mixed;
pub mod setting;
pub mod sweep;
pub mod workloads;

use std::sync::Arc;

use headwater_server::config::{CpuSet, Value as _};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::affinity::keep_to;
use crate::cli::{ConsumeArgs, LimitsMode, MixedArgs, RunArgs, System, ValueArgs};
use crate::environment::{Environment, peak_resident_bytes};
use crate::error::BenchError;
use crate::failover::FailoverArgs;
use crate::load::hlog::HistogramLog;
use crate::load::produce::Hooks;
use crate::payload::Payload;
use crate::report::{Memory, Report, Run, origin::Origin};
use crate::target::Target;
use crate::target::headwater::Headwater;
use crate::workload::RunId;
use host::Host;
use limits::LimitsPlan;
use setting::Setting;

/// What a consumer may take by the client's defaults, in bytes.
const CONSUMER_BYTES: u64 = 32 << 20;

/// How many of several brokers in processes of their own have each partition, if nothing is said.
const REPLICATION_FACTOR: u16 = 3;

/// The topic of a broker that the bench has started.
const TOPIC: &str = "bench";

/// What is run.
#[derive(Debug, Clone)]
pub enum Workload {
    /// Produce, then consume.
    Quick,
    /// Produce, and read it back afterwards.
    Produce {
        /// Or not.
        verify: bool,
    },
    /// Consume.
    Consume(Box<ConsumeArgs>),
    /// Both at once, with so many consumers.
    EndToEnd(u16),
    /// Both at once, and readers of old data.
    Mixed(Box<MixedArgs>),
    /// Both at once, while brokers are killed.
    Failover(Box<FailoverArgs>),
}

impl Workload {
    /// As the command is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Quick => "quick",
            Self::Produce { .. } => "produce",
            Self::Consume(_) => "consume",
            Self::EndToEnd(_) => "end-to-end",
            Self::Mixed(_) => "mixed",
            Self::Failover(_) => "failover",
        }
    }

    /// Whether it reads from the disk.
    pub fn is_cold(&self) -> bool {
        matches!(self, Self::Consume(args) if args.cold)
    }

    fn consumers(&self) -> u64 {
        match self {
            Self::Quick | Self::Failover(_) => 1,
            Self::Produce { verify } => u64::from(*verify),
            Self::Consume(args) => u64::from(args.consumers),
            Self::EndToEnd(consumers) => u64::from(*consumers),
            Self::Mixed(args) => {
                let counts = [
                    args.tail_consumers,
                    args.catch_up_consumers,
                    args.group_members,
                    args.slow_members,
                ];
                counts.map(u64::from).iter().sum()
            }
        }
    }

    /// Whether what is in the topic already is what it is about.
    fn reads_existing(&self, run: &RunArgs) -> bool {
        matches!(self, Self::Consume(_)) && run.place.topic.is_some()
    }
}

/// Runs a workload and reports; `config` is what the report says of the options.
pub fn report(
    workload: &Workload,
    run: &RunArgs,
    config: serde_json::Value,
    runtime: &Runtime,
) -> Result<Report, BenchError> {
    let run = &filled_in(run);
    match run.place.system {
        System::Headwater => with_target::<Headwater>(workload, run, config, runtime),
        #[cfg(feature = "kafka")]
        System::Kafka => with_target::<crate::target::kafka::Kafka>(workload, run, config, runtime),
        #[cfg(feature = "nats")]
        System::Nats => with_target::<crate::target::nats::Nats>(workload, run, config, runtime),
    }
}

/// With what follows from other options.
fn filled_in(run: &RunArgs) -> RunArgs {
    let mut run = run.clone();
    if run.place.brokers > 1 && run.place.server.is_none() {
        let factor = run.place.brokers.min(REPLICATION_FACTOR);
        run.load.replication_factor.get_or_insert(factor);
    }
    run
}

fn with_target<T: Target>(
    workload: &Workload,
    run: &RunArgs,
    mut config: serde_json::Value,
    runtime: &Runtime,
) -> Result<Report, BenchError> {
    let origin = Origin::here();
    let payload = Arc::new(payload_of(&run.values)?);
    let mut host = Host::open(run)?;
    let limits = LimitsPlan::choose(workload, run, &host)?;
    host.describe(&mut config);
    let mut memory_budget_bytes =
        host.memory_budget() + payload.memory() as u64 + workload.consumers() * CONSUMER_BYTES;
    if !workload.reads_existing(run) {
        memory_budget_bytes += run.load.clients_memory();
    }
    let environment = Environment::look(host.data_directory());
    let mut notes = vec![format!("client: {}", T::client(&run.load.producer()))];
    notes.extend(host.notes());
    if !environment.optimised {
        notes.push("built without optimisation: build with --release".to_owned());
    }
    let log = run
        .output
        .histogram_log
        .as_deref()
        .map(HistogramLog::create)
        .transpose()?
        .map(Arc::new);
    let mut runs: Vec<Run> = Vec::new();
    // What cannot work fails before the limits take their time.
    until_interrupted(runtime, async {
        let target = T::connect(&host.address()).await?;
        match &run.place.topic {
            Some(topic) if workload.reads_existing(run) => target.spans(topic).await.map(drop),
            _ => Ok(()),
        }
    })?;
    let mut probe = limits.map(|plan| plan.probe(runtime));
    let mut before = None;
    if let Some(turn) = &mut probe {
        match turn.measure() {
            Ok(limits) => before = Some(limits),
            // Nobody has asked for them.
            Err(BenchError::Limits(error)) if turn.is_brief => {
                notes.push(format!("what the machine can do was not measured: {error}"));
                probe = None;
            }
            Err(error) => return Err(error),
        }
    }
    for number in 0..run.output.repeat {
        let mut setting = Setting {
            runtime,
            host: &mut host,
            run,
            payload: Arc::clone(&payload),
            topic: topic(run, number),
            is_last: number + 1 == run.output.repeat,
            log: log.clone(),
            hooks: Hooks::default(),
        };
        let mut done = workloads::run::<T>(workload, &mut setting)?;
        if let Some(probe) = &mut probe {
            let after = probe.measure()?;
            let before = before.replace(after.clone()).unwrap_or_default();
            limits::compare(&mut done, &before, &after, run, workload);
            if let Workload::Mixed(args) = workload {
                probe.beside(&mut done, args)?;
            }
        }
        runs.push(done);
    }
    host.close()?;
    if let Some(log) = log.and_then(Arc::into_inner) {
        log.finish()?;
    }
    Ok(Report {
        workload: workload.name(),
        origin,
        runs,
        memory: Memory {
            peak_rss_bytes: peak_resident_bytes(),
            memory_budget_bytes,
        },
        config,
        environment,
        notes,
    })
}

/// The topic of a run: the one asked for, or a new one.
fn topic(run: &RunArgs, number: u16) -> String {
    match (&run.place.topic, &run.place.server, number) {
        (Some(topic), ..) => topic.clone(),
        (None, None, 0) => TOPIC.to_owned(),
        (None, None, number) => format!("{TOPIC}-{number}"),
        (None, Some(_), _) => format!("{TOPIC}-{:08x}", RunId::random().get()),
    }
}

fn payload_of(values: &ValueArgs) -> Result<Payload, BenchError> {
    Ok(match &values.payload {
        Some(path) => Payload::lines(path)?,
        None => Payload::random(values.record_size.clone(), values.compressibility),
    })
}

/// Runs clients' tasks on threads of this name: half as many as there are CPUs, as the broker in this process has the other half.
/// More of them than that only wake each other. They, and those that producers and consumers have for themselves, stay on the CPUs
/// given.
pub fn runtime(name: &str, cpus: Option<CpuSet>) -> Result<Runtime, BenchError> {
    let count = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder
        .worker_threads((count / 2).max(1))
        .thread_name(name)
        .enable_all();
    if let Some(cpus) = cpus {
        let names = cpus.show();
        let keep = move || keep_to(cpus.iter().map(usize::from));
        // Tried out on a thread that ends, because those to come cannot report it.
        let tried = std::thread::scope(|scope| scope.spawn(&keep).join()).expect("a system call does not panic");
        tried.map_err(|source| BenchError::Cpus { cpus: names, source })?;
        builder.on_thread_start(move || {
            // It was possible a moment ago; a thread elsewhere would still do its work.
            let _ = keep();
        });
    }
    builder.build().map_err(BenchError::Threads)
}

/// Runs to the end, or to Ctrl-C.
pub fn until_interrupted<T>(
    runtime: &Runtime,
    work: impl Future<Output = Result<T, BenchError>>,
) -> Result<T, BenchError> {
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            interrupted = interrupted() => {
                interrupted?;
                Err(BenchError::Interrupted)
            }
        }
    })
}

/// Waits for Ctrl-C, or for what service managers and `kill` send: either way what was made is removed.
pub async fn interrupted() -> Result<(), BenchError> {
    let mut terminated = signal(SignalKind::terminate()).map_err(BenchError::Threads)?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted.map_err(BenchError::Threads),
        _ = terminated.recv() => Ok(()),
    }
}

/// Whether limits are measured if nothing is said.
fn limits_by_default(host: &Host) -> LimitsMode {
    if host.is_local() {
        LimitsMode::On
    } else {
        LimitsMode::Off
    }
}

/// Options as they go into a report.
pub fn config_of(args: &impl serde::Serialize) -> serde_json::Value {
    serde_json::to_value(args).expect("options have string keys only")
}
