//! Responses on their way to one connection: a queue between the tasks that make them and the one loop that sends them.
//!
//! A response holds no records, only the names of ranges in a log, so a consumer that does not read costs the broker its
//! socket and a few words. What the request held of the core's memory is given back as soon as it is answered: a client that
//! does not read may keep nothing that others need. Its own further requests wait until it has read.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
};

use headwater_engine::{LogRange, Signal, disk::DirectDisk};

use headwater_protocol::error::ErrorCode;

use crate::{
    core::{budget::Lease, remote::RemoteRange},
    session::native::reply::Encoded,
};

/// Heads of responses that one connection may leave unread before its next request is taken in, in bytes.
const UNREAD_BYTES: usize = 64 * 1024;

/// A part of a response's payload.
#[derive(Debug)]
pub(crate) enum Payload {
    /// Whole batches in a log of this core.
    Range(LogRange<DirectDisk>),
    /// Whole batches in a log of another core.
    Remote(RemoteRange),
}

impl Payload {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Payload::Range(range) => range.len(),
            Payload::Remote(range) => range.len(),
        }
    }
}

/// A response: the frame's header and head, then the payload.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) head: Vec<u8>,
    pub(crate) payload: Vec<Payload>,
    /// What it tells of, for the metrics.
    pub(crate) error: ErrorCode,
}

impl Response {
    pub(crate) fn of(head: Encoded) -> Response {
        Response::with(head, Vec::new())
    }

    pub(crate) fn with(head: Encoded, payload: Vec<Payload>) -> Response {
        Response {
            head: head.bytes,
            payload,
            error: head.error,
        }
    }
}

/// Requests of one connection that have been taken in and whose answers, if they have any, have not been sent.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: Cell<usize>,
    changed: Signal,
}

impl InFlight {
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Counts a request for as long as the lease lives, which also holds its bytes.
    pub(crate) fn begin(self: &Rc<Self>, bytes: [Lease; 2]) -> RequestLease {
        self.count.set(self.count.get() + 1);
        RequestLease {
            bytes: Some(bytes),
            in_flight: Rc::clone(self),
        }
    }

    /// Resolves when fewer than `limit` requests are in flight.
    pub(crate) async fn below(&self, limit: usize) {
        loop {
            let changed = self.changed.wait();
            if self.count.get() < limit {
                return;
            }
            changed.await;
        }
    }
}

/// What a request holds.
#[derive(Debug)]
pub(crate) struct RequestLease {
    /// Of the core's budget and of the connection's own, until it is answered.
    bytes: Option<[Lease; 2]>,
    /// Until the answer has been sent.
    in_flight: Rc<InFlight>,
}

impl RequestLease {
    /// Gives the bytes back before the answer is there: for a request that waits for others, and that nobody may pay for
    /// meanwhile.
    pub(crate) fn give_bytes_back(&mut self) {
        self.bytes = None;
    }
}

impl Drop for RequestLease {
    fn drop(&mut self) {
        self.in_flight.count.set(self.in_flight.count.get() - 1);
        self.in_flight.changed.notify();
    }
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: RefCell<VecDeque<(Response, RequestLease)>>,
    /// Of the heads in the queue.
    bytes: Cell<usize>,
    filled: Signal,
    drained: Signal,
    /// Nothing will be sent any more.
    closed: Cell<bool>,
    /// The connection is to end once what is queued has been sent.
    hung_up: Cell<bool>,
}

impl Outbox {
    /// Queues the answer to a request.
    pub(crate) fn push(&self, response: Response, mut lease: RequestLease) {
        lease.bytes = None;
        if !self.closed.get() {
            self.bytes.set(self.bytes.get() + response.head.len());
            self.queue.borrow_mut().push_back((response, lease));
            self.filled.notify();
        }
    }

    /// Ends the connection, because a request failed that the client wants no answer to: there is no other way to tell it.
    pub(crate) fn hang_up(&self) {
        self.hung_up.set(true);
        self.filled.notify();
    }

    /// The next response, when there is one; `None` when the connection is to end.
    pub(crate) async fn next(&self) -> Option<(Response, RequestLease)> {
        loop {
            let filled = self.filled.wait();
            let next = self.queue.borrow_mut().pop_front();
            if let Some(next) = next {
                return Some(self.popped(next));
            }
            if self.hung_up.get() {
                return None;
            }
            filled.await;
        }
    }

    /// The next response if it has no payload and is there already: several leave in one system call.
    pub(crate) fn next_small(&self) -> Option<(Response, RequestLease)> {
        let is_small = |(response, _): &mut (Response, _)| response.payload.is_empty();
        let next = self.queue.borrow_mut().pop_front_if(is_small);
        next.map(|next| self.popped(next))
    }

    fn popped(&self, next: (Response, RequestLease)) -> (Response, RequestLease) {
        self.bytes.set(self.bytes.get() - next.0.head.len());
        self.drained.notify();
        next
    }

    /// Resolves when the client has read most of its responses.
    pub(crate) async fn room(&self) {
        loop {
            let drained = self.drained.wait();
            if self.bytes.get() < UNREAD_BYTES {
                return;
            }
            drained.await;
        }
    }

    /// Whether the connection is gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get()
    }

    /// The connection is gone.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        self.queue.borrow_mut().clear();
        // Whoever waits for room to answer goes on, and answers nobody.
        self.bytes.set(0);
        self.drained.notify();
    }
}
