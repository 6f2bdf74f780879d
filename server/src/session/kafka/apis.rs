//! The one table of what is served: each api with its versions, and how it is answered. What is not in it is not offered, and closes
//! the connection of whoever asks for it all the same.

use futures::future::{FutureExt as _, LocalBoxFuture};
use headwater_kafka::{
    ApiKey, Malformed, Message, Reader, Unwritable,
    messages::{JoinGroupRequest, SyncGroupRequest},
};

use super::{
    asking::Asking,
    committed, configs, consumers, groups, members, metadata, offsets,
    operators::{brokers, elections, log_dirs, partitions, producers, reassignments, resources},
    security::{acls, quotas, users},
    topics, transactions,
};
use crate::model::bounds::ITEMS_MAX;

/// Why a request gets no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("it cannot be read: {0}")]
    Malformed(#[from] Malformed),
    #[error("its response cannot be written: {0}")]
    Unwritable(#[from] Unwritable),
}

/// Reads a request's message, does what it asks, and writes the response's.
pub(super) type Answer = for<'a> fn(&'a Asking, &'a [u8]) -> LocalBoxFuture<'a, Result<Vec<u8>, Unanswered>>;

/// Reads a request's message, and says how many bytes it has.
pub(super) type Len = for<'a> fn(&'a [u8], i16) -> Result<usize, Malformed>;

/// How an api is answered.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// What the protocol says first.
    Hello,
    /// By which a client proves who it is: before anything else is taken in.
    Enter,
    /// Records are taken in while they lie in the read buffer.
    Produce,
    /// Records are named and sent from where they lie.
    Fetch,
    /// One after the other.
    InTurn(Answer),
    /// The same, but it waits for other members of a group: until it is answered nothing else is taken in.
    Waits(Len, Answer),
}

/// A row.
pub(super) struct Served {
    pub(super) key: ApiKey,
    /// The first version that is offered. Of Produce it is one that is not served: old librdkafka takes it for a sign that the broker
    /// can decompress.
    pub(super) version_min: i16,
    pub(super) version_max: i16,
    pub(super) way: Way,
}

macro_rules! by {
    ($answer:path) => {
        |asking, body| {
            let answer = async move {
                let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
                let request = Message::read(&mut reader, asking.version)?;
                let response = $answer(asking, request).await;
                Ok(asking.write(&response)?)
            };
            answer.boxed_local()
        }
    };
}

macro_rules! len_of {
    ($message:ident) => {
        |body, version| {
            let mut reader = Reader::with_elements_max(body, ITEMS_MAX);
            $message::read(&mut reader, version)?;
            Ok(reader.at())
        }
    };
}

