//! What clients, operators and misfortune do.

use std::time::Duration;

use headwater_protocol::id::BrokerId;
use rand::{RngExt as _, seq::IndexedRandom as _};

use super::{
    log::{ModelLog, Record, offset},
    world::{PARTITION, World, place_of},
    *,
};
use crate::cluster::replicas::{Election, ReplicaCommand as Command};

impl World {
    /// A client appends to whoever thinks that it leads.
    pub(super) fn append(&mut self, place: usize) {
        self.numbers += 1;
        let number = self.numbers;
        let node = &mut self.nodes[place];
        if let Some(epoch) = node.leads().map(|leader| leader.epoch().get()) {
            node.log.records.push(Record { epoch, number });
        }
        self.tell_leader(place);
    }

    /// What was appended is written, and some of it flushed.
    pub(super) fn flush(&mut self, place: usize) {
        let all = !self.has_faults;
        let log = &mut self.nodes[place].log;
        let (end, received) = (log.end(), log.received);
        log.received = if all {
            end
        } else {
            self.random.random_range(received..=end)
        };
        let (durable, received) = (log.durable, log.received);
        log.durable = if all {
            received
        } else {
            self.random.random_range(durable..=received)
        };
        self.tell_leader(place);
    }

    fn tell_leader(&mut self, place: usize) {
        let now = self.now;
        let node = &mut self.nodes[place];
        let (held, end) = (node.log.held(), offset(node.log.end()));
        if let Some(leader) = node.leads() {
            leader.appended(held, end, now);
        }
    }

    /// How far a log is after a failure: what is durable stays.
    fn left(&mut self, place: usize) -> (usize, usize) {
        let log = &self.nodes[place].log;
        let (durable, end, watermark) = (log.durable, log.end(), log.watermark);
        (
            self.random.random_range(durable..=end),
            self.random.random_range(0..=watermark),
        )
    }

    pub(super) fn crash(&mut self, place: usize) {
        let (end, watermark) = self.left(place);
        self.nodes[place].crash(end, watermark);
    }

    pub(super) fn fail_log(&mut self, place: usize) {
        let (end, watermark) = self.left(place);
        let node = &mut self.nodes[place];
        if node.is_alive && node.is_open {
            node.fail(end, watermark);
        }
    }

    pub(super) fn open_log(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if !node.is_open {
            node.is_open = true;
            node.connection += 1;
            // It must look at the same state again.
            node.seen = node.seen.min(self.states.len() - 1);
        }
    }

    pub(super) fn restart(&mut self, place: usize) {
        self.processes += 1;
        let process = self.processes;
        let node = &mut self.nodes[place];
        if node.is_alive {
            return;
        }
        (node.process, node.is_alive, node.is_open, node.owes_failure) = (process, true, true, false);
        node.connection = 0;
    }

    /// A dead broker gets another disk, unless nobody else might have what was acknowledged.
    pub(super) fn wipe(&mut self, place: usize) {
        let replicas = self.replicas();
        let has_store = |id: &BrokerId| {
            let known = self.state().broker(*id).unwrap();
            known.store.as_u128() == self.nodes[place_of(*id)].store
        };
        let id = self.nodes[place].id;
        let others = replicas.isr.iter().chain(&replicas.elr).filter(|other| **other != id);
        let is_needed = !others.clone().any(has_store) || replicas.terms.durability == Durability::Memory;
        let node = &mut self.nodes[place];
        if !node.is_alive && !is_needed {
            node.store += 1000;
            node.log = ModelLog::default();
            self.has_wiped = true;
        }
    }

    pub(super) fn fence(&mut self, place: usize) {
        let id = self.nodes[place].id;
        let incarnation = self.state().broker(id).unwrap().incarnation;
        self.decide(&Command::Fence { id, incarnation });
    }

    pub(super) fn delete_oldest(&mut self, place: usize) {
        let node = &mut self.nodes[place];
        if node.leads().is_some() {
            let log = &mut node.log;
            log.start = self.random.random_range(log.start..=log.watermark);
        }
    }

    pub(super) fn administer(&mut self) {
        let ids: Vec<BrokerId> = self.nodes.iter().map(|node| node.id).collect();
        let command = match self.random.random_range(0..4) {
            0 => Command::Elect {
                partitions: vec![PARTITION],
                how: Election::Preferred,
            },
            1 => Command::Reassign {
                partitions: vec![(PARTITION, None)],
            },
            2 => {
                let count = self.random.random_range(2..=3.min(ids.len()));
                let target = ids.sample(&mut self.random, count).copied().collect();
                Command::Reassign {
                    partitions: vec![(PARTITION, Some(target))],
                }
            }
            _ => {
                self.terms.min_isr = self.random.random_range(1..=2);
                Command::SetTerms {
                    topic: PARTITION.topic,
                    terms: self.terms,
                }
            }
        };
        self.decide(&command);
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}
