//! A full disk: retention and deletion make room on it by themselves, and power may go at any moment meanwhile.

use std::{cell::Cell, rc::Rc};

use headwater_engine::{
    LogConfig, LogError,
    disk::{Fault, Halt, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};

use crate::{
    faults::Trial,
    support::{NOON, Record, append_durably, batch, for_each_seed, open, read_all, run, small_config},
};

const NOW: Timestamp = Timestamp::new(NOON);

/// Enough for one checkpoint of these tests.
const RESERVE_BYTES: u64 = 16 << 10;

fn config(retention_bytes: u64) -> LogConfig {
    LogConfig {
        retention_bytes: Some(retention_bytes),
        ..small_config()
    }
}

/// Appends `count` records of 5 kB, six to a segment.
async fn fill(log: &crate::support::SimLog, count: u64) {
    for id in 0..count {
        append_durably(log, &batch(&[Record::new(id, 5000)])).await;
    }
}

/// Takes all room, also what is reserved ahead of the end of the log.
async fn take_all_room(disk: &SimDisk, log: &crate::support::SimLog) {
    disk.set_capacity(Some(disk.used()));
    while log.needs_flush() || log.append(&batch(&[Record::new(9_999, 5000)]), NOW).is_ok() {
        match log.flush().await {
            Ok(()) => {}
            Err(LogError::DiskFull { .. }) => break,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn retention_makes_room_on_a_full_disk_whenever_it_is_stopped() {
    let name = "retention_makes_room_on_a_full_disk_whenever_it_is_stopped";
    for_each_seed(name, 30, |seed| {
        for change in 0.. {
            let disk = SimDisk::new(seed);
            let (log, before) = run(&disk, seed, async {
                let (log, _) = open(&disk, &small_config()).await.unwrap();
                fill(&log, 40).await;
                take_all_room(&disk, &log).await;
                disk.set_reserve(RESERVE_BYTES);
                drop(log);
                // Only now does retention ask for less.
                let (log, _) = open(&disk, &config(60_000)).await.unwrap();
                (Rc::clone(&log), read_all(&log).await)
            });
            disk.crash_at(disk.changes() + change);
            let executor = SimExecutor::new(&disk, seed);
            let retained = executor.block_on(log.retain(NOW));
            let is_over = retained.is_ok();
            let (disk, log) = match retained {
                Ok(done) => {
                    done.expect("it needs no room that is not there");
                    disk.crash_at(u64::MAX);
                    (disk, log)
                }
                Err(Halt::Crashed) => {
                    drop(log);
                    let image = disk.crash(seed);
                    let log = run(&image, seed, async {
                        let (log, _) = open(&image, &config(60_000)).await.unwrap();
                        log.retain(NOW).await.unwrap();
                        log
                    });
                    (image, log)
                }
                Err(Halt::Deadlock) => panic!("deadlock"),
            };
            run(&disk, seed, async {
                let start = log.offsets().start.get();
                assert!(start > 0, "it has deleted something");
                assert_eq!(read_all(&log).await, before[start as usize..], "the rest is as it was");
                append_durably(&log, &batch(&[Record::new(1, 5000)])).await;
            });
            if is_over {
                break;
            }
        }
    });
}

#[test]
fn records_can_be_deleted_on_a_full_disk() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        fill(&log, 40).await;
        take_all_room(&disk, &log).await;
        let refused = log.delete_records(Offset::new(20)).await;
        assert!(refused.is_err(), "there is nothing in reserve");
        disk.set_reserve(RESERVE_BYTES);
        assert_eq!(log.delete_records(Offset::new(20)).await.unwrap(), Offset::new(20));
        append_durably(&log, &batch(&[Record::new(1, 5000)])).await;
    });
}

#[test]
fn what_retention_could_not_delete_it_deletes_when_it_is_asked_again() {
    for kind in [OpKind::ReplaceFile, OpKind::RemoveFile] {
        for nth in 0..6 {
            let disk = SimDisk::new(nth);
            run(&disk, nth, async {
                let (log, _) = open(&disk, &config(60_000)).await.unwrap();
                fill(&log, 40).await;
                disk.fail_nth(kind, nth, Fault::InputOutput);
                let failed = log.maintain(NOW).await;
                disk.heal();
                log.maintain(NOW).await.unwrap();
                let files = disk_files(&disk).await;
                let (segments, _) = log.size();
                assert_eq!(files, segments, "after {failed:?} no file is forgotten");
            });
        }
    }
}

/// Segment files that are there.
async fn disk_files(disk: &SimDisk) -> usize {
    use headwater_engine::disk::Directory;
    let entries = disk.list(&crate::support::directory()).await.unwrap();
    entries
        .iter()
        .filter(|entry| crate::damage::is_log(&entry.name))
        .count()
}

#[test]
fn power_loss_on_a_full_disk_loses_nothing_that_was_acknowledged() {
    let name = "power_loss_on_a_full_disk_loses_nothing_that_was_acknowledged";
    let (stopped, filled) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 400, |seed| {
        let trial = Trial::with_retention(seed, Some(60_000));
        trial.work();
        let used = trial.disk.used();
        trial.disk.set_capacity(Some(used + trial.draw(40_000) as u64));
        trial.disk.set_reserve(RESERVE_BYTES * trial.draw(2) as u64);
        trial.disk.crash_at(trial.disk.changes() + trial.draw(30) as u64);
        for _ in 0..=trial.draw(2) {
            trial.executor.spawn(trial.clone().produce());
        }
        trial.executor.spawn(trial.clone().upkeep());
        stopped.set(stopped.get() + u32::from(trial.executor.run() == Err(Halt::Crashed)));
        filled.set(filled.get() + u32::from(trial.full.get() > 0));
        let trial = trial.recover_as_it_is();
        trial.executor.spawn(trial.clone().upkeep());
        trial.executor.run().expect("everyone gets an answer");
        trial.read();
        trial.disk.set_capacity(None);
        trial.work();
        trial.recover();
    });
    assert!(stopped.get() > 100, "it was stopped {} times", stopped.get());
    assert!(filled.get() > 20, "it was full {} times", filled.get());
}

/// What is cut back takes appends at once, and the next may begin another segment before it has been cut.
#[test]
fn a_segment_that_is_cut_back_on_a_full_disk_is_not_sealed_meanwhile() {
    let name = "a_segment_that_is_cut_back_on_a_full_disk_is_not_sealed_meanwhile";
    for_each_seed(name, 60, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let filled = executor.block_on(async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            fill(&log, 5).await;
            log
        });
        let log = filled.unwrap();
        for kind in [OpKind::Write, OpKind::WriteDurable] {
            disk.fail_nth(kind, 0, Fault::StorageFull);
        }
        let refused = log.append(&batch(&[Record::new(50, 100)]), NOW).unwrap();
        let flushing = Rc::clone(&log);
        executor.spawn(async move {
            let error = flushing.flush().await.unwrap_err();
            assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        });
        let (log, healed) = (log, disk.clone());
        let done = executor.block_on(async {
            refused.durable.await.unwrap_err();
            healed.heal();
            let fits_no_more = batch(&[Record::new(5, 20_000)]);
            let appended = log.append(&fits_no_more, NOW).unwrap();
            log.maintain(NOW).await.unwrap();
            log.flush().await.unwrap();
            appended.durable.await.unwrap();
            assert_eq!(crate::support::ids(&read_all(&log).await), [0, 1, 2, 3, 4, 5]);
        });
        done.unwrap();
    });
}
