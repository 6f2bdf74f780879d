//! Brokers, topics and partitions: where everything is.

use std::{collections::HashSet, pin::pin, time::Duration};

use headwater_kafka::messages::{
    DescribeClusterRequest, DescribeClusterResponse, MetadataRequest, MetadataResponse,
    describe_cluster_response::DescribeClusterBroker,
    metadata_request::MetadataRequestTopic,
    metadata_response::{MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic},
};
use headwater_protocol::error::ErrorCode;

use super::asking::{Asking, topic_id, uuid_of};
use crate::{
    machine,
    model::{
        access::ResourceKind,
        internal,
        nodes::{Layout, Node, PartitionLayout, TopicLayout, TopicRef},
        op::{NewTopic, Op, Outcome},
    },
    ops::{access::THE_CLUSTER, nodes::Places},
};

/// Endpoints of brokers, and of controllers, which are none here.
const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

/// `MISMATCHED_ENDPOINT_TYPE` and `UNSUPPORTED_ENDPOINT_TYPE`.
const MISMATCHED_ENDPOINT: i16 = 114;
const UNSUPPORTED_ENDPOINT: i16 = 115;

/// From this version on topics may be asked for by their ids.
const IDS_FROM: i16 = 12;

/// For so long topics are made for one request: all that it names together.
const MAKING_MAX: Duration = Duration::from_secs(1);

pub(super) async fn metadata(asking: &Asking, request: MetadataRequest<'_>) -> MetadataResponse<'static> {
    let version = asking.version;
    // At version 0 an empty list stands for all.
    let named = request.topics.filter(|topics| version > 0 || !topics.is_empty());
    if let Some(named) = &named
        && version < IDS_FROM
        && let Some(wrong) = named
            .iter()
            .find(|topic| topic.topic_id != [0; 16] || topic.name.is_none())
    {
        return refused(asking, wrong);
    }
    let asked = named.map(refs);
    let mut found = layout(asking, asked.clone()).await;
    if request.allow_auto_topic_creation && make_missing(asking, &mut found).await {
        found = layout(asking, asked).await;
    }
    let with_operations = request.include_topic_authorized_operations;
    let topics = found.topics.into_iter();
    MetadataResponse {
        brokers: found.nodes.into_iter().map(broker).collect(),
        cluster_id: Some(found.cluster_id.into()),
        controller_id: found.controller,
        topics: topics
            .map(|(asked, found)| match found {
                Ok(found) => topic(asking, found, with_operations),
                Err(code) => unknown(asking, asked, code),
            })
            .collect(),
        cluster_authorized_operations: asking.operations(request.include_cluster_authorized_operations, THE_CLUSTER),
        ..MetadataResponse::default()
    }
}

/// Each topic once, however often it is named. Of a name and an id the id counts.
fn refs(named: Vec<MetadataRequestTopic<'_>>) -> Vec<TopicRef> {
    let mut seen = HashSet::new();
    let refs = named.into_iter().map(|topic| {
        if topic.topic_id == [0; 16] {
            TopicRef::Name(topic.name.unwrap_or_default().into_owned())
        } else {
            TopicRef::Id(topic_id(topic.topic_id))
        }
    });
    refs.filter(|topic| seen.insert(topic.clone())).collect()
}

async fn layout(asking: &Asking, topics: Option<Vec<TopicRef>>) -> Layout {
    match asking.perform(Op::Layout(topics)).await {
        Ok(Outcome::Layout(layout)) => layout,
        other => unreachable!("a layout is always there: {other:?}"),
    }
}

/// Makes topics that are not there, if that is allowed. Says if one was made.
async fn make_missing(asking: &Asking, found: &mut Layout) -> bool {
    if !asking.sessions.core.config.kafka.auto_create_topics {
        return false;
    }
    let (mut is_made, end) = (false, machine::now() + MAKING_MAX);
    for (asked, found) in &mut found.topics {
        let (TopicRef::Name(name), Err(ErrorCode::UnknownTopicOrPartition)) = (asked, &*found) else {
            continue;
        };
        if internal::is_internal(name) {
            continue;
        }
        if asking.connection.outbox.is_closed() {
            break;
        }
        let new = NewTopic {
            name: name.clone(),
            partitions: -1,
            replication_factor: -1,
            configs: Vec::new(),
            assignments: None,
        };
        let making = pin!(asking.perform(Op::CreateTopic(new, false)));
        let Some(done) = machine::until(end, making).await else {
            // It may be made yet; the client asks again.
            break;
        };
        match done {
            Ok(_) => is_made = true,
            // Another client may have been first.
            Err(refusal) if refusal.code == ErrorCode::TopicAlreadyExists => is_made = true,
            // A client that may not make it is told that, and does not wait for it.
            Err(refusal) if refusal.code == ErrorCode::TopicAuthorizationFailed => *found = Err(refusal.code),
            Err(refusal) => {
                tracing::info!(
                    topic = name,
                    why = refusal.message,
                    "a topic that a client names cannot be made"
                );
            }
        }
    }
    is_made
}

fn refused(asking: &Asking, wrong: &MetadataRequestTopic<'_>) -> MetadataResponse<'static> {
    let topic = MetadataResponseTopic {
        error_code: asking.tells(ErrorCode::InvalidRequest),
        name: Some(wrong.name.as_deref().unwrap_or_default().to_owned().into()),
        topic_id: wrong.topic_id,
        ..MetadataResponseTopic::default()
    };
    MetadataResponse {
        topics: vec![topic],
        ..MetadataResponse::default()
    }
}

fn broker(node: Node) -> MetadataResponseBroker<'static> {
    MetadataResponseBroker {
        node_id: node.id,
        host: node.host.into(),
        port: node.port.into(),
        rack: node.rack.map(Into::into),
    }
}

fn unknown(asking: &Asking, asked: TopicRef, code: ErrorCode) -> MetadataResponseTopic<'static> {
    let nobody = MetadataResponseTopic {
        error_code: asking.tells(code),
        name: None,
        ..MetadataResponseTopic::default()
    };
    match asked {
        TopicRef::Name(name) => MetadataResponseTopic {
            is_internal: internal::is_internal(&name),
            name: Some(name.into()),
            ..nobody
        },
        TopicRef::Id(id) => MetadataResponseTopic {
            topic_id: uuid_of(id),
            ..nobody
        },
    }
}

