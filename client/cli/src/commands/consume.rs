//! `headwater consume`: records to standard output.
//!
//! Where to begin and, without `--follow`, where to end is looked up first, for each partition. Records are written into a
//! buffer that is flushed whenever the next would have to be waited for. A partition is at its end when the consumer's position
//! is, whether or not there was a record at the last offsets; what was passed without one is said.

mod outage;
mod passed;
mod ranges;

use std::collections::HashMap;
use std::io::{BufWriter, StdoutLock, Write as _};
use std::time::Duration;

use clap::Args;
use clap_complete::ArgValueCandidates;
use futures::FutureExt as _;
use headwater_client::{
    Advance, Consumer, Error, GroupConsumer, Offset, PartitionIndex, RecordView, Records, Skip, SkipCause, TopicName,
};
use regex::Regex;

use self::outage::Outage;
use self::passed::Passed;
use self::ranges::{EndArgs, Range, StartArgs};
use crate::complete;
use crate::failure::Failure;
use crate::format::Format;
use crate::json::JsonRecord;
use crate::screen::{is_terminal, note};
use crate::session::Session;
use crate::values::{self, Bytes, Separator};

pub const EXAMPLES: &str = "\
Examples:
  headwater consume orders                                   # all that is there, then stop
  headwater consume orders --follow                          # and go on with what comes
  headwater consume orders --from-end --follow               # only what comes from now on
  headwater consume orders --last 10                         # the last 10 of each partition
  headwater consume orders --from-time '10m ago' --key-separator ': '
  headwater consume orders --partition 0 --from-offset 1000 --count 5
  headwater consume orders --from-time '2h ago' --until-time '1h ago'
  headwater consume orders --key Ada                         # only records with this key
  headwater consume orders payments --format '%t: %v\\n'      # several topics
  headwater consume --pattern 'orders-.*' --output json      # all topics with such a name
  headwater consume orders --group billing                   # share the partitions with all who say the same
  headwater consume orders --rack zone-b                     # from replicas that are near, where there are any
  headwater consume orders --output json                     # one JSON object a line, for jq or `produce --input json`
  headwater consume orders --format '%p@%o %D %k=%v\\n'
  headwater consume orders --raw > values.bin                # values byte for byte, nothing between them

Format: %t topic, %p partition, %o offset, %T timestamp in milliseconds, %D the same as date and time, %k key, %v value, \
%h headers as name=value joined by commas, %K and %V sizes of key and value in bytes (-1 is null), %% a percent sign; \
\\n \\t \\r \\0 \\\\ \\xHH as usual. Nothing is added between records.

Records of one partition come in their order; partitions come as they please. Without --follow it stops at the records that \
were there when it began; with it, partitions that the topic gets later are read too, from their first record. With --group also \
topics that get a name of the pattern later. With --follow or --group it waits while no broker answers, and says so. Offsets that \
hold no record, as after compaction, and those that were deleted before they could be read are counted on standard error.

On a terminal, bytes of records that it would obey are shown as \\xHH; in a pipe, and with --raw, they are as they are.";

/// Options of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topics
    #[arg(
        value_name = "TOPIC",
        required_unless_present = "pattern",
        add = ArgValueCandidates::new(complete::topics)
    )]
    topics: Vec<String>,
    /// All topics whose whole name matches this regular expression
    #[arg(long, value_name = "REGEX", value_parser = values::pattern, conflicts_with = "topics")]
    pattern: Option<Regex>,
    /// Only this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    /// Only records with this key; \n \t \r \0 \\ \xHH as usual
    #[arg(long, value_name = "KEY", value_parser = values::bytes)]
    key: Option<Bytes>,
    #[command(flatten)]
    start: StartArgs,
    #[command(flatten)]
    end: EndArgs,
    /// Go on with what comes after the end, until Ctrl-C
    #[arg(short, long, help_heading = "Where to end")]
    follow: bool,
    /// Share the topic's partitions with the other members of this group, and go on where it was; until Ctrl-C
    #[arg(
        short,
        long,
        value_name = "GROUP",
        conflicts_with_all = ["partitions", "from_end", "from_offset", "from_time", "last", "until_offset", "until_time"],
        help_heading = "Where to begin",
        add = ArgValueCandidates::new(complete::groups)
    )]
    group: Option<String>,
    /// With --group, how long after this program has died its partitions go to others
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "45s", requires = "group")]
    session_timeout: Duration,
    /// Read from in-sync replicas on brokers whose broker.rack is this, where there are any
    #[arg(long, value_name = "RACK")]
    rack: Option<String>,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "NUMBER", help_heading = "Where to end")]
    count: Option<u64>,
    #[command(flatten)]
    form: FormArgs,
}

