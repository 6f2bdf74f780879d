//! `headwater consume`: records to standard output.
//!
//! Where to begin and, without `--follow`, where to end is looked up first, for each partition. Records are written into a
//! buffer that is flushed whenever the next would have to be waited for. A partition is at its end when the consumer's position
//! is, whether or not there was a record at the last offsets; what was passed without one is said.

mod outage;
mod passed;

use std::collections::HashMap;
use std::io::{BufWriter, StdoutLock, Write as _};
use std::time::Duration;

use clap::Args;
use futures::FutureExt as _;
use headwater_client::{
    Advance, Consumer, Error, GroupConsumer, Offset, OffsetReset, OffsetSpec, PartitionIndex, RecordView, Records,
    Skip, SkipCause, Start, Timestamp, TopicDescription,
};

use self::outage::Outage;
use self::passed::Passed;
use crate::failure::Failure;
use crate::format::Format;
use crate::json::JsonRecord;
use crate::session::{Ends, Session};
use crate::values::{self, Separator};

pub const EXAMPLES: &str = "\
Examples:
  headwater consume orders                                   # all that is there, then stop
  headwater consume orders --follow                          # and go on with what comes
  headwater consume orders --from-end --follow               # only what comes from now on
  headwater consume orders --last 10                         # the last 10 of each partition
  headwater consume orders --from-time '10m ago' --key-separator ': '
  headwater consume orders --partition 0 --from-offset 1000 --count 5
  headwater consume orders --group billing                   # share the partitions with all who say the same
  headwater consume orders --output json                     # one JSON object a line, for jq or `produce --input json`
  headwater consume orders --format '%p@%o %D %k=%v\\n'
  headwater consume orders --raw > values.bin                # values byte for byte, nothing between them

Format: %t topic, %p partition, %o offset, %T timestamp in milliseconds, %D the same as date and time, %k key, %v value, \
%h headers as name=value joined by commas, %K and %V sizes of key and value in bytes (-1 is null), %% a percent sign; \
\\n \\t \\r \\0 \\\\ \\xHH as usual. Nothing is added between records.

Records of one partition come in their order; partitions come as they please. Without --follow it stops at the records that \
were there when it began; with it, partitions that the topic gets later are read too, from their first record. With --follow or \
--group it waits while no broker answers, and says so. Offsets that hold \
no record, as after compaction, and those that were deleted before they could be read are counted on standard error.";

/// Options of `consume`.
#[derive(Debug, Args)]
pub struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Only this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER")]
    partitions: Vec<i32>,
    #[command(flatten)]
    start: StartArgs,
    /// Go on with what comes after the end, until Ctrl-C
    #[arg(short, long, help_heading = "Where to end")]
    follow: bool,
    /// Share the topic's partitions with the other members of this group, and go on where it was; until Ctrl-C
    #[arg(
        short,
        long,
        value_name = "GROUP",
        conflicts_with_all = ["partitions", "from_end", "from_offset", "from_time", "last"],
        help_heading = "Where to begin"
    )]
    group: Option<String>,
    /// With --group, how long after this program has died its partitions go to others
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, default_value = "45s", requires = "group")]
    session_timeout: Duration,
    /// Stop after so many records
    #[arg(short = 'n', long, value_name = "NUMBER", help_heading = "Where to end")]
    count: Option<u64>,
    #[command(flatten)]
    form: FormArgs,
}

