//! Reads frames off a socket: bytes to whole frames, with bounded memory.
//!
//! A connection that is idle holds no buffer. When something arrives it takes one from the core's budget, and gives it back as soon as
//! the socket runs dry. A buffer grows with what has arrived, never with what a frame only claims,
//! and a frame that does not come to its end in time ends the connection: silent clients keep no memory from others. A large
//! frame is read to its end and a header further, so the next one need not be moved.

use std::{
    cell::{Cell, RefCell},
    error::Error,
    fmt::Debug,
    future::poll_fn,
    io,
    marker::PhantomData,
    rc::Rc,
    time::{Duration, Instant},
};

use headwater_protocol::{
    frame::{self, Api, FrameError, FrameHeader},
    stranger::Stranger,
};

use super::channel::Reading;
use crate::{
    core::budget::{Budget, Lease},
    machine,
};

/// Buffer of a connection to which something has come while the budget is spent, in bytes: beside it.
const LEAST_BUFFER_SIZE: usize = 512;

/// First buffer of a connection to which something has come, in bytes.
const SMALL_BUFFER_SIZE: usize = 32 * 1024;

/// Buffer of a busy connection, in bytes; a larger frame gets one that grows to its size.
const BUSY_BUFFER_SIZE: usize = 512 * 1024;

/// Beyond this many missing bytes a read stops behind the frame.
const LARGE_REST: usize = 64 * 1024;

/// Read buffers of one size that no connection uses now.
const POOLED_MAX: usize = 16;

/// The first bytes of a frame, as a protocol has them: enough to know where it ends, and what it costs to take it in.
pub(crate) trait FrameHead: Copy + Debug {
    /// So many bytes are enough to read it.
    const LEN: usize;

    /// Why bytes are no frame, or one that is too large.
    type Error: Error + 'static;

    /// Reads it, once enough of it is there. `size_max` is the most that the frame's first field may state.
    fn parse(bytes: &[u8], size_max: u32) -> Result<Option<Self>, Self::Error>;

    /// Bytes of the whole frame.
    fn frame_len(&self) -> usize;

    /// It asks for records, which takes more while it waits for them than its bytes.
    fn is_fetch(&self) -> bool;

    /// It brings records.
    fn is_produce(&self) -> bool;
}

impl FrameHead for FrameHeader {
    const LEN: usize = frame::HEADER_LEN;

    type Error = FrameError;

    fn parse(bytes: &[u8], size_max: u32) -> Result<Option<FrameHeader>, FrameError> {
        FrameHeader::parse(bytes, size_max)
    }

    fn frame_len(&self) -> usize {
        FrameHeader::frame_len(self)
    }

    fn is_fetch(&self) -> bool {
        self.api == Api::Fetch.as_u16()
    }

    fn is_produce(&self) -> bool {
        self.api == Api::Produce.as_u16()
    }
}

/// A core's read buffers.
#[derive(Debug)]
pub(crate) struct ReadBuffers {
    budget: Rc<Budget>,
    small: RefCell<Vec<Vec<u8>>>,
    busy: RefCell<Vec<Vec<u8>>>,
}

impl ReadBuffers {
    pub(crate) fn new(budget: &Rc<Budget>) -> Rc<ReadBuffers> {
        Rc::new(ReadBuffers {
            budget: Rc::clone(budget),
            small: RefCell::default(),
            busy: RefCell::default(),
        })
    }

    fn of_size(&self, size: usize) -> Option<&RefCell<Vec<Vec<u8>>>> {
        match size {
            SMALL_BUFFER_SIZE => Some(&self.small),
            BUSY_BUFFER_SIZE => Some(&self.busy),
            _ => None,
        }
    }

    async fn take(self: &Rc<Self>, size: usize) -> Buffer {
        let lease = self.budget.lease(size as u64).await;
        self.buffer(size, lease)
    }

    /// For what has come just now.
    fn take_small(self: &Rc<Self>) -> Buffer {
        match self.budget.try_lease(SMALL_BUFFER_SIZE as u64) {
            Some(lease) => self.buffer(SMALL_BUFFER_SIZE, lease),
            None => Buffer::new(vec![0; LEAST_BUFFER_SIZE], None),
        }
    }

