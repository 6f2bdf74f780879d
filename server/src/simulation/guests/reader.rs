//! A reader of the client library: follows a partition from its start, and tells the ledger what it is handed.

use std::{cell::Cell, rc::Rc, time::Duration};

use headwater_client::{Advance, Client, Consumer, Error, PartitionIndex, Records, Skip, SkipCause, Start};

use super::{
    client::{Brokers, connect},
    ledger::{Ledger, Sent},
    scenario::TOPIC,
    wire::{pause, tell},
};
use crate::machine;

pub(in crate::simulation) struct Reader {
    pub(in crate::simulation) number: u32,
    pub(in crate::simulation) partition: i32,
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) ledger: Rc<Ledger>,
    /// The run is over.
    pub(in crate::simulation) is_over: Rc<Cell<bool>>,
}

impl Reader {
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        let mut consumer = self.build(&client).await;
        let mut position = consumer.positions()[0].position.get();
        self.ledger.pass_over(self.partition, 0, position);
        while !self.is_over.get() {
            match consumer.advance().await {
                Ok(Advance::Records(records)) => position = self.see(&consumer, &records, position),
                Ok(Advance::Skip(skip)) => position = self.pass_over(&skip, position),
                Err(error @ (Error::OffsetOutOfRange { .. } | Error::CorruptBatch { .. })) => {
                    panic!("at {position} of partition {}: {error}", self.partition)
                }
                // It goes on where it was.
                Err(error) => tell(&format!("cannot read: {error}")),
            }
            if machine::random::<u32>().is_multiple_of(4) {
                pause(Duration::from_millis(300)).await;
            }
        }
    }

    async fn build(&self, client: &Client) -> Consumer {
        let fetch_bytes = 1 << (10 + machine::random::<u32>() % 8);
        loop {
            let building = client
                .consumer()
                .assign(TOPIC, [PartitionIndex::new(self.partition)])
                .start(Start::Earliest)
                .wait_max(Duration::from_millis(200))
                .partition_bytes_max(fetch_bytes)
                .fetch_bytes_max(fetch_bytes)
                .build();
            match building.await {
                Ok(consumer) => return consumer,
                Err(error) => tell(&format!("cannot be built: {error}")),
            }
            pause(Duration::from_millis(400)).await;
        }
    }

    /// Returns the next position.
    fn pass_over(&self, skip: &Skip, position: u64) -> u64 {
        assert_eq!((skip.from.get(), skip.cause), (position, SkipCause::Deleted));
        tell(&format!("is overtaken: {skip:?}"));
        self.ledger.pass_over(self.partition, position, skip.to.get());
        skip.to.get()
    }

    /// Returns the next position.
    fn see(&self, consumer: &Consumer, records: &Records, mut position: u64) -> u64 {
        let high_watermark = consumer.positions()[0].high_watermark;
        let high_watermark = high_watermark.expect("there was an answer").get();
        let high_watermark = self.ledger.watermark(self.number, self.partition, high_watermark);
        for record in records {
            let record = record.expect("a record that was stored is whole");
            assert_eq!(
                record.offset.get(),
                position,
                "a reader is not told of what it passes over in partition {}",
                self.partition
            );
            assert!(
                position < high_watermark,
                "offset {position} is beyond the high watermark"
            );
            let value = record.value.expect("no record was sent without a value");
            self.ledger.see(self.partition, position, Sent::of(value));
            position += 1;
        }
        position
    }
}
