//! Feeds the bare program: frames from a source, pipelined, so much in flight.
//!
//! A frame is its length (4 bytes, little-endian) and its bytes. The sender only sends and counts acknowledgements; what the
//! frames cost to make is spent in a thread of its own (`Ahead`), as it is in a client.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use headwater_protocol::batch::{BatchBuilder, Compression};
use headwater_protocol::id::Timestamp;

use super::LimitsError;
use super::bare::{ACK_BYTES, LENGTH_BYTES};
use super::network;

/// Bytes of the keys of records that are built: as long as those of the other workloads.
const KEY_BYTES: usize = 16;

/// Values are taken from so many bytes, at changing places.
const VALUES_BYTES: usize = 1 << 20;

/// What is sent next.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Without its length.
    pub bytes: Bytes,
    /// What of it counts in the rate.
    pub counted_bytes: u64,
}

/// Where frames come from.
pub trait FrameSource {
    /// The next one; `None` ends the feed.
    fn next_frame(&mut self) -> Option<Frame>;
}

/// The same bytes over and over.
#[derive(Debug, Clone)]
pub struct Prepared(Frame);

impl Prepared {
    /// So many.
    pub fn new(frame_bytes: usize) -> Self {
        Self(Frame {
            bytes: values(frame_bytes).into(),
            counted_bytes: frame_bytes as u64,
        })
    }
}

impl FrameSource for Prepared {
    fn next_frame(&mut self) -> Option<Frame> {
        Some(self.0.clone())
    }
}

/// Batches of records, each made as the client makes it: the time, a key, a copy of the value, the CRC. Counts the values.
#[derive(Debug, Clone)]
pub struct Built {
    batch_bytes: usize,
    record_bytes: usize,
    values: Vec<u8>,
    number: u64,
}

impl Built {
    /// Batches up to a size, of records with values of a size.
    pub fn new(batch_bytes: usize, record_bytes: usize) -> Self {
        Self {
            batch_bytes,
            record_bytes,
            values: values(VALUES_BYTES + record_bytes),
            number: 0,
        }
    }
}

impl FrameSource for Built {
    fn next_frame(&mut self) -> Option<Frame> {
        let mut builder = BatchBuilder::new(Compression::None, self.batch_bytes);
        loop {
            let mut key = [0; KEY_BYTES];
            key[..8].copy_from_slice(&self.number.to_le_bytes());
            let from = (self.number.wrapping_mul(0x9e37_79b9) % VALUES_BYTES as u64) as usize;
            let value = &self.values[from..from + self.record_bytes];
            let size = BatchBuilder::record_size_max(Some(&key), Some(value), &[]);
            if !builder.is_empty() && builder.len() + size > self.batch_bytes {
                break;
            }
            builder.append(Timestamp::now(), Some(&key), Some(value), &[]).ok()?;
            self.number += 1;
        }
        let counted_bytes = u64::from(builder.record_count()) * self.record_bytes as u64;
        let bytes = builder.build().freeze();
        Some(Frame { bytes, counted_bytes })
    }
}

/// Frames of another source, made in a thread of its own, a few ahead.
#[derive(Debug)]
pub struct Ahead(Receiver<Frame>);

impl Ahead {
    /// Makes up to `frames` that nobody has taken yet. The thread ends soon after this is dropped.
    pub fn spawn(mut source: impl FrameSource + Send + 'static, frames: usize) -> Result<Self, LimitsError> {
        let (made, taken) = sync_channel(frames);
        thread::Builder::new()
            .name("builder".to_owned())
            .spawn(move || {
                while let Some(frame) = source.next_frame() {
                    if made.send(frame).is_err() {
                        break;
                    }
                }
            })
            .map_err(LimitsError::Threads)?;
        Ok(Self(taken))
    }
}

impl FrameSource for Ahead {
    fn next_frame(&mut self) -> Option<Frame> {
        self.0.recv().ok()
    }
}

/// How to feed.
#[derive(Debug, Clone, Copy)]
pub struct Feeder {
    /// The bare program's address for producers.
    pub addr: SocketAddr,
    /// Sent and not acknowledged; one frame is always sent.
    pub in_flight_bytes: u64,
    /// How long new frames are sent.
    pub time: Duration,
}

/// What was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fed {
    /// Frames.
    pub frames: u64,
    /// What counts of them.
    pub counted_bytes: u64,
    /// All of their bytes, lengths included.
    pub sent_bytes: u64,
    /// From the first frame to the last acknowledgement.
    pub elapsed: Duration,
}

impl Fed {
    /// Of what counts.
    pub fn bytes_per_s(&self) -> f64 {
        self.counted_bytes as f64 / self.elapsed.as_secs_f64()
    }
}

impl Feeder {
    /// Sends for the time given, and waits for the last acknowledgement.
    pub fn run(&self, source: &mut dyn FrameSource) -> io::Result<Fed> {
        let mut socket = TcpStream::connect(self.addr)?;
        network::prepare(&socket)?;
        let mut acks = Acks::default();
        let mut sizes = VecDeque::new();
        let (mut in_flight, mut counted, mut sent, mut frames) = (0, 0, 0, 0);
        let started = Instant::now();
        while started.elapsed() < self.time {
            let Some(frame) = source.next_frame() else { break };
            let size = LENGTH_BYTES + frame.bytes.len() as u64;
            while in_flight > 0 && in_flight + size > self.in_flight_bytes {
                for _ in 0..acks.read(&mut socket)? {
                    in_flight -= sizes.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                }
            }
            send(&mut socket, &frame.bytes)?;
            sizes.push_back(size);
            in_flight += size;
            counted += frame.counted_bytes;
            sent += size;
            frames += 1;
        }
        while acks.count < frames {
            acks.read(&mut socket)?;
        }
        Ok(Fed {
            frames,
            counted_bytes: counted,
            sent_bytes: sent,
            elapsed: started.elapsed(),
        })
    }
}

/// Sends one frame.
pub fn send(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?.to_le_bytes();
    let mut parts = [IoSlice::new(&length), IoSlice::new(bytes)];
    let mut parts = parts.as_mut_slice();
    while !parts.is_empty() {
        match socket.write_vectored(parts) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => IoSlice::advance_slices(&mut parts, n),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Acknowledgements: counts that only grow.
#[derive(Debug, Default)]
pub struct Acks {
    /// Frames that are durable.
    pub count: u64,
    /// The beginning of one that is not complete.
    part: Vec<u8>,
}

impl Acks {
    /// Waits for some. Returns how many more frames are durable.
    pub fn read(&mut self, socket: &mut TcpStream) -> io::Result<u64> {
        let mut bytes = [0; 4096];
        let n = network::read(socket, &mut bytes)?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.take(&bytes[..n])
    }

    /// From bytes that were received.
    pub fn take(&mut self, bytes: &[u8]) -> io::Result<u64> {
        self.part.extend_from_slice(bytes);
        let whole = self.part.len() / ACK_BYTES * ACK_BYTES;
        let Some(last) = self.part[..whole].last_chunk() else {
            return Ok(0);
        };
        let count = u64::from_le_bytes(*last);
        self.part.drain(..whole);
        let more = count.checked_sub(self.count).ok_or(io::ErrorKind::InvalidData)?;
        self.count = count;
        Ok(more)
    }
}

/// Bytes that no disk can squeeze.
pub fn values(bytes: usize) -> Vec<u8> {
    use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
    let mut values = vec![0; bytes];
    SmallRng::seed_from_u64(0x7761_7465).fill(values.as_mut_slice());
    values
}
