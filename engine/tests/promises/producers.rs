//! Idempotence: a batch that is sent again is stored once, whatever happened in between.

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use headwater_engine::{
    AppendError, Appended, LogConfig, LogError, PRODUCER_WINDOW, SequenceError,
    disk::{Fault, Halt, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::{
    batch::TimestampType,
    error::ErrorCode,
    id::{Offset, Timestamp},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, append_durably, batch, for_each_seed, ids, open, read_all, run, sequenced, small_config,
};

const PRODUCER: i64 = 7;

/// Batch `number` of the producer: one record of 100 bytes.
fn numbered(number: i32) -> Vec<u8> {
    sequenced(&[Record::new(number as u64, 100)], PRODUCER, 0, number)
}

fn append(log: &SimLog, payload: &[u8]) -> Result<Appended, AppendError> {
    log.append(payload, Timestamp::new(NOON))
}

fn refusal(result: Result<Appended, AppendError>) -> SequenceError {
    match result {
        Err(AppendError::Sequence(error)) => error,
        other => panic!("not refused for its sequence: {other:?}"),
    }
}

/// Asserts that the batch is known at this offset, and acknowledged at once.
async fn assert_duplicate(log: &SimLog, payload: &[u8], offset: u64) {
    let end = log.offsets().end;
    let again = append(log, payload).expect("an exact repeat is no error");
    assert!(again.duplicate);
    assert_eq!((again.base_offset.get(), log.offsets().end), (offset, end));
    again.durable.await.expect("it is durable");
}

#[test]
fn an_exact_repeat_gets_the_old_offset_also_after_restarts_crashes_and_rolls() {
    let disk = SimDisk::new(1);
    let config = small_config();
    let three = sequenced(&[1, 2, 3].map(|id| Record::new(id, 50)), PRODUCER, 0, 0);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        append_durably(&log, &batch(&[Record::new(0, 10)])).await;
        assert_eq!(append_durably(&log, &three).await, 1);
        assert_duplicate(&log, &three, 1).await;
        log.close().await.unwrap();
        let (log, recovery) = open(&disk, &config).await.unwrap();
        assert_eq!(recovery.scanned_bytes, 0);
        assert_duplicate(&log, &three, 1).await;
        for id in 4..24 {
            append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
        }
        log.maintain(Timestamp::new(NOON)).await.unwrap();
        assert!(log.size().0 > 2);
        assert_duplicate(&log, &three, 1).await;
        let four = sequenced(&[Record::new(30, 50)], PRODUCER, 0, 3);
        assert_eq!(append_durably(&log, &four).await, 24);
    });
    let after = disk.certain_image(1);
    run(&after, 1, async {
        let (log, recovery) = open(&after, &config).await.unwrap();
        assert!(
            recovery.scanned_bytes > 0,
            "the last batch is newer than the checkpoint"
        );
        assert_duplicate(&log, &three, 1).await;
        let four = sequenced(&[Record::new(30, 50)], PRODUCER, 0, 3);
        assert_duplicate(&log, &four, 24).await;
    });
}

#[test]
fn a_repeat_of_what_is_not_yet_durable_is_not_acknowledged_before_it_is() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let _first = append(&log, &numbered(0)).unwrap();
        let again = append(&log, &numbered(0)).unwrap();
        assert!(again.duplicate);
        let mut ticket = again.durable;
        assert!(futures::poll!(&mut ticket).is_pending());
        log.flush().await.unwrap();
        ticket.await.unwrap();
        assert_eq!(ids(&read_all(&log).await), [0]);
    });
}

