//! `headwater produce`: records from lines, JSON, or a whole file.
//!
//! ```text
//! reader thread: file or standard input -> pieces of many lines -> channel -> [pace] -> Producer::send -> tally
//! ```
//! A thread reads, so that a slow input never delays what was read; it hands over whatever lines it has without waiting for
//! more. Every acknowledgement is looked at.

mod input;

use std::collections::{BTreeMap, VecDeque};
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum, ValueHint};
use headwater_client::{
    Acks, Compression, Delivery, HeaderRef, PartitionIndex, Producer, Record, RecordMetadata, Timestamp,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use tokio::time::Instant;

use self::input::{Input, Line};
use crate::failure::Failure;
use crate::json::Part;
use crate::session::{Session, chosen};
use crate::values::{self, Separator};

/// Deliveries that may wait to be looked at.
const PENDING_MAX: usize = 1 << 16;

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
A record counts as stored when it is on stable storage; any other outcome ends the command with a failure.";

/// Options of `produce`.
#[derive(Debug, Args)]
pub struct ProduceArgs {
    /// The topic
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
    let producer = producer.build().await;
    let producer = producer.map_err(|error| Failure::client("start a producer", &error))?;
    let input = Input::open(args.file.as_deref(), args.input == InputKind::Raw)?;
    if input.is_typed {
        anstream::eprintln!("type a record on each line; Ctrl-D ends");
    }
    let bar = progress(&input);
    let mut work = Work {
        args,
        producer,
        tally: Tally::default(),
        pending: VecDeque::new(),
        started: Instant::now(),
    };
    let done = tokio::select! {
        done = work.read_all(input, &bar) => done,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // What was taken before a failure or Ctrl-C is stored all the same.
    let settled = work.settle(0).await;
    bar.finish_and_clear();
    let result = done.and(settled);
    match &result {
        Ok(()) => work.tally.show(session, &work.args.topic)?,
        // After Ctrl-C only somebody who watches is told.
        Err(failure) if work.tally.records > 0 && (!failure.is_interruption() || std::io::stderr().is_terminal()) => {
            let stored = values::count(work.tally.records, "record");
            anstream::eprintln!("{stored} had been stored in {} before that", work.args.topic);
        }
        Err(_) => {}
    }
    result
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
    tally: Tally,
    pending: VecDeque<Delivery>,
    started: Instant,
}

impl Work {
    async fn read_all(&mut self, mut input: Input, bar: &ProgressBar) -> Result<(), Failure> {
        let mut sent = 0;
        while let Some(piece) = input.next().await {
            for line in piece? {
                if let Some(rate) = self.args.rate {
                    let due = self.started + Duration::from_secs_f64(sent as f64 / rate);
                    tokio::time::sleep_until(due).await;
                }
                self.send(&line).await.map_err(|failure| failure_at(failure, &line))?;
                sent += 1;
                bar.set_position(line.end);
            }
            if !bar.is_hidden() {
                bar.set_message(values::count(sent, "record"));
            }
        }
        Ok(())
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
        let delivery = self.producer.send(record).await;
        let delivery = delivery.map_err(|error| Failure::client("store the record", &error))?;
        self.pending.push_back(delivery);
        self.settle(PENDING_MAX).await
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

    /// Waits until at most so many records are without an outcome.
    async fn settle(&mut self, left: usize) -> Result<(), Failure> {
        while self.pending.len() > left {
            let Some(delivery) = self.pending.front_mut() else {
                break;
            };
            let outcome = delivery.await;
            self.pending.pop_front();
            let stored = outcome.map_err(|error| Failure::client("store a record", &error))?;
            self.tally.add(&stored);
        }
        Ok(())
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

/// What has been stored, and where.
#[derive(Debug, Default)]
struct Tally {
    records: u64,
    /// By partition.
    partitions: BTreeMap<i32, Stored>,
}

/// Records, and their first and last offset if those are known.
type Stored = (u64, Option<(u64, u64)>);

impl Tally {
    fn add(&mut self, stored: &RecordMetadata) {
        self.records += 1;
        let (records, offsets) = self.partitions.entry(stored.partition.get()).or_default();
        *records += 1;
        if let Some(offset) = stored.offset {
            let (first, last) = offsets.get_or_insert((offset.get(), offset.get()));
            (*first, *last) = ((*first).min(offset.get()), (*last).max(offset.get()));
        }
    }

    fn show(&self, session: &Session, topic: &str) -> Result<(), Failure> {
        session.screen.show(
            || {
                let partition = |(number, (records, offsets)): (&i32, &Stored)| {
                    let (first, last) = offsets.unzip();
                    json!({"partition": number, "records": records, "first_offset": first, "last_offset": last})
                };
                let partitions: Vec<_> = self.partitions.iter().map(partition).collect();
                json!({"topic": topic, "records": self.records, "partitions": partitions})
            },
            || {
                let place = |(number, (_, offsets)): (&i32, &Stored)| match offsets {
                    None => format!("partition {number}"),
                    Some((first, last)) if first == last => format!("partition {number} at offset {first}"),
                    Some((first, last)) => format!("partition {number} at offsets {first} to {last}"),
                };
                let places: Vec<_> = self.partitions.iter().map(place).collect();
                let places = match places.len() {
                    0 => String::new(),
                    1..=8 => format!(": {}", places.join(", ")),
                    many => format!(" in {many} partitions"),
                };
                format!("stored {} in {topic}{places}\n", values::count(self.records, "record"))
            },
        )
    }
}
