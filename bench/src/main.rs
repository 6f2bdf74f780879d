//! `headwater-bench`: workloads against a Headwater broker that verify every record.
//!
//! ```text
//! cli -> quick ------> embedded (a broker in this process)
//!          |     +---> produce: payload -> client -> broker     (workload: who a record is)
//!          |     +---> consume: broker -> client -> Verifier    (workload: what became of it)
//!          +-> report: table, JSON
//! ```
//!
//! The load runs on threads of its own; a small tokio runtime drives the clients' connections.

mod cli;
mod consume;
mod embedded;
mod environment;
mod error;
mod limits;
mod payload;
mod produce;
mod progress;
mod quick;
mod report;
mod workload;

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser as _;
use serde::Serialize;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, ConsumeArgs, LoadArgs, Output, ProduceArgs, ValueArgs};
use consume::Verify;
use environment::{Environment, peak_resident_bytes};
use error::BenchError;
use payload::Payload;
use progress::{Goal, Progress};
use report::{Memory, Outcome, Report};

/// Threads for the clients' tasks: each mostly waits for a socket.
const WORKERS: usize = 2;

/// What a consumer may take by the client's defaults, in bytes.
const CONSUMER_BYTES: u64 = 32 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(cli.command) {
        Ok(report) if report.is_damaged() => ExitCode::from(1),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("headwater-bench: {error}");
            ExitCode::from(if matches!(error, BenchError::Interrupted) {
                130
            } else {
                2
            })
        }
    }
}

fn run(command: Command) -> Result<Report, BenchError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_name("client")
        .enable_all()
        .build()
        .map_err(BenchError::Threads)?;
    let (report, output) = match command {
        Command::Quick(mut args) => (quick::run(&mut args, &runtime)?, args.output),
        Command::Produce(args) => (produce(&args, &runtime)?, args.output),
        Command::Consume(args) => (consume(&args, &runtime)?, args.output),
    };
    // Nothing is left to be done there but to notice that connections have ended.
    runtime.shutdown_background();
    let text = match output {
        Output::Table => report.text(),
        Output::Json => format!("{}\n", report.json().expect("reports have string keys only")),
    };
    // A reader that has gone away has what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(report)
}

fn produce(args: &ProduceArgs, runtime: &Runtime) -> Result<Report, BenchError> {
    let payload = Arc::new(payload_of(&args.values)?);
    let budget = producers_budget(&args.load) + payload.memory() as u64;
    let plan = produce::Plan {
        bootstrap: args.target.bootstrap.clone(),
        topic: args.target.topic.clone(),
        load: args.load.clone(),
        payload,
        bytes_max: u64::MAX,
    };
    let work = async {
        let progress = Progress::start("produce", quick::goal(&args.load));
        Ok(produce::run(plan, progress.counter()).await?.phase)
    };
    let phase = until_interrupted(runtime, work)?;
    Ok(report_of(Outcome::One(phase), budget, config_of(args)))
}

fn consume(args: &ConsumeArgs, runtime: &Runtime) -> Result<Report, BenchError> {
    let payload = Arc::new(payload_of(&args.values)?);
    let budget = CONSUMER_BYTES + payload.memory() as u64;
    let verify = args.verify.then_some(Verify {
        payload,
        expectation: None,
        records: args.expect_records,
    });
    let work = async {
        let plan = consume::Plan {
            client: produce::client(&args.target.bootstrap).await?,
            topic: args.target.topic.clone(),
            verify,
            follow: args.follow,
        };
        let progress = Progress::start("consume", Goal::None);
        consume::run(plan, progress.counter()).await
    };
    let phase = if args.follow {
        runtime.block_on(work)
    } else {
        until_interrupted(runtime, work)
    };
    Ok(report_of(Outcome::One(phase?), budget, config_of(args)))
}

/// Runs to the end, or to Ctrl-C.
fn until_interrupted<T>(runtime: &Runtime, work: impl Future<Output = Result<T, BenchError>>) -> Result<T, BenchError> {
    runtime.block_on(async {
        tokio::select! {
            result = work => result,
            interrupted = tokio::signal::ctrl_c() => {
                interrupted.map_err(BenchError::Threads)?;
                Err(BenchError::Interrupted)
            }
        }
    })
}

fn payload_of(values: &ValueArgs) -> Result<Payload, BenchError> {
    Ok(match &values.payload {
        Some(path) => Payload::lines(path)?,
        None => Payload::generated(values.record_size),
    })
}

/// What the producers of a load may take, in bytes.
fn producers_budget(load: &LoadArgs) -> u64 {
    u64::from(load.producers) * load.client_memory()
}

fn config_of(args: &impl Serialize) -> serde_json::Value {
    serde_json::to_value(args).expect("options have string keys only")
}

fn report_of(outcome: Outcome, memory_budget_bytes: u64, config: serde_json::Value) -> Report {
    let environment = Environment::look(None);
    let memory = Memory {
        peak_rss_bytes: peak_resident_bytes(),
        memory_budget_bytes,
    };
    let notes = notes(&environment);
    Report {
        outcome,
        memory,
        config,
        environment,
        notes,
    }
}

fn notes(environment: &Environment) -> Vec<String> {
    let slow = (!environment.optimised).then(|| "built without optimisation: build with --release".to_owned());
    slow.into_iter().collect()
}