/// Where to begin.
#[derive(Debug, Args)]
#[group(multiple = false)]
struct StartArgs {
    /// From the first record that is there; this is the default
    #[arg(long, help_heading = "Where to begin")]
    from_beginning: bool,
    /// From the next record that comes; for --follow
    #[arg(long, help_heading = "Where to begin", requires = "follow")]
    from_end: bool,
    /// From this offset, in each partition that has it
    #[arg(long, value_name = "NUMBER", help_heading = "Where to begin")]
    from_offset: Option<u64>,
    /// From this moment: '10m ago', 2026-01-31, '2026-01-31 12:00' (local time), 2026-01-31T12:00:00Z, or milliseconds
    /// since 1970
    #[arg(long, value_name = "TIME", value_parser = values::moment, help_heading = "Where to begin")]
    from_time: Option<Timestamp>,
    /// The last so many offsets of each partition
    #[arg(long, value_name = "NUMBER", help_heading = "Where to begin")]
    last: Option<u64>,
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
    let topic = session.topic(&args.topic).await?;
    if let Some(group) = &args.group {
        return run_in_group(session, args, form, group).await;
    }
    let mut reading = starts(session, &topic, args).await?;
    if !args.follow {
        reading.retain(|range| range.start < range.end);
    }
    if reading.is_empty() || args.count == Some(0) {
        return Ok(());
    }
    let consumer = consumer(session, args, &reading).await?;
    let ends = (!args.follow).then(|| reading.iter().map(|range| (range.partition, range.end)).collect());
    let mut reader = Reader::new(form, args, ends);
    let read = tokio::select! {
        read = reader.run(consumer) => read,
        _ = tokio::signal::ctrl_c() => Err(Failure::interrupted()),
    };
    // Also what came before a failure.
    reader.finish()?;
    read
}

/// As a member of a group: what was printed is committed, and Ctrl-C leaves the group.
async fn run_in_group(session: &Session, args: &ConsumeArgs, form: Form, group: &str) -> Result<(), Failure> {
    let failure = |error: Error| Failure::client(&format!("consume topic {} in group {group}", args.topic), &error);
    let builder = session.client.group_consumer(group).topics([&args.topic]);
    let builder = builder
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

/// Where each partition begins and ends.
async fn starts(session: &Session, topic: &TopicDescription, args: &ConsumeArgs) -> Result<Vec<Ends>, Failure> {
    let mut ends = session.ends(topic, &args.partitions).await?;
    let StartArgs {
        from_end,
        from_offset,
        from_time,
        last,
        ..
    } = args.start;
    if let Some(offset) = from_offset {
        if let [ends] = &ends[..]
            && !(ends.start..=ends.end).contains(&offset)
        {
            let Ends { partition, start, end } = ends;
            let name = &topic.name;
            return Err(Failure::not_found(format!(
                "offset {offset} is not in partition {partition} of topic {name}"
            ))
            .hint(format!(
                "it holds offsets {start} to {end} (not included); `headwater offsets {name}` shows all"
            )));
        }
        for ends in &mut ends {
            ends.start = offset.clamp(ends.start, ends.end);
        }
    } else if let Some(moment) = from_time {
        let partitions: Vec<_> = ends.iter().map(|ends| ends.partition).collect();
        let found = session
            .offsets(topic.name.as_str(), &partitions, OffsetSpec::Timestamp(moment))
            .await?;
        for (ends, found) in ends.iter_mut().zip(found) {
            ends.start = found.unwrap_or(ends.end);
        }
    } else if let Some(count) = last {
        for ends in &mut ends {
            ends.start = ends.start.max(ends.end.saturating_sub(count));
        }
    } else if from_end {
        for ends in &mut ends {
            ends.start = ends.end;
        }
    }
    Ok(ends)
}

/// A consumer that begins where it should. One that follows all partitions also reads those that come later.
async fn consumer(session: &Session, args: &ConsumeArgs, ranges: &[Ends]) -> Result<Consumer, Failure> {
    let topic = &args.topic;
    let builder = session.client.consumer().offset_reset(OffsetReset::Earliest);
    let builder = builder.start(Start::Earliest);
    let mut builder = if args.follow && args.partitions.is_empty() {
        builder.topics([topic])
    } else {
        builder.assign(topic, ranges.iter().map(|range| range.partition))
    };
    for range in ranges {
        builder = builder.start_of(topic, range.partition, Offset::new(range.start));
    }
    let built = builder.build().await;
    built.map_err(|error| Failure::client(&format!("read topic {topic}"), &error))
}

struct Reader<'a> {
    out: BufWriter<StdoutLock<'static>>,
    form: Form,
    topic: &'a str,
    left: u64,
    /// Partitions that are not at their end yet; `None` follows for ever.
    ends: Option<HashMap<PartitionIndex, u64>>,
    passed: Passed,
}

