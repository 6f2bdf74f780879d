//! Record batches: Kafka's `RecordBatch` v2, verbatim, on the wire and on the disk.
//!
//! ```text
//!  0 base offset i64        21 attributes i16           43 producer id i64
//!  8 length i32 (from 12)   23 last offset delta i32    51 producer epoch i16
//! 12 leader epoch i32       27 base timestamp i64       53 base sequence i32
//! 16 magic i8 = 2           35 max timestamp i64        57 record count i32
//! 17 CRC-32C u32 of 21..                                61 records, perhaps compressed
//! ```
//!
//! All big endian. [`BatchBuilder`] makes batches and [`RecordBatch::parse`] checks them; from then on the bytes stay as
//! they are but for what [`stamp`] and [`set_append_time`] write; compaction alone takes records out, with [`rebuild`].
//! [`RecordSet`] opens a batch for its records.
//! Format: the Kafka documentation, "Message Format", and `org.apache.kafka.common.record.DefaultRecordBatch`.
//!
//! ```
//! use headwater_protocol::batch::{BatchBuilder, BatchLimits, Batches, Compression, RecordSet};
//! use headwater_protocol::id::Timestamp;
//!
//! let mut builder = BatchBuilder::new(Compression::Lz4, 64 * 1024);
//! builder.append(Timestamp::now(), Some(b"key"), Some(b"value"), &[])?;
//! let bytes = builder.build().freeze();
//!
//! for batch in Batches::new(&bytes, &BatchLimits { batch_size_max: 1 << 20 }) {
//!     let records = RecordSet::open(&batch?, &bytes, 16 << 20)?;
//!     for record in &records {
//!         assert_eq!(record?.value, Some(&b"value"[..]));
//!     }
//! }
//! # Ok::<(), headwater_protocol::batch::BatchError>(())
//! ```

mod builder;
mod check;
mod compression;
mod error;
mod header;
mod marker;
mod rebuild;
mod records;
mod varint;
mod view;

pub use builder::{BatchBuilder, EncodedBatch};
pub use check::{Keyless, Seen};
pub use compression::{Compression, UnknownCompressionName};
pub use error::{BatchError, RecordFault};
pub use header::{BatchHeader, TimestampType, set_append_time, set_max_timestamp, set_producer, stamp};
pub use marker::{EndMarker, Outcome};
pub use rebuild::{emptied, rebuild};
pub use records::{HeaderIter, HeaderRef, RecordCursor, RecordIter, RecordSet, RecordView};
pub use view::{BatchLimits, Batches, RecordBatch};

/// Bytes in a batch before its records.
pub const HEADER_LEN: usize = 61;

/// Bytes in a batch that its length field does not count: the base offset and the length itself.
pub const LENGTH_PREFIX: usize = 12;

/// The only form of batch there is here.
pub const MAGIC: i8 = 2;

#[cfg(test)]
mod tests;
