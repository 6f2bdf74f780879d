//! What each member is to have: made anew when the group's epoch has risen, at most once in an interval.

use std::{collections::BTreeMap, time::Duration};

use super::{Consumers, Key, Member, assign::assign};
use crate::{
    coordinator::groups::{group::Group, step::Step, topics::Topics},
    model::{
        consumer::{ServerAssignor, Share},
        group::MemberId,
    },
};

/// Before targets are made again that were too large to be stored.
const TOO_LARGE_PAUSE: Duration = Duration::from_secs(30);

impl Group {
    /// Makes new targets if there is something new, and the interval is over.
    pub(super) fn retarget(&mut self, step: &mut Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        let interval = step.config.consumer_assignment_interval_ms.duration();
        if consumers
            .target_due(interval)
            .is_none_or(|due| due > step.now.monotonic)
        {
            return;
        }
        consumers.assigned_at = Some(step.now.monotonic);
        let targets = consumers.targets(step.topics);
        let fit = self.targets_fit(&targets, step);
        let Some(consumers) = self.consumers.as_mut() else {
            return;
        };
        if !fit {
            consumers.assigned_at = Some(step.now.monotonic + TOO_LARGE_PAUSE);
            return;
        }
        consumers.take_targets(targets);
        step.rebalanced();
    }
}

impl Consumers {
    /// When there are to be new targets.
    pub(super) fn target_due(&self, interval: Duration) -> Option<Duration> {
        let is_due = self.epoch > self.target_epoch && !self.members.is_empty();
        is_due.then(|| self.assigned_at.map_or(Duration::ZERO, |at| at + interval))
    }

    /// What each member is to have.
    fn targets(&self, topics: &Topics) -> Vec<(MemberId, Share)> {
        // A static member stays in its place when it is started again.
        let mut order: Vec<_> = self.members.iter().collect();
        order.sort_by_key(|&(id, member)| match &member.subscriber.instance {
            Some(instance) => (false, instance.as_str()),
            None => (true, id.as_str()),
        });
        let wishes = order.iter().map(|(_, member)| -> BTreeMap<_, _> {
            let names = self.topics_of(&member.subscriber);
            names.into_iter().filter_map(|name| topics.find(name)).collect()
        });
        let wishes: Vec<BTreeMap<_, _>> = wishes.collect();
        let former: Vec<_> = order.iter().map(|(_, member)| &member.target).collect();
        let targets = assign(self.assignor(), &wishes, &former);
        let ids = order.into_iter().map(|(id, _)| id.clone());
        ids.zip(targets).collect()
    }

    fn take_targets(&mut self, targets: Vec<(MemberId, Share)>) {
        for (id, target) in targets {
            if let Some(member) = self.members.get_mut(&id)
                && member.target != target
            {
                member.target = target;
                self.journal.note(Key::Target(id));
            }
        }
        self.target_epoch = self.epoch;
        self.journal.note(Key::TargetEpoch);
    }

    /// The assignor that most members want; the first if none of them says.
    pub(super) fn assignor(&self) -> ServerAssignor {
        let mut votes: BTreeMap<ServerAssignor, usize> = BTreeMap::new();
        for assignor in self
            .members
            .values()
            .filter_map(|member: &Member| member.subscriber.assignor)
        {
            *votes.entry(assignor).or_default() += 1;
        }
        // Of two with as many votes the first.
        let most = votes.into_iter().rev().max_by_key(|(_, count)| *count);
        most.map_or(ServerAssignor::default(), |(assignor, _)| assignor)
    }
}
