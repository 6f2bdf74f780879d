//! What lies in the data directory under a wrong name. No symbolic link is followed, and what lies behind one is never served, changed
//! or taken over; no directory of another partition is served, or deleted for one that it is not.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use headwater_client::{Client, ErrorCode, NewTopic, TopicId};

use crate::support::{Raw, Site, batch, fetch, produce, read_topic, run};

const RECORDS: usize = 30;

/// A site on which the topic `t` has so many records in each of two partitions, and a place beside its data. No broker runs.
async fn written() -> (Site, PathBuf, TopicId) {
    let site = Site::new();
    let broker = site.start();
    let client = site.client_with_topic("t", 2).await;
    let topic = client.admin().describe_topic("t").await.unwrap().id;
    let mut raw = Raw::connect(site.address()).await;
    for partition in 0..2 {
        for number in 0..RECORDS {
            let payload = batch(&[&number.to_le_bytes()]);
            assert_eq!(raw.call(&produce(topic, partition), &payload).await.produce().error, 0);
        }
    }
    broker.stop();
    let elsewhere = site.directory().with_file_name("elsewhere");
    (site, elsewhere, topic)
}

fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
    let content = |entry: fs::DirEntry| {
        (
            entry.file_name().into_string().unwrap(),
            fs::read(entry.path()).unwrap(),
        )
    };
    entries.map(content).collect()
}

/// Every record of the topic is served.
async fn check_all_is_there(client: &Client) {
    let records = read_topic(client, "t").await;
    assert!(records.iter().all(|partition| partition.len() == RECORDS));
}

/// Neither writes nor reads reach the first partition, and the refusal says why; the second is served.
async fn check_first_is_refused(site: &Site, client: &Client, topic: TopicId) {
    let mut raw = Raw::connect(site.address()).await;
    let refused = raw.call(&produce(topic, 0), &batch(&[b"new"])).await.produce();
    assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::KafkaStorageError);
    let message = refused.message.unwrap();
    assert!(message.contains("symbolic link"), "{message}");
    let fetched = raw.call(&fetch(topic, &[(0, 0)], 0, 1), &[]).await.fetch();
    let error = fetched.partitions.unwrap()[0].error;
    assert_eq!(ErrorCode::from_i16(error), ErrorCode::KafkaStorageError);
    assert_eq!(raw.call(&produce(topic, 1), &batch(&[b"new"])).await.produce().error, 0);
    let described = client.admin().describe_topic("t").await.unwrap();
    assert_eq!(described.partitions[1].log_end_offset.get(), RECORDS as u64 + 1);
}

#[test]
fn a_partition_behind_a_symbolic_link_is_not_served_and_the_topic_made_anew_begins_empty() {
    run(async {
        let (site, elsewhere, topic) = written().await;
        let place = site.directory().join("t-0");
        fs::rename(&place, &elsewhere).unwrap();
        symlink(&elsewhere, &place).unwrap();
        let before = contents(&elsewhere);
        let broker = site.start().expect_errors("symbolic link");
        broker.await_line("a partition is offline");
        let client = site.client().await;
        check_first_is_refused(&site, &client, topic).await;
        client.admin().delete_topic("t").await.unwrap();
        broker.await_line("what it leads to is left");
        assert!(
            fs::symlink_metadata(&place).is_err(),
            "the link has gone with its topic"
        );
        client
            .admin()
            .create_topic(NewTopic::new("t").partitions(2))
            .await
            .unwrap();
        assert!(read_topic(&client, "t").await.iter().all(Vec::is_empty));
        assert!(contents(&elsewhere) == before, "what lies behind the link was changed");
        broker.stop();
    });
}

