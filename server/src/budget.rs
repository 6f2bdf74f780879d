//! A core's budget of bytes for one purpose, and back-pressure: whoever wants bytes when it is spent waits.
//!
//! Owned by one core. A [`Lease`] gives its bytes back when it is dropped. One lease is always granted while none is out,
//! however large, so that a limit below the largest request slows the broker down instead of stopping it.

use std::{cell::Cell, rc::Rc};

use headwater_engine::Signal;

/// Bytes that may be in use at once.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: u64,
    used: Cell<u64>,
    freed: Signal,
}

impl Budget {
    pub(crate) fn new(limit: u64) -> Rc<Budget> {
        Rc::new(Budget {
            limit,
            used: Cell::new(0),
            freed: Signal::default(),
        })
    }

    /// Bytes in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.get()
    }

    /// Waits until the bytes fit.
    pub(crate) async fn lease(self: &Rc<Self>, bytes: u64) -> Lease {
        loop {
            let freed = self.freed.wait();
            let used = self.used.get();
            if used == 0 || used + bytes <= self.limit {
                self.used.set(used + bytes);
                return Lease {
                    budget: Rc::clone(self),
                    bytes,
                };
            }
            freed.await;
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
        self.budget.freed.notify();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn who_finds_the_budget_spent_waits_until_enough_is_given_back() {
        let budget = Budget::new(100);
        let first = budget.lease(60).now_or_never().unwrap();
        let mut second = Box::pin(budget.lease(50));
        assert!(second.as_mut().now_or_never().is_none());
        drop(first);
        let second = second.now_or_never().unwrap();
        assert_eq!(budget.used.get(), 50);
        drop(second);
        let oversized = budget.lease(1_000).now_or_never();
        assert!(
            oversized.is_some(),
            "a request larger than the limit must still pass, alone"
        );
    }
}
