//! The producing side: several producers, each on a thread of its own.
//!
//! A producer thread does nothing but number records, take their values from the payload, and hand them to the target's
//! client, whose own tasks run on the runtime's workers. On a closed loop one record in `SAMPLE_EVERY` is followed to
//! its acknowledgement by another task, on a schedule every one. What is reported is acknowledged: the clock stops when
//! the last acknowledgement is there. How late the thread is with its schedule by itself, and the task with acknowledgements, is
//! measured apart, and no part of the latency.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use hdrhistogram::Histogram;
use headwater_client::PartitionIndex;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::clock::{self, Moment};
use super::meter::{Meter, Recorder, histogram};
use super::pace::{Debt, Pace, Schedule};
use super::wake;
use crate::cli::LoadArgs;
use crate::error::BenchError;
use crate::failover::acknowledgements::Acknowledgements;
use crate::payload::{KeySource, Keys, Payload};
use crate::target::{Outgoing, Target, TargetProducer};
use crate::workload::{PARTITIONS_MAX, ProducerIndex, RunId, Sequence, Stamp, StreamId};

/// On a closed loop, one record in so many is timed. A prime, so that every place in a batch has its turn.
pub const SAMPLE_EVERY: u64 = 61;

/// Between two looks at the clock, a producer on a closed loop sends so many records.
const STRIDE: u64 = 64;

/// A producer that waits for its schedule looks this often whether it should stop.
const NAP_MAX: Duration = Duration::from_millis(50);

/// All producers are ready this long before the first record is due.
const RUN_UP: Duration = Duration::from_millis(2);

/// What is produced, and how.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The topic; made if it is missing.
    pub topic: String,
    /// How much, and how.
    pub load: LoadArgs,
    /// The values.
    pub payload: Arc<Payload>,
    /// The keys.
    pub keys: Keys,
    /// No more bytes of values than this are sent, whatever the load says.
    pub bytes_max: u64,
    /// Whether consumers time records, so that each must say when it was sent.
    pub stamp_each: bool,
    /// Who follows it from outside.
    pub hooks: Hooks,
}

/// Who follows a run from outside, on a schedule: on a closed loop not every record is followed.
#[derive(Debug, Clone, Default)]
pub struct Hooks {
    /// Is told of every acknowledgement.
    pub acknowledged: Option<Arc<Acknowledgements>>,
    /// Ends it before its time.
    pub end: Option<Arc<AtomicBool>>,
}

/// What was acknowledged.
#[derive(Debug)]
pub struct Produced {
    /// How many records of each stream, those of the warm-up included.
    pub acknowledged: HashMap<StreamId, u64>,
    /// Of their values.
    pub bytes: u64,
    /// How late records were handed to the client, for whatever reason, in nanoseconds; empty on a closed loop.
    pub behind: Histogram<u64>,
    /// Of that, what the bench itself was late by.
    pub own: Histogram<u64>,
}

