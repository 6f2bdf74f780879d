//! The heartbeat of a member of a group of type consumer: with it a member joins, stays, says what it has given up, and leaves.

use headwater_protocol::error::ErrorCode;

use super::{Consumers, Current, Member, Subscriber};
use crate::{
    coordinator::groups::{
        group::{Group, Phase},
        step::Step,
    },
    model::{
        consumer::{ConsumerHeartbeat, JOINS, PAUSES, Reconciled, no_group},
        group::{Answer, CallId, InstanceId, MemberId, refusal},
        refusal::Refusal,
    },
};

/// What a member is to the group.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing {
    New,
    Known,
    /// A static member that was started again, as another.
    Replaces(MemberId),
}

impl Group {
    pub(crate) fn consumer_heartbeat(&mut self, call: CallId, beat: &ConsumerHeartbeat, step: &mut Step<'_>) {
        let told = match beat.epoch {
            _ if self.phase == Phase::Dead => Err(refusal(ErrorCode::CoordinatorNotAvailable)),
            JOINS => self.consumer_joins(beat, step),
            epoch if epoch < JOINS => self.consumer_leaves(beat, step),
            _ => self.consumer_stays(beat, step),
        };
        match told {
            Ok(told) => self.store(Some((call, Ok(Answer::Reconciled(told)))), step),
            Err(refusal) => step.refuse(call, refusal),
        }
    }

    fn consumer_joins(&mut self, beat: &ConsumerHeartbeat, step: &mut Step<'_>) -> Result<Reconciled, Refusal> {
        let fresh = if self.consumers.is_none() {
            Some(self.as_consumers(step)?)
        } else {
            None
        };
        let known = fresh.as_ref().or(self.consumers.as_deref());
        let Some(known) = known else {
            return Err(refusal(ErrorCode::UnknownServerError));
        };
        known.check_pattern(beat.pattern.as_deref().unwrap_or_default())?;
        let standing = known.standing(beat, self.id.as_str(), step.config.members_max as usize)?;
        self.check_beat(known, beat, &standing, step)?;
        if let Some(fresh) = fresh {
            self.become_consumers(fresh, step);
        }
        self.admit_consumer(&standing, &beat.member, beat.instance.as_ref(), step);
        self.consumer_goes_on(beat, step)
    }

    fn consumer_stays(&mut self, beat: &ConsumerHeartbeat, step: &mut Step<'_>) -> Result<Reconciled, Refusal> {
        let Some(consumers) = &self.consumers else {
            let message = no_group(&self.id, beat.epoch);
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        };
        consumers.check_pattern(beat.pattern.as_deref().unwrap_or_default())?;
        let standing = consumers.standing(beat, self.id.as_str(), usize::MAX)?;
        self.check_beat(consumers, beat, &standing, step)?;
        self.consumer_goes_on(beat, step)
    }

    /// Refuses a member of which a record could not be stored.
    fn check_beat(
        &self,
        consumers: &Consumers,
        beat: &ConsumerHeartbeat,
        standing: &Standing,
        step: &Step<'_>,
    ) -> Result<(), Refusal> {
        let former = match standing {
            Standing::New => None,
            Standing::Known => consumers.members.get(&beat.member),
            Standing::Replaces(former) => consumers.members.get(former),
        };
        let said = subscriber(beat, former.map_or(&Subscriber::default(), |former| &former.subscriber));
        if former.is_some_and(|former| former.subscriber == said) {
            return Ok(());
        }
        self.check_consumer_size(consumers, &beat.member, &said, step)
    }

