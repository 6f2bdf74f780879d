//! `headwater topic`: what there is to topics.

mod alter;
mod delete;
mod describe;

use clap::{Args, Subcommand};
use clap_complete::ArgValueCandidates;
use headwater_client::{ErrorCode, NewTopic, TopicDescription};
use serde_json::json;

use super::watch::{self, WatchArgs};
use crate::complete;
use crate::failure::Failure;
use crate::screen::{Rows, Screen, note};
use crate::session::Session;
use crate::values;

pub use describe::{setting_rows, settings_json};

const CREATE_EXAMPLES: &str = "\
Examples:
  headwater topic create orders                              # as many partitions as the broker gives by default
  headwater topic create orders --partitions 8 --set retention.ms=1d
  headwater topic create orders --if-not-exists              # in a script that may run twice
  headwater topic create orders --partitions 8 --dry-run     # would it work?";

const LIST_EXAMPLES: &str = "\
Examples:
  headwater topic list
  headwater topic list --quiet                               # names only, one a line
  headwater topic list --watch                               # again every two seconds, in place
  headwater topic list --output json

Records are the offsets from the first to the next; after compaction there are fewer. The size is that of the files on disk.";

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List all topics
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show the settings and the partitions of topics
    #[command(visible_alias = "show", after_help = describe::EXAMPLES)]
    Describe(describe::DescribeArgs),
    /// Change the settings of topics, or give them more partitions
    #[command(
        after_help = alter::EXAMPLES,
        override_usage = "headwater topic alter [OPTIONS] <NAME>... --set|--reset|--partitions …"
    )]
    Alter(alter::AlterArgs),
    /// Delete topics with all their records
    #[command(visible_alias = "rm", after_help = delete::EXAMPLES)]
    Delete(delete::DeleteArgs),
    /// Delete the oldest records of a topic
    #[command(after_help = delete::RECORDS_EXAMPLES)]
    DeleteRecords(delete::DeleteRecordsArgs),
}

/// Options of `topic create`.
#[derive(Debug, Args)]
pub struct CreateArgs {
    /// Its name
    name: String,
    /// How many partitions [default: as the broker is set]
    #[arg(short, long, value_name = "COUNT")]
    partitions: Option<i32>,
    /// How many brokers keep each partition [default: as the broker is set]
    #[arg(short, long, value_name = "COUNT")]
    replication_factor: Option<i16>,
    /// A setting of its own, such as retention.ms=1d; several times for several
    #[arg(
        short = 'c',
        long,
        visible_alias = "config",
        value_name = "NAME=VALUE",
        value_parser = values::pair,
        add = ArgValueCandidates::new(complete::settings_to_set)
    )]
    set: Vec<(String, String)>,
    /// If there is a topic of this name already, leave it as it is and succeed
    #[arg(long)]
    if_not_exists: bool,
    /// Only check whether it could be created
    #[arg(long)]
    dry_run: bool,
}

/// Options of `topic list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Only names, one a line
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    watch: WatchArgs,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(session, args).await,
        TopicCommand::List(args) => {
            let quiet = args.quiet;
            watch::run(session, args.watch, async |screen| list(session, screen, quiet).await).await
        }
        TopicCommand::Describe(args) => describe::describe(session, &args).await,
        TopicCommand::Alter(args) => alter::alter(session, args).await,
        TopicCommand::Delete(args) => delete::delete(session, &args).await,
        TopicCommand::DeleteRecords(args) => delete::delete_records(session, &args).await,
    }
}

async fn create(session: &Session, args: CreateArgs) -> Result<(), Failure> {
    let name = args.name;
    let mut new = NewTopic::new(&name).validate_only(args.dry_run);
    if let Some(count) = args.partitions {
        new = new.partitions(count);
    }
    if let Some(count) = args.replication_factor {
        new = new.replication_factor(count);
    }
    for (key, value) in args.set {
        new = new.config(key, value);
    }
    let (created, partitions) = match session.admin.create_topic(new).await {
        Ok(created) => (!args.dry_run, created.partitions),
        Err(error) if args.if_not_exists && error.code() == Some(ErrorCode::TopicAlreadyExists) => {
            (false, session.topic(&name).await?.partitions.len())
        }
        Err(error) => {
            let failure = Failure::client(&format!("create topic {name}"), &error);
            return Err(match error.code() {
                Some(ErrorCode::TopicAlreadyExists) => failure.hint(format!(
                    "`headwater topic describe {name}` shows it; --if-not-exists makes this no failure"
                )),
                _ => failure,
            });
        }
    };
    session.screen.show(
        || json!({"name": name, "partitions": partitions, "created": created}),
        || {
            let partitions = values::count(partitions as u64, "partition");
            match (created, args.dry_run) {
                (true, _) => format!("created topic {name} with {partitions}\n"),
                (false, true) => format!("topic {name} could be created with {partitions}\n"),
                (false, false) => format!("topic {name} exists already, with {partitions}\n"),
            }
        },
    )
}

async fn list(session: &Session, screen: Screen, quiet: bool) -> Result<(), Failure> {
    let topics = session.admin.topics().await;
    let topics = topics.map_err(|error| Failure::client("list topics", &error))?;
    if topics.is_empty() && !screen.is_json() {
        note("there are no topics; `headwater topic create NAME` creates one");
    }
    let names = topics.iter().map(|topic| topic.name.as_str());
    if quiet {
        let json = || names.clone().map(|name| json!({"name": name})).collect();
        return screen.show(json, || values::lines(names.clone()));
    }
    let topics = session.describe_all(names).await?;
    screen.show(
        || topics.iter().map(listed_json).collect(),
        || {
            if topics.is_empty() {
                return String::new();
            }
            let mut rows = Rows::new(["TOPIC", ">PARTITIONS", ">RECORDS", ">SIZE", "STATE"]);
            for topic in &topics {
                rows.add([
                    topic.name.to_string(),
                    topic.partitions.len().to_string(),
                    records(topic).to_string(),
                    values::size(size(topic)),
                    state(topic),
                ]);
            }
            rows.text()
        },
    )
}

fn listed_json(topic: &TopicDescription) -> serde_json::Value {
    json!({
        "name": topic.name.as_str(),
        "id": topic.id.to_string(),
        "partitions": topic.partitions.len(),
        "partitions_offline": offline(topic),
        "records": records(topic),
        "size_bytes": size(topic),
    })
}

/// Offsets from the first to the next of all partitions.
fn records(topic: &TopicDescription) -> u64 {
    let records = |partition: &headwater_client::PartitionDescription| {
        let end = partition.high_watermark;
        end.distance_from(partition.log_start_offset).unwrap_or(0)
    };
    topic.partitions.iter().map(records).sum()
}

/// Bytes on disk.
fn size(topic: &TopicDescription) -> u64 {
    topic.partitions.iter().map(|partition| partition.size_bytes).sum()
}

/// Partitions that are not served.
fn offline(topic: &TopicDescription) -> usize {
    topic
        .partitions
        .iter()
        .filter(|partition| partition.error.is_some())
        .count()
}

fn state(topic: &TopicDescription) -> String {
    match offline(topic) {
        0 => "online".to_owned(),
        offline => format!("{offline} of {} offline", topic.partitions.len()),
    }
}
