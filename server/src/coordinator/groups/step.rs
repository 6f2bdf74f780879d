//! One step of a group: what it sees, and what it leaves behind.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_protocol::error::ErrorCode;

use super::{committed::offsets::Place, consumers::keys::Changes, group::Group, record::Record, topics::Topics};
use crate::{
    config::GroupsSection,
    model::{
        group::{Answer, CallId, Committed, Generation, GroupId, Join, MemberId, Moment, Reply},
        refusal::Refusal,
    },
};

/// Names an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WriteId(u64);

#[derive(Debug)]
pub(crate) enum Effect {
    Answer {
        call: CallId,
        reply: Reply,
    },
    /// Append these records, all or none.
    Append {
        write: WriteId,
        records: Vec<Record>,
    },
    /// The record of a group would be too large to be stored, in bytes: its members get no partitions.
    TooLarge {
        group: GroupId,
        size: usize,
        max: usize,
    },
    /// A new generation has begun.
    Rebalanced {
        group: GroupId,
        generation: Generation,
        members: usize,
    },
}

/// What happens when an append is durable.
#[derive(Debug)]
pub(super) enum Write {
    Assigned {
        generation: Generation,
        assigned: Vec<(MemberId, Bytes)>,
    },
    /// Nobody was left.
    Emptied,
    /// A static member has taken the place of its former self.
    Replace {
        call: CallId,
        member: MemberId,
    },
    Commit {
        call: CallId,
        offsets: Vec<(Place, Committed)>,
        codes: Vec<ErrorCode>,
    },
    Forget {
        call: Option<(CallId, Vec<ErrorCode>)>,
        places: Vec<Place>,
    },
    Delete {
        call: CallId,
    },
    /// It has expired.
    End,
    /// Of a group of type consumer.
    Changes(Changes),
    /// A group of type consumer becomes a classic one, which somebody then joins.
    TurnClassic {
        then: Option<(CallId, Join)>,
    },
}

#[derive(Debug)]
pub(super) struct Queued {
    pub(super) id: WriteId,
    pub(super) group: GroupId,
    pub(super) write: Write,
}

/// What a step of a group sees and leaves behind.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) now: Moment,
    pub(super) config: &'a GroupsSection,
    /// Most that one record of the log may have, key and value, in bytes.
    pub(super) record_bytes_max: usize,
    pub(super) topics: &'a Topics,
    pub(super) writes: &'a mut Writes,
    pub(super) effects: &'a mut Vec<Effect>,
    pub(super) has_rebalanced: bool,
}

impl Step<'_> {
    pub(super) fn effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn reply(&mut self, call: CallId, reply: Reply) {
        self.effects.push(Effect::Answer { call, reply });
    }

    pub(super) fn answer(&mut self, call: CallId, answer: Answer) {
        self.effects.push(Effect::Answer {
            call,
            reply: Ok(answer),
        });
    }

    pub(super) fn refuse(&mut self, call: CallId, refusal: Refusal) {
        let reply = Err(refusal);
        self.effects.push(Effect::Answer { call, reply });
    }

    pub(super) fn write(&mut self, group: &mut Group, write: Write, records: Vec<Record>) {
        group.writes += 1;
        let id = WriteId(self.writes.next);
        self.writes.next += 1;
        self.writes.queue.push_back(Queued {
            id,
            group: group.id.clone(),
            write,
        });
        self.effects.push(Effect::Append { write: id, records });
    }

    /// What a group commits in appends that are not durable yet.
    pub(super) fn commits_in_flight(&self, group: &GroupId) -> impl Iterator<Item = &Place> {
        let of_group = self.writes.queue.iter().filter(move |queued| queued.group == *group);
        let offsets = of_group.filter_map(|queued| match &queued.write {
            Write::Commit { offsets, .. } => Some(offsets),
            _ => None,
        });
        offsets.flatten().map(|(place, _)| place)
    }

    pub(super) fn rebalanced(&mut self) {
        self.has_rebalanced = true;
    }
}

/// Appends that are not durable yet, in order.
#[derive(Debug, Default)]
pub(super) struct Writes {
    next: u64,
    pub(super) queue: VecDeque<Queued>,
}

impl Writes {
    /// Changes of a group of type consumer that are not durable yet.
    pub(super) fn changes_of(&self, group: &GroupId) -> impl Iterator<Item = &Changes> {
        let of_group = self.queue.iter().filter(move |queued| queued.group == *group);
        of_group.filter_map(|queued| match &queued.write {
            Write::Changes(changes) => Some(changes),
            _ => None,
        })
    }

    /// The last changes of a group of type consumer that are not durable yet.
    pub(super) fn last_changes(&mut self, group: &GroupId) -> Option<&mut Changes> {
        let mut of_group = self.queue.iter_mut().rev().filter(|queued| queued.group == *group);
        of_group.find_map(|queued| match &mut queued.write {
            Write::Changes(changes) => Some(changes),
            _ => None,
        })
    }
}
