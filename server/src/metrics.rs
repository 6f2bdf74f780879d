//! What a broker counts: on each core without locks or atomics, gathered by the control plane when somebody asks.
//!
//! A core that does not answer within [`http::ANSWER_MAX`] is reported as not up, and the others with it as usual.

pub(crate) mod http;
mod partitions;
mod process;
#[cfg(test)]
mod tests;
mod text;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use headwater_engine::{
    LogError, Timed, TimedSnapshot,
    disk::{DirectDisk, Disk as _},
};
use headwater_protocol::{error::ErrorCode, frame::Api, id::CoreId, stranger::Stranger};

pub(crate) use self::{http::ANSWER_MAX, partitions::GroupOffset, process::DiskSpace};
use self::{partitions::PartitionFigures, process::Process};
use crate::{core::Core, partition::compaction::CompactionMetrics};

/// Apis are numbered below this.
const APIS_MAX: usize = 32;

/// A part of a request's way through the broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// From a frame's first bytes to its last.
    Receive,
    /// Looking at the records of a produce request; in turns with other tasks if they are compressed.
    Vet,
    /// Numbering record batches and copying them into the tail buffer.
    Append,
    /// From the append until the records are durable and the response is ready.
    Acknowledge,
    /// From a fetch request until there are records to answer it with, or its time is over.
    FetchWait,
    /// From when a response's turn has come until the socket has taken all of it.
    Send,
    /// How late a task gets its turn; see `tick.rs`.
    Tick,
}

impl Stage {
    const ALL: [Stage; 7] = [
        Stage::Receive,
        Stage::Vet,
        Stage::Append,
        Stage::Acknowledge,
        Stage::FetchWait,
        Stage::Send,
        Stage::Tick,
    ];

    const fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Vet => "vet",
            Stage::Append => "append",
            Stage::Acknowledge => "acknowledge",
            Stage::FetchWait => "fetch_wait",
            Stage::Send => "send",
            Stage::Tick => "tick",
        }
    }
}

/// Where the records of a fetch response came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReadPath {
    /// The tail buffer.
    Tail,
    /// The disk, past the page cache, through memory of the core's own.
    Direct,
    /// The page cache, by sendfile(2).
    Sendfile,
    /// The disk, through the page cache and a pipe that the kernel fills.
    Splice,
    /// Another core, by a copy.
    Remote,
}

impl ReadPath {
    const ALL: [ReadPath; 5] = [
        ReadPath::Tail,
        ReadPath::Direct,
        ReadPath::Sendfile,
        ReadPath::Splice,
        ReadPath::Remote,
    ];

    const fn name(self) -> &'static str {
        match self {
            ReadPath::Tail => "tail",
            ReadPath::Direct => "direct",
            ReadPath::Sendfile => "sendfile",
            ReadPath::Splice => "splice",
            ReadPath::Remote => "remote",
        }
    }
}

/// What has failed, and is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Checkpoint,
    Retention,
    Sealing,
    Compaction,
    /// To accept a connection.
    Accept,
}

impl Failure {
    const ALL: [Failure; 5] = [
        Failure::Checkpoint,
        Failure::Retention,
        Failure::Sealing,
        Failure::Compaction,
        Failure::Accept,
    ];

    const fn name(self) -> &'static str {
        match self {
            Failure::Checkpoint => "checkpoint",
            Failure::Retention => "retention",
            Failure::Sealing => "sealing",
            Failure::Compaction => "compaction",
            Failure::Accept => "accept",
        }
    }
}

/// Why record batches were refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    DiskFull,
    /// The partition is offline, or a write or flush has failed.
    Storage,
    /// They are not as they should be.
    Rules,
}

impl Refused {
    const ALL: [Refused; 3] = [Refused::DiskFull, Refused::Storage, Refused::Rules];

    const fn name(self) -> &'static str {
        match self {
            Refused::DiskFull => "disk_full",
            Refused::Storage => "storage",
            Refused::Rules => "rules",
        }
    }

    pub(crate) fn by(error: &LogError) -> Refused {
        match error {
            LogError::DiskFull { .. } => Refused::DiskFull,
            _ => Refused::Storage,
        }
    }
}

/// What one core counts.
#[derive(Debug, Default)]
pub(crate) struct CoreMetrics {
    failures: [Cell<u64>; Failure::ALL.len()],
    refused: [Cell<u64>; Refused::ALL.len()],
    connections_refused: Cell<u64>,
    strangers: [Cell<u64>; Stranger::ALL.len()],
    stages: [Timed; Stage::ALL.len()],
    read: [Cell<u64>; ReadPath::ALL.len()],
    requests: [Cell<u64>; APIS_MAX],
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    /// By number; an error is rare enough for a map.
    errors: RefCell<BTreeMap<i16, u64>>,
    damage: Cell<u64>,
    pub(crate) compaction: CompactionMetrics,
}

