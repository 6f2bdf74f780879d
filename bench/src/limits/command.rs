//! The command `limits`: what is asked for, how it is explained, and the table or the JSON object that comes of it.
//!
//! Nothing is left behind, however it ends: the one file it makes has no name.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use indicatif::ProgressBar;
use serde::Serialize;

use super::summary::Summary;
use super::{Config, LimitsError, Part, Probe, Selection, table};
use crate::cli::Output;
use crate::cost::{BrokerPlace, UsageWatch};
use crate::environment::{Environment, FileSystem};
use crate::progress;

/// What `--help` says.
pub const LONG_ABOUT: &str = "\
Measures what this machine can do, with nothing of the engine, the broker or the client: what other figures are shares of.

  disk         writes and reads in order past the page cache (O_DIRECT), 128 KiB and 1 MiB each, 8 in flight, into blocks that
               were written before. No log that is durable can take in more than the disk writes.
  flush        one 4 KiB write and fdatasync after the other; and the same as one write with RWF_DSYNC. What the lone record
               pays for being durable.
  loopback     one TCP connection, pieces of 256 KiB. No consumer on this machine can be served faster, but by sendfile.
  sendfile     the same, from the page cache by sendfile(2): the limit of hot consumption.
  round-trip   64 bytes there and back over loopback: two sends, two wake-ups.
  memory       copies that stay in the cache (hot), that do not (cold), and into memory that is touched for the first time
               (fresh: each page costs a fault); and CRC-32C. Each byte of a record is copied and checked at least once.
               Aliased: hot, with a target 16 bytes further into its page than the source, which stalls some processors.
  bare         the bare program: one thread with one io_uring that receives frames over TCP, writes them with O_DIRECT, flushes
               for many at once, and acknowledges what is durable. Fed with prepared bytes, 16 MiB in flight: the ceiling of
               durable throughput. Once with a flush for each 1 MiB, once for each 4 MiB.
  bare-built   the same, fed with 1 KiB records that a thread builds into batches as the client does. Counts their values.
  bare-push    the same as bare, and what is durable is pushed to a consumer.
  floor        100 byte records through the bare program, one at a time: from the send to the acknowledgement, and to the
               receipt at the consumer's connection. The floor of latency.
  floor-paced  the same at a fixed rate, from when each record was due, or could be sent if the load itself was late.

Throughput is in MB/s, 10^6 bytes each. Each figure takes --seconds. A machine that is busy with something else shows in the
spread of --repeat; compare figures only if they come from the same run.";

/// Options of `limits`.
#[derive(Debug, Clone, Args, Serialize)]
pub struct LimitsArgs {
    /// Measure only these, separated by commas [default: all]
    #[arg(long, value_enum, value_delimiter = ',', value_name = "PART,…")]
    only: Vec<Part>,
    /// How long each figure is measured
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    seconds: f64,
    /// How many times all is measured, in turns; the table shows the median, the lowest and the highest
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Directory on the disk to be measured [default: ./target, $TMPDIR, /var/tmp or ., whichever is a disk]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// Size of the file that the disk is measured with; 16MiB to 64GiB
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = size::<{ 16 << 20 }, { 64 << 30 }>)]
    #[serde(rename = "file_bytes")]
    file_size: u64,
    /// What is sent to the bare program and not acknowledged
    #[arg(long, value_name = "SIZE", default_value = "16MiB", value_parser = size::<1, { 1 << 30 }>)]
    in_flight_bytes: u64,
    /// Size of the frames that the bare program is fed with, and of the batches that are built; up to 8MiB
    #[arg(long, value_name = "SIZE", default_value = "256KiB", value_parser = size::<4096, { 8 << 20 }>)]
    batch_bytes: u64,
    /// Values of the records that are built; up to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = size::<1, { 1 << 20 }>)]
    #[serde(rename = "record_size_bytes")]
    record_size: u64,
    /// Records whose latency is measured; up to 1MiB
    #[arg(long, value_name = "SIZE", default_value = "100B", value_parser = size::<1, { 1 << 20 }>)]
    #[serde(rename = "floor_record_size_bytes")]
    floor_record_size: u64,
    /// How many of them are due in a second in `floor-paced`
    #[arg(long, value_name = "PER SECOND", default_value_t = 10_000)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: u32,
    /// CPU that the bare program is pinned to [default: none; the scheduler chooses]
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
    /// What to print on standard output
    #[arg(long, value_enum, default_value_t)]
    #[serde(skip)]
    output: Output,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Printed<'a> {
    workload: &'static str,
    #[serde(flatten)]
    summary: &'a Summary,
    config: &'a LimitsArgs,
    environment: Environment,
    notes: Vec<String>,
}

