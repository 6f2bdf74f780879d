//! Readers of a log that is being compacted, truncated or found damaged: old contents or new, never anything between.

use headwater_engine::{
    Log, LogConfig, LogError, ReadLimit, TailMemory,
    disk::{DirectDisk, Directory, Fault, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::{
    batch::Compression,
    id::{Offset, Timestamp},
};

use super::model::{Keyed, at_once, batch_of, config, consume, decode, open, read_all};
use crate::support::{NOON, SimLog, append_durably, for_each_seed, run};

const NOW: Timestamp = Timestamp::new(NOON);

/// Writes so many records, each a batch, of so many keys in turns, and seals them.
async fn fill(log: &SimLog, count: u64, keys: u64) {
    for id in 0..count {
        let record = Keyed::new(id % keys, id, NOON + id as i64);
        append_durably(log, &batch_of(&[record], 200, Compression::None)).await;
    }
    log.maintain(NOW).await.unwrap();
    log.maintain(Timestamp::new(NOON + 60_000)).await.unwrap();
}

fn offsets(found: &[super::model::Found]) -> Vec<u64> {
    found.iter().map(|found| found.offset).collect()
}

#[test]
fn what_a_fetch_has_named_before_a_compaction_is_read_as_it_was() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        fill(&log, 60, 4).await;
        log.close().await.unwrap();
        // Nothing of it is in memory, nor open.
        let log = open(&disk, &config()).await;
        let mut held = Vec::new();
        for offset in 0..60 {
            held.push((
                offset,
                log.fetch(Offset::new(offset), 1, ReadLimit::HighWatermark)
                    .await
                    .unwrap()
                    .range
                    .unwrap(),
            ));
        }
        log.compact(NOW, 1 << 20, at_once).await.unwrap();
        assert_eq!(offsets(&read_all(&log).await), [56, 57, 58, 59]);
        for (offset, range) in held {
            let (found, _) = decode(&log.read(&range).await.unwrap());
            assert_eq!(offsets(&found), [offset]);
        }
    });
}

#[test]
fn a_fetch_of_what_is_gone_leads_to_what_follows() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        fill(&log, 60, 4).await;
        log.compact(NOW, 1 << 20, at_once).await.unwrap();
        append_durably(&log, &batch_of(&[Keyed::new(9, 60, NOON)], 10, Compression::None)).await;
        for offset in 0..60 {
            let fetched = log
                .fetch(Offset::new(offset), 1, ReadLimit::HighWatermark)
                .await
                .unwrap();
            let (found, _) = decode(&log.read(&fetched.range.unwrap()).await.unwrap());
            assert_eq!(offsets(&found), [offset.max(56)]);
        }
        for (timestamp, expected) in [(0, 56), (56, 56), (57, 57), (59, 59)] {
            let found = log
                .offset_for_timestamp(Timestamp::new(NOON + timestamp))
                .await
                .unwrap();
            let expected = (Offset::new(expected), Timestamp::new(NOON + expected as i64));
            assert_eq!(found, Some(expected));
        }
    });
}

#[test]
fn consumers_who_read_while_it_is_compacted_miss_no_last_value() {
    for_each_seed(
        "consumers_who_read_while_it_is_compacted_miss_no_last_value",
        60,
        |seed| {
            let disk = SimDisk::new(seed);
            let executor = SimExecutor::new(&disk, seed);
            let log = executor
                .block_on(async {
                    let log = open(&disk, &config()).await;
                    fill(&log, 80, 7).await;
                    log.close().await.unwrap();
                    open(&disk, &config()).await
                })
                .unwrap();
            for max_bytes in [1, 700, 9000] {
                let log = std::rc::Rc::clone(&log);
                executor.spawn(async move {
                    for _ in 0..3 {
                        let seen = consume(&log, 0, max_bytes).await;
                        assert!(seen.is_sorted_by_key(|found| found.offset));
                        for found in &seen {
                            let id = found.offset;
                            assert_eq!(found.record, Keyed::new(id % 7, id, NOON + id as i64));
                        }
                        let last: Vec<u64> = offsets(&seen).into_iter().filter(|offset| *offset >= 73).collect();
                        assert_eq!(last, (73..80).collect::<Vec<_>>());
                    }
                });
            }
            let compacted = std::rc::Rc::clone(&log);
            executor.spawn(async move {
                let pace = async |_| super::model::turn().await;
                let report = compacted.compact(NOW, 24 * 4, pace).await.unwrap();
                assert_eq!(report.removed_records, 73);
            });
            executor.run().unwrap();
        },
    );
}

