//! On a full disk what leads to more room is stored in the space that is kept for that, and nothing else is.

use super::*;

fn topic(name: &str, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    NewTopic {
        configs: configs.collect(),
        ..new_topic(name, 1)
    }
}

/// A full disk, with one topic that is deleted by age and size, and one that is only compacted.
fn full() -> (MemoryDisk, Store) {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let limits = [("retention.ms", "60000"), ("retention.bytes", "1000000")];
    now(store.create(&topic("limited", &limits))).unwrap();
    let compacted = [("cleanup.policy", "compact"), limits[0]];
    now(store.create(&topic("compacted", &compacted))).unwrap();
    disk.fill();
    (disk, store)
}

fn alter(store: &mut Store, name: &str, key: &str, value: &str, partitions: i32) -> Result<(), TopicError> {
    let alteration = TopicAlteration {
        name: name.to_owned(),
        configs: vec![(key.to_owned(), Some(value.to_owned()))],
        partitions,
    };
    now(store.alter(&alteration)).map(drop)
}

#[test]
fn a_topic_is_stored_on_a_full_disk_if_it_is_to_keep_less_than_before() {
    for (name, key, value) in [
        ("limited", "retention.ms", "59999"),
        ("limited", "retention.bytes", "999999"),
        ("compacted", "cleanup.policy", "compact,delete"),
        ("compacted", "cleanup.policy", "delete"),
    ] {
        let (disk, mut store) = full();
        alter(&mut store, name, key, value, -1).unwrap();
        let again = open(&disk);
        let stored = again.image().topic(name).unwrap().overrides[key].clone();
        assert_eq!(stored, value, "{name} {key}");
    }
}

#[test]
fn nothing_else_takes_the_space_that_is_kept_for_a_full_disk() {
    for (name, key, value, partitions) in [
        ("limited", "retention.ms", "60001", -1),
        ("limited", "retention.bytes", "-1", -1),
        ("limited", "cleanup.policy", "compact", -1),
        ("limited", "segment.bytes", "1000000", -1),
        // What is not deleted by age does not become less.
        ("compacted", "retention.ms", "1000", -1),
        ("limited", "retention.ms", "1000", 2),
    ] {
        let (disk, mut store) = full();
        let error = alter(&mut store, name, key, value, partitions).unwrap_err();
        assert!(
            matches!(error, TopicError::Store(StoreError::Io { .. })),
            "{name} {key}: {error}"
        );
        let before = store.image();
        assert_eq!(open(&disk).image().topic(name), before.topic(name), "{name} {key}");
    }
    let (_, mut store) = full();
    now(store.create(&topic("another", &[]))).unwrap_err();
    delete(&mut store, "limited").unwrap();
}
