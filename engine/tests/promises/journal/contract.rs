//! With a journal a log is the same to whoever uses it.

use std::rc::Rc;

use headwater_engine::{
    JournalConfig, LogError, TailMemory,
    disk::{Fault, OpKind, SimDisk},
    journal::recover,
};
use headwater_protocol::id::{LeaderEpoch, Offset, Timestamp};

use crate::support::{
    NOON, Record, SimJournal, SimLog, append_durably, batch, data_directory, ids, open, open_journal, open_journaled,
    read_all, run, sequenced, small_config,
};

const CONFIG: JournalConfig = JournalConfig {
    size_bytes: 256 << 10,
    batch_bytes_max: 2_000,
};

async fn begin(disk: &SimDisk) -> (Rc<SimLog>, Rc<SimJournal>) {
    let tail = TailMemory::new(1 << 20);
    let journal = open_journal(disk, CONFIG, &tail).await.unwrap();
    let (log, _) = open_journaled(disk, &small_config(), &tail, &journal).await.unwrap();
    (log, journal)
}

#[test]
fn what_is_replayed_keeps_its_epochs_and_its_producers() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, journal) = begin(&disk).await;
        append_durably(&log, &batch(&[Record::new(1, 20)])).await;
        log.set_leader_epoch(LeaderEpoch::new(5));
        append_durably(&log, &sequenced(&[Record::new(2, 20)], 7, 0, 0)).await;
        append_durably(&log, &sequenced(&[Record::new(3, 20)], 7, 0, 1)).await;
        assert_eq!(journal.figures().entries, 2);
    });
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        recover(&disk, &data_directory()).await.unwrap();
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(ids(&read_all(&log).await), [1, 2, 3]);
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch::new(5)));
        let again = sequenced(&[Record::new(3, 20)], 7, 0, 1);
        let again = log.append(&again, Timestamp::new(NOON)).unwrap();
        assert!(again.duplicate && again.base_offset == Offset::new(2));
        append_durably(&log, &sequenced(&[Record::new(4, 20)], 7, 0, 2)).await;
        assert_eq!(log.latest_epoch(), Some(LeaderEpoch::new(5)));
    });
}

/// One write makes small appends of a partition durable, and none to its file; large ones are written once, to the file.
#[test]
fn small_appends_are_written_to_the_journal_and_large_ones_to_the_segment() {
    let disk = SimDisk::new(3);
    run(&disk, 1, async {
        let (log, journal) = begin(&disk).await;
        append_durably(&log, &batch(&[Record::new(1, 20)])).await;
        let writes = || disk.count(OpKind::Write) + disk.count(OpKind::WriteDurable);
        let before = writes();
        for id in 2..12 {
            append_durably(&log, &batch(&[Record::new(id, 20)])).await;
        }
        assert_eq!((writes() - before, journal.figures().frames), (10, 10));
        append_durably(&log, &batch(&[Record::new(12, 4000)])).await;
        let figures = journal.figures();
        assert_eq!((figures.frames, figures.held_partitions), (10, 0));
        append_durably(&log, &batch(&[Record::new(13, 20)])).await;
        assert_eq!(journal.figures().held_partitions, 1);
        assert_eq!(ids(&read_all(&log).await), (1..14).collect::<Vec<_>>());
        log.close().await.unwrap();
        journal.close().await.unwrap();
        let found = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!(
            (found.journals, found.partitions),
            (1, 0),
            "a stop in order leaves nothing"
        );
    });
}

#[test]
fn a_full_journal_holds_up_nobody_and_is_of_use_again_when_it_was_filed() {
    let disk = SimDisk::new(4);
    run(&disk, 1, async {
        let tail = TailMemory::new(1 << 20);
        let config = JournalConfig {
            size_bytes: 64 << 10,
            ..CONFIG
        };
        let journal = open_journal(&disk, config, &tail).await.unwrap();
        let (log, _) = open_journaled(&disk, &small_config(), &tail, &journal).await.unwrap();
        for id in 1..40 {
            append_durably(&log, &batch(&[Record::new(id, 20)])).await;
        }
        let full = journal.figures();
        assert!(full.refusals > 0 && full.held_bytes <= 64 << 10, "{full:?}");
        assert!(full.frames > 30, "it is filled again and again: {full:?}");
        let mut last = 39;
        let due = loop {
            if let Some(due) = journal.due_now() {
                break due;
            }
            last += 1;
            append_durably(&log, &batch(&[Record::new(last, 20)])).await;
        };
        assert!(journal.due_now().is_none(), "it is named once");
        log.file().await.unwrap();
        drop(due);
        assert_eq!(journal.figures().held_partitions, 0);
        let before = journal.figures().frames;
        append_durably(&log, &batch(&[Record::new(last + 1, 20)])).await;
        assert!(journal.figures().frames > before);
        assert_eq!(ids(&read_all(&log).await), (1..last + 2).collect::<Vec<_>>());
    });
}

#[test]
fn what_is_not_in_segments_is_found_by_time_and_deleted_like_all_else() {
    let disk = SimDisk::new(5);
    run(&disk, 1, async {
        let (log, journal) = begin(&disk).await;
        for id in 1..5 {
            let mut record = Record::new(id, 20);
            record.timestamp += id as i64;
            append_durably(&log, &batch(&[record])).await;
        }
        assert_eq!(journal.figures().held_partitions, 1);
        let found = log.offset_for_timestamp(Timestamp::new(NOON + 3)).await.unwrap();
        assert_eq!(found.map(|(offset, _)| offset), Some(Offset::new(2)));
        append_durably(&log, &batch(&[Record::new(5, 20)])).await;
        assert_eq!(log.delete_records(Offset::new(5)).await.unwrap(), Offset::new(5));
    });
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        recover(&disk, &data_directory()).await.unwrap();
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(
            (log.offsets().start, log.offsets().end),
            (Offset::new(5), Offset::new(5))
        );
    });
}

/// The durable offset has gone on to the next segment by the journal when the one before is written.
#[test]
fn a_segment_that_the_durable_offset_has_left_is_filed_when_all_of_it_is_written() {
    let disk = SimDisk::new(6);
    run(&disk, 6, async {
        let (log, journal) = begin(&disk).await;
        let large: Vec<Record> = (0..20).map(|at| Record::new(100 + at, 1000)).collect();
        append_durably(&log, &batch(&large)).await;
        append_durably(&log, &batch(&[Record::new(1, 20)])).await;
        assert_eq!(journal.figures().held_partitions, 1);
        log.use_journal(false);
        // It has no place in the first segment, and the second gets no file.
        let refused = log.append(&batch(&large), Timestamp::new(NOON)).unwrap();
        disk.fail_nth(OpKind::Open, 0, Fault::StorageFull);
        let error = log.flush().await.unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        assert!(refused.durable.await.is_err());
        assert_eq!(journal.figures().held_partitions, 0);
        append_durably(&log, &batch(&[Record::new(2, 20)])).await;
        assert_eq!(ids(&read_all(&log).await).split_off(20), [1, 2]);
    });
    let disk = disk.certain_image(7);
    run(&disk, 8, async {
        recover(&disk, &data_directory()).await.unwrap();
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(ids(&read_all(&log).await).split_off(20), [1, 2]);
    });
}
