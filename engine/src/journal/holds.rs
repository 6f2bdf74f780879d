//! Which frames of a journal are needed, and by whom: those with batches that are not in a segment's file yet. No I/O.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use headwater_protocol::id::Offset;

use crate::owner::Owner;

#[derive(Debug, Default)]
pub(super) struct Holds {
    /// Of each partition its frames, oldest first, with the offset after its batches there.
    frames: HashMap<Owner, VecDeque<(u64, Offset)>>,
    /// Partitions by the oldest frame that they need.
    order: BTreeSet<(u64, Owner)>,
    /// Somebody is about to write these to their segments.
    filing: HashSet<Owner>,
}

impl Holds {
    /// A durable frame has batches of this partition.
    pub(super) fn add(&mut self, owner: Owner, sequence: u64, next: Offset) {
        let frames = self.frames.entry(owner).or_default();
        match frames.back_mut() {
            Some((newest, end)) if *newest == sequence => *end = next,
            _ => frames.push_back((sequence, next)),
        }
        if let [(only, _)] = *frames.make_contiguous() {
            self.order.insert((only, owner));
        }
    }

    /// All of the partition below this offset is in its segments.
    pub(super) fn filed(&mut self, owner: Owner, below: Offset) {
        let Some(frames) = self.frames.get_mut(&owner) else {
            return;
        };
        let Some((oldest, _)) = frames.front().copied() else {
            return;
        };
        while frames.pop_front_if(|(_, next)| *next <= below).is_some() {}
        let now = frames.front().map(|(sequence, _)| *sequence);
        if now == Some(oldest) {
            return;
        }
        self.order.remove(&(oldest, owner));
        match now {
            Some(sequence) => {
                self.order.insert((sequence, owner));
            }
            None => {
                self.frames.remove(&owner);
            }
        }
    }

    /// The partition needs nothing any more.
    pub(super) fn release(&mut self, owner: Owner) {
        if let Some(frames) = self.frames.remove(&owner)
            && let Some((oldest, _)) = frames.front()
        {
            self.order.remove(&(*oldest, owner));
        }
    }

    /// The oldest frame that is needed.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.order.first().map(|(sequence, _)| *sequence)
    }

    /// The partition that needs the oldest frame of those that nobody works on, who does from now on.
    pub(super) fn begin_filing(&mut self) -> Option<Owner> {
        let idle = self.order.iter().find(|(_, owner)| !self.filing.contains(owner));
        let owner = idle.map(|(_, owner)| *owner)?;
        self.filing.insert(owner);
        Some(owner)
    }

    pub(super) fn end_filing(&mut self, owner: Owner) {
        self.filing.remove(&owner);
    }

    /// Partitions that need something.
    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::id::{PartitionIndex, TopicId};

    use super::*;

    fn owner(partition: i32) -> Owner {
        Owner {
            topic: TopicId::NIL,
            partition: PartitionIndex::new(partition),
        }
    }

    #[test]
    fn frames_are_needed_until_all_of_their_batches_are_filed() {
        let mut holds = Holds::default();
        holds.add(owner(1), 5, Offset::new(10));
        holds.add(owner(1), 5, Offset::new(12));
        holds.add(owner(2), 6, Offset::new(3));
        holds.add(owner(1), 7, Offset::new(20));
        assert_eq!((holds.oldest(), holds.len()), (Some(5), 2));
        holds.filed(owner(1), Offset::new(11));
        assert_eq!(holds.oldest(), Some(5), "the batch of 11 is not filed");
        holds.filed(owner(1), Offset::new(15));
        assert_eq!(holds.oldest(), Some(6));
        assert_eq!(holds.begin_filing(), Some(owner(2)));
        assert_eq!(holds.begin_filing(), Some(owner(1)));
        assert_eq!(holds.begin_filing(), None, "both are being filed");
        holds.end_filing(owner(2));
        assert_eq!(holds.begin_filing(), Some(owner(2)));
        holds.release(owner(2));
        holds.filed(owner(2), Offset::new(99));
        assert_eq!(holds.oldest(), Some(7));
        holds.filed(owner(1), Offset::new(20));
        assert_eq!((holds.oldest(), holds.len()), (None, 0));
    }
}
