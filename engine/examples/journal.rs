//! Measures what one journal for all partitions of a core would give small batches: each batch durable in its partition's own
//! file (one `RWF_DSYNC` write each, what waits for a partition rides on its next write), against one sequential durable write
//! for all of them, with the partitions' files written behind it.
//!
//! `cargo run --release -p headwater-engine --example journal -- DIRECTORY [BATCH_BYTES] [BATCHES_IN_FLIGHT]` prints the median
//! of three rounds, in which both take turns. All files lie in blocks that were written before. What the journal does not pay
//! for here: recovery from it, and the index of what it holds. Compare lines of one run only.
#![allow(clippy::unwrap_used, reason = "a measurement stops at the first failure")]

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use headwater_engine::disk::{BLOCK_SIZE, BlockBuffer, BlockSlice};
use io_uring::{IoUring, opcode, squeue, types};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use rustix::{
    fs::{Mode, OFlags},
    time::{ClockId, clock_gettime},
};

const PARTITIONS: [usize; 5] = [1, 10, 100, 1_000, 10_000];
const ROUNDS: usize = 3;
const TIME: Duration = Duration::from_secs(2);

/// Of all partitions' files together; each is written over and over.
const FILES_BYTES: u64 = 256 << 20;
const FILE_BYTES_MIN: u64 = 128 << 10;
const JOURNAL_BYTES: u64 = 256 << 20;

/// Largest write, and all the memory that is written from: what it holds is of no matter.
const WRITE_BYTES_MAX: u64 = 512 << 10;

/// Behind the journal, so much waits in memory to be written to the partitions' files, and so many writes are under way.
const BEHIND_BYTES_MAX: u64 = 32 << 20;
const BEHIND_WRITES_MAX: usize = 16;

/// Marks the completion of a write behind the journal.
const BEHIND: u64 = 1 << 32;
/// Marks the completion of a write of the journal.
const JOURNAL: u64 = 2 << 32;

/// See pwritev2(2).
const RWF_DSYNC: i32 = 2;

const BLOCK: u64 = BLOCK_SIZE as u64;

/// One who waits for a batch.
type Slot = usize;

/// A file that is written in a circle.
struct Circle {
    file: OwnedFd,
    size: u64,
    end: u64,
}

impl Circle {
    fn open(path: &Path, size: u64) -> io::Result<Circle> {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        if file.metadata()?.len() < size {
            io::copy(&mut io::repeat(0).take(size), &mut &file)?;
            file.sync_all()?;
        }
        let file = rustix::fs::open(path, OFlags::RDWR | OFlags::DIRECT, Mode::empty())?;
        Ok(Circle { file, size, end: 0 })
    }

    /// Most bytes in one write; with the beginning of a block before them.
    fn write_max(&self) -> u64 {
        WRITE_BYTES_MAX.min(self.size) - BLOCK
    }

    /// The write of the next `bytes`, with the beginning of their first block.
    fn write(&mut self, bytes: u64, memory: &BlockSlice, durable: bool) -> squeue::Entry {
        if (self.end + bytes).next_multiple_of(BLOCK) > self.size {
            self.end = 0;
        }
        let from = self.end / BLOCK * BLOCK;
        self.end += bytes;
        let length = self.end.next_multiple_of(BLOCK) - from;
        assert!(length <= memory.len() as u64);
        opcode::Write::new(types::Fd(self.file.as_raw_fd()), memory.as_ptr(), length as u32)
            .offset(from)
            .rw_flags(if durable { RWF_DSYNC } else { 0 })
            .build()
    }
}

/// A way to make batches durable.
trait Way {
    fn append(&mut self, partition: usize, slot: Slot);
    /// What to start now.
    fn start(&mut self, entries: &mut Vec<squeue::Entry>);
    /// Something has been done; whose batches are durable now?
    fn done(&mut self, tag: u64, durable: &mut Vec<Slot>);
}

/// Every partition for itself.
struct Apart<'a> {
    files: &'a mut [Circle],
    waiting: Vec<Vec<Slot>>,
    writing: Vec<Vec<Slot>>,
    /// Partitions in which something waits and nothing is being written.
    ready: VecDeque<usize>,
    batch_bytes: u64,
    memory: &'a BlockSlice,
}

