//! Sockets that a core waits for without holding up its other tasks.

use std::{
    io,
    net::TcpListener as StdListener,
    os::fd::{FromRawFd, IntoRawFd, OwnedFd},
};

use glommio::net::TcpListener;

/// A connection.
pub(crate) use glommio::net::TcpStream as Stream;

/// A listening socket.
pub(crate) struct Listener(TcpListener);

impl Listener {
    /// Takes over a socket that listens already.
    pub(crate) fn new(listener: StdListener) -> Listener {
        let fd = OwnedFd::from(listener).into_raw_fd();
        // SAFETY: the descriptor is an open listening socket that nobody else owns; glommio closes it.
        Listener(unsafe { TcpListener::from_raw_fd(fd) })
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        Ok(self.0.accept().await?)
    }
}
