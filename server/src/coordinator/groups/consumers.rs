//! A group of type consumer (KIP-848): the broker says who gets which partitions, and each member comes to that by itself.
//!
//! ```text
//! heartbeat -> beat: who is it, what does it subscribe to -> the group's epoch rises if that has changed, or topics have
//!           -> target: what each is to have, for that epoch, at most once in an interval
//!           -> reconcile: the next step of this member, and the epoch in which it is then
//! ```
//! A member that is to give partitions up stays in its epoch until it says that it has; only then does another get them. So a
//! partition is in the hands of one member at a time (`owners`), whatever heartbeats are lost.
//!
//! Memory is changed at once, and the answer waits until the records of all that it tells of are durable ([`Journal`]). What could not
//! be made durable is written again with the next change, and nobody is told of it before.

mod assign;
mod beat;
mod classic;
mod describe;
mod journal;
pub(super) mod keys;
mod migrate;
mod pattern;
mod reconcile;
mod restore;
mod size;
pub(super) mod state;
mod target;

use std::{collections::BTreeMap, time::Duration};

use headwater_protocol::error::ErrorCode;

use self::{
    keys::{Journal, Key},
    state::{Classic, Consumers, Current, Member, State, Subscriber},
};
use super::{
    group::{Group, Phase},
    step::Step,
    topics::Topics,
};
use crate::model::{
    consumer::{PAUSES, Share, Spot},
    group::{Identity, MemberId},
};

/// The epoch of a group that nobody has subscribed to anything in.
const FIRST_EPOCH: i32 = 1;

impl Consumers {
    pub(super) fn new() -> Consumers {
        let mut journal = Journal::default();
        journal.note(Key::Epoch);
        journal.note(Key::TargetEpoch);
        Consumers {
            epoch: FIRST_EPOCH,
            hash: 0,
            target_epoch: FIRST_EPOCH,
            members: BTreeMap::new(),
            instances: BTreeMap::new(),
            owners: BTreeMap::new(),
            patterns: BTreeMap::new(),
            assigned_at: None,
            journal,
            is_turning: false,
            leaving: Vec::new(),
        }
    }

    /// Where the group is, in Kafka's words.
    pub(super) fn state(&self) -> &'static str {
        let has_arrived = |member: &Member| {
            member.current.state == State::Stable && [self.target_epoch, PAUSES].contains(&member.current.epoch)
        };
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(has_arrived) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    fn insert(&mut self, id: MemberId, member: Member) {
        if let Some(instance) = &member.subscriber.instance {
            self.instances.insert(instance.clone(), id.clone());
        }
        for key in Key::of(&id) {
            self.journal.note(key);
        }
        self.members.insert(id, member);
    }

    /// Takes a member out, with all that it has. The group changes with it.
    fn remove(&mut self, id: &MemberId) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.subscriber.instance
            && self.instances.get(instance) == Some(id)
        {
            self.instances.remove(instance);
        }
        for spot in member.current.assigned.iter().chain(&member.current.revoking) {
            self.disown(spot, id);
        }
        for key in Key::of(id) {
            self.journal.note(key);
        }
        Some(member)
    }

    fn disown(&mut self, spot: &Spot, id: &MemberId) {
        if self.owners.get(spot) == Some(id) {
            self.owners.remove(spot);
        }
    }

    /// Makes a member what it is from now on.
    fn set_current(&mut self, id: &MemberId, current: Current) {
        let Some(member) = self.members.get_mut(id) else { return };
        if member.current == current {
            return;
        }
        let former = std::mem::replace(&mut member.current, current.clone());
        for spot in former.assigned.iter().chain(&former.revoking) {
            self.disown(spot, id);
        }
        for spot in current.assigned.into_iter().chain(current.revoking) {
            let other = self.owners.insert(spot, id.clone());
            debug_assert!(other.is_none(), "{spot:?} of {other:?} is given to {id}");
        }
        self.journal.note(Key::Current(id.clone()));
    }

    /// Members, subscriptions or topics have changed.
    fn bump(&mut self) {
        self.epoch = self.epoch.saturating_add(1);
        self.journal.note(Key::Epoch);
    }

    /// Whether who commits, or asks for commits, is who it says it is.
    pub(super) fn check(&self, who: &Identity) -> Result<(), ErrorCode> {
        let member = self.members.get(&who.member).ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == who.generation.get() {
            Ok(())
        } else if member.subscriber.classic.is_some() {
            Err(ErrorCode::IllegalGeneration)
        } else {
            Err(ErrorCode::StaleMemberEpoch)
        }
    }

    /// Everybody who is silent for too long, or keeps for too long what is to be given up.
    fn overdue(&self, now: Duration) -> Vec<MemberId> {
        let is_overdue = |member: &Member| member.deadline() <= now;
        let overdue = self.members.iter().filter(|(_, member)| is_overdue(member));
        overdue.map(|(id, _)| id.clone()).collect()
    }
}

impl Member {
    fn deadline(&self) -> Duration {
        self.revoke_until
            .map_or(self.session_end, |until| until.min(self.session_end))
    }

    fn touch(&mut self, step: &Step<'_>) {
        let session = match &self.subscriber.classic {
            Some(classic) => classic.session_timeout,
            None => step.config.consumer_session_timeout_ms.duration(),
        };
        self.session_end = step.now.monotonic + session;
    }
}

impl Group {
    /// Takes members out, and lets the group go on without them.
    fn remove_consumers(&mut self, gone: &[MemberId], step: &Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        for id in gone {
            consumers.remove(id);
        }
        if gone.is_empty() {
            return;
        }
        consumers.update_patterns(step.topics);
        consumers.note_topics(step.topics);
        consumers.bump();
        if consumers.members.is_empty() {
            self.enter(Phase::Empty, step);
        }
    }

    /// The members, unless the group is becoming a classic one.
    fn working(&self) -> Option<&Consumers> {
        self.consumers.as_deref().filter(|consumers| !consumers.is_turning)
    }

    /// Does what is due in a group of type consumer.
    pub(super) fn tick_consumers(&mut self, step: &mut Step<'_>) {
        let Some(consumers) = self.working() else { return };
        let overdue = consumers.overdue(step.now.monotonic);
        self.roster.promised.retain(|_, until| *until > step.now.monotonic);
        self.remove_consumers(&overdue, step);
        self.retarget(step);
        self.store(None, step);
    }

    pub(super) fn next_consumers_deadline(&self, interval: Duration) -> Option<Duration> {
        let consumers = self.working()?;
        let members = consumers.members.values().map(Member::deadline);
        let target = consumers.target_due(interval);
        let promised = self.roster.promised.values().copied();
        members.chain(target).chain(promised).min()
    }

    /// Topics have come, gone or grown since they were as in `former`.
    pub(super) fn consumers_topics_changed(&mut self, former: &Topics, step: &mut Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        if consumers.members.is_empty() || consumers.is_turning {
            return;
        }
        consumers.match_patterns(former, step.topics);
        if consumers.note_topics(step.topics) {
            consumers.bump();
        }
        self.retarget(step);
        self.store(None, step);
    }
}
