//! What a compacted log must hold and may hold: of each key the last record, unless that is a tombstone whose time is over; and
//! nothing that was not appended at its offset.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use headwater_engine::{CompactionConfig, Log, LogConfig, ReadLimit, TailMemory, disk::SimDisk};
use headwater_protocol::{
    batch::{BatchBuilder, BatchLimits, Batches, Compression, RecordBatch, RecordSet},
    id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use crate::support::{SimLog, directory, small_config};

/// A record of a key; `id` is what its value begins with, and none is a tombstone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed {
    pub key: u64,
    pub id: Option<u64>,
    pub timestamp: i64,
}

impl Keyed {
    pub fn new(key: u64, id: u64, timestamp: i64) -> Keyed {
        Keyed {
            key,
            id: Some(id),
            timestamp,
        }
    }

    pub fn tombstone(key: u64, timestamp: i64) -> Keyed {
        Keyed {
            key,
            id: None,
            timestamp,
        }
    }

    fn value(self, size: usize) -> Option<Vec<u8>> {
        let id = self.id?;
        let mut value = id.to_be_bytes().to_vec();
        value.resize(size.max(8), id as u8);
        Some(value)
    }
}

/// One batch of these records, whose values have this size.
pub fn batch_of(records: &[Keyed], size: usize, compression: Compression) -> Vec<u8> {
    encoded(records, size, compression).build().bytes().to_vec()
}

fn encoded(records: &[Keyed], size: usize, compression: Compression) -> BatchBuilder {
    let mut builder = BatchBuilder::new(compression, 1024);
    for record in records {
        let (key, value) = (record.key.to_be_bytes(), record.value(size));
        let timestamp = Timestamp::new(record.timestamp);
        builder.append(timestamp, Some(&key), value.as_deref(), &[]).unwrap();
    }
    builder
}

/// The same, of an idempotent producer.
pub fn sequenced(records: &[Keyed], size: usize, producer: i64, sequence: i32) -> Vec<u8> {
    let mut batch = encoded(records, size, Compression::None).build();
    batch.set_producer(
        ProducerId::new(producer),
        ProducerEpoch::new(0),
        Sequence::new(sequence),
    );
    batch.bytes().to_vec()
}

/// Small segments, compacted whenever there is something new.
pub fn config() -> LogConfig {
    LogConfig {
        segment_size_bytes: 4 << 10,
        segment_age_ms: 60_000,
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            ..CompactionConfig::default()
        }),
        ..small_config()
    }
}

/// The same, with another life of tombstones.
pub fn with_delete_retention(ms: u64) -> LogConfig {
    LogConfig {
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            delete_retention_ms: ms,
            ..CompactionConfig::default()
        }),
        ..config()
    }
}

pub async fn open(disk: &SimDisk, config: &LogConfig) -> Rc<SimLog> {
    let memory = TailMemory::new(16 << 20);
    let opened = Log::open(disk.clone(), directory(), config.clone(), memory).await;
    Rc::new(opened.expect("it can be opened").0)
}

/// Never waits.
pub async fn at_once(_bytes: u64) {}

/// Lets the others go on.
pub fn turn() -> impl Future<Output = ()> {
    struct Turn(bool);
    impl Future for Turn {
        type Output = ();

        fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
            if std::mem::replace(&mut self.0, true) {
                return Poll::Ready(());
            }
            context.waker().wake_by_ref();
            Poll::Pending
        }
    }
    Turn(false)
}

/// A record as it was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub offset: u64,
    pub record: Keyed,
}