const _: () = {
    let mut index = 0;
    while index < Api::REQUESTS.len() {
        // A request would have no counter, and end its core.
        assert!((Api::REQUESTS[index].as_u16() as usize) < APIS_MAX);
        index += 1;
    }
};

fn add(counter: &Cell<u64>, count: u64) {
    counter.set(counter.get() + count);
}

impl CoreMetrics {
    /// Counts one passage of a stage.
    pub(crate) fn passed(&self, stage: Stage, time: Duration) {
        self.stages[stage as usize].record(time, 0);
    }

    /// Counts records on their way to a consumer.
    pub(crate) fn read(&self, path: ReadPath, bytes: u64) {
        add(&self.read[path as usize], bytes);
        add(&self.sent_bytes, bytes);
    }

    /// Counts a request frame.
    pub(crate) fn received(&self, api: Api, bytes: u64) {
        add(&self.requests[usize::from(api.as_u16())], 1);
        add(&self.received_bytes, bytes);
    }

    /// Counts a response by the error that it tells, if it tells one.
    pub(crate) fn answered(&self, error: ErrorCode) {
        if error != ErrorCode::None {
            *self.errors.borrow_mut().entry(error.as_i16()).or_default() += 1;
        }
    }

    /// Counts what has failed.
    pub(crate) fn failed(&self, what: Failure) {
        add(&self.failures[what as usize], 1);
    }

    /// Counts a produce request that was refused.
    pub(crate) fn refused(&self, why: Refused) {
        add(&self.refused[why as usize], 1);
    }

    /// Counts a connection for which there was no room.
    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    /// Counts a connection that was closed as it speaks something else.
    pub(crate) fn met(&self, stranger: Stranger) {
        add(&self.strangers[stranger as usize], 1);
    }

    /// Counts an error of a log if it is that stored bytes do not read back as they were written.
    pub(crate) fn log_failed(&self, error: &LogError) {
        if matches!(error, LogError::Corrupt { .. }) {
            self.damaged();
        }
    }

    /// Counts stored bytes that do not read back as they were written.
    pub(crate) fn damaged(&self) {
        add(&self.damage, 1);
    }

    /// Counts what is sent besides records.
    pub(crate) fn sent(&self, bytes: u64) {
        add(&self.sent_bytes, bytes);
    }
}

