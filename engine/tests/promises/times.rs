//! Times from outside and from earlier clocks: absent, ahead, behind. None of them deletes what was just acknowledged, keeps what is
//! old for ever, or holds up what is due.

use headwater_engine::{
    CompactionConfig, LogConfig, Moment, ProducerConfig,
    disk::{Directory, SimDisk},
};
use headwater_protocol::{
    batch::Compression,
    id::{Offset, Timestamp},
};

use crate::{
    compact::model::{Keyed, at_once, batch_of},
    support::{NOON, Record, SimLog, append_durably, batch, directory, open, read_all, run, sequenced, small_config},
};

const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Keeps records for a day.
fn config() -> LogConfig {
    LogConfig {
        retention_ms: Some(DAY as u64),
        timestamp_ahead_ms_max: i64::MAX as u64,
        ..small_config()
    }
}

/// So long after noon on a machine whose clock is right.
fn after(ms: i64) -> Moment {
    off_by(0, ms)
}

/// So long after noon on a machine whose clock is ahead by so much.
fn off_by(ahead: i64, ms: i64) -> Moment {
    Moment {
        clock: Timestamp::new(NOON + ms + ahead),
        ..Moment::from(Timestamp::new(NOON + ms))
    }
}

/// Appends batches with this timestamp, durably: several segments.
async fn fill(log: &SimLog, timestamp: i64, now: Moment) {
    for _ in 0..40 {
        let id = log.offsets().end.get();
        let record = Record {
            timestamp,
            ..Record::new(id, 2000)
        };
        let appended = log.append(&batch(&[record]), now).unwrap();
        log.flush().await.unwrap();
        appended.durable.await.unwrap();
    }
}

/// How many records are left after retention has looked twice, as it does.
async fn left(log: &SimLog, now: Moment) -> usize {
    log.maintain(now).await.unwrap();
    log.maintain(now).await.unwrap();
    let count = read_all(log).await.len();
    assert_eq!(count as u64, log.offsets().durable.get() - log.offsets().start.get());
    count
}

/// How a process ends, and what the next one finds.
#[derive(Debug, Clone, Copy)]
enum End {
    /// It goes on.
    None,
    Clean,
    Killed,
    /// Only the segments are left.
    WithoutCheckpoint,
    /// As the version before has left it.
    BeforeAppendsWereTimed,
}

/// Ends the process that has the log; the next one's monotonic clock is another.
async fn restart(disk: &SimDisk, log: std::rc::Rc<SimLog>, end: End) -> std::rc::Rc<SimLog> {
    let checkpoint = directory().join("checkpoint");
    match end {
        End::None => return log,
        End::Clean => log.close().await.unwrap(),
        End::Killed => {}
        End::WithoutCheckpoint => disk.remove_file(&checkpoint).await.unwrap(),
        End::BeforeAppendsWereTimed => {
            log.close().await.unwrap();
            let file = String::from_utf8(disk.read_file(&checkpoint).await.unwrap()).unwrap();
            let (_, body) = file.split_once('\n').unwrap();
            let mut body: serde_json::Value = serde_json::from_str(body).unwrap();
            for segment in body["segments"].as_array_mut().unwrap() {
                let segment = segment.as_object_mut().unwrap();
                assert!(segment.remove("appended").is_some() && segment.remove("untimed").is_some());
            }
            let body = body.to_string();
            let head = format!("headwater-checkpoint 1 {:08x}\n", crc32c::crc32c(body.as_bytes()));
            disk.replace_file(&checkpoint, (head + &body).into_bytes())
                .await
                .unwrap();
        }
    }
    open(disk, &config()).await.unwrap().0
}

#[test]
fn records_without_a_timestamp_are_kept_from_their_append_on_as_long_as_others() {
    let ends = [
        End::None,
        End::Clean,
        End::Killed,
        End::WithoutCheckpoint,
        End::BeforeAppendsWereTimed,
    ];
    for end in ends {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config()).await.unwrap();
            fill(&log, -1, after(0)).await;
            assert_eq!(left(&log, after(30_000)).await, 40);
            let log = restart(&disk, log, end).await;
            assert_eq!(left(&log, after(60_000)).await, 40, "{end:?}");
            assert_eq!(left(&log, after(DAY - HOUR)).await, 40, "{end:?}");
            // Where nobody knows the time of the append, it counts from the first look on.
            assert_eq!(left(&log, after(DAY + HOUR)).await, 0, "{end:?}");
        });
    }
}

