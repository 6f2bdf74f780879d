//! Metadata and topics: answered from the cluster image, or passed on to the control plane.

use std::{collections::HashSet, rc::Rc, sync::Arc};

use futures::future::join_all;
use headwater_protocol::{
    error::ErrorCode,
    frame::Api,
    id::{CorrelationId, ProducerEpoch, ProducerId},
    schema::{
        AlterTopicRequestT, AlterTopicResponseT, ApiRangeT, ApiVersionsResponseT, BrokerT, ConfigT,
        CreateTopicRequestT, CreateTopicResponseT, DeleteTopicResponseT, DescribeBrokerResponseT,
        DescribeTopicResponseT, InitProducerIdRequestT, InitProducerIdResponseT, MetadataRequest, MetadataResponseT,
        PartitionDescriptionT, PartitionMetadataT, TopicMetadataT,
    },
    topic::TopicName,
};

use crate::{
    cluster::{NewTopic, TopicAlteration},
    config::{Config, Knob},
    coordinator::internal,
    core::{Core, mesh::CoreMessage},
    image::{Topic, TopicState},
    metrics,
    model::{bounds, id::PartitionId, refusal::Refusal},
    session::{native::reply, outbox::Response},
    settings::TopicSettings,
};

/// Epoch of every leader: a single broker is elected once.
const LEADER_EPOCH: i32 = 0;

/// The first answer on every connection.
pub(crate) fn api_versions(core: &Core, correlation_id: CorrelationId) -> Response {
    let range = |api: &Api| {
        let (version_min, version_max) = api.versions();
        ApiRangeT {
            api: api.as_u16(),
            version_min,
            version_max,
        }
    };
    let head = ApiVersionsResponseT {
        error: 0,
        message: None,
        apis: Some(Api::REQUESTS.iter().map(range).collect()),
        broker_id: core.config.broker.id.get(),
        cluster_id: Some(core.addresses.cluster_id.clone()),
        frame_size_max: core.config.limits.frame_size_bytes_max.bytes() as u32,
        batch_size_max: core.config.log.batch_size_bytes_max.bytes() as u32,
    };
    Response::of(reply::head(correlation_id, &head))
}

/// The topics that a metadata request names, each once however often it does; `None` for all.
pub(crate) fn read_metadata(request: MetadataRequest<'_>) -> Result<Option<Vec<String>>, Refusal> {
    let Some(names) = request.topics() else { return Ok(None) };
    bounds::check_items("topics", names.len())?;
    let mut seen = HashSet::new();
    let once = names.iter().filter(|name| seen.insert(*name));
    Ok(Some(once.map(str::to_owned).collect()))
}

/// Metadata of the named topics, or of all.
pub(crate) fn metadata(core: &Core, correlation_id: CorrelationId, names: Option<Vec<String>>) -> Response {
    let image = core.image();
    let topics: Vec<TopicMetadataT> = match names {
        None => image
            .topics()
            .filter(|topic| topic.state == TopicState::Ready)
            .map(|topic| describe(core, topic))
            .collect(),
        Some(names) => names
            .into_iter()
            .map(
                |name| match image.topic(&name).filter(|topic| topic.state == TopicState::Ready) {
                    Some(topic) => describe(core, topic),
                    None => unknown(name),
                },
            )
            .collect(),
    };
    let broker = BrokerT {
        id: core.config.broker.id.get(),
        host: Some(core.addresses.host.clone()),
        port: core.addresses.port,
        core_ports: Some(core.addresses.core_ports.clone()),
    };
    let head = MetadataResponseT {
        error: 0,
        message: None,
        brokers: Some(vec![broker]),
        topics: Some(topics),
    };
    Response::of(reply::head(correlation_id, &head))
}

fn unknown(name: String) -> TopicMetadataT {
    let error = match TopicName::new(&name) {
        Ok(_) => ErrorCode::UnknownTopicOrPartition,
        Err(_invalid) => ErrorCode::InvalidTopicException,
    };
    TopicMetadataT {
        error: error as i16,
        name: Some(name),
        id: None,
        partitions: None,
        batch_size_max: 0,
    }
}

