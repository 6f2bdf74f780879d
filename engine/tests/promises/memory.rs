//! Memory is bounded: what is durable gives way, what is silent costs next to nothing, and all of it reads back from disk.

use std::rc::Rc;

use headwater_engine::{
    LogConfig, TailMemory,
    disk::{SimDisk, SimExecutor},
};
use headwater_protocol::id::Timestamp;

use crate::support::{NOON, Record, append_durably, batch, for_each_seed, ids, open_with, read_all, run, small_config};

const LIMIT: usize = 1 << 20;

#[test]
fn a_log_larger_than_its_memory_reads_back_from_disk_and_keeps_the_budget() {
    for_each_seed(
        "a_log_larger_than_its_memory_reads_back_from_disk_and_keeps_the_budget",
        10,
        |seed| {
            let disk = SimDisk::new(seed);
            run(&disk, seed, async {
                let memory = TailMemory::new(LIMIT);
                let config = LogConfig {
                    segment_size_bytes: [300 << 10, 64 << 20][seed as usize % 2],
                    ..LogConfig::default()
                };
                let (log, _) = open_with(&disk, &config, &memory).await.unwrap();
                for id in 0..200 {
                    append_durably(&log, &batch(&[Record::new(id, 50_000)])).await;
                    assert!(!memory.is_spent() && memory.used() <= LIMIT, "{} bytes", memory.used());
                    if id % 50 == 0 {
                        log.maintain(Timestamp::new(NOON)).await.unwrap();
                    }
                }
                assert_eq!(ids(&read_all(&log).await), (0..200).collect::<Vec<_>>());
                drop(log);
                assert_eq!(memory.used(), 0);
            });
        },
    );
}

#[test]
fn many_segments_hold_no_memory_that_cannot_give_way() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = TailMemory::new(64 << 10);
        let (log, _) = open_with(&disk, &small_config(), &memory).await.unwrap();
        for id in 0..400 {
            append_durably(&log, &batch(&[Record::new(id, 10_000)])).await;
            assert!(
                !memory.is_spent(),
                "{} bytes in {} segments",
                memory.used(),
                log.size().0
            );
        }
        assert!(log.size().0 > 50);
    });
}

#[test]
fn logs_share_one_budget() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = TailMemory::new(LIMIT);
        let mut logs = Vec::new();
        for number in 0..20 {
            let directory = format!("/data/topic-{number}").into();
            let log = headwater_engine::Log::open(disk.clone(), directory, LogConfig::default(), Rc::clone(&memory));
            logs.push(Rc::new(log.await.unwrap().0));
        }
        for id in 0..400 {
            append_durably(&logs[id as usize % 20], &batch(&[Record::new(id, 30_000)])).await;
        }
        assert!(!memory.is_spent(), "{} bytes", memory.used());
        for (number, log) in logs.iter().enumerate() {
            let expected: Vec<u64> = (number as u64..400).step_by(20).collect();
            assert_eq!(ids(&read_all(log).await), expected);
        }
    });
}

#[test]
fn who_waits_for_room_is_woken_when_a_flush_has_made_some() {
    for_each_seed("who_waits_for_room_is_woken_when_a_flush_has_made_some", 50, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let memory = TailMemory::new(LIMIT);
        let (log, _) = executor
            .block_on(open_with(&disk, &LogConfig::default(), &memory))
            .unwrap()
            .unwrap();
        for id in 0..40 {
            let _ticket = log
                .append(&batch(&[Record::new(id, 100_000)]), Timestamp::new(NOON))
                .unwrap();
        }
        assert!(memory.is_spent());
        let waiting = Rc::clone(&memory);
        executor.spawn(async move {
            waiting.room().await;
            assert!(!waiting.is_spent());
        });
        executor.spawn(async move { log.flush().await.unwrap() });
        executor.run().expect("the one who waits is woken");
    });
}

#[test]
fn a_silent_log_costs_a_few_kilobytes() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let memory = TailMemory::new(64 << 20);
        let (log, _) = open_with(&disk, &LogConfig::default(), &memory).await.unwrap();
        assert!(log.memory_used() < 4 << 10, "new: {} bytes", log.memory_used());
        for id in 0..100 {
            append_durably(&log, &batch(&[Record::new(id, 60_000)])).await;
        }
        assert!(log.memory_used() > 1 << 20);
        let later = Timestamp::new(NOON + 60_000);
        log.maintain(later).await.unwrap();
        log.maintain(later).await.unwrap();
        assert!(log.memory_used() < 16 << 10, "silent: {} bytes", log.memory_used());
        assert_eq!(memory.used(), 4096, "one block, to go on from");
        append_durably(&log, &batch(&[Record::new(100, 60_000)])).await;
        assert_eq!(ids(&read_all(&log).await), (0..=100).collect::<Vec<_>>());
    });
}
