//! Where everything is, in the nodes that Kafka's clients know.

use std::{collections::BTreeSet, sync::Arc};

use headwater_protocol::{
    error::ErrorCode,
    id::{BrokerId, CoreId, LeaderEpoch},
    topic::TopicName,
};

use super::{Ops, topics};
use crate::{
    config::KAFKA_NODES_OF_A_BROKER,
    image::{Assignment, KafkaAddress, Topic, TopicState, first_node},
    model::{
        id::PartitionId,
        nodes::{Layout, LeaderNode, Node, PartitionLayout, TopicLayout, TopicRef},
        replicas::ReplicasDescription,
    },
};

/// The nodes, and where these topics are; all of them if none are named.
pub(super) fn layout(ops: &Ops, topics: Option<Vec<TopicRef>>) -> Layout {
    let image = ops.partitions.image();
    let places = Places::of(ops);
    let ready = |topic: &&Arc<Topic>| topic.state == TopicState::Ready;
    let topics = match topics {
        None => {
            let all = image.topics().filter(ready);
            all.map(|topic| (TopicRef::Id(topic.id), Ok(places.topic(topic))))
                .collect()
        }
        Some(asked) => {
            let find = |asked: TopicRef| {
                let found = match &asked {
                    TopicRef::Name(name) => image.topic(name),
                    TopicRef::Id(id) => image.topic_by_id(*id),
                };
                let found = found.filter(ready).map(|topic| places.topic(topic));
                let found = found.ok_or_else(|| unknown(&asked));
                (asked, found)
            };
            asked.into_iter().map(find).collect()
        }
    };
    let nodes = places.nodes();
    let own = places.node(ops.core.config.broker.id, ops.core.id);
    let controller = nodes.iter().find(|node| node.id == own).or(nodes.first());
    Layout {
        cluster_id: ops.addresses.cluster_id.clone(),
        controller: controller.map_or(-1, |node| node.id),
        nodes,
        topics,
    }
}

/// The number of the node that is a core of a broker, with its host and port.
pub(super) fn node(ops: &Ops, broker: BrokerId, core: CoreId) -> Option<Node> {
    let places = Places::of(ops);
    let (at, rack) = places.broker(broker)?;
    let (id, port) = at.node(broker, core);
    let host = at.host.clone();
    Some(Node {
        id,
        host,
        port,
        rack,
        is_fenced: false,
    })
}

fn unknown(asked: &TopicRef) -> ErrorCode {
    match asked {
        TopicRef::Id(_) => ErrorCode::UnknownTopicId,
        TopicRef::Name(name) => match TopicName::new(name) {
            Ok(_) => ErrorCode::UnknownTopicOrPartition,
            Err(_invalid) => ErrorCode::InvalidTopicException,
        },
    }
}

/// What nodes are told from.
pub(crate) struct Places<'a> {
    ops: &'a Ops,
    /// None of a broker that is alone.
    assignment: Option<Arc<Assignment>>,
}

