//! The groups of one partition of the internal topic: the state machine that everything else is only the driver of.
//!
//! [`Shard::step`] takes an event and the time and returns effects; it never fails and does no I/O. The driver appends records
//! in the order of the effects and reports each append once, in that order, when it is durable or has failed.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    time::Duration,
};

use headwater_protocol::{error::ErrorCode, id::ProducerId};

use super::{
    committed::offsets::Place,
    deadlines::{Deadlines, earliest},
    group::{Group, Phase},
    join::is_readable,
    record::Record,
    settle::settle,
    step::{Effect, Queued, Step, Write, WriteId, Writes},
    topics::Topics,
};
use crate::{
    config::GroupsSection,
    model::{
        consumer::{JOINS, no_group},
        group::{Answer, CallId, Generation, GroupId, Listed, Moment, Reply, Request, refusal},
        refusal::Refusal,
        transaction::{End, Marker},
    },
};

#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "almost all are calls, and each is looked at once"
)]
pub(crate) enum Event {
    Call {
        call: CallId,
        group: GroupId,
        request: Request,
    },
    /// What became of an append.
    Written {
        write: WriteId,
        outcome: Result<(), ErrorCode>,
    },
    /// A transaction has ended here.
    Mark { call: CallId, marker: Marker },
    /// A deadline has come.
    Tick,
    /// Topics have come, gone or grown.
    Topics(Rc<Topics>),
}

/// How many groups all shards of a core have.
pub(crate) type Population = Rc<Cell<usize>>;

#[derive(Debug)]
pub(crate) struct Shard {
    config: Rc<GroupsSection>,
    record_bytes_max: usize,
    topics: Rc<Topics>,
    groups: BTreeMap<GroupId, Group>,
    writes: Writes,
    deadlines: Deadlines,
    next_expiry: Duration,
    population: Population,
}

impl Shard {
    /// Without a limit to the size of a record, until [`Shard::hold_records_to`] sets one.
    pub(crate) fn new(config: Rc<GroupsSection>, topics: Rc<Topics>, population: Population, now: Moment) -> Shard {
        let next_expiry = now.monotonic + config.offsets_check_interval_ms.duration();
        Shard {
            config,
            record_bytes_max: usize::MAX,
            topics,
            groups: BTreeMap::new(),
            writes: Writes::default(),
            deadlines: Deadlines::default(),
            next_expiry,
            population,
        }
    }

    /// Makes no group whose record would have more bytes than this, with key and value.
    pub(crate) fn hold_records_to(&mut self, record_bytes_max: usize) {
        self.record_bytes_max = record_bytes_max;
    }

    /// Takes over a record of the log. All of them come, in order, before the first step.
    /// `of` is in whose transaction it is, if it is in one.
    pub(crate) fn replay(&mut self, record: Record, of: Option<ProducerId>, now: Moment) {
        match record {
            Record::Offset {
                group,
                topic,
                partition,
                value,
            } => {
                if value.is_some() || self.groups.contains_key(&group) {
                    let group = self.group(&group, now);
                    match (of, value) {
                        (Some(producer), Some(value)) => group.pending.add(producer, (topic, partition), value),
                        (_, value) => group.stands((topic, partition), value),
                    }
                }
            }
            Record::Group {
                group,
                value: Some(stored),
            } => self.group(&group, now).restore(stored, now.monotonic),
            // What it has committed has records of its own, and stays if the group is of type consumer from here on.
            Record::Group { group, value: None } => {
                let known = self.groups.get_mut(&group);
                if known.is_some_and(|group| group.forget(now)) {
                    self.remove(&group);
                }
            }
            Record::Consumer { group, told } => self.group(&group, now).restore_consumers(told),
        }
    }

    /// Takes over the end of a transaction.
    pub(crate) fn replay_end(&mut self, producer: ProducerId, end: End) {
        for group in self.groups.values_mut() {
            group.ended(producer, end);
        }
    }

