//! Syncing: the leader hands in the assignment of a generation, everybody gets theirs.

use headwater_protocol::{
    error::ErrorCode,
    group::{Assignment, CONSUMER},
};

use super::{
    group::{Group, Phase},
    step::Step,
};
use crate::model::{
    group::{Answer, CallId, MemberId, Sync, Synced, refusal},
    refusal::Refusal,
};

impl Group {
    pub(super) fn sync(&mut self, call: CallId, sync: Sync, step: &mut Step<'_>) {
        if self.phase == Phase::Consumer {
            return self.sync_consumers(call, &sync, step);
        }
        if let Err(refusal) = self.may_sync(&sync) {
            return step.refuse(call, refusal);
        }
        let id = sync.who.member;
        match self.phase {
            // A group that has none has no members either, so the check above has refused.
            Phase::Empty | Phase::Consumer | Phase::Dead => step.refuse(call, refusal(ErrorCode::UnknownMemberId)),
            Phase::Preparing(_) => step.refuse(call, refusal(ErrorCode::RebalanceInProgress)),
            Phase::Stable => self.answer_synced(&id, call, step),
            // The broker assigns as soon as all have joined, if it can.
            Phase::Completing { is_assigned: false } if self.assignor().is_some() => {
                step.refuse(call, refusal(ErrorCode::UnknownServerError));
            }
            Phase::Completing { is_assigned } => {
                if let Some(member) = self.roster.members.get_mut(&id) {
                    member.has_synced = true;
                    member.touch(step.now.monotonic);
                    if let Some(earlier) = member.syncing.replace(call) {
                        step.refuse(earlier, refusal(ErrorCode::RebalanceInProgress));
                    }
                }
                if !is_assigned && self.assignor().is_none() && self.roster.is_leader(&id) {
                    self.store_assignment(sync.assignments, step);
                }
            }
        }
    }

    fn may_sync(&self, sync: &Sync) -> Result<(), Refusal> {
        self.check_member(&sync.who).map_err(refusal)?;
        let differs = |told: &Option<String>, own: &Option<String>| told.is_some() && told != own;
        if differs(&sync.protocol_type, &self.protocol_type) || differs(&sync.protocol, &self.protocol) {
            return Err(refusal(ErrorCode::InconsistentGroupProtocol));
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return Ok(());
        }
        for (member, assignment) in &sync.assignments {
            // Nothing at all is no assignment, as Kafka's consumers understand it.
            if !assignment.is_empty()
                && let Err(error) = Assignment::decode(assignment)
            {
                let message = format!("the assignment of member {member} cannot be read: {error}");
                return Err(Refusal::new(ErrorCode::InvalidRequest, message));
            }
        }
        Ok(())
    }

    /// Gives a member what it has been assigned.
    pub(super) fn answer_synced(&mut self, id: &MemberId, call: CallId, step: &mut Step<'_>) {
        let Some(member) = self.roster.members.get_mut(id) else {
            return step.refuse(call, refusal(ErrorCode::UnknownMemberId));
        };
        member.has_synced = true;
        member.touch(step.now.monotonic);
        let synced = Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: member.assignment.clone(),
        };
        step.answer(call, Answer::Synced(synced));
        if self.roster.members.values().all(|member| member.has_synced) {
            self.sync_until = None;
        }
    }
}
