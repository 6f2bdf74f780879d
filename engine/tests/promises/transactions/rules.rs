//! The rules of transactions, one by one.

use std::rc::Rc;

use futures::FutureExt as _;
use headwater_engine::{
    Aborted, AppendError, Begins, LogConfig, MarkerEpoch, MarkerError, ProducerConfig, ReadLimit, SequenceError,
    Vetted,
    disk::{Directory as _, SimDisk},
};
use headwater_protocol::{
    batch::{BatchLimits, Compression, EndMarker, Outcome},
    error::ErrorCode,
    id::{Offset, ProducerEpoch, ProducerId, Sequence, Timestamp},
};

use super::reader::bases_committed;
use crate::support::{NOON, Record, SimLog, batch, builder, directory, open, run, sequenced, small_config};

const NOW: Timestamp = Timestamp::new(NOON);

fn transactional(id: u64, size: usize, producer: i64, epoch: i16, sequence: i32) -> Vec<u8> {
    let mut builder = builder(&[Record::new(id, size)], Compression::None);
    builder.set_transactional();
    builder.set_producer(
        ProducerId::new(producer),
        ProducerEpoch::new(epoch),
        Sequence::new(sequence),
    );
    builder.build().into_bytes()
}

fn marker(producer: i64, epoch: i16, outcome: Outcome, coordinator_epoch: i32) -> EndMarker {
    EndMarker {
        producer_id: ProducerId::new(producer),
        producer_epoch: ProducerEpoch::new(epoch),
        outcome,
        coordinator_epoch,
    }
}

fn append(log: &SimLog, bytes: &[u8]) -> Result<u64, AppendError> {
    let limits = BatchLimits {
        batch_size_max: 1 << 20,
    };
    let vetted = Vetted::at_once(bytes, &limits)?.beginning(Begins::Anywhere);
    log.append_vetted(&vetted, NOW)
        .map(|appended| appended.base_offset.get())
}

fn end(log: &SimLog, marker: &EndMarker) -> Result<u64, MarkerError> {
    let appended = log.append_marker(marker, MarkerEpoch::Same, NOW)?;
    Ok(appended.base_offset.get())
}

fn last_stable(log: &SimLog) -> u64 {
    log.offsets().last_stable.get()
}

fn run_one(test: impl AsyncFnOnce(&SimDisk, Rc<SimLog>)) {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        test(&disk, log).await;
    });
}

#[test]
fn the_last_stable_offset_passes_a_transaction_when_its_marker_is_below_the_high_watermark() {
    run_one(async |_, log| {
        log.hold_high_watermark(Offset::ZERO);
        append(&log, &batch(&[Record::new(1, 10)])).unwrap();
        append(&log, &transactional(2, 10, 7, 0, 0)).unwrap();
        append(&log, &batch(&[Record::new(3, 10)])).unwrap();
        log.flush().await.unwrap();
        assert_eq!(last_stable(&log), 0, "not above the high watermark");
        log.advance_high_watermark(Offset::new(3));
        assert_eq!(last_stable(&log), 1, "it stops at the transaction");
        let open = log.open_transactions();
        assert_eq!(
            (open.len(), open[0].first_offset.get(), open[0].coordinator_epoch),
            (1, 1, -1)
        );
        end(&log, &marker(7, 0, Outcome::Commit, 3)).unwrap();
        log.flush().await.unwrap();
        assert!(log.open_transactions().is_empty());
        assert_eq!(last_stable(&log), 1, "others may not have the marker");
        assert_eq!(bases_committed(&log, 1 << 20).await, [0]);
        let moved = log.advanced(ReadLimit::LastStable);
        log.advance_high_watermark(Offset::new(4));
        assert_eq!(moved.now_or_never(), Some(()), "who waits for it is woken");
        assert_eq!(last_stable(&log), 4);
        assert_eq!(bases_committed(&log, 1 << 20).await, [0, 1, 2]);
        // Of an aborted transaction nothing is seen.
        append(&log, &transactional(4, 10, 7, 0, 1)).unwrap();
        end(&log, &marker(7, 0, Outcome::Abort, 3)).unwrap();
        log.flush().await.unwrap();
        log.advance_high_watermark(Offset::new(6));
        assert_eq!(bases_committed(&log, 1 << 20).await, [0, 1, 2]);
        let aborted = Aborted {
            producer_id: ProducerId::new(7),
            first_offset: Offset::new(4),
            last_offset: Offset::new(5),
        };
        assert_eq!(log.aborted(Offset::new(0), Offset::new(6)).await.unwrap(), [aborted]);
        assert_eq!(log.aborted(Offset::new(0), Offset::new(4)).await.unwrap(), []);
        assert_eq!(log.aborted(Offset::new(5), Offset::new(5)).await.unwrap(), [aborted]);
    });
}

