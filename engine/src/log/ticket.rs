//! Who waits for what to become durable. Appends queue up in log order; the durable offset passes them in that order.

use std::{
    cell::RefCell,
    collections::VecDeque,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use headwater_protocol::id::Offset;

use super::DurablePoint;
use crate::error::LogError;

type Outcome = Result<(), LogError>;

/// Resolves when the append it came from is where it was to get, or has failed to get there. Clones share the outcome.
#[derive(Debug, Clone)]
#[must_use = "an append is not safe before its ticket says so"]
pub struct Ticket {
    slot: Rc<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    outcome: RefCell<Option<Outcome>>,
    wakers: RefCell<Vec<Waker>>,
}

impl Ticket {
    /// A ticket that nobody has settled.
    pub(super) fn open() -> Ticket {
        Ticket { slot: Rc::default() }
    }

    /// A ticket for what is durable already.
    pub(super) fn settled() -> Ticket {
        Ticket {
            slot: Rc::new(Slot {
                outcome: RefCell::new(Some(Ok(()))),
                wakers: RefCell::default(),
            }),
        }
    }

    /// What has become of the append, if that is known already.
    pub fn outcome(&self) -> Option<Outcome> {
        self.slot.outcome.borrow().clone()
    }

    pub(super) fn settle(&self, outcome: &Outcome) {
        *self.slot.outcome.borrow_mut() = Some(outcome.clone());
        for waker in self.slot.wakers.take() {
            waker.wake();
        }
    }
}

impl Future for Ticket {
    type Output = Outcome;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        if let Some(outcome) = self.slot.outcome.borrow().as_ref() {
            return Poll::Ready(outcome.clone());
        }
        let mut wakers = self.slot.wakers.borrow_mut();
        if !wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[derive(Debug)]
struct Waiting {
    /// The end of the append: durable once the durable point reaches it.
    end: DurablePoint,
    ticket: Ticket,
}

/// Appends that are not durable yet, oldest first.
#[derive(Debug, Default)]
pub(super) struct Pending {
    queue: VecDeque<Waiting>,
}

impl Pending {
    pub(super) fn push(&mut self, end: DurablePoint) -> Ticket {
        let ticket = Ticket::open();
        self.queue.push_back(Waiting {
            end,
            ticket: ticket.clone(),
        });
        ticket
    }

    /// A ticket for what ends at `next_offset` and was appended before.
    pub(super) fn share(&self, next_offset: Offset) -> Ticket {
        let at = self.queue.partition_point(|waiting| waiting.end.offset < next_offset);
        self.queue
            .get(at)
            .map_or_else(Ticket::settled, |waiting| waiting.ticket.clone())
    }

    /// Hands over all tickets, each with the offset after its append, and waits on with others.
    pub(super) fn renew(&mut self) -> impl Iterator<Item = (Offset, Ticket)> {
        let renew = |waiting: &mut Waiting| {
            (
                waiting.end.offset,
                std::mem::replace(&mut waiting.ticket, Ticket::open()),
            )
        };
        self.queue.iter_mut().map(renew)
    }

    /// Everything of the segment up to `position` is durable. Returns the end of the last append that this covers.
    pub(super) fn settle(&mut self, segment: Offset, position: u64) -> Option<DurablePoint> {
        let mut reached = None;
        while let Some(waiting) = self
            .queue
            .pop_front_if(|waiting| waiting.end.segment == segment && waiting.end.position <= position)
        {
            waiting.ticket.settle(&Ok(()));
            reached = Some(waiting.end);
        }
        reached
    }

    /// Nothing beyond `end` will ever become durable.
    pub(super) fn fail_after(&mut self, end: Offset, error: &LogError) {
        while let Some(waiting) = self.queue.pop_back_if(|waiting| waiting.end.offset > end) {
            waiting.ticket.settle(&Err(error.clone()));
        }
    }
}
