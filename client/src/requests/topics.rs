//! Metadata and topics.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::head;
use headwater_protocol::id::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, TopicId};
use headwater_protocol::schema;
use headwater_protocol::topic::TopicName;

use super::{ResponseError, field, partition_error};
use crate::address::Address;
use crate::admin::{
    BrokerDescription, BrokerSetting, BrokerStatus, ConfigEntry, CreatedTopic, DiskSpace, NewTopic,
    PartitionDescription, PartitionReplicas, TopicAlteration, TopicDescription,
};
use crate::error::Error;

/// What one metadata response says about the cluster.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterImage {
    /// The brokers' shared ports.
    pub(crate) brokers: Vec<Address>,
    /// Those, and the ports of their cores.
    pub(crate) listeners: BTreeSet<Address>,
    pub(crate) nodes: BTreeMap<BrokerId, Node>,
    pub(crate) topics: HashMap<TopicName, Result<Arc<TopicImage>, ErrorCode>>,
}

/// One topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TopicImage {
    pub(crate) id: TopicId,
    /// In the order of their numbers; never empty.
    pub(crate) partitions: Vec<Result<Leader, ErrorCode>>,
    /// Bytes of the largest batch that it takes, if the broker says so.
    pub(crate) batch_size_max: Option<usize>,
}

/// Where a partition is led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    /// The listener of the core that owns the partition.
    pub(crate) address: Address,
    pub(crate) epoch: LeaderEpoch,
}

/// `None`: every topic.
pub(crate) fn metadata<'a>(topics: Option<impl Iterator<Item = &'a TopicName>>) -> schema::MetadataRequestT {
    schema::MetadataRequestT {
        topics: topics.map(|topics| topics.map(ToString::to_string).collect()),
    }
}

/// A broker, with the port of each of its cores.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    address: Address,
    core_ports: Vec<u16>,
}

impl Node {
    pub(crate) fn core_address(&self, core: CoreId) -> Option<Address> {
        self.core_ports
            .get(usize::from(core.get()))
            .map(|&port| self.address.with_port(port))
    }
}

pub(crate) fn read_metadata(bytes: &[u8]) -> Result<ClusterImage, ResponseError> {
    let response = head::decode_response::<schema::MetadataResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let mut nodes = BTreeMap::new();
    for broker in response.brokers().unwrap_or_default() {
        let host = broker.host().ok_or_else(|| field("a broker without a host"))?;
        let core_ports = broker.core_ports().unwrap_or_default().iter().collect();
        nodes.insert(
            BrokerId::new(broker.id()),
            Node {
                address: Address::new(host, broker.port()),
                core_ports,
            },
        );
    }
    let mut topics = HashMap::new();
    for topic in response.topics().unwrap_or_default() {
        let name = topic.name().and_then(|name| TopicName::new(name).ok());
        let name = name.ok_or_else(|| field("a topic with an illegal name"))?;
        let image = match ErrorCode::from_i16(topic.error()) {
            ErrorCode::None => Ok(Arc::new(read_topic(&topic, &nodes)?)),
            code => Err(code),
        };
        topics.insert(name, image);
    }
    let listeners = nodes.values().flat_map(|node| {
        let cores = node.core_ports.iter().map(|&port| node.address.with_port(port));
        cores.chain([node.address.clone()])
    });
    Ok(ClusterImage {
        listeners: listeners.collect(),
        brokers: nodes.values().map(|node| node.address.clone()).collect(),
        nodes,
        topics,
    })
}

fn read_topic(
    topic: &schema::TopicMetadata<'_>,
    nodes: &BTreeMap<BrokerId, Node>,
) -> Result<TopicImage, ResponseError> {
    let id = topic
        .id()
        .map(TopicId::from)
        .ok_or_else(|| field("a topic without an id"))?;
    let wire = topic.partitions().unwrap_or_default();
    let mut partitions = vec![None; wire.len()];
    for partition in &wire {
        let index = PartitionIndex::try_from(partition.partition())?.as_usize();
        let slot = partitions
            .get_mut(index)
            .ok_or_else(|| field("the partitions of a topic are not dense"))?;
        *slot = Some(match ErrorCode::from_i16(partition.error()) {
            ErrorCode::None => {
                let node = nodes.get(&BrokerId::new(partition.leader()));
                let address = node.and_then(|node| node.core_address(CoreId::new(partition.core())));
                let epoch = LeaderEpoch::new(partition.leader_epoch());
                address
                    .map(|address| Leader { address, epoch })
                    .ok_or(ErrorCode::LeaderNotAvailable)
            }
            code => Err(code),
        });
    }
    let partitions: Option<Vec<_>> = partitions.into_iter().collect();
    match partitions {
        Some(partitions) if !partitions.is_empty() => Ok(TopicImage {
            id,
            partitions,
            batch_size_max: Some(topic.batch_size_max() as usize).filter(|&size| size > 0),
        }),
        _ => Err(field("the partitions of a topic are not dense")),
    }
}

pub(crate) fn create_topic(topic: &NewTopic) -> schema::CreateTopicRequestT {
    let configs = topic.configs.iter().map(|(name, value)| schema::ConfigT {
        name: Some(name.clone()),
        value: Some(value.clone()),
        own: false,
    });
    schema::CreateTopicRequestT {
        name: Some(topic.name.clone()),
        partitions: topic.partitions.unwrap_or(-1),
        replication_factor: topic.replication_factor.unwrap_or(-1),
        configs: Some(configs.collect()),
        validate_only: topic.validate_only,
    }
}

