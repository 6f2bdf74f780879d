//! Compaction equals a model, wherever the machine stops; and what it promises besides.

mod crash;
mod model;
mod readers;
mod rules;
