//! What to ask the brokers for: fetches for partitions with room, offsets for lost positions, leaders.

use std::collections::HashMap;
use std::sync::Arc;

use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

use super::{Flow, Partition, Phase, State, Ticket};
use crate::address::Address;
use crate::admin::OffsetSpec;
use crate::consumer::fetcher::FetchSettings;
use crate::consumer::positions::{Hold, PartitionPosition};
use crate::requests::{FetchSlot, Reads};
use crate::runtime::Instant;

/// Most fetches to one core at once. One is the rule; more where partitions got room while others wait for records.
const FETCHES_MAX: usize = 4;

/// A partition is fetched from as long as less than this many full responses of it are queued or arriving.
const PARTITION_FETCHES_AHEAD: usize = 4;

/// One fetch to send.
#[derive(Debug)]
pub(in crate::consumer) struct PlannedFetch {
    pub(in crate::consumer) address: Address,
    pub(in crate::consumer) tickets: Vec<Ticket>,
    pub(in crate::consumer) slots: Vec<FetchSlot>,
    pub(in crate::consumer) bytes_max: u32,
}

/// One offset to look up.
#[derive(Debug)]
pub(in crate::consumer) struct PlannedLookup {
    pub(in crate::consumer) ticket: Ticket,
    pub(in crate::consumer) topic: TopicName,
    pub(in crate::consumer) partition: PartitionIndex,
    pub(in crate::consumer) spec: OffsetSpec,
}

/// What the fetcher is to do now.
#[derive(Debug, Default)]
pub(in crate::consumer) struct Plan {
    pub(in crate::consumer) fetches: Vec<PlannedFetch>,
    pub(in crate::consumer) lookups: Vec<PlannedLookup>,
    /// Topics whose leaders are not known.
    pub(in crate::consumer) leaderless: Vec<TopicName>,
    /// When to plan again, if nothing happens before.
    pub(in crate::consumer) wake_at: Option<Instant>,
}

impl State {
    /// What to do now; `in_flight` counts the fetches that each core has not answered.
    pub(in crate::consumer) fn plan(&mut self, now: Instant, in_flight: &HashMap<Address, usize>) -> Plan {
        let mut plan = Plan::default();
        let count = self.partitions.len();
        self.turn = (self.turn + 1) % count.max(1);
        let budget = self.prefetch_room() as u32;
        let bytes_max = self.settings.fetch_bytes_max.min(budget);
        let settings = Arc::clone(&self.settings);
        for index in (self.turn..count).chain(0..self.turn) {
            let partition = &mut self.partitions[index];
            if partition.flow != Flow::Open {
                continue;
            }
            match partition.phase {
                Phase::Paused(until) if until > now => {
                    plan.wake_at = Some(plan.wake_at.map_or(until, |at| at.min(until)));
                    continue;
                }
                Phase::Paused(_) => partition.phase = Phase::Idle,
                Phase::Fetching | Phase::Halted(_) | Phase::Lost { asking: true, .. } => continue,
                Phase::Idle | Phase::Lost { asking: false, .. } => {}
            }
            let mut ticket = Ticket {
                index,
                epoch: partition.epoch,
                from: partition.fetch_offset,
                of_replica: false,
            };
            if let Phase::Lost { asking, .. } = &mut partition.phase {
                *asking = true;
                let spec = settings.reset.spec();
                let (topic, partition) = (partition.topic.clone(), partition.index);
                plan.lookups.push(PlannedLookup {
                    ticket,
                    topic,
                    partition,
                    spec,
                });
                continue;
            }
            let Some((address, reads)) = partition.source(settings.rack.is_some(), now) else {
                if !plan.leaderless.contains(&partition.topic) {
                    plan.leaderless.push(partition.topic.clone());
                }
                continue;
            };
            let has_room = budget > 0 && partition.has_room(&settings);
            if !has_room || in_flight.get(&address).is_some_and(|&count| count >= FETCHES_MAX) {
                continue;
            }
            let slot = FetchSlot {
                topic: partition.topic_id,
                partition: partition.index,
                offset: partition.fetch_offset,
                bytes_max: settings.partition_bytes_max,
                reads,
            };
            ticket.of_replica = reads == Reads::Follower;
            partition.phase = Phase::Fetching;
            plan.add(address, ticket, slot, bytes_max);
        }
        plan
    }

    /// Bytes that may still be fetched ahead.
    fn prefetch_room(&self) -> usize {
        self.settings.prefetch_bytes.saturating_sub(self.queued_bytes)
    }

    /// How far the partition at this place is.
    pub(in crate::consumer) fn position_of(&self, index: usize) -> PartitionPosition {
        let partition = &self.partitions[index];
        let is_full = self.prefetch_room() == 0 || !partition.has_room(&self.settings);
        let hold = match (&partition.phase, partition.flow) {
            (Phase::Halted(_), _) => Some(Hold::Failed),
            (_, Flow::Closed) => Some(Hold::Paused),
            (Phase::Paused(_), _) => Some(Hold::Failing),
            // What was asked for is on its way.
            (Phase::Fetching, _) => None,
            _ => is_full.then_some(Hold::QueueFull),
        };
        PartitionPosition {
            topic: partition.topic.clone(),
            partition: partition.index,
            position: partition.position,
            high_watermark: partition.high_watermark,
            queued_bytes: partition.queued_bytes,
            hold,
        }
    }

    /// How far each partition is that is read, with its place.
    pub(in crate::consumer) fn positions(&self) -> impl Iterator<Item = (usize, PartitionPosition)> {
        let read = |&index: &usize| self.partitions[index].flow != Flow::Removed;
        (0..self.partitions.len())
            .filter(read)
            .map(|index| (index, self.position_of(index)))
    }
}

impl Partition {
    fn has_room(&self, settings: &FetchSettings) -> bool {
        self.queued_bytes < PARTITION_FETCHES_AHEAD * settings.partition_bytes_max as usize
    }
}

impl Plan {
    fn add(&mut self, address: Address, ticket: Ticket, slot: FetchSlot, bytes_max: u32) {
        let fetch = if let Some(fetch) = self.fetches.iter_mut().find(|fetch| fetch.address == address) {
            fetch
        } else {
            self.fetches.push(PlannedFetch {
                address,
                tickets: Vec::new(),
                slots: Vec::new(),
                bytes_max,
            });
            self.fetches.last_mut().expect("a fetch was just added")
        };
        fetch.tickets.push(ticket);
        fetch.slots.push(slot);
    }
}
