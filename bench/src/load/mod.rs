//! The load generator: producers and consumers of any target, on a closed loop or on a fixed schedule.
//!
//! ```text
//! Pace (when a record is due) -> produce -> TargetProducer ... TargetConsumer -> Intake -> Verifier
//!                                   '-- Completion -> Recorder --> Meter <-- Recorder --'
//! ```

pub mod clock;
pub mod consume;
pub mod hlog;
pub mod intake;
pub mod meter;
pub mod pace;
pub mod produce;
pub mod wake;

#[cfg(test)]
pub(crate) mod tests;
