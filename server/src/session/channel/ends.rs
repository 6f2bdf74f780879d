//! Both ends of a channel, each plain or encrypted.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use super::secure::{SecureReading, SecureWriting};
use crate::machine::{File, SendFileError, Socket, Stream};

/// Who is at the other end, as far as the channel tells.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shown {
    /// What passes cannot be read by others.
    pub(crate) secure: bool,
    /// What a client is called by the certificate that it has shown.
    pub(crate) principal: Option<String>,
    /// It has shown that it is a broker of this cluster.
    pub(crate) is_peer: bool,
}

/// Both sides of a connection.
pub(crate) struct Channel {
    pub(crate) reading: Reading,
    pub(crate) writing: Writing,
    pub(crate) shown: Shown,
}

/// The side that is read.
pub(crate) enum Reading {
    Plain(Stream),
    Secure(SecureReading),
}

/// The side that is written. When it is dropped the connection has ended.
pub(crate) enum Writing {
    Plain(Socket),
    Secure(Rc<SecureWriting>),
}

impl Reading {
    /// Reads what is there: `None` if that is nothing, 0 at the end of the stream.
    #[inline]
    pub(crate) fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Reading::Plain(stream) => stream.try_read(buffer),
            Reading::Secure(secure) => secure.try_read(buffer),
        }
    }

    /// Waits for bytes and reads them; 0 at the end of the stream.
    #[inline]
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| self.poll_read(context, buffer)).await
    }

    /// The same, into a buffer that is only needed once something has come.
    #[inline]
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Reading::Plain(stream) => stream.poll_read(context, buffer),
            Reading::Secure(secure) => secure.poll_read(context, buffer),
        }
    }
}

impl Writing {
    /// Whether bytes can leave from where they are; they are encrypted otherwise, which takes them through memory.
    #[inline]
    pub(crate) fn is_plain(&self) -> bool {
        matches!(self, Writing::Plain(_))
    }

    /// What tells an encrypted connection from all others, the same at both ends.
    pub(crate) fn binding(&self) -> io::Result<Option<[u8; 32]>> {
        match self {
            Writing::Plain(_) => Ok(None),
            Writing::Secure(secure) => secure.binding().map(Some),
        }
    }

    /// Bytes taken, or `None` if there is no room. `more`: others follow at once, so what is less than a packet may wait for them.
    #[inline]
    pub(crate) fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        match self {
            Writing::Plain(socket) => socket.try_send(bytes, more),
            Writing::Secure(secure) => secure.try_send([bytes, &[]], more),
        }
    }

    /// The same for two pieces, one behind the other.
    #[inline]
    pub(crate) fn try_send_both(&self, first: &[u8], second: &[u8], more: bool) -> io::Result<Option<usize>> {
        match self {
            Writing::Plain(socket) => socket.try_send_both(first, second, more),
            Writing::Secure(secure) => secure.try_send([first, second], more),
        }
    }

    /// Sends from the page cache, on a plain connection; see [`Socket::try_send_file`].
    pub(crate) fn try_send_file(
        &self,
        file: &File,
        position: u64,
        length: usize,
    ) -> Result<Option<usize>, SendFileError> {
        match self {
            Writing::Plain(socket) => socket.try_send_file(file, position, length),
            Writing::Secure(_) => Err(SendFileError::Socket(io::ErrorKind::Unsupported.into())),
        }
    }

    /// Resolves when it can take more, or has failed; the next write tells which.
    #[inline]
    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Writing::Plain(socket) => socket.writable().await,
            Writing::Secure(secure) => secure.flushed().await,
        }
    }

    /// Resolves when the socket has taken all that was taken here.
    #[inline]
    pub(crate) async fn flushed(&self) -> io::Result<()> {
        match self {
            Writing::Plain(_) => Ok(()),
            Writing::Secure(secure) => secure.flushed().await,
        }
    }

    /// Resolves when the peer sends nothing more: it has closed its side, or the whole connection.
    pub(crate) async fn hung_up(&self) -> io::Result<()> {
        match self {
            Writing::Plain(socket) => socket.hung_up().await,
            Writing::Secure(secure) => secure.socket().hung_up().await,
        }
    }
}
