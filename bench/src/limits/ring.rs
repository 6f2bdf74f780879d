//! A raw io_uring with the memory and the files that its operations use: all the unsafe code of the limits.
//!
//! Owned by one thread. The memory is one region that no reference is ever given out to: operations name spans of it, and
//! bytes are copied in and out. It is freed only when the kernel has completed every operation, and given up otherwise. Which
//! spans may be used at the same time is the caller's affair: a mistake there spoils figures, not the process.

use std::io;
use std::mem::ManuallyDrop;
use std::ops::Range;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, squeue, types};
use rustix::io::ReadWriteFlags;
use rustix::mm::{Advice, madvise};
use rustix::net::SendFlags;

/// Alignment of the memory, and of direct I/O where the file system does not say: the largest logical block there is.
pub const PAGE: usize = 4096;

/// How long dropping a ring waits for what the kernel still has.
const DROP_WAIT: Duration = Duration::from_secs(1);

/// How often, and how long after one another, the kernel is asked to take what it has no memory for.
const ATTEMPTS_MAX: usize = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// Memory that is aligned for direct I/O.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Page(pub [u8; PAGE]);

/// Bytes of a huge page. A request to the disk names each page of its memory, so that with small ones it says 512 times as
/// much, and may be cut into several.
const HUGE_PAGE: usize = 2 << 20;

/// A huge page, where the machine gives one.
#[repr(C, align(2097152))]
struct HugePage([u8; HUGE_PAGE]);

/// So many of them, touched.
fn huge_pages(count: usize) -> Vec<HugePage> {
    let mut pages = Vec::<HugePage>::with_capacity(count);
    let (memory, length) = (pages.as_mut_ptr().cast::<u8>(), count * HUGE_PAGE);
    // SAFETY: the vector's memory, in which nothing is yet; without huge pages it is as it was.
    let _ = unsafe { madvise(memory.cast(), length, Advice::LinuxHugepage) };
    // SAFETY: all of it lies in the vector, and any bytes are a `HugePage`.
    unsafe {
        memory.write_bytes(0x5a, length);
        pages.set_len(count);
    }
    pages
}

/// One of a ring's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub usize);

/// The caller's name for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token(pub u64);

/// The end of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Which.
    pub token: Token,
    /// Bytes, or the error.
    pub result: io::Result<usize>,
}

/// A ring, its memory and its files.
pub struct Ring {
    uring: IoUring,
    memory: ManuallyDrop<Vec<HugePage>>,
    /// Bytes of it that are used.
    memory_len: usize,
    /// Whether the kernel holds the memory's pages, which spares each read and write looking them up.
    registered: bool,
    files: Vec<Option<OwnedFd>>,
    in_flight: usize,
}

impl Ring {
    /// A ring with so much memory (rounded up to pages, and touched) and so many places for files.
    pub fn new(entries: u32, memory_bytes: usize, slots: usize) -> io::Result<Self> {
        let memory = huge_pages(memory_bytes.div_ceil(HUGE_PAGE));
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(entries * 4)
            .build(entries)
            // Before Linux 6.1.
            .or_else(|_unsupported| IoUring::builder().setup_cqsize(entries * 4).build(entries))?;
        let mut ring = Self {
            uring,
            memory: ManuallyDrop::new(memory),
            memory_len: memory_bytes.next_multiple_of(PAGE),
            registered: false,
            files: (0..slots).map(|_| None).collect(),
            in_flight: 0,
        };
        ring.registered = ring.register();
        Ok(ring)
    }

    /// Registers the memory. Fails without harm where locked memory is limited.
    fn register(&self) -> bool {
        let region = libc::iovec {
            iov_base: self.memory.as_ptr().cast_mut().cast(),
            iov_len: self.memory_len(),
        };
        // SAFETY: the memory outlives the ring's operations: see `drop`.
        unsafe { self.uring.submitter().register_buffers(&[region]) }.is_ok()
    }

    /// Bytes of memory.
    pub fn memory_len(&self) -> usize {
        self.memory_len
    }

    /// Operations that have not completed.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts a file into a place, and closes the one that was there. What is queued is submitted before, so that it still
    /// means the old one.
    pub fn set_file(&mut self, slot: Slot, file: Option<OwnedFd>) -> io::Result<()> {
        self.submit_all()?;
        self.files[slot.0] = file;
        Ok(())
    }

    /// Copies bytes into the memory. The kernel must not be reading there.
    pub fn copy_in(&mut self, at: usize, bytes: &[u8]) {
        let target = self.span(&(at..at + bytes.len()));
        // SAFETY: `span` has checked the bounds; the memory is never borrowed, so it cannot overlap with `bytes`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len()) }
    }

    /// Copies bytes out of the memory. The kernel must not be writing there.
    pub fn copy_out(&mut self, at: usize, bytes: &mut [u8]) {
        let source = self.span(&(at..at + bytes.len()));
        // SAFETY: as in `copy_in`.
        unsafe { std::ptr::copy_nonoverlapping(source, bytes.as_mut_ptr(), bytes.len()) }
    }

    /// Reads from a file.
    pub fn read(&mut self, slot: Slot, span: &Range<usize>, position: u64, token: Token) -> io::Result<()> {
        let (fd, at, len) = (self.fd(slot), self.span(span), span.len() as u32);
        let entry = if self.registered {
            opcode::ReadFixed::new(fd, at, len, 0).offset(position).build()
        } else {
            opcode::Read::new(fd, at, len).offset(position).build()
        };
        self.push(entry, token)
    }

