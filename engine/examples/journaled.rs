//! What small appends to many logs get from the core's journal, in turns with logs that write to their segments alone: the whole engine on
//! a real disk, where `journal.rs` measures what the disk would give.
//!
//! ```sh
//! cargo run --release -p headwater-engine --example journaled -- DIRECTORY [BATCH_BYTES] [BATCHES_IN_FLIGHT]
//! ```
//!
//! Each of so many appends at once waits until its batch is durable, and is followed by one to a log drawn at random. Median of three rounds.
//! Compare lines of one run only.
#![allow(clippy::unwrap_used, reason = "a measurement stops at the first failure")]

use std::{
    cell::{Cell, RefCell},
    error::Error,
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, StreamExt as _, future::select, stream};
use glommio::{LocalExecutorBuilder, PoolPlacement, spawn_local};
use hdrhistogram::Histogram;
use headwater_engine::{
    Journal, JournalConfig, Log, LogConfig, Memory, Owner, TailMemory,
    disk::{BLOCKING_THREADS, DirectDisk, Directory as _, Disk as _},
};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::{CoreId, PartitionIndex, Timestamp, TopicId},
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rustix::time::{ClockId, clock_gettime};

const PARTITIONS: [usize; 4] = [1, 10, 100, 1_000];
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(3);

/// Tail buffers of the core.
const TAIL_BYTES: usize = 256 << 20;

/// Logs that are opened, and filed, at the same time.
const AT_ONCE: usize = 32;

/// A log with the task that flushes it.
struct Served {
    log: Log<DirectDisk>,
    owner: Owner,
    flushing: Cell<bool>,
}

/// What was measured in one round.
#[derive(Debug, Clone, Copy)]
struct Figures {
    batches_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    cpu_us_per_batch: f64,
    /// Bytes that were written to segments and journal for each byte of batches.
    written: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("usage: journaled DIRECTORY [BATCH_BYTES] [BATCHES_IN_FLIGHT]")?;
    let batch_bytes: usize = arguments.next().map_or(Ok(1024), |bytes| bytes.parse())?;
    let in_flight: usize = arguments.next().map_or(Ok(256), |count| count.parse())?;
    let directory = PathBuf::from(directory).join("journaled-measurement");
    let threads = PoolPlacement::Unbound(BLOCKING_THREADS);
    let executor = LocalExecutorBuilder::default().blocking_thread_pool_placement(threads);
    let running = executor.spawn(move || async move {
        let measured = measure_all(&directory, batch_bytes, in_flight).await;
        measured.map_err(|error| error.to_string())
    });
    Ok(running?.join()??)
}

async fn measure_all(directory: &Path, batch_bytes: usize, in_flight: usize) -> Result<(), Box<dyn Error>> {
    println!(
        "{:>10} {:>8} {:>10} {:>8} {:>8} {:>8} {:>13} {:>8}",
        "partitions", "journal", "batches/s", "MB/s", "p50 us", "p99 us", "CPU us/batch", "written"
    );
    for partitions in PARTITIONS {
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            for (rounds, is_journaled) in taken.iter_mut().zip([false, true]) {
                let _ = std::fs::remove_dir_all(directory);
                let mut measurement = Measurement::begin(directory, partitions, is_journaled).await?;
                measurement.random = RefCell::new(SmallRng::seed_from_u64(round as u64));
                rounds.push(Rc::new(measurement).run(batch_bytes, in_flight).await?);
            }
        }
        for (name, mut rounds) in ["off", "on"].into_iter().zip(taken) {
            rounds.sort_by(|a, b| a.batches_per_s.total_cmp(&b.batches_per_s));
            let median = rounds[ROUNDS / 2];
            println!(
                "{partitions:>10} {name:>8} {:>10.0} {:>8.1} {:>8} {:>8} {:>13.1} {:>8.2}",
                median.batches_per_s,
                median.batches_per_s * batch_bytes as f64 / 1e6,
                median.p50_us,
                median.p99_us,
                median.cpu_us_per_batch,
                median.written,
            );
        }
    }
    std::fs::remove_dir_all(directory)?;
    Ok(())
}

/// Logs in use.
struct Measurement {
    disk: DirectDisk,
    journal: Option<Rc<Journal<DirectDisk>>>,
    logs: Vec<Rc<Served>>,
    random: RefCell<SmallRng>,
    latencies: RefCell<Histogram<u64>>,
    is_over: Cell<bool>,
}

