//! A group of type consumer as its records have it.

use std::time::Duration;

use headwater_protocol::group::CONSUMER;

use super::{Consumers, Current, Member, Share, State};
use crate::{
    config::GroupsSection,
    coordinator::groups::{
        group::{Group, Phase},
        record::consumer::Told,
    },
    model::group::MemberId,
};

impl Group {
    /// Takes over a record. All of them come before [`restored`](Self::restored).
    pub(crate) fn restore_consumers(&mut self, told: Told) {
        if matches!(told, Told::Epoch(None)) {
            self.consumers = None;
            return;
        }
        let is_empty = matches!(
            told,
            Told::Member(_, None) | Told::Target(_, None) | Told::Current(_, None) | Told::TargetEpoch(None)
        );
        if is_empty && self.consumers.is_none() {
            return;
        }
        let consumers = self.consumers.get_or_insert_with(|| {
            let mut consumers = Consumers::new();
            consumers.journal.clear();
            Box::new(consumers)
        });
        match told {
            Told::Epoch(epoch) => {
                if let Some(told) = epoch {
                    (consumers.epoch, consumers.hash) = (told.epoch, told.hash);
                }
            }
            Told::TargetEpoch(epoch) => {
                if let Some(epoch) = epoch {
                    consumers.target_epoch = epoch;
                }
            }
            Told::Member(id, Some(subscriber)) => consumers.restored(id).subscriber = subscriber,
            Told::Member(id, None) => drop(consumers.members.remove(&id)),
            Told::Target(id, Some(target)) => consumers.restored(id).target = target,
            Told::Target(id, None) => {
                if let Some(member) = consumers.members.get_mut(&id) {
                    member.target = Share::new();
                }
            }
            Told::Current(id, Some(current)) => consumers.restored(id).current = current,
            Told::Current(id, None) => {
                if let Some(member) = consumers.members.get_mut(&id) {
                    member.current = Current::default();
                }
            }
        }
    }

    /// All records have been taken over. Members have their whole time from now on.
    pub(crate) fn restored(&mut self, now: Duration, config: &GroupsSection) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        // Who has no subscription was taken out.
        consumers
            .members
            .retain(|_, member| !member.subscriber.rebalance_timeout.is_zero());
        consumers.instances.clear();
        consumers.owners.clear();
        for (id, member) in &mut consumers.members {
            if let Some(instance) = &member.subscriber.instance {
                consumers.instances.insert(instance.clone(), id.clone());
            }
            for spot in member.current.assigned.iter().chain(&member.current.revoking) {
                consumers.owners.entry(*spot).or_insert_with(|| id.clone());
            }
            let session = match &member.subscriber.classic {
                Some(classic) => classic.session_timeout,
                None => config.consumer_session_timeout_ms.duration(),
            };
            member.session_end = now + session;
            let is_revoking = member.current.state == State::Revoking;
            member.revoke_until = is_revoking.then(|| now + member.subscriber.rebalance_timeout);
        }
        self.phase = if consumers.members.is_empty() {
            Phase::Empty
        } else {
            Phase::Consumer
        };
        self.protocol_type = Some(CONSUMER.to_owned());
    }
}

#[cfg(test)]
impl Group {
    /// All that must survive a restart, once everything is in the log.
    pub(crate) fn settled_consumers(&self) -> Option<String> {
        let consumers = self.consumers.as_ref()?;
        let is_settled = consumers.journal.is_settled() && !consumers.journal.is_behind();
        let member = |(id, member): (&MemberId, &Member)| {
            let Member {
                subscriber,
                current,
                target,
                ..
            } = member;
            format!("{id} {subscriber:?} {current:?} {target:?}")
        };
        let members: Vec<String> = consumers.members.iter().map(member).collect();
        let Consumers {
            epoch,
            hash,
            target_epoch,
            ..
        } = consumers.as_ref();
        is_settled.then(|| format!("{epoch} {hash} {target_epoch} {members:#?}"))
    }
}

impl Consumers {
    /// A member of which there is a record.
    fn restored(&mut self, id: MemberId) -> &mut Member {
        self.members.entry(id).or_default()
    }
}
