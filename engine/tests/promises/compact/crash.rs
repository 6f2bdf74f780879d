//! A log that is written, read, maintained and compacted at the same time, over crashes at every operation that changes the disk.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
};

use headwater_engine::{
    CompactionConfig, LogConfig,
    disk::{Halt, SimDisk, SimExecutor},
};
use headwater_protocol::{
    batch::Compression,
    id::{Offset, Timestamp},
};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::model::{Keyed, Model, batch_of, config, consume, open, read_all, sequenced, turn};
use crate::support::{NOON, SimLog, append_durably, for_each_seed};

/// What one seed decides before anything runs.
struct Plan {
    config: LogConfig,
    keys: u64,
    map_bytes: usize,
    deletes_records: bool,
}

impl Plan {
    fn new(rng: &mut StdRng) -> Plan {
        let mut pick = |choices: &[u64]| choices[rng.random_range(0..choices.len())];
        let compaction = CompactionConfig {
            dirty_ratio_min: pick(&[0, 0, 30]) as f64 / 100.0,
            lag_ms_min: pick(&[0, 0, 20_000]),
            lag_ms_max: Some(pick(&[0, 40_000])).filter(|ms| *ms > 0),
            delete_retention_ms: pick(&[0, 30_000, 1 << 40]),
        };
        let config = LogConfig {
            segment_size_bytes: pick(&[3 << 10, 6 << 10, 20 << 10]),
            segment_age_ms: pick(&[10_000, 60_000]),
            compaction: Some(compaction),
            ..config()
        };
        Plan {
            config,
            keys: pick(&[1, 5, 40]),
            map_bytes: pick(&[0, 100, 1 << 20]) as usize,
            deletes_records: pick(&[0, 1, 1]) == 0,
        }
    }
}

/// A log over all its lives.
struct World {
    plan: Plan,
    rng: RefCell<StdRng>,
    model: RefCell<Model>,
    clock: Cell<i64>,
    ids: Cell<u64>,
    replaced: Cell<u64>,
    removed: Cell<u64>,
}

impl World {
    fn new(seed: u64) -> Rc<World> {
        let mut rng = StdRng::seed_from_u64(seed);
        let plan = Plan::new(&mut rng);
        let delete_retention_ms = plan.config.compaction.unwrap().delete_retention_ms as i64;
        Rc::new(World {
            plan,
            rng: RefCell::new(rng),
            model: RefCell::new(Model::new(delete_retention_ms)),
            clock: Cell::new(NOON),
            ids: Cell::default(),
            replaced: Cell::default(),
            removed: Cell::default(),
        })
    }

    fn draw(&self, most: u64) -> u64 {
        self.rng.borrow_mut().random_range(0..most)
    }

    fn now(&self) -> Timestamp {
        Timestamp::new(self.clock.get())
    }

    fn records(&self) -> Vec<Keyed> {
        let record = |_| {
            let (key, id) = (self.draw(self.plan.keys), self.ids.get());
            self.ids.set(id + 1);
            match self.draw(4) {
                0 => Keyed::tombstone(key, self.clock.get()),
                _ => Keyed::new(key, id, self.clock.get()),
            }
        };
        (0..=self.draw(5)).map(record).collect()
    }

    async fn produce(self: Rc<Self>, log: Rc<SimLog>) {
        for _ in 0..self.draw(6) {
            let records = self.records();
            let size = [10, 300, 1200][self.draw(3) as usize];
            let compression = Compression::ALL[self.draw(10).saturating_sub(5) as usize];
            let payload = batch_of(&records, size, compression);
            let Ok(appended) = log.append(&payload, self.now()) else {
                continue; // More than a segment holds.
            };
            self.model.borrow_mut().appended(appended.base_offset.get(), &records);
            log.flush().await.expect("the disk works");
            appended.durable.await.expect("the disk works");
            self.model.borrow_mut().acknowledged(appended.next_offset.get());
        }
    }

    async fn maintain(self: Rc<Self>, log: Rc<SimLog>) {
        for _ in 0..self.draw(3) {
            self.clock.set(self.clock.get() + self.draw(20_000) as i64);
            log.maintain(self.now()).await.expect("the disk works");
        }
    }

