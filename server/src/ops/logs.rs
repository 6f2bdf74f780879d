//! Logs as operators see them: what they take on disk, and who has written to them.

use futures::future::join_all;
use headwater_engine::ActiveProducer;

use super::{Ops, topics};
use crate::{
    core::mesh::CoreMessage,
    machine,
    metrics::DiskSpace,
    model::{
        id::PartitionId,
        op::{LogsDescription, PartitionDescription},
        refusal::Refusal,
    },
    partition::Partitions,
};

/// The logs that are here of these partitions. `is_own`: of this core.
pub(super) async fn describe(ops: &Ops, mut ids: Vec<PartitionId>, is_own: bool) -> LogsDescription {
    let partitions = &*ops.partitions;
    let core = &partitions.core;
    let assignment = partitions.assignment();
    if is_own {
        ids.retain(|id| partitions.is_here(*id));
    }
    let parts = core.mesh.by_owner(ids, |id| *id);
    let answers = parts.into_iter().map(|(owner, ids)| async move {
        if owner == core.id {
            return topics::describe_here(partitions, &ids);
        }
        let asked = core.mesh.ask(owner, |reply| CoreMessage::Describe { ids, reply });
        asked.await.unwrap_or_default()
    });
    let described = join_all(answers).await.into_iter().flatten();
    let size = |partition: PartitionDescription| Some((partition.id, partition.log.ok()?.size_bytes));
    let logs = described.filter_map(size).collect();
    let directory = core.config.log.directory.clone();
    // The file system may take its time.
    let disk = machine::blocking(move || DiskSpace::of(&directory)).await;
    let own = assignment.as_deref().and_then(|assignment| {
        let own = assignment.own.broker;
        assignment.brokers.get(&own)
    });
    LogsDescription {
        directory: core.config.log.directory.display().to_string(),
        disk: disk.map(|disk| (disk.size_bytes, disk.free_bytes)),
        is_cordoned: own.is_some_and(|own| own.is_cordoned),
        logs,
    }
}

/// Who has written to a partition, on whichever core has it.
pub(super) async fn producers(partitions: &Partitions, id: PartitionId) -> Result<Vec<ActiveProducer>, Refusal> {
    let core = &partitions.core;
    let owner = id.owner(core.mesh.len());
    if owner == core.id {
        return producers_here(partitions, id);
    }
    let asked = core.mesh.ask(owner, |reply| CoreMessage::Producers { id, reply });
    asked.await.unwrap_or_else(|| Err(Refusal::stopping()))
}

/// The same of a partition of this core, whether it leads it or not.
pub(crate) fn producers_here(partitions: &Partitions, id: PartitionId) -> Result<Vec<ActiveProducer>, Refusal> {
    partitions.get(id).map(|partition| partition.log.active_producers())
}