    /// Writes to a file; with `durable` it completes when the bytes are on stable storage (`RWF_DSYNC`, pwritev2(2)).
    pub fn write(
        &mut self,
        slot: Slot,
        span: &Range<usize>,
        position: u64,
        durable: bool,
        token: Token,
    ) -> io::Result<()> {
        let (fd, at, len) = (self.fd(slot), self.span(span), span.len() as u32);
        let flags = if durable {
            ReadWriteFlags::DSYNC
        } else {
            ReadWriteFlags::empty()
        };
        let flags = flags.bits().cast_signed();
        let entry = if self.registered {
            opcode::WriteFixed::new(fd, at, len, 0)
                .offset(position)
                .rw_flags(flags)
                .build()
        } else {
            opcode::Write::new(fd, at, len).offset(position).rw_flags(flags).build()
        };
        self.push(entry, token)
    }

    /// Makes the writes that have completed durable.
    pub fn fdatasync(&mut self, slot: Slot, token: Token) -> io::Result<()> {
        let entry = opcode::Fsync::new(self.fd(slot)).flags(types::FsyncFlags::DATASYNC);
        self.push(entry.build(), token)
    }

    /// Receives what is there, and waits for it if there is nothing.
    pub fn recv(&mut self, slot: Slot, span: &Range<usize>, token: Token) -> io::Result<()> {
        let entry = opcode::Recv::new(self.fd(slot), self.span(span), span.len() as u32);
        self.push(entry.build(), token)
    }

    /// Sends all of it; a peer that is gone is an error and no signal.
    pub fn send(&mut self, slot: Slot, span: &Range<usize>, token: Token) -> io::Result<()> {
        let flags = SendFlags::NOSIGNAL.bits().cast_signed() | MSG_WAITALL;
        let entry = opcode::Send::new(self.fd(slot), self.span(span), span.len() as u32).flags(flags);
        self.push(entry.build(), token)
    }

    /// Submits what is queued, and waits until something completes, or for so long.
    pub fn submit_and_wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timeout);
        match self.uring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            // Nothing came; a signal came; there was no memory, and what is queued is submitted with the next call.
            Err(error) if matches!(error.raw_os_error(), Some(ETIME | EINTR | EBUSY | EAGAIN)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Submits what is queued. It stays queued, and is the kernel's, where that has no memory for it.
    fn submit_all(&mut self) -> io::Result<()> {
        for _ in 0..ATTEMPTS_MAX {
            if self.uring.submission().is_empty() {
                return Ok(());
            }
            match self.uring.submit() {
                Ok(_) => {}
                Err(error) if matches!(error.raw_os_error(), Some(EINTR | EBUSY | EAGAIN)) => std::thread::sleep(PAUSE),
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }

    /// A completion, if there is one.
    pub fn completion(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        self.in_flight -= 1;
        let result = entry.result();
        Some(Completion {
            token: Token(entry.user_data()),
            result: usize::try_from(result).map_err(|_negative| io::Error::from_raw_os_error(-result)),
        })
    }

    fn fd(&self, slot: Slot) -> types::Fd {
        // -1 is refused by the kernel.
        types::Fd(self.files[slot.0].as_ref().map_or(-1, AsRawFd::as_raw_fd))
    }

    /// Where a span begins.
    fn span(&mut self, span: &Range<usize>) -> *mut u8 {
        assert!(
            span.start <= span.end && span.end <= self.memory_len(),
            "a span lies in the memory"
        );
        // SAFETY: the start is within the memory, or at its end with a length of 0.
        unsafe { self.memory.as_mut_ptr().cast::<u8>().add(span.start) }
    }

    fn push(&mut self, entry: squeue::Entry, token: Token) -> io::Result<()> {
        let entry = entry.user_data(token.0);
        if self.uring.submission().is_full() {
            self.submit_all()?;
        }
        // SAFETY: the memory is kept until the operation has completed (see `drop`), and the kernel takes its reference
        // to the file when it is submitted, which is before `set_file` closes it.
        unsafe { self.uring.submission().push(&entry) }.map_err(io::Error::other)?;
        self.in_flight += 1;
        Ok(())
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring")
            .field("registered", &self.registered)
            .field("in_flight", &self.in_flight)
            .finish_non_exhaustive()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let deadline = Instant::now() + DROP_WAIT;
        while self.in_flight > 0 && Instant::now() < deadline {
            if self.submit_and_wait(DROP_WAIT / 10).is_err() {
                break;
            }
            while self.completion().is_some() {}
        }
        if self.in_flight == 0 {
            // SAFETY: it is not used again, and the kernel no longer uses it. Otherwise it is better lost than freed.
            unsafe { ManuallyDrop::drop(&mut self.memory) }
        }
    }
}

/// `MSG_WAITALL` of send(2): the kernel goes on after a short send.
const MSG_WAITALL: i32 = libc::MSG_WAITALL;
const ETIME: i32 = rustix::io::Errno::TIME.raw_os_error();
const EINTR: i32 = rustix::io::Errno::INTR.raw_os_error();
const EBUSY: i32 = rustix::io::Errno::BUSY.raw_os_error();
const EAGAIN: i32 = rustix::io::Errno::AGAIN.raw_os_error();
