//! A connection between two members: plain, or with TLS on which both have shown a certificate of the cluster's CA.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::tls::{CHANNEL_LABEL, Tls, io_in_words};

/// Either.
pub(super) enum Wire {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

impl Wire {
    /// The side that calls a member at this address.
    pub(super) async fn call(stream: TcpStream, address: &str, tls: &Arc<Tls>) -> io::Result<Wire> {
        let Some(peers) = &tls.peers else {
            return Ok(Wire::Plain(stream));
        };
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let (config, name) = peers.client(host)?;
        let secure = TlsConnector::from(config).connect(name, stream).await;
        let secure = secure.map_err(io_in_words)?;
        Ok(Wire::Secure(Box::new(secure.into())))
    }

    /// The side that is called.
    pub(super) async fn answer(stream: TcpStream, tls: &Arc<Tls>) -> io::Result<Wire> {
        let Some(peers) = &tls.peers else {
            return Ok(Wire::Plain(stream));
        };
        let secure = TlsAcceptor::from(peers.server()).accept(stream).await;
        let secure = secure.map_err(io_in_words)?;
        Ok(Wire::Secure(Box::new(secure.into())))
    }

    /// What tells a connection with TLS from all others, the same at both ends.
    pub(super) fn binding(&self) -> io::Result<Option<[u8; 32]>> {
        let bytes = [0; 32];
        let exported = match self {
            Wire::Plain(_) => return Ok(None),
            Wire::Secure(secure) => match secure.as_ref() {
                TlsStream::Client(stream) => stream.get_ref().1.export_keying_material(bytes, CHANNEL_LABEL, None),
                TlsStream::Server(stream) => stream.get_ref().1.export_keying_material(bytes, CHANNEL_LABEL, None),
            },
        };
        exported.map(Some).map_err(io::Error::other)
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Wire::Plain(stream) => stream,
            Wire::Secure(secure) => secure.get_ref().0,
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Wire::Secure(secure) => Pin::new(secure).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Wire::Secure(secure) => Pin::new(secure).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write_vectored(context, parts),
            Wire::Secure(secure) => Pin::new(secure).poll_write_vectored(context, parts),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(context),
            Wire::Secure(secure) => Pin::new(secure).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Wire::Secure(secure) => Pin::new(secure).poll_shutdown(context),
        }
    }
}
