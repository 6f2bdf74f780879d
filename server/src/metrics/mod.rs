//! What a broker counts: on each core without locks or atomics, gathered by the control plane when somebody asks.
//!
//! A core that does not answer within [`ANSWER_MAX`] is reported as not up, and the others with it as usual.

mod compaction;
mod families;
mod partitions;
mod process;
mod quorum;
mod quotas;
mod snapshot;
#[cfg(test)]
mod tests;
pub(crate) mod text;

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    time::Duration,
};

use headwater_engine::{LogError, Timed};
use headwater_protocol::{error::ErrorCode, frame::Api, stranger::Stranger};

pub(crate) use self::{
    compaction::CompactionMetrics,
    families::Family,
    partitions::{GroupOffset, PartitionFigures},
    process::{DiskSpace, Process},
    quorum::{LookAtQuorum, QuorumFigures},
    quotas::QuotaFigures,
    snapshot::{CoreSnapshot, Gathered},
};

/// How long a core may take to answer.
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Apis are numbered below this.
const APIS_MAX: usize = 48;

/// Declares what is counted each by itself, with the value of the label that tells it apart.
macro_rules! labels {
    ($($(#[$doc:meta])* $Label:ident { $($(#[$about:meta])* $Value:ident = $name:literal,)+ })+) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $Label { $($(#[$about])* $Value,)+ }

        impl $Label {
            const ALL: &[$Label] = &[$($Label::$Value,)+];

            const fn name(self) -> &'static str {
                match self { $($Label::$Value => $name,)+ }
            }
        }
    )+};
}

labels! {
    /// A part of a request's way through the broker.
    Stage {
        /// From a frame's first bytes to its last.
        Receive = "receive",
        /// Looking at the records of a produce request; in turns with other tasks if they are compressed.
        Vet = "vet",
        /// Numbering record batches and copying them into the tail buffer.
        Append = "append",
        /// From the append until the records are durable and the response is ready.
        Acknowledge = "acknowledge",
        /// From a fetch request until there are records to answer it with, or its time is over.
        FetchWait = "fetch_wait",
        /// From when a response's turn has come until the socket has taken all of it.
        Send = "send",
        /// How late a task gets its turn; see `tick.rs`.
        Tick = "tick",
    }

    /// Where the records of a fetch response came from.
    ReadPath {
        /// The tail buffer.
        Tail = "tail",
        /// The disk, past the page cache, through memory of the core's own.
        Direct = "direct",
        /// The page cache, by sendfile(2).
        Sendfile = "sendfile",
        /// The disk, through the page cache and memory that is held for a moment.
        Buffered = "buffered",
        /// Another core, by a copy.
        Remote = "remote",
        /// The page cache, by a copy, as what goes to an encrypted connection is encrypted in memory.
        Copied = "copied",
    }

    /// What has become of a handshake of TLS.
    Handshake {
        Done = "done",
        /// The peer is not trusted, speaks something else, or has gone.
        Failed = "failed",
        /// It took too long.
        Late = "late",
        /// Too many others were under way.
        Crowded = "crowded",
    }

    /// What has failed, and is tried again.
    Failure {
        Checkpoint = "checkpoint",
        Retention = "retention",
        Sealing = "sealing",
        Compaction = "compaction",
        /// To accept a connection.
        Accept = "accept",
    }

    /// What has become of the replicas of a partition.
    ReplicaChange {
        /// This broker leads it now.
        Elected = "elected",
        /// Fewer are in sync than before, while it leads.
        Shrunk = "isr_shrunk",
        /// More are.
        Expanded = "isr_expanded",
    }

    /// Why record batches were refused.
    Refused {
        DiskFull = "disk_full",
        /// The partition is offline, or a write or flush has failed.
        Storage = "storage",
        /// They are not as they should be.
        Rules = "rules",
    }
}

impl Refused {
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
    changes: [Cell<u64>; ReplicaChange::ALL.len()],
    connections_refused: Cell<u64>,
    connections_over_quota: Cell<u64>,
    authenticated: Cell<u64>,
    authentications_failed: Cell<u64>,
    strangers: [Cell<u64>; Stranger::ALL.len()],
    handshakes: [Cell<u64>; Handshake::ALL.len()],
    stages: [Timed; Stage::ALL.len()],
    read: [Cell<u64>; ReadPath::ALL.len()],
    requests: ByApi,
    /// Of Kafka's protocol, by the name of the api.
    kafka_requests: RefCell<BTreeMap<&'static str, u64>>,
    received_bytes: Cell<u64>,
    sent_bytes: Cell<u64>,
    read_as_follower: Cell<u64>,
    /// By number; an error is rare enough for a map.
    errors: RefCell<BTreeMap<i16, u64>>,
    damage: Cell<u64>,
    catch_up_bytes: Cell<u64>,
    pub(crate) compaction: CompactionMetrics,
}