    async fn compact(self: Rc<Self>, log: Rc<SimLog>) {
        let pace = async |_| {
            if self.draw(3) == 0 {
                turn().await;
            }
        };
        let report = log
            .compact(self.now(), self.plan.map_bytes, pace)
            .await
            .expect("the disk works");
        assert!(report.removed_records <= report.records && report.written_bytes <= 2 * report.read_bytes);
        self.replaced.set(self.replaced.get() + report.replaced_segments);
        self.removed.set(self.removed.get() + report.removed_records);
    }

    async fn consume(self: Rc<Self>, log: Rc<SimLog>) {
        let offsets = log.offsets();
        let from = offsets.start.get() + self.draw(offsets.end.get() - offsets.start.get() + 1);
        let to = offsets.durable.get();
        let seen = consume(&log, from, 200 + self.draw(5000)).await;
        let from = from.max(log.offsets().start.get());
        self.model.borrow().check(&seen, from, to, self.clock.get());
    }

    async fn delete_records(self: Rc<Self>, log: Rc<SimLog>) {
        let offsets = log.offsets();
        let before = offsets.start.get() + self.draw((offsets.durable.get() - offsets.start.get()) / 2 + 1);
        {
            let model = &mut *self.model.borrow_mut();
            model.start_possible = model.start_possible.max(before);
        }
        let start = log.delete_records(Offset::new(before)).await.expect("the disk works");
        let model = &mut *self.model.borrow_mut();
        model.start = model.start.max(start.get());
    }

    /// Opens the log, checks what is in it, and lives on with it.
    fn live(self: &Rc<Self>, disk: &SimDisk, seed: u64, rounds: u64) -> Result<(), Halt> {
        let executor = SimExecutor::new(disk, seed);
        let log = executor.block_on(async {
            let log = open(disk, &self.plan.config).await;
            let offsets = log.offsets();
            self.model
                .borrow_mut()
                .recovered(offsets.start.get(), offsets.end.get());
            let seen = read_all(&log).await;
            let (start, end) = (offsets.start.get(), offsets.end.get());
            self.model.borrow().check(&seen, start, end, self.clock.get());
            log
        })?;
        for _ in 0..rounds {
            executor.spawn(Rc::clone(self).produce(Rc::clone(&log)));
            executor.spawn(Rc::clone(self).maintain(Rc::clone(&log)));
            executor.spawn(Rc::clone(self).compact(Rc::clone(&log)));
            executor.spawn(Rc::clone(self).consume(Rc::clone(&log)));
            if self.plan.deletes_records && self.draw(3) == 0 {
                executor.spawn(Rc::clone(self).delete_records(Rc::clone(&log)));
            }
            executor.run()?;
        }
        Ok(())
    }

    /// Everything is sealed and compacted: only the last record of each key is left of it.
    fn settle(self: &Rc<Self>, disk: &SimDisk, seed: u64) {
        let settled = SimExecutor::new(disk, seed).block_on(async {
            let log = open(disk, &self.plan.config).await;
            // The age of a segment counts from the first look; then it is rolled, tombstones get their horizon, and are dropped.
            for _ in 0..3 {
                self.clock.set(self.clock.get() + 70_000);
                log.maintain(self.now()).await.unwrap();
                Rc::clone(self).compact(Rc::clone(&log)).await;
            }
            let offsets = log.offsets();
            let seen = read_all(&log).await;
            let model = self.model.borrow();
            let (start, end) = (offsets.start.get(), offsets.end.get());
            model.check(&seen, start, end, self.clock.get());
            let last = model.last(start, end);
            let is_last = |found: &&super::model::Found| last[&found.record.key].0 == found.offset;
            let kept = seen.iter().filter(is_last).count();
            if self.plan.config.compaction.unwrap().dirty_ratio_min == 0.0 {
                // A segment that also holds records below the log start offset is not cleaned of those, which nobody sees.
                assert_eq!(kept, seen.len(), "superseded records are left");
                let tombstones = seen.iter().filter(|found| found.record.id.is_none()).count();
                assert!(
                    tombstones == 0 || model.delete_retention_ms > 70_000,
                    "{tombstones} tombstones are left"
                );
            }
            assert_eq!(
                log.compact(self.now(), self.plan.map_bytes, async |_| ())
                    .await
                    .unwrap()
                    .written_bytes,
                0
            );
        });
        settled.expect("nothing stops the machine");
    }
}