#[test]
fn a_time_long_past_does_not_take_records_without_a_timestamp_along() {
    for (old_first, end) in [
        (true, End::None),
        (false, End::None),
        (true, End::Clean),
        (false, End::Killed),
    ] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config()).await.unwrap();
            let record = |id, timestamp| Record {
                timestamp,
                ..Record::new(id, 20)
            };
            let times = if old_first { [1, -1] } else { [-1, 1] };
            for (id, timestamp) in (0..).zip(times) {
                append_durably(&log, &batch(&[record(id, timestamp)])).await;
            }
            assert_eq!(left(&log, after(HOUR)).await, 2, "they share a segment");
            let log = restart(&disk, log, end).await;
            assert_eq!(left(&log, after(2 * HOUR)).await, 2);
            assert_eq!(left(&log, after(DAY + 3 * HOUR)).await, 0);
            // As in Kafka: who sends old records means it.
            fill(&log, NOON - DAY, after(2 * DAY)).await;
            assert_eq!(left(&log, after(2 * DAY)).await, 0);
        });
    }
}

#[test]
fn a_timestamp_far_ahead_keeps_no_record_for_ever() {
    for (end, timestamp) in [
        (End::None, NOON + 5 * YEAR),
        (End::Clean, NOON + 5 * YEAR),
        (End::None, i64::MAX / 2),
    ] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config()).await.unwrap();
            fill(&log, timestamp, after(0)).await;
            let log = restart(&disk, log, end).await;
            assert_eq!(left(&log, after(DAY - HOUR)).await, 40);
            assert_eq!(left(&log, after(DAY + HOUR)).await, 0);
            // A clock that is a little ahead of ours counts as it says.
            fill(&log, NOON + 2 * DAY + 10_000, after(2 * DAY)).await;
            assert_eq!(left(&log, after(3 * DAY + 5_000)).await, 40);
            assert_eq!(left(&log, after(3 * DAY + 15_000)).await, 0);
        });
    }
}

#[test]
fn a_clock_that_is_put_right_deletes_nothing_and_holds_nothing_up() {
    for (wrong, end) in [
        (DAY * 3, End::None),
        (-5 * YEAR, End::None),
        (DAY * 3, End::Clean),
        (-5 * YEAR, End::Clean),
    ] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config()).await.unwrap();
            fill(&log, -1, off_by(wrong, 0)).await;
            log.maintain(off_by(wrong, 60_000)).await.unwrap();
            // From here on the clock is right.
            assert_eq!(left(&log, after(120_000)).await, 40, "{wrong}");
            let log = restart(&disk, log, end).await;
            assert_eq!(left(&log, after(DAY - HOUR)).await, 40, "{wrong} {end:?}");
            assert_eq!(left(&log, after(DAY + HOUR)).await, 0, "{wrong} {end:?}");
        });
    }
}

#[test]
fn a_segment_that_was_begun_while_the_clock_was_ahead_rolls_at_its_age() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        segment_age_ms: HOUR as u64,
        retention_ms: None,
        ..config()
    };
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        let append = |now| {
            let appended = log.append(&batch(&[Record::new(0, 20)]), now).unwrap();
            drop(appended);
        };
        append(off_by(DAY, 0));
        log.flush().await.unwrap();
        log.retain(after(HOUR / 2)).await.unwrap();
        assert_eq!(log.size().0, 1);
        log.retain(after(HOUR)).await.unwrap();
        assert_eq!(log.size().0, 2, "by the time that has passed");
        // Nor does a clock that jumps ahead make it older.
        append(after(HOUR));
        log.flush().await.unwrap();
        log.retain(off_by(DAY, HOUR + 60_000)).await.unwrap();
        assert_eq!(log.size().0, 2);
    });
}

#[test]
fn a_jump_of_the_clock_keeps_no_memory_of_an_idle_partition() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let append = log.append(&batch(&[Record::new(0, 9000)]), off_by(DAY, 0)).unwrap();
        log.flush().await.unwrap();
        append.durable.await.unwrap();
        let busy = log.memory_used();
        log.checkpoint(after(5_000)).await.unwrap();
        assert!(log.memory_used() >= busy, "it is not idle yet");
        log.checkpoint(after(15_000)).await.unwrap();
        assert!(log.memory_used() < busy, "{} of {busy}", log.memory_used());
    });
}

