//! Producer ids out of blocks that the quorum has reserved.
//!
//! The next block is asked for when half of the last is used, so that whoever wants an id waits for the quorum only if that takes
//! longer than the other half lasts. At most one block is reserved and not begun.

use std::{future::Future, ops::Range, pin::Pin};

use futures::future::poll_immediate;
use headwater_protocol::{error::ErrorCode, id::ProducerId};

use crate::{
    cluster::quorum::{Order, Outcome, PRODUCER_ID_BLOCK, QuorumHandle},
    model::refusal::Refusal,
};

/// With so many ids left, the next block is asked for.
const ASKED_FOR_AT: i64 = PRODUCER_ID_BLOCK / 2;

type Reserved = Result<Range<i64>, Refusal>;

/// Hands out.
pub(super) struct IdBlocks {
    quorum: QuorumHandle,
    block: Range<i64>,
    next: Option<Next>,
}

/// The next block.
enum Next {
    AskedFor(Pin<Box<dyn Future<Output = Reserved> + Send>>),
    Reserved(Reserved),
}

impl IdBlocks {
    pub(super) fn new(quorum: QuorumHandle) -> IdBlocks {
        IdBlocks {
            quorum,
            block: 0..0,
            next: None,
        }
    }

    /// An id that has never been handed out.
    pub(super) async fn next_id(&mut self) -> Result<ProducerId, Refusal> {
        if self.next.is_none() && self.block.end - self.block.start <= ASKED_FOR_AT {
            let mut asking = Box::pin(reserve(self.quorum.clone()));
            // It is asked for with the first look, whoever looks again.
            self.next = Some(match poll_immediate(&mut asking).await {
                Some(reserved) => Next::Reserved(reserved),
                None => Next::AskedFor(asking),
            });
        }
        if let Some(id) = self.block.next() {
            return Ok(ProducerId::new(id));
        }
        // If it fails, the next one who wants an id has it tried again.
        self.block = match self.next.take() {
            Some(Next::AskedFor(asking)) => asking.await?,
            Some(Next::Reserved(reserved)) => reserved?,
            None => reserve(self.quorum.clone()).await?,
        };
        let id = self.block.next().expect("a block has ids");
        Ok(ProducerId::new(id))
    }
}

async fn reserve(quorum: QuorumHandle) -> Reserved {
    match quorum.propose(Order::ReserveProducerIds).await? {
        Outcome::ProducerIds { first } => Ok(first..first + PRODUCER_ID_BLOCK),
        Outcome::Refused { code, message } => Err(Refusal::new(ErrorCode::from_i16(code), message)),
        Outcome::Nothing | Outcome::Done | Outcome::Partly(_) => Err(Refusal::new(
            ErrorCode::KafkaStorageError,
            "the quorum has given no producer ids; restart the broker",
        )),
    }
}
