//! Whatever is done to a log with transactions, it knows of them what a walk over all its batches would tell.

use headwater_engine::{JournalConfig, LogConfig, OpenTransaction, disk::SimDisk};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::life::{Life, Plan};
use crate::support::{SimLog, for_each_seed, run, small_config};

pub fn plan(rng: &mut StdRng) -> Plan {
    Plan {
        config: LogConfig {
            segment_size_bytes: [6 << 10, 10 << 10, 40 << 10][rng.random_range(0..3)],
            ..small_config()
        },
        memory: [8 << 10, 16 << 20][rng.random_range(0..2)],
        journal: (rng.random_range(0..3) == 0).then_some(JournalConfig {
            size_bytes: 64 << 10,
            batch_bytes_max: 1 << 20,
        }),
        is_held: rng.random_range(0..2) == 0,
        follows: rng.random_range(0..3) == 0,
    }
}

/// What is open. The coordinator whose marker was cut off is remembered until the log is opened again, and refuses no later one meanwhile.
fn listed(log: &SimLog) -> Vec<OpenTransaction> {
    let unknown = |open| OpenTransaction {
        coordinator_epoch: -1,
        ..open
    };
    log.open_transactions().into_iter().map(unknown).collect()
}

#[test]
fn a_log_knows_of_transactions_what_its_batches_tell() {
    let name = "a_log_knows_of_transactions_what_its_batches_tell";
    for_each_seed(name, 120, |seed| {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let mut rng = StdRng::seed_from_u64(seed);
            let plan = plan(&mut rng);
            let mut life = Life::new(plan, rng);
            for _ in 0..4 {
                let mut open = life.open(&disk).await;
                for _ in 0..40 {
                    life.step(&mut open).await;
                }
                let end = open.log.offsets().end.get();
                let open_then = listed(&open.log);
                open.log.close().await.unwrap();
                let again = life.open(&disk).await;
                assert_eq!(again.log.offsets().end.get(), end);
                assert_eq!(listed(&again.log), open_then, "after it was opened again");
            }
        });
    });
}
