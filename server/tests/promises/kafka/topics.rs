//! Topics are made where they are wanted, described so many partitions at a time, and refused in Kafka's words.

use headwater_kafka::{
    ApiKey,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
        create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic},
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        delete_topics_request::DeleteTopicState,
        describe_topic_partitions_request::{Cursor, TopicRequest},
    },
};

use super::wire::Wire;
use crate::support::{Site, run};

fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic<'static> {
    CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: partitions,
        replication_factor: factor,
        ..CreatableTopic::default()
    }
}

/// Where each partition is to be.
fn placed(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic<'static> {
    let assignments = assignments.iter().map(|(index, nodes)| CreatableReplicaAssignment {
        partition_index: *index,
        broker_ids: nodes.to_vec(),
    });
    CreatableTopic {
        assignments: assignments.collect(),
        ..topic(name, -1, -1)
    }
}

impl Wire {
    /// What becomes of topics that are to be made: an error, and its words.
    pub async fn create(&mut self, topics: Vec<CreatableTopic<'static>>) -> Vec<(i16, String)> {
        let request = CreateTopicsRequest {
            topics,
            timeout_ms: 10_000,
            validate_only: false,
        };
        let made: CreateTopicsResponse<'_> = self.ask(ApiKey::CreateTopics, 7, &request).await;
        let told = made.topics.into_iter();
        told.map(|made| (made.error_code, made.error_message.unwrap_or_default().into_owned()))
            .collect()
    }

    async fn add_partitions(&mut self, topic: &str, count: i32, assigned: Option<&[&[i32]]>) -> (i16, String) {
        let assignments = assigned.map(|assigned| {
            let assigned = assigned.iter();
            assigned
                .map(|nodes| CreatePartitionsAssignment {
                    broker_ids: nodes.to_vec(),
                })
                .collect()
        });
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: topic.to_owned().into(),
                count,
                assignments,
            }],
            timeout_ms: 10_000,
            validate_only: false,
        };
        let told: CreatePartitionsResponse<'_> = self.ask(ApiKey::CreatePartitions, 3, &request).await;
        let told = &told.results[0];
        (
            told.error_code,
            told.error_message.as_deref().unwrap_or_default().to_owned(),
        )
    }

    async fn delete(&mut self, topics: Vec<DeleteTopicState<'static>>, timeout_ms: i32) -> Vec<(i16, String)> {
        let request = DeleteTopicsRequest {
            topics,
            timeout_ms,
            ..DeleteTopicsRequest::default()
        };
        let told: DeleteTopicsResponse<'_> = self.ask(ApiKey::DeleteTopics, 6, &request).await;
        let told = told.responses.into_iter();
        told.map(|told| (told.error_code, told.error_message.unwrap_or_default().into_owned()))
            .collect()
    }

    /// Topics, each with an error and its partitions; and where the next answer is to begin.
    pub async fn described(
        &mut self,
        topics: &[&str],
        limit: i32,
        from: Option<(&str, i32)>,
    ) -> (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>) {
        let topics = topics.iter().map(|name| TopicRequest {
            name: (*name).to_owned().into(),
        });
        let request = DescribeTopicPartitionsRequest {
            topics: topics.collect(),
            response_partition_limit: limit,
            cursor: from.map(|(topic, partition_index)| Cursor {
                topic_name: topic.to_owned().into(),
                partition_index,
            }),
        };
        let told: DescribeTopicPartitionsResponse<'_> = self.ask(ApiKey::DescribeTopicPartitions, 0, &request).await;
        let topics = told.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|partition| {
                assert_eq!(partition.error_code, 0);
                assert_eq!(partition.last_known_elr.as_deref(), Some(&[][..]), "E12: never null");
                partition.partition_index
            });
            let partitions = partitions.collect();
            (topic.name.unwrap().into_owned(), topic.error_code, partitions)
        });
        let next = told.next_cursor;
        (
            topics.collect(),
            next.map(|next| (next.topic_name.into_owned(), next.partition_index)),
        )
    }
}

/// E2, E5, E7, E8.
#[test]
fn topics_are_refused_in_kafkas_words() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        topics_are_made(&mut wire).await;
        partitions_are_added(&mut wire).await;
        topics_are_deleted(&mut wire).await;
        broker.stop();
    });
}