#[test]
fn the_lag_of_compaction_counts_for_records_without_a_timestamp_and_no_timestamp_ahead_stops_it() {
    for (timestamp, end) in [
        (-1, End::None),
        (NOON + YEAR, End::None),
        (-1, End::Clean),
        (NOON + YEAR, End::Clean),
    ] {
        let disk = SimDisk::new(1);
        let config = LogConfig {
            retention_ms: None,
            compaction: Some(CompactionConfig {
                dirty_ratio_min: 0.0,
                lag_ms_min: DAY as u64,
                ..CompactionConfig::default()
            }),
            ..config()
        };
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config).await.unwrap();
            for id in 0..60 {
                let record = Keyed::new(id % 3, id, timestamp);
                let payload = batch_of(&[record], 2000, Compression::None);
                let appended = log.append(&payload, after(0)).unwrap();
                log.flush().await.unwrap();
                appended.durable.await.unwrap();
            }
            log.maintain(after(1000)).await.unwrap();
            if matches!(end, End::Clean) {
                log.close().await.unwrap();
            }
            let (log, _) = open(&disk, &config).await.unwrap();
            let removed = async |now| {
                log.maintain(now).await.unwrap();
                log.compact(now, 1 << 20, at_once).await.unwrap().removed_records
            };
            assert_eq!(removed(after(DAY - HOUR)).await, 0, "they are too young");
            assert!(removed(after(DAY + HOUR)).await > 20, "{timestamp}");
        });
    }
}

#[test]
fn a_tombstone_that_got_its_time_while_the_clock_was_ahead_goes_after_that_time_all_the_same() {
    let disk = SimDisk::new(1);
    let config = LogConfig {
        retention_ms: None,
        segment_age_ms: 60_000,
        compaction: Some(CompactionConfig {
            dirty_ratio_min: 0.0,
            delete_retention_ms: DAY as u64,
            ..CompactionConfig::default()
        }),
        ..config()
    };
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config).await.unwrap();
        let write = async |record| {
            append_durably(&log, &batch_of(&[record], 20, Compression::None)).await;
        };
        write(Keyed::new(1, 1, NOON)).await;
        write(Keyed::tombstone(1, NOON)).await;
        let compact = async |now: Moment| {
            log.maintain(now).await.unwrap();
            log.compact(now, 1 << 20, at_once).await.unwrap().removed_records
        };
        compact(off_by(YEAR, 0)).await;
        assert_eq!(compact(off_by(YEAR, 120_000)).await, 1, "what it deletes");
        // The clock is put right.
        assert_eq!(compact(after(180_000)).await, 0);
        assert_eq!(compact(after(DAY - HOUR)).await, 0);
        assert_eq!(compact(after(DAY + HOUR)).await, 1, "the tombstone");
    });
}

#[test]
fn a_jump_of_the_clock_neither_forgets_a_producer_nor_remembers_it_for_ever() {
    for (wrong, restarts) in [(YEAR, false), (-YEAR, false), (YEAR, true), (-YEAR, true)] {
        let disk = SimDisk::new(1);
        let config = LogConfig {
            retention_ms: None,
            producers: ProducerConfig {
                expiry_ms: DAY as u64,
                count_max: 10,
            },
            ..config()
        };
        run(&disk, 1, async {
            let (mut log, _) = open(&disk, &config).await.unwrap();
            let first = log
                .append(&sequenced(&[Record::new(0, 20)], 7, 0, 0), off_by(wrong, 0))
                .unwrap();
            log.flush().await.unwrap();
            first.durable.await.unwrap();
            log.maintain(off_by(wrong, 1000)).await.unwrap();
            log.maintain(after(2000)).await.unwrap();
            log.maintain(after(3000)).await.unwrap();
            if restarts {
                log.close().await.unwrap();
                log = open(&disk, &config).await.unwrap().0;
            }
            log.maintain(after(DAY - HOUR)).await.unwrap();
            assert_eq!(log.producer_count(), 1, "{wrong} {restarts}");
            log.maintain(after(DAY + HOUR)).await.unwrap();
            assert_eq!(log.producer_count(), 0, "{wrong} {restarts}");
        });
    }
}

#[test]
fn records_without_a_timestamp_are_not_found_by_time_and_hide_no_other() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        fill(&log, -1, after(0)).await;
        fill(&log, NOON, after(HOUR)).await;
        fill(&log, -1, after(HOUR)).await;
        let found = log.offset_for_timestamp(Timestamp::new(0)).await.unwrap();
        assert_eq!(found, Some((Offset::new(40), Timestamp::new(NOON))));
        assert_eq!(log.offset_for_timestamp(Timestamp::new(NOON + 1)).await.unwrap(), None);
    });
}
