//! A core's budget of bytes for one purpose, and back-pressure: whoever wants bytes when it is spent waits.
//!
//! Owned by one core. A [`Lease`] gives its bytes back when it is dropped. Leases are granted in the order in which they were
//! asked for: a large one waits at the head of the queue and small ones behind it, or it would wait for ever near the limit. One is always
//! granted while none is out, however large, so that a limit below the largest request slows the broker down instead of
//! stopping it.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use headwater_engine::Signal;

/// Bytes that may be in use at once.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: Cell<u64>,
    /// Who waits, in the order of coming.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_place: Cell<u64>,
    /// Somebody has begun to wait.
    contended: Signal,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Rc<Budget> {
        Rc::new(Budget {
            limit,
            used: Cell::new(0),
            waiting: RefCell::default(),
            next_place: Cell::new(0),
            contended: Signal::default(),
        })
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.get()
    }

    /// Resolves once the bytes fit and everybody who came before has theirs. Dropping it before leaves the queue.
    pub(crate) fn lease(self: &Rc<Self>, bytes: u64) -> Turn {
        Turn {
            budget: Rc::clone(self),
            bytes,
            place: None,
        }
    }

    /// The bytes, if they fit and nobody waits for theirs.
    pub(crate) fn try_lease(self: &Rc<Self>, bytes: u64) -> Option<Lease> {
        let is_free = self.waiting.borrow().is_empty() && self.fits(bytes);
        is_free.then(|| self.granted(bytes))
    }

    fn granted(self: &Rc<Self>, bytes: u64) -> Lease {
        self.used.set(self.used.get() + bytes);
        Lease {
            budget: Rc::clone(self),
            bytes,
        }
    }

    /// Resolves when somebody waits: whoever holds bytes only because there was no hurry should give them back.
    pub(crate) async fn contended(&self) {
        self.contended.until(|| !self.waiting.borrow().is_empty()).await;
    }

    fn fits(&self, bytes: u64) -> bool {
        let used = self.used.get();
        used == 0 || used.saturating_add(bytes) <= self.limit
    }

    /// Lets the first in the queue look again.
    fn wake_first(&self) {
        let first = self.waiting.borrow().first_key_value().map(|(_, waker)| waker.clone());
        if let Some(waker) = first {
            waker.wake();
        }
    }
}

/// A lease that was asked for.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub(crate) struct Turn {
    budget: Rc<Budget>,
    bytes: u64,
    /// In the queue, once it has had to wait.
    place: Option<u64>,
}

impl Future for Turn {
    type Output = Lease;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Lease> {
        let budget = Rc::clone(&self.budget);
        let first = budget.waiting.borrow().keys().next().copied();
        let is_next = first.is_none() || first == self.place;
        if is_next && budget.fits(self.bytes) {
            let lease = budget.granted(self.bytes);
            if let Some(place) = self.place.take() {
                budget.waiting.borrow_mut().remove(&place);
                // There may be enough for the next one too.
                budget.wake_first();
            }
            return Poll::Ready(lease);
        }
        let has_come = self.place.is_none();
        let place = *self
            .place
            .get_or_insert_with(|| budget.next_place.replace(budget.next_place.get() + 1));
        budget.waiting.borrow_mut().insert(place, context.waker().clone());
        if has_come {
            budget.contended.notify();
        }
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.budget.waiting.borrow_mut().remove(&place);
            // It may have been what the others waited for.
            self.budget.wake_first();
        }
    }
}

/// Bytes of a [`Budget`], held.
#[derive(Debug)]
pub(crate) struct Lease {
    budget: Rc<Budget>,
    bytes: u64,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.budget.used.set(self.budget.used.get() - self.bytes);
        self.budget.wake_first();
    }
}

#[cfg(test)]
mod tests;
