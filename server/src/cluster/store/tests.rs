mod crash;
mod disk;
mod former;
mod full;
mod misplaced;

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};

use headwater_engine::disk::StdDirectory;
use headwater_protocol::error::ErrorCode;
use headwater_protocol::id::{BrokerId, PartitionIndex};
use headwater_protocol::topic::TopicName;

use self::disk::MemoryDisk;
use super::*;
use crate::cluster::LocalLog;
use crate::config::ByteSize;
use crate::image::settings::TopicSettings;

type Store = TopicStore<MemoryDisk>;

/// What is in force for a topic by the default configuration.
fn settings(topic: &Topic) -> TopicSettings {
    TopicSettings::in_force(&topic.overrides, &config())
}

fn config() -> Config {
    let mut config = Config::default();
    config.log.directory = "/data".into();
    config
}

thread_local! {
    /// The logs at work.
    static LOGS: RefCell<Vec<Pin<Box<dyn Future<Output = ()>>>>> = const { RefCell::new(Vec::new()) };
}

/// No future has to be looked at so often.
const LOOKS_MAX: usize = 1000;

/// Runs a future over a disk whose operations never wait, and over logs on such a disk.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..LOOKS_MAX {
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return result;
        }
        LOGS.with_borrow_mut(|logs| logs.retain_mut(|log| log.as_mut().poll(&mut context).is_pending()));
    }
    panic!("something waits");
}

async fn open_on<D: Directory>(disk: &D, config: Arc<Config>) -> Result<(TopicStore<D>, Recovery), StoreError> {
    let (quorum, log) = LocalLog::open(disk, &config).await?;
    LOGS.with_borrow_mut(|logs| logs.push(Box::pin(log)));
    TopicStore::open(disk.clone(), config, quorum).await
}

fn try_open(disk: &MemoryDisk, config: Config) -> Result<(Store, Recovery), StoreError> {
    now(open_on(disk, Arc::new(config)))
}

/// Opens a store that has nothing to recover.
fn open(disk: &MemoryDisk) -> Store {
    let (store, recovery) = try_open(disk, config()).unwrap();
    assert_eq!(recovery, Recovery::default());
    store
}

fn new_topic(name: &str, partitions: i32) -> NewTopic {
    NewTopic {
        name: name.to_owned(),
        partitions,
        replication_factor: -1,
        configs: Vec::new(),
        assignments: None,
    }
}

fn delete(store: &mut Store, name: &str) -> Result<(), TopicError> {
    let topic = now(store.begin_delete(name, None))?;
    Ok(now(store.finish_delete(topic.id))?)
}

#[test]
fn a_topic_is_found_again_as_it_was_created() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let mut new = new_topic("orders", 3);
    new.configs = vec![("retention.ms".to_owned(), "1000".to_owned())];
    let created = now(store.create(&new)).unwrap();
    assert_eq!(created.state, TopicState::Ready);
    assert_eq!(settings(&created).retention_ms.unwrap().get(), 1000);
    assert_eq!(store.image().topic("orders"), Some(&created));
    assert_eq!(store.image().topic_by_id(created.id), Some(&created));

    let again = open(&disk);
    assert_eq!(again.image().topic("orders"), Some(&created));
    assert_eq!(again.identity(), store.identity());
    let mine = disk.paths().into_iter().filter(|path| path.starts_with("orders"));
    assert_eq!(mine.collect::<Vec<_>>(), ["orders-0", "orders-1", "orders-2"]);
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_starts_anew() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let first = now(store.create(&new_topic("orders", 2))).unwrap();
    disk.write("/data/orders-1/00000000000000000000.log", b"records");
    let deleting = now(store.begin_delete("orders", None)).unwrap();
    assert_eq!(store.image().topic("orders").unwrap().state, TopicState::Deleting);
    let refused = now(store.create(&new_topic("orders", 2))).unwrap_err();
    assert!(
        matches!(refused, TopicError::Exists { deleting: true, .. }),
        "{refused}"
    );
    let again = now(store.begin_delete("orders", None)).unwrap();
    assert_eq!(again, deleting, "a deletion that did not finish can be begun again");
    now(store.finish_delete(deleting.id)).unwrap();
    let unknown = now(store.begin_delete("orders", None)).unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::UnknownTopicOrPartition);
    assert!(store.image().topic("orders").is_none());
    assert!(
        !disk.paths().iter().any(|path| path.starts_with("orders")),
        "{:?}",
        disk.paths()
    );
    let second = now(store.create(&new_topic("orders", 2))).unwrap();
    assert_ne!(first.id, second.id);
}