pub(crate) fn read_create_topic(bytes: &[u8]) -> Result<CreatedTopic, ResponseError> {
    let response = head::decode_response::<schema::CreateTopicResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    Ok(CreatedTopic {
        id: response.id().map_or(TopicId::NIL, TopicId::from),
        partitions: usize::try_from(response.partitions())
            .map_err(|_negative| field("a number of partitions below zero"))?,
    })
}

pub(crate) fn alter_topic(alteration: &TopicAlteration) -> schema::AlterTopicRequestT {
    let configs = alteration.configs.iter().map(|(name, value)| schema::ConfigT {
        name: Some(name.clone()),
        value: value.clone(),
        own: false,
    });
    schema::AlterTopicRequestT {
        name: Some(alteration.name.clone()),
        configs: Some(configs.collect()),
        partitions: alteration.partitions.unwrap_or(-1),
        validate_only: alteration.validate_only,
    }
}

pub(crate) fn read_alter_topic(bytes: &[u8]) -> Result<usize, ResponseError> {
    let response = head::decode_response::<schema::AlterTopicResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    usize::try_from(response.partitions()).map_err(|_negative| field("a number of partitions below zero"))
}

pub(crate) fn describe_broker() -> schema::DescribeBrokerRequestT {
    schema::DescribeBrokerRequestT {}
}

pub(crate) fn read_describe_broker(bytes: &[u8]) -> Result<BrokerDescription, ResponseError> {
    let response = head::decode_response::<schema::DescribeBrokerResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let settings = response
        .configs()
        .unwrap_or_default()
        .iter()
        .map(|config| BrokerSetting {
            name: config.name().unwrap_or_default().to_owned(),
            value: config.value().map(str::to_owned),
        });
    Ok(BrokerDescription {
        id: BrokerId::new(response.broker_id()),
        version: response.version().unwrap_or_default().to_owned(),
        settings: settings.collect(),
        status: response.status().map(read_broker_status),
    })
}

fn read_broker_status(status: schema::BrokerStatus<'_>) -> BrokerStatus {
    let disk = DiskSpace {
        free_bytes: status.disk_free_bytes(),
        size_bytes: status.disk_size_bytes(),
    };
    BrokerStatus {
        cores: status.cores().into(),
        cores_up: status.cores_up().into(),
        uptime: Duration::from_millis(status.uptime_ms()),
        connections: status.connections(),
        topics: status.topics().into(),
        partitions: status.partitions(),
        partitions_offline: status.partitions_offline(),
        groups: status.groups(),
        group_members: status.group_members(),
        received_bytes: status.received_bytes(),
        fetched_bytes: status.fetched_bytes(),
        disk: (disk.size_bytes > 0).then_some(disk),
    }
}

pub(crate) fn delete_topic(topic: &TopicName) -> schema::DeleteTopicRequestT {
    schema::DeleteTopicRequestT {
        name: Some(topic.to_string()),
    }
}

pub(crate) fn read_delete_topic(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::DeleteTopicResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn describe_topic(topic: &TopicName) -> schema::DescribeTopicRequestT {
    schema::DescribeTopicRequestT {
        name: Some(topic.to_string()),
    }
}

pub(crate) fn read_describe_topic(bytes: &[u8]) -> Result<TopicDescription, ResponseError> {
    let response = head::decode_response::<schema::DescribeTopicResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let name = response.name().and_then(|name| TopicName::new(name).ok());
    let configs = response.configs().unwrap_or_default().iter().map(|config| ConfigEntry {
        name: config.name().unwrap_or_default().to_owned(),
        value: config.value().unwrap_or_default().to_owned(),
        is_own: config.own(),
    });
    let partitions = response.partitions().unwrap_or_default();
    let mut replicas = response.replicas().unwrap_or_default().iter();
    Ok(TopicDescription {
        name: name.ok_or_else(|| field("a topic with an illegal name"))?,
        id: response.id().map_or(TopicId::NIL, TopicId::from),
        configs: configs.collect(),
        partitions: partitions
            .iter()
            .map(|partition| read_partition_description(partition, replicas.next()))
            .collect::<Result<_, _>>()?,
    })
}

fn read_partition_description(
    wire: &schema::PartitionDescription,
    replicas: Option<schema::PartitionReplicas<'_>>,
) -> Result<PartitionDescription, ResponseError> {
    let partition = PartitionIndex::try_from(wire.partition())?;
    let error = partition_error(wire.error()).err();
    // A partition in error has no offsets to speak of.
    let offset = |value: i64| {
        if error.is_some() {
            Ok(Offset::ZERO)
        } else {
            Offset::try_from(value)
        }
    };
    Ok(PartitionDescription {
        partition,
        leader: BrokerId::new(wire.leader()),
        leader_epoch: LeaderEpoch::new(wire.leader_epoch()),
        core: CoreId::new(wire.core()),
        segments: wire.segments(),
        log_start_offset: offset(wire.log_start_offset())?,
        high_watermark: offset(wire.high_watermark())?,
        log_end_offset: offset(wire.log_end_offset())?,
        size_bytes: wire.size_bytes(),
        replicas: replicas.map(read_replicas).unwrap_or_default(),
        error,
    })
}

fn read_replicas(wire: schema::PartitionReplicas<'_>) -> PartitionReplicas {
    let brokers = |numbers: Option<flatbuffers::Vector<'_, i32>>| -> Vec<BrokerId> {
        numbers.unwrap_or_default().iter().map(BrokerId::new).collect()
    };
    PartitionReplicas {
        replicas: brokers(wire.replicas()),
        isr: brokers(wire.isr()),
        elr: brokers(wire.elr()),
        offline: brokers(wire.offline()),
        adding: brokers(wire.adding()),
        removing: brokers(wire.removing()),
        partition_epoch: wire.partition_epoch(),
        min_isr: wire.min_isr(),
    }
}
