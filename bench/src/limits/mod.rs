//! What this machine can do, measured with nothing of the engine: the limits that the other figures are shares of.
//!
//! ```text
//! Probe -> disk, network, memory        each by itself
//!      +-> bare  (a broker's physical work on one raw ring) <- load (what feeds it)
//!      +-> Limits (figures)
//! ```
//!
//! Each part runs on threads of its own for a bounded time. The disk is measured with one file without a name, which is
//! prepared once for each `Probe`.

pub mod bare;
pub mod beside;
pub mod command;
pub mod disk;
pub mod feeder;
pub mod figures;
pub mod floor;
mod memory;
pub mod network;
mod ring;
mod scratch;
mod summary;
mod table;

use std::collections::BTreeSet;
use std::io;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::Serialize;

use bare::{Bare, BareConfig, BareReport};
use beside::{Beside, Readers};
use disk::Durable;
use feeder::{Ahead, Built, Fed, Feeder, FrameSource, Prepared};
pub use figures::Limits;
pub use scratch::Scratch;

/// Batches that are built before they are sent.
const BATCHES_AHEAD: usize = 8;

/// One thing that can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Sequential direct writes and reads
    Disk,
    /// Small durable writes
    Flush,
    /// Throughput of one loopback connection
    Loopback,
    /// Sendfile of a hot file over loopback
    Sendfile,
    /// 64 bytes there and back over loopback
    RoundTrip,
    /// Copies, and CRC-32C
    Memory,
    /// The bare program: the ceiling of durable throughput
    Bare,
    /// The bare program, fed with records that are built like the client's
    BareBuilt,
    /// The bare program, with a consumer
    BarePush,
    /// The bare program with one record at a time: the floor of latency
    Floor,
    /// The bare program with records at a fixed rate
    FloorPaced,
}

/// Which parts to measure; in this order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Selection(BTreeSet<Part>);

impl Selection {
    /// Everything.
    pub fn all() -> Self {
        Self(Part::value_variants().iter().copied().collect())
    }

    /// These.
    pub fn of(parts: &[Part]) -> Self {
        Self(parts.iter().copied().collect())
    }

    /// How many times `progress` is called, but for the preparation of the file.
    fn steps(&self) -> usize {
        let steps = |part: &Part| match part {
            Part::Disk => 4,
            Part::Memory => 5,
            Part::Flush | Part::Bare => 2,
            _ => 1,
        };
        self.0.iter().map(steps).sum()
    }

    fn needs_file(&self) -> bool {
        self.0
            .iter()
            .any(|part| !matches!(part, Part::Loopback | Part::RoundTrip | Part::Memory))
    }
}

/// Where and how to measure.
#[derive(Debug, Clone, Serialize)]
pub struct Config {
    /// Directory on the file system to be measured; it must exist.
    pub data_dir: PathBuf,
    /// Size of the file that the disk is measured with.
    pub file_bytes: u64,
    /// How long each figure is measured.
    pub time: Duration,
    /// What the pipelined feeder keeps in flight.
    pub in_flight_bytes: u64,
    /// Size of the frames that it sends, and of the batches that it builds.
    pub batch_bytes: usize,
    /// Size of the values of the records that it builds.
    pub record_bytes: usize,
    /// Size of the records whose latency is measured; at least 8.
    pub floor_record_bytes: usize,
    /// How many of them are due in a second, where they are paced.
    pub floor_records_per_s: u32,
    /// Where the bare program is pinned; `None` leaves it to the scheduler.
    pub cpu: Option<usize>,
}

impl Config {
    /// The defaults, for a directory: 1 GiB of file, a second for each figure, the client's own defaults for the feeder.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            file_bytes: 1 << 30,
            time: Duration::from_secs(1),
            in_flight_bytes: 16 << 20,
            batch_bytes: 256 << 10,
            record_bytes: 1 << 10,
            floor_record_bytes: 100,
            floor_records_per_s: 10_000,
            cpu: None,
        }
    }
}

