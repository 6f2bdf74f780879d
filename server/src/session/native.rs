//! Headwater's own protocol: frames off a socket, FlatBuffers heads, and from a head to whoever does what it asks.

mod codec;
pub(crate) mod dispatch;
pub(crate) mod frame;
mod hello;
pub(crate) mod reply;
