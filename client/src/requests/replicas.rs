//! Brokers and replicas.

use headwater_protocol::head;
use headwater_protocol::id::BrokerId;
use headwater_protocol::schema;

use super::{ResponseError, field};
use crate::admin::{BrokerListing, ClusterListing, PartitionMove, RefusedPartition};
use crate::error::Error;

pub(crate) fn list_brokers() -> schema::ListBrokersRequestT {
    schema::ListBrokersRequestT {}
}

pub(crate) fn read_list_brokers(bytes: &[u8]) -> Result<ClusterListing, ResponseError> {
    let response = head::decode_response::<schema::ListBrokersResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let broker = |broker: schema::ListedBroker<'_>| BrokerListing {
        id: BrokerId::new(broker.id()),
        host: broker.host().unwrap_or_default().to_owned(),
        port: broker.port(),
        core_ports: broker.core_ports().unwrap_or_default().iter().collect(),
        rack: broker.rack().map(str::to_owned),
        incarnation: broker.incarnation(),
        is_fenced: broker.is_fenced(),
        is_cordoned: broker.is_cordoned(),
        replicas: broker.replicas() as usize,
        in_sync: broker.in_sync() as usize,
        leads: broker.leads() as usize,
        preferred: broker.preferred() as usize,
        feature_levels: broker.oldest_level()..=broker.newest_level(),
    };
    Ok(ClusterListing {
        brokers: response.brokers().unwrap_or_default().iter().map(broker).collect(),
        partitions: response.partitions() as usize,
        leaderless: response.leaderless() as usize,
        under_min_isr: response.under_min_isr() as usize,
        under_replicated: response.under_replicated() as usize,
        feature_level: response.feature_level(),
    })
}

pub(crate) fn cordon_broker(id: BrokerId, is_cordoned: bool) -> schema::CordonBrokerRequestT {
    schema::CordonBrokerRequestT {
        id: id.get(),
        is_cordoned,
    }
}

pub(crate) fn read_cordon_broker(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::CordonBrokerResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn forget_broker(id: BrokerId) -> schema::ForgetBrokerRequestT {
    schema::ForgetBrokerRequestT { id: id.get() }
}

pub(crate) fn read_forget_broker(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::ForgetBrokerResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn finalise_features(level: u16) -> schema::FinaliseFeaturesRequestT {
    schema::FinaliseFeaturesRequestT { level }
}

pub(crate) fn read_finalise_features(bytes: &[u8]) -> Result<(), ResponseError> {
    let response = head::decode_response::<schema::FinaliseFeaturesResponse<'_>>(bytes)?;
    Ok(Error::check(response.error(), response.message())?)
}

pub(crate) fn drain_broker(id: BrokerId) -> schema::DrainBrokerRequestT {
    schema::DrainBrokerRequestT { id: id.get() }
}

pub(crate) fn read_drain_broker(bytes: &[u8]) -> Result<usize, ResponseError> {
    let response = head::decode_response::<schema::DrainBrokerResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    Ok(response.moves() as usize)
}

/// Of these partitions, or of all. `unclean`: this broker is to lead, whatever it lacks.
pub(crate) fn elect_leaders(
    topics: Option<&[(String, Vec<i32>)]>,
    unclean: Option<BrokerId>,
) -> schema::ElectLeadersRequestT {
    let topic = |(topic, partitions): &(String, Vec<i32>)| schema::TopicPartitionsT {
        topic: Some(topic.clone()),
        partitions: Some(partitions.clone()),
    };
    schema::ElectLeadersRequestT {
        topics: topics.map(|topics| topics.iter().map(topic).collect()),
        unclean: unclean.map_or(-1, BrokerId::get),
    }
}

pub(crate) fn read_elect_leaders(bytes: &[u8]) -> Result<Vec<RefusedPartition>, ResponseError> {
    let response = head::decode_response::<schema::ElectLeadersResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    response.refused().unwrap_or_default().iter().map(refused).collect()
}

pub(crate) fn reassign_partitions(moves: &[PartitionMove]) -> schema::ReassignPartitionsRequestT {
    let one = |wanted: &PartitionMove| schema::PartitionMoveT {
        topic: Some(wanted.topic.clone()),
        partition: wanted.partition,
        replicas: wanted
            .replicas
            .as_ref()
            .map(|replicas| replicas.iter().map(|broker| broker.get()).collect()),
    };
    schema::ReassignPartitionsRequestT {
        moves: Some(moves.iter().map(one).collect()),
    }
}

pub(crate) fn read_reassign_partitions(bytes: &[u8]) -> Result<Vec<RefusedPartition>, ResponseError> {
    let response = head::decode_response::<schema::ReassignPartitionsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    response.refused().unwrap_or_default().iter().map(refused).collect()
}

fn refused(wire: schema::RefusedPartition<'_>) -> Result<RefusedPartition, ResponseError> {
    let why = Error::check(wire.error(), wire.message());
    Ok(RefusedPartition {
        topic: wire.topic().unwrap_or_default().to_owned(),
        partition: wire.partition(),
        error: why
            .err()
            .ok_or_else(|| field("a partition that is refused for no reason"))?,
    })
}