#[test]
fn a_segment_behind_a_symbolic_link_is_not_served_and_not_cut() {
    run(async {
        let (site, elsewhere, topic) = written().await;
        let place = site.directory().join("t-0/00000000000000000000.log");
        fs::create_dir(&elsewhere).unwrap();
        fs::rename(&place, elsewhere.join("moved")).unwrap();
        symlink(elsewhere.join("moved"), &place).unwrap();
        // What is known of the segment's size must not be all that protects it.
        fs::remove_file(site.directory().join("t-0/checkpoint")).unwrap();
        let before = contents(&elsewhere);
        let broker = site.start().expect_errors("symbolic link");
        check_first_is_refused(&site, &site.client().await, topic).await;
        broker.stop();
        assert!(contents(&elsewhere) == before, "what lies behind the link was changed");
        fs::rename(elsewhere.join("moved"), &place).unwrap();
        let broker = site.start();
        assert_eq!(read_topic(&site.client().await, "t").await[0].len(), RECORDS);
        broker.stop();
    });
}

#[test]
fn the_data_directory_itself_may_be_a_symbolic_link() {
    run(async {
        let (site, elsewhere, _) = written().await;
        fs::rename(site.directory(), &elsewhere).unwrap();
        symlink(&elsewhere, site.directory()).unwrap();
        let broker = site.start();
        let client = site.client().await;
        check_all_is_there(&client).await;
        client.admin().delete_topic("t").await.unwrap();
        client.admin().create_topic(NewTopic::new("u")).await.unwrap();
        assert!(elsewhere.join("u-0").is_dir() && !elsewhere.join("t-0").exists());
        broker.stop();
    });
}

#[test]
fn a_directory_of_another_partition_is_not_served_and_not_deleted_with_the_topic_that_has_its_name() {
    run(async {
        let (site, elsewhere, topic) = written().await;
        let place = |partition| site.directory().join(format!("t-{partition}"));
        let before = contents(&place(1));
        // As if somebody had restored the wrong backup.
        fs::rename(place(0), &elsewhere).unwrap();
        fs::rename(place(1), place(0)).unwrap();
        fs::rename(&elsewhere, place(1)).unwrap();
        let broker = site.start().expect_errors("belongs to");
        broker.await_line("a partition is offline");
        let mut raw = Raw::connect(site.address()).await;
        for partition in 0..2 {
            let refused = raw.call(&produce(topic, partition), &batch(&[b"new"])).await.produce();
            assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::KafkaStorageError);
            let message = refused.message.unwrap();
            assert!(message.contains("move it away"), "{message}");
        }
        broker.stop();
        assert!(contents(&place(0)) == before, "what is another partition's was changed");
        fs::rename(place(0), &elsewhere).unwrap();
        fs::rename(place(1), place(0)).unwrap();
        fs::rename(&elsewhere, place(1)).unwrap();
        let broker = site.start();
        let client = site.client().await;
        check_all_is_there(&client).await;
        // The directory of a topic that has gone, under the name of one that is there.
        client.admin().create_topic(NewTopic::new("u")).await.unwrap();
        broker.stop();
        fs::remove_dir_all(site.directory().join("u-0")).unwrap();
        fs::rename(place(0), site.directory().join("u-0")).unwrap();
        // The partition whose directory was taken is offline as well.
        let broker = site.start().expect_errors("a partition is offline");
        broker.await_line("a partition is offline");
        let client = site.client().await;
        client.admin().delete_topic("u").await.unwrap();
        broker.await_line("is set aside");
        let aside = site.directory().join(format!("u-0.{}.aside", topic.as_uuid().simple()));
        assert!(
            contents(&aside).contains_key("00000000000000000000.log"),
            "its records are kept"
        );
        client.admin().create_topic(NewTopic::new("u")).await.unwrap();
        assert!(read_topic(&client, "u").await[0].is_empty());
        broker.stop();
    });
}

#[test]
fn a_directory_that_does_not_say_whose_it_is_is_taken_over_with_its_records() {
    run(async {
        let (site, _, _) = written().await;
        let marks = [0, 1].map(|partition| site.directory().join(format!("t-{partition}/partition")));
        let before = fs::read(&marks[0]).unwrap();
        for mark in &marks {
            fs::remove_file(mark).unwrap();
        }
        let broker = site.start();
        let client = site.client().await;
        check_all_is_there(&client).await;
        broker.stop();
        assert_eq!(fs::read(&marks[0]).unwrap(), before);
        assert!(marks[1].exists());
    });
}
