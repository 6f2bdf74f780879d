//! What was acknowledged survives a crash at any moment, and what was not comes back whole or never.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use headwater_engine::{
    FlushConfig, JournalConfig, LogConfig, TailMemory,
    disk::{Halt, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    history::History,
    support::{
        NOON, Record, SimJournal, SimLog, batch, directory, for_each_seed, open_journal, open_journaled, open_with,
        small_config, try_fetch, turn,
    },
};

/// Most batches of a payload.
const BATCHES_MAX: usize = 3;

/// Most records of a batch.
const RECORDS_MAX: usize = 4;

/// All that one seed decides before anything runs.
struct Plan {
    config: LogConfig,
    memory: usize,
    retention: bool,
    journal: Option<JournalConfig>,
}

impl Plan {
    /// `journaled`: half of them all, half what is little.
    fn new(rng: &mut StdRng, journaled: bool) -> Plan {
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        let flush = FlushConfig {
            writes_in_flight_max: pick(&[1, 2, 8]) as usize,
            uncovered_bytes_max: pick(&[4 << 10, 1 << 20]),
            single_write_bytes_max: pick(&[0, 4 << 10, 64 << 10]),
            prepare_bytes_max: pick(&[64 << 10, 1 << 20]),
            zero_ahead_bytes: pick(&[0, 8 << 10, 64 << 10]),
        };
        let retention_bytes = Some(pick(&[0, 60_000])).filter(|bytes| *bytes > 0);
        let config = LogConfig {
            segment_size_bytes: pick(&[8 << 10, 30_000, 200 << 10]),
            retention_bytes,
            flush,
            ..small_config()
        };
        Plan {
            config,
            memory: pick(&[16 << 10, 64 << 20]) as usize,
            retention: retention_bytes.is_some(),
            journal: journaled.then(|| JournalConfig {
                size_bytes: pick(&[64 << 10, 64 << 10, 256 << 10]),
                batch_bytes_max: pick(&[2_000, 1 << 20]),
            }),
        }
    }
}

/// A log in use: tasks that append, wait, read and maintain, and the history they write down.
#[derive(Clone)]
struct Life {
    executor: SimExecutor,
    log: Rc<SimLog>,
    journal: Option<Rc<SimJournal>>,
    history: Rc<RefCell<History>>,
    rng: Rc<RefCell<StdRng>>,
    clock: Rc<Cell<i64>>,
    retention: bool,
}

