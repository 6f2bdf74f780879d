//! The rules of compaction, one by one: what is due and when, tombstones, producers, memory, and what a compacted log refuses.

use std::cell::Cell;

use headwater_engine::{AppendError, CompactionConfig, CompactionReport, LogConfig, ReadLimit, disk::SimDisk};
use headwater_protocol::{
    batch::Compression,
    error::ErrorCode,
    id::{Offset, Timestamp},
};

use super::model::{
    Found, Keyed, at_once, batch_of, config, for_each_batch, open, read_all, sequenced, with_delete_retention,
};
use crate::support::{NOON, Record, SimLog, append_durably, batch, run};

const NOW: Timestamp = Timestamp::new(NOON);

fn later(ms: i64) -> Timestamp {
    Timestamp::new(NOON + ms)
}

/// Rolls the active segment by its age, and seals it. Twice, because age counts from the first look.
async fn seal(log: &SimLog, now: Timestamp) {
    log.maintain(now).await.unwrap();
    log.maintain(Timestamp::new(now.get() + 60_000)).await.unwrap();
}

async fn compact(log: &SimLog, now: Timestamp) -> CompactionReport {
    log.compact(now, 1 << 20, at_once).await.unwrap()
}

/// Appends records of these keys one by one, each a batch, with ids from `from` on.
async fn write(log: &SimLog, keys: &[u64], from: u64) {
    for (id, key) in (from..).zip(keys) {
        let record = Keyed::new(*key, id, NOON);
        append_durably(log, &batch_of(&[record], 200, Compression::None)).await;
    }
}

fn keys(found: &[Found]) -> Vec<(u64, u64)> {
    found.iter().map(|found| (found.offset, found.record.key)).collect()
}

#[test]
fn only_what_is_sealed_is_compacted_and_offsets_stay() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        write(&log, &[1, 2, 1, 3, 1], 0).await;
        assert_eq!(
            compact(&log, NOW).await.removed_records,
            0,
            "the active segment is not touched"
        );
        seal(&log, NOW).await;
        write(&log, &[2, 1], 5).await;
        let report = compact(&log, NOW).await;
        assert_eq!((report.passes, report.records, report.removed_records), (1, 5, 2));
        let left = [(1, 2), (3, 3), (4, 1), (5, 2), (6, 1)];
        assert_eq!(keys(&read_all(&log).await), left);
        assert_eq!(compact(&log, NOW).await, CompactionReport::default(), "nothing is new");
        let before = log.offsets();
        log.close().await.unwrap();
        let log = open(&disk, &config()).await;
        assert_eq!(log.offsets(), before);
        assert_eq!(keys(&read_all(&log).await), left);
    });
}

#[test]
fn what_is_missing_within_batches_reads_back_under_every_codec() {
    for compression in Compression::ALL {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let log = open(&disk, &config()).await;
            for round in 0..4 {
                let records: Vec<_> = (0..5)
                    .map(|key| Keyed::new(key + round, round * 10 + key, NOON))
                    .collect();
                append_durably(&log, &batch_of(&records, 300, compression)).await;
            }
            seal(&log, NOW).await;
            assert_eq!(compact(&log, NOW).await.removed_records, 12);
            let left = [(0, 0), (5, 1), (10, 2), (15, 3), (16, 4), (17, 5), (18, 6), (19, 7)];
            assert_eq!(keys(&read_all(&log).await), left);
            let bytes = log
                .read(
                    &log.fetch(Offset::ZERO, 1 << 20, ReadLimit::HighWatermark)
                        .await
                        .unwrap()
                        .range
                        .unwrap(),
                )
                .await
                .unwrap();
            for_each_batch(&bytes, |batch| assert_eq!(batch.compression(), compression));
        });
    }
}

