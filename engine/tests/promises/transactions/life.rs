//! A log with transactions in use, one step after another, each compared with its history.

use std::{collections::BTreeMap, rc::Rc};

use headwater_engine::{Appended, Begins, LogConfig, MarkerEpoch, TailMemory, Vetted, disk::SimDisk};
use headwater_protocol::{
    batch::{BatchLimits, Compression, EndMarker, Outcome, stamp},
    id::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};
use rand::{RngExt as _, rngs::StdRng};

use super::{
    history::{History, Kind},
    reader::bases_committed,
};
use crate::support::{NOON, Record, SimJournal, SimLog, builder, open_journal, open_journaled, open_with};

const NOW: Timestamp = Timestamp::new(NOON);

/// Producers, by their ids from 0 on.
const PRODUCERS: u64 = 4;

/// A transactional producer: what it sends next.
#[derive(Debug, Clone, Copy, Default)]
struct Producer {
    epoch: i16,
    sequence: i32,
}

/// What is the same over all lives of a log.
pub struct Plan {
    pub config: LogConfig,
    pub memory: usize,
    pub journal: Option<headwater_engine::JournalConfig>,
    /// Others decide where the high watermark is.
    pub is_held: bool,
    /// It has what a leader has.
    pub follows: bool,
}

pub struct Life {
    pub plan: Plan,
    pub history: History,
    pub rng: StdRng,
    producers: BTreeMap<i64, Producer>,
    next_id: u64,
    /// In the log and acknowledged.
    pub durable: u64,
}

/// A log that is open.
pub struct Open {
    pub log: Rc<SimLog>,
    _journal: Option<Rc<SimJournal>>,
    last_stable: Offset,
}

impl Life {
    pub fn new(plan: Plan, rng: StdRng) -> Life {
        Life {
            plan,
            history: History::default(),
            rng,
            producers: BTreeMap::new(),
            next_id: 0,
            durable: 0,
        }
    }