#[test]
fn gaps_and_old_epochs_are_refused_and_leave_nothing() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let at = |epoch, sequence| sequenced(&[Record::new(1, 10), Record::new(2, 10)], PRODUCER, epoch, sequence);
        let unknown = append(&log, &at(0, 2)).unwrap_err();
        assert_eq!(unknown.code(), ErrorCode::UnknownProducerId);
        append_durably(&log, &at(3, 0)).await;
        let gap = append(&log, &at(3, 4)).unwrap_err();
        assert_eq!(gap.code(), ErrorCode::OutOfOrderSequenceNumber);
        let overlap = append(&log, &at(3, 1)).unwrap_err();
        assert_eq!(overlap.code(), ErrorCode::OutOfOrderSequenceNumber);
        let old = append(&log, &at(2, 2)).unwrap_err();
        assert_eq!(old.code(), ErrorCode::InvalidProducerEpoch);
        let late = append(&log, &at(4, 2)).unwrap_err();
        assert_eq!(
            late.code(),
            ErrorCode::OutOfOrderSequenceNumber,
            "a new epoch begins at 0"
        );
        assert_eq!(log.offsets().end.get(), 2, "nothing was appended");
        append_durably(&log, &at(4, 0)).await;
        assert!(matches!(
            refusal(append(&log, &at(3, 2))),
            SequenceError::StaleEpoch { .. }
        ));
    });
}

#[test]
fn the_last_128_batches_are_remembered_and_older_ones_are_refused() {
    assert_eq!(PRODUCER_WINDOW, 128);
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        for number in 0..200 {
            append(&log, &numbered(number)).unwrap();
        }
        log.flush().await.unwrap();
        for reopened in [false, true] {
            let log = if reopened {
                log.close().await.unwrap();
                open(&disk, &small_config()).await.unwrap().0
            } else {
                Rc::clone(&log)
            };
            assert_duplicate(&log, &numbered(200 - 128), 72).await;
            assert_duplicate(&log, &numbered(199), 199).await;
            let old = append(&log, &numbered(71)).unwrap_err();
            assert_eq!(old.code(), ErrorCode::DuplicateSequenceNumber);
        }
    });
}

#[test]
fn what_a_full_disk_has_dropped_is_not_taken_for_a_repeat() {
    let refused = Cell::new(0);
    for_each_seed("what_a_full_disk_has_dropped_is_not_taken_for_a_repeat", 50, |seed| {
        let disk = SimDisk::new(seed);
        // More batches than the window holds are dropped at once.
        let count = [5, 127, 128, 129, 300][seed as usize % 5];
        run(&disk, seed, async {
            let (log, _) = open(&disk, &LogConfig::default()).await.unwrap();
            for number in 0..10 {
                append(&log, &numbered(number)).unwrap();
            }
            log.flush().await.unwrap();
            for number in 10..10 + count {
                append(&log, &numbered(number)).unwrap();
            }
            disk.fail_nth(
                [OpKind::Write, OpKind::WriteDurable][seed as usize % 2],
                0,
                Fault::StorageFull,
            );
            if log.flush().await.is_ok() {
                return; // It was written in the other way.
            }
            refused.set(refused.get() + 1);
            let end = log.offsets().end.get() as i32;
            assert_eq!(end, 10);
            if count > 1 {
                refusal(append(&log, &numbered(11)));
            }
            for number in 10..10 + count {
                let appended = append(&log, &numbered(number)).unwrap();
                assert!(!appended.duplicate, "batch {number} is gone");
            }
            log.flush().await.unwrap();
            assert_duplicate(&log, &numbered(9 + count), 9 + count as u64).await;
            let expected: Vec<u64> = (0..10 + count as u64).collect();
            assert_eq!(ids(&read_all(&log).await), expected);
        });
    });
    assert!(refused.get() > 0);
}

#[test]
fn what_a_truncation_has_dropped_is_not_taken_for_a_repeat() {
    for count in [20, 127, 128, 129, 300] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &LogConfig::default()).await.unwrap();
            for number in 0..count {
                if number + 1 == count {
                    // Only what is durable ever leaves the window.
                    log.flush().await.unwrap();
                }
                append(&log, &numbered(number)).unwrap();
            }
            log.flush().await.unwrap();
            log.truncate(Offset::new(5)).await.unwrap();
            for number in 5..count {
                let appended = append(&log, &numbered(number)).unwrap();
                assert!(!appended.duplicate, "batch {number} of {count} is gone");
            }
            log.flush().await.unwrap();
            assert_eq!(ids(&read_all(&log).await), (0..count as u64).collect::<Vec<_>>());
        });
    }
}

