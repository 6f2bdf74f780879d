//! A log as a list of batches, each with the bytes that it should have: what the real one is compared with.

use std::collections::BTreeMap;

use headwater_engine::{
    EpochEnd, LogError, ReadLimit, Ticket,
    disk::{SegmentFile as _, SimDisk},
};
use headwater_protocol::{
    batch::{BatchHeader, BatchLimits, Batches, stamp},
    id::{LeaderEpoch, Offset, Timestamp},
};

use crate::support::{NOON, Record, SimLog, batch, sequenced};

/// Most bytes of a test's batch, more or less.
const SIZES: [usize; 4] = [10, 200, 1500, 5000];

/// One batch as it is stored.
#[derive(Debug, Clone)]
pub struct Stored {
    pub base: u64,
    pub next: u64,
    pub epoch: i32,
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
            epoch: header.leader_epoch().get(),
            bytes: this.to_vec(),
        });
        bytes = rest;
    }
    batches
}

/// What an idempotent producer has in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    pub sequence: i32,
    pub next: i32,
    pub base: u64,
}

/// From here on the log is of this epoch: a batch and the hole before it, if there is one.
#[derive(Debug, Clone, Copy)]
struct Claim {
    from: u64,
    epoch: i32,
}

/// The naive log.
#[derive(Debug, Clone, Default)]
pub struct Naive {
    /// All that was appended and not truncated, also what lies below the start.
    pub batches: Vec<Stored>,
    claims: Vec<Claim>,
    pub end: u64,
    pub start: u64,
    pub durable: u64,
    pub watermark: u64,
    pub is_held: bool,
}

impl Naive {
    /// Takes in batches as a leader of this epoch would.
    pub fn append(&mut self, payload: &[u8], epoch: i32) {
        let mut stamped = Vec::new();
        let mut end = self.end;
        for mut batch in split(payload) {
            stamp(&mut batch.bytes, Offset::new(end), LeaderEpoch::new(epoch));
            end += batch.next - batch.base;
            stamped.extend_from_slice(&batch.bytes);
        }
        self.append_replica(&stamped);
    }

    /// Takes in batches as they are.
    pub fn append_replica(&mut self, payload: &[u8]) {
        for batch in split(payload) {
            assert!(batch.base >= self.end);
            self.claims.push(Claim {
                from: self.end,
                epoch: batch.epoch,
            });
            self.end = batch.next;
            self.batches.push(batch);
        }
    }

    pub fn flush(&mut self) {
        self.durable = self.end;
        if !self.is_held {
            self.watermark = self.watermark.max(self.durable);
        }
    }

