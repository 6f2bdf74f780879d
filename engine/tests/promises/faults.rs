//! A failing disk costs what was not acknowledged, and nothing else.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use headwater_engine::{
    AppendError, FlushConfig, LogConfig, LogError, TailMemory,
    disk::{Fault, Halt, OpKind, SimDisk, SimExecutor},
};
use headwater_protocol::{
    error::ErrorCode,
    id::{Offset, Timestamp},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    history::History,
    support::{
        NOON, Record, SimLog, append_durably, batch, for_each_seed, open_with, read_all, run, small_config,
        small_flush, turn,
    },
};

/// Whatever fails on the way is allowed to; only the history must come out right.
#[derive(Clone)]
pub struct Trial {
    pub disk: SimDisk,
    pub executor: SimExecutor,
    config: LogConfig,
    pub log: Rc<SimLog>,
    pub history: Rc<RefCell<History>>,
    rng: Rc<RefCell<StdRng>>,
    /// Appends that were refused because the disk was full.
    pub full: Rc<Cell<usize>>,
}

impl Trial {
    pub fn new(seed: u64) -> Trial {
        Trial::with_retention(seed, None)
    }

    pub fn with_retention(seed: u64, retention_bytes: Option<u64>) -> Trial {
        let mut rng = StdRng::seed_from_u64(seed);
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let flush = FlushConfig {
            single_write_bytes_max: [0, 64 << 10][rng.random_range(0..2)],
            uncovered_bytes_max: [8 << 10, 1 << 20][rng.random_range(0..2)],
            ..small_flush()
        };
        let config = LogConfig {
            segment_size_bytes: [30_000, 200_000][rng.random_range(0..2)],
            flush,
            retention_bytes,
            ..small_config()
        };
        let memory = TailMemory::new([16 << 10, 16 << 20][rng.random_range(0..2)]);
        let (log, _) = executor
            .block_on(open_with(&disk, &config, &memory))
            .expect("the machine runs")
            .expect("the disk works");
        Trial {
            disk,
            executor,
            config,
            log,
            history: Rc::default(),
            rng: Rc::new(RefCell::new(rng)),
            full: Rc::default(),
        }
    }

    pub fn draw(&self, most: usize) -> usize {
        self.rng.borrow_mut().random_range(0..most)
    }

    /// Producers that go on after every failure, and a reader; until all that was appended is acknowledged or refused.
    pub fn work(&self) {
        self.begin_work();
        self.executor.run().expect("everyone gets an answer");
        if self.log.fence().is_none() {
            self.history.borrow_mut().refusals_settled();
        }
    }

    fn begin_work(&self) {
        for _ in 0..=self.draw(3) {
            self.executor.spawn(self.clone().produce());
        }
        self.executor.spawn(self.clone().consume());
    }

    pub async fn produce(self) {
        for _ in 0..self.draw(8) {
            let size = [20, 300, 3000, 20_000][self.draw(4)];
            let records: Vec<Record> = (0..=self.draw(3))
                .map(|_| Record::new(self.history.borrow_mut().new_id(), size / 3 + self.draw(200)))
                .collect();
            let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
            let appended = match self.log.append(&batch(&records), Timestamp::new(NOON)) {
                Ok(appended) => appended,
                Err(AppendError::TooLarge { .. }) => continue,
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::KafkaStorageError);
                    assert!(self.log.fence().is_some(), "only a fenced log refuses at once");
                    return;
                }
            };
            self.history.borrow_mut().appended(appended.base_offset.get(), &ids);
            let (history, full) = (Rc::clone(&self.history), Rc::clone(&self.full));
            self.executor.spawn(async move {
                match appended.durable.await {
                    Ok(()) => history.borrow_mut().acknowledged(&ids),
                    Err(error) => {
                        assert_eq!(error.code(), ErrorCode::KafkaStorageError);
                        history.borrow_mut().refused(&ids);
                        full.set(full.get() + usize::from(matches!(error, LogError::DiskFull { .. })));
                    }
                }
            });
            if self.draw(3) > 0 {
                let _ = self.log.flush().await;
            }
        }
        // A full disk drops what is there now; what others have appended since wants another turn.
        while self.log.flush().await.is_err() && self.log.fence().is_none() {}
    }

    async fn consume(self) {
        for _ in 0..self.draw(4) {
            let records = read_all(&self.log).await;
            self.history.borrow_mut().seen(&records);
            let _ = self.log.flush().await;
        }
    }

    /// Reads all that is durable, which must go on whatever has failed.
    pub fn read(&self) {
        let reading = self.executor.block_on(read_all(&self.log));
        self.history.borrow_mut().seen(&reading.expect("the machine runs"));
    }

    /// Power is lost; the log is opened anew and holds what it must.
    pub fn recover(self) -> Trial {
        self.disk.set_capacity(None);
        self.recover_as_it_is()
    }

    /// The same, on a disk that is as full as it was.
    pub fn recover_as_it_is(self) -> Trial {
        let seed = self.rng.borrow_mut().random();
        let disk = if self.draw(2) == 0 {
            self.disk.crash(seed)
        } else {
            self.disk.certain_image(seed)
        };
        self.recover_on(disk)
    }

    /// The process dies and another takes over, on a disk that keeps what was written.
    pub fn recover_after_kill(self) -> Trial {
        let disk = self.disk.kill();
        self.recover_on(disk)
    }

    fn recover_on(self, disk: SimDisk) -> Trial {
        let seed = self.rng.borrow_mut().random();
        let executor = SimExecutor::new(&disk, seed);
        let memory = TailMemory::new(16 << 20);
        let log = executor
            .block_on(async {
                let (log, _) = open_with(&disk, &self.config, &memory)
                    .await
                    .expect("it can be recovered");
                self.history.borrow_mut().check_recovered(&log).await;
                log
            })
            .expect("the machine runs");
        Trial {
            disk,
            executor,
            log,
            ..self
        }
    }
}

