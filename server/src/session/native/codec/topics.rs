//! Topics and the broker: heads into what is asked, and what was found into heads.

use std::collections::HashSet;

use headwater_protocol::{
    error::ErrorCode,
    id::BrokerId,
    schema::{
        AlterTopicRequest, BrokerStatusT, BrokerT, ConfigT, CreateTopicRequest, DeleteTopicRequest,
        DescribeBrokerRequest, DescribeBrokerResponseT, DescribeTopicRequest, DescribeTopicResponseT, MetadataRequest,
        MetadataResponseT, PartitionDescriptionT, PartitionMetadataT, PartitionReplicasT, TopicMetadataT,
    },
};

use super::read::read;
use crate::model::{
    bounds,
    op::{
        BrokerDescription, BrokerPlace, Leader, Metadata, NewTopic, Op, PartitionDescription, TopicAlteration,
        TopicDescription, TopicMetadata, TopicSetting,
    },
    refusal::Refusal,
};

/// Each topic once, however often it is named.
pub(super) fn read_metadata(bytes: &[u8]) -> Result<Op, Refusal> {
    let Some(names) = read::<MetadataRequest>(bytes)?.topics() else {
        return Ok(Op::Metadata(None));
    };
    bounds::check_items("topics", names.len())?;
    let mut seen = HashSet::new();
    let once = names.iter().filter(|name| seen.insert(*name));
    Ok(Op::Metadata(Some(once.map(str::to_owned).collect())))
}

pub(super) fn read_create(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<CreateTopicRequest>(bytes)?.unpack();
    let configs = head.configs.unwrap_or_default().into_iter();
    let new = NewTopic {
        name: head.name.unwrap_or_default(),
        partitions: head.partitions,
        replication_factor: head.replication_factor,
        configs: configs
            .map(|config| (config.name.unwrap_or_default(), config.value.unwrap_or_default()))
            .collect(),
        assignments: None,
    };
    Ok(Op::CreateTopic(new, head.validate_only))
}

pub(super) fn read_alter(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<AlterTopicRequest>(bytes)?.unpack();
    let configs = head.configs.unwrap_or_default().into_iter();
    let alteration = TopicAlteration {
        name: head.name.unwrap_or_default(),
        configs: configs
            .map(|config| (config.name.unwrap_or_default(), config.value.into()))
            .collect(),
        is_all: false,
        partitions: head.partitions,
        assignments: None,
    };
    Ok(Op::AlterTopic(alteration, head.validate_only))
}

pub(super) fn read_delete(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<DeleteTopicRequest>(bytes)?;
    Ok(Op::DeleteTopic(head.name().unwrap_or_default().to_owned(), None))
}

pub(super) fn read_describe(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<DescribeTopicRequest>(bytes)?;
    Ok(Op::DescribeTopic(head.name().unwrap_or_default().to_owned()))
}

pub(super) fn read_describe_broker(bytes: &[u8]) -> Result<Op, Refusal> {
    read::<DescribeBrokerRequest>(bytes)?;
    Ok(Op::DescribeBroker)
}

pub(super) fn metadata(metadata: Metadata) -> MetadataResponseT {
    let broker = |place: BrokerPlace| BrokerT {
        id: place.broker.get(),
        host: Some(place.host),
        port: place.port,
        core_ports: Some(place.core_ports),
    };
    MetadataResponseT {
        brokers: Some(metadata.brokers.into_iter().map(broker).collect()),
        topics: Some(metadata.topics.into_iter().map(topic_metadata).collect()),
        ..MetadataResponseT::default()
    }
}

/// The broker and its core that lead; -1 is nobody.
fn numbers(leader: Leader) -> (i32, u16) {
    leader
        .place
        .map_or((-1, 0), |(broker, core)| (broker.get(), core.get()))
}

