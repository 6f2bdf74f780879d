//! What a client can ask of the broker and what becomes of it, in no protocol's terms. What is about records themselves is in
//! [`records`](super::records).

use headwater_engine::ActiveProducer;
use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId},
    scram::Mechanism,
};

use super::{
    access::{Acl, AclFilter, StoredKeys, UserDescription},
    group::{self, InstanceId, MemberId, Protocol, Timeouts},
    id::PartitionId,
    nodes::{Layout, Node, TopicRef},
    quorum::QuorumDescription,
    quota::{Quota, QuotaAlteration},
    records::{ListItem, ListedItem},
    refusal::Refusal,
    replicas::{BrokerList, PartitionMove, RefusedPartition, ReplicasDescription},
    transaction,
};

/// What is asked. Sizes and names are as the client sent them.
#[derive(Debug)]
pub(crate) enum Op {
    /// `None`: of every topic.
    Metadata(Option<Vec<String>>),
    /// The same for Kafka's clients.
    Layout(Option<Vec<TopicRef>>),
    /// Or only, if `true`, to say whether it could be done.
    CreateTopic(NewTopic, bool),
    AlterTopic(TopicAlteration, bool),
    /// Only, if one is named, the topic that has this id: another may have its name by now.
    DeleteTopic(String, Option<TopicId>),
    DescribeTopic(String),
    DescribeBroker,
    /// The logs that this broker has of these partitions; or only, if `true`, those of this core.
    DescribeLogs(Vec<PartitionId>, bool),
    /// Who has written to a partition, of those that number their batches.
    DescribeProducers(PartitionId),
    DescribeQuorum,
    /// Each with its address.
    AddQuorumMembers(Vec<(BrokerId, String)>),
    RemoveQuorumMember(BrokerId),
    ListBrokers,
    /// It gets no further replicas, or gets them again.
    CordonBroker(BrokerId, bool),
    ForgetBroker(BrokerId),
    /// The cluster is at this feature level from now on.
    FinaliseFeatures(u16),
    /// It is to have no replicas any more.
    DrainBroker(BrokerId),
    /// The preferred leader, or, if one is named, this broker whatever it lacks. `None`: of every partition.
    ElectLeaders(Option<Vec<TopicPartitions>>, Option<BrokerId>),
    ReassignPartitions(Vec<PartitionMove>),
    /// An id for a producer, or the next epoch for one that has an id.
    InitProducerId(ProducerId, ProducerEpoch),
    ListOffsets(Vec<ListItem>),
    /// Of a partition, those before the offset; -1 is the high watermark.
    DeleteRecords(PartitionId, i64),
    FindGroup(String),
    JoinGroup(String, Joining),
    /// For a member, if it says who it is. `None`: all that are committed.
    FetchOffsets(String, Option<group::Identity>, Option<Vec<TopicPartitions>>),
    ForgetOffsets(String, Vec<TopicPartitions>),
    /// `None`: of every state. Or only, if `true`, those that this core runs.
    ListGroups(Option<Vec<String>>, bool),
    /// A request that a group is given as it is.
    Group(String, group::Request),
    /// Who coordinates the transactions of this id.
    FindTransaction(String),
    /// A request that the coordinator of a transactional id is given as it is.
    Transaction(String, transaction::Request),
    /// Of all cores, or only, if `true`, of this one.
    ListTransactions(bool),
    /// A marker for partitions.
    Mark(transaction::Marker, Vec<PartitionId>),
    DescribeAcls(AclFilter),
    CreateAcls(Vec<Acl>),
    DeleteAcls(Vec<AclFilter>),
    /// `None`: all.
    DescribeUsers(Option<Vec<String>>),
    SetUser(String, StoredKeys),
    /// Its keys of this mechanism, or all.
    RemoveUser(String, Option<Mechanism>),
    DescribeQuotas,
    AlterQuotas(Vec<QuotaAlteration>),
}

/// What has become of it.
#[derive(Debug)]
pub(crate) enum Outcome {
    Metadata(Metadata),
    Layout(Layout),
    TopicCreated {
        id: TopicId,
        partitions: u32,
    },
    TopicAltered {
        partitions: u32,
    },
    TopicDeleted,
    Topic(TopicDescription),
    Broker(BrokerDescription),
    Logs(LogsDescription),
    Producers(Vec<ActiveProducer>),
    Quorum(QuorumDescription),
    MembersAdded,
    MemberRemoved,
    Brokers(BrokerList),
    BrokerCordoned,
    BrokerForgotten,
    FeaturesFinalised,
    /// So many of its replicas move.
    BrokerDrains(usize),
    /// But for these partitions.
    LeadersElected(Vec<RefusedPartition>),
    /// But for these partitions.
    PartitionsMove(Vec<RefusedPartition>),
    Producer(ProducerId, ProducerEpoch),
    Offsets(Vec<ListedItem>),
    /// The log now starts here.
    RecordsDeleted(Offset),
    GroupFound(GroupPlace),
    /// Why somebody is no member, and what it is to call itself, or did.
    NotJoined(Refusal, Option<String>),
    Groups(Vec<group::Listed>),
    Group(group::Answer),
    Transaction(transaction::Answer),
    Transactions(Vec<transaction::Described>),
    /// One code for each partition.
    Marked(Vec<ErrorCode>),
    Acls(Vec<Acl>),
    AclsCreated,
    /// Of each filter.
    AclsDeleted(Vec<Vec<Acl>>),
    Users(Vec<UserDescription>),
    UserSet,
    UserRemoved,
    Quotas(Vec<Quota>),
    QuotasAltered,
}

