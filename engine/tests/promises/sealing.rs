//! Segments are sealed as they are rolled. When they come faster, those who append wait; when they cannot be sealed, nobody does.

use std::{cell::Cell, rc::Rc};

use futures::FutureExt;
use headwater_engine::{
    LogError, Memory, ReadLimit, TailMemory,
    disk::{Disk as _, Fault, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, append_durably, batch, for_each_seed, ids, open_in, read_all, run, small_config,
};

const NOW: Timestamp = Timestamp::new(NOON);

fn memory() -> Memory {
    TailMemory::new(16 << 20).into()
}

/// Appends until so many segments wait.
async fn roll(log: &SimLog, memory: &Memory, count: usize) -> u64 {
    let mut id = log.offsets().end.get();
    while memory.unsealed.count() < count {
        append_durably(log, &batch(&[Record::new(id, 20_000)])).await;
        id += 1;
        assert!(id < 1000, "{} segments wait", memory.unsealed.count());
    }
    id
}

fn has_room(memory: &Memory) -> bool {
    memory.room().now_or_never().is_some()
}

#[test]
fn who_appends_faster_than_segments_are_sealed_waits_for_them() {
    for_each_seed(
        "who_appends_faster_than_segments_are_sealed_waits_for_them",
        20,
        |seed| {
            let disk = SimDisk::new(seed);
            let executor = SimExecutor::new(&disk, seed);
            let memory = memory();
            let (log, _) = executor
                .block_on(open_in(&disk, &small_config(), memory.clone()))
                .unwrap()
                .unwrap();
            let most = Rc::new(Cell::new(0));
            let (sealing, appending) = (Rc::clone(&log), Rc::clone(&log));
            let (unsealed, waiting, seen) = (memory.clone(), memory.clone(), Rc::clone(&most));
            let is_over = Rc::new(Cell::new(false));
            let over = Rc::clone(&is_over);
            executor.spawn(async move {
                for id in 0..400 {
                    waiting.room().await;
                    append_durably(&appending, &batch(&[Record::new(id, 20_000)])).await;
                    seen.set(seen.get().max(waiting.unsealed.count()));
                }
                over.set(true);
                // The one who seals waits for another.
                drop(appending);
            });
            executor.spawn(async move {
                while !is_over.get() {
                    let came = unsealed.unsealed.came();
                    // Late: when there is no room any more.
                    if unsealed.is_spent() {
                        assert!(sealing.take_unsealed());
                        sealing.seal_rolled().await.unwrap();
                    } else if came.now_or_never().is_none() {
                        crate::support::turn().await;
                    }
                }
            });
            executor.run().unwrap();
            assert!((65..70).contains(&most.get()), "{} segments waited", most.get());
            let records = executor.block_on(read_all(&log)).unwrap();
            assert_eq!(ids(&records), (0..400).collect::<Vec<_>>());
        },
    );
}

#[test]
fn segments_that_cannot_be_sealed_hold_up_nobody_and_are_sealed_later() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = memory();
        let (log, _) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
        for kind in [OpKind::Truncate, OpKind::Open] {
            log.seal_rolled().await.unwrap();
            let end = roll(&log, &memory, 70).await;
            assert!(!has_room(&memory) && log.take_unsealed());
            // What is open needs not be opened.
            disk.open_files().set_limit(0);
            disk.fail_randomly(kind, 1.0, Fault::InputOutput);
            let error = log.seal_rolled().await.unwrap_err();
            assert!(matches!(error, LogError::Io { .. }), "{error}");
            assert!(has_room(&memory) && memory.unsealed.count() == 0 && !log.take_unsealed());
            disk.heal();
            disk.open_files().set_limit(100);
            let cuts = disk.count(OpKind::Truncate);
            log.checkpoint(NOW).await.unwrap();
            assert!(disk.count(OpKind::Truncate) - cuts >= 70);
            assert_eq!(ids(&read_all(&log).await), (0..end).collect::<Vec<_>>());
        }
    });
}

#[test]
fn segments_that_are_gone_wait_for_nothing() {
    for_each_seed("segments_that_are_gone_wait_for_nothing", 60, |seed| {
        let (disk, mut rng) = (SimDisk::new(seed), StdRng::seed_from_u64(seed));
        run(&disk, seed, async {
            let memory = memory();
            let (log, _) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
            let end = roll(&log, &memory, 5).await;
            let held = log
                .fetch(Offset::ZERO, 1, ReadLimit::HighWatermark)
                .await
                .unwrap()
                .range;
            match rng.random_range(0..5) {
                0 => log.truncate(Offset::ZERO).await.unwrap(),
                1 => drop(log.delete_records(Offset::new(end)).await.unwrap()),
                2 => log.retire().await,
                3 => log.close().await.unwrap(),
                _ => {
                    drop(held);
                    drop(log);
                }
            }
            assert_eq!(memory.unsealed.count(), 0);
        });
    });
}

#[test]
fn a_fenced_log_is_sealed_like_any_other() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = memory();
        let (log, _) = open_in(&disk, &small_config(), memory.clone()).await.unwrap();
        roll(&log, &memory, 66).await;
        disk.fail_randomly(OpKind::Sync, 1.0, Fault::InputOutput);
        disk.fail_randomly(OpKind::WriteDurable, 1.0, Fault::InputOutput);
        let lost = log.append(&batch(&[Record::new(0, 20_000)]), NOW).unwrap();
        log.flush().await.unwrap_err();
        lost.durable.await.unwrap_err();
        assert!(!has_room(&memory));
        disk.heal();
        log.seal_rolled().await.unwrap();
        assert!(has_room(&memory) && memory.unsealed.count() == 0);
    });
}
