//! Connections that a core waits for without holding up its other tasks.
//!
//! A connection has two sides, each with a descriptor of its own: a [`Stream`] that is read, and a [`Socket`] that is written, and
//! whose end is the end of the connection. In tests each may be one of a simulated network.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpListener as StdListener, ToSocketAddrs as _},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::FutureExt as _;
use headwater_engine::disk::{Arrival, Disk as _, Ring};
use rustix::{
    fs::OFlags,
    io::Errno,
    net::{AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, SocketType},
};

use super::{
    Disk, blocking,
    disk::{File, direct, direct_file},
    sleep,
    sockets::Listed,
};

#[cfg(not(test))]
pub(crate) use self::{KernelListener as Listener, KernelSocket as Socket, KernelStream as Stream};
#[cfg(test)]
pub(crate) use super::simulated::socket::{Bound, Listener, Socket, Stream, bound, connect};

/// Between two attempts to get a descriptor from files that gave way, which the executor closes in its next turns.
const DESCRIPTOR_RETRY: Duration = Duration::from_millis(1);

/// A listening socket on its way to the core that will accept from it.
#[cfg(not(test))]
pub(crate) type Bound = StdListener;

/// One that was bound already.
#[cfg(not(test))]
pub(crate) fn bound(listener: StdListener) -> Bound {
    listener
}

/// Why bytes of a file were not sent.
#[derive(Debug)]
pub(crate) enum SendFileError {
    /// The peer has gone, or the network.
    Socket(io::Error),
    /// The file cannot be read.
    File(io::Error),
}

/// Shuts the socket down when it is dropped, which also ends the polls that the kernel still has on it, and that would keep it open.
struct Hangup(OwnedFd);

impl Drop for Hangup {
    fn drop(&mut self) {
        if let Err(error) = rustix::net::shutdown(&self.0, Shutdown::Both) {
            tracing::trace!(%error, "the peer was gone already");
        }
    }
}

/// A listening socket.
pub(crate) struct KernelListener {
    /// Dropped before the socket.
    _listed: Listed,
    socket: Hangup,
    ring: Ring,
}

impl KernelListener {
    /// Takes over a socket that listens already.
    pub(crate) fn new(listener: StdListener, disk: &Disk) -> io::Result<KernelListener> {
        listener.set_nonblocking(true)?;
        let socket = Hangup(listener.into());
        Ok(KernelListener {
            _listed: Listed::new(socket.0.as_fd()),
            socket,
            ring: direct(disk).ring().clone(),
        })
    }

