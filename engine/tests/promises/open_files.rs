//! A core has a limit of open files, whatever is read: files that nobody uses give way, and nobody notices.

use std::{cell::Cell, rc::Rc};

use headwater_engine::{
    ReadLimit, TailMemory,
    disk::{Disk as _, Fault, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, append_durably, batch, decode, fetch, for_each_seed, ids, open_with, read_all, run,
    small_config,
};

const LIMIT: usize = 8;
const RECORDS: u64 = 400;

/// One record a batch, in segments that are sealed but for the last.
async fn fill(log: &SimLog) {
    for id in 0..RECORDS {
        append_durably(log, &batch(&[Record::new(id, 5000)])).await;
    }
    log.maintain(Timestamp::new(NOON)).await.unwrap();
    assert!(log.size().0 > 5 * LIMIT);
}

#[test]
fn readers_of_many_segments_keep_to_the_limit_of_open_files() {
    for_each_seed("readers_of_many_segments_keep_to_the_limit_of_open_files", 30, |seed| {
        let (disk, mut rng) = (SimDisk::new(seed), StdRng::seed_from_u64(seed));
        let executor = SimExecutor::new(&disk, seed);
        let files = Rc::clone(disk.open_files());
        files.set_limit(LIMIT);
        let log = executor.block_on(async {
            let (log, _) = open_with(&disk, &small_config(), &TailMemory::new(8 << 10))
                .await
                .unwrap();
            fill(&log).await;
            log
        });
        let log = log.unwrap();
        assert!(files.open() <= LIMIT, "{} after the writes", files.open());
        let readers = rng.random_range(1..5);
        let read = Rc::new(Cell::new(0));
        for _ in 0..readers {
            let (log, files, read) = (Rc::clone(&log), Rc::clone(&files), Rc::clone(&read));
            let offsets: Vec<u64> = (0..100).map(|_| rng.random_range(0..RECORDS)).collect();
            executor.spawn(async move {
                for offset in offsets {
                    assert_eq!(fetch(&log, offset, 8 << 10).await[0].id, offset);
                    // Each reader has one in its hands.
                    assert!(files.open() <= LIMIT + readers, "{} files", files.open());
                    read.set(read.get() + 1);
                }
            });
        }
        executor.run().unwrap();
        assert_eq!(read.get(), 100 * readers);
        assert!(files.open() <= LIMIT && files.evicted() > 0);
        drop(log);
        assert_eq!(files.open(), 0, "nothing is open without a log");
    });
}

#[test]
fn a_file_that_has_lost_its_name_stays_open_for_those_who_read_it() {
    let disk = SimDisk::new(1);
    disk.open_files().set_limit(1);
    run(&disk, 1, async {
        let (log, _) = open_with(&disk, &small_config(), &TailMemory::new(8 << 10))
            .await
            .unwrap();
        fill(&log).await;
        let ranges: Vec<_> = {
            let mut ranges = Vec::new();
            for offset in [0, RECORDS / 4, RECORDS / 2] {
                ranges.push(
                    log.fetch(Offset::new(offset), 1, ReadLimit::HighWatermark)
                        .await
                        .unwrap()
                        .range
                        .unwrap(),
                );
            }
            ranges
        };
        let kept = RECORDS - 20;
        log.delete_records(Offset::new(kept)).await.unwrap();
        assert_eq!(ids(&read_all(&log).await), (kept..RECORDS).collect::<Vec<_>>());
        for (range, offset) in ranges.iter().zip([0, RECORDS / 4, RECORDS / 2]) {
            assert_eq!(decode(&log.read(range).await.unwrap())[0].id, offset);
        }
        drop(ranges);
        assert!(disk.open_files().open() <= 1, "nobody reads them any more");
    });
}

#[test]
fn without_a_descriptor_files_that_nobody_uses_give_way_to_reads_and_writes() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open_with(&disk, &small_config(), &TailMemory::new(8 << 10))
            .await
            .unwrap();
        fill(&log).await;
        let evicted = disk.open_files().evicted();
        for offset in (0..RECORDS).step_by(7) {
            disk.fail_nth(OpKind::Open, 0, Fault::OutOfFiles);
            assert_eq!(fetch(&log, offset, 1).await[0].id, offset);
            disk.heal();
            disk.fail_nth(OpKind::Open, 0, Fault::OutOfFiles);
            append_durably(&log, &batch(&[Record::new(RECORDS, 20_000)])).await;
            disk.heal();
        }
        assert!(disk.open_files().evicted() > evicted + 10);
    });
}
