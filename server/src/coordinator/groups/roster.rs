//! Who is in a group: members, their leader, those who were told an id and have not joined with it, static members by instance.

use std::{collections::BTreeMap, time::Duration};

use headwater_protocol::error::ErrorCode;

use super::member::Member;
use crate::model::group::{InstanceId, MemberId};

#[derive(Debug, Default)]
pub(super) struct Roster {
    pub(super) members: BTreeMap<MemberId, Member>,
    /// Ids that were given out, and until when.
    pub(super) promised: BTreeMap<MemberId, Duration>,
    pub(super) instances: BTreeMap<InstanceId, MemberId>,
    pub(super) leader: Option<MemberId>,
}

impl Roster {
    pub(super) fn insert(&mut self, id: MemberId, member: Member) {
        self.promised.remove(&id);
        if let Some(instance) = member.instance.clone() {
            self.instances.insert(instance, id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        self.members.insert(id, member);
    }

    pub(super) fn remove(&mut self, id: &MemberId) -> Option<Member> {
        let member = self.members.remove(id)?;
        if let Some(instance) = &member.instance {
            self.instances.remove(instance);
        }
        if self.leader.as_ref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Whether the member is the one that it says it is.
    pub(super) fn check(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<(), ErrorCode> {
        if let Some(instance) = instance {
            match self.instances.get(instance) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if current != id => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) {
            Ok(())
        } else {
            Err(ErrorCode::UnknownMemberId)
        }
    }

    /// Who has this id or, if none is given, this instance id.
    pub(super) fn find(&self, id: &MemberId, instance: Option<&InstanceId>) -> Result<MemberId, ErrorCode> {
        if let Some(instance) = instance
            && id.as_str().is_empty()
        {
            return self.instances.get(instance).cloned().ok_or(ErrorCode::UnknownMemberId);
        }
        self.check(id, instance).map(|()| id.clone())
    }

    pub(super) fn all_joined(&self) -> bool {
        self.promised.is_empty() && self.members.values().all(|member| member.joining.is_some())
    }

    pub(super) fn is_leader(&self, id: &MemberId) -> bool {
        self.leader.as_ref() == Some(id)
    }

    /// The longest that any member asks the others to wait for it.
    pub(super) fn rebalance_timeout(&self) -> Duration {
        let timeouts = self.members.values().map(|member| member.timeouts.rebalance);
        timeouts.max().unwrap_or_default()
    }

    /// The protocol that all speak and most like best; the first of the alphabet among equals.
    pub(super) fn vote(&self) -> Option<String> {
        let is_common = |name: &str| self.members.values().all(|member| member.speaks(name));
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let favourite = member.protocols.iter().find(|offer| is_common(&offer.name));
            *votes.entry(&favourite?.name).or_default() += 1;
        }
        let most = *votes.values().max()?;
        let (name, _) = votes.into_iter().find(|(_, count)| *count == most)?;
        Some(name.to_owned())
    }

    /// When something is to be done about a member.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        let members = self.members.values().filter_map(Member::expires);
        members.chain(self.promised.values().copied()).min()
    }
}
