//! The command line: what can be asked for, and how it is explained.
//!
//! Options are plain data, and serialize into the report as they are. Sizes are bytes or carry a unit; rules between
//! options that clap cannot express are checked where they are used.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use headwater_client::Compression;
use serde::{Serialize, Serializer};

use crate::limits::{self, command::LimitsArgs};
use crate::payload::VALUE_SIZE_MAX;
use crate::workload::{PARTITIONS_MAX, PRODUCERS_MAX};

const EXAMPLES: &str = "\
Examples:
  headwater-bench quick                                      is it fast here? about 10 seconds
  headwater-bench quick --record-size 100 --output json      small records, for a script
  headwater-bench quick --payload /var/log/dpkg.log --bytes 4GB --compression lz4
                                                             real lines, until 4 GB are stored
  headwater-bench produce --bootstrap localhost:9292 --topic load --partitions 4 --producers 2
  headwater-bench consume --bootstrap localhost:9292 --topic load --verify
  headwater-bench limits                                     what can the machine do at most? about 25 seconds
  headwater-bench limits --only disk,loopback,bare --repeat 5

Exit status: 0 all well; 1 a record was lost, duplicated, reordered or altered; 2 it could not run; 130 interrupted.";

const QUICK: &str = "\
Starts a broker in this process on a free port of 127.0.0.1 with its data on a real disk, produces to it with acks=all
(every record is on stable storage before it is acknowledged), consumes everything, and verifies every record: its place
in the order of its producer and partition, and its content.

MB/s counts the values of records, 10^6 bytes each; keys (16 bytes, with which records are verified) and headers of
batches come on top. Latency is the time from the call that hands a record to the client until the task that waits for its
acknowledgement runs; one record in 61 is measured, so that measuring costs nothing and every place in a batch has its turn.

The data goes to a new directory in ./target if there is one, else in $TMPDIR, and is removed at the end.";

/// A benchmark of the Headwater log that verifies every record.
#[derive(Debug, Parser)]
#[command(name = "headwater-bench", version, after_help = EXAMPLES, max_term_width = 120)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs a broker, produces, consumes, verifies: all in one
    #[command(long_about = QUICK, after_help = EXAMPLES)]
    Quick(QuickArgs),
    /// Produces to a running broker
    #[command(after_help = EXAMPLES)]
    Produce(ProduceArgs),
    /// Consumes from a running broker, and can verify what `produce` has sent
    #[command(after_help = EXAMPLES)]
    Consume(ConsumeArgs),
    /// Measures what this machine can do, without a broker: what other figures are shares of
    #[command(long_about = limits::command::LONG_ABOUT, after_help = EXAMPLES)]
    Limits(LimitsArgs),
}

/// Options of `quick`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct QuickArgs {
    /// What is sent.
    #[command(flatten)]
    #[serde(flatten)]
    pub values: ValueArgs,
    /// How it is sent.
    #[command(flatten)]
    #[serde(flatten)]
    pub load: LoadArgs,
    /// Cores that the broker runs on, each with its own share of the partitions [default: half of them]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub cores: Option<u16>,
    /// Memory of each of the broker's cores for what was written last, which is consumed from there; what no longer fits is
    /// read from disk
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = size)]
    #[serde(rename = "tail_buffer_bytes")]
    pub tail_buffer: u64,
    /// Where to make the directory for the data [default: ./target, or $TMPDIR]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Leave the data where it is, and say where
    #[arg(long)]
    pub keep: bool,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    pub output: Output,
}

/// Options of `produce`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ProduceArgs {
    /// Where.
    #[command(flatten)]
    #[serde(flatten)]
    pub target: TargetArgs,
    /// What is sent.
    #[command(flatten)]
    #[serde(flatten)]
    pub values: ValueArgs,
    /// How it is sent.
    #[command(flatten)]
    #[serde(flatten)]
    pub load: LoadArgs,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    pub output: Output,
}

/// Options of `consume`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ConsumeArgs {
    /// Where.
    #[command(flatten)]
    #[serde(flatten)]
    pub target: TargetArgs,
    /// What was sent.
    #[command(flatten)]
    #[serde(flatten)]
    pub values: ValueArgs,
    /// Verify order and content of what `produce` sent; give its --record-size or --payload here too
    #[arg(long)]
    pub verify: bool,
    /// How many records `produce` said it sent; fewer count as lost, which nothing else shows at the very end
    #[arg(long, value_name = "COUNT", requires = "verify")]
    pub expect_records: Option<u64>,
    /// Go on with what comes after the end, until Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    pub output: Output,
}

