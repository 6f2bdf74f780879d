//! Measures the ways to write a log durably: 512 KiB direct writes, up to 8 in flight, one fdatasync for each 2 MiB that none
//! covers, into a file that is recycled (its blocks were written before), fallocated, or extended.
//!
//! `cargo run --release -p headwater-engine --example write_paths -- DIRECTORY` prints the median of five rounds, in which all
//! paths take turns. It depends on the disk and its neighbours: compare lines of one run only.
#![allow(clippy::unwrap_used, reason = "a measurement stops at the first failure")]

use std::{fs, io, os::fd::AsRawFd, path::Path, rc::Rc, time::Instant};

use futures::{
    future::{FutureExt, LocalBoxFuture, pending},
    stream::{FuturesUnordered, StreamExt},
};
use glommio::{
    LocalExecutorBuilder, Placement,
    io::{DmaFile, OpenOptions},
};
use headwater_engine::disk::{BLOCK_SIZE, BlockPool, BlockSlice, DirectDisk, DirectFile, Disk, SegmentFile};
use io_uring::{IoUring, opcode, types};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

const WRITE: usize = 512 << 10;
const IN_FLIGHT: usize = 8;
const UNCOVERED_MAX: usize = 2 << 20;
const TOTAL: usize = 256 << 20;
const ROUNDS: usize = 5;
const PATHS: [&str; 5] = [
    "glommio write_rc_at",
    "engine's ring",
    "plain ring",
    "registered",
    "RWF_DSYNC",
];
const FILES: [&str; 3] = ["recycled", "fallocated", "extended"];

/// CPU time of all threads so far, those of the kernel's workers for our rings included, in seconds.
fn cpu_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let stats = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok());
    let nanoseconds = stats.map(|stat| stat.split(' ').next().unwrap().parse::<u64>().unwrap());
    nanoseconds.sum::<u64>() as f64 / 1e9
}

/// Makes the file what it is called, and flushes it, outside of what is measured.
fn prepare(path: &Path, kind: &str) -> io::Result<()> {
    let file = fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)?;
    match kind {
        "recycled" if file.metadata()?.len() == TOTAL as u64 => {}
        "recycled" => io::copy(&mut io::Read::take(io::repeat(0), TOTAL as u64), &mut &file).map(drop)?,
        _ => file.set_len(0)?,
    }
    if kind == "fallocated" {
        fallocate(&file, FallocateFlags::empty(), 0, TOTAL as u64)?;
    }
    file.sync_all()
}

type Operation = LocalBoxFuture<'static, io::Result<()>>;

/// The load, through futures.
async fn drive(write: impl Fn(u64) -> Operation, sync: Option<impl Fn() -> Operation>) -> io::Result<()> {
    let (mut writes, mut syncing): (FuturesUnordered<Operation>, Option<Operation>) = (FuturesUnordered::new(), None);
    let (mut issued, mut uncovered) = (0, 0);
    loop {
        while issued < TOTAL && writes.len() < IN_FLIGHT {
            writes.push(write(issued as u64));
            issued += WRITE;
        }
        if let Some(sync) = &sync
            && syncing.is_none()
            && (uncovered >= UNCOVERED_MAX || (writes.is_empty() && uncovered > 0))
        {
            (syncing, uncovered) = (Some(sync()), 0);
        }
        if writes.is_empty() && syncing.is_none() {
            return Ok(());
        }
        let synced = async {
            match &mut syncing {
                Some(sync) => sync.await,
                None => pending().await,
            }
        };
        let mut written = writes.next().map(Option::transpose).fuse();
        futures::select_biased! {
            done = if_any(&mut written).fuse() => { done?; uncovered += WRITE; }
            done = synced.boxed_local().fuse() => { done?; syncing = None; }
        }
    }
}

/// Never resolves when there was nothing to wait for.
async fn if_any(next: impl Future<Output = io::Result<Option<()>>>) -> io::Result<()> {
    match next.await? {
        Some(()) => Ok(()),
        None => pending().await,
    }
}

async fn with_glommio(path: &Path) -> io::Result<()> {
    let file = Rc::new(OpenOptions::new().read(true).write(true).dma_open(path).await?);
    let buffer = |_| {
        let mut buffer = file.alloc_dma_buffer(WRITE);
        buffer.as_bytes_mut().fill(7);
        Rc::new(buffer)
    };
    let buffers: Vec<_> = (0..IN_FLIGHT).map(buffer).collect();
    let write = |at: u64| {
        write_glommio(
            Rc::clone(&file),
            Rc::clone(&buffers[at as usize / WRITE % IN_FLIGHT]),
            at,
        )
    };
    let sync = || {
        let file = Rc::clone(&file);
        async move { Ok(file.fdatasync().await?) }.boxed_local()
    };
    drive(write, Some(sync)).await
}

fn write_glommio(file: Rc<DmaFile>, buffer: Rc<glommio::io::DmaBuffer>, at: u64) -> Operation {
    async move { file.write_rc_at(buffer, at).await.map(drop).map_err(io::Error::from) }.boxed_local()
}

async fn with_engine(disk: &DirectDisk, path: &Path, each_durable: bool) -> io::Result<()> {
    let file: DirectFile = disk.open(path, false).await?;
    let slices = slices();
    let write = |at: u64| {
        let data = slices[at as usize / WRITE % IN_FLIGHT].clone();
        if each_durable {
            file.write_durable(data, at).boxed_local()
        } else {
            file.write(data, at).boxed_local()
        }
    };
    drive(write, (!each_durable).then_some(|| file.sync().boxed_local())).await
}

