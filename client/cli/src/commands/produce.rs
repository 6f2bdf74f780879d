//! `headwater produce`: records from lines, JSON, or a whole file.
//!
//! ```text
//! reader thread: file or standard input -> pieces of many lines -> channel -> [pace] -> Producer::send -> tally
//! ```
//! A thread reads, so that a slow input never delays what was read; it hands over whatever lines it has without waiting for
//! more. Every acknowledgement is looked at, also while nothing comes in. A record that is refused for what it is, is named by its
//! line, and the others go on; any other failure ends the reading.

mod input;
mod outcomes;
mod tally;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use clap_complete::ArgValueCandidates;
use headwater_client::{Acks, Compression, HeaderRef, PartitionIndex, Producer, Record, Timestamp};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::time::Instant;

use self::input::{Input, Line};
use self::outcomes::{Outcomes, is_of_the_record};
use crate::complete;
use crate::failure::Failure;
use crate::json::Part;
use crate::session::{Session, chosen};
use crate::values::{self, Separator};

/// Deliveries that may wait to be looked at.
const PENDING_MAX: usize = 1 << 16;
/// How long a record may take while others are stored.
const DELIVERY_TIMEOUT_MIN: Duration = Duration::from_mins(2);

pub const EXAMPLES: &str = "\
Examples:
  headwater produce orders                                   # type lines, end with Ctrl-D
  headwater produce orders lines.txt                         # each line of the file is a value
  echo 'Ada:one book' | headwater produce orders --key-separator :
  headwater produce orders lines.txt --compression zstd --header source=import --rate 500
  headwater produce orders picture.jpg --input raw --key picture
  headwater consume orders --output json | headwater produce copy --input json

A line without the separator is refused, so that no key is lost by a slip; use \\t for a tab. JSON input has one object a \
line, as `consume --output json` prints it: key, value, headers, partition, timestamp (topic and offset are ignored); bytes \
that are no text are base64 in key_base64 and value_base64. \
A record counts as stored when it is on stable storage. One that is refused for what it is, as for its size, is named by its \
line and the others go on; the exit status is 5 then. Any other failure ends the command, and so does a time of --timeout in \
which nothing is stored though records wait for it. What was stored is counted in any case.";

/// Options of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
    #[arg(add = ArgValueCandidates::new(complete::topics))]
    topic: String,
    /// The file; standard input if there is none, or for -
    #[arg(value_hint = ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// What the input holds: a value on each line, a JSON object on each line, or one value byte for byte (raw)
    #[arg(
        short,
        long,
        value_enum,
        default_value_t,
        value_name = "KIND",
        help_heading = "Records"
    )]
    input: InputKind,
    /// What stands between key and value on each line
    #[arg(short = 'k', long, value_name = "TEXT", value_parser = values::separator, help_heading = "Records", conflicts_with = "key")]
    key_separator: Option<Separator>,
    /// The key of every record
    #[arg(long, value_name = "TEXT", help_heading = "Records")]
    key: Option<String>,
    /// A header of every record; several times for several
    #[arg(short = 'H', long = "header", value_name = "NAME=VALUE", value_parser = values::pair, help_heading = "Records")]
    headers: Vec<(String, String)>,
    /// An empty value is stored as null, which deletes the key from a compacted topic
    #[arg(long, help_heading = "Records")]
    empty_as_null: bool,
    /// The partition of every record [default: by the key's hash; without a key as it suits]
    #[arg(short, long, value_name = "NUMBER", help_heading = "Where and how")]
    partition: Option<i32>,
    /// How batches are compressed
    #[arg(
        short = 'z',
        long,
        value_enum,
        default_value_t,
        value_name = "CODEC",
        help_heading = "Where and how"
    )]
    compression: Codec,
    /// Who must have a record on stable storage before it counts as stored: all replicas that are in sync, the leader, or
    /// nobody, so that records may be lost unnoticed
    #[arg(
        long,
        value_enum,
        default_value_t,
        value_name = "WHO",
        help_heading = "Where and how"
    )]
    acks: AcksArg,
    /// Records a second [default: as fast as it goes]
    #[arg(long, value_name = "NUMBER", value_parser = rate, help_heading = "Where and how")]
    rate: Option<f64>,
}