fn describe(core: &Core, topic: &Arc<Topic>) -> TopicMetadataT {
    let settings = TopicSettings::in_force(&topic.overrides, &core.config);
    let partitions = topic.partitions().map(|index| PartitionMetadataT {
        partition: index.get(),
        error: 0,
        leader: core.config.broker.id.get(),
        leader_epoch: LEADER_EPOCH,
        core: PartitionId { topic: topic.id, index }.owner(core.mesh.len()).get(),
    });
    TopicMetadataT {
        error: 0,
        name: Some(topic.name.to_string()),
        id: Some(topic.id.into()),
        partitions: Some(partitions.collect()),
        batch_size_max: u32::try_from(settings.batch_size_bytes_max.bytes()).unwrap_or(u32::MAX),
    }
}

/// Creates a topic, or only says if it could be.
pub(crate) async fn create_topic(core: &Core, id: CorrelationId, request: CreateTopicRequestT) -> Response {
    let created = match new_topic(&request) {
        Ok(new) => core.control.create_topic(new, request.validate_only).await,
        Err(refusal) => Err(refusal),
    };
    let head = match created {
        Ok(topic) => CreateTopicResponseT {
            error: 0,
            message: None,
            id: Some(topic.id.into()),
            partitions: topic.partition_count.cast_signed(),
        },
        Err(refusal) => CreateTopicResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            ..CreateTopicResponseT::default()
        },
    };
    Response::of(reply::head(id, &head))
}

fn new_topic(request: &CreateTopicRequestT) -> Result<NewTopic, Refusal> {
    let name = TopicName::new(request.name.as_deref().unwrap_or_default())
        .map_err(|error| Refusal::because(ErrorCode::InvalidTopicException, &error))?;
    check_not_internal(name.as_str())?;
    let pair = |config: &ConfigT| {
        (
            config.name.clone().unwrap_or_default(),
            config.value.clone().unwrap_or_default(),
        )
    };
    Ok(NewTopic {
        name,
        partitions: request.partitions,
        replication_factor: request.replication_factor,
        configs: request.configs.iter().flatten().map(pair).collect(),
    })
}

fn check_not_internal(topic: &str) -> Result<(), Refusal> {
    if internal::is_internal(topic) {
        let message = format!("the topic {topic} belongs to the broker");
        return Err(Refusal::new(ErrorCode::InvalidTopicException, message));
    }
    Ok(())
}

/// Alters a topic, or only says if it could be.
pub(crate) async fn alter_topic(core: &Core, id: CorrelationId, request: AlterTopicRequestT) -> Response {
    let configs = request.configs.into_iter().flatten();
    let alteration = TopicAlteration {
        name: request.name.unwrap_or_default(),
        configs: configs
            .map(|config| (config.name.unwrap_or_default(), config.value))
            .collect(),
        partitions: request.partitions,
    };
    let altered = match check_not_internal(&alteration.name) {
        Ok(()) => core.control.alter_topic(alteration, request.validate_only).await,
        Err(refusal) => Err(refusal),
    };
    let head = match altered {
        Ok(topic) => AlterTopicResponseT {
            error: 0,
            message: None,
            partitions: topic.partition_count.cast_signed(),
        },
        Err(refusal) => AlterTopicResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            ..AlterTopicResponseT::default()
        },
    };
    Response::of(reply::head(id, &head))
}

/// Every setting in force on this broker, as its configuration would write it, and what it is doing. None of them is a secret.
pub(crate) async fn describe_broker(core: &Core, id: CorrelationId) -> Response {
    let config = |knob: &Knob| ConfigT {
        name: Some(knob.name()),
        value: Some(knob.value(&core.config).show()),
        own: false,
    };
    let status = metrics::status(core).await;
    let head = DescribeBrokerResponseT {
        error: 0,
        message: None,
        broker_id: core.config.broker.id.get(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        configs: Some(Config::KNOBS.iter().map(config).collect()),
        status: Some(Box::new(status)),
    };
    Response::of(reply::head(id, &head))
}

/// Deletes a topic and its records.
pub(crate) async fn delete_topic(core: &Core, id: CorrelationId, name: String) -> Response {
    let deleted = match check_not_internal(&name) {
        Ok(()) => core.control.delete_topic(name).await,
        Err(refusal) => Err(refusal),
    };
    let head = match deleted {
        Ok(()) => DeleteTopicResponseT {
            error: 0,
            message: None,
        },
        Err(refusal) => DeleteTopicResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
        },
    };
    Response::of(reply::head(id, &head))
}

