//! Joining and leaving a group, and staying in it.

use headwater_protocol::{error::ErrorCode, group::Subscription};

use super::{
    assign::Assignor,
    group::{FirstWait, Group, Phase, Preparing},
    member::Member,
    step::{Step, Write},
};
use crate::model::group::{Answer, CallId, Identity, InstanceId, Join, Joined, MemberId, refusal};

impl Group {
    pub(super) fn join(&mut self, call: CallId, join: &Join, step: &mut Step<'_>) {
        if self.consumers.is_some() && self.phase != Phase::Dead {
            return self.join_consumers(call, join, step);
        }
        let may_join = self.may_join(join, step).map_err(refusal);
        if let Err(refusal) = may_join.and_then(|()| self.check_size(join, step)) {
            return step.refuse(call, refusal);
        }
        match &join.member {
            None => self.join_as_new(call, join, step),
            Some(id) if self.roster.promised.contains_key(id) => self.add_member(id.clone(), call, join, step),
            Some(id) => self.join_again(id, call, join, step),
        }
    }

    fn may_join(&self, join: &Join, step: &Step<'_>) -> Result<(), ErrorCode> {
        if self.phase == Phase::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        if join.protocols.is_empty() || join.protocol_type.is_empty() || !self.has_common_protocol(join) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let is_known = |id: &MemberId| self.roster.members.contains_key(id) || self.roster.promised.contains_key(id);
        let replaces = join
            .instance
            .as_ref()
            .is_some_and(|instance| self.roster.instances.contains_key(instance));
        let count = self.roster.members.len() + self.roster.promised.len();
        let is_new = join.member.as_ref().is_none_or(|id| !is_known(id)) && !replaces;
        if is_new && count >= step.config.members_max as usize {
            return Err(ErrorCode::GroupMaxSizeReached);
        }
        Ok(())
    }

