//! Load: producers that send numbered records without end, and the ledger of what was acknowledged to them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use headwater_client::{Client, Delivery, PartitionIndex, Producer, Record};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
};

use super::records::{Source, Stored};

/// Deliveries of one producer and partition that are awaited at once.
const OUTSTANDING_MAX: usize = 256;

/// Longer than any test: every record is to be acknowledged in the end, whatever happens meanwhile.
const DELIVERY_TIMEOUT: Duration = Duration::from_mins(10);

/// For each source the offset of each of its records, in the order of their numbers; `None` if the broker no longer knew.
pub type Acknowledged = BTreeMap<Source, Vec<Option<u64>>>;

/// What was sent, and what was acknowledged.
pub struct Ledger {
    sent: Mutex<BTreeMap<Source, u64>>,
    acknowledged: Mutex<Acknowledged>,
    count: watch::Sender<u64>,
}

impl Ledger {
    fn new() -> Arc<Ledger> {
        Arc::new(Ledger {
            sent: Mutex::default(),
            acknowledged: Mutex::default(),
            count: watch::Sender::new(0),
        })
    }

    fn note_sent(&self, source: Source, number: u64) {
        self.sent.lock().unwrap().insert(source, number + 1);
    }

    fn note_acknowledged(&self, source: Source, offset: Option<u64>) {
        self.acknowledged
            .lock()
            .unwrap()
            .entry(source)
            .or_default()
            .push(offset);
        self.count.send_modify(|count| *count += 1);
    }

    pub fn acknowledged(&self) -> Acknowledged {
        self.acknowledged.lock().unwrap().clone()
    }

    /// Records acknowledged so far.
    pub fn count(&self) -> u64 {
        *self.count.borrow()
    }

    /// Waits until so many records have been acknowledged.
    pub async fn await_count(&self, goal: u64) {
        let mut count = self.count.subscribe();
        count.wait_for(|count| *count >= goal).await.unwrap();
    }

    /// Panics unless the log holds exactly what was sent, each record once.
    pub fn check_complete(&self, log: &[Vec<Stored>]) {
        check(&self.acknowledged(), log);
        let sent = self.sent.lock().unwrap();
        assert_eq!(
            sent.values().sum::<u64>(),
            self.count(),
            "something that was sent was not acknowledged"
        );
        let stored: usize = log.iter().map(Vec::len).sum();
        assert_eq!(stored as u64, self.count(), "the log holds something that was not sent");
    }
}

/// Panics unless offsets are dense, each source's records follow each other without gap or repetition, and everything
/// acknowledged is where the acknowledgement said.
pub fn check(acknowledged: &Acknowledged, log: &[Vec<Stored>]) {
    let mut found: BTreeMap<Source, Vec<u64>> = BTreeMap::new();
    for (partition, records) in log.iter().enumerate() {
        for (place, record) in records.iter().enumerate() {
            assert_eq!(
                record.offset, place as u64,
                "the offsets of partition {partition} are not dense"
            );
            let (source, number) = Source::read(&record.value);
            assert_eq!(
                usize::from(source.partition),
                partition,
                "a record is in another's partition"
            );
            let offsets = found.entry(source).or_default();
            let expected = offsets.len() as u64;
            assert_eq!(
                number, expected,
                "{source:?} at offset {place}: lost, repeated or out of order"
            );
            offsets.push(record.offset);
        }
    }
    for (source, acknowledged) in acknowledged {
        let stored = found.get(source).map_or(&[][..], Vec::as_slice);
        let (have, need) = (stored.len(), acknowledged.len());
        assert!(
            have >= need,
            "{source:?}: {need} records were acknowledged, {have} are there"
        );
        for (number, (stored, acknowledged)) in stored.iter().zip(acknowledged).enumerate() {
            if let Some(acknowledged) = acknowledged {
                assert_eq!(
                    stored, acknowledged,
                    "record {number} of {source:?} is not where it was acknowledged"
                );
            }
        }
    }
}

/// Producers at work.
pub struct Load {
    pub ledger: Arc<Ledger>,
    /// One for each record that may be sent; closed at the end.
    permits: Arc<Semaphore>,
    tasks: JoinSet<()>,
}

/// What the producers send.
#[derive(Clone, Copy)]
pub struct Kind {
    pub topic: &'static str,
    pub partitions: u16,
    /// Lengths of values, in turn.
    pub value_lens: &'static [usize],
}

impl Load {
    /// One idempotent producer for each client; each sends to all partitions in turn, until the load is finished or
    /// together they have sent all the records that they may.
    pub async fn start(clients: impl IntoIterator<Item = Client>, kind: Kind, records: usize) -> Load {
        let mut load = Load {
            ledger: Ledger::new(),
            permits: Arc::new(Semaphore::new(records)),
            tasks: JoinSet::new(),
        };
        for (number, client) in clients.into_iter().enumerate() {
            let producer = client.producer().delivery_timeout(DELIVERY_TIMEOUT).memory_max(8 << 20);
            load.add(producer.build().await.unwrap(), number as u16, kind);
        }
        load
    }

    /// Lets the producers send so many more records.
    pub fn allow(&self, records: usize) {
        self.permits.add_permits(records);
    }

    /// Lets the producers send so many more records a second, for as long as the load lasts. Those that they cannot send are not kept
    /// for later.
    pub fn pace(&mut self, records: usize) {
        const TICKS: usize = 50;
        let permits = Arc::clone(&self.permits);
        self.tasks.spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / TICKS as u32);
            while !permits.is_closed() {
                if permits.available_permits() < records {
                    permits.add_permits(records / TICKS);
                }
                tick.tick().await;
            }
        });
    }

    fn add(&mut self, producer: Producer, number: u16, kind: Kind) {
        let mut queues = Vec::new();
        for partition in 0..kind.partitions {
            let source = Source {
                producer: number,
                partition,
            };
            let (queue, deliveries) = mpsc::channel(OUTSTANDING_MAX);
            self.tasks.spawn(collect(Arc::clone(&self.ledger), source, deliveries));
            queues.push((source, queue));
        }
        let (permits, ledger) = (Arc::clone(&self.permits), Arc::clone(&self.ledger));
        self.tasks.spawn(async move {
            for number in 0.. {
                let Ok(permit) = permits.acquire_many(kind.partitions.into()).await else {
                    break;
                };
                permit.forget();
                let len = kind.value_lens[number as usize % kind.value_lens.len()];
                for (source, queue) in &queues {
                    let value = source.value(number, len);
                    let partition = PartitionIndex::new(source.partition.into());
                    let record = Record::to(kind.topic).partition(partition).value(&value);
                    ledger.note_sent(*source, number);
                    let delivery = producer.send(record).await.unwrap();
                    if queue.send(delivery).await.is_err() {
                        return; // The load is being dropped.
                    }
                }
            }
            producer.close().await.unwrap();
        });
    }

    /// Ends the load once everything that was sent is acknowledged.
    pub async fn finish(mut self) -> Arc<Ledger> {
        self.permits.close();
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.ledger
    }
}

async fn collect(ledger: Arc<Ledger>, source: Source, mut deliveries: mpsc::Receiver<Delivery>) {
    while let Some(delivery) = deliveries.recv().await {
        let metadata = delivery.await.unwrap();
        ledger.note_acknowledged(source, metadata.offset.map(headwater_client::Offset::get));
    }
}
