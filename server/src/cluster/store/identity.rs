//! Who the data directory belongs to.

use headwater_protocol::id::BrokerId;

use super::error::StoreError;
use crate::{
    cluster::quorum::{self, Cluster, NodeId, StoreId},
    config::{ClusterId, Config},
    machine,
};

/// Who a broker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its cluster.
    pub cluster_id: ClusterId,
    /// Its number there.
    pub broker_id: BrokerId,
}

impl Identity {
    /// Of a broker that is started for the first time.
    pub(super) fn new(config: &Config) -> Self {
        let configured = config.broker.cluster_id.clone();
        Self {
            cluster_id: configured.unwrap_or_else(|| ClusterId::from_uuid(machine::uuid())),
            broker_id: config.broker.id,
        }
    }

    /// What the data directory says, which must agree with the configuration.
    pub(super) fn known(cluster_id: ClusterId, broker_id: i64, config: &Config) -> Result<Self, StoreError> {
        let other = |owner: String, setting: String| StoreError::OtherBroker {
            path: config.log.directory.clone(),
            owner,
            setting,
        };
        let configured = &config.broker;
        if broker_id != i64::from(configured.id.get()) {
            let owner = format!("broker {broker_id}");
            return Err(other(owner, format!("broker.id is {}", configured.id)));
        }
        match &configured.cluster_id {
            Some(configured) if *configured != cluster_id => {
                let owner = format!("cluster {}", cluster_id.as_str());
                Err(other(owner, format!("broker.cluster_id is {}", configured.as_str())))
            }
            _ => Ok(Self {
                cluster_id,
                broker_id: configured.id,
            }),
        }
    }

    /// The same for a member of a quorum, whose store is new.
    pub(super) fn of_new_member(&self) -> quorum::Identity {
        let cluster = Cluster::try_from(self.cluster_id.as_str().to_owned());
        quorum::Identity {
            cluster: cluster.expect("a cluster's id is shorter than a member may remember"),
            node: NodeId::from(self.broker_id),
            store: StoreId::new(),
        }
    }

    /// Of a member, which must agree with the configuration.
    pub(super) fn of_member(member: &quorum::Identity, config: &Config) -> Result<Self, StoreError> {
        let cluster_id = String::from(member.cluster.clone());
        let cluster_id: ClusterId = cluster_id.parse().map_err(|expected| StoreError::Corrupt {
            path: config.log.directory.join(super::QUORUM_FILE),
            reason: format!("its cluster id is not {expected}"),
        })?;
        Self::known(cluster_id, member.node.get().cast_signed(), config)
    }
}
