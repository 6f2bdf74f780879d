//! What runs beside retention and truncation gets a typed answer, and never another one's records.

use std::{cell::Cell, rc::Rc};

use futures::future::join_all;
use headwater_engine::{
    FetchError, FlushConfig, LogConfig, LogError, ReadLimit, TailMemory,
    disk::{SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};

use crate::support::{
    NOON, Record, append_durably, batch, decode, for_each_seed, ids, open, open_with, read_all, run, small_config,
    try_fetch,
};

const NOW: Timestamp = Timestamp::new(NOON);

#[test]
fn a_fetch_beside_retention_gets_its_records_or_is_out_of_range() {
    let name = "a_fetch_beside_retention_gets_its_records_or_is_out_of_range";
    let (served, refused) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 300, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let config = LogConfig {
            retention_bytes: Some(40_000),
            ..small_config()
        };
        let log = executor.block_on(async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            for id in 0..40 {
                append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
            }
            log.close().await.unwrap();
            // Nothing is in memory, no file is open.
            open(&disk, &config).await.unwrap().0
        });
        let log = log.unwrap();
        let reading = join_all((0..40).map(|offset| {
            let log = Rc::clone(&log);
            async move { (offset, try_fetch(&log, offset, 12_000).await) }
        }));
        let lookup = Rc::clone(&log);
        executor.spawn(async move {
            let found = lookup.offset_for_timestamp(NOW).await;
            assert!(matches!(found, Ok(Some(_))), "{found:?}");
        });
        let retaining = Rc::clone(&log);
        executor.spawn(async move { retaining.retain(NOW).await.unwrap() });
        for (offset, outcome) in executor.block_on(reading).unwrap() {
            match outcome {
                Ok(records) => {
                    assert_eq!(records[0].id, offset);
                    served.set(served.get() + 1);
                }
                Err(FetchError::OutOfRange { start, .. }) => {
                    assert!(offset < start.get());
                    refused.set(refused.get() + 1);
                }
                Err(error) => panic!("offset {offset}: {error}"),
            }
        }
        executor.run().unwrap();
        assert!(log.offsets().start.get() > 0);
    });
    assert!(served.get() > 0 && refused.get() > 0, "{served:?} {refused:?}");
}

#[test]
fn a_range_that_was_found_can_be_read_after_retention_has_removed_its_segment() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            retention_bytes: Some(1),
            ..small_config()
        };
        // So little memory that only the end of the log is in it.
        let (log, _) = open_with(&disk, &config, &TailMemory::new(8 << 10)).await.unwrap();
        for id in 0..3 {
            append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
        }
        let range = log
            .fetch(Offset::ZERO, 20_000, ReadLimit::HighWatermark)
            .await
            .unwrap()
            .range
            .unwrap();
        for id in 3..20 {
            append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
        }
        // Seals the segment, and lets go of its file.
        log.checkpoint(NOW).await.unwrap();
        log.retain(NOW).await.unwrap();
        assert!(log.offsets().start.get() > 4);
        let used = disk.used();
        assert_eq!(ids(&decode(&log.read(&range).await.unwrap())), [0, 1, 2]);
        drop(range);
        assert!(disk.used() + 20_000 < used, "the file goes with its last reader");
    });
}

#[test]
fn what_is_appended_while_the_log_is_being_closed_is_kept() {
    let name = "what_is_appended_while_the_log_is_being_closed_is_kept";
    for_each_seed(name, 300, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let log = executor.block_on(async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(&[Record::new(0, 3000)])).await;
            log
        });
        let log = log.unwrap();
        let closing = Rc::clone(&log);
        executor.spawn(async move { closing.close().await.unwrap() });
        let late = Rc::clone(&log);
        executor.spawn(async move {
            for id in 1..6 {
                append_durably(&late, &batch(&[Record::new(id, 3000)])).await;
            }
        });
        executor.run().unwrap();
        drop(log);
        let all = executor.block_on(async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            ids(&read_all(&log).await)
        });
        assert_eq!(all.unwrap(), [0, 1, 2, 3, 4, 5]);
    });
}

#[test]
fn appends_that_wait_while_the_log_is_truncated_are_told_so() {
    let name = "appends_that_wait_while_the_log_is_truncated_are_told_so";
    let (kept, dropped) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 300, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let config = LogConfig {
            flush: FlushConfig {
                uncovered_bytes_max: 8 << 10,
                single_write_bytes_max: 0,
                ..FlushConfig::default()
            },
            ..small_config()
        };
        let log = executor
            .block_on(async {
                let (log, _) = open(&disk, &config).await.unwrap();
                for id in 0..10 {
                    append_durably(&log, &batch(&[Record::new(id, 3000)])).await;
                }
                log
            })
            .unwrap();
        let tickets: Vec<_> = (10..30)
            .map(|id| log.append(&batch(&[Record::new(id, 3000)]), NOW).unwrap())
            .collect();
        let to = seed % 30;
        let (truncating, flushing, again) = (Rc::clone(&log), Rc::clone(&log), Rc::clone(&log));
        // In either order, as the seed has it: one of them waits for the other.
        executor.spawn(async move { flushing.flush().await.unwrap() });
        executor.spawn(async move { truncating.truncate(Offset::new(to)).await.unwrap() });
        executor.spawn(async move { again.flush().await.unwrap() });
        let outcomes = executor.block_on(join_all(tickets.into_iter().map(|appended| async move {
            let offset = appended.base_offset.get();
            (offset, appended.durable.await)
        })));
        executor.run().unwrap();
        for (offset, outcome) in outcomes.unwrap() {
            match outcome {
                Ok(()) => kept.set(kept.get() + 1),
                Err(LogError::Truncated) => {
                    assert!(offset >= log.offsets().end.get());
                    dropped.set(dropped.get() + 1);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let records = executor.block_on(read_all(&log)).unwrap();
        assert_eq!(ids(&records), (0..log.offsets().end.get()).collect::<Vec<_>>());
        assert_eq!(log.offsets().durable, log.offsets().end);
    });
    assert!(kept.get() > 0 && dropped.get() > 0, "{kept:?} {dropped:?}");
}