/// In the order of their numbers.
#[rustfmt::skip]
pub(super) const SERVED: &[Served] = &[
    row(ApiKey::Produce, 0, 13, Way::Produce),
    row(ApiKey::Fetch, 4, 18, Way::Fetch),
    row(ApiKey::ListOffsets, 1, 11, Way::InTurn(by!(offsets::list))),
    row(ApiKey::Metadata, 0, 13, Way::InTurn(by!(metadata::metadata))),
    row(ApiKey::OffsetCommit, 2, 10, Way::InTurn(by!(committed::commit))),
    row(ApiKey::OffsetFetch, 1, 10, Way::InTurn(by!(committed::fetch))),
    row(ApiKey::FindCoordinator, 0, 6, Way::InTurn(by!(groups::find))),
    row(ApiKey::JoinGroup, 0, 9, Way::Waits(len_of!(JoinGroupRequest), by!(members::join))),
    row(ApiKey::Heartbeat, 0, 4, Way::InTurn(by!(members::heartbeat))),
    row(ApiKey::LeaveGroup, 0, 5, Way::InTurn(by!(members::leave))),
    row(ApiKey::SyncGroup, 0, 5, Way::Waits(len_of!(SyncGroupRequest), by!(members::sync))),
    row(ApiKey::DescribeGroups, 0, 6, Way::InTurn(by!(groups::describe))),
    row(ApiKey::ListGroups, 0, 5, Way::InTurn(by!(groups::list))),
    row(ApiKey::SaslHandshake, 0, 1, Way::Enter),
    row(ApiKey::ApiVersions, 0, 5, Way::Hello),
    row(ApiKey::CreateTopics, 2, 7, Way::InTurn(by!(topics::create))),
    row(ApiKey::DeleteTopics, 1, 6, Way::InTurn(by!(topics::delete))),
    row(ApiKey::DeleteRecords, 0, 2, Way::InTurn(by!(offsets::delete_records))),
    row(ApiKey::InitProducerId, 0, 5, Way::InTurn(by!(offsets::init_producer_id))),
    row(ApiKey::OffsetForLeaderEpoch, 2, 4, Way::InTurn(by!(offsets::ends_of_epochs))),
    // What is newer is for brokers, which ask each other otherwise here.
    row(ApiKey::AddPartitionsToTxn, 0, 3, Way::InTurn(by!(transactions::add_partitions))),
    row(ApiKey::AddOffsetsToTxn, 0, 4, Way::InTurn(by!(transactions::add_offsets))),
    row(ApiKey::EndTxn, 0, 5, Way::InTurn(by!(transactions::end))),
    row(ApiKey::WriteTxnMarkers, 1, 2, Way::InTurn(by!(transactions::write_markers))),
    row(ApiKey::TxnOffsetCommit, 0, 6, Way::InTurn(by!(transactions::commit_offsets))),
    row(ApiKey::DescribeAcls, 1, 3, Way::InTurn(by!(acls::describe))),
    row(ApiKey::CreateAcls, 1, 3, Way::InTurn(by!(acls::create))),
    row(ApiKey::DeleteAcls, 1, 3, Way::InTurn(by!(acls::delete))),
    row(ApiKey::DescribeConfigs, 1, 4, Way::InTurn(by!(configs::describe))),
    row(ApiKey::AlterConfigs, 0, 2, Way::InTurn(by!(configs::alter))),
    row(ApiKey::DescribeLogDirs, 1, 5, Way::InTurn(by!(log_dirs::describe))),
    row(ApiKey::SaslAuthenticate, 0, 2, Way::Enter),
    row(ApiKey::CreatePartitions, 0, 3, Way::InTurn(by!(topics::create_partitions))),
    row(ApiKey::DeleteGroups, 0, 3, Way::InTurn(by!(groups::delete))),
    row(ApiKey::ElectLeaders, 0, 2, Way::InTurn(by!(elections::elect))),
    row(ApiKey::IncrementalAlterConfigs, 0, 1, Way::InTurn(by!(configs::alter_incrementally))),
    row(ApiKey::AlterPartitionReassignments, 0, 1, Way::InTurn(by!(reassignments::alter))),
    row(ApiKey::ListPartitionReassignments, 0, 0, Way::InTurn(by!(reassignments::list))),
    row(ApiKey::OffsetDelete, 0, 0, Way::InTurn(by!(committed::forget))),
    row(ApiKey::DescribeClientQuotas, 0, 1, Way::InTurn(by!(quotas::describe))),
    row(ApiKey::AlterClientQuotas, 0, 1, Way::InTurn(by!(quotas::alter))),
    row(ApiKey::DescribeUserScramCredentials, 0, 0, Way::InTurn(by!(users::describe))),
    row(ApiKey::AlterUserScramCredentials, 0, 0, Way::InTurn(by!(users::alter))),
    row(ApiKey::DescribeQuorum, 0, 2, Way::InTurn(by!(brokers::quorum))),
    row(ApiKey::DescribeCluster, 0, 2, Way::InTurn(by!(metadata::cluster))),
    row(ApiKey::DescribeProducers, 0, 0, Way::InTurn(by!(producers::describe))),
    row(ApiKey::UnregisterBroker, 0, 0, Way::InTurn(by!(brokers::unregister))),
    row(ApiKey::DescribeTransactions, 0, 0, Way::InTurn(by!(transactions::describe))),
    row(ApiKey::ListTransactions, 0, 2, Way::InTurn(by!(transactions::list))),
    row(ApiKey::ConsumerGroupHeartbeat, 0, 1, Way::InTurn(by!(consumers::heartbeat))),
    row(ApiKey::ConsumerGroupDescribe, 0, 1, Way::InTurn(by!(consumers::describe))),
    row(ApiKey::ListConfigResources, 0, 1, Way::InTurn(by!(resources::list))),
    row(ApiKey::DescribeTopicPartitions, 0, 0, Way::InTurn(by!(partitions::describe))),
];

const fn row(key: ApiKey, version_min: i16, version_max: i16, way: Way) -> Served {
    Served {
        key,
        version_min,
        version_max,
        way,
    }
}

/// How an api is answered at a version, if it is.
pub(super) fn way_of(key: ApiKey, version: i16) -> Option<Way> {
    let row = SERVED.iter().find(|row| row.key == key)?;
    let is_served = (row.version_min..=row.version_max).contains(&version) && key.serves(version);
    // A client of the future asks for what the broker can do at a version of its own.
    (is_served || key == ApiKey::ApiVersions).then_some(row.way)
}
