//! How large the record of a group is, with all its members: it has to fit a batch of the log, or no assignment could ever be made
//! durable.
//!
//! Kafka finds that out when it appends: `GroupMetadataManager.storeGroup` answers the sync with `UNKNOWN_SERVER_ERROR`. Here a join
//! that would bring it about is refused first, with the code of KIP-389, `GROUP_MAX_SIZE_REACHED`. What a leader hands in cannot be
//! known then, and is answered as in Kafka; so is the broker's own assignment if topics have grown since.

use std::collections::BTreeSet;

use headwater_protocol::{error::ErrorCode, group::Subscription};

use super::Record;
use crate::{
    coordinator::groups::{assign::Assignor, group::Group, member::Member, step::Step},
    model::{
        group::{Client, InstanceId, Join, MemberId, Protocol},
        refusal::Refusal,
    },
};

/// Lengths, versions and numbers of a group in its record, key and value.
const GROUP_BYTES: usize = 64;
/// Lengths and numbers of a member in the record.
const MEMBER_BYTES: usize = 32;
/// What an assignment has besides its topics, and what each topic has besides its name and partitions.
const ASSIGNMENT_BYTES: usize = 10;
const TOPIC_BYTES: usize = 6;
const PARTITION_BYTES: usize = 4;

impl Record {
    /// Bytes of key and value.
    pub(crate) fn size(&self) -> usize {
        self.key().len() + self.value().map_or(0, |value| value.len())
    }
}

impl Group {
    /// Whether the group's record would fit with this member as it wants to be.
    pub(crate) fn check_size(&self, join: &Join, step: &Step<'_>) -> Result<(), Refusal> {
        let id = join.member.as_ref().unwrap_or(&join.fresh);
        let known = self.roster.members.get(id);
        let is_other = |(other, member): &(&MemberId, &Member)| {
            *other != id && (join.instance.is_none() || member.instance != join.instance)
        };
        let others = self.roster.members.iter().filter(is_other);
        let member_len = |(id, member): (&MemberId, &Member)| {
            let assigned = member.assignment.len();
            member_len(id, member.instance.as_ref(), &member.client, &member.protocols) + assigned
        };
        let joiner = member_len_of(join, id) + known.map_or(0, |member| member.assignment.len());
        let names = join.protocols.iter().map(|offer| offer.name.len()).max().unwrap_or(0)
            + self.id.as_str().len()
            + id.as_str().len()
            + join.protocol_type.len();
        let members: usize = others.map(member_len).sum();
        // Members that own on say so when they join again, so what is to come counts twice.
        let times = if known.is_some() { 1 } else { 2 };
        let size = GROUP_BYTES + names + joiner + members + times * self.assignments_len_max(join, step);
        if size <= step.record_bytes_max {
            return Ok(());
        }
        let message = format!(
            "the group would take up to {size} bytes with this member; its record may have {} (log.batch_size_bytes_max, \
             groups.offsets_segment_size_bytes)",
            step.record_bytes_max
        );
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
    }

    /// Most that the broker's assignments can add to those that the members have; 0 if it is not the broker who assigns.
    fn assignments_len_max(&self, join: &Join, step: &Step<'_>) -> usize {
        let mut ours = join
            .protocols
            .iter()
            .filter(|offer| Assignor::of(&offer.name).is_some());
        let Some(subscription) = ours.find_map(|offer| Subscription::decode(&offer.metadata).ok()) else {
            return 0;
        };
        let members = self.roster.members.len() + 1;
        let topics = self.assigned_of.keys().chain(&subscription.topics);
        let topics: BTreeSet<&str> = topics.map(String::as_str).collect();
        let topic_len = |topic: &str| {
            let partitions = step.topics.count(topic) as usize;
            (TOPIC_BYTES + topic.len()) * members.min(partitions) + PARTITION_BYTES * partitions
        };
        let topics: usize = topics.into_iter().map(topic_len).sum();
        let all = members * ASSIGNMENT_BYTES + topics;
        let held: usize = self.roster.members.values().map(|member| member.assignment.len()).sum();
        all.saturating_sub(held)
    }
}

fn member_len_of(join: &Join, id: &MemberId) -> usize {
    member_len(id, join.instance.as_ref(), &join.client, &join.protocols)
}

/// Without its assignment, in the protocol that takes most.
fn member_len(id: &MemberId, instance: Option<&InstanceId>, client: &Client, protocols: &[Protocol]) -> usize {
    let longest = protocols.iter().map(|offer| offer.metadata.len()).max();
    let instance = instance.map_or(0, |instance| instance.as_str().len());
    MEMBER_BYTES + id.as_str().len() + client.id.len() + client.host.len() + instance + longest.unwrap_or(0)
}