#[test]
fn old_timestamps_do_not_make_recovery_forget_a_producer() {
    let disk = SimDisk::new(1);
    let mut record = Record::new(1, 10);
    record.timestamp = 1000;
    let old = sequenced(&[record], PRODUCER, 0, 0);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        append_durably(&log, &old).await;
    });
    let after = disk.certain_image(1);
    run(&after, 1, async {
        let (log, _) = open(&after, &small_config()).await.unwrap();
        log.maintain(Timestamp::new(NOON)).await.unwrap();
        assert_duplicate(&log, &old, 0).await;
    });
}

#[test]
fn a_repeat_in_a_topic_with_the_brokers_time_is_answered_with_the_time_of_the_original() {
    for (checkpoint, restart) in [(false, false), (true, false), (false, true), (true, true)] {
        let disk = SimDisk::new(1);
        let config = LogConfig {
            timestamp_type: TimestampType::LogAppendTime,
            ..small_config()
        };
        run(&disk, 1, async {
            let (mut log, _) = open(&disk, &config).await.unwrap();
            let append = async |log: &SimLog, payload: &[u8], now| {
                let appended = log.append(payload, Timestamp::new(now)).unwrap();
                log.flush().await.unwrap();
                appended.durable.await.unwrap();
                (appended.duplicate, appended.append_time)
            };
            let time = |ms| Some(Timestamp::new(NOON + ms));
            assert_eq!(append(&log, &numbered(0), NOON).await, (false, time(0)));
            assert_eq!(append(&log, &numbered(1), NOON + 10).await, (false, time(10)));
            if checkpoint {
                log.checkpoint(Timestamp::new(NOON)).await.unwrap();
            }
            if restart {
                log = open(&disk, &config).await.unwrap().0;
            }
            assert_eq!(append(&log, &numbered(0), NOON + 500).await, (true, time(0)));
            assert_eq!(append(&log, &numbered(1), NOON + 500).await, (true, time(10)));
            // What was stored with the producer's own time says so, whatever the topic does now.
            log.reconfigure(small_config());
            assert_eq!(append(&log, &numbered(2), NOON + 600).await, (false, None));
            log.reconfigure(config.clone());
            assert_eq!(append(&log, &numbered(2), NOON + 700).await, (true, None));
        });
    }
}

#[test]
fn silent_producers_are_forgotten_in_the_end() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        append_durably(&log, &numbered(0)).await;
        log.maintain(Timestamp::new(NOON + 1000)).await.unwrap();
        assert_eq!(log.producer_count(), 1);
        log.maintain(Timestamp::new(NOON + 48 * 60 * 60 * 1000)).await.unwrap();
        assert_eq!(log.producer_count(), 0);
    });
}

/// A client that sends its batches in order, several at once, and sends again all that it has no answer for.
#[derive(Default)]
struct Client {
    /// First batch without an answer, and where the ones with an answer are.
    next: Cell<i32>,
    offsets: std::cell::RefCell<BTreeMap<i32, u64>>,
}

impl Client {
    async fn send_all(self: Rc<Self>, log: Rc<SimLog>, producer: i64, count: i32, in_flight: i32) {
        while self.next.get() < count {
            let last = count.min(self.next.get() + in_flight);
            let mut sent = Vec::new();
            for number in self.next.get()..last {
                let record = Record::new(
                    producer as u64 * 1000 + number as u64,
                    10 + (number as usize * 731) % 3000,
                );
                match append(&log, &sequenced(&[record], producer, 0, number)) {
                    Ok(appended) => sent.push((number, appended)),
                    Err(error) => panic!("batch {number} is refused: {error}"),
                }
            }
            log.flush().await.expect("the disk works");
            for (number, appended) in sent {
                appended.durable.await.expect("the disk works");
                let known = self.offsets.borrow_mut().insert(number, appended.base_offset.get());
                assert!(known.is_none_or(|known| known == appended.base_offset.get()));
                self.next.set(number + 1);
            }
        }
    }
}

