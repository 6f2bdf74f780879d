//! Zeros ahead of small writes: there when they help, of no consequence when they fail.

use headwater_engine::{
    FlushConfig, LogConfig,
    disk::{Fault, OpKind, SimDisk},
};

use crate::support::{Record, SimLog, append_durably, batch, ids, open, read_all, run};

const AHEAD: u64 = 64 << 10;

fn config() -> LogConfig {
    LogConfig {
        flush: FlushConfig {
            zero_ahead_bytes: AHEAD,
            ..FlushConfig::default()
        },
        ..LogConfig::default()
    }
}

/// Appends records of this size, each once the one before is durable. Returns how many times zeros were written.
async fn append(disk: &SimDisk, log: &SimLog, count: u64, size: usize) -> u64 {
    let before = disk.count(OpKind::WriteZeros);
    for id in 0..count {
        append_durably(log, &batch(&[Record::new(id, size)])).await;
    }
    disk.count(OpKind::WriteZeros) - before
}

#[test]
fn zeros_are_written_ahead_of_small_writes_and_no_more_often_than_it_takes() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        let written = append(&disk, &log, 1000, 1000).await;
        let steps = 1000 * 1000 / AHEAD;
        assert!((steps - 2..steps + 3).contains(&written), "{written} times");
    });
}

#[test]
fn large_writes_are_not_written_twice() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &config()).await.unwrap();
        for size in [20_000, 200_000] {
            assert_eq!(append(&disk, &log, 30, size).await, 0);
        }
    });
}

#[test]
fn zeros_can_be_switched_off() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let mut config = config();
        config.flush.zero_ahead_bytes = 0;
        let (log, _) = open(&disk, &config).await.unwrap();
        assert_eq!(append(&disk, &log, 1000, 1000).await, 0);
    });
}

#[test]
fn zeros_that_cannot_be_written_cost_nothing_but_time() {
    for fault in [Fault::InputOutput, Fault::StorageFull] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open(&disk, &config()).await.unwrap();
            disk.fail_randomly(OpKind::WriteZeros, 1.0, fault);
            let tried = append(&disk, &log, 1000, 1000).await;
            assert!((1..1000 * 1000 / AHEAD + 3).contains(&tried), "tried {tried} times");
            assert_eq!(ids(&read_all(&log).await), (0..1000).collect::<Vec<_>>());
        });
    }
}
