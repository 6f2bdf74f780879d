//! What the cluster knows of its topics, and the threads that see to it.
//!
//! The [`TopicStore`] keeps the topics on disk; the control plane's threads change it, and publish what has become of it.

mod control;
mod store;

pub(crate) use control::{Control, ControlHandle, channel, publish};
pub(crate) use store::{IDENTITY_FILE, is_partition};
pub use store::{Identity, NewTopic, ProducerIds, Recovery, StoreError, TopicAlteration, TopicError, TopicStore};
