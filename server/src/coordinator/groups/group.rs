//! One group: where it is in its life, and the way from there.
//!
//! ```text
//! Empty --join--> PreparingRebalance --all joined, or time is up--> CompletingRebalance --assignment is durable--> Stable
//!   ^                  |    ^                                             |                                          |
//!   +--nobody joined---+    +----------join, leave, silence, new partitions-----------------------------------------+
//! ```
//! A group that is being deleted is Dead until that is durable. The names are Kafka's, whose `GroupCoordinator` this follows.
//! Invariants: a member waits for at most one answer of each kind; nobody waits to sync but in `CompletingRebalance`.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    group::{CONSUMER, Subscription},
};

use super::{
    assign::Assignor,
    committed::{offsets::Offsets, pending::Pending},
    consumers::state::Consumers,
    deadlines::earliest,
    record::Record,
    roster::Roster,
    step::{Step, Write},
    topics::Topics,
};
use crate::{
    config::GroupsSection,
    model::group::{
        Answer, CallId, DescribedMember, Description, Generation, GroupId, Kind, MemberId, Moment, Since, refusal,
    },
};

/// Where a group is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Empty,
    /// Members join until all have, or the time is up.
    Preparing(Preparing),
    /// Members wait for what they get. It is known once it `is_assigned`, and then it is being made durable.
    Completing {
        is_assigned: bool,
    },
    Stable,
    /// It is of type consumer, and has members: `consumers` says where they are.
    Consumer,
    Dead,
}

/// How long a group waits for its members.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Preparing {
    pub(super) until: Duration,
    /// The first members of an empty group wait for others, and longer each time that one has come: for this much in all.
    pub(super) first: Option<FirstWait>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FirstWait {
    pub(super) left: Duration,
    pub(super) has_grown: bool,
}

#[derive(Debug)]
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) phase: Phase,
    pub(super) generation: Generation,
    /// None as long as it never had a member.
    pub(super) protocol_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) roster: Roster,
    pub(super) offsets: Offsets,
    /// Committed in transactions that have not ended.
    pub(super) pending: Pending,
    /// When it came into its phase.
    pub(super) since: Since,
    /// Until when the members of this generation may ask for their assignments.
    pub(super) sync_until: Option<Duration>,
    /// With an assignor of the broker's: the partitions that the assignment was made of, by topic.
    pub(super) assigned_of: BTreeMap<String, u32>,
    /// What is not durable yet.
    pub(super) writes: usize,
    /// Its record could not be written when it became empty, and says that it has members.
    pub(super) is_behind: bool,
    /// Its members, if it is of type consumer: then `roster` has none.
    pub(super) consumers: Option<Box<Consumers>>,
}

impl Group {
    pub(super) fn new(id: GroupId, now: Moment) -> Group {
        Group {
            id,
            phase: Phase::Empty,
            generation: Generation::ZERO,
            protocol_type: None,
            protocol: None,
            roster: Roster::default(),
            offsets: Offsets::default(),
            pending: Pending::default(),
            since: Since::now(now),
            sync_until: None,
            assigned_of: BTreeMap::new(),
            writes: 0,
            is_behind: false,
            consumers: None,
        }
    }

    pub(super) fn enter(&mut self, phase: Phase, step: &Step<'_>) {
        self.phase = phase;
        self.since = Since::now(step.now);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.phase == Phase::Empty
    }

    /// There is nothing to remember of it.
    pub(super) fn is_blank(&self) -> bool {
        let has_offsets = !self.offsets.committed.is_empty() || !self.pending.is_empty();
        let is_unused = self.generation == Generation::ZERO && !has_offsets;
        is_unused && self.is_empty() && self.roster.promised.is_empty() && self.writes == 0 && self.consumers.is_none()
    }

    /// The broker's assignor, if the members have chosen one.
    pub(super) fn assignor(&self) -> Option<Assignor> {
        let is_consumer = self.protocol_type.as_deref() == Some(CONSUMER);
        self.protocol.as_deref().filter(|_| is_consumer).and_then(Assignor::of)
    }

