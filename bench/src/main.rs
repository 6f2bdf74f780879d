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
mod cli;
mod cost;
mod embedded;
mod environment;
mod error;
mod limits;
mod load;
mod payload;
mod progress;
mod report;
mod run;
mod stages;
mod target;
mod workload;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use serde_json::Value;
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

use cli::{Cli, Command, Output, OutputArgs, RunArgs};
use error::BenchError;
use run::Workload;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(cli.command) {
        Ok(IsDamaged(true)) => ExitCode::from(1),
        Ok(IsDamaged(false)) => ExitCode::SUCCESS,
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

/// Whether a record came back otherwise than it was sent.
struct IsDamaged(bool);

fn run(command: Command) -> Result<IsDamaged, BenchError> {
    let cpus = command.load().and_then(|load| load.client_cpus.clone());
    let runtime = run::runtime("client", cpus)?;
    let damaged = match command {
        Command::Quick(args) => workload(&Workload::Quick, &args, run::config_of(&args), &runtime),
        Command::Produce(args) => workload(&Workload::Produce, &args, run::config_of(&args), &runtime),
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
        Command::Sweep(args) => {
            let sweep = run::sweep::run(&args, &runtime)?;
            print(args.run.output.output, || sweep.text(), || sweep.json());
            write_page(&args.run.output, || report::html::sweep(&sweep))?;
            Ok(IsDamaged(sweep.is_damaged()))
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
                IsDamaged(false)
            })
        }
        Command::Compare(args) => {
            let comparison = report::compare::Comparison::of_files(&args.a, &args.b)?;
            print(args.output, || comparison.text(), || comparison.json());
            Ok(IsDamaged(false))
        }
    };
    // Nothing is left to be done there but to notice that connections have ended.
    runtime.shutdown_background();
    damaged
}

fn workload(workload: &Workload, args: &RunArgs, config: Value, runtime: &Runtime) -> Result<IsDamaged, BenchError> {
    let report = run::report(workload, args, config, runtime)?;
    print(args.output.output, || report::table::text(&report), || report.json());
    write_page(&args.output, || report::html::page(&report))?;
    Ok(IsDamaged(report.is_damaged()))
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