#[test]
fn a_compacted_log_without_its_checkpoint_or_indexes_opens_as_it_was() {
    for lost in [
        &["checkpoint"][..],
        &["index", "timeindex"],
        &["checkpoint", "compaction"],
        &["compaction"],
    ] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let log = open(&disk, &config()).await;
            fill(&log, 200, 40).await;
            log.compact(NOW, 1 << 20, at_once).await.unwrap();
            append_durably(&log, &batch_of(&[Keyed::new(99, 200, NOON)], 10, Compression::None)).await;
            let (expected, end) = (read_all(&log).await, log.offsets().end);
            log.close().await.unwrap();
            for entry in disk.list(log.directory()).await.unwrap() {
                let path = log.directory().join(&entry.name);
                if lost.iter().any(|name| entry.name.ends_with(name)) {
                    if entry.name == "compaction" {
                        // Damaged, not missing: that it was there is what says that offsets may be.
                        disk.replace_file(&path, b"nonsense".to_vec()).await.unwrap();
                    } else {
                        disk.remove_file(&path).await.unwrap();
                    }
                }
            }
            let log = open(&disk, &config()).await;
            assert_eq!((read_all(&log).await, log.offsets().end), (expected, end));
        });
    }
}

#[test]
fn a_log_that_is_truncated_into_what_was_compacted_goes_on_from_there() {
    for to in [3, 40, 57, 58, 61] {
        for restart in [false, true] {
            let disk = SimDisk::new(1);
            run(&disk, 1, async {
                let mut log = open(&disk, &config()).await;
                fill(&log, 60, 4).await;
                log.compact(NOW, 1 << 20, at_once).await.unwrap();
                append_durably(
                    &log,
                    &batch_of(
                        &[Keyed::new(9, 60, NOON), Keyed::new(9, 61, NOON)],
                        10,
                        Compression::None,
                    ),
                )
                .await;
                log.truncate(Offset::new(to)).await.unwrap();
                let end = log.offsets().end.get();
                assert_eq!(end, if to == 61 { 60 } else { to });
                if restart {
                    log = open(&disk, &config()).await;
                    assert_eq!(log.offsets().end.get(), end);
                }
                let kept: Vec<u64> = (56..60).filter(|offset| *offset < end).collect();
                assert_eq!(offsets(&read_all(&log).await), kept);
                for id in [end, end + 1] {
                    append_durably(&log, &batch_of(&[Keyed::new(1, id, NOON)], 10, Compression::None)).await;
                }
                log.maintain(NOW).await.unwrap();
                log.maintain(Timestamp::new(NOON + 60_000)).await.unwrap();
                log.compact(NOW, 1 << 20, at_once).await.unwrap();
                let expected: Vec<u64> = kept
                    .into_iter()
                    .filter(|offset| *offset != 57)
                    .chain([end + 1])
                    .collect();
                assert_eq!(
                    offsets(&read_all(&log).await),
                    expected,
                    "what was appended since is compacted too"
                );
                let log = open(&disk, &config()).await;
                assert_eq!(
                    (log.offsets().end.get(), offsets(&read_all(&log).await)),
                    (end + 2, expected)
                );
            });
        }
    }
}

