//! Partitions whose small appends are in the core's journal and not in their segments yet: they get there when the journal says so.
//!
//! The engine decides when and which; what is done here is to ask it, for several partitions at the same time.

use std::{rc::Rc, time::Duration};

use headwater_engine::{Journal, JournalConfig, LogError, journal::Due};

use super::partitions::{Owned, Partitions};
use crate::{
    core::{Core, warn_seldom},
    machine::{self, Daemons, Disk},
    model::id::PartitionId,
};

/// Partitions that are filed at the same time, which are flushed together.
const FILED_AT_ONCE: usize = 128;

/// How long a partition that cannot be filed waits for the next attempt.
const RETRY: Duration = Duration::from_millis(500);

/// Begins the core's journal, if it is to have one. Without it, which an error says, partitions write to their segments themselves.
pub(super) async fn begin(core: &Core) -> Option<Rc<Journal<Disk>>> {
    let settings = &core.config.journal;
    if !settings.enabled {
        return None;
    }
    let config = JournalConfig {
        size_bytes: settings.size_bytes.bytes(),
        batch_bytes_max: settings.batch_bytes_max.bytes(),
    };
    let (disk, directory) = (core.disk.clone(), &core.config.log.directory);
    let tail = Rc::clone(&core.memory.tail);
    match Journal::open(disk, directory, core.id, machine::random(), config, tail).await {
        Ok(journal) => Some(journal),
        Err(error) => {
            tracing::error!(core = core.id.get(), %error, "the core has no journal; small appends are slower, until the broker is started again");
            None
        }
    }
}

/// Starts to file what is due, if there is a journal.
pub(super) fn start(partitions: &Rc<Partitions>, daemons: &Daemons) {
    let Some(journal) = partitions.journal() else { return };
    for _ in 0..FILED_AT_ONCE {
        daemons.spawn(run(Rc::clone(partitions), Rc::clone(&journal)));
    }
}

async fn run(partitions: Rc<Partitions>, journal: Rc<Journal<Disk>>) {
    loop {
        let due = journal.due().await;
        if !file(&partitions, &due).await {
            // It is not named again meanwhile.
            machine::sleep(RETRY).await;
        }
        // What is durable in the journal is filed once its flush knows, which has to run for that.
        machine::yield_now().await;
    }
}

/// Files one partition. False if it has to be tried again.
async fn file(partitions: &Partitions, due: &Due<Disk>) -> bool {
    let core = &partitions.core;
    let _working = core.working();
    let id = PartitionId {
        topic: due.owner.topic,
        index: due.owner.partition,
    };
    let Some(Owned::Online(partition)) = partitions.owned(id) else {
        return false;
    };
    let Err(error) = partition.log.file().await else {
        return true;
    };
    if let LogError::DiskFull { .. } | LogError::OutOfFiles { .. } = error {
        warn_seldom!(directory = %partition.log.directory().display(), %error, "records stay in the journal for longer");
    } else {
        partition.log_failed();
        core.failed.notify();
    }
    false
}
