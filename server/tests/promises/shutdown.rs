//! The broker stops in order when it is told to, and everybody can see afterwards whether it did.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::PathBuf};

use headwater_client::{Client, TopicId};
use headwater_protocol::{error::ErrorCode, schema::ProduceResponseT};
use rustix::process::Signal;

use crate::support::{Raw, Reply, Site, Source, batch, fetch, produce, read_topic, run};

const SOURCE: Source = Source {
    producer: 0,
    partition: 0,
};

#[test]
fn a_signal_lets_the_broker_answer_what_it_took_in_and_leave_everything_durable_and_nothing_to_scan() {
    run(async {
        for signal in [Signal::TERM, Signal::INT] {
            let site = Site::new();
            let mut broker = site.start();
            let client = site.client_with_topic("t", 2).await;
            let (id, owner) = whereabouts(&client, "t").await;
            // A fetch waits for records that will not come.
            let mut waiting = Raw::connect(site.core_address(owner)).await;
            let waiting_id = waiting.send(&fetch(id, &[(1, 0)], 60_000, 1), &[]).await;
            let mut raw = Raw::connect(site.core_address(owner)).await;
            // The signal falls into the middle of requests, some of them taken in and some not.
            for number in 0..200 {
                raw.send(&produce(id, 0), &batch(&[&SOURCE.value(number, 5_000)])).await;
            }
            let mut offsets = vec![acknowledged(raw.receive().await.unwrap())];
            broker.signal(signal);
            while let Some(reply) = raw.receive().await {
                offsets.push(acknowledged(reply));
            }
            let reply = waiting.receive().await.expect("a fetch that waits is answered");
            assert_eq!((reply.header.correlation_id, reply.payload.len()), (waiting_id, 0));
            assert!(broker.wait().success());
            assert!(site.directory().join("clean-shutdown").exists());
            let broker = site.start();
            assert!(
                broker
                    .await_line("the data directory is open")
                    .contains(r#""was_clean":true"#)
            );
            assert!(
                !broker.lines().iter().any(|line| line.contains("recovered")),
                "something was scanned"
            );
            // Nothing was stored that was not acknowledged, nor the other way round.
            let stored = read_topic(&client, "t").await.swap_remove(0);
            assert_eq!(offsets, (0..stored.len() as i64).collect::<Vec<_>>());
            for (number, record) in stored.iter().enumerate() {
                assert_eq!(Source::read(&record.value), (SOURCE, number as u64));
            }
            broker.stop();
        }
    });
}

#[test]
fn a_second_signal_ends_a_broker_at_once_whatever_it_waits_for() {
    run(async {
        let site = Site::new().set("limits.shutdown_grace_ms", "1h");
        let mut broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        let (id, owner) = whereabouts(&client, "t").await;
        let mut raw = Raw::connect(site.core_address(owner)).await;
        let mut stored = 0;
        for _ in 0..7 {
            let reply = raw.call(&produce(id, 0), &batch(&[&vec![7; 1_000_000]])).await;
            stored += i64::from(acknowledged(reply) >= 0);
        }
        // A client that does not read keeps the broker for as long as the grace.
        let mut stalled = Raw::connect_with_small_window(site.core_address(owner)).await;
        let mut request = fetch(id, &[(0, 0)], 0, 1);
        request.partitions.as_mut().unwrap()[0].max_bytes = 8 << 20;
        stalled.send(&request, &[]).await;
        stalled.stream.readable().await.unwrap();
        broker.signal(Signal::TERM);
        broker.await_line("the broker stops");
        broker.signal(Signal::INT);
        broker.await_line("at a second signal");
        assert_eq!(broker.wait().code(), Some(3));
        let broker = site.start();
        assert_eq!(read_topic(&client, "t").await[0].len() as i64, stored);
        broker.stop();
    });
}

#[test]
fn a_broker_that_is_killed_leaves_no_clean_marker() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let marker = site.directory().join("clean-shutdown");
        broker.stop();
        assert!(marker.exists());
        let broker = site.start();
        assert!(!marker.exists(), "a running broker has not stopped in order");
        broker.kill();
        assert!(!marker.exists());
        let broker = site.start();
        assert!(
            broker
                .await_line("the data directory is open")
                .contains(r#""was_clean":false"#)
        );
        broker.stop();
    });
}

/// Every file of every partition, with its inode, which a file that is replaced does not keep.
fn files(site: &Site) -> BTreeMap<PathBuf, (u64, i64)> {
    let mut files = BTreeMap::new();
    for directory in fs::read_dir(site.directory()).unwrap().map(Result::unwrap) {
        let entries = fs::read_dir(directory.path()).into_iter().flatten().map(Result::unwrap);
        for path in entries.map(|entry| entry.path()) {
            let metadata = fs::metadata(&path).unwrap();
            files.insert(path, (metadata.ino(), metadata.mtime_nsec()));
        }
    }
    files
}

#[test]
fn a_broker_that_took_no_records_leaves_every_file_of_its_partitions_as_it_was() {
    run(async {
        let site = Site::new().set("log.checkpoint_interval_ms", "20ms");
        let broker = site.start();
        let client = site.client_with_topic("t", 8).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        for partition in 0..6 {
            let produced = raw.call(&produce(topic, partition), &batch(&[b"record"])).await;
            acknowledged(produced);
        }
        broker.stop();
        let before = files(&site);
        assert!(before.len() > 6);
        let broker = site.start();
        assert_eq!(read_topic(&client, "t").await[0].len(), 1);
        broker.stop();
        assert_eq!(files(&site), before);
    });
}

#[test]
fn a_stop_that_may_take_no_time_to_close_partitions_says_so_and_loses_nothing() {
    run(async {
        let site = Site::new().set("limits.shutdown_close_ms_max", "0");
        let mut broker = site.start().expect_errors("not closed within");
        let client = site.client_with_topic("t", 2).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        for partition in 0..2 {
            acknowledged(raw.call(&produce(topic, partition), &batch(&[b"record"])).await);
        }
        broker.signal(Signal::TERM);
        assert!(!broker.wait().success());
        broker.await_line("limits.shutdown_close_ms_max");
        assert!(!site.directory().join("clean-shutdown").exists());
        let broker = site.start().expect_errors("not closed within");
        assert!(read_topic(&client, "t").await.iter().all(|records| records.len() == 1));
        broker.kill();
    });
}

/// A topic's id, and the core that owns its first partition.
async fn whereabouts(client: &Client, topic: &str) -> (TopicId, u16) {
    let topic = client.admin().describe_topic(topic).await.unwrap();
    (topic.id, topic.partitions[0].core.get())
}

fn acknowledged(reply: Reply) -> i64 {
    let ProduceResponseT { error, base_offset, .. } = reply.produce();
    assert_eq!(ErrorCode::from_i16(error), ErrorCode::None);
    base_offset
}
