//! What the connections of one core share.

use std::rc::Rc;

use super::{
    frame::ReadBuffers, kafka::fetch::sessions::FetchSessions, native::heads::Heads, replication::links::Links,
};
use crate::{core::Core, ops::Ops};

/// What the connections of one core share.
pub(crate) struct Sessions {
    pub(crate) core: Rc<Core>,
    pub(crate) ops: Rc<Ops>,
    pub(super) read_buffers: Rc<ReadBuffers>,
    pub(super) heads: Heads,
    /// What clients of Kafka's protocol need not say again.
    pub(super) fetches: FetchSessions,
    /// Streams of followers.
    pub(super) links: Links,
}

impl Sessions {
    /// No connection yet.
    pub(crate) fn new(ops: &Rc<Ops>) -> Rc<Sessions> {
        Rc::new(Sessions {
            core: Rc::clone(&ops.core),
            ops: Rc::clone(ops),
            read_buffers: ReadBuffers::new(&ops.core.reading),
            heads: Heads::default(),
            fetches: FetchSessions::new(ops.core.id, ops.core.mesh.len()),
            links: Links::default(),
        })
    }
}