impl Measurement {
    async fn begin(directory: &Path, partitions: usize, is_journaled: bool) -> Result<Measurement, Box<dyn Error>> {
        let disk = DirectDisk::new()?;
        disk.open_files().set_limit(2 * partitions + 64);
        disk.create_dir(directory).await?;
        let tail = TailMemory::new(TAIL_BYTES);
        let memory = Memory::from(Rc::clone(&tail));
        memory.prefault();
        let mut journal = None;
        if is_journaled {
            let (generation, config) = (rand::random(), JournalConfig::default());
            let opened = Journal::open(disk.clone(), directory, CoreId::new(0), generation, config, tail).await?;
            journal = Some(opened);
        }
        let opening = (0..partitions).map(async |number| {
            let owner = Owner {
                topic: TopicId::NIL,
                partition: PartitionIndex::new(number as i32),
            };
            let (directory, config) = (directory.join(format!("topic-{number}")), LogConfig::default());
            let journal = journal.clone().map(|journal| (journal, owner));
            let (log, _) = Log::open_with(disk.clone(), directory, config, memory.clone(), journal).await?;
            let flushing = Cell::new(false);
            Ok::<_, Box<dyn Error>>(Rc::new(Served { log, owner, flushing }))
        });
        let opened: Vec<_> = stream::iter(opening).buffered(AT_ONCE).collect().await;
        let logs = opened.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(Measurement {
            disk,
            journal,
            logs,
            random: RefCell::new(SmallRng::seed_from_u64(0)),
            latencies: RefCell::new(Histogram::new(3)?),
            is_over: Cell::new(false),
        })
    }

    async fn run(self: Rc<Self>, batch_bytes: usize, in_flight: usize) -> Result<Figures, Box<dyn Error>> {
        let mut builder = BatchBuilder::new(Compression::None, batch_bytes);
        builder.append(
            Timestamp::now(),
            None,
            Some(&vec![7; batch_bytes.saturating_sub(70)]),
            &[],
        )?;
        let batch: Rc<[u8]> = builder.build().bytes().into();
        // Files are made, and have blocks.
        let warm = self.logs.iter().map(|served| append(served, &batch));
        stream::iter(warm).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
        if self.journal.is_some() {
            for _ in 0..AT_ONCE {
                spawn_local(file_due(Rc::clone(&self))).detach();
            }
        }
        let (before, began, cpu) = (self.written(), Instant::now(), cpu_seconds());
        let producers: Vec<_> = (0..in_flight)
            .map(|_| spawn_local(produce(Rc::clone(&self), Rc::clone(&batch))))
            .collect();
        glommio::timer::sleep(TIME).await;
        self.is_over.set(true);
        let mut batches = 0;
        for producer in producers {
            batches += producer.await;
        }
        let (seconds, cpu) = (began.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        for served in &self.logs {
            served.log.close().await?;
        }
        let written = self.written() - before;
        self.disk.ring().close().await;
        let latencies = self.latencies.borrow();
        Ok(Figures {
            batches_per_s: batches as f64 / seconds,
            p50_us: latencies.value_at_quantile(0.5),
            p99_us: latencies.value_at_quantile(0.99),
            cpu_us_per_batch: 1e6 * cpu / batches as f64,
            written: written as f64 / (batches * batch.len() as u64) as f64,
        })
    }

    /// Bytes that were written and made durable so far.
    fn written(&self) -> u64 {
        self.disk.stats().flushes.snapshot().bytes
    }
}

async fn produce(measurement: Rc<Measurement>, batch: Rc<[u8]>) -> u64 {
    let mut batches = 0;
    while !measurement.is_over.get() {
        let which = measurement.random.borrow_mut().random_range(0..measurement.logs.len());
        let began = Instant::now();
        append(&measurement.logs[which], &batch).await;
        let took = began.elapsed().as_micros() as u64;
        measurement.latencies.borrow_mut().record(took).unwrap();
        batches += 1;
    }
    batches
}

async fn append(served: &Rc<Served>, batch: &[u8]) {
    let appended = served.log.append(batch, Timestamp::now()).unwrap();
    if !served.flushing.replace(true) {
        let served = Rc::clone(served);
        spawn_local(async move {
            while served.log.needs_flush() {
                served.log.flush().await.unwrap();
            }
            served.flushing.set(false);
        })
        .detach();
    }
    appended.durable.await.unwrap();
}

/// Files what is due, as long as it is measured.
async fn file_due(measurement: Rc<Measurement>) {
    let journal = Rc::clone(measurement.journal.as_ref().unwrap());
    while !measurement.is_over.get() {
        let pause = glommio::timer::sleep(Duration::from_millis(100)).boxed_local();
        if let futures::future::Either::Left((due, _)) = select(journal.due().boxed_local(), pause).await {
            let served = measurement.logs.iter().find(|served| served.owner == due.owner);
            served.unwrap().log.file().await.unwrap();
        }
    }
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
