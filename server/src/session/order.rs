//! Answers in the order of their requests, for protocols whose clients expect it: an answer waits for those of earlier requests.
//!
//! What waits holds what its request was lent, and its bytes are counted: while they are many no further request is taken in or
//! answered in its turn, so a client cannot pile up answers behind one that takes long.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
};

use headwater_engine::Signal;

use super::{
    in_flight::RequestLease,
    outbox::{Outbox, Piece, UNREAD_BYTES},
};

/// An answer that may have to wait.
#[derive(Debug)]
pub(super) struct Answer {
    /// Nothing is sent if it is empty.
    pub(super) frame: Vec<u8>,
    pub(super) rest: Vec<Piece>,
    pub(super) lease: RequestLease,
}

impl Answer {
    fn bytes(&self) -> usize {
        self.frame.len() + Piece::bytes(&self.rest)
    }
}

/// Where an answer belongs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn(u64);

/// The requests of one connection that are not answered yet, in their order.
#[derive(Debug, Default)]
pub(super) struct InOrder {
    /// The turn of the first one.
    first: Cell<u64>,
    /// What is there already of their answers.
    answers: RefCell<VecDeque<Option<Answer>>>,
    /// Of these.
    bytes: Cell<usize>,
    drained: Signal,
}

impl InOrder {
    /// A request has come.
    pub(super) fn begin(&self) -> Turn {
        let mut answers = self.answers.borrow_mut();
        answers.push_back(None);
        Turn(self.first.get() + answers.len() as u64 - 1)
    }

    /// It is answered: sends that, and what has waited for it.
    pub(super) fn answer(&self, Turn(turn): Turn, answer: Answer, outbox: &Outbox) {
        let mut answers = self.answers.borrow_mut();
        let place = (turn - self.first.get()) as usize;
        self.bytes.set(self.bytes.get() + answer.bytes());
        answers[place] = Some(answer);
        while let Some(Some(_)) = answers.front() {
            let next = answers.pop_front().flatten();
            self.first.set(self.first.get() + 1);
            let bytes = next.as_ref().map_or(0, Answer::bytes);
            self.bytes.set(self.bytes.get() - bytes);
            if let Some(Answer { frame, rest, lease }) = next.filter(|next| !next.frame.is_empty()) {
                outbox.push(|frames| frames.extend_from_slice(&frame), rest, lease);
            }
        }
        drop(answers);
        self.drained.notify();
    }

    /// Resolves when few bytes of answers wait: before a further request is taken in.
    pub(super) async fn room(&self) {
        self.drained.until(|| self.bytes.get() < UNREAD_BYTES).await;
    }

    /// The same, before a request is answered; or when the others wait for it.
    pub(super) async fn room_for(&self, Turn(turn): Turn) {
        let is_first = || self.first.get() == turn;
        let has_room = || is_first() || self.bytes.get() < UNREAD_BYTES;
        self.drained.until(has_room).await;
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use futures::FutureExt as _;

    use super::*;
    use crate::{core::budget::Budget, session::in_flight::InFlight};

    #[test]
    fn an_answer_waits_for_those_of_earlier_requests_and_one_that_is_not_sent_holds_nobody_up() {
        let (in_flight, budget) = (Rc::<InFlight>::default(), Budget::new(100));
        let answer = |frame: &[u8]| Answer {
            frame: frame.to_vec(),
            rest: Vec::new(),
            lease: in_flight.begin([(); 2].map(|()| budget.lease(10).now_or_never().unwrap())),
        };
        let (order, outbox) = (InOrder::default(), Outbox::default());
        let sent = || {
            outbox
                .next()
                .now_or_never()
                .flatten()
                .map(|outgoing| outgoing.frames.clone())
        };
        let turns: Vec<Turn> = (0..4).map(|_| order.begin()).collect();
        order.answer(turns[2], answer(b"c"), &outbox);
        order.answer(turns[1], answer(b""), &outbox);
        assert_eq!(
            (sent(), budget.used()),
            (None, 40),
            "they wait, and hold what they were lent"
        );
        order.answer(turns[0], answer(b"a"), &outbox);
        assert_eq!((sent(), budget.used()), (Some(b"ac".to_vec()), 0));
        order.answer(turns[3], answer(b"d"), &outbox);
        assert_eq!(sent(), Some(b"d".to_vec()));
    }

    #[test]
    fn answers_that_wait_leave_no_room_for_more_but_for_the_one_that_they_wait_for() {
        let (in_flight, budget) = (Rc::<InFlight>::default(), Budget::new(100));
        let answer = |frame: Vec<u8>, rest: Vec<Piece>| Answer {
            frame,
            rest,
            lease: in_flight.begin([(); 2].map(|()| budget.lease(10).now_or_never().unwrap())),
        };
        let (order, outbox) = (InOrder::default(), Outbox::default());
        let turns: Vec<Turn> = (0..4).map(|_| order.begin()).collect();
        let half = vec![0; UNREAD_BYTES / 2];
        order.answer(turns[1], answer(half.clone(), Vec::new()), &outbox);
        assert!(order.room().now_or_never().is_some());
        order.answer(turns[2], answer(vec![0], vec![Piece::Bytes(half)]), &outbox);
        assert!(order.room().now_or_never().is_none());
        assert!(order.room_for(turns[3]).now_or_never().is_none());
        assert!(order.room_for(turns[0]).now_or_never().is_some());
        order.answer(turns[0], answer(b"a".to_vec(), Vec::new()), &outbox);
        assert!(order.room().now_or_never().is_some());
        assert!(outbox.room().now_or_never().is_none(), "now they wait there");
    }
}
