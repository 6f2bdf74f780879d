//! What a broker is to a partition of which it has a replica: its leader, a follower, or neither at the moment.

use std::time::{Duration, Instant};

use headwater_protocol::id::{BrokerId, Offset};

use super::{follower::Follower, leader::Leader, message::Held};
use crate::image::{PartitionEpoch, Replicas};

/// What the log says of itself when the role changes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogState {
    pub(crate) held: Held,
    pub(crate) end: Offset,
    pub(crate) watermark: Offset,
}

/// What the broker is to do.
#[derive(Debug)]
pub(crate) enum Role {
    /// It leads.
    Leads(Box<Leader>),
    /// It follows.
    Follows(Follower),
    /// Nobody leads, or the log is not open.
    Waits,
}

/// A replica on its broker.
#[derive(Debug)]
pub(crate) struct Replica {
    own: BrokerId,
    role: Role,
    known: Option<PartitionEpoch>,
    /// The log has failed, and the coordinator has not been seen to know.
    has_failed: bool,
    lag_max: Duration,
}

impl Replica {
    /// A replica of this broker, whose log is open.
    pub(crate) fn new(own: BrokerId, lag_max: Duration) -> Replica {
        Replica {
            own,
            role: Role::Waits,
            known: None,
            has_failed: false,
            lag_max,
        }
    }

    /// What it is.
    pub(crate) fn role(&mut self) -> &mut Role {
        &mut self.role
    }

    /// Whether this state of the replicas is known already, or a later one.
    pub(crate) fn knows(&self, replicas: &Replicas) -> bool {
        self.known.is_some_and(|known| replicas.epoch <= known)
    }

    /// The replicas as they are now. They must be known together with this process's own registration: what was decided before counts
    /// on a process that is gone, and on what that had. While the log is being cut for a leader of before, nothing is learned: they must
    /// be told again after that.
    pub(crate) fn learn(&mut self, replicas: &Replicas, log: LogState, now: Instant) {
        let is_cutting = matches!(&self.role, Role::Follows(follower) if follower.is_cutting());
        if is_cutting || self.knows(replicas) {
            return;
        }
        self.known = Some(replicas.epoch);
        self.has_failed &= !replicas.offline.contains(&self.own);
        let epoch = replicas.leader_epoch;
        match (replicas.leader, &mut self.role) {
            (Some(leader), Role::Leads(role)) if leader == self.own && role.epoch() == epoch => {
                role.learn(replicas.clone(), now);
            }
            (Some(leader), role) if leader == self.own && !self.has_failed => {
                let at = (log.held, log.end);
                let leads = Leader::new(self.own, replicas.clone(), at, log.watermark, self.lag_max, now);
                *role = Role::Leads(Box::new(leads));
            }
            (Some(leader), role) if leader != self.own && replicas.has(self.own) => {
                if !matches!(role, Role::Follows(follower) if follower.epoch() == epoch) {
                    *role = Role::Follows(Follower::new(epoch));
                }
            }
            (_, role) => *role = Role::Waits,
        }
    }

    /// Whether the log has failed and the coordinator has not been seen to know.
    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed
    }

    /// The broker has no replica, as far as it knows.
    pub(crate) fn is_unknown(&mut self) {
        (self.role, self.known) = (Role::Waits, None);
    }

    /// The log has failed: what was not flushed is gone. Others may have it, so that it must not go on as the leader of this epoch, and
    /// write the same offsets anew; nor begin to lead by a state in which it is still reckoned to have it. So the coordinator must be
    /// told that the log has failed until its state says so, and only then that it is open; then it is told the replicas again.
    pub(crate) fn log_failed(&mut self) {
        self.has_failed = true;
        self.role = Role::Waits;
        self.known = None;
    }
}
