//! Sends bytes to a socket without copying them in user space and without ever blocking the core.
//!
//! Records in the tail buffer are sent from there, and those in the page cache by sendfile(2). Cold ones are read past the page
//! cache into memory of the core's own, ahead of a consumer that reads in order. When that memory is in use by others, they are read
//! through the page cache, a piece at a time. The kernel does either beside the executor, which no cold read holds up. While a socket
//! is full nothing is held: after the wait, the log is asked again where the bytes are. What goes to an encrypted connection is copied
//! once, by the encryption, and what is in the page cache once more; four records of it are held while the socket is full.

use std::{cell::RefCell, io};

use headwater_engine::{
    LogError, LogRange,
    disk::{HeldBytes, SegmentFile as _},
};

use super::{
    channel::{SECURE_PIECE_BYTES, Writing},
    outbox::Piece,
    read_ahead::{self, ReadAhead, Readers, STEP_BYTES},
};
use crate::{
    core::{Core, remote::RemoteRange, warn_seldom},
    machine::{self, Disk, File, SendFileError},
    metrics::ReadPath,
    ops::fetch::Records,
};

/// Most bytes that are handed to the kernel at once, so that one connection does not keep the core for long.
const PIECE_BYTES: usize = 256 * 1024;

/// The writing side of a connection.
pub(crate) struct Sender<'a> {
    socket: &'a Writing,
    core: &'a Core,
    readers: RefCell<Readers>,
    /// How far ahead to read, in bytes.
    window: u64,
}

/// Why a response was not sent. What was sent of it cannot be taken back, so the connection ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum SendError {
    /// The peer has gone: nothing to do.
    #[error(transparent)]
    Socket(#[from] io::Error),
    /// What the log has named cannot be read.
    #[error(transparent)]
    Records(io::Error),
}

impl From<SendError> for io::Error {
    fn from((SendError::Socket(error) | SendError::Records(error)): SendError) -> io::Error {
        error
    }
}

impl SendError {
    fn of_log(error: LogError) -> SendError {
        SendError::Records(io::Error::other(error))
    }

    fn of_file(range: &LogRange<Disk>) -> impl Fn(io::Error) -> SendError {
        move |error| {
            let reason = format!("cannot read {}: {error}", range.path().display());
            SendError::Records(io::Error::new(error.kind(), reason))
        }
    }
}

