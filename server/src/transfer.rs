//! Sends bytes to a socket without copying them in user space and without ever blocking the core.
//!
//! Records in the tail buffer are sent from there. Others go from the page cache to the socket through a pipe: the kernel
//! reads them from disk on a thread of its own (splice on the auxiliary ring), so a cold read never holds up the executor.
//! While a socket is full nothing is held: after the wait, the log is asked again where the bytes are.

use std::{
    cell::OnceCell,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use headwater_engine::{
    LogRange,
    disk::{DirectDisk, Ring},
};
use rustix::{
    fs::OFlags,
    io::Errno,
    net::SendFlags,
    pipe::{PipeFlags, SpliceFlags},
};

use crate::{
    outbox::{Payload, Response},
    runtime,
};

/// Most bytes that are handed to the kernel at once, so that one connection does not keep the core for long.
const PIECE_BYTES: usize = 256 * 1024;

/// The writing side of a connection.
pub(crate) struct Sender<'a> {
    socket: BorrowedFd<'a>,
    disk: &'a DirectDisk,
    pipe: OnceCell<Pipe>,
}

struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl<'a> Sender<'a> {
    /// Makes the socket non-blocking, which splice needs.
    pub(crate) fn new(socket: BorrowedFd<'a>, disk: &'a DirectDisk) -> io::Result<Sender<'a>> {
        let flags = rustix::fs::fcntl_getfl(socket)?;
        rustix::fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK)?;
        Ok(Sender {
            socket,
            disk,
            pipe: OnceCell::new(),
        })
    }

    fn ring(&self) -> &Ring {
        self.disk.ring()
    }

    /// Sends a whole response.
    pub(crate) async fn send(&self, response: Response) -> io::Result<()> {
        let more = if response.payload.is_empty() {
            SendFlags::empty()
        } else {
            SendFlags::MORE
        };
        self.send_bytes(&response.head, more).await?;
        for payload in response.payload {
            match payload {
                Payload::Range(range) => self.send_range(range).await?,
                Payload::Bytes(bytes) => self.send_bytes(&bytes, SendFlags::empty()).await?,
            }
        }
        Ok(())
    }

    /// Sends bytes that the caller keeps.
    pub(crate) async fn send_bytes(&self, mut bytes: &[u8], more: SendFlags) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_send(bytes, more)? {
                Some(count) => bytes = &bytes[count..],
                None => self.ring().writable(self.socket).await?,
            }
        }
        Ok(())
    }

    async fn send_range(&self, mut range: LogRange<DirectDisk>) -> io::Result<()> {
        while !range.is_empty() {
            // The slice must not live over the wait: it would keep the memory of a consumer that does not read.
            let sent = match range.in_memory() {
                Some(slice) => self.try_send(&slice, SendFlags::empty())?.map(|count| count as u64),
                None => Some(self.send_from_disk(&range).await?),
            };
            match sent {
                Some(count) => range.advance(count),
                None => self.ring().writable(self.socket).await?,
            }
            runtime::yield_now().await;
        }
        Ok(())
    }

    /// Bytes sent, or `None` if the socket is full.
    fn try_send(&self, bytes: &[u8], more: SendFlags) -> io::Result<Option<usize>> {
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        match rustix::net::send(self.socket, piece, SendFlags::DONTWAIT | SendFlags::NOSIGNAL | more) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends one piece from the segment file.
    async fn send_from_disk(&self, range: &LogRange<DirectDisk>) -> io::Result<u64> {
        let file = range.file(self.disk).await.map_err(io::Error::other)?;
        let pipe = self.pipe()?;
        let wanted = range.len().min(PIECE_BYTES as u64) as u32;
        let loaded = self
            .ring()
            .splice_to_pipe(file.cached()?, range.position(), pipe.write.as_fd(), wanted)
            .await?;
        if loaded == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the segment file ends before its last batch",
            ));
        }
        let mut left = loaded as usize;
        while left > 0 {
            let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
            match rustix::pipe::splice(pipe.read.as_fd(), None, self.socket, None, left, flags) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => left -= count,
                Err(Errno::AGAIN | Errno::INTR) => self.ring().writable(self.socket).await?,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(u64::from(loaded))
    }

    fn pipe(&self) -> io::Result<&Pipe> {
        if self.pipe.get().is_none() {
            let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
            // Best effort: a smaller pipe (the user's quota may be spent) only makes smaller pieces.
            if let Err(error) = rustix::pipe::fcntl_setpipe_size(&write, PIECE_BYTES) {
                tracing::debug!(%error, "cannot enlarge a pipe");
            }
            self.pipe.get_or_init(|| Pipe { read, write });
        }
        Ok(self.pipe.get().expect("set above"))
    }
}