    /// The next connection. The kernel is not asked to accept in the background: it could do so for somebody who has stopped, and the
    /// connection would stay open for ever.
    pub(crate) async fn accept(&self) -> io::Result<KernelStream> {
        loop {
            match rustix::net::accept_with(&self.socket.0, SocketFlags::CLOEXEC) {
                Ok(socket) => return Ok(KernelStream::of(socket, &self.ring)),
                Err(Errno::AGAIN) => self.ring.readable(self.socket.0.as_fd()).await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Connects to another machine, or this one.
#[cfg(not(test))]
pub(crate) async fn connect(host: &str, port: u16, disk: &Disk) -> io::Result<Stream> {
    KernelStream::connect(host, port, disk).await
}

/// The addresses that a name stands for. Asking for them may take long.
async fn addresses_of(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let host = host.to_owned();
    blocking(move || Ok((host.as_str(), port).to_socket_addrs()?.collect())).await
}

/// The side of a connection that is read.
pub(crate) struct KernelStream {
    /// Until the other side is; dropped before the socket.
    listed: Option<Listed>,
    socket: OwnedFd,
    ring: Ring,
    /// Everything was read that had come; this tells of more.
    arrival: Option<Arrival>,
}

impl KernelStream {
    /// Connects to the first address of a host that takes the connection.
    pub(super) async fn connect(host: &str, port: u16, disk: &Disk) -> io::Result<KernelStream> {
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses_of(host, port).await? {
            match KernelStream::connect_to(address, disk).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn connect_to(address: SocketAddr, disk: &Disk) -> io::Result<KernelStream> {
        let family = if address.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => {}
            Err(Errno::INPROGRESS) => {
                direct(disk).ring().writable(socket.as_fd()).await?;
                rustix::net::sockopt::socket_error(&socket)??;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(KernelStream::of(socket, direct(disk).ring()))
    }

    fn of(socket: OwnedFd, ring: &Ring) -> KernelStream {
        KernelStream {
            listed: Some(Listed::new(socket.as_fd())),
            socket,
            ring: ring.clone(),
            arrival: None,
        }
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        let peer = rustix::net::getpeername(&self.socket).ok()??;
        SocketAddr::try_from(peer).ok().map(|peer| peer.ip())
    }

    /// The other side of the same connection. Files that nobody uses give way to its descriptor.
    pub(crate) async fn writing_side(&mut self, disk: &Disk) -> io::Result<KernelSocket> {
        let files = disk.open_files();
        let pause = async || sleep(DESCRIPTOR_RETRY).await;
        let another = files.wait_for_room(|| Ok(rustix::io::dup(&self.socket)?), pause);
        let hangup = Hangup(another.await?);
        let listed = Listed::new(hangup.0.as_fd());
        self.listed = None;
        rustix::net::sockopt::set_tcp_nodelay(&hangup.0, true)?;
        unpace_loopback(&hangup.0);
        // Without it sendfile(2) would wait.
        let flags = rustix::fs::fcntl_getfl(&hangup.0)?;
        rustix::fs::fcntl_setfl(&hangup.0, flags | OFlags::NONBLOCK)?;
        Ok(KernelSocket {
            _listed: listed,
            hangup,
            ring: direct(disk).ring().clone(),
        })
    }

    /// Reads what is there: `None` if that is nothing, 0 at the end of the stream.
    #[inline]
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match rustix::net::recv(&self.socket, buffer, RecvFlags::DONTWAIT) {
            Ok((count, _)) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits for bytes and reads them, into a buffer that is only needed once something has come; 0 at the end of the stream.
    #[inline]
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(arrival) = &mut self.arrival {
                ready!(arrival.poll_unpin(context))?;
                self.arrival = None;
            }
            let read = self.try_read(buffer)?;
            if read.is_none_or(|count| (1..buffer.len()).contains(&count)) {
                // No further read is needed to learn that there is nothing.
                self.arrival = Some(self.ring.arrival(self.socket.as_fd()));
            }
            if let Some(count) = read {
                return Poll::Ready(Ok(count));
            }
        }
    }
}

/// The side of a connection that is written. When it is dropped the connection has ended.
pub(crate) struct KernelSocket {
    /// Dropped before the socket.
    _listed: Listed,
    hangup: Hangup,
    ring: Ring,
}

impl KernelSocket {
    fn fd(&self) -> BorrowedFd<'_> {
        self.hangup.0.as_fd()
    }

    /// Bytes sent, or `None` if the socket is full. `more`: others follow at once, so what is less than a packet may wait for them.
    #[inline]
    pub(crate) fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        match rustix::net::send(&self.hangup.0, bytes, flags) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The same for two pieces, one behind the other, in one system call.
    #[inline]
    pub(crate) fn try_send_both(&self, first: &[u8], second: &[u8], more: bool) -> io::Result<Option<usize>> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        self.send_parts(&parts, flags)
    }

    /// The same for any number of pieces.
    pub(crate) fn try_send_parts(&self, parts: &[IoSlice<'_>], more: bool) -> io::Result<Option<usize>> {
        let mut flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        flags.set(SendFlags::MORE, more);
        self.send_parts(parts, flags)
    }

    fn send_parts(&self, parts: &[IoSlice<'_>], flags: SendFlags) -> io::Result<Option<usize>> {
        match rustix::net::sendmsg(&self.hangup.0, parts, &mut SendAncillaryBuffer::default(), flags) {
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Sends from the page cache, where [`is_resident`](super::is_resident) has found the bytes. Bytes sent, or `None` if the
    /// socket is full.
    pub(crate) fn try_send_file(
        &self,
        file: &File,
        mut position: u64,
        length: usize,
    ) -> Result<Option<usize>, SendFileError> {
        let cached = direct_file(file).cached().map_err(SendFileError::File)?;
        match rustix::fs::sendfile(&self.hangup.0, cached, Some(&mut position), length) {
            Ok(0) => Err(SendFileError::File(io::ErrorKind::UnexpectedEof.into())),
            Ok(count) => Ok(Some(count)),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) if is_of_socket(error) => Err(SendFileError::Socket(error.into())),
            Err(error) => Err(SendFileError::File(error.into())),
        }
    }

    /// Resolves when the socket can take more, or has failed; the next write tells which.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.ring.writable(self.fd()).await
    }

    /// Resolves when the peer sends nothing more: it has closed its side, or the whole connection.
    pub(crate) async fn hung_up(&self) -> io::Result<()> {
        self.ring.hung_up(self.fd()).await
    }
}

/// Over loopback nothing is congested, and what paces (BBR, where that is the system's default) only holds packets back.
fn unpace_loopback(socket: &OwnedFd) {
    let peer = rustix::net::getpeername(socket)
        .ok()
        .and_then(|peer| SocketAddr::try_from(peer?).ok());
    if peer.is_some_and(|peer| peer.ip().is_loopback())
        && let Err(error) = rustix::net::sockopt::set_tcp_congestion(socket, "reno")
    {
        tracing::debug!(%error, "the system's congestion control stays");
    }
}

/// Whether it says that the peer has gone, or the network; sendfile(2) fails for either of its ends.
fn is_of_socket(error: Errno) -> bool {
    use io::ErrorKind::{
        BrokenPipe, ConnectionAborted, ConnectionReset, HostUnreachable, NetworkDown, NetworkUnreachable, NotConnected,
        TimedOut,
    };
    matches!(
        error.kind(),
        BrokenPipe
            | ConnectionAborted
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | NotConnected
            | TimedOut
    )
}