#[test]
fn a_record_without_a_key_is_refused_and_nothing_of_its_request_is_stored() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        let mut payload = batch_of(&[Keyed::new(1, 1, NOON)], 10, Compression::None);
        payload.extend_from_slice(&batch(&[Record::new(1, 20)]));
        let refused = log.append(&payload, NOW).unwrap_err();
        assert!(matches!(refused, AppendError::NoKey { count: 1, .. }), "{refused}");
        assert_eq!(refused.code(), ErrorCode::InvalidRecord);
        assert_eq!(log.offsets().end, Offset::ZERO);
        let plain = LogConfig {
            compaction: None,
            ..config()
        };
        let log = open(&disk, &plain).await;
        append_durably(&log, &batch(&[Record::new(1, 20)])).await;
        seal(&log, NOW).await;
        // A topic that is compacted from now on has what was stored before; without a key it is nobody's last value.
        let log = open(&disk, &config()).await;
        seal(&log, NOW).await;
        assert_eq!(compact(&log, NOW).await.removed_records, 1);
        assert_eq!((read_all(&log).await, log.offsets().end.get()), (Vec::new(), 1));
    });
}

#[test]
fn a_map_that_is_too_small_takes_several_passes_to_the_same_end() {
    // Of 3 entries two may be taken, of 20 sixteen, and one in any case; the same key comes back after 30 others.
    for (map_bytes, passes) in [(0, 120), (24 * 3, 60), (24 * 20, 8), (1 << 20, 1)] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let log = open(&disk, &config()).await;
            let written: Vec<u64> = (0..120).map(|n| n * 7 % 30).collect();
            write(&log, &written, 0).await;
            seal(&log, NOW).await;
            let report = log.compact(NOW, map_bytes, at_once).await.unwrap();
            assert_eq!(report.removed_records, 90, "{map_bytes} bytes");
            assert_eq!(report.passes, passes);
            let left: Vec<u64> = read_all(&log).await.iter().map(|found| found.offset).collect();
            assert_eq!(left, (90..120).collect::<Vec<_>>());
        });
    }
}

#[test]
fn a_tombstone_stays_for_its_time_after_what_it_deletes_is_gone_and_then_goes_by_itself() {
    for restart in [false, true] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let config = with_delete_retention(500_000);
            let mut log = open(&disk, &config).await;
            write(&log, &[1, 2], 0).await;
            append_durably(&log, &batch_of(&[Keyed::tombstone(1, NOON)], 0, Compression::None)).await;
            seal(&log, NOW).await;
            // It is old by its own timestamp, but nobody could know of it yet.
            let first = later(10_000_000);
            assert_eq!(compact(&log, first).await.removed_records, 1);
            assert_eq!(keys(&read_all(&log).await), [(1, 2), (2, 1)]);
            let bytes = log
                .read(
                    &log.fetch(Offset::new(2), 1, ReadLimit::HighWatermark)
                        .await
                        .unwrap()
                        .range
                        .unwrap(),
                )
                .await
                .unwrap();
            for_each_batch(&bytes, |batch| {
                assert_eq!(batch.delete_horizon(), Some(later(10_500_000)));
            });
            if restart {
                log = open(&disk, &config).await;
            }
            assert_eq!(compact(&log, later(10_499_999)).await, CompactionReport::default());
            let found = read_all(&log).await;
            assert_eq!(found[1].record, Keyed::tombstone(1, NOON), "its own time stays");
            assert_eq!(compact(&log, later(10_500_000)).await.removed_records, 1);
            assert_eq!(keys(&read_all(&log).await), [(1, 2)]);
            assert_eq!(log.offsets().end, Offset::new(3));
            assert_eq!(compact(&log, later(90_500_000)).await, CompactionReport::default());
        });
    }
}

#[test]
fn a_tombstone_gets_its_time_only_when_nothing_older_of_its_key_is_left() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &with_delete_retention(1000)).await;
        write(&log, &[1, 2, 3, 4], 0).await;
        append_durably(&log, &batch_of(&[Keyed::tombstone(1, NOON)], 0, Compression::None)).await;
        seal(&log, NOW).await;
        // One key at a time; ended in the middle, before the tombstone's turn.
        let paces = Cell::new(0);
        let pace = async |_| {
            paces.set(paces.get() + 1);
            if paces.get() == 12 {
                log.retire().await;
            }
        };
        // Retiring waits for the compaction, which waits for its pace: it must not wait for that in turn.
        log.compact(NOW, 0, pace).await.unwrap();
        let log = open(&disk, &with_delete_retention(1000)).await;
        assert_eq!(keys(&read_all(&log).await), [(0, 1), (1, 2), (2, 3), (3, 4), (4, 1)]);
        let bytes = log
            .read(
                &log.fetch(Offset::new(4), 1, ReadLimit::HighWatermark)
                    .await
                    .unwrap()
                    .range
                    .unwrap(),
            )
            .await
            .unwrap();
        for_each_batch(&bytes, |batch| assert_eq!(batch.delete_horizon(), None));
    });
}

