//! What was offline or fenced because of a failure comes back by itself when the failure is over.

use std::fs;

use headwater_client::{Client, ErrorCode};

use headwater_protocol::schema::CreateTopicRequestT;

use crate::{
    groups::{code, commit_request, committed, connect, filled},
    support::{Raw, Site, batch, produce, read_topic, run},
};

async fn store(raw: &mut Raw, client: &Client, count: usize) {
    let topic = client.admin().describe_topic("t").await.unwrap().id;
    for _ in 0..count {
        assert_eq!(
            raw.call(&produce(topic, 0), &batch(&[b"record"])).await.produce().error,
            0
        );
    }
}

#[test]
fn a_partition_whose_directory_was_away_is_served_again_when_it_is_back() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        store(&mut Raw::connect(site.address()).await, &client, 5).await;
        broker.stop();
        let (place, away) = (site.directory().join("t-0"), site.directory().with_file_name("away"));
        fs::rename(&place, &away).unwrap();
        let broker = site.start().expect_errors("a partition is offline");
        broker.await_line("a partition is offline");
        fs::rename(&away, &place).unwrap();
        broker.await_line("a partition is back");
        store(&mut Raw::connect(site.address()).await, &client, 5).await;
        assert_eq!(read_topic(&client, "t").await[0].len(), 10);
        broker.stop();
    });
}

#[test]
fn a_partition_that_is_offline_can_be_deleted_and_does_not_come_back() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let client = site.client_with_topic("t", 1).await;
        broker.stop();
        let (place, away) = (site.directory().join("t-0"), site.directory().with_file_name("away"));
        fs::rename(&place, &away).unwrap();
        let broker = site.start().expect_errors("a partition is offline");
        broker.await_line("a partition is offline");
        client.admin().delete_topic("t").await.unwrap();
        fs::rename(&away, &place).unwrap();
        let create = CreateTopicRequestT {
            name: Some("t".to_owned()),
            partitions: 1,
            ..CreateTopicRequestT::default()
        };
        let mut raw = Raw::connect(site.address()).await;
        let refused = raw.call(&create, &[]).await.create_topic();
        assert!(refused.message.as_ref().unwrap().contains("in the way"), "{refused:?}");
        assert!(!broker.lines().iter().any(|line| line.contains("is back")));
        broker.stop();
    });
}

#[test]
fn a_partition_that_a_failed_write_has_fenced_is_opened_anew_and_loses_nothing_that_was_acknowledged() {
    run(async {
        let site = Site::new().cores(1);
        let broker = site.start().expect_errors("the log is fenced");
        let client = site.client_with_topic("t", 1).await;
        let topic = client.admin().describe_topic("t").await.unwrap().id;
        let mut raw = Raw::connect(site.address()).await;
        store(&mut raw, &client, 20).await;
        broker.limit_file_size(Some(256 << 10));
        let large = batch(&[&vec![7; 500_000]]);
        let refused = raw.call(&produce(topic, 0), &large).await.produce();
        assert_eq!(ErrorCode::from_i16(refused.error), ErrorCode::KafkaStorageError);
        broker.await_line("the log is fenced");
        broker.limit_file_size(None);
        broker.await_line("a partition is back");
        assert_eq!(raw.call(&produce(topic, 0), &large).await.produce().error, 0);
        assert_eq!(read_topic(&client, "t").await[0].len(), 21);
        broker.kill();
        let broker = site.start();
        assert_eq!(read_topic(&client, "t").await[0].len(), 21);
        broker.stop();
    });
}

/// Commits an offset, asking again while the group cannot be asked; the refusal if there is one of another kind.
async fn commit(site: &Site, offset: i64) -> Result<(), ErrorCode> {
    loop {
        let mut raw = connect(site, "g").await;
        let answer = raw
            .call(&commit_request("g", &[(0, offset)]), &[])
            .await
            .offset_commit();
        match code(answer.error) {
            ErrorCode::CoordinatorLoadInProgress => {}
            ErrorCode::None => match code(answer.errors.unwrap()[0]) {
                ErrorCode::None => return Ok(()),
                refused => return Err(refused),
            },
            refused => return Err(refused),
        }
    }
}

#[test]
fn groups_whose_partition_was_fenced_or_away_are_there_again_with_all_that_was_committed() {
    run(async {
        let site = Site::new().set("groups.offsets_partitions", "1");
        let broker = site.start().expect_errors("the log is fenced");
        filled(&site, 1, 5).await;
        commit(&site, 1).await.unwrap();
        broker.limit_file_size(Some(0));
        commit(&site, 2).await.unwrap_err();
        broker.await_line("the log is fenced");
        broker.limit_file_size(None);
        broker.await_line("a partition is back");
        let expected = |offset: i64| vec![(0, offset, format!("at {offset}"))];
        assert_eq!(committed(&mut connect(&site, "g").await, "g").await, expected(1));
        commit(&site, 3).await.unwrap();
        broker.stop();

        let place = site.directory().join("__consumer_offsets-0");
        let away = site.directory().with_file_name("away");
        fs::rename(&place, &away).unwrap();
        let broker = site.start().expect_errors("a partition is offline");
        broker.await_line("a partition is offline");
        fs::rename(&away, &place).unwrap();
        broker.await_line("a partition is back");
        commit(&site, 4).await.unwrap();
        assert_eq!(committed(&mut connect(&site, "g").await, "g").await, expected(4));
        broker.stop();
    });
}
