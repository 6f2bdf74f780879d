//! One step of a group: what it sees, and what it leaves behind.

use std::collections::VecDeque;

use bytes::Bytes;
use headwater_protocol::{error::ErrorCode, id::ProducerId};

use super::{committed::offsets::Place, consumers::keys::Changes, group::Group, record::Record, topics::Topics};
use crate::{
    config::GroupsSection,
    model::{
        group::{Answer, CallId, Committed, Generation, GroupId, Join, MemberId, Moment, Reply},
        refusal::Refusal,
        transaction::{Marker, Producer},
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
        /// Within whose transaction.
        of: Option<Producer>,
    },
    /// Append what ends a transaction here.
    AppendMarker {
        write: WriteId,
        marker: Marker,
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
        /// In whose transaction.
        of: Option<ProducerId>,
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
    /// Of all groups: a transaction has ended.
    Marker {
        call: CallId,
        marker: Marker,
    },
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
        self.write_of(group, write, records, None);
    }

    /// The same within a producer's transaction.
    pub(super) fn write_of(&mut self, group: &mut Group, write: Write, records: Vec<Record>, of: Option<Producer>) {
        group.writes += 1;
        let write = self.writes.push(group.id.clone(), write);
        self.effects.push(Effect::Append { write, records, of });
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
    pub(super) fn push(&mut self, group: GroupId, write: Write) -> WriteId {
        let id = WriteId(self.next);
        self.next += 1;
        self.queue.push_back(Queued { id, group, write });
        id
    }

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
