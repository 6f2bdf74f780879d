//! The whole broker in a simulated world: its sessions, handlers, groups, control plane and recovery as they are, on disks that
//! lose what was not flushed, behind a network that fails, among clients that speak the real protocol.
//!
//! ```text
//! scenario ── house (the broker's host: disk, power, restarts) ◄── trouble (what goes wrong, and when)
//!          ├─ producers, readers ──► ledger (who was promised what, and who has seen what)
//!          └─ calm: everything heals, everybody finishes, and the whole log is read and compared with the ledger
//! ```
//! A run is a function of its seed. `HEADWATER_SEED` runs one alone and prints its history, `HEADWATER_SEEDS` sets how many.

mod admin;
mod house;
mod ledger;
mod member;
mod producer;
mod reader;
mod scenario;
mod tests;
mod trouble;
mod wire;
