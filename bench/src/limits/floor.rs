//! The floor of latency: small records through the bare program, from one thread that sends and receives.
//!
//! One at a time, the next record is sent when the one before was acknowledged and received. Paced, records are sent when they
//! are due, whatever became of the others, and time counts from when they were due.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::LimitsError;
use super::bare::{Bare, LENGTH_BYTES};
use super::feeder::{Acks, send, values};
use super::figures::{Percentiles, Stopwatch};
use super::network;

/// The first records find cold caches, and are not counted.
const WARM_UP_RECORDS: u64 = 32;

/// So many are sent however long it takes, so that there is something to count.
const RECORDS_MIN: u64 = WARM_UP_RECORDS + 32;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Size of a record.
    pub record_bytes: usize,
    /// How many are due in a second; `None`: one at a time.
    pub records_per_s: Option<u32>,
    /// How long.
    pub time: Duration,
}

/// What was measured.
#[derive(Debug, Clone, Copy)]
pub struct Latency {
    /// To the acknowledgement.
    pub ack_us: Percentiles,
    /// To the receipt at the consumer's connection.
    pub end_to_end_us: Percentiles,
}

/// Measures the bare program, which must be one that pushes.
pub fn measure(bare: &Bare, load: Load) -> Result<Latency, LimitsError> {
    let addresses = (bare.producer_addr(), bare.consumer_addr());
    let times = thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // Only this thread: sleeps until a record is due are otherwise 50 us late.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            let wire = Wire::connect(addresses, load.record_bytes)?;
            match load.records_per_s {
                None => wire.one_at_a_time(load.time),
                Some(rate) => wire.paced(load.time, Duration::from_secs(1) / rate.max(1)),
            }
        });
        let panicked = |_panic| io::Error::other("the load has panicked");
        thread.join().map_err(panicked).flatten()
    });
    let times = times.map_err(LimitsError::Network)?;
    Ok(Latency {
        ack_us: times.ack.percentiles(),
        end_to_end_us: times.end_to_end.percentiles(),
    })
}

struct Times {
    ack: Stopwatch,
    end_to_end: Stopwatch,
}

/// Both connections.
struct Wire {
    producer: TcpStream,
    consumer: TcpStream,
    record: Vec<u8>,
    sent: u64,
    acks: Acks,
    received_bytes: u64,
    /// The beginnings of records that were not acknowledged, and of those that were not received.
    unacknowledged: VecDeque<Instant>,
    unreceived: VecDeque<Instant>,
    times: Times,
}

impl Wire {
    fn connect((producer, consumer): (SocketAddr, SocketAddr), record_bytes: usize) -> io::Result<Self> {
        let (producer, consumer) = (TcpStream::connect(producer)?, TcpStream::connect(consumer)?);
        for socket in [&producer, &consumer] {
            network::prepare(socket)?;
        }
        Ok(Self {
            producer,
            consumer,
            record: values(record_bytes),
            sent: 0,
            acks: Acks::default(),
            received_bytes: 0,
            unacknowledged: VecDeque::new(),
            unreceived: VecDeque::new(),
            times: Times {
                ack: Stopwatch::new(),
                end_to_end: Stopwatch::new(),
            },
        })
    }

    fn one_at_a_time(mut self, time: Duration) -> io::Result<Times> {
        let started = Instant::now();
        while started.elapsed() < time || self.sent < RECORDS_MIN {
            self.send(Instant::now())?;
            self.settle()?;
        }
        Ok(self.times)
    }

    fn paced(mut self, time: Duration, interval: Duration) -> io::Result<Times> {
        let started = Instant::now();
        let mut due = started;
        while due < started + time || self.sent < RECORDS_MIN {
            let now = Instant::now();
            if now >= due {
                self.send(due)?;
                due += interval;
                // Those that are late are sent first, and those that have come are still looked at.
                self.receive(Duration::ZERO)?;
            } else {
                self.receive(due - now)?;
            }
        }
        self.settle()?;
        Ok(self.times)
    }

    fn send(&mut self, began: Instant) -> io::Result<()> {
        self.unacknowledged.push_back(began);
        self.unreceived.push_back(began);
        self.sent += 1;
        send(&mut self.producer, &self.record)
    }

    /// Waits until all that was sent is acknowledged and received.
    fn settle(&mut self) -> io::Result<()> {
        while !self.unacknowledged.is_empty() || !self.unreceived.is_empty() {
            if !self.receive(network::STALL)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        Ok(())
    }

    /// Takes what has come, or comes within the time. Returns whether anything has.
    fn receive(&mut self, wait: Duration) -> io::Result<bool> {
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        let mut waits = [
            PollFd::new(&self.producer, PollFlags::IN),
            PollFd::new(&self.consumer, PollFlags::IN),
        ];
        match poll(&mut waits, Some(&wait)) {
            Ok(0) => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let [acknowledged, received] = waits.map(|wait| !wait.revents().is_empty());
        let mut bytes = [0; 4096];
        if acknowledged {
            let n = take(&self.producer, &mut bytes)?;
            let now = Instant::now();
            let first = self.acks.count;
            for number in first..first + self.acks.take(&bytes[..n])? {
                let began = self.unacknowledged.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                if number >= WARM_UP_RECORDS {
                    self.times.ack.record(now - began);
                }
            }
        }
        if received {
            let n = take(&self.consumer, &mut bytes)?;
            let now = Instant::now();
            let size = LENGTH_BYTES + self.record.len() as u64;
            let first = self.received_bytes / size;
            self.received_bytes += n as u64;
            for number in first..self.received_bytes / size {
                let began = self.unreceived.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                if number >= WARM_UP_RECORDS {
                    self.times.end_to_end.record(now - began);
                }
            }
        }
        Ok(true)
    }
}

/// What is there; the end of the connection is an error.
fn take(socket: &TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    match recv(socket, bytes, RecvFlags::DONTWAIT) {
        Ok((0, _)) => Err(io::ErrorKind::UnexpectedEof.into()),
        Ok((n, _)) => Ok(n),
        Err(error) => Err(error.into()),
    }
}
