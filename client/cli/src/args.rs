//! The command line as a whole: what all commands share, and the list of commands. Each command's own options are where the
//! command is.

use std::path::PathBuf;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};

use crate::commands::{
    acl, bench, broker, cluster, config, consume, group, log, offsets, partition, produce, quota, shell, status, topic,
    user,
};
use crate::failure::EXIT_CODES;
use crate::tls::Tls;

/// The command line of the Headwater log.
#[derive(Debug, Parser)]
#[command(
    name = "headwater",
    version = env!("HEADWATER_VERSION"),
    max_term_width = 110,
    disable_help_subcommand = true,
    after_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
)]
pub struct Cli {
    #[command(flatten, next_help_heading = "Every command")]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
A first tour, with a broker on this machine:
  headwater topic create greetings --partitions 2
  echo 'Ada:hello' | headwater produce greetings --key-separator :
  headwater consume greetings
  headwater topic describe greetings
  headwater status

`headwater COMMAND --help` has examples of each command. `--output json` makes the result of any of them one JSON value (of \
`consume` one a line) for scripts.";

/// Where a broker is looked for if nobody says where.
pub const SERVER: &str = "127.0.0.1:9292";

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Where a broker listens: HOST or HOST:PORT (9292 if there is none), or several of them separated by commas
    #[arg(
        short,
        long,
        global = true,
        env = "HEADWATER_SERVER",
        default_value = SERVER,
        value_name = "HOST[:PORT]",
        value_hint = ValueHint::Hostname,
        hide_env_values = true
    )]
    pub server: String,
    /// What to print: a table for people, or JSON for scripts
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub output: Output,
    /// How long to wait for an answer, or for a record to be stored, such as 500ms or 1m
    #[arg(long, global = true, default_value = "10s", value_name = "TIME", value_parser = crate::values::duration)]
    pub timeout: Duration,
    #[command(flatten)]
    pub tls: Tls,
    /// Who you are, where brokers ask for that; the password comes from --password-file or `HEADWATER_PASSWORD`
    #[arg(
        long,
        global = true,
        env = "HEADWATER_USER",
        value_name = "NAME",
        hide_env_values = true
    )]
    pub user: Option<String>,
    /// A file whose first line is your password
    #[arg(
        long,
        global = true,
        env = "HEADWATER_PASSWORD_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        hide_env_values = true
    )]
    pub password_file: Option<PathBuf>,
    /// A file with a token that says who you are, in the place of --user
    #[arg(
        long,
        global = true,
        env = "HEADWATER_TOKEN_FILE",
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        hide_env_values = true
    )]
    pub token_file: Option<PathBuf>,
}

/// What to print on standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    #[default]
    Table,
    Json,
}

impl Cli {
    /// Reads the command line; ends the program where it asks for help or is wrong.
    pub fn read() -> Self {
        Self::try_parse().unwrap_or_else(|error| {
            if error.kind() == ErrorKind::MissingSubcommand {
                help_of_what_was_named();
            }
            error.exit()
        })
    }
}

/// The command line ends at a command that has commands: shows which.
fn help_of_what_was_named() -> ! {
    let mut root = Cli::command();
    root.build();
    let mut command = &mut root;
    for word in std::env::args().skip(1) {
        if command.find_subcommand(&word).is_some() {
            command = command.find_subcommand_mut(&word).expect("it was found just now");
        }
    }
    anstream::eprint!("{}", command.render_help().ansi());
    std::process::exit(2)
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create, list, describe, alter and delete topics
    #[command(subcommand, visible_alias = "topics")]
    Topic(topic::TopicCommand),
    /// Write records: lines of standard input or of a file
    #[command(after_help = produce::EXAMPLES)]
    Produce(Box<produce::ProduceArgs>),
    /// Read records
    #[command(after_help = consume::EXAMPLES)]
    Consume(Box<consume::ConsumeArgs>),
    /// Look after consumer groups: members, lag, committed offsets
    #[command(subcommand, visible_alias = "groups")]
    Group(group::GroupCommand),
    /// Look at one partition
    #[command(subcommand)]
    Partition(partition::PartitionCommand),
    /// Where the partitions of a topic begin and end, and where a moment in time is in them
    #[command(after_help = offsets::EXAMPLES)]
    Offsets(offsets::OffsetsArgs),
    /// Show the settings in force: a broker's, or a topic's
    #[command(after_help = config::EXAMPLES)]
    Config(config::ConfigArgs),
    /// Look at the brokers of a cluster
    #[command(subcommand, visible_alias = "brokers")]
    Broker(broker::BrokerCommand),
    /// Look after a cluster: whether all is well, and who belongs to the coordinator quorum
    #[command(subcommand)]
    Cluster(cluster::ClusterCommand),
    /// Make, list and remove users, and change their passwords
    #[command(subcommand, visible_alias = "users")]
    User(user::UserCommand),
    /// Say who may do what: make, list and remove rules
    #[command(subcommand, visible_alias = "acls")]
    Acl(acl::AclCommand),
    /// Say how much users, clients and addresses may use: set, list and remove quotas
    #[command(subcommand, visible_alias = "quotas")]
    Quota(quota::QuotaCommand),
    /// Show how a broker is: cores, partitions, connections, disk, throughput
    #[command(after_help = status::EXAMPLES)]
    Status(status::StatusArgs),
    /// Look into the files of a log, without a broker
    #[command(subcommand)]
    Log(log::LogCommand),
    /// Run headwater-bench, which measures a broker and this machine
    #[command(after_help = bench::EXAMPLES)]
    Bench(bench::BenchArgs),
    /// Print the completions of this program for a shell
    #[command(after_help = shell::COMPLETIONS_EXAMPLES)]
    Completions(shell::CompletionsArgs),
    /// Write the manual pages of this program into a directory
    #[command(after_help = shell::MAN_EXAMPLES)]
    Man(shell::ManArgs),
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every command with its name, from the root on.
    fn all(command: &clap::Command, name: &str, found: &mut Vec<(String, clap::Command)>) {
        found.push((name.to_owned(), command.clone()));
        for sub in command.get_subcommands() {
            all(sub, &format!("{name} {}", sub.get_name()), found);
        }
    }

    #[test]
    fn every_command_that_does_something_has_examples_and_they_are_legal() {
        Cli::command().debug_assert();
        let mut commands = Vec::new();
        all(&Cli::command(), "headwater", &mut commands);
        let mut count = 0;
        for (name, command) in commands {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let mut own = 0;
            for line in examples.lines() {
                // The last program of a pipe; what follows a number sign explains.
                let line = line.split(" # ").next().unwrap_or_default();
                let Some(at) = line.strip_prefix("  ").and_then(|line| line.find("headwater ")) else {
                    continue;
                };
                let command = line[2 + at..]
                    .split([';', '|', '&', ')', '>', '<'])
                    .next()
                    .unwrap_or_default();
                let words = crate::values::words(command);
                let parsed = Cli::try_parse_from(&words);
                assert!(parsed.is_ok(), "{name}: {words:?}: {}", parsed.unwrap_err());
                own += usize::from(line.contains(&name));
                count += 1;
            }
            assert!(own > 0 || command.has_subcommands(), "{name} has no example of itself");
        }
        assert!(count > 30, "only {count} examples");
    }
}
