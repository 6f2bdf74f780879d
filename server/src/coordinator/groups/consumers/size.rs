//! How large the records of a member can become: each has to fit a batch of the log, or nothing of the group could be made durable any
//! more. Who would bring that about is refused as in a classic group, with `GROUP_MAX_SIZE_REACHED` (KIP-389). Topics that have grown
//! since bring it about with the next targets: then members keep those that they have.

use headwater_protocol::error::ErrorCode;

use super::{Consumers, state::Subscriber};
use crate::{
    coordinator::groups::{
        group::Group,
        record::{Record, consumer::Told},
        step::{Effect, Step},
        topics::Topics,
    },
    model::{consumer::Share, group::MemberId, refusal::Refusal},
};

/// Lengths, versions and numbers of what a member has, key and value.
const MEMBER_BYTES: usize = 64;
/// Of each topic, twice: of what it has, and of what it is to give up.
const TOPIC_BYTES: usize = 2 * 24;
const PARTITION_BYTES: usize = 4;

impl Group {
    /// Whether all records of a member would fit that subscribes like this, also if it is alone and has everything.
    pub(super) fn check_consumer_size(
        &self,
        consumers: &Consumers,
        id: &MemberId,
        subscriber: &Subscriber,
        step: &Step<'_>,
    ) -> Result<(), Refusal> {
        let said = Record::Consumer {
            group: self.id.clone(),
            told: Told::Member(id.clone(), Some(subscriber.clone())),
        };
        let size = said
            .size()
            .max(self.share_len_max(consumers, id, subscriber, step.topics));
        if size <= step.record_bytes_max {
            return Ok(());
        }
        let message = format!(
            "a record of the member would take up to {size} bytes; one may have {} (log.batch_size_bytes_max, \
             groups.offsets_segment_size_bytes)",
            step.record_bytes_max
        );
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, message))
    }

    /// Bytes of the record of a member that has all that it subscribes to.
    fn share_len_max(&self, consumers: &Consumers, id: &MemberId, subscriber: &Subscriber, topics: &Topics) -> usize {
        // A pattern that is new is looked at when its topics are to be given out.
        let topics = consumers
            .topics_of(subscriber)
            .into_iter()
            .filter_map(|name| topics.find(name));
        self.len_of(id, topics.map(|(_, partitions)| partitions as usize))
    }

    /// Bytes of the largest record of a member that has so many partitions of each topic.
    fn len_of(&self, id: &MemberId, topics: impl Iterator<Item = usize>) -> usize {
        let topics = topics.map(|partitions| TOPIC_BYTES + PARTITION_BYTES * partitions);
        MEMBER_BYTES + self.id.as_str().len() + id.as_str().len() + topics.sum::<usize>()
    }

    /// Whether these targets fit; it is said if they do not.
    pub(super) fn targets_fit(&self, targets: &[(MemberId, Share)], step: &mut Step<'_>) -> bool {
        let len = |(id, target): &(MemberId, Share)| {
            let spots: Vec<_> = target.iter().collect();
            let topics = spots.chunk_by(|(one, _), (other, _)| one == other).map(<[_]>::len);
            self.len_of(id, topics)
        };
        let (size, max) = (targets.iter().map(len).max().unwrap_or(0), step.record_bytes_max);
        if size > max {
            let group = self.id.clone();
            step.effect(Effect::TooLarge { group, size, max });
        }
        size <= max
    }
}
