//! Who may read how far, who is woken when, and what nobody may take away.

use std::{cell::Cell, rc::Rc};

use futures::FutureExt as _;
use headwater_engine::{
    LogConfig, LogError, ReadLimit, TailMemory,
    disk::{SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};

use super::naive::{is_settled, split};
use crate::{
    compact::model as compact,
    support::{NOON, Record, append_durably, batch, for_each_seed, open, open_with, run, small_config, turn},
};

const NOW: Timestamp = Timestamp::new(NOON);

#[test]
fn a_replica_reads_what_is_not_durable_yet_while_it_is_being_flushed_and_evicted() {
    let name = "a_replica_reads_what_is_not_durable_yet_while_it_is_being_flushed_and_evicted";
    let ahead = Cell::new(0);
    for_each_seed(name, 100, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let memory = TailMemory::new(8 << 10);
        let log = executor.block_on(open_with(&disk, &small_config(), &memory)).unwrap();
        let log = log.unwrap().0;
        log.hold_high_watermark(Offset::ZERO);
        let count = 60;
        let writing = Rc::clone(&log);
        executor.spawn(async move {
            for id in 0..count {
                let size = [30, 700, 4000][(id % 3) as usize];
                writing.append(&batch(&[Record::new(id, size)]), NOW).unwrap();
                turn().await;
                if id % 4 == seed % 4 {
                    writing.flush().await.unwrap();
                }
            }
            writing.flush().await.unwrap();
        });
        let reading = async {
            let mut found = Vec::new();
            while found.len() < count as usize {
                let (next, news) = (found.len() as u64, log.advanced(ReadLimit::LogEnd));
                let fetched = log.fetch(Offset::new(next), 6000, ReadLimit::LogEnd).await.unwrap();
                let Some(range) = fetched.range else {
                    news.await;
                    continue;
                };
                if range.next_offset() > log.offsets().durable {
                    ahead.set(ahead.get() + 1);
                }
                turn().await;
                found.extend(split(&log.read(&range).await.unwrap()));
                // Replicas decide how far clients may read.
                log.advance_high_watermark(Offset::new(next));
                let client = log
                    .fetch(Offset::ZERO, u64::MAX, ReadLimit::HighWatermark)
                    .await
                    .unwrap();
                assert!(client.range.is_none_or(|range| range.next_offset().get() <= next));
            }
            found
        };
        let found = executor.block_on(reading).unwrap();
        for (id, batch) in (0..).zip(&found) {
            assert_eq!(crate::support::ids(&crate::support::decode(&batch.bytes)), [id]);
        }
    });
    assert!(ahead.get() > 0, "nothing was read ahead of the flush");
}

#[test]
fn who_waits_is_woken_by_what_it_waits_for() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        log.hold_high_watermark(Offset::ZERO);
        let (mut end, mut watermark) = (log.advanced(ReadLimit::LogEnd), log.advanced(ReadLimit::HighWatermark));
        assert!((&mut end).now_or_never().is_none());
        let appended = log.append(&batch(&[Record::new(1, 10)]), NOW).unwrap();
        end.await;
        assert!((&mut watermark).now_or_never().is_none());
        let mut committed = log.committed(&appended);
        log.flush().await.unwrap();
        appended.durable.clone().await.unwrap();
        assert!(is_settled(&mut committed).is_none(), "durable here, and nowhere else");
        let watermark = log.advanced(ReadLimit::HighWatermark);
        log.advance_high_watermark(Offset::new(1));
        watermark.await;
        committed.await.unwrap();
        // A log that is given up wakes everybody.
        let waits = [ReadLimit::LogEnd, ReadLimit::HighWatermark, ReadLimit::Durable].map(|limit| log.advanced(limit));
        let mut never = log.committed(&log.append(&batch(&[Record::new(2, 10)]), NOW).unwrap());
        log.retire().await;
        for wait in waits {
            wait.await;
        }
        assert!(matches!(is_settled(&mut never), Some(Err(LogError::Retired { .. }))));
    });
}

#[test]
fn an_append_that_waits_when_replicas_come_waits_for_them_too() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        let appended = log.append(&batch(&[Record::new(1, 10)]), NOW).unwrap();
        let mut committed = log.committed(&appended);
        log.hold_high_watermark(log.offsets().high_watermark);
        log.flush().await.unwrap();
        assert!(is_settled(&mut committed).is_none());
        log.follow_durable_offset();
        committed.await.unwrap();
    });
}

#[test]
fn nothing_beyond_the_high_watermark_is_deleted_or_compacted() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            retention_bytes: Some(1),
            ..compact::config()
        };
        let (log, _) = open(&disk, &config).await.unwrap();
        log.hold_high_watermark(Offset::ZERO);
        for id in 0..40 {
            let keyed = compact::Keyed::new(7, id, NOON);
            append_durably(
                &log,
                &compact::batch_of(&[keyed], 1000, headwater_protocol::batch::Compression::None),
            )
            .await;
        }
        let retain = async || {
            log.maintain(NOW).await.unwrap();
            log.compact(NOW, 1 << 20, compact::at_once).await.unwrap()
        };
        assert_eq!(retain().await.replaced_segments, 0);
        assert_eq!(log.offsets().start, Offset::ZERO);
        log.advance_high_watermark(Offset::new(20));
        retain().await;
        let start = log.offsets().start.get();
        assert!((1..=20).contains(&start), "{start}");
        assert_eq!(log.delete_records(Offset::new(30)).await.unwrap(), Offset::new(20));
        let unlimited = LogConfig {
            retention_bytes: None,
            ..compact::config()
        };
        log.reconfigure(unlimited);
        log.advance_high_watermark(Offset::new(40));
        assert!(retain().await.replaced_segments > 0);
    });
}

#[test]
fn a_full_disk_fences_a_log_of_several_replicas_as_others_may_have_what_would_be_dropped() {
    for is_held in [false, true] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(&[Record::new(0, 100)])).await;
            if is_held {
                log.hold_high_watermark(Offset::new(1));
            }
            disk.set_capacity(Some(disk.used()));
            while log.needs_flush() || log.append(&batch(&[Record::new(1, 9000)]), NOW).is_ok() {
                if log.flush().await.is_err() {
                    break;
                }
            }
            assert_eq!(log.is_fenced(), is_held);
            disk.set_capacity(None);
            assert_eq!(log.append(&batch(&[Record::new(2, 100)]), NOW).is_ok(), !is_held);
        });
    }
}

#[test]
fn what_was_named_and_is_dropped_before_it_was_durable_is_not_read() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        append_durably(&log, &batch(&[Record::new(0, 100)])).await;
        let dropped = log.append(&batch(&[Record::new(1, 100)]), NOW).unwrap();
        let range = log
            .fetch(Offset::new(1), 1, ReadLimit::LogEnd)
            .await
            .unwrap()
            .range
            .unwrap();
        log.truncate(Offset::new(1)).await.unwrap();
        assert!(matches!(dropped.durable.await, Err(LogError::Truncated)));
        append_durably(&log, &batch(&[Record::new(2, 100)])).await;
        assert!(matches!(log.read(&range).await, Err(LogError::Truncated)));
        let again = log
            .fetch(Offset::ZERO, 1 << 20, ReadLimit::HighWatermark)
            .await
            .unwrap()
            .range
            .unwrap();
        let bytes = log.read(&again).await.unwrap();
        assert_eq!(crate::support::ids(&crate::support::decode(&bytes)), [0, 2]);
    });
}
