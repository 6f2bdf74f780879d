//! When which group has something to do: one entry a group, at or before the time that is meant.
//!
//! A deadline that moves to later, as each heartbeat makes it, is left where it is: the group is looked at once in vain.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use crate::model::group::GroupId;

#[derive(Debug, Default)]
pub(super) struct Deadlines {
    queue: BTreeSet<(Duration, GroupId)>,
    of: BTreeMap<GroupId, Duration>,
}

impl Deadlines {
    pub(super) fn next(&self) -> Option<Duration> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Sees to it that the group is looked at by then.
    pub(super) fn set(&mut self, group: &GroupId, at: Option<Duration>) {
        let Some(at) = at else { return };
        match self.of.get(group) {
            Some(set) if *set <= at => return,
            Some(set) => {
                self.queue.remove(&(*set, group.clone()));
            }
            None => {}
        }
        self.queue.insert((at, group.clone()));
        self.of.insert(group.clone(), at);
    }

    /// The next group whose time has come.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<GroupId> {
        if self.next()? > now {
            return None;
        }
        let (_, group) = self.queue.pop_first()?;
        self.of.remove(&group);
        Some(group)
    }
}

pub(super) fn earliest<const N: usize>(times: [Option<Duration>; N]) -> Option<Duration> {
    times.into_iter().flatten().min()
}
