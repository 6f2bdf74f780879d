//! `headwater topic alter`: settings and more partitions.

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{TopicAlteration, TopicDescription};
use serde_json::{Value, json};

use crate::complete;
use crate::failure::Failure;
use crate::session::Session;
use crate::values;

pub(super) const EXAMPLES: &str = "\
Examples:
  headwater topic alter orders --set retention.ms=1h --set segment.bytes=64MiB
  headwater topic alter orders --reset retention.ms          # back to the broker's default
  headwater topic alter orders payments --set retention.ms=unlimited
  headwater topic alter orders --partitions 16               # more partitions; never fewer
  headwater topic alter orders --partitions 16 --dry-run

With more partitions, records with a key may go to another partition than earlier records with the same key. \
`headwater config topic orders` shows the settings that there are.";

/// Options of `topic alter`.
#[derive(Debug, Args)]
#[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
pub struct AlterArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::topics))]
    names: Vec<String>,
    /// A setting with its new value, such as retention.ms=1h; several times for several
    #[arg(
        short = 'c',
        long,
        visible_alias = "config",
        value_name = "NAME=VALUE",
        value_parser = values::pair,
        group = "change",
        add = ArgValueCandidates::new(complete::settings_to_set)
    )]
    set: Vec<(String, String)>,
    /// A setting that returns to the broker's default; several times for several
    #[arg(long, value_name = "NAME", group = "change", add = ArgValueCandidates::new(complete::settings))]
    reset: Vec<String>,
    /// How many partitions it is to have: as many as now, or more
    #[arg(short, long, value_name = "COUNT", group = "change")]
    partitions: Option<i32>,
    /// Only check whether it could be altered
    #[arg(long)]
    dry_run: bool,
}

/// One thing about a topic, before and after; `None` is the broker's default, where it cannot be looked up.
struct Change {
    name: String,
    from: Option<String>,
    to: Option<String>,
}

/// A topic that was altered, or could be.
struct Altered {
    name: String,
    partitions: usize,
    changes: Vec<Change>,
}

pub(super) async fn alter(session: &Session, args: AlterArgs) -> Result<(), Failure> {
    // All of them are looked up before any is changed.
    let before = session.topics(&args.names).await?;
    let mut altered = Vec::new();
    let mut failure = None;
    for topic in &before {
        match alter_one(session, &args, topic).await {
            Ok(one) => altered.push(one),
            Err(error) => {
                failure = Some(error);
                break;
            }
        }
    }
    // What is done is said, whatever came after it.
    if failure.is_none() || !altered.is_empty() {
        show(session, &args, &altered)?;
    }
    failure.map_or(Ok(()), Err)
}

async fn alter_one(session: &Session, args: &AlterArgs, before: &TopicDescription) -> Result<Altered, Failure> {
    let name = before.name.as_str();
    let mut alteration = TopicAlteration::of(name).validate_only(args.dry_run);
    for (key, value) in &args.set {
        alteration = alteration.set(key, value);
    }
    for key in &args.reset {
        alteration = alteration.reset(key);
    }
    if let Some(count) = args.partitions {
        alteration = alteration.partitions(count);
    }
    let partitions = match session.admin.alter_topic(alteration).await {
        Ok(partitions) => partitions,
        Err(error) => {
            return Err(session
                .topic_failure(&format!("alter topic {name}"), name, &error)
                .await);
        }
    };
    let mut changes = if args.dry_run {
        wanted(args, before)
    } else {
        differences(before, &session.topic(name).await?)
    };
    let had = before.partitions.len();
    if partitions != had {
        changes.push(Change {
            name: "partitions".to_owned(),
            from: Some(had.to_string()),
            to: Some(partitions.to_string()),
        });
    }
    Ok(Altered {
        name: name.to_owned(),
        partitions,
        changes,
    })
}

fn value_of(topic: &TopicDescription, name: &str) -> Option<String> {
    let config = topic.configs.iter().find(|config| config.name == name);
    config.map(|config| config.value.clone())
}

/// What would change.
fn wanted(args: &AlterArgs, before: &TopicDescription) -> Vec<Change> {
    let set = args.set.iter().map(|(name, value)| (name, Some(value.clone())));
    let reset = args.reset.iter().map(|name| (name, None));
    let change = |(name, to): (&String, Option<String>)| Change {
        name: name.clone(),
        from: value_of(before, name),
        to,
    };
    let is_change = |change: &Change| {
        let shown = |value: &Option<String>| value.as_ref().map(|value| values::setting(&change.name, value));
        shown(&change.from) != shown(&change.to)
    };
    set.chain(reset).map(change).filter(is_change).collect()
}

/// What has changed.
fn differences(before: &TopicDescription, after: &TopicDescription) -> Vec<Change> {
    let change = |config: &headwater_client::ConfigEntry| Change {
        name: config.name.clone(),
        from: value_of(before, &config.name),
        to: Some(config.value.clone()),
    };
    let changes = after.configs.iter().map(change);
    changes.filter(|change| change.from != change.to).collect()
}

fn show(session: &Session, args: &AlterArgs, altered: &[Altered]) -> Result<(), Failure> {
    let json = |topic: &Altered| {
        let change = |change: &Change| json!({"name": change.name, "from": change.from, "to": change.to});
        let changes: Vec<_> = topic.changes.iter().map(change).collect();
        json!({
            "name": topic.name,
            "partitions": topic.partitions,
            "altered": !args.dry_run,
            "changes": changes,
        })
    };
    session.screen.show(
        || match altered {
            [topic] if args.names.len() == 1 => json(topic),
            topics => topics.iter().map(json).collect::<Value>(),
        },
        || altered.iter().map(|topic| text(topic, args.dry_run)).collect(),
    )
}

fn text(topic: &Altered, dry_run: bool) -> String {
    let name = &topic.name;
    if topic.changes.is_empty() {
        return format!("topic {name} is so already: nothing changes\n");
    }
    let done = if dry_run { "could be altered" } else { "is altered" };
    let shown = |name: &str, value: Option<&String>| {
        value.map_or_else(|| "the default".to_owned(), |value| values::setting(name, value))
    };
    let change = |change: &Change| {
        let Change { name, from, to } = change;
        format!(
            "  {name}: {} -> {}",
            shown(name, from.as_ref()),
            shown(name, to.as_ref())
        )
    };
    format!(
        "topic {name} {done}:\n{}",
        values::lines(topic.changes.iter().map(change))
    )
}
