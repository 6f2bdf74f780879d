//! `headwater topic delete` and `delete-records`: what is lost for good.

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{ErrorCode, Offset, TopicDescription};
use serde_json::json;

use super::super::confirm;
use super::records;
use crate::complete;
use crate::failure::Failure;
use crate::session::{Ends, Session};
use crate::values;

pub(super) const EXAMPLES: &str = "\
Examples:
  headwater topic delete orders
  headwater topic delete orders payments --yes               # without asking
  headwater topic delete orders --if-exists --yes

It asks on a terminal; a script has to say --yes.";

pub(super) const RECORDS_EXAMPLES: &str = "\
Examples:
  headwater topic delete-records orders --partition 0 --before 1000
  headwater topic delete-records orders --partition 0 --partition 1 --before end --yes

It asks on a terminal; a script has to say --yes. The partition then begins at that offset, also after a crash; files go as soon as \
nothing else is in them. Groups keep what they have committed, and go on at the first record that is left.";

/// Options of `topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::topics))]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// A topic that does not exist is no failure
    #[arg(long)]
    if_exists: bool,
}

/// Options of `topic delete-records`.
#[derive(Debug, Args)]
pub struct DeleteRecordsArgs {
    /// The topic
    #[arg(value_name = "TOPIC", add = ArgValueCandidates::new(complete::topics))]
    name: String,
    /// Of this partition; several times for several
    #[arg(short, long = "partition", value_name = "NUMBER", required = true)]
    partitions: Vec<i32>,
    /// Delete the records before this offset, or all that consumers can see with the word `end`
    #[arg(short, long, value_name = "OFFSET|end", value_parser = before)]
    before: Before,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// Up to where records are deleted.
#[derive(Debug, Clone, Copy)]
enum Before {
    Offset(u64),
    End,
}

fn before(text: &str) -> Result<Before, String> {
    if text == "end" {
        return Ok(Before::End);
    }
    let offset = text.parse().map(Before::Offset);
    offset.map_err(|error| format!("{error}; write an offset or the word end"))
}

pub(super) async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
    let mut there = Vec::new();
    for name in &args.names {
        match session.admin.describe_topic(name).await {
            Ok(topic) => there.push(topic),
            Err(headwater_client::Error::UnknownTopic(_)) if args.if_exists => {}
            Err(error) => {
                return Err(session
                    .topic_failure(&format!("delete topic {name}"), name, &error)
                    .await);
            }
        }
    }
    if !there.is_empty() {
        let one = |topic: &TopicDescription| format!("{} ({})", topic.name, values::count(records(topic), "record"));
        let list = there.iter().map(one).collect::<Vec<_>>().join(", ");
        confirm(&format!("Delete for good: {list}?"), args.yes)?;
    }
    for topic in &there {
        let name = topic.name.as_str();
        if let Err(error) = session.admin.delete_topic(name).await {
            return Err(session
                .topic_failure(&format!("delete topic {name}"), name, &error)
                .await);
        }
    }
    session.screen.show(
        || json!({"deleted": there.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>()}),
        || {
            let deleted = |topic: &TopicDescription| format!("deleted topic {}", topic.name);
            values::lines(there.iter().map(deleted))
        },
    )
}

/// A partition whose oldest records are gone.
struct Shortened {
    partition: i32,
    from: u64,
    to: u64,
}

pub(super) async fn delete_records(session: &Session, args: &DeleteRecordsArgs) -> Result<(), Failure> {
    let topic = session.topic(&args.name).await?;
    let name = topic.name.as_str();
    let ends = session.ends(&topic, &args.partitions).await?;
    let target = |ends: &Ends| match args.before {
        Before::Offset(offset) => offset,
        Before::End => ends.end,
    };
    for ends in &ends {
        let (to, Ends { partition, start, end }) = (target(ends), ends);
        if to > *end {
            return Err(Failure::not_found(format!(
                "offset {to} is beyond the end of partition {partition} of topic {name}"
            ))
            .hint(format!(
                "it holds offsets {start} to {end} (not included); --before end deletes all of them"
            )));
        }
    }
    let lost: u64 = ends.iter().map(|ends| target(ends).saturating_sub(ends.start)).sum();
    if lost > 0 {
        let numbers = values::ranges(ends.iter().map(|ends| ends.partition.get()));
        let records = values::count(lost, "record");
        confirm(
            &format!("Delete for good: {records} of {name}, partition {numbers}?"),
            args.yes,
        )?;
    }
    let mut done = Vec::new();
    for ends in &ends {
        let before = Some(Offset::new(target(ends)));
        let start = session.admin.delete_records(name, ends.partition, before).await;
        let start = start.map_err(|error| {
            let failure = Failure::client(
                &format!("delete records of {name}, partition {}", ends.partition),
                &error,
            );
            match error.code() {
                Some(ErrorCode::InvalidTopicException) => failure.hint("the broker keeps its own topics itself"),
                _ => failure,
            }
        })?;
        done.push(Shortened {
            partition: ends.partition.get(),
            from: ends.start,
            to: start.get(),
        });
    }
    session.screen.show(
        || {
            let one = |one: &Shortened| json!({"partition": one.partition, "from": one.from, "to": one.to});
            json!({"topic": name, "partitions": done.iter().map(one).collect::<Vec<_>>()})
        },
        || {
            let line = |one: &Shortened| {
                let Shortened { partition, from, to } = one;
                let records = values::count(to.saturating_sub(*from), "record");
                format!("deleted {records} of {name}, partition {partition}: it begins at offset {to}")
            };
            values::lines(done.iter().map(line))
        },
    )
}
