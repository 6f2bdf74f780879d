//! The end of a rebalance: a new generation of those who have joined, and who gets what.

use bytes::Bytes;
use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, TopicPartitions},
};

use super::{
    assign::Assignor,
    group::{FirstWait, Group, Phase, Preparing},
    member::Member,
    step::{Effect, Step, Write},
};
use crate::model::group::{CallId, MemberId};

impl Group {
    /// Ends the time to join early if nobody is missing.
    pub(super) fn complete_if_all_joined(&mut self, step: &mut Step<'_>) {
        if let Phase::Preparing(Preparing { first, .. }) = self.phase
            && (first.is_none() || self.roster.members.is_empty())
            && self.roster.all_joined()
        {
            self.complete(step);
        }
    }

    pub(super) fn time_to_join_is_up(&mut self, step: &mut Step<'_>) {
        if let Phase::Preparing(Preparing { until, first }) = &mut self.phase
            && let Some(FirstWait { left, has_grown: true }) = *first
            && !left.is_zero()
        {
            let wait = step.config.initial_rebalance_delay_ms.duration().min(left);
            *until = step.now.monotonic + wait;
            *first = Some(FirstWait {
                left: left.saturating_sub(wait),
                has_grown: false,
            });
            return;
        }
        self.complete(step);
    }

    fn complete(&mut self, step: &mut Step<'_>) {
        let is_missing = |(id, member): (&MemberId, &Member)| {
            (member.joining.is_none() && member.instance.is_none()).then(|| id.clone())
        };
        let missing: Vec<MemberId> = self.roster.members.iter().filter_map(is_missing).collect();
        for id in missing {
            self.roster.remove(&id);
        }
        let joined = |member: &Member| member.joining.is_some();
        let leader = self.roster.leader.as_ref().and_then(|id| self.roster.members.get(id));
        if !leader.is_some_and(joined) {
            let mut members = self.roster.members.iter();
            let elected = members.find(|(_, member)| joined(member)).map(|(id, _)| id.clone());
            if elected.is_none() && !self.roster.members.is_empty() {
                // Static members keep their places until their sessions are over; there is nobody to go on with.
                let until = step.now.monotonic + self.roster.rebalance_timeout();
                self.phase = Phase::Preparing(Preparing { until, first: None });
                return;
            }
            self.roster.leader = elected;
        }
        self.generation = self.generation.next();
        self.assigned_of.clear();
        if self.roster.members.is_empty() {
            self.protocol = None;
            self.enter(Phase::Empty, step);
            let records = vec![self.stored()];
            return step.write(self, Write::Emptied, records);
        }
        self.protocol = self.roster.vote();
        self.enter(Phase::Completing { is_assigned: false }, step);
        self.sync_until = Some(step.now.monotonic + self.roster.rebalance_timeout());
        step.rebalanced();
        for member in self.roster.members.values_mut() {
            member.has_synced = false;
        }
        self.answer_all_joined(step);
        if let Some(assignor) = self.assignor() {
            self.assign(assignor, step);
        }
    }

    fn answer_all_joined(&mut self, step: &mut Step<'_>) {
        let take = |(id, member): (&MemberId, &mut Member)| Some((id.clone(), member.joining.take()?));
        let joined: Vec<(MemberId, CallId)> = self.roster.members.iter_mut().filter_map(take).collect();
        for (id, call) in joined {
            self.answer_joined(&id, call, step);
        }
    }

    /// The broker's own assignment.
    fn assign(&mut self, assignor: Assignor, step: &mut Step<'_>) {
        let members = self.subscriptions();
        let wanted = members.iter().flat_map(|(_, subscription)| &subscription.topics);
        self.assigned_of = wanted.map(|topic| (topic.clone(), step.topics.count(topic))).collect();
        let encode = |(id, partitions): (MemberId, Vec<TopicPartitions>)| {
            let user_data = None;
            let assignment = Assignment { partitions, user_data };
            (id, Bytes::from(assignment.encode()))
        };
        let assigned = assignor.assign(&members, step.topics).into_iter().map(encode);
        self.store_assignment(assigned.collect(), step);
    }

    /// The members get it when it is durable.
    pub(super) fn store_assignment(&mut self, assigned: Vec<(MemberId, Bytes)>, step: &mut Step<'_>) {
        let record = self.stored_with(&assigned);
        let (size, max) = (record.size(), step.record_bytes_max);
        if size > max {
            let group = self.id.clone();
            step.effect(Effect::TooLarge { group, size, max });
            return self.cannot_assign(step);
        }
        self.phase = Phase::Completing { is_assigned: true };
        let records = vec![record];
        let generation = self.generation;
        step.write(self, Write::Assigned { generation, assigned }, records);
    }

    /// With a leader, another may do better. With the broker's assignor all are told when they ask, and are out if they do not go.
    fn cannot_assign(&mut self, step: &mut Step<'_>) {
        if self.assignor().is_none() {
            self.fail_syncs(ErrorCode::UnknownServerError, step);
            self.rebalance(step);
        }
    }

    pub(super) fn time_to_sync_is_up(&mut self, step: &mut Step<'_>) {
        self.sync_until = None;
        let is_missing = |(id, member): (&MemberId, &Member)| (!member.has_synced).then(|| id.clone());
        let missing: Vec<MemberId> = self.roster.members.iter().filter_map(is_missing).collect();
        for id in missing {
            self.remove_member(&id, step);
        }
    }

    /// What became of an assignment on its way to the disk.
    pub(super) fn assigned(
        &mut self,
        assigned: Vec<(MemberId, Bytes)>,
        outcome: Result<(), ErrorCode>,
        step: &mut Step<'_>,
    ) {
        if let Err(code) = outcome {
            let code = if code.is_retriable() {
                code
            } else {
                ErrorCode::UnknownServerError
            };
            self.fail_syncs(code, step);
            return self.rebalance(step);
        }
        let mut assigned: std::collections::BTreeMap<_, _> = assigned.into_iter().collect();
        for (id, member) in &mut self.roster.members {
            // Whom the leader has forgotten gets nothing, as in Kafka.
            member.assignment = assigned.remove(id).unwrap_or_default();
        }
        // Since when is what the record says, so that reading it again makes no difference.
        self.phase = Phase::Stable;
        let take = |(id, member): (&MemberId, &mut Member)| Some((id.clone(), member.syncing.take()?));
        let waiting: Vec<(MemberId, CallId)> = self.roster.members.iter_mut().filter_map(take).collect();
        for (id, call) in waiting {
            self.answer_synced(&id, call, step);
        }
    }
}
