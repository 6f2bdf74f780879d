//! How many segments of one core wait to be sealed: full and durable, but not yet cut to their size, their indexes only in memory.
//!
//! Sealing takes several flushes, so records may come faster than segments are sealed: then no more records are to be read from
//! sockets until [`Unsealed::room`] says so, or files, memory and the time that a stop takes would grow without bound. Owned by one
//! core. A segment counts until an attempt to seal it has ended, however that ended: nobody waits for a disk that fails.

use std::{cell::Cell, rc::Rc};

use crate::signal::{Signal, Wait};

/// Segments of a core that may wait.
const WAITING_MAX: usize = 64;

/// Segments that wait to be sealed.
#[derive(Debug, Default)]
pub struct Unsealed {
    count: Cell<usize>,
    came: Signal,
    left: Signal,
}

impl Unsealed {
    /// How many there are.
    pub fn count(&self) -> usize {
        self.count.get()
    }

    /// Resolves when another one waits.
    pub fn came(&self) -> Wait<'_> {
        self.came.wait()
    }

    /// Whether there are too many.
    pub fn is_spent(&self) -> bool {
        self.count.get() > WAITING_MAX
    }

    /// Resolves once there are not too many.
    pub async fn room(&self) {
        self.left.until(|| !self.is_spent()).await;
    }

    /// One more waits for as long as the guard lives.
    pub(crate) fn begin(self: &Rc<Self>) -> Waiting {
        self.count.set(self.count.get() + 1);
        self.came.notify();
        Waiting(Rc::clone(self))
    }
}

/// A segment that waits to be sealed.
#[derive(Debug)]
pub(crate) struct Waiting(Rc<Unsealed>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.count.set(self.0.count.get() - 1);
        self.0.left.notify();
    }
}