/// A log over a crash at this operation, and two more at random ones. Returns whether its first life was over before.
fn crashed_at(seed: u64, crash_at: u64, rounds: u64) -> (Rc<World>, bool) {
    let world = World::new(seed);
    let mut disk = SimDisk::new(seed);
    disk.crash_at(crash_at);
    let first = world.live(&disk, seed, rounds);
    assert_ne!(first, Err(Halt::Deadlock));
    *world.rng.borrow_mut() = StdRng::seed_from_u64(seed ^ crash_at << 32);
    for _ in 0..2 {
        let seed = world.draw(u64::MAX);
        disk = match world.draw(4) {
            0 => disk.kill(),
            1 => disk.certain_image(seed),
            _ => disk.crash(seed),
        };
        disk.crash_at(disk.changes() + world.draw(40));
        let again = world.live(&disk, seed, 1);
        assert_ne!(again, Err(Halt::Deadlock));
    }
    disk = disk.crash(world.draw(u64::MAX));
    world.settle(&disk, seed);
    (world, first.is_ok())
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
fn compaction_equals_the_model_over_a_crash_at_every_operation() {
    let (replaced, removed, crashes) = (Cell::new(0), Cell::new(0), Cell::new(0));
    for_each_seed(
        "compaction_equals_the_model_over_a_crash_at_every_operation",
        16,
        |seed| {
            for change in 0.. {
                let _at = At(change);
                let (world, is_over) = crashed_at(seed, change, 5);
                replaced.set(replaced.get() + world.replaced.get());
                removed.set(removed.get() + world.removed.get());
                crashes.set(crashes.get() + 1);
                if is_over {
                    break;
                }
            }
        },
    );
    let (replaced, removed, crashes) = (replaced.get(), removed.get(), crashes.get());
    assert!(
        replaced > crashes && removed > crashes,
        "{replaced} segments, {removed} records in {crashes}"
    );
}

#[test]
fn compaction_equals_the_model_under_random_writes_deletes_and_readers() {
    let name = "compaction_equals_the_model_under_random_writes_deletes_and_readers";
    let removed = Cell::new(0);
    for_each_seed(name, 150, |seed| {
        let world = World::new(seed);
        let disk = SimDisk::new(seed);
        world.live(&disk, seed, 25).unwrap();
        world.settle(&disk, seed);
        removed.set(removed.get() + world.removed.get());
    });
    assert!(removed.get() > 0);
}

#[test]
fn a_crash_while_compacting_costs_neither_the_checkpoint_nor_what_only_that_knows() {
    let one = |id| [Keyed::new(1, id, NOON)];
    for change in 0.. {
        let _at = At(change);
        let disk = SimDisk::new(change);
        let executor = SimExecutor::new(&disk, change);
        let log = executor.block_on(async {
            let log = open(&disk, &config()).await;
            for sequence in 0..4 {
                append_durably(&log, &sequenced(&one(sequence as u64), 300, 7, sequence)).await;
            }
            log.delete_records(Offset::new(2)).await.unwrap();
            // From here on the checkpoint knows nothing of what comes, not even of the end of the first segment.
            for sequence in 4..40 {
                append_durably(&log, &sequenced(&one(sequence as u64), 300, 7, sequence)).await;
            }
            log
        });
        let log = log.unwrap();
        disk.crash_at(disk.changes() + change);
        let compacted = executor.block_on(log.compact(Timestamp::new(NOON), 1 << 20, async |_| ()));
        let image = if change % 2 == 0 {
            disk.crash(change)
        } else {
            disk.certain_image(change)
        };
        let reopened = SimExecutor::new(&image, change).block_on(async {
            let (log, recovery) = crate::support::open(&image, &config()).await.unwrap();
            assert_eq!((recovery.checkpoint_damage, recovery.cut), (None, None));
            assert_eq!(
                (log.offsets().start, log.offsets().end),
                (Offset::new(2), Offset::new(40))
            );
            // Compacted away or not: sent again, it is known.
            let again = log
                .append(&sequenced(&one(1), 300, 7, 1), Timestamp::new(NOON))
                .unwrap();
            assert!(again.duplicate && again.base_offset == Offset::new(1), "{again:?}");
        });
        reopened.unwrap();
        if compacted.is_ok() {
            assert!(change > 10, "{change} operations are no compaction");
            break;
        }
    }
}
