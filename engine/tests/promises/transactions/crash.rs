//! A log with transactions is stopped at every operation of its disk: what it then knows of them is what its batches tell, and
//! nothing that was acknowledged is missing.

use headwater_engine::disk::{Halt, SimDisk, SimExecutor};
use rand::{SeedableRng as _, rngs::StdRng};

use super::{life::Life, model::plan};
use crate::support::{directory, for_each_seed};

/// Steps of one life.
const STEPS: usize = 30;

/// Side files and checkpoints that may be lost with the machine.
const LOSABLE: [&str; 4] = ["checkpoint", "txnindex", "index", "timeindex"];

fn live(life: &mut Life, disk: &SimDisk, seed: u64) -> Result<(), Halt> {
    let executor = SimExecutor::new(disk, seed);
    let least = life.durable;
    let mut open = executor.block_on(life.open(disk))?;
    let end = open.log.offsets().end.get();
    assert!(end >= least, "it ends at {end}, {least} was durable");
    for _ in 0..STEPS {
        executor.block_on(life.step(&mut open))?;
    }
    Ok(())
}

/// Removes some side files.
fn lose(life: &mut Life, disk: &SimDisk, seed: u64) {
    use headwater_engine::disk::Directory as _;
    let lost = LOSABLE[life.draw(4) as usize];
    let executor = SimExecutor::new(disk, seed);
    let remove = async {
        for entry in disk.list(&directory()).await.unwrap_or_default() {
            if entry.name.ends_with(lost) {
                disk.remove_file(&directory().join(&entry.name)).await.unwrap();
            }
        }
    };
    executor.block_on(remove).unwrap();
}

/// Three lives, of which the first ends at this operation. `Ok` if it came to its end before.
fn stopped_at(seed: u64, change: u64) -> Result<(), Halt> {
    let mut rng = StdRng::seed_from_u64(seed);
    let plan = plan(&mut rng);
    let mut life = Life::new(plan, rng);
    let mut disk = SimDisk::new(seed);
    disk.crash_at(change);
    let first = live(&mut life, &disk, seed);
    life.rng = StdRng::seed_from_u64(seed ^ change << 32);
    for generation in 0..2 {
        let seed = life.draw(u64::MAX);
        disk = match life.draw(4) {
            0 => disk.kill(),
            1 => disk.certain_image(seed),
            _ => disk.crash(seed),
        };
        if life.draw(3) == 0 && life.plan.journal.is_none() {
            lose(&mut life, &disk, seed);
        }
        if generation == 0 {
            disk.crash_at(disk.changes() + life.draw(60));
        }
        match live(&mut life, &disk, seed) {
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
fn transactions_survive_a_crash_at_every_operation() {
    let name = "transactions_survive_a_crash_at_every_operation";
    for_each_seed(name, 20, |seed| {
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
