//! Groups whose members go over from the classic protocol to that of consumers, and back, while they work.
//!
//! A classic group becomes one of type consumer with the first member that speaks the new protocol: its members are taken over as they
//! are, and told to join again. A group of type consumer that only members of the classic protocol are left in, or nobody and one of
//! those joins, becomes a classic one: once that is durable, and until then its members are told to ask again.

use std::time::Duration;

use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, CONSUMER, Subscription, TopicPartitions},
};

use super::{
    Classic, Consumers, Current, Key, Member, State, Subscriber,
    describe::{encode, spots},
    journal::coordinator_code,
};
use crate::{
    coordinator::groups::{
        group::{Group, Phase},
        member,
        roster::Roster,
        step::{Step, Write},
        topics::Topics,
    },
    model::{
        group::{CallId, Generation, Join, MemberId, Request, Timeouts, refusal},
        refusal::Refusal,
    },
};

impl Group {
    /// What the group is as one of type consumer. It is not that yet.
    pub(super) fn as_consumers(&self, step: &Step<'_>) -> Result<Consumers, Refusal> {
        let mut consumers = Consumers::new();
        if self.generation > Generation::ZERO || self.protocol_type.is_some() {
            consumers.journal.note(Key::Classic);
        }
        if self.roster.members.is_empty() {
            return Ok(consumers);
        }
        let refused = |why: &str| {
            let message = format!(
                "Cannot upgrade classic group {} to consumer group because {why}.",
                self.id
            );
            Err(Refusal::new(ErrorCode::GroupIdNotFound, message))
        };
        if !step.config.consumer_migration.upgrades() {
            return refused("the online upgrade is disabled");
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return refused("the group does not use the consumer embedded protocol");
        }
        let epoch = self.generation.get().max(consumers.epoch);
        (consumers.epoch, consumers.target_epoch) = (epoch, epoch);
        for (id, former) in &self.roster.members {
            let Some((subscriber, claims)) = subscriber_of(former) else {
                return refused("a member's subscription cannot be read");
            };
            let assignment = Assignment::decode(&former.assignment).unwrap_or_default();
            let mut assigned = spots(&assignment.partitions, step.topics);
            assigned.retain(|spot| !consumers.owners.contains_key(spot));
            // What it has said that it owns is not for others before it says that it does not.
            let mut revoking = spots(&claims, step.topics);
            revoking.retain(|spot| !assigned.contains(spot) && !consumers.owners.contains_key(spot));
            let state = if revoking.is_empty() {
                State::Stable
            } else {
                State::Revoking
            };
            let current = Current {
                epoch,
                previous_epoch: epoch,
                state,
                assigned: assigned.clone(),
                revoking,
            };
            let mut member = Member {
                subscriber,
                target: assigned,
                ..Member::default()
            };
            member.touch(step);
            consumers.insert(id.clone(), member);
            consumers.set_current(id, current);
        }
        consumers.update_patterns(step.topics);
        consumers.note_topics(step.topics);
        Ok(consumers)
    }

    /// The group is of type consumer from now on.
    pub(super) fn become_consumers(&mut self, consumers: Consumers, step: &mut Step<'_>) {
        let promised = std::mem::take(&mut self.roster.promised);
        let former = std::mem::replace(
            &mut self.roster,
            Roster {
                promised,
                ..Roster::default()
            },
        );
        for former in former.members.into_values() {
            for call in [former.joining, former.syncing].into_iter().flatten() {
                step.refuse(call, refusal(ErrorCode::RebalanceInProgress));
            }
        }
        let phase = if consumers.members.is_empty() {
            Phase::Empty
        } else {
            Phase::Consumer
        };
        self.consumers = Some(Box::new(consumers));
        self.protocol_type = Some(CONSUMER.to_owned());
        self.protocol = None;
        self.generation = Generation::ZERO;
        self.sync_until = None;
        self.assigned_of.clear();
        self.is_behind = false;
        self.enter(phase, step);
    }

    /// Goes back to the classic protocol if nobody speaks the new one any more.
    pub(super) fn downgrade(&mut self, step: &mut Step<'_>) {
        let Some(consumers) = &self.consumers else { return };
        let is_classic = |member: &Member| member.subscriber.classic.is_some();
        let all_are = !consumers.members.is_empty() && consumers.members.values().all(is_classic);
        if all_are && step.config.consumer_migration.downgrades() && self.consumers_are_settled() {
            self.turn_classic(None, step);
        }
    }

