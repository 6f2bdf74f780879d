//! The next step of a member on its way to its target: first it gives up what is not for it any more, then it gets what others have
//! given up.

use super::{Consumers, Current, State};
use crate::{
    coordinator::groups::{group::Group, step::Step},
    model::{consumer::Share, group::MemberId},
};

impl Group {
    /// Lets a member go on that has come with `epoch`, and says what it owns, or nothing about it.
    pub(super) fn reconcile(&mut self, id: &MemberId, epoch: i32, owned: Option<&Share>, step: &Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        let Some(next) = consumers.next(id, epoch, owned) else {
            return;
        };
        let is_revoking = next.state == State::Revoking;
        let has_changed = consumers.members.get(id).is_some_and(|member| member.current != next);
        consumers.set_current(id, next);
        let Some(member) = consumers.members.get_mut(id) else {
            return;
        };
        if !is_revoking {
            member.revoke_until = None;
        } else if has_changed || member.revoke_until.is_none() {
            member.revoke_until = Some(step.now.monotonic + member.subscriber.rebalance_timeout);
        }
    }
}

impl Consumers {
    /// What the member becomes. It changes nothing else, and takes from nobody.
    pub(super) fn next(&self, id: &MemberId, epoch: i32, owned: Option<&Share>) -> Option<Current> {
        let member = self.members.get(id)?;
        let current = &member.current;
        let still_has = |share: &Share| owned.is_none_or(|owned| !owned.is_disjoint(share));
        match current.state {
            State::Stable if current.epoch == self.target_epoch => return None,
            State::Revoking if still_has(&current.revoking) => return None,
            _ => {}
        }
        let keeps: Share = current.assigned.intersection(&member.target).copied().collect();
        let gives_up: Share = current.assigned.difference(&keeps).copied().collect();
        if !gives_up.is_empty() && still_has(&gives_up) {
            return Some(Current {
                epoch: current.epoch,
                previous_epoch: current.epoch,
                state: State::Revoking,
                assigned: keeps,
                revoking: gives_up,
            });
        }
        let is_free = |spot: &&super::Spot| self.owners.get(*spot).is_none_or(|owner| owner == id);
        let gets: Share = member.target.iter().filter(is_free).copied().collect();
        let state = if gets.len() == member.target.len() {
            State::Stable
        } else {
            State::Waiting
        };
        Some(Current {
            epoch: self.target_epoch,
            // The epoch that the member has come with is the one that it knows.
            previous_epoch: if current.epoch == self.target_epoch {
                current.previous_epoch
            } else {
                epoch
            },
            state,
            assigned: gets,
            revoking: Share::new(),
        })
    }
}
