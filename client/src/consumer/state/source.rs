//! Which replica a partition is fetched from (KIP-392): its leader, or one in the consumer's rack that the leader has named.
//!
//! Whatever goes wrong at such a replica is no failure for the application: the leader is asked instead. It is asked again now and then
//! in any case, as another replica may be nearer by then.

use std::time::Duration;

use super::{Partition, State, Ticket};
use crate::address::Address;
use crate::error::Error;
use crate::requests::Reads;
use crate::runtime::Instant;

/// So long the leader alone is asked when the replica that it has named does not serve, or is not known.
const LEADER_ALONE: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub(super) enum Source {
    /// The leader, which may name another.
    #[default]
    Leader,
    /// The leader alone until then.
    LeaderAlone(Instant),
    /// This replica until then.
    Replica(Address, Instant),
}

impl Partition {
    /// Whom to fetch from now; `None` if the leader is to be found first.
    pub(super) fn source(&mut self, has_rack: bool, now: Instant) -> Option<(Address, Reads)> {
        let reads = match &self.source {
            Source::Replica(replica, until) if now < *until => return Some((replica.clone(), Reads::Follower)),
            Source::LeaderAlone(until) if now < *until => Reads::Leader,
            _ => {
                self.source = Source::Leader;
                if has_rack { Reads::Near } else { Reads::Leader }
            }
        };
        Some((self.leader.clone()?, reads))
    }
}

impl State {
    /// The leader has named a replica to fetch from; `None`: one that nobody knows of here.
    pub(in crate::consumer) fn on_preferred(&mut self, ticket: Ticket, replica: Option<Address>, now: Instant) {
        let lasts = self.settings.preferred_max;
        let Some(partition) = self.current(ticket) else { return };
        partition.source = match replica {
            Some(replica) if partition.leader.as_ref() != Some(&replica) => {
                tracing::debug!(topic = %partition.topic, partition = %partition.index, %replica, "reading from a replica that is nearer");
                Source::Replica(replica, now + lasts)
            }
            _ => Source::LeaderAlone(now + LEADER_ALONE),
        };
    }

    /// A replica that the leader has named does not serve.
    pub(super) fn on_replica_failure(&mut self, ticket: Ticket, error: &Error, now: Instant) {
        let Some(partition) = self.current(ticket) else { return };
        tracing::debug!(topic = %partition.topic, partition = %partition.index, %error, "reading from the leader again");
        partition.source = Source::LeaderAlone(now + LEADER_ALONE);
        partition.phase = super::Phase::Idle;
    }
}
