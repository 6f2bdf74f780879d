//! One flipped bit in what is stored: whoever reads gets exactly the records, or is told. Each bit of the header of a batch, which is
//! where a log and its readers learn what lies where, and some of its records.

use std::{collections::BTreeSet, path::PathBuf, rc::Rc};

use bytes::Bytes;
use headwater_engine::{
    CompactionConfig, FetchError, LogConfig, LogError, ReadLimit,
    disk::{Directory, SimDisk},
};
use headwater_protocol::{
    batch::{BatchLimits, Batches, Compression, RecordBatch, RecordSet},
    id::{Offset, Timestamp},
};

use crate::{
    compact::model::{Keyed, at_once, batch_of},
    damage::is_log,
    support::{NOON, SimLog, append_durably, directory, open, run, small_config},
};

const NOW: Timestamp = Timestamp::new(NOON);
const LIMITS: BatchLimits = BatchLimits {
    batch_size_max: usize::MAX,
};

/// Of a batch: not covered by its checksum, and of no meaning to a reader.
const LEADER_EPOCH: std::ops::Range<usize> = 12..16;
/// Not covered either.
const BASE_OFFSET: std::ops::Range<usize> = 0..8;
const HEADER_LEN: usize = 61;

/// Offset, key and timestamp of a record.
type Seen = (u64, u64, i64);

fn records(batch: &RecordBatch<'_>) -> Vec<Seen> {
    let set = RecordSet::decode(&Bytes::copy_from_slice(batch.bytes()), 64 << 20).unwrap();
    let seen = set.iter().map(|record| {
        let record = record.unwrap();
        let key = u64::from_be_bytes(record.key.unwrap().try_into().unwrap());
        (record.offset.get(), key, record.timestamp.get())
    });
    seen.collect()
}

/// What a consumer reads from an offset to the end, so many bytes at a time; `None` if it is told of damage, or finds it: by
/// checksums, and by offsets that cannot follow each other.
async fn consume(log: &SimLog, from: u64, max_bytes: u64) -> Option<Vec<Seen>> {
    let (mut seen, mut next, mut is_boundary) = (Vec::new(), Offset::new(from), false);
    while next < log.offsets().durable {
        let range = match log.fetch(next, max_bytes, ReadLimit::HighWatermark).await {
            Ok(fetched) => fetched.range,
            Err(FetchError::Log(LogError::Corrupt { .. })) => return None,
            Err(error) => panic!("{error}"),
        };
        let Some(range) = range else { break };
        let bytes = log.read(&range).await.unwrap();
        for batch in Batches::new(&bytes, &LIMITS) {
            let batch = batch.ok()?;
            if batch.next_offset() <= next || (is_boundary && batch.base_offset() < next) {
                return None;
            }
            seen.extend(records(&batch).into_iter().filter(|(offset, _, _)| *offset >= from));
            (next, is_boundary) = (batch.next_offset(), true);
        }
        if next > range.next_offset() {
            return None;
        }
        // Nothing but what compaction has taken out.
        next = range.next_offset();
    }
    Some(seen)
}

/// A log that nobody has open, as a file that can be damaged.
struct Victim {
    config: LogConfig,
    disk: SimDisk,
    path: PathBuf,
    bytes: Vec<u8>,
    records: Vec<Seen>,
    /// Where each batch begins, in bytes, and its offsets.
    batches: Vec<(usize, u64, u64)>,
}

