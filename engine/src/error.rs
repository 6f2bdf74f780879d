//! What can go wrong in a log, grouped by who is at fault: the caller's bytes ([`AppendError`]), the caller's question
//! ([`FetchError`]), or the environment ([`LogError`], always with path and cause).

use std::{io, path::PathBuf, sync::Arc};

use headwater_protocol::{
    batch::BatchError,
    error::ErrorCode,
    id::{LeaderEpoch, Offset},
};

use crate::{disk::is_full, owner::Owner, producers::SequenceError};

/// The environment failed: a disk, a file system, a damaged file. Cheap to clone, because one failure answers many waiters.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The disk is full. What was not yet durable has been dropped; appends work again when there is room.
    #[error("no space left on the device that holds {path}")]
    DiskFull {
        /// The segment file.
        path: PathBuf,
    },
    /// There is no file descriptor left to open the segment with. What was appended waits for the next flush.
    #[error("no file descriptor is left to open {path}")]
    OutOfFiles {
        /// The segment file.
        path: PathBuf,
    },
    /// A write or flush failed earlier. Nothing can be appended until the log has been opened again; what is durable
    /// can be read.
    #[error("the log is fenced after a failed {operation} of {path}: {source}")]
    Fenced {
        /// What failed.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// An operation off the append path failed; the log goes on.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What failed.
        operation: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        source: Arc<io::Error>,
    },
    /// Bytes that were durable do not read back as what was written.
    #[error("{path} is corrupt at byte {position}: {reason}{}", resume_at.map(|offset| format!("; reading can go on at offset {offset}")).unwrap_or_default())]
    Corrupt {
        /// The segment file.
        path: PathBuf,
        /// Where in the file.
        position: u64,
        /// What is wrong there.
        reason: String,
        /// An offset behind the damage from which on the log can be read, if one is known: the next entry of the index, or
        /// the next segment.
        resume_at: Option<Offset>,
    },
    /// The log was given up for good: its topic is deleted. Its names may belong to another log by now.
    #[error("the log in {directory} was given up: its topic is deleted")]
    Retired {
        /// Where it was.
        directory: PathBuf,
    },
    /// The log has failed and was opened anew: whoever asks again finds the other.
    #[error("the log in {directory} was opened anew after a failure; ask again")]
    Replaced {
        /// Where both are.
        directory: PathBuf,
    },
    /// The directory is another partition's. It is left as it is.
    #[error("{directory} belongs to {found}, not to {wanted}; move it away, and put the right one in its place")]
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        found: Owner,
        /// Who was to have it.
        wanted: Owner,
    },
    /// The records were dropped by a truncation, before they became durable or while they were being read.
    #[error("the records were dropped: the log was truncated")]
    Truncated,
}

impl LogError {
    pub(crate) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> LogError {
        let path = path.into();
        move |source| LogError::Io {
            operation,
            path,
            source: Arc::new(source),
        }
    }

    /// Whether it is only that there is no space left.
    pub(crate) fn is_disk_full(&self) -> bool {
        match self {
            LogError::DiskFull { .. } => true,
            LogError::Io { source, .. } => is_full(source),
            _ => false,
        }
    }

    /// The error's number on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            LogError::Corrupt { .. } => ErrorCode::CorruptMessage,
            LogError::Retired { .. } => ErrorCode::UnknownTopicId,
            LogError::Replaced { .. } => ErrorCode::NotLeaderOrFollower,
            LogError::DiskFull { .. }
            | LogError::OutOfFiles { .. }
            | LogError::Fenced { .. }
            | LogError::Io { .. }
            | LogError::Foreign { .. }
            | LogError::Truncated => ErrorCode::KafkaStorageError,
        }
    }
}

