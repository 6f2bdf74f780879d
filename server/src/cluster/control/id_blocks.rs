//! Producer ids in blocks: one thread reserves them, which may wait for the disk, and another hands them out.
//!
//! The next block is ordered when half of the last is used, so that whoever wants an id waits for the disk only if the disk takes
//! longer than the other half lasts. At most one block is reserved and not begun.

use std::ops::Range;

use headwater_engine::disk::Directory;
use headwater_protocol::{error::ErrorCode, id::ProducerId};
use tokio::sync::mpsc;

use crate::{
    cluster::{PRODUCER_ID_BLOCK, ProducerIds, StoreError},
    model::refusal::Refusal,
};

/// With so many ids left, the next block is ordered.
const ORDERED_AT: i64 = PRODUCER_ID_BLOCK / 2;

/// The side that hands out.
pub(super) struct IdBlocks {
    block: Range<i64>,
    orders: mpsc::Sender<()>,
    reserved: mpsc::Receiver<Result<Range<i64>, StoreError>>,
    /// A block was ordered, and is not begun.
    is_ordered: bool,
}

/// The side that reserves.
pub(super) struct Orders {
    orders: mpsc::Receiver<()>,
    reserved: mpsc::Sender<Result<Range<i64>, StoreError>>,
}

/// Both sides.
pub(super) fn channel() -> (IdBlocks, Orders) {
    let (orders, ordered) = mpsc::channel(1);
    let (sender, reserved) = mpsc::channel(1);
    let blocks = IdBlocks {
        block: 0..0,
        orders,
        reserved,
        is_ordered: false,
    };
    let orders = Orders {
        orders: ordered,
        reserved: sender,
    };
    (blocks, orders)
}

impl IdBlocks {
    /// An id that has never been handed out.
    pub(super) async fn next_id(&mut self) -> Result<ProducerId, Refusal> {
        if !self.is_ordered && self.block.end - self.block.start <= ORDERED_AT {
            self.is_ordered = self.orders.try_send(()).is_ok();
        }
        if let Some(id) = self.block.next() {
            return Ok(ProducerId::new(id));
        }
        let reserved = self.reserved.recv().await.ok_or_else(Refusal::stopping)?;
        // If it has failed, the next one who wants an id has it tried again.
        self.is_ordered = false;
        self.block = reserved.map_err(|error| Refusal::because(ErrorCode::KafkaStorageError, &error))?;
        let id = self.block.next().expect("a block has ids");
        Ok(ProducerId::new(id))
    }
}

impl Orders {
    /// Reserves what is ordered, until the other side is gone.
    pub(super) async fn fill(mut self, mut producer_ids: ProducerIds<impl Directory>) {
        while let Some(()) = self.orders.recv().await {
            if self.reserved.send(producer_ids.reserve().await).await.is_err() {
                return;
            }
        }
    }
}