    /// All records have been taken over.
    pub(crate) fn replayed(&mut self, topics: Rc<Topics>, now: Moment) -> Vec<Effect> {
        for group in self.groups.values_mut() {
            group.restored(now.monotonic, &self.config);
        }
        let blank: Vec<GroupId> = self
            .groups
            .values()
            .filter(|group| group.is_blank())
            .map(|group| group.id.clone())
            .collect();
        for group in blank {
            self.remove(&group);
        }
        for group in self.groups.values() {
            self.deadlines.set(&group.id, group.next_deadline(&self.config));
        }
        self.step(Event::Topics(topics), now)
    }

    pub(crate) fn step(&mut self, event: Event, now: Moment) -> Vec<Effect> {
        let mut effects = Vec::new();
        match event {
            Event::Call { call, group, request } => self.call(call, &group, request, now, &mut effects),
            Event::Written { write, outcome } => self.written(write, outcome, now, &mut effects),
            Event::Mark { call, marker } => {
                let write = self.writes.push(GroupId::new(""), Write::Marker { call, marker });
                effects.push(Effect::AppendMarker { write, marker });
            }
            Event::Tick => self.tick(now, &mut effects),
            Event::Topics(topics) => {
                let former = std::mem::replace(&mut self.topics, topics);
                self.with_all(now, &mut effects, |group, step| {
                    group.forget_deleted_topics(step);
                    group.topics_changed(&former, step);
                });
            }
        }
        effects
    }

    /// When the next tick is due.
    pub(crate) fn next_deadline(&self) -> Duration {
        earliest([self.deadlines.next(), Some(self.next_expiry)]).unwrap_or(self.next_expiry)
    }

    pub(crate) fn list(&self) -> impl Iterator<Item = Listed> {
        self.groups.values().map(|group| Listed {
            group: group.id.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state(),
            kind: group.kind(),
            members: group.member_count(),
        })
    }

    /// Every committed offset, in the order of groups and places.
    pub(crate) fn committed(&self) -> impl Iterator<Item = (&GroupId, &Place, i64)> {
        self.groups.iter().flat_map(|(id, group)| {
            let committed = group.offsets.committed.iter();
            committed.map(move |(place, committed)| (id, place, committed.offset))
        })
    }

    /// Members of all groups.
    pub(crate) fn member_count(&self) -> usize {
        self.groups.values().map(Group::member_count).sum()
    }

    fn group(&mut self, id: &GroupId, now: Moment) -> &mut Group {
        let population = &self.population;
        self.groups.entry(id.clone()).or_insert_with(|| {
            population.set(population.get() + 1);
            Group::new(id.clone(), now)
        })
    }

    fn remove(&mut self, id: &GroupId) {
        if self.groups.remove(id).is_some() {
            self.population.set(self.population.get() - 1);
        }
    }

    fn call(&mut self, call: CallId, id: &GroupId, request: Request, now: Moment, effects: &mut Vec<Effect>) {
        if let Err(refusal) = self.admit(id, &request) {
            let reply = Err(refusal);
            return effects.push(Effect::Answer { call, reply });
        }
        if !self.groups.contains_key(id) {
            if let Some(reply) = without_group(id, &request) {
                return effects.push(Effect::Answer { call, reply });
            }
            self.group(id, now);
        }
        self.with(id, now, effects, |group, step| match request {
            request if group.is_turning() && request.is_of_member() => group.put_off(call, request, step),
            Request::Join(join) => group.join(call, &join, step),
            Request::Sync(sync) => group.sync(call, sync, step),
            Request::Heartbeat(who) => group.heartbeat(call, &who, step),
            Request::Leave(members) => group.leave(call, &members, step),
            Request::Commit(who, items) => group.commit(call, &who, items, step),
            Request::CommitIn(producer, who, items) => group.commit_in(call, (&who, producer), items, step),
            Request::Unstable => {
                let places = group.pending.places().cloned().collect();
                step.answer(call, Answer::Unstable(places));
            }
            Request::ConsumerHeartbeat(beat) => group.consumer_heartbeat(call, &beat, step),
            Request::DescribeConsumers => match group.describe_consumers() {
                Some(answer) => step.answer(call, answer),
                None => step.refuse(call, not_consumers(id)),
            },
            Request::Offsets(who, places) => match group.fetch_offsets(who.as_ref(), places) {
                Ok(answer) => step.answer(call, answer),
                Err(refusal) => step.refuse(call, refusal),
            },
            Request::ForgetOffsets(places) => group.forget_offsets(call, places, step),
            Request::Describe => {
                let answer = group.describe(step);
                step.answer(call, answer);
            }
            Request::Delete => group.delete(call, step),
        });
    }

