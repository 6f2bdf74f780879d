//! Between heads and what they ask: [`api`] is the one table of apis, with how each is read, answered and refused.
//!
//! Heads are verified before anything reads them, and copied, except for the records of a produce request. What is asked is
//! judged where it is done, for every protocol alike; here only what no other protocol has.

mod groups;
mod quorum;
mod read;
mod records;
mod replicas;
mod security;
mod topics;

use headwater_protocol::{
    frame::Api,
    head::ResponseHead,
    schema::{
        AddQuorumMembersResponseT, AlterQuotasResponseT, AlterTopicResponseT, CordonBrokerResponseT,
        CreateAclsResponseT, CreateTopicResponseT, DeleteAclsResponseT, DeleteGroupResponseT, DeleteRecordsResponseT,
        DeleteTopicResponseT, DescribeAclsResponseT, DescribeBrokerResponseT, DescribeGroupResponseT,
        DescribeQuorumResponseT, DescribeQuotasResponseT, DescribeTopicResponseT, DescribeUsersResponseT,
        DrainBrokerResponseT, ElectLeadersResponseT, ErrorResponseT, FinaliseFeaturesResponseT, FindGroupResponseT,
        ForgetBrokerResponseT, HeartbeatResponseT, InitProducerIdResponseT, JoinGroupResponseT, LeaveGroupResponseT,
        ListBrokersResponseT, ListGroupsResponseT, ListOffsetsResponseT, MetadataResponseT, OffsetCommitResponseT,
        OffsetDeleteResponseT, OffsetFetchResponseT, ReassignPartitionsResponseT, RemoveQuorumMemberResponseT,
        RemoveUserResponseT, SetUserResponseT, SyncGroupResponseT,
    },
};

pub(super) use self::read::read;
pub(super) use self::records::{fetched, produced, read_fetch, read_produce};
use super::reply::Reply;
use crate::model::{
    op::{Op, Outcome},
    refusal::Refusal,
};

/// When a request is done, and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Before the next one is taken in; it asks nobody else.
    AtOnce,
    /// When its turn has come: one request of a connection after the other, once most responses have been read.
    InTurn,
    /// Beside all others, as it waits for other members of a group, which sends heartbeats meanwhile.
    Beside,
}

/// How an api is read, done and refused.
#[derive(Clone, Copy)]
pub(super) struct Row {
    pub(super) read: fn(&[u8]) -> Result<Op, Refusal>,
    pub(super) when: When,
    /// It stands though nobody waits for its answer any more.
    pub(super) changes: bool,
    pub(super) refuse: fn(Reply, Refusal),
}

/// The way of an api.
#[derive(Clone, Copy)]
pub(super) enum Way {
    /// What this protocol says first.
    Hello,
    /// By which a client proves who it is: before anything else is taken in.
    Enter,
    /// Records are taken in while they lie in the read buffer.
    Produce,
    /// Records are named and sent from where they lie.
    Fetch,
    Op(Row),
}