impl Victim {
    /// Batches of three records each, of many keys; if it is compacted, most of them have less, and some are gone.
    fn new(compacted: bool) -> Victim {
        let config = LogConfig {
            segment_size_bytes: 1 << 20,
            compaction: compacted.then_some(CompactionConfig {
                dirty_ratio_min: 0.0,
                ..CompactionConfig::default()
            }),
            ..small_config()
        };
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config).await.unwrap();
            for first in (0..90).step_by(3) {
                let record = |id: u64| {
                    let key = if id.is_multiple_of(5) || (30..36).contains(&id) {
                        7
                    } else {
                        id
                    };
                    Keyed::new(key, id, NOON + id as i64)
                };
                let batch = batch_of(&[first, first + 1, first + 2].map(record), 100, Compression::None);
                append_durably(&log, &batch).await;
            }
            let old = Timestamp::new(NOON + 30 * 24 * 3_600_000);
            log.maintain(NOW).await.unwrap();
            log.maintain(old).await.unwrap();
            log.compact(old, 1 << 20, at_once).await.unwrap();
            log.close().await.unwrap();
        });
        let (path, bytes, records, batches) = run(&disk, 1, async {
            let entries = disk.list(&directory()).await.unwrap();
            let name = entries
                .iter()
                .find(|entry| is_log(&entry.name) && entry.size > 0)
                .unwrap();
            let path = directory().join(&name.name);
            let bytes = disk.read_file(&path).await.unwrap();
            let (log, _) = open(&disk, &config).await.unwrap();
            let records = consume(&log, 0, 1500).await.unwrap();
            let mut batches: Vec<(usize, u64, u64)> = Vec::new();
            let mut end = 0;
            for batch in Batches::new(&bytes, &LIMITS) {
                let batch = batch.unwrap();
                batches.push((end, batch.base_offset().get(), batch.next_offset().get()));
                end += batch.size();
            }
            (path, bytes, records, batches)
        });
        assert_eq!(records.len() < 90, compacted);
        Victim {
            config,
            disk,
            path,
            bytes,
            records,
            batches,
        }
    }

    /// The bits to be flipped, one at a time: of the header of some batches, and a few of their records.
    fn bits(&self) -> Vec<(usize, usize)> {
        let chosen = [0, 3, 4, self.batches.len() / 2, self.batches.len() - 1];
        let bits = chosen.into_iter().flat_map(|batch| {
            let header = 0..HEADER_LEN * 8;
            header
                .chain((0..40).map(|n| (HEADER_LEN + n * 7) * 8 + n % 8))
                .map(move |bit| (batch, bit))
        });
        bits.collect()
    }

    /// Opens the log with this bit of a batch flipped.
    async fn damaged(&self, batch: usize, bit: usize) -> Rc<SimLog> {
        let mut bytes = self.bytes.clone();
        bytes[self.batches[batch].0 + bit / 8] ^= 1 << (bit % 8);
        self.disk.replace_file(&self.path, bytes).await.unwrap();
        open(&self.disk, &self.config).await.unwrap().0
    }

    fn from(&self, offset: u64) -> Vec<Seen> {
        let wanted = self.records.iter().filter(|(at, _, _)| *at >= offset);
        wanted.copied().collect()
    }
}

#[test]
fn who_reads_past_a_flipped_bit_gets_every_record_or_is_told() {
    for compacted in [false, true] {
        let victim = Victim::new(compacted);
        run(&victim.disk, 1, async {
            for (batch, bit) in victim.bits() {
                let (_, base, next) = victim.batches[batch];
                let byte = bit / 8;
                if compacted && BASE_OFFSET.contains(&byte) {
                    // Within a hole nothing tells that a batch has moved.
                    continue;
                }
                let log = victim.damaged(batch, bit).await;
                // From the start, from within the batch, and from right behind it; by batches, and by many at once.
                for (from, max_bytes) in [(0, 1), (0, 1500), (0, 1 << 20), (base, 1), (next - 1, 1), (next, 1500)] {
                    let read = consume(&log, from, max_bytes).await;
                    let place = format!("bit {bit} of batch {batch} at {base}, read from {from} by {max_bytes}");
                    match read {
                        None if LEADER_EPOCH.contains(&byte) => panic!("{place}: harmless"),
                        None => {}
                        Some(read) => {
                            assert_eq!(read, victim.from(from), "{place}");
                            assert!(from >= next || LEADER_EPOCH.contains(&byte), "{place}: not noticed");
                        }
                    }
                }
            }
        });
    }
}

#[test]
fn an_offset_that_is_looked_up_by_time_is_the_first_whatever_bit_is_flipped() {
    for compacted in [false, true] {
        let victim = Victim::new(compacted);
        let mut named = BTreeSet::new();
        run(&victim.disk, 1, async {
            for (batch, bit) in victim.bits() {
                if compacted && BASE_OFFSET.contains(&(bit / 8)) {
                    continue;
                }
                let log = victim.damaged(batch, bit).await;
                for (offset, _, timestamp) in &victim.records {
                    match log.offset_for_timestamp(Timestamp::new(*timestamp)).await {
                        Err(LogError::Corrupt { .. }) => {
                            named.insert((batch, bit));
                        }
                        found => {
                            let expected = Some((Offset::new(*offset), Timestamp::new(*timestamp)));
                            assert_eq!(found.unwrap(), expected, "bit {bit} of batch {batch}");
                        }
                    }
                }
            }
        });
        assert!(
            named.len() > victim.bits().len() / 2,
            "{} of {}",
            named.len(),
            victim.bits().len()
        );
    }
}

#[test]
fn a_compaction_drops_nothing_for_a_flipped_bit_and_names_it() {
    let victim = Victim::new(false);
    let config = LogConfig {
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            ..CompactionConfig::default()
        }),
        ..victim.config.clone()
    };
    run(&victim.disk, 1, async {
        for (batch, bit) in victim.bits() {
            if LEADER_EPOCH.contains(&(bit / 8)) {
                continue;
            }
            drop(victim.damaged(batch, bit).await);
            let (log, _) = open(&victim.disk, &config).await.unwrap();
            let old = Timestamp::new(NOON + 60 * 24 * 3_600_000);
            let failed = log.compact(old, 1 << 20, at_once).await;
            assert!(
                matches!(failed, Err(LogError::Corrupt { .. })),
                "bit {bit} of batch {batch}: {failed:?}"
            );
            assert_eq!(log.size().1, victim.bytes.len() as u64);
        }
    });
}