/// What is asked for when a topic is created; -1 stands for the broker's default.
#[derive(Debug, Clone)]
pub struct NewTopic {
    pub name: String,
    pub partitions: i32,
    /// Replicas of each partition.
    pub replication_factor: i16,
    /// Settings in Kafka's names.
    pub configs: Vec<(String, String)>,
    /// Who is to have each of the partitions, the preferred leader first; `None`: the cluster says.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// What is asked for when a topic is altered.
#[derive(Debug, Clone)]
pub struct TopicAlteration {
    pub name: String,
    /// Settings in Kafka's names.
    pub configs: Vec<(String, SettingChange)>,
    /// What is not among them follows the broker from now on.
    pub is_all: bool,
    /// -1: as many as there are.
    pub partitions: i32,
    /// Who is to have each of those that are new, the preferred leader first; `None`: the cluster says.
    pub assignments: Option<Vec<Vec<BrokerId>>>,
}

/// What is to become of a setting, whatever it is until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingChange {
    /// It has this value.
    Value(String),
    /// It follows the broker.
    Inherited,
    /// A list has these elements too.
    With(String),
    /// A list does not have these elements any more.
    Without(String),
}

impl From<Option<String>> for SettingChange {
    fn from(value: Option<String>) -> SettingChange {
        value.map_or(SettingChange::Inherited, SettingChange::Value)
    }
}

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Metadata {
    pub(crate) brokers: Vec<BrokerPlace>,
    pub(crate) topics: Vec<TopicMetadata>,
}

/// Where a broker is reached: on a port that its cores share, and on one of each core.
#[derive(Debug)]
pub(crate) struct BrokerPlace {
    pub(crate) broker: BrokerId,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) core_ports: Vec<u16>,
}

#[derive(Debug)]
pub(crate) struct TopicMetadata {
    pub(crate) name: String,
    /// Or why there is none.
    pub(crate) topic: Result<TopicPlaces, ErrorCode>,
}

#[derive(Debug)]
pub(crate) struct TopicPlaces {
    pub(crate) id: TopicId,
    /// Of each partition, in order.
    pub(crate) leaders: Vec<Leader>,
    pub(crate) batch_size_max: u64,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Leader {
    pub(crate) partition: PartitionIndex,
    pub(crate) epoch: LeaderEpoch,
    /// The broker and its core, while somebody leads.
    pub(crate) place: Option<(BrokerId, CoreId)>,
}

#[derive(Debug)]
pub(crate) struct TopicDescription {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) configs: Vec<TopicSetting>,
    pub(crate) partitions: Vec<PartitionDescription>,
}

#[derive(Debug)]
pub(crate) struct TopicSetting {
    pub(crate) name: String,
    pub(crate) value: String,
    /// The topic has set it itself; it follows the broker otherwise.
    pub(crate) own: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct PartitionDescription {
    pub(crate) id: PartitionId,
    pub(crate) leader: Leader,
    pub(crate) replicas: ReplicasDescription,
    /// Or why it cannot be told.
    pub(crate) log: Result<LogDescription, ErrorCode>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct LogDescription {
    pub(crate) start: Offset,
    pub(crate) high_watermark: Offset,
    pub(crate) end: Offset,
    pub(crate) segments: usize,
    pub(crate) size_bytes: u64,
}

/// The logs of a broker.
#[derive(Debug)]
pub(crate) struct LogsDescription {
    pub(crate) directory: String,
    /// Size of the file system and what is free of it, in bytes, if that is known.
    pub(crate) disk: Option<(u64, u64)>,
    /// The broker gets no further replicas.
    pub(crate) is_cordoned: bool,
    /// Each with its size in bytes.
    pub(crate) logs: Vec<(PartitionId, u64)>,
}

#[derive(Debug)]
pub(crate) struct BrokerDescription {
    pub(crate) id: BrokerId,
    /// Every setting in force, as its configuration would write it. None of them is a secret.
    pub(crate) configs: Vec<(String, String)>,
    pub(crate) status: BrokerStatus,
}

/// What a broker is doing, over all cores that have answered.
#[derive(Debug, Default)]
pub(crate) struct BrokerStatus {
    pub(crate) cores: usize,
    pub(crate) cores_up: usize,
    pub(crate) uptime_ms: u64,
    pub(crate) connections: u64,
    pub(crate) topics: usize,
    pub(crate) partitions: u64,
    pub(crate) partitions_offline: u64,
    pub(crate) groups: u64,
    pub(crate) group_members: u64,
    pub(crate) received_bytes: u64,
    pub(crate) fetched_bytes: u64,
    /// 0 of 0: it is not known.
    pub(crate) disk_free_bytes: u64,
    pub(crate) disk_size_bytes: u64,
}

/// The core that runs a group.
#[derive(Debug)]
pub(crate) struct GroupPlace {
    pub(crate) broker: BrokerId,
    pub(crate) host: String,
    pub(crate) core_port: u16,
    /// For Kafka's clients, if the broker has any.
    pub(crate) node: Option<Node>,
}

/// Somebody who wants to become or stay a member.
#[derive(Debug)]
pub(crate) struct Joining {
    /// None for a new member.
    pub(crate) member: Option<MemberId>,
    pub(crate) instance: Option<InstanceId>,
    pub(crate) timeouts: Timeouts,
    pub(crate) protocol_type: String,
    /// The member's favourite first.
    pub(crate) protocols: Vec<Protocol>,
    /// A new member is told its id first, and then joins with it.
    pub(crate) in_two_steps: bool,
}

#[derive(Debug)]
pub(crate) struct TopicPartitions {
    pub(crate) topic: String,
    pub(crate) partitions: Vec<i32>,
}
