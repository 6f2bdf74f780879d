//! Who is who in the quorum.

use std::fmt;

use headwater_protocol::id::BrokerId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::machine;

/// Number of a member, for as long as it is one: the broker's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct NodeId(u64);

impl NodeId {
    pub(crate) fn get(self) -> u64 {
        self.0
    }
}

impl From<BrokerId> for NodeId {
    fn from(id: BrokerId) -> NodeId {
        NodeId(u64::from(id.get().cast_unsigned()))
    }
}

impl From<NodeId> for BrokerId {
    fn from(node: NodeId) -> BrokerId {
        // Each was the number of a broker once.
        BrokerId::new(i32::try_from(node.0).unwrap_or(i32::MAX))
    }
}

impl From<u64> for NodeId {
    fn from(number: u64) -> NodeId {
        NodeId(number)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Identity of what a member has on disk. A member whose disk was emptied comes back with another one, and is not believed to
/// remember what it voted for and what it acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct StoreId(Uuid);

impl StoreId {
    /// One that no store has had before.
    pub(crate) fn new() -> StoreId {
        StoreId(machine::uuid())
    }

    pub(crate) fn get(self) -> Uuid {
        self.0
    }
}

impl From<Uuid> for StoreId {
    fn from(store: Uuid) -> StoreId {
        StoreId(store)
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// How often a store was opened: of two processes that say that they are the same member, the one with the lower number is gone,
/// or should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Incarnation(pub(crate) u64);

/// Longest identity of a cluster, in bytes.
const CLUSTER_LEN_MAX: usize = 128;

/// Identity of the cluster, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Cluster(String);

impl TryFrom<String> for Cluster {
    type Error = String;

    fn try_from(text: String) -> Result<Cluster, String> {
        if text.is_empty() || text.len() > CLUSTER_LEN_MAX {
            return Err(format!(
                "the identity of a cluster has 1 to {CLUSTER_LEN_MAX} bytes, and this one {}",
                text.len()
            ));
        }
        Ok(Cluster(text))
    }
}

impl From<Cluster> for String {
    fn from(cluster: Cluster) -> String {
        cluster.0
    }
}

impl fmt::Display for Cluster {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Who a store belongs to. Written when it is made, and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) cluster: Cluster,
    pub(crate) node: NodeId,
    pub(crate) store: StoreId,
}

/// What the quorum knows of each member.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    /// What it had on disk when it became one.
    pub(crate) store: StoreId,
    /// Where its peers reach it: host and port.
    pub(crate) address: String,
}
