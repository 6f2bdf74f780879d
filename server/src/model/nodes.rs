//! Brokers and partitions as Kafka's clients are told of them: a node is a broker, or one of its cores.

use headwater_protocol::{
    error::ErrorCode,
    id::{LeaderEpoch, PartitionIndex, TopicId},
};

/// A topic, as somebody asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    Name(String),
    Id(TopicId),
}

/// Somewhere to connect to.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) rack: Option<String>,
    /// Its broker leads nothing, and may not be there.
    pub(crate) is_fenced: bool,
}

/// Nodes, and where topics are.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) cluster_id: String,
    pub(crate) nodes: Vec<Node>,
    /// The one to ask for changes: all can do them.
    pub(crate) controller: i32,
    pub(crate) topics: Vec<(TopicRef, Result<TopicLayout, ErrorCode>)>,
}

/// Where a topic is.
#[derive(Debug)]
pub(crate) struct TopicLayout {
    pub(crate) name: String,
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<PartitionLayout>,
}

/// Who has a partition, by their nodes.
#[derive(Debug)]
pub(crate) struct PartitionLayout {
    pub(crate) index: PartitionIndex,
    pub(crate) leader: LeaderNode,
    pub(crate) replicas: Vec<i32>,
    pub(crate) isr: Vec<i32>,
    pub(crate) elr: Vec<i32>,
    pub(crate) offline: Vec<i32>,
}

/// Who leads a partition.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderNode {
    /// While somebody does.
    pub(crate) node: Option<i32>,
    /// It is the broker that is asked.
    pub(crate) is_here: bool,
    pub(crate) epoch: LeaderEpoch,
}
