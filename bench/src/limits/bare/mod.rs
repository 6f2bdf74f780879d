//! The bare program: the physical work of a broker on one raw `io_uring` in one thread, and nothing else.
//!
//! It receives frames from a producer, writes them past the page cache into a prepared file, flushes for many at once,
//! acknowledges with the count of durable frames, and pushes the durable bytes to a consumer. It serves one producer (and
//! one consumer) after the other until it is stopped. Nothing can be faster on the same kernel by much: that is its use.

mod session;
mod stream;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;
use std::thread::{self, JoinHandle};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::LimitsError;
use super::figures::{Percentiles, Stopwatch};
use super::network;
use super::ring::{PAGE, Ring, Slot};
use super::scratch::Scratch;
use crate::affinity::keep_to;
pub use session::{ACK_BYTES, LENGTH_BYTES};

const ENTRIES: u32 = 256;

/// How often it looks, while nobody connects, whether it is to stop.
const LOOK: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// How it works.
#[derive(Debug, Clone)]
pub struct BareConfig {
    /// The file; the program goes through it over and over.
    pub scratch: Scratch,
    /// Whether a consumer is waited for, and served.
    pub push: bool,
    /// Size of a full write; a power of two up to 1 MiB.
    pub write_bytes: u64,
    /// Writes at once.
    pub writes_in_flight_max: usize,
    /// A flush begins when so much is not covered by one, or no write is under way.
    pub flush_uncovered_bytes: u64,
    /// A lone write up to this size is made durable by itself (`RWF_DSYNC`).
    pub single_write_bytes_max: u64,
    /// Memory for what is received and not yet durable and pushed; rounded up to whole writes.
    pub buffer_bytes: u64,
    /// A longer frame closes the connection.
    pub frame_bytes_max: u32,
    /// Where to pin the thread; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
    /// Where flushes fail.
    #[cfg(test)]
    pub flushes_fail: bool,
}

impl BareConfig {
    /// What has proved fastest.
    pub fn new(scratch: Scratch) -> Self {
        Self {
            scratch,
            push: false,
            write_bytes: 512 << 10,
            writes_in_flight_max: 8,
            flush_uncovered_bytes: 1 << 20,
            single_write_bytes_max: 64 << 10,
            buffer_bytes: 32 << 20,
            frame_bytes_max: 8 << 20,
            cpu: None,
            #[cfg(test)]
            flushes_fail: false,
        }
    }

    /// The same, with a consumer.
    pub fn with_push(self) -> Self {
        Self { push: true, ..self }
    }

    #[cfg(not(test))]
    #[expect(clippy::unused_self, reason = "tests make it fail")]
    fn flush_slot(&self) -> Slot {
        session::FILE
    }

    /// A place without a file, where it is to fail.
    #[cfg(test)]
    fn flush_slot(&self) -> Slot {
        if self.flushes_fail { NO_FILE } else { session::FILE }
    }
}

const SLOTS: usize = 4;

#[cfg(test)]
const NO_FILE: Slot = Slot(SLOTS - 1);

/// What it has done.
#[derive(Debug, Clone, PartialEq)]
pub struct BareReport {
    /// Durable.
    pub frames: u64,
    /// Received, lengths of frames included.
    pub bytes: u64,
    /// Direct writes.
    pub writes: u64,
    /// By them, blocks that were written again included.
    pub bytes_written: u64,
    /// How long flushes took, and how many there were; those of `RWF_DSYNC` are not among them.
    pub flush_us: Option<Percentiles>,
    /// Why sessions ended early, if any did.
    pub failures: Vec<String>,
}

impl BareReport {
    /// Itself, if nothing has failed.
    pub fn check(self) -> Result<Self, LimitsError> {
        match self.failures.first() {
            None => Ok(self),
            Some(failure) => Err(LimitsError::Bare(failure.clone())),
        }
    }
}

#[derive(Debug)]
struct Tally {
    frames: u64,
    bytes: u64,
    writes: u64,
    bytes_written: u64,
    flushes: Stopwatch,
    failures: Vec<String>,
}

/// The program while it runs; stopped when it is dropped.
#[derive(Debug)]
pub struct Bare {
    producer_addr: SocketAddr,
    consumer_addr: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<BareReport, LimitsError>>>,
}

