//! What a group of type consumer looks like from outside: in the terms of its own protocol, and in those of the classic one.

use bytes::Bytes;
use headwater_protocol::group::{Assignment, CONSUMER, Subscription, TopicPartitions};

use super::{Consumers, Member};
use crate::{
    coordinator::groups::{group::Group, step::Step, topics::Topics},
    model::{
        consumer::{ConsumerGroup, ConsumerMember, Share},
        group::{Answer, DescribedMember, Description, Generation, Kind, MemberId},
    },
};

impl Group {
    pub(crate) fn describe_consumers(&self) -> Option<Answer> {
        let consumers = self.consumers.as_ref()?;
        let member = |(id, member): (&MemberId, &Member)| {
            let Member {
                subscriber,
                current,
                target,
                ..
            } = member;
            ConsumerMember {
                id: id.clone(),
                instance: subscriber.instance.clone(),
                rack: subscriber.rack.clone(),
                epoch: current.epoch,
                client: subscriber.client.clone(),
                topics: subscriber.topics.iter().cloned().collect(),
                pattern: subscriber.pattern.clone(),
                assigned: current.assigned.clone(),
                target: target.clone(),
                is_classic: subscriber.classic.is_some(),
            }
        };
        Some(Answer::DescribedConsumers(ConsumerGroup {
            state: self.state(),
            epoch: consumers.epoch,
            target_epoch: consumers.target_epoch,
            assignor: consumers.assignor(),
            members: consumers.members.iter().map(member).collect(),
        }))
    }

    /// In the terms of the classic protocol.
    pub(crate) fn describe_as_classic(&self, consumers: &Consumers, step: &Step<'_>) -> Answer {
        let member = |(id, member): (&MemberId, &Member)| {
            let topics = consumers.topics_of(&member.subscriber).into_iter();
            let subscription = Subscription {
                topics: topics.map(str::to_owned).collect(),
                ..Subscription::default()
            };
            DescribedMember {
                id: id.clone(),
                instance: member.subscriber.instance.clone(),
                client: member.subscriber.client.clone(),
                metadata: subscription.encode().into(),
                assignment: encode(&member.current.assigned, step.topics),
            }
        };
        Answer::Described(Description {
            kind: Kind::Consumer,
            state: self.state(),
            protocol_type: CONSUMER.to_owned(),
            members: consumers.members.iter().map(member).collect(),
            generation: Generation::new(consumers.epoch),
            protocol: consumers.assignor().name().to_owned(),
        })
    }
}

/// Partitions as members of the classic protocol are told of them. Topics that are gone are left out.
pub(super) fn encode(share: &Share, topics: &Topics) -> Bytes {
    let spots: Vec<_> = share.iter().copied().collect();
    let of_topic = |spots: &[(headwater_protocol::id::TopicId, i32)]| {
        Some(TopicPartitions {
            topic: topics.name(spots.first()?.0)?.to_owned(),
            partitions: spots.iter().map(|(_, partition)| *partition).collect(),
        })
    };
    let partitions = spots.chunk_by(|(one, _), (other, _)| one == other).filter_map(of_topic);
    let assignment = Assignment {
        partitions: partitions.collect(),
        user_data: None,
    };
    assignment.encode().into()
}

/// The reverse of [`encode`].
pub(super) fn spots(partitions: &[TopicPartitions], topics: &Topics) -> Share {
    let of_topic = |of_topic: &TopicPartitions| {
        let id = topics.find(&of_topic.topic).map(|(id, _)| id);
        let partitions = of_topic.partitions.clone();
        id.into_iter()
            .flat_map(move |id| partitions.clone().into_iter().map(move |partition| (id, partition)))
    };
    partitions.iter().flat_map(of_topic).collect()
}