/// The table.
#[rustfmt::skip]
pub(super) const fn api(api: Api) -> Option<Way> {
    use When::{AtOnce, Beside, InTurn};
    const READS: bool = false;
    const CHANGES: bool = true;
    Some(match api {
        Api::Error => return None,
        Api::ApiVersions => Way::Hello,
        Api::Produce => Way::Produce,
        Api::Fetch => Way::Fetch,
        Api::Metadata => op(topics::read_metadata, AtOnce, READS, refuse::<MetadataResponseT>),
        Api::CreateTopic => op(topics::read_create, InTurn, CHANGES, refuse::<CreateTopicResponseT>),
        Api::AlterTopic => op(topics::read_alter, InTurn, CHANGES, refuse::<AlterTopicResponseT>),
        Api::DeleteTopic => op(topics::read_delete, InTurn, CHANGES, refuse::<DeleteTopicResponseT>),
        Api::DescribeTopic => op(topics::read_describe, InTurn, READS, refuse::<DescribeTopicResponseT>),
        Api::DescribeBroker => op(topics::read_describe_broker, InTurn, READS, refuse::<DescribeBrokerResponseT>),
        Api::DescribeQuorum => op(quorum::read_describe, InTurn, READS, refuse::<DescribeQuorumResponseT>),
        Api::AddQuorumMembers => op(quorum::read_add, InTurn, CHANGES, refuse::<AddQuorumMembersResponseT>),
        Api::RemoveQuorumMember => op(quorum::read_remove, InTurn, CHANGES, refuse::<RemoveQuorumMemberResponseT>),
        Api::ListBrokers => op(replicas::read_list, InTurn, READS, refuse::<ListBrokersResponseT>),
        Api::CordonBroker => op(replicas::read_cordon, InTurn, CHANGES, refuse::<CordonBrokerResponseT>),
        Api::ForgetBroker => op(replicas::read_forget, InTurn, CHANGES, refuse::<ForgetBrokerResponseT>),
        Api::FinaliseFeatures => op(replicas::read_finalise, InTurn, CHANGES, refuse::<FinaliseFeaturesResponseT>),
        Api::DrainBroker => op(replicas::read_drain, InTurn, CHANGES, refuse::<DrainBrokerResponseT>),
        Api::ElectLeaders => op(replicas::read_elect, InTurn, CHANGES, refuse::<ElectLeadersResponseT>),
        Api::ReassignPartitions => op(replicas::read_reassign, InTurn, CHANGES, refuse::<ReassignPartitionsResponseT>),
        Api::InitProducerId => op(records::read_init_producer_id, InTurn, CHANGES, refuse::<InitProducerIdResponseT>),
        Api::ListOffsets => op(records::read_list_offsets, InTurn, READS, refuse::<ListOffsetsResponseT>),
        Api::DeleteRecords => op(records::read_delete_records, InTurn, CHANGES, refuse::<DeleteRecordsResponseT>),
        Api::FindGroup => op(groups::read_find, InTurn, CHANGES, refuse::<FindGroupResponseT>),
        Api::JoinGroup => op(groups::read_join, Beside, CHANGES, refuse::<JoinGroupResponseT>),
        Api::SyncGroup => op(groups::read_sync, Beside, CHANGES, refuse::<SyncGroupResponseT>),
        Api::Heartbeat => op(groups::read_heartbeat, InTurn, CHANGES, refuse::<HeartbeatResponseT>),
        Api::LeaveGroup => op(groups::read_leave, InTurn, CHANGES, refuse::<LeaveGroupResponseT>),
        Api::OffsetCommit => op(groups::read_commit, InTurn, CHANGES, refuse::<OffsetCommitResponseT>),
        Api::OffsetFetch => op(groups::read_fetch, InTurn, READS, refuse::<OffsetFetchResponseT>),
        Api::OffsetDelete => op(groups::read_forget, InTurn, CHANGES, refuse::<OffsetDeleteResponseT>),
        Api::ListGroups => op(groups::read_list, InTurn, READS, refuse::<ListGroupsResponseT>),
        Api::DescribeGroup => op(groups::read_describe, InTurn, READS, refuse::<DescribeGroupResponseT>),
        Api::DeleteGroup => op(groups::read_delete, InTurn, CHANGES, refuse::<DeleteGroupResponseT>),
        Api::Authenticate => Way::Enter,
        Api::DescribeAcls => op(security::read_describe_acls, InTurn, READS, refuse::<DescribeAclsResponseT>),
        Api::CreateAcls => op(security::read_create_acls, InTurn, CHANGES, refuse::<CreateAclsResponseT>),
        Api::DeleteAcls => op(security::read_delete_acls, InTurn, CHANGES, refuse::<DeleteAclsResponseT>),
        Api::DescribeUsers => op(security::read_describe_users, InTurn, READS, refuse::<DescribeUsersResponseT>),
        Api::SetUser => op(security::read_set_user, InTurn, CHANGES, refuse::<SetUserResponseT>),
        Api::RemoveUser => op(security::read_remove_user, InTurn, CHANGES, refuse::<RemoveUserResponseT>),
        Api::DescribeQuotas => op(security::read_describe_quotas, InTurn, READS, refuse::<DescribeQuotasResponseT>),
        Api::AlterQuotas => op(security::read_alter_quotas, InTurn, CHANGES, refuse::<AlterQuotasResponseT>),
    })
}

const fn op(read: fn(&[u8]) -> Result<Op, Refusal>, when: When, changes: bool, refuse: fn(Reply, Refusal)) -> Way {
    Way::Op(Row {
        read,
        when,
        changes,
        refuse,
    })
}

/// Answers with the response of the api that was asked.
fn refuse<H: ResponseHead>(reply: Reply, refusal: Refusal) {
    reply.head(&H::failed(refusal.code, refusal.message));
}

/// Answers a request that has no response of its own.
pub(super) fn refuse_unread(reply: Reply, refusal: Refusal) {
    refuse::<ErrorResponseT>(reply, refusal);
}