fn topic_metadata(metadata: TopicMetadata) -> TopicMetadataT {
    let name = Some(metadata.name);
    let topic = match metadata.topic {
        Ok(topic) => topic,
        Err(code) => {
            return TopicMetadataT {
                error: code as i16,
                name,
                ..TopicMetadataT::default()
            };
        }
    };
    let partition = |leader: Leader| {
        let (broker, core) = numbers(leader);
        let error = if leader.place.is_some() {
            ErrorCode::None
        } else {
            ErrorCode::LeaderNotAvailable
        };
        PartitionMetadataT {
            partition: leader.partition.get(),
            error: error as i16,
            leader: broker,
            leader_epoch: leader.epoch.get(),
            core,
        }
    };
    TopicMetadataT {
        error: 0,
        name,
        id: Some(topic.id.into()),
        partitions: Some(topic.leaders.into_iter().map(partition).collect()),
        batch_size_max: u32::try_from(topic.batch_size_max).unwrap_or(u32::MAX),
    }
}

pub(super) fn topic(described: TopicDescription) -> DescribeTopicResponseT {
    let config = |TopicSetting { name, value, own }| ConfigT {
        name: Some(name),
        value: Some(value),
        own,
    };
    DescribeTopicResponseT {
        name: Some(described.name),
        id: Some(described.id.into()),
        configs: Some(described.configs.into_iter().map(config).collect()),
        partitions: Some(described.partitions.iter().map(partition).collect()),
        replicas: Some(described.partitions.iter().map(replicas).collect()),
        ..DescribeTopicResponseT::default()
    }
}

fn partition(PartitionDescription { leader, log, .. }: &PartitionDescription) -> PartitionDescriptionT {
    let (broker, core) = numbers(*leader);
    let place = PartitionDescriptionT {
        partition: leader.partition.get(),
        leader: broker,
        leader_epoch: leader.epoch.get(),
        core,
        ..PartitionDescriptionT::default()
    };
    match log {
        Ok(log) => PartitionDescriptionT {
            log_start_offset: log.start.as_i64(),
            high_watermark: log.high_watermark.as_i64(),
            log_end_offset: log.end.as_i64(),
            size_bytes: log.size_bytes,
            segments: log.segments as u32,
            ..place
        },
        Err(refused) => PartitionDescriptionT {
            error: *refused as i16,
            ..place
        },
    }
}

fn replicas(PartitionDescription { replicas, .. }: &PartitionDescription) -> PartitionReplicasT {
    let numbers = |brokers: &[BrokerId]| Some(brokers.iter().map(|broker| broker.get()).collect());
    PartitionReplicasT {
        replicas: numbers(&replicas.replicas),
        isr: numbers(&replicas.isr),
        elr: numbers(&replicas.elr),
        offline: numbers(&replicas.offline),
        adding: numbers(&replicas.adding),
        removing: numbers(&replicas.removing),
        partition_epoch: replicas.partition_epoch,
        min_isr: replicas.min_isr,
    }
}

pub(super) fn broker(described: BrokerDescription) -> DescribeBrokerResponseT {
    let config = |(name, value)| ConfigT {
        name: Some(name),
        value: Some(value),
        own: false,
    };
    let status = described.status;
    let status = BrokerStatusT {
        cores: status.cores as u16,
        cores_up: status.cores_up as u16,
        uptime_ms: status.uptime_ms,
        connections: status.connections,
        topics: status.topics as u32,
        partitions: status.partitions,
        partitions_offline: status.partitions_offline,
        groups: status.groups,
        group_members: status.group_members,
        received_bytes: status.received_bytes,
        fetched_bytes: status.fetched_bytes,
        disk_free_bytes: status.disk_free_bytes,
        disk_size_bytes: status.disk_size_bytes,
    };
    DescribeBrokerResponseT {
        broker_id: described.id.get(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        configs: Some(described.configs.into_iter().map(config).collect()),
        status: Some(Box::new(status)),
        ..DescribeBrokerResponseT::default()
    }
}
