//! Journals and segments whose writes fail: nothing acknowledged is lost, and nobody waits for what does not come.

use std::{pin::pin, rc::Rc};

use futures::FutureExt as _;
use headwater_engine::{
    JournalConfig, LogError, TailMemory,
    disk::{Fault, OpKind, SimDisk},
    journal::recover,
};
use headwater_protocol::id::{Offset, Timestamp};

use crate::support::{
    NOON, Record, SimJournal, SimLog, append_durably, batch, data_directory, ids, open, open_journal, open_journaled,
    owner, read_all, run, small_config,
};

const CONFIG: JournalConfig = JournalConfig {
    size_bytes: 64 << 10,
    batch_bytes_max: 1 << 20,
};

async fn begin(disk: &SimDisk) -> (Rc<SimLog>, Rc<SimJournal>) {
    let tail = TailMemory::new(1 << 20);
    let journal = open_journal(disk, CONFIG, &tail).await.unwrap();
    let (log, _) = open_journaled(disk, &small_config(), &tail, &journal).await.unwrap();
    (log, journal)
}

async fn append(log: &SimLog, id: u64) {
    append_durably(log, &batch(&[Record::new(id, 20)])).await;
}

async fn ids_after_crash(disk: &SimDisk) -> Vec<u64> {
    recover(disk, &data_directory()).await.unwrap();
    let (log, _) = open(disk, &small_config()).await.unwrap();
    ids(&read_all(&log).await)
}

#[test]
fn a_journal_that_fails_costs_nothing_that_was_acknowledged() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let kept = run(&disk, seed, async {
            let (log, journal) = begin(&disk).await;
            append(&log, 1).await;
            append(&log, 2).await;
            append(&log, 3).await;
            assert!(journal.due_now().is_none(), "there is room");
            disk.fail_nth(OpKind::WriteDurable, 0, Fault::InputOutput);
            append(&log, 4).await;
            assert!(journal.figures().has_failed && log.fence().is_none());
            assert_eq!(ids(&read_all(&log).await), [1, 2, 3, 4]);
            assert_eq!(journal.figures().held_partitions, 0, "that write has filed all of it");
            append(&log, 5).await;
            if seed.is_multiple_of(2) {
                return vec![1, 2, 3, 4, 5];
            }
            log.truncate(Offset::new(2)).await.unwrap();
            append(&log, 6).await;
            vec![1, 2, 6]
        });
        let disk = disk.certain_image(seed);
        assert_eq!(run(&disk, seed, ids_after_crash(&disk)), kept, "seed {seed}");
    }
}

/// What the failed journal holds of another partition has to wait for nobody, and nobody for it.
#[test]
fn what_a_failed_journal_holds_of_one_partition_keeps_no_other_from_dropping_what_it_has() {
    let disk = SimDisk::new(2);
    let other_directory = data_directory().join("other-1");
    run(&disk, 2, async {
        let (log, journal) = begin(&disk).await;
        let other = open_other(&disk, &journal, &other_directory).await;
        for log in [&log, &other] {
            append(log, 1).await;
            append(log, 2).await;
            append(log, 3).await;
        }
        disk.fail_nth(OpKind::WriteDurable, 0, Fault::InputOutput);
        append(&log, 4).await;
        log.truncate(Offset::new(1)).await.unwrap();
        assert_eq!(ids(&read_all(&log).await), [1]);
        let due = journal.due_now().expect("the other is to be filed");
        assert_ne!(due.owner, owner());
    });
    let disk = disk.certain_image(3);
    run(&disk, 4, async {
        for _ in 0..2 {
            let found = recover(&disk, &data_directory()).await.unwrap();
            assert_eq!(found.gone, 0);
        }
        let (log, _) = open(&disk, &small_config()).await.unwrap();
        assert_eq!(ids(&read_all(&log).await), [1], "nothing of it comes back");
        let tail = TailMemory::new(1 << 20);
        let opened = headwater_engine::Log::open(disk.clone(), other_directory, small_config(), tail).await;
        assert_eq!(ids(&read_all(&opened.unwrap().0).await), [1, 2, 3]);
    });
}

