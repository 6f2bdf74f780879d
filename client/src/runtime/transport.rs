//! The seam to the network: how an address becomes a pair of byte streams.
//!
//! Production connects over TCP, with TLS where that is wanted; tests connect to an in-memory broker, which lets them hold the clock
//! still, or run in a world whose network is simulated.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::address::Address;
use crate::tls::{self, Tls};

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

/// The same, encrypted, with a broker that shows who it is.
#[derive(Debug)]
pub(crate) struct Encrypted(pub(crate) Tls);

impl Connector for Encrypted {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        Box::pin(async move {
            let Tls { config, server_name } = &self.0;
            let name = if let Some(name) = server_name {
                name.clone()
            } else {
                let name = ServerName::try_from(address.host().to_owned());
                name.map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?
            };
            let stream = tcp(address).await?;
            let agreed = TlsConnector::from(Arc::clone(config)).connect(name, stream).await;
            let agreed = agreed.map_err(|error| tls::in_words(&error).unwrap_or(error))?;
            let (read, write) = tokio::io::split(agreed);
            Ok(Halves {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

async fn tcp(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((address.host(), address.port())).await?;
    stream.set_nodelay(true)?;
    unpace_loopback(&stream);
    Ok(stream)
}

impl Connector for Tcp {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        #[cfg(feature = "simulation")]
        if let Some(world) = crate::runtime::simulation::here() {
            let halves = world.connect(address.host(), address.port());
            return Box::pin(async move { halves.await.map(|(read, write)| Halves { read, write }) });
        }
        Box::pin(async move {
            let (read, write) = tcp(address).await?.into_split();
            Ok(Halves {
                read: Box::new(read),
                write: Box::new(write),
            })
        })
    }
}

/// Over loopback nothing is congested, and what paces (BBR, where that is the system's default) only holds packets back.
fn unpace_loopback(stream: &TcpStream) {
    #[cfg(target_os = "linux")]
    if stream.peer_addr().is_ok_and(|peer| peer.ip().is_loopback())
        && let Err(error) = rustix::net::sockopt::set_tcp_congestion(stream, "reno")
    {
        tracing::debug!(%error, "the system's congestion control stays");
    }
    #[cfg(not(target_os = "linux"))]
    let _ = stream;
}