#[test]
fn compaction_waits_for_the_dirty_ratio_and_not_longer_than_the_greatest_lag() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let compaction = CompactionConfig {
            dirty_ratio_min: 0.5,
            lag_ms_min: 100_000,
            lag_ms_max: Some(1_000_000),
            ..CompactionConfig::default()
        };
        let config = LogConfig {
            compaction: Some(compaction),
            ..config()
        };
        let log = open(&disk, &config).await;
        write(&log, &(0..60).collect::<Vec<_>>(), 0).await;
        seal(&log, NOW).await;
        assert_eq!(compact(&log, later(99_999)).await.passes, 0, "it is too young");
        assert!(log.dirty_ratio(later(99_999)) < 0.01);
        assert!(log.dirty_ratio(later(100_000)) > 0.99);
        assert_eq!(compact(&log, later(100_000)).await.passes, 1);
        write(&log, &[0, 1, 2], 60).await;
        seal(&log, NOW).await;
        let ratio = log.dirty_ratio(later(100_000));
        assert!((0.03..0.1).contains(&ratio), "{ratio}");
        assert_eq!(compact(&log, later(999_999)).await.passes, 0);
        let report = compact(&log, later(1_000_000)).await;
        assert_eq!((report.passes, report.removed_records), (1, 3));
    });
}

#[test]
fn the_greatest_lag_rolls_a_segment_that_nothing_else_would_roll() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let compaction = CompactionConfig {
            dirty_ratio_min: 1.0,
            lag_ms_max: Some(5000),
            ..CompactionConfig::default()
        };
        let config = LogConfig {
            compaction: Some(compaction),
            segment_age_ms: u64::MAX,
            ..config()
        };
        let log = open(&disk, &config).await;
        write(&log, &[1, 1, 1], 0).await;
        log.maintain(later(4999)).await.unwrap();
        assert_eq!(compact(&log, later(4999)).await.passes, 0);
        log.maintain(later(5000)).await.unwrap();
        assert_eq!(compact(&log, later(5000)).await.removed_records, 2);
    });
}

#[test]
fn producers_go_on_after_a_compaction_even_if_nothing_but_the_log_is_left() {
    for checkpoint in [true, false] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let log = open(&disk, &config()).await;
            let one = |id| [Keyed::new(1, id, NOON)];
            for sequence in 0..40 {
                append_durably(&log, &sequenced(&one(sequence as u64), 200, 7, sequence)).await;
            }
            append_durably(&log, &sequenced(&one(40), 200, 8, 0)).await;
            write(&log, &[1], 41).await;
            seal(&log, NOW).await;
            assert_eq!(compact(&log, NOW).await.removed_records, 41);
            assert_eq!(keys(&read_all(&log).await), [(41, 1)]);
            log.close().await.unwrap();
            if !checkpoint {
                use headwater_engine::disk::Directory;
                disk.remove_file(&log.directory().join("checkpoint")).await.unwrap();
            }
            let log = open(&disk, &config()).await;
            let again = log.append(&sequenced(&one(39), 200, 7, 39), NOW).unwrap();
            assert!(again.duplicate && again.base_offset == Offset::new(39), "{again:?}");
            assert!(
                log.append(&sequenced(&one(50), 200, 7, 41), NOW).is_err(),
                "a gap is a gap"
            );
            assert_eq!(append_durably(&log, &sequenced(&one(42), 200, 7, 40)).await, 42);
            assert_eq!(append_durably(&log, &sequenced(&one(43), 200, 8, 1)).await, 43);
            // What is not a producer's last any more need not stay.
            seal(&log, NOW).await;
            assert_eq!(compact(&log, NOW).await.removed_records, 2);
            let bytes = log
                .read(
                    &log.fetch(Offset::ZERO, 1 << 20, ReadLimit::HighWatermark)
                        .await
                        .unwrap()
                        .range
                        .unwrap(),
                )
                .await
                .unwrap();
            let mut left = Vec::new();
            for_each_batch(&bytes, |batch| {
                left.push((batch.base_offset().get(), batch.record_count()));
            });
            assert_eq!(left, [(42, 0), (43, 1)]);
        });
    }
}

