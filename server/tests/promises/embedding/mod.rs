//! Brokers in this process, as tests of other programs have them: the blocking client, and the examples of the client.

mod blocking;
mod cookbook;

#[path = "../../../examples/embedded_broker.rs"]
#[allow(dead_code, reason = "the program around it is not run")]
mod embedded_broker;
