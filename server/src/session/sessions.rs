//! What the connections of one core share.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{
    channel::Handshakes, frame::ReadBuffers, kafka::fetch::sessions::FetchSessions, native::heads::Heads,
    replication::links::Links,
};
use crate::{core::Core, ops::Ops, tls::Tls};

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
    /// What each port shows and asks for, where it has TLS.
    pub(super) tls: Arc<Tls>,
    pub(super) handshakes: Handshakes,
}

impl Sessions {
    /// No connection yet.
    pub(crate) fn new(ops: &Rc<Ops>, tls: Arc<Tls>) -> Rc<Sessions> {
        let limits = &ops.core.config.limits;
        let wait_max = Duration::from_millis(limits.handshake_wait_ms_max.get());
        Rc::new(Sessions {
            core: Rc::clone(&ops.core),
            ops: Rc::clone(ops),
            read_buffers: ReadBuffers::new(&ops.core.reading),
            heads: Heads::default(),
            fetches: FetchSessions::new(ops.core.id, ops.core.mesh.len()),
            links: Links::default(),
            handshakes: Handshakes::new(limits.handshakes_max as usize, wait_max),
            tls,
        })
    }
}