#[test]
fn zombies_and_former_coordinators_are_fenced() {
    run_one(async |disk, log| {
        append(&log, &transactional(1, 10, 7, 2, 0)).unwrap();
        let stale = end(&log, &marker(7, 1, Outcome::Commit, 5)).unwrap_err();
        assert_eq!(stale.code(), ErrorCode::InvalidProducerEpoch);
        end(&log, &marker(7, 3, Outcome::Commit, 5)).unwrap();
        // The end has raised the epoch: what the producer sends late is of no transaction that would ever end.
        let late = append(&log, &transactional(2, 10, 7, 2, 1)).unwrap_err();
        assert!(matches!(
            late,
            AppendError::Sequence(SequenceError::StaleEpoch { current: 3, got: 2, .. })
        ));
        let gap = append(&log, &transactional(2, 10, 7, 3, 1)).unwrap_err();
        assert!(matches!(
            gap,
            AppendError::Sequence(SequenceError::OutOfOrder {
                expected: 0,
                got: 1,
                ..
            })
        ));
        append(&log, &transactional(2, 10, 7, 3, 0)).unwrap();
        let fenced = end(&log, &marker(7, 3, Outcome::Abort, 4)).unwrap_err();
        assert_eq!(fenced.code(), ErrorCode::TransactionCoordinatorFenced);
        // The marker of before comes again, late.
        let again = log.append_marker(&marker(7, 3, Outcome::Commit, 5), MarkerEpoch::Raised, NOW);
        assert_eq!(again.unwrap_err().code(), ErrorCode::InvalidProducerEpoch);
        assert!(log.has_open_transaction(ProducerId::new(7)));
        let outside = append(&log, &sequenced(&[Record::new(3, 10)], 7, 3, 1)).unwrap_err();
        assert_eq!(outside.code(), ErrorCode::InvalidTxnState);
        // It is all known after the log was opened again, by the checkpoint or by what is read.
        for way in 0..2 {
            let log = if way == 0 {
                log.close().await.unwrap();
                open(disk, &small_config()).await.unwrap().0
            } else {
                log.flush().await.unwrap();
                let image = disk.kill();
                image.remove_file(&directory().join("checkpoint")).await.unwrap();
                open(&image, &small_config()).await.unwrap().0
            };
            let known = log.active_producers();
            assert_eq!(
                (known.len(), known[0].epoch.get(), known[0].coordinator_epoch),
                (1, 3, 5),
                "{way}"
            );
            assert_eq!(known[0].transaction_start, Some(Offset::new(2)));
            let fenced = log.append_marker(&marker(7, 4, Outcome::Abort, 4), MarkerEpoch::Same, NOW);
            assert_eq!(fenced.unwrap_err().code(), ErrorCode::TransactionCoordinatorFenced);
        }
    });
}

#[test]
fn what_is_cut_off_with_a_marker_is_open_again_and_the_epoch_as_before() {
    run_one(async |_, log| {
        log.hold_high_watermark(Offset::ZERO);
        append(&log, &transactional(1, 10, 7, 2, 0)).unwrap();
        append(&log, &transactional(2, 10, 7, 2, 1)).unwrap();
        end(&log, &marker(7, 3, Outcome::Abort, 5)).unwrap();
        log.flush().await.unwrap();
        log.checkpoint(NOW).await.unwrap();
        assert_eq!(log.aborted(Offset::ZERO, Offset::new(3)).await.unwrap().len(), 1);
        log.truncate(Offset::new(2)).await.unwrap();
        assert_eq!(log.open_transactions().len(), 1);
        assert_eq!(log.aborted(Offset::ZERO, Offset::new(3)).await.unwrap(), []);
        append(&log, &transactional(3, 10, 7, 2, 2)).expect("it goes on with its epoch and sequence");
        end(&log, &marker(7, 3, Outcome::Commit, 5)).unwrap();
        log.flush().await.unwrap();
        log.advance_high_watermark(Offset::new(4));
        assert_eq!(bases_committed(&log, 1 << 20).await, [0, 1, 2]);
    });
}

#[test]
fn deleted_records_of_an_open_transaction_hold_nobody_back_and_it_is_still_open() {
    run_one(async |_, log| {
        append(&log, &transactional(1, 10, 7, 0, 0)).unwrap();
        append(&log, &batch(&[Record::new(2, 10)])).unwrap();
        log.flush().await.unwrap();
        assert_eq!(last_stable(&log), 0);
        log.delete_records(Offset::new(1)).await.unwrap();
        assert_eq!(last_stable(&log), 1);
        assert_eq!(log.open_transactions().len(), 1);
        end(&log, &marker(7, 0, Outcome::Abort, 0)).unwrap();
        log.flush().await.unwrap();
        assert_eq!(last_stable(&log), 3);
        assert_eq!(bases_committed(&log, 1 << 20).await, [1]);
    });
}