    /// What can be refused without a look at the group.
    fn admit(&self, id: &GroupId, request: &Request) -> Result<(), Refusal> {
        if let Request::Join(join) = request {
            let (min, max) = (self.config.session_timeout_ms_min, self.config.session_timeout_ms_max);
            if !(min.duration()..=max.duration()).contains(&join.timeouts.session) {
                let message = format!(
                    "a session timeout of {} ms; allowed is {min} to {max} (groups.session_timeout_ms_min and _max)",
                    join.timeouts.session.as_millis()
                );
                return Err(Refusal::new(ErrorCode::InvalidSessionTimeout, message));
            }
            if !is_readable(join) {
                let message = "the subscription cannot be read, and the broker is to assign by it";
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
        }
        let makes = match request {
            Request::Join(_) | Request::Commit(..) | Request::CommitIn(..) => true,
            Request::ConsumerHeartbeat(beat) => beat.epoch == JOINS,
            _ => false,
        };
        let makes_group = makes && !self.groups.contains_key(id);
        if makes_group && self.population.get() >= self.config.count_max as usize {
            let message = format!(
                "the core runs {} groups, as many as it may (groups.count_max)",
                self.population.get()
            );
            return Err(Refusal::new(ErrorCode::PolicyViolation, message));
        }
        Ok(())
    }

    fn written(&mut self, id: WriteId, outcome: Result<(), ErrorCode>, now: Moment, effects: &mut Vec<Effect>) {
        let Some(Queued {
            id: expected,
            group,
            write,
        }) = self.writes.queue.pop_front()
        else {
            unreachable!("the outcome of an append that nobody asked for");
        };
        assert_eq!(id, expected, "appends become durable in order");
        if let Write::Marker { call, marker } = write {
            let reply = outcome.map(|()| Answer::Marked).map_err(refusal);
            if reply.is_ok() {
                self.replay_end(marker.producer.id, marker.end);
                let blank = self.groups.values().filter(|group| group.is_blank());
                let blank: Vec<GroupId> = blank.map(|group| group.id.clone()).collect();
                for group in blank {
                    self.remove(&group);
                }
            }
            return effects.push(Effect::Answer { call, reply });
        }
        self.with(&group, now, effects, |group, step| {
            group.writes -= 1;
            settle(group, write, outcome, step);
        });
    }

    fn tick(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        while let Some(id) = self.deadlines.take_due(now.monotonic) {
            self.with(&id, now, effects, Group::tick);
        }
        if self.next_expiry <= now.monotonic {
            self.next_expiry = now.monotonic + self.config.offsets_check_interval_ms.duration();
            self.with_all(now, effects, Group::expire);
        }
    }

    fn with_all(&mut self, now: Moment, effects: &mut Vec<Effect>, mut act: impl FnMut(&mut Group, &mut Step<'_>)) {
        let ids: Vec<GroupId> = self.groups.keys().cloned().collect();
        for id in ids {
            self.with(&id, now, effects, &mut act);
        }
    }

    /// Lets a group act, and sees to what follows from it.
    fn with(
        &mut self,
        id: &GroupId,
        now: Moment,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Group, &mut Step<'_>),
    ) {
        let Some(group) = self.groups.get_mut(id) else { return };
        let mut step = Step {
            now,
            config: &self.config,
            record_bytes_max: self.record_bytes_max,
            topics: &self.topics,
            writes: &mut self.writes,
            effects,
            has_rebalanced: false,
        };
        act(group, &mut step);
        if step.has_rebalanced {
            effects.push(Effect::Rebalanced {
                group: id.clone(),
                generation: group.rebalances(),
                members: group.member_count(),
            });
        }
        self.deadlines.set(id, group.next_deadline(&self.config));
        let is_over = group.phase == Phase::Dead && group.writes == 0;
        if is_over || group.is_blank() {
            self.remove(id);
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.population.set(self.population.get() - self.groups.len());
    }
}

fn not_consumers(group: &GroupId) -> Refusal {
    Refusal::new(
        ErrorCode::GroupIdNotFound,
        format!("Group {group} is not a consumer group."),
    )
}

/// The answer of a group that does not exist; `None` if the request makes it.
fn without_group(id: &GroupId, request: &Request) -> Option<Reply> {
    let code = match request {
        Request::Join(join) if join.member.is_none() => return None,
        Request::Commit(who, _) if who.generation < Generation::ZERO && who.member.as_str().is_empty() => return None,
        Request::CommitIn(_, who, _) if who.generation < Generation::ZERO && who.member.as_str().is_empty() => {
            return None;
        }
        // It has committed as a member of a group that has been forgotten.
        Request::Commit(..) | Request::CommitIn(..) => ErrorCode::IllegalGeneration,
        Request::Unstable => return Some(Ok(Answer::Unstable(BTreeSet::default()))),
        Request::ConsumerHeartbeat(beat) if beat.epoch == JOINS => return None,
        Request::ConsumerHeartbeat(beat) => {
            let message = no_group(id, beat.epoch);
            return Some(Err(Refusal::new(ErrorCode::GroupIdNotFound, message)));
        }
        Request::DescribeConsumers => {
            let message = format!("Group {id} not found.");
            return Some(Err(Refusal::new(ErrorCode::GroupIdNotFound, message)));
        }
        Request::Offsets(_, places) => {
            let places = places.clone().unwrap_or_default().into_iter();
            let none = places.map(|(topic, partition)| (topic, partition, None));
            return Some(Ok(Answer::Offsets(none.collect())));
        }
        Request::Leave(members) => {
            let codes = members.iter().map(|_| ErrorCode::UnknownMemberId).collect();
            return Some(Ok(Answer::Left(codes)));
        }
        Request::Join(_) | Request::Sync(_) | Request::Heartbeat(_) => ErrorCode::UnknownMemberId,
        Request::ForgetOffsets(_) | Request::Describe | Request::Delete => ErrorCode::GroupIdNotFound,
    };
    Some(Err(refusal(code)))
}

#[cfg(test)]
impl Shard {
    pub(super) fn group_named(&self, id: &str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// What must be the same after the log was read again, of the groups that are at rest.
    pub(super) fn summary(&self) -> Vec<String> {
        let at_rest = |group: &&Group| {
            group.writes == 0 && !group.is_behind && matches!(group.phase, Phase::Stable | Phase::Empty)
        };
        let groups = self.groups.values().filter(at_rest).filter(|group| !group.is_blank());
        let has_record = |group: &Group| group.generation > Generation::ZERO;
        groups
            .map(|group| {
                let since = has_record(group).then_some(group.since);
                let stored = group.stored();
                let is_stable = group.phase == Phase::Stable;
                match (has_record(group), stored) {
                    (true, stored) => format!("{since:?} {is_stable} {stored:?} {:?}", group.offsets),
                    (false, _) => format!("{:?} {:?}", group.id, group.offsets),
                }
            })
            .collect()
    }
}
