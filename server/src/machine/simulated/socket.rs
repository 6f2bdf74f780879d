//! Sockets of the kernel and of a simulated network, in one build.

use std::{
    io::{self, IoSlice},
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    task::{Context, Poll},
};

use super::{is_running, net};
use crate::machine::{
    Disk, File,
    socket::{KernelListener, KernelSocket, KernelStream, SendFileError},
};

#[derive(Debug)]
pub(crate) enum Bound {
    Kernel(StdListener),
    Simulated(SocketAddr),
}

pub(crate) fn bound(listener: StdListener) -> Bound {
    Bound::Kernel(listener)
}

pub(crate) async fn connect(host: &str, port: u16, disk: &Disk) -> io::Result<Stream> {
    if !is_running() {
        return KernelStream::connect(host, port, disk).await.map(Stream::Kernel);
    }
    let address = host.parse::<IpAddr>().map_err(io::Error::other)?;
    net::Stream::connect((address, port).into())
        .await
        .map(Stream::Simulated)
}

pub(crate) enum Listener {
    Kernel(KernelListener),
    Simulated(net::Listener),
}

pub(crate) enum Stream {
    Kernel(KernelStream),
    Simulated(net::Stream),
}

pub(crate) enum Socket {
    Kernel(KernelSocket),
    Simulated(net::Stream),
}

impl Listener {
    pub(crate) fn new(bound: Bound, disk: &Disk) -> io::Result<Listener> {
        match bound {
            Bound::Kernel(listener) => KernelListener::new(listener, disk).map(Listener::Kernel),
            Bound::Simulated(address) => net::Listener::new(address).map(Listener::Simulated),
        }
    }

    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Kernel(listener) => listener.accept().await.map(Stream::Kernel),
            Listener::Simulated(listener) => listener.accept().await.map(Stream::Simulated),
        }
    }
}

impl Stream {
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        match self {
            Stream::Kernel(stream) => stream.peer(),
            Stream::Simulated(stream) => Some(stream.peer()),
        }
    }

    pub(crate) async fn writing_side(&mut self, disk: &Disk) -> io::Result<Socket> {
        match self {
            Stream::Kernel(stream) => stream.writing_side(disk).await.map(Socket::Kernel),
            Stream::Simulated(stream) => Ok(Socket::Simulated(stream.clone())),
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        match self {
            Stream::Kernel(stream) => stream.try_read(buffer),
            Stream::Simulated(stream) => stream.try_read(buffer),
        }
    }

    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Stream::Kernel(stream) => stream.poll_read(context, buffer),
            Stream::Simulated(stream) => stream.poll_read(context, buffer),
        }
    }
}

impl Socket {
    pub(crate) fn try_send(&self, bytes: &[u8], more: bool) -> io::Result<Option<usize>> {
        match self {
            Socket::Kernel(socket) => socket.try_send(bytes, more),
            Socket::Simulated(stream) => stream.try_send(bytes),
        }
    }

    pub(crate) fn try_send_both(&self, first: &[u8], second: &[u8], more: bool) -> io::Result<Option<usize>> {
        match self {
            Socket::Kernel(socket) => socket.try_send_both(first, second, more),
            Socket::Simulated(stream) => stream.try_send(&[first, second].concat()),
        }
    }

    pub(crate) fn try_send_parts(&self, parts: &[IoSlice<'_>], more: bool) -> io::Result<Option<usize>> {
        match self {
            Socket::Kernel(socket) => socket.try_send_parts(parts, more),
            Socket::Simulated(stream) => {
                let parts: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
                stream.try_send(&parts.concat())
            }
        }
    }

    pub(crate) fn try_send_file(
        &self,
        file: &File,
        position: u64,
        length: usize,
    ) -> Result<Option<usize>, SendFileError> {
        match self {
            Socket::Kernel(socket) => socket.try_send_file(file, position, length),
            Socket::Simulated(_) => unreachable!("nothing is in the page cache of a simulated machine"),
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Socket::Kernel(socket) => return socket.writable().await,
            Socket::Simulated(stream) => stream.writable().await,
        }
        Ok(())
    }

    pub(crate) async fn hung_up(&self) -> io::Result<()> {
        match self {
            Socket::Kernel(socket) => return socket.hung_up().await,
            Socket::Simulated(stream) => stream.hung_up().await,
        }
        Ok(())
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        match self {
            Socket::Kernel(_) => {}
            Socket::Simulated(stream) => stream.shut_down(),
        }
    }
}
