//! Topics over the wire: made, described, deleted, made anew, through crashes and while they are in use.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use headwater_client::{
    Client, Error, ErrorCode, NewTopic, Offset, OffsetSpec, PartitionIndex, Record, Start, TopicAlteration, TopicId,
};
use headwater_protocol::schema::DeleteRecordsRequestT;
use headwater_server::config::{Config, Knob};
use rand::RngExt as _;

use crate::support::{Raw, Seed, Site, batch, fetch, list_offsets, produce, read_topic, run};

const ONLY: PartitionIndex = PartitionIndex::new(0);

#[test]
fn a_topic_is_what_its_creator_asked_for_or_is_refused_with_the_reason() {
    run(async {
        let site = Site::new().set("topics.partitions", "3");
        let broker = site.start();
        let client = site.client().await;
        let admin = client.admin();
        let plain = admin.create_topic(NewTopic::new("plain")).await.unwrap();
        assert_eq!(plain.partitions, 3);
        let new = NewTopic::new("own")
            .partitions(2)
            .config("retention.ms", 5_000)
            .config("segment.bytes", 65_536);
        let own = admin.create_topic(new.clone()).await.unwrap();
        let described = admin.describe_topic("own").await.unwrap();
        assert_eq!((described.id, described.partitions.len()), (own.id, 2));
        let configs: BTreeMap<_, _> = described
            .configs
            .iter()
            .map(|config| (&*config.name, &*config.value))
            .collect();
        assert_eq!((configs["retention.ms"], configs["segment.bytes"]), ("5000", "65536"));
        assert_eq!(configs["cleanup.policy"], "delete");
        let set: Vec<_> = described.configs.iter().filter(|config| config.is_own).collect();
        let set: Vec<_> = set.iter().map(|config| &*config.name).collect();
        assert_eq!(set, ["retention.ms", "segment.bytes"], "the rest follows the broker");
        let refused = [
            (new, ErrorCode::TopicAlreadyExists),
            (NewTopic::new("t").partitions(0), ErrorCode::InvalidPartitions),
            (NewTopic::new("t").partitions(i32::MIN), ErrorCode::InvalidPartitions),
            (NewTopic::new("t").partitions(257), ErrorCode::InvalidPartitions),
            (
                NewTopic::new("t").replication_factor(2),
                ErrorCode::InvalidReplicationFactor,
            ),
            (NewTopic::new("t").config("no.such.key", 1), ErrorCode::InvalidConfig),
            (
                NewTopic::new("t").config("segment.bytes", "many"),
                ErrorCode::InvalidConfig,
            ),
        ];
        for (new, code) in refused {
            let error = admin.create_topic(new).await.unwrap_err();
            assert!(
                matches!(&error, Error::Broker { code: found, message } if *found == code && !message.is_empty()),
                "{error}"
            );
        }
        admin
            .create_topic(NewTopic::new("t").validate_only(true))
            .await
            .unwrap();
        let names: Vec<String> = admin
            .topics()
            .await
            .unwrap()
            .iter()
            .map(|topic| topic.name.to_string())
            .collect();
        assert_eq!(names, ["own", "plain"]);
        broker.stop();
    });
}

#[test]
fn the_id_of_a_deleted_topic_is_unknown_although_its_name_is_in_use_again() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 2).await;
        let admin = client.admin();
        let stale = admin.describe_topic("t").await.unwrap().id;
        let mut raws = [
            Raw::connect(site.core_address(0)).await,
            Raw::connect(site.core_address(1)).await,
        ];
        for raw in &mut raws {
            assert_eq!(raw.call(&produce(stale, 0), &batch(&[b"old"])).await.produce().error, 0);
        }
        // A fetch that waits for records of the old topic learns that they will never come.
        let waiting = raws[0].send(&fetch(stale, &[(0, 2)], 3_600_000, 1), &[]).await;
        admin.delete_topic("t").await.unwrap();
        let reply = raws[0].receive().await.unwrap();
        assert_eq!(reply.header.correlation_id, waiting);
        assert_eq!(
            reply.fetch().partitions.unwrap()[0].error,
            ErrorCode::UnknownTopicId as i16
        );
        for made_anew in [false, true] {
            if made_anew {
                admin.create_topic(NewTopic::new("t").partitions(2)).await.unwrap();
            }
            for raw in &mut raws {
                for partition in [0, 1] {
                    assert_eq!(errors_of(raw, stale, partition).await, [ErrorCode::UnknownTopicId; 4]);
                }
            }
        }
        assert!(
            read_topic(&client, "t").await.iter().all(Vec::is_empty),
            "a new topic is empty"
        );
        broker.stop();
    });
}

