//! Damaged files: side files cost time only, a damaged end is cut with a report, damage elsewhere is found when it is read.

use std::{cell::Cell, collections::BTreeMap, path::PathBuf, rc::Rc};

use headwater_engine::{
    FetchError, LogConfig, LogError, ReadLimit,
    disk::{Directory, SimDisk},
};
use headwater_protocol::{
    batch::{BatchLimits, Batches},
    id::{Offset, Timestamp},
};
use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, Stored, append_durably, batch, decode, directory, for_each_seed, open, read_all, run,
    sequenced, small_config,
};

const NOW: Timestamp = Timestamp::new(NOON);
const PRODUCER: i64 = 3;

/// Whether it is a segment's own file.
pub fn is_log(name: &str) -> bool {
    name.strip_suffix(".log").is_some()
}

async fn names(disk: &SimDisk, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = disk.list(&directory()).await.unwrap();
    let names = entries.into_iter().filter(|entry| wanted(&entry.name));
    names.map(|entry| directory().join(entry.name)).collect()
}

/// Overwrites a random stretch of `bytes` that begins in `from..to`.
fn scribble(rng: &mut StdRng, bytes: &mut [u8], from: usize, to: usize) {
    let at = rng.random_range(from..to);
    let most = (to - at).min([1, 8, 100, 10_000][rng.random_range(0..4)]);
    let count = rng.random_range(1..=most);
    rng.fill_bytes(&mut bytes[at..at + count]);
}

/// Appends one record a batch, of a producer that numbers them; returns the ends of the batches in bytes.
async fn fill(log: &SimLog, rng: &mut StdRng, ids: std::ops::Range<u64>) {
    for id in ids {
        let record = Record::new(id, [20, 400, 3000][rng.random_range(0..3)]);
        append_durably(log, &sequenced(&[record], PRODUCER, 0, id as i32)).await;
    }
}

#[test]
fn side_files_that_are_lost_or_damaged_cost_no_record_and_no_producer() {
    let name = "side_files_that_are_lost_or_damaged_cost_no_record_and_no_producer";
    for_each_seed(name, 300, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            fill(&log, &mut rng, 0..40).await;
            log.maintain(NOW).await.unwrap();
            fill(&log, &mut rng, 40..60).await;
            if rng.random_bool(0.5) {
                log.close().await.unwrap();
            }
            let before = read_all(&log).await;
            drop(log);
            for path in names(&disk, |name| !is_log(name)).await {
                let mut bytes = disk.read_file(&path).await.unwrap();
                match rng.random_range(0..5) {
                    0 => {
                        disk.remove_file(&path).await.unwrap();
                        continue;
                    }
                    1 => bytes.truncate(rng.random_range(0..bytes.len())),
                    2 | 3 => {
                        let len = bytes.len();
                        scribble(&mut rng, &mut bytes, 0, len);
                    }
                    _ => continue,
                }
                disk.replace_file(&path, bytes).await.unwrap();
            }
            let (log, recovery) = open(&disk, &small_config()).await.unwrap();
            assert_eq!(recovery.cut, None);
            assert_eq!(read_all(&log).await, before);
            let last = sequenced(&[Record::new(59, 20)], PRODUCER, 0, 59);
            let again = log.append(&last, NOW).unwrap();
            assert!(again.duplicate && again.base_offset.get() == 59, "{again:?}");
            let lookup = log.offset_for_timestamp(Timestamp::new(NOON)).await.unwrap();
            assert_eq!(lookup, Some((Offset::ZERO, NOW)));
        });
    });
}

/// One segment, so that positions in the log are positions in the file.
fn one_segment() -> LogConfig {
    LogConfig {
        segment_size_bytes: 4 << 20,
        ..small_config()
    }
}

/// A log with a checkpoint in the middle, closed by nobody; the checkpoint's position and the ends of all batches.
async fn with_a_checkpoint(disk: &SimDisk, rng: &mut StdRng) -> (Vec<Stored>, usize, Vec<usize>) {
    let (log, _) = open(disk, &one_segment()).await.unwrap();
    fill(&log, rng, 0..30).await;
    log.checkpoint(NOW).await.unwrap();
    let checkpoint = log.size().1 as usize;
    fill(&log, rng, 30..60).await;
    let range = log
        .fetch(Offset::ZERO, u64::MAX, ReadLimit::HighWatermark)
        .await
        .unwrap()
        .range
        .unwrap();
    let bytes = log.read(&range).await.unwrap();
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    let ends = Batches::new(&bytes, &limits).scan(0, |end, batch| {
        *end += batch.unwrap().size();
        Some(*end)
    });
    (read_all(&log).await, checkpoint, ends.collect())
}

