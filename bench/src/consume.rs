//! The consuming side: one consumer reads every partition from its first record up to the high watermark, and verifies.
//!
//! Runs where it is awaited, best on a thread that is not one of the runtime's workers. Batches are walked over in place.
//! A damaged batch does not end the run: each of its records counts as corrupt, and reading goes on behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use headwater_client::{Client, Consumer, Error, Offset, OffsetSpec, PartitionIndex, Records, Start};

use crate::error::BenchError;
use crate::payload::Payload;
use crate::progress::Counter;
use crate::report::Phase;
use crate::workload::{Expectation, Verifier};

/// A broker that has told the high watermark must come up with the records within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Between two chances for the rest of the thread's work, so many batches are taken.
const STRIDE: u32 = 64;

/// Most records of damaged batches that are passed one by one; beyond it the log is not worth reading.
const UNREADABLE_MAX: u64 = 100_000;

/// Why a consume has no latency.
pub const NO_LATENCY: &str =
    "consume reads what was stored before, as fast as it comes: the time since a record was sent says nothing";

/// What is consumed.
#[derive(Debug)]
pub struct Plan {
    /// Where from.
    pub client: Client,
    /// The topic.
    pub topic: String,
    /// How the records are verified, if they are.
    pub verify: Option<Verify>,
    /// Go on behind the high watermark.
    pub follow: bool,
}

/// What the records should be.
#[derive(Debug)]
pub struct Verify {
    /// Their values.
    pub payload: Arc<Payload>,
    /// What is known of their streams. `None`: nothing.
    pub expectation: Option<Expectation>,
    /// How many there should be, if that is known.
    pub records: Option<u64>,
}

/// How far each partition is to be read, and what came.
struct Reading {
    /// By partition: where to stop.
    ends: Vec<Offset>,
    /// Partitions that have not got there.
    open: usize,
    done: Vec<bool>,
    verifier: Option<Verifier>,
    records: u64,
    bytes: u64,
    unreadable: u64,
    received: Arc<Counter>,
}

/// Consumes as planned.
pub async fn run(plan: Plan, received: Arc<Counter>) -> Result<Phase, BenchError> {
    let Plan {
        client,
        topic,
        verify,
        follow,
    } = plan;
    let starts = offsets(&client, &topic, OffsetSpec::Earliest).await?;
    let ends = offsets(&client, &topic, OffsetSpec::Latest).await?;
    let expected_records = verify.as_ref().and_then(|verify| verify.records);
    let verifier = verify.map(|verify| {
        let is_whole = starts.iter().all(|&start| start == Offset::default());
        let unknown = if is_whole {
            Expectation::FromTheFirst
        } else {
            Expectation::FromAnywhere
        };
        Verifier::new(verify.payload, verify.expectation.unwrap_or(unknown))
    });
    let consumer = client.consumer().topics([&topic]).start(Start::Earliest).build().await;
    let mut consumer = consumer.map_err(BenchError::client("cannot start a consumer"))?;
    let mut reading = Reading::new(&starts, ends, verifier, received);
    let started = Instant::now();
    if follow {
        tokio::select! {
            result = reading.run(&mut consumer, true) => result?,
            interrupted = tokio::signal::ctrl_c() => interrupted.map_err(BenchError::Threads)?,
        }
    } else {
        reading.run(&mut consumer, false).await?;
    }
    let elapsed = started.elapsed();
    let mut phase = Phase::new("consume", reading.records, reading.bytes, elapsed).without_latency(NO_LATENCY);
    if let Some(verifier) = reading.verifier {
        let mut damage = verifier.finish();
        if let Some(expected) = expected_records {
            let seen = reading.records.saturating_sub(damage.duplicated) + reading.unreadable;
            damage.lost = damage.lost.max(expected.saturating_sub(seen));
        }
        phase = phase.verified(damage);
    }
    Ok(phase)
}

async fn offsets(client: &Client, topic: &str, spec: OffsetSpec) -> Result<Vec<Offset>, BenchError> {
    let listed = client.admin().list_offsets(topic, spec).await;
    let listed = listed.map_err(BenchError::client("cannot look up the topic's offsets"))?;
    Ok(listed.into_iter().map(Option::unwrap_or_default).collect())
}

impl Reading {
    fn new(starts: &[Offset], ends: Vec<Offset>, verifier: Option<Verifier>, received: Arc<Counter>) -> Self {
        let done: Vec<bool> = starts.iter().zip(&ends).map(|(start, end)| start >= end).collect();
        let open = done.iter().filter(|&&done| !done).count();
        Self {
            ends,
            open,
            done,
            verifier,
            records: 0,
            bytes: 0,
            unreadable: 0,
            received,
        }
    }

    async fn run(&mut self, consumer: &mut Consumer, follow: bool) -> Result<(), BenchError> {
        let mut batches = 0_u32;
        while follow || self.open > 0 {
            let next = if follow {
                consumer.recv_batch().await
            } else {
                let next = tokio::time::timeout(PATIENCE, consumer.recv_batch()).await;
                next.unwrap_or(Err(Error::Timeout {
                    operation: "receive what is below the high watermark",
                    limit: PATIENCE,
                    last: None,
                }))
            };
            match next {
                Ok(records) => self.take(&records),
                Err(error) => self.pass(consumer, error).await?,
            }
            batches += 1;
            if batches.is_multiple_of(STRIDE) {
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    fn take(&mut self, records: &Records) {
        let partition = records.partition();
        let (mut count, mut bytes) = (0, 0);
        let mut next = records.first_offset();
        for record in records {
            let Ok(record) = record else {
                // The batch is whole, but this record and those behind it cannot be told apart.
                let rest = records.next_offset().distance_from(next).unwrap_or_default();
                (0..rest).for_each(|_| self.unreadable(partition));
                break;
            };
            next = record.offset.next();
            count += 1;
            bytes += record.value.map_or(0, <[u8]>::len) as u64;
            if let Some(verifier) = &mut self.verifier {
                verifier.check(partition, record.key, record.value);
            }
        }
        self.records += count;
        self.bytes += bytes;
        self.received.add(count, bytes);
        self.reached(partition, records.next_offset());
    }

    /// Passes a record that lies in a damaged batch; any other error ends the run. How many records such a batch has is
    /// not known, as its header may be what is damaged, hence one by one.
    async fn pass(&mut self, consumer: &mut Consumer, error: Error) -> Result<(), BenchError> {
        let unverified = self.verifier.is_none();
        match &error {
            Error::CorruptBatch {
                topic,
                partition,
                offset,
                ..
            } if !unverified && self.unreadable < UNREADABLE_MAX => {
                self.unreadable(*partition);
                self.reached(*partition, offset.next());
                let sought = consumer.seek(topic.as_str(), *partition, offset.next()).await;
                sought.map_err(BenchError::client("cannot go on behind a damaged batch"))
            }
            _ => Err(BenchError::client("cannot consume")(error)),
        }
    }

    fn unreadable(&mut self, partition: PartitionIndex) {
        self.unreadable += 1;
        if let Some(verifier) = &mut self.verifier {
            verifier.unreadable(partition);
        }
    }

    fn reached(&mut self, partition: PartitionIndex, next: Offset) {
        let index = partition.as_usize();
        if self.ends.get(index).is_some_and(|&end| next >= end) && !self.done[index] {
            self.done[index] = true;
            self.open -= 1;
        }
    }
}
