//! Headwater's own protocol: frames off a socket, FlatBuffers heads, and from a head to whoever answers it.

pub(crate) mod dispatch;
pub(crate) mod frame;
pub(crate) mod reply;
