//! Group commit: many appends share a flush, and nothing counts as durable before the disk has made it certain.

use std::{cell::RefCell, rc::Rc};

use futures::FutureExt;
use headwater_engine::{
    FlushConfig, LogConfig, Ticket,
    disk::{OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::id::Timestamp;

use crate::support::{
    NOON, Record, append_durably, batch, for_each_seed, open, read_all, run, small_config, small_flush,
};

fn flushes(disk: &SimDisk) -> u64 {
    disk.count(OpKind::Sync) + disk.count(OpKind::WriteDurable)
}

#[test]
fn a_lone_small_append_costs_one_durable_write() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &LogConfig::default()).await.unwrap();
        for id in 0..10 {
            append_durably(&log, &batch(&[Record::new(id, 100)])).await;
            assert_eq!(disk.count(OpKind::WriteDurable), id + 1);
        }
        assert_eq!((disk.count(OpKind::Write), disk.count(OpKind::Sync)), (0, 0));
    });
}

#[test]
fn a_thousand_appends_during_a_flush_share_the_next_one() {
    for_each_seed("a_thousand_appends_during_a_flush_share_the_next_one", 20, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let (log, _) = executor.block_on(open(&disk, &LogConfig::default())).unwrap().unwrap();
        let payload = |id| batch(&[Record::new(id, 100)]);
        let first = log.append(&payload(0), Timestamp::new(NOON)).unwrap();
        let flushing = Rc::clone(&log);
        executor.spawn(async move { flushing.flush().await.unwrap() });
        while flushes(&disk) == 0 {
            executor.turn().unwrap();
        }
        let tickets: Vec<_> = (1..1000)
            .map(|id| log.append(&payload(id), Timestamp::new(NOON)).unwrap().durable)
            .collect();
        executor.block_on(first.durable).unwrap().unwrap();
        for ticket in tickets {
            executor.block_on(ticket).unwrap().unwrap();
        }
        assert!(flushes(&disk) <= 4, "{} flushes", flushes(&disk));
        assert_eq!(executor.block_on(read_all(&log)).unwrap().len(), 1000);
    });
}

#[test]
fn large_appends_are_written_side_by_side_and_flushed_together() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = open(&disk, &LogConfig::default()).await.unwrap();
        for id in 0..16 {
            let _ticket = log
                .append(&batch(&[Record::new(id, 500_000)]), Timestamp::new(NOON))
                .unwrap();
        }
        log.flush().await.unwrap();
        let (writes, syncs) = (disk.count(OpKind::Write), disk.count(OpKind::Sync));
        assert!(writes <= 30, "{writes} writes of 8 MB");
        assert!(syncs <= 12, "{syncs} flushes of 8 MB");
    });
}

#[test]
fn a_steady_stream_of_appends_does_not_put_off_its_own_flushes() {
    let disk = SimDisk::new(1);
    let executor = SimExecutor::new(&disk, 1);
    let flush = FlushConfig {
        single_write_bytes_max: 0,
        ..FlushConfig::default()
    };
    let config = LogConfig {
        flush,
        ..LogConfig::default()
    };
    let (log, _) = executor.block_on(open(&disk, &config)).unwrap().unwrap();
    let mut waiting_max = 0;
    for id in 0..5000 {
        let _ticket = log
            .append(&batch(&[Record::new(id, 1000)]), Timestamp::new(NOON))
            .unwrap();
        if executor.tasks() == 0 {
            let log = Rc::clone(&log);
            executor.spawn(async move { log.flush().await.unwrap() });
        }
        executor.turn().unwrap();
        let offsets = log.offsets();
        waiting_max = waiting_max.max(offsets.end.get() - offsets.durable.get());
    }
    // A write and a flush take a few turns here each.
    assert!(waiting_max < 100, "{waiting_max} records wait");
}

#[test]
fn acknowledgements_come_in_the_order_of_the_log() {
    for_each_seed("acknowledgements_come_in_the_order_of_the_log", 100, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let (log, _) = executor.block_on(open(&disk, &small_config())).unwrap().unwrap();
        let mut tickets = Vec::new();
        for id in 0..60 {
            let appended = log
                .append(
                    &batch(&[Record::new(id, 10 + (id as usize * 997) % 6000)]),
                    Timestamp::new(NOON),
                )
                .unwrap();
            tickets.push(appended.durable);
            if id % 20 == 0 {
                let log = Rc::clone(&log);
                executor.spawn(async move { log.flush().await.unwrap() });
            }
        }
        while executor.tasks() > 0 {
            executor.turn().unwrap();
            let settled = |ticket: &Ticket| ticket.clone().now_or_never().is_some();
            let count = tickets.iter().take_while(|ticket| settled(ticket)).count();
            assert!(
                !tickets[count..].iter().any(settled),
                "a later append is acknowledged first"
            );
        }
        assert!(
            tickets
                .into_iter()
                .all(|ticket| matches!(ticket.now_or_never(), Some(Ok(()))))
        );
    });
}

#[test]
fn nothing_is_called_durable_before_it_is_certain_to_survive() {
    let checks = RefCell::new(0);
    for_each_seed(
        "nothing_is_called_durable_before_it_is_certain_to_survive",
        60,
        |seed| {
            let disk = SimDisk::new(seed);
            let executor = SimExecutor::new(&disk, seed);
            let flush = FlushConfig {
                writes_in_flight_max: [1, 3, 8][seed as usize % 3],
                uncovered_bytes_max: [4 << 10, 1 << 20][seed as usize % 2],
                single_write_bytes_max: [0, 8 << 10][seed as usize / 2 % 2],
                ..small_flush()
            };
            let config = LogConfig {
                flush,
                ..small_config()
            };
            let (log, _) = executor.block_on(open(&disk, &config)).unwrap().unwrap();
            for producer in 0..4_u64 {
                let log = Rc::clone(&log);
                executor.spawn(async move {
                    for number in 0..10_u64 {
                        let id = producer * 100 + number;
                        let size = 10 + (id * 7919 % 5000) as usize;
                        let ticket = log
                            .append(&batch(&[Record::new(id, size)]), Timestamp::new(NOON))
                            .unwrap();
                        log.flush().await.unwrap();
                        ticket.durable.await.unwrap();
                    }
                });
            }
            let mut durable = log.offsets().durable;
            while executor.tasks() > 0 {
                executor.turn().unwrap();
                if log.offsets().durable > durable {
                    durable = log.offsets().durable;
                    let image = disk.certain_image(seed);
                    let end = run(&image, seed, async {
                        open(&image, &config).await.unwrap().0.offsets().end
                    });
                    assert!(
                        end >= durable,
                        "durable up to {durable}, but {end} is all that would be there"
                    );
                    *checks.borrow_mut() += 1;
                }
            }
        },
    );
    assert!(checks.take() > 0);
}
