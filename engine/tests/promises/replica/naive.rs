//! A log as a list of batches, each with the bytes that it should have: what the real one is compared with.

use headwater_engine::{LogError, ReadLimit, disk::SimDisk};
use headwater_protocol::{
    batch::{BatchHeader, BatchLimits, Batches, stamp},
    id::{LeaderEpoch, Offset},
};

use crate::support::SimLog;

/// One batch as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub base: u64,
    pub next: u64,
    pub bytes: Vec<u8>,
}

/// The batches in a row, as they are.
pub fn split(mut bytes: &[u8]) -> Vec<Stored> {
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    assert!(
        Batches::new(bytes, &limits).all(|batch| batch.is_ok()),
        "only whole, valid batches"
    );
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let header = BatchHeader::read(bytes).unwrap();
        let (this, rest) = bytes.split_at(header.size());
        batches.push(Stored {
            base: header.base_offset().get(),
            next: header.next_offset().get(),
            bytes: this.to_vec(),
        });
        bytes = rest;
    }
    batches
}

/// The naive log.
#[derive(Debug, Clone, Default)]
pub struct Naive {
    /// All that was appended and not truncated, also what lies below the start.
    pub batches: Vec<Stored>,
    /// Where the log would go on without batches.
    pub origin: u64,
    pub start: u64,
    pub durable: u64,
    pub watermark: u64,
    pub is_held: bool,
}

impl Naive {
    pub fn end(&self) -> u64 {
        self.batches.last().map_or(self.origin, |last| last.next)
    }

    /// Takes in batches as a leader of this epoch would.
    pub fn append(&mut self, payload: &[u8], epoch: i32) {
        for mut batch in split(payload) {
            let (base, count) = (self.end(), batch.next - batch.base);
            stamp(&mut batch.bytes, Offset::new(base), LeaderEpoch::new(epoch));
            (batch.base, batch.next) = (base, base + count);
            self.batches.push(batch);
        }
    }

    pub fn flush(&mut self) {
        self.durable = self.end();
        if !self.is_held {
            self.watermark = self.watermark.max(self.durable);
        }
    }

    pub fn limit(&self, limit: ReadLimit) -> u64 {
        match limit {
            ReadLimit::Durable => self.durable,
            ReadLimit::HighWatermark => self.watermark,
            ReadLimit::LogEnd => self.end(),
            _ => unreachable!("these are all"),
        }
    }

    /// The batches that a fetch at `offset` may return.
    pub fn readable(&self, offset: u64, limit: ReadLimit) -> &[Stored] {
        let from = self.batches.partition_point(|batch| batch.next <= offset);
        let to = self.batches.partition_point(|batch| batch.next <= self.limit(limit));
        &self.batches[from..to.max(from)]
    }

    /// Drops every batch that ends after `to`; all that is not durable if that is all that is dropped.
    pub fn truncate(&mut self, to: u64) {
        let to = to.max(self.start);
        if to >= self.end() {
            return;
        }
        self.cut(if to >= self.durable { self.durable } else { to });
    }

    pub fn cut(&mut self, to: u64) {
        self.batches.retain(|batch| batch.next <= to);
        let end = self.end();
        for offset in [&mut self.start, &mut self.durable, &mut self.watermark] {
            *offset = end.min(*offset);
        }
    }

    pub fn check_offsets(&self, log: &SimLog) {
        let offsets = log.offsets();
        assert_eq!(
            (
                offsets.start.get(),
                offsets.high_watermark.get(),
                offsets.durable.get(),
                offsets.end.get()
            ),
            (self.start, self.watermark, self.durable, self.end())
        );
    }

    /// Compares what the log returns with what it should.
    pub async fn check_fetch(&self, disk: &SimDisk, log: &SimLog, offset: u64, max_bytes: u64, limit: ReadLimit) {
        let fetched = log.fetch(Offset::new(offset), max_bytes, limit).await.unwrap();
        assert_eq!(fetched.high_watermark.get(), self.watermark);
        let expected = self.readable(offset, limit);
        let Some(range) = fetched.range else {
            return assert!(
                expected.is_empty(),
                "{limit:?} at {offset}: nothing, but {expected:?} is there"
            );
        };
        let bytes = log.read(&range).await.unwrap();
        let found = split(&bytes);
        assert_eq!(
            found,
            expected[..found.len().min(expected.len())],
            "{limit:?} at {offset}"
        );
        assert_eq!(range.next_offset().get(), found.last().unwrap().next);
        assert!(found.len() == 1 || bytes.len() as u64 <= max_bytes);
        let on_disk = range.on_disk();
        let in_file = range.file(disk).await;
        if !on_disk.is_empty() {
            use headwater_engine::disk::SegmentFile as _;
            let read = in_file
                .unwrap()
                .read(on_disk.position(), on_disk.len() as usize)
                .await
                .unwrap();
            assert_eq!(read, bytes[..on_disk.len() as usize], "other bytes than in memory");
        }
    }
}

/// Whether an append has come where it was to get.
pub fn is_settled(ticket: &mut headwater_engine::Ticket) -> Option<Result<(), LogError>> {
    futures::FutureExt::now_or_never(ticket)
}
