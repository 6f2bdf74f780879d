//! A member of a group, by the client library: reads what it is assigned, commits, and leaves now and then, in order or not.

use std::{
    cell::Cell,
    collections::BTreeMap,
    rc::Rc,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use headwater_client::{
    Assignor, Client, ConsumerRecord, Error, GroupConsumer, OffsetReset, PartitionIndex, RebalanceListener, TopicName,
};

use super::{
    client::{Brokers, connect},
    ledger::{Ledger, Sent},
    scenario::TOPIC,
    wire::{pause, tell},
};
use crate::machine;

const GROUP: &str = "readers";

/// A member that is silent for so long is taken for dead.
const SESSION: Duration = Duration::from_secs(6);

/// So long a generation waits for its members.
const REBALANCE: Duration = Duration::from_secs(8);

/// What a fetch takes: as much as comes over the slowest connection before somebody loses patience.
const FETCH_BYTES: u32 = 32 << 10;

pub(in crate::simulation) struct Member {
    pub(in crate::simulation) brokers: Brokers,
    pub(in crate::simulation) ledger: Rc<Ledger>,
    pub(in crate::simulation) assignor: Assignor,
    /// The library commits by itself every so often.
    pub(in crate::simulation) auto_commit: Option<Duration>,
    /// The run is over.
    pub(in crate::simulation) is_over: Rc<Cell<bool>>,
}

/// How far this member was handed each partition since it has it.
#[derive(Clone, Default)]
struct Handed(Arc<Mutex<BTreeMap<i32, u64>>>);

impl Handed {
    fn with<T>(&self, what: impl FnOnce(&mut BTreeMap<i32, u64>) -> T) -> T {
        what(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl RebalanceListener for Handed {
    fn revoked(&self, partitions: &[(TopicName, PartitionIndex)]) {
        self.with(|handed| handed.retain(|partition, _| partitions.iter().all(|(_, gone)| gone.get() != *partition)));
    }
}

impl Member {
    pub(in crate::simulation) async fn run(self) {
        let client = connect(&self.brokers).await;
        while !self.is_over.get() {
            // Whatever went wrong, it joins again.
            if let Err(error) = self.attend(&client).await {
                tell(&format!("does not take part: {error}"));
            }
            pause(Duration::from_millis(400)).await;
        }
    }

    async fn attend(&self, client: &Client) -> Result<(), Error> {
        let building = client
            .group_consumer(GROUP)
            .topics([TOPIC])
            .assignor(self.assignor)
            .session_timeout(SESSION)
            .heartbeat_interval(Duration::from_secs(1))
            .rebalance_timeout(REBALANCE)
            .auto_commit(self.auto_commit)
            .offset_reset(OffsetReset::Earliest)
            .fetching(|fetching| {
                fetching
                    .wait_max(Duration::from_millis(200))
                    .partition_bytes_max(FETCH_BYTES)
                    .fetch_bytes_max(FETCH_BYTES)
            });
        let handed = Handed::default();
        let mut passed = BTreeMap::new();
        let mut consumer = building.listener(handed.clone()).build().await?;
        while !self.is_over.get() {
            let deadline = machine::now() + Duration::from_millis(500);
            match machine::until(deadline, consumer.recv_many(50)).await {
                Some(Ok(records)) => {
                    self.process(&records, &handed, &mut passed);
                    check_skipped(&consumer, &passed);
                }
                Some(Err(error)) => tell(&format!("is told: {error}")),
                None => {}
            }
            match machine::random::<u32>() % 50 {
                0 => return consumer.close().await,
                // Without a word.
                1 => return Ok(()),
                2..22 => self.commit(&consumer, &handed).await,
                22..27 => self.look_at_commits(&consumer).await,
                _ => pause(Duration::from_millis(600)).await,
            }
        }
        Ok(())
    }

    /// Adds what it passes over of each partition.
    fn process(&self, records: &[ConsumerRecord], handed: &Handed, passed: &mut BTreeMap<i32, u64>) {
        for record in records {
            let (partition, offset) = (record.partition.get(), record.offset.get());
            let value = record.value.as_ref().expect("no record was sent without a value");
            self.ledger.see(partition, offset, Sent::of(value));
            self.ledger.process(partition, offset);
            if let Some(next) = handed.with(|handed| handed.insert(partition, offset + 1)) {
                *passed.entry(partition).or_default() += offset - next;
            }
        }
    }

    async fn commit(&self, consumer: &GroupConsumer, handed: &Handed) {
        let asked = handed.with(|handed| handed.clone()).into_iter();
        let asked = asked.map(|(partition, position)| (partition, self.ledger.committed(partition), position));
        let asked: Vec<(i32, u64, u64)> = asked.collect();
        if let Err(error) = consumer.commit().await {
            return tell(&format!("cannot commit: {error}"));
        }
        // A member that does not know yet that another goes on in its place has committed all that it was handed, and asks nobody. But
        // it may not have taken back what the other has committed.
        let is_behind = asked.iter().any(|(_, before, position)| position < before);
        for (partition, _, position) in asked {
            self.ledger.end_commit(partition, position);
        }
        if is_behind {
            self.look_at_commits(consumer).await;
        }
    }

    async fn look_at_commits(&self, consumer: &GroupConsumer) {
        for (topic, partition) in consumer.assignment() {
            let before = self.ledger.committed(partition.get());
            match consumer.committed(topic.as_str(), partition).await {
                Ok(found) => {
                    let position = found.map_or(0, |found| found.offset.get());
                    self.ledger.found_commit(partition.get(), before, position);
                }
                Err(error) => tell(&format!("does not learn what is committed: {error}")),
            }
        }
    }
}

/// What is passed over is told.
fn check_skipped(consumer: &GroupConsumer, passed: &BTreeMap<i32, u64>) {
    let told = consumer.skipped();
    for (partition, passed) in passed.iter().filter(|(_, passed)| **passed > 0) {
        let told = told.iter().find(|told| told.partition.get() == *partition);
        let told = told.map_or(0, |told| told.deleted);
        assert!(
            told >= *passed,
            "a member passes over {passed} of partition {partition} and tells of {told}"
        );
    }
}