/// What a core answers to everything that can be asked about a partition.
async fn errors_of(raw: &mut Raw, topic: TopicId, partition: i32) -> [ErrorCode; 4] {
    let deletion = DeleteRecordsRequestT {
        topic_id: Some(topic.into()),
        partition,
        offset: 0,
    };
    let produced = raw
        .call(&produce(topic, partition), &batch(&[b"x"]))
        .await
        .produce()
        .error;
    let fetched = raw.call(&fetch(topic, &[(partition, 0)], 0, 1), &[]).await.fetch();
    let listed = raw
        .call(&list_offsets(topic, &[(partition, -1)]), &[])
        .await
        .list_offsets();
    let deleted = raw.call(&deletion, &[]).await.delete_records().error;
    let (fetched, listed) = (
        fetched.partitions.unwrap()[0].error,
        listed.partitions.unwrap()[0].error,
    );
    [produced, fetched, listed, deleted].map(ErrorCode::from_i16)
}

#[test]
fn a_topic_that_is_altered_while_it_is_in_use_obeys_at_once_and_for_good() {
    run(async {
        let site = Site::new();
        let mut broker = site.start();
        let client = site.client_with_topic("t", 2).await;
        let admin = client.admin();
        let large = vec![7; 100_000];
        let producer = client.producer().build().await.unwrap();
        let send = async |partition| {
            let record = Record::to("t").value(&large).partition(PartitionIndex::new(partition));
            producer.send(record).await?.await
        };
        send(0).await.unwrap();
        let smaller = TopicAlteration::of("t")
            .set("max.message.bytes", 65_536)
            .set("segment.bytes", 131_072);
        assert_eq!(admin.alter_topic(smaller.clone().validate_only(true)).await.unwrap(), 2);
        send(0).await.unwrap();
        admin.alter_topic(smaller).await.unwrap();
        for partition in [0, 1] {
            let error = send(partition).await.unwrap_err();
            assert_eq!(error.code(), Some(ErrorCode::MessageTooLarge), "{error}");
        }
        broker.kill();
        broker = site.start();
        let described = admin.describe_topic("t").await.unwrap();
        let value = |key| {
            described
                .configs
                .iter()
                .find(|config| config.name == key)
                .map(|config| &*config.value)
        };
        assert_eq!(
            (value("max.message.bytes"), value("segment.bytes")),
            (Some("65536"), Some("131072"))
        );
        // What was stored under the old limits is whole.
        assert_eq!(read_topic(&client, "t").await[0].len(), 2);
        admin
            .alter_topic(
                TopicAlteration::of("t")
                    .reset("max.message.bytes")
                    .reset("segment.bytes"),
            )
            .await
            .unwrap();
        let producer = client.producer().build().await.unwrap();
        let record = Record::to("t").value(&large).partition(ONLY);
        producer.send(record).await.unwrap().await.unwrap();
        for (alteration, code) in [
            (TopicAlteration::of("t").partitions(1), ErrorCode::InvalidPartitions),
            (TopicAlteration::of("t").partitions(257), ErrorCode::InvalidPartitions),
            (TopicAlteration::of("t").set("no.such", 1), ErrorCode::InvalidConfig),
            (
                TopicAlteration::of("t").set("segment.ms", 1).reset("segment.ms"),
                ErrorCode::InvalidConfig,
            ),
            (
                TopicAlteration::of("nowhere").partitions(1),
                ErrorCode::UnknownTopicOrPartition,
            ),
        ] {
            assert_eq!(admin.alter_topic(alteration).await.unwrap_err().code(), Some(code));
        }
        broker.stop();
    });
}

