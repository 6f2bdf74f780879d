//! Sockets that a core waits for without holding up its other tasks.

use std::{
    io,
    net::TcpListener as StdListener,
    os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd},
};

use headwater_engine::disk::Ring;
use rustix::{
    io::Errno,
    net::{Shutdown, SocketFlags},
};

use super::sockets::Listed;

/// A connection.
pub(crate) use glommio::net::TcpStream as Stream;

/// Shuts the socket down when it is dropped, which also ends the polls that the kernel still has on it, and that would keep it open.
pub(crate) struct Hangup(pub(crate) OwnedFd);

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Err(error) = rustix::net::shutdown(&self.0, Shutdown::Both) {
            tracing::trace!(%error, "the peer was gone already");
        }
    }
}

/// A listening socket.
pub(crate) struct Listener {
    socket: Hangup,
    ring: Ring,
}

impl Listener {
    /// Takes over a socket that listens already.
    pub(crate) fn new(listener: StdListener, ring: Ring) -> io::Result<Listener> {
        listener.set_nonblocking(true)?;
        let socket = Hangup(listener.into());
        Ok(Listener { socket, ring })
    }

    /// The next connection. The kernel is not asked to accept in the background: it could do so for somebody who has stopped, and
    /// the connection would stay open for ever.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Listed)> {
        loop {
            match rustix::net::accept_with(&self.socket.0, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    let listed = Listed::new(socket.as_fd());
                    // SAFETY: the descriptor is an open socket that nobody else owns; glommio closes it.
                    let stream = unsafe { Stream::from_raw_fd(socket.into_raw_fd()) };
                    return Ok((stream, listed));
                }
                Err(Errno::AGAIN) => self.ring.readable(self.socket.0.as_fd()).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.0.as_fd()
    }
}