    pub fn draw(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..most.max(1))
    }

    fn between(&mut self, from: u64, to: u64) -> u64 {
        self.rng.random_range(from..=to)
    }

    /// Opens the log, which is a beginning of what was appended.
    pub async fn open(&mut self, disk: &SimDisk) -> Open {
        let memory = TailMemory::new(self.plan.memory);
        let config = &self.plan.config;
        let (journal, opened) = match self.plan.journal {
            Some(plan) => {
                let journal = open_journal(disk, plan, &memory).await.unwrap();
                let opened = open_journaled(disk, config, &memory, &journal).await;
                (Some(journal), opened)
            }
            None => (None, open_with(disk, config, &memory).await),
        };
        let (log, recovery) = opened.unwrap();
        if self.plan.is_held {
            log.hold_high_watermark(recovery.high_watermark);
        }
        self.history.cut(log.offsets().end.get());
        self.durable = log.offsets().end.get();
        self.raise_epochs();
        let last_stable = log.offsets().last_stable;
        let open = Open {
            log,
            _journal: journal,
            last_stable,
        };
        self.check(&open).await;
        open
    }

    /// What is not there any more is not known to the producers.
    fn raise_epochs(&mut self) {
        for producer in self.producers.values_mut() {
            producer.epoch += 1;
            producer.sequence = 0;
        }
    }

    /// One change of the log.
    pub async fn step(&mut self, open: &mut Open) {
        let log = Rc::clone(&open.log);
        match self.draw(20) {
            0..7 => self.append_data(&log),
            7 => self.append_plain(&log),
            8..12 => self.append_marker(&log),
            12 | 13 => {
                let end = log.offsets().end.get();
                log.flush().await.unwrap();
                self.durable = end;
            }
            14 | 15 if self.plan.is_held => {
                let offsets = log.offsets();
                let to = self.between(offsets.high_watermark.get(), offsets.end.get() + 1);
                log.advance_high_watermark(Offset::new(to));
            }
            16 => {
                let offsets = log.offsets();
                // Seldom below the high watermark, as after a loss of replicas.
                let least = if self.draw(3) > 0 {
                    offsets.high_watermark
                } else {
                    offsets.start
                };
                let to = self.between(least.get(), offsets.end.get());
                // What it drops is not in doubt only when it is done.
                self.durable = self.durable.min(to.saturating_sub(4));
                log.truncate(Offset::new(to)).await.unwrap();
                let end = log.offsets().end.get();
                self.history.cut(end);
                self.durable = self.durable.min(end);
                self.raise_epochs();
                open.last_stable = log.offsets().last_stable;
            }
            17 if self.draw(3) == 0 => {
                let offsets = log.offsets();
                let before = self.between(offsets.start.get(), offsets.high_watermark.get());
                log.delete_records(Offset::new(before)).await.unwrap();
            }
            18 => log.maintain(NOW).await.unwrap(),
            _ => log.checkpoint(NOW).await.unwrap(),
        }
        let last_stable = log.offsets().last_stable;
        assert!(last_stable >= open.last_stable, "the last stable offset goes back");
        open.last_stable = last_stable;
        self.check(open).await;
    }

    fn kept(&mut self, log: &SimLog, appended: &Appended, kind: Kind) {
        assert!(!appended.duplicate);
        let (base, next) = (appended.base_offset.get(), appended.next_offset.get());
        self.history.appended(base, next, kind);
        assert_eq!(log.offsets().end.get(), next);
    }

    fn replicate(log: &SimLog, mut bytes: Vec<u8>) -> Appended {
        stamp(&mut bytes, log.offsets().end, LeaderEpoch::new(0));
        log.append_replica(&bytes, NOW).unwrap()
    }

    fn records(&mut self) -> Vec<Record> {
        let size = [10, 200, 1500][self.draw(3) as usize];
        let count = 1 + self.draw(3);
        (0..count)
            .map(|_| {
                self.next_id += 1;
                Record::new(self.next_id, size)
            })
            .collect()
    }

    fn append_data(&mut self, log: &SimLog) {
        let id = self.draw(PRODUCERS) as i64;
        let records = self.records();
        let producer = self.producers.entry(id).or_default();
        let mut batch = builder(&records, Compression::None);
        batch.set_transactional();
        batch.set_producer(
            ProducerId::new(id),
            ProducerEpoch::new(producer.epoch),
            Sequence::new(producer.sequence),
        );
        producer.sequence += records.len() as i32;
        let bytes = batch.build().into_bytes();
        let appended = if self.plan.follows {
            Life::replicate(log, bytes)
        } else {
            let limits = BatchLimits {
                batch_size_max: 1 << 20,
            };
            let vetted = Vetted::at_once(&bytes, &limits).unwrap();
            log.append_vetted(&vetted.beginning(Begins::Anywhere), NOW).unwrap()
        };
        self.kept(log, &appended, Kind::Data(id));
    }

    fn append_plain(&mut self, log: &SimLog) {
        let bytes = builder(&self.records(), Compression::None).build().into_bytes();
        let appended = if self.plan.follows {
            Life::replicate(log, bytes)
        } else {
            log.append(&bytes, NOW).unwrap()
        };
        self.kept(log, &appended, Kind::Plain);
    }

    fn append_marker(&mut self, log: &SimLog) {
        let id = self.draw(PRODUCERS) as i64;
        let outcome = [Outcome::Abort, Outcome::Commit][self.draw(2) as usize];
        let raises = self.draw(2) == 0;
        let producer = self.producers.entry(id).or_default();
        if raises {
            producer.epoch += 1;
            producer.sequence = 0;
        }
        let marker = EndMarker {
            producer_id: ProducerId::new(id),
            producer_epoch: ProducerEpoch::new(producer.epoch),
            outcome,
            coordinator_epoch: 0,
        };
        let rule = if raises { MarkerEpoch::Raised } else { MarkerEpoch::Same };
        let appended = if self.plan.follows {
            Life::replicate(log, marker.encode(NOW))
        } else {
            log.append_marker(&marker, rule, NOW).unwrap()
        };
        self.kept(log, &appended, Kind::Marker(id, outcome));
    }

    pub async fn check(&mut self, open: &Open) {
        let log = &open.log;
        self.history.check_open(log);
        let offsets = log.offsets();
        let from = self.between(offsets.start.get(), offsets.end.get());
        let to = self.between(from, offsets.end.get());
        self.history.check_aborted(log, from, to).await;
        if self.draw(4) == 0 {
            let max_bytes = self.draw(8000);
            let expected = self.history.committed(offsets.start.get(), offsets.last_stable.get());
            assert_eq!(bases_committed(log, max_bytes).await, expected, "what is committed");
        }
    }
}