/// Measures. Returns what is to be printed.
pub fn run(args: &LimitsArgs) -> Result<String, LimitsError> {
    let mut args = args.clone();
    let directory = args.data_dir.get_or_insert_with(choose).clone();
    let selection = match args.only.as_slice() {
        [] => Selection::all(),
        only => Selection::of(only),
    };
    let mut probe = Probe::new(Config {
        file_bytes: args.file_size,
        time: Duration::from_secs_f64(args.seconds),
        in_flight_bytes: args.in_flight_bytes,
        batch_bytes: args.batch_bytes as usize,
        record_bytes: args.record_size as usize,
        floor_record_bytes: args.floor_record_size as usize,
        floor_records_per_s: args.rate,
        cpu: args.cpu,
        ..Config::new(&directory)
    });
    let bar = ProgressBar::new(u64::from(args.repeat) * selection.steps() as u64);
    let bar = progress::show(bar, "limits {bar:40} {pos}/{len} {msg}");
    let mut progress = |step: &str| {
        bar.inc(1);
        bar.set_message(step.to_owned());
    };
    let usage = UsageWatch::start(BrokerPlace::Elsewhere);
    let mut runs = Vec::new();
    for _ in 0..args.repeat {
        runs.push(probe.measure(&selection, &mut progress)?);
    }
    bar.finish_and_clear();
    let caution = usage.finish().caution().map(|caution| format!("CAUTION: {caution}"));
    let environment = Environment::look(Some(&directory));
    let printed = Printed {
        workload: "limits",
        summary: &Summary::of(&runs),
        config: &args,
        notes: caution.into_iter().chain(notes(&environment)).collect(),
        environment,
    };
    Ok(match args.output {
        Output::Table => table::text(printed.summary, args.repeat, &printed.environment, &printed.notes),
        Output::Json => {
            let line = serde_json::to_string(&printed).expect("figures have string keys only");
            format!("{line}\n")
        }
    })
}

fn notes(environment: &Environment) -> Vec<String> {
    let slow = (!environment.optimised).then(|| "built without optimisation: build with --release".to_owned());
    let disk = environment.filesystem.as_ref().filter(|found| !found.is_disk());
    let disk = disk.map(|found| format!("the file is on {found}: the figures are not those of a disk"));
    slow.into_iter().chain(disk).collect()
}

/// The first of the usual places that is a disk.
fn choose() -> PathBuf {
    let usual = ["target".into(), std::env::temp_dir(), "/var/tmp".into()];
    let mut places = usual.into_iter().filter(|place| place.is_dir());
    let found = places.find(|place| FileSystem::of(place).as_ref().is_some_and(FileSystem::is_disk));
    found.unwrap_or_else(|| PathBuf::from("."))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("a number of seconds ({error})"))?;
    if (0.01..=60.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("it must be from 0.01 to 60".to_owned())
    }
}

fn size<const MIN: u64, const MAX: u64>(text: &str) -> Result<u64, String> {
    let size: bytesize::ByteSize = text.parse()?;
    if (MIN..=MAX).contains(&size.as_u64()) {
        Ok(size.as_u64())
    } else {
        Err(format!("it must be from {MIN} to {MAX} bytes"))
    }
}
