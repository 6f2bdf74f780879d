//! `headwater-bench`: workloads against a log that verify every record, and figures that can be trusted.
//!
//! ```text
//! cli -> run (host, limits, workload; again and again) -> report: table, JSON, page
//!         |       |
//!         |       '-> limits: what the machine can do by itself
//!         '-> load: producers and consumers of a target, meters, intake -> workload: who a record is, what became of it
//! ```
//!
//! The load runs on threads of its own; a small tokio runtime drives the clients' connections.

mod affinity;
mod brokers;
mod churn;
mod cli;
mod cost;
mod data;
mod environment;
mod error;
mod failover;
mod limits;
mod load;
mod payload;
mod progress;
mod report;
mod run;
mod stages;
mod target;
mod workload;

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, Output, OutputArgs, RunArgs};
use error::BenchError;
use progress::StandardError;
use run::Workload;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(match cli.command {
        // Its topics are meant to be deleted under the eyes of those who read them.
        Command::Churn(_) => "warn,headwater_client::consumer::state=error",
        // Brokers are meant to be missed, which librdkafka tells again and again.
        Command::Failover(_) => "warn,librdkafka=off,rdkafka=off",
        // Into a file of its own.
        Command::Broker(_) => "info",
        _ => "warn",
    });
    if let Command::Broker(args) = &cli.command {
        return match brokers::process::run(args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        };
    }
    match run(cli.command) {
        Ok(ended) => ExitCode::from(ended as u8),
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

/// Where the lines of the client, and of a broker in this process, go, and which of them if nobody says otherwise.
fn start_logging(wanted: &str) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new(wanted));
    // <https://no-color.org>
    let is_plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal() && !is_plain)
        .with_writer(|| StandardError)
        .init();
}

/// How a command has ended that could do what it was asked to; the number is the exit status.
#[derive(Debug, Clone, Copy)]
enum Ended {
    /// All is well.
    Well = 0,
    /// A record came back otherwise than it was sent.
    Damaged = 1,
    /// There were records that others have written, of which nothing can be said.
    Unverified = 2,
    /// A figure is worse than it may be, or what a broker holds grows.
    Worse = 3,
}

impl Ended {
    fn of(is_damaged: bool, is_foreign: bool) -> Self {
        match (is_damaged, is_foreign) {
            (true, _) => Self::Damaged,
            (false, true) => Self::Unverified,
            (false, false) => Self::Well,
        }
    }
}

fn run(command: Command) -> Result<Ended, BenchError> {
    let cpus = command.load().and_then(|load| load.client_cpus.clone());
    let runtime = run::runtime("client", cpus)?;
    let ended = match command {
        Command::Quick(args) => workload(&Workload::Quick, &args, run::config_of(&args), &runtime),
        Command::Produce(args) => {
            let config = run::config_of(&args);
            let verify = !args.no_verify;
            workload(&Workload::Produce { verify }, &args.run, config, &runtime)
        }
        Command::Consume(args) => {
            let config = run::config_of(&args);
            workload(&Workload::Consume(Box::new(args.clone())), &args.run, config, &runtime)
        }
        Command::EndToEnd(args) => workload(
            &Workload::EndToEnd(args.consumers),
            &args.run,
            run::config_of(&args),
            &runtime,
        ),
        Command::Mixed(args) => {
            let config = run::config_of(&args);
            workload(&Workload::Mixed(Box::new(args.clone())), &args.run, config, &runtime)
        }
        Command::Failover(args) => {
            let args = args.filled_in();
            let config = run::config_of(&args);
            workload(&Workload::Failover(Box::new(args.clone())), &args.run, config, &runtime)
        }
        Command::Sweep(args) => {
            let sweep = run::sweep::run(&args, &runtime)?;
            print(args.run.output.output, || sweep.text(), || sweep.json());
            write_page(&args.run.output, || report::html::sweep(&sweep))?;
            Ok(Ended::of(sweep.is_damaged(), false))
        }
        Command::Churn(args) => {
            let churn = churn::run(&args, &runtime)?;
            print(churn.output(), || churn.text(), || churn.json());
            Ok(if churn.grows() { Ended::Worse } else { Ended::Well })
        }
        Command::Limits(args) => {
            let work = async {
                // Ctrl-C is listened to before anything is begun.
                tokio::task::yield_now().await;
                let measured = tokio::task::spawn_blocking(move || limits::command::run(&args));
                Ok(measured.await.map_err(|error| BenchError::Threads(error.into()))??)
            };
            let text = run::until_interrupted(&runtime, work);
            text.map(|text| {
                print_text(&text);
                Ended::Well
            })
        }
        Command::Compare(args) => {
            let comparison = report::compare::Comparison::of_files(&args.a, &args.b, args.fail_on)?;
            print(args.output, || comparison.text(), || comparison.json());
            Ok(if comparison.failed.is_empty() {
                Ended::Well
            } else {
                Ended::Worse
            })
        }
        Command::Broker(_) => unreachable!("it has a process of its own"),
    };
    // Nothing is left to be done there but to notice that connections have ended.
    runtime.shutdown_background();
    ended
}

fn workload(workload: &Workload, args: &RunArgs, config: Value, runtime: &Runtime) -> Result<Ended, BenchError> {
    let report = run::report(workload, args, config, runtime)?;
    print(args.output.output, || report::table::text(&report), || report.json());
    write_page(&args.output, || report::html::page(&report))?;
    Ok(Ended::of(report.is_damaged(), report.is_foreign()))
}

fn print(output: Output, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) {
    let text = match output {
        Output::Table => text(),
        Output::Json => format!("{}\n", json()),
    };
    print_text(&text);
}

fn print_text(text: &str) {
    // A reader that has gone away has what it wanted.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn write_page(args: &OutputArgs, page: impl FnOnce() -> String) -> Result<(), BenchError> {
    let Some(path) = &args.report else {
        return Ok(());
    };
    std::fs::write(path, page()).map_err(|source| BenchError::file(path, source))
}