    fn buffer(self: &Rc<Self>, size: usize, lease: Lease) -> Buffer {
        let pooled = self.of_size(size).and_then(|pool| pool.borrow_mut().pop());
        let bytes = pooled.unwrap_or_else(|| vec![0; size]);
        Buffer::new(bytes, Some((Rc::clone(self), lease)))
    }
}

/// None, of no size, by default.
#[derive(Debug, Default)]
struct Buffer {
    /// All initialised; `start..end` has been read and not yet consumed.
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// `None` if it is beside the budget.
    home: Option<(Rc<ReadBuffers>, Lease)>,
}

impl Buffer {
    fn new(bytes: Vec<u8>, home: Option<(Rc<ReadBuffers>, Lease)>) -> Buffer {
        Buffer {
            bytes,
            start: 0,
            end: 0,
            home,
        }
    }

    fn unread(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Makes room for `missing` more bytes by moving what is unread to the front.
    fn compact(&mut self) {
        self.bytes.copy_within(self.start..self.end, 0);
        self.end -= self.start;
        self.start = 0;
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if let Some((home, _)) = &self.home
            && let Some(pool) = home.of_size(self.bytes.len())
            && pool.borrow().len() < POOLED_MAX
        {
            pool.borrow_mut().push(std::mem::take(&mut self.bytes));
        }
    }
}

/// What a frame may be.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FrameLimits {
    /// In bytes, as the frame's first field states it.
    pub(crate) size_max: u32,
    /// From the first byte to the last.
    pub(crate) wait_max: Duration,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError<E: Error + 'static = FrameError> {
    /// Not a frame of this protocol, or one that is too large.
    #[error(transparent)]
    Frame(E),
    /// It did not come to its end in time.
    #[error("a frame took more than {} ms to arrive", .0.as_millis())]
    Slow(Duration),
    /// The peer went away in the middle of a frame, or the network failed.
    #[error("connection lost: {0}")]
    Io(#[from] io::Error),
}

/// A whole frame, borrowed from the read buffer.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    pub(crate) header: FrameHeader,
    pub(crate) head: &'a [u8],
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// All of its bytes taken apart.
    pub(crate) fn of(header: FrameHeader, bytes: &'a [u8]) -> Frame<'a> {
        let (head, payload) = bytes[frame::HEADER_LEN..].split_at(header.head_len());
        Frame { header, head, payload }
    }
}

/// The reading side of a connection.
pub(crate) struct FrameReader<H = FrameHeader> {
    stream: Reading,
    buffers: Rc<ReadBuffers>,
    buffer: Buffer,
    /// The last read has left nothing in the socket.
    is_dry: bool,
    limits: FrameLimits,
    /// Reads that have brought something, for whoever looks whether the other side is there.
    arrivals: Rc<Cell<u64>>,
    head: PhantomData<H>,
}

impl FrameReader {
    /// The frame that [`next`](Self::next) has announced.
    pub(crate) fn frame(&self, header: FrameHeader) -> Frame<'_> {
        Frame::of(header, self.bytes(header))
    }
}

impl<H: FrameHead> FrameReader<H> {
    pub(crate) fn new(stream: Reading, buffers: Rc<ReadBuffers>, limits: FrameLimits) -> FrameReader<H> {
        FrameReader {
            stream,
            buffers,
            buffer: Buffer::default(),
            is_dry: true,
            limits,
            arrivals: Rc::default(),
            head: PhantomData,
        }
    }

