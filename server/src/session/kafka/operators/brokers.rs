//! Brokers that are gone for good, and the quorum.

use headwater_kafka::messages::{
    DescribeQuorumRequest, DescribeQuorumResponse, UnregisterBrokerRequest, UnregisterBrokerResponse,
    describe_quorum_response::{Listener, Node, PartitionData, ReplicaState, TopicData},
};
use headwater_protocol::error::ErrorCode;

use super::super::asking::Asking;
use crate::{
    image::first_node,
    model::{
        access::Operation,
        op::{Op, Outcome},
        quorum::{QuorumDescription, QuorumMember},
        refusal::Refusal,
    },
    ops::nodes::Places,
};

/// The topic of Kafka's quorum. Ours has none, and is told of as if it were it.
const METADATA_TOPIC: &str = "__cluster_metadata";

/// What a place in the quorum is called.
const LISTENER: &str = "CONTROLLER";

/// From this version on members and their places are told.
const NODES_FROM: i16 = 2;

pub(in crate::session::kafka) async fn unregister(
    asking: &Asking,
    request: UnregisterBrokerRequest,
) -> UnregisterBrokerResponse<'static> {
    if let Err(refusal) = asking.need_cluster(Operation::Alter) {
        return UnregisterBrokerResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            ..UnregisterBrokerResponse::default()
        };
    }
    let node = request.broker_id;
    let broker = Places::of(asking.ops()).broker_of(node);
    let done = match broker {
        Some(broker) => asking.perform(Op::ForgetBroker(broker)).await,
        None => Err(Refusal::new(
            ErrorCode::BrokerIdNotRegistered,
            format!("Broker ID {node} is not currently registered"),
        )),
    };
    match done {
        Ok(_) => UnregisterBrokerResponse::default(),
        Err(refusal) => UnregisterBrokerResponse {
            error_code: asking.tells(refusal.code),
            error_message: Some(refusal.message.into()),
            ..UnregisterBrokerResponse::default()
        },
    }
}

pub(in crate::session::kafka) async fn quorum<'a>(
    asking: &Asking,
    request: DescribeQuorumRequest<'a>,
) -> DescribeQuorumResponse<'a> {
    let described = match asking.perform(Op::DescribeQuorum).await {
        Ok(Outcome::Quorum(described)) => described,
        done => {
            let refusal = done.err().unwrap_or_else(Refusal::stopping);
            return DescribeQuorumResponse {
                error_code: asking.tells(refusal.code),
                error_message: Some(refusal.message.into()),
                ..DescribeQuorumResponse::default()
            };
        }
    };
    let mut topics = Vec::new();
    for topic in request.topics {
        let mut partitions = Vec::new();
        for asked in topic.partitions {
            let is_it = topic.topic_name == METADATA_TOPIC && asked.partition_index == 0;
            partitions.push(if is_it && partitions.is_empty() {
                partition(&described)
            } else {
                PartitionData {
                    partition_index: asked.partition_index,
                    error_code: asking.tells(ErrorCode::UnknownTopicOrPartition),
                    ..PartitionData::default()
                }
            });
        }
        topics.push(TopicData {
            topic_name: topic.topic_name,
            partitions,
        });
    }
    let nodes = if asking.version >= NODES_FROM {
        nodes(&described)
    } else {
        Vec::new()
    };
    DescribeQuorumResponse {
        topics,
        nodes,
        ..DescribeQuorumResponse::default()
    }
}

fn partition(described: &QuorumDescription) -> PartitionData<'static> {
    let known = |committed: &Result<u64, String>| committed.as_ref().map_or(-1, |entry| entry.cast_signed());
    let states = |are_voters: bool| {
        let members = described
            .members
            .iter()
            .filter(move |member| member.is_voter == are_voters);
        members
            .map(|member| ReplicaState {
                replica_id: first_node(member.id),
                log_end_offset: known(&member.committed),
                ..ReplicaState::default()
            })
            .collect()
    };
    let ends = described.members.iter().map(|member| known(&member.committed));
    PartitionData {
        leader_id: described.active.map_or(-1, first_node),
        leader_epoch: i32::try_from(described.term).unwrap_or(i32::MAX),
        high_watermark: ends.max().unwrap_or(-1),
        current_voters: states(true),
        observers: states(false),
        ..PartitionData::default()
    }
}

fn nodes(described: &QuorumDescription) -> Vec<Node<'static>> {
    let node = |member: &QuorumMember| {
        let place = member.address.rsplit_once(':');
        let place = place.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let listener = place.map(|(host, port)| Listener {
            name: LISTENER.into(),
            host: host.into(),
            port,
        });
        Node {
            node_id: first_node(member.id),
            listeners: listener.into_iter().collect(),
        }
    };
    described.members.iter().map(node).collect()
}
