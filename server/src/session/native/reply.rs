//! The way back of a request: a frame into the connection's outbox.

use std::{cell::RefCell, rc::Rc};

use flatbuffers::FlatBufferBuilder;
use headwater_protocol::{
    error::ErrorCode,
    frame,
    head::{Head, ResponseHead},
    id::CorrelationId,
};

use crate::{
    core::Core,
    ops::fetch::Records,
    session::{connection::Connection, in_flight::RequestLease},
};

/// The version of every api today.
const VERSION: u16 = 0;

/// Memory for heads that is kept for the next one, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Where a core makes its heads, one after the other.
#[derive(Default)]
pub(crate) struct Heads(RefCell<FlatBufferBuilder<'static>>);

impl Heads {
    fn append<H: Head>(&self, head: &H, id: CorrelationId, payload_len: u64, frames: &mut Vec<u8>) {
        let mut builder = self.0.borrow_mut();
        let before = frames.len();
        // The fetch limits are far below 4 GiB; the configuration is checked for it.
        frame::append_head(head, VERSION, id, payload_len as usize, &mut builder, frames);
        if frames.len() - before > KEPT_BYTES_MAX {
            *builder = FlatBufferBuilder::new();
        }
    }
}

/// Answers one request.
pub(crate) struct Reply {
    pub(super) core: Rc<Core>,
    pub(super) connection: Rc<Connection>,
    id: CorrelationId,
    lease: RequestLease,
}

impl Reply {
    pub(super) fn new(core: &Rc<Core>, connection: &Rc<Connection>, id: CorrelationId, lease: RequestLease) -> Reply {
        Reply {
            core: Rc::clone(core),
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
        self.core.metrics.answered(error);
        let write = |frames: &mut Vec<u8>| self.core.heads.append(head, self.id, payload_len, frames);
        outbox.push(write, records, self.lease);
    }

    /// See [`RequestLease::give_bytes_back`].
    pub(super) fn give_bytes_back(&mut self) {
        self.lease.give_bytes_back();
    }
}
