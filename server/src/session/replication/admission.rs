//! Who may connect: brokers of this cluster, as the process that is registered, and each stream once.

use std::collections::BTreeMap;

use headwater_protocol::id::{BrokerId, CoreId};

use super::{error::PeerError, hello::Hello};
use crate::{
    image::{Broker, Incarnation, Member},
    partition::replication::Peer,
};

/// The core that was reached.
#[derive(Debug, Clone)]
pub(crate) struct Here {
    pub(crate) cluster_id: String,
    pub(crate) broker: Member,
    pub(crate) core: CoreId,
}

/// The streams that have come to a core: the latest of each core of each broker, of which there are as many as are registered.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    latest: BTreeMap<(BrokerId, CoreId), (Incarnation, u64)>,
}

impl Admission {
    /// Who has connected, if it may. `known` is what this broker knows of the one that the other side says it is. Whatever an older
    /// stream says from now on is void.
    pub(crate) fn admit(&mut self, hello: &Hello, here: &Here, known: Option<&Broker>) -> Result<Peer, PeerError> {
        Admission::check(hello, here, known)?;
        let from = hello.from;
        let age = (from.incarnation, hello.connection);
        let latest = self
            .latest
            .entry((from.broker, hello.core))
            .or_insert((Incarnation::new(0), 0));
        if age <= *latest {
            return Err(PeerError::Replayed);
        }
        *latest = age;
        Ok(Peer {
            member: from,
            connection: hello.connection,
        })
    }

    /// Whether it is a broker of this cluster, as the process that is registered, and means this core.
    pub(crate) fn check(hello: &Hello, here: &Here, known: Option<&Broker>) -> Result<(), PeerError> {
        let from = hello.from;
        if hello.cluster_id != here.cluster_id {
            return Err(PeerError::Cluster {
                theirs: hello.cluster_id.clone(),
                ours: here.cluster_id.clone(),
            });
        }
        if (hello.to, hello.to_core) != (here.broker.broker, here.core) {
            return Err(PeerError::Elsewhere {
                wanted: hello.to,
                core: hello.to_core,
                ours: here.broker.broker,
            });
        }
        let known = known.filter(|known| known.id == from.broker && from.broker != here.broker.broker);
        let known = known.ok_or(PeerError::Stranger(from.broker))?;
        if known.incarnation != from.incarnation {
            return Err(PeerError::Incarnation {
                broker: from.broker,
                said: from.incarnation,
                known: known.incarnation,
            });
        }
        if usize::from(hello.core.get()) >= known.address.core_ports.len() {
            return Err(PeerError::Contradiction("it has registered fewer cores"));
        }
        Ok(())
    }
}
