//! What happened to every record that was ever appended, and so what a log must hold, and what it may hold, after a crash.

use std::collections::{BTreeMap, HashMap};

use crate::support::{SimLog, Stored, read_all};

/// What is known of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Appended; it may be there after a crash or not.
    Open,
    /// Acknowledged, or seen by a consumer: it must be there.
    Promised,
    /// The log has said that it dropped it: it must never be seen again.
    Dropped,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    offset: u64,
    fate: Fate,
}

/// The history of one log over all its crashes and restarts.
#[derive(Debug, Default)]
pub struct History {
    entries: HashMap<u64, Entry>,
    /// The record that has the offset at present.
    at: BTreeMap<u64, u64>,
    next_id: u64,
    /// Refused, and perhaps not gone from the disk yet.
    refused: Vec<u64>,
    /// Log start offsets that are possible: from what has been promised to what has been asked for.
    start_promised: u64,
    start_possible: u64,
}

impl History {
    /// An id for a record that is about to be appended.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// How many ids were given.
    pub fn ids(&self) -> u64 {
        self.next_id
    }

    /// So many ids are another's.
    pub fn skip_ids(&mut self, count: u64) {
        self.next_id = count;
    }

    pub fn appended(&mut self, base_offset: u64, ids: &[u64]) {
        for (offset, id) in (base_offset..).zip(ids) {
            let fate = Fate::Open;
            self.entries.insert(*id, Entry { offset, fate });
            if let Some(old) = self.at.insert(offset, *id) {
                assert_ne!(
                    self.entries[&old].fate,
                    Fate::Promised,
                    "offset {offset} is given twice"
                );
            }
        }
    }

    /// The log has acknowledged these.
    pub fn acknowledged(&mut self, ids: &[u64]) {
        for id in ids {
            let entry = self.entries.get_mut(id).expect("it was appended");
            // A truncation that came between the acknowledgement and the one who waits for it wins.
            if entry.fate == Fate::Open {
                entry.fate = Fate::Promised;
            }
        }
    }

    /// The log says that it has dropped, or is about to drop, these.
    pub fn refused(&mut self, ids: &[u64]) {
        for id in ids {
            assert_ne!(
                self.entries[id].fate,
                Fate::Promised,
                "record {id} is acknowledged and refused"
            );
        }
        self.refused.extend(ids);
    }

    /// What was refused is gone for good.
    pub fn refusals_settled(&mut self) {
        for id in self.refused.drain(..) {
            self.entries.get_mut(&id).expect("it was appended").fate = Fate::Dropped;
        }
    }

    /// A consumer has read these.
    pub fn seen(&mut self, records: &[Stored]) {
        for record in records {
            let entry = self.entries.get_mut(&record.id).expect("it was appended");
            assert_eq!(entry.offset, record.offset, "record {} has moved", record.id);
            assert_ne!(entry.fate, Fate::Dropped, "a dropped record is seen: {record:?}");
            entry.fate = Fate::Promised;
        }
    }

    /// The log is about to drop everything from `offset` on: no promise holds there any more. If its start lies there, it
    /// may move back.
    pub fn drop_begins(&mut self, offset: u64) {
        self.start_promised = self.start_promised.min(offset);
        for id in self.at.range(offset..).map(|(_, id)| *id) {
            let entry = self.entries.get_mut(&id).expect("it was appended");
            if entry.fate == Fate::Promised {
                entry.fate = Fate::Open;
            }
        }
    }

    /// The log has dropped everything from `offset` on.
    pub fn dropped(&mut self, offset: u64) {
        for id in self.at.range(offset..).map(|(_, id)| *id) {
            self.entries.get_mut(&id).expect("it was appended").fate = Fate::Dropped;
        }
    }

    /// The log start offset may move up to `offset` from now on.
    pub fn start_asked(&mut self, offset: u64) {
        self.start_possible = self.start_possible.max(offset);
    }

    /// The log start offset is at least this for good.
    pub fn start_moved(&mut self, offset: u64) {
        self.start_asked(offset);
        self.start_promised = self.start_promised.max(offset);
    }

    /// Checks a log that has just been recovered, and takes what it holds for what it must hold from now on.
    pub async fn check_recovered(&mut self, log: &SimLog) {
        let offsets = log.offsets();
        let start = offsets.start.get();
        assert_eq!(offsets.durable, offsets.end, "all that was recovered is durable");
        assert!(
            (self.start_promised..=self.start_possible).contains(&start),
            "the log begins at {start}, which is not between {} and {}",
            self.start_promised,
            self.start_possible
        );
        let records = read_all(log).await;
        let end = offsets.end.get();
        assert_eq!(records.len() as u64, end - start);
        for record in &records {
            let entry = self.entries.get(&record.id).expect("it was appended once");
            assert_eq!(entry.offset, record.offset, "record {} has moved", record.id);
            assert_ne!(entry.fate, Fate::Dropped, "a dropped record is back: {record:?}");
        }
        let lost = self
            .entries
            .iter()
            .find(|(_, entry)| entry.fate == Fate::Promised && entry.offset >= end);
        assert!(lost.is_none(), "lost, the log ends at {end}: {lost:?}");
        for entry in self.entries.values_mut().filter(|entry| entry.fate == Fate::Open) {
            entry.fate = Fate::Dropped;
        }
        for record in &records {
            self.entries.get_mut(&record.id).expect("seen above").fate = Fate::Promised;
        }
        self.refused.clear();
        self.start_moved(start);
    }
}
