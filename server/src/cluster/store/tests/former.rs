//! What a broker before the quorum has left is taken over, once, whatever happens meanwhile.

use super::crash::at_every_operation;
use super::disk::{Fault, Outcome};
use super::*;
use crate::cluster::quorum;

const FILES: [&str; 3] = ["broker.json", "producer-ids.json", "topics.json"];

const BROKER: &str = r#"{"cluster_id":"blue","broker_id":0}"#;
const PRODUCER_IDS: &str = r#"{"next":5000}"#;

/// The form of such a file, byte for byte.
fn seal(content: &str, format_version: u32) -> Vec<u8> {
    let crc32c = crc32c::crc32c(content.as_bytes());
    format!("{{\"format_version\":{format_version},\"crc32c\":{crc32c},\"content\":{content}}}\n").into_bytes()
}

fn topic(name: &str, id: u128, partitions: u32, state: &str, more: &str) -> String {
    let id = uuid::Uuid::from_u128(id);
    format!(
        r#"{{"name":"{name}","id":"{id}","partitions":{partitions},"configs":{{"retention.ms":"1000"}},"state":"{state}"{more}}}"#
    )
}

fn put(disk: &MemoryDisk, topics: &[String]) {
    disk.make_dir("/data");
    let topics = format!(r#"{{"topics":[{}]}}"#, topics.join(","));
    for (file, content) in FILES.iter().zip([BROKER, PRODUCER_IDS, &topics]) {
        disk.write(&format!("/data/{file}"), &seal(content, 1));
    }
}

/// A directory with topics in each state that a crash can have left.
fn left() -> MemoryDisk {
    let disk = MemoryDisk::default();
    let becoming = r#","becoming":{"partitions":3,"configs":{"retention.ms":"2000"}}"#;
    put(
        &disk,
        &[
            topic("creating", 1, 2, "creating", ""),
            topic("deleting", 2, 1, "deleting", ""),
            topic("growing", 3, 2, "ready", becoming),
            topic("ready", 4, 1, "ready", ""),
        ],
    );
    for directory in ["deleting-0", "growing-0", "growing-1", "ready-0"] {
        disk.make_dir(&format!("/data/{directory}"));
    }
    disk.write("/data/ready-0/0.log", b"records");
    disk.write("/data/topics.json.tmp", b"half");
    disk
}

fn assert_taken_over(disk: &MemoryDisk, store: &Store) {
    assert_eq!(store.identity().cluster_id.as_str(), "blue");
    let image = store.image();
    let found: Vec<_> = image
        .topics()
        .map(|topic| (topic.name.as_str(), topic.partition_count))
        .collect();
    assert_eq!(found, [("creating", 2), ("growing", 3), ("ready", 1)]);
    assert!(
        image
            .topics()
            .all(|topic| topic.state == TopicState::Ready && topic.becoming.is_none())
    );
    assert_eq!(image.topic("growing").unwrap().overrides["retention.ms"], "2000");
    assert_eq!(image.topic("ready").unwrap().id, TopicId::new(uuid::Uuid::from_u128(4)));
    let expected = [
        "creating-0",
        "creating-1",
        "growing-0",
        "growing-1",
        "growing-2",
        QUORUM_FILE,
        "ready-0",
        "ready-0/0.log",
    ];
    assert_eq!(disk.paths(), expected);
}

#[test]
fn a_directory_of_before_the_quorum_is_taken_over_with_its_identity_topics_and_producer_ids() {
    let disk = left();
    let (store, recovery) = try_open(&disk, config()).unwrap();
    assert_taken_over(&disk, &store);
    assert_eq!(recovery.missing, []);
    let reserved = now(store.quorum().propose(Order::ReserveProducerIds)).unwrap();
    assert_eq!(reserved, quorum::Outcome::ProducerIds { first: 5000 });
    assert_taken_over(&disk, &open(&disk));
}

#[test]
fn a_crash_at_any_operation_of_the_takeover_leaves_a_directory_that_is_taken_over() {
    for outcome in Outcome::ALL {
        at_every_operation(8, |at| {
            let disk = left();
            disk.plan(Fault::crash(at, outcome));
            let _ = try_open(&disk, config());
            let crashed = disk.heal();
            let (store, _) = try_open(&disk, config()).unwrap();
            assert_taken_over(&disk, &store);
            crashed
        });
    }
}

#[test]
fn a_changed_bit_in_any_file_is_an_error_that_names_the_file() {
    let disk = left();
    for file in FILES {
        let path = format!("/data/{file}");
        let content = disk.read(&path);
        for (at, bit) in (0..content.len()).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
            let mut changed = content.clone();
            changed[at] ^= 1 << bit;
            disk.write(&path, &changed);
            let error = try_open(&disk, config()).err();
            let error = error.unwrap_or_else(|| panic!("{file}: byte {at} bit {bit} went unnoticed"));
            assert!(error.to_string().contains(&path), "{error}");
        }
        disk.write(&path, &content);
    }
    assert!(!disk.paths().contains(&QUORUM_FILE.to_owned()));
    try_open(&disk, config()).unwrap();
}

#[test]
fn a_topic_that_is_listed_twice_is_refused() {
    let topic = |name: &str, id| topic(name, id, 1, "creating", "");
    for (topics, is_valid) in [
        ([topic("a", 1), topic("b", 2)], true),
        ([topic("a", 1), topic("b", 1)], false),
        ([topic("a", 1), topic("a", 2)], false),
    ] {
        let disk = MemoryDisk::default();
        put(&disk, &topics);
        let error = try_open(&disk, config()).err().map(|error| error.to_string());
        assert_eq!(error.is_none(), is_valid);
        assert!(error.is_none_or(|error| error.contains("is there twice")));
    }
}

#[test]
fn a_newer_format_is_refused_as_such() {
    let disk = left();
    disk.write("/data/topics.json", &seal(r#"{"topics":[]}"#, 2));
    let error = try_open(&disk, config()).err().unwrap();
    assert!(matches!(error, StoreError::NewerFormat { found: 2, .. }), "{error}");
}

#[test]
fn a_missing_file_is_an_error_and_not_a_first_start() {
    for file in FILES {
        let disk = left();
        disk.remove(&format!("/data/{file}"));
        let error = try_open(&disk, config()).err().unwrap();
        assert!(
            matches!(&error, StoreError::Missing { path, .. } if path.ends_with(file)),
            "{error}"
        );
    }
}

#[test]
fn a_directory_of_another_broker_is_not_taken_over() {
    let disk = left();
    let mut other = config();
    other.broker.id = BrokerId::new(5);
    let message = try_open(&disk, other).err().unwrap().to_string();
    assert!(message.contains("belongs to broker 0, but broker.id is 5"), "{message}");
    assert!(FILES.iter().all(|file| disk.paths().contains(&(*file).to_owned())));
}
