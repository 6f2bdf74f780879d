//! What of a group of type consumer is to be written.

use std::collections::BTreeSet;

use crate::model::group::{CallId, MemberId, Reply};

/// Something that has a record of its own, in the order in which they are written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// What the group was before it was of type consumer.
    Classic,
    Epoch,
    Member(MemberId),
    Target(MemberId),
    TargetEpoch,
    Current(MemberId),
}

impl Key {
    /// All that a member has.
    pub(super) fn of(member: &MemberId) -> [Key; 3] {
        [
            Key::Member(member.clone()),
            Key::Target(member.clone()),
            Key::Current(member.clone()),
        ]
    }
}

#[derive(Debug, Default)]
pub(super) struct Journal {
    /// To be written.
    pub(super) keys: BTreeSet<Key>,
    /// Writes under way.
    pub(super) under_way: usize,
    /// How many have failed, and how many of these have been made up for.
    pub(super) failed: u64,
    pub(super) healed: u64,
}

impl Journal {
    pub(super) fn note(&mut self, key: Key) {
        self.keys.insert(key);
    }

    pub(super) fn is_settled(&self) -> bool {
        self.keys.is_empty() && self.under_way == 0
    }

    pub(super) fn has_keys(&self) -> bool {
        !self.keys.is_empty()
    }

    #[cfg(test)]
    pub(super) fn is_behind(&self) -> bool {
        self.healed < self.failed
    }

    pub(super) fn clear(&mut self) {
        self.keys.clear();
    }
}

/// Changes of a group of type consumer on their way to the disk, and who is to be told of them then.
#[derive(Debug)]
pub(crate) struct Changes {
    pub(super) keys: BTreeSet<Key>,
    /// How many writes had failed when this one was made: it makes up for those.
    pub(super) failed: u64,
    pub(crate) answers: Vec<(CallId, Reply)>,
}