#[test]
fn a_compaction_gives_way_to_a_deletion_of_records_and_to_a_truncation() {
    for (at, is_truncation) in (0..130).flat_map(|at| [(at, false), (at, true)]) {
        let disk = SimDisk::new(at);
        run(&disk, at, async {
            let log = open(&disk, &config()).await;
            fill(&log, 60, 4).await;
            let paces = std::cell::Cell::new(0);
            let pace = async |_| {
                paces.set(paces.get() + 1);
                if paces.get() == at && is_truncation {
                    log.truncate(Offset::new(30)).await.unwrap();
                } else if paces.get() == at {
                    log.delete_records(Offset::new(30)).await.unwrap();
                }
            };
            log.compact(NOW, 1 << 20, pace).await.unwrap();
            let is_done = paces.get() >= at && at > 0;
            for log in [&log, &open(&disk, &config()).await] {
                let found = offsets(&read_all(log).await);
                if is_truncation && is_done {
                    // The first segments may have lost to what was there then; the others must not any more.
                    assert_eq!(log.offsets().end, Offset::new(30));
                    assert!(at > 60 || found.ends_with(&[26, 27, 28, 29]), "{at}: {found:?}");
                } else {
                    assert!(found.ends_with(&[56, 57, 58, 59]), "{at}: {found:?}");
                }
                let start = if is_done && !is_truncation { 30 } else { 0 };
                assert_eq!(log.offsets().start, Offset::new(start));
            }
        });
    }
}

#[test]
fn what_is_truncated_supersedes_nothing_that_is_still_there() {
    let mut truncated = 0;
    for at in 1..130 {
        let disk = SimDisk::new(at);
        run(&disk, at, async {
            let log = open(&disk, &config()).await;
            // The last twenty supersede the first twenty.
            fill(&log, 60, 40).await;
            let paces = std::cell::Cell::new(0);
            let pace = async |_| {
                paces.set(paces.get() + 1);
                if paces.get() == at && disk.count(OpKind::Rename) == 0 {
                    log.truncate(Offset::new(40)).await.unwrap();
                }
            };
            log.compact(NOW, 1 << 20, pace).await.unwrap();
            if log.offsets().end == Offset::new(40) {
                assert_eq!(offsets(&read_all(&log).await), (0..40).collect::<Vec<_>>(), "at {at}");
                truncated += 1;
            }
        });
    }
    assert!(truncated > 60, "{truncated}");
}

#[test]
fn a_swap_that_has_failed_is_not_finished_by_the_next_process_when_the_log_has_changed() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let log = open(&disk, &config()).await;
            fill(&log, 60, 4).await;
            // It may have been done all the same.
            disk.fail_nth(OpKind::Rename, 0, Fault::InputOutput);
            log.compact(NOW, 1 << 20, at_once).await.unwrap_err();
            log.truncate(Offset::new(5)).await.unwrap();
            append_durably(&log, &batch_of(&[Keyed::new(9, 5, NOON)], 10, Compression::None)).await;
            let log = open(&disk, &config()).await;
            assert_eq!(offsets(&read_all(&log).await), [0, 1, 2, 3, 4, 5]);
        });
    }
}

#[test]
fn a_compaction_that_fails_anywhere_leaves_the_log_as_good_as_before() {
    let kinds = [
        OpKind::Open,
        OpKind::Read,
        OpKind::Write,
        OpKind::Sync,
        OpKind::Truncate,
        OpKind::Rename,
        OpKind::ReplaceFile,
        OpKind::RemoveFile,
    ];
    let mut failures = 0;
    for fault in [Fault::InputOutput, Fault::StorageFull] {
        for kind in kinds {
            for nth in 0..8 {
                let disk = SimDisk::new(nth);
                failures += run(&disk, nth, async {
                    let log = open(&disk, &config()).await;
                    fill(&log, 60, 4).await;
                    disk.fail_nth(kind, nth, fault);
                    let failed = log.compact(NOW, 1 << 20, at_once).await;
                    let values = |found: Vec<super::model::Found>| found.into_iter().rev().take(4).collect::<Vec<_>>();
                    disk.heal();
                    let seen = values(read_all(&log).await);
                    let image = disk.image(nth);
                    let next = open(&image, &config()).await;
                    assert_eq!(offsets(&seen), [59, 58, 57, 56], "{kind:?} {nth}");
                    assert!(log.fence().is_none());
                    // The next process finds it as good, and the same one goes on.
                    assert_eq!(values(read_all(&next).await), seen);
                    append_durably(&log, &batch_of(&[Keyed::new(0, 60, NOON)], 10, Compression::None)).await;
                    log.maintain(NOW).await.unwrap();
                    log.compact(NOW, 1 << 20, at_once).await.unwrap();
                    assert_eq!(offsets(&read_all(&log).await), [56, 57, 58, 59, 60]);
                    let entries = disk.list(log.directory()).await.unwrap();
                    let is_left = |name: &str| name.ends_with("cleaned") || name.ends_with("swap");
                    assert!(entries.iter().all(|entry| !is_left(&entry.name)), "{entries:?}");
                    u32::from(failed.is_err())
                });
            }
        }
    }
    assert!(failures > 40, "{failures} failures");
}