/// Calls back for each batch of a fetched range.
pub fn for_each_batch(bytes: &[u8], mut visit: impl FnMut(RecordBatch<'_>)) {
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    for batch in Batches::new(bytes, &limits) {
        visit(batch.expect("only whole, valid batches are fetched"));
    }
}

/// The records of fetched batches, and the offset after the last batch; offsets grow.
pub fn decode(bytes: &[u8]) -> (Vec<Found>, u64) {
    let (mut found, mut next) = (Vec::new(), 0);
    for_each_batch(bytes, |batch| {
        assert!(batch.base_offset().get() >= next, "batches do not overlap");
        next = batch.next_offset().get();
        let records = RecordSet::decode(&Bytes::copy_from_slice(batch.bytes()), 64 << 20).unwrap();
        for record in &records {
            let record = record.unwrap();
            let key = record.key.expect("every record has a key");
            let id = record.value.map(|value| {
                let id = u64::from_be_bytes(*value.first_chunk().unwrap());
                assert!(value[8..].iter().all(|byte| *byte == id as u8));
                id
            });
            found.push(Found {
                offset: record.offset.get(),
                record: Keyed {
                    key: u64::from_be_bytes(key.try_into().unwrap()),
                    id,
                    timestamp: record.timestamp.get(),
                },
            });
        }
    });
    (found, next)
}

/// What a consumer sees that reads from `from` to the durable offset, `max_bytes` at a time, with turns of others in between.
pub async fn consume(log: &SimLog, from: u64, max_bytes: u64) -> Vec<Found> {
    let (mut seen, mut next) = (Vec::new(), from);
    loop {
        let fetched = match log.fetch(Offset::new(next), max_bytes, ReadLimit::HighWatermark).await {
            Ok(fetched) => fetched,
            // Deleted meanwhile.
            Err(error) => {
                assert!(next < log.offsets().start.get(), "{error}");
                next = log.offsets().start.get();
                continue;
            }
        };
        turn().await;
        let Some(range) = fetched.range else { return seen };
        let bytes = log.read(&range).await.expect("what was named can be read");
        let (found, after) = decode(&bytes);
        assert!(after > next, "a fetch at {next} leads to {after}");
        seen.extend(found.into_iter().filter(|found| found.offset >= next));
        next = after;
        turn().await;
    }
}

pub async fn read_all(log: &SimLog) -> Vec<Found> {
    consume(log, log.offsets().start.get(), 3000).await
}

/// All that was ever appended, by offset.
#[derive(Debug, Default)]
pub struct Model {
    at: BTreeMap<u64, Keyed>,
    /// Below this all was acknowledged.
    acknowledged: u64,
    pub start: u64,
    pub start_possible: u64,
    /// No tombstone goes before this age, in milliseconds.
    pub delete_retention_ms: i64,
}

impl Model {
    pub fn new(delete_retention_ms: i64) -> Model {
        Model {
            delete_retention_ms,
            ..Model::default()
        }
    }

    pub fn appended(&mut self, base_offset: u64, records: &[Keyed]) {
        for (offset, record) in (base_offset..).zip(records) {
            assert_eq!(self.at.insert(offset, *record), None, "offset {offset} is given twice");
        }
    }

    pub fn acknowledged(&mut self, next_offset: u64) {
        self.acknowledged = self.acknowledged.max(next_offset);
    }

    /// A log after a crash: what is lost was not acknowledged.
    pub fn recovered(&mut self, start: u64, end: u64) {
        assert!(
            end >= self.acknowledged,
            "the log ends at {end}, acknowledged was {}",
            self.acknowledged
        );
        assert!(
            (self.start..=self.start_possible).contains(&start),
            "the log begins at {start}"
        );
        self.at.split_off(&end);
        (self.acknowledged, self.start) = (end, start);
    }

    /// The last record of each key in a range of offsets.
    pub fn last(&self, from: u64, to: u64) -> BTreeMap<u64, (u64, Keyed)> {
        let records = self.at.range(from..to);
        records
            .map(|(offset, record)| (record.key, (*offset, *record)))
            .collect()
    }

    /// What a consumer has seen of the offsets from `from` to `to`: every record as it was appended, and none missing but for what
    /// later ones supersede by now.
    pub fn check(&self, seen: &[Found], from: u64, to: u64, now: i64) {
        let mut by_offset = HashMap::new();
        for found in seen {
            let appended = self.at.get(&found.offset);
            assert_eq!(appended, Some(&found.record), "at offset {}", found.offset);
            assert_eq!(by_offset.insert(found.offset, found.record), None, "seen twice");
        }
        let last = self.last(from, u64::MAX);
        for (offset, record) in self.at.range(from..to.max(from)) {
            let (last_offset, _) = last[&record.key];
            let may_be_gone = record.id.is_none() && record.timestamp + self.delete_retention_ms <= now;
            assert!(
                by_offset.contains_key(offset) || *offset < last_offset || may_be_gone,
                "{record:?} at {offset} is gone, and nothing has superseded it"
            );
        }
    }
}
