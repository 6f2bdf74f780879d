//! Partitions of topics, so many at a time.

use std::collections::BTreeSet;

use headwater_kafka::messages::{
    DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    describe_topic_partitions_response::{
        Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
    },
};
use headwater_protocol::{error::ErrorCode, id::PartitionIndex, topic::TopicName};

use super::super::asking::{Asking, uuid_of};
use crate::{
    image::TopicState,
    machine,
    model::{
        access::{Operation, ResourceKind},
        id::PartitionId,
        internal,
        nodes::PartitionLayout,
    },
    ops::nodes::Places,
};

/// Most partitions of an answer (`max.request.partition.size.limit`).
const PARTITIONS_MAX: usize = 2000;

pub(in crate::session::kafka) async fn describe(
    asking: &Asking,
    request: DescribeTopicPartitionsRequest<'_>,
) -> DescribeTopicPartitionsResponse<'static> {
    let image = asking.image();
    let is_of_all = request.topics.is_empty();
    let mut names: BTreeSet<String> = if is_of_all {
        let ready = image.topics().filter(|topic| topic.state == TopicState::Ready);
        let may = |name: &String| asking.may(Operation::Describe, (ResourceKind::Topic, name));
        ready.map(|topic| topic.name.to_string()).filter(may).collect()
    } else {
        request.topics.iter().map(|topic| topic.name.to_string()).collect()
    };
    let (mut from_topic, mut from_index) = (String::new(), 0);
    if let Some(cursor) = &request.cursor {
        let is_asked_for = is_of_all || names.contains(&*cursor.topic_name);
        if cursor.partition_index < 0 || !is_asked_for {
            return refused(asking, names);
        }
        (from_topic, from_index) = (cursor.topic_name.to_string(), cursor.partition_index);
        names = names.split_off(&from_topic);
    }
    let limit = usize::try_from(request.response_partition_limit).unwrap_or(0);
    let mut room = limit.clamp(1, PARTITIONS_MAX);
    let places = Places::of(asking.ops());
    let mut response = DescribeTopicPartitionsResponse::default();
    for name in names {
        machine::yield_now().await;
        if room == 0 {
            response.next_cursor = Some(cursor(name, 0));
            break;
        }
        let topic = match asking.find_topic(&image, &name, Operation::Describe) {
            Ok(topic) => topic,
            Err(code) => {
                response.topics.push(unknown(asking, name, code));
                continue;
            }
        };
        let first = if name == from_topic { from_index } else { 0 };
        let count = topic.partition_count.cast_signed();
        let last = count.min(first.saturating_add(room as i32));
        let partition = |index: i32| {
            let index = PartitionIndex::new(index);
            partition(places.partition(PartitionId { topic: topic.id, index }))
        };
        let partitions: Vec<_> = (first..last).map(partition).collect();
        room -= partitions.len();
        response.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: 0,
            name: Some(name.clone().into()),
            topic_id: uuid_of(topic.id),
            is_internal: internal::is_internal(&name),
            partitions,
            topic_authorized_operations: asking.operations(true, (ResourceKind::Topic, &name)),
        });
        if last < count && first < count {
            response.next_cursor = Some(cursor(name, last));
            break;
        }
    }
    response
}

fn cursor(topic: String, partition_index: i32) -> Cursor<'static> {
    Cursor {
        topic_name: topic.into(),
        partition_index,
    }
}

fn partition(found: PartitionLayout) -> DescribeTopicPartitionsResponsePartition {
    DescribeTopicPartitionsResponsePartition {
        // Whoever looks for a leader asks for metadata.
        error_code: 0,
        partition_index: found.index.get(),
        leader_id: found.leader.node.unwrap_or(-1),
        leader_epoch: found.leader.epoch.get(),
        replica_nodes: found.replicas,
        isr_nodes: found.isr,
        eligible_leader_replicas: Some(found.elr),
        last_known_elr: Some(Vec::new()),
        offline_replicas: found.offline,
    }
}

fn unknown(asking: &Asking, name: String, code: ErrorCode) -> DescribeTopicPartitionsResponseTopic<'static> {
    let code = match TopicName::new(&name) {
        Err(_invalid) if code == ErrorCode::UnknownTopicOrPartition => ErrorCode::InvalidTopicException,
        _ => code,
    };
    let topic_authorized_operations = asking.operations(true, (ResourceKind::Topic, &name));
    DescribeTopicPartitionsResponseTopic {
        error_code: asking.tells(code),
        is_internal: internal::is_internal(&name),
        name: Some(name.into()),
        topic_authorized_operations,
        ..DescribeTopicPartitionsResponseTopic::default()
    }
}

fn refused(asking: &Asking, names: BTreeSet<String>) -> DescribeTopicPartitionsResponse<'static> {
    let topics = names.into_iter().map(|name| DescribeTopicPartitionsResponseTopic {
        error_code: asking.tells(ErrorCode::InvalidRequest),
        name: Some(name.into()),
        ..DescribeTopicPartitionsResponseTopic::default()
    });
    DescribeTopicPartitionsResponse {
        topics: topics.collect(),
        ..DescribeTopicPartitionsResponse::default()
    }
}