    /// Begins to become a classic group. Then somebody may join it.
    pub(super) fn turn_classic(&mut self, then: Option<(CallId, Join)>, step: &mut Step<'_>) {
        let mut records = self.consumers_tombstones(step);
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        consumers.is_turning = true;
        if !consumers.members.is_empty() {
            let (roster, generation) = (consumers.as_roster(step), consumers.generation());
            let former = std::mem::replace(&mut self.roster, roster);
            let (protocol, earlier) = (self.roster.vote(), self.generation);
            let named = std::mem::replace(&mut self.protocol, protocol);
            self.generation = generation;
            records.push(self.stored());
            // It is not so before it is durable.
            (self.roster, self.protocol, self.generation) = (former, named, earlier);
        }
        step.write(self, Write::TurnClassic { then }, records);
    }

    /// The group is a classic one, or cannot be yet.
    pub(crate) fn turned_classic(
        &mut self,
        then: Option<(CallId, Join)>,
        outcome: Result<(), ErrorCode>,
        step: &mut Step<'_>,
    ) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        consumers.is_turning = false;
        let leaving = std::mem::take(&mut consumers.leaving);
        match outcome {
            Ok(()) => self.go_classic(then, step),
            Err(code) => {
                // What has changed in the meantime has been passed over.
                self.consumers_topics_changed(&Topics::default(), step);
                if let Some((call, _)) = then {
                    step.refuse(call, refusal(coordinator_code(code)));
                }
            }
        }
        for (call, members) in leaving {
            self.leave(call, &members, step);
        }
    }

    /// The group is a classic one from now on.
    fn go_classic(&mut self, then: Option<(CallId, Join)>, step: &mut Step<'_>) {
        let Some(consumers) = self.consumers.take() else { return };
        if !consumers.members.is_empty() {
            let promised = std::mem::take(&mut self.roster.promised);
            self.roster = Roster {
                promised,
                ..consumers.as_roster(step)
            };
            self.generation = consumers.generation();
            self.protocol = self.roster.vote();
            self.enter(Phase::Stable, step);
            self.rebalance(step);
        }
        if let Some((call, join)) = then {
            self.join(call, &join, step);
        }
    }

    /// What a member asks for while the group is becoming a classic one. Whoever leaves will not ask again: it leaves afterwards.
    pub(crate) fn put_off(&mut self, call: CallId, request: Request, step: &mut Step<'_>) {
        match (request, self.consumers.as_mut()) {
            (Request::Leave(members), Some(consumers)) => consumers.leaving.push((call, members)),
            // Clients give up on any other refusal of these.
            (Request::Sync(_) | Request::Heartbeat(_), _) => {
                step.refuse(call, refusal(ErrorCode::RebalanceInProgress));
            }
            _ => step.refuse(call, refusal(ErrorCode::CoordinatorLoadInProgress)),
        }
    }
}

/// What a member of a classic group subscribes to, and what it has said that it owns.
fn subscriber_of(former: &member::Member) -> Option<(Subscriber, Vec<TopicPartitions>)> {
    let classic = Classic {
        session_timeout: former.timeouts.session,
        protocols: former.protocols.clone(),
    };
    let subscription = Subscription::decode(&former.protocols.first()?.metadata).ok()?;
    let subscriber = Subscriber {
        instance: former.instance.clone(),
        rack: subscription.rack,
        client: former.client.clone(),
        rebalance_timeout: former.timeouts.rebalance.max(Duration::from_millis(1)),
        assignor: None,
        topics: subscription.topics.into_iter().collect(),
        pattern: None,
        classic: Some(classic),
    };
    Some((subscriber, subscription.owned_partitions))
}

impl Consumers {
    /// The generation of the members once the group is a classic one: what they were told, though the group's epoch has risen since.
    fn generation(&self) -> Generation {
        let epochs = self.members.values().map(|member| member.current.epoch);
        Generation::new(epochs.max().unwrap_or_default())
    }

    /// The members as those of a classic group.
    fn as_roster(&self, step: &Step<'_>) -> Roster {
        let mut roster = Roster::default();
        for (id, member) in &self.members {
            let Some(classic) = &member.subscriber.classic else {
                continue;
            };
            let member = member::Member {
                instance: member.subscriber.instance.clone(),
                client: member.subscriber.client.clone(),
                timeouts: Timeouts {
                    session: classic.session_timeout,
                    rebalance: member.subscriber.rebalance_timeout,
                },
                protocols: classic.protocols.clone(),
                assignment: encode(&member.current.assigned, step.topics),
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                session_end: step.now.monotonic + classic.session_timeout,
            };
            roster.insert(MemberId::clone(id), member);
        }
        roster
    }
}
