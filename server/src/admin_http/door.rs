//! HTTPS: connections are handed on once TLS is agreed on, so that nobody who does not say a word holds up others.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::serve::Listener;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::tls::{Served, Tls, io_in_words};

/// Handshakes at one time; others wait in the queue of the kernel.
const HANDSHAKES_MAX: usize = 32;

/// The longest that one may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// A pause when no connection can be accepted, because there are too many files, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Accepted = (TlsStream<TcpStream>, SocketAddr);

/// Which of the ports it is.
type Which = fn(&Tls) -> Option<&Served>;

/// A listening socket that gives encrypted connections.
pub(crate) struct SecureDoor {
    address: SocketAddr,
    accepted: mpsc::Receiver<Accepted>,
    accepting: JoinHandle<()>,
}

impl SecureDoor {
    /// `which`: the port whose certificates are shown.
    pub(crate) fn open(listener: TcpListener, tls: Arc<Tls>, which: Which) -> io::Result<SecureDoor> {
        let address = listener.local_addr()?;
        let (hand_on, accepted) = mpsc::channel(HANDSHAKES_MAX);
        Ok(SecureDoor {
            address,
            accepted,
            accepting: tokio::spawn(accept(listener, tls, which, hand_on)),
        })
    }
}

impl Drop for SecureDoor {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Listener for SecureDoor {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Accepted {
        match self.accepted.recv().await {
            Some(accepted) => accepted,
            // The task ends with this only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, tls: Arc<Tls>, which: Which, hand_on: mpsc::Sender<Accepted>) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a connection for HTTPS could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(served) = which(&tls) else { return };
        let port = served.port().section();
        let (acceptor, hand_on) = (TlsAcceptor::from(served.config()), hand_on.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE_MAX, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => drop(hand_on.send((stream, peer)).await),
                Ok(Err(error)) => {
                    let reason = io_in_words(error);
                    tracing::info!(%peer, port, %reason, "a connection for HTTPS is closed: TLS could not be agreed on");
                }
                Err(_late) => {
                    tracing::info!(%peer, port, "a connection for HTTPS is closed: TLS was not agreed on in time");
                }
            }
            drop(permit);
        });
    }
}
