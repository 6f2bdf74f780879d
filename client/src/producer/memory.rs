//! The producer's memory: one budget in bytes for all batches between the first record and the acknowledgement.
//!
//! Buffers of batches that have ended are kept for the next ones, up to [`SPARE_SHARE`] of the budget on top of it: fresh
//! memory costs a page fault for every 4 KiB.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::runtime::sync::Mutex;

/// Of the budget, this part may lie in spare buffers: about what one response acknowledges at a time.
const SPARE_SHARE: usize = 8;

/// The budget. Whoever waits for bytes gets them in the order of asking.
#[derive(Debug)]
pub(super) struct Memory {
    bytes: Semaphore,
    max: usize,
    spare: Mutex<Vec<Vec<u8>>>,
}

impl Memory {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes: Semaphore::new(max),
            max,
            spare: Mutex::default(),
        })
    }

    /// The whole budget in bytes.
    pub(super) fn max(&self) -> usize {
        self.max
    }

    /// Whether more than half is taken: then it is better to fill batches than to send them soon.
    pub(super) fn is_short(&self) -> bool {
        self.used() > self.max / 2
    }

    /// Bytes that are taken.
    pub(super) fn used(&self) -> usize {
        self.max - self.bytes.available_permits()
    }

    /// An empty buffer for what is reserved. If it is larger, so is the reservation from then on.
    pub(super) fn buffer(self: &Arc<Self>, reserved: &mut Reservation) -> Vec<u8> {
        let bytes = reserved.bytes();
        let spare = self.spare.lock().pop();
        // One that is too small or far too large belongs to a time of other batches.
        if let Some(spare) = spare.filter(|spare| (bytes..=2 * bytes).contains(&spare.capacity()))
            && let Some(more) = self.try_reserve(spare.capacity() - bytes)
        {
            reserved.merge(more);
            return spare;
        }
        Vec::with_capacity(bytes)
    }

    /// Keeps a batch's buffer for another, if nobody else holds it.
    fn recycle(&self, batch: Bytes) {
        if !batch.is_unique() {
            return;
        }
        let mut buffer = Vec::from(batch);
        buffer.clear();
        let mut spare = self.spare.lock();
        let held: usize = spare.iter().map(Vec::capacity).sum();
        if held + buffer.capacity() <= self.max / SPARE_SHARE {
            spare.push(buffer);
        }
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

    /// Up to so many bytes of this, for a part of what it was for.
    pub(super) fn split_off(&mut self, bytes: usize) -> Self {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        Self {
            memory: Arc::clone(&self.memory),
            bytes,
        }
    }

    /// Gives back all of it, and leaves the batch that it was for to be used again.
    pub(super) fn recycle(self, batch: Bytes) {
        self.memory.recycle(batch);
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

    #[test]
    fn buffers_of_ended_batches_are_used_again_within_a_share_of_the_budget() {
        let memory = Memory::new(80_000);
        let reserve = |bytes| memory.try_reserve(bytes).unwrap();
        let buffer = memory.buffer(&mut reserve(4000));
        let place = buffer.as_ptr();
        let batch = Bytes::from(buffer);
        let held = batch.clone();
        memory.recycle(batch);
        assert!(memory.spare.lock().is_empty(), "it is still held");
        memory.recycle(held);
        let mut reserved = reserve(3000);
        let again = memory.buffer(&mut reserved);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        assert_eq!(reserved.bytes(), 4000, "all of the buffer counts");
        assert_eq!(memory.buffer(&mut reserve(3000)).capacity(), 3000, "there was one only");
        for _ in 0..10 {
            memory.recycle(vec![0; 4000].into());
        }
        assert_eq!(memory.spare.lock().len(), 2, "10,000 bytes of 80,000 at most");
        assert_eq!(memory.buffer(&mut reserve(1000)).capacity(), 1000, "four times as much");
        let rest = reserve(80_000 - 3500 - reserved.bytes());
        assert_eq!(
            memory.buffer(&mut reserve(3500)).capacity(),
            3500,
            "no budget is left for a larger one"
        );
        drop(rest);
    }

    #[tokio::test]
    async fn a_wait_for_more_than_there_is_ends_with_all_there_is() {
        let memory = Memory::new(100);
        assert_eq!(memory.reserve(1000).await.bytes(), 100);
    }
}
