//! An encrypted connection once TLS is agreed on: bytes in, bytes out, between rustls and a socket that never blocks.
//!
//! What comes is read into memory that all connections of a core share for as long as one of them looks at it; what is left of it
//! is less than a record, and rustls keeps that. What goes is encrypted by up to four records at a time, and rustls keeps what the socket
//! does not take. So an idle connection holds no buffers of ours, and a stuck one at most four records and a part of one.

use std::{
    cell::RefCell,
    io::{self, IoSlice, Read as _, Write},
    rc::Rc,
    task::{Context, Poll, ready},
};

use rustls::Connection;

use crate::{
    machine::{Socket, Stream},
    tls::{CHANNEL_LABEL, in_words},
};

/// Bytes that an encrypted connection takes at once: four records.
pub(crate) const SECURE_PIECE_BYTES: usize = 64 * 1024;

/// Bytes that are read off a socket at once.
const READ_BYTES: usize = 128 * 1024;

/// Bytes that are read at once for whoever wants few: what is left of them is kept for the connection.
const READ_BYTES_MIN: usize = 16 * 1024;

/// Where the connections of a core read into, each while it is looked at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scratch(Rc<RefCell<Vec<u8>>>);

impl Scratch {
    /// Does something with it.
    pub(super) fn with<T>(&self, what: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut bytes = self.0.borrow_mut();
        if bytes.is_empty() {
            bytes.resize(READ_BYTES, 0);
        }
        what(&mut bytes)
    }
}

/// What rustls says of a peer, for the log.
pub(super) fn broken(error: &rustls::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, in_words(error))
}

/// A socket to which rustls writes what it has encrypted.
pub(super) struct Outward<'a> {
    pub(super) socket: &'a Socket,
    pub(super) more: bool,
}

impl Write for Outward<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = self.socket.try_send(bytes, self.more)?;
        sent.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let sent = self.socket.try_send_parts(parts, self.more)?;
        sent.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The state of both sides, and the socket.
pub(crate) struct SecureWriting {
    tls: RefCell<Connection>,
    socket: Socket,
}

impl SecureWriting {
    pub(super) fn new(mut tls: Connection, socket: Socket) -> SecureWriting {
        tls.set_buffer_limit(Some(SECURE_PIECE_BYTES));
        SecureWriting {
            tls: RefCell::new(tls),
            socket,
        }
    }