impl Bare {
    /// Starts it. When this returns its memory is touched and its ring made: neither is in anybody's time.
    pub fn start(config: BareConfig) -> Result<Self, LimitsError> {
        let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(LimitsError::Network);
        let (producers, consumers) = (listen()?, listen()?);
        let address = |listener: &TcpListener| listener.local_addr().map_err(LimitsError::Network);
        let (producer_addr, consumer_addr) = (address(&producers)?, address(&consumers)?);
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let (ready, is_ready) = sync_channel(1);
        let work = move || {
            let ring = ring(&config)?;
            // Nobody waits for it any more if the program was given up.
            let _ = ready.send(());
            serve(ring, &config, &producers, &consumers, &stopped)
        };
        let thread = thread::Builder::new()
            .name("bare".to_owned())
            .spawn(work)
            .map_err(LimitsError::Threads)?;
        let mut bare = Self {
            producer_addr,
            consumer_addr,
            stop,
            thread: Some(thread),
        };
        if is_ready.recv().is_err()
            && let Some(result) = bare.join()
        {
            result?;
        }
        Ok(bare)
    }

    /// Where a producer connects.
    pub fn producer_addr(&self) -> SocketAddr {
        self.producer_addr
    }

    /// Where a consumer connects, if there is to be one.
    pub fn consumer_addr(&self) -> SocketAddr {
        self.consumer_addr
    }

    /// Stops it, and says what it has done.
    pub fn stop(mut self) -> Result<BareReport, LimitsError> {
        self.join().expect("it is joined once")
    }

    fn join(&mut self) -> Option<Result<BareReport, LimitsError>> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take()?;
        Some(
            thread
                .join()
                .unwrap_or_else(|_panic| Err(LimitsError::Threads(io::Error::other("the bare program has panicked")))),
        )
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.join();
    }
}

/// The ring, with the memory and the file.
fn ring(config: &BareConfig) -> Result<Ring, LimitsError> {
    if let Some(cpu) = config.cpu {
        keep_to([cpu]).map_err(|source| LimitsError::Cpu { cpu, source })?;
    }
    // Acknowledgements have the last page.
    let memory = config.buffer_bytes.next_multiple_of(config.write_bytes) as usize + PAGE;
    let mut ring = Ring::new(ENTRIES, memory, SLOTS).map_err(LimitsError::Ring)?;
    ring.set_file(session::FILE, Some(config.scratch.direct()?))
        .map_err(LimitsError::Ring)?;
    Ok(ring)
}

fn serve(
    mut ring: Ring,
    config: &BareConfig,
    producers: &TcpListener,
    consumers: &TcpListener,
    stop: &AtomicBool,
) -> Result<BareReport, LimitsError> {
    let mut tally = Tally {
        frames: 0,
        bytes: 0,
        writes: 0,
        bytes_written: 0,
        flushes: Stopwatch::new(),
        failures: Vec::new(),
    };
    while let Some(producer) = accept(producers, stop)? {
        let consumer = if config.push { accept(consumers, stop)? } else { None };
        if config.push && consumer.is_none() {
            break;
        }
        let session = session::Session::new(&mut ring, config, &mut tally, producer, consumer);
        let result = session.map_err(LimitsError::Network)?.run(stop);
        if let Err(error) = result {
            tally.failures.push(error.to_string());
        }
    }
    Ok(BareReport {
        frames: tally.frames,
        bytes: tally.bytes,
        writes: tally.writes,
        bytes_written: tally.bytes_written,
        flush_us: (!tally.flushes.is_empty()).then(|| tally.flushes.percentiles()),
        failures: tally.failures,
    })
}

/// The next connection; `None` if it is to stop.
fn accept(listener: &TcpListener, stop: &AtomicBool) -> Result<Option<TcpStream>, LimitsError> {
    while !stop.load(Ordering::Relaxed) {
        let mut waits = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut waits, Some(&LOOK)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => {
                let (socket, _) = listener.accept().map_err(LimitsError::Network)?;
                network::unpace(&socket).map_err(LimitsError::Network)?;
                return Ok(Some(socket));
            }
            Err(error) => return Err(LimitsError::Network(error.into())),
        }
    }
    Ok(None)
}