    /// Puts a member in its place.
    pub(super) fn admit_consumer(
        &mut self,
        standing: &Standing,
        id: &MemberId,
        instance: Option<&InstanceId>,
        step: &Step<'_>,
    ) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        match standing {
            Standing::Known => {}
            Standing::New => {
                let subscriber = Subscriber {
                    instance: instance.cloned(),
                    ..Subscriber::default()
                };
                let member = Member {
                    subscriber,
                    ..Member::default()
                };
                consumers.insert(id.clone(), member);
                if self.phase != Phase::Consumer {
                    self.enter(Phase::Consumer, step);
                }
            }
            Standing::Replaces(former) => {
                let Some(former) = consumers.remove(former) else { return };
                // Should it be here under another instance id: it has said that it owns nothing.
                if consumers.remove(id).is_some() {
                    consumers.bump();
                }
                let current = Current {
                    epoch: JOINS,
                    previous_epoch: JOINS,
                    ..former.current
                };
                let member = Member {
                    subscriber: former.subscriber,
                    target: former.target,
                    ..Member::default()
                };
                consumers.insert(id.clone(), member);
                consumers.set_current(id, current);
            }
        }
    }

    /// A member that belongs to the group says what is new, and is told what is.
    fn consumer_goes_on(&mut self, beat: &ConsumerHeartbeat, step: &mut Step<'_>) -> Result<Reconciled, Refusal> {
        let id = &beat.member;
        self.subscribe(id, |former| subscriber(beat, former), step);
        self.retarget(step);
        let before = self.assigned_to(id);
        self.reconcile(id, beat.epoch, beat.owned.as_ref(), step);
        let Some(member) = self
            .consumers
            .as_mut()
            .and_then(|consumers| consumers.members.get_mut(id))
        else {
            return Err(refusal(ErrorCode::UnknownMemberId));
        };
        member.touch(step);
        let assigned = &member.current.assigned;
        let has_other = beat.owned.as_ref().is_some_and(|owned| owned != assigned);
        let is_told = beat.is_full() || has_other || before.as_ref() != Some(assigned);
        Ok(Reconciled {
            member: id.clone(),
            epoch: member.current.epoch,
            interval: step.config.consumer_heartbeat_interval_ms.duration(),
            assignment: is_told.then(|| assigned.clone()),
        })
    }

    fn assigned_to(&self, id: &MemberId) -> Option<crate::model::consumer::Share> {
        let member = self.consumers.as_ref()?.members.get(id)?;
        Some(member.current.assigned.clone())
    }

    /// Takes note of what a member says of itself. The group's epoch rises if its topics are others now.
    pub(super) fn subscribe(&mut self, id: &MemberId, change: impl FnOnce(&Subscriber) -> Subscriber, step: &Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        let Some(member) = consumers.members.get(id) else {
            return;
        };
        let subscriber = change(&member.subscriber);
        if subscriber == member.subscriber {
            return;
        }
        let own = |consumers: &Consumers, subscriber: &Subscriber| -> Vec<String> {
            consumers.topics_of(subscriber).into_iter().map(str::to_owned).collect()
        };
        let before = own(consumers, &member.subscriber);
        if subscriber.instance != member.subscriber.instance {
            if let Some(former) = &member.subscriber.instance {
                consumers.instances.remove(former);
            }
            if let Some(instance) = &subscriber.instance {
                consumers.instances.insert(instance.clone(), id.clone());
            }
        }
        if let Some(member) = consumers.members.get_mut(id) {
            member.subscriber = subscriber;
        }
        consumers.journal.note(super::Key::Member(id.clone()));
        consumers.update_patterns(step.topics);
        let Some(member) = consumers.members.get(id) else {
            return;
        };
        let is_other = own(consumers, &member.subscriber) != before;
        if consumers.note_topics(step.topics) || is_other {
            consumers.bump();
        }
    }

    fn consumer_leaves(&mut self, beat: &ConsumerHeartbeat, step: &mut Step<'_>) -> Result<Reconciled, Refusal> {
        let Some(consumers) = self.consumers.as_mut() else {
            let message = no_group(&self.id, beat.epoch);
            return Err(Refusal::new(ErrorCode::GroupIdNotFound, message));
        };
        consumers.check_instance(&beat.member, beat.instance.as_ref())?;
        let Some(member) = consumers.members.get(&beat.member) else {
            return Err(unknown(&beat.member, self.id.as_str()));
        };
        if beat.epoch == PAUSES {
            // What it has is kept for it; it has given up the rest, as it is gone.
            let current = Current {
                epoch: PAUSES,
                previous_epoch: member.current.epoch,
                revoking: super::Share::new(),
                state: super::State::Stable,
                assigned: member.current.assigned.clone(),
            };
            consumers.set_current(&beat.member, current);
            if let Some(member) = consumers.members.get_mut(&beat.member) {
                member.revoke_until = None;
            }
        } else {
            self.remove_consumers(std::slice::from_ref(&beat.member), step);
        }
        Ok(Reconciled {
            member: beat.member.clone(),
            epoch: beat.epoch,
            interval: std::time::Duration::ZERO,
            assignment: None,
        })
    }
}

