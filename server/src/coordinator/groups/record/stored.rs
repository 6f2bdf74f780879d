//! A group as its record has it: what is written when a rebalance is complete, and what is made of it when it is read again.

use std::time::Duration;

use bytes::Bytes;

use super::{Record, StoredGroup, StoredMember};
use crate::{
    coordinator::groups::{
        group::{Group, Phase},
        member::Member,
        roster::Roster,
    },
    model::group::{InstanceId, MemberId, Protocol, Timeouts},
};

impl Group {
    /// As it is.
    pub(crate) fn stored(&self) -> Record {
        let assigned = |(id, member): (&MemberId, &Member)| (id.clone(), member.assignment.clone());
        let assigned: Vec<_> = self.roster.members.iter().map(assigned).collect();
        self.stored_with(&assigned)
    }

    /// As it will be with this assignment.
    pub(crate) fn stored_with(&self, assigned: &[(MemberId, Bytes)]) -> Record {
        let protocol = self.protocol.clone();
        let store = |(id, member): (&MemberId, &Member)| {
            let assignment = assigned.iter().find(|(assigned, _)| assigned == id);
            StoredMember {
                id: id.clone(),
                instance: member.instance.clone(),
                client: member.client.clone(),
                timeouts: member.timeouts,
                subscription: member.metadata(protocol.as_deref().unwrap_or_default()),
                assignment: assignment.map(|(_, assignment)| assignment.clone()).unwrap_or_default(),
            }
        };
        let value = StoredGroup {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            leader: self.roster.leader.as_ref().filter(|_| protocol.is_some()).cloned(),
            since: self.since,
            members: self.roster.members.iter().map(store).collect(),
            protocol: protocol.clone(),
        };
        Record::Group {
            group: self.id.clone(),
            value: Some(value),
        }
    }

    pub(crate) fn tombstone(&self) -> Record {
        Record::Group {
            group: self.id.clone(),
            value: None,
        }
    }

    /// Takes over what a record says. Its members have their whole session time from `now` on.
    pub(crate) fn restore(&mut self, stored: StoredGroup, now: Duration) {
        let mut roster = Roster::default();
        for member in stored.members {
            let instance: Option<InstanceId> = member.instance;
            let protocol = Protocol {
                name: stored.protocol.clone().unwrap_or_default(),
                metadata: member.subscription,
            };
            let restored = Member {
                instance,
                client: member.client,
                timeouts: Timeouts { ..member.timeouts },
                protocols: vec![protocol],
                assignment: member.assignment,
                joining: None,
                syncing: None,
                has_synced: true,
                is_new: false,
                session_end: now + member.timeouts.session,
            };
            roster.insert(member.id, restored);
        }
        roster.leader = stored.leader;
        self.phase = if roster.members.is_empty() {
            Phase::Empty
        } else {
            Phase::Stable
        };
        self.generation = stored.generation;
        self.protocol_type = Some(stored.protocol_type).filter(|name| !name.is_empty());
        self.protocol = stored.protocol;
        self.since = stored.since;
        self.roster = roster;
        self.consumers = None;
        self.note_assigned_topics();
    }

    /// A group that was read again has been assigned what there is now, as far as anybody knows.
    fn note_assigned_topics(&mut self) {
        self.assigned_of.clear();
        if self.assignor().is_none() {
            return;
        }
        for (id, subscription) in self.subscriptions() {
            for topic in subscription.topics {
                self.assigned_of.entry(topic).or_insert(0);
            }
            let assignment = self.roster.members.get(&id).map(|member| member.assignment.clone());
            let assigned = assignment.and_then(|bytes| headwater_protocol::group::Assignment::decode(&bytes).ok());
            for topic in assigned.into_iter().flat_map(|assignment| assignment.partitions) {
                let end = topic.partitions.iter().max().map_or(0, |last| last.cast_unsigned() + 1);
                let count = self.assigned_of.entry(topic.topic).or_insert(0);
                *count = end.max(*count);
            }
        }
    }
}
