//! Connections: how many there are, and how long each may keep others waiting.
//!
//! A connection is cut off that says nothing for too long between requests, that takes too long over the head of one, or that does not
//! take what it asked for. Bodies are limited where they are read.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::connect_info::Connected,
    serve::{IncomingStream, Listener},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep_until},
};

use crate::settings::Limits;

/// A connection without a request is closed after so long.
const IDLE_MAX: Duration = Duration::from_mins(1);

/// The head of a request may take so long from its first byte on.
const HEAD_MAX: Duration = Duration::from_secs(10);

/// So long nothing of an answer may be taken.
const STALL_MAX: Duration = Duration::from_secs(30);

/// A listener whose connections are counted and watched.
pub(crate) struct Bounded<L> {
    listener: L,
    permits: Arc<Semaphore>,
}

impl<L: Listener<Addr = SocketAddr>> Bounded<L> {
    pub(crate) fn new(listener: L, limits: &Limits) -> Bounded<L> {
        Bounded {
            listener,
            permits: Arc::new(Semaphore::new(limits.connections)),
        }
    }
}

impl<L: Listener<Addr = SocketAddr>> Listener for Bounded<L> {
    type Io = Watched<L::Io>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        loop {
            let (io, address) = self.listener.accept().await;
            let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() else {
                tracing::debug!(peer = %address, "a connection for REST is closed: there are as many as http.connections_max");
                continue;
            };
            return (Watched::new(io, permit), address);
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// What is known of a connection, by itself and by the requests on it.
#[derive(Debug)]
struct Turns {
    /// A request is being worked on.
    is_busy: bool,
    /// When the first byte came of a request that is not known yet.
    head_since: Option<Instant>,
    /// When something passed the last time.
    last: Instant,
}

/// A connection, as requests know it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    turns: Arc<Mutex<Turns>>,
}

impl Peer {
    fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The head of a request has come. The next is waited for when this is dropped.
    pub(crate) fn begin(&self) -> Busy {
        let mut turns = self.turns();
        turns.is_busy = true;
        turns.head_since = None;
        Busy(self.clone())
    }

    /// When it is cut off if nothing more comes.
    fn deadline(&self) -> Option<Instant> {
        let turns = self.turns();
        match turns.head_since {
            _ if turns.is_busy => None,
            Some(began) => Some(began + HEAD_MAX),
            None => Some(turns.last + IDLE_MAX),
        }
    }

    fn read(&self) {
        let mut turns = self.turns();
        turns.last = Instant::now();
        if !turns.is_busy && turns.head_since.is_none() {
            turns.head_since = Some(turns.last);
        }
    }

    fn wrote(&self) {
        self.turns().last = Instant::now();
    }
}

impl<L: Listener<Addr = SocketAddr>> Connected<IncomingStream<'_, Bounded<L>>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Bounded<L>>) -> Peer {
        stream.io().peer.clone()
    }
}

/// A request is being worked on.
#[derive(Debug)]
pub(crate) struct Busy(Peer);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut turns = self.0.turns();
        turns.is_busy = false;
        turns.last = Instant::now();
    }
}

/// A connection that is cut off when it takes too long.
pub(crate) struct Watched<I> {
    io: I,
    peer: Peer,
    reading: Pin<Box<Sleep>>,
    /// While nothing can be written.
    writing: Option<Pin<Box<Sleep>>>,
    _permit: OwnedSemaphorePermit,
}

impl<I> Watched<I> {
    fn new(io: I, permit: OwnedSemaphorePermit) -> Watched<I> {
        let now = Instant::now();
        let turns = Turns {
            is_busy: false,
            head_since: None,
            last: now,
        };
        Watched {
            io,
            peer: Peer {
                turns: Arc::new(Mutex::new(turns)),
            },
            reading: Box::pin(sleep_until(now + IDLE_MAX)),
            writing: None,
            _permit: permit,
        }
    }

    /// What has become of an attempt to write, unless the peer has taken nothing for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, polled: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.writing = None;
            self.peer.wrote();
            return polled;
        }
        let limit = || Box::pin(sleep_until(Instant::now() + STALL_MAX));
        match self.writing.get_or_insert_with(limit).as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => polled,
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Watched<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(context, buffer);
        if polled.is_ready() {
            if buffer.filled().len() > before {
                self.peer.read();
            }
            return polled;
        }
        let Some(deadline) = self.peer.deadline() else {
            return polled;
        };
        if Instant::now() >= deadline {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if self.reading.deadline() != deadline {
            self.reading.as_mut().reset(deadline);
        }
        // Wakes this task at the deadline; what has come by then is looked at above.
        match self.reading.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => polled,
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Watched<I> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.watch(context, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(context);
        if polled.is_ready() {
            // Nothing has passed because of that.
            return polled;
        }
        self.watch(context, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_shutdown(context);
        self.watch(context, polled)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex},
        time::timeout,
    };

    use super::*;

    fn watched(capacity: usize) -> (Watched<DuplexStream>, DuplexStream) {
        let (near, far) = duplex(capacity);
        let permit = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        (Watched::new(near, permit), far)
    }

    async fn is_cut_off(watched: &mut Watched<DuplexStream>, within: Duration) -> bool {
        let read = async { while watched.read_u8().await.is_ok() {} };
        timeout(within, read).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn who_says_nothing_or_trickles_a_head_is_cut_off_and_who_works_is_not() {
        let (mut silent, _far) = watched(64);
        assert!(!is_cut_off(&mut silent, IDLE_MAX.checked_sub(Duration::from_secs(1)).unwrap()).await);
        assert!(is_cut_off(&mut silent, Duration::from_secs(2)).await);

        let (mut trickled, mut far) = watched(64);
        let trickle = tokio::spawn(async move {
            while far.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        });
        assert!(!is_cut_off(&mut trickled, HEAD_MAX.checked_sub(Duration::from_secs(2)).unwrap()).await);
        assert!(is_cut_off(&mut trickled, Duration::from_secs(4)).await);
        trickle.abort();

        let (mut busy, _far) = watched(64);
        let request = busy.peer.begin();
        assert!(!is_cut_off(&mut busy, IDLE_MAX * 3).await);
        drop(request);
        assert!(is_cut_off(&mut busy, IDLE_MAX + Duration::from_secs(1)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_its_answer_is_cut_off() {
        let (mut stalled, _far) = watched(8);
        let began = Instant::now();
        let error = stalled.write_all(&[0; 64]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(began.elapsed() >= STALL_MAX);
    }
}
