//! A core with a journal in all kinds of trouble: operations that fail, a disk that is full, processes that die while the disk keeps
//! what they wrote, and losses of power, in any order. Batches fill a block of the disk each, so that what was never
//! acknowledged lies where others come to lie.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use headwater_engine::{
    Journal, JournalConfig, Log, LogConfig, LogError, Owner, TailMemory,
    disk::{Directory, Fault, Halt, OpKind, SimDisk, SimExecutor},
    journal::recover,
};
use headwater_protocol::id::{CoreId, PartitionIndex, Timestamp, TopicId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    history::History,
    support::{NOON, Record, SimJournal, SimLog, batch, data_directory, for_each_seed, generation, small_config, turn},
};

const PARTITIONS: usize = 2;

/// A value of so many bytes makes a batch of one block.
const VALUE_EVEN: usize = 4096 - 70;

/// Attempts on a disk that fails before it is sound.
const ATTEMPTS: usize = 3;

const FAILING: [OpKind; 12] = [
    OpKind::Write,
    OpKind::WriteDurable,
    OpKind::WriteDurable,
    OpKind::WriteZeros,
    OpKind::Sync,
    OpKind::Read,
    OpKind::Allocate,
    OpKind::Truncate,
    OpKind::Open,
    OpKind::ReplaceFile,
    OpKind::Rename,
    OpKind::RemoveFile,
];

/// One partition over all lives of the machine.
struct Place {
    owner: Owner,
    directory: PathBuf,
    history: RefCell<History>,
}

/// All that outlives a process.
#[derive(Clone)]
struct World {
    places: Rc<Vec<Place>>,
    rng: Rc<RefCell<StdRng>>,
    config: LogConfig,
    journal: JournalConfig,
}

/// A process.
#[derive(Clone)]
struct Life {
    world: World,
    disk: SimDisk,
    executor: SimExecutor,
    journal: Option<Rc<SimJournal>>,
    tail: Rc<TailMemory>,
    /// `None`: it could not be opened.
    logs: Rc<RefCell<Vec<Option<Rc<SimLog>>>>>,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        let journal = JournalConfig {
            size_bytes: pick(&[64 << 10, 256 << 10, 1 << 20]),
            batch_bytes_max: pick(&[1_000, 64 << 10]),
        };
        let config = LogConfig {
            segment_size_bytes: pick(&[20_000, 60_000, 1 << 20]),
            ..small_config()
        };
        let place = |partition: usize| Place {
            owner: Owner {
                topic: TopicId::NIL,
                partition: PartitionIndex::new(partition as i32),
            },
            directory: data_directory().join(format!("topic-{partition}")),
            history: RefCell::default(),
        };
        World {
            places: Rc::new((0..PARTITIONS).map(place).collect()),
            rng: Rc::new(RefCell::new(rng)),
            config,
            journal,
        }
    }

    fn draw(&self, most: usize) -> usize {
        self.rng.borrow_mut().random_range(0..most)
    }

    /// A process begins, perhaps in several attempts.
    fn start(&self, disk: &SimDisk) -> Result<Life, Halt> {
        rustix::thread::disable_transparent_huge_pages(true).expect("any process may do without");
        let executor = SimExecutor::new(disk, self.rng.borrow_mut().random());
        let tail = TailMemory::new(64 << 10);
        let journal = executor.block_on(self.begin(disk, &tail))?;
        let life = Life {
            world: self.clone(),
            disk: disk.clone(),
            executor: executor.clone(),
            journal,
            tail,
            logs: Rc::new(RefCell::new(vec![None; PARTITIONS])),
        };
        executor.block_on(life.open_all())?;
        Ok(life)
    }

    async fn begin(&self, disk: &SimDisk, tail: &Rc<TailMemory>) -> Option<Rc<SimJournal>> {
        let directory = data_directory();
        for attempt in 0.. {
            if attempt == ATTEMPTS {
                disk.heal();
                disk.set_capacity(None);
            }
            let found = async {
                disk.create_dir(&directory).await.map_err(|error| error.to_string())?;
                recover(disk, &directory).await.map_err(|error| error.to_string())
            };
            match found.await {
                Ok(_) => break,
                Err(error) => assert!(attempt < ATTEMPTS, "a sound disk is recovered: {error}"),
            }
        }
        let core = CoreId::new(self.draw(2) as u16);
        let tail = Rc::clone(tail);
        let opened = Journal::open(disk.clone(), &directory, core, generation(), self.journal, tail);
        opened.await.ok()
    }
}

impl Life {
    fn log(&self, number: usize) -> Option<Rc<SimLog>> {
        self.logs.borrow()[number].clone()
    }

    async fn open_all(&self) {
        for number in 0..PARTITIONS {
            self.open(number).await;
        }
    }

    /// Opens a partition that is not open.
    async fn open(&self, number: usize) {
        for _ in 0..self.world.draw(ATTEMPTS) {
            if let Ok(log) = self.try_open(number).await {
                // Whoever looks at it wants to see it.
                self.disk.heal();
                self.world.places[number]
                    .history
                    .borrow_mut()
                    .check_recovered(&log)
                    .await;
                self.logs.borrow_mut()[number] = Some(log);
                return;
            }
        }
    }

    async fn try_open(&self, number: usize) -> Result<Rc<SimLog>, String> {
        let (disk, place) = (&self.disk, &self.world.places[number]);
        let entries = async {
            disk.create_dir(&place.directory).await?;
            disk.list(&place.directory).await
        };
        let entries = entries.await.map_err(|error| error.to_string())?;
        let claimed = place.owner.claim(disk, &place.directory, &entries).await;
        let is_marked = claimed.map_err(|error| error.to_string())?;
        let journal = self.journal.clone().filter(|_| is_marked);
        let journal = journal.map(|journal| (journal, place.owner));
        let (directory, config) = (place.directory.clone(), self.world.config.clone());
        let opened = Log::open_with(disk.clone(), directory, config, Rc::clone(&self.tail), journal).await;
        opened.map(|(log, _)| Rc::new(log)).map_err(|error| error.to_string())
    }