/// As the engine has them: parts of chunks in huge pages.
fn slices() -> Vec<BlockSlice> {
    let pool = BlockPool::new(IN_FLIGHT * WRITE);
    pool.prefault(IN_FLIGHT * WRITE);
    let chunk = |_| {
        let buffer = pool.take(4 * WRITE).expect("there is enough");
        buffer.append(&vec![7; 4 * WRITE]);
        Rc::new(buffer)
    };
    let chunks: Vec<_> = (0..IN_FLIGHT / 4).map(chunk).collect();
    let slice = |index: usize| chunks[index / 4].blocks(index % 4 * WRITE, (index % 4 + 1) * WRITE);
    (0..IN_FLIGHT).map(slice).collect()
}

/// The load on a ring of its own, waiting in the kernel, as a bound for what a ring can do.
fn with_ring(path: &Path, registered: bool) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::RDWR | OFlags::DIRECT, rustix::fs::Mode::empty())?;
    let slices = slices();
    let mut ring = IoUring::new(64)?;
    if registered {
        // SAFETY: the slices are initialised memory that outlives the ring's use of it.
        let bytes = |slice: &BlockSlice| io::IoSlice::new(unsafe { std::slice::from_raw_parts(slice.as_ptr(), WRITE) });
        let vectors: Vec<_> = slices.iter().map(bytes).collect();
        // SAFETY: as above; an `IoSlice` has the layout of an `iovec`.
        unsafe {
            ring.submitter()
                .register_buffers(std::slice::from_raw_parts(vectors.as_ptr().cast(), IN_FLIGHT))?;
        };
        ring.submitter().register_files(&[file.as_raw_fd()])?;
    }
    let (mut issued, mut uncovered, mut writing, mut syncing) = (0, 0, 0, false);
    let mut free: Vec<usize> = (0..IN_FLIGHT).collect();
    while issued < TOTAL || writing > 0 || syncing || uncovered > 0 {
        let mut entries = Vec::new();
        while issued < TOTAL
            && let Some(index) = free.pop()
        {
            let (memory, length, at) = (slices[index].as_ptr(), WRITE as u32, issued as u64);
            entries.push(if registered {
                opcode::WriteFixed::new(types::Fixed(0), memory, length, index as u16)
                    .offset(at)
                    .build()
                    .user_data(index as u64)
            } else {
                opcode::Write::new(types::Fd(file.as_raw_fd()), memory, length)
                    .offset(at)
                    .build()
                    .user_data(index as u64)
            });
            (issued, writing) = (issued + WRITE, writing + 1);
        }
        if !syncing && (uncovered >= UNCOVERED_MAX || (writing == 0 && uncovered > 0)) {
            let sync = opcode::Fsync::new(types::Fd(file.as_raw_fd())).flags(types::FsyncFlags::DATASYNC);
            entries.push(sync.build().user_data(IN_FLIGHT as u64));
            (syncing, uncovered) = (true, 0);
        }
        // SAFETY: the buffers and the file outlive the loop, which ends when nothing is in flight.
        unsafe { ring.submission().push_multiple(&entries).unwrap() };
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            assert!(
                completion.result() >= 0,
                "{}",
                io::Error::from_raw_os_error(-completion.result())
            );
            if completion.user_data() == IN_FLIGHT as u64 {
                syncing = false;
            } else {
                free.push(completion.user_data() as usize);
                (writing, uncovered) = (writing - 1, uncovered + WRITE);
            }
        }
    }
    Ok(())
}

async fn measure(directory: &Path) -> io::Result<()> {
    assert!(WRITE.is_multiple_of(BLOCK_SIZE));
    let disk = DirectDisk::new()?;
    let mut taken = vec![[(0.0, 0.0); ROUNDS]; PATHS.len() * FILES.len()];
    for round in 0..ROUNDS {
        for step in 0..taken.len() {
            // Nobody is always first.
            let way = (step + round) % PATHS.len();
            let kind = FILES[step / PATHS.len()];
            let path = directory.join(format!("write-paths-{kind}"));
            prepare(&path, kind)?;
            let (start, cpu) = (Instant::now(), cpu_seconds());
            match way {
                0 => with_glommio(&path).await?,
                1 => with_engine(&disk, &path, false).await?,
                2 | 3 => with_ring(&path, way == 3)?,
                _ => with_engine(&disk, &path, true).await?,
            }
            taken[step / PATHS.len() * PATHS.len() + way][round] = (
                TOTAL as f64 / 1e6 / start.elapsed().as_secs_f64(),
                (cpu_seconds() - cpu) * 1e9 / TOTAL as f64,
            );
        }
    }
    println!("{:12} {:20} {:>6} {:>8}", "file", "path", "MB/s", "CPU s/GB");
    for (index, mut taken) in taken.into_iter().enumerate() {
        let (kind, way) = (FILES[index / PATHS.len()], PATHS[index % PATHS.len()]);
        taken.sort_by(|a, b| a.0.total_cmp(&b.0));
        let (speed, _) = taken[ROUNDS / 2];
        taken.sort_by(|a, b| a.1.total_cmp(&b.1));
        println!("{kind:12} {way:20} {speed:6.0} {:8.3}", taken[ROUNDS / 2].1);
    }
    FILES
        .iter()
        .try_for_each(|kind| fs::remove_file(directory.join(format!("write-paths-{kind}"))))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let directory = std::env::args_os().nth(1).ok_or("usage: write_paths DIRECTORY")?;
    let builder = LocalExecutorBuilder::new(Placement::Unbound);
    let handle = builder.spawn(move || async move { measure(Path::new(&directory)).await })?;
    Ok(handle.join()??)
}
