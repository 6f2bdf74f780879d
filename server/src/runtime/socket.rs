//! Sockets that a core waits for without holding up its other tasks.

use std::{
    io,
    net::TcpListener as StdListener,
    os::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
};

use glommio::net::TcpListener;

/// A connection.
pub(crate) use glommio::net::TcpStream as Stream;

/// A listening socket.
pub(crate) struct Listener {
    listener: TcpListener,
    /// The listener's, which does not tell.
    number: RawFd,
}

impl Listener {
    /// Takes over a socket that listens already.
    pub(crate) fn new(listener: StdListener) -> Listener {
        let number = OwnedFd::from(listener).into_raw_fd();
        // SAFETY: the descriptor is an open listening socket that nobody else owns; glommio closes it.
        let listener = unsafe { TcpListener::from_raw_fd(number) };
        Listener { listener, number }
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        Ok(self.listener.accept().await?)
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the listener owns it and is borrowed for as long.
        unsafe { BorrowedFd::borrow_raw(self.number) }
    }
}
