//! The way back of a request: a frame into the connection's outbox.

use std::rc::Rc;

use headwater_protocol::{
    error::ErrorCode,
    head::{Head, ResponseHead},
    id::CorrelationId,
};

use crate::{
    ops::fetch::Records,
    session::{in_flight::RequestLease, outbox::Piece, peer::Connection, sessions::Sessions},
};

/// Answers one request.
pub(crate) struct Reply {
    pub(super) sessions: Rc<Sessions>,
    pub(super) connection: Rc<Connection>,
    id: CorrelationId,
    lease: RequestLease,
}

impl Reply {
    pub(super) fn new(
        sessions: &Rc<Sessions>,
        connection: &Rc<Connection>,
        id: CorrelationId,
        lease: RequestLease,
    ) -> Reply {
        Reply {
            sessions: Rc::clone(sessions),
            connection: Rc::clone(connection),
            id,
            lease,
        }
    }

    /// Answers with a head alone.
    pub(crate) fn head<H: ResponseHead>(self, head: &H) {
        self.send(head, ErrorCode::from_i16(head.error()), 0, Vec::new());
    }

    /// Answers with a head and the records of which it tells. `error`: what it tells of, for the metrics.
    pub(super) fn send<H: Head>(self, head: &H, error: ErrorCode, payload_len: u64, records: Vec<Records>) {
        let outbox = &self.connection.outbox;
        if outbox.is_closed() {
            return;
        }
        self.sessions.core.metrics.answered(error);
        let write = |frames: &mut Vec<u8>| self.sessions.heads.append(head, self.id, payload_len, frames);
        outbox.push(write, records.into_iter().map(Piece::Records).collect(), self.lease);
    }

    /// See [`RequestLease::give_bytes_back`].
    pub(super) fn give_bytes_back(&mut self) {
        self.lease.give_bytes_back();
    }
}