/// What the input holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum InputKind {
    #[default]
    Lines,
    Json,
    Raw,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Codec {
    #[default]
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl From<Codec> for Compression {
    fn from(codec: Codec) -> Self {
        match codec {
            Codec::None => Self::None,
            Codec::Gzip => Self::Gzip,
            Codec::Snappy => Self::Snappy,
            Codec::Lz4 => Self::Lz4,
            Codec::Zstd => Self::Zstd,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum AcksArg {
    #[default]
    #[value(alias = "-1")]
    All,
    #[value(alias = "1")]
    Leader,
    #[value(alias = "0")]
    None,
}

impl From<AcksArg> for Acks {
    fn from(acks: AcksArg) -> Self {
        match acks {
            AcksArg::All => Self::All,
            AcksArg::Leader => Self::Leader,
            AcksArg::None => Self::None,
        }
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|error| format!("{error}"))?;
    // A schedule needs steps that a clock has.
    if (1e-3..=1e8).contains(&rate) {
        Ok(rate)
    } else {
        Err("must be from 0.001 to 100000000".to_owned())
    }
}

/// Does what was asked for.
pub async fn run(session: &Session, args: ProduceArgs) -> Result<(), Failure> {
    let topic = session.topic(&args.topic).await?;
    if let Some(partition) = args.partition {
        chosen(&topic, &[partition])?;
    }
    let producer = session.client.producer();
    let producer = producer.compression(args.compression.into()).acks(args.acks.into());
    // Ends before --timeout only what others have long overtaken.
    let producer = producer.delivery_timeout(DELIVERY_TIMEOUT_MIN.max(session.timeout.saturating_mul(2)));
    let producer = producer.build().await;
    let producer = producer.map_err(|error| Failure::client("start a producer", &error))?;
    let input = Input::open(args.file.as_deref(), args.input == InputKind::Raw)?;
    if input.is_typed {
        anstream::eprintln!("type a record on each line; Ctrl-D ends");
    }
    let bar = progress(&input);
    let mut work = Work {
        outcomes: Outcomes::new(producer.clone(), session.timeout),
        args,
        producer,
        started: Instant::now(),
    };
    let done = tokio::select! {
        done = work.read_all(input, &bar) => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // What was taken before a failure or Ctrl-C is stored all the same, unless somebody cannot wait.
    tokio::select! {
        () = work.outcomes.settle(0) => {}
        _ = tokio::signal::ctrl_c() => work.outcomes.abandon(),
    }
    bar.finish_and_clear();
    let (topic, Outcomes { tally, failure, .. }) = (&work.args.topic, work.outcomes);
    let Some(failure) = done.err().or(failure) else {
        tally.show(session, topic)?;
        return tally.refusal().map_or(Ok(()), Err);
    };
    // After Ctrl-C only somebody who watches is told.
    if !failure.is_interruption() || std::io::stderr().is_terminal() {
        tally.tell(topic);
    }
    Err(failure)
}

/// A bar while a file is read and somebody watches.
fn progress(input: &Input) -> ProgressBar {
    let Some(size) = input.size else {
        return ProgressBar::hidden();
    };
    // Draws nothing where standard error is no terminal.
    let bar = ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::stderr());
    let template = "{bar:40} {percent:>3}% {binary_bytes_per_sec}, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(template).expect("the template is legal"));
    bar
}

struct Work {
    args: ProduceArgs,
    producer: Producer,
    outcomes: Outcomes,
    started: Instant,
}

impl Work {
    /// Sends all that comes in; ends early when records cannot be stored.
    async fn read_all(&mut self, mut input: Input, bar: &ProgressBar) -> Result<(), Failure> {
        let mut sent = 0;
        loop {
            let piece = tokio::select! {
                piece = input.next() => piece,
                () = self.outcomes.failed() => return Ok(()),
            };
            let Some(piece) = piece else { return Ok(()) };
            for line in piece? {
                if let Some(rate) = self.args.rate {
                    let due = self.started + Duration::from_secs_f64(sent as f64 / rate);
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.outcomes.failed() => return Ok(()),
                    }
                }
                self.send(&line).await.map_err(|failure| failure_at(failure, &line))?;
                if self.outcomes.failure.is_some() {
                    return Ok(());
                }
                sent += 1;
                bar.set_position(line.end);
            }
            if !bar.is_hidden() {
                bar.set_message(values::count(sent, "record"));
            }
        }
    }

    async fn send(&mut self, line: &Line) -> Result<(), Failure> {
        let fields = self.fields(line).map_err(Failure::failed)?;
        let args = &self.args;
        let own = args.headers.iter().map(|(name, value)| HeaderRef {
            key: name,
            value: Some(value.as_bytes()),
        });
        let read = fields.headers.iter().map(|(name, value)| HeaderRef {
            key: name,
            value: value.as_deref(),
        });
        let headers: Vec<_> = read.chain(own).collect();
        let mut record = Record::to(&args.topic).headers(&headers);
        if let Some(key) = &fields.key {
            record = record.key(key);
        }
        if let Some(value) = fields
            .value
            .as_ref()
            .filter(|value| !(args.empty_as_null && value.is_empty()))
        {
            record = record.value(value);
        }
        if let Some(partition) = args.partition.or(fields.partition) {
            let partition = PartitionIndex::try_from(partition).map_err(|error| Failure::failed(error.to_string()))?;
            record = record.partition(partition);
        }
        if let Some(timestamp) = fields.timestamp {
            record = record.timestamp(Timestamp::new(timestamp));
        }
        let sent = tokio::select! {
            biased;
            sent = self.producer.send(record) => sent,
            // It waits for memory, which others have.
            () = self.outcomes.failed() => return Ok(()),
        };
        match sent {
            Ok(delivery) => self.outcomes.expect(line.number, delivery),
            Err(error) if is_of_the_record(&error) => self.outcomes.tally.refuse(line.number, error),
            Err(error) => return Err(Failure::client("store the record", &error)),
        }
        self.outcomes.settle(PENDING_MAX).await;
        Ok(())
    }

    /// What a line says of its record.
    fn fields(&self, line: &Line) -> Result<Fields, String> {
        let bytes = &line.bytes;
        let key = self.args.key.as_ref().map(|key| key.clone().into_bytes());
        if self.args.input == InputKind::Json {
            let record: crate::json::JsonRecord =
                serde_json::from_slice(bytes).map_err(|error| format!("not a record: {error}"))?;
            return Ok(Fields {
                key: key.or(record.key()?),
                value: record.value()?,
                headers: record.headers()?,
                partition: record.partition,
                timestamp: record.timestamp,
            });
        }
        let mut fields = Fields {
            key,
            ..Fields::default()
        };
        match &self.args.key_separator {
            Some(Separator(separator)) => {
                let at = bytes.windows(separator.len()).position(|window| window == separator);
                let at =
                    at.ok_or("it has no key: the separator is not there; without --key-separator lines have none")?;
                fields.key = Some(bytes[..at].to_vec());
                fields.value = Some(bytes[at + separator.len()..].to_vec());
            }
            None => fields.value = Some(bytes.clone()),
        }
        Ok(fields)
    }
}

/// What is known of a record.
#[derive(Default)]
struct Fields {
    key: Part,
    value: Part,
    headers: Vec<(String, Part)>,
    partition: Option<i32>,
    timestamp: Option<i64>,
}

/// The failure with the line at which it came.
fn failure_at(failure: Failure, line: &Line) -> Failure {
    failure.at(&format!("line {}", line.number))
}
