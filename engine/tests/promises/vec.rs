//! A log is a vector of records: whatever is done to one and to a `Vec` gives the same.

use std::rc::Rc;

use futures::join;
use headwater_engine::{
    ColdMemory, LogConfig, Memory, ReadLimit, TailMemory,
    disk::{REGION_SIZE, SimDisk},
};
use headwater_protocol::{
    batch::Compression,
    id::{Offset, Timestamp},
};
use proptest::prelude::*;

use crate::support::{
    NOON, Record, SimLog, Stored, builder, fetch, open_in, read_all, read_directly, run, small_config,
};

/// One thing done to the log. Places are shares of what is there: 0 the first, 255 the last.
#[derive(Debug, Clone)]
enum Step {
    /// One payload: batches of records (size, milliseconds off the clock).
    Append {
        batches: Vec<Vec<(usize, i64)>>,
        compression: Compression,
    },
    Flush,
    /// Appends `count` small records one by one while a flush is under way.
    FlushBeside {
        count: usize,
    },
    Fetch {
        place: u8,
        max_bytes: u64,
    },
    Lookup {
        ms: i64,
    },
    Truncate {
        place: u8,
    },
    DeleteRecords {
        place: u8,
    },
    Maintain {
        ms: i64,
    },
    /// Lets everything expire, if the log has a retention time.
    Expire,
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let size = prop_oneof![8 => 8..200_usize, 3 => 1000..6000_usize, 1 => 8000..20_000_usize];
    let records = prop::collection::vec((size, -5000..5000_i64), 1..6);
    let compression = prop_oneof![4 => Just(Compression::None), 1 => Just(Compression::Lz4)];
    let append = (prop::collection::vec(records, 1..4), compression)
        .prop_map(|(batches, compression)| Step::Append { batches, compression });
    let step = prop_oneof![
        10 => append,
        5 => Just(Step::Flush),
        2 => (1..40_usize).prop_map(|count| Step::FlushBeside { count }),
        4 => (any::<u8>(), 0..40_000_u64).prop_map(|(place, max_bytes)| Step::Fetch { place, max_bytes }),
        3 => (-50_000..50_000_i64).prop_map(|ms| Step::Lookup { ms }),
        1 => any::<u8>().prop_map(|place| Step::Truncate { place }),
        1 => any::<u8>().prop_map(|place| Step::DeleteRecords { place }),
        3 => (0..20_000_i64).prop_map(|ms| Step::Maintain { ms }),
        1 => Just(Step::Expire),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

#[derive(Debug, Clone, Copy)]
struct Settings {
    segment_size_bytes: u64,
    segment_age_ms: u64,
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    memory: usize,
    cold_memory: usize,
}

fn settings() -> impl Strategy<Value = Settings> {
    (
        prop_oneof![Just(4 << 10), Just(20 << 10), Just(128 << 10)],
        prop_oneof![Just(10_000), Just(1_000_000)],
        prop_oneof![2 => Just(None), 1 => Just(Some(60_000))],
        prop_oneof![2 => Just(None), 1 => Just(Some(50_000))],
        prop_oneof![Just(8 << 10), Just(64 << 20)],
        // Enough for all that a case fetches: nothing gives way.
        prop_oneof![Just(0), Just(8 * REGION_SIZE)],
    )
        .prop_map(
            |(segment_size_bytes, segment_age_ms, retention_ms, retention_bytes, memory, cold_memory)| Settings {
                segment_size_bytes,
                segment_age_ms,
                retention_ms,
                retention_bytes,
                memory,
                cold_memory,
            },
        )
}

/// The vector.
#[derive(Debug, Default)]
struct Model {
    records: Vec<Stored>,
    /// Ends of batches, as offsets.
    batch_ends: Vec<u64>,
    start: u64,
    durable: u64,
    next_id: u64,
}

impl Model {
    fn end(&self) -> u64 {
        self.records.len() as u64
    }

    fn readable(&self) -> &[Stored] {
        &self.records[self.start as usize..self.durable as usize]
    }

    fn make(&mut self, timestamp: i64, size: usize) -> Record {
        self.next_id += 1;
        Record {
            id: self.next_id,
            timestamp,
            size,
        }
    }

    fn push_batch(&mut self, batch: &[Record]) {
        for Record { id, timestamp, .. } in batch.iter().copied() {
            let offset = self.end();
            self.records.push(Stored { offset, id, timestamp });
        }
        self.batch_ends.push(self.end());
    }

    /// The offset in `[from, to]` that lies at this share.
    fn at(place: u8, from: u64, to: u64) -> u64 {
        from + (to - from) * u64::from(place) / 255
    }

    /// Drops every batch that ends after `to`.
    fn truncate(&mut self, to: u64) {
        let to = to.max(self.start);
        if to < self.end() && to >= self.durable {
            // What is not durable goes as a whole.
            self.cut(self.durable);
        } else {
            self.cut(to);
        }
    }

    fn cut(&mut self, to: u64) {
        self.batch_ends.retain(|end| *end <= to);
        self.records
            .truncate(self.batch_ends.last().map_or(0, |end| *end as usize));
        self.durable = self.durable.min(self.end());
        self.start = self.start.min(self.end());
    }
}

struct Pair {
    disk: SimDisk,
    settings: Settings,
    config: LogConfig,
    memory: Memory,
    log: Rc<SimLog>,
    model: Model,
    clock: i64,
}

impl Pair {
    fn now(&self) -> Timestamp {
        Timestamp::new(self.clock)
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { batches, compression } => self.append(&batches, compression),
            Step::Flush => self.flush().await,
            Step::FlushBeside { count } => self.flush_beside(count).await,
            Step::Fetch { place, max_bytes } => self.fetch(place, max_bytes).await,
            Step::Lookup { ms } => self.lookup(NOON + ms).await,
            Step::Truncate { place } => {
                let to = Model::at(place, self.model.start, self.model.end());
                self.log.truncate(Offset::new(to)).await.unwrap();
                self.model.truncate(to);
            }
            Step::DeleteRecords { place } => {
                let before = Model::at(place, self.model.start, self.model.durable);
                let start = self.log.delete_records(Offset::new(before)).await.unwrap();
                self.model.start = before;
                assert_eq!(start.get(), before);
            }
            Step::Maintain { ms } => {
                self.clock += ms;
                self.maintain().await;
            }
            Step::Expire => self.expire().await,
            Step::Restart => self.restart().await,
        }
        let offsets = self.log.offsets();
        assert_eq!(
            (offsets.start.get(), offsets.durable.get(), offsets.end.get()),
            (self.model.start, self.model.durable, self.model.end())
        );
    }

    fn append(&mut self, batches: &[Vec<(usize, i64)>], compression: Compression) {
        let mut payload = Vec::new();
        let mut made = Vec::new();
        for batch in batches {
            let records: Vec<Record> = batch
                .iter()
                .map(|(size, ms)| self.model.make(self.clock + ms, *size))
                .collect();
            payload.extend_from_slice(builder(&records, compression).build().bytes());
            made.push(records);
        }
        let fits = payload.len() as u64 <= self.config.segment_size_bytes;
        match self.log.append(&payload, self.now()) {
            Ok(appended) => {
                assert!(fits && !appended.duplicate);
                assert_eq!(appended.base_offset.get(), self.model.end());
                for batch in &made {
                    self.model.push_batch(batch);
                }
                assert_eq!(appended.next_offset.get(), self.model.end());
            }
            Err(error) => assert!(!fits, "{error}"),
        }
    }

    async fn flush(&mut self) {
        self.log.flush().await.unwrap();
        self.model.durable = self.model.end();
    }

    async fn flush_beside(&mut self, count: usize) {
        let records: Vec<Record> = (0..count).map(|_| self.model.make(self.clock, 100)).collect();
        let (log, now) = (Rc::clone(&self.log), self.now());
        let appending = async {
            for record in &records {
                let payload = builder(&[*record], Compression::None).build();
                let ticket = log.append(payload.bytes(), now).unwrap().durable;
                if record.id % 3 == 0 {
                    log.flush().await.unwrap();
                    ticket.await.unwrap();
                }
            }
            log.flush().await.unwrap();
        };
        let (flushed, ()) = join!(self.log.flush(), appending);
        flushed.unwrap();
        for record in &records {
            self.model.push_batch(&[*record]);
        }
        self.model.durable = self.model.end();
    }

    async fn fetch(&self, place: u8, max_bytes: u64) {
        let offset = Model::at(place, self.model.start, self.model.end());
        let records = fetch(&self.log, offset, max_bytes).await;
        if let Some(range) = self
            .log
            .fetch(Offset::new(offset), max_bytes, ReadLimit::HighWatermark)
            .await
            .unwrap()
            .range
        {
            let read = read_directly(&self.disk, &range).await;
            let has_memory = self.settings.cold_memory > 0;
            assert!(read.is_some() == has_memory, "{range:?}");
            if let Some(read) = read {
                assert!(
                    read == self.log.read(&range).await.unwrap(),
                    "other bytes than in the file"
                );
            }
        }
        let expected = self
            .model
            .records
            .get(offset as usize..self.model.durable as usize)
            .unwrap_or(&[]);
        assert_eq!(records.is_empty(), expected.is_empty());
        assert_eq!(records, expected[..records.len()]);
        for outside in [self.model.start.checked_sub(1), Some(self.model.end() + 1)]
            .into_iter()
            .flatten()
        {
            assert!(
                self.log
                    .fetch(Offset::new(outside), max_bytes, ReadLimit::HighWatermark)
                    .await
                    .is_err()
            );
        }
    }

    async fn lookup(&self, timestamp: i64) {
        let found = self.log.offset_for_timestamp(Timestamp::new(timestamp)).await.unwrap();
        let expected = self
            .model
            .readable()
            .iter()
            .find(|record| record.timestamp >= timestamp);
        assert_eq!(
            found.map(|(offset, timestamp)| (offset.get(), timestamp.get())),
            expected.map(|record| (record.offset, record.timestamp))
        );
    }

    /// Whole segments may go, but only by the rules.
    async fn maintain(&mut self) {
        let sealed_from = self.log.size().1;
        self.log.maintain(self.now()).await.unwrap();
        let start = self.log.offsets().start.get();
        assert!(self.model.start <= start && start <= self.model.durable);
        let gone = &self.model.records[self.model.start as usize..start as usize];
        let expired_below = self.config.retention_ms.map(|ms| self.clock - ms.cast_signed());
        let is_expired = gone
            .iter()
            .all(|record| expired_below.is_some_and(|oldest| record.timestamp < oldest));
        let (count, bytes) = self.log.size();
        let enough = self.config.retention_bytes.is_some_and(|least| bytes >= least);
        assert!(
            gone.is_empty() || is_expired || enough,
            "{bytes} bytes of {sealed_from} are left"
        );
        self.model.start = start;
        if let Some(most) = self.config.retention_bytes
            && self.model.durable == self.model.end()
        {
            let limit = most + self.config.segment_size_bytes;
            assert!(bytes < limit || count == 1, "{bytes} bytes in {count} segments");
        }
    }

    async fn expire(&mut self) {
        self.flush().await;
        self.clock += 200_000;
        let clock = self.clock;
        self.maintain().await;
        self.maintain().await;
        if self.config.retention_ms.is_some() {
            assert_eq!(
                self.model.start,
                self.model.end(),
                "everything is older than {clock} by far"
            );
        }
    }

    async fn restart(&mut self) {
        self.log.close().await.unwrap();
        self.model.durable = self.model.end();
        let (log, recovery) = open_in(&self.disk, &self.config, self.memory.clone()).await.unwrap();
        assert_eq!(
            (recovery.scanned_bytes, recovery.cut),
            (0, None),
            "a clean log is not scanned"
        );
        self.log = log;
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("HEADWATER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(150),
        failure_persistence: None,
        max_shrink_time: 60_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_behaves_like_a_vec(seed in any::<u64>(), settings in settings(), steps in steps()) {
        let disk = SimDisk::new(seed);
        let config = LogConfig {
            segment_size_bytes: settings.segment_size_bytes,
            segment_age_ms: settings.segment_age_ms,
            retention_ms: settings.retention_ms,
            retention_bytes: settings.retention_bytes,
            ..small_config()
        };
        run(&disk, seed, async {
            let memory = Memory::new(TailMemory::new(settings.memory), ColdMemory::new(settings.cold_memory));
            let (log, _) = open_in(&disk, &config, memory.clone()).await.unwrap();
            let mut pair = Pair { disk: disk.clone(), settings, config, memory, log, model: Model::default(), clock: NOON };
            for step in steps {
                pair.step(step).await;
            }
            assert_eq!(read_all(&pair.log).await, pair.model.readable());
            pair.restart().await;
            assert_eq!(read_all(&pair.log).await, pair.model.readable());
        });
    }
}