/// Why a limit cannot be measured.
#[derive(Debug, thiserror::Error)]
pub enum LimitsError {
    /// The disk is too full.
    #[error(
        "the limits of the disk need {} MiB in {}, and {} MiB are free: make room, name another disk with --data-dir, or \
         make the file smaller with --file-size",
        needed >> 20, directory.display(), available >> 20
    )]
    NoRoom {
        /// Where.
        directory: PathBuf,
        /// File and reserve, in bytes.
        needed: u64,
        /// What there is, in bytes.
        available: u64,
    },
    /// The disk, or the file system.
    #[error("cannot {doing} {}: {source}; name a directory on a real disk with --data-dir", directory.display())]
    Disk {
        /// What was being done.
        doing: &'static str,
        /// Where.
        directory: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// No `io_uring`.
    #[error("cannot use io_uring: {0}; see the sysctl kernel.io_uring_disabled and the limits of the container")]
    Ring(#[source] io::Error),
    /// The limit on open files, most likely.
    #[error("cannot open another file: {0}; raise the limit on open files (ulimit -n)")]
    Files(#[source] io::Error),
    /// Loopback.
    #[error("loopback connection: {0}")]
    Network(#[source] io::Error),
    /// Threads.
    #[error("cannot start a thread: {0}")]
    Threads(#[source] io::Error),
    /// There is no such CPU, or not for this process.
    #[error("cannot pin the bare program to CPU {cpu}: {source}; see taskset -p for those that this process may use")]
    Cpu {
        /// Its number.
        cpu: usize,
        /// The cause.
        source: io::Error,
    },
    /// The bare program failed while it ran.
    #[error("the bare program failed: {0}")]
    Bare(String),
}

impl LimitsError {
    /// For `map_err`: an error of the disk with what was being done.
    fn disk(doing: &'static str, directory: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Disk {
            doing,
            directory: directory.to_owned(),
            source,
        }
    }
}

/// Measures what is selected, once; `progress` is told what comes next.
#[allow(dead_code, reason = "commands measure again and again, with a `Probe`")]
pub fn measure(selection: &Selection, config: &Config, progress: &mut dyn FnMut(&str)) -> Result<Limits, LimitsError> {
    Probe::new(config.clone()).measure(selection, progress)
}

/// Measures again and again, with one file.
#[derive(Debug)]
pub struct Probe {
    config: Config,
    scratch: Option<Scratch>,
}

impl Probe {
    /// The file is prepared when it is first needed.
    pub fn new(config: Config) -> Self {
        Self { config, scratch: None }
    }

    /// Measures what is selected; `progress` is told what comes next.
    pub fn measure(&mut self, selection: &Selection, progress: &mut dyn FnMut(&str)) -> Result<Limits, LimitsError> {
        let mut limits = Limits::default();
        if selection.needs_file() {
            self.scratch(progress)?;
        }
        for &part in &selection.0 {
            self.part(part, &mut limits, progress)?;
        }
        Ok(limits)
    }

    fn scratch(&mut self, progress: &mut dyn FnMut(&str)) -> Result<Scratch, LimitsError> {
        if let Some(scratch) = &self.scratch {
            return Ok(scratch.clone());
        }
        progress("prepare a file");
        let scratch = Scratch::prepare(&self.config.data_dir, self.config.file_bytes)?;
        Ok(self.scratch.insert(scratch).clone())
    }

    fn part(&mut self, part: Part, limits: &mut Limits, progress: &mut dyn FnMut(&str)) -> Result<(), LimitsError> {
        let time = self.config.time;
        match part {
            Part::Disk => self.disk(limits, progress)?,
            Part::Flush => {
                let scratch = self.scratch(progress)?;
                progress("4 KiB write and flush");
                limits.disk.write_flush_us = Some(disk::small_writes(&scratch, Durable::Flush, time)?);
                progress("4 KiB durable write");
                limits.disk.write_dsync_us = Some(disk::small_writes(&scratch, Durable::Dsync, time)?);
            }
            Part::Loopback => {
                progress("loopback");
                limits.network.loopback_bytes_per_s = Some(network::throughput(time)?);
            }
            Part::Sendfile => {
                let scratch = self.scratch(progress)?;
                progress("sendfile");
                limits.network.sendfile_bytes_per_s = Some(network::sendfile(&scratch, time)?);
            }
            Part::RoundTrip => {
                progress("round trip");
                limits.network.round_trip_us = Some(network::round_trips(time)?);
            }
            Part::Memory => {
                progress("copy, hot");
                limits.memory.memcpy_bytes_per_s = Some(memory::copy_hot(time));
                progress("copy, aliased");
                limits.memory.memcpy_aliased_bytes_per_s = Some(memory::copy_aliased(time));
                progress("copy, cold");
                limits.memory.memcpy_cold_bytes_per_s = Some(memory::copy_cold(time));
                progress("copy, fresh");
                limits.memory.memcpy_fresh_bytes_per_s = Some(memory::copy_fresh(time));
                progress("CRC-32C");
                limits.memory.crc_bytes_per_s = Some(memory::crc(time));
            }
            Part::Bare => self.bare(limits, progress)?,
            Part::BareBuilt => {
                progress("bare program, built records");
                limits.bare.built_bytes_per_s = Some(self.bare_built(progress)?);
            }
            Part::BarePush => {
                progress("bare program, with a consumer");
                limits.bare.push_bytes_per_s = Some(self.bare_push(progress)?);
            }
            Part::Floor => {
                progress("floor, one at a time");
                let latency = self.floor(None, progress)?;
                limits.floor.ack_us = Some(latency.ack_us);
                limits.floor.end_to_end_us = Some(latency.end_to_end_us);
            }
            Part::FloorPaced => {
                progress("floor, paced");
                let latency = self.floor(Some(self.config.floor_records_per_s), progress)?;
                limits.floor.paced_ack_us = Some(latency.ack_us);
                limits.floor.paced_end_to_end_us = Some(latency.end_to_end_us);
            }
        }
        Ok(())
    }

    fn disk(&mut self, limits: &mut Limits, progress: &mut dyn FnMut(&str)) -> Result<(), LimitsError> {
        let scratch = self.scratch(progress)?;
        let mut run = |title: &str, write, block_bytes| {
            progress(title);
            disk::sequential(&scratch, write, block_bytes, self.config.time)
        };
        let small = run("disk write, 128 KiB", true, 128 << 10)?;
        let large = run("disk write, 1 MiB", true, 1 << 20)?;
        limits.disk.write_128_kib_bytes_per_s = Some(small.bytes_per_s);
        limits.disk.write_1_mib_bytes_per_s = Some(large.bytes_per_s);
        limits.disk.write_bytes_per_s = Some(small.bytes_per_s.max(large.bytes_per_s));
        limits.disk.write_flush_after_us = Some(large.flush_us);
        let small = run("disk read, 128 KiB", false, 128 << 10)?;
        let large = run("disk read, 1 MiB", false, 1 << 20)?;
        limits.disk.read_128_kib_bytes_per_s = Some(small.bytes_per_s);
        limits.disk.read_1_mib_bytes_per_s = Some(large.bytes_per_s);
        limits.disk.read_bytes_per_s = Some(small.bytes_per_s.max(large.bytes_per_s));
        Ok(())
    }

    fn bare_config(&mut self, progress: &mut dyn FnMut(&str)) -> Result<BareConfig, LimitsError> {
        let scratch = self.scratch(progress)?;
        Ok(BareConfig {
            cpu: self.config.cpu,
            ..BareConfig::new(scratch)
        })
    }

    fn bare(&mut self, limits: &mut Limits, progress: &mut dyn FnMut(&str)) -> Result<(), LimitsError> {
        let config = self.bare_config(progress)?;
        let mut source = Prepared::new(self.config.batch_bytes);
        progress("bare program");
        let (fed, report) = self.feed(config.clone(), &mut source)?;
        limits.bare.bytes_per_s = Some(fed.bytes_per_s());
        limits.bare.flush_us = report.flush_us;
        progress("bare program, a flush for 4 MiB");
        let config = BareConfig {
            flush_uncovered_bytes: 4 << 20,
            ..config
        };
        let (fed, _) = self.feed(config, &mut source)?;
        limits.bare.flush_4_mib_bytes_per_s = Some(fed.bytes_per_s());
        Ok(())
    }

    fn bare_built(&mut self, progress: &mut dyn FnMut(&str)) -> Result<f64, LimitsError> {
        let config = self.bare_config(progress)?;
        let built = Built::new(self.config.batch_bytes, self.config.record_bytes);
        let mut source = Ahead::spawn(built, BATCHES_AHEAD)?;
        let (fed, _) = self.feed(config, &mut source)?;
        Ok(fed.bytes_per_s())
    }

    fn bare_push(&mut self, progress: &mut dyn FnMut(&str)) -> Result<f64, LimitsError> {
        let config = self.bare_config(progress)?.with_push();
        let bare = Bare::start(config)?;
        let mut consumer = TcpStream::connect(bare.consumer_addr()).map_err(LimitsError::Network)?;
        network::prepare(&consumer).map_err(LimitsError::Network)?;
        let started = Instant::now();
        let consumer = thread::Builder::new()
            .name("consumer".to_owned())
            .spawn(move || network::drain(&mut consumer))
            .map_err(LimitsError::Threads)?;
        let fed = self.feeder(&bare).run(&mut Prepared::new(self.config.batch_bytes));
        let received = consumer.join();
        let elapsed = started.elapsed();
        // What failed there is why the connections failed.
        bare.stop()?.check()?;
        let fed = fed.map_err(LimitsError::Network)?;
        let panicked = |_panic| io::Error::other("the consumer has panicked");
        let received = received.map_err(panicked).flatten().map_err(LimitsError::Network)?;
        if received != fed.sent_bytes {
            return Err(LimitsError::Bare(format!(
                "the consumer has received {received} bytes of {}",
                fed.sent_bytes
            )));
        }
        Ok(fed.counted_bytes as f64 / elapsed.as_secs_f64())
    }

    fn feed(&self, config: BareConfig, source: &mut dyn FrameSource) -> Result<(Fed, BareReport), LimitsError> {
        let bare = Bare::start(config)?;
        let fed = self.feeder(&bare).run(source);
        let report = bare.stop()?.check()?;
        Ok((fed.map_err(LimitsError::Network)?, report))
    }

    fn feeder(&self, bare: &Bare) -> Feeder {
        Feeder {
            addr: bare.producer_addr(),
            in_flight_bytes: self.config.in_flight_bytes,
            time: self.config.time,
        }
    }

    fn floor(&mut self, rate: Option<u32>, progress: &mut dyn FnMut(&str)) -> Result<floor::Latency, LimitsError> {
        let load = floor::Load {
            record_bytes: self.config.floor_record_bytes,
            records_per_s: rate,
            frame_records_max: 1,
            time: self.config.time,
        };
        self.latency(load, progress)
    }

    fn latency(&mut self, load: floor::Load, progress: &mut dyn FnMut(&str)) -> Result<floor::Latency, LimitsError> {
        let bare = Bare::start(self.bare_config(progress)?.with_push())?;
        let latency = floor::measure(&bare, load);
        bare.stop()?.check()?;
        latency
    }

    /// The bare program with paced records, alone and next to readers of another file.
    pub fn beside(
        &mut self,
        load: floor::Load,
        readers: Readers,
        progress: &mut dyn FnMut(&str),
    ) -> Result<Beside, LimitsError> {
        progress("bare program, paced");
        let alone = self.latency(load, progress)?;
        progress("prepare a file to read");
        let old = Scratch::prepare(&self.config.data_dir, self.config.file_bytes)?;
        progress("bare program next to plain readers");
        let running = readers.start(&old)?;
        let beside = self.latency(load, progress);
        let bytes_per_s = running.stop()?;
        Ok(Beside {
            alone_ack_us: alone.ack_us,
            with_readers_ack_us: beside?.ack_us,
            bytes_per_s,
        })
    }
}

#[cfg(test)]
mod tests;
