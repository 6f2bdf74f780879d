//! What the administration of groups promises.

use std::sync::Arc;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::group::{Assignment, Subscription, TopicPartitions};
use headwater_protocol::schema::DescribedMemberT;

use super::broker::Group;
use super::network::Network;
use super::{Broker, builder};
use crate::{
    Client, CommittedOffset, Error, GroupState, Groups, Offset, PartitionIndex, PartitionLag, Record, TopicName,
};

fn name(topic: &str) -> TopicName {
    TopicName::new(topic).unwrap()
}

fn at(topic: &str, partition: i32, offset: u64) -> CommittedOffset {
    CommittedOffset::new(name(topic), PartitionIndex::new(partition), Offset::new(offset))
}

fn member(id: &str, partitions: &[(&str, &[i32])]) -> DescribedMemberT {
    let partitions = partitions.iter().map(|(topic, partitions)| TopicPartitions {
        topic: (*topic).to_owned(),
        partitions: partitions.to_vec(),
    });
    let assignment = Assignment {
        partitions: partitions.collect(),
        user_data: None,
    };
    let subscription = Subscription {
        topics: vec!["t".to_owned()],
        ..Subscription::default()
    };
    DescribedMemberT {
        member_id: Some(id.to_owned()),
        instance_id: None,
        client_id: Some("client".to_owned()),
        client_host: Some("10.0.0.1".to_owned()),
        metadata: Some(subscription.encode()),
        assignment: Some(assignment.encode()),
    }
}

/// A broker whose groups are on three cores, by the length of their names.
async fn broker_with(groups: &[(&str, Group)]) -> (Arc<Broker>, Client, Groups) {
    let network = Network::new();
    let broker = Broker::start(&network, 3);
    for (id, group) in groups {
        broker.state.lock().groups.insert((*id).to_owned(), group.clone());
    }
    let client = builder(&network, 1).build().await.unwrap();
    let groups = client.admin().groups();
    (broker, client, groups)
}

fn busy() -> Group {
    Group {
        members: vec![
            member("one", &[("t", &[2, 0]), ("gone", &[1])]),
            DescribedMemberT {
                instance_id: Some("static".to_owned()),
                metadata: Some(vec![1]),
                assignment: Some(b"not Kafka's".to_vec()),
                ..member("two", &[])
            },
        ],
        offsets: [(("t".to_owned(), 0), 2), (("t".to_owned(), 1), 3)].into(),
        ..Group::default()
    }
}

#[tokio::test(start_paused = true)]
async fn groups_are_listed_and_described_with_what_each_member_has() {
    let (_broker, _client, groups) = broker_with(&[("busy", busy()), ("all-idle", Group::default())]).await;
    let listed = groups.list().await.unwrap();
    let listed: Vec<_> = listed.iter().map(|group| (&*group.group_id, &group.state)).collect();
    assert_eq!(
        listed,
        [("all-idle", &GroupState::Empty), ("busy", &GroupState::Stable)]
    );

    let described = groups.describe("busy").await.unwrap();
    assert_eq!((described.state, described.generation), (GroupState::Stable, 7));
    assert_eq!(described.protocol_name, "server-sticky");
    let [one, two] = &described.members[..] else { panic!() };
    assert_eq!(one.subscription.as_deref(), Some(&["t".to_owned()][..]));
    let assigned: Vec<_> = one
        .assignment
        .iter()
        .flatten()
        .map(|of| (&*of.topic, of.partitions.len()))
        .collect();
    assert_eq!(assigned, [("t", 2), ("gone", 1)]);
    assert_eq!(
        one.assignment.as_ref().unwrap()[0].partitions,
        [0, 2].map(PartitionIndex::new),
        "in order"
    );
    // A member may say what it likes, and is described all the same.
    assert_eq!(
        (&two.instance_id, &two.subscription, &two.assignment),
        (&Some("static".to_owned()), &None, &None)
    );
}

