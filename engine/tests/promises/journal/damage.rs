//! Journals that do not read back as they were written.

use std::path::PathBuf;

use headwater_engine::{
    JournalConfig, LogError, TailMemory,
    disk::{BLOCK_SIZE, BlockBuffer, Directory, Disk, SegmentFile, SimDisk},
    journal::{JournalRecovery, recover},
};

use crate::support::{
    Record, SimLog, append_durably, batch, data_directory, ids, open, open_journal, open_journaled, read_all, run,
    small_config,
};

const CONFIG: JournalConfig = JournalConfig {
    size_bytes: 64 << 10,
    batch_bytes_max: 1 << 20,
};

fn journal_file() -> PathBuf {
    data_directory().join("core-0.journal")
}

async fn append_each(log: &SimLog, first: u64, count: u64) {
    for id in first..first + count {
        append_durably(log, &batch(&[Record::new(id, 20)])).await;
    }
}

/// A log of which records 2 to 4 are each in a frame of the journal, and the first in the segment.
async fn journaled_records(disk: &SimDisk) {
    let tail = TailMemory::new(1 << 20);
    let journal = open_journal(disk, CONFIG, &tail).await.unwrap();
    let (log, _) = open_journaled(disk, &small_config(), &tail, &journal).await.unwrap();
    append_each(&log, 1, 4).await;
    assert_eq!(journal.figures().frames, 3, "the first has made the segment's file");
}

/// Spoils a byte of the journal.
async fn spoil(disk: &SimDisk, block: u64) {
    let file = disk.open(&journal_file(), false).await.unwrap();
    let position = block * BLOCK_SIZE as u64;
    let mut bytes = file.read(position, BLOCK_SIZE).await.unwrap();
    bytes[100] ^= 1;
    let buffer = std::rc::Rc::new(BlockBuffer::new(BLOCK_SIZE));
    buffer.append(&bytes);
    file.write_durable(buffer.blocks(0, BLOCK_SIZE), position)
        .await
        .unwrap();
}

async fn recovered_ids(disk: &SimDisk) -> Vec<u64> {
    let (log, recovery) = open(disk, &small_config()).await.unwrap();
    assert_eq!(recovery.cut, None);
    ids(&read_all(&log).await)
}

#[test]
fn damage_in_the_middle_is_named_and_nothing_is_skipped() {
    let disk = SimDisk::new(1);
    run(&disk, 1, journaled_records(&disk));
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        spoil(&disk, 2).await;
        for _ in 0..2 {
            let error = recover(&disk, &data_directory()).await.unwrap_err();
            let LogError::Corrupt {
                path, position, reason, ..
            } = error
            else {
                panic!("{error}")
            };
            assert_eq!((path, position), (journal_file(), 2 * BLOCK_SIZE as u64));
            assert!(reason.contains("frame 2 does not read back"), "{reason}");
        }
        // Put right, it is as if nothing had been.
        spoil(&disk, 2).await;
        recover(&disk, &data_directory()).await.unwrap();
        assert_eq!(recovered_ids(&disk).await, [1, 2, 3, 4]);
    });
}

#[test]
fn a_torn_end_is_no_damage() {
    let disk = SimDisk::new(1);
    run(&disk, 1, journaled_records(&disk));
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        spoil(&disk, 3).await;
        let found = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!((found.journals, found.partitions, found.gone), (1, 1, 0));
        assert_eq!(recovered_ids(&disk).await, [1, 2, 3]);
        let again = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!(again, JournalRecovery::default(), "it was put away");
    });
}

#[test]
fn a_damaged_head_is_named() {
    let disk = SimDisk::new(1);
    run(&disk, 1, journaled_records(&disk));
    run(&disk, 3, async {
        let file = disk.open(&journal_file(), false).await.unwrap();
        file.write_zeros(0, BLOCK_SIZE as u64).await.unwrap();
        let error = recover(&disk, &data_directory()).await.unwrap_err();
        assert!(error.to_string().contains("does not begin as a journal"), "{error}");
    });
}

/// What an earlier use of the file has left is whole, and of no use.
#[test]
fn frames_of_an_earlier_use_are_not_read() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        for life in 0..3 {
            let tail = TailMemory::new(1 << 20);
            let journal = open_journal(&disk, CONFIG, &tail).await.unwrap();
            let (log, _) = open_journaled(&disk, &small_config(), &tail, &journal).await.unwrap();
            let count = 6 - 2 * life;
            append_each(&log, 10 * life + 1, count).await;
            log.truncate(headwater_protocol::id::Offset::ZERO).await.unwrap();
            append_each(&log, 100, 1).await;
        }
    });
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        recover(&disk, &data_directory()).await.unwrap();
        assert_eq!(recovered_ids(&disk).await, [100]);
    });
}

#[test]
fn what_is_kept_for_a_topic_that_is_gone_is_dropped() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        journaled_records(&disk).await;
        disk.remove_dir_all(&crate::support::directory()).await.unwrap();
        let found = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!((found.partitions, found.gone), (0, 1));
    });
}