/// A counter for each api, by its number.
#[derive(Debug)]
struct ByApi([Cell<u64>; APIS_MAX]);

impl Default for ByApi {
    fn default() -> ByApi {
        ByApi(std::array::from_fn(|_| Cell::default()))
    }
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

    /// Counts records of a partition that another broker leads.
    pub(crate) fn read_as_follower(&self, bytes: u64) {
        add(&self.read_as_follower, bytes);
    }

    /// Counts a request frame.
    pub(crate) fn received(&self, api: Api, bytes: u64) {
        add(&self.requests.0[usize::from(api.as_u16())], 1);
        add(&self.received_bytes, bytes);
    }

    /// Counts a request of Kafka's protocol.
    pub(crate) fn received_kafka(&self, api: &'static str, bytes: u64) {
        *self.kafka_requests.borrow_mut().entry(api).or_default() += 1;
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

    /// Counts what has become of a partition's replicas.
    pub(crate) fn changed(&self, what: ReplicaChange) {
        add(&self.changes[what as usize], 1);
    }

    /// Counts bytes of records on their way to a replica that is not in sync.
    pub(crate) fn catches_up(&self, bytes: u64) {
        add(&self.catch_up_bytes, bytes);
    }

    /// Counts a connection for which there was no room.
    pub(crate) fn connection_refused(&self) {
        add(&self.connections_refused, 1);
    }

    /// Counts a connection of an address that has made too many.
    pub(crate) fn connection_over_quota(&self) {
        add(&self.connections_over_quota, 1);
    }

    /// Counts a client that has proved who it is.
    pub(crate) fn authenticated(&self) {
        add(&self.authenticated, 1);
    }

    /// Counts one that has not.
    pub(crate) fn authentication_failed(&self) {
        add(&self.authentications_failed, 1);
    }

    /// Counts a connection that was closed as it speaks something else.
    pub(crate) fn met(&self, stranger: Stranger) {
        add(&self.strangers[stranger as usize], 1);
    }

    /// Counts a handshake of TLS that has ended.
    pub(crate) fn shook_hands(&self, outcome: Handshake) {
        add(&self.handshakes[outcome as usize], 1);
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

    /// How long each stage takes, for a snapshot.
    pub(crate) fn add_times(&self, snapshot: &mut CoreSnapshot) {
        for stage in Stage::ALL {
            snapshot.stage(stage.name(), self.stages[*stage as usize].snapshot());
        }
    }

    /// What has been counted, for a snapshot, without times.
    pub(crate) fn snapshot(&self) -> CoreSnapshot {
        let mut snapshot = CoreSnapshot::default();
        let mut sample = |family, label, value: u64| snapshot.samples.push((family, label, value as f64));
        for api in Api::REQUESTS.iter().copied() {
            let count = self.requests.0[usize::from(api.as_u16())].get();
            sample(Family::Requests, api.name(), count);
        }
        for (api, count) in &*self.kafka_requests.borrow() {
            sample(Family::KafkaRequests, api, *count);
        }
        for &path in ReadPath::ALL {
            sample(Family::FetchBytes, path.name(), self.read[path as usize].get());
        }
        for (number, count) in &*self.errors.borrow() {
            sample(Family::Errors, ErrorCode::from_i16(*number).name(), *count);
        }
        for &failure in Failure::ALL {
            sample(Family::Failures, failure.name(), self.failures[failure as usize].get());
        }
        for stranger in Stranger::ALL {
            sample(
                Family::Strangers,
                stranger.name(),
                self.strangers[stranger as usize].get(),
            );
        }
        for &outcome in Handshake::ALL {
            sample(
                Family::Handshakes,
                outcome.name(),
                self.handshakes[outcome as usize].get(),
            );
        }
        for &refused in Refused::ALL {
            sample(Family::Refused, refused.name(), self.refused[refused as usize].get());
        }
        for &change in ReplicaChange::ALL {
            sample(
                Family::ReplicaChanges,
                change.name(),
                self.changes[change as usize].get(),
            );
        }
        sample(Family::Received, "", self.received_bytes.get());
        sample(Family::Sent, "", self.sent_bytes.get());
        sample(Family::FollowerFetchBytes, "", self.read_as_follower.get());
        sample(Family::ConnectionsRefused, "", self.connections_refused.get());
        sample(Family::ConnectionsOverQuota, "", self.connections_over_quota.get());
        sample(Family::Authentications, "succeeded", self.authenticated.get());
        sample(Family::Authentications, "failed", self.authentications_failed.get());
        sample(Family::Damage, "", self.damage.get());
        sample(Family::CatchUpBytes, "", self.catch_up_bytes.get());
        self.compaction.sample(&mut snapshot);
        snapshot
    }

    /// Counts what is sent besides records.
    pub(crate) fn sent(&self, bytes: u64) {
        add(&self.sent_bytes, bytes);
    }
}
