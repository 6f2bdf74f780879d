//! Where partitions are to go: found out of what was asked for, before anything is done.

use std::path::Path;

use headwater_client::{BrokerId, PartitionDescription, PartitionMove, TopicDescription};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::commands::cluster::numbers;
use crate::failure::Failure;
use crate::screen::Rows;
use crate::values;

/// The version of a plan's file, Kafka's.
const VERSION: i64 = 1;

/// A plan as Kafka's tool has it in a file. What else is in it is passed over.
#[derive(Debug, Serialize, Deserialize)]
struct File {
    #[serde(default = "version")]
    version: i64,
    partitions: Vec<FilePartition>,
}

#[derive(Debug, Serialize, Deserialize)]
struct FilePartition {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
}

const fn version() -> i64 {
    VERSION
}

/// A partition that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub topic: String,
    pub partition: i32,
    /// Who has it, or is to have it by a move that is under way.
    pub before: Vec<BrokerId>,
    /// Who is to have it, the one that is to lead first.
    pub after: Vec<BrokerId>,
    pub size_bytes: u64,
}

impl Step {
    /// Who gets a copy.
    pub fn adds(&self) -> Vec<BrokerId> {
        less(&self.after, &self.before)
    }

    /// Who does not have it any more.
    pub fn removes(&self) -> Vec<BrokerId> {
        less(&self.before, &self.after)
    }
}

fn less(all: &[BrokerId], those: &[BrokerId]) -> Vec<BrokerId> {
    all.iter().copied().filter(|id| !those.contains(id)).collect()
}

/// All that is to move.
#[derive(Debug, Default)]
pub struct Plan(pub Vec<Step>);

impl Plan {
    /// These partitions, each to the brokers that `target` says for it; those that stay as they are are left out.
    pub fn new<'a>(
        partitions: impl Iterator<Item = (&'a TopicDescription, &'a PartitionDescription)>,
        target: impl Fn(&[BrokerId]) -> Vec<BrokerId>,
    ) -> Self {
        let steps = partitions.map(|(topic, partition)| {
            let before = settled(partition);
            step(topic, partition, target(&before))
        });
        Self(steps.filter(|step| step.before != step.after).collect())
    }

    /// What a file says of these topics' partitions.
    pub fn of_file(file: &[PartitionMove], topics: &[TopicDescription]) -> Result<Self, Failure> {
        let mut steps = Vec::new();
        for wanted in file {
            let topic = topics.iter().find(|topic| topic.name.as_str() == wanted.topic);
            let partition = topic.and_then(|topic| {
                let mut partitions = topic.partitions.iter();
                Some((
                    topic,
                    partitions.find(|found| found.partition.get() == wanted.partition)?,
                ))
            });
            let Some((topic, partition)) = partition else {
                let (name, number) = (&wanted.topic, wanted.partition);
                return Err(Failure::not_found(format!("topic {name} has no partition {number}")));
            };
            steps.push(step(topic, partition, wanted.replicas.clone().unwrap_or_default()));
        }
        steps.retain(|step| step.before != step.after);
        Ok(Self(steps))
    }

    /// What the broker is asked for.
    pub fn moves(&self) -> Vec<PartitionMove> {
        let moves = self.0.iter().map(|step| PartitionMove {
            topic: step.topic.clone(),
            partition: step.partition,
            replicas: Some(step.after.clone()),
        });
        moves.collect()
    }

    /// As a file that can be given back, with what it means.
    pub fn json(&self) -> Value {
        let ids = |ids: &[BrokerId]| ids.iter().map(|id| id.get()).collect::<Value>();
        let steps = self.0.iter().map(|step| {
            json!({
                "topic": step.topic,
                "partition": step.partition,
                "replicas": ids(&step.after),
                "before": ids(&step.before),
                "adding": ids(&step.adds()),
                "removing": ids(&step.removes()),
                "size_bytes": step.size_bytes,
            })
        });
        json!({"version": VERSION, "partitions": steps.collect::<Vec<_>>()})
    }

    pub fn text(&self) -> String {
        let mut rows = Rows::new(["TOPIC", ">PARTITION", "NOW", "THEN", "GET IT", "LOSE IT", ">TO COPY"]);
        for step in &self.0 {
            rows.add([
                step.topic.clone(),
                step.partition.to_string(),
                numbers(&step.before),
                numbers(&step.after),
                numbers(&step.adds()),
                numbers(&step.removes()),
                values::size(step.size_bytes * step.adds().len() as u64),
            ]);
        }
        rows.text()
    }
}

/// The replicas of a partition once its move is done, if there is one.
fn settled(partition: &PartitionDescription) -> Vec<BrokerId> {
    less(&partition.replicas.replicas, &partition.replicas.removing)
}

fn step(topic: &TopicDescription, partition: &PartitionDescription, after: Vec<BrokerId>) -> Step {
    Step {
        topic: topic.name.to_string(),
        partition: partition.partition.get(),
        before: settled(partition),
        after,
        size_bytes: partition.size_bytes,
    }
}

/// One broker takes the place of another; a partition that has both already, or not the first one, stays as it is.
pub fn replaced(before: &[BrokerId], from: BrokerId, to: BrokerId) -> Vec<BrokerId> {
    if before.contains(&to) {
        return before.to_vec();
    }
    before.iter().map(|id| if *id == from { to } else { *id }).collect()
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<PartitionMove>, Failure> {
    let name = path.display();
    let text =
        std::fs::read_to_string(path).map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    parse(&text).map_err(|why| {
        Failure::failed(format!("{name} is no plan: {why}")).hint(
            r#"it looks like this: {"version":1,"partitions":[{"topic":"orders","partition":0,"replicas":[2,0,1]}]}"#,
        )
    })
}

fn parse(text: &str) -> Result<Vec<PartitionMove>, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.version != VERSION {
        return Err(format!("its version is {}, and {VERSION} is known", file.version));
    }
    let moves = file.partitions.into_iter().map(|partition| PartitionMove {
        topic: partition.topic,
        partition: partition.partition,
        replicas: Some(partition.replicas.into_iter().map(BrokerId::new).collect()),
    });
    Ok(moves.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: &[i32]) -> Vec<BrokerId> {
        numbers.iter().copied().map(BrokerId::new).collect()
    }

    #[test]
    fn a_broker_takes_the_place_of_another_where_it_is_not_yet() {
        let [one, two] = [1, 2].map(BrokerId::new);
        for (before, after) in [
            (&[0, 1, 3][..], &[0, 2, 3][..]),
            (&[1], &[2]),
            (&[1, 2], &[1, 2]),
            (&[0, 3], &[0, 3]),
        ] {
            assert_eq!(replaced(&ids(before), one, two), ids(after));
        }
    }

    #[test]
    fn a_plan_is_read_as_kafka_writes_it_and_as_it_is_shown_here() {
        let step = Step {
            topic: "t".to_owned(),
            partition: 3,
            before: ids(&[0, 1]),
            after: ids(&[2, 1]),
            size_bytes: 5,
        };
        assert_eq!((step.adds(), step.removes()), (ids(&[2]), ids(&[0])));
        let plan = Plan(vec![step]);
        let kafkas =
            r#"{"version":1,"partitions":[{"topic":"t","partition":3,"replicas":[2,1],"log_dirs":["any","any"]}]}"#;
        for text in [kafkas, &plan.json().to_string()] {
            assert_eq!(parse(text).unwrap(), plan.moves());
        }
        for bad in [
            "",
            "[]",
            r#"{"version":2,"partitions":[]}"#,
            r#"{"partitions":[{"topic":"t"}]}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