#[test]
fn partitions_that_a_topic_got_are_served_by_their_cores_and_survive_sigkill() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let id = client.admin().describe_topic("t").await.unwrap().id;
        // A consumer of the whole topic reads what is added to it.
        let consumer = client
            .consumer()
            .topics(["t"])
            .start(Start::Earliest)
            .build()
            .await
            .unwrap();
        assert_eq!(consumer.assignment().len(), 1);
        write(&client, "t", 1, 3).await;
        assert_eq!(client.admin().create_partitions("t", 4).await.unwrap(), 4);
        write(&client, "t", 4, 2).await;
        let described = client.admin().describe_topic("t").await.unwrap();
        assert_eq!(
            (described.id, described.partitions.len()),
            (id, 4),
            "it is the same topic"
        );
        let cores: BTreeSet<u16> = described
            .partitions
            .iter()
            .map(|partition| partition.core.get())
            .collect();
        assert_eq!(cores.len(), 2, "on both cores");
        broker.kill();
        let broker = site.start();
        let lengths: Vec<_> = read_topic(&client, "t").await.iter().map(Vec::len).collect();
        assert_eq!(lengths, [5, 2, 2, 2]);
        assert_eq!(partition_directories(&site), ["t-0", "t-1", "t-2", "t-3"]);
        client.admin().delete_topic("t").await.unwrap();
        assert_eq!(partition_directories(&site), [""; 0]);
        broker.stop();
    });
}

#[test]
fn a_broker_tells_every_setting_that_is_in_force() {
    run(async {
        let site = Site::new().set("log.retention_ms", "90m");
        let broker = site.start();
        let described = site.client().await.admin().describe_broker().await.unwrap();
        assert_eq!(described.version, env!("CARGO_PKG_VERSION"));
        let settings: BTreeMap<_, _> = described
            .settings
            .iter()
            .map(|setting| (setting.name.clone(), setting.value.as_deref()))
            .collect();
        let known: Vec<String> = Config::KNOBS.iter().map(Knob::name).collect();
        assert_eq!(settings.len(), known.len());
        assert!(known.iter().all(|name| settings.contains_key(name)), "{settings:?}");
        assert_eq!(settings["log.retention_ms"], Some("90m"));
        assert_eq!(settings["log.directory"], site.directory().to_str());
        broker.stop();
    });
}

#[test]
fn a_broker_tells_what_all_of_its_cores_are_doing() {
    run(async {
        let site = Site::new().set("cores.count", "2");
        let broker = site.start();
        let client = site.client_with_topic("t", 3).await;
        let status = async || client.admin().describe_broker().await.unwrap().status.unwrap();
        let before = status().await;
        assert_eq!((before.cores, before.cores_up), (2, 2));
        assert_eq!((before.topics, before.partitions, before.partitions_offline), (1, 3, 0));
        assert!(before.connections > 0);
        let disk = before.disk.unwrap();
        assert!(0 < disk.free_bytes && disk.free_bytes <= disk.size_bytes, "{disk:?}");
        let producer = client.producer().build().await.unwrap();
        let value = vec![7; 50_000];
        for partition in 0..3 {
            let record = Record::to("t").value(&value).partition(PartitionIndex::new(partition));
            producer.send(record).await.unwrap().await.unwrap();
        }
        let after = status().await;
        let received = after.received_bytes - before.received_bytes;
        assert!((150_000..200_000).contains(&received), "{received}");
        assert!(
            read_topic(&client, "t")
                .await
                .iter()
                .all(|partition| partition.len() == 1)
        );
        let fetched = status().await.fetched_bytes - after.fetched_bytes;
        assert!((150_000..200_000).contains(&fetched), "{fetched}");
        broker.stop();
    });
}

#[test]
fn topics_survive_sigkill() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client().await;
        for name in ["a", "b", "c"] {
            let new = NewTopic::new(name).partitions(2).config("retention.ms", 60_000);
            client.admin().create_topic(new).await.unwrap();
        }
        client.admin().delete_topic("b").await.unwrap();
        let before = client.admin().topics().await.unwrap();
        broker.kill();
        let broker = site.start();
        assert_eq!(client.admin().topics().await.unwrap(), before);
        let configs = client.admin().describe_topic("c").await.unwrap().configs;
        assert!(
            configs
                .iter()
                .any(|config| config.name == "retention.ms" && config.value == "60000")
        );
        assert_eq!(partition_directories(&site), ["a-0", "a-1", "c-0", "c-1"]);
        broker.stop();
    });
}

fn partition_directories(site: &Site) -> Vec<String> {
    let entries = fs::read_dir(site.directory()).unwrap().map(Result::unwrap);
    let directories = entries.filter(|entry| entry.file_type().unwrap().is_dir());
    let mut names: Vec<_> = directories
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort_unstable();
    names
}