async fn open_other(disk: &SimDisk, journal: &Rc<SimJournal>, directory: &std::path::Path) -> Rc<SimLog> {
    use headwater_engine::{Log, disk::Directory};
    let whose = headwater_engine::Owner {
        partition: headwater_protocol::id::PartitionIndex::new(1),
        ..owner()
    };
    disk.create_dir(directory).await.unwrap();
    whose.claim(disk, directory, &[]).await.unwrap();
    let journal = Some((Rc::clone(journal), whose));
    let (tail, config) = (TailMemory::new(1 << 20), small_config());
    let opened = Log::open_with(disk.clone(), directory.to_owned(), config, tail, journal).await;
    Rc::new(opened.unwrap().0)
}

#[test]
fn a_log_whose_segment_fails_leaves_what_was_acknowledged_to_the_next() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (log, journal) = begin(&disk).await;
            for id in 1..=4 {
                append(&log, id).await;
            }
            let kind = [OpKind::Write, OpKind::Sync, OpKind::Open][seed as usize % 3];
            disk.fail_nth(kind, 0, Fault::InputOutput);
            if log.file().await.is_ok() {
                assert_eq!(kind, OpKind::Open, "the file was open");
                return;
            }
            assert!(matches!(log.fence(), Some(LogError::Fenced { .. })));
            assert_eq!(ids(&read_all(&log).await), [1, 2, 3, 4], "they are in memory");
            assert!(log.append(&batch(&[Record::new(9, 20)]), Timestamp::new(NOON)).is_err());
            log.give_way().await.unwrap();
            assert_eq!(journal.figures().held_partitions, 0);
            let tail = TailMemory::new(1 << 20);
            let (log, _) = open_journaled(&disk, &small_config(), &tail, &journal).await.unwrap();
            assert_eq!(ids(&read_all(&log).await), [1, 2, 3, 4]);
            append(&log, 5).await;
            append(&log, 6).await;
            let certain = disk.certain_image(seed);
            assert_eq!(ids_after_crash(&certain).await, [1, 2, 3, 4, 5, 6]);
            log.file().await.unwrap();
        });
    }
}

#[test]
fn what_was_acknowledged_has_its_place_on_a_disk_that_is_full() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let (log, _journal) = begin(&disk).await;
            for id in 1..=4 {
                append(&log, id).await;
            }
            disk.set_capacity(Some(disk.used()));
            append(&log, 5).await;
            // More than is reserved.
            let large: Vec<Record> = (0..24).map(|at| Record::new(100 + at, 1000)).collect();
            let refused = [0, 1, 2].map(|_| log.append(&batch(&large), Timestamp::new(NOON)).unwrap());
            let error = log.flush().await.unwrap_err();
            assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
            for appended in refused {
                // The first may still have fitted.
                let outcome = appended.durable.outcome().expect("it is settled");
                assert!(outcome.is_ok() || matches!(outcome, Err(LogError::DiskFull { .. })));
            }
            assert!(log.fence().is_none());
            let records = ids(&read_all(&log).await);
            assert_eq!(records[..5], [1, 2, 3, 4, 5]);
            log.file().await.unwrap();
            assert_eq!(ids(&read_all(&log).await), records);
            disk.set_capacity(None);
            append(&log, 6).await;
            let certain = disk.certain_image(seed);
            assert_eq!(ids_after_crash(&certain).await.last(), Some(&6));
        });
    }
}

#[test]
fn a_commit_that_is_dropped_fences_its_log_and_holds_up_nobody() {
    let disk = SimDisk::new(4);
    run(&disk, 4, async {
        let (log, journal) = begin(&disk).await;
        let other = open_other(&disk, &journal, &data_directory().join("other-1")).await;
        append(&log, 1).await;
        append(&other, 1).await;
        let _lost = log.append(&batch(&[Record::new(2, 20)]), Timestamp::new(NOON)).unwrap();
        {
            let mut flushing = pin!(log.flush());
            assert!(flushing.as_mut().now_or_never().is_none(), "it is under way");
        }
        assert!(log.fence().is_some() && journal.figures().has_failed);
        append(&other, 2).await;
        assert_eq!(ids(&read_all(&other).await), [1, 2]);
    });
}