    /// Begins a rebalance, unless one has begun.
    pub(super) fn rebalance(&mut self, step: &mut Step<'_>) {
        let wait = match self.phase {
            Phase::Preparing(_) | Phase::Consumer | Phase::Dead => return,
            Phase::Empty => step.config.initial_rebalance_delay_ms.duration(),
            Phase::Completing { .. } | Phase::Stable => Duration::ZERO,
        };
        self.fail_syncs(ErrorCode::RebalanceInProgress, step);
        self.sync_until = None;
        let all = self.roster.rebalance_timeout();
        let first = FirstWait {
            left: all.saturating_sub(wait),
            has_grown: false,
        };
        let preparing = if wait.is_zero() {
            Preparing {
                until: step.now.monotonic + all,
                first: None,
            }
        } else {
            Preparing {
                until: step.now.monotonic + wait.min(all),
                first: Some(first),
            }
        };
        self.enter(Phase::Preparing(preparing), step);
        self.complete_if_all_joined(step);
    }

    /// Tells all who wait for an assignment that there is none.
    pub(super) fn fail_syncs(&mut self, code: ErrorCode, step: &mut Step<'_>) {
        for member in self.roster.members.values_mut() {
            if let Some(call) = member.syncing.take() {
                member.touch(step.now.monotonic);
                step.refuse(call, refusal(code));
            }
        }
    }

    /// Takes a member out. Whatever it waits for, it gets an error instead. The group goes on without it.
    pub(super) fn remove_member(&mut self, id: &MemberId, step: &mut Step<'_>) {
        let Some(member) = self.roster.remove(id) else { return };
        for call in [member.joining, member.syncing].into_iter().flatten() {
            step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        }
        self.go_on(step);
    }

    /// Somebody has left: a rebalance begins, or need not wait for them any more.
    pub(super) fn go_on(&mut self, step: &mut Step<'_>) {
        match self.phase {
            Phase::Completing { .. } | Phase::Stable => self.rebalance(step),
            Phase::Preparing(_) => self.complete_if_all_joined(step),
            Phase::Empty | Phase::Consumer | Phase::Dead => {}
        }
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, step: &mut Step<'_>) {
        if self.consumers.is_some() {
            return self.tick_consumers(step);
        }
        let now = step.now.monotonic;
        let promised = self.roster.promised.len();
        self.roster.promised.retain(|_, until| *until > now);
        if self.roster.promised.len() < promised {
            self.go_on_without_promised(step);
        }
        let silent = |(id, member): (&MemberId, &super::member::Member)| {
            member.expires().is_some_and(|end| end <= now).then(|| id.clone())
        };
        let silent: Vec<MemberId> = self.roster.members.iter().filter_map(silent).collect();
        for id in silent {
            self.remove_member(&id, step);
        }
        if let Phase::Preparing(Preparing { until, .. }) = self.phase
            && until <= now
        {
            self.time_to_join_is_up(step);
        }
        if self.sync_until.is_some_and(|until| until <= now) {
            self.time_to_sync_is_up(step);
        }
    }

    fn go_on_without_promised(&mut self, step: &mut Step<'_>) {
        if let Phase::Preparing(_) = self.phase {
            self.complete_if_all_joined(step);
        }
    }

    /// When [`tick`](Self::tick) has something to do.
    pub(super) fn next_deadline(&self, config: &GroupsSection) -> Option<Duration> {
        if self.consumers.is_some() {
            return self.next_consumers_deadline(config.consumer_assignment_interval_ms.duration());
        }
        let joining = match self.phase {
            Phase::Preparing(Preparing { until, .. }) => Some(until),
            _ => None,
        };
        earliest([self.roster.next_deadline(), joining, self.sync_until])
    }

