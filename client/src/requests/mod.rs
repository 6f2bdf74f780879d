//! Requests and responses as plain values: the only place that knows the schema's tables.
//!
//! Heads are verified before they are read; what the schema cannot say (dense partitions, offsets that are not negative)
//! is checked here, so that nothing further in checks it again.

mod groups;
mod membership;
mod quorum;
mod quotas;
mod records;
mod replicas;
mod security;
mod topics;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::frame::Api;
use headwater_protocol::head::{self, HeadError};
use headwater_protocol::id::{BrokerId, IdError, ProducerEpoch, ProducerId};
use headwater_protocol::schema;

use std::sync::Arc;

use crate::address::Address;
use crate::error::{Error, ProtocolViolation};

pub(crate) use groups::{
    commit_offsets, delete_group, delete_offsets, describe_group, fetch_offsets, find_group, list_groups,
    read_commit_offsets, read_delete_group, read_delete_offsets, read_describe_group, read_fetch_offsets,
    read_find_group, read_list_groups,
};
pub(crate) use membership::{
    Identity, JoinWish, Joined, commit_as, fetch_offsets_of, heartbeat, join_group, leave_group, read_heartbeat,
    read_join_group, read_leave_group, read_sync_group, sync_group,
};
pub(crate) use quorum::{
    add_quorum_members, describe_quorum, read_add_quorum_members, read_describe_quorum, read_remove_quorum_member,
    remove_quorum_member,
};
pub(crate) use quotas::{alter_quotas, describe_quotas, read_alter_quotas, read_describe_quotas};
pub(crate) use records::{
    Aborted, FetchSlot, FetchTerms, Fetched, LATEST_TIMESTAMP, Reads, delete_records, fetch, list_offsets, produce,
    read_delete_records, read_fetch, read_list_offsets, read_produce,
};
pub(crate) use replicas::{
    cordon_broker, drain_broker, elect_leaders, finalise_features, forget_broker, list_brokers, read_cordon_broker,
    read_drain_broker, read_elect_leaders, read_finalise_features, read_forget_broker, read_list_brokers,
    read_reassign_partitions, reassign_partitions,
};
pub(crate) use security::{
    create_acls, delete_acls, describe_acls, describe_users, read_create_acls, read_delete_acls, read_describe_acls,
    read_describe_users, read_remove_user, read_set_user, remove_user, set_user,
};
pub(crate) use topics::{
    ClusterImage, Leader, Node, TopicImage, alter_topic, create_topic, delete_topic, describe_broker, describe_topic,
    metadata, read_alter_topic, read_create_topic, read_delete_topic, read_describe_broker, read_describe_topic,
    read_metadata,
};

/// What is wrong with a response.
#[derive(Debug)]
pub(crate) enum ResponseError {
    /// It breaks the protocol.
    Violation(ProtocolViolation),
    /// The broker refused.
    Refused(Error),
}

impl ResponseError {
    /// The error as the caller sees it, with the broker's address.
    pub(crate) fn at(self, address: &Address) -> Error {
        match self {
            Self::Violation(source) => Error::Protocol {
                address: address.clone(),
                source,
            },
            Self::Refused(error) => error,
        }
    }
}

impl From<HeadError> for ResponseError {
    fn from(error: HeadError) -> Self {
        Self::Violation(ProtocolViolation::Head(Arc::new(error)))
    }
}

impl From<IdError> for ResponseError {
    fn from(error: IdError) -> Self {
        Self::Violation(ProtocolViolation::Field(error.what))
    }
}

impl From<Error> for ResponseError {
    fn from(error: Error) -> Self {
        Self::Refused(error)
    }
}

fn field(what: &'static str) -> ResponseError {
    ResponseError::Violation(ProtocolViolation::Field(what))
}

/// What a broker says about itself in the first exchange.
#[derive(Debug, Clone, Default)]
pub(crate) struct BrokerLimits {
    pub(crate) broker_id: BrokerId,
    /// Largest record batch that it stores, in bytes.
    pub(crate) batch_size_max: usize,
    /// Api, lowest and highest version.
    apis: Vec<(u16, u16, u16)>,
}

impl BrokerLimits {
    pub(crate) fn supports(&self, api: Api, version: u16) -> bool {
        self.apis
            .iter()
            .any(|&(number, min, max)| number == api.as_u16() && (min..=max).contains(&version))
    }
}

pub(crate) fn api_versions(client_id: Option<&str>) -> schema::ApiVersionsRequestT {
    schema::ApiVersionsRequestT {
        client_name: Some(env!("CARGO_PKG_NAME").to_owned()),
        client_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        client_id: client_id.map(str::to_owned),
    }
}

pub(crate) fn read_api_versions(bytes: &[u8]) -> Result<BrokerLimits, ResponseError> {
    let response = head::decode_response::<schema::ApiVersionsResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let apis = response.apis().ok_or_else(|| field("no apis in the first response"))?;
    Ok(BrokerLimits {
        broker_id: BrokerId::new(response.broker_id()),
        batch_size_max: response.batch_size_max() as usize,
        apis: apis
            .iter()
            .map(|range| (range.api(), range.version_min(), range.version_max()))
            .collect(),
    })
}

/// A new producer's id.
pub(crate) fn init_producer_id() -> schema::InitProducerIdRequestT {
    schema::InitProducerIdRequestT {
        producer_id: ProducerId::NONE.get(),
        producer_epoch: ProducerEpoch::NONE.get(),
    }
}

pub(crate) fn read_init_producer_id(bytes: &[u8]) -> Result<(ProducerId, ProducerEpoch), ResponseError> {
    let response = head::decode_response::<schema::InitProducerIdResponse<'_>>(bytes)?;
    Error::check(response.error(), response.message())?;
    let (id, epoch) = (
        ProducerId::new(response.producer_id()),
        ProducerEpoch::new(response.producer_epoch()),
    );
    if !id.is_some() || epoch.get() < 0 {
        return Err(field("a producer id or epoch below zero"));
    }
    Ok((id, epoch))
}

/// The error of one partition in a response.
fn partition_error(code: i16) -> Result<(), Error> {
    match ErrorCode::from_i16(code) {
        ErrorCode::None => Ok(()),
        code => Err(Error::Broker {
            code,
            message: Arc::from(""),
        }),
    }
}