/// Everything about one topic.
pub(crate) async fn describe_topic(core: &Rc<Core>, id: CorrelationId, name: String) -> Response {
    let image = core.image();
    let Some(topic) = image.topic(&name).filter(|topic| topic.state == TopicState::Ready) else {
        let refusal = Refusal::new(
            ErrorCode::UnknownTopicOrPartition,
            format!("there is no topic {name:?}"),
        );
        let head = DescribeTopicResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            ..DescribeTopicResponseT::default()
        };
        return Response::of(reply::head(id, &head));
    };
    let ids = topic
        .partitions()
        .map(|index| PartitionId { topic: topic.id, index })
        .collect();
    let answers = core
        .mesh
        .by_owner(ids, |id| *id)
        .into_iter()
        .map(|(owner, ids)| async move {
            if owner == core.id {
                return describe_here(core, &ids);
            }
            core.mesh
                .ask(owner, |reply| CoreMessage::Describe { ids, reply })
                .await
                .unwrap_or_default()
        });
    let mut partitions: Vec<PartitionDescriptionT> = join_all(answers).await.into_iter().flatten().collect();
    partitions.sort_by_key(|partition| partition.partition);
    let settings = TopicSettings::in_force(&topic.overrides, &core.config);
    let config = |(name, value): (&str, String)| ConfigT {
        name: Some(name.to_owned()),
        value: Some(value),
        own: topic.overrides.contains_key(name),
    };
    let head = DescribeTopicResponseT {
        error: 0,
        message: None,
        name: Some(topic.name.to_string()),
        id: Some(topic.id.into()),
        configs: Some(settings.entries().into_iter().map(config).collect()),
        partitions: Some(partitions),
    };
    Response::of(reply::head(id, &head))
}

/// Describes partitions of this core.
pub(crate) fn describe_here(core: &Core, ids: &[PartitionId]) -> Vec<PartitionDescriptionT> {
    let describe = |id: &PartitionId| {
        let mut description = PartitionDescriptionT {
            partition: id.index.get(),
            leader: core.config.broker.id.get(),
            leader_epoch: LEADER_EPOCH,
            core: core.id.get(),
            ..PartitionDescriptionT::default()
        };
        match core.partition(*id) {
            Ok(partition) => {
                let offsets = partition.log.offsets();
                let (segments, bytes) = partition.log.size();
                description.log_start_offset = offsets.start.as_i64();
                description.high_watermark = offsets.high_watermark.as_i64();
                description.log_end_offset = offsets.end.as_i64();
                description.size_bytes = bytes;
                description.segments = segments as u32;
            }
            Err(refusal) => description.error = refusal.code as i16,
        }
        description
    };
    ids.iter().map(describe).collect()
}

/// A producer id that nobody has had, or the next epoch of one.
pub(crate) async fn init_producer_id(core: &Core, id: CorrelationId, request: InitProducerIdRequestT) -> Response {
    let known = ProducerId::new(request.producer_id);
    let granted = if known.is_some() {
        next_epoch(request.producer_epoch).map(|epoch| (known, epoch))
    } else {
        None
    };
    let granted = match granted {
        Some(granted) => Ok(granted),
        None => core
            .control
            .new_producer_id()
            .await
            .map(|id| (id, ProducerEpoch::new(0))),
    };
    let head = match granted {
        Ok((producer_id, epoch)) => InitProducerIdResponseT {
            error: 0,
            message: None,
            producer_id: producer_id.get(),
            producer_epoch: epoch.get(),
        },
        Err(refusal) => InitProducerIdResponseT {
            error: refusal.code as i16,
            message: Some(refusal.message),
            ..InitProducerIdResponseT::default()
        },
    };
    Response::of(reply::head(id, &head))
}

/// `None` when the epochs are used up: the producer then gets a new id.
fn next_epoch(epoch: i16) -> Option<ProducerEpoch> {
    epoch
        .checked_add(1)
        .filter(|next| *next > 0 && *next < i16::MAX)
        .map(ProducerEpoch::new)
}
