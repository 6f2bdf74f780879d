//! The command line: what can be asked for, and how it is explained.
//!
//! Options are plain data, and serialize into the report as they are. Sizes are bytes or carry a unit; rules between
//! options that clap cannot express are checked where they are used.

mod help;
mod load;
mod output;
mod place;
mod sweep;

use clap::{Args, Parser, Subcommand};
use serde::Serialize;

pub(crate) use load::seconds;
pub use load::{AcksArg, LoadArgs, ValueArgs};
pub use output::{LimitsMode, Output, OutputArgs};
pub(crate) use place::key_and_value;
pub use place::{BrokerArgs, PlaceArgs, System};
pub use sweep::{Axis, AxisName, SweepWorkload, check, grid, set};

/// A benchmark of the Headwater log that verifies every record.
#[derive(Debug, Parser)]
#[command(name = "headwater-bench", version = headwater_server::VERSION, after_help = help::EXAMPLES, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a broker, produces, consumes, verifies: all in one
    #[command(long_about = help::QUICK, after_help = help::EXAMPLES)]
    Quick(RunArgs),
    /// Produces, as fast as it goes or at a rate
    #[command(long_about = help::PRODUCE, after_help = help::EXAMPLES)]
    Produce(ProduceArgs),
    /// Consumes what is stored, hot or cold, and can verify what `produce` has sent
    #[command(long_about = help::CONSUME, after_help = help::EXAMPLES)]
    Consume(ConsumeArgs),
    /// Produces and consumes at once, and times each record from when it was due until it is received
    #[command(long_about = help::END_TO_END, after_help = help::EXAMPLES)]
    EndToEnd(EndToEndArgs),
    /// Producers and consumers at the tail, without and with consumers of old data and consumer groups that fail
    #[command(long_about = help::MIXED, after_help = help::EXAMPLES)]
    Mixed(MixedArgs),
    /// Kills brokers of a cluster under load: for how long is nothing acknowledged, and is a record lost?
    #[command(long_about = crate::failover::LONG_ABOUT, after_help = help::EXAMPLES)]
    Failover(crate::failover::FailoverArgs),
    /// Runs a workload for every point of one or several axes
    #[command(long_about = help::SWEEP, after_help = help::EXAMPLES)]
    Sweep(SweepArgs),
    /// Guests that come and go for minutes: does what the broker holds for them stay the same?
    #[command(long_about = crate::churn::LONG_ABOUT, after_help = help::EXAMPLES)]
    Churn(crate::churn::ChurnArgs),
    /// Measures what this machine can do, without a broker: what other figures are shares of
    #[command(long_about = crate::limits::command::LONG_ABOUT, after_help = help::EXAMPLES)]
    Limits(crate::limits::command::LimitsArgs),
    /// Compares two results of `--output json`, and says which differences are more than noise
    #[command(long_about = help::COMPARE, after_help = help::EXAMPLES)]
    Compare(CompareArgs),
    /// One of the brokers of a cluster, as a process of its own
    #[command(hide = true)]
    Broker(crate::brokers::process::ProcessArgs),
}

impl Command {
    /// The load of its workload, if it has one.
    pub fn load(&self) -> Option<&LoadArgs> {
        Some(match self {
            Self::Quick(run) => &run.load,
            Self::Produce(args) => &args.run.load,
            Self::Consume(args) => &args.run.load,
            Self::EndToEnd(args) => &args.run.load,
            Self::Mixed(args) => &args.run.load,
            Self::Failover(args) => &args.run.load,
            Self::Sweep(args) => &args.run.load,
            Self::Churn(_) | Self::Limits(_) | Self::Compare(_) | Self::Broker(_) => return None,
        })
    }
}

/// Options of every workload.
#[derive(Debug, Clone, Args, Serialize)]
pub struct RunArgs {
    /// What is measured.
    #[command(flatten, next_help_heading = "What is measured")]
    #[serde(flatten)]
    pub place: PlaceArgs,
    /// What is sent.
    #[command(flatten, next_help_heading = "Records")]
    #[serde(flatten)]
    pub values: ValueArgs,
    /// How much is sent.
    #[command(flatten, next_help_heading = "Load")]
    #[serde(flatten)]
    pub load: LoadArgs,
    /// What comes out.
    #[command(flatten, next_help_heading = "Results")]
    #[serde(flatten)]
    pub output: OutputArgs,
}

/// Options of `produce`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ProduceArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// Do not read back and verify what was sent, such as when it is too much for that, or the topic is compacted
    #[arg(long, help_heading = "Load")]
    pub no_verify: bool,
}

/// Options of `consume`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ConsumeArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// Read from the disk: the broker is restarted and the page cache dropped before [default: read what was just written]
    #[arg(long, help_heading = "Consumers", conflicts_with = "server")]
    pub cold: bool,
    /// Consumers at once, each of which reads everything
    #[arg(long, help_heading = "Consumers", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub consumers: u16,
    /// With --topic: verify order and content of what `produce` sent; give its --record-size, --compressibility or --payload
    /// here too. Records that others have sent cannot be verified (exit status 2)
    #[arg(long, help_heading = "Consumers")]
    pub verify: bool,
    /// How many records `produce` said it sent; fewer count as lost, which nothing else shows at the very end
    #[arg(long, value_name = "COUNT", requires = "verify", help_heading = "Consumers")]
    pub expect_records: Option<u64>,
    /// With --topic: go on with what comes after the end, until Ctrl-C
    #[arg(long, help_heading = "Consumers", requires = "topic")]
    pub follow: bool,
}

