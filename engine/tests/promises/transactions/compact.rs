//! Compaction takes out what was aborted, and nothing that a reader of what is committed needs: neither a record nor a marker.

use std::{collections::BTreeMap, rc::Rc};

use headwater_engine::{
    Begins, CompactionConfig, LogConfig, MarkerEpoch, ReadLimit, TailMemory, Vetted, disk::SimDisk,
};
use headwater_protocol::{
    batch::{BatchBuilder, BatchLimits, Batches, Compression, EndMarker, Outcome, RecordSet},
    id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::reader::read_committed;
use crate::support::{NOON, SimLog, directory, for_each_seed, open_with, run, small_config};

/// What a marker is kept for at least, once nothing of its transaction is left.
const DELETE_RETENTION_MS: u64 = 5_000;

const KEYS: u64 = 12;
const PRODUCERS: u64 = 3;

fn config(rng: &mut StdRng) -> LogConfig {
    LogConfig {
        segment_size_bytes: [1 << 10, 3 << 10][rng.random_range(0..2)],
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            delete_retention_ms: DELETE_RETENTION_MS,
            ..CompactionConfig::default()
        }),
        ..small_config()
    }
}

/// A record of a key, by its offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Written {
    key: u64,
    id: u64,
}

struct World {
    log: Rc<SimLog>,
    rng: StdRng,
    now: i64,
    /// All that was committed, and what open transactions hold.
    committed: BTreeMap<u64, Written>,
    open: BTreeMap<i64, Vec<(u64, Written)>>,
    sequences: BTreeMap<i64, i32>,
    next_id: u64,
}

