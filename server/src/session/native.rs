//! Headwater's own protocol: frames off a socket, FlatBuffers heads, and from a head to whoever does what it asks.

mod codec;
pub(super) mod dispatch;
mod entering;
pub(super) mod heads;
mod hello;
mod reply;