/// A directory of records that does not say whose it is may be the one.
#[test]
fn a_directory_that_may_be_the_one_that_is_missed_keeps_the_journal() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        journaled_records(&disk).await;
        let whose = crate::support::directory().join("partition");
        let hidden = crate::support::directory().join("hidden");
        disk.rename(&whose, &hidden).await.unwrap();
        for _ in 0..2 {
            let error = recover(&disk, &data_directory()).await.unwrap_err();
            assert!(error.to_string().contains("does not say whose"), "{error}");
        }
        disk.rename(&hidden, &whose).await.unwrap();
        let found = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!((found.partitions, found.gone), (1, 0));
        assert_eq!(recovered_ids(&disk).await, [1, 2, 3, 4]);
    });
}

#[test]
fn two_directories_of_one_partition_are_an_error_unless_one_is_not_named_so() {
    for (name, is_error) in [("copy-0", true), ("topic-1", false), ("topic-0.copy", false)] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            journaled_records(&disk).await;
            let copy = data_directory().join(name);
            disk.create_dir(&copy).await.unwrap();
            crate::support::owner().claim(&disk, &copy, &[]).await.unwrap();
            if is_error {
                let error = recover(&disk, &data_directory()).await.unwrap_err();
                assert!(error.to_string().contains("says too that it is"), "{error}");
                disk.remove_dir_all(&copy).await.unwrap();
            }
            let found = recover(&disk, &data_directory()).await.unwrap();
            assert_eq!((found.partitions, found.gone), (1, 0), "{name}");
            assert_eq!(recovered_ids(&disk).await, [1, 2, 3, 4], "{name}");
        });
    }
}

/// What was set aside before the first batch that the journal still has is in nothing else.
#[test]
fn what_lies_aside_already_stays_before_what_the_journal_has() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        journaled_records(&disk).await;
        let directory = crate::support::directory();
        let segment = directory.join("00000000000000000000.log");
        disk.remove_file(&segment).await.unwrap();
        // The second is in the journal too.
        let mut second = batch(&[Record::new(2, 20)]);
        second[..8].copy_from_slice(&1_u64.to_be_bytes());
        let mut before = [batch(&[Record::new(1, 20)]), second];
        for batch in &mut before {
            // The epoch of its leader.
            batch[12..16].copy_from_slice(&0_u32.to_be_bytes());
        }
        let before = before.concat();
        let mut aside = format!("headwater-journaled 1 {:08x}\n", crc32c::crc32c(&before)).into_bytes();
        aside.extend_from_slice(&before);
        disk.replace_file(&directory.join("journaled"), aside).await.unwrap();
        for _ in 0..2 {
            recover(&disk, &data_directory()).await.unwrap();
        }
        assert_eq!(recovered_ids(&disk).await, [1, 2, 3, 4]);
    });
}

/// What a cut that has failed has left of batches that were never acknowledged may lie in the place of those that the journal has.
#[test]
fn what_lies_in_a_segment_in_the_place_of_what_the_journal_has_is_dropped() {
    let even = |id| batch(&[Record::new(id, BLOCK_SIZE - 70)]);
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let config = JournalConfig {
            size_bytes: 256 << 10,
            ..CONFIG
        };
        let tail = TailMemory::new(1 << 20);
        let journal = open_journal(&disk, config, &tail).await.unwrap();
        let (log, _) = open_journaled(&disk, &small_config(), &tail, &journal).await.unwrap();
        append_durably(&log, &even(1)).await;
        append_durably(&log, &even(2)).await;
        assert_eq!(journal.figures().entries, 1, "the second is in the journal");
        let buffer = std::rc::Rc::new(BlockBuffer::new(2 * BLOCK_SIZE));
        for (offset, id) in [(1_u64, 8), (2, 9)] {
            let mut stale = even(id);
            stale[..8].copy_from_slice(&offset.to_be_bytes());
            // The epoch of its leader.
            stale[12..16].copy_from_slice(&0_u32.to_be_bytes());
            buffer.append(&stale);
        }
        let segment = crate::support::directory().join("00000000000000000000.log");
        let file = disk.open(&segment, false).await.unwrap();
        let written = file.write_durable(buffer.blocks(0, 2 * BLOCK_SIZE), BLOCK_SIZE as u64);
        written.await.unwrap();
    });
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        recover(&disk, &data_directory()).await.unwrap();
        assert_eq!(recovered_ids(&disk).await, [1, 2]);
    });
}

#[test]
fn a_disk_that_has_no_room_for_what_journals_hold_is_named_and_nothing_is_lost() {
    let disk = SimDisk::new(1);
    run(&disk, 1, journaled_records(&disk));
    let disk = disk.certain_image(2);
    run(&disk, 3, async {
        disk.set_capacity(Some(disk.used()));
        for _ in 0..2 {
            let error = recover(&disk, &data_directory()).await.unwrap_err();
            assert!(error.to_string().contains("no room for"), "{error}");
        }
        disk.set_capacity(None);
        let found = recover(&disk, &data_directory()).await.unwrap();
        assert_eq!((found.journals, found.partitions), (1, 1));
        assert_eq!(recovered_ids(&disk).await, [1, 2, 3, 4]);
    });
}
