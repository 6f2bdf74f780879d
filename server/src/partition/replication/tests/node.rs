//! A broker: a process that comes and goes, and a log that stays.

use std::time::{Duration, Instant};

use headwater_protocol::id::{BrokerId, LeaderEpoch};

use super::{log::ModelLog, *};
use crate::{cluster::replicas::ReplicaMap, image::Replicas};

pub(super) const LAG_MAX: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Node {
    pub(super) id: BrokerId,
    /// Number of the process, and of the disk.
    pub(super) process: u128,
    pub(super) store: u128,
    pub(super) is_alive: bool,
    pub(super) log: ModelLog,
    pub(super) is_open: bool,
    /// The coordinator has not been seen to know that the log has failed.
    pub(super) owes_failure: bool,
    /// How many states of the coordinator it has passed.
    pub(super) seen: usize,
    pub(super) replica: Option<Replica>,
    pub(super) connection: u64,
    /// The log is being cut.
    pub(super) cut: Option<Act>,
}

impl Node {
    pub(super) fn new(id: i32, process: u128) -> Node {
        Node {
            id: BrokerId::new(id),
            process,
            store: id as u128,
            is_alive: true,
            log: ModelLog::default(),
            is_open: true,
            owes_failure: false,
            seen: 0,
            replica: None,
            connection: 0,
            cut: None,
        }
    }

    /// What this process is known as, once it has seen that it is.
    pub(super) fn member(&self, map: &ReplicaMap) -> Option<Member> {
        let known = map.broker(self.id)?;
        (self.is_alive && known.process.as_u128() == self.process).then_some(Member {
            broker: self.id,
            incarnation: known.incarnation,
        })
    }

    pub(super) fn role(&mut self) -> Option<&mut Role> {
        self.replica.as_mut().map(Replica::role)
    }

    pub(super) fn leads(&mut self) -> Option<&mut Leader> {
        match self.role()? {
            Role::Leads(leader) => Some(&mut **leader),
            _ => None,
        }
    }

    /// Looks at a state of the cluster. Returns whether it has begun to lead.
    pub(super) fn learn(&mut self, map: &ReplicaMap, replicas: &Replicas, now: Instant) -> bool {
        if self.member(map).is_none() || !self.is_open {
            return false;
        }
        if !replicas.has(self.id) {
            (self.log, self.replica, self.cut) = (ModelLog::default(), None, None);
            return false;
        }
        let state = self.log.state();
        let before = self.leads().map_or(LeaderEpoch::NONE, |leader| leader.epoch());
        let replica = self.replica.get_or_insert_with(|| Replica::new(self.id, LAG_MAX));
        replica.learn(replicas, state, now);
        self.leads().is_some_and(|leader| leader.epoch() != before)
    }

    /// The process ends, and what is not durable may be gone.
    pub(super) fn crash(&mut self, end: usize, watermark: usize) {
        self.lose(end, watermark);
        (self.is_alive, self.replica) = (false, None);
    }

    /// The log fails, and is open again later.
    pub(super) fn fail(&mut self, end: usize, watermark: usize) {
        self.lose(end, watermark);
        (self.is_open, self.owes_failure) = (false, true);
        if let Some(replica) = &mut self.replica {
            replica.log_failed();
        }
    }

    fn lose(&mut self, end: usize, watermark: usize) {
        self.cut = None;
        self.log.truncate(end);
        self.log.watermark = watermark.clamp(self.log.start, self.log.end());
        (self.log.received, self.log.durable) = (end, end);
    }
}
