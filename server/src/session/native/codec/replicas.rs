//! Brokers and replicas: heads into what is asked, and what was found into heads.

use headwater_protocol::{
    id::BrokerId,
    schema::{
        CordonBrokerRequest, DrainBrokerRequest, ElectLeadersRequest, FinaliseFeaturesRequest, ForgetBrokerRequest,
        ListBrokersRequest, ListBrokersResponseT, ListedBrokerT, PartitionMoveT, ReassignPartitionsRequest,
        RefusedPartitionT,
    },
};

use super::{groups, quorum::id, read::read};
use crate::model::{
    bounds,
    op::Op,
    refusal::Refusal,
    replicas::{BrokerList, ListedBroker, NamedPartition, PartitionMove, RefusedPartition},
};

pub(super) fn read_list(bytes: &[u8]) -> Result<Op, Refusal> {
    read::<ListBrokersRequest>(bytes)?;
    Ok(Op::ListBrokers)
}

pub(super) fn read_cordon(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<CordonBrokerRequest>(bytes)?;
    Ok(Op::CordonBroker(id(head.id())?, head.is_cordoned()))
}

pub(super) fn read_forget(bytes: &[u8]) -> Result<Op, Refusal> {
    Ok(Op::ForgetBroker(id(read::<ForgetBrokerRequest>(bytes)?.id())?))
}

pub(super) fn read_finalise(bytes: &[u8]) -> Result<Op, Refusal> {
    Ok(Op::FinaliseFeatures(read::<FinaliseFeaturesRequest>(bytes)?.level()))
}

pub(super) fn read_drain(bytes: &[u8]) -> Result<Op, Refusal> {
    Ok(Op::DrainBroker(id(read::<DrainBrokerRequest>(bytes)?.id())?))
}

pub(super) fn read_elect(bytes: &[u8]) -> Result<Op, Refusal> {
    let head = read::<ElectLeadersRequest>(bytes)?.unpack();
    let topics = head.topics.map(groups::topics);
    let named = topics.iter().flatten().map(|topic| topic.partitions.len());
    bounds::check_items("partitions", named.sum())?;
    let unclean = (head.unclean >= 0).then(|| BrokerId::new(head.unclean));
    Ok(Op::ElectLeaders(topics, unclean))
}

pub(super) fn read_reassign(bytes: &[u8]) -> Result<Op, Refusal> {
    let moves = read::<ReassignPartitionsRequest>(bytes)?
        .unpack()
        .moves
        .unwrap_or_default();
    bounds::check_items("partitions", moves.len())?;
    let one = |PartitionMoveT {
                   topic,
                   partition,
                   replicas,
               }| {
        let replicas = replicas.map(|replicas| replicas.into_iter().map(id).collect::<Result<_, _>>());
        Ok::<_, Refusal>(PartitionMove {
            partition: NamedPartition {
                topic: topic.unwrap_or_default(),
                index: partition,
            },
            replicas: replicas.transpose()?,
        })
    };
    Ok(Op::ReassignPartitions(
        moves.into_iter().map(one).collect::<Result<_, Refusal>>()?,
    ))
}

pub(super) fn brokers(list: BrokerList) -> ListBrokersResponseT {
    let broker = |ListedBroker {
                      place,
                      rack,
                      incarnation,
                      is_fenced,
                      is_cordoned,
                      counts,
                      feature_levels,
                  }| ListedBrokerT {
        id: place.broker.get(),
        host: Some(place.host),
        port: place.port,
        core_ports: Some(place.core_ports),
        rack,
        incarnation,
        is_fenced,
        is_cordoned,
        replicas: counts.replicas as u32,
        in_sync: counts.in_sync as u32,
        leads: counts.leads as u32,
        preferred: counts.preferred as u32,
        oldest_level: *feature_levels.start(),
        newest_level: *feature_levels.end(),
    };
    ListBrokersResponseT {
        brokers: Some(list.brokers.into_iter().map(broker).collect()),
        partitions: list.partitions as u32,
        leaderless: list.leaderless as u32,
        under_min_isr: list.under_min_isr as u32,
        under_replicated: list.under_replicated as u32,
        feature_level: list.feature_level,
        ..ListBrokersResponseT::default()
    }
}

pub(super) fn refused(refused: Vec<RefusedPartition>) -> Vec<RefusedPartitionT> {
    let told = |RefusedPartition { partition, why }| RefusedPartitionT {
        topic: Some(partition.topic),
        partition: partition.index,
        error: why.code as i16,
        message: Some(why.message),
    };
    refused.into_iter().map(told).collect()
}
