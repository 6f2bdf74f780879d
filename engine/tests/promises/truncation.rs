//! Fetches and look-ups beside truncations get what was in the log at one moment, or a typed answer, and leave nothing behind
//! that later ones trip over.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

use futures::{future::join, future::join_all};
use headwater_engine::{
    ColdMemory, FetchError, LogConfig, LogError, Memory, TailMemory, Ticket,
    disk::{Directory as _, Fault, OpKind, REGION_SIZE, SimDisk, SimExecutor},
};
use headwater_protocol::id::{Offset, Timestamp};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::support::{
    NOON, Record, SimLog, Stored, append_durably, batch, directory, fetch, for_each_seed, ids, open, open_in, read_all,
    run, small_config, try_fetch,
};

const NOW: Timestamp = Timestamp::new(NOON);

/// How often each task does what it does.
const ROUNDS: usize = 12;

/// When a record was in the log, in steps of the model.
#[derive(Debug, Clone, Copy)]
struct Life {
    born: u64,
    durable: Option<u64>,
    /// A truncation that drops it has begun.
    is_dying: bool,
    died: Option<u64>,
}

/// What the log should hold, and has held.
#[derive(Debug, Default)]
struct Model {
    steps: Cell<u64>,
    /// By offset and id.
    lives: RefCell<BTreeMap<(u64, u64), Life>>,
    next_id: Cell<u64>,
}

impl Model {
    fn step(&self) -> u64 {
        self.steps.set(self.steps.get() + 1);
        self.steps.get()
    }

    /// Appends one record, with a timestamp of its own, in a batch of its own.
    fn append(&self, log: &SimLog, size: usize) -> (u64, u64, Ticket) {
        let id = self.next_id.replace(self.next_id.get() + 1);
        let record = Record {
            timestamp: time_of(id),
            ..Record::new(id, size)
        };
        let appended = log.append(&batch(&[record]), NOW).unwrap();
        let offset = appended.base_offset.get();
        let life = Life {
            born: self.step(),
            durable: None,
            is_dying: false,
            died: None,
        };
        self.lives.borrow_mut().insert((offset, id), life);
        (offset, id, appended.durable)
    }