impl Consumers {
    /// Who asks, or why it is not listened to.
    fn standing(&self, beat: &ConsumerHeartbeat, group: &str, members_max: usize) -> Result<Standing, Refusal> {
        let joins = beat.epoch == JOINS;
        let holder = beat.instance.as_ref().and_then(|instance| self.instances.get(instance));
        let standing = match (holder, &beat.instance) {
            (Some(holder), Some(instance)) if joins && (*holder != beat.member || self.is_paused(holder)) => {
                let held = self.members.get(holder);
                let is_held = held.is_some_and(|member| member.subscriber.classic.is_none());
                if is_held && !self.is_paused(holder) {
                    let message = format!(
                        "Static member {} with instance id {instance} cannot join the group because the instance id is \
                         owned by {holder} member.",
                        beat.member
                    );
                    return Err(Refusal::new(ErrorCode::UnreleasedInstanceId, message));
                }
                Standing::Replaces(holder.clone())
            }
            _ if joins && !self.members.contains_key(&beat.member) => Standing::New,
            _ if joins => Standing::Known,
            _ => {
                self.check_instance(&beat.member, beat.instance.as_ref())?;
                Standing::Known
            }
        };
        if standing == Standing::New && self.members.len() >= members_max {
            let message = format!("The consumer group has reached its maximum capacity of {members_max} members.");
            return Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message));
        }
        if standing == Standing::Known {
            let member = self.members.get(&beat.member);
            check_epoch(member.ok_or_else(|| unknown(&beat.member, group))?, beat)?;
        }
        Ok(standing)
    }

    fn is_paused(&self, id: &MemberId) -> bool {
        self.members
            .get(id)
            .is_some_and(|member| member.current.epoch == PAUSES)
    }

    /// Whether a static member is the one that has this instance id.
    pub(super) fn check_instance(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<(), Refusal> {
        let Some(instance) = instance else { return Ok(()) };
        match self.instances.get(instance) {
            Some(holder) if holder == id => Ok(()),
            Some(holder) => {
                let message = format!("Static member {id} with instance id {instance} was fenced by member {holder}.");
                Err(Refusal::new(ErrorCode::FencedInstanceId, message))
            }
            None => {
                let message = format!("Instance id {instance} is unknown.");
                Err(Refusal::new(ErrorCode::UnknownMemberId, message))
            }
        }
    }
}

/// What a member says of itself, and has said before.
fn subscriber(beat: &ConsumerHeartbeat, former: &Subscriber) -> Subscriber {
    Subscriber {
        instance: beat.instance.clone().or_else(|| former.instance.clone()),
        rack: beat.rack.clone().or_else(|| former.rack.clone()),
        client: beat.client.clone(),
        rebalance_timeout: beat.rebalance_timeout.unwrap_or(former.rebalance_timeout),
        assignor: beat.assignor.or(former.assignor),
        topics: beat.topics.clone().unwrap_or_else(|| former.topics.clone()),
        pattern: match &beat.pattern {
            Some(pattern) => Some(pattern.clone()).filter(|pattern| !pattern.is_empty()),
            None => former.pattern.clone(),
        },
        classic: None,
    }
}

fn unknown(id: &MemberId, group: &str) -> Refusal {
    let message = format!("Member {id} is not a member of group {group}.");
    Refusal::new(ErrorCode::UnknownMemberId, message)
}

/// A member comes with its epoch, or with the one before if it has not heard of this one: then it must not have more than it may.
fn check_epoch(member: &Member, beat: &ConsumerHeartbeat) -> Result<(), Refusal> {
    let (told, known) = (beat.epoch, member.current.epoch);
    let fenced = |how: &str| {
        let message = format!(
            "The consumer group member has a {how} member epoch ({told}) than the one known by the group coordinator \
             ({known}). The member must abandon all its partitions and rejoin."
        );
        Err(Refusal::new(ErrorCode::FencedMemberEpoch, message))
    };
    let has_no_more = || {
        let owned = beat.owned.as_ref();
        owned.is_some_and(|owned| owned.is_subset(&member.current.assigned))
    };
    if told > known {
        fenced("greater")
    } else if told < known && (told != member.current.previous_epoch || !has_no_more()) {
        fenced("smaller")
    } else {
        Ok(())
    }
}
