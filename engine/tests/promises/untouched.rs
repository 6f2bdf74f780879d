//! A log that is opened and left as it is costs the disk nothing, and what opening found out is written down.

use headwater_engine::disk::{Directory, OpKind, SimDisk};
use headwater_protocol::id::{Offset, Timestamp};

use crate::support::{
    NOON, Record, SimLog, append_durably, directory, for_each_seed, open, read_all, run, sequenced, small_config,
};

const NOW: Timestamp = Timestamp::new(NOON);

/// Three segments or so, from an idempotent producer.
async fn fill(log: &SimLog) {
    for id in 0..20 {
        append_durably(log, &sequenced(&[Record::new(id, 4000)], 7, 0, id as i32)).await;
    }
}

/// Opens the log, lets all maintenance have its turn, and closes it. Returns how often that changed something on the disk after
/// the log was open.
async fn changes_of_opening(disk: &SimDisk) -> u64 {
    let (log, _) = open(disk, &small_config()).await.unwrap();
    let before = disk.changes();
    log.maintain(NOW).await.unwrap();
    log.close().await.unwrap();
    disk.changes() - before
}

#[test]
fn a_log_that_is_opened_and_not_written_to_is_closed_without_a_write() {
    for_each_seed(
        "a_log_that_is_opened_and_not_written_to_is_closed_without_a_write",
        20,
        |seed| {
            let disk = SimDisk::new(seed);
            run(&disk, seed, async {
                assert_eq!(changes_of_opening(&disk).await, 0, "it is new");
                let (log, _) = open(&disk, &small_config()).await.unwrap();
                fill(&log).await;
                log.close().await.unwrap();
                let records = read_all(&log).await;
                assert_eq!(changes_of_opening(&disk).await, 0, "it has records");
                for start in [7, 20] {
                    let (log, _) = open(&disk, &small_config()).await.unwrap();
                    log.delete_records(Offset::new(start)).await.unwrap();
                    log.close().await.unwrap();
                    assert_eq!(changes_of_opening(&disk).await, 0, "records below {start} are gone");
                }
                let (log, recovery) = open(&disk, &small_config()).await.unwrap();
                assert_eq!((recovery.scanned_bytes, recovery.cut), (0, None));
                assert_eq!(log.offsets().start, Offset::new(20));
                assert_eq!(records.len(), 20);
            });
        },
    );
}

#[test]
fn what_opening_had_to_find_out_is_not_found_out_again() {
    for_each_seed("what_opening_had_to_find_out_is_not_found_out_again", 20, |seed| {
        let disk = SimDisk::new(seed);
        let disk = run(&disk, seed, async {
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            fill(&log).await;
            disk.crash(seed)
        });
        run(&disk, seed, async {
            let opened = async |what: &str| {
                let (log, recovery) = open(&disk, &small_config()).await.unwrap();
                assert!(recovery.scanned_bytes > 0, "{what}");
                log.checkpoint(NOW).await.unwrap();
                assert_eq!(read_all(&log).await.len(), 20);
                let (_, again) = open(&disk, &small_config()).await.unwrap();
                assert_eq!(again.scanned_bytes, 0, "{what}");
                log.close().await.unwrap();
            };
            opened("after a crash").await;
            for lost in ["checkpoint", "index"] {
                let entries = disk.list(&directory()).await.unwrap();
                let last = entries.iter().rev().find(|entry| entry.name.ends_with(lost)).unwrap();
                disk.remove_file(&directory().join(&last.name)).await.unwrap();
                opened(lost).await;
            }
            assert!(disk.count(OpKind::ReplaceFile) > 0);
        });
    });
}
