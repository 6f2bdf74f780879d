//! Upkeep of the partitions of one core: checkpoints, retention and sealing, one partition after the other.

use std::{rc::Rc, time::Duration};

use futures::{StreamExt as _, stream};

use super::{partitions::Partitions, served::Partition};
use crate::{
    core::{Core, warn_seldom},
    machine::{self, Daemons},
    metrics::Failure,
};

/// Partitions whose segments are sealed at the same time.
const SEALED_AT_ONCE: usize = 4;

/// How often there is a look at who has waited for replicas for too long.
const EXPIRE_EVERY: Duration = Duration::from_millis(500);

/// Starts all of it.
pub(super) fn start(partitions: &Rc<Partitions>, daemons: &Daemons) {
    let log = &partitions.core.config.log;
    let upkeep = [
        (Upkeep::Checkpoint, log.checkpoint_interval_ms),
        (Upkeep::Retention, log.retention_check_interval_ms),
    ];
    for (what, interval) in upkeep {
        let interval = Duration::from_millis(interval.get());
        daemons.spawn_background(maintain(Rc::clone(partitions), what, interval));
    }
    daemons.spawn_background(maintain_early(Rc::clone(partitions)));
    daemons.spawn_background(seal_rolled(Rc::clone(partitions)));
    if partitions.assignment().is_some() {
        daemons.spawn(expire_acknowledgements(Rc::clone(partitions)));
    }
}

async fn expire_acknowledgements(partitions: Rc<Partitions>) {
    loop {
        machine::sleep(EXPIRE_EVERY).await;
        for partition in partitions.online() {
            partition.expire();
        }
    }
}

/// What is done to every partition now and then, each at an interval of its own.
#[derive(Debug, Clone, Copy)]
enum Upkeep {
    Checkpoint,
    Retention,
    Sealing,
}

/// One partition after the other.
async fn maintain(partitions: Rc<Partitions>, what: Upkeep, interval: Duration) {
    loop {
        machine::sleep(interval).await;
        for partition in partitions.online() {
            if partitions.core.is_stopping() {
                return;
            }
            maintain_one(&partitions.core, &partition, what).await;
        }
    }
}

async fn maintain_one(core: &Core, partition: &Partition, what: Upkeep) {
    let _working = core.working();
    let now = machine::moment();
    let done = match what {
        Upkeep::Checkpoint => {
            partition.unscanned.clear();
            partition.log.checkpoint(now).await
        }
        Upkeep::Retention => partition.log.retain(now).await,
        Upkeep::Sealing => partition.log.seal_rolled().await,
    };
    if let Err(error) = done {
        let directory = partition.log.directory().display();
        core.metrics.failed(match what {
            Upkeep::Checkpoint => {
                warn_seldom!(%directory, %error, "a checkpoint was not written; it is tried again");
                Failure::Checkpoint
            }
            Upkeep::Retention => {
                warn_seldom!(%directory, %error, "retention has failed; it is tried again");
                Failure::Retention
            }
            Upkeep::Sealing => {
                warn_seldom!(%directory, %error, "a segment was not sealed; it is tried again");
                Failure::Sealing
            }
        });
    }
    machine::yield_now().await;
}

/// Seals segments as they are rolled: those that are not are work for the stop, and too many keep producers waiting.
async fn seal_rolled(partitions: Rc<Partitions>) {
    loop {
        let more = partitions.core.memory.unsealed.came();
        let due = partitions
            .online()
            .into_iter()
            .filter(|partition| partition.log.take_unsealed());
        let sealing = due.map(|partition| {
            let core = Rc::clone(&partitions.core);
            async move { maintain_one(&core, &partition, Upkeep::Sealing).await }
        });
        stream::iter(sealing)
            .buffer_unordered(SEALED_AT_ONCE)
            .collect::<()>()
            .await;
        more.await;
    }
}

/// What does not wait for its interval: retention where a segment was filled, as what it deletes is the file of the next segment,
/// and where less is to be kept, which may be to make room on a full disk; and a checkpoint where so much was written that recovery
/// would take long, which bounds it however many partitions there are.
async fn maintain_early(partitions: Rc<Partitions>) {
    loop {
        let needed = partitions.core.needed_early();
        for partition in partitions.online() {
            if partitions.core.is_stopping() {
                return;
            }
            if partition.retains_early.take() {
                maintain_one(&partitions.core, &partition, Upkeep::Retention).await;
            }
            if partition
                .unscanned
                .is_due(partitions.core.config.log.checkpoint_bytes_max.bytes())
            {
                maintain_one(&partitions.core, &partition, Upkeep::Checkpoint).await;
            }
        }
        needed.await;
    }
}