/// Produces as planned; returns when everything is acknowledged. `meters` are opened when the warm-up is over; the
/// first is that of the producers.
pub async fn run<T: Target>(target: &T, plan: &Plan, meters: &[Arc<Meter>]) -> Result<Produced, BenchError> {
    let partitions = target.ensure_topic(&plan.topic, plan.load.shape()).await?;
    let run = RunId::random();
    let stop = plan.hooks.end.clone().unwrap_or_default();
    let _stop_when_dropped = StopOnDrop(Arc::clone(&stop));
    let meter = meters
        .first()
        .ok_or_else(|| BenchError::Options("nothing is measured".into()))?;
    let mut producers = Vec::new();
    for index in 0..plan.load.producers {
        let streams = streams(run, index, partitions)?;
        producers.push((streams, target.producer(&plan.topic, &plan.load.producer()).await?));
    }
    let start = Moment::now().plus(RUN_UP);
    for meter in meters {
        meter.open(start.plus(plan.load.warm_up()));
    }
    let mut threads = Vec::new();
    for (index, (streams, producer)) in (0..).zip(producers) {
        let (samples, taken) = mpsc::unbounded_channel();
        let told = plan.hooks.acknowledged.clone();
        let follower = tokio::spawn(follow(
            taken,
            meter.recorder(),
            Arc::clone(meter),
            told,
            Arc::clone(&stop),
        ));
        let job = Job {
            plan: plan.clone(),
            streams,
            index,
            start,
            meter: Arc::clone(meter),
            stop: Arc::clone(&stop),
        };
        let runtime = Handle::current();
        let thread = tokio::task::spawn_blocking(move || runtime.block_on(job.run(producer, samples)));
        threads.push((thread, follower));
    }
    let mut acknowledged = HashMap::new();
    let mut bytes = 0;
    let (mut behind, mut own) = (histogram(), histogram());
    let mut failure = None;
    for (thread, follower) in threads {
        let done = thread.await.map_err(|error| BenchError::Threads(error.into()))?;
        follower.await.map_err(|error| BenchError::Threads(error.into()))?;
        match done {
            Ok(done) => {
                acknowledged.extend(done.acknowledged);
                bytes += done.bytes;
                behind += done.behind;
                own += done.own;
            }
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    meter.reached(Moment::now());
    let produced = Produced {
        acknowledged,
        bytes,
        behind,
        own,
    };
    failure.map_or(Ok(produced), Err)
}

struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One stream for each partition.
fn streams(run: RunId, producer: u16, partitions: usize) -> Result<Vec<StreamId>, BenchError> {
    let stream = |partition| {
        let partition = PartitionIndex::new(i32::try_from(partition).ok()?);
        StreamId::new(run, ProducerIndex::new(producer)?, partition)
    };
    let streams: Option<Vec<_>> = (0..partitions).map(stream).collect();
    streams.filter(|streams| !streams.is_empty()).ok_or_else(|| {
        BenchError::Options(format!(
            "the topic has {partitions} partitions; the bench can tell {PARTITIONS_MAX} apart: use another topic"
        ))
    })
}

/// What one producer does.
struct Job {
    plan: Plan,
    /// By partition.
    streams: Vec<StreamId>,
    index: u16,
    start: Moment,
    meter: Arc<Meter>,
    stop: Arc<AtomicBool>,
}

/// What one producer did.
struct Done {
    acknowledged: Vec<(StreamId, u64)>,
    bytes: u64,
    behind: Histogram<u64>,
    own: Histogram<u64>,
}

/// A record that is followed to its acknowledgement.
struct Sample<C: Future> {
    turn: Turn,
    partition: PartitionIndex,
    completion: wake::Timed<C>,
}

/// When it is a record's turn.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// By the schedule; on a closed loop, when the one before was taken.
    due: Moment,
    /// What its latency counts from: later by what the bench itself is late.
    from: Moment,
}

/// Counts that are handed on in strides.
#[derive(Default)]
struct Tally {
    all: (u64, u64),
    measured: (u64, u64),
}

impl Tally {
    fn hand_on(&mut self, meter: &Meter) {
        meter.progress.add(self.all.0, self.all.1);
        meter.count(self.measured.0, self.measured.1);
        *self = Self::default();
    }
}

impl Job {
    async fn run<P: TargetProducer>(
        self,
        producer: P,
        samples: mpsc::UnboundedSender<Sample<P::Completion>>,
    ) -> Result<Done, BenchError> {
        clock::wake_precisely();
        let mut counts = vec![0; self.streams.len()];
        let mut turn = usize::from(self.index);
        let mut keys = KeySource::new(self.plan.keys, self.streams.len() as u32, u64::from(self.index));
        let mut tally = Tally::default();
        let mut clock = SendClock::new(&self);
        let (mut number, mut bytes) = (0_u64, 0_u64);
        let (until, share) = (clock.until, self.bytes_max());
        let begin = self.meter.begin();
        while bytes < share {
            let Some(next) = clock.next(number, until, &mut tally, &self.meter) else {
                break;
            };
            let drawn = keys.draw();
            let partition = drawn
                .as_ref()
                .map_or(turn % self.streams.len(), |&(_, partition)| partition);
            turn += 1;
            let (stream, sequence) = (self.streams[partition], Sequence::new(counts[partition]));
            let due = next.from;
            let stamp = Stamp { stream, sequence, due }.to_bytes();
            let value = self.plan.payload.value(stream, sequence);
            let outgoing = Outgoing {
                partition: stream.partition(),
                key: drawn.as_ref().map_or(&stamp[..], |(key, _)| key),
                stamp: drawn.as_ref().map(|_| &stamp[..]),
                value,
            };
            let completion = producer.send(&outgoing).await?;
            if clock.is_timed(number) {
                let completion = wake::Timed::listen(completion);
                // The receiver only goes away when the run is given up.
                let _ = samples.send(Sample {
                    turn: next,
                    partition: stream.partition(),
                    completion,
                });
            }
            counts[partition] += 1;
            number += 1;
            let size = value.len() as u64;
            bytes += size;
            tally.all = (tally.all.0 + 1, tally.all.1 + size);
            if next.due >= begin {
                tally.measured = (tally.measured.0 + 1, tally.measured.1 + size);
            }
        }
        tally.hand_on(&self.meter);
        // Fails if any record did, those that were not followed included.
        producer.close().await?;
        let acknowledged = self
            .streams
            .into_iter()
            .zip(counts)
            .filter(|&(_, count)| count > 0)
            .collect();
        Ok(Done {
            acknowledged,
            bytes,
            behind: clock.behind,
            own: clock.own,
        })
    }

    fn bytes_max(&self) -> u64 {
        let all = self.plan.load.bytes.unwrap_or(u64::MAX).min(self.plan.bytes_max);
        all.div_ceil(u64::from(self.plan.load.producers))
    }
}

/// Tells when each record is due, and waits for it.
struct SendClock {
    schedule: Option<Schedule>,
    start: Moment,
    /// No record is due from here on.
    until: Option<Moment>,
    stamp_each: bool,
    stop: Arc<AtomicBool>,
    /// When the last record was handed over, or taken.
    last: Moment,
    debt: Debt,
    behind: Histogram<u64>,
    own: Histogram<u64>,
}

impl SendClock {
    fn new(job: &Job) -> Self {
        let load = &job.plan.load;
        let schedule = match load.pace() {
            Pace::Closed => None,
            Pace::Open(rate) => Some(Schedule::new(job.start, rate, job.index, load.producers)),
        };
        Self {
            schedule,
            start: job.start,
            until: load.duration().map(|time| job.start.plus(load.warm_up() + time)),
            stamp_each: job.plan.stamp_each,
            stop: Arc::clone(&job.stop),
            last: Moment::now(),
            debt: Debt::default(),
            behind: histogram(),
            own: histogram(),
        }
    }

    /// The turn of the next record, once it has come; `None` if there is none any more.
    #[inline]
    fn next(&mut self, number: u64, until: Option<Moment>, tally: &mut Tally, meter: &Meter) -> Option<Turn> {
        if let Some(schedule) = self.schedule {
            let due = schedule.due(number);
            let is_over = until.is_some_and(|until| due >= until);
            return if is_over { None } else { self.wait(due, tally, meter) };
        }
        let strides = number.is_multiple_of(STRIDE);
        if strides || self.stamp_each || self.is_timed(number) {
            self.last = Moment::now().max(self.start);
        }
        if strides {
            tally.hand_on(meter);
            if until.is_some_and(|until| self.last >= until) || self.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        Some(Turn {
            due: self.last,
            from: self.last,
        })
    }

    fn wait(&mut self, due: Moment, tally: &mut Tally, meter: &Meter) -> Option<Turn> {
        let mut now = Moment::now();
        self.debt.hold(now.nanos_since(self.last));
        while now < due {
            self.debt.settle();
            tally.hand_on(meter);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            clock::sleep(due.since(now).min(NAP_MAX));
            now = Moment::now();
        }
        // Behind schedule there is no nap.
        if tally.all.0 >= STRIDE {
            tally.hand_on(meter);
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
        }
        let late = now.nanos_since(due);
        let own = self.debt.own(late);
        if due >= meter.begin() {
            self.behind.saturating_record(late.max(1));
            self.own.saturating_record(own.max(1));
        }
        self.last = now;
        let from = due.plus(Duration::from_nanos(own));
        Some(Turn { due, from })
    }

    #[inline]
    fn is_timed(&self, number: u64) -> bool {
        self.schedule.is_some() || number.is_multiple_of(SAMPLE_EVERY)
    }
}

/// Waits for the acknowledgements of samples, and times them by when the client told of them. The first that fails stops the
/// producers.
async fn follow<C>(
    mut samples: mpsc::UnboundedReceiver<Sample<C>>,
    recorder: Recorder,
    meter: Arc<Meter>,
    acknowledged: Option<Arc<Acknowledgements>>,
    stop: Arc<AtomicBool>,
) where
    C: Future<Output = Result<(), BenchError>> + Send + Unpin + 'static,
{
    let late = meter.late();
    let mut open = FuturesUnordered::new();
    let followed = async |sample: Sample<C>| (sample.turn, sample.partition, sample.completion.await);
    let mut more = true;
    while more || !open.is_empty() {
        tokio::select! {
            sample = samples.recv(), if more => match sample {
                Some(sample) => open.push(followed(sample)),
                None => more = false,
            },
            Some((turn, partition, (result, told))) = open.next() => match result {
                Ok(()) => {
                    if let Some(acknowledged) = &acknowledged {
                        acknowledged.tell(partition, told);
                    }
                    if turn.due >= meter.begin() {
                        recorder.record(told.nanos_since(turn.from));
                        late.record(Moment::now().nanos_since(told));
                    }
                }
                // Reported by the producer's `close`.
                Err(_error) => stop.store(true, Ordering::Relaxed),
            },
        }
    }
}
