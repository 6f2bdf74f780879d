//! The commands, each in a file of its own with its options and examples.

pub mod acl;
pub mod bench;
pub mod broker;
pub mod cluster;
pub mod config;
pub mod consume;
pub mod group;
pub mod log;
pub mod offsets;
pub mod partition;
pub mod produce;
pub mod quota;
pub mod shell;
pub mod status;
pub mod topic;
pub mod user;
mod watch;

use std::io::{BufRead as _, IsTerminal as _, Write as _};

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::session::Session;
use crate::values::escaped_text;

/// Does what was asked for.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    let command = match cli.command {
        // These need no broker.
        Command::Bench(args) => return bench::run(&args),
        Command::Log(command) => return log::run(&command, cli.global.output),
        Command::Completions(args) => return shell::completions(&args, cli.global.output),
        Command::Man(args) => return shell::man(&args, cli.global.output),
        command => command,
    };
    let server = cli.global.server.clone();
    let session = Session::open(&cli.global).await?;
    match command {
        Command::Topic(command) => topic::run(&session, command).await,
        Command::Produce(args) => produce::run(&session, *args).await,
        Command::Consume(args) => consume::run(&session, &args).await,
        Command::Group(command) => group::run(&session, command).await,
        Command::Partition(command) => partition::run(&session, command).await,
        Command::Offsets(args) => offsets::run(&session, args).await,
        Command::Config(args) => config::run(&session, args).await,
        Command::Broker(command) => broker::run(&session, command).await,
        Command::Cluster(command) => cluster::run(&session, command).await,
        Command::User(command) => user::run(&session, command).await,
        Command::Acl(command) => acl::run(&session, command).await,
        Command::Quota(command) => quota::run(&session, command).await,
        Command::Status(args) => status::run(&session, &server, args).await,
        Command::Bench(_) | Command::Log(_) | Command::Completions(_) | Command::Man(_) => unreachable!("done before"),
    }
}

/// Asks before something is lost. Where there is nobody to ask, it has to have been said.
fn confirm(question: &str, yes: bool) -> Result<(), Failure> {
    let stdin = std::io::stdin();
    if yes {
        return Ok(());
    }
    if !stdin.is_terminal() {
        return Err(Failure::usage(format!("there is no terminal to ask on: {question}"))
            .hint("nothing was done; --yes does it without asking"));
    }
    eprint!("{} [y/N] ", escaped_text(question));
    // The question is lost with the terminal.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    let read = stdin.lock().read_line(&mut answer);
    read.map_err(|error| Failure::failed(format!("cannot read the answer: {error}")))?;
    if ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str()) {
        Ok(())
    } else {
        Err(Failure::failed("nothing was done").hint("--yes does it without asking"))
    }
}