impl World {
    fn draw(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..most)
    }

    fn append(&mut self) {
        let producer = self.draw(PRODUCERS + 1) as i64;
        let is_transactional = (producer as u64) < PRODUCERS;
        let mut builder = BatchBuilder::new(Compression::None, 256);
        let mut records = Vec::new();
        for _ in 0..=self.draw(2) {
            self.next_id += 1;
            let written = Written {
                key: self.draw(KEYS),
                id: self.next_id,
            };
            let value = [written.id.to_be_bytes().as_slice(), &[7; 50]].concat();
            let key = written.key.to_be_bytes();
            builder
                .append(Timestamp::new(self.now), Some(&key), Some(&value), &[])
                .unwrap();
            records.push(written);
        }
        if is_transactional {
            let sequence = self.sequences.entry(producer).or_default();
            builder.set_transactional();
            builder.set_producer(
                ProducerId::new(producer),
                ProducerEpoch::new(0),
                Sequence::new(*sequence),
            );
            *sequence += records.len() as i32;
        }
        let bytes = builder.build().into_bytes();
        let limits = BatchLimits {
            batch_size_max: 1 << 20,
        };
        let vetted = Vetted::at_once(&bytes, &limits).unwrap().beginning(Begins::Anywhere);
        let appended = self.log.append_vetted(&vetted, Timestamp::new(self.now)).unwrap();
        let at = (appended.base_offset.get()..).zip(records);
        if is_transactional {
            self.open.entry(producer).or_default().extend(at);
        } else {
            self.committed.extend(at);
        }
    }

    fn end(&mut self) {
        let producer = self.draw(PRODUCERS) as i64;
        let outcome = [Outcome::Abort, Outcome::Commit][self.draw(2) as usize];
        let marker = EndMarker {
            producer_id: ProducerId::new(producer),
            producer_epoch: ProducerEpoch::new(0),
            outcome,
            coordinator_epoch: 0,
        };
        let _appended = self
            .log
            .append_marker(&marker, MarkerEpoch::Same, Timestamp::new(self.now))
            .unwrap();
        let ended = self.open.remove(&producer).unwrap_or_default();
        if outcome == Outcome::Commit {
            self.committed.extend(ended);
        }
    }

    /// The last committed record of each key below the last stable offset is there, and no other that was not committed.
    async fn check(&mut self) {
        let last_stable = self.log.offsets().last_stable.get();
        let mut seen: BTreeMap<u64, Written> = BTreeMap::new();
        let max_bytes = self.draw(4000);
        read_committed(&self.log, max_bytes, |batch| {
            let bytes = bytes::Bytes::copy_from_slice(batch.bytes());
            for record in &RecordSet::decode(&bytes, 1 << 20).unwrap() {
                let record = record.unwrap();
                let written = Written {
                    key: u64::from_be_bytes(record.key.unwrap().try_into().unwrap()),
                    id: u64::from_be_bytes(*record.value.unwrap().first_chunk().unwrap()),
                };
                seen.insert(record.offset.get(), written);
            }
        })
        .await;
        for (offset, written) in &seen {
            assert_eq!(
                self.committed.get(offset),
                Some(written),
                "offset {offset} was not committed"
            );
        }
        let mut last: BTreeMap<u64, u64> = BTreeMap::new();
        for (offset, written) in self.committed.range(..last_stable) {
            last.insert(written.key, *offset);
        }
        for (key, offset) in last {
            assert!(
                seen.contains_key(&offset),
                "the last of key {key}, at {offset}, is gone"
            );
        }
        let open: Vec<i64> = self.open.keys().copied().collect();
        let mut found: Vec<i64> = self
            .log
            .open_transactions()
            .iter()
            .map(|open| open.producer_id.get())
            .collect();
        found.sort_unstable();
        assert_eq!(found, open, "open transactions");
    }

    /// Markers in the log, and batches of transactions with records.
    async fn count(&self) -> (usize, usize) {
        let (mut markers, mut data, mut next) = (0, 0, self.log.offsets().start);
        let limits = BatchLimits {
            batch_size_max: usize::MAX,
        };
        while let Some(range) = self.log.fetch(next, 1 << 20, ReadLimit::LogEnd).await.unwrap().range {
            let bytes = self.log.read(&range).await.unwrap();
            for batch in Batches::new(&bytes, &limits) {
                let batch = batch.unwrap();
                markers += usize::from(batch.is_control() && batch.record_count() > 0);
                data += usize::from(batch.is_transactional() && !batch.is_control() && batch.record_count() > 0);
            }
            next = range.next_offset();
        }
        (markers, data)
    }

    async fn compact(&mut self) {
        let now = Timestamp::new(self.now);
        self.log.flush().await.unwrap();
        self.log.maintain(now).await.unwrap();
        let memory = [256, 1 << 20][self.draw(2) as usize];
        self.log.compact(now, memory, async |_| ()).await.unwrap();
    }

    /// The same log, of which nothing may be known but its batches.
    async fn restart(&mut self, disk: &SimDisk, config: &LogConfig) {
        use headwater_engine::disk::Directory as _;
        self.log.close().await.unwrap();
        if self.draw(2) == 0 {
            for entry in disk.list(&directory()).await.unwrap() {
                if entry.name == "checkpoint" || entry.name.ends_with("txnindex") {
                    disk.remove_file(&directory().join(&entry.name)).await.unwrap();
                }
            }
        }
        let (log, _) = open_with(disk, config, &TailMemory::new(16 << 20)).await.unwrap();
        self.log = log;
    }
}