    async fn settle(&self, tickets: Vec<(u64, u64, Ticket)>) {
        for (offset, id, ticket) in tickets {
            let outcome = ticket.await;
            let step = self.step();
            let mut lives = self.lives.borrow_mut();
            let life = lives.get_mut(&(offset, id)).unwrap();
            match outcome {
                Ok(()) => life.durable = Some(step),
                Err(LogError::Truncated) => life.died = Some(step),
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// A truncation to `to` begins.
    fn truncating(&self, to: u64) {
        for (_, life) in self.lives.borrow_mut().range_mut((to, 0)..) {
            life.is_dying = true;
        }
    }

    /// It has ended.
    fn truncated(&self) {
        let step = self.step();
        for life in self.lives.borrow_mut().values_mut() {
            if life.is_dying && life.died.is_none() {
                life.died = Some(step);
            }
        }
    }

    /// What is in the log, in order.
    fn ids(&self) -> Vec<u64> {
        let lives = self.lives.borrow();
        let living = lives.iter().filter(|(_, life)| life.died.is_none());
        living.map(|((_, id), _)| *id).collect()
    }

    /// Whether all of these were in the log at one moment, since the step `began`.
    fn check(&self, records: &[Stored], began: u64) {
        let lives = self.lives.borrow();
        let of = |record: &Stored| lives[&(record.offset, record.id)];
        let born = records.iter().map(|record| of(record).born).max();
        let died = records.iter().filter_map(|record| of(record).died).min();
        assert!(
            died.is_none_or(|died| died >= began && born.is_some_and(|born| born < died)),
            "never in the log together since {began}: {records:?}"
        );
    }

    /// Whether something durable that fits was there all the time since the step `began`.
    fn was_there(&self, began: u64, fits: impl Fn(u64, u64) -> bool) -> bool {
        let lives = self.lives.borrow();
        lives.iter().any(|((offset, id), life)| {
            fits(*offset, *id) && !life.is_dying && life.durable.is_some_and(|durable| durable < began)
        })
    }
}

fn time_of(id: u64) -> i64 {
    NOON + id.cast_signed()
}

/// What the tasks of one run share.
struct Setting {
    disk: SimDisk,
    log: Rc<SimLog>,
    model: Model,
    /// Fetches that were answered with records.
    served: Cell<u64>,
}

impl Setting {
    /// Lets others run.
    async fn pause(&self) {
        self.disk.list(&directory()).await.unwrap();
    }

    fn append(&self, rng: &mut StdRng, count: u64) -> Vec<(u64, u64, Ticket)> {
        let append = |_| self.model.append(&self.log, rng.random_range(100..4000));
        (0..count).map(append).collect()
    }

    async fn write(&self, mut rng: StdRng) {
        for _ in 0..ROUNDS {
            let count = rng.random_range(1..10);
            let appended = self.append(&mut rng, count);
            self.log.flush().await.unwrap();
            self.model.settle(appended).await;
            if rng.random_bool(0.6) {
                let to = rng.random_range(0..=self.log.offsets().end.get());
                self.model.truncating(to);
                let truncating = self.log.truncate(Offset::new(to));
                let appending = async {
                    self.pause().await;
                    self.append(&mut rng, 3)
                };
                let (truncated, appended) = join(truncating, appending).await;
                truncated.unwrap();
                self.model.truncated();
                self.log.flush().await.unwrap();
                self.model.settle(appended).await;
            }
        }
    }

    async fn upkeep(&self) {
        for _ in 0..ROUNDS {
            self.log.checkpoint(NOW).await.unwrap();
            self.pause().await;
        }
    }

    async fn fetch(&self, mut rng: StdRng) {
        for _ in 0..2 * ROUNDS {
            let (began, offset) = (self.model.step(), rng.random_range(0..=self.log.offsets().end.get()));
            let found = try_fetch(&self.log, offset, rng.random_range(0..12_000)).await;
            match found {
                Ok(records) if !records.is_empty() => {
                    self.model.check(&records, began);
                    self.served.set(self.served.get() + 1);
                }
                Ok(_) | Err(FetchError::OutOfRange { .. }) => {
                    assert!(
                        !self.model.was_there(began, |at, _| at == offset),
                        "offset {offset}: {found:?}"
                    );
                }
                Err(FetchError::Log(LogError::Truncated)) => {}
                Err(error) => panic!("offset {offset}: {error}"),
            }
            self.pause().await;
        }
    }

    async fn look_up(&self, mut rng: StdRng) {
        for _ in 0..ROUNDS {
            let (began, id) = (self.model.step(), rng.random_range(0..=self.model.next_id.get()));
            match self.log.offset_for_timestamp(Timestamp::new(time_of(id))).await {
                Ok(Some((offset, time))) => {
                    let found = (time.get() - NOON).cast_unsigned();
                    assert!(found >= id);
                    let record = Stored {
                        offset: offset.get(),
                        id: found,
                        timestamp: time.get(),
                    };
                    self.model.check(&[record], began);
                }
                Ok(None) => assert!(
                    !self.model.was_there(began, |_, there| there >= id),
                    "no record is as late as {id}"
                ),
                Err(error) => panic!("as late as {id}: {error}"),
            }
            self.pause().await;
        }
    }

    /// The log holds what it should, however it is looked at.
    async fn check(&self) {
        let (log, expected) = (&self.log, self.model.ids());
        assert_eq!(ids(&read_all(log).await), expected);
        for (offset, id) in expected.iter().enumerate() {
            let offset = offset as u64;
            assert_eq!(ids(&fetch(log, offset, 1).await), [*id]);
            let found = log.offset_for_timestamp(Timestamp::new(time_of(*id))).await.unwrap();
            assert_eq!(found, Some((Offset::new(offset), Timestamp::new(time_of(*id)))));
        }
    }
}

#[test]
fn what_looks_beside_truncations_sees_the_log_as_it_was_at_one_moment() {
    let name = "what_looks_beside_truncations_sees_the_log_as_it_was_at_one_moment";
    let (served, dropped) = (Cell::new(0), Cell::new(0));
    for_each_seed(name, 500, |seed| {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        // Little memory, so that much is read from the disk, by each way.
        let cold = ColdMemory::new((seed % 2) as usize * REGION_SIZE);
        let memory = Memory::new(TailMemory::new(8 << 10), cold);
        let config: LogConfig = small_config();
        let log = executor.block_on(open_in(&disk, &config, memory.clone())).unwrap();
        let setting = Rc::new(Setting {
            disk: disk.clone(),
            log: log.unwrap().0,
            model: Model::default(),
            served: Cell::default(),
        });
        let rng = move |number| StdRng::seed_from_u64(seed * 10 + number);
        let tasks = [1, 2, 3].map(|number| {
            let setting = Rc::clone(&setting);
            async move { setting.fetch(rng(number)).await }
        });
        let (writing, keeping, looking) = (Rc::clone(&setting), Rc::clone(&setting), Rc::clone(&setting));
        executor.spawn(async move { drop(join_all(tasks).await) });
        executor.spawn(async move { writing.write(rng(4)).await });
        executor.spawn(async move { keeping.upkeep().await });
        executor.spawn(async move { looking.look_up(rng(5)).await });
        executor.run().unwrap();
        executor.block_on(setting.check()).unwrap();
        let log = executor.block_on(async {
            setting.log.close().await.unwrap();
            open_in(&disk, &config, memory).await.unwrap().0
        });
        let setting = Rc::into_inner(setting).unwrap();
        served.set(served.get() + setting.served.get());
        let lives = setting.model.lives.borrow().len();
        dropped.set(dropped.get() + lives - setting.model.ids().len());
        let again = Setting {
            log: log.unwrap(),
            ..setting
        };
        executor.block_on(again.check()).unwrap();
    });
    assert!(served.get() > 0 && dropped.get() > 0, "{served:?} {dropped:?}");
}

#[test]
fn a_truncation_that_fails_half_way_brings_nothing_back_behind_later_records() {
    let mut failed = 0;
    let kinds = [OpKind::Truncate, OpKind::RemoveFile, OpKind::Open];
    for (kind, number) in kinds
        .into_iter()
        .flat_map(|kind| (0..8).map(move |number| (kind, number)))
    {
        let disk = SimDisk::new(number);
        run(&disk, number, async {
            // All batches are of one size, so that later ones end where dropped ones began.
            let record = |id| batch(&[Record::new(id, 5000)]);
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            for id in 0..20 {
                append_durably(&log, &record(id)).await;
            }
            disk.fail_nth(kind, number, Fault::InputOutput);
            let truncated = log.truncate(Offset::new(3)).await;
            failed += u64::from(truncated.is_err());
            disk.heal();
            if log.append(&record(100), NOW).is_ok() {
                log.flush().await.unwrap();
            }
            drop(log);
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            let found = ids(&read_all(&log).await);
            let later = found.iter().position(|id| *id == 100);
            assert!(
                later.is_none_or(|at| at == found.len() - 1),
                "{kind:?} {number}: {found:?}"
            );
        });
    }
    assert!(failed > 0);
}

#[test]
fn what_a_failed_truncation_has_left_is_gone_before_another_log_takes_its_place() {
    let mut failed = 0;
    let kinds = [OpKind::Truncate, OpKind::RemoveFile, OpKind::ReplaceFile];
    for (kind, number, begins_again) in kinds
        .into_iter()
        .flat_map(|kind| (0..24).map(move |number| (kind, number / 2, number % 2 == 0)))
    {
        let disk = SimDisk::new(number);
        run(&disk, number, async {
            let record = |id| batch(&[Record::new(id, 5000)]);
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            for id in 0..30 {
                append_durably(&log, &record(id)).await;
            }
            disk.fail_nth(kind, number, Fault::InputOutput);
            let dropped = if begins_again {
                log.begin_again_at(Offset::new(12)).await
            } else {
                // The end of a segment, where what comes behind it would seem to go on.
                log.truncate(Offset::new(6)).await
            };
            disk.heal();
            let is_fenced = log.is_fenced();
            failed += u64::from(dropped.is_err() && is_fenced);
            if is_fenced {
                log.give_way().await.unwrap();
            } else {
                log.flush().await.unwrap();
            }
            let offsets = log.offsets();
            drop(log);
            let (log, _) = open(&disk, &small_config()).await.unwrap();
            assert_eq!(log.offsets(), offsets, "{kind:?} {number}");
            let expected: Vec<_> = (0..offsets.end.get() - offsets.start.get()).collect();
            assert_eq!(ids(&read_all(&log).await), expected, "{kind:?} {number}");
            append_durably(&log, &record(100)).await;
            let (last, next) = (ids(&read_all(&log).await).pop(), log.offsets().end);
            assert_eq!((last, next), (Some(100), offsets.end.next()));
        });
    }
    assert!(failed > 10, "{failed}");
}
