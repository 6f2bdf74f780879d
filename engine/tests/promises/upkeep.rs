//! Checkpoints and retention, each for itself; the broker's clock in records; what a process that dies after a failure leaves.

use std::{
    cell::Cell,
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
};

use futures::future::join;
use headwater_engine::{
    LogConfig, ReadLimit,
    disk::{Directory, Fault, OpKind, SimDisk},
};
use headwater_protocol::{
    batch::{BatchLimits, Batches, TimestampType},
    id::{Offset, Timestamp},
};

use crate::{
    compact::model::turn,
    faults::Trial,
    support::{
        NOON, Record, append_durably, batch, directory, fetch, for_each_seed, open, read_all, run, sequenced,
        small_config,
    },
};

const NOW: Timestamp = Timestamp::new(NOON);

#[test]
fn a_checkpoint_deletes_nothing_and_retention_that_finds_nothing_writes_nothing() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            retention_bytes: Some(60_000),
            ..small_config()
        };
        let (log, _) = open(&disk, &config).await.unwrap();
        append_durably(&log, &batch(&[Record::new(0, 5000)])).await;
        log.retain(NOW).await.unwrap();
        let checkpoint = directory().join("checkpoint");
        assert!(disk.read_file(&checkpoint).await.is_err(), "nothing was due");
        for id in 1..40 {
            append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
        }
        log.checkpoint(NOW).await.unwrap();
        assert!(disk.read_file(&checkpoint).await.is_ok());
        assert_eq!(log.offsets().start, Offset::ZERO);
        log.retain(NOW).await.unwrap();
        assert!(log.offsets().start > Offset::ZERO);
    });
}

#[test]
fn records_that_get_the_brokers_time_are_whole_and_found_by_it_also_after_a_restart() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        timestamp_type: TimestampType::LogAppendTime,
        ..small_config()
    };
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        for id in 0..40 {
            // The producer's clock is far off in either direction, which is of no consequence.
            let timestamp = if id % 2 == 0 { 1 } else { NOON * 2 };
            let record = Record {
                timestamp,
                ..Record::new(id, 2000)
            };
            let now = Timestamp::new(NOON + id as i64 * 10);
            let appended = log.append(&batch(&[record, Record::new(id, 20)]), now).unwrap();
            assert_eq!(appended.append_time, Some(now));
            log.flush().await.unwrap();
            appended.durable.await.unwrap();
        }
        log.close().await.unwrap();
        let (again, _) = open(&disk, &config).await.unwrap();
        for log in [log, again] {
            let range = log
                .fetch(Offset::ZERO, 1 << 20, ReadLimit::HighWatermark)
                .await
                .unwrap()
                .range
                .unwrap();
            let bytes = log.read(&range).await.unwrap();
            let limits = BatchLimits {
                batch_size_max: usize::MAX,
            };
            for batch in Batches::new(&bytes, &limits) {
                let batch = batch.expect("its checksum holds");
                assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
            }
            let records = read_all(&log).await;
            assert_eq!(records.len(), 80);
            for record in records {
                assert_eq!(record.timestamp, NOON + record.offset as i64 / 2 * 10);
            }
            for id in 0..40 {
                for early in [0, 9] {
                    let wanted = Timestamp::new(NOON + id * 10 - early);
                    let found = log.offset_for_timestamp(wanted).await.unwrap();
                    let expected = (Offset::new(id as u64 * 2), Timestamp::new(NOON + id * 10));
                    assert_eq!(found, Some(expected));
                }
            }
            let late = Timestamp::new(NOON + 391);
            assert_eq!(log.offset_for_timestamp(late).await.unwrap(), None);
        }
    });
}

#[test]
fn sequences_wrap_around_to_zero_also_over_a_restart() {
    for (restart, checkpoint) in [(false, false), (true, false), (true, true)] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (mut log, _) = open(&disk, &small_config()).await.unwrap();
            // A producer must begin at 0 and a batch can carry it far: the records of the first are many in number only.
            let far = i32::MAX - 1;
            append_durably(&log, &sequenced(&[Record::new(0, 20)], 9, 0, 0)).await;
            let refused = log.append(&sequenced(&[Record::new(1, 20)], 9, 0, far), NOW);
            assert!(refused.is_err(), "a gap is a gap");
            // The end of the range is reached by what recovery finds in the log, which it does not doubt.
            plant_sequence(&disk, far).await;
            let (planted, _) = open(&disk, &small_config()).await.unwrap();
            log = planted;
            let last = sequenced(&[Record::new(2, 20), Record::new(3, 20)], 9, 0, i32::MAX);
            append_durably(&log, &last).await;
            if checkpoint {
                log.checkpoint(NOW).await.unwrap();
            }
            if restart {
                log = open(&disk, &small_config()).await.unwrap().0;
            }
            // MAX and 0 were used.
            let again = log.append(&last, NOW).unwrap();
            assert!(again.duplicate && again.base_offset.get() == 1, "{again:?}");
            let repeat = log.append(&sequenced(&[Record::new(4, 20)], 9, 0, 2), NOW);
            assert!(repeat.is_err(), "1 is next");
            append_durably(&log, &sequenced(&[Record::new(4, 20)], 9, 0, 1)).await;
            assert_eq!(fetch(&log, 3, 1).await[0].id, 4);
        });
    }
}

