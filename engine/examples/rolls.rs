//! How long a record waits for a segment to be begun while other partitions write checkpoints.
//!
//! ```sh
//! cargo run --release -p headwater-engine --example rolls -- DIR
//! ```
//!
//! Each append begins a segment: a file is made, and its name flushed with its directory. Meanwhile 1,000 other logs write their
//! checkpoints, so many at a time.

use std::{
    cell::Cell,
    error::Error,
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use futures::{StreamExt as _, stream};
use glommio::{LocalExecutorBuilder, PoolPlacement};
use headwater_engine::{
    Log, LogConfig, TailMemory,
    disk::{BLOCKING_THREADS, DirectDisk},
};
use headwater_protocol::{
    batch::{BatchBuilder, Compression},
    id::Timestamp,
};

const LOGS: usize = 1000;

/// Half of a segment and a little more.
static VALUE: [u8; 40 << 10] = [1; 40 << 10];

/// Rolls that are timed when nothing else is done.
const QUIET_ROLLS: usize = 200;

type DirectLog = Log<DirectDisk>;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args().nth(1).ok_or("usage: rolls DIR")?).join("rolls");
    let threads = PoolPlacement::Unbound(BLOCKING_THREADS);
    let executor = LocalExecutorBuilder::default().blocking_thread_pool_placement(threads);
    let made = directory.clone();
    let running = executor.spawn(move || async move { measure(&made).await.map_err(|error| error.to_string()) });
    let measured = running?.join()?;
    std::fs::remove_dir_all(&directory)?;
    Ok(measured?)
}

async fn measure(directory: &Path) -> Result<(), Box<dyn Error>> {
    let disk = DirectDisk::new()?;
    let memory = TailMemory::new(64 << 20);
    let open = async |name: String| -> Result<Rc<DirectLog>, Box<dyn Error>> {
        let config = LogConfig {
            segment_size_bytes: 64 << 10,
            ..LogConfig::default()
        };
        let (log, _) = Log::open(disk.clone(), directory.join(name), config, Rc::clone(&memory)).await?;
        Ok(Rc::new(log))
    };
    let mut logs = Vec::new();
    for number in 0..LOGS {
        logs.push(open(number.to_string()).await?);
    }
    let rolling = open("rolling".to_owned()).await?;
    show("nothing", roll(&rolling, |rolls| rolls < QUIET_ROLLS).await?);
    for at_once in [1, 8] {
        for log in &logs {
            append(log, b"something to note").await?;
        }
        let is_over = Cell::new(false);
        let checkpoints = async {
            let writing = logs.iter().map(async |log| log.checkpoint(Timestamp::now()).await);
            let written: Vec<_> = stream::iter(writing).buffer_unordered(at_once).collect().await;
            is_over.set(true);
            written.into_iter().collect::<Result<(), _>>()
        };
        let began = Instant::now();
        let (written, times) = futures::join!(checkpoints, roll(&rolling, |_| !is_over.get()));
        written?;
        let what = format!("1,000 checkpoints, {at_once} at a time, in {:.1?}", began.elapsed());
        show(&what, times?);
    }
    disk.ring().close().await;
    Ok(())
}

async fn append(log: &DirectLog, value: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut batch = BatchBuilder::new(Compression::None, value.len());
    batch.append(Timestamp::now(), None, Some(value), &[])?;
    let appended = log.append(batch.build().bytes(), Timestamp::now())?;
    log.flush().await?;
    Ok(appended.durable.await?)
}

/// Microseconds of each append, as long as there is to be one more.
async fn roll(log: &DirectLog, more: impl Fn(usize) -> bool) -> Result<Vec<u128>, Box<dyn Error>> {
    let mut times = Vec::new();
    while more(times.len()) {
        let began = Instant::now();
        append(log, &VALUE).await?;
        times.push(began.elapsed().as_micros());
    }
    Ok(times)
}

fn show(beside: &str, mut times: Vec<u128>) {
    times.sort_unstable();
    let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    println!("beside {beside}: {} rolls, p50 {p50} us, p99 {p99} us", times.len());
}
