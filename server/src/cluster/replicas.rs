//! The brokers of the cluster, and who has which partition. Decisions alone, which come out the same on every broker that is given the
//! same commands: nothing here waits, draws a number, asks a clock, or knows any broker's own configuration.
//!
//! ```text
//! placement (proposes replicas of new partitions) ─► command ─► ReplicaMap::apply ─► transition, for each partition ─► Applied
//! ```
//! A broker alone is the case of one: each partition has one replica, which leads and is all of the in-sync replicas.

mod balance;
mod check;
mod command;
mod error;
mod features;
mod form;
mod levels;
mod placement;
mod state;
#[cfg(test)]
mod tests;
mod transition;

pub(crate) use self::{
    balance::{next_moves, under_way},
    command::{Election, IsrChange, Placement, Registration, ReplicaCommand},
    error::ReplicaError,
    features::Features,
    form::{Form, KafkaForm},
    levels::Levels,
    placement::{place, without},
    state::ReplicaMap,
};