#[test]
fn a_failed_write_or_flush_fences_the_log() {
    let fenced = RefCell::new([0; 3]);
    for_each_seed("a_failed_write_or_flush_fences_the_log", 300, |seed| {
        for (index, kind) in [OpKind::Write, OpKind::WriteDurable, OpKind::Sync]
            .into_iter()
            .enumerate()
        {
            let trial = Trial::new(seed);
            trial.work();
            let count = trial.disk.count(kind);
            trial.disk.fail_nth(kind, trial.draw(4) as u64, Fault::InputOutput);
            trial.work();
            trial.read();
            if let Some(fence) = trial.log.fence() {
                assert!(matches!(fence, LogError::Fenced { .. }), "{fence}");
                assert!(trial.disk.count(kind) > count);
                fenced.borrow_mut()[index] += 1;
                let refused = trial.log.append(&batch(&[Record::new(0, 10)]), Timestamp::new(NOON));
                assert!(matches!(refused, Err(AppendError::Log(LogError::Fenced { .. }))));
                let flushed = trial.executor.block_on(trial.log.flush()).expect("the machine runs");
                assert!(matches!(flushed, Err(LogError::Fenced { .. })));
                // Upkeep may go on, and must not promise what is not there.
                let _ = trial.executor.block_on(trial.log.maintain(Timestamp::new(NOON)));
                trial.read();
            }
            let trial = trial.recover();
            trial.work();
            assert!(trial.log.fence().is_none());
            trial.recover();
        }
    });
    let fenced = fenced.take();
    assert!(fenced.iter().all(|count| *count > 0), "nothing failed: {fenced:?}");
}

#[test]
fn what_a_start_serves_after_a_failed_flush_and_a_kill_outlasts_a_loss_of_power() {
    let name = "what_a_start_serves_after_a_failed_flush_and_a_kill_outlasts_a_loss_of_power";
    let fenced = Cell::new(0);
    for_each_seed(name, 1000, |seed| {
        let trial = Trial::new(seed);
        trial.work();
        trial
            .disk
            .fail_nth(OpKind::Sync, trial.draw(2) as u64, Fault::InputOutput);
        // Perhaps before what the flush left in doubt has been cut: it reads back, and is served.
        trial.disk.crash_at(trial.disk.changes() + trial.draw(20) as u64);
        trial.begin_work();
        let _ = trial.executor.run();
        fenced.set(fenced.get() + usize::from(trial.log.fence().is_some()));
        trial.disk.heal();
        let trial = trial.recover_after_kill();
        trial.read();
        trial.recover();
    });
    assert!(fenced.get() > 0, "no flush failed");
}

