//! Responses on their way to one connection: a queue between who makes them and the one loop that sends them.
//!
//! A response holds no records, only the names of ranges in a log, so a consumer that does not read costs the broker its
//! socket and a few words. What the request held of the core's memory is given back as soon as it is answered: a client that
//! does not read may keep nothing that others need. Its own further requests wait until it has read. Responses that come while
//! others wait are put behind them, to leave in one system call.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use headwater_engine::Signal;

use super::in_flight::{Places, RequestLease};
use crate::ops::fetch::Records;

/// Frames that one connection may leave unread before its next request is taken in, in bytes.
pub(super) const UNREAD_BYTES: usize = 64 * 1024;

/// Frames that leave together, in bytes, unless one is larger.
const TOGETHER_BYTES: usize = 64 * 1024;

/// Memory for frames that an idle connection keeps, in bytes.
const SPARE_BYTES: usize = 512;

/// What follows the head of a response.
#[derive(Debug)]
pub(crate) enum Piece {
    Records(Records),
    /// What a protocol writes between the records of two partitions, and behind the last.
    Bytes(Vec<u8>),
}

impl Piece {
    /// Bytes of memory that these take: records are named only.
    pub(super) fn bytes(pieces: &[Piece]) -> usize {
        let bytes = pieces.iter().map(|piece| match piece {
            Piece::Records(_) => 0,
            Piece::Bytes(bytes) => bytes.len(),
        });
        bytes.sum()
    }
}

/// What leaves together.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// Whole responses; the head of the last one only, if records follow.
    pub(crate) frames: Vec<u8>,
    pub(crate) records: Vec<Piece>,
    /// Of the requests that this answers.
    places: Places,
}

/// The queue of one connection.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: RefCell<VecDeque<Outgoing>>,
    /// Of the frames in the queue, and of the pieces of bytes behind them.
    bytes: Cell<usize>,
    spare: RefCell<Vec<u8>>,
    filled: Signal,
    drained: Signal,
    /// Nothing will be sent any more.
    closed: Cell<bool>,
    /// The connection is to end once what is queued has been sent.
    hung_up: Cell<bool>,
}

impl Outbox {
    /// Queues the answer to a request: what `write` appends, and records behind it.
    pub(crate) fn push(&self, write: impl FnOnce(&mut Vec<u8>), records: Vec<Piece>, lease: RequestLease) {
        let places = lease.answered();
        if self.closed.get() {
            return;
        }
        self.bytes.set(self.bytes.get() + Piece::bytes(&records));
        let mut queue = self.queue.borrow_mut();
        let last = queue.back_mut();
        let last = last.filter(|last| last.records.is_empty() && last.frames.len() < TOGETHER_BYTES);
        if let Some(last) = last {
            let before = last.frames.len();
            write(&mut last.frames);
            self.bytes.set(self.bytes.get() + last.frames.len() - before);
            last.records = records;
            last.places.join(places);
        } else {
            let mut frames = self.spare.take();
            write(&mut frames);
            self.bytes.set(self.bytes.get() + frames.len());
            queue.push_back(Outgoing {
                frames,
                records,
                places,
            });
        }
        drop(queue);
        self.filled.notify();
    }

    /// Ends the connection, because a request failed that the client wants no answer to: there is no other way to tell it.
    pub(crate) fn hang_up(&self) {
        self.hung_up.set(true);
        self.filled.notify();
    }

    /// What leaves next, when there is something; `None` when the connection is to end.
    pub(crate) async fn next(&self) -> Option<Outgoing> {
        loop {
            let filled = self.filled.wait();
            let next = self.queue.borrow_mut().pop_front();
            if let Some(next) = next {
                let bytes = next.frames.len() + Piece::bytes(&next.records);
                self.bytes.set(self.bytes.get() - bytes);
                self.drained.notify();
                return Some(next);
            }
            if self.hung_up.get() {
                return None;
            }
            filled.await;
        }
    }

    /// It has been sent, or will never be.
    pub(crate) fn done(&self, outgoing: Outgoing) {
        let mut frames = outgoing.frames;
        if frames.capacity() <= SPARE_BYTES {
            frames.clear();
            self.spare.replace(frames);
        }
    }

    /// Resolves when the client has read most of its responses.
    pub(crate) async fn room(&self) {
        self.drained.until(|| self.bytes.get() < UNREAD_BYTES).await;
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

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt as _;

    use super::*;
    use crate::{core::budget::Budget, session::in_flight::InFlight};

    #[test]
    fn responses_that_wait_leave_together_and_until_then_only_the_places_of_their_requests_are_held() {
        let (in_flight, budget) = (Rc::<InFlight>::default(), Budget::new(100));
        let lease = || in_flight.begin([(); 2].map(|()| budget.lease(10).now_or_never().unwrap()));
        let outbox = Outbox::default();
        let push = |byte: u8| outbox.push(|frames| frames.push(byte), Vec::new(), lease());
        (0..3).for_each(push);
        assert_eq!(
            (in_flight.count(), budget.used()),
            (3, 0),
            "an answer holds none of the memory"
        );
        let outgoing = outbox.next().now_or_never().unwrap().unwrap();
        assert_eq!((outgoing.frames.as_slice(), in_flight.count()), (&[0, 1, 2][..], 3));
        outbox.done(outgoing);
        assert_eq!(in_flight.count(), 0);
        (3..5).for_each(push);
        outbox.close();
        push(5);
        assert_eq!((in_flight.count(), budget.used()), (0, 0), "nobody is left to answer");
    }
}