/// Answers with what has become of a request.
pub(super) fn tell(reply: Reply, outcome: Outcome) {
    match outcome {
        Outcome::Metadata(metadata) => reply.head(&topics::metadata(metadata)),
        Outcome::Layout(_)
        | Outcome::Logs(_)
        | Outcome::Producers(_)
        | Outcome::Transaction(_)
        | Outcome::Transactions(_)
        | Outcome::Marked(_) => {
            unreachable!("no api of this protocol asks for it")
        }
        Outcome::TopicCreated { id, partitions } => reply.head(&CreateTopicResponseT {
            id: Some(id.into()),
            partitions: partitions.cast_signed(),
            ..CreateTopicResponseT::default()
        }),
        Outcome::TopicAltered { partitions } => reply.head(&AlterTopicResponseT {
            partitions: partitions.cast_signed(),
            ..AlterTopicResponseT::default()
        }),
        Outcome::TopicDeleted => reply.head(&DeleteTopicResponseT::default()),
        Outcome::Topic(described) => reply.head(&topics::topic(described)),
        Outcome::Broker(described) => reply.head(&topics::broker(described)),
        Outcome::Quorum(described) => reply.head(&quorum::quorum(described)),
        Outcome::MembersAdded => reply.head(&AddQuorumMembersResponseT::default()),
        Outcome::MemberRemoved => reply.head(&RemoveQuorumMemberResponseT::default()),
        Outcome::Brokers(list) => reply.head(&replicas::brokers(list)),
        Outcome::BrokerCordoned => reply.head(&CordonBrokerResponseT::default()),
        Outcome::BrokerForgotten => reply.head(&ForgetBrokerResponseT::default()),
        Outcome::FeaturesFinalised => reply.head(&FinaliseFeaturesResponseT::default()),
        Outcome::BrokerDrains(moves) => reply.head(&DrainBrokerResponseT {
            moves: moves as u32,
            ..DrainBrokerResponseT::default()
        }),
        Outcome::LeadersElected(refused) => reply.head(&ElectLeadersResponseT {
            refused: Some(replicas::refused(refused)),
            ..ElectLeadersResponseT::default()
        }),
        Outcome::PartitionsMove(refused) => reply.head(&ReassignPartitionsResponseT {
            refused: Some(replicas::refused(refused)),
            ..ReassignPartitionsResponseT::default()
        }),
        Outcome::Producer(id, epoch) => reply.head(&InitProducerIdResponseT {
            producer_id: id.get(),
            producer_epoch: epoch.get(),
            ..InitProducerIdResponseT::default()
        }),
        Outcome::Offsets(listed) => reply.head(&records::listed(listed)),
        Outcome::RecordsDeleted(start) => reply.head(&DeleteRecordsResponseT {
            log_start_offset: start.as_i64(),
            ..DeleteRecordsResponseT::default()
        }),
        Outcome::GroupFound(place) => reply.head(&FindGroupResponseT {
            broker_id: place.broker.get(),
            host: Some(place.host),
            core_port: place.core_port,
            ..FindGroupResponseT::default()
        }),
        Outcome::NotJoined(refusal, member_id) => reply.head(&JoinGroupResponseT {
            member_id,
            ..JoinGroupResponseT::failed(refusal.code, refusal.message)
        }),
        Outcome::Groups(listed) => reply.head(&groups::listed(listed)),
        Outcome::Group(answer) => groups::tell(reply, answer),
        Outcome::Acls(acls) => reply.head(&DescribeAclsResponseT {
            acls: Some(security::acls(acls)),
            ..DescribeAclsResponseT::default()
        }),
        Outcome::AclsCreated => reply.head(&CreateAclsResponseT::default()),
        Outcome::AclsDeleted(acls) => reply.head(&DeleteAclsResponseT {
            acls: Some(security::acls(acls.into_iter().flatten())),
            ..DeleteAclsResponseT::default()
        }),
        Outcome::Users(users) => reply.head(&DescribeUsersResponseT {
            users: Some(security::users(users)),
            ..DescribeUsersResponseT::default()
        }),
        Outcome::UserSet => reply.head(&SetUserResponseT::default()),
        Outcome::UserRemoved => reply.head(&RemoveUserResponseT::default()),
        Outcome::Quotas(quotas) => reply.head(&DescribeQuotasResponseT {
            quotas: Some(quotas.into_iter().map(security::quota).collect()),
            ..DescribeQuotasResponseT::default()
        }),
        Outcome::QuotasAltered => reply.head(&AlterQuotasResponseT::default()),
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::frame::Api;

    use super::{Way, api};

    #[test]
    fn every_api_that_can_be_requested_has_its_way() {
        for &request in Api::REQUESTS {
            let way = api(request);
            assert!(way.is_some(), "{request:?}");
            let is_op = matches!(way, Some(Way::Op(_)));
            assert_ne!(
                is_op,
                matches!(
                    request,
                    Api::ApiVersions | Api::Produce | Api::Fetch | Api::Authenticate
                ),
                "{request:?}"
            );
        }
    }
}
