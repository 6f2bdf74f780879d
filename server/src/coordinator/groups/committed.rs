//! Committed offsets of a group: what has been made durable, and the requests that change it.
//!
//! An offset is shown once its record is durable. Records become durable in the order in which they were appended, so the
//! last word in memory is also the last in the log.

mod expiry;
pub(super) mod offsets;
pub(super) mod pending;

use std::collections::BTreeSet;

use headwater_protocol::{error::ErrorCode, group::CONSUMER, id::ProducerId};

use self::offsets::Place;
use super::{
    group::{Group, Phase},
    record::Record,
    step::{Step, Write},
};
use crate::model::{
    bounds::AnswerSize,
    group::{Answer, CallId, CommitItem, Committed, Generation, GroupId, Identity, Protocol, Since, refusal},
    refusal::Refusal,
    transaction::{End, Producer},
};

pub(super) fn offset_record(group: &GroupId, (topic, partition): &Place, value: Option<Committed>) -> Record {
    Record::Offset {
        group: group.clone(),
        topic: topic.clone(),
        partition: *partition,
        value,
    }
}

impl Group {
    /// Where it has an offset, or will have one when what is under way is durable. Who deletes must delete the latter too: their
    /// records are in the log already.
    pub(super) fn places(&self, step: &Step<'_>) -> BTreeSet<Place> {
        let committed = self.offsets.committed.keys();
        let pending = self.pending.places();
        let all = committed.chain(pending).chain(step.commits_in_flight(&self.id));
        all.cloned().collect()
    }

