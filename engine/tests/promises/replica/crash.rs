//! A follower's log is stopped at every operation of its disk: what was durable is there, what was truncated is gone once that was
//! answered, and what is there is a beginning of what was appended, with the right epochs and producers.

use std::rc::Rc;

use headwater_engine::{
    LogConfig, TailMemory,
    disk::{Halt, SimDisk, SimExecutor},
};
use headwater_protocol::{
    batch::stamp,
    id::{LeaderEpoch, Offset, Timestamp},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::naive::Naive;
use crate::support::{NOON, SimLog, for_each_seed, open_with, small_config};

const NOW: Timestamp = Timestamp::new(NOON);

/// Steps of one life.
const STEPS: usize = 14;

/// What is being done to the log when it stops.
#[derive(Debug, Clone)]
enum Doing {
    Nothing,
    /// This and what follows may be there or not: the naive log before and after.
    Changing(Naive),
    /// The log begins again, and is then as it was or this.
    BeginningAgain(Naive),
}

struct Life {
    rng: StdRng,
    config: LogConfig,
    naive: Naive,
    doing: Doing,
    next_id: u64,
    epoch: i32,
}

impl Life {
    fn draw(&mut self, most: u64) -> u64 {
        self.rng.random_range(0..most.max(1))
    }

    /// Batches of a leader; all of a size in most lives, so that later ones end where dropped ones began.
    fn append(&mut self, log: &SimLog) {
        self.epoch += i32::from(self.draw(4) == 0);
        let mut payload = Vec::new();
        let mut leader = self.naive.clone();
        for _ in 0..=self.draw(3) {
            let rng = &mut self.rng;
            let mut batch = leader.make(&mut self.next_id, |most| rng.random_range(0..most));
            let room = log.holes_below().get().saturating_sub(leader.end);
            let base = leader.end + self.draw(room.min(4));
            stamp(&mut batch, Offset::new(base), LeaderEpoch::new(self.epoch));
            leader.append_replica(&batch);
            payload.extend_from_slice(&batch);
        }
        let _ticket = log.append_replica(&payload, NOW).unwrap();
        self.naive = leader;
    }

    async fn step(&mut self, log: &SimLog) {
        match self.draw(12) {
            0..5 => {
                self.append(log);
                log.flush().await.unwrap();
                self.naive.flush();
            }
            5 => self.append(log),
            6 | 7 => {
                let mut after = self.naive.clone();
                let to = self.rng.random_range(after.start..=after.end);
                after.truncate(to);
                self.doing = Doing::Changing(after.clone());
                log.truncate(Offset::new(to)).await.unwrap();
                self.naive = after;
            }
            8 => {
                let mut after = self.naive.clone();
                after.begin_again_at(self.rng.random_range(0..after.end + 40));
                self.doing = Doing::BeginningAgain(after.clone());
                log.begin_again_at(Offset::new(after.start)).await.unwrap();
                self.naive = after;
            }
            9 => {
                let mut after = self.naive.clone();
                after.start = self.rng.random_range(after.start..=after.durable);
                self.doing = Doing::Changing(after.clone());
                log.delete_records(Offset::new(after.start)).await.unwrap();
                self.naive = after;
            }
            10 => log.expect_holes_below(Offset::new(self.naive.end + 20)).await.unwrap(),
            _ => log.maintain(NOW).await.unwrap(),
        }
        self.doing = Doing::Nothing;
        self.naive.check_offsets(log);
    }

    /// Lives on this disk until the end, or until the machine stops.
    fn live(&mut self, disk: &SimDisk, seed: u64) -> Result<(), Halt> {
        let executor = SimExecutor::new(disk, seed);
        let memory = TailMemory::new(16 << 10);
        let log = executor.block_on(open_with(disk, &self.config, &memory))?;
        let (log, _) = log.expect("it can be recovered");
        executor.block_on(self.recovered(disk, &log))?;
        for _ in 0..STEPS {
            executor.block_on(self.step(&log))?;
        }
        executor.block_on(log.close())?.unwrap();
        self.naive.flush();
        Ok(())
    }

    /// Compares what is there with what may be there, and goes on from it.
    async fn recovered(&mut self, disk: &SimDisk, log: &Rc<SimLog>) {
        let (start, end) = (log.offsets().start.get(), log.offsets().end.get());
        let before = self.naive.clone();
        let (least, after) = match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => (before.durable, before.clone()),
            Doing::Changing(after) => (before.durable.min(after.durable), after),
            Doing::BeginningAgain(after) => {
                // Its end alone may be that of the old one, too.
                if (start, end) == (after.start, after.end) && log.latest_epoch().is_none() {
                    self.naive = after;
                    return self.naive.check_all(disk, log).await;
                }
                (before.durable, before.clone())
            }
        };
        assert!(
            (least..=before.end).contains(&end),
            "it ends at {end}, {least} was durable"
        );
        let starts = before.start.min(after.start).min(end)..=before.start.max(after.start);
        assert!(starts.contains(&start), "it begins at {start}, not in {starts:?}");
        self.naive.cut(end);
        assert_eq!(self.naive.end, end, "it ends within a batch");
        (self.naive.start, self.naive.durable, self.naive.watermark) = (start, end, end);
        self.naive.check_all(disk, log).await;
    }
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

/// Three lives, of which the first ends at this operation. `Ok` if it came to its end before.
fn stopped_at(seed: u64, change: u64) -> Result<(), Halt> {
    let mut rng = StdRng::seed_from_u64(seed);
    let config = LogConfig {
        segment_size_bytes: [6 << 10, 30_000][rng.random_range(0..2)],
        ..small_config()
    };
    let mut life = Life {
        rng,
        config,
        naive: Naive::default(),
        doing: Doing::Nothing,
        next_id: 0,
        epoch: 0,
    };
    let mut disk = SimDisk::new(seed);
    disk.crash_at(change);
    let first = life.live(&disk, seed);
    life.rng = StdRng::seed_from_u64(seed ^ change << 32);
    for generation in 0..2 {
        let seed = life.draw(u64::MAX);
        disk = match life.draw(4) {
            0 => disk.kill(),
            1 => disk.certain_image(seed),
            _ => disk.crash(seed),
        };
        if generation == 0 {
            disk.crash_at(disk.changes() + life.draw(60));
        }
        match life.live(&disk, seed) {
            Ok(()) | Err(Halt::Crashed) => {}
            Err(Halt::Deadlock) => return Err(Halt::Deadlock),
        }
    }
    first
}

#[test]
fn a_replica_that_is_stopped_at_any_operation_is_a_beginning_of_what_it_was_told() {
    let name = "a_replica_that_is_stopped_at_any_operation_is_a_beginning_of_what_it_was_told";
    for_each_seed(name, 25, |seed| {
        for change in 0.. {
            let _at = At(change);
            match stopped_at(seed, change) {
                Err(Halt::Crashed) => {}
                Err(Halt::Deadlock) => panic!("deadlock"),
                Ok(()) => break,
            }
        }
    });
}
