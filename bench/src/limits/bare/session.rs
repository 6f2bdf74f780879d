//! One producer's connection to the bare program, and one consumer's: the loop on the ring.
//!
//! ```text
//! recv -> frames -> write -> fdatasync -> acknowledge
//!                                    +--> push, from the memory that it was received into
//! ```
//! No byte is copied by the program. The stream is stored and pushed as it comes, lengths of frames included.

use std::collections::VecDeque;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::stream::{Layout, Stream};
use super::{BareConfig, Tally};
use crate::limits::ring::{Completion, PAGE, Ring, Slot, Token};

/// Places in the ring's table of files.
pub const FILE: Slot = Slot(0);
const PRODUCER: Slot = Slot(1);
const CONSUMER: Slot = Slot(2);

const RECEIVE: Token = Token(u64::MAX);
const FLUSH: Token = Token(u64::MAX - 1);
const ACKNOWLEDGE: Token = Token(u64::MAX - 2);
const PUSH: Token = Token(u64::MAX - 3);

/// How often it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);

/// A disk that is silent for this long has failed.
const STALL: Duration = Duration::from_secs(10);

/// Most that is received or sent at once.
const PIECE_BYTES: u64 = 512 << 10;

/// Most frames that wait for their acknowledgement.
const FRAMES_MAX: usize = 1 << 20;

/// A length before each frame, and a count in each acknowledgement.
pub const LENGTH_BYTES: u64 = 4;

/// The count of frames that are durable.
pub const ACK_BYTES: usize = 8;

