//! Requests of one connection that have been taken in and whose answers, if they have any, have not been sent.

use std::{cell::Cell, rc::Rc};

use headwater_engine::Signal;

use crate::core::budget::Lease;

/// How many there are.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    count: Cell<usize>,
    changed: Signal,
}

impl InFlight {
    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Counts a request, which also holds its bytes.
    pub(crate) fn begin(self: &Rc<Self>, bytes: [Lease; 2]) -> RequestLease {
        self.count.set(self.count.get() + 1);
        RequestLease {
            bytes: Some(bytes),
            place: Places {
                of: Rc::clone(self),
                count: 1,
            },
        }
    }

    /// Resolves when fewer than `limit` requests are in flight.
    pub(crate) async fn below(&self, limit: usize) {
        self.changed.until(|| self.count.get() < limit).await;
    }
}

/// What a request holds.
#[derive(Debug)]
pub(crate) struct RequestLease {
    /// Of the core's budget and of the connection's own, until it is answered.
    bytes: Option<[Lease; 2]>,
    place: Places,
}

impl RequestLease {
    /// Gives the bytes back before the answer is there: for a request that waits for others, and that nobody may pay for
    /// meanwhile.
    pub(crate) fn give_bytes_back(&mut self) {
        self.bytes = None;
    }

    /// Holds these from now on.
    pub(crate) fn holds(&mut self, bytes: [Lease; 2]) {
        self.bytes = Some(bytes);
    }

    /// It is answered: only its place is held until the answer has been sent.
    pub(crate) fn answered(self) -> Places {
        self.place
    }
}

/// Of so many requests.
#[derive(Debug)]
pub(crate) struct Places {
    of: Rc<InFlight>,
    count: usize,
}

impl Places {
    /// Holds those of another as well, of the same connection.
    pub(crate) fn join(&mut self, mut other: Places) {
        self.count += std::mem::take(&mut other.count);
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        if self.count > 0 {
            self.of.count.set(self.of.count.get() - self.count);
            self.of.changed.notify();
        }
    }
}