#[test]
fn a_topic_that_is_meant_by_its_id_is_deleted_and_not_the_next_one_of_its_name() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let first = now(store.create(&new_topic("orders", 1))).unwrap();
    delete(&mut store, "orders").unwrap();
    let second = now(store.create(&new_topic("orders", 1))).unwrap();
    let refused = now(store.begin_delete("orders", Some(first.id))).unwrap_err();
    assert_eq!(refused.code(), ErrorCode::UnknownTopicOrPartition);
    assert_eq!(store.image().topic("orders"), Some(&second), "it stays");
    assert_eq!(
        now(store.begin_delete("orders", Some(second.id))).unwrap().id,
        second.id
    );
}

#[test]
fn a_removal_that_a_stop_cuts_short_is_finished_at_the_next_start() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    now(store.create(&new_topic("orders", 40))).unwrap();
    let topic = now(store.begin_delete("orders", None)).unwrap();
    store.stopping().store(true, Ordering::Relaxed);
    let error = now(store.finish_delete(topic.id)).unwrap_err();
    assert!(matches!(error, StoreError::Stopping), "{error}");
    assert_eq!(store.image().topic("orders").unwrap().state, TopicState::Deleting);
    assert!(disk.paths().iter().any(|path| path.ends_with(".deleted")));
    let (store, recovery) = try_open(&disk, config()).unwrap();
    assert_eq!(recovery.deleted, std::slice::from_ref(&topic.name));
    assert!(store.image().topic("orders").is_none());
    assert!(!disk.paths().iter().any(|path| path.starts_with("orders")));
}

#[test]
fn a_topic_that_is_ready_cannot_lose_its_directories_to_a_stray_finish() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let topic = now(store.create(&new_topic("orders", 1))).unwrap();
    now(store.finish_delete(topic.id)).unwrap();
    assert_eq!(store.image().topic("orders"), Some(&topic));
    assert!(disk.paths().contains(&"orders-0".to_owned()));
}

#[test]
fn defaults_fill_in_what_the_creator_left_open() {
    let mut config = config();
    config.topics.partitions = 4;
    let (store, _) = try_open(&MemoryDisk::default(), config).unwrap();
    assert_eq!(store.check_create(&new_topic("a", -1)).unwrap().partition_count, 4);
    assert_eq!(store.image().topics().len(), 0, "a check creates nothing");
}

#[test]
fn what_exceeds_a_limit_is_refused_with_the_limit() {
    let mut config = config();
    config.limits.topics_max = 2;
    config.limits.partitions_per_topic_max = 4;
    config.limits.partitions_max = 6;
    let (mut store, _) = try_open(&MemoryDisk::default(), config).unwrap();
    let refused = |store: &Store, new: &NewTopic| {
        let error = store.check_create(new).unwrap_err();
        (error.code(), error.to_string())
    };
    for partitions in [0, -2, 5, i32::MAX, i32::MIN] {
        let (code, message) = refused(&store, &new_topic("a", partitions));
        assert_eq!(code, ErrorCode::InvalidPartitions);
        assert!(
            message.contains("allowed is 1 to 4 (limits.partitions_per_topic_max)"),
            "{message}"
        );
    }
    let (code, _) = refused(
        &store,
        &NewTopic {
            replication_factor: 2,
            ..new_topic("a", 1)
        },
    );
    assert_eq!(code, ErrorCode::InvalidReplicationFactor);
    let configs = vec![("cleanup.policy".to_owned(), "squeeze".to_owned())];
    assert_eq!(
        refused(
            &store,
            &NewTopic {
                configs,
                ..new_topic("a", 1)
            }
        )
        .0,
        ErrorCode::InvalidConfig
    );

    now(store.create(&new_topic("a", 4))).unwrap();
    assert_eq!(refused(&store, &new_topic("a", 1)).0, ErrorCode::TopicAlreadyExists);
    let (code, message) = refused(&store, &new_topic("b", 3));
    assert_eq!(code, ErrorCode::PolicyViolation);
    assert!(
        message.contains("holds 4 partitions; 3 more would exceed 6 (limits.partitions_max)"),
        "{message}"
    );
    now(store.create(&new_topic("b", 2))).unwrap();
    assert!(refused(&store, &new_topic("c", 1)).1.contains("limits.topics_max"));
}

fn alteration(configs: &[(&str, Option<&str>)], partitions: i32) -> TopicAlteration {
    let configs = configs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), value.map(str::to_owned).into()));
    TopicAlteration {
        name: "orders".to_owned(),
        configs: configs.collect(),
        is_all: false,
        partitions,
        assignments: None,
    }
}