/// How records are written. JSON is asked for by `--output json`.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct FormArgs {
    /// Print the key and this text before each value
    #[arg(short = 'k', long, value_name = "TEXT", value_parser = values::separator, help_heading = "How records are written")]
    key_separator: Option<Separator>,
    /// Print each record in this form; see below
    #[arg(long, value_name = "FORMAT", value_parser = Format::parse, help_heading = "How records are written")]
    format: Option<Format>,
    /// Print values only, byte for byte, with nothing between them
    #[arg(long, help_heading = "How records are written")]
    raw: bool,
}

/// Does what was asked for.
pub async fn run(session: &Session, args: &ConsumeArgs) -> Result<(), Failure> {
    let form = form(session, &args.form)?;
    let topics = ranges::topics(session, args).await?;
    if let Some(group) = &args.group {
        return run_in_group(session, args, form, group).await;
    }
    let mut reading = ranges::ranges(session, &topics, args).await?;
    if !args.follow {
        reading.retain(|range| range.start < range.end);
    }
    if args.count == Some(0) {
        return Ok(());
    }
    if reading.is_empty() {
        note(&ranges::nothing(args));
        return Ok(());
    }
    let consumer = ranges::consumer(session, args, &topics, &reading).await?;
    let end = |range: &Range| ((range.topic.clone(), range.partition), range.end);
    let ends = (!args.follow).then(|| reading.iter().map(end).collect());
    let mut reader = Reader::new(form, args, ends);
    let read = tokio::select! {
        read = reader.run(consumer) => read,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // Also what came before a failure.
    reader.finish()?;
    if read.is_ok() && reader.has_printed_nothing() {
        note(&ranges::no_record(args));
    }
    read
}

/// As a member of a group: what was printed is committed, and Ctrl-C leaves the group.
async fn run_in_group(session: &Session, args: &ConsumeArgs, form: Form, group: &str) -> Result<(), Failure> {
    let what = ranges::what(args);
    let failure = |error: Error| Failure::client(&format!("consume {what} in group {group}"), &error);
    let builder = session.client.group_consumer(group);
    let builder = match &args.pattern {
        Some(pattern) => builder.pattern(pattern.clone()),
        None => builder.topics(&args.topics),
    };
    let builder = builder
        .fetching(|fetching| match &args.rack {
            Some(rack) => fetching.rack(rack.as_str()),
            None => fetching,
        })
        .session_timeout(args.session_timeout)
        .heartbeat_interval((args.session_timeout / 10).min(Duration::from_secs(3)));
    let mut consumer = builder.build().await.map_err(failure)?;
    let mut reader = Reader::new(form, args, None);
    let read = tokio::select! {
        read = reader.run_in_group(&mut consumer, failure) => read,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    reader.finish()?;
    // Whoever does not want to wait for an answer interrupts it again.
    tokio::select! {
        closed = consumer.close() => closed.map_err(failure)?,
        _ = tokio::signal::ctrl_c() => {}
    }
    read
}

enum Form {
    Json,
    Text(Format),
}

/// Where a partition ends, by its place.
type PartitionEnds = HashMap<(TopicName, PartitionIndex), u64>;

fn form(session: &Session, args: &FormArgs) -> Result<Form, Failure> {
    let is_text = args.format.is_some() || args.raw || args.key_separator.is_some();
    if session.screen.is_json() {
        if is_text {
            return Err(Failure::usage(
                "--output json does not go with --format, --raw or --key-separator",
            ));
        }
        return Ok(Form::Json);
    }
    Ok(Form::Text(match (&args.format, args.raw) {
        (Some(format), _) => format.clone(),
        (None, true) => Format::raw(),
        (None, false) => Format::lines(args.key_separator.as_ref().map(|separator| separator.0.as_slice())),
    }))
}

struct Reader<'a> {
    out: BufWriter<StdoutLock<'static>>,
    form: Form,
    /// Of a record's own bytes, what a terminal would obey is escaped.
    escapes: bool,
    /// What is read, in words.
    what: String,
    /// Only records with this key.
    key: Option<&'a [u8]>,
    /// How many records may be printed, and how many still may.
    count: u64,
    left: u64,
    /// Partitions that are not at their end yet; `None` follows for ever.
    ends: Option<PartitionEnds>,
    passed: Passed,
}

impl<'a> Reader<'a> {
    fn new(form: Form, args: &'a ConsumeArgs, ends: Option<PartitionEnds>) -> Self {
        let count = args.count.unwrap_or(u64::MAX);
        Self {
            out: BufWriter::with_capacity(1 << 18, std::io::stdout().lock()),
            form,
            escapes: is_terminal() && !args.form.raw,
            what: ranges::what(args),
            key: args.key.as_ref().map(|key| key.0.as_slice()),
            count,
            left: count,
            ends,
            passed: Passed::default(),
        }
    }

    fn has_printed_nothing(&self) -> bool {
        self.left == self.count
    }

    /// Says what has not been said.
    fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.passed.report();
        Ok(())
    }

    async fn run(&mut self, mut consumer: Consumer) -> Result<(), Failure> {
        let doing = format!("read {}", self.what);
        let failure = |error: Error| Failure::client(&doing, &error);
        let mut outage = Outage::default();
        while self.left > 0 && self.ends.as_ref().is_none_or(|ends| !ends.is_empty()) {
            let ready = consumer.advance().now_or_never();
            if ready.is_none() {
                // What there is should be seen before the next is waited for.
                self.out.flush()?;
            }
            let next = match (ready, &self.ends) {
                (Some(Ok(next)), _) => Ok(next),
                (ready, None) => outage.outlast(&mut consumer, ready.and_then(Result::err)).await,
                (Some(failed), Some(_)) => failed,
                (None, Some(_)) => consumer.advance().await,
            };
            match next.map_err(failure)? {
                Advance::Records(records) => drop(self.write(&records)?),
                Advance::Skip(skip) => self.skip(&skip)?,
            }
        }
        Ok(())
    }

    /// What was not printed to its end is not committed.
    async fn run_in_group(
        &mut self,
        consumer: &mut GroupConsumer,
        failure: impl Fn(Error) -> Failure,
    ) -> Result<(), Failure> {
        let mut outage = Outage::default();
        while self.left > 0 {
            let records = match outage.outlast(consumer, None).await {
                Ok(Advance::Records(records)) => records,
                Ok(Advance::Skip(skip)) => {
                    self.skip(&skip)?;
                    continue;
                }
                Err(error @ (Error::PartitionsLost { .. } | Error::PollIntervalExceeded { .. })) => {
                    note(&format!("{error}; some records may be printed again"));
                    continue;
                }
                Err(error) => return Err(failure(error)),
            };
            let written = self
                .write(&records)
                .and_then(|next| Ok(self.out.flush().map(|()| next)?));
            let next = written.as_ref().map_or(records.first_offset(), |next| *next);
            if next < records.next_offset() {
                let sought = consumer.seek(records.topic().as_str(), records.partition(), next).await;
                sought.map_err(&failure)?;
            }
            written?;
        }
        Ok(())
    }

    /// Takes note of a position that has moved without a record.
    fn skip(&mut self, skip: &Skip) -> Result<(), Failure> {
        let Some(ends) = &mut self.ends else {
            if let Some(news) = passed::news(skip) {
                self.out.flush()?;
                note(&news);
            }
            self.passed.skipped(skip, u64::MAX);
            return Ok(());
        };
        let place = (skip.topic.clone(), skip.partition);
        let Some(&end) = ends.get(&place) else {
            return Ok(());
        };
        self.passed.skipped(skip, end);
        if skip.to < skip.from || skip.cause == SkipCause::Recreated {
            // What the end was looked up for is gone, and may never come again.
            let news = passed::news(skip).unwrap_or_default();
            return Err(Failure::not_found(format!(
                "cannot read topic {} to its end: {news}",
                skip.topic
            )));
        }
        if skip.to.get() >= end {
            ends.remove(&place);
        }
        Ok(())
    }

    /// Returns the offset after the last record that was printed, or was not to be.
    fn write(&mut self, records: &Records) -> Result<Offset, Failure> {
        let place = (records.topic().clone(), records.partition());
        let end = match &self.ends {
            None => u64::MAX,
            Some(ends) => match ends.get(&place) {
                Some(end) => *end,
                None => return Ok(records.next_offset()),
            },
        };
        let (next, seen) = self.write_before(records, end)?;
        self.passed.read(&place, records.first_offset(), next, seen);
        if next.get() >= end
            && let Some(ends) = &mut self.ends
        {
            ends.remove(&place);
        }
        Ok(next)
    }

    /// Returns the offset after the last record that was looked at, and how many there were.
    fn write_before(&mut self, records: &Records, end: u64) -> Result<(Offset, u64), Failure> {
        let mut seen = 0;
        for record in records {
            let record = record.map_err(|error| Failure::client(&format!("read topic {}", records.topic()), &error))?;
            if self.left == 0 {
                return Ok((record.offset, seen));
            }
            if record.offset.get() >= end {
                return Ok((Offset::new(end), seen));
            }
            seen += 1;
            if self.key.is_none() || self.key == record.key {
                self.write_record(records.topic().as_str(), records.partition(), &record)?;
                self.left -= 1;
            }
        }
        Ok((records.next_offset(), seen))
    }

    fn write_record(&mut self, topic: &str, partition: PartitionIndex, record: &RecordView<'_>) -> Result<(), Failure> {
        let partition = partition.get();
        match &self.form {
            Form::Text(format) => format.write(&mut self.out, (topic, partition), record, self.escapes)?,
            Form::Json => {
                let record = JsonRecord::new(topic, partition, record);
                if self.escapes {
                    let json = serde_json::to_string(&record).map_err(std::io::Error::from)?;
                    self.out.write_all(values::escaped_json(&json).as_bytes())?;
                } else {
                    serde_json::to_writer(&mut self.out, &record).map_err(std::io::Error::from)?;
                }
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}