impl Way for Apart<'_> {
    fn append(&mut self, partition: usize, slot: Slot) {
        if self.waiting[partition].is_empty() && self.writing[partition].is_empty() {
            self.ready.push_back(partition);
        }
        self.waiting[partition].push(slot);
    }

    fn start(&mut self, entries: &mut Vec<squeue::Entry>) {
        while let Some(partition) = self.ready.pop_front() {
            let most = (self.files[partition].write_max() / self.batch_bytes) as usize;
            let count = self.waiting[partition].len().min(most);
            self.writing[partition].extend(self.waiting[partition].drain(..count));
            let bytes = count as u64 * self.batch_bytes;
            let entry = self.files[partition].write(bytes, self.memory, true);
            entries.push(entry.user_data(partition as u64));
        }
    }

    fn done(&mut self, tag: u64, durable: &mut Vec<Slot>) {
        let partition = tag as usize;
        durable.append(&mut self.writing[partition]);
        if !self.waiting[partition].is_empty() {
            self.ready.push_back(partition);
        }
    }
}

/// One journal first, and every partition's file behind it.
struct Together<'a> {
    journal: &'a mut Circle,
    files: &'a mut [Circle],
    waiting: Vec<(usize, Slot)>,
    writing: Vec<(usize, Slot)>,
    /// Bytes of each partition that are only in the journal.
    behind: Vec<u64>,
    /// Partitions that have such, the longest waiting first.
    order: VecDeque<usize>,
    behind_bytes: u64,
    behind_writes: usize,
    batch_bytes: u64,
    memory: &'a BlockSlice,
}

impl Way for Together<'_> {
    fn append(&mut self, partition: usize, slot: Slot) {
        self.waiting.push((partition, slot));
    }

    fn start(&mut self, entries: &mut Vec<squeue::Entry>) {
        if self.writing.is_empty() && !self.waiting.is_empty() {
            let most = (self.journal.write_max() / self.batch_bytes) as usize;
            let count = self.waiting.len().min(most);
            self.writing.extend(self.waiting.drain(..count));
            let bytes = count as u64 * self.batch_bytes;
            if self.journal.end + bytes + BLOCK > self.journal.size {
                self.free_the_journal();
            }
            entries.push(self.journal.write(bytes, self.memory, true).user_data(JOURNAL));
        }
        while self.behind_bytes > BEHIND_BYTES_MAX && self.behind_writes < BEHIND_WRITES_MAX {
            let Some(partition) = self.order.pop_front() else { break };
            let bytes = self.behind[partition].min(self.files[partition].write_max());
            self.behind[partition] -= bytes;
            self.behind_bytes -= bytes;
            if self.behind[partition] > 0 {
                self.order.push_back(partition);
            }
            let entry = self.files[partition].write(bytes, self.memory, false);
            entries.push(entry.user_data(BEHIND));
            self.behind_writes += 1;
        }
    }

    fn done(&mut self, tag: u64, durable: &mut Vec<Slot>) {
        if tag == BEHIND {
            self.behind_writes -= 1;
            return;
        }
        for (partition, slot) in self.writing.drain(..) {
            if self.behind[partition] == 0 {
                self.order.push_back(partition);
            }
            self.behind[partition] += self.batch_bytes;
            self.behind_bytes += self.batch_bytes;
            durable.push(slot);
        }
    }
}

impl Together<'_> {
    /// Before the journal's space is used again, what it holds must be on stable storage elsewhere: one syncfs(2) for all.
    fn free_the_journal(&self) {
        let file = self.journal.file.try_clone().unwrap();
        thread::spawn(move || rustix::fs::syncfs(file).unwrap());
    }
}

/// What was measured in one round.
#[derive(Clone, Copy)]
struct Figures {
    batches_per_s: f64,
    writes_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    cpu_us_per_batch: f64,
}

fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Everyone who has a batch durable sends the next one, to any partition.
fn measure(way: &mut dyn Way, partitions: usize, in_flight: usize, seed: u64) -> io::Result<Figures> {
    let mut ring = IoUring::new(4096)?;
    let mut random = SmallRng::seed_from_u64(seed);
    let mut since = vec![Instant::now(); in_flight];
    let mut latencies = Histogram::<u64>::new(3).unwrap();
    let (mut durable, mut entries): (Vec<Slot>, Vec<squeue::Entry>) = ((0..in_flight).collect(), Vec::new());
    let (mut batches, mut writes, mut running) = (0_u64, 0_u64, 0_usize);
    let (started, cpu) = (Instant::now(), cpu_seconds());
    loop {
        let over = started.elapsed() >= TIME;
        for slot in durable.drain(..) {
            if !over {
                since[slot] = Instant::now();
                way.append(random.random_range(0..partitions), slot);
            }
        }
        if !over {
            way.start(&mut entries);
        }
        writes += entries.len() as u64;
        running += entries.len();
        // SAFETY: memory and files outlive the ring's use of them: the loop ends when nothing is under way.
        unsafe { ring.submission().push_multiple(&entries).unwrap() };
        entries.clear();
        if running == 0 {
            break;
        }
        ring.submit_and_wait(1)?;
        for completion in ring.completion() {
            let result = completion.result();
            assert!(result > 0, "{}", io::Error::from_raw_os_error(-result));
            running -= 1;
            way.done(completion.user_data(), &mut durable);
        }
        for &slot in &durable {
            latencies.record(since[slot].elapsed().as_micros() as u64).unwrap();
            batches += 1;
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    Ok(Figures {
        batches_per_s: batches as f64 / seconds,
        writes_per_s: writes as f64 / seconds,
        p50_us: latencies.value_at_quantile(0.5),
        p99_us: latencies.value_at_quantile(0.99),
        cpu_us_per_batch: 1e6 * (cpu_seconds() - cpu) / batches as f64,
    })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments
        .next()
        .ok_or("usage: journal DIRECTORY [BATCH_BYTES] [BATCHES_IN_FLIGHT]")?;
    let batch_bytes: u64 = arguments.next().map_or(Ok(1024), |bytes| bytes.parse())?;
    let in_flight: usize = arguments.next().map_or(Ok(256), |count| count.parse())?;
    assert!((1..=64 << 10).contains(&batch_bytes), "batches of 1 to 65536 bytes");
    let directory = Path::new(&directory).join("journal-measurement");
    fs::create_dir_all(&directory)?;
    let buffer = Rc::new(BlockBuffer::new(WRITE_BYTES_MAX as usize));
    buffer.append(&vec![7; WRITE_BYTES_MAX as usize]);
    let memory = buffer.blocks(0, WRITE_BYTES_MAX as usize);
    let mut journal = Circle::open(&directory.join("journal"), JOURNAL_BYTES)?;
    println!(
        "{:>10} {:12} {:>10} {:>8} {:>9} {:>9} {:>9} {:>13}",
        "partitions", "way", "batches/s", "MB/s", "writes/s", "p50 us", "p99 us", "CPU us/batch"
    );
    for partitions in PARTITIONS {
        let size = (FILES_BYTES / partitions as u64).clamp(FILE_BYTES_MIN, 64 << 20) / BLOCK * BLOCK;
        let open = |index| Circle::open(&directory.join(format!("{partitions}-{index}")), size);
        let mut files = (0..partitions).map(open).collect::<io::Result<Vec<_>>>()?;
        let mut taken = [Vec::new(), Vec::new()];
        for round in 0..ROUNDS {
            let mut apart = Apart {
                files: &mut files,
                waiting: vec![Vec::new(); partitions],
                writing: vec![Vec::new(); partitions],
                ready: VecDeque::new(),
                batch_bytes,
                memory: &memory,
            };
            taken[0].push(measure(&mut apart, partitions, in_flight, round as u64)?);
            let mut together = Together {
                journal: &mut journal,
                files: &mut files,
                waiting: Vec::new(),
                writing: Vec::new(),
                behind: vec![0; partitions],
                order: VecDeque::new(),
                behind_bytes: 0,
                behind_writes: 0,
                batch_bytes,
                memory: &memory,
            };
            taken[1].push(measure(&mut together, partitions, in_flight, round as u64)?);
        }
        for (name, mut rounds) in ["own files", "journal"].into_iter().zip(taken) {
            rounds.sort_by(|a, b| a.batches_per_s.total_cmp(&b.batches_per_s));
            let median = rounds[ROUNDS / 2];
            println!(
                "{partitions:>10} {name:12} {:>10.0} {:>8.1} {:>9.0} {:>9} {:>9} {:>13.1}",
                median.batches_per_s,
                median.batches_per_s * batch_bytes as f64 / 1e6,
                median.writes_per_s,
                median.p50_us,
                median.p99_us,
                median.cpu_us_per_batch,
            );
        }
    }
    fs::remove_dir_all(directory)?;
    Ok(())
}
