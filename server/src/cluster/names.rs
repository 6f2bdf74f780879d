//! What the data directory holds, by name: partitions, partitions that are being removed, and the rest.

use std::path::Path;

use headwater_engine::disk::{DirEntry, Directory, EntryKind};
use headwater_protocol::id::{PartitionIndex, TopicId};
use headwater_protocol::topic::TopicName;

use super::store::error::StoreError;
use crate::image::Topic;

/// Longest name of a file on Linux file systems (`NAME_MAX`).
const FILE_NAME_LEN_MAX: usize = 255;

/// The data directory's entries at one moment.
pub(super) struct Listing(Vec<DirEntry>);

impl Listing {
    /// Lists the directory.
    pub async fn read(disk: &impl Directory, directory: &Path) -> Result<Self, StoreError> {
        let entries = disk.list(directory).await.map_err(StoreError::io("list", directory))?;
        // Sorted by the trait's contract.
        Ok(Self(entries))
    }

    /// What has the name of the partition's directory. Only a directory can be one.
    pub fn kind(&self, topic: &Topic, partition: PartitionIndex) -> Option<EntryKind> {
        let name = topic.partition_directory(partition);
        let found = self.0.binary_search_by(|entry| entry.name.cmp(&name));
        found.ok().map(|at| self.0[at].kind)
    }

    /// Names of all files and directories.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|entry| entry.name.as_str())
    }

    /// What is named as partitions are: the name, and the topic and partition that it stands for.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, &str, PartitionIndex)> {
        self.names().filter_map(|name| {
            let (topic, partition) = parse_partition(name)?;
            Some((name, topic, partition))
        })
    }

    /// Partitions that were being removed.
    pub fn deleted(&self) -> impl Iterator<Item = &str> {
        self.names().filter(|name| is_deleted(name))
    }
}

/// Name of the directory of a partition that is being removed: `<topic>-<partition>.<topic id>.deleted`. The topic is
/// there for people, and cut where the whole would be too long for a file name; the id makes it unique.
pub(super) fn deleted(topic: &Topic, partition: PartitionIndex) -> String {
    deleted_of(topic.name.as_str(), partition, topic.id)
}

/// The same, of a topic that is known by its name and its id alone.
pub(super) fn deleted_of(topic: &str, partition: PartitionIndex, id: TopicId) -> String {
    with_id(topic, partition, id, "deleted")
}

/// Name that the directory of another topic gets if it has the name of this one's partition, which is removed.
pub(super) fn aside(topic: &Topic, partition: PartitionIndex, other: TopicId) -> String {
    with_id(topic.name.as_str(), partition, other, "aside")
}

fn with_id(name: &str, partition: PartitionIndex, id: TopicId, what: &str) -> String {
    let suffix = format!("-{partition}.{}.{what}", id.as_uuid().simple());
    // Topic names are ASCII.
    format!("{}{suffix}", &name[..name.len().min(FILE_NAME_LEN_MAX - suffix.len())])
}

fn is_deleted(name: &str) -> bool {
    let parts = name.strip_suffix(".deleted").and_then(|name| name.rsplit_once('.'));
    parts.is_some_and(|(rest, id)| {
        let number = rest.rsplit_once('-').map(|(_, number)| number.parse::<u32>());
        matches!(number, Some(Ok(_))) && id.len() == 32 && id.parse::<TopicId>().is_ok()
    })
}

/// Whether a partition's directory could have this name.
pub(crate) fn is_partition(name: &str) -> bool {
    parse_partition(name).is_some()
}

/// The reverse of [`Topic::partition_directory`]. The partition follows the last dash, so that no two topics share a
/// directory.
fn parse_partition(name: &str) -> Option<(&str, PartitionIndex)> {
    let (topic, number) = name.rsplit_once('-')?;
    let partition = PartitionIndex::try_from(number.parse::<i32>().ok()?).ok()?;
    // Only one spelling of a number is ours.
    (TopicName::new(topic).is_ok() && partition.to_string() == number).then_some((topic, partition))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::image::TopicState;

    fn topic(name: &str) -> Topic {
        Topic {
            name: name.parse().unwrap(),
            id: TopicId::random(),
            partition_count: 100_000,
            overrides: BTreeMap::new(),
            state: TopicState::Ready,
            becoming: None,
        }
    }

    #[test]
    fn names_of_partitions_read_back_and_fit_the_file_system() {
        for name in ["a", "a-1", "a.deleted", "-", &"x".repeat(TopicName::LEN_MAX)] {
            let topic = topic(name);
            let last = topic.partitions().last().unwrap();
            let directory = topic.partition_directory(last);
            assert_eq!(parse_partition(&directory), Some((name, last)));
            assert!(
                directory.len() <= FILE_NAME_LEN_MAX && !is_deleted(&directory),
                "{directory}"
            );
            let deleted = deleted(&topic, last);
            assert!(deleted.len() <= FILE_NAME_LEN_MAX && is_deleted(&deleted), "{deleted}");
            assert_eq!(parse_partition(&deleted), None);
            let aside = aside(&topic, last, TopicId::random());
            assert!(aside.len() <= FILE_NAME_LEN_MAX && !is_deleted(&aside), "{aside}");
            assert_eq!(parse_partition(&aside), None);
        }
    }

    #[test]
    fn other_names_are_nobodys() {
        let long = format!("a-0.{}.deleted", "0".repeat(31));
        for name in [
            "lock",
            "topics.json",
            "a",
            "a-",
            "-1",
            "a-01",
            "a-+1",
            "a--",
            "a/b-1",
            "lost+found",
            &long,
        ] {
            assert_eq!((parse_partition(name), is_deleted(name)), (None, false), "{name}");
        }
    }
}
