//! What of a group is not in the log yet, or not for sure, and the answers that wait for it.
//!
//! Each key has a record that says all there is to say about it, as it is when it is written. A write that fails leaves its keys here,
//! to be written again with the next; writes behind it that succeed do not count until then, as they tell of what it should have said.

use std::collections::BTreeSet;

use headwater_protocol::error::ErrorCode;

use super::keys::{Changes, Key};
use crate::{
    coordinator::groups::{
        group::{Group, Phase},
        record::{
            Record,
            consumer::{Epoch, Told},
        },
        step::{Step, Write},
    },
    model::group::{CallId, MemberId, Reply, refusal},
};

impl Group {
    /// Writes what has changed, and answers when it, and all before it, is durable.
    pub(crate) fn store(&mut self, answer: Option<(CallId, Reply)>, step: &mut Step<'_>) {
        let Some(consumers) = self.consumers.as_mut() else {
            return answer.into_iter().for_each(|(call, reply)| step.reply(call, reply));
        };
        let journal = &mut consumers.journal;
        if journal.keys.is_empty() {
            if let Some((call, reply)) = answer {
                match step.writes.last_changes(&self.id) {
                    Some(changes) => changes.answers.push((call, reply)),
                    None => step.reply(call, reply),
                }
            }
            return;
        }
        let keys = std::mem::take(&mut journal.keys);
        journal.under_way += 1;
        let changes = Changes {
            failed: journal.failed,
            answers: answer.into_iter().collect(),
            keys,
        };
        let records = changes.keys.iter().map(|key| self.consumers_record(key)).collect();
        step.write(self, Write::Changes(changes), records);
    }

    /// Changes are durable, or could not be made so.
    pub(crate) fn stored_changes(&mut self, changes: Changes, outcome: Result<(), ErrorCode>, step: &mut Step<'_>) {
        let Changes { keys, failed, answers } = changes;
        let mut outcome = outcome;
        if let Some(consumers) = self.consumers.as_mut() {
            let journal = &mut consumers.journal;
            journal.under_way -= 1;
            if outcome.is_err() {
                journal.failed += 1;
                journal.keys.extend(keys);
            } else if failed == journal.failed {
                journal.healed = failed;
            }
            if outcome.is_ok() && journal.healed < journal.failed {
                outcome = Err(ErrorCode::CoordinatorNotAvailable);
            }
        }
        for (call, reply) in answers {
            match outcome {
                Ok(()) => step.reply(call, reply),
                Err(code) => step.refuse(call, refusal(coordinator_code(code))),
            }
        }
        self.downgrade(step);
    }

    /// A record as things are now.
    fn consumers_record(&self, key: &Key) -> Record {
        let Some(consumers) = self.consumers.as_ref() else {
            return self.tombstone();
        };
        let member = |id: &MemberId| consumers.members.get(id);
        let told = match key {
            Key::Classic => return self.tombstone(),
            Key::Epoch => Told::Epoch(Some(Epoch {
                epoch: consumers.epoch,
                hash: consumers.hash,
            })),
            Key::Member(id) => Told::Member(id.clone(), member(id).map(|member| member.subscriber.clone())),
            Key::Target(id) => Told::Target(id.clone(), member(id).map(|member| member.target.clone())),
            Key::TargetEpoch => Told::TargetEpoch(Some(consumers.target_epoch)),
            Key::Current(id) => Told::Current(id.clone(), member(id).map(|member| member.current.clone())),
        };
        Record::Consumer {
            group: self.id.clone(),
            told,
        }
    }

    /// Records that take back all that was said of a group of type consumer, or may have been: what is under way may fail.
    pub(crate) fn consumers_tombstones(&self, step: &Step<'_>) -> Vec<Record> {
        let Some(consumers) = self.consumers.as_ref() else {
            return Vec::new();
        };
        let members = consumers.members.keys().flat_map(Key::of);
        let under_way = step.writes.changes_of(&self.id).flat_map(|changes| &changes.keys);
        let others = consumers.journal.keys.iter().chain(under_way).cloned();
        let keys: BTreeSet<Key> = members.chain(others).collect();
        let record = |told| Record::Consumer {
            group: self.id.clone(),
            told,
        };
        let take_back = |key: Key| match key {
            Key::Classic => Some(self.tombstone()),
            Key::Epoch | Key::TargetEpoch => None,
            Key::Member(id) => Some(record(Told::Member(id, None))),
            Key::Target(id) => Some(record(Told::Target(id, None))),
            Key::Current(id) => Some(record(Told::Current(id, None))),
        };
        let records = keys.into_iter().filter_map(take_back);
        let last = [Told::TargetEpoch(None), Told::Epoch(None)];
        records.chain(last.map(record)).collect()
    }

    /// Something of the group is to be written, as it could not be.
    pub(crate) fn consumers_are_behind(&self) -> bool {
        self.consumers
            .as_ref()
            .is_some_and(|consumers| consumers.journal.has_keys())
    }

    /// Nothing of the group is under way to the disk, or was to be.
    pub(crate) fn consumers_are_settled(&self) -> bool {
        self.consumers
            .as_ref()
            .is_none_or(|consumers| consumers.journal.is_settled())
            && self.phase != Phase::Dead
    }
}

/// What a member is told when a record could not be written: to ask again, here or elsewhere.
pub(super) fn coordinator_code(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::NotCoordinator | ErrorCode::CoordinatorLoadInProgress => code,
        _ => ErrorCode::CoordinatorNotAvailable,
    }
}
