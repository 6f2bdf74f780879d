//! The producing side: several producers, each on a thread of its own, in a closed loop bounded by the client's memory.
//!
//! A producer thread does nothing but number records, take their values from the payload, and hand them to the client,
//! whose own tasks run on the runtime's workers. One record in `SAMPLE_EVERY` is followed to its acknowledgement by
//! another task. What is reported is acknowledged: the clock stops when the last acknowledgement is there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use headwater_client::{Client, Delivery, Error, ErrorCode, NewTopic, PartitionIndex, Producer, Record};
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::cli::LoadArgs;
use crate::error::BenchError;
use crate::payload::Payload;
use crate::progress::Counter;
use crate::report::Phase;
use crate::workload::{PARTITIONS_MAX, ProducerIndex, RecordKey, RunId, Sequence, StreamId};

/// One record in so many is timed. A prime, so that every place in a batch has its turn.
pub const SAMPLE_EVERY: u64 = 61;

/// What the latency is.
const LATENCY: &str = "from the call that hands a record to the client until the task that waits for its \
    acknowledgement runs; one record in 61 is measured";

/// Between two looks at the clock, a producer sends so many records.
const STRIDE: u64 = 64;

/// What is produced, and where to.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Addresses of brokers.
    pub bootstrap: String,
    /// The topic; made if it is missing.
    pub topic: String,
    /// How much, and how.
    pub load: LoadArgs,
    /// The values.
    pub payload: Arc<Payload>,
    /// No more bytes of values than this are sent, whatever the load says.
    pub bytes_max: u64,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Produced {
    /// The figures.
    pub phase: Phase,
    /// How many records of each stream.
    pub acknowledged: HashMap<StreamId, u64>,
}

