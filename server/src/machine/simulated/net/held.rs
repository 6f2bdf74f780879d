//! A stream for those who must be able to change threads, as tasks of the client library may: the world keeps it, and they know its
//! number.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{super::here, Stream};

/// Clones are the same stream; it is closed when the last is dropped.
#[derive(Debug, Clone)]
pub(crate) struct HeldStream(Arc<Number>);

#[derive(Debug)]
struct Number(u64);

impl Drop for Number {
    fn drop(&mut self) {
        if let Some(here) = here() {
            let stream = here.world.net.held.borrow_mut().remove(&self.0);
            drop(stream);
        }
    }
}

impl HeldStream {
    pub(crate) fn new(stream: Stream) -> HeldStream {
        let here = here().expect("a simulated stream is in its world");
        let number = here.world.next_number();
        here.world.net.held.borrow_mut().insert(number, stream);
        HeldStream(Arc::new(Number(number)))
    }

    fn stream(&self) -> Stream {
        let here = here().expect("it is used in its world");
        let held = here.world.net.held.borrow();
        held[&self.0.0].clone()
    }
}

impl AsyncRead for HeldStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let stream = self.stream();
        let most = stream.unread().max(1).min(buffer.remaining());
        stream
            .poll_read(context, buffer.initialize_unfilled_to(most))
            .map_ok(|count| buffer.advance(count))
    }
}

impl AsyncWrite for HeldStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.stream().poll_send(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream().shut_down();
        Poll::Ready(Ok(()))
    }
}
