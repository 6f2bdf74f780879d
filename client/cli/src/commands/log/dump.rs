//! `headwater log dump`: the batches of segment files, and their records.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use clap::{Args, ValueHint};
use headwater_protocol::batch::{BatchHeader, RecordView, TimestampType};
use headwater_protocol::id::Timestamp;
use serde_json::{Value, json};

use super::partition::{Partition, Segment};
use super::place::Place;
use super::segment::Batch;
use super::{Finding, check, failure};
use crate::args::Output;
use crate::failure::Failure;
use crate::json::JsonRecord;
use crate::values::rfc3339;

pub const EXAMPLES: &str = "\
Examples:
  headwater log dump /srv/headwater/orders-0
  headwater log dump /srv/headwater/orders-0/00000000000000000000.log --records
  headwater log dump /srv/headwater/orders-0 --from 4711 --max 1 --records
  headwater log dump /srv/headwater --output json | jq .batch.producer_id

Needs no broker, changes nothing and takes no lock. A batch has two lines: where in the file it begins, its first and last offset, \
records, bytes, codec and latest timestamp; then checksum, leader epoch, and the producer that numbered it, if one did. With \
`--output json` each line is an object with one of `batch`, `record`, `damage` or `unfinished`. Exit status 6: damage was found.";

/// Most characters of a key or a value in a table.
const SHOWN_MAX: usize = 48;

/// Options of `log dump`.
#[derive(Debug, Args)]
pub struct DumpArgs {
    /// A data directory, a partition's directory in it, or a segment (.log)
    #[arg(value_hint = ValueHint::AnyPath)]
    path: PathBuf,
    /// Print the records of each batch too
    #[arg(long)]
    records: bool,
    /// Begin with the batch that holds this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Print at most so many batches
    #[arg(long, value_name = "BATCHES")]
    max: Option<u64>,
}

/// Does what was asked for.
pub fn run(args: &DumpArgs, output: Output) -> Result<(), Failure> {
    let place = Place::read(&args.path)?;
    place.warn_if_in_use();
    let mut dump = Dump {
        args,
        output,
        out: std::io::BufWriter::new(std::io::stdout().lock()),
        batches: 0,
        damaged: 0,
    };
    for partition in &place.partitions {
        dump.partition(partition)?;
    }
    dump.out.flush()?;
    failure(dump.damaged)
}

struct Dump<'a, W: std::io::Write> {
    args: &'a DumpArgs,
    output: Output,
    out: W,
    batches: u64,
    damaged: u64,
}

impl<W: std::io::Write> Dump<'_, W> {
    fn is_done(&self) -> bool {
        self.args.max.is_some_and(|max| self.batches >= max)
    }

    fn partition(&mut self, partition: &Partition) -> Result<(), Failure> {
        for damage in &partition.damage {
            self.damaged += 1;
            self.tell(&damage.json(), &damage.text())?;
        }
        for segment in &partition.segments {
            let is_before = segment.next.is_some_and(|next| next <= self.args.from);
            if is_before || self.is_done() {
                continue;
            }
            self.segment(partition, segment)?;
        }
        Ok(())
    }

    fn segment(&mut self, partition: &Partition, segment: &Segment) -> Result<(), Failure> {
        let mut has_title = false;
        check(segment, |finding| {
            match finding {
                Finding::Batch(batch) if batch.header().next_offset().get() <= self.args.from => {}
                Finding::Batch(batch) => {
                    self.batches += 1;
                    if self.output == Output::Table && !std::mem::replace(&mut has_title, true) {
                        self.title(segment)?;
                    }
                    self.batch(partition, segment, &batch)?;
                }
                Finding::Damage(damage) => {
                    self.damaged += 1;
                    self.tell(&damage.json(), &damage.text())?;
                }
                Finding::Unfinished(unfinished) => self.tell(&unfinished.json(), &unfinished.text())?,
            }
            Ok(!self.is_done())
        })
    }

    fn tell(&mut self, json: &Value, text: &str) -> Result<(), Failure> {
        match self.output {
            Output::Json => writeln!(self.out, "{json}")?,
            Output::Table => writeln!(self.out, "{text}")?,
        }
        Ok(())
    }

    fn title(&mut self, segment: &Segment) -> Result<(), Failure> {
        writeln!(self.out, "{}", segment.path.display())?;
        let titles = [
            "POSITION",
            "FIRST",
            "LAST",
            "COUNT",
            "BYTES",
            "CODEC",
            "LATEST TIMESTAMP",
        ];
        let [position, first, last, count, bytes, codec, time] = titles;
        Ok(writeln!(
            self.out,
            "{position:>10} {first:>10} {last:>10} {count:>6} {bytes:>8} {codec:<6} {time}"
        )?)
    }

    fn batch(&mut self, partition: &Partition, segment: &Segment, batch: &Batch) -> Result<(), Failure> {
        if self.output == Output::Json {
            writeln!(self.out, "{}", batch_json(partition, segment, batch))?;
        } else {
            self.out.write_all(batch_text(batch).as_bytes())?;
        }
        if !self.args.records {
            return Ok(());
        }
        let (topic, number) = partition.split_name();
        for record in &batch.records() {
            let record = record.map_err(|error| Failure::failed(error.to_string()))?;
            if record.offset.get() < self.args.from {
                continue;
            }
            if self.output == Output::Json {
                writeln!(
                    self.out,
                    "{}",
                    json!({"record": JsonRecord::new(topic, number, &record)})
                )?;
            } else {
                self.out.write_all(record_text(&record).as_bytes())?;
            }
        }
        Ok(())
    }
}

