//! `headwater topic describe`: all there is to know about topics.

use clap::Args;
use clap_complete::ArgValueCandidates;
use headwater_client::{ConfigEntry, TopicDescription};
use serde_json::{Map, Value, json};

use super::size;
use crate::commands::cluster::{lacks, numbers};
use crate::commands::partition::progress::{self, Left};
use crate::complete;
use crate::failure::Failure;
use crate::screen::{Rows, facts};
use crate::session::Session;
use crate::{json, values};

pub(super) const EXAMPLES: &str = "\
Examples:
  headwater topic describe orders
  headwater topic describe orders payments --output json     # settings in ms and bytes

The end of a partition is its high watermark: the offset that the next record that consumers see will have. In a cluster, a \
second table shows who has each partition, the one that is to lead it first; IN SYNC are those without which nothing is acknowledged, \
ELIGIBLE those that may lead though they are not in sync, EPOCH grows with each change of them, and LAG is what replicas lack that \
are not in sync.";

/// Options of `topic describe`.
#[derive(Debug, Args)]
pub struct DescribeArgs {
    /// The topics
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::topics))]
    names: Vec<String>,
}

pub(super) async fn describe(session: &Session, args: &DescribeArgs) -> Result<(), Failure> {
    let topics = session.topics(&args.names).await?;
    let left = Left::of(session, &progress::all(&topics).collect::<Vec<_>>()).await?;
    let json = |topic: &TopicDescription| topic_json(topic, &left);
    session.screen.show(
        || match &topics[..] {
            [topic] => json(topic),
            topics => topics.iter().map(json).collect(),
        },
        || {
            let texts = topics.iter().map(|topic| topic_text(topic, &left));
            texts.collect::<Vec<_>>().join("\n")
        },
    )
}

/// The settings in force, exactly, and the names of those that the topic has set itself.
pub fn settings_json(topic: &TopicDescription) -> (Value, Value) {
    let all = topic.configs.iter();
    let all = all.map(|config| (config.name.clone(), Value::from(config.value.clone())));
    let own = topic.configs.iter().filter(|config| config.is_own);
    (
        Value::Object(all.collect::<Map<_, _>>()),
        own.map(|config| config.name.as_str()).collect(),
    )
}

/// The settings as people read them, and whose they are.
pub fn setting_rows(configs: &[ConfigEntry]) -> Rows {
    let mut rows = Rows::new(["SETTING", "VALUE", "SET BY"]);
    for config in configs {
        let by = if config.is_own { "topic" } else { "default" };
        let value = values::setting(&config.name, &config.value);
        rows.add([config.name.clone(), value, by.to_owned()]);
    }
    rows
}

fn topic_json(topic: &TopicDescription, left: &Left) -> Value {
    let (configs, own) = settings_json(topic);
    let partitions = topic.partitions.iter().map(|partition| {
        let mut value = json::partition(partition);
        value["lag_bytes"] = left.get(topic.name.as_str(), partition).into();
        value
    });
    json!({
        "name": topic.name.as_str(),
        "id": topic.id.to_string(),
        "configs": configs,
        "own_configs": own,
        "partitions": partitions.collect::<Vec<_>>(),
    })
}

fn topic_text(topic: &TopicDescription, left: &Left) -> String {
    let about = facts(&[
        ("topic", topic.name.to_string()),
        ("id", topic.id.to_string()),
        ("partitions", topic.partitions.len().to_string()),
        ("size", values::size(size(topic))),
    ]);
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
            json::leader(partition),
            partition.core.to_string(),
            start.to_string(),
            end.to_string(),
            end.saturating_sub(start).to_string(),
            partition.segments.to_string(),
            values::size(partition.size_bytes),
            json::partition_state(partition),
        ]);
    }
    let mut text = format!("{about}\n{}\n", rows.text());
    if topic
        .partitions
        .iter()
        .any(|partition| partition.replicas.replicas.len() > 1)
    {
        text = format!("{text}{}\n", replica_rows(topic, left).text());
    }
    text + &setting_rows(&topic.configs).text()
}

/// Who has the partitions, and whether they lack something.
fn replica_rows(topic: &TopicDescription, left: &Left) -> Rows {
    let mut rows = Rows::new([
        ">PARTITION",
        ">LEADER",
        ">LEADER EPOCH",
        "REPLICAS",
        "IN SYNC",
        "ELIGIBLE",
        ">MIN ISR",
        ">EPOCH",
        ">LAG",
        "STATE",
    ]);
    for partition in &topic.partitions {
        let replicas = &partition.replicas;
        rows.add([
            partition.partition.to_string(),
            json::leader(partition),
            partition.leader_epoch.to_string(),
            numbers(&replicas.replicas),
            numbers(&replicas.isr),
            numbers(&replicas.elr),
            replicas.min_isr.to_string(),
            replicas.partition_epoch.to_string(),
            left.get(topic.name.as_str(), partition)
                .map_or_else(String::new, values::size),
            lacks(partition).unwrap_or("well").to_owned(),
        ]);
    }
    rows
}