#[test]
fn a_log_that_loses_its_last_tombstone_and_its_checkpoint_uses_no_offset_again() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        use headwater_engine::disk::Directory;
        let log = open(&disk, &with_delete_retention(0)).await;
        write(&log, &[1], 0).await;
        append_durably(&log, &batch_of(&[Keyed::tombstone(1, NOON)], 0, Compression::None)).await;
        seal(&log, NOW).await;
        compact(&log, NOW).await;
        compact(&log, NOW).await;
        assert_eq!(read_all(&log).await, []);
        disk.remove_file(&log.directory().join("checkpoint")).await.unwrap();
        let log = open(&disk, &with_delete_retention(0)).await;
        assert_eq!(log.offsets().end, Offset::new(2));
    });
}

#[test]
fn small_neighbours_become_one_segment_of_no_more_than_the_size_of_one() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        write(&log, &(0..200).map(|n| n % 20).collect::<Vec<_>>(), 0).await;
        seal(&log, NOW).await;
        let (before, _) = log.size();
        assert!(before > 10);
        let report = compact(&log, NOW).await;
        assert!(report.replaced_segments + 3 >= before as u64);
        let (after, bytes) = log.size();
        assert!(after <= 4 && bytes < 8 << 10, "{after} segments of {bytes} bytes");
        assert_eq!(read_all(&log).await.len(), 20);
    });
}

#[test]
fn a_log_that_is_compacted_and_deleted_from_loses_old_segments_too() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            retention_ms: Some(1_000_000),
            ..config()
        };
        let log = open(&disk, &config).await;
        write(&log, &(0..40).map(|n| n % 20).collect::<Vec<_>>(), 0).await;
        seal(&log, NOW).await;
        assert_eq!(compact(&log, later(1_000_000)).await.removed_records, 20);
        log.retain(later(1_000_000)).await.unwrap();
        assert_eq!(log.offsets().start, Offset::ZERO);
        log.retain(later(1_000_001)).await.unwrap();
        assert_eq!(
            (log.offsets().start, log.offsets().end),
            (Offset::new(40), Offset::new(40))
        );
        assert_eq!(open(&disk, &config).await.offsets().start, Offset::new(40));
    });
}

#[test]
fn the_files_of_a_compacted_log_are_never_used_again() {
    use headwater_engine::disk::Directory;
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            retention_bytes: Some(8 << 10),
            ..config()
        };
        let log = open(&disk, &config).await;
        for round in 0..30 {
            write(&log, &[round; 12], round * 12).await;
            log.maintain(NOW).await.unwrap();
            // What retention lets go has been compacted at times, and at times not.
            if round % 8 < 4 {
                compact(&log, NOW).await;
            }
            assert!(!log.take_filled(), "nobody waits for a file");
            let names = disk.list(log.directory()).await.unwrap();
            assert!(names.iter().all(|entry| !entry.name.ends_with("recycled")));
        }
        assert!(log.offsets().start > Offset::ZERO);
    });
}

#[test]
fn a_batch_with_many_records_lets_others_go_first_while_it_is_looked_at() {
    const RECORDS: u64 = 5_000;
    for compression in [Compression::None, Compression::Zstd] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let large = LogConfig {
                segment_size_bytes: 1 << 20,
                ..config()
            };
            let log = open(&disk, &large).await;
            let records: Vec<_> = (0..RECORDS).map(|id| Keyed::new(id / 2, id, NOON)).collect();
            append_durably(&log, &batch_of(&records, 8, compression)).await;
            seal(&log, NOW).await;
            let (breaks, batches) = (Cell::new(0), Cell::new(0));
            let pace = async |bytes| {
                let counter = if bytes == 0 { &breaks } else { &batches };
                counter.set(counter.get() + 1);
            };
            let report = log.compact(NOW, 1 << 20, pace).await.unwrap();
            assert_eq!((report.records, report.removed_records), (RECORDS, RECORDS / 2));
            assert_eq!(batches.get(), 2, "once for the map, once to be written anew");
            assert!(breaks.get() >= 2 * (RECORDS / 1250), "{}", breaks.get());
            let left = read_all(&log).await;
            assert!(
                left.iter()
                    .map(|found| found.offset)
                    .eq((0..RECORDS / 2).map(|key| 2 * key + 1))
            );
        });
    }
}