/// Which topic of which broker.
#[derive(Debug, Clone, Args, Serialize)]
pub struct TargetArgs {
    /// Address of a broker, or several, separated by commas
    #[arg(long, value_name = "HOST:PORT")]
    pub bootstrap: String,
    /// The topic; `produce` makes it if it is missing
    #[arg(long)]
    pub topic: String,
}

/// What the values of records are.
#[derive(Debug, Clone, Args, Serialize)]
pub struct ValueArgs {
    /// Size of each value, of pseudo-random bytes; up to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = record_size, conflicts_with = "payload")]
    #[serde(rename = "record_size_bytes")]
    pub record_size: usize,
    /// Take the values from the lines of this file instead, over and over; up to 256MiB of it
    #[arg(long, value_name = "FILE")]
    pub payload: Option<PathBuf>,
}

/// How much is sent, and how.
#[derive(Debug, Clone, Args, Serialize)]
pub struct LoadArgs {
    /// Partitions of the topic, if it is made; records go to them by turns
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=i64::from(PARTITIONS_MAX)))]
    pub partitions: u32,
    /// Producers at once, each with its own client and connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(PRODUCERS_MAX)))]
    pub producers: u16,
    /// How long to produce
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// How many bytes of values to produce, however long that takes
    #[arg(long, value_name = "SIZE", value_parser = size, conflicts_with = "seconds")]
    pub bytes: Option<u64>,
    /// Size at which a batch is full, before compression
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size)]
    pub batch_bytes: u64,
    /// Batches of one partition on their way to the broker or waiting for its acknowledgement; as much again waits in
    /// the client, up to 64MiB for all partitions
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size)]
    pub in_flight_bytes: u64,
    /// How long a batch that is not full waits for more records; with 0 it waits only while others are in flight
    #[arg(long, value_name = "TIME", default_value = "0ms", value_parser = humantime::parse_duration)]
    #[serde(rename = "linger_us", serialize_with = "as_micros")]
    pub linger: Duration,
    /// none, gzip, snappy, lz4 or zstd
    #[arg(long, default_value = "none")]
    #[serde(serialize_with = "as_text")]
    pub compression: Compression,
}

impl LoadArgs {
    /// What one producer may hold, in bytes: what is in flight and as much again, so that the next batches are ready when
    /// there is room. More would only make records wait longer.
    pub fn client_memory(&self) -> u64 {
        let wanted = 2 * self.in_flight_bytes.saturating_mul(u64::from(self.partitions));
        wanted
            .min(CLIENT_BYTES_MAX)
            .max(2 * self.in_flight_bytes)
            .max(2 * self.batch_bytes)
    }
}

/// The client's own default.
const CLIENT_BYTES_MAX: u64 = 64 << 20;

/// How results are printed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    #[default]
    Table,
    /// One object on one line, for programs
    Json,
}

fn size(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse()?;
    match size.as_u64() {
        0 => Err("it must be more than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

fn record_size(text: &str) -> Result<usize, String> {
    let bytes = size(text)? as usize;
    if bytes > VALUE_SIZE_MAX {
        return Err(format!("it must be at most {VALUE_SIZE_MAX} bytes"));
    }
    Ok(bytes)
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("a number of seconds ({error})"))?;
    if (0.01..=1e6).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it must be from 0.01 to 1000000".to_owned())
    }
}

fn as_micros<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(time.as_micros() as u64)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this signature")]
fn as_text<S: Serializer>(value: &Compression, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_its_examples_are_legal() {
        Cli::command().debug_assert();
        for line in EXAMPLES
            .lines()
            .filter_map(|line| line.trim().strip_prefix("headwater-bench"))
        {
            // An explanation is set off by two spaces.
            let command = line.split("   ").next().unwrap_or_default();
            let words = std::iter::once("headwater-bench").chain(command.split_whitespace());
            Cli::try_parse_from(words).unwrap();
        }
    }

    #[test]
    fn sizes_out_of_range_are_refused() {
        for bad in [
            ["--record-size", "2MiB"],
            ["--record-size", "0"],
            ["--seconds", "0"],
            ["--partitions", "0"],
        ] {
            assert!(
                Cli::try_parse_from(["headwater-bench", "quick", bad[0], bad[1]]).is_err(),
                "{bad:?}"
            );
        }
    }
}