impl<'a> Sender<'a> {
    pub(crate) fn new(socket: &'a Writing, core: &'a Core) -> Sender<'a> {
        let cores = &core.config.cores;
        Sender {
            socket,
            core,
            window: read_ahead::window(cores.read_ahead_bytes.bytes(), cores.cold_read_bytes_max.bytes()),
            readers: RefCell::default(),
        }
    }

    /// Sends whole responses, and records after the last of them. That those cannot be read is not the client's doing, and is said.
    pub(super) async fn send(&self, frames: &[u8], records: Vec<Piece>) -> Result<(), SendError> {
        let sent = self.send_all(frames, records).await;
        if let Err(SendError::Records(error)) = &sent {
            warn_seldom!(%error, "a consumer's connection is closed: its records cannot be read");
        }
        sent
    }

    async fn send_all(&self, frames: &[u8], mut records: Vec<Piece>) -> Result<(), SendError> {
        let left = match records.as_mut_slice() {
            [] => self.send_bytes(frames, false).await.map(|()| &[][..])?,
            [Piece::Records(Records::Here(range)), others @ ..] => {
                self.send_together(frames, range, others.is_empty())?
            }
            _ => frames,
        };
        self.send_bytes(left, true).await?;
        self.core.metrics.sent(frames.len() as u64);
        let mut pieces = records.into_iter().peekable();
        while let Some(piece) = pieces.next() {
            // What follows leaves in one packet with the end of this.
            let more = pieces.peek().is_some();
            match piece {
                Piece::Records(Records::Here(range)) if range.is_empty() => {}
                // Futures of their own: they are large, and every connection, idle ones too, would hold the space for them.
                Piece::Records(Records::Here(range)) => Box::pin(self.send_range(range, more)).await?,
                Piece::Records(Records::Elsewhere(range)) => Box::pin(self.send_remote(range)).await?,
                Piece::Bytes(bytes) => {
                    self.send_bytes(&bytes, more).await?;
                    self.core.metrics.sent(bytes.len() as u64);
                }
            }
        }
        Ok(self.socket.flushed().await?)
    }

    /// Most bytes that are read for one call of the socket.
    fn piece_bytes(&self) -> u64 {
        let bytes = if self.socket.is_plain() {
            PIECE_BYTES
        } else {
            SECURE_PIECE_BYTES
        };
        bytes as u64
    }

    /// Sends responses and the first records in one system call, if those are in memory. What the socket does not take is left.
    fn send_together<'b>(&self, frames: &'b [u8], range: &mut LogRange<Disk>, is_last: bool) -> io::Result<&'b [u8]> {
        let Some(bytes) = range.in_memory() else {
            return Ok(frames);
        };
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let is_all = is_last && piece.len() as u64 == range.len();
        let sent = self.socket.try_send_both(frames, piece, !is_all)?.unwrap_or(0);
        drop(bytes);
        let of_records = sent.saturating_sub(frames.len()) as u64;
        self.core.metrics.read(ReadPath::Tail, of_records);
        range.advance(of_records);
        Ok(&frames[sent.min(frames.len())..])
    }

    /// Sends bytes that the caller keeps.
    pub(crate) async fn send_bytes(&self, mut bytes: &[u8], more: bool) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.try_send(bytes, more)? {
                Some(count) => bytes = &bytes[count..],
                None => self.socket.writable().await?,
            }
        }
        if more { Ok(()) } else { self.socket.flushed().await }
    }

    async fn send_range(&self, mut range: LogRange<Disk>, more: bool) -> Result<(), SendError> {
        while !range.is_empty() {
            // The slice must not live over the wait: it would keep the memory of a consumer that does not read.
            let sent = match range.in_memory() {
                Some(slice) => {
                    let sent = self.try_send(&slice, more)?;
                    sent.map(|count| (ReadPath::Tail, count as u64))
                }
                None => self.send_from_disk(&range).await?,
            };
            match sent {
                Some((path, count)) => {
                    self.core.metrics.read(path, count);
                    range.advance(count);
                }
                None => self.socket.writable().await?,
            }
            machine::yield_now().await;
        }
        Ok(())
    }

    /// Asks the other core for a piece whenever the socket may take it, so that nothing is held while it does not.
    async fn send_remote(&self, mut range: RemoteRange) -> Result<(), SendError> {
        while !range.is_empty() {
            let wanted = range.len().min(self.piece_bytes());
            let lease = self.core.in_flight.lease(wanted).await;
            let piece = range.piece(wanted).await.map_err(SendError::Records)?;
            let sent = self.try_send(&piece, false)?.unwrap_or(0);
            let is_full = sent < piece.len();
            drop((piece, lease));
            range.advance(sent as u64);
            self.core.metrics.read(ReadPath::Remote, sent as u64);
            if is_full {
                self.socket.writable().await?;
            }
        }
        Ok(())
    }

    /// Bytes sent, or `None` if the socket is full.
    fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        self.socket.try_send(&bytes[..bytes.len().min(PIECE_BYTES)], more)
    }

    /// Sends one piece from the segment file. How, and bytes sent; `None` if the socket is full.
    async fn send_from_disk(&self, range: &LogRange<Disk>) -> Result<Option<(ReadPath, u64)>, SendError> {
        let file = range.file(&self.core.disk).await.map_err(SendError::of_log)?;
        let (number, range) = (range.segment_number(), &range.on_disk());
        let mut ahead = {
            let (position, length, file_end) = (range.position(), range.len(), range.durable_end());
            let mut readers = self.readers.borrow_mut();
            readers.begin(number, position, length, self.window, file_end)
        };
        let sent = match self.read_past_cache(&file, range, &mut ahead).await {
            Some(bytes) => {
                let sent = self.try_send(&bytes, false)?;
                sent.map(|count| (ReadPath::Direct, count as u64))
            }
            None => self.send_through_cache(&file, range, &mut ahead).await?,
        };
        let position = range.position() + sent.map_or(0, |(_, count)| count);
        self.readers.borrow_mut().end(number, position, ahead);
        Ok(sent)
    }

    /// Reads the first bytes of the range, and what lies ahead, past the page cache. `None` if they are in the page cache, or
    /// there is no memory for them, or the disk fails: the other way will tell.
    async fn read_past_cache(&self, file: &File, range: &LogRange<Disk>, ahead: &mut ReadAhead) -> Option<HeldBytes> {
        let now = machine::now();
        if self.window == 0 {
            return None;
        }
        if !range.is_read(now) {
            let (position, length) = (range.position(), range.len().min(STEP_BYTES));
            if file.is_cached(position, length) || !range.begin_read(file, position, length, now) {
                return None;
            }
            ahead.restart(position);
        }
        while let Some((position, length)) = ahead.next() {
            if !file.is_cached(position, length) && !range.begin_read(file, position, length, now) {
                break; // Others have the memory; the next piece asks again.
            }
            ahead.told();
        }
        range.read(now).await
    }

    async fn send_through_cache(
        &self,
        file: &File,
        range: &LogRange<Disk>,
        ahead: &mut ReadAhead,
    ) -> Result<Option<(ReadPath, u64)>, SendError> {
        let (disk, cannot_read) = (&self.core.disk, SendError::of_file(range));
        while let Some((position, length)) = ahead.next() {
            if !machine::prefetch(disk, file, position, length as u32).map_err(&cannot_read)? {
                break; // The disk is behind; the next piece asks again.
            }
            ahead.told();
        }
        let piece = range.len().min(self.piece_bytes());
        if !machine::is_resident(file, range.position(), piece).map_err(&cannot_read)? {
            return self.send_copy(file, range, piece, ReadPath::Buffered).await;
        }
        if !self.socket.is_plain() {
            // The kernel cannot encrypt it.
            return self.send_copy(file, range, piece, ReadPath::Copied).await;
        }
        range.check().map_err(SendError::of_log)?;
        match self.socket.try_send_file(file, range.position(), piece as usize) {
            Ok(sent) => Ok(sent.map(|count| (ReadPath::Sendfile, count as u64))),
            Err(SendFileError::Socket(error)) => Err(SendError::Socket(error)),
            Err(SendFileError::File(error)) => Err(cannot_read(error)),
        }
    }

    /// Reads a piece into memory for as long as it is being sent. What the socket does not take is in the page cache then.
    async fn send_copy(
        &self,
        file: &File,
        range: &LogRange<Disk>,
        piece: u64,
        path: ReadPath,
    ) -> Result<Option<(ReadPath, u64)>, SendError> {
        let _lease = self.core.in_flight.lease(piece).await;
        let read = file.read(range.position(), piece as usize).await;
        let read = read.map_err(SendError::of_file(range))?;
        range.check().map_err(SendError::of_log)?;
        if read.is_empty() {
            return Err(SendError::of_file(range)(io::ErrorKind::UnexpectedEof.into()));
        }
        let sent = self.try_send(&read, false)?;
        Ok(sent.map(|count| (path, count as u64)))
    }
}