    /// What tells this connection from all others, the same at both ends.
    pub(super) fn binding(&self) -> io::Result<[u8; 32]> {
        let exported = self.tls.borrow().export_keying_material([0; 32], CHANNEL_LABEL, None);
        exported.map_err(io::Error::other)
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Has the socket take what it will; true if nothing is left.
    fn push(&self, more: bool) -> io::Result<bool> {
        push(&mut self.tls.borrow_mut(), &self.socket, more)
    }

    /// Bytes taken, or `None` while the socket has not taken what was encrypted before.
    pub(super) fn try_send(&self, parts: [&[u8]; 2], more: bool) -> io::Result<Option<usize>> {
        if !self.push(more)? {
            return Ok(None);
        }
        let taken = self
            .tls
            .borrow_mut()
            .writer()
            .write_vectored(&parts.map(IoSlice::new))?;
        self.push(more)?;
        Ok(Some(taken))
    }

    pub(super) async fn flushed(&self) -> io::Result<()> {
        while !self.push(false)? {
            self.socket.writable().await?;
        }
        Ok(())
    }
}

pub(super) fn push(tls: &mut Connection, socket: &Socket, more: bool) -> io::Result<bool> {
    let mut outward = Outward { socket, more };
    while tls.wants_write() {
        match tls.write_tls(&mut outward) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Drop for SecureWriting {
    /// Tells the peer that nothing was cut off, if the socket takes that.
    fn drop(&mut self) {
        let tls = self.tls.get_mut();
        tls.send_close_notify();
        if let Err(error) = push(tls, &self.socket, false) {
            tracing::trace!(%error, "the peer was gone already");
        }
    }
}

/// The side that is read.
pub(crate) struct SecureReading {
    stream: Stream,
    secure: Rc<SecureWriting>,
    scratch: Scratch,
    /// What was read and not decrypted yet, as nobody has taken what came before it.
    unread: Vec<u8>,
}

impl SecureReading {
    /// `unread`: what came behind the last bytes that TLS was agreed on with.
    pub(super) fn new(stream: Stream, secure: Rc<SecureWriting>, scratch: Scratch, unread: Vec<u8>) -> SecureReading {
        SecureReading {
            stream,
            secure,
            scratch,
            unread,
        }
    }

    /// Reads what is there: `None` if that is nothing, 0 at the end of the stream.
    pub(super) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(count) = self.read_here(buffer)? {
            return Ok(Some(count));
        }
        let scratch = self.scratch.clone();
        scratch.with(|scratch| {
            let scratch = &mut scratch[..wanted(buffer)];
            match self.stream.try_read(scratch)? {
                Some(count) => self.take_in(&scratch[..count], buffer),
                None => Ok(None),
            }
        })
    }

    /// Reads into a buffer that is only needed once something has come; 0 at the end of the stream.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        if let Some(count) = self.read_here(buffer)? {
            return Poll::Ready(Ok(count));
        }
        let scratch = self.scratch.clone();
        scratch.with(|scratch| {
            let scratch = &mut scratch[..wanted(buffer)];
            loop {
                let count = ready!(self.stream.poll_read(context, scratch))?;
                if let Some(count) = self.take_in(&scratch[..count], buffer)? {
                    return Poll::Ready(Ok(count));
                }
            }
        })
    }

    /// What has come already.
    fn read_here(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if let Some(count) = read(&mut self.secure.tls.borrow_mut(), buffer)? {
            return Ok(Some(count));
        }
        if self.unread.is_empty() {
            return Ok(None);
        }
        let unread = std::mem::take(&mut self.unread);
        self.decrypt(&unread, buffer)
    }

    /// What was read off the socket: nothing is its end.
    fn take_in(&mut self, bytes: &[u8], buffer: &mut [u8]) -> io::Result<Option<usize>> {
        if bytes.is_empty() {
            // The peer has not said that it ends, so somebody may have cut off what it said.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.decrypt(bytes, buffer)
    }

    /// Decrypts as much as the buffer has room for, and keeps the rest. `None`: no record is whole yet.
    fn decrypt(&mut self, mut bytes: &[u8], buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut tls = self.secure.tls.borrow_mut();
        let (mut filled, mut is_over) = (0, false);
        while !bytes.is_empty() && filled < buffer.len() && !is_over {
            tls.read_tls(&mut bytes)?;
            let state = tls.process_new_packets();
            if tls.wants_write() {
                // An answer to the peer, or why it is not listened to any more. What the socket does not take now goes with what is sent next.
                push(&mut tls, &self.secure.socket, false)?;
            }
            let state = state.map_err(|error| broken(&error))?;
            is_over = state.peer_has_closed();
            if state.plaintext_bytes_to_read() > 0 {
                filled += tls.reader().read(&mut buffer[filled..])?;
            }
        }
        if !is_over {
            self.unread.extend_from_slice(bytes);
        }
        Ok((filled > 0 || is_over).then_some(filled))
    }
}

/// How much to read off the socket for a buffer: what it has room for, as decrypted bytes are fewer.
fn wanted(buffer: &[u8]) -> usize {
    buffer.len().clamp(READ_BYTES_MIN, READ_BYTES)
}

/// What was decrypted before: `None` if that is nothing, 0 at the end.
fn read(tls: &mut Connection, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    match tls.reader().read(buffer) {
        Ok(count) => Ok(Some(count)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error),
    }
}