#[test]
fn damage_behind_the_checkpoint_is_cut_and_reported_and_all_before_it_is_kept() {
    let name = "damage_behind_the_checkpoint_is_cut_and_reported_and_all_before_it_is_kept";
    let cuts = Cell::new(0);
    for_each_seed(name, 400, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (before, checkpoint, ends) = with_a_checkpoint(&disk, &mut rng).await;
            let path = names(&disk, is_log).await.remove(0);
            let old = disk.read_file(&path).await.unwrap();
            let mut new = old.clone();
            for _ in 0..rng.random_range(1..4) {
                scribble(&mut rng, &mut new, checkpoint, old.len());
            }
            let damage = old.iter().zip(&new).position(|(old, new)| old != new);
            disk.replace_file(&path, new).await.unwrap();
            let (log, recovery) = open(&disk, &one_segment()).await.unwrap();
            let kept = read_all(&log).await;
            assert_eq!(kept, before[..kept.len()]);
            let safe = ends
                .iter()
                .take_while(|end| damage.is_none_or(|at| **end <= at))
                .count();
            assert!(kept.len() >= safe, "{} of {safe} are kept", kept.len());
            if kept.len() < before.len() {
                let cut = recovery.cut.expect("what is cut is reported");
                assert_eq!(cut.offset.get(), kept.len() as u64);
                assert_eq!(cut.position as usize, ends[kept.len() - 1]);
                assert!(!cut.reason.is_empty() && cut.bytes > 0);
                cuts.set(cuts.get() + 1);
            }
            // It goes on from there.
            append_durably(&log, &batch(&[Record::new(1000, 20)])).await;
        });
    });
    assert!(cuts.get() > 100, "{} cuts", cuts.get());
}

/// Reads all that can be read, from batch to batch; returns it, how often damage was found, and where reading went on last.
async fn read_around(log: &SimLog) -> (BTreeMap<u64, u64>, u64, u64) {
    let limits = BatchLimits {
        batch_size_max: usize::MAX,
    };
    let (mut found, mut faults, mut resumed) = (BTreeMap::new(), 0, 0);
    let (mut offset, end) = (0, log.offsets().durable.get());
    while offset < end {
        let next = match log.fetch(Offset::new(offset), 1, ReadLimit::HighWatermark).await {
            Ok(fetched) => {
                let bytes = log.read(&fetched.range.unwrap()).await.unwrap();
                let batches: Result<Vec<_>, _> = Batches::new(&bytes, &limits).collect();
                // A consumer checks what it gets: the checksum, and that the offset is there.
                let good = batches.ok().filter(|batches| batches[0].base_offset().get() == offset);
                if good.is_some() {
                    found.extend(decode(&bytes).iter().map(|record| (record.offset, record.id)));
                }
                faults += u64::from(good.is_none());
                offset + 1
            }
            Err(FetchError::Log(LogError::Corrupt { resume_at, .. })) => {
                faults += 1;
                let next = resume_at.map_or(end, Offset::get);
                assert!(next > offset, "reading goes on at {next} after {offset}");
                resumed = next;
                next
            }
            Err(error) => panic!("{error}"),
        };
        offset = next;
    }
    (found, faults, resumed)
}

#[test]
fn damage_before_the_checkpoint_is_found_when_it_is_read_and_reading_goes_on_behind_it() {
    let name = "damage_before_the_checkpoint_is_found_when_it_is_read_and_reading_goes_on_behind_it";
    let (damaged, resumed) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 400, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (before, checkpoint, _) = with_a_checkpoint(&disk, &mut rng).await;
            let path = names(&disk, is_log).await.remove(0);
            let mut bytes = disk.read_file(&path).await.unwrap();
            scribble(&mut rng, &mut bytes, 0, checkpoint);
            disk.replace_file(&path, bytes).await.unwrap();
            let (log, recovery) = open(&disk, &one_segment()).await.unwrap();
            assert_eq!(recovery.cut, None);
            assert_eq!(log.offsets().end.get(), before.len() as u64);
            let (found, faults, resumed_at) = read_around(&log).await;
            // An index entry stands for a kilobyte of batches.
            assert!(resumed_at < 55, "{resumed_at}");
            for record in before.iter().skip(resumed_at.max(30) as usize) {
                assert_eq!(
                    found.get(&record.offset),
                    Some(&record.id),
                    "behind the damage all is there"
                );
            }
            for (offset, id) in &found {
                assert_eq!(before[*offset as usize].id, *id);
            }
            assert!(
                faults > 0 || found.len() == before.len(),
                "what is missing was reported"
            );
            damaged.set(damaged.get() + u64::from(faults > 0));
            resumed.set(resumed.get() + u64::from(faults > 0 && found.keys().next_back() == Some(&59)));
            let _ = log.offset_for_timestamp(NOW).await;
            let _ = log.offset_for_timestamp(Timestamp::new(NOON + 1)).await;
            let _ = Rc::clone(&log).maintain(NOW).await;
        });
    });
    assert!(damaged.get() > 200 && resumed.get() > 200, "{damaged:?} {resumed:?}");
}

#[test]
fn a_damaged_offset_or_length_before_the_checkpoint_is_a_named_error() {
    // Of the base offset, which no checksum covers, and of the length.
    for (byte, flip) in [(7, 0x40), (8, 0x01)] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let mut rng = StdRng::seed_from_u64(1);
            let (_, _, ends) = with_a_checkpoint(&disk, &mut rng).await;
            let path = names(&disk, is_log).await.remove(0);
            let mut bytes = disk.read_file(&path).await.unwrap();
            bytes[ends[4] + byte] ^= flip;
            disk.replace_file(&path, bytes).await.unwrap();
            let (log, _) = open(&disk, &one_segment()).await.unwrap();
            let error = log
                .fetch(Offset::new(5), 1, ReadLimit::HighWatermark)
                .await
                .unwrap_err();
            let FetchError::Log(LogError::Corrupt {
                position, resume_at, ..
            }) = error
            else {
                panic!("{error}")
            };
            assert_eq!(position, ends[4] as u64);
            let resume_at = resume_at.expect("the index knows where the next batches are");
            assert!(
                log.fetch(resume_at, 1, ReadLimit::HighWatermark)
                    .await
                    .unwrap()
                    .range
                    .is_some()
            );
        });
    }
}
