//! A producer of the client library: sends its records, and the ledger notes each that was acknowledged.

use std::{cell::Cell, rc::Rc, time::Duration};

use futures::{FutureExt as _, StreamExt as _, stream::FuturesUnordered};
use headwater_client::{self as client, Client, Compression, Delivery, PartitionIndex, Record};

use super::{
    client::{Brokers, connect},
    ledger::{Ledger, Sent},
    scenario::TOPIC,
    wire::{pause, tell},
};
use crate::machine::{self, simulated::here};

/// Nothing is given up: whatever was taken is acknowledged in the end.
const DELIVERY_MAX: Duration = Duration::from_hours(24);

pub(in crate::simulation) struct Producer {
    pub(in crate::simulation) number: u32,
    pub(in crate::simulation) partition: i32,
    pub(in crate::simulation) is_idempotent: bool,
    /// Each record makes a batch of its own, all of the same size.
    pub(in crate::simulation) is_even: bool,
    /// Records to send, at most.
    pub(in crate::simulation) count: u32,
    /// Between two records, at most.
    pub(in crate::simulation) pause: Duration,
    /// Nothing new is sent any more.
    pub(in crate::simulation) is_calm: Rc<Cell<bool>>,
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) ledger: Rc<Ledger>,
}

impl Producer {
    /// Works until everything is acknowledged.
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        let producer = self.build(&client).await;
        let mut under_way = FuturesUnordered::new();
        for number in 0..self.count {
            if self.is_calm.get() {
                break;
            }
            let record = Sent::new(self.number, number, self.is_idempotent, self.is_even);
            self.ledger.send(self.partition, record);
            let delivery = self.send(&producer, record).await;
            under_way.push(self.settle(record, delivery));
            while under_way.next().now_or_never().flatten().is_some() {}
            if machine::random::<u32>().is_multiple_of(4) {
                pause(self.pause).await;
            }
        }
        while under_way.next().await.is_some() {}
        tell("is done");
    }

    /// A producer, set in one way or another.
    async fn build(&self, client: &Client) -> client::Producer {
        let world = here().expect("a producer is in a world").world;
        let linger = Duration::from_millis([0, 0, 20][world.draw(0..3)]);
        let batch_bytes = if self.is_even {
            4 << 10
        } else {
            [1 << 10, 16 << 10, 256 << 10][world.draw(0..3)]
        };
        let in_flight = [1, 5, 64][world.draw(0..3)];
        let is_compressed = !self.is_even && world.chance(0.3);
        let compression = if is_compressed {
            Compression::Lz4
        } else {
            Compression::None
        };
        loop {
            let building = client
                .producer()
                .idempotent(self.is_idempotent)
                .delivery_timeout(DELIVERY_MAX)
                .linger(linger)
                .batch_bytes(batch_bytes)
                .in_flight_batches_max(in_flight)
                .compression(compression)
                .build();
            match building.await {
                Ok(producer) => return producer,
                Err(error) => tell(&format!("cannot be built: {error}")),
            }
            pause(Duration::from_millis(400)).await;
        }
    }

    /// Has the library take a record.
    async fn send(&self, producer: &client::Producer, record: Sent) -> Delivery {
        let value = record.value();
        loop {
            let record = Record::to(TOPIC)
                .partition(PartitionIndex::new(self.partition))
                .value(&value);
            match producer.send(record).await {
                Ok(delivery) => return delivery,
                Err(error) => tell(&format!("cannot send: {error}")),
            }
            pause(Duration::from_millis(400)).await;
        }
    }

    async fn settle(&self, record: Sent, delivery: Delivery) {
        let stored = delivery
            .await
            .unwrap_or_else(|error| panic!("{record:?} is given up: {error}"));
        let offset = stored.offset.expect("an acknowledged record has an offset");
        self.ledger.promise(self.partition, record, offset.get());
    }
}
