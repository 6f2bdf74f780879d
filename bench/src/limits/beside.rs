//! What readers of old data cost whoever writes, on this machine: the bare program alone, and next to plain readers that do
//! what serving such data takes and nothing else. What a broker's producers suffer beyond that is the broker's own.

use std::fs::File;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::fs::Advice;
use serde::Serialize;

use super::LimitsError;
use super::figures::Percentiles;
use super::network;
use super::scratch::Scratch;

/// Size of the pieces that go from the file to the connection: as the broker's.
const PIECE_BYTES: usize = 256 << 10;

/// The kernel is told to read so far ahead: as the broker tells it.
const AHEAD_BYTES: u64 = 8 << 20;

/// How much of old data is read.
#[derive(Debug, Clone, Copy)]
pub struct Readers {
    /// Connections, each with a thread that sends and one that receives.
    pub count: usize,
    /// Of all together.
    pub bytes_per_s: f64,
}

/// To the acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Beside {
    /// With nobody else.
    pub alone_ack_us: Percentiles,
    /// Next to the readers.
    pub with_readers_ack_us: Percentiles,
    /// What the readers have read.
    pub bytes_per_s: f64,
}

/// Readers at work, until this is dropped; each goes through the file over and over, and drops it from the page cache each time.
pub struct Running {
    began: Instant,
    readers: Vec<(TcpStream, JoinHandle<io::Result<u64>>)>,
}

impl Readers {
    /// Starts them.
    pub fn start(self, scratch: &Scratch) -> Result<Running, LimitsError> {
        let each = self.bytes_per_s / self.count.max(1) as f64;
        let mut running = Running {
            began: Instant::now(),
            readers: Vec::new(),
        };
        for _ in 0..self.count {
            let (near, mut far) = network::connection().map_err(LimitsError::Network)?;
            let end = near.try_clone().map_err(LimitsError::Files)?;
            let scratch = scratch.clone();
            let file = scratch.reopen()?;
            let sender = move || send(&near, &file, scratch.bytes(), each);
            let spawn = |name: &str| thread::Builder::new().name(name.to_owned());
            spawn("reader").spawn(sender).map_err(LimitsError::Threads)?;
            let receiver = spawn("receiver")
                .spawn(move || network::drain(&mut far))
                .map_err(LimitsError::Threads)?;
            running.readers.push((end, receiver));
        }
        Ok(running)
    }
}

impl Running {
    /// Ends them. Returns how many bytes they have read in a second.
    pub fn stop(mut self) -> Result<f64, LimitsError> {
        let time = self.began.elapsed();
        self.shut_down();
        let mut bytes = 0;
        for (_, receiver) in self.readers.drain(..) {
            let panicked = |_panic| io::Error::other("a receiver has panicked");
            let received = receiver.join().map_err(panicked).flatten();
            bytes += received.map_err(LimitsError::Network)?;
        }
        Ok(bytes as f64 / time.as_secs_f64())
    }

    /// The senders fail, and the receivers find the end.
    fn shut_down(&self) {
        for (connection, _) in &self.readers {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shut_down();
    }
}

/// Until the connection is shut down.
fn send(socket: &TcpStream, file: &File, bytes: u64, bytes_per_s: f64) -> io::Result<()> {
    let began = Instant::now();
    let mut sent = 0;
    loop {
        rustix::fs::fadvise(file, 0, None, Advice::DontNeed)?;
        let (mut position, mut ahead) = (0, 0);
        while position < bytes {
            while ahead < bytes.min(position + AHEAD_BYTES) {
                let step = (AHEAD_BYTES / 8).min(bytes - ahead);
                rustix::fs::fadvise(file, ahead, std::num::NonZeroU64::new(step), Advice::WillNeed)?;
                ahead += step;
            }
            let piece = PIECE_BYTES.min((bytes - position) as usize);
            match rustix::fs::sendfile(socket, file, Some(&mut position), piece) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => sent += count as u64,
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let due = Duration::from_secs_f64(sent as f64 / bytes_per_s.max(1.0));
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
}

impl Beside {
    /// How much longer the slowest hundredth takes next to the readers.
    pub fn p99_ratio(&self) -> f64 {
        self.with_readers_ack_us.p99 / self.alone_ack_us.p99.max(1e-9)
    }
}
