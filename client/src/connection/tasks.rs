//! The two tasks of a connection. Each ends when the connection has failed, and fails it when its half does.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use headwater_protocol::stranger::Stranger;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::frames::FrameReader;
use super::{Outcome, Outgoing, Reply, Shared};
use crate::error::{Error, ProtocolViolation, Sign};
use crate::runtime;

/// Most slices in one vectored write; two for each frame.
const SLICES_MAX: usize = 64;

pub(super) async fn read(shared: Arc<Shared>, half: Box<dyn AsyncRead + Send + Unpin>, frame_size_max: u32) {
    tokio::select! {
        biased;
        () = shared.has_failed() => {}
        error = read_frames(&shared, half, frame_size_max) => shared.fail(&error),
    }
}

/// Reads until the connection ends, and returns why.
async fn read_frames(shared: &Shared, half: Box<dyn AsyncRead + Send + Unpin>, frame_size_max: u32) -> Error {
    let mut frames = FrameReader::new(frame_size_max);
    let error = read_into(&mut frames, shared, half).await;
    match frames.without_frame().and_then(Stranger::of) {
        Some(stranger) => Error::NotHeadwater {
            address: shared.address.clone(),
            sign: Sign::Speaks(stranger),
        },
        None => error,
    }
}

async fn read_into(frames: &mut FrameReader, shared: &Shared, mut half: Box<dyn AsyncRead + Send + Unpin>) -> Error {
    loop {
        match half.read_buf(frames.room()).await {
            Ok(0) => {
                return Error::Disconnected {
                    address: shared.address.clone(),
                    source: None,
                };
            }
            Ok(_) => {}
            Err(error) => return disconnected(shared, error),
        }
        loop {
            let dispatched = match frames.next_frame() {
                Ok(None) => {
                    if let Some((header, head)) = frames.announced() {
                        shared.announce(header, head);
                        // Whoever waits for it sends the next request while the payload is still coming.
                        runtime::yield_now().await;
                    }
                    break;
                }
                Ok(Some(frame)) => shared.dispatch(frame),
                Err(error) => Err(shared.violation(ProtocolViolation::Frame(Arc::new(error)))),
            };
            if let Err(error) = dispatched {
                return error;
            }
        }
    }
}

pub(super) async fn write(shared: Arc<Shared>, half: Box<dyn AsyncWrite + Send + Unpin>) {
    tokio::select! {
        biased;
        () = shared.has_failed() => {}
        error = write_frames(&shared, half) => shared.fail(&disconnected(&shared, error)),
    }
}

/// Writes what is submitted, until the socket fails.
async fn write_frames(shared: &Shared, mut half: Box<dyn AsyncWrite + Send + Unpin>) -> io::Error {
    let mut batch = WriteBatch::default();
    loop {
        batch.fill(&mut shared.queue.lock().outgoing);
        if batch.is_empty() {
            // What encrypts may still hold some of it.
            if let Err(error) = half.flush().await {
                return error;
            }
            shared.submitted.notified().await;
        } else if let Err(error) = batch.write(&mut half).await {
            return error;
        }
    }
}

fn disconnected(shared: &Shared, source: io::Error) -> Error {
    Error::Disconnected {
        address: shared.address.clone(),
        source: Some(Arc::new(source)),
    }
}

/// Frames on their way into the socket, the first one perhaps in part.
#[derive(Default)]
struct WriteBatch {
    parts: VecDeque<Part>,
}

/// A head, or a payload.
struct Part {
    rest: Bytes,
    /// Called when the part, and with it its frame, is written.
    written: Option<Reply>,
}

impl WriteBatch {
    fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    fn fill(&mut self, outgoing: &mut VecDeque<Outgoing>) {
        while self.parts.len() + 2 <= SLICES_MAX
            && let Some(Outgoing {
                head,
                payload,
                mut written,
            }) = outgoing.pop_front()
        {
            let only_head = payload.is_empty();
            self.parts.push_back(Part {
                rest: head,
                written: if only_head { written.take() } else { None },
            });
            if !only_head {
                self.parts.push_back(Part { rest: payload, written });
            }
        }
    }

    /// Writes once, as much as the socket takes.
    async fn write(&mut self, half: &mut (dyn AsyncWrite + Send + Unpin)) -> io::Result<()> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        for (slice, part) in slices.iter_mut().zip(&self.parts) {
            *slice = IoSlice::new(&part.rest);
        }
        let count = self.parts.len().min(SLICES_MAX);
        let mut written = half.write_vectored(&slices[..count]).await?;
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        while written > 0 {
            let Some(part) = self.parts.front_mut() else { break };
            let step = written.min(part.rest.len());
            part.rest.advance(step);
            written -= step;
            if !part.rest.is_empty() {
                break;
            }
            let part = self.parts.pop_front();
            if let Some(reply) = part.and_then(|part| part.written) {
                reply.done(Ok(Outcome::Written));
            }
        }
        Ok(())
    }
}