#[tokio::test(start_paused = true)]
async fn the_lag_of_a_group_counts_what_is_committed_and_names_what_nobody_has_committed() {
    let (broker, client, groups) = broker_with(&[("busy", busy())]).await;
    broker.create_topic("t", 3);
    let producer = client.producer().build().await.unwrap();
    for _ in 0..5 {
        let record = Record::to("t").value("v").partition(PartitionIndex::new(0));
        producer.send(record).await.unwrap().await.unwrap();
    }
    let lags = groups.lag("busy").await.unwrap();
    let shown = |lag: &PartitionLag| {
        let (topic, partition) = (lag.topic.to_string(), lag.partition.get());
        (
            topic,
            partition,
            lag.committed.map(Offset::get),
            lag.log_end.map(Offset::get),
            lag.lag(),
            lag.member_id.clone(),
        )
    };
    let shown: Vec<_> = lags.iter().map(shown).collect();
    let one = || Some("one".to_owned());
    assert_eq!(
        shown,
        [
            ("gone".to_owned(), 1, None, None, None, one()),
            ("t".to_owned(), 0, Some(2), Some(5), Some(3), one()),
            // Ahead of the end, as after records were lost: never below zero.
            ("t".to_owned(), 1, Some(3), Some(0), Some(0), None),
            // Nothing is committed, and there is nothing to be behind.
            ("t".to_owned(), 2, None, Some(0), Some(0), one()),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn offsets_are_reset_and_forgotten_only_in_a_group_without_members() {
    let (broker, _client, groups) = broker_with(&[("busy", busy())]).await;
    let refused = groups.reset_offsets("busy", &[at("t", 0, 0)]).await.unwrap_err();
    assert_eq!(refused.code(), Some(ErrorCode::UnknownMemberId));
    assert_eq!(
        broker.state.lock().groups["busy"],
        busy_offsets(&[("t", 0, 2), ("t", 1, 3)])
    );

    groups
        .reset_offsets("idle", &[at("t", 1, 9), at("t", 0, 4)])
        .await
        .unwrap();
    assert_eq!(
        groups.committed_offsets("idle").await.unwrap(),
        [at("t", 0, 4), at("t", 1, 9)]
    );
    let error = groups
        .reset_offsets("idle", &[at("t", 0, 5), at("refused", 3, 1)])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("partition 3 of topic refused"), "{error}");
    assert_eq!(
        groups.committed_offsets("idle").await.unwrap()[0],
        at("t", 0, 5),
        "the others are set"
    );

    let zero = |topic| (name(topic), PartitionIndex::new(0));
    let error = groups
        .delete_offsets("idle", &[zero("u"), zero("t")])
        .await
        .unwrap_err();
    assert!(error.to_string().contains("partition 0 of topic u"), "{error}");
    assert_eq!(groups.committed_offsets("idle").await.unwrap(), [at("t", 1, 9)]);
    assert_eq!(groups.committed_offsets("nobody").await.unwrap(), []);
}

/// A busy group with these offsets.
fn busy_offsets(offsets: &[(&str, i32, i64)]) -> Group {
    let offsets = offsets
        .iter()
        .map(|(topic, partition, offset)| (((*topic).to_owned(), *partition), *offset));
    Group {
        offsets: offsets.collect(),
        ..busy()
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_is_deleted_when_nobody_is_in_it() {
    let (_broker, _client, groups) = broker_with(&[("busy", busy()), ("idle", Group::default())]).await;
    let error = groups.delete("busy").await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::NonEmptyGroup));
    groups.delete("idle").await.unwrap();
    for error in [
        groups.delete("idle").await.unwrap_err(),
        groups.describe("idle").await.unwrap_err(),
        groups.lag("idle").await.unwrap_err(),
    ] {
        assert!(
            matches!(
                &error,
                Error::Broker {
                    code: ErrorCode::GroupIdNotFound,
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.is_retriable());
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_being_loaded_or_has_moved_is_asked_again() {
    for code in [
        ErrorCode::CoordinatorLoadInProgress,
        ErrorCode::NotCoordinator,
        ErrorCode::CoordinatorNotAvailable,
    ] {
        let group = Group {
            errors: [code, code].into(),
            ..busy()
        };
        let (broker, _client, groups) = broker_with(&[("busy", group)]).await;
        assert_eq!(groups.describe("busy").await.unwrap().members.len(), 2);
        assert_eq!(broker.requests(headwater_protocol::frame::Api::FindGroup), 3);
    }
}