fn batch_json(partition: &Partition, segment: &Segment, batch: &Batch) -> Value {
    let header = batch.header();
    let (topic, number) = partition.split_name();
    let has_producer = header.producer_id().is_some();
    let producer = |value: i64| has_producer.then_some(value);
    json!({"batch": {
        "topic": topic,
        "partition": number,
        "file": segment.path,
        "position": batch.position,
        "size_bytes": batch.size(),
        "base_offset": header.base_offset().get(),
        "last_offset": header.last_offset().get(),
        "records": header.record_count(),
        "codec": header.compression().to_string(),
        "base_timestamp": header.base_timestamp().get(),
        "max_timestamp": header.max_timestamp().get(),
        "timestamp_type": timestamp_type(header),
        "leader_epoch": header.leader_epoch().get(),
        "producer_id": producer(header.producer_id().get()),
        "producer_epoch": producer(header.producer_epoch().get().into()),
        "base_sequence": producer(header.base_sequence().get().into()),
        "last_sequence": producer(header.last_sequence().get().into()),
        "crc": header.crc(),
        "is_control": header.is_control(),
        "is_transactional": header.is_transactional(),
        "delete_horizon": header.delete_horizon().map(Timestamp::get),
    }})
}

fn timestamp_type(header: BatchHeader<'_>) -> &'static str {
    match header.timestamp_type() {
        TimestampType::CreateTime => "CreateTime",
        TimestampType::LogAppendTime => "LogAppendTime",
    }
}

fn batch_text(batch: &Batch) -> String {
    let header = batch.header();
    let mut text = format!(
        "{:>10} {:>10} {:>10} {:>6} {:>8} {:<6} {}\n",
        batch.position,
        header.base_offset().get(),
        header.last_offset().get(),
        header.record_count(),
        batch.size(),
        header.compression().to_string(),
        time(header.max_timestamp()),
    );
    let mut facts = vec![
        format!("crc {:#010x}", header.crc()),
        format!("epoch {}", header.leader_epoch().get()),
    ];
    if header.producer_id().is_some() {
        let sequences = (header.base_sequence().get(), header.last_sequence().get());
        facts.push(format!(
            "producer {} epoch {} sequence {}-{}",
            header.producer_id().get(),
            header.producer_epoch().get(),
            sequences.0,
            sequences.1
        ));
    }
    if header.timestamp_type() == TimestampType::LogAppendTime {
        facts.push("time of the append".to_owned());
    }
    if let Some(horizon) = header.delete_horizon() {
        facts.push(format!("tombstones until {}", time(horizon)));
    }
    facts.extend(header.is_transactional().then(|| "transactional".to_owned()));
    facts.extend(header.is_control().then(|| "control".to_owned()));
    // A string takes all that is written.
    let _ = writeln!(text, "    {}", facts.join(", "));
    text
}

fn record_text(record: &RecordView<'_>) -> String {
    let mut text = format!(
        "    {} {}  {}: {}",
        record.offset.get(),
        time(record.timestamp),
        shown(record.key),
        shown(record.value)
    );
    for header in record.headers.clone() {
        let name = shown(Some(header.key.as_bytes()));
        // A string takes all that is written.
        let _ = write!(text, "  [{name}: {}]", shown(header.value));
    }
    text + "\n"
}

fn time(timestamp: Timestamp) -> String {
    if timestamp.is_some() {
        rfc3339(timestamp)
    } else {
        "-".to_owned()
    }
}

/// A key or a value on one line, whatever bytes it has; the start of a long one.
fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let start = &bytes[..bytes.len().min(4 * SHOWN_MAX)];
    let (mut text, mut count) = (String::from('"'), 0);
    for chunk in start.utf8_chunks() {
        for letter in chunk.valid().chars() {
            count += 1;
            if count <= SHOWN_MAX {
                text.extend(letter.escape_debug());
            }
        }
        for byte in chunk.invalid() {
            count += 1;
            if count <= SHOWN_MAX {
                // A string takes all that is written.
                let _ = write!(text, "\\x{byte:02x}");
            }
        }
    }
    text.push('"');
    if count > SHOWN_MAX || start.len() < bytes.len() {
        // A string takes all that is written.
        let _ = write!(text, "… {} bytes", bytes.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_record_holds_is_one_line_that_a_terminal_obeys_in_nothing() {
        assert_eq!(shown(None), "null");
        assert_eq!(shown(Some(b"plain \xc3\xa9")), "\"plain é\"");
        assert_eq!(shown(Some(b"\x1b[2J\n\"\xff")), r#""\u{1b}[2J\n\"\xff""#);
        assert_eq!(shown(Some("\u{202e}\u{9b}".as_bytes())), r#""\u{202e}\u{9b}""#);
        let long = shown(Some(&[b'x'; 1000]));
        assert_eq!(long, format!("\"{}\"… 1000 bytes", "x".repeat(SHOWN_MAX)));
        assert!(shown(Some(&[0xff; 1000])).ends_with("… 1000 bytes"));
    }
}
