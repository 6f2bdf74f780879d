//! A wake-up between futures of one core: "something changed, look again".
//!
//! Not `Send`, holds no data, and cannot lose a wake-up: [`Signal::wait`] counts from the moment it is called, not from
//! its first poll. Take the future first, then look at the condition, then await.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// Wakes every future that waits on it.
#[derive(Debug, Default)]
pub struct Signal {
    generation: Cell<u64>,
    wakers: RefCell<Slab<Waker>>,
}

impl Signal {
    /// Wakes all who wait now.
    pub fn notify(&self) {
        self.generation.set(self.generation.get() + 1);
        // Taken out first: a waker may run code that waits on this signal again.
        let mut wakers = self.wakers.take();
        for waker in wakers.drain() {
            waker.wake();
        }
        // The memory is for those who wait next.
        let mut next = self.wakers.borrow_mut();
        if next.is_empty() {
            *next = wakers;
        }
    }

    /// Resolves at the first [`notify`](Self::notify) after this call.
    pub fn wait(&self) -> Wait<'_> {
        Wait {
            signal: self,
            generation: self.generation.get(),
            key: None,
        }
    }

    /// Resolves once it holds: looked at now, and after each [`notify`](Self::notify).
    pub async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let changed = self.wait();
            if holds() {
                return;
            }
            changed.await;
        }
    }
}

/// Future of [`Signal::wait`]. Dropping it leaves nothing behind.
#[derive(Debug)]
#[must_use = "futures do nothing unless awaited"]
pub struct Wait<'a> {
    signal: &'a Signal,
    generation: u64,
    key: Option<usize>,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.signal.generation.get() != self.generation {
            return Poll::Ready(());
        }
        let mut wakers = self.signal.wakers.borrow_mut();
        match self.key {
            Some(key) => wakers[key].clone_from(context.waker()),
            None => self.key = Some(wakers.insert(context.waker().clone())),
        }
        Poll::Pending
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        // A notification has emptied the slab; the key then belongs to somebody else.
        if let Some(key) = self.key
            && self.signal.generation.get() == self.generation
        {
            self.signal.wakers.borrow_mut().remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_notification_between_wait_and_poll_is_not_lost() {
        let signal = Signal::default();
        let wait = signal.wait();
        signal.notify();
        assert_eq!(wait.now_or_never(), Some(()));
    }

    #[test]
    fn waiters_that_give_up_leave_nothing_behind() {
        let signal = Signal::default();
        for _ in 0..3 {
            assert_eq!(signal.wait().now_or_never(), None);
        }
        assert!(signal.wakers.borrow().is_empty());
        let mut context = Context::from_waker(Waker::noop());
        let mut old = Box::pin(signal.wait());
        assert_eq!(old.as_mut().poll(&mut context), Poll::Pending);
        signal.notify();
        let mut new = pin!(signal.wait());
        assert_eq!(new.as_mut().poll(&mut context), Poll::Pending);
        drop(old);
        assert_eq!(
            signal.wakers.borrow().len(),
            1,
            "a waiter of before took the place of one of now"
        );
    }
}
