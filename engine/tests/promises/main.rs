//! The promises of the engine, each a test under the name of the promise, on the simulated disk.
//!
//! Every test that draws from a seed prints it when it fails, with the command that runs that seed alone. `HEADWATER_SEEDS`
//! sets how many seeds each runs (the default takes seconds).

mod commit;
mod crash;
mod faults;
mod history;
mod memory;
mod producers;
mod support;
mod vec;
