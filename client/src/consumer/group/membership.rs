//! Membership in a consumer group: when to join, to sync, to send a heartbeat, and which partitions to give up. No I/O: time and
//! answers are passed in, what is to be done comes out.
//!
//! Owned by the driver. Invariant: a partition is claimed (`owned`) from the moment the group assigns it until its positions are
//! committed or the group has taken it away, and every join says so; the group gives a claimed partition to nobody else.

use std::collections::BTreeSet;
use std::time::Duration;

use headwater_protocol::error::ErrorCode;
use headwater_protocol::group::{Subscription, TopicPartitions};
use headwater_protocol::id::PartitionIndex;
use headwater_protocol::topic::TopicName;

use crate::deadline::Backoff;
use crate::error::Error;
use crate::requests::{Identity, Joined};
use crate::runtime::Instant;

/// A partition, by the name of its topic.
pub(in crate::consumer) type Place = (TopicName, PartitionIndex);

/// How a member behaves.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules {
    /// Partitions stay while the group rebalances.
    pub(super) cooperative: bool,
    pub(super) heartbeat_interval: Duration,
}

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Join,
    Sync,
    Heartbeat,
}

/// What an answer of the group means for the partitions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// To begin with.
    pub(super) added: BTreeSet<Place>,
    /// To hand out no more, and to be given up.
    pub(super) leaving: BTreeSet<Place>,
    /// Were to be given up, and need not be.
    pub(super) kept: BTreeSet<Place>,
    /// Are somebody else's already.
    pub(super) lost: BTreeSet<Place>,
    pub(super) lost_by: Option<ErrorCode>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Out,
    Joining,
    /// In a generation, without knowing its partitions.
    Joined,
    Syncing,
    Member,
    /// Until it is told to come back.
    Away,
}

#[derive(Debug)]
pub(super) struct Membership {
    rules: Rules,
    identity: Identity,
    topics: BTreeSet<TopicName>,
    phase: Phase,
    owned: BTreeSet<Place>,
    leaving: BTreeSet<Place>,
    /// The group rebalances, or there is something new to tell it.
    wants_join: bool,
    heartbeat_at: Instant,
    in_heartbeat: bool,
    not_before: Option<Instant>,
    backoff: Backoff,
}

