//! One batch of a window: its content, its numbers, and whom to tell of its end.

use bytes::Bytes;
use headwater_protocol::batch::{self, BatchBuilder};
use headwater_protocol::id::Sequence;

use super::Identity;
use crate::error::Error;
use crate::producer::delivery::Completer;
use crate::producer::memory::Reservation;
use crate::producer::tally::Tally;
use crate::runtime::Instant;

#[derive(Debug)]
pub(super) struct Entry {
    /// Of its first record among all that the window was given, so that the parts of a batch have places of their own.
    pub(super) number: u64,
    pub(super) attempts: u32,
    pub(super) records: u32,
    pub(super) content: Content,
    /// Assigned when first sent; `None` also without idempotence.
    pub(super) sequence: Option<Sequence>,
    /// `None` once the batch has ended for its caller while it is in flight.
    pub(super) completer: Option<Completer>,
    pub(super) reserved: Reservation,
    /// When its first record came.
    pub(super) opened_at: Instant,
    pub(super) deadline: Instant,
    pub(super) sent_at: Instant,
    /// What came of an attempt is not known: the batch may have been appended.
    pub(super) in_doubt: bool,
    /// The broker has refused it for its size.
    pub(super) refused: Option<Error>,
}

#[derive(Debug)]
pub(super) enum Content {
    Open(BatchBuilder),
    Built(Bytes),
    /// Only between the two.
    Empty,
}

impl Entry {
    /// Bytes that the batch takes on the wire; before it is built, at most.
    pub(super) fn size(&self) -> usize {
        match &self.content {
            Content::Open(builder) => builder.len(),
            Content::Built(bytes) => bytes.len(),
            Content::Empty => 0,
        }
    }

    /// The bytes to send, numbered if there is an identity.
    pub(super) fn build(&mut self, identity: Option<&mut Identity>) -> Bytes {
        let is_new = self.sequence.is_none();
        let producer = identity.map(|identity| {
            let sequence = *self.sequence.get_or_insert_with(|| {
                let sequence = identity.next;
                identity.next = sequence.plus(self.records);
                sequence
            });
            (identity.id, identity.epoch, sequence)
        });
        let bytes = match std::mem::replace(&mut self.content, Content::Empty) {
            Content::Open(mut builder) => {
                if let Some((id, epoch, sequence)) = producer {
                    builder.set_producer(id, epoch, sequence);
                }
                let batch = builder.build();
                self.reserved.shrink_to(batch.capacity());
                batch.freeze()
            }
            Content::Built(bytes) => match producer.filter(|_| is_new) {
                None => bytes,
                Some((id, epoch, sequence)) => {
                    // Numbered anew. A copy only if the connection that failed still holds the old bytes.
                    let mut bytes = Vec::from(bytes);
                    batch::set_producer(&mut bytes, id, epoch, sequence);
                    Bytes::from(bytes)
                }
            },
            Content::Empty => unreachable!("a batch has content except while it is built"),
        };
        self.content = Content::Built(bytes.clone());
        bytes
    }

    /// Ends the batch for its callers.
    pub(super) fn fail(&mut self, error: Error, tally: &Tally) {
        if let Some(completer) = self.completer.take() {
            tally.fail(&completer, self.records, error);
        }
    }
}