    /// A log that has failed gives way, if the disk lets it.
    async fn mend(&self, number: usize) {
        if let Some(log) = self.log(number) {
            if log.fence().is_none() || log.give_way().await.is_err() {
                return;
            }
            self.logs.borrow_mut()[number] = None;
        }
        self.open(number).await;
    }

    async fn produce(self, number: usize) {
        let Some(log) = self.log(number) else { return };
        let draw = |most| self.world.draw(most);
        let is_even = draw(2) == 0;
        for _ in 0..draw(6) {
            let size = if is_even {
                VALUE_EVEN
            } else {
                [20, 20, 200, 9000][draw(4)]
            };
            let id = self.world.places[number].history.borrow_mut().new_id();
            let appended = log.append(&batch(&[Record::new(id, size)]), Timestamp::new(NOON));
            let Ok(appended) = appended else { return };
            let places = Rc::clone(&self.world.places);
            places[number]
                .history
                .borrow_mut()
                .appended(appended.base_offset.get(), &[id]);
            self.executor.spawn(async move {
                let outcome = appended.durable.await;
                let mut history = places[number].history.borrow_mut();
                match outcome {
                    Ok(()) => history.acknowledged(&[id]),
                    Err(_) => history.refused(&[id]),
                }
            });
            if draw(3) > 0 {
                let _ = log.flush().await;
            }
        }
        // A full disk drops what is there now; what others have appended since wants another turn.
        while log
            .flush()
            .await
            .is_err_and(|error| !matches!(error, LogError::OutOfFiles { .. }))
            && log.fence().is_none()
        {}
    }

    async fn file(self) {
        let Some(journal) = &self.journal else { return };
        for _ in 0..self.world.draw(6) {
            if let Some(due) = journal.due_now() {
                let number = self.world.places.iter().position(|place| place.owner == due.owner);
                if let Some(log) = self.log(number.expect("it is one of them")) {
                    let _ = log.file().await;
                }
            }
            turn().await;
        }
    }

    async fn maintain(self, number: usize) {
        let later = Timestamp::new(NOON + 60_000 * self.world.draw(2) as i64);
        if let Some(log) = self.log(number) {
            let _ = log.maintain(later).await;
        }
    }

    /// Some rounds of work in trouble, until the end of the process.
    fn live(&self) -> Result<(), Halt> {
        let world = &self.world;
        for _ in 0..=world.draw(4) {
            match world.draw(6) {
                0..3 => {
                    let kind = FAILING[world.draw(FAILING.len())];
                    self.disk.fail_nth(kind, world.draw(6) as u64, Fault::InputOutput);
                }
                3 => self
                    .disk
                    .set_capacity(Some(self.disk.used() + world.draw(40_000) as u64)),
                _ => {}
            }
            for number in 0..PARTITIONS {
                for _ in 0..world.draw(3) {
                    self.executor.spawn(self.clone().produce(number));
                }
                if world.draw(3) == 0 {
                    self.executor.spawn(self.clone().maintain(number));
                }
            }
            if world.draw(3) > 0 {
                self.executor.spawn(self.clone().file());
            }
            self.executor.run()?;
            self.disk.set_capacity(None);
            for number in 0..PARTITIONS {
                let is_well = self.log(number).is_some_and(|log| log.fence().is_none());
                if is_well {
                    world.places[number].history.borrow_mut().refusals_settled();
                    let log = self.log(number).expect("it is well");
                    if world.draw(3) == 0 {
                        let read = self.executor.block_on(async { log.flush().await.is_ok() })?;
                        assert!(read || log.fence().is_some());
                    }
                } else if world.draw(3) > 0 {
                    self.executor.block_on(self.mend(number))?;
                }
            }
        }
        if world.draw(3) == 0 {
            self.executor.block_on(self.close())?;
        }
        Ok(())
    }

    async fn close(&self) {
        for number in 0..PARTITIONS {
            if let Some(log) = self.log(number) {
                let _ = log.close().await;
            }
        }
        if let Some(journal) = &self.journal {
            let _ = journal.close().await;
        }
    }
}

fn hardships(seed: u64) {
    let world = World::new(seed);
    let mut disk = SimDisk::new(seed);
    for life in 0..6_u64 {
        if world.draw(2) == 0 {
            disk.crash_at(disk.changes() + world.draw(80) as u64);
        }
        let lived = world.start(&disk).and_then(|life| life.live());
        assert_ne!(lived, Err(Halt::Deadlock), "someone waits for ever");
        disk = match world.draw(5) {
            0 | 1 => disk.kill(),
            2 => disk.certain_image(seed + life),
            _ => disk.crash(seed ^ life << 40),
        };
        if world.draw(2) == 0 {
            disk.heal();
        }
    }
    disk.heal();
    let last = world.start(&disk).expect("nothing stops the machine");
    let looked_at = last.executor.block_on(async {
        for number in 0..PARTITIONS {
            let open = last.log(number);
            let log = match open {
                Some(log) => log,
                None => last.try_open(number).await.expect("a sound disk is recovered"),
            };
            world.places[number].history.borrow_mut().check_recovered(&log).await;
        }
    });
    looked_at.expect("nothing stops the machine");
}

#[test]
fn nothing_acknowledged_is_lost_whatever_fails() {
    for_each_seed("nothing_acknowledged_is_lost_whatever_fails", 100, hardships);
}