/// Files of the index of aborted transactions.
async fn side_files(disk: &SimDisk) -> Vec<String> {
    let entries = disk.list(&directory()).await.unwrap();
    let names = entries.into_iter().map(|entry| entry.name);
    names.filter(|name| name.ends_with(".txnindex")).collect()
}

#[test]
fn the_index_of_aborted_transactions_is_read_or_made_again_when_it_is_missing_or_damaged() {
    run_one(async |disk, log| {
        let config = small_config();
        // One that is open over segments, others within one.
        append(&log, &transactional(0, 10, 9, 0, 0)).unwrap();
        let mut aborted = 0;
        for number in 0..60 {
            append(&log, &transactional(number + 1, 2000, 7, 0, number as i32)).unwrap();
            let outcome = [Outcome::Abort, Outcome::Commit][(number % 2) as usize];
            end(&log, &marker(7, 0, outcome, 0)).unwrap();
            aborted += usize::from(outcome == Outcome::Abort);
        }
        end(&log, &marker(9, 0, Outcome::Abort, 0)).unwrap();
        log.flush().await.unwrap();
        log.maintain(NOW).await.unwrap();
        let all = log.aborted(Offset::ZERO, Offset::MAX).await.unwrap();
        assert_eq!(all.len(), aborted + 1);
        assert_eq!(all.last().map(|last| last.first_offset), Some(Offset::ZERO));
        assert!(log.size().0 >= 4, "{:?}", log.size());
        log.close().await.unwrap();
        let files = side_files(disk).await;
        assert!(files.len() >= 3, "{files:?}");
        for damage in 0..3 {
            let image = disk.kill();
            for name in side_files(&image).await {
                let path = directory().join(&name);
                match damage {
                    0 => image.remove_file(&path).await.unwrap(),
                    1 => {
                        let mut file = image.read_file(&path).await.unwrap();
                        *file.last_mut().unwrap() ^= 1;
                        image.replace_file(&path, file).await.unwrap();
                    }
                    _ => {}
                }
            }
            let (log, _) = open(&image, &config).await.unwrap();
            let segments = log.size().0;
            for at in [0, 1, 40, 80, 120] {
                let (from, to) = (Offset::new(at), Offset::new(at + 3));
                let expected: Vec<Aborted> = all
                    .iter()
                    .copied()
                    .filter(|one| one.last_offset >= from && one.first_offset < to)
                    .collect();
                assert_eq!(log.aborted(from, to).await.unwrap(), expected, "{damage} at {at}");
            }
            assert_eq!(log.aborted(Offset::ZERO, Offset::MAX).await.unwrap(), all);
            assert!(segments >= 4);
        }
    });
}

#[test]
fn producers_with_open_transactions_are_not_forgotten_and_not_more_are_let_in() {
    let config = LogConfig {
        producers: ProducerConfig {
            expiry_ms: 1000,
            count_max: 3,
        },
        ..small_config()
    };
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        for producer in 0..3 {
            append(&log, &transactional(1, 10, producer, 4, 0)).unwrap();
        }
        let refused = append(&log, &transactional(1, 10, 3, 0, 0)).unwrap_err();
        assert!(
            matches!(refused, AppendError::TooManyTransactions { count_max: 3 }),
            "{refused}"
        );
        append(&log, &sequenced(&[Record::new(2, 10)], 5, 0, 0)).unwrap();
        log.flush().await.unwrap();
        log.checkpoint(Timestamp::new(NOON + 10_000)).await.unwrap();
        let known: Vec<i64> = log.active_producers().iter().map(|known| known.id.get()).collect();
        assert_eq!(known, [0, 1, 2]);
    });
}

#[test]
fn clients_append_no_markers() {
    run_one(async |_, log| {
        let bytes = marker(7, 0, Outcome::Commit, 0).encode(NOW);
        let refused = append(&log, &bytes).unwrap_err();
        assert_eq!(refused.code(), ErrorCode::InvalidRecord);
        let nobody = end(&log, &marker(-1, 0, Outcome::Commit, 0)).unwrap_err();
        assert_eq!(nobody.code(), ErrorCode::InvalidRequest);
        let mut alone = builder(&[Record::new(1, 10)], Compression::None);
        alone.set_transactional();
        assert!(
            append(&log, alone.build().bytes()).is_err(),
            "a transaction has a producer"
        );
        assert_eq!(log.offsets().end, Offset::ZERO);
    });
}
