//! What brokers say to each other to replicate: a stream for each pair of a follower's core and a leader's core.
//!
//! ```text
//! 0          4          6           8     12              16            16 + head_size
//! | size u32 | kind u16 | version u16 | 0 | head_size u32 | head … | records …, only of answers |
//! ```
//! The native protocol's frame, with kinds of its own. The first frame of each side is a hello; from then on each side sends frames
//! when it has something to say, and a frame speaks of any number of partitions.

mod admission;
mod codec;
mod cursor;
mod error;
mod follow;
mod frame;
mod hello;
pub(super) mod lead;
pub(super) mod links;
mod pacing;
#[cfg(test)]
mod tests;

pub(crate) use self::{follow::Follows, frame::Kind};
