//! The figures of one core at one moment: what it has counted, and what its parts hold now.

use std::sync::Arc;

use headwater_engine::{disk::Disk as _, journal::JournalFigures};
use headwater_protocol::id::CoreId;

use super::Ops;
use crate::{
    machine,
    metrics::{CoreSnapshot, Family, PartitionFigures},
    model::id::PartitionId,
    partition::Partitions,
};

/// Takes a core's figures, with how long things take and what its disk has written if that is asked for. Call it on the core.
pub(crate) fn snapshot(ops: &Ops, with_times: bool) -> CoreSnapshot {
    let Ops {
        core,
        partitions,
        groups,
        ..
    } = ops;
    let mut snapshot = core.metrics.snapshot();
    if with_times {
        core.metrics.add_times(&mut snapshot);
        let (writes, flushes) = machine::disk_stages(&core.disk);
        for (stage, times) in [("write", writes), ("flush", flushes)] {
            snapshot.sample(Family::DiskBytes, stage, times.bytes as f64);
            snapshot.stage(stage, times);
        }
    }
    let indexes = &core.memory.indexes;
    snapshot.sample(Family::Failures, "index_write", indexes.not_written.get() as f64);
    let counted = partitions.counts();
    snapshot.sample(Family::PartitionsOffline, "not_opened", counted.unopened as f64);
    snapshot.sample(Family::PartitionsOffline, "fenced", counted.fenced as f64);
    snapshot.sample(
        Family::PartitionsLagging,
        "under_replicated",
        counted.under_replicated as f64,
    );
    snapshot.sample(Family::PartitionsLagging, "under_min_isr", counted.under_min_isr as f64);
    let journal = partitions.journal();
    let journal = journal.map_or_else(JournalFigures::default, |journal| journal.figures());
    let files = core.disk.open_files();
    let (stalls, stalled) = core.stalls();
    let counts = groups.counts();
    for (family, value) in [
        (Family::JournalFrames, journal.frames),
        (Family::JournalEntries, journal.entries),
        (Family::JournalBytes, journal.bytes),
        (Family::JournalHeldBytes, journal.held_bytes),
        (Family::JournalRefusals, journal.refusals),
        (Family::JournalFailed, u64::from(journal.has_failed)),
        (Family::TailBytes, core.memory.tail.used() as u64),
        (Family::TailBytesMax, core.memory.tail.limit() as u64),
        (Family::ColdBytes, core.memory.cold.mapped() as u64),
        (Family::InFlightBytes, core.in_flight.used()),
        (Family::ReadBufferBytes, core.reading.used()),
        (Family::Connections, core.connections() as u64),
        (Family::Denied, ops.access.denied.get()),
        (Family::AuditRecords, ops.access.audit.written.get()),
        (Family::AuditDropped, ops.access.audit.dropped.get()),
        (Family::Tasks, machine::tasks() as u64),
        (Family::OpenFiles, files.open() as u64),
        (Family::OpenFilesMax, files.limit() as u64),
        (Family::FilesOpened, files.opened()),
        (Family::FilesEvicted, files.evicted()),
        (Family::Partitions, counted.open as u64),
        (Family::PartitionsLed, counted.led as u64),
        (Family::PartitionsLeaderless, counted.leaderless as u64),
        (Family::ReplicaLagRecords, counted.lag_records),
        (Family::ReplicaLagBytes, counted.lag_bytes),
        (Family::ReplicasCatchingUp, counted.catching_up as u64),
        (Family::Unsealed, core.memory.unsealed.count() as u64),
        (Family::IndexesRebuilt, indexes.rebuilt.get()),
        (Family::CompactionHalted, counted.damaged as u64),
        (Family::Groups, counts.groups as u64),
        (Family::GroupPartitionsOffline, counts.unread as u64),
        (Family::GroupMembers, counts.members as u64),
        (Family::GroupRebalances, counts.rebalances),
        (Family::OffsetCommits, counts.commits),
        (Family::Stalls, stalls),
    ] {
        snapshot.sample(family, "", value as f64);
    }
    snapshot.sample(Family::ReplicaLagSeconds, "", counted.lag.as_secs_f64());
    snapshot.sample(Family::StalledSeconds, "", stalled.as_secs_f64());
    snapshot.sample(Family::BusySeconds, "", machine::busy().as_secs_f64());
    let most = core.config.metrics.series_max as usize;
    snapshot.partitions = of_partitions(partitions, most);
    snapshot.group_offsets = groups.offsets(most);
    if core.id == CoreId::new(0) {
        // They are of all cores.
        snapshot.quotas = core.quotas.accounts().figures(most);
    }
    snapshot
}

/// The first of a core's partitions, by name and number, and how many were left out.
fn of_partitions(partitions: &Partitions, most: usize) -> (Vec<PartitionFigures>, u64) {
    let (image, open) = (partitions.image(), partitions.open_partitions());
    if most == 0 {
        return (Vec::new(), open.len() as u64);
    }
    let named =
        |(id, partition): (PartitionId, _)| Some((Arc::clone(image.topic_by_id(id.topic)?), id.index, partition));
    let mut open: Vec<_> = open.into_iter().filter_map(named).collect();
    open.sort_unstable_by(|a, b| (&a.0.name, a.1).cmp(&(&b.0.name, b.1)));
    let left_out = open.len().saturating_sub(most);
    open.truncate(most);
    let figures = open.into_iter().map(|(topic, index, partition)| {
        let offsets = partition.log.offsets();
        let (segments, bytes) = partition.log.size();
        PartitionFigures {
            topic,
            index,
            start: offsets.start.as_i64(),
            high_watermark: offsets.high_watermark.as_i64(),
            end: offsets.end.as_i64(),
            segments: segments as u64,
            bytes,
            appended_bytes: partition.appended_bytes.get(),
            fetched_bytes: partition.fetched_bytes.get(),
        }
    });
    (figures.collect(), left_out as u64)
}
