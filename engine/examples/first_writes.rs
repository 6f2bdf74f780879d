//! What a durable write of one block costs where blocks were only reserved, and where they were written before.
//!
//! ```sh
//! cargo run --release -p headwater-engine --example first_writes -- DIR
//! ```
//!
//! One thread, `pwritev2` with `RWF_DSYNC` past the page cache, block after block, as a broker's small appends do. Three rounds, in turns.

use std::{error::Error, fs::File, io::IoSlice, os::fd::OwnedFd, path::Path, time::Instant};

use headwater_engine::disk::{BLOCK_SIZE, BlockBuffer};
use rustix::{
    fs::{FallocateFlags, Mode, OFlags},
    io::ReadWriteFlags,
};

/// Durable writes of each turn.
const WRITES: u64 = 2000;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args().nth(1).ok_or("usage: first_writes DIR")?;
    for round in 1..=3 {
        for was_written in [false, true] {
            let mut times = turn(Path::new(&directory), was_written)?;
            times.sort_unstable();
            let (p50, p99) = (times[times.len() / 2], times[times.len() * 99 / 100]);
            let what = if was_written {
                "written before"
            } else {
                "only reserved "
            };
            println!("round {round}: {what}  p50 {p50} us  p99 {p99} us");
        }
    }
    Ok(())
}

/// The time of each write, in microseconds.
fn turn(directory: &Path, was_written: bool) -> Result<Vec<u128>, Box<dyn Error>> {
    let path = directory.join("first-writes");
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let file: OwnedFd = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)?;
    // It is gone with the process, however that ends.
    std::fs::remove_file(&path)?;
    rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, WRITES * BLOCK_SIZE as u64)?;
    let block = BlockBuffer::new(BLOCK_SIZE);
    block.append(&[1; BLOCK_SIZE]);
    let write = |number: u64, how| {
        let position = number * BLOCK_SIZE as u64;
        rustix::io::pwritev2(&file, &[IoSlice::new(block.bytes())], position, how)
    };
    if was_written {
        for number in 0..WRITES {
            write(number, ReadWriteFlags::empty())?;
        }
    }
    let file: File = file.try_clone()?.into();
    file.sync_all()?;
    let mut times = Vec::new();
    for number in 0..WRITES {
        let began = Instant::now();
        write(number, ReadWriteFlags::DSYNC)?;
        times.push(began.elapsed().as_micros());
    }
    Ok(times)
}
