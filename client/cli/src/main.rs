//! `headwater`: the command line of the Headwater log.
//!
//! ```text
//! main -> args (clap) -> commands::* -> Session (client, screen) -> headwater-client -> broker
//!                                           '-> Failure -> stderr, exit code
//! ```
//! Results go to standard output and nothing else does; what went wrong goes to standard error, with what to do next. A
//! reader that has gone away and Ctrl-C end a command quietly.

mod args;
mod commands;
mod complete;
mod failure;
mod format;
mod json;
mod screen;
mod session;
mod tls;
mod values;

use std::process::ExitCode;

use args::Cli;
use clap::CommandFactory as _;
use clap_complete::CompleteEnv;
use failure::Failure;

fn main() -> ExitCode {
    // A shell asks for completions; the program ends here then.
    CompleteEnv::with_factory(Cli::command)
        .var(complete::VARIABLE)
        .complete();
    let cli = Cli::read();
    let result = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("cannot start threads: {error}")))
        .and_then(|runtime| {
            let result = runtime.block_on(commands::run(cli));
            // A thread may still wait for standard input.
            runtime.shutdown_background();
            result
        });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