    /// Grows whenever something comes, of whatever frame.
    pub(crate) fn arrivals(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.arrivals)
    }

    /// Frames may be such ones from now on.
    pub(crate) fn expect(&mut self, limits: FrameLimits) {
        self.limits = limits;
    }

    /// What a peer speaks whose bytes are no frame, if that can be told.
    pub(crate) fn stranger(&self) -> Option<Stranger> {
        Stranger::of(self.buffer.unread())
    }

    /// Waits for a whole frame and returns its header, with the time from its first bytes to its last; `None` when the
    /// peer has closed the connection between two frames. [`bytes`](Self::bytes) then borrows it, and [`consume`](Self::consume) goes on to the next.
    pub(crate) async fn next(&mut self) -> Result<Option<(H, Duration)>, ReadError<H::Error>> {
        let mut began = None;
        loop {
            let header = H::parse(self.buffer.unread(), self.limits.size_max).map_err(ReadError::Frame)?;
            let unread = self.buffer.unread().len();
            let missing = match &header {
                Some(header) if unread >= header.frame_len() => {
                    let time = began.map_or(Duration::ZERO, |began: Instant| machine::since(began));
                    return Ok(Some((*header, time)));
                }
                Some(header) => header.frame_len() - unread,
                None => H::LEN - unread,
            };
            let goes_on = if unread == 0 {
                self.read(missing).await?
            } else {
                let wait_max = self.limits.wait_max;
                let began = *began.get_or_insert_with(machine::now);
                let read = machine::until(began + wait_max, self.read(missing)).await;
                read.ok_or(ReadError::Slow(wait_max))??
            };
            if !goes_on {
                return match unread {
                    0 => Ok(None),
                    _ => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                };
            }
        }
    }

    /// The whole frame that [`next`](Self::next) has announced.
    pub(crate) fn bytes(&self, header: H) -> &[u8] {
        &self.buffer.unread()[..header.frame_len()]
    }

    /// Is done with the frame.
    pub(crate) fn consume(&mut self, header: H) {
        self.buffer.start += header.frame_len();
        if self.buffer.start == self.buffer.end {
            (self.buffer.start, self.buffer.end) = (0, 0);
        }
    }

    /// Reads once, of a frame of which `missing` bytes have not come. False at the end of the stream.
    async fn read(&mut self, missing: usize) -> Result<bool, ReadError<H::Error>> {
        if self.buffer.start == self.buffer.end {
            let size = self.buffer.bytes.len();
            // To who sends much, more has come meanwhile.
            if (!self.is_dry || size > SMALL_BUFFER_SIZE)
                && let Some(count) = self.stream.try_read(&mut self.buffer.bytes[..])?
            {
                return Ok(self.has_read(count, size));
            }
            return Ok(self.read_first().await?);
        }
        self.make_room(missing).await;
        let room = self.buffer.bytes.len() - self.buffer.end;
        let limit = if missing > LARGE_REST { missing + H::LEN } else { room };
        let wanted = room.min(limit);
        let end = self.buffer.end + wanted;
        let count = self.stream.read(&mut self.buffer.bytes[self.buffer.end..end]).await?;
        Ok(self.has_read(count, wanted))
    }

    /// Waits for the first bytes of a frame, and has no buffer while it does.
    async fn read_first(&mut self) -> io::Result<bool> {
        self.buffer = Buffer::default();
        let (stream, buffers) = (&mut self.stream, &self.buffers);
        let first = poll_fn(|context| {
            let mut buffer = buffers.take_small();
            let read = stream.poll_read(context, &mut buffer.bytes);
            read.map_ok(|count| (buffer, count))
        });
        let (buffer, count) = first.await?;
        let size = buffer.bytes.len();
        self.buffer = buffer;
        Ok(self.has_read(count, size))
    }

    /// So many bytes have come where `wanted` would have been taken. False at the end of the stream.
    fn has_read(&mut self, count: usize, wanted: usize) -> bool {
        self.buffer.end += count;
        self.is_dry = count < wanted;
        self.arrivals.set(self.arrivals.get() + 1);
        count > 0
    }

    async fn make_room(&mut self, missing: usize) {
        let unread = self.buffer.end - self.buffer.start;
        if self.buffer.end + missing <= self.buffer.bytes.len() {
            return;
        }
        let (size, wanted) = (self.buffer.bytes.len(), unread + missing);
        if wanted <= size || unread < size / 2 {
            self.buffer.compact();
            return;
        }
        let size = match size {
            LEAST_BUFFER_SIZE => SMALL_BUFFER_SIZE,
            SMALL_BUFFER_SIZE => BUSY_BUFFER_SIZE,
            _ => (wanted + H::LEN).min(size * 2),
        };
        // What this connection holds goes back first, so that a connection never waits for its own lease.
        let unread = self.buffer.unread().to_vec();
        self.buffer = Buffer::default();
        self.buffer = self.buffers.take(size).await;
        self.buffer.bytes[..unread.len()].copy_from_slice(&unread);
        self.buffer.end = unread.len();
    }
}
