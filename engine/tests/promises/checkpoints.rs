//! A checkpoint says what was durable when it was begun, and is put into words, and read, where the core does not wait for it.

use std::{cell::Cell, rc::Rc};

use headwater_engine::{LogError, PRODUCER_WINDOW, disk::SimDisk};
use headwater_protocol::id::Timestamp;

use crate::support::{NOON, Record, SimLog, append_durably, for_each_seed, open, run, sequenced, small_config, turn};

/// Batch `number` of a producer.
fn batch(producer: i64, number: i32) -> Vec<u8> {
    sequenced(&[Record::new(number as u64, 20)], producer, 0, number)
}

/// Appends a batch, and says whether it was in the log before.
fn is_repeat(log: &SimLog, payload: &[u8]) -> bool {
    log.append(payload, Timestamp::new(NOON)).unwrap().duplicate
}

/// Writes the checkpoint, and does something while it is put into words.
async fn checkpoint_while(disk: &SimDisk, log: &SimLog, meanwhile: impl FnOnce()) -> Result<(), LogError> {
    let (before, is_written) = (disk.asides(), Cell::new(false));
    let checkpoint = async {
        let written = log.checkpoint(Timestamp::new(NOON)).await;
        is_written.set(true);
        written
    };
    let meanwhile = async {
        while disk.asides() == before {
            assert!(!is_written.get(), "the core has put it into words by itself");
            turn().await;
        }
        meanwhile();
    };
    futures::join!(checkpoint, meanwhile).0
}

#[test]
fn a_checkpoint_knows_what_was_durable_when_it_was_begun_whatever_is_appended_while_it_is_written() {
    let name = "a_checkpoint_knows_what_was_durable_when_it_was_begun_whatever_is_appended_while_it_is_written";
    for_each_seed(name, 100, |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(1, 0)).await;
            append_durably(&log, &batch(2, 0)).await;
            assert!(!is_repeat(&log, &batch(1, 1)), "it is not flushed");
            let appended = Rc::clone(&log);
            let append = || {
                for (producer, number) in [(1, 2), (2, 1), (3, 0)] {
                    assert!(!is_repeat(&appended, &batch(producer, number)));
                }
            };
            checkpoint_while(&disk, &log, append).await.unwrap();
        });
        let after = disk.certain_image(seed);
        run(&after, seed, async {
            let (log, recovery) = open(&after, &small_config()).await.unwrap();
            assert_eq!((log.offsets().end.get(), recovery.scanned_bytes), (2, 0));
            for (producer, number) in [(1, 0), (2, 0)] {
                assert!(is_repeat(&log, &batch(producer, number)), "it was durable");
            }
            // Taken for repeats, these would be acknowledged, and would be nowhere.
            for (producer, number) in [(1, 1), (1, 2), (2, 1), (3, 0)] {
                assert!(!is_repeat(&log, &batch(producer, number)), "it was lost");
            }
        });
    });
}

#[test]
fn a_core_does_not_read_the_checkpoint_of_many_producers_by_itself() {
    const PRODUCERS: i64 = 10;
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        for number in 0..PRODUCER_WINDOW as i32 {
            for producer in 0..PRODUCERS {
                assert!(!is_repeat(&log, &batch(producer, number)));
            }
            log.flush().await.unwrap();
        }
        log.close().await.unwrap();
        let before = disk.asides();
        let (log, recovery) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(recovery.scanned_bytes, 0);
        assert!(disk.asides() > before);
        for number in 0..PRODUCER_WINDOW as i32 {
            assert!((0..PRODUCERS).all(|producer| is_repeat(&log, &batch(producer, number))));
        }
    });
}
