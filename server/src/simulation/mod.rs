//! The whole broker in a simulated world: its sessions, handlers, groups, control plane and recovery as they are, on disks that
//! lose what was not flushed, behind a network that fails, among clients that are the client library, as it is too.
//!
//! ```text
//! scenario ── house (the broker's host: disk, power, restarts) ◄── trouble (what goes wrong, and when)
//!          ├─ producers, readers, members of a group, an administrator ──► ledger (who was promised what, and who has seen what)
//!          └─ calm: everything heals, everybody finishes, and the judge reads the whole log and compares it with the ledger
//! ```
//! `several` is the same with brokers that are one cluster: each a house of its own, in trouble of its own.
//!
//! A run is a function of its seed. `HEADWATER_SEED` runs one alone and prints its history, `HEADWATER_SEEDS` sets how many.

mod cast;
mod client;
mod compare;
mod guests;
mod house;
mod judge;
mod ledger;
mod retention;
mod runs;
mod scenario;
mod several;
mod tests;
mod trouble;
mod wire;