#[test]
fn an_altered_topic_is_found_again_as_it_was_altered() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let created = now(store.create(&new_topic("orders", 1))).unwrap();
    let set = alteration(&[("retention.ms", Some("1000")), ("segment.ms", Some("60000"))], 2);
    let altered = now(store.alter(&set)).unwrap();
    assert_eq!((altered.id, altered.partition_count), (created.id, 2));
    assert_eq!(settings(&altered).retention_ms.unwrap().get(), 1000);
    assert_eq!(open(&disk).image().topic("orders"), Some(&altered));
    let unset = alteration(&[("retention.ms", None), ("retention.bytes", None)], -1);
    let checked = now(store.check_alter(&unset)).unwrap();
    assert_eq!(store.image().topic("orders"), Some(&altered), "a check changes nothing");
    let unset = now(store.alter(&unset)).unwrap();
    assert_eq!(*unset, checked);
    assert_eq!(
        settings(&unset).retention_ms,
        settings(&created).retention_ms,
        "the default again"
    );
    assert_eq!(unset.overrides.keys().collect::<Vec<_>>(), ["segment.ms"]);
    assert_eq!(open(&disk).image().topic("orders"), Some(&unset));
    let version = store.image().version();
    now(store.alter(&alteration(&[], 2))).unwrap();
    assert_eq!(store.image().version(), version, "what changes nothing is not written");
}

#[test]
fn an_alteration_that_cannot_be_is_refused_with_the_reason() {
    let disk = MemoryDisk::default();
    let mut config = config();
    config.limits.partitions_per_topic_max = 8;
    config.limits.partitions_max = 10;
    let (mut store, _) = try_open(&disk, config).unwrap();
    let unknown = now(store.alter(&alteration(&[], 2))).unwrap_err();
    assert_eq!(unknown.code(), ErrorCode::UnknownTopicOrPartition);
    now(store.create(&new_topic("other", 4))).unwrap();
    now(store.create(&new_topic("orders", 4))).unwrap();
    let before = store.image();
    for (configs, partitions, code, words) in [
        (
            &[][..],
            3,
            ErrorCode::InvalidPartitions,
            "has 4 partitions and cannot have 3",
        ),
        (&[], 0, ErrorCode::InvalidPartitions, "allowed is 1 to 8"),
        (&[], -2, ErrorCode::InvalidPartitions, "allowed is 1 to 8"),
        (&[], 9, ErrorCode::InvalidPartitions, "limits.partitions_per_topic_max"),
        (&[], 7, ErrorCode::PolicyViolation, "limits.partitions_max"),
        (
            &[("no.such", Some("1"))],
            -1,
            ErrorCode::InvalidConfig,
            "no topic configuration",
        ),
        (
            &[("no.such", None)],
            -1,
            ErrorCode::InvalidConfig,
            "no topic configuration",
        ),
        (
            &[("segment.ms", Some("soon"))],
            -1,
            ErrorCode::InvalidConfig,
            "segment.ms",
        ),
        (
            &[("segment.ms", Some("60000")), ("segment.ms", None)],
            -1,
            ErrorCode::InvalidConfig,
            "more than once",
        ),
        // Good partitions do not save bad settings.
        (
            &[("segment.ms", Some("soon"))],
            5,
            ErrorCode::InvalidConfig,
            "segment.ms",
        ),
    ] {
        let refused = now(store.alter(&alteration(configs, partitions))).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
        assert!(refused.to_string().contains(words), "{refused}");
        assert_eq!(store.image().version(), before.version());
    }
    disk.make_dir("/data/orders-5");
    let refused = now(store.alter(&alteration(&[], 6))).unwrap_err();
    assert!(
        matches!(&refused, TopicError::InTheWay { path } if path.ends_with("orders-5")),
        "{refused}"
    );
    assert!(!disk.paths().contains(&"orders-4".to_owned()));
    now(store.alter(&alteration(&[], 5))).unwrap();
}

#[test]
fn a_setting_that_a_lowered_limit_has_outdated_does_not_stand_in_the_way_of_others() {
    let disk = MemoryDisk::default();
    let mut new = new_topic("orders", 1);
    new.configs = vec![("max.message.bytes".to_owned(), "4194304".to_owned())];
    now(open(&disk).create(&new)).unwrap();
    let mut lowered = config();
    lowered.log.batch_size_bytes_max = ByteSize::new(1 << 20);
    let (mut store, _) = try_open(&disk, lowered).unwrap();
    now(store.alter(&alteration(&[("retention.ms", Some("1000"))], -1))).unwrap();
    let too_much = alteration(&[("max.message.bytes", Some("2097152"))], -1);
    assert!(
        now(store.alter(&too_much))
            .unwrap_err()
            .to_string()
            .contains("log.batch_size_bytes_max")
    );
}

