//! The producer's memory: one budget in bytes for all batches between the first record and the acknowledgement.

use std::sync::Arc;

use tokio::sync::Semaphore;

/// The budget. Whoever waits for bytes gets them in the order of asking.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: Semaphore,
    max: usize,
}

impl Memory {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Semaphore::new(max),
            max,
        })
    }

    /// The whole budget in bytes.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> usize {
        self.max - self.bytes.available_permits()
    }

    /// Takes bytes if they are there.
    pub(super) fn try_reserve(self: &Arc<Self>, bytes: usize) -> Option<Reservation> {
        let permit = self.bytes.try_acquire_many(u32::try_from(bytes).ok()?).ok()?;
        permit.forget();
        Some(Reservation {
            memory: Arc::clone(self),
            bytes,
        })
    }

    /// Waits for bytes; at most the whole budget, so that the wait can end. May be cancelled.
    pub(super) async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        let bytes = bytes.min(self.max);
        let permit = self
            .bytes
            .acquire_many(bytes as u32)
            .await
            .expect("the semaphore is never closed");
        permit.forget();
        Reservation {
            memory: Arc::clone(self),
            bytes,
        }
    }
}

/// Bytes taken from the budget, given back on drop.
#[derive(Debug)]
pub(super) struct Reservation {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Reservation {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds `other` to this.
    pub(super) fn merge(&mut self, mut other: Self) {
        self.bytes += std::mem::take(&mut other.bytes);
    }

    /// Gives back what is above `bytes`.
    pub(super) fn shrink_to(&mut self, bytes: usize) {
        if bytes < self.bytes {
            self.memory.bytes.add_permits(self.bytes - bytes);
            self.bytes = bytes;
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.memory.bytes.add_permits(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn bytes_come_back_on_drop_and_the_first_to_wait_gets_them() {
        let memory = Memory::new(100);
        let mut first = memory.try_reserve(60).unwrap();
        first.merge(memory.try_reserve(40).unwrap());
        assert!(memory.try_reserve(1).is_none());
        let mut large = Box::pin(memory.reserve(90));
        assert!(large.as_mut().now_or_never().is_none());
        first.shrink_to(70);
        assert!(memory.try_reserve(1).is_none(), "taken from under the one who waits");
        drop(first);
        assert_eq!(large.await.bytes(), 90);
        assert_eq!(memory.used(), 0);
    }

    #[tokio::test]
    async fn a_wait_for_more_than_there_is_ends_with_all_there_is() {
        let memory = Memory::new(100);
        assert_eq!(memory.reserve(1000).await.bytes(), 100);
    }
}