impl Life {
    fn draw(&self, most: usize) -> usize {
        self.rng.borrow_mut().random_range(0..most)
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.clock.get())
    }

    /// Rounds of tasks that run beside each other; in between, what changes the log as a whole.
    fn run(&self, rounds: usize) -> Result<(), Halt> {
        for _ in 0..rounds {
            for _ in 0..=self.draw(3) {
                self.executor.spawn(self.clone().produce());
            }
            if self.draw(2) == 0 {
                self.executor.spawn(self.clone().consume());
            }
            if self.draw(2) == 0 {
                self.executor.spawn(self.clone().maintain());
            }
            if self.journal.is_some() && self.draw(2) == 0 {
                self.executor.spawn(self.clone().file());
            }
            self.executor.run()?;
            match self.draw(8) {
                0 => self.executor.block_on(self.truncate())?,
                1 => self.executor.block_on(self.delete_records())?,
                _ => {}
            }
        }
        Ok(())
    }

    async fn produce(self) {
        for _ in 0..self.draw(6) {
            let mut payload = Vec::new();
            let mut ids = Vec::new();
            for _ in 0..=self.draw(BATCHES_MAX) {
                let size = [20, 20, 300, 3000, 5000][self.draw(5)];
                let records: Vec<Record> = (0..=self.draw(RECORDS_MAX))
                    .map(|_| Record::new(self.history.borrow_mut().new_id(), size + self.draw(600)))
                    .collect();
                ids.extend(records.iter().map(|record| record.id));
                payload.extend_from_slice(&batch(&records));
            }
            let Ok(appended) = self.log.append(&payload, self.now()) else {
                continue; // More than a segment holds.
            };
            self.history.borrow_mut().appended(appended.base_offset.get(), &ids);
            let (log, history) = (Rc::clone(&self.log), Rc::clone(&self.history));
            self.executor.spawn(async move {
                appended.durable.await.expect("the disk works");
                assert!(appended.next_offset <= log.offsets().durable);
                history.borrow_mut().acknowledged(&ids);
            });
            if self.draw(3) > 0 {
                self.log.flush().await.expect("the disk works");
            }
        }
        self.log.flush().await.expect("the disk works");
    }

    async fn consume(self) {
        for _ in 0..self.draw(6) {
            let offsets = self.log.offsets();
            let count = (offsets.durable.get() - offsets.start.get()) as usize;
            if count > 0 {
                let offset = offsets.start.get() + self.draw(count) as u64;
                match try_fetch(&self.log, offset, self.draw(20_000) as u64).await {
                    Ok(records) => self.history.borrow_mut().seen(&records),
                    Err(error) => assert!(offset < self.log.offsets().start.get(), "{error}"),
                }
            }
            self.log.flush().await.expect("the disk works");
        }
    }

    async fn maintain(self) {
        self.clock.set(self.clock.get() + self.draw(20_000) as i64);
        if self.retention {
            self.history.borrow_mut().start_asked(u64::MAX);
        }
        self.log.maintain(self.now()).await.expect("the disk works");
        let start = self.log.offsets().start.get();
        self.history.borrow_mut().start_moved(start);
    }

    /// Now and then although it is not due.
    async fn file(self) {
        let journal = self.journal.as_ref().expect("asked before");
        for _ in 0..self.draw(4) {
            let due = journal.due_now();
            if due.is_some() || self.draw(3) == 0 {
                self.log.file().await.expect("the disk works");
            }
            turn().await;
        }
    }

    async fn truncate(&self) {
        let offsets = self.log.offsets();
        let to = offsets.start.get() + self.draw((offsets.end.get() - offsets.start.get()) as usize + 1) as u64;
        // The batch that holds `to` goes as a whole.
        self.history
            .borrow_mut()
            .drop_begins(to.saturating_sub(RECORDS_MAX as u64));
        self.log.truncate(Offset::new(to)).await.expect("the disk works");
        let end = self.log.offsets().end.get();
        self.history.borrow_mut().dropped(end);
    }

    async fn delete_records(&self) {
        let offsets = self.log.offsets();
        let before = offsets.start.get() + self.draw((offsets.durable.get() - offsets.start.get()) as usize + 1) as u64;
        self.history.borrow_mut().start_asked(before);
        let start = self
            .log
            .delete_records(Offset::new(before))
            .await
            .expect("the disk works");
        self.history.borrow_mut().start_moved(start.get());
    }
}

/// How the machine stops.
#[derive(Debug, Clone, Copy)]
enum Stop {
    /// Power is lost, and with it parts of what was not flushed.
    Power,
    /// Power is lost, and all that was not flushed.
    Certain,
    /// Only the process dies: what it had written is there, flushed or not.
    Process,
}

fn stop(disk: &SimDisk, how: Stop, seed: u64) -> SimDisk {
    match how {
        Stop::Power => disk.crash(seed),
        Stop::Certain => disk.certain_image(seed),
        Stop::Process => disk.kill(),
    }
}

/// Opens the log on what a stop has left, checks it against the history, and lets it live on until it is stopped again.
struct Lives {
    plan: Plan,
    history: Rc<RefCell<History>>,
    rng: Rc<RefCell<StdRng>>,
    clock: Rc<Cell<i64>>,
}

