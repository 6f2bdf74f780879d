//! What brokers say to each other to replicate: a stream for each pair of a follower's core and a leader's core. And what they ask of
//! each other for transactions (`errands`).
//!
//! ```text
//! 0          4          6           8     12              16            16 + head_size
//! | size u32 | kind u16 | version u16 | 0 | head_size u32 | head … | records …, only of answers |
//! ```
//! The native protocol's frame, with kinds of its own. The first frame of each side is a hello; from then on each side sends frames
//! when it has something to say, and a frame speaks of any number of partitions. Where brokers share a secret both prove before that hello
//! that they know it (`proof`).

mod admission;
mod codec;
mod cursor;
pub(super) mod errands;
mod error;
mod follow;
mod frame;
mod hello;
pub(super) mod lead;
pub(super) mod links;
mod pacing;
pub(super) mod proof;
#[cfg(test)]
mod tests;

pub(crate) use self::{errands::run as run_errands, follow::Follows, frame::Kind};
