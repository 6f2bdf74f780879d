//! Headwater's formats: what travels over the wire and lies on the disk, as bytes and typed views of them.
//!
//! The path of a record through this crate:
//!
//! ```text
//! producer:  Timestamp, key, value, headers -> BatchBuilder -> EncodedBatch --+
//!            ProduceRequestT -> head::encode -> frame::encode ----------------+--> socket
//! broker:    socket -> FrameHeader::parse -> head::decode -> RecordBatch::parse -> stamp -> log, unchanged from here on
//! consumer:  socket -> FrameHeader::parse -> head::decode_response -> Batches -> RecordSet -> RecordView
//! ```
//!
//! - [`id`], [`topic`]: the numbers and names of the log, each a type of its own.
//! - [`error`]: the closed list of error codes, with Kafka's numbers.
//! - [`frame`], [`head`], [`schema`]: the native protocol's frame and its FlatBuffers heads.
//! - [`stranger`]: what a peer speaks that sends something else.
//! - [`classic`]: Kafka's plain encoding of fields; [`group`]: what members of a group tell each other in it.
//! - [`scram`]: how one side proves that it knows a password, and the other that it has its keys.
//! - [`batch`]: Kafka's `RecordBatch` v2, the only form in which records exist outside a client.
//!
//! Nothing here does I/O, keeps time or starts a task. Every parser takes untrusted bytes: it returns a typed error,
//! never panics, and never allocates by a length that it has not compared with the bytes that are there.

// The generated schema names its collections through `alloc`.
extern crate alloc;

pub mod batch;
pub mod classic;
pub mod error;
pub mod frame;
pub mod group;
pub mod head;
pub mod id;
pub mod schema;
pub mod scram;
pub mod stranger;
pub mod topic;