/// Produces as planned; returns when everything is acknowledged.
pub async fn run(plan: Plan, sent: Arc<Counter>) -> Result<Produced, BenchError> {
    let partitions = ensure_topic(&plan).await?;
    let run = RunId::random();
    let stop = Arc::new(AtomicBool::new(false));
    let _stop_when_dropped = StopOnDrop(Arc::clone(&stop));
    let mut jobs = Vec::new();
    for index in 0..plan.load.producers {
        let streams = streams(run, index, partitions)?;
        let producer = connect(&plan).await?;
        let job = Job {
            producer,
            topic: plan.topic.clone(),
            payload: Arc::clone(&plan.payload),
            streams,
            first: usize::from(index),
            until: Until::new(&plan),
            sent: Arc::clone(&sent),
            stop: Arc::clone(&stop),
        };
        jobs.push(job);
    }
    let (samples, times) = mpsc::unbounded_channel();
    let times = tokio::spawn(measure(times, Arc::clone(&stop)));
    let started = Instant::now();
    let threads: Vec<_> = jobs
        .into_iter()
        .map(|job| {
            let (runtime, samples) = (Handle::current(), samples.clone());
            tokio::task::spawn_blocking(move || runtime.block_on(job.run(samples)))
        })
        .collect();
    drop(samples);
    let mut acknowledged = HashMap::new();
    let mut bytes = 0;
    for thread in threads {
        let done = thread.await.map_err(|error| BenchError::Threads(error.into()))??;
        acknowledged.extend(done.acknowledged);
        bytes += done.bytes;
    }
    let elapsed = started.elapsed();
    let latencies = times.await.map_err(|error| BenchError::Threads(error.into()))?;
    let records = acknowledged.values().sum();
    let phase = Phase::new("produce", records, bytes, elapsed).with_latency(&latencies, LATENCY);
    Ok(Produced { phase, acknowledged })
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Makes the topic if it is missing. Returns how many partitions it has.
async fn ensure_topic(plan: &Plan) -> Result<usize, BenchError> {
    let client = client(&plan.bootstrap).await?;
    let topic = NewTopic::new(&plan.topic).partitions(plan.load.partitions.cast_signed());
    match client.admin().create_topic(topic).await {
        Ok(created) => return Ok(created.partitions),
        Err(error) if error.code() == Some(ErrorCode::TopicAlreadyExists) => {}
        Err(error) => return Err(BenchError::client("cannot make the topic")(error)),
    }
    let described = client.admin().describe_topic(&plan.topic).await;
    let described = described.map_err(BenchError::client("cannot look up the topic"))?;
    Ok(described.partitions.len())
}

/// A client of its own, with connections of its own.
pub async fn client(bootstrap: &str) -> Result<Client, BenchError> {
    let connected = Client::connect(bootstrap).await;
    connected.map_err(BenchError::client("cannot connect"))
}

async fn connect(plan: &Plan) -> Result<Producer, BenchError> {
    let producer = client(&plan.bootstrap)
        .await?
        .producer()
        .batch_bytes(plan.load.batch_bytes as usize)
        .in_flight_bytes_max(plan.load.in_flight_bytes as usize)
        .memory_max(plan.load.client_memory() as usize)
        .linger(plan.load.linger)
        .compression(plan.load.compression)
        .build()
        .await;
    producer.map_err(BenchError::client("cannot start a producer"))
}

/// One stream for each partition.
fn streams(run: RunId, producer: u16, partitions: usize) -> Result<Vec<StreamId>, BenchError> {
    let stream = |partition| {
        let partition = PartitionIndex::new(i32::try_from(partition).ok()?);
        StreamId::new(run, ProducerIndex::new(producer)?, partition)
    };
    let streams: Option<Vec<_>> = (0..partitions).map(stream).collect();
    streams.ok_or_else(|| {
        BenchError::Options(format!(
            "the topic has {partitions} partitions; the bench can tell {PARTITIONS_MAX} apart: use another topic"
        ))
    })
}

/// When a producer has done its share.
#[derive(Debug, Clone, Copy)]
struct Until {
    time: Option<Duration>,
    bytes: u64,
}

impl Until {
    fn new(plan: &Plan) -> Self {
        let share = |bytes: u64| bytes.div_ceil(u64::from(plan.load.producers));
        match plan.load.bytes {
            Some(bytes) => Self {
                time: None,
                bytes: share(bytes.min(plan.bytes_max)),
            },
            None => Self {
                time: Some(Duration::from_secs_f64(plan.load.seconds)),
                bytes: share(plan.bytes_max),
            },
        }
    }
}

/// What one producer does.
struct Job {
    producer: Producer,
    topic: String,
    payload: Arc<Payload>,
    /// By partition.
    streams: Vec<StreamId>,
    /// The partition of the first record: producers begin at different ones.
    first: usize,
    until: Until,
    sent: Arc<Counter>,
    stop: Arc<AtomicBool>,
}

/// What one producer did.
struct Done {
    acknowledged: Vec<(StreamId, u64)>,
    bytes: u64,
}

/// A record that is followed to its acknowledgement.
struct Sample {
    sent_at: Instant,
    delivery: Delivery,
}

impl Job {
    async fn run(self, samples: mpsc::UnboundedSender<Sample>) -> Result<Done, BenchError> {
        let mut counts = vec![0; self.streams.len()];
        let mut partition = self.first % self.streams.len();
        let (mut records, mut bytes, mut reported) = (0_u64, 0_u64, 0_u64);
        let started = Instant::now();
        loop {
            if records.is_multiple_of(STRIDE) {
                self.sent.add(STRIDE.min(records), bytes - reported);
                reported = bytes;
                let over = self.until.time.is_some_and(|time| started.elapsed() >= time);
                if over || self.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            if bytes >= self.until.bytes {
                break;
            }
            let (stream, sequence) = (self.streams[partition], Sequence::new(counts[partition]));
            let key = RecordKey { stream, sequence }.to_bytes();
            let value = self.payload.value(stream, sequence);
            let record = Record::to(&self.topic)
                .partition(stream.partition())
                .key(&key)
                .value(value);
            let timed = records.is_multiple_of(SAMPLE_EVERY).then(Instant::now);
            let delivery = self.producer.send(record).await;
            let delivery = delivery.map_err(BenchError::client("cannot send"))?;
            if let Some(sent_at) = timed {
                // The receiver only goes away when the run is given up.
                let _ = samples.send(Sample { sent_at, delivery });
            }
            counts[partition] += 1;
            partition = (partition + 1) % self.streams.len();
            records += 1;
            bytes += value.len() as u64;
        }
        // Fails if any record did, those that were not followed included.
        let closed = self.producer.close().await;
        closed.map_err(BenchError::client("records were not acknowledged"))?;
        let acknowledged = self.streams.into_iter().zip(counts).collect();
        Ok(Done { acknowledged, bytes })
    }
}

/// Waits for the acknowledgements of samples, in nanoseconds. The first that fails stops the producers.
async fn measure(mut samples: mpsc::UnboundedReceiver<Sample>, stop: Arc<AtomicBool>) -> Histogram<u64> {
    let mut latencies = histogram();
    let mut open = FuturesUnordered::new();
    let acknowledged = async |sample: Sample| -> Result<Duration, Error> {
        sample.delivery.await?;
        Ok(sample.sent_at.elapsed())
    };
    let mut more = true;
    while more || !open.is_empty() {
        tokio::select! {
            sample = samples.recv(), if more => match sample {
                Some(sample) => open.push(acknowledged(sample)),
                None => more = false,
            },
            Some(latency) = open.next() => match latency {
                Ok(latency) => latencies.saturating_record(latency.as_nanos() as u64),
                // Reported by the producer's `close`.
                Err(_error) => stop.store(true, Ordering::Relaxed),
            },
        }
    }
    latencies
}

/// Nanoseconds up to ten minutes, to three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are legal")
}
