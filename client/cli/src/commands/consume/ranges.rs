//! Which partitions `consume` reads, from where to where, and how that is said.

use clap::Args;
use headwater_client::{
    Consumer, Offset, OffsetReset, OffsetSpec, PartitionIndex, Start, Timestamp, TopicDescription, TopicName,
};

use super::ConsumeArgs;
use crate::failure::Failure;
use crate::session::{Ends, Session};
use crate::values;

/// The broker's own topics begin so, and no pattern means them.
const INTERNAL: &str = "__";

/// Where to begin.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct StartArgs {
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

/// Where to end, if it is before the end of what is there.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct EndArgs {
    /// Stop before this offset, in each partition
    #[arg(
        long,
        value_name = "NUMBER",
        conflicts_with = "follow",
        help_heading = "Where to end"
    )]
    until_offset: Option<u64>,
    /// Stop before the first record at or after this moment, in each partition; written as for --from-time
    #[arg(
        long,
        value_name = "TIME",
        value_parser = values::moment,
        conflicts_with = "follow",
        help_heading = "Where to end"
    )]
    until_time: Option<Timestamp>,
}

/// What is read of one partition.
#[derive(Debug, Clone)]
pub(super) struct Range {
    pub(super) topic: TopicName,
    pub(super) partition: PartitionIndex,
    pub(super) start: u64,
    /// The first offset that is not read any more, if anything is.
    pub(super) end: u64,
}

/// The topics that were named, or that the pattern means.
pub(super) async fn topics(session: &Session, args: &ConsumeArgs) -> Result<Vec<TopicDescription>, Failure> {
    let topics = match &args.pattern {
        None => session.topics(&args.topics).await?,
        Some(pattern) => {
            let topics = session.admin.topics().await;
            let topics = topics.map_err(|error| Failure::client("list topics", &error))?;
            let names = topics.iter().map(|topic| topic.name.as_str());
            let is_meant = |name: &&str| !name.starts_with(INTERNAL) && pattern.is_match(name);
            session.describe_all(names.filter(is_meant)).await?
        }
    };
    // A group takes what comes to match.
    if topics.is_empty() && args.group.is_none() {
        return Err(Failure::not_found(format!("there is no topic for {}", what(args)))
            .hint("it has to match a whole name, as in 'orders-.*'; `headwater topic list` lists all topics"));
    }
    if topics.len() > 1 && !args.partitions.is_empty() {
        return Err(Failure::usage("--partition is of one topic, and there are several"));
    }
    Ok(topics)
}

/// What is read, in words.
pub(super) fn what(args: &ConsumeArgs) -> String {
    match (&args.pattern, &args.topics[..]) {
        (Some(pattern), _) => {
            let pattern = pattern.as_str();
            let own = pattern.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$"));
            format!("the pattern {}", own.unwrap_or(pattern))
        }
        (None, [topic]) => format!("topic {topic}"),
        (None, topics) => format!("topics {}", topics.join(", ")),
    }
}

/// There are no offsets to read.
pub(super) fn nothing(args: &ConsumeArgs) -> String {
    let StartArgs {
        from_offset,
        from_time,
        last,
        ..
    } = args.start;
    let EndArgs {
        until_offset,
        until_time,
    } = args.end;
    let is_part = from_offset.or(until_offset).or(last).is_some()
        || from_time.or(until_time).is_some()
        || !args.partitions.is_empty();
    let what = what(args);
    if is_part {
        let topic = if let [topic] = &args.topics[..] { topic } else { "TOPIC" };
        format!("nothing of {what} is there; `headwater offsets {topic}` shows where its partitions begin and end")
    } else {
        format!("{what} holds no records; --follow waits for them")
    }
}

/// There were offsets to read, and nothing was printed.
pub(super) fn no_record(args: &ConsumeArgs) -> String {
    let what = what(args);
    match &args.key {
        Some(key) => {
            let key = String::from_utf8_lossy(&key.0);
            format!("no record of {what} that was read has the key {key:?}")
        }
        None => format!("{what} holds no records there"),
    }
}

