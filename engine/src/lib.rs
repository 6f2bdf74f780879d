//! Headwater's storage engine: a durable log on direct I/O, embeddable without any network.
//!
//! ```text
//! append --> [Log] --copy once--> [tail buffer] --flush--> [SegmentFile] --fdatasync--> durable offset --> ticket
//!                                       a few bytes --> [Journal], the segment file later --^
//! fetch  --> [Log] --index------> [LogRange]: tail buffer while it is there, else the segment file, perhaps through [ColdMemory]
//! ```
//!
//! A [`Log`] is one partition, owned by one core and passive: its owner polls [`Log::flush`] and calls [`Log::maintain`].
//! The machine is behind one trait, [`disk::Disk`]; `examples/embedded.rs` shows the whole in forty lines.

mod checkpoint;
mod cold;
pub mod disk;
mod epochs;
mod error;
mod index;
pub mod journal;
mod log;
mod memory;
mod moment;
mod owner;
mod producers;
mod segment;
mod seldom;
mod signal;
mod tail;
mod timed;
mod transactions;
mod unsealed;

pub use cold::ColdMemory;
pub use epochs::{CommonPoint, EpochEnd};
pub use error::{AppendError, FetchError, LogError, MarkerError, ReplicaError};
pub use journal::{Journal, JournalConfig};
pub use log::{
    Appended, Begins, CompactionConfig, CompactionReport, Cut, DECOMPRESSED_SIZE_MAX, Fetched, FlushConfig, Log,
    LogConfig, LogOffsets, LogRange, ProducerConfig, ReadLimit, Recovery, Ticket, Vetted, VettedBytes,
};
pub use memory::{IndexCounts, Memory};
pub use moment::{Moment, Since};
pub use owner::Owner;
pub use producers::{ActiveProducer, SequenceError, WINDOW as PRODUCER_WINDOW};
pub use seldom::Seldom;
pub use signal::{Signal, Wait};
pub use tail::TailMemory;
pub use timed::{Timed, TimedSnapshot};
pub use transactions::{Aborted, MarkerEpoch, OpenTransaction};
pub use unsealed::Unsealed;