    /// Records that delete the offsets of these partitions.
    pub(super) fn offset_tombstones<'a>(&self, places: impl IntoIterator<Item = &'a Place>) -> Vec<Record> {
        let delete = |place| offset_record(&self.id, place, None);
        places.into_iter().map(delete).collect()
    }

    pub(super) fn commit(&mut self, call: CallId, who: &Identity, items: Vec<CommitItem>, step: &mut Step<'_>) {
        if let Err(code) = self.may_commit(who) {
            return step.refuse(call, refusal(code));
        }
        self.touch(&who.member, step);
        if matches!(self.phase, Phase::Completing { .. }) {
            return step.refuse(call, refusal(ErrorCode::RebalanceInProgress));
        }
        self.write_commit(call, None, items, step);
    }

    /// Commits within a producer's transaction: it counts once that is committed.
    pub(super) fn commit_in(
        &mut self,
        call: CallId,
        (who, producer): (&Identity, Producer),
        items: Vec<CommitItem>,
        step: &mut Step<'_>,
    ) {
        if let Err(code) = self.may_commit_in(who) {
            return step.refuse(call, refusal(code));
        }
        self.touch(&who.member, step);
        self.write_commit(call, Some(producer), items, step);
    }

    fn write_commit(&mut self, call: CallId, of: Option<Producer>, items: Vec<CommitItem>, step: &mut Step<'_>) {
        let codes: Vec<ErrorCode> = items.iter().map(|item| verdict(item, step)).collect();
        let good = items.into_iter().zip(&codes).filter(|(_, code)| code.is_none());
        let offsets: Vec<(Place, Committed)> = good
            .map(|(item, _)| {
                let committed = Committed {
                    offset: item.offset,
                    leader_epoch: item.leader_epoch,
                    metadata: item.metadata,
                    at: Since::now(step.now),
                };
                ((item.topic, item.partition), committed)
            })
            .collect();
        if offsets.is_empty() {
            return step.answer(call, Answer::Committed(codes));
        }
        let record = |(place, committed): &(Place, Committed)| offset_record(&self.id, place, Some(committed.clone()));
        let records = offsets.iter().map(record).collect();
        let write = Write::Commit {
            call,
            of: of.map(|producer| producer.id),
            offsets,
            codes,
        };
        step.write_of(self, write, records, of);
    }

    /// A producer says which member has read what it writes about, or, as older ones do, nothing.
    fn may_commit_in(&self, who: &Identity) -> Result<(), ErrorCode> {
        let is_member = who.generation >= Generation::ZERO || !who.member.as_str().is_empty() || who.instance.is_some();
        match self.phase {
            Phase::Dead => Err(ErrorCode::CoordinatorNotAvailable),
            _ if !is_member => Ok(()),
            Phase::Consumer => self.check_consumer(who),
            _ => self.check_member(who),
        }
    }

    fn may_commit(&self, who: &Identity) -> Result<(), ErrorCode> {
        let is_member = who.generation >= Generation::ZERO || !who.member.as_str().is_empty() || who.instance.is_some();
        match self.phase {
            Phase::Dead => Err(ErrorCode::CoordinatorNotAvailable),
            Phase::Consumer => self.check_consumer(who),
            // Nobody's membership can be checked: whoever claims one was taken out.
            Phase::Empty if who.generation < Generation::ZERO => Ok(()),
            _ if is_member => self.check_member(who),
            // A consumer that assigns itself must not commit what members are working on.
            _ => Err(ErrorCode::UnknownMemberId),
        }
    }

    /// Whether it is a member of a group of type consumer, in its epoch.
    fn check_consumer(&self, who: &Identity) -> Result<(), ErrorCode> {
        let consumers = self.consumers.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        consumers.check(who)
    }

    /// To a member of a group of type consumer only in its epoch, if it says who it is.
    pub(super) fn fetch_offsets(&self, who: Option<&Identity>, places: Option<Vec<Place>>) -> Result<Answer, Refusal> {
        if let Some(who) = who
            && self.consumers.is_some()
        {
            self.check_consumer(who).map_err(refusal)?;
        }
        let committed = &self.offsets.committed;
        let mut size = AnswerSize::default();
        let mut count = |place: &Place, committed: Option<&Committed>| {
            let metadata = committed.map_or(0, |committed| committed.metadata.len());
            size.add(place.0.len() + metadata, "name the partitions, and not all at once")
        };
        match &places {
            None => committed
                .iter()
                .try_for_each(|(place, known)| count(place, Some(known)))?,
            Some(places) => places.iter().try_for_each(|place| count(place, committed.get(place)))?,
        }
        let places = places.unwrap_or_else(|| committed.keys().cloned().collect());
        let find = |place: Place| {
            let known = committed.get(&place).cloned();
            (place.0, place.1, known)
        };
        Ok(Answer::Offsets(places.into_iter().map(find).collect()))
    }

    /// A transaction has ended, and what was committed in it counts, or never does.
    pub(super) fn ended(&mut self, producer: ProducerId, end: End) {
        for (place, committed) in self.pending.end(producer, end) {
            self.offsets.apply(place, Some(committed));
        }
    }

    /// A record about an offset counts.
    pub(super) fn stands(&mut self, place: Place, value: Option<Committed>) {
        self.pending.overtake(&place);
        self.offsets.apply(place, value);
    }

    pub(super) fn forget_offsets(&mut self, call: CallId, places: Vec<Place>, step: &mut Step<'_>) {
        let is_consumer = self.protocol_type.as_deref() == Some(CONSUMER);
        match self.phase {
            Phase::Dead => return step.refuse(call, refusal(ErrorCode::CoordinatorNotAvailable)),
            Phase::Empty => {}
            _ if is_consumer => {}
            _ => return step.refuse(call, refusal(ErrorCode::NonEmptyGroup)),
        }
        let in_use: BTreeSet<String> = if self.is_empty() {
            BTreeSet::new()
        } else {
            self.subscribed_topics()
        };
        let code = |place: &Place| {
            if in_use.contains(&place.0) {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            }
        };
        let codes: Vec<ErrorCode> = places.iter().map(code).collect();
        let free = places.into_iter().zip(&codes).filter(|(_, code)| code.is_none());
        let known = self.places(step);
        let places: Vec<Place> = free
            .map(|(place, _)| place)
            .filter(|place| known.contains(place))
            .collect();
        if places.is_empty() {
            return step.answer(call, Answer::Forgotten(codes));
        }
        let records = self.offset_tombstones(&places);
        let write = Write::Forget {
            call: Some((call, codes)),
            places,
        };
        step.write(self, write, records);
    }

    /// Every topic that a member subscribes to in any of its protocols.
    fn subscribed_topics(&self) -> BTreeSet<String> {
        let offers = self.roster.members.values().flat_map(|member| &member.protocols);
        let read = |offer: &Protocol| headwater_protocol::group::Subscription::decode(&offer.metadata).ok();
        offers
            .filter_map(read)
            .flat_map(|subscription| subscription.topics)
            .chain(
                self.consumers
                    .iter()
                    .flat_map(|consumers| consumers.subscribed())
                    .map(str::to_owned),
            )
            .collect()
    }
}

fn verdict(item: &CommitItem, step: &Step<'_>) -> ErrorCode {
    let is_there = u32::try_from(item.partition).is_ok_and(|partition| partition < step.topics.count(&item.topic));
    if !is_there {
        ErrorCode::UnknownTopicOrPartition
    } else if item.metadata.len() as u64 > step.config.offset_metadata_bytes_max.bytes() {
        ErrorCode::OffsetMetadataTooLarge
    } else if item.offset < 0 {
        ErrorCode::OffsetOutOfRange
    } else {
        ErrorCode::None
    }
}
