//! The bare program keeps its promises: every byte in order, nothing acknowledged that is not durable, no bad frame taken.

use std::io::{Read as _, Write as _};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use super::*;
use crate::limits::feeder::{Acks, Feeder, Frame, FrameSource, send};
use crate::limits::network;
use crate::limits::tests::directory;

fn config() -> BareConfig {
    let scratch = Scratch::prepare(&directory(), 16 << 20).unwrap();
    BareConfig::new(scratch)
}

fn connect(addr: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(addr).unwrap();
    network::prepare(&socket).unwrap();
    socket
}

/// Frames of all sizes, a copy of which goes to whoever compares.
struct Copied {
    random: SmallRng,
    frames: usize,
    sizes: [usize; 2],
    copies: mpsc::Sender<Bytes>,
}

impl FrameSource for Copied {
    fn next_frame(&mut self) -> Option<Frame> {
        self.frames = self.frames.checked_sub(1)?;
        let size = self.random.random_range(self.sizes[0]..self.sizes[1]);
        let mut bytes = vec![0; size];
        self.random.fill(bytes.as_mut_slice());
        let bytes = Bytes::from(bytes);
        self.copies.send(bytes.clone()).unwrap();
        Some(Frame {
            counted_bytes: size as u64,
            bytes,
        })
    }
}

/// Feeds, consumes and compares. Returns what the program says.
fn deliver(config: BareConfig, frames: usize, sizes: [usize; 2], in_flight_bytes: u64) -> BareReport {
    let bare = Bare::start(config).unwrap();
    let mut consumer = connect(bare.consumer_addr());
    let feeder = Feeder {
        addr: bare.producer_addr(),
        in_flight_bytes,
        time: Duration::from_mins(1),
    };
    let (copies, sent) = mpsc::channel();
    let mut source = Copied {
        random: SmallRng::seed_from_u64(frames as u64),
        frames,
        sizes,
        copies,
    };
    let feeding = thread::spawn(move || {
        let fed = feeder.run(&mut source).unwrap();
        drop(source);
        fed
    });
    let mut seen = 0;
    while let Ok(frame) = sent.recv() {
        let mut length = [0; 4];
        consumer.read_exact(&mut length).unwrap();
        assert_eq!(u32::from_le_bytes(length) as usize, frame.len());
        let mut bytes = vec![0; frame.len()];
        consumer.read_exact(&mut bytes).unwrap();
        assert!(bytes == frame, "frame {seen} is altered");
        seen += 1;
    }
    assert_eq!(feeding.join().unwrap().frames, frames as u64);
    assert_eq!(seen, frames);
    assert_eq!(
        network::read(&mut consumer, &mut [0]).unwrap(),
        0,
        "nothing comes after the end"
    );
    bare.stop().unwrap().check().unwrap()
}

#[test]
fn every_byte_reaches_the_consumer_in_order_also_when_memory_and_file_are_used_again() {
    let small_memory = BareConfig {
        buffer_bytes: 2 << 20,
        ..config().with_push()
    };
    // Four times the file, 32 times the memory.
    let report = deliver(small_memory, 400, [1, 320 << 10], 4 << 20);
    assert_eq!(report.frames, 400);
    assert!(report.bytes > 48 << 20, "{report:?}");
    assert!(report.bytes_written >= report.bytes);
    assert!(report.flush_us.is_some());
}

#[test]
fn small_frames_one_by_one_are_durable_without_a_flush_of_their_own() {
    let report = deliver(config().with_push(), 200, [1, 2000], 1);
    assert_eq!(report.frames, 200);
    assert!(report.writes >= 200, "{report:?}");
    assert_eq!(report.flush_us, None);
}

#[test]
fn what_the_program_acknowledged_is_in_the_file() {
    let config = config();
    let scratch = config.scratch.clone();
    let bare = Bare::start(config).unwrap();
    let mut producer = connect(bare.producer_addr());
    let frame = crate::limits::feeder::values(700_000);
    send(&mut producer, &frame).unwrap();
    let mut acks = Acks::default();
    acks.read(&mut producer).unwrap();
    assert_eq!(acks.count, 1);
    let mut stored = vec![0; 700_004];
    std::os::unix::fs::FileExt::read_exact_at(scratch.cached(), &mut stored, 0).unwrap();
    assert_eq!(stored[..4], 700_000_u32.to_le_bytes());
    assert!(stored[4..] == frame);
}

#[test]
fn nothing_is_acknowledged_or_pushed_when_the_flush_fails() {
    let bare = Bare::start(BareConfig {
        flushes_fail: true,
        // Or else a lone write needs none.
        single_write_bytes_max: 0,
        ..config().with_push()
    })
    .unwrap();
    let (mut producer, mut consumer) = (connect(bare.producer_addr()), connect(bare.consumer_addr()));
    send(&mut producer, &[7; 1000]).unwrap();
    let mut all = Vec::new();
    producer.read_to_end(&mut all).unwrap();
    consumer.read_to_end(&mut all).unwrap();
    assert!(all.is_empty(), "{all:?}");
    let report = bare.stop().unwrap();
    assert_eq!(report.frames, 0);
    assert!(report.failures[0].starts_with("disk: "), "{report:?}");
}

#[test]
fn a_frame_that_is_too_long_or_empty_closes_the_connection_and_the_next_producer_is_served() {
    let bare = Bare::start(config()).unwrap();
    for bad in [0, (8 << 20) + 1, u32::MAX] {
        let mut producer = connect(bare.producer_addr());
        producer.write_all(&bad.to_le_bytes()).unwrap();
        assert_eq!(network::read(&mut producer, &mut [0; 8]).unwrap(), 0);
    }
    let mut producer = connect(bare.producer_addr());
    send(&mut producer, b"good").unwrap();
    assert_eq!(Acks::default().read(&mut producer).unwrap(), 1);
    let report = bare.stop().unwrap();
    assert_eq!(report.failures.len(), 3, "{report:?}");
    assert!(report.failures[1].contains("8388609 bytes"), "{report:?}");
}

#[test]
fn a_producer_that_ends_within_a_frame_gets_what_was_whole_acknowledged() {
    let bare = Bare::start(config()).unwrap();
    let mut producer = connect(bare.producer_addr());
    send(&mut producer, b"whole").unwrap();
    producer.write_all(&[9, 0, 0, 0, 1]).unwrap();
    producer.shutdown(std::net::Shutdown::Write).unwrap();
    let mut acks = Vec::new();
    producer.read_to_end(&mut acks).unwrap();
    assert_eq!(acks.last_chunk(), Some(&1_u64.to_le_bytes()));
    assert_eq!(bare.stop().unwrap().frames, 1);
}

#[test]
fn a_cpu_that_is_not_there_is_an_error_and_no_panic() {
    for cpu in [1023, usize::MAX] {
        let config = BareConfig {
            cpu: Some(cpu),
            ..config()
        };
        let error = Bare::start(config).unwrap_err();
        assert!(matches!(error, LimitsError::Cpu { .. }), "{error}");
    }
}
