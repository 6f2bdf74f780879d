//! Brokers and replicas: who is there and has what, and how that changes.

use std::ops::RangeInclusive;

use headwater_protocol::id::BrokerId;

use super::{Admin, LEADER_ANSWER_MAX, TopicDescription, final_if_unknown};
use crate::address::Address;
use crate::deadline::Deadline;
use crate::error::{Error, topic_name};
use crate::requests;

/// The brokers, and how the partitions of the cluster are, as the broker knows it that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClusterListing {
    /// All brokers, in the order of their numbers.
    pub brokers: Vec<BrokerListing>,
    /// Partitions of all topics.
    pub partitions: usize,
    /// Those that nobody leads: they are not served.
    pub leaderless: usize,
    /// Those of which fewer replicas are in sync than an acknowledgement takes: they take no records with `acks=all`.
    pub under_min_isr: usize,
    /// Those of which not all replicas are in sync.
    pub under_replicated: usize,
    /// The feature level that was finalised.
    pub feature_level: u16,
}

/// A broker.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BrokerListing {
    /// Its number.
    pub id: BrokerId,
    /// Where it is reached.
    pub host: String,
    /// The port that its cores share.
    pub port: u16,
    /// The port of each core.
    pub core_ports: Vec<u16>,
    /// What fails together with it has the same one.
    pub rack: Option<String>,
    /// The number of its process: it grows with each start. 0 if the broker is alone.
    pub incarnation: u64,
    /// It is not there, or not let in: it leads nothing and is in sync with nobody.
    pub is_fenced: bool,
    /// It gets no further replicas.
    pub is_cordoned: bool,
    /// Partitions that it has.
    pub replicas: usize,
    /// Those of them that are in sync.
    pub in_sync: usize,
    /// Those of them that it leads.
    pub leads: usize,
    /// Those of them that it is to lead when it can.
    pub preferred: usize,
    /// The feature levels that its program can do.
    pub feature_levels: RangeInclusive<u16>,
}

/// A partition that is to move.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionMove {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// Who is to have it, the preferred leader first. `None`: a move that is under way is given up.
    pub replicas: Option<Vec<BrokerId>>,
}

/// A partition for which something was not done.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RefusedPartition {
    /// The topic.
    pub topic: String,
    /// The number of the partition.
    pub partition: i32,
    /// Why not.
    pub error: Error,
}

impl Admin {
    /// The brokers of the cluster, and how many partitions are not as they should be.
    pub async fn list_brokers(&self) -> Result<ClusterListing, Error> {
        let deadline = self.cluster.deadline("list brokers");
        self.cluster
            .ask_any(deadline, &requests::list_brokers(), requests::read_list_brokers)
            .await
    }

    /// Has the cluster be at this feature level from now on: what it unlocks may be used then, and there is no way back.
    ///
    /// # Errors
    /// [`Error::Broker`] if a broker cannot do that level, or a later one was finalised.
    pub async fn finalise_features(&self, level: u16) -> Result<(), Error> {
        let deadline = self.cluster.deadline("finalise features");
        let request = requests::finalise_features(level);
        self.cluster
            .ask_any(deadline, &request, requests::read_finalise_features)
            .await
    }

    /// A topic as one broker has it, whoever leads the partitions: offsets and sizes are those of its own logs, and a partition that it
    /// does not have has an error. A replica lacks what its leader has beyond it.
    ///
    /// # Errors
    /// Of the connection, if the broker does not answer within two seconds.
    pub async fn describe_topic_on(&self, broker: &BrokerListing, name: &str) -> Result<TopicDescription, Error> {
        let name = topic_name(name)?;
        let deadline = Deadline::after(LEADER_ANSWER_MAX, "describe topic");
        let (address, request) = (Address::new(&broker.host, broker.port), requests::describe_topic(&name));
        let read = |bytes: &[u8]| final_if_unknown(&name, requests::read_describe_topic(bytes));
        let attempt = || async {
            let connection = self.cluster.connect(&address).await?;
            let frame = connection.call(&request).await?;
            connection.read(&frame, read)
        };
        deadline.retry(self.cluster.backoff(), attempt).await
    }

    /// Has a broker get no further replicas, or get them again.
    ///
    /// # Errors
    /// [`Error::Broker`] if there is no such broker.
    pub async fn cordon_broker(&self, id: BrokerId, is_cordoned: bool) -> Result<(), Error> {
        let deadline = self.cluster.deadline("cordon broker");
        let request = requests::cordon_broker(id, is_cordoned);
        self.cluster
            .ask_any(deadline, &request, requests::read_cordon_broker)
            .await
    }

    /// Takes a broker out of the cluster that has stopped for good, and has no replicas.
    ///
    /// # Errors
    /// [`Error::Broker`] if it is there, or has replicas.
    pub async fn forget_broker(&self, id: BrokerId) -> Result<(), Error> {
        let deadline = self.cluster.deadline("forget broker");
        self.cluster
            .ask_any(deadline, &requests::forget_broker(id), requests::read_forget_broker)
            .await
    }

    /// Cordons a broker, and has every replica that it has moved to another one. It says how many moves were begun;
    /// [`list_brokers`](Self::list_brokers) shows how many replicas are left.
    ///
    /// # Errors
    /// [`Error::Broker`] if there is no such broker, or there are too few others.
    pub async fn drain_broker(&self, id: BrokerId) -> Result<usize, Error> {
        let deadline = self.cluster.deadline("drain broker");
        self.cluster
            .ask_any(deadline, &requests::drain_broker(id), requests::read_drain_broker)
            .await
    }

    /// Has the preferred replica lead each of these partitions, by the name of the topic, or of all partitions. Returns those for which it
    /// was not done, and why.
    pub async fn elect_preferred(
        &self,
        partitions: Option<&[(String, Vec<i32>)]>,
    ) -> Result<Vec<RefusedPartition>, Error> {
        let deadline = self.cluster.deadline("elect leaders");
        let request = requests::elect_leaders(partitions, None);
        self.cluster
            .ask_any(deadline, &request, requests::read_elect_leaders)
            .await
    }

    /// Has a broker lead partitions that nobody can lead without losing records: what it lacks **is lost**, though it was acknowledged.
    /// Returns those for which it was not done, and why.
    pub async fn elect_unclean(
        &self,
        partitions: &[(String, Vec<i32>)],
        leader: BrokerId,
    ) -> Result<Vec<RefusedPartition>, Error> {
        let deadline = self.cluster.deadline("elect leaders");
        let request = requests::elect_leaders(Some(partitions), Some(leader));
        self.cluster
            .ask_any(deadline, &request, requests::read_elect_leaders)
            .await
    }

    /// Begins to move partitions to other brokers, or gives up moves. Returns those for which it was not done, and why.
    pub async fn reassign_partitions(&self, moves: &[PartitionMove]) -> Result<Vec<RefusedPartition>, Error> {
        let deadline = self.cluster.deadline("reassign partitions");
        let request = requests::reassign_partitions(moves);
        self.cluster
            .ask_any(deadline, &request, requests::read_reassign_partitions)
            .await
    }
}