#[test]
fn a_full_disk_drops_what_is_not_durable_and_takes_more_when_there_is_room() {
    let name = "a_full_disk_drops_what_is_not_durable_and_takes_more_when_there_is_room";
    let filled = Cell::new(0);
    for_each_seed(name, 300, |seed| {
        let trial = Trial::new(seed);
        trial.work();
        trial
            .disk
            .set_capacity(Some(trial.disk.used() + trial.draw(40_000) as u64));
        trial.work();
        assert!(trial.log.fence().is_none(), "a full disk is no reason to give up");
        trial.read();
        filled.set(filled.get() + trial.full.get());
        let _ = trial.executor.block_on(trial.log.maintain(Timestamp::new(NOON)));
        trial.disk.set_capacity(None);
        trial.work();
        trial.read();
        let offsets = trial.log.offsets();
        assert_eq!(offsets.durable, offsets.end);
        let trial = trial.recover();
        trial.work();
        trial.recover();
    });
    assert!(filled.get() > 0, "it was never full");
}

#[test]
fn without_a_descriptor_what_was_appended_waits_until_there_is_one() {
    let config = LogConfig {
        retention_bytes: Some(64 << 10),
        ..small_config()
    };
    for kind in [OpKind::Open, OpKind::Rename] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = open_with(&disk, &config, &TailMemory::new(16 << 20)).await.unwrap();
            let mut waited = 0;
            for id in 0..120 {
                disk.fail_randomly(kind, 1.0, Fault::OutOfFiles);
                let appended = log
                    .append(&batch(&[Record::new(id, 5000)]), Timestamp::new(NOON))
                    .unwrap();
                if let Err(error) = log.flush().await {
                    assert!(matches!(error, LogError::OutOfFiles { .. }), "{error}");
                    assert_eq!(
                        log.offsets().durable,
                        appended.base_offset,
                        "nothing is dropped, nothing made up"
                    );
                    waited += 1;
                }
                disk.heal();
                log.flush().await.unwrap();
                assert_eq!(appended.durable.await.unwrap(), ());
                log.maintain(Timestamp::new(NOON)).await.unwrap();
                if id % 5 == 0 {
                    // Its file is closed, as it has been idle.
                    log.checkpoint(Timestamp::new(NOON + 60_000)).await.unwrap();
                }
            }
            // When a log is new, after each rest, and with each new segment; or with each file that is used again.
            assert!(
                waited > if kind == OpKind::Open { 30 } else { 5 },
                "{waited} times at {kind:?}"
            );
            let expected = read_all(&log).await;
            let image = disk.certain_image(1);
            let (log, recovery) = open_with(&image, &config, &TailMemory::new(16 << 20)).await.unwrap();
            assert_eq!(recovery.cut, None);
            assert_eq!(read_all(&log).await, expected);
        });
    }
}

#[test]
fn an_open_file_that_is_refused_a_descriptor_has_failed_like_any_other() {
    for kind in [OpKind::Write, OpKind::Sync] {
        let disk = SimDisk::new(1);
        run(&disk, 1, async {
            let (log, _) = crate::support::open(&disk, &small_config()).await.unwrap();
            append_durably(&log, &batch(&[Record::new(1, 10)])).await;
            disk.fail_nth(kind, 0, Fault::OutOfFiles);
            // Two blocks and more are written, and then flushed.
            let waiting = log
                .append(&batch(&[Record::new(2, 20_000)]), Timestamp::new(NOON))
                .unwrap();
            let error = log.flush().await.unwrap_err();
            assert!(matches!(error, LogError::Fenced { .. }), "{error}");
            waiting.durable.await.unwrap_err();
        });
    }
}

#[test]
fn a_full_disk_is_named_in_the_error() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let (log, _) = crate::support::open(&disk, &small_config()).await.unwrap();
        append_durably(&log, &batch(&[Record::new(1, 10)])).await;
        disk.set_capacity(Some(disk.used()));
        // Beyond what was reserved ahead.
        let records: Vec<Record> = (2..8).map(|id| Record::new(id, 5000)).collect();
        let payloads: Vec<Vec<u8>> = records.iter().map(|record| batch(&[*record])).collect();
        let mut tickets = Vec::new();
        for payload in payloads.iter().cycle().take(30) {
            tickets.push(log.append(payload, Timestamp::new(NOON)).unwrap().durable);
        }
        let error = log.flush().await.unwrap_err();
        assert!(matches!(error, LogError::DiskFull { .. }), "{error}");
        for ticket in tickets {
            let outcome = ticket.await;
            assert!(!matches!(outcome, Err(LogError::Fenced { .. })), "{outcome:?}");
        }
        assert_eq!(log.offsets().end, log.offsets().durable);
        assert_eq!(read_all(&log).await[0].id, 1);
        disk.set_capacity(None);
        append_durably(&log, &batch(&[Record::new(9, 10)])).await;
        assert_eq!(read_all(&log).await.last().unwrap().id, 9);
    });
}