#[test]
fn a_lowered_limit_hides_no_topic() {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    let mut new = new_topic("a", 8);
    new.configs = vec![("max.message.bytes".to_owned(), "4194304".to_owned())];
    now(store.create(&new)).unwrap();
    let mut config = config();
    config.limits.partitions_per_topic_max = 1;
    config.log.batch_size_bytes_max = ByteSize::new(1 << 20);
    let (store, _) = try_open(&disk, config.clone()).unwrap();
    let image = store.image();
    let topic = image.topic("a").unwrap();
    let settings = TopicSettings::in_force(&topic.overrides, &config);
    assert_eq!(
        (topic.partition_count, settings.batch_size_bytes_max),
        (8, ByteSize::new(1 << 20))
    );
}

#[test]
fn a_missing_partition_is_reported_and_never_made_anew() {
    let disk = MemoryDisk::default();
    let topic = now(open(&disk).create(&new_topic("orders", 3))).unwrap();
    disk.remove("/data/orders-1");
    for _ in 0..2 {
        let (store, recovery) = try_open(&disk, config()).unwrap();
        assert_eq!(recovery.missing, [(Arc::clone(&topic), PartitionIndex::new(1))]);
        assert_eq!(store.image().topic("orders"), Some(&topic));
        assert!(!disk.paths().contains(&"orders-1".to_owned()));
    }
}

#[test]
fn directories_that_are_nobodys_are_left_alone_and_never_taken_over() {
    let disk = MemoryDisk::default();
    now(open(&disk).create(&new_topic("orders", 1))).unwrap();
    for name in ["orders-1", "others-0", "lost+found"] {
        disk.make_dir(&format!("/data/{name}"));
    }
    let (mut store, recovery) = try_open(&disk, config()).unwrap();
    assert_eq!(recovery.orphans, ["orders-1", "others-0"]);
    let error = now(store.create(&new_topic("others", 1))).unwrap_err();
    assert!(
        matches!(&error, TopicError::InTheWay { path } if path.ends_with("others-0")),
        "{error}"
    );
    assert!(store.image().topic("others").is_none());
    assert!(disk.paths().contains(&"others-0".to_owned()));
}

#[test]
fn a_data_directory_belongs_to_one_broker_of_one_cluster() {
    let disk = MemoryDisk::default();
    let mut with_cluster = config();
    with_cluster.broker.cluster_id = Some("blue".parse().unwrap());
    let (store, _) = try_open(&disk, with_cluster).unwrap();
    assert_eq!(store.identity().cluster_id.as_str(), "blue");
    assert_eq!(
        open(&disk).identity(),
        store.identity(),
        "the identity need not be configured again"
    );

    let mut other = config();
    other.broker.id = BrokerId::new(5);
    let message = try_open(&disk, other).err().unwrap().to_string();
    assert!(message.contains("belongs to broker 0, but broker.id is 5"), "{message}");
    let mut other = config();
    other.broker.cluster_id = Some("green".parse().unwrap());
    let message = try_open(&disk, other).err().unwrap().to_string();
    assert!(
        message.contains("belongs to cluster blue, but broker.cluster_id is green"),
        "{message}"
    );
}

#[test]
fn a_missing_store_is_an_error_and_not_a_first_start() {
    let disk = MemoryDisk::default();
    now(open(&disk).create(&new_topic("orders", 1))).unwrap();
    disk.remove(&format!("/data/{QUORUM_FILE}"));
    let error = try_open(&disk, config()).err().unwrap();
    assert!(
        matches!(&error, StoreError::Missing { path, evidence } if path.ends_with(QUORUM_FILE) && evidence.contains("orders-0")),
        "{error}"
    );
}

#[test]
fn the_longest_name_fits_a_real_disk_from_creation_to_removal() {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = config();
    config.log.directory = temporary.path().join("data");
    let config = Arc::new(config);
    let name = "x".repeat(TopicName::LEN_MAX);
    let (mut store, _) = now(open_on(&StdDirectory::default(), Arc::clone(&config))).unwrap();
    now(store.create(&new_topic(&name, 2))).unwrap();
    let partition = config.log.directory.join(format!("{name}-1"));
    std::fs::write(partition.join("file"), "records").unwrap();
    let (mut store, recovery) = now(open_on(&StdDirectory::default(), Arc::clone(&config))).unwrap();
    assert_eq!(recovery, Recovery::default());
    let topic = now(store.begin_delete(&name, None)).unwrap();
    now(store.finish_delete(topic.id)).unwrap();
    let left = std::fs::read_dir(&config.log.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    let mut left: Vec<_> = left.collect();
    left.sort();
    assert_eq!(left, [QUORUM_FILE]);
}