    /// The partitions of topics have changed since they were as in `former`.
    pub(super) fn topics_changed(&mut self, former: &Topics, step: &mut Step<'_>) {
        if self.consumers.is_some() {
            return self.consumers_topics_changed(former, step);
        }
        let differ = |(topic, count): (&String, &u32)| step.topics.count(topic) != *count;
        if matches!(self.phase, Phase::Completing { .. } | Phase::Stable) && self.assigned_of.iter().any(differ) {
            self.rebalance(step);
        }
    }

    pub(super) fn delete(&mut self, call: CallId, step: &mut Step<'_>) {
        match self.phase {
            Phase::Dead => step.refuse(call, refusal(ErrorCode::CoordinatorNotAvailable)),
            Phase::Empty => {
                self.phase = Phase::Dead;
                let mut records = self.offset_tombstones(&self.places(step));
                records.extend(self.tombstones(step));
                step.write(self, Write::Delete { call }, records);
            }
            _ => step.refuse(call, refusal(ErrorCode::NonEmptyGroup)),
        }
    }

    /// As if it had never had members. Whether nothing is left.
    pub(super) fn forget(&mut self, now: Moment) -> bool {
        let fresh = Group::new(self.id.clone(), now);
        let former = std::mem::replace(self, fresh);
        (self.offsets, self.pending, self.consumers) = (former.offsets, former.pending, former.consumers);
        self.is_blank()
    }

    /// It is becoming a classic group, and answers no member until it is.
    pub(super) fn is_turning(&self) -> bool {
        self.consumers.as_ref().is_some_and(|consumers| consumers.is_turning)
    }

    /// How often members have changed.
    pub(super) fn rebalances(&self) -> Generation {
        let epoch = self
            .consumers
            .as_ref()
            .map(|consumers| Generation::new(consumers.epoch));
        epoch.unwrap_or(self.generation)
    }

    /// Records that take back all that was said of it, but for its offsets.
    pub(super) fn tombstones(&self, step: &Step<'_>) -> Vec<Record> {
        match self.consumers {
            Some(_) => self.consumers_tombstones(step),
            None => vec![self.tombstone()],
        }
    }

    pub(super) fn kind(&self) -> Kind {
        match self.consumers {
            Some(_) => Kind::Consumer,
            None => Kind::Classic,
        }
    }

    pub(super) fn member_count(&self) -> usize {
        let consumers = self.consumers.as_ref().map_or(0, |consumers| consumers.members.len());
        self.roster.members.len() + consumers
    }

    pub(super) fn state(&self) -> &'static str {
        match self.phase {
            Phase::Consumer => self.consumers.as_ref().map_or("Empty", |consumers| consumers.state()),
            Phase::Empty => "Empty",
            Phase::Preparing(_) => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
            Phase::Dead => "Dead",
        }
    }

    pub(super) fn describe(&self, step: &Step<'_>) -> Answer {
        if let Some(consumers) = &self.consumers {
            return self.describe_as_classic(consumers, step);
        }
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = self.roster.members.iter().map(|(id, member)| DescribedMember {
            id: id.clone(),
            instance: member.instance.clone(),
            client: member.client.clone(),
            metadata: member.metadata(&protocol),
            assignment: match self.phase {
                Phase::Stable => member.assignment.clone(),
                _ => Bytes::new(),
            },
        });
        Answer::Described(Description {
            kind: Kind::Classic,
            state: self.state(),
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            members: members.collect(),
            generation: self.generation,
            protocol,
        })
    }

    /// What each member subscribes to, in the order of the members, as far as it can be read.
    pub(super) fn subscriptions(&self) -> Vec<(MemberId, Subscription)> {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let mut members: Vec<_> = self.roster.members.iter().collect();
        members.sort_by(|(a, one), (b, other)| one.order(a).cmp(&other.order(b)));
        let subscription = |(id, member): (&MemberId, &super::member::Member)| {
            let subscription = Subscription::decode(&member.metadata(protocol)).ok()?;
            Some((id.clone(), subscription))
        };
        members.into_iter().filter_map(subscription).collect()
    }
}
