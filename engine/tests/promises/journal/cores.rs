//! Several partitions, on a number of cores that changes with every start: whatever stops the machine, each partition has all that was
//! acknowledged and nothing that was dropped, also where it was deleted and made again.

use std::{cell::RefCell, path::PathBuf, rc::Rc};

use headwater_engine::{
    Journal, JournalConfig, Log, LogConfig, Owner, TailMemory,
    disk::{Directory, Halt, SimDisk, SimExecutor},
    journal::recover,
};
use headwater_protocol::id::{CoreId, Offset, PartitionIndex, Timestamp, TopicId};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    history::History,
    support::{NOON, Record, SimJournal, SimLog, batch, data_directory, for_each_seed, generation, small_config, turn},
};

const PARTITIONS: usize = 3;

/// Most records of a batch.
const RECORDS_MAX: usize = 3;

/// One partition over all lives of the machine.
struct Place {
    owner: Owner,
    directory: PathBuf,
    history: RefCell<History>,
}

/// A partition that is open.
struct Partition {
    place: Rc<Place>,
    log: Rc<SimLog>,
    journal: Rc<SimJournal>,
}

/// All that outlives a stop.
struct World {
    places: Vec<Rc<Place>>,
    rng: Rc<RefCell<StdRng>>,
    config: LogConfig,
    journal: JournalConfig,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        let journal = JournalConfig {
            size_bytes: pick(&[64 << 10, 64 << 10, 256 << 10]),
            // Some, or all.
            batch_bytes_max: pick(&[1_000, 1 << 20]),
        };
        let config = LogConfig {
            segment_size_bytes: pick(&[8 << 10, 60_000]),
            ..small_config()
        };
        let place = |partition: usize| {
            let partition = i32::try_from(partition).expect("there are few");
            Rc::new(Place {
                owner: Owner {
                    topic: TopicId::NIL,
                    partition: PartitionIndex::new(partition),
                },
                directory: data_directory().join(format!("topic-{partition}")),
                history: RefCell::default(),
            })
        };
        World {
            places: (0..PARTITIONS).map(place).collect(),
            rng: Rc::new(RefCell::new(rng)),
            config,
            journal,
        }
    }

    fn draw(&self, most: usize) -> usize {
        self.rng.borrow_mut().random_range(0..most)
    }

    /// Everything is opened, on so many cores.
    async fn start(&self, disk: &SimDisk, cores: usize) -> Vec<Rc<Partition>> {
        rustix::thread::disable_transparent_huge_pages(true).expect("any process may do without");
        disk.create_dir(&data_directory()).await.expect("the disk works");
        recover(disk, &data_directory()).await.expect("journals are whole");
        for place in &self.places {
            let gone = place.directory.with_extension("gone");
            disk.remove_dir_all(&gone).await.expect("the disk works");
        }
        let tail = TailMemory::new(64 << 10);
        let mut journals = Vec::new();
        for core in 0..cores {
            let (core, directory) = (CoreId::new(core as u16), data_directory());
            let journal = Journal::open(
                disk.clone(),
                &directory,
                core,
                generation(),
                self.journal,
                Rc::clone(&tail),
            );
            journals.push(journal.await.expect("the disk works"));
        }
        let mut open = Vec::new();
        for (number, place) in self.places.iter().enumerate() {
            let journal = Rc::clone(&journals[number % cores]);
            let log = open_log(disk, place, &self.config, &tail, &journal).await;
            place.history.borrow_mut().check_recovered(&log).await;
            let place = Rc::clone(place);
            open.push(Rc::new(Partition { place, log, journal }));
        }
        open
    }

    /// What happens between two stops.
    fn live(&self, disk: &SimDisk, seed: u64, rounds: usize) -> Result<(), Halt> {
        let executor = SimExecutor::new(disk, seed);
        let cores = 1 + self.draw(3);
        let mut open = executor.block_on(self.start(disk, cores))?;
        for _ in 0..rounds {
            for partition in &open {
                for _ in 0..self.draw(3) {
                    let (partition, rng) = (Rc::clone(partition), Rc::clone(&self.rng));
                    executor.spawn(produce(executor.clone(), partition, rng));
                }
            }
            if self.draw(2) == 0 {
                executor.spawn(file(open.clone(), self.draw(6)));
            }
            executor.run()?;
            let which = self.draw(PARTITIONS);
            match self.draw(8) {
                0 => executor.block_on(self.truncate(&open[which]))?,
                1 => executor.block_on(self.begin_again(&open[which]))?,
                2 => {
                    let again = executor.block_on(self.make_again(disk, &open[which]))?;
                    open[which] = again;
                }
                3 => executor.block_on(self.maintain(&open[which]))?,
                _ => {}
            }
        }
        if self.draw(2) == 0 {
            executor.block_on(close(&open))?;
        }
        Ok(())
    }

    async fn truncate(&self, partition: &Partition) {
        let offsets = partition.log.offsets();
        let to = offsets.start.get() + self.draw((offsets.end.get() - offsets.start.get()) as usize + 1) as u64;
        let history = &partition.place.history;
        history.borrow_mut().drop_begins(to.saturating_sub(RECORDS_MAX as u64));
        partition.log.truncate(Offset::new(to)).await.expect("the disk works");
        history.borrow_mut().dropped(partition.log.offsets().end.get());
    }

    /// The log goes on where it ends, without anything.
    async fn begin_again(&self, partition: &Partition) {
        let end = partition.log.offsets().end;
        let history = &partition.place.history;
        history.borrow_mut().start_asked(end.get());
        partition.log.begin_again_at(end).await.expect("the disk works");
        history.borrow_mut().start_moved(end.get());
    }

    async fn maintain(&self, partition: &Partition) {
        let before = partition.log.offsets().durable;
        partition.place.history.borrow_mut().start_asked(before.get());
        let later = Timestamp::new(NOON + 60_000 * self.draw(2) as i64);
        partition.log.maintain(later).await.expect("the disk works");
        if self.draw(2) == 0 {
            let start = partition.log.delete_records(before).await.expect("the disk works");
            partition.place.history.borrow_mut().start_moved(start.get());
        }
    }

    /// The partition goes from this broker, and comes back empty.
    async fn make_again(&self, disk: &SimDisk, partition: &Partition) -> Rc<Partition> {
        let place = &partition.place;
        let mut history = History::default();
        history.skip_ids(place.history.borrow().ids());
        place.history.borrow_mut().drop_begins(0);
        place.history.borrow_mut().start_asked(u64::MAX);
        partition.log.retire().await;
        // What is left of it is nobody's, whatever happens next.
        let gone = place.directory.with_extension("gone");
        disk.rename(&place.directory, &gone).await.expect("the disk works");
        disk.remove_dir_all(&gone).await.expect("the disk works");
        *place.history.borrow_mut() = history;
        let log = open_log(
            disk,
            place,
            &self.config,
            &TailMemory::new(64 << 10),
            &partition.journal,
        )
        .await;
        place.history.borrow_mut().check_recovered(&log).await;
        Rc::new(Partition {
            place: Rc::clone(place),
            log,
            journal: Rc::clone(&partition.journal),
        })
    }
}