/// Why a session ended, if not because the producer was done.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The producer's fault.
    #[error("a frame of {length} bytes, and {max} are allowed")]
    Frame {
        /// What it said.
        length: u32,
        /// By the configuration.
        max: u32,
    },
    /// A peer has gone.
    #[error("connection: {0}")]
    Connection(#[source] io::Error),
    /// Nothing more can be acknowledged.
    #[error("disk: {0}")]
    Disk(#[source] io::Error),
    /// The ring itself.
    #[error("io_uring: {0}")]
    Ring(#[from] io::Error),
}

/// What is under way on the connections.
#[derive(Debug, Default)]
struct UnderWay {
    receive: bool,
    acknowledge: bool,
    push: bool,
    flush: Option<Instant>,
}

/// Frames that are not acknowledged.
#[derive(Debug, Default)]
struct Frames {
    /// Where the next one begins.
    next: u64,
    /// Where those end that wait.
    ends: VecDeque<u64>,
    durable: u64,
    acknowledged: u64,
}

/// The state of the loop.
pub struct Session<'a> {
    ring: &'a mut Ring,
    config: &'a BareConfig,
    tally: &'a mut Tally,
    stream: Stream,
    frames: Frames,
    under_way: UnderWay,
    producer: TcpStream,
    consumer: Option<TcpStream>,
    ended: bool,
    heard: Instant,
}

impl<'a> Session<'a> {
    /// With both connections; without a consumer nothing is pushed.
    pub fn new(
        ring: &'a mut Ring,
        config: &'a BareConfig,
        tally: &'a mut Tally,
        producer: TcpStream,
        consumer: Option<TcpStream>,
    ) -> io::Result<Self> {
        for socket in [Some(&producer), consumer.as_ref()].into_iter().flatten() {
            socket.set_nodelay(true)?;
            // The ring waits, not the socket.
            socket.set_nonblocking(false)?;
        }
        ring.set_file(PRODUCER, Some(producer.try_clone()?.into()))?;
        let copy = consumer.as_ref().map(TcpStream::try_clone).transpose()?;
        ring.set_file(CONSUMER, copy.map(Into::into))?;
        let layout = Layout {
            memory_bytes: (ring.memory_len() - PAGE) as u64,
            file_bytes: config.scratch.bytes(),
            write_bytes: config.write_bytes,
            writes_in_flight_max: config.writes_in_flight_max,
            flush_uncovered_bytes: config.flush_uncovered_bytes,
            single_write_bytes_max: config.single_write_bytes_max,
            alignment: config.scratch.alignment() as u64,
        };
        Ok(Self {
            stream: Stream::new(layout, consumer.is_some()),
            ring,
            config,
            tally,
            frames: Frames::default(),
            under_way: UnderWay::default(),
            producer,
            consumer,
            ended: false,
            heard: Instant::now(),
        })
    }

    /// Runs until the producer is done and everything is durable, acknowledged and pushed; or something fails.
    pub fn run(mut self, stop: &AtomicBool) -> Result<(), SessionError> {
        let result = self.serve(stop);
        self.close();
        result
    }

    fn serve(&mut self, stop: &AtomicBool) -> Result<(), SessionError> {
        while !stop.load(Ordering::Relaxed) {
            self.begin()?;
            if self.is_over() {
                break;
            }
            self.ring.submit_and_wait(LOOK)?;
            while let Some(completion) = self.ring.completion() {
                self.heard = Instant::now();
                self.complete(completion)?;
            }
            // Connections may be silent; the disk may not.
            let others = usize::from(self.under_way.receive) + usize::from(self.under_way.push);
            if self.ring.in_flight() > others && self.heard.elapsed() > STALL {
                return Err(SessionError::Disk(io::ErrorKind::TimedOut.into()));
            }
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        self.ended && self.stream.is_settled() && self.ring.in_flight() == 0
    }

    /// Begins everything that can be; one system call submits it.
    fn begin(&mut self) -> io::Result<()> {
        // Before the next write, which would put it off.
        if self.stream.begin_flush() {
            self.under_way.flush = Some(Instant::now());
            self.ring.fdatasync(self.config.flush_slot(), FLUSH)?;
        }
        while let Some(write) = self.stream.begin_write() {
            let span = self.stream.memory(&write.blocks);
            let position = self.stream.in_file(write.blocks.start);
            self.tally.writes += 1;
            self.tally.bytes_written += span.len() as u64;
            self.ring
                .write(FILE, &span, position, write.durable, Token(write.number))?;
        }
        if !self.under_way.acknowledge && self.frames.durable > self.frames.acknowledged {
            self.frames.acknowledged = self.frames.durable;
            let at = self.ring.memory_len() - PAGE;
            self.ring.copy_in(at, &self.frames.durable.to_le_bytes());
            self.ring.send(PRODUCER, &(at..at + ACK_BYTES), ACKNOWLEDGE)?;
            self.under_way.acknowledge = true;
        }
        let push = bounded(self.stream.to_push());
        if !self.under_way.push && !push.is_empty() {
            self.ring.send(CONSUMER, &self.stream.memory(&push), PUSH)?;
            self.under_way.push = true;
        }
        let room = bounded(self.stream.room());
        if !self.under_way.receive && !self.ended && !room.is_empty() && self.frames.ends.len() < FRAMES_MAX {
            self.ring.recv(PRODUCER, &self.stream.memory(&room), RECEIVE)?;
            self.under_way.receive = true;
        }
        Ok(())
    }

    fn complete(&mut self, completion: Completion) -> Result<(), SessionError> {
        match completion.token {
            RECEIVE => {
                self.under_way.receive = false;
                let bytes = completion.result.map_err(SessionError::Connection)? as u64;
                self.ended = bytes == 0;
                self.stream.on_received(bytes);
                self.tally.bytes += bytes;
                self.scan()?;
            }
            PUSH => {
                self.under_way.push = false;
                let bytes = completion.result.map_err(SessionError::Connection)?;
                self.stream.on_pushed(bytes as u64);
            }
            ACKNOWLEDGE => {
                self.under_way.acknowledge = false;
                if completion.result.map_err(SessionError::Connection)? < ACK_BYTES {
                    return Err(SessionError::Connection(io::ErrorKind::WriteZero.into()));
                }
            }
            FLUSH => {
                let begun = self.under_way.flush.take().expect("a flush was begun");
                completion.result.map_err(SessionError::Disk)?;
                self.tally.flushes.record(begun.elapsed());
                self.stream.on_flushed();
                self.count_durable();
            }
            Token(number) => {
                completion.result.map_err(SessionError::Disk)?;
                self.stream.on_written(number);
                self.count_durable();
            }
        }
        Ok(())
    }

    /// Finds the frames in what was received.
    fn scan(&mut self) -> Result<(), SessionError> {
        while self.frames.next + LENGTH_BYTES <= self.stream.received() {
            let mut length = [0; LENGTH_BYTES as usize];
            for (position, byte) in (self.frames.next..).zip(&mut length) {
                // One by one, as the memory may wrap in the middle.
                let at = self.stream.memory(&(position..position + 1)).start;
                self.ring.copy_out(at, std::slice::from_mut(byte));
            }
            let length = u32::from_le_bytes(length);
            let max = self.config.frame_bytes_max;
            if length == 0 || length > max {
                return Err(SessionError::Frame { length, max });
            }
            self.frames.next += LENGTH_BYTES + u64::from(length);
            self.frames.ends.push_back(self.frames.next);
        }
        Ok(())
    }

    fn count_durable(&mut self) {
        let durable = self.stream.durable();
        while self.frames.ends.pop_front_if(|end| *end <= durable).is_some() {
            self.frames.durable += 1;
            self.tally.frames += 1;
        }
    }

    /// Hangs up, and waits until the kernel has let go of the memory.
    fn close(self) {
        // Whoever is gone already does not mind.
        let _ = self.producer.shutdown(Shutdown::Both);
        if let Some(consumer) = &self.consumer {
            let _ = consumer.shutdown(Shutdown::Both);
        }
        let deadline = Instant::now() + STALL;
        while self.ring.in_flight() > 0 && Instant::now() < deadline {
            if self.ring.submit_and_wait(LOOK).is_err() {
                break;
            }
            while self.ring.completion().is_some() {}
        }
        for slot in [PRODUCER, CONSUMER] {
            let _ = self.ring.set_file(slot, None);
        }
    }
}

fn bounded(positions: Range<u64>) -> Range<u64> {
    positions.start..positions.end.min(positions.start + PIECE_BYTES)
}
