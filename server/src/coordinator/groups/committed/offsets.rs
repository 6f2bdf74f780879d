//! Where a group goes on: its committed offsets, as the log has them.

use std::collections::BTreeMap;

use crate::model::group::Committed;

/// A partition of a topic that may no longer exist.
pub(crate) type Place = (String, i32);

#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Offsets {
    pub(crate) committed: BTreeMap<Place, Committed>,
}

impl Offsets {
    /// Makes memory what the records say.
    pub(crate) fn apply(&mut self, place: Place, value: Option<Committed>) {
        match value {
            Some(committed) => self.committed.insert(place, committed),
            None => self.committed.remove(&place),
        };
    }
}