/// E2, E5.
async fn topics_are_made(wire: &mut Wire) {
    // Both cores are nodes of the broker: either stands for it.
    let good = vec![placed("t", &[(1, &[1]), (0, &[0])]), topic("plain", 2, 1)];
    assert_eq!(wire.create(good).await, [(0, String::new()), (0, String::new())]);
    let long = "x".repeat(250);
    let cases: Vec<(CreatableTopic<'_>, i16, &str)> = vec![
        (
            topic("", 1, 1),
            17,
            "Topic name is invalid: the empty string is not allowed",
        ),
        (topic("..", 1, 1), 17, "Topic name is invalid: '..' is not allowed"),
        (
            topic("a b", 1, 1),
            17,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'",
        ),
        (topic(&long, 1, 1), 17, "is longer than the max allowed length 249"),
        (topic("t", 1, 1), 36, "Topic 't' already exists."),
        (
            topic("n", 0, 1),
            37,
            "Number of partitions was set to an invalid non-positive value.",
        ),
        (
            topic("n", 1, 0),
            38,
            "Replication factor must be larger than 0, or -1 to use the default value.",
        ),
        (
            topic("n", 1, 2),
            38,
            "Unable to replicate the partition 2 time(s): The target replication factor of 2 cannot be reached because only 1 broker(s) are registered",
        ),
        (
            topic("n", 10_001, 1),
            44,
            "Excessively large number of partitions per request.",
        ),
        (
            CreatableTopic {
                num_partitions: 1,
                replication_factor: 1,
                ..placed("n", &[(0, &[0])])
            },
            42,
            "A manual partition assignment was specified, but replication factor was not set to -1.",
        ),
        (
            CreatableTopic {
                num_partitions: 1,
                ..placed("n", &[(0, &[0])])
            },
            42,
            "A manual partition assignment was specified, but numPartitions was not set to -1.",
        ),
        (
            placed("n", &[(0, &[7])]),
            39,
            "The manual partition assignment includes broker 7, but no such broker is registered.",
        ),
        (
            placed("n", &[(0, &[0, 0])]),
            39,
            "The manual partition assignment includes the broker 0 more than once.",
        ),
        (
            placed("n", &[(0, &[0, 1])]),
            39,
            "The manual partition assignment includes the broker 1 more than once.",
        ),
        (
            placed("n", &[(0, &[])]),
            39,
            "The manual partition assignment includes an empty replica list.",
        ),
        (
            placed("n", &[(0, &[0]), (2, &[0])]),
            39,
            "partitions should be a consecutive 0-based integer sequence",
        ),
        (
            placed("n", &[(0, &[0]), (0, &[0])]),
            39,
            "Found multiple manual partition assignments for partition 0",
        ),
    ];
    for (asked, code, words) in cases {
        let what = format!("{asked:?}");
        let told = wire.create(vec![asked]).await.remove(0);
        assert!(told.0 == code && told.1.contains(words), "{what}: {told:?}");
    }
}

/// E7.
async fn partitions_are_added(wire: &mut Wire) {
    /// Topic, partitions that it is to have, on which brokers, code and words of the answer.
    type Case<'a> = (&'a str, i32, Option<&'a [&'a [i32]]>, i16, &'a str);
    let few = "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified.";
    let cases: [Case<'_>; 9] = [
        ("t", 2, None, 37, "Topic already has 2 partition(s)."),
        (
            "t",
            1,
            None,
            37,
            "The topic t currently has 2 partition(s); 1 would not be an increase.",
        ),
        ("nope", 3, None, 3, ""),
        ("t", 4, Some(&[&[0]]), 39, few),
        (
            "t",
            3,
            Some(&[&[0], &[0]]),
            39,
            "Attempted to add 1 additional partition(s), but only 2 assignment(s)",
        ),
        ("t", 3, Some(&[]), 39, "but only 0 assignment(s) were specified."),
        (
            "t",
            3,
            Some(&[&[9]]),
            39,
            "includes broker 9, but no such broker is registered.",
        ),
        (
            "t",
            20_000,
            None,
            44,
            "Excessively large number of additional partitions per request.",
        ),
        ("t", 4, Some(&[&[1], &[0]]), 0, ""),
    ];
    for (name, count, assigned, code, words) in cases {
        let told = wire.add_partitions(name, count, assigned).await;
        assert!(
            told.0 == code && told.1.contains(words),
            "{name} {count} {assigned:?}: {told:?}"
        );
    }
    assert_eq!(wire.topic("t").await.partitions.len(), 4);
}

