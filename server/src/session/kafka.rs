//! Kafka's protocol: requests off a socket, from their messages to whoever does what they ask, and back.
//!
//! ```text
//! head -> dispatch -> apis (the one table) -> hello | produce | fetch | a message's own function -> ops
//!                                                                reply -> in the order of the requests -> outbox
//! ```
//! A request is read, and a response written, by the crate `headwater-kafka`, which has Kafka's definitions. What a broker of Kafka
//! answers where the definitions leave it open was tried with Kafka 4.4.0.

mod apis;
mod asking;
mod committed;
mod configs;
mod consumers;
mod dispatch;
pub(super) mod fetch;
mod groups;
mod head;
mod hello;
mod members;
mod metadata;
mod offsets;
mod operators;
mod produce;
mod reply;
mod security;
mod topics;
mod transactions;

pub(super) use self::dispatch::Kafka;
