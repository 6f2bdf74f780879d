//! Why bytes are not a record batch, and which error code says so to a client.

use std::str::Utf8Error;

use super::Compression;
use crate::error::ErrorCode;
use crate::id::{Offset, Timestamp};

/// Why bytes are not a record batch, or not one that is allowed here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// The batch goes on beyond the bytes that are there.
    #[error("the record batch is cut off: {have} bytes of {need}")]
    Truncated {
        /// Bytes that it takes to go on.
        need: usize,
        /// Bytes that are there.
        have: usize,
    },
    /// The batch is larger than allowed.
    #[error("the record batch has {size} bytes; at most {max} are allowed")]
    TooLarge {
        /// Bytes in the batch.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// The length field is shorter than a header.
    #[error("the record batch's length field is {length}, which is less than its header")]
    BadLength {
        /// The length field.
        length: i32,
    },
    /// The batch is of another form than v2.
    #[error("the record batch has magic {magic}; only 2 is known")]
    BadMagic {
        /// The magic byte.
        magic: i8,
    },
    /// The checksum does not match the bytes.
    #[error("the record batch's CRC-32C is {computed:#010x}, but it says {stored:#010x}")]
    BadCrc {
        /// The checksum in the header.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// The number of records is negative, does not match the last offset delta, or cannot fit the batch.
    #[error("the record batch says it has {count} records and a last offset delta of {last_offset_delta}")]
    BadCount {
        /// The record count in the header.
        count: i32,
        /// The last offset delta in the header.
        last_offset_delta: i32,
    },
    /// The base offset is negative, or the last offset beyond the largest there can be.
    #[error("the record batch's base offset {base_offset} is out of range")]
    BadOffset {
        /// The base offset in the header.
        base_offset: i64,
    },
    /// The batch is not the one that has to come next.
    #[error("the record batch begins at offset {base_offset}, which is not where it belongs: at {expected}")]
    OutOfPlace {
        /// The base offset in the header.
        base_offset: Offset,
        /// The offset at which the batch before ends, or that was asked for.
        expected: Offset,
    },
    /// The broker found the damage itself, and sent nothing.
    #[error("the broker's disk does not give it back as it was written")]
    Unreadable,
    /// The attributes name no known codec.
    #[error("the record batch is compressed with the unknown codec {codec}")]
    UnknownCompression {
        /// The codec's number.
        codec: u8,
    },
    /// A timestamp is negative and not "none", or the last is before the first.
    #[error("the record batch's timestamps are wrong: base {base}, max {max}")]
    BadTimestamp {
        /// The base timestamp in the header.
        base: Timestamp,
        /// The max timestamp in the header, or of a record.
        max: Timestamp,
    },
    /// A control batch, which only brokers write, came from a client.
    #[error("a client cannot write a control batch")]
    ControlBatch,
    /// A batch from a client claims to bear the broker's clock.
    #[error("a client cannot set the timestamp type to LogAppendTime")]
    AppendTimeFromClient,
    /// A batch from a client claims to have been compacted.
    #[error("a client cannot set a delete horizon")]
    HorizonFromClient,
    /// Producer id, epoch and sequence do not go together.
    #[error("producer id {id} with epoch {epoch} and base sequence {sequence}")]
    BadProducer {
        /// The producer id in the header.
        id: i64,
        /// The producer epoch in the header.
        epoch: i16,
        /// The base sequence in the header.
        sequence: i32,
    },
    /// The records do not decompress.
    #[error("the records do not decompress as {compression}: {reason}")]
    BadCompression {
        /// The codec.
        compression: Compression,
        /// What the codec said.
        reason: String,
    },
    /// The records decompress to more than allowed.
    #[error("the records decompress to more than {max} bytes")]
    DecompressedTooLarge {
        /// The limit in bytes.
        max: usize,
    },
    /// A record is malformed.
    #[error("record {index} of the batch at offset {base_offset}: {fault}")]
    BadRecord {
        /// The batch's base offset.
        base_offset: Offset,
        /// The number of the record in its batch, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
}

/// What is wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// A field goes on beyond the record, or the record beyond its batch.
    #[error("it is cut off")]
    Truncated,
    /// A variable-length number has more bits than its type.
    #[error("a variable-length number is too long")]
    VarintTooLong,
    /// A length or count is negative.
    #[error("a length or count is negative")]
    NegativeLength,
    /// The record says it is longer than its fields are.
    #[error("it has bytes after its last field")]
    TrailingBytes,
    /// The offset delta is not above the previous record's, beyond the batch's last, or leaves a gap.
    #[error("its offset delta is out of order")]
    OffsetDelta,
    /// The timestamp is negative and not "none", or out of range.
    #[error("its timestamp is out of range")]
    Timestamp,
    /// A header's key is not UTF-8.
    #[error("a header's key is not UTF-8: {0}")]
    HeaderKey(#[from] Utf8Error),
    /// The record has no key although its topic requires one.
    #[error("it has no key, which its topic requires")]
    NoKey,
    /// The batch has more records, or bytes after the last.
    #[error("the batch goes on after the records it counts")]
    MoreRecords,
}

impl BatchError {
    /// What a broker answers to a client that sent the batch.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. }
            | Self::BadLength { .. }
            | Self::BadCrc { .. }
            | Self::OutOfPlace { .. }
            | Self::Unreadable => ErrorCode::CorruptMessage,
            Self::TooLarge { .. } => ErrorCode::MessageTooLarge,
            Self::DecompressedTooLarge { .. } => ErrorCode::RecordListTooLarge,
            Self::BadMagic { .. } => ErrorCode::UnsupportedForMessageFormat,
            Self::UnknownCompression { .. } => ErrorCode::UnsupportedCompressionType,
            Self::BadTimestamp { .. } | Self::AppendTimeFromClient => ErrorCode::InvalidTimestamp,
            Self::BadCount { .. }
            | Self::BadOffset { .. }
            | Self::ControlBatch
            | Self::HorizonFromClient
            | Self::BadProducer { .. }
            | Self::BadCompression { .. }
            | Self::BadRecord { .. } => ErrorCode::InvalidRecord,
        }
    }
}
