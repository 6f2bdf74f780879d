//! How long a checkpoint occupies the core when many idempotent producers write to one partition, and what appends notice of it.
//!
//! ```sh
//! cargo run --release -p headwater-engine --example checkpoints -- DIR [PRODUCERS]
//! ```
//!
//! Each producer has as many batches to remember as it may. Appends of 100 bytes are made durable one after the other: first beside
//! nothing, then while checkpoints are written, one after the other with pauses.

use std::{
    cell::Cell,
    error::Error,
    path::{Path, PathBuf},
    pin::pin,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::poll_fn;
use glommio::{LocalExecutorBuilder, PoolPlacement, timer::sleep};
use headwater_engine::{
    Log, LogConfig, PRODUCER_WINDOW, TailMemory,
    disk::{BLOCKING_THREADS, DirectDisk},
};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::{ProducerEpoch, ProducerId, Sequence, Timestamp},
};

const CHECKPOINTS: usize = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Appends that are timed when nothing else is done.
const QUIET_APPENDS: usize = 5_000;

type DirectLog = Log<DirectDisk>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("usage: checkpoints DIR [PRODUCERS]")?).join("checkpoints");
    let producers: i64 = arguments.next().map_or(Ok(1_000), |number| number.parse())?;
    let threads = PoolPlacement::Unbound(BLOCKING_THREADS);
    let executor = LocalExecutorBuilder::default().blocking_thread_pool_placement(threads);
    let made = directory.clone();
    let measuring = async move || measure(&made, producers).await.map_err(|error| error.to_string());
    let measured = executor.spawn(measuring)?.join()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(measured?)
}

async fn measure(directory: &Path, producers: i64) -> Result<(), Box<dyn Error>> {
    let disk = DirectDisk::new()?;
    let (log, _) = Log::open(
        disk.clone(),
        directory.to_owned(),
        LogConfig::default(),
        TailMemory::new(64 << 20),
    )
    .await?;
    let log = Rc::new(log);
    let number = Cell::new(0);
    let next = || {
        let at = number.replace(number.get() + 1);
        (at % producers, (at / producers) as i32)
    };
    for _ in 0..PRODUCER_WINDOW {
        for _ in 0..producers {
            append(&log, next())?;
        }
        log.flush().await?;
    }
    let append_next = async || -> Result<u128, Box<dyn Error>> {
        let began = Instant::now();
        append(&log, next())?;
        log.flush().await?;
        Ok(began.elapsed().as_micros())
    };
    let mut times = Vec::new();
    for _ in 0..QUIET_APPENDS {
        times.push(append_next().await?);
    }
    show("beside nothing, an append", times);

    let is_over = Cell::new(false);
    let checkpoints = async {
        let mut longest = Vec::new();
        for _ in 0..CHECKPOINTS {
            sleep(PAUSE).await;
            longest.push(longest_turn(log.checkpoint(Timestamp::now())).await?);
        }
        is_over.set(true);
        Ok::<_, headwater_engine::LogError>(longest)
    };
    let appends = async {
        let mut times = Vec::new();
        while !is_over.get() {
            times.push(append_next().await?);
        }
        Ok::<_, Box<dyn Error>>(times)
    };
    let (longest, times) = futures::join!(checkpoints, appends);
    show(
        &format!("beside {CHECKPOINTS} checkpoints of {producers} producers, an append"),
        times?,
    );
    show("the longest turn of such a checkpoint on the core", longest?);
    let written = std::fs::metadata(directory.join("checkpoint"))?.len();
    println!("a checkpoint has {} KiB", written >> 10);
    log.close().await?;
    disk.ring().close().await;
    Ok(())
}

/// A batch of one record of 100 bytes: the one with this number of this producer.
fn append(log: &DirectLog, (producer, number): (i64, i32)) -> Result<(), Box<dyn Error>> {
    let mut batch = BatchBuilder::new(Compression::None, 200);
    batch.append(Timestamp::now(), None, Some(&[1; 100]), &[])?;
    let mut batch = batch.build();
    batch.set_producer(ProducerId::new(producer), ProducerEpoch::new(0), Sequence::new(number));
    log.append(batch.bytes(), Timestamp::now())?;
    Ok(())
}

/// Runs a future to its end, and says in microseconds for how long it kept the thread at most.
async fn longest_turn<E>(future: impl Future<Output = Result<(), E>>) -> Result<u128, E> {
    let mut future = pin!(future);
    let mut longest = Duration::ZERO;
    let ended = poll_fn(|context| {
        let began = Instant::now();
        let polled = future.as_mut().poll(context);
        longest = longest.max(began.elapsed());
        polled
    });
    ended.await?;
    Ok(longest.as_micros())
}

fn show(what: &str, mut times: Vec<u128>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let longest = times[times.len() - 1];
    println!(
        "{what}: p50 {p50} us, p99 {p99} us, longest {longest} us ({} times)",
        times.len()
    );
}