#[test]
fn compaction_keeps_what_readers_of_the_committed_need_and_nothing_that_was_aborted() {
    let name = "compaction_keeps_what_readers_of_the_committed_need_and_nothing_that_was_aborted";
    for_each_seed(name, 60, |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let mut rng = StdRng::seed_from_u64(seed);
            let config = config(&mut rng);
            let (log, _) = open_with(&disk, &config, &TailMemory::new(16 << 20)).await.unwrap();
            let mut world = World {
                log,
                rng,
                now: NOON,
                committed: BTreeMap::new(),
                open: BTreeMap::new(),
                sequences: BTreeMap::new(),
                next_id: 0,
            };
            for _ in 0..120 {
                match world.draw(16) {
                    0..8 => world.append(),
                    8..12 => world.end(),
                    12 => world.log.flush().await.unwrap(),
                    13 | 14 => world.compact().await,
                    _ => world.restart(&disk, &config).await,
                }
                world.now += world.draw(1500) as i64;
                world.check().await;
            }
            // All end, each key is written once more, and time passes: nothing of transactions is left but the last of each producer.
            for producer in 0..PRODUCERS as i64 {
                let _aborted = world.open.remove(&producer);
                let marker = EndMarker {
                    producer_id: ProducerId::new(producer),
                    producer_epoch: ProducerEpoch::new(0),
                    outcome: Outcome::Abort,
                    coordinator_epoch: 0,
                };
                let now = Timestamp::new(world.now);
                let _appended = world.log.append_marker(&marker, MarkerEpoch::Same, now).unwrap();
            }
            for key in 0..KEYS {
                let mut builder = BatchBuilder::new(Compression::None, 256);
                world.next_id += 1;
                let written = Written { key, id: world.next_id };
                let value = [written.id.to_be_bytes().as_slice(), &[7; 500]].concat();
                builder
                    .append(Timestamp::new(world.now), Some(&key.to_be_bytes()), Some(&value), &[])
                    .unwrap();
                let now = Timestamp::new(world.now);
                let appended = world.log.append(builder.build().bytes(), now).unwrap();
                world.committed.insert(appended.base_offset.get(), written);
            }
            world.now += 8 * 24 * 60 * 60 * 1000;
            for _ in 0..2 {
                world.compact().await;
                world.check().await;
                world.now += DELETE_RETENTION_MS as i64;
            }
            world.compact().await;
            world.check().await;
            let (markers, data) = world.count().await;
            assert!(
                markers <= PRODUCERS as usize && data == 0,
                "{markers} markers and {data} batches are left"
            );
            world.restart(&disk, &config).await;
            world.check().await;
            assert_eq!(world.log.offsets().last_stable, world.log.offsets().high_watermark);
            assert_ne!(world.log.offsets().end, Offset::ZERO);
        });
    });
}

#[test]
fn a_marker_outlives_what_it_has_aborted_for_as_long_as_a_tombstone_would() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = config(&mut StdRng::seed_from_u64(1));
        let (log, _) = open_with(&disk, &config, &TailMemory::new(16 << 20)).await.unwrap();
        let append = |producer: Option<i64>, key: u64, sequence: i32| {
            let mut builder = BatchBuilder::new(Compression::None, 256);
            let value = [key.to_be_bytes().as_slice(), &[7; 900]].concat();
            builder
                .append(Timestamp::new(NOON), Some(&key.to_be_bytes()), Some(&value), &[])
                .unwrap();
            if let Some(producer) = producer {
                builder.set_transactional();
                builder.set_producer(
                    ProducerId::new(producer),
                    ProducerEpoch::new(0),
                    Sequence::new(sequence),
                );
            }
            let _appended = log.append(builder.build().bytes(), Timestamp::new(NOON)).unwrap();
        };
        append(Some(0), 1, 0);
        let marker = EndMarker {
            producer_id: ProducerId::new(0),
            producer_epoch: ProducerEpoch::new(0),
            outcome: Outcome::Abort,
            coordinator_epoch: 0,
        };
        let _appended = log
            .append_marker(&marker, MarkerEpoch::Same, Timestamp::new(NOON))
            .unwrap();
        for key in 2..12 {
            append(None, key, 0);
        }
        let world = World {
            log: Rc::clone(&log),
            rng: StdRng::seed_from_u64(1),
            now: NOON,
            committed: BTreeMap::new(),
            open: BTreeMap::new(),
            sequences: BTreeMap::new(),
            next_id: 0,
        };
        log.flush().await.unwrap();
        assert_eq!(world.count().await, (1, 1));
        let retention = DELETE_RETENTION_MS as i64;
        // It gets its horizon when nothing of its transaction is left.
        for (now, markers) in [(NOON, 1), (NOON + retention - 1, 1), (NOON + retention, 0)] {
            let now = Timestamp::new(now);
            log.maintain(now).await.unwrap();
            log.compact(now, 1 << 20, async |_| ()).await.unwrap();
            assert_eq!(world.count().await, (markers, 0), "at {now:?}");
            // Whoever has fetched a record of it before must be told that it was aborted as long as its end may come.
            let aborted = log.aborted(Offset::ZERO, Offset::MAX).await.unwrap();
            assert_eq!(aborted.len(), markers);
        }
    });
}