    /// Whether the group would still have a protocol that all speak.
    fn has_common_protocol(&self, join: &Join) -> bool {
        let others = || {
            let is_other = |(id, _): &(&MemberId, &Member)| Some(*id) != join.member.as_ref();
            self.roster.members.iter().filter(is_other).map(|(_, member)| member)
        };
        if self.roster.members.is_empty() {
            return true;
        }
        let is_common = |name: &str| others().all(|member| member.speaks(name));
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|offer| is_common(&offer.name))
    }

    fn join_as_new(&mut self, call: CallId, join: &Join, step: &mut Step<'_>) {
        let replaced = join
            .instance
            .as_ref()
            .and_then(|instance| self.roster.instances.get(instance));
        if let Some(old) = replaced.cloned() {
            self.replace_static(&old, call, join, step);
        } else if join.instance.is_none() && join.in_two_steps {
            let until = step.now.monotonic + join.timeouts.session;
            self.roster.promised.insert(join.fresh.clone(), until);
            step.answer(call, Answer::MemberIdRequired(join.fresh.clone()));
        } else {
            self.add_member(join.fresh.clone(), call, join, step);
        }
    }

    fn add_member(&mut self, id: MemberId, call: CallId, join: &Join, step: &mut Step<'_>) {
        let mut member = Member::new(join, step.now.monotonic);
        member.joining = Some(call);
        if self.roster.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.roster.insert(id, member);
        if let Phase::Preparing(Preparing {
            first: Some(FirstWait { has_grown, .. }),
            ..
        }) = &mut self.phase
        {
            *has_grown = true;
        }
        self.rebalance(step);
        self.complete_if_all_joined(step);
    }

    fn join_again(&mut self, id: &MemberId, call: CallId, join: &Join, step: &mut Step<'_>) {
        if let Err(code) = self.roster.check(id, join.instance.as_ref()) {
            return step.refuse(call, refusal(code));
        }
        let has_changed = self
            .roster
            .members
            .get(id)
            .is_some_and(|member| member.protocols != join.protocols);
        // Its leader joins again when it has seen that there is something new to assign.
        let is_to_assign = self.roster.is_leader(id) && self.assignor().is_none();
        match self.phase {
            Phase::Empty | Phase::Consumer | Phase::Dead => step.refuse(call, refusal(ErrorCode::UnknownMemberId)),
            Phase::Completing { .. } if !has_changed => self.answer_joined(id, call, step),
            Phase::Stable if !has_changed && !is_to_assign => self.answer_joined(id, call, step),
            Phase::Preparing(_) | Phase::Completing { .. } | Phase::Stable => {
                if let Some(member) = self.roster.members.get_mut(id) {
                    member.protocols.clone_from(&join.protocols);
                    member.timeouts = join.timeouts;
                    if let Some(earlier) = member.joining.replace(call) {
                        step.refuse(earlier, refusal(ErrorCode::RebalanceInProgress));
                    }
                }
                self.rebalance(step);
                self.complete_if_all_joined(step);
            }
        }
    }

    /// A static member was started again: it takes the place of its former self. At rest nothing else changes (KIP-345, 814).
    fn replace_static(&mut self, old: &MemberId, call: CallId, join: &Join, step: &mut Step<'_>) {
        let was_leader = self.roster.is_leader(old);
        let Some(former) = self.roster.remove(old) else { return };
        for call in [former.joining, former.syncing].into_iter().flatten() {
            step.refuse(call, refusal(ErrorCode::FencedInstanceId));
        }
        let member = Member {
            assignment: former.assignment.clone(),
            has_synced: former.has_synced,
            is_new: former.is_new,
            ..Member::new(join, step.now.monotonic)
        };
        let id = join.fresh.clone();
        self.roster.insert(id.clone(), member);
        if was_leader {
            self.roster.leader = Some(id.clone());
        }
        let subscribes_alike = || {
            let topics = |member: &Member| {
                let metadata = member.metadata(self.protocol.as_deref().unwrap_or_default());
                Subscription::decode(&metadata)
                    .ok()
                    .map(|subscription| subscription.topics)
            };
            self.assignor().is_none() || self.roster.members.get(&id).map(topics) == Some(topics(&former))
        };
        if self.phase == Phase::Stable && self.roster.vote() == self.protocol && subscribes_alike() {
            if let Some(member) = self.roster.members.get_mut(&id) {
                member.touch(step.now.monotonic);
            }
            let records = vec![self.stored()];
            return step.write(self, Write::Replace { call, member: id }, records);
        }
        if let Some(member) = self.roster.members.get_mut(&id) {
            member.joining = Some(call);
        }
        self.rebalance(step);
        self.complete_if_all_joined(step);
    }

    /// The new name of a static member is durable, or could not be made so.
    pub(super) fn replaced(
        &mut self,
        call: CallId,
        id: &MemberId,
        outcome: Result<(), ErrorCode>,
        step: &mut Step<'_>,
    ) {
        let Some(member) = self.roster.members.get_mut(id) else {
            return step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        };
        match (outcome, &self.phase) {
            (Err(code), _) => {
                step.refuse(call, refusal(code));
                // The log knows the former self; the next generation will be written with the new one.
                self.rebalance(step);
            }
            (Ok(()), Phase::Preparing(_)) => {
                if let Some(earlier) = member.joining.replace(call) {
                    step.refuse(earlier, refusal(ErrorCode::RebalanceInProgress));
                }
                self.complete_if_all_joined(step);
            }
            (Ok(()), _) => self.answer_joined(id, call, step),
        }
    }

    /// Tells a member of the generation that it is part of.
    pub(super) fn answer_joined(&mut self, id: &MemberId, call: CallId, step: &mut Step<'_>) {
        let protocol = self.protocol.clone().unwrap_or_default();
        let is_to_assign = self.roster.is_leader(id) && self.assignor().is_none();
        let list =
            |(id, member): (&MemberId, &Member)| (id.clone(), member.instance.clone(), member.metadata(&protocol));
        let members = if is_to_assign {
            self.roster.members.iter().map(list).collect()
        } else {
            Vec::new()
        };
        let joined = Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            leader: self.roster.leader.clone().unwrap_or_else(|| MemberId::new("")),
            member: id.clone(),
            skip_assignment: self.assignor().is_some() || self.phase == Phase::Stable,
            members,
            protocol,
        };
        if let Some(member) = self.roster.members.get_mut(id) {
            member.is_new = false;
            member.touch(step.now.monotonic);
        }
        step.answer(call, Answer::Joined(joined));
    }

    pub(super) fn leave(&mut self, call: CallId, members: &[(MemberId, Option<InstanceId>)], step: &mut Step<'_>) {
        if self.phase == Phase::Dead {
            return step.refuse(call, refusal(ErrorCode::CoordinatorNotAvailable));
        }
        if self.consumers.is_some() {
            return self.leave_consumers(call, members, step);
        }
        let leave = |(id, instance): &(MemberId, Option<InstanceId>)| {
            if self.roster.promised.remove(id).is_some() {
                self.complete_if_all_joined(step);
                return ErrorCode::None;
            }
            match self.roster.find(id, instance.as_ref()) {
                Ok(id) => {
                    self.remove_member(&id, step);
                    ErrorCode::None
                }
                Err(code) => code,
            }
        };
        let codes = members.iter().map(leave).collect();
        step.answer(call, Answer::Left(codes));
    }

    /// Whether the member belongs to this generation.
    pub(super) fn check_member(&self, who: &Identity) -> Result<(), ErrorCode> {
        if self.phase == Phase::Dead {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        self.roster.check(&who.member, who.instance.as_ref())?;
        if who.generation == self.generation {
            Ok(())
        } else {
            Err(ErrorCode::IllegalGeneration)
        }
    }

    pub(super) fn heartbeat(&mut self, call: CallId, who: &Identity, step: &mut Step<'_>) {
        if self.phase == Phase::Consumer {
            return self.classic_heartbeat(call, who, step);
        }
        if let Err(code) = self.check_member(who) {
            return step.refuse(call, refusal(code));
        }
        self.touch(&who.member, step);
        match self.phase {
            Phase::Preparing(_) => step.refuse(call, refusal(ErrorCode::RebalanceInProgress)),
            _ => step.answer(call, Answer::Alive),
        }
    }

    pub(super) fn touch(&mut self, id: &MemberId, step: &Step<'_>) {
        if let Some(member) = self.roster.members.get_mut(id) {
            member.touch(step.now.monotonic);
        }
    }
}

/// Whether what a member says in a protocol can be read, where the broker has to.
pub(super) fn is_readable(join: &Join) -> bool {
    let is_ours = |name: &str| Assignor::of(name).is_some();
    let mut ours = join.protocols.iter().filter(|offer| is_ours(&offer.name));
    join.protocol_type != headwater_protocol::group::CONSUMER
        || ours.all(|offer| Subscription::decode(&offer.metadata).is_ok())
}
