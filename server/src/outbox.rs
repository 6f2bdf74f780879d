//! Responses on their way to one connection: a queue between the tasks that make them and the one loop that sends them.
//!
//! A response holds no records, only the names of ranges in the log, so a consumer that does not read costs the broker its
//! socket and a few words. Every response carries the leases of its request, and gives them back when it has been sent.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use headwater_engine::{LogRange, Signal, disk::DirectDisk};

use crate::budget::Lease;

/// A part of a response's payload.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Whole batches in a log of this core.
    Range(LogRange<DirectDisk>),
    /// Whole batches that came from another core.
    Bytes(Vec<u8>),
}

impl Payload {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Payload::Range(range) => range.len(),
            Payload::Bytes(bytes) => bytes.len() as u64,
        }
    }
}

/// A response: the frame's header and head, then the payload.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Vec<u8>,
    pub(crate) payload: Vec<Payload>,
}

impl Response {
    pub(crate) fn of(head: Vec<u8>) -> Response {
        Response { head, payload: Vec::new() }
    }
}

/// What a request holds until it is answered.
#[derive(Debug)]
pub(crate) struct RequestLease {
    _core: Lease,
    _connection: Lease,
}

impl RequestLease {
    pub(crate) fn new(core: Lease, connection: Lease) -> RequestLease {
        RequestLease { _core: core, _connection: connection }
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: RefCell<VecDeque<(Response, RequestLease)>>,
    /// Requests that are being worked on.
    working: Cell<usize>,
    /// Responses that have left the queue and are on their way into the socket.
    sending: Cell<usize>,
    changed: Signal,
    /// No response will be sent any more.
    closed: Cell<bool>,
}

impl Outbox {
    /// Queues the answer to a request.
    pub(crate) fn push(&self, response: Response, lease: RequestLease) {
        if !self.closed.get() {
            self.queue.borrow_mut().push_back((response, lease));
        }
        self.changed.notify();
    }

    /// A request has been taken in; `finish` says that it was answered or needs no answer.
    pub(crate) fn begin(&self) {
        self.working.set(self.working.get() + 1);
    }

    pub(crate) fn finish(&self) {
        self.working.set(self.working.get() - 1);
        self.changed.notify();
    }

    /// Requests that are being worked on or whose answers have not been sent.
    pub(crate) fn in_flight(&self) -> usize {
        self.working.get() + self.queue.borrow().len() + self.sending.get()
    }

    /// The next response, when there is one.
    pub(crate) async fn next(&self) -> (Response, RequestLease) {
        loop {
            let changed = self.changed.wait();
            if let Some(next) = self.queue.borrow_mut().pop_front() {
                self.sending.set(self.sending.get() + 1);
                return next;
            }
            changed.await;
        }
    }

    /// The next response if it is small and there already: several leave in one system call.
    pub(crate) fn next_small(&self) -> Option<(Response, RequestLease)> {
        self.queue.borrow_mut().pop_front_if(|(response, _)| response.payload.is_empty())
    }

    /// Resolves when nothing is left to work on or to send.
    pub(crate) async fn drained(&self) {
        loop {
            let changed = self.changed.wait();
            if self.in_flight() == 0 {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when there are fewer than `limit` requests in flight.
    pub(crate) async fn below(&self, limit: usize) {
        loop {
            let changed = self.changed.wait();
            if self.in_flight() < limit {
                return;
            }
            changed.await;
        }
    }

    /// What `next` has returned, and the small ones with it, are in the socket.
    pub(crate) fn sent(&self) {
        self.sending.set(0);
        self.changed.notify();
    }

    /// The connection is gone.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.queue.borrow_mut().clear();
        self.changed.notify();
    }
}
