//! The promises of the engine, each a test under the name of the promise, on the simulated disk.
//!
//! Every test that draws from a seed prints it when it fails, with the command that runs that seed alone. `HEADWATER_SEEDS`
//! sets how many seeds each runs (the default takes seconds).

#![allow(
    clippy::unwrap_used,
    clippy::await_holding_refcell_ref,
    reason = "a test fails by panicking, and its one task shares the history with nobody"
)]

mod checkpoints;
mod commit;
mod compact;
mod crash;
mod damage;
mod faults;
mod flips;
mod full;
mod history;
mod indexes;
mod journal;
mod memory;
mod open_files;
mod producers;
mod races;
mod readable;
mod recycle;
mod reopened;
mod replica;
mod sealing;
mod support;
mod times;
mod transactions;
mod truncation;
mod untouched;
mod upkeep;
mod vec;
mod zeros;