/// Why bytes were not appended. Nothing of them is in the log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// The bytes are not whole, valid record batches.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// There is no batch at all.
    #[error("there is no record batch in the request")]
    Empty,
    /// Valid batches that a client may not append, or not in this form.
    #[error("{0}")]
    Invalid(&'static str),
    /// A record's timestamp lies too far from the broker's clock. Times are in milliseconds since the epoch.
    #[error(
        "timestamp {timestamp} of record {index} is too far from the broker's clock: {earliest} to {latest} are allowed"
    )]
    Timestamp {
        /// The number of the record in its batch, from 0: that which is farthest off.
        index: u32,
        /// Its timestamp.
        timestamp: i64,
        /// The earliest that is allowed.
        earliest: i64,
        /// The latest that is allowed.
        latest: i64,
    },
    /// Records have no key, in a topic that keeps the last of each.
    #[error("{count} records of the batch have no key, which their topic requires; the first is record {}", first.first().unwrap_or(&0))]
    NoKey {
        /// How many there are.
        count: u32,
        /// The numbers of the first of them in their batch, from 0.
        first: Vec<u32>,
    },
    /// More bytes than a segment holds.
    #[error("{size} bytes do not fit into a segment of {segment_size_bytes}")]
    TooLarge {
        /// Size of the payload in bytes.
        size: u64,
        /// The limit.
        segment_size_bytes: u64,
    },
    /// The idempotence rules refuse it.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// The producer has a transaction, and this batch is not part of it.
    #[error("producer {producer} has an open transaction on this partition, and the batch is not part of one")]
    OutsideTransaction {
        /// The producer id.
        producer: i64,
    },
    /// As many transactions are open as may be.
    #[error(
        "{count_max} transactions are open on this partition, as many as producers are remembered for one: end some of them first"
    )]
    TooManyTransactions {
        /// The limit.
        count_max: usize,
    },
    /// The log takes no appends.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl AppendError {
    /// The error's number on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            AppendError::Batch(error) => error.code(),
            AppendError::Empty | AppendError::Invalid(_) | AppendError::NoKey { .. } => ErrorCode::InvalidRecord,
            AppendError::Timestamp { .. } => ErrorCode::InvalidTimestamp,
            AppendError::TooLarge { .. } => ErrorCode::RecordListTooLarge,
            AppendError::Sequence(SequenceError::StaleEpoch { .. }) => ErrorCode::InvalidProducerEpoch,
            AppendError::Sequence(SequenceError::OutOfOrder { .. }) => ErrorCode::OutOfOrderSequenceNumber,
            AppendError::Sequence(SequenceError::Unknown { .. }) => ErrorCode::UnknownProducerId,
            AppendError::Sequence(SequenceError::Duplicate { .. }) => ErrorCode::DuplicateSequenceNumber,
            AppendError::OutsideTransaction { .. } => ErrorCode::InvalidTxnState,
            AppendError::TooManyTransactions { .. } => ErrorCode::ThrottlingQuotaExceeded,
            AppendError::Log(error) => error.code(),
        }
    }
}

/// Why a marker was not appended.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum MarkerError {
    /// It names no producer.
    #[error("a marker of producer {producer}, epoch {epoch}, names no producer")]
    NoProducer {
        /// The producer id.
        producer: i64,
        /// Its epoch.
        epoch: i16,
    },
    /// The producer has a newer epoch here.
    #[error(transparent)]
    Sequence(#[from] SequenceError),
    /// A later coordinator has ended a transaction of the producer since.
    #[error(
        "a coordinator of epoch {current} has ended a transaction of producer {producer}, this one has the older epoch {got}"
    )]
    FencedCoordinator {
        /// The producer id.
        producer: i64,
        /// Epoch of the later coordinator.
        current: i32,
        /// Epoch of this one.
        got: i32,
    },
    /// What was made of it is no batch: a defect.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// The log takes no appends.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl MarkerError {
    /// The error's number on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            MarkerError::NoProducer { .. } => ErrorCode::InvalidRequest,
            MarkerError::Sequence(_) => ErrorCode::InvalidProducerEpoch,
            MarkerError::FencedCoordinator { .. } => ErrorCode::TransactionCoordinatorFenced,
            MarkerError::Batch(error) => error.code(),
            MarkerError::Log(error) => error.code(),
        }
    }
}

/// Why batches from a leader were not appended. Nothing of them is in the log.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The bytes are not whole, valid record batches: fetch them again.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// There is no batch at all.
    #[error("there is no record batch from the leader")]
    Empty,
    /// A batch begins below the end of this log: fetch from there. If the log is empty, its start lies within a batch of the leader:
    /// begin again at the batch's base offset.
    #[error("a batch of the leader, {base} to {next}, begins below the end of this log, {end}")]
    Overlap {
        /// Base offset of the batch.
        base: Offset,
        /// The offset after it.
        next: Offset,
        /// Log end offset.
        end: Offset,
    },
    /// Batches are missing where compaction has left no hole, as far as is known here.
    #[error("a batch of the leader begins at {base}, where {end} has to follow, and no hole is expected there")]
    Gap {
        /// Base offset of the batch.
        base: Offset,
        /// The offset that has to follow.
        end: Offset,
    },
    /// Epochs go back: the logs have parted, or the batch is damaged.
    #[error("the batch of the leader at {base} has epoch {epoch}, behind one of epoch {latest}")]
    EarlierEpoch {
        /// Base offset of the batch.
        base: Offset,
        /// Its epoch.
        epoch: LeaderEpoch,
        /// Epoch of the batch before it.
        latest: LeaderEpoch,
    },
    /// The log takes no appends.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl ReplicaError {
    /// The error's number on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            ReplicaError::Batch(error) => error.code(),
            ReplicaError::Empty => ErrorCode::InvalidRecord,
            ReplicaError::Overlap { .. } | ReplicaError::Gap { .. } => ErrorCode::OffsetOutOfRange,
            ReplicaError::EarlierEpoch { .. } => ErrorCode::FencedLeaderEpoch,
            ReplicaError::Log(error) => error.code(),
        }
    }
}

/// Why nothing can be fetched at an offset.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The offset is not between the log start offset and the log end offset.
    #[error("offset {offset} is out of range: the log holds {start} to {end}")]
    OutOfRange {
        /// What was asked for.
        offset: Offset,
        /// Log start offset.
        start: Offset,
        /// Log end offset.
        end: Offset,
    },
    /// The log cannot be read there.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl FetchError {
    /// The error's number on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            FetchError::OutOfRange { .. } => ErrorCode::OffsetOutOfRange,
            FetchError::Log(error) => error.code(),
        }
    }
}
