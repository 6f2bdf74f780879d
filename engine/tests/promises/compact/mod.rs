//! Compaction equals a model, wherever the machine stops; and what it promises besides.

mod crash;
pub mod model;
mod readers;
mod rules;