fn topic(asking: &Asking, found: TopicLayout, with_operations: bool) -> MetadataResponseTopic<'static> {
    let operations = asking.operations(with_operations, (ResourceKind::Topic, &found.name));
    let partitions = found.partitions.into_iter();
    MetadataResponseTopic {
        error_code: 0,
        is_internal: internal::is_internal(&found.name),
        name: Some(found.name.into()),
        topic_id: uuid_of(found.id),
        partitions: partitions.map(|found| partition(asking, found)).collect(),
        topic_authorized_operations: operations,
    }
}

fn partition(asking: &Asking, found: PartitionLayout) -> MetadataResponsePartition {
    let code = match found.leader.node {
        Some(_) => ErrorCode::None,
        None => ErrorCode::LeaderNotAvailable,
    };
    MetadataResponsePartition {
        error_code: asking.tells(code),
        partition_index: found.index.get(),
        leader_id: found.leader.node.unwrap_or(-1),
        leader_epoch: found.leader.epoch.get(),
        replica_nodes: found.replicas,
        isr_nodes: found.isr,
        offline_replicas: found.offline,
    }
}

pub(super) async fn cluster(asking: &Asking, request: DescribeClusterRequest) -> DescribeClusterResponse<'static> {
    if request.endpoint_type != BROKERS {
        let (error_code, message) = match request.endpoint_type {
            CONTROLLERS => (
                MISMATCHED_ENDPOINT,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
                    .to_owned(),
            ),
            other => (UNSUPPORTED_ENDPOINT, format!("Unsupported endpoint type {other}")),
        };
        return DescribeClusterResponse {
            error_code,
            error_message: Some(message.into()),
            ..DescribeClusterResponse::default()
        };
    }
    let found = layout(asking, Some(Vec::new())).await;
    let broker = |node: Node| DescribeClusterBroker {
        broker_id: node.id,
        host: node.host.into(),
        port: node.port.into(),
        rack: node.rack.map(Into::into),
        is_fenced: node.is_fenced,
    };
    let nodes = if request.include_fenced_brokers {
        Places::of(asking.ops()).all_nodes()
    } else {
        found.nodes
    };
    DescribeClusterResponse {
        cluster_id: found.cluster_id.into(),
        controller_id: found.controller,
        brokers: nodes.into_iter().map(broker).collect(),
        cluster_authorized_operations: asking.operations(request.include_cluster_authorized_operations, THE_CLUSTER),
        ..DescribeClusterResponse::default()
    }
}
