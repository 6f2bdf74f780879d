//! E: topics are made, get partitions, and are deleted.

use headwater_kafka::{
    ApiKey,
    messages::{
        CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
        DeleteTopicsRequest, DeleteTopicsResponse, MetadataRequest, MetadataResponse,
        create_partitions_request::CreatePartitionsTopic,
        create_topics_request::{CreatableReplicaAssignment, CreatableTopic},
        delete_topics_request::DeleteTopicState,
        metadata_request::MetadataRequestTopic,
    },
};

use super::Look;
use crate::kafka::wire::Wire;

/// E2: names, and what is said of them.
const NAMES: &[(&str, i16)] = &[
    (".", 17),
    ("..", 17),
    ("", 17),
    ("a b", 17),
    ("é", 17),
    ("a/b", 17),
    ("a,b", 17),
    ("a:b", 17),
    ("-a", 0),
];

/// E5: what is asked of a new topic.
#[rustfmt::skip]
const NEW: &[(&str, i32, i16, i32, i16)] = &[
    ("as the broker has it", -1, -1, 1000, 0),
    ("two replicas on one broker", 1, 2, 1000, 38),
    ("no partitions", 0, 1, 1000, 37),
    ("fewer than none", -2, 1, 1000, 37),
    ("no replicas", 1, 0, 1000, 38),
    ("fewer replicas than none", 1, -2, 1000, 38),
    ("no time", 1, 1, 0, 7),
];

async fn made(wire: &mut Wire, topics: Vec<CreatableTopic<'static>>, timeout_ms: i32) -> Vec<(String, i16)> {
    let request = CreateTopicsRequest {
        topics,
        timeout_ms,
        validate_only: false,
    };
    let response: CreateTopicsResponse<'_> = wire.ask(ApiKey::CreateTopics, 7, &request).await;
    response
        .topics
        .into_iter()
        .map(|topic| (topic.name.to_string(), topic.error_code))
        .collect()
}

fn topic(name: &str, partitions: i32, replicas: i16) -> CreatableTopic<'static> {
    CreatableTopic {
        name: name.to_owned().into(),
        num_partitions: partitions,
        replication_factor: replicas,
        ..CreatableTopic::default()
    }
}

pub async fn look(wire: &mut Wire, look: &mut Look) {
    for (name, code) in NAMES {
        let told = made(wire, vec![topic(name, 1, 1)], 1000).await;
        look.same("E2", name, told, vec![((*name).to_owned(), *code)]);
    }
    for (len, code) in [(249, 0), (250, 17)] {
        let told = made(wire, vec![topic(&"x".repeat(len), 1, 1)], 1000).await;
        look.same("E2", "a long name", told[0].1, code);
    }
    made(wire, vec![topic("e_2", 1, 1)], 1000).await;
    let told = made(wire, vec![topic("e.2", 1, 1)], 1000).await;
    look.other("E2", "one that differs by a dot", told[0].1, (17, 0));
    for (number, (what, partitions, replicas, timeout_ms, code)) in NEW.iter().enumerate() {
        let new = topic(&format!("e5-{number}"), *partitions, *replicas);
        let told = made(wire, vec![new], *timeout_ms).await;
        look.same("E5", what, told[0].1, *code);
    }
    let told = made(wire, vec![topic("e5-0", 1, 1)], 1000).await;
    look.same("E5", "one that is there", told[0].1, 36);
    let told = made(wire, vec![topic("e5-double", 1, 1), topic("e5-double", 1, 1)], 1000).await;
    look.same("E5", "a name twice", told, vec![("e5-double".to_owned(), 42)]);
    let by_hand = CreatableTopic {
        assignments: vec![CreatableReplicaAssignment {
            partition_index: 0,
            broker_ids: vec![7],
        }],
        ..topic("e5-hand", -1, -1)
    };
    look.same(
        "E5",
        "an unknown broker",
        made(wire, vec![by_hand], 1000).await[0].1,
        39,
    );
    partitions(wire, look).await;
    deletions(wire, look).await;
    ids(wire, look).await;
}

async fn partitions(wire: &mut Wire, look: &mut Look) {
    made(wire, vec![topic("e7", 2, 1)], 1000).await;
    for (what, name, count, code, message) in [
        (
            "fewer",
            "e7",
            1,
            37,
            Some("The topic e7 currently has 2 partition(s); 1 would not be an increase."),
        ),
        ("as many", "e7", 2, 37, Some("Topic already has 2 partition(s).")),
        ("of an unknown topic", "nope", 3, 3, None),
        ("more", "e7", 3, 0, None),
    ] {
        let request = CreatePartitionsRequest {
            topics: vec![CreatePartitionsTopic {
                name: name.into(),
                count,
                assignments: None,
            }],
            timeout_ms: 1000,
            validate_only: false,
        };
        let seen: CreatePartitionsResponse<'_> = wire.ask(ApiKey::CreatePartitions, 3, &request).await;
        let told = &seen.results[0];
        look.same("E7", what, told.error_code, code);
        if let Some(message) = message {
            look.same("E7", what, told.error_message.as_deref().unwrap_or_default(), message);
        }
    }
}

async fn deletions(wire: &mut Wire, look: &mut Look) {
    let mut delete = async |name: Option<&str>, id| {
        let request = DeleteTopicsRequest {
            topics: vec![DeleteTopicState {
                name: name.map(|name| name.to_owned().into()),
                topic_id: id,
            }],
            timeout_ms: 1000,
            ..DeleteTopicsRequest::default()
        };
        let seen: DeleteTopicsResponse<'_> = wire.ask(ApiKey::DeleteTopics, 6, &request).await;
        seen.responses[0].error_code
    };
    for (what, name, id, code) in [
        ("an unknown name", Some("nope"), [0; 16], 3),
        ("an unknown id", None, [7; 16], 100),
        ("neither", None, [0; 16], 42),
        ("both", Some("e7"), [7; 16], 42),
        ("one that is there", Some("e7"), [0; 16], 0),
        ("again", Some("e7"), [0; 16], 3),
    ] {
        look.same("E8", what, delete(name, id).await, code);
    }
}

async fn ids(wire: &mut Wire, look: &mut Look) {
    let id = wire.topic("e5-0").await.topic_id;
    for (what, version, name, id, code, told) in [
        ("an unknown id", 13, None, [7; 16], 100, None),
        ("an id and another name", 13, Some("nope"), id, 0, Some("e5-0")),
        ("an id before there were any", 10, Some("e5-0"), id, 42, Some("e5-0")),
    ] {
        let request = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic {
                topic_id: id,
                name: name.map(Into::into),
            }]),
            ..MetadataRequest::default()
        };
        let seen: MetadataResponse<'_> = wire.ask(ApiKey::Metadata, version, &request).await;
        let topic = &seen.topics[0];
        look.same("E3", what, (topic.error_code, topic.name.as_deref()), (code, told));
    }
}
