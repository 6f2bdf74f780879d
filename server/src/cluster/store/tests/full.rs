//! A full disk refuses what needs room, and nothing that leads to more of it: the quorum's store has its own.

use super::*;

/// A full disk with a topic of two partitions.
fn full() -> (MemoryDisk, Store) {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    now(store.create(&new_topic("orders", 2))).unwrap();
    disk.fill();
    (disk, store)
}

fn keep_less(partitions: i32) -> TopicAlteration {
    alteration(&[("retention.ms", Some("59999"))], partitions)
}

#[test]
fn a_topic_is_altered_and_deleted_on_a_full_disk() {
    let (disk, mut store) = full();
    now(store.alter(&keep_less(-1))).unwrap();
    let image = disk_has(&disk);
    assert_eq!(image.topic("orders").unwrap().overrides["retention.ms"], "59999");
    delete(&mut store, "orders").unwrap();
    assert_eq!(disk_has(&disk).topics().len(), 0);
    assert_eq!(disk.paths(), [QUORUM_FILE]);
}

#[test]
fn a_topic_for_whose_partitions_there_is_no_room_is_refused_and_leaves_nothing() {
    let (disk, mut store) = full();
    let before = store.image();
    for refused in [
        now(store.create(&new_topic("another", 1))),
        now(store.alter(&keep_less(3))),
    ] {
        let error = refused.unwrap_err();
        assert!(matches!(error, TopicError::Store(StoreError::Io { .. })), "{error}");
    }
    for image in [store.image(), disk_has(&disk)] {
        assert_eq!(image.topic("orders"), before.topic("orders"));
        assert!(image.topic("another").is_none());
    }
    assert_eq!(disk.paths(), ["orders-0", "orders-1", QUORUM_FILE]);
}

/// What a broker finds there.
fn disk_has(disk: &MemoryDisk) -> Arc<ClusterImage> {
    open(&disk.copy()).image()
}
