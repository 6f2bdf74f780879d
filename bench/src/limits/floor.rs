//! The floor of latency: small records through the bare program, from one thread that sends and receives.
//!
//! One at a time, the next record is sent when the one before was acknowledged and received. Paced, records are sent when they
//! are due, whatever became of the others, and time counts from when they were due, or could be sent if the load itself was late:
//! as the time of producers does. Those that are due at once may share a frame.

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
use crate::load::pace::Debt;

/// The first records find cold caches, and are not counted.
const WARM_UP_RECORDS: u64 = 32;

/// So many are sent however long it takes, so that there is something to count.
const RECORDS_MIN: u64 = WARM_UP_RECORDS + 32;

/// Taken from a connection at once.
const TAKE_BYTES: usize = 64 << 10;

/// How to load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Size of a record.
    pub record_bytes: usize,
    /// How many are due in a second; `None`: one at a time.
    pub records_per_s: Option<u32>,
    /// Most records in one frame.
    pub frame_records_max: usize,
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
            let wire = Wire::connect(addresses, load)?;
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
    load: Load,
    /// As many as a frame may have.
    records: Vec<u8>,
    sent: u64,
    sent_bytes: u64,
    acks: Acks,
    acknowledged: u64,
    received: u64,
    received_bytes: u64,
    /// When those records were due that were not acknowledged, and whether each is the last of its frame.
    unacknowledged: VecDeque<(Instant, bool)>,
    /// When those were due that were not received, and how many bytes there are up to the end of each.
    unreceived: VecDeque<(Instant, u64)>,
    times: Times,
    /// For what comes.
    bytes: Vec<u8>,
}

impl Wire {
    fn connect((producer, consumer): (SocketAddr, SocketAddr), load: Load) -> io::Result<Self> {
        let (producer, consumer) = (TcpStream::connect(producer)?, TcpStream::connect(consumer)?);
        for socket in [&producer, &consumer] {
            network::prepare(socket)?;
        }
        Ok(Self {
            producer,
            consumer,
            load,
            records: values(load.record_bytes * load.frame_records_max),
            sent: 0,
            sent_bytes: 0,
            acks: Acks::default(),
            acknowledged: 0,
            received: 0,
            received_bytes: 0,
            unacknowledged: VecDeque::new(),
            unreceived: VecDeque::new(),
            times: Times {
                ack: Stopwatch::new(),
                end_to_end: Stopwatch::new(),
            },
            bytes: vec![0; TAKE_BYTES],
        })
    }

    fn one_at_a_time(mut self, time: Duration) -> io::Result<Times> {
        let started = Instant::now();
        while started.elapsed() < time || self.sent < RECORDS_MIN {
            self.send(&[Instant::now()])?;
            self.settle()?;
        }
        Ok(self.times)
    }

    fn paced(mut self, time: Duration, interval: Duration) -> io::Result<Times> {
        let started = Instant::now();
        let mut due = started;
        let mut frame = Vec::new();
        let mut debt = Debt::default();
        while due < started + time || self.sent < RECORDS_MIN {
            let now = Instant::now();
            if now >= due {
                frame.clear();
                while due <= now && frame.len() < self.load.frame_records_max {
                    frame.push(due + Duration::from_nanos(debt.own((now - due).as_nanos() as u64)));
                    due += interval;
                }
                self.send(&frame)?;
                debt.hold(now.elapsed().as_nanos() as u64);
                // Those that are late are sent first, and those that have come are still looked at.
                self.receive(Duration::ZERO)?;
            } else {
                debt.settle();
                self.receive(due - now)?;
            }
        }
        self.settle()?;
        Ok(self.times)
    }

    /// Sends a frame of the records whose time counts from then.
    fn send(&mut self, dues: &[Instant]) -> io::Result<()> {
        self.sent_bytes += LENGTH_BYTES;
        for (number, due) in (1..).zip(dues) {
            self.sent_bytes += self.load.record_bytes as u64;
            self.unacknowledged.push_back((*due, number == dues.len()));
            self.unreceived.push_back((*due, self.sent_bytes));
        }
        self.sent += dues.len() as u64;
        send(&mut self.producer, &self.records[..dues.len() * self.load.record_bytes])
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
        if acknowledged {
            let n = take(&self.producer, &mut self.bytes)?;
            let now = Instant::now();
            let mut frames = self.acks.take(&self.bytes[..n])?;
            while frames > 0 {
                let (due, is_last) = self.unacknowledged.pop_front().ok_or(io::ErrorKind::InvalidData)?;
                frames -= u64::from(is_last);
                self.acknowledged += 1;
                if self.acknowledged > WARM_UP_RECORDS {
                    self.times.ack.record(now - due);
                }
            }
        }
        if received {
            let n = take(&self.consumer, &mut self.bytes)?;
            let now = Instant::now();
            self.received_bytes += n as u64;
            while let Some((due, _)) = self.unreceived.pop_front_if(|(_, end)| *end <= self.received_bytes) {
                self.received += 1;
                if self.received > WARM_UP_RECORDS {
                    self.times.end_to_end.record(now - due);
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
