//! Record batches from end to end: the builder against the reader, both against Kafka's own bytes and another
//! implementation of them, and the guarantees of the checksum.

#![allow(clippy::unwrap_used, reason = "a test fails by its panic, helpers of tests too")]

mod kafka_oracle;
mod known_answers;
mod model;
mod properties;
mod rebuild;