#[test]
fn no_failure_of_the_disk_loses_what_was_acknowledged() {
    let kinds = [
        OpKind::Write,
        OpKind::WriteDurable,
        OpKind::WriteZeros,
        OpKind::Sync,
        OpKind::Allocate,
        OpKind::Truncate,
        OpKind::Open,
        OpKind::ReplaceFile,
        OpKind::RemoveFile,
    ];
    for_each_seed("no_failure_of_the_disk_loses_what_was_acknowledged", 500, |seed| {
        let trial = Trial::new(seed);
        trial.work();
        for kind in kinds {
            let fault = [Fault::InputOutput, Fault::StorageFull][trial.draw(2)];
            trial.disk.fail_randomly(kind, [0.0, 0.03, 0.3][trial.draw(3)], fault);
        }
        for _ in 0..3 {
            trial.executor.spawn(trial.clone().upkeep());
            trial.work_without_reading();
        }
        trial.disk.heal();
        trial.read();
        let trial = trial.recover();
        trial.work();
        trial.recover();
    });
}

impl Trial {
    fn work_without_reading(&self) {
        for _ in 0..=self.draw(2) {
            self.executor.spawn(self.clone().produce());
        }
        match self.executor.run() {
            Ok(()) => {}
            Err(Halt::Deadlock) => panic!("someone waits for ever"),
            Err(Halt::Crashed) => unreachable!("no crash is planned"),
        }
        if self.log.fence().is_none() {
            self.history.borrow_mut().refusals_settled();
        }
    }

    pub async fn upkeep(self) {
        for _ in 0..self.draw(4) {
            if self.draw(4) == 0 {
                let offsets = self.log.offsets();
                let count = (offsets.durable.get() - offsets.start.get()) as usize;
                let before = offsets.start.get() + self.draw(count + 1) as u64;
                self.history.borrow_mut().start_asked(before);
                if let Ok(start) = self.log.delete_records(Offset::new(before)).await {
                    self.history.borrow_mut().start_moved(start.get());
                }
            } else {
                if self.config.retention_bytes.is_some() {
                    self.history.borrow_mut().start_asked(u64::MAX);
                }
                let _ = self.log.maintain(Timestamp::new(NOON)).await;
            }
        }
    }
}

#[test]
fn a_disk_that_fills_up_while_memory_is_short_loses_nothing_durable() {
    let name = "a_disk_that_fills_up_while_memory_is_short_loses_nothing_durable";
    let filled = Cell::new(0);
    for_each_seed(name, 200, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let config = LogConfig {
            segment_size_bytes: 1 << 20,
            flush: FlushConfig {
                uncovered_bytes_max: 1,
                ..FlushConfig::default()
            },
            ..small_config()
        };
        let memory = TailMemory::new(8 << 10);
        let log = executor.block_on(async {
            let (log, _) = open_with(&disk, &config, &memory).await.unwrap();
            append_durably(&log, &batch(&[Record::new(1, 100)])).await;
            log
        });
        let log = log.unwrap();
        // The part of this batch in the first block becomes durable, and may give way, before the rest fails.
        let half_durable = log
            .append(&batch(&[Record::new(2, 40_000)]), Timestamp::new(NOON))
            .unwrap();
        disk.fail_nth(OpKind::Write, 1, Fault::StorageFull);
        let (flushing, appending) = (Rc::clone(&log), Rc::clone(&log));
        executor.spawn(async move { while flushing.flush().await.is_err() {} });
        executor.spawn(async move {
            for id in 3..20 {
                let _ticket = appending.append(&batch(&[Record::new(id, 3000)]), Timestamp::new(NOON));
                // As a server does before it takes more.
                memory.is_spent();
                turn().await;
            }
            while appending.flush().await.is_err() {}
        });
        executor.run().unwrap();
        filled.set(filled.get() + usize::from(executor.block_on(half_durable.durable).unwrap().is_err()));
        let records = executor.block_on(read_all(&log)).unwrap();
        assert_eq!(records[0].id, 1);
        let image = disk.certain_image(seed);
        let again = run(&image, seed, async {
            let (log, _) = open_with(&image, &config, &TailMemory::new(8 << 10)).await.unwrap();
            read_all(&log).await
        });
        assert_eq!(again, records);
    });
    assert!(filled.get() > 0, "it was never full");
}