#[test]
fn retention_deletes_the_oldest_segments_of_the_topic_that_asks_for_it() {
    run(async {
        let site = Site::new().set("log.retention_check_interval_ms", "10ms");
        let mut broker = site.start();
        let client = site.client().await;
        for (name, retention) in [("short", "200000"), ("long", "-1")] {
            let new = NewTopic::new(name)
                .config("segment.bytes", 65_536)
                .config("retention.bytes", retention);
            client.admin().create_topic(new).await.unwrap();
        }
        let producer = client.producer().batch_bytes(8 << 10).build().await.unwrap();
        for number in 0..1_000_u32 {
            for topic in ["short", "long"] {
                let value = [number.to_le_bytes(); 250].concat();
                drop(producer.send(Record::to(topic).value(&value)).await.unwrap());
            }
        }
        producer.flush().await.unwrap();
        // Retention is at work in the background; what it leaves is what is promised: at least so much, as in Kafka.
        let shortened = loop {
            let mut described = client.admin().describe_topic("short").await.unwrap();
            let partition = described.partitions.swap_remove(0);
            if partition.size_bytes < 200_000 + 65_536 {
                break partition;
            }
        };
        assert!(shortened.size_bytes >= 200_000, "more was deleted than had to be");
        assert_eq!(shortened.log_end_offset, Offset::new(1_000));
        let start = shortened.log_start_offset;
        for restarted in [false, true] {
            if restarted {
                broker.kill();
                broker = site.start();
            }
            let stored = read_topic(&client, "short").await.swap_remove(0);
            let numbers = stored
                .iter()
                .map(|record| u32::from_le_bytes(record.value[..4].try_into().unwrap()));
            assert!(numbers.eq(start.get() as u32..1_000));
            assert_eq!(
                client
                    .admin()
                    .list_offset("long", ONLY, OffsetSpec::Earliest)
                    .await
                    .unwrap(),
                Some(Offset::ZERO)
            );
            assert_eq!(read_topic(&client, "long").await[0].len(), 1_000);
        }
        broker.stop();
    });
}

#[test]
fn a_topic_that_is_deleted_and_made_anew_under_load_keeps_what_is_acknowledged_to_its_last_self() {
    let seed = Seed::of("a_topic_that_is_deleted_and_made_anew_under_load_keeps_what_is_acknowledged_to_its_last_self");
    run(async {
        let site = Site::new()
            .set("log.checkpoint_interval_ms", "10ms")
            .set("log.retention_check_interval_ms", "10ms");
        let mut broker = site.start();
        let mut random = seed.random();
        let client = site.client().await;
        // Others are kept busy, so that whatever walks over all partitions takes its time.
        for number in 0..8 {
            client
                .admin()
                .create_topic(NewTopic::new(format!("other-{number}")).partitions(4))
                .await
                .unwrap();
        }
        for _ in 0..5 {
            let mut topic = remake(&client).await;
            for _ in 0..random.random_range(1..6) {
                let others = async {
                    for number in 0..8 {
                        write(&client, &format!("other-{number}"), 4, 1).await;
                    }
                };
                tokio::join!(others, write(&client, "t", 2, random.random_range(1..40)));
                topic = remake(&client).await;
            }
            let written = random.random_range(1..40);
            write(&client, "t", 2, written).await;
            broker.kill();
            broker = site.start();
            assert_eq!(client.admin().describe_topic("t").await.unwrap().id, topic);
            for partition in read_topic(&client, "t").await {
                assert_eq!(
                    partition.len(),
                    written,
                    "of the topic's last self all is there, and nothing of the others"
                );
            }
        }
        broker.stop();
    });
}

async fn remake(client: &Client) -> TopicId {
    match client.admin().delete_topic("t").await {
        Ok(()) | Err(Error::UnknownTopic(_)) => {}
        Err(error) => panic!("{error}"),
    }
    let new = NewTopic::new("t").partitions(2).config("segment.bytes", 65_536);
    client.admin().create_topic(new).await.unwrap().id
}

/// Appends so many records to each partition, each acknowledged.
async fn write(client: &Client, topic: &str, partitions: i32, records: usize) {
    let producer = client.producer().batch_bytes(16 << 10).build().await.unwrap();
    for _ in 0..records {
        for partition in 0..partitions {
            let record = Record::to(topic)
                .partition(PartitionIndex::new(partition))
                .value(&[7; 5_000]);
            drop(producer.send(record).await.unwrap());
        }
    }
    producer.close().await.unwrap();
}