async fn open_log(
    disk: &SimDisk,
    place: &Place,
    config: &LogConfig,
    tail: &Rc<TailMemory>,
    journal: &Rc<SimJournal>,
) -> Rc<SimLog> {
    disk.create_dir(&place.directory).await.expect("the disk works");
    let entries = disk.list(&place.directory).await.expect("the disk works");
    let claimed = place.owner.claim(disk, &place.directory, &entries).await;
    claimed.expect("it is its own");
    let journal = Some((Rc::clone(journal), place.owner));
    let directory = place.directory.clone();
    let opened = Log::open_with(disk.clone(), directory, config.clone(), Rc::clone(tail), journal).await;
    Rc::new(opened.expect("it can be recovered").0)
}

async fn produce(executor: SimExecutor, partition: Rc<Partition>, rng: Rc<RefCell<StdRng>>) {
    let draw = |most: usize| rng.borrow_mut().random_range(0..most);
    for _ in 0..draw(4) {
        let size = [20, 20, 20, 200, 2000][draw(5)];
        let history = &partition.place.history;
        let records: Vec<Record> = (0..=draw(RECORDS_MAX))
            .map(|_| Record::new(history.borrow_mut().new_id(), size))
            .collect();
        let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
        let appended = partition.log.append(&batch(&records), Timestamp::new(NOON));
        let Ok(appended) = appended else { continue };
        history.borrow_mut().appended(appended.base_offset.get(), &ids);
        let place = Rc::clone(&partition.place);
        executor.spawn(async move {
            appended.durable.await.expect("the disk works");
            place.history.borrow_mut().acknowledged(&ids);
        });
        if draw(3) > 0 {
            partition.log.flush().await.expect("the disk works");
        }
    }
    partition.log.flush().await.expect("the disk works");
}

async fn file(open: Vec<Rc<Partition>>, times: usize) {
    for _ in 0..times {
        for partition in &open {
            if let Some(due) = partition.journal.due_now() {
                let whose = open.iter().find(|partition| partition.place.owner == due.owner);
                whose.expect("it is open").log.file().await.expect("the disk works");
            }
        }
        turn().await;
    }
}

async fn close(open: &[Rc<Partition>]) {
    for partition in open {
        partition.log.close().await.expect("the disk works");
    }
    for partition in open {
        partition.journal.close().await.expect("the disk works");
    }
}

/// From the beginning over a stop at operation `crash_at` to a third life.
fn stopped_at(seed: u64, crash_at: u64) -> Result<(), Halt> {
    let world = World::new(seed);
    let mut disk = SimDisk::new(seed);
    disk.crash_at(crash_at);
    let first = world.live(&disk, seed, 3);
    *world.rng.borrow_mut() = StdRng::seed_from_u64(seed ^ crash_at << 32);
    for life in 1..=3_u64 {
        disk = match world.draw(4) {
            0 => disk.kill(),
            1 => disk.certain_image(seed + life),
            _ => disk.crash(seed ^ life << 40 ^ crash_at << 20),
        };
        if life < 3 {
            disk.crash_at(disk.changes() + world.draw(60) as u64);
        }
        match world.live(&disk, seed ^ life, 1) {
            Ok(()) | Err(Halt::Crashed) => {}
            Err(Halt::Deadlock) => return Err(Halt::Deadlock),
        }
    }
    first
}

#[test]
fn partitions_have_what_was_acknowledged_on_any_number_of_cores() {
    let name = "partitions_have_what_was_acknowledged_on_any_number_of_cores";
    for_each_seed(name, 6, |seed| {
        for change in 0.. {
            match stopped_at(seed, change) {
                Err(Halt::Crashed) => {}
                Err(Halt::Deadlock) => panic!("deadlock, stopped at operation {change}"),
                Ok(()) => break,
            }
        }
    });
}
