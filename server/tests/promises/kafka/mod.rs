//! Kafka's protocol, as Kafka's clients speak it: bytes on a socket, written and read by the crate that has Kafka's definitions. What is
//! expected is what Kafka 4.4.0 answered to the same.

mod cluster;
mod framing;
mod groups;
mod hostile;
mod operators;
pub mod records;
mod table;
mod topics;
mod transactions;
mod versions;
pub mod wire;