/// Where each partition begins and ends.
pub(super) async fn ranges(
    session: &Session,
    topics: &[TopicDescription],
    args: &ConsumeArgs,
) -> Result<Vec<Range>, Failure> {
    let mut ranges = Vec::new();
    for topic in topics {
        let mut ends = session.ends(topic, &args.partitions).await?;
        if let (Some(offset), [ends], [_]) = (args.start.from_offset, &ends[..], topics) {
            check_start(topic, ends, offset)?;
        }
        stop(session, topic, args, &mut ends).await?;
        begin(session, topic, args, &mut ends).await?;
        let range = |ends: Ends| Range {
            topic: topic.name.clone(),
            partition: ends.partition,
            start: ends.start,
            end: ends.end,
        };
        ranges.extend(ends.into_iter().map(range));
    }
    Ok(ranges)
}

/// Of a single partition it is known what was meant.
fn check_start(topic: &TopicDescription, ends: &Ends, offset: u64) -> Result<(), Failure> {
    let Ends { partition, start, end } = ends;
    if (start..=end).contains(&&offset) {
        return Ok(());
    }
    let name = &topic.name;
    Err(Failure::not_found(format!(
        "offset {offset} is not in partition {partition} of topic {name}"
    ))
    .hint(format!(
        "it holds offsets {start} to {end} (not included); `headwater offsets {name}` shows all"
    )))
}

/// Where a moment is in each partition, or its end.
async fn at(
    session: &Session,
    topic: &TopicDescription,
    ends: &[Ends],
    moment: Timestamp,
) -> Result<Vec<u64>, Failure> {
    let partitions: Vec<_> = ends.iter().map(|ends| ends.partition).collect();
    let spec = OffsetSpec::Timestamp(moment);
    let found = session.offsets(topic.name.as_str(), &partitions, spec).await?;
    Ok(found
        .into_iter()
        .zip(ends)
        .map(|(found, ends)| found.unwrap_or(ends.end))
        .collect())
}

async fn stop(
    session: &Session,
    topic: &TopicDescription,
    args: &ConsumeArgs,
    all: &mut [Ends],
) -> Result<(), Failure> {
    let stops = match (args.end.until_offset, args.end.until_time) {
        (Some(offset), _) => vec![offset; all.len()],
        (None, Some(moment)) => at(session, topic, all, moment).await?,
        (None, None) => return Ok(()),
    };
    for (ends, stop) in all.iter_mut().zip(stops) {
        ends.end = stop.clamp(ends.start, ends.end);
    }
    Ok(())
}

async fn begin(
    session: &Session,
    topic: &TopicDescription,
    args: &ConsumeArgs,
    all: &mut [Ends],
) -> Result<(), Failure> {
    let StartArgs {
        from_end,
        from_offset,
        from_time,
        last,
        ..
    } = args.start;
    let begins: Vec<u64> = if let Some(offset) = from_offset {
        vec![offset; all.len()]
    } else if let Some(moment) = from_time {
        at(session, topic, all, moment).await?
    } else if let Some(count) = last {
        all.iter().map(|ends| ends.end.saturating_sub(count)).collect()
    } else if from_end {
        all.iter().map(|ends| ends.end).collect()
    } else {
        return Ok(());
    };
    for (ends, begin) in all.iter_mut().zip(begins) {
        ends.start = begin.clamp(ends.start, ends.end);
    }
    Ok(())
}

/// A consumer that begins where it should. One that follows all partitions also reads those that come later.
pub(super) async fn consumer(
    session: &Session,
    args: &ConsumeArgs,
    topics: &[TopicDescription],
    ranges: &[Range],
) -> Result<Consumer, Failure> {
    let builder = session.client.consumer().offset_reset(OffsetReset::Earliest);
    let mut builder = builder.start(Start::Earliest);
    if let Some(rack) = &args.rack {
        builder = builder.rack(rack.as_str());
    }
    if args.follow && args.partitions.is_empty() {
        builder = builder.topics(topics.iter().map(|topic| topic.name.as_str()));
    } else {
        for range in ranges {
            builder = builder.assign(range.topic.as_str(), [range.partition]);
        }
    }
    for range in ranges {
        builder = builder.start_of(range.topic.as_str(), range.partition, Offset::new(range.start));
    }
    let built = builder.build().await;
    built.map_err(|error| Failure::client(&format!("read {}", what(args)), &error))
}