impl Places<'_> {
    pub(crate) fn of(ops: &Ops) -> Places<'_> {
        Places {
            ops,
            assignment: ops.partitions.assignment(),
        }
    }

    /// Where a broker speaks Kafka's protocol, if it does, and its rack.
    fn broker(&self, id: BrokerId) -> Option<(&KafkaAddress, Option<String>)> {
        if let Some(assignment) = &self.assignment {
            let broker = assignment.brokers.get(&id)?;
            return Some((broker.kafka.as_deref()?, broker.rack.clone()));
        }
        let rack = self.ops.core.config.broker.rack.as_ref();
        let at = self.ops.addresses.kafka.as_ref()?;
        Some((at, rack.map(|rack| rack.as_str().to_owned())))
    }

    /// Every node that is up.
    pub(crate) fn nodes(&self) -> Vec<Node> {
        let mut nodes = self.all_nodes();
        nodes.retain(|node| !node.is_fenced);
        nodes
    }

    /// Every node, of brokers that are up and of others.
    pub(crate) fn all_nodes(&self) -> Vec<Node> {
        let brokers: Vec<(BrokerId, bool)> = match &self.assignment {
            Some(assignment) => {
                let brokers = assignment.brokers.values();
                brokers.map(|broker| (broker.id, broker.is_fenced)).collect()
            }
            None => vec![(self.ops.core.config.broker.id, false)],
        };
        let mut nodes = Vec::new();
        for (broker, is_fenced) in brokers {
            let Some((at, rack)) = self.broker(broker) else {
                continue;
            };
            nodes.extend(at.nodes(broker).map(|(id, port)| Node {
                id,
                host: at.host.clone(),
                port,
                rack: rack.clone(),
                is_fenced,
            }));
        }
        nodes
    }

    /// Those with these numbers, -1 for none.
    pub(crate) fn numbered(&self, ids: impl Iterator<Item = i32>) -> Vec<Node> {
        let ids: BTreeSet<i32> = ids.filter(|id| *id >= 0).collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let mut nodes = self.nodes();
        nodes.retain(|node| ids.contains(&node.id));
        nodes
    }

    /// A broker that does not speak Kafka's protocol is told of as one node, which nobody finds.
    pub(crate) fn node(&self, broker: BrokerId, core: CoreId) -> i32 {
        let at = self.broker(broker);
        at.map_or_else(|| first_node(broker), |(at, _)| at.node(broker, core).0)
    }

    /// The registered broker of which this is a node.
    pub(crate) fn broker_of(&self, node: i32) -> Option<BrokerId> {
        let broker = BrokerId::new(node.div_euclid(KAFKA_NODES_OF_A_BROKER));
        let is_registered = match &self.assignment {
            Some(assignment) => assignment.brokers.contains_key(&broker),
            None => broker == self.ops.core.config.broker.id,
        };
        let is_node = match self.broker(broker) {
            Some((at, _)) => at.nodes(broker).any(|(id, _)| id == node),
            None => first_node(broker) == node,
        };
        Some(broker).filter(|_| is_registered && is_node)
    }

    /// The node where a broker has a partition.
    pub(crate) fn node_of(&self, broker: BrokerId, id: PartitionId) -> i32 {
        let cores = match &self.assignment {
            Some(assignment) => {
                let known = assignment.brokers.get(&broker);
                known.map_or(0, |broker| broker.address.core_ports.len())
            }
            None => self.ops.core.mesh.len(),
        };
        self.node(broker, id.owner(cores.max(1)))
    }

    /// Who leads a partition.
    pub(crate) fn leader(&self, id: PartitionId) -> LeaderNode {
        let own = self.ops.core.config.broker.id;
        let Some(assignment) = &self.assignment else {
            return LeaderNode {
                node: Some(self.node_of(own, id)),
                is_here: true,
                epoch: topics::LEADER_EPOCH,
            };
        };
        let epoch = assignment.placements.get(id).map(|replicas| replicas.leader_epoch);
        let leader = assignment.leader_of(id);
        LeaderNode {
            node: leader.map(|(broker, core)| self.node(broker.id, core)),
            is_here: leader.is_some_and(|(broker, _)| broker.id == own),
            epoch: epoch.unwrap_or(LeaderEpoch::NONE),
        }
    }

    /// Who has a partition.
    pub(crate) fn partition(&self, id: PartitionId) -> PartitionLayout {
        let replicas = topics::replicas(&self.ops.core, self.assignment.as_deref(), id);
        let nodes = |brokers: Vec<BrokerId>| brokers.into_iter().map(|broker| self.node_of(broker, id)).collect();
        let offline = self.offline(&replicas);
        PartitionLayout {
            index: id.index,
            leader: self.leader(id),
            replicas: nodes(replicas.replicas),
            isr: nodes(replicas.isr),
            elr: nodes(replicas.elr),
            offline: nodes(offline),
        }
    }

    /// Replicas whose log is not open, or whose broker is not up.
    fn offline(&self, replicas: &ReplicasDescription) -> Vec<BrokerId> {
        let is_up = |broker: &BrokerId| match &self.assignment {
            Some(assignment) => assignment.brokers.get(broker).is_some_and(|broker| !broker.is_fenced),
            None => true,
        };
        let is_offline = |broker: &&BrokerId| replicas.offline.contains(broker) || !is_up(broker);
        replicas.replicas.iter().filter(is_offline).copied().collect()
    }

    fn topic(&self, topic: &Topic) -> TopicLayout {
        let partition = |index| self.partition(PartitionId { topic: topic.id, index });
        TopicLayout {
            name: topic.name.to_string(),
            id: topic.id,
            partitions: topic.partitions().map(partition).collect(),
        }
    }
}