#[test]
fn damage_ends_a_compaction_and_is_named_and_nothing_is_dropped_for_it() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let log = open(&disk, &config()).await;
        fill(&log, 60, 4).await;
        let path = log.directory().join(format!("{:020}.log", 0));
        let mut bytes = disk.read_file(&path).await.unwrap();
        bytes[1000] ^= 1;
        disk.replace_file(&path, bytes).await.unwrap();
        let log = open(&disk, &config()).await;
        let (segments, size) = log.size();
        let failed = log.compact(NOW, 1 << 20, at_once).await.unwrap_err();
        assert!(
            matches!(&failed, LogError::Corrupt { path: at, .. } if *at == path),
            "{failed}"
        );
        assert_eq!(log.size(), (segments, size));
    });
}

#[test]
fn consumers_of_real_files_read_on_in_what_was_replaced() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("topic-0");
    let builder = glommio::LocalExecutorBuilder::new(glommio::Placement::Unbound);
    let running = builder.spawn(move || async move {
        let disk = DirectDisk::new().unwrap();
        let config = LogConfig {
            segment_size_bytes: 64 << 10,
            ..config()
        };
        let memory = TailMemory::new(4 << 20);
        let (log, _) = Log::open(disk.clone(), path.clone(), config.clone(), memory)
            .await
            .unwrap();
        for id in 0..200 {
            let record = Keyed::new(id % 9, id, NOON);
            log.append(&batch_of(&[record], 3000, Compression::None), NOW).unwrap();
            log.flush().await.unwrap();
        }
        log.maintain(NOW).await.unwrap();
        log.maintain(Timestamp::new(NOON + 60_000)).await.unwrap();
        let mut held = Vec::new();
        for offset in (0..200).step_by(10) {
            held.push((
                offset,
                log.fetch(Offset::new(offset), 1, ReadLimit::HighWatermark)
                    .await
                    .unwrap()
                    .range
                    .unwrap(),
            ));
        }
        assert!(held.iter().all(|(_, range)| range.in_memory().is_some()));
        let report = log.compact(NOW, 1 << 20, at_once).await.unwrap();
        assert_eq!(report.removed_records, 191);
        // They were found in memory, and are not there any more when they are read: only now is the file looked into.
        while held.iter().any(|(_, range)| range.in_memory().is_some()) {
            let filling = batch_of(&[Keyed::new(0, 200, NOON)], 50_000, Compression::None);
            log.append(&filling, NOW).unwrap();
            log.flush().await.unwrap();
        }
        for (offset, range) in held {
            let (found, _) = decode(&log.read(&range).await.unwrap());
            assert_eq!(offsets(&found), [offset]);
        }
        log.close().await.unwrap();
        let memory = TailMemory::new(8 << 10);
        let (log, recovery) = Log::open(disk, path, config, memory).await.unwrap();
        assert_eq!(recovery.cut, None);
        let range = log
            .fetch(Offset::ZERO, 1 << 20, ReadLimit::HighWatermark)
            .await
            .unwrap()
            .range
            .unwrap();
        let (found, _) = decode(&log.read(&range).await.unwrap());
        assert_eq!(offsets(&found)[..9], (191..200).collect::<Vec<_>>());
    });
    running.unwrap().join().unwrap();
}
