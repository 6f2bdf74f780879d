//! `headwater topic`: what there is to topics.

use clap::{Args, Subcommand};
use headwater_client::{ErrorCode, NewTopic, TopicAlteration, TopicDescription};
use serde_json::{Value, json};

use super::confirm;
use crate::failure::Failure;
use crate::screen::{Rows, facts};
use crate::session::Session;
use crate::{json, values};

const CREATE_EXAMPLES: &str = "\
Examples:
  headwater topic create orders                              # as many partitions as the broker gives by default
  headwater topic create orders --partitions 8 --config retention.ms=86400000
  headwater topic create orders --if-not-exists              # in a script that may run twice
  headwater topic create orders --partitions 8 --dry-run     # would it work?";

const LIST_EXAMPLES: &str = "\
Examples:
  headwater topic list
  headwater topic list --quiet                               # names only, one a line
  headwater topic list --output json";

const DESCRIBE_EXAMPLES: &str = "\
Examples:
  headwater topic describe orders
  headwater topic describe orders payments --output json

The end of a partition is its high watermark: the offset that the next record that consumers see will have.";

const ALTER_EXAMPLES: &str = "\
Examples:
  headwater topic alter orders --set retention.ms=3600000 --set segment.bytes=67108864
  headwater topic alter orders --reset retention.ms          # back to the broker's default
  headwater topic alter orders --partitions 16               # more partitions; never fewer
  headwater topic alter orders --partitions 16 --dry-run

With more partitions, records with a key may go to another partition than earlier records with the same key. \
`headwater config topic orders` shows the settings that there are.";

const DELETE_EXAMPLES: &str = "\
Examples:
  headwater topic delete orders
  headwater topic delete orders payments --yes               # without asking
  headwater topic delete orders --if-exists --yes

It asks on a terminal, and never in a script.";

/// What to do with topics.
#[derive(Debug, Subcommand)]
pub enum TopicCommand {
    /// Create a topic
    #[command(after_help = CREATE_EXAMPLES)]
    Create(CreateArgs),
    /// List all topics
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show the settings and the partitions of topics
    #[command(after_help = DESCRIBE_EXAMPLES)]
    Describe(DescribeArgs),
    /// Change the settings of a topic, or give it more partitions
    #[command(after_help = ALTER_EXAMPLES, override_usage = "headwater topic alter [OPTIONS] <NAME> --set|--reset|--partitions …")]
    Alter(AlterArgs),
    /// Delete topics with all their records
    #[command(after_help = DELETE_EXAMPLES)]
    Delete(DeleteArgs),
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
    /// A setting of its own, such as retention.ms=86400000; several times for several
    #[arg(short, long = "config", value_name = "NAME=VALUE", value_parser = values::pair)]
    configs: Vec<(String, String)>,
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
}

/// Options of `topic describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Options of `topic alter`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub struct AlterArgs {
    /// The topic
    name: String,
    /// A setting with its new value; several times for several
    #[arg(long, value_name = "NAME=VALUE", value_parser = values::pair, group = "change")]
    set: Vec<(String, String)>,
    /// A setting that returns to the broker's default; several times for several
    #[arg(long, value_name = "NAME", group = "change")]
    reset: Vec<String>,
    /// How many partitions it is to have: as many as now, or more
    #[arg(short, long, value_name = "COUNT", group = "change")]
    partitions: Option<i32>,
    /// Only check whether it could be altered
    #[arg(long)]
    dry_run: bool,
}

/// Options of `topic delete`.
#[derive(Debug, Args)]
pub struct DeleteArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// A topic that does not exist is no failure
    #[arg(long)]
    if_exists: bool,
}

