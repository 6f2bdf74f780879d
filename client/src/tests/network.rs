//! A network in memory: listeners by port, connections as pipes that can be cut.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex, split};
use tokio::sync::{mpsc, watch};

use crate::address::Address;
use crate::runtime::sync::Mutex;
use crate::runtime::transport::{ConnectFuture, Connector, Halves};

/// Bytes that a pipe holds in each direction.
const PIPE_SIZE: usize = 256 << 10;

/// The network between clients and simulated brokers.
#[derive(Default)]
pub(super) struct Network {
    listeners: Mutex<HashMap<u16, mpsc::UnboundedSender<DuplexStream>>>,
    /// The client's ends of all connections.
    cuts: Mutex<Vec<watch::Sender<bool>>>,
}

impl Network {
    pub(super) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Listens on a port, in place of whoever did before.
    pub(super) fn listen(&self, port: u16) -> mpsc::UnboundedReceiver<DuplexStream> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().insert(port, sender);
        receiver
    }

    pub(super) fn close(&self, port: u16) {
        self.listeners.lock().remove(&port);
    }

    /// Cuts every connection at the client's end. What it had written is still on its way to the broker.
    pub(super) fn cut_all(&self) {
        self.cuts.lock().drain(..).for_each(|cut| _ = cut.send(true));
    }

    /// A connection that cannot be cut.
    pub(super) fn dial(&self, port: u16) -> io::Result<DuplexStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let listener = self.listeners.lock().get(&port).cloned().ok_or_else(refused)?;
        let (ours, theirs) = duplex(PIPE_SIZE);
        listener.send(theirs).map_err(|_gone| refused())?;
        Ok(ours)
    }
}

impl Connector for Network {
    fn connect<'a>(&'a self, address: &'a Address) -> ConnectFuture<'a> {
        Box::pin(async move {
            let ours = self.dial(address.port())?;
            let (cut, severed) = watch::channel(false);
            self.cuts.lock().push(cut);
            let (read, write) = split(ours);
            let wait = severed.clone();
            let ended = Box::pin(async move {
                let mut wait = wait;
                let _ = wait.wait_for(|&cut| cut).await;
            });
            Ok(Halves {
                read: Box::new(Cut {
                    half: read,
                    severed: severed.clone(),
                    ended: Some(ended),
                }),
                write: Box::new(Cut {
                    half: write,
                    severed,
                    ended: None,
                }),
            })
        })
    }
}

/// One half of a connection that can be cut.
struct Cut<T> {
    half: T,
    severed: watch::Receiver<bool>,
    /// Wakes a reader that waits when the cut comes.
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl<T> Cut<T> {
    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let Some(ended) = &mut self.ended
            && ended.as_mut().poll(context).is_ready()
        {
            self.ended = None;
        }
        if *self.severed.borrow() {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(())
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Cut<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Cut<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.half).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.half.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.half).poll_shutdown(context)
    }
}
