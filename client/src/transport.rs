//! The seam to the network: how an address becomes a pair of byte streams.
//!
//! Production connects over TCP; tests connect to an in-memory broker, which lets them hold the clock still.

use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::address::Address;

/// Both directions of one connection. Dropping both closes it.
pub(crate) struct Halves {
    pub(crate) read: Box<dyn AsyncRead + Send + Unpin>,
    pub(crate) write: Box<dyn AsyncWrite + Send + Unpin>,
}

pub(crate) type ConnectFuture<'a> = Pin<Box<dyn Future<Output = io::Result<Halves>> + Send + 'a>>;

/// Opens connections.
pub(crate) trait Connector: Send + Sync {
    /// Resolves and connects. The caller sets the time limit.
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a>;
}

/// Plain TCP, without Nagle's delay.
#[derive(Debug)]
pub(crate) struct Tcp;

impl Connector for Tcp {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        Box::pin(async move {
            let stream = TcpStream::connect((address.host(), address.port())).await?;
            stream.set_nodelay(true)?;
            let (read, write) = stream.into_split();
            Ok(Halves {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}
