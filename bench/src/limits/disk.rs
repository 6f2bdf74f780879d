//! What the disk can do: sequential transfer, and small durable writes, past the page cache and into written blocks.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::ReadWriteFlags;

use super::LimitsError;
use super::figures::{Percentiles, Stopwatch};
use super::ring::{PAGE, Page, Ring, Slot};
use super::scratch::{Scratch, Transfer, fill};

/// Operations in flight.
const DEPTH: usize = 8;

/// What a transfer in order achieves.
#[derive(Debug, Clone, Copy)]
pub struct Sequential {
    /// Until the last operation completes; without the flush.
    pub bytes_per_s: f64,
    /// What an fdatasync takes after all the writes, in microseconds.
    pub flush_us: f64,
}

/// Reads or writes blocks of a size in order for so long.
pub fn sequential(
    scratch: &Scratch,
    write: bool,
    block_bytes: usize,
    time: Duration,
) -> Result<Sequential, LimitsError> {
    let failed = |doing| LimitsError::disk(doing, scratch.directory());
    let mut ring = Ring::new(32, DEPTH * block_bytes, 1).map_err(LimitsError::Ring)?;
    ring.set_file(Slot(0), Some(scratch.direct()?))
        .map_err(LimitsError::Ring)?;
    if write {
        fill(&mut ring);
    }
    let transfer = Transfer {
        write,
        block_bytes,
        depth: DEPTH,
        file_bytes: scratch.bytes(),
    };
    let started = Instant::now();
    let blocks = transfer.run(&mut ring, |_begun| started.elapsed() < time);
    let blocks = blocks.map_err(failed(if write { "write to" } else { "read from" }))?;
    let elapsed = started.elapsed();
    let flushed = Instant::now();
    if write {
        rustix::fs::fdatasync(scratch.cached()).map_err(|error| failed("flush in")(error.into()))?;
    }
    Ok(Sequential {
        bytes_per_s: (blocks * block_bytes as u64) as f64 / elapsed.as_secs_f64(),
        flush_us: flushed.elapsed().as_secs_f64() * 1e6,
    })
}

/// How a small write is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durable {
    /// A write, then fdatasync(2).
    Flush,
    /// One write with `RWF_DSYNC` (pwritev2(2)).
    Dsync,
}

/// One 4 KiB write after the other, each made durable, for so long.
pub fn small_writes(scratch: &Scratch, how: Durable, time: Duration) -> Result<Percentiles, LimitsError> {
    let file = scratch.direct()?;
    let block = Box::new(Page([0xa5; PAGE]));
    let mut watch = Stopwatch::new();
    let started = Instant::now();
    let write = |position: u64| -> io::Result<()> {
        let flags = match how {
            Durable::Flush => ReadWriteFlags::empty(),
            Durable::Dsync => ReadWriteFlags::DSYNC,
        };
        let parts = [io::IoSlice::new(&block.0)];
        let written = rustix::io::pwritev2(&file, &parts, position, flags)?;
        if written < PAGE {
            return Err(io::ErrorKind::WriteZero.into());
        }
        if how == Durable::Flush {
            rustix::fs::fdatasync(&file)?;
        }
        Ok(())
    };
    for number in 0.. {
        let begun = Instant::now();
        write(number * PAGE as u64 % scratch.bytes()).map_err(LimitsError::disk("write to", scratch.directory()))?;
        watch.record(begun.elapsed());
        if started.elapsed() >= time {
            break;
        }
    }
    Ok(watch.percentiles())
}