/// E8.
async fn topics_are_deleted(wire: &mut Wire) {
    let named = |name: &str| DeleteTopicState {
        name: Some(name.to_owned().into()),
        ..DeleteTopicState::default()
    };
    let by_id = |topic_id| DeleteTopicState { name: None, topic_id };
    let id = wire.topic("t").await.topic_id;
    let both = DeleteTopicState {
        topic_id: id,
        ..named("t")
    };
    let cases: Vec<(Vec<DeleteTopicState<'_>>, i32, i16, &str)> = vec![
        (
            vec![named("nope")],
            1000,
            3,
            "This server does not host this topic-partition.",
        ),
        (
            vec![by_id([9; 16])],
            1000,
            100,
            "This server does not host this topic ID.",
        ),
        (
            vec![by_id([0; 16])],
            1000,
            42,
            "Neither topic name nor id were specified.",
        ),
        (
            vec![both],
            1000,
            42,
            "You may not specify both topic name and topic id.",
        ),
        (vec![named("t"), named("t")], 1000, 42, "Duplicate topic name."),
        (
            vec![named("t"), by_id(id)],
            1000,
            42,
            "The provided topic name maps to an ID that was already supplied.",
        ),
        (vec![named("t")], 0, 7, ""),
        (vec![by_id(id)], 1000, 0, ""),
    ];
    for (asked, timeout_ms, code, words) in cases {
        let what = format!("{asked:?}");
        let told = wire.delete(asked, timeout_ms).await;
        assert_eq!(told, [(code, words.to_owned())], "{what}");
    }
}

/// E12.
#[test]
fn partitions_are_described_so_many_at_a_time() {
    run(async {
        let site = Site::new();
        let broker = site.start();
        let mut wire = Wire::of(&site).await;
        for (name, count) in [("f3", 3), ("a1", 1)] {
            wire.create_topic(name, count, &[]).await;
        }
        let all = |name: &str, partitions: &[i32]| (name.to_owned(), 0, partitions.to_vec());
        let cursor = |name: &str, partition: i32| Some((name.to_owned(), partition));
        let both = &["f3", "a1"][..];
        for asked in [both, &[]] {
            let told = wire.described(asked, 2000, None).await;
            assert_eq!(told, (vec![all("a1", &[0]), all("f3", &[0, 1, 2])], None), "sorted");
        }
        assert_eq!(
            wire.described(&["f3"], 2, None).await,
            (vec![all("f3", &[0, 1])], cursor("f3", 2))
        );
        assert_eq!(
            wire.described(&["f3"], 2, Some(("f3", 2))).await,
            (vec![all("f3", &[2])], None)
        );
        assert_eq!(
            wire.described(both, 1, None).await,
            (vec![all("a1", &[0])], cursor("f3", 0))
        );
        for limit in [0, -1] {
            assert_eq!(
                wire.described(&["f3"], limit, None).await.1,
                cursor("f3", 1),
                "taken as 1"
            );
        }
        assert_eq!(
            wire.described(both, 9, Some(("f3", 9))).await,
            (vec![all("f3", &[])], None)
        );
        let unknown = wire.described(&["nope", "a1"], 9, None).await;
        assert_eq!(unknown.0, [all("a1", &[0]), ("nope".to_owned(), 3, vec![])]);
        for wrong in [("f3", -1), ("elsewhere", 0)] {
            let refused = wire.described(both, 9, Some(wrong)).await;
            let codes: Vec<i16> = refused.0.iter().map(|topic| topic.1).collect();
            assert_eq!((codes, refused.1), (vec![42, 42], None), "{wrong:?}");
        }
        broker.stop();
    });
}