/// Does what was asked for.
pub async fn run(session: &Session, command: TopicCommand) -> Result<(), Failure> {
    match command {
        TopicCommand::Create(args) => create(session, args).await,
        TopicCommand::List(args) => list(session, &args).await,
        TopicCommand::Describe(args) => describe(session, &args).await,
        TopicCommand::Alter(args) => alter(session, args).await,
        TopicCommand::Delete(args) => delete(session, &args).await,
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
    for (key, value) in args.configs {
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

async fn list(session: &Session, args: &ListArgs) -> Result<(), Failure> {
    let topics = session.admin.topics().await;
    let topics = topics.map_err(|error| Failure::client("list topics", &error))?;
    session.screen.show(
        || {
            let topic = |topic: &headwater_client::TopicListing| {
                json!({"name": topic.name.as_str(), "id": topic.id.to_string(), "partitions": topic.partitions})
            };
            topics.iter().map(topic).collect()
        },
        || {
            if args.quiet {
                return values::lines(topics.iter().map(|topic| &topic.name));
            }
            if topics.is_empty() {
                return "there are no topics; `headwater topic create NAME` creates one\n".to_owned();
            }
            let mut rows = Rows::new(["TOPIC", ">PARTITIONS", "ID"]);
            for topic in &topics {
                rows.add([topic.name.to_string(), topic.partitions.to_string(), topic.id.to_string()]);
            }
            rows.text()
        },
    )
}

async fn describe(session: &Session, args: &DescribeArgs) -> Result<(), Failure> {
    let mut topics = Vec::new();
    for name in &args.names {
        topics.push(session.topic(name).await?);
    }
    session.screen.show(
        || match &topics[..] {
            [topic] => topic_json(topic),
            topics => topics.iter().map(topic_json).collect(),
        },
        || topics.iter().map(topic_text).collect::<Vec<_>>().join("\n"),
    )
}

fn topic_json(topic: &TopicDescription) -> Value {
    let configs = topic.configs.iter();
    let configs = configs.map(|config| (config.name.clone(), Value::from(config.value.clone())));
    json!({
        "name": topic.name.as_str(),
        "id": topic.id.to_string(),
        "configs": configs.collect::<serde_json::Map<_, _>>(),
        "partitions": topic.partitions.iter().map(json::partition).collect::<Vec<_>>(),
    })
}

fn topic_text(topic: &TopicDescription) -> String {
    let size: u64 = topic.partitions.iter().map(|partition| partition.size_bytes).sum();
    let about = facts(&[
        ("topic", topic.name.to_string()),
        ("id", topic.id.to_string()),
        ("partitions", topic.partitions.len().to_string()),
        ("size", values::size(size)),
    ]);
    let mut settings = Rows::new(["SETTING", "VALUE"]);
    for config in &topic.configs {
        settings.add([config.name.clone(), config.value.clone()]);
    }
    let mut rows = Rows::new([
        ">PARTITION",
        ">LEADER",
        ">CORE",
        ">START",
        ">END",
        ">RECORDS",
        ">SEGMENTS",
        ">SIZE",
        "STATE",
    ]);
    for partition in &topic.partitions {
        let (start, end) = (partition.log_start_offset.get(), partition.high_watermark.get());
        rows.add([
            partition.partition.to_string(),
            partition.leader.to_string(),
            partition.core.to_string(),
            start.to_string(),
            end.to_string(),
            end.saturating_sub(start).to_string(),
            partition.segments.to_string(),
            values::size(partition.size_bytes),
            json::partition_state(partition),
        ]);
    }
    format!("{about}\n{}\n{}", rows.text(), settings.text())
}

async fn alter(session: &Session, args: AlterArgs) -> Result<(), Failure> {
    let name = args.name;
    let mut alteration = TopicAlteration::of(&name).validate_only(args.dry_run);
    for (key, value) in args.set {
        alteration = alteration.set(key, value);
    }
    for key in args.reset {
        alteration = alteration.reset(key);
    }
    if let Some(count) = args.partitions {
        alteration = alteration.partitions(count);
    }
    let partitions = match session.admin.alter_topic(alteration).await {
        Ok(partitions) => partitions,
        Err(error) => {
            return Err(session
                .topic_failure(&format!("alter topic {name}"), &name, &error)
                .await);
        }
    };
    session.screen.show(
        || json!({"name": name, "partitions": partitions, "altered": !args.dry_run}),
        || {
            let done = if args.dry_run { "could be altered" } else { "is altered" };
            format!(
                "topic {name} {done}: {}\n",
                values::count(partitions as u64, "partition")
            )
        },
    )
}

async fn delete(session: &Session, args: &DeleteArgs) -> Result<(), Failure> {
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
    let records = |topic: &TopicDescription| {
        let partitions = topic.partitions.iter();
        let records = partitions.map(|partition| partition.high_watermark.get() - partition.log_start_offset.get());
        format!("{} ({})", topic.name, values::count(records.sum(), "record"))
    };
    if !there.is_empty() {
        let list = there.iter().map(records).collect::<Vec<_>>().join(", ");
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