/// Options of `end-to-end`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct EndToEndArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// Consumers at once, each of which reads everything
    #[arg(long, help_heading = "Consumers", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub consumers: u16,
}

/// Options of `mixed`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct MixedArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// Consumers at the tail, each of which reads everything as it comes
    #[arg(long, help_heading = "Consumers", default_value_t = 1, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub tail_consumers: u16,
    /// Consumers of old data, each of which reads it over and over from the disk
    #[arg(long, help_heading = "Consumers", default_value_t = 2, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub catch_up_consumers: u16,
    /// Members of a consumer group at the tail, which keeps up all the time; more than --partitions have nothing to do
    #[arg(long, help_heading = "Consumers", value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub group_members: u16,
    /// Members of another group that are slow, stop and die: measured next to the same without them
    #[arg(long, help_heading = "Consumers", value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=1024))]
    pub slow_members: u16,
    /// How much old data there is; more than the broker has memory for, or it is not read from the disk
    #[arg(long, help_heading = "Consumers", value_name = "SIZE", default_value = "2GiB", value_parser = load::size)]
    #[serde(rename = "history_bytes")]
    pub history: u64,
}

/// Options of `sweep`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct SweepArgs {
    /// Those of every workload.
    #[command(flatten)]
    #[serde(flatten)]
    pub run: RunArgs,
    /// An axis and its points: record-size, batch-bytes, linger, producers, partitions, cores, acks or rate, such as
    /// record-size=100,1KiB,10KiB; or SECTION.KEY, a knob of the broker. Several make a grid
    #[arg(
        long = "axis",
        value_name = "NAME=VALUE,...",
        required = true,
        help_heading = "Sweep"
    )]
    pub axes: Vec<Axis>,
    /// What is run at each point
    #[arg(long, value_enum, default_value_t, help_heading = "Sweep")]
    pub workload: SweepWorkload,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub struct CompareArgs {
    /// The result to compare with, from --output json
    pub a: std::path::PathBuf,
    /// The result that is compared
    pub b: std::path::PathBuf,
    /// Fail with exit status 3 if a figure is worse, beyond noise, and by more than this: worse, or worse:5%
    #[arg(long, value_name = "worse[:PERCENT]", value_parser = worse)]
    pub fail_on: Option<f64>,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    pub output: Output,
}

/// The share by which a figure may be worse.
fn worse(text: &str) -> Result<f64, String> {
    let expected = || "expected worse, or worse:PERCENT such as worse:5%".to_owned();
    let rest = text.strip_prefix("worse").ok_or_else(expected)?;
    let percent = match rest.strip_prefix(':') {
        Some(percent) => percent
            .trim_end_matches('%')
            .parse()
            .map_err(|_error: std::num::ParseFloatError| expected())?,
        None if rest.is_empty() => 0.0,
        None => return Err(expected()),
    };
    if (0.0..1000.0).contains(&percent) {
        Ok(percent / 100.0)
    } else {
        Err("the percentage must be from 0 up to 1000".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_examples_are_legal() {
        Cli::command().debug_assert();
        let examples = help::EXAMPLES.replace("\\\n", " ");
        let mut count = 0;
        for line in examples
            .lines()
            .filter_map(|line| line.trim().strip_prefix("headwater-bench"))
        {
            // An explanation is set off by a number sign.
            let command = line.split('#').next().unwrap_or_default();
            let words = std::iter::once("headwater-bench").chain(command.split_whitespace());
            Cli::try_parse_from(words).unwrap();
            count += 1;
        }
        assert!(count > 5, "only {count} examples");
    }

    #[test]
    fn options_out_of_range_are_refused() {
        for bad in [
            ["--record-size", "2MiB"],
            ["--record-size", "0"],
            ["--seconds", "0"],
            ["--partitions", "0"],
            ["--rate", "0"],
            ["--compressibility", "1.5"],
            ["--repeat", "0"],
        ] {
            assert!(
                Cli::try_parse_from(["headwater-bench", "quick", bad[0], bad[1]]).is_err(),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn what_a_comparison_fails_on_is_given_in_percent() {
        for (text, share) in [
            ("worse", 0.0),
            ("worse:5%", 0.05),
            ("worse:2.5", 0.025),
            ("worse:0%", 0.0),
        ] {
            assert_eq!(worse(text), Ok(share), "{text}");
        }
        for bad in [
            "",
            "better:5%",
            "worse5%",
            "worse:",
            "worse:-1%",
            "worse:many",
            "worse:NaN",
        ] {
            assert!(worse(bad).is_err(), "{bad}");
        }
    }
}