/// A core's figures at one moment.
#[derive(Debug, Default)]
pub(crate) struct CoreSnapshot {
    /// By name.
    stages: Vec<(&'static str, TimedSnapshot)>,
    /// By family and the value of its label, if it has one.
    samples: Vec<(Family, &'static str, f64)>,
    /// And how many were left out.
    partitions: (Vec<PartitionFigures>, u64),
    /// And how many were left out.
    group_offsets: (Vec<GroupOffset>, u64),
}

impl CoreSnapshot {
    /// Of all labels of a family.
    pub(crate) fn sum(&self, of: Family) -> u64 {
        let samples = self.samples.iter().filter(|(family, ..)| *family == of);
        samples.map(|(_, _, value)| *value as u64).sum()
    }
}

/// A family of counters or gauges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    Requests,
    Received,
    Sent,
    FetchBytes,
    DiskBytes,
    TailBytes,
    TailBytesMax,
    ColdBytes,
    InFlightBytes,
    ReadBufferBytes,
    Connections,
    ConnectionsRefused,
    Strangers,
    Errors,
    Tasks,
    OpenFiles,
    OpenFilesMax,
    FilesOpened,
    FilesEvicted,
    Partitions,
    PartitionsOffline,
    Unsealed,
    Refused,
    Failures,
    IndexesRebuilt,
    Damage,
    Groups,
    GroupPartitionsOffline,
    GroupMembers,
    GroupRebalances,
    OffsetCommits,
    Stalls,
    StalledSeconds,
    BusySeconds,
    CompactionBytes,
    CompactionPasses,
    CompactionRemoved,
    CompactionSeconds,
    CompactionDirty,
    CompactionHalted,
}

/// Takes a core's figures. Call it on the core.
pub(crate) fn snapshot(core: &Core) -> CoreSnapshot {
    let metrics = &core.metrics;
    let mut stages: Vec<_> = Stage::ALL
        .iter()
        .map(|stage| (stage.name(), metrics.stages[*stage as usize].snapshot()))
        .collect();
    let (writes, flushes) = disk_stages(&core.disk);
    let disk_bytes = [("write", writes.bytes), ("flush", flushes.bytes)];
    stages.extend([("write", writes), ("flush", flushes)]);
    let mut samples: Vec<(Family, &'static str, f64)> = Vec::new();
    let mut sample = |family, label, value: u64| samples.push((family, label, value as f64));
    for api in Api::REQUESTS.iter().copied() {
        sample(
            Family::Requests,
            api.name(),
            metrics.requests[usize::from(api.as_u16())].get(),
        );
    }
    for path in ReadPath::ALL {
        sample(Family::FetchBytes, path.name(), metrics.read[path as usize].get());
    }
    for (stage, bytes) in disk_bytes {
        sample(Family::DiskBytes, stage, bytes);
    }
    for (number, count) in &*metrics.errors.borrow() {
        sample(Family::Errors, ErrorCode::from_i16(*number).name(), *count);
    }
    let compaction = &metrics.compaction;
    sample(Family::CompactionBytes, "read", compaction.read_bytes.get());
    sample(Family::CompactionBytes, "write", compaction.written_bytes.get());
    for failure in Failure::ALL {
        sample(
            Family::Failures,
            failure.name(),
            metrics.failures[failure as usize].get(),
        );
    }
    sample(Family::Failures, "index_write", core.memory.indexes.not_written.get());
    for stranger in Stranger::ALL {
        sample(
            Family::Strangers,
            stranger.name(),
            metrics.strangers[stranger as usize].get(),
        );
    }
    for refused in Refused::ALL {
        sample(Family::Refused, refused.name(), metrics.refused[refused as usize].get());
    }
    let partitions = core.partition_counts();
    sample(Family::PartitionsOffline, "not_opened", partitions.unopened as u64);
    sample(Family::PartitionsOffline, "fenced", partitions.fenced as u64);
    let files = core.disk.open_files();
    let (stalls, stalled) = core.stalls();
    let groups = core.groups.counts();
    for (family, value) in [
        (Family::Received, metrics.received_bytes.get()),
        (Family::Sent, metrics.sent_bytes.get()),
        (Family::TailBytes, core.memory.tail.used() as u64),
        (Family::TailBytesMax, core.memory.tail.limit() as u64),
        (Family::ColdBytes, core.memory.cold.mapped() as u64),
        (Family::InFlightBytes, core.in_flight.used()),
        (Family::ReadBufferBytes, core.read_buffers.used()),
        (Family::Connections, core.connections() as u64),
        (Family::ConnectionsRefused, metrics.connections_refused.get()),
        (Family::Tasks, crate::machine::tasks() as u64),
        (Family::OpenFiles, files.open() as u64),
        (Family::OpenFilesMax, files.limit() as u64),
        (Family::FilesOpened, files.opened()),
        (Family::FilesEvicted, files.evicted()),
        (Family::Partitions, partitions.open as u64),
        (Family::Unsealed, core.memory.unsealed.count() as u64),
        (Family::IndexesRebuilt, core.memory.indexes.rebuilt.get()),
        (Family::CompactionHalted, partitions.damaged as u64),
        (Family::Damage, metrics.damage.get()),
        (Family::Groups, groups.groups as u64),
        (Family::GroupPartitionsOffline, groups.unread as u64),
        (Family::GroupMembers, groups.members as u64),
        (Family::GroupRebalances, groups.rebalances),
        (Family::OffsetCommits, groups.commits),
        (Family::Stalls, stalls),
        (Family::CompactionPasses, compaction.passes.get()),
        (Family::CompactionRemoved, compaction.removed_records.get()),
    ] {
        sample(family, "", value);
    }
    samples.push((Family::CompactionSeconds, "", compaction.time.get().as_secs_f64()));
    samples.push((Family::CompactionDirty, "", compaction.dirty_ratio_max.get()));
    samples.push((Family::StalledSeconds, "", stalled.as_secs_f64()));
    samples.push((Family::BusySeconds, "", crate::machine::busy().as_secs_f64()));
    CoreSnapshot {
        stages,
        samples,
        partitions: partitions::of_core(core),
        group_offsets: core.groups.offsets(core.config.metrics.series_max as usize),
    }
}

fn disk_stages(disk: &DirectDisk) -> (TimedSnapshot, TimedSnapshot) {
    let stats = disk.stats();
    (stats.writes.snapshot(), stats.flushes.snapshot())
}

/// The figures of all cores; `None` for one that does not answer.
#[derive(Debug)]
pub(crate) struct Gathered {
    cores: Vec<(CoreId, Option<CoreSnapshot>)>,
    /// Most partitions, and most committed offsets, that have figures of their own.
    series_max: usize,
    process: Process,
    disk: Option<DiskSpace>,
}

impl Gathered {
    #[cfg(test)]
    fn of(cores: Vec<(CoreId, Option<CoreSnapshot>)>, series_max: usize) -> Gathered {
        Gathered {
            cores,
            series_max,
            process: Process::default(),
            disk: None,
        }
    }

    /// Cores that have not answered.
    fn silent(&self) -> Vec<u16> {
        let silent = self.cores.iter().filter(|(_, snapshot)| snapshot.is_none());
        silent.map(|(core, _)| core.get()).collect()
    }

    /// Partitions that cannot be used, of the cores that have answered.
    fn partitions_offline(&self) -> u64 {
        let samples = self.cores.iter().filter_map(|(_, snapshot)| snapshot.as_ref());
        let samples = samples.flat_map(|snapshot| &snapshot.samples);
        let offline = samples.filter(|(family, ..)| *family == Family::PartitionsOffline);
        offline.map(|(_, _, count)| *count as u64).sum()
    }
}