impl Membership {
    pub(super) fn new(rules: Rules, instance_id: Option<String>, backoff: Backoff, now: Instant) -> Self {
        let identity = Identity {
            member_id: String::new(),
            generation: -1,
            instance_id,
        };
        Self {
            rules,
            identity,
            topics: BTreeSet::new(),
            phase: Phase::Out,
            owned: BTreeSet::new(),
            leaving: BTreeSet::new(),
            wants_join: false,
            heartbeat_at: now,
            in_heartbeat: false,
            not_before: None,
            backoff,
        }
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What the next join says.
    pub(super) fn subscription(&self) -> Subscription {
        let mut owned: Vec<TopicPartitions> = Vec::new();
        for (topic, partition) in &self.owned {
            match owned.last_mut().filter(|last| last.topic == topic.as_str()) {
                Some(last) => last.partitions.push(partition.get()),
                None => owned.push(TopicPartitions {
                    topic: topic.to_string(),
                    partitions: vec![partition.get()],
                }),
            }
        }
        Subscription {
            topics: self.topics.iter().map(ToString::to_string).collect(),
            generation: if owned.is_empty() { -1 } else { self.identity.generation },
            owned_partitions: owned,
            ..Subscription::default()
        }
    }

    /// Wants partitions of these topics from now on.
    pub(super) fn subscribe(&mut self, topics: BTreeSet<TopicName>) -> Change {
        if self.topics == topics {
            return Change::default();
        }
        self.topics = topics;
        self.rejoin()
    }

    /// What to do now, and when to ask again if nothing happens before.
    pub(super) fn plan(&mut self, now: Instant) -> (Option<Action>, Option<Instant>) {
        if let Some(until) = self.not_before {
            if until > now {
                return (None, Some(until));
            }
            self.not_before = None;
        }
        match self.phase {
            Phase::Out if !self.topics.is_empty() => {
                self.phase = Phase::Joining;
                self.wants_join = false;
                (Some(Action::Join), None)
            }
            Phase::Joined => {
                self.phase = Phase::Syncing;
                (Some(Action::Sync), None)
            }
            Phase::Member if self.wants_join && (self.rules.cooperative || self.owned.is_empty()) => {
                self.phase = Phase::Joining;
                self.wants_join = false;
                (Some(Action::Join), None)
            }
            Phase::Member if self.in_heartbeat => (None, None),
            Phase::Member if self.heartbeat_at > now => (None, Some(self.heartbeat_at)),
            Phase::Member => {
                self.in_heartbeat = true;
                (Some(Action::Heartbeat), None)
            }
            Phase::Out | Phase::Joining | Phase::Syncing | Phase::Away => (None, None),
        }
    }

    /// The answer to a join. `Err`: the group will not have this member, whatever it does.
    pub(super) fn on_joined(&mut self, result: Result<Joined, Error>, now: Instant) -> Result<Change, Error> {
        if self.phase != Phase::Joining {
            return Ok(Change::default());
        }
        self.phase = Phase::Out;
        match result {
            Ok(Joined::AsMember(member_id)) => {
                self.identity.member_id = member_id;
                Ok(Change::default())
            }
            Ok(Joined::Generation { member_id, generation }) => {
                self.identity.member_id = member_id;
                self.identity.generation = generation;
                self.phase = Phase::Joined;
                self.backoff.reset();
                Ok(Change::default())
            }
            Err(error) => self.on_error(error, now),
        }
    }

    /// The answer to a sync.
    pub(super) fn on_synced(&mut self, result: Result<Vec<Place>, Error>, now: Instant) -> Result<Change, Error> {
        if self.phase != Phase::Syncing {
            return Ok(Change::default());
        }
        self.phase = Phase::Joined;
        let assigned: BTreeSet<Place> = match result {
            Ok(assigned) => assigned.into_iter().collect(),
            Err(error) => {
                let change = self.on_error(error, now);
                if self.wants_join {
                    self.phase = Phase::Member;
                }
                return change;
            }
        };
        self.phase = Phase::Member;
        self.backoff.reset();
        self.in_heartbeat = false;
        self.heartbeat_at = now + self.rules.heartbeat_interval;
        let added = assigned.difference(&self.owned).cloned().collect();
        let leaving: BTreeSet<Place> = self.owned.difference(&assigned).cloned().collect();
        let kept = self.leaving.difference(&leaving).cloned().collect();
        let newly_leaving = leaving.difference(&self.leaving).cloned().collect();
        self.owned.extend(assigned);
        self.leaving = leaving;
        Ok(Change {
            added,
            leaving: newly_leaving,
            kept,
            ..Change::default()
        })
    }

    /// The answer to a heartbeat that was sent in this generation.
    pub(super) fn on_heartbeat(
        &mut self,
        generation: i32,
        result: Result<(), Error>,
        now: Instant,
    ) -> Result<Change, Error> {
        if self.phase != Phase::Member || generation != self.identity.generation {
            return Ok(Change::default());
        }
        self.in_heartbeat = false;
        match result {
            Ok(()) => {
                self.backoff.reset();
                self.heartbeat_at = now + self.rules.heartbeat_interval;
                Ok(Change::default())
            }
            Err(error) => {
                self.heartbeat_at = now;
                let change = self.on_error(error, now)?;
                if self.phase == Phase::Member && self.wants_join {
                    self.heartbeat_at = now + self.rules.heartbeat_interval;
                }
                Ok(change)
            }
        }
    }

    fn on_error(&mut self, error: Error, now: Instant) -> Result<Change, Error> {
        let code = match &error {
            Error::Broker { code, .. } => Some(*code),
            _ => None,
        };
        match code {
            Some(ErrorCode::RebalanceInProgress) => {
                let change = self.rejoin();
                if self.phase == Phase::Out {
                    self.not_before = Some(now + self.backoff.next_pause());
                }
                Ok(change)
            }
            Some(code @ (ErrorCode::UnknownMemberId | ErrorCode::IllegalGeneration)) => {
                self.not_before = Some(now + self.backoff.next_pause());
                Ok(self.lose(code))
            }
            _ if error.is_worth_another_attempt() => {
                // Whatever was sent may have been done, or not: it is sent again.
                self.not_before = Some(now + self.backoff.next_pause());
                Ok(Change::default())
            }
            _ => Err(error),
        }
    }

    /// Joins again: at once where partitions stay meanwhile, else when all have been given up.
    fn rejoin(&mut self) -> Change {
        self.wants_join = true;
        if self.rules.cooperative {
            return Change::default();
        }
        let leaving = self.owned.difference(&self.leaving).cloned().collect();
        self.leaving.clone_from(&self.owned);
        Change {
            leaving,
            ..Change::default()
        }
    }

    /// The group goes on without this member, which begins anew.
    fn lose(&mut self, code: ErrorCode) -> Change {
        if code == ErrorCode::UnknownMemberId {
            self.identity.member_id.clear();
        }
        self.identity.generation = -1;
        self.phase = Phase::Out;
        self.wants_join = false;
        self.in_heartbeat = false;
        self.leaving.clear();
        Change {
            lost: std::mem::take(&mut self.owned),
            lost_by: Some(code),
            ..Change::default()
        }
    }

    /// Whether a partition is to be given up.
    pub(super) fn is_leaving(&self, place: &Place) -> bool {
        self.leaving.contains(place)
    }

    /// These partitions have been given up.
    pub(super) fn on_given_up(&mut self, places: &BTreeSet<Place>) -> BTreeSet<Place> {
        let given_up: BTreeSet<Place> = self.leaving.intersection(places).cloned().collect();
        for place in &given_up {
            self.leaving.remove(place);
            self.owned.remove(place);
        }
        if !given_up.is_empty() {
            self.wants_join = true;
        }
        given_up
    }

    /// Is no member until it comes back. Returns who has left.
    pub(super) fn go_away(&mut self) -> (Identity, Change) {
        let who = self.identity.clone();
        let mut change = self.lose(ErrorCode::UnknownMemberId);
        change.lost_by = None;
        self.phase = Phase::Away;
        (who, change)
    }

    pub(super) fn come_back(&mut self) {
        if self.phase == Phase::Away {
            self.phase = Phase::Out;
        }
    }
}

#[cfg(test)]
mod tests;