#[test]
fn producers_that_repeat_what_was_not_acknowledged_leave_no_duplicate_and_no_gap_over_crashes() {
    const COUNT: i32 = 60;
    let name = "producers_that_repeat_what_was_not_acknowledged_leave_no_duplicate_and_no_gap_over_crashes";
    for_each_seed(name, 100, |seed| {
        let mut rng = StdRng::seed_from_u64(seed);
        let clients: Vec<Rc<Client>> = (0..3).map(|_| Rc::default()).collect();
        let mut disk = SimDisk::new(seed);
        // Longer and longer lives, so that one of them gets everything done.
        for life_changes in 40.. {
            disk.crash_at(disk.changes() + rng.random_range(1..life_changes));
            let executor = SimExecutor::new(&disk, rng.random());
            let life = || -> Result<(), Halt> {
                let (log, _) = executor
                    .block_on(open(&disk, &small_config()))?
                    .expect("it can be recovered");
                for (number, client) in (0..).zip(&clients) {
                    let sending = Rc::clone(client).send_all(Rc::clone(&log), number, COUNT, 1 + number as i32 * 20);
                    executor.spawn(sending);
                }
                let maintaining = Rc::clone(&log);
                executor.spawn(async move {
                    maintaining
                        .maintain(Timestamp::new(NOON))
                        .await
                        .expect("the disk works");
                });
                executor.run()?;
                let records = executor.block_on(read_all(&log))?;
                for (number, client) in clients.iter().enumerate() {
                    let first = number as u64 * 1000;
                    let mine: Vec<_> = records
                        .iter()
                        .filter(|record| record.id / 1000 == number as u64)
                        .collect();
                    let expected: Vec<u64> = (first..first + COUNT as u64).collect();
                    assert_eq!(mine.iter().map(|record| record.id).collect::<Vec<_>>(), expected);
                    for record in mine {
                        let told = client.offsets.borrow()[&((record.id - first) as i32)];
                        assert_eq!(
                            told, record.offset,
                            "record {} is elsewhere than acknowledged",
                            record.id
                        );
                    }
                }
                Ok(())
            };
            match life() {
                Ok(()) => break,
                Err(Halt::Crashed) if rng.random_bool(0.3) => disk = disk.kill(),
                Err(Halt::Crashed) => disk = disk.crash(rng.random()),
                Err(Halt::Deadlock) => panic!("deadlock"),
            }
        }
    });
}

#[test]
fn a_fenced_log_acknowledges_no_repeat() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let _first = append(&log, &numbered(0)).unwrap();
        disk.fail_randomly(OpKind::WriteDurable, 1.0, Fault::InputOutput);
        log.flush().await.unwrap_err();
        let again = append(&log, &numbered(0)).unwrap_err();
        assert!(matches!(again, AppendError::Log(LogError::Fenced { .. })), "{again}");
    });
}

#[test]
fn a_producer_of_whom_more_is_truncated_than_is_remembered_goes_on_where_the_log_does() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = small_config();
        let (mut log, _) = open(&disk, &config).await.unwrap();
        let numbered = |number: i32| sequenced(&[Record::new(number as u64, 100)], PRODUCER, 0, number);
        for number in 0..400 {
            append_durably(&log, &numbered(number)).await;
        }
        log.truncate(Offset::new(100)).await.unwrap();
        for _ in 0..2 {
            let again = append(&log, &numbered(99)).unwrap();
            assert!(again.duplicate);
            let ahead = append(&log, &numbered(101)).unwrap_err();
            assert_eq!(ahead.code(), ErrorCode::OutOfOrderSequenceNumber);
            drop(log);
            log = open(&disk, &config).await.unwrap().0;
        }
        assert!(!append(&log, &numbered(100)).unwrap().duplicate);
    });
}
