//! The groups of one partition of the internal topic: all decisions, without I/O, without a clock and without tasks.

mod assign;
mod committed;
mod complete;
mod consumers;
mod deadlines;
mod group;
mod join;
mod member;
pub(super) mod record;
mod roster;
mod settle;
pub(super) mod shard;
pub(super) mod step;
mod sync;
#[cfg(test)]
mod tests;
pub(super) mod topics;