impl Lives {
    fn new(seed: u64, journaled: bool) -> Lives {
        let mut rng = StdRng::seed_from_u64(seed);
        Lives {
            plan: Plan::new(&mut rng, journaled),
            history: Rc::default(),
            rng: Rc::new(RefCell::new(rng)),
            clock: Rc::new(Cell::new(NOON)),
        }
    }

    /// Runs the log on this disk; `Err` if the machine stopped before the end.
    fn live(&self, disk: &SimDisk, seed: u64, rounds: usize) -> Result<(), Halt> {
        let executor = SimExecutor::new(disk, seed);
        let opening = async {
            let memory = TailMemory::new(self.plan.memory);
            let config = &self.plan.config;
            let (journal, opened) = match self.plan.journal {
                Some(plan) => {
                    let journal = open_journal(disk, plan, &memory).await.expect("it can be recovered");
                    let opened = open_journaled(disk, config, &memory, &journal).await;
                    (Some(journal), opened)
                }
                None => (None, open_with(disk, config, &memory).await),
            };
            let (log, recovery) = opened.expect("it can be recovered");
            if let Some(cut) = recovery.cut {
                assert_eq!(cut.offset, log.offsets().end, "the report names the end of the log");
                assert!(cut.path.starts_with(directory()) && cut.bytes > 0 && !cut.reason.is_empty());
            }
            self.history.borrow_mut().check_recovered(&log).await;
            (log, journal)
        };
        let (log, journal) = executor.block_on(opening)?;
        let life = Life {
            log,
            journal,
            executor,
            history: Rc::clone(&self.history),
            rng: Rc::clone(&self.rng),
            clock: Rc::clone(&self.clock),
            retention: self.plan.retention,
        };
        life.run(rounds)
    }

    fn draw(&self, most: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..most)
    }
}

/// One log from its first append over a stop at operation `crash_at` to its end two stops later.
fn stopped_at(seed: u64, crash_at: u64, rounds: usize, journaled: bool) -> Result<(), Halt> {
    let lives = Lives::new(seed, journaled);
    let mut disk = SimDisk::new(seed);
    disk.crash_at(crash_at);
    let first = lives.live(&disk, seed, rounds);
    // From here on the seed alone would repeat itself for every operation.
    *lives.rng.borrow_mut() = StdRng::seed_from_u64(seed ^ crash_at << 32);
    for generation in 1..=3 {
        let how = [Stop::Power, Stop::Power, Stop::Certain, Stop::Process][lives.draw(4) as usize];
        let seed = lives.draw(u64::MAX);
        disk = stop(&disk, how, seed);
        if generation < 3 {
            disk.crash_at(disk.changes() + lives.draw(30));
        }
        match lives.live(&disk, seed, 1) {
            Ok(()) | Err(Halt::Crashed) => {}
            Err(Halt::Deadlock) => return Err(Halt::Deadlock),
        }
    }
    first
}

/// Says where a failure was.
struct At(u64);

impl Drop for At {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("stopped at changing operation {} of the disk", self.0);
        }
    }
}

#[test]
fn acknowledged_records_survive_a_crash_at_every_write_and_flush() {
    let name = "acknowledged_records_survive_a_crash_at_every_write_and_flush";
    for_each_seed(name, 40, |seed| {
        for change in 0.. {
            let _at = At(change);
            match stopped_at(seed, change, 3, false) {
                Err(Halt::Crashed) => {}
                Err(Halt::Deadlock) => panic!("deadlock"),
                Ok(()) => break, // The log's first life was over before that operation.
            }
        }
    });
}

#[test]
fn acknowledged_records_survive_a_crash_at_every_write_and_flush_with_a_journal() {
    let name = "acknowledged_records_survive_a_crash_at_every_write_and_flush_with_a_journal";
    for_each_seed(name, 12, |seed| {
        for change in 0.. {
            let _at = At(change);
            match stopped_at(seed, change, 3, true) {
                Err(Halt::Crashed) => {}
                Err(Halt::Deadlock) => panic!("deadlock"),
                Ok(()) => break,
            }
        }
    });
}
