//! An index never decides what is in the log: whatever is wrong with its files, everything goes on, and it is made anew.

use std::path::PathBuf;

use headwater_engine::{
    LogConfig, Memory, ReadLimit, TailMemory,
    disk::{Directory as _, EntryKind, Fault, OpKind, SimDisk},
};
use headwater_protocol::id::{Offset, Timestamp};

use crate::support::{
    NOON, Record, SimLog, Stored, append_durably, batch, directory, ids, open_in, read_all, run, small_config,
};

const NOW: Timestamp = Timestamp::new(NOON);
const RECORDS: u64 = 60;

fn memory() -> Memory {
    TailMemory::new(64 << 10).into()
}

async fn fill(log: &SimLog) -> Vec<Stored> {
    for id in 0..RECORDS {
        append_durably(log, &batch(&[Record::new(id, 5000)])).await;
    }
    log.maintain(NOW).await.unwrap();
    read_all(log).await
}

async fn index_files(disk: &SimDisk) -> Vec<PathBuf> {
    let entries = disk.list(&directory()).await.unwrap();
    let is_index = |name: &str| {
        [".index", ".timeindex"]
            .iter()
            .any(|extension| name.ends_with(extension))
    };
    let names = entries
        .into_iter()
        .filter(|entry| is_index(&entry.name) && entry.kind == EntryKind::File);
    names.map(|entry| directory().join(entry.name)).collect()
}

#[test]
fn an_index_that_cannot_be_read_is_made_of_its_segment_and_counted() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = memory();
        let (log, _) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
        let before = fill(&log).await;
        assert_eq!(memory.indexes.rebuilt.get(), 0);
        for fault in [Fault::InputOutput, Fault::OutOfFiles] {
            log.checkpoint(NOW).await.unwrap();
            disk.fail_randomly(OpKind::ReadFile, 1.0, fault);
            let rebuilt = memory.indexes.rebuilt.get();
            assert_eq!(read_all(&log).await, before);
            assert_eq!(log.offset_for_timestamp(NOW).await.unwrap(), Some((Offset::ZERO, NOW)));
            assert!(memory.indexes.rebuilt.get() >= rebuilt + 5);
            disk.heal();
        }
        // Written anew where it could not be read, and read again.
        log.checkpoint(NOW).await.unwrap();
        let rebuilt = memory.indexes.rebuilt.get();
        assert_eq!(read_all(&log).await, before);
        assert_eq!(memory.indexes.rebuilt.get(), rebuilt);
    });
}

#[test]
fn whatever_is_in_the_place_of_an_index_neither_readers_nor_retention_nor_recovery_stop() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open_in(&disk, &small_config(), memory()).await.unwrap();
        let before = fill(&log).await;
        let files = index_files(&disk).await;
        assert!(files.len() > 10);
        let take_their_places = async || {
            for path in &files {
                disk.remove_file(path).await.unwrap();
                disk.create_dir(&path.join("deep")).await.unwrap();
            }
        };
        drop(log);
        take_their_places().await;
        let memory = memory();
        let (log, recovery) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
        assert_eq!(recovery.cut, None);
        assert_eq!(read_all(&log).await, before);
        assert!(memory.indexes.rebuilt.get() > 5);
        // The first attempt to write them makes room for the second; the oldest are not kept for it.
        log.checkpoint(NOW).await.unwrap();
        log.checkpoint(NOW).await.unwrap();
        assert_eq!(index_files(&disk).await.len(), 16);
        take_their_places().await;
        log.truncate(Offset::new(RECORDS - 10)).await.unwrap();
        log.delete_records(Offset::new(RECORDS - 20)).await.unwrap();
        assert!(log.size().0 < 5, "{} segments", log.size().0);
        let kept: Vec<u64> = (RECORDS - 20..RECORDS - 10).collect();
        assert_eq!(ids(&read_all(&log).await), kept);
        log.close().await.unwrap();
        let (log, _) = open_in(&disk, &small_config(), memory).await.unwrap();
        assert_eq!(ids(&read_all(&log).await), kept);
    });
}

#[test]
fn an_index_that_cannot_be_written_stops_nothing_and_is_written_later() {
    for fault in [Fault::InputOutput, Fault::StorageFull] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let memory = memory();
            let (log, _) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
            disk.fail_randomly(OpKind::ReplaceFile, 1.0, fault);
            for id in 0..RECORDS {
                append_durably(&log, &batch(&[Record::new(id, 5000)])).await;
                log.seal_rolled().await.unwrap();
            }
            assert!(memory.indexes.not_written.get() > 5);
            assert_eq!(ids(&read_all(&log).await), (0..RECORDS).collect::<Vec<_>>());
            disk.heal();
            log.checkpoint(NOW).await.unwrap();
            assert!(index_files(&disk).await.len() > 10);
            let rebuilt = memory.indexes.rebuilt.get();
            read_all(&log).await;
            assert_eq!(memory.indexes.rebuilt.get(), rebuilt);
        });
    }
}

#[test]
fn who_goes_on_where_the_last_fetch_ended_is_there_with_one_look() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = LogConfig {
            index_interval_bytes: 16 << 10,
            ..small_config()
        };
        let (log, _) = open_in(&disk, &config, memory()).await.unwrap();
        for id in 0..RECORDS {
            append_durably(&log, &batch(&[Record::new(id, 100)])).await;
        }
        drop(log);
        // Nothing but the last block is in memory, and the index has one entry.
        let (log, _) = open_in(&disk, &config, memory()).await.unwrap();
        let (mut offset, before) = (Offset::ZERO, disk.count(OpKind::Read));
        while offset < log.offsets().end {
            let fetched = log.fetch(offset, 1, ReadLimit::HighWatermark).await.unwrap();
            let range = fetched.range.expect("there is more");
            assert_eq!(range.next_offset(), offset.next());
            offset = range.next_offset();
        }
        let reads = disk.count(OpKind::Read) - before;
        assert!(reads <= RECORDS, "{reads} reads");
    });
}

#[test]
fn what_lies_behind_an_offset_is_told_in_bytes_within_an_interval_of_the_index() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open_in(&disk, &small_config(), memory()).await.unwrap();
        fill(&log).await;
        let (segments, all) = log.size();
        assert!(segments > 3);
        let each = all / RECORDS;
        let within = u64::from(small_config().index_interval_bytes) + each;
        for offset in 0..=RECORDS {
            let expected = (RECORDS - offset) * each;
            let told = log.bytes_from(Offset::new(offset));
            assert!(
                told.abs_diff(expected) <= within,
                "{told} from {offset} on, not {expected}"
            );
        }
        assert_eq!((log.bytes_from(Offset::ZERO), log.bytes_from(Offset::MAX)), (all, 0));
    });
}