/// Gives the one batch in the log another sequence, and the checksum that belongs to it.
async fn plant_sequence(disk: &SimDisk, sequence: i32) {
    let path = directory().join(format!("{:020}.log", 0));
    let planted = sequenced(&[Record::new(0, 20)], 9, 0, sequence);
    let mut bytes = disk.read_file(&path).await.unwrap();
    bytes[..planted.len()].copy_from_slice(&planted);
    disk.replace_file(&path, bytes).await.unwrap();
}

#[test]
fn a_process_that_dies_after_a_failed_flush_loses_nothing_that_was_acknowledged() {
    let name = "a_process_that_dies_after_a_failed_flush_loses_nothing_that_was_acknowledged";
    let failed = Cell::new(0);
    for_each_seed(name, 400, |seed| {
        let trial = Trial::new(seed);
        trial.work();
        let kind = [OpKind::Sync, OpKind::WriteDurable, OpKind::Write][trial.draw(3)];
        trial.disk.fail_nth(kind, trial.draw(4) as u64, Fault::InputOutput);
        trial.work();
        failed.set(failed.get() + u32::from(trial.log.fence().is_some()));
        trial.disk.heal();
        let trial = trial.recover_after_kill();
        trial.work();
        trial.read();
        assert!(trial.log.fence().is_none());
        trial.recover();
    });
    assert!(failed.get() > 100, "{} failures", failed.get());
}

#[test]
fn a_new_configuration_counts_from_the_next_append_on_and_loses_nothing_that_the_old_one_allowed() {
    for_each_seed(
        "a_new_configuration_counts_from_the_next_append_on_and_loses_nothing_that_the_old_one_allowed",
        20,
        |seed| {
            let disk = SimDisk::new(seed);
            let config = small_config();
            let smaller = LogConfig {
                segment_size_bytes: 8 << 10,
                batch: BatchLimits { batch_size_max: 4096 },
                ..config.clone()
            };
            let large = |id| batch(&[Record::new(id, 6000)]);
            run(&disk, seed, async {
                let (log, _) = open(&disk, &config).await.unwrap();
                append_durably(&log, &large(0)).await;
                append_durably(&log, &large(1)).await;
                assert_eq!(log.size().0, 1);
                log.reconfigure(smaller.clone());
                assert!(log.append(&large(2), NOW).is_err(), "more than a batch may have now");
                append_durably(&log, &batch(&[Record::new(2, 500)])).await;
                assert_eq!(log.size().0, 2, "the segment was larger than a segment may be now");
                log.reconfigure(config.clone());
                append_durably(&log, &large(3)).await;
                log.reconfigure(smaller.clone());
            });
            let disk = disk.crash(seed);
            run(&disk, seed, async {
                let (log, recovery) = open(&disk, &smaller).await.unwrap();
                assert_eq!(recovery.cut, None);
                let ids: Vec<_> = read_all(&log).await.iter().map(|record| record.id).collect();
                assert_eq!(ids, [0, 1, 2, 3]);
                log.reconfigure(LogConfig {
                    retention_bytes: Some(0),
                    ..smaller.clone()
                });
                log.retain(NOW).await.unwrap();
                assert_eq!(log.offsets().start, Offset::new(2), "only the active segment stays");
            });
        },
    );
}

/// What recovery has to scan after the process has died.
async fn unsaved(disk: &SimDisk) -> u64 {
    open(disk, &small_config()).await.unwrap().1.scanned_bytes
}

#[test]
fn what_becomes_durable_while_a_checkpoint_is_written_is_in_the_next() {
    let name = "what_becomes_durable_while_a_checkpoint_is_written_is_in_the_next";
    let overtaken = Cell::new(0);
    for_each_seed(name, 400, |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(&[Record::new(0, 3000)])).await;
            let more = async {
                for id in 1..=(seed % 3) {
                    append_durably(&log, &batch(&[Record::new(id, 100)])).await;
                }
            };
            let (written, ()) = join(log.checkpoint(NOW), more).await;
            written.unwrap();
            // All is durable, and nothing changes any more.
            overtaken.set(overtaken.get() + u32::from(unsaved(&disk).await > 0));
            log.checkpoint(NOW).await.unwrap();
            assert_eq!(unsaved(&disk).await, 0, "seed {seed}");
        });
    });
    assert!(overtaken.get() > 40, "{} checkpoints were overtaken", overtaken.get());
}

#[test]
fn a_checkpoint_that_was_given_up_on_its_way_is_written_by_the_next() {
    let given_up = Cell::new(0);
    for turns in 0..60 {
        let disk = SimDisk::new(turns);
        run(&disk, turns, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(&[Record::new(0, 3000)])).await;
            {
                let mut checkpoint = pin!(log.checkpoint(NOW));
                let mut left = turns;
                let ended = poll_fn(|context| {
                    if let Poll::Ready(written) = checkpoint.as_mut().poll(context) {
                        return Poll::Ready(Some(written));
                    }
                    left = left.saturating_sub(1);
                    context.waker().wake_by_ref();
                    if left == 0 { Poll::Ready(None) } else { Poll::Pending }
                });
                given_up.set(given_up.get() + u32::from(ended.await.is_none()));
            }
            // What was begun runs to its end all the same.
            for _ in 0..200 {
                turn().await;
            }
            log.close().await.unwrap();
            assert_eq!(unsaved(&disk).await, 0, "given up after {turns} turns");
        });
    }
    assert!(given_up.get() > 3, "{} were given up", given_up.get());
}