    pub fn limit(&self, limit: ReadLimit) -> u64 {
        match limit {
            ReadLimit::Durable => self.durable,
            ReadLimit::HighWatermark => self.watermark,
            ReadLimit::LogEnd => self.end,
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
        if to < self.end {
            self.cut(if to >= self.durable { self.durable } else { to });
        }
    }

    pub fn cut(&mut self, to: u64) {
        let kept = self.batches.partition_point(|batch| batch.next <= to);
        self.end = self.batches.get(kept).map_or(to, |first| first.base.min(to));
        self.batches.truncate(kept);
        self.claims.retain(|claim| claim.from < self.end);
        for offset in [&mut self.start, &mut self.durable, &mut self.watermark] {
            *offset = self.end.min(*offset);
        }
    }

    pub fn begin_again_at(&mut self, start: u64) {
        *self = Naive {
            end: start,
            start,
            durable: start,
            watermark: start,
            is_held: self.is_held,
            ..Naive::default()
        };
    }

    /// The epochs of what the log still has.
    fn held(&self) -> impl DoubleEndedIterator<Item = Claim> {
        let claims = self.claims.iter().enumerate();
        let is_held = |(at, _): &(usize, &Claim)| {
            let end = self.claims.get(at + 1).map_or(self.end, |next| next.from);
            end > self.start
        };
        claims.filter(is_held).map(|(_, claim)| *claim)
    }

    pub fn latest_epoch(&self) -> Option<i32> {
        self.held().next_back().map(|last| last.epoch)
    }

    pub fn end_of_epoch(&self, epoch: i32) -> EpochEnd {
        let floor = self.held().rev().find(|claim| claim.epoch <= epoch);
        let next = self.held().find(|claim| claim.epoch > epoch);
        EpochEnd {
            epoch: LeaderEpoch::new(floor.map_or(epoch, |claim| claim.epoch)),
            end: Offset::new(next.map_or(self.end, |claim| claim.from.max(self.start))),
        }
    }

    /// The last batch of each idempotent producer.
    pub fn producers(&self) -> BTreeMap<i64, Last> {
        let mut producers = BTreeMap::new();
        for batch in &self.batches {
            let header = BatchHeader::read(&batch.bytes).unwrap();
            let last = Last {
                sequence: header.base_sequence().get(),
                next: header.last_sequence().plus(1).get(),
                base: batch.base,
            };
            if header.producer_id().is_some() {
                producers.insert(header.producer_id().get(), last);
            }
        }
        producers
    }

    /// A batch that could come next: of one of three producers, or of none.
    pub fn make(&self, next_id: &mut u64, mut draw: impl FnMut(u64) -> u64) -> Vec<u8> {
        let size = SIZES[draw(4) as usize];
        let records: Vec<_> = (0..=draw(3))
            .map(|_| {
                *next_id += 1;
                Record::new(*next_id, size)
            })
            .collect();
        match draw(6) as i64 {
            producer @ 1..=3 => {
                let next = self.producers().get(&producer).map_or(0, |last| last.next);
                sequenced(&records, producer, 0, next)
            }
            _ => batch(&records),
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
            (self.start, self.watermark, self.durable, self.end)
        );
    }

    pub fn check_epochs(&self, log: &SimLog) {
        assert_eq!(log.latest_epoch().map(LeaderEpoch::get), self.latest_epoch());
        if self.latest_epoch().is_none() {
            return;
        }
        for epoch in 0..=self.latest_epoch().unwrap_or(0) + 1 {
            let answer = log.end_of_epoch(LeaderEpoch::new(epoch));
            assert_eq!(answer, self.end_of_epoch(epoch), "epoch {epoch}");
        }
    }

    /// The last batch of each producer is known when it is sent again, which changes nothing.
    pub fn check_producers(&self, log: &SimLog) {
        for (producer, last) in self.producers() {
            let stored = self.batches.iter().find(|batch| batch.base == last.base).unwrap();
            if stored.bytes.len() as u64 > log.config().segment_size_bytes {
                continue;
            }
            let again = log.append(&stored.bytes, Timestamp::new(NOON)).unwrap();
            assert!(again.duplicate, "producer {producer}: {last:?} is stored twice");
            assert_eq!(again.base_offset.get(), last.base);
        }
    }

    /// Compares what the log returns with what it should.
    pub async fn check_fetch(&self, disk: &SimDisk, log: &SimLog, offset: u64, max_bytes: u64, limit: ReadLimit) {
        let fetched = log.fetch(Offset::new(offset), max_bytes, limit).await.unwrap();
        assert_eq!(fetched.high_watermark.get(), self.watermark);
        let expected = self.readable(offset, limit);
        let Some(range) = fetched.range else {
            assert!(
                expected.is_empty(),
                "{limit:?} at {offset}: nothing, but {expected:?} is there"
            );
            return;
        };
        let bytes = log.read(&range).await.unwrap();
        let found = split(&bytes);
        let is_expected = found.len() <= expected.len() && found.iter().zip(expected).all(|(a, b)| a.bytes == b.bytes);
        assert!(is_expected, "{limit:?} at {offset}: {found:?} instead of {expected:?}");
        let next = range.next_offset().get();
        let is_behind = found.last().is_some_and(|last| last.next <= next);
        let is_before = expected.get(found.len()).is_none_or(|following| next <= following.base);
        assert!(
            is_behind && is_before && next <= self.limit(limit),
            "the next fetch begins at {next}"
        );
        assert!(found.len() == 1 || bytes.len() as u64 <= max_bytes);
        let on_disk = range.on_disk();
        if !on_disk.is_empty() {
            let file = range.file(disk).await.unwrap();
            let read = file.read(on_disk.position(), on_disk.len() as usize).await.unwrap();
            assert_eq!(read, bytes[..on_disk.len() as usize], "other bytes than in memory");
        }
    }

    /// Compares all that there is.
    pub async fn check_all(&self, disk: &SimDisk, log: &SimLog) {
        self.check_offsets(log);
        self.check_epochs(log);
        let mut offset = self.start;
        while let Some(batch) = self.readable(offset, ReadLimit::LogEnd).first() {
            self.check_fetch(disk, log, offset, 1, ReadLimit::LogEnd).await;
            offset = batch.next;
        }
        self.check_producers(log);
    }
}

/// What has become of an append, if that is known.
pub fn is_settled(ticket: &mut Ticket) -> Option<Result<(), LogError>> {
    futures::FutureExt::now_or_never(ticket)
}
