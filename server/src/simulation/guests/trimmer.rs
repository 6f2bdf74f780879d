//! One who deletes the oldest records of the topic now and then, all of a partition at times.

use std::{cell::Cell, rc::Rc, time::Duration};

use headwater_client::{Offset, OffsetSpec, PartitionIndex};

use super::{
    client::{Brokers, connect},
    ledger::Ledger,
    scenario::TOPIC,
    wire::{pause, tell},
};
use crate::machine;

pub(in crate::simulation) struct Trimmer {
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) partitions: i32,
    pub(in crate::simulation) ledger: Rc<Ledger>,
    /// The run is over.
    pub(in crate::simulation) is_over: Rc<Cell<bool>>,
}

impl Trimmer {
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        while !self.is_over.get() {
            pause(Duration::from_secs(3)).await;
            if self.is_over.get() {
                return;
            }
            let partition = machine::random::<u32>() as i32 % self.partitions;
            let partition = PartitionIndex::new(partition.abs());
            let end = client.admin().list_offset(TOPIC, partition, OffsetSpec::Latest).await;
            let end = end.ok().flatten().unwrap_or_default().get();
            let before = end - (end as f64 * machine::random::<f64>()) as u64 / 2;
            self.ledger.begin_delete(partition.get(), before);
            match client
                .admin()
                .delete_records(TOPIC, partition, Some(Offset::new(before)))
                .await
            {
                Ok(start) => {
                    tell(&format!(
                        "has deleted what lies before {start} of partition {partition}"
                    ));
                    self.ledger.end_delete(partition.get(), start.get());
                }
                Err(error) => tell(&format!("does not know whether it is deleted: {error}")),
            }
        }
    }
}