impl<'a> Reader<'a> {
    fn new(form: Form, args: &'a ConsumeArgs, ends: Option<HashMap<PartitionIndex, u64>>) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 18, std::io::stdout().lock()),
            form,
            topic: &args.topic,
            left: args.count.unwrap_or(u64::MAX),
            ends,
            passed: Passed::default(),
        }
    }

    /// Says what has not been said.
    fn finish(&mut self) -> Result<(), Failure> {
        self.out.flush()?;
        self.passed.report();
        Ok(())
    }

    async fn run(&mut self, mut consumer: Consumer) -> Result<(), Failure> {
        let topic = self.topic;
        let failure = |error: Error| Failure::client(&format!("read topic {topic}"), &error);
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
                    anstream::eprintln!("note: {error}; some records may be printed again");
                    continue;
                }
                Err(error) => return Err(failure(error)),
            };
            let written = self
                .write(&records)
                .and_then(|next| Ok(self.out.flush().map(|()| next)?));
            let next = written.as_ref().map_or(records.first_offset(), |next| *next);
            if next < records.next_offset() {
                let sought = consumer.seek(self.topic, records.partition(), next).await;
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
                anstream::eprintln!("note: {news}");
            }
            self.passed.skipped(skip, u64::MAX);
            return Ok(());
        };
        let Some(&end) = ends.get(&skip.partition) else {
            return Ok(());
        };
        self.passed.skipped(skip, end);
        if skip.to < skip.from || skip.cause == SkipCause::Recreated {
            // What the end was looked up for is gone, and may never come again.
            let news = passed::news(skip).unwrap_or_default();
            return Err(Failure::not_found(format!(
                "cannot read topic {} to its end: {news}",
                self.topic
            )));
        }
        if skip.to.get() >= end {
            ends.remove(&skip.partition);
        }
        Ok(())
    }

    /// Returns the offset after the last record that was printed, or was not to be.
    fn write(&mut self, records: &Records) -> Result<Offset, Failure> {
        let partition = records.partition();
        let end = match &self.ends {
            None => u64::MAX,
            Some(ends) => match ends.get(&partition) {
                Some(end) => *end,
                None => return Ok(records.next_offset()),
            },
        };
        let left = self.left;
        let next = self.write_before(records, end)?;
        let printed = left - self.left;
        self.passed.read(partition, records.first_offset(), next, printed);
        if next.get() >= end
            && let Some(ends) = &mut self.ends
        {
            ends.remove(&partition);
        }
        Ok(next)
    }

    fn write_before(&mut self, records: &Records, end: u64) -> Result<Offset, Failure> {
        for record in records {
            let record = record.map_err(|error| Failure::client(&format!("read topic {}", self.topic), &error))?;
            if self.left == 0 {
                return Ok(record.offset);
            }
            if record.offset.get() >= end {
                return Ok(Offset::new(end));
            }
            self.write_record(records.partition(), &record)?;
            self.left -= 1;
        }
        Ok(records.next_offset())
    }

    fn write_record(&mut self, partition: PartitionIndex, record: &RecordView<'_>) -> Result<(), Failure> {
        match &self.form {
            Form::Text(format) => format.write(&mut self.out, self.topic, partition.get(), record)?,
            Form::Json => {
                let record = JsonRecord::new(self.topic, partition.get(), record);
                serde_json::to_writer(&mut self.out, &record).map_err(std::io::Error::from)?;
                self.out.write_all(b"\n")?;
            }
        }
        Ok(())
    }
}
