//! What loopback TCP can do: one connection, plain blocking sockets, two threads.
//!
//! Every wait is bounded by the sockets' timeouts.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::Advice;

use super::LimitsError;
use super::figures::{Percentiles, Stopwatch};
use super::scratch::Scratch;

/// A peer that is silent for this long is given up.
pub const STALL: Duration = Duration::from_secs(10);

/// Size of the pieces that are sent and received.
const PIECE_BYTES: usize = 256 << 10;

/// Of the file that sendfile(2) sends; it must stay in the page cache.
const SENDFILE_BYTES: u64 = 128 << 20;

/// Of a message that goes back and forth.
const PING_BYTES: usize = 64;

/// Both ends of a connection, with bounded waits and without delays.
pub fn connection() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        prepare(end)?;
    }
    Ok((near, far))
}

/// Bounds a socket's waits, and has it send at once and at full speed, as the broker and its client do over loopback.
pub fn prepare(socket: &TcpStream) -> io::Result<()> {
    unpace(socket)?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(STALL))?;
    socket.set_write_timeout(Some(STALL))
}

/// What paces (BBR, where that is the system's default) only holds packets back over loopback.
pub fn unpace(socket: &TcpStream) -> io::Result<()> {
    Ok(rustix::net::sockopt::set_tcp_congestion(socket, "reno")?)
}

/// Reads what is there, or comes; also after a signal, such as one that continues a process.
pub fn read(socket: &mut TcpStream, bytes: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.read(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Bytes a second through one connection, from a buffer that is always the same.
pub fn throughput(time: Duration) -> Result<f64, LimitsError> {
    let piece = vec![0x5a; PIECE_BYTES];
    received(time, move |socket| socket.write_all(&piece))
}

/// Bytes a second through one connection, from a file in the page cache.
pub fn sendfile(scratch: &Scratch, time: Duration) -> Result<f64, LimitsError> {
    let failed = |doing| LimitsError::disk(doing, scratch.directory());
    let bytes = SENDFILE_BYTES.min(scratch.bytes());
    let file = scratch.cached().try_clone().map_err(LimitsError::Files)?;
    warm(&file, bytes).map_err(failed("read from"))?;
    let mut position = 0;
    let rate = received(time, move |socket| {
        if position == bytes {
            position = 0;
        }
        let length = PIECE_BYTES.min((bytes - position) as usize);
        match rustix::fs::sendfile(socket, &file, Some(&mut position), length) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    });
    // It would be in the way of the direct writes that come next.
    let _ = rustix::fs::fadvise(scratch.cached(), 0, None, Advice::DontNeed);
    rate
}

/// Reads the beginning of a file into the page cache.
fn warm(file: &File, bytes: u64) -> io::Result<()> {
    use std::os::unix::fs::FileExt as _;
    let mut piece = vec![0; PIECE_BYTES];
    for position in (0..bytes).step_by(PIECE_BYTES) {
        file.read_exact_at(&mut piece, position)?;
    }
    Ok(())
}

/// Sends for so long. The clock runs where it is received, from the first byte to the last.
fn received(time: Duration, mut send: impl FnMut(&mut TcpStream) -> io::Result<()> + Send) -> Result<f64, LimitsError> {
    let (mut near, mut far) = connection().map_err(LimitsError::Network)?;
    let rate = thread::scope(|scope| {
        let sender = scope.spawn(move || -> io::Result<()> {
            let started = Instant::now();
            while started.elapsed() < time {
                send(&mut near)?;
            }
            Ok(())
        });
        let received = receive(&mut far);
        // The sender fails, instead of waiting for room.
        drop(far);
        sender
            .join()
            .map_err(|_panic| io::Error::other("the sender has panicked"))??;
        received
    });
    rate.map_err(LimitsError::Network)
}

fn receive(socket: &mut TcpStream) -> io::Result<f64> {
    let mut piece = vec![0; PIECE_BYTES];
    socket.read_exact(&mut piece[..1])?;
    let started = Instant::now();
    let mut bytes = 0;
    loop {
        match read(socket, &mut piece)? {
            0 => return Ok(bytes as f64 / started.elapsed().as_secs_f64()),
            n => bytes += n as u64,
        }
    }
}

/// Reads to the end of the connection. Returns how many bytes there were.
pub fn drain(socket: &mut TcpStream) -> io::Result<u64> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut bytes = 0;
    loop {
        match read(socket, &mut piece)? {
            0 => return Ok(bytes),
            n => bytes += n as u64,
        }
    }
}

/// 64 bytes there and back, one after the other, for so long.
pub fn round_trips(time: Duration) -> Result<Percentiles, LimitsError> {
    let (mut near, mut far) = connection().map_err(LimitsError::Network)?;
    let watch = thread::scope(|scope| {
        scope.spawn(move || -> io::Result<()> {
            let mut ping = [0; PING_BYTES];
            loop {
                far.read_exact(&mut ping)?;
                far.write_all(&ping)?;
            }
        });
        let mut watch = Stopwatch::new();
        let mut ping = [0x5a; PING_BYTES];
        let started = Instant::now();
        loop {
            let begun = Instant::now();
            near.write_all(&ping)?;
            near.read_exact(&mut ping)?;
            watch.record(begun.elapsed());
            if started.elapsed() >= time {
                break;
            }
        }
        drop(near);
        Ok(watch)
    });
    Ok(watch.map_err(LimitsError::Network)?.percentiles())
}
