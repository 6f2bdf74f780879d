//! What it costs to send a cold file to a socket: with sendfile(2) out of the page cache, which the kernel was told to fill ahead, as the
//! broker does, and with direct reads into memory that is used again and again, and send(2).
//!
//! ```sh
//! cargo run --release -p headwater-engine --example cold_reads -- DIR
//! ```
//!
//! Writes 3 GB to the directory, and removes them. The receiver only receives. Three rounds, in turns, each after a pause in which
//! the host of a virtual machine may take back the memory that has come free.

#![allow(clippy::unwrap_used, reason = "a measurement stops at the first failure")]

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    path::Path,
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{Advice, Mode, OFlags, fadvise},
    mm::{self, madvise},
};

const SIZE: u64 = 3_000 << 20;
/// Bytes of each read, and of each hint to the kernel.
const STEP: usize = 1 << 20;
const HUGE_PAGE: usize = 2 << 20;
/// Reads under way at once, and hints ahead of what is sent.
const AHEAD: u64 = 8;
/// Most bytes that are handed to the socket at once.
const PIECE: usize = 256 << 10;
const PAUSE: Duration = Duration::from_secs(6);
/// `USER_HZ`, in which proc(5) counts.
const TICKS_PER_SECOND: f64 = 100.0;

fn main() {
    let directory = std::env::args().nth(1).expect("usage: cold_reads DIR");
    let path = Path::new(&directory).join("cold-reads");
    write(&path);
    for round in 1..=3 {
        turn(round, "page cache, sendfile ", &path, through_the_page_cache);
        turn(round, "direct reads, send   ", &path, directly);
    }
    std::fs::remove_file(&path).unwrap();
}

/// Past the page cache, as segments are.
fn write(path: &Path) {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let mut options = OpenOptions::new();
    let mut file = options
        .create_new(true)
        .write(true)
        .custom_flags(direct)
        .open(path)
        .unwrap();
    let mut memory = memory();
    let block = aligned(&mut memory);
    for _ in 0..SIZE / STEP as u64 {
        file.write_all(block).unwrap();
    }
    file.sync_all().unwrap();
}

/// Memory with one step in a huge page: of small ones a direct read would have to name 256.
fn memory() -> Vec<u8> {
    let mut memory = vec![0; 2 * HUGE_PAGE];
    let step = aligned(&mut memory);
    // SAFETY: the huge page lies in the vector, and how its memory is mapped changes nothing in it.
    unsafe { madvise(step.as_mut_ptr().cast(), HUGE_PAGE, mm::Advice::LinuxHugepage) }.unwrap();
    step.fill(7);
    memory
}

/// The step.
fn aligned(memory: &mut [u8]) -> &mut [u8] {
    let start = memory.as_ptr().align_offset(HUGE_PAGE);
    &mut memory[start..start + STEP]
}

fn turn(round: u32, way: &str, path: &Path, send: fn(&Path, &mut TcpStream)) {
    fadvise(File::open(path).unwrap(), 0, None, Advice::DontNeed).unwrap();
    thread::sleep(PAUSE);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut receiver = listener.accept().unwrap().0;
    let (cpu, began) = (cpu_seconds(), Instant::now());
    let receiving = thread::spawn(move || {
        let mut buffer = vec![0; STEP];
        let mut total = 0;
        loop {
            match receiver.read(&mut buffer).unwrap() {
                0 => return total,
                count => total += count as u64,
            }
        }
    });
    send(path, &mut sender);
    drop(sender);
    assert_eq!(receiving.join().unwrap(), SIZE);
    let (seconds, gigabytes) = (began.elapsed().as_secs_f64(), SIZE as f64 / 1e9);
    let cpu = (cpu_seconds() - cpu) / gigabytes;
    println!(
        "round {round}: {way} {:5.0} MB/s  {cpu:.2} CPU s/GB",
        gigabytes * 1e3 / seconds
    );
}

/// Of the whole machine, as much is done by threads of the kernel: user, nice, system, interrupts.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks: Vec<f64> = text
        .lines()
        .next()
        .unwrap()
        .split_whitespace()
        .skip(1)
        .map(|n| n.parse().unwrap())
        .collect();
    (ticks[0] + ticks[1] + ticks[2] + ticks[5] + ticks[6]) / TICKS_PER_SECOND
}

fn through_the_page_cache(path: &Path, socket: &mut TcpStream) {
    let file = File::open(path).unwrap();
    fadvise(&file, 0, None, Advice::Sequential).unwrap();
    let (mut position, mut ahead) = (0, 0);
    while position < SIZE {
        while ahead < SIZE.min(position + AHEAD * STEP as u64) {
            fadvise(&file, ahead, std::num::NonZero::new(STEP as u64), Advice::WillNeed).unwrap();
            ahead += STEP as u64;
        }
        rustix::fs::sendfile(&*socket, &file, Some(&mut position), PIECE).unwrap();
    }
}

fn directly(path: &Path, socket: &mut TcpStream) {
    let file: OwnedFd =
        rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty()).unwrap();
    thread::scope(|scope| {
        let readers: Vec<_> = (0..AHEAD)
            .map(|first| {
                let (free, wanted) = channel::<Vec<u8>>();
                let (filled, full) = channel();
                free.send(memory()).unwrap();
                let file = &file;
                scope.spawn(move || {
                    for number in (first..SIZE / STEP as u64).step_by(AHEAD as usize) {
                        let mut memory = wanted.recv().unwrap();
                        let count = rustix::io::pread(file, aligned(&mut memory), number * STEP as u64).unwrap();
                        assert_eq!(count, STEP);
                        filled.send(memory).unwrap();
                    }
                });
                (free, full)
            })
            .collect();
        for number in 0..SIZE / STEP as u64 {
            let (free, full) = &readers[(number % AHEAD) as usize];
            let mut memory = full.recv().unwrap();
            aligned(&mut memory)
                .chunks(PIECE)
                .for_each(|piece| socket.write_all(piece).unwrap());
            // A reader that has read its last is gone.
            let _ = free.send(memory);
        }
    });
}
