//! Records in a log of another core, handed over piece by piece.
//!
//! A range of a log does not leave its core, so a task there keeps it and copies a piece whenever the connection's core asks for
//! one. That core asks when its socket may take the piece: a client that does not read costs a task, not its records. The task
//! ends with the [`RemoteRange`].

use std::io;

use futures::channel::{mpsc, oneshot};

use super::mesh::Reply;

/// The first `bytes` bytes of what is left, after `skip` bytes of it.
pub(crate) struct PieceRequest {
    pub(crate) skip: u64,
    pub(crate) bytes: u64,
    pub(crate) reply: Reply<io::Result<Vec<u8>>>,
}

/// Whole batches in a log of another core.
#[derive(Debug)]
pub(crate) struct RemoteRange {
    length: u64,
    /// Bytes that were sent since the last piece was asked for.
    skip: u64,
    requests: mpsc::UnboundedSender<PieceRequest>,
}

impl RemoteRange {
    /// So many bytes, and the requests for them that the core that owns them is to answer.
    pub(crate) fn new(length: u64) -> (RemoteRange, mpsc::UnboundedReceiver<PieceRequest>) {
        let (requests, inbox) = mpsc::unbounded();
        let range = RemoteRange {
            length,
            skip: 0,
            requests,
        };
        (range, inbox)
    }

    /// Bytes that are left.
    pub(crate) fn len(&self) -> u64 {
        self.length
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// A copy of the first bytes.
    pub(crate) async fn piece(&mut self, bytes: u64) -> io::Result<Vec<u8>> {
        let (reply, piece) = oneshot::channel();
        let request = PieceRequest {
            skip: std::mem::take(&mut self.skip),
            bytes,
            reply,
        };
        // If the other core has ended, the reply is dropped with the request.
        let _ = self.requests.unbounded_send(request);
        let ended = |_cancelled| io::Error::other("the core that owns the records has ended");
        piece.await.map_err(ended)?
    }

    /// Moves the start forward over what has been sent.
    pub(crate) fn advance(&mut self, bytes: u64) {
        assert!(bytes <= self.length, "advanced {bytes} bytes of {}", self.length);
        self.skip += bytes;
        self.length -= bytes;
    }
}
