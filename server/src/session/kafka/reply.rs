//! The way back of a request: a response, in its turn.

use std::rc::Rc;

use headwater_kafka::{ApiKey, Unwritable, header};
use headwater_protocol::error::ErrorCode;

use crate::{
    core::budget::Lease,
    session::{
        in_flight::RequestLease,
        order::{Answer, Turn},
        outbox::Piece,
        peer::Connection,
        sessions::Sessions,
    },
};

/// Bytes in the size field of a response, which does not count itself.
const SIZE_LEN: usize = 4;

/// Answers one request.
pub(super) struct Reply {
    pub(super) sessions: Rc<Sessions>,
    pub(super) connection: Rc<Connection>,
    pub(super) version: i16,
    key: ApiKey,
    correlation_id: i32,
    turn: Turn,
    /// Until it is answered.
    lease: Option<RequestLease>,
}

impl Reply {
    pub(super) fn new(
        sessions: &Rc<Sessions>,
        connection: &Rc<Connection>,
        request: &header::Request<'_>,
        lease: RequestLease,
    ) -> Reply {
        Reply {
            sessions: Rc::clone(sessions),
            connection: Rc::clone(connection),
            version: request.version,
            key: request.key,
            correlation_id: request.correlation_id,
            turn: connection.in_order.begin(),
            lease: Some(lease),
        }
    }

    /// The beginning of a response, before its body.
    pub(super) fn begun(&self) -> Vec<u8> {
        let mut frame = vec![0; SIZE_LEN];
        header::write_response(&mut frame, self.key, self.version, self.correlation_id);
        frame
    }

    /// Answers with the body that is written. `error`: what it tells of, for the metrics.
    pub(super) fn send(self, error: ErrorCode, write: impl FnOnce(&mut Vec<u8>) -> Result<(), Unwritable>) {
        let mut frame = self.begun();
        match write(&mut frame) {
            Ok(()) => self.send_pieces(error, frame, (0, Vec::new())),
            Err(why) => self.cannot(&why),
        }
    }

    /// Answers with a response that was [`begun`](Self::begun), and with what follows it, of so many bytes.
    pub(super) fn send_pieces(mut self, error: ErrorCode, mut frame: Vec<u8>, (rest_len, rest): (u64, Vec<Piece>)) {
        // The limits of a fetch are far below 2 GiB; the configuration is checked for it.
        let size = (frame.len() - SIZE_LEN) as u64 + rest_len;
        frame[..SIZE_LEN].copy_from_slice(&(size as u32).to_be_bytes());
        self.sessions.core.metrics.answered(error);
        self.answer(frame, rest);
    }

    /// Says in a body how long the client should wait, where its answers begin with that.
    pub(super) fn throttle(&self, body: &mut [u8]) {
        let wait = self.connection.meter.throttle_ms();
        if wait > 0
            && self.version >= self.key.api().throttle_from
            && let Some(first) = body.first_chunk_mut()
        {
            *first = wait.to_be_bytes();
        }
    }

    /// The client wants no answer.
    pub(super) fn send_nothing(mut self) {
        self.answer(Vec::new(), Vec::new());
    }

    /// There is no answer that could be written: a defect, which ends the connection.
    pub(super) fn cannot(self, why: &Unwritable) {
        tracing::error!(api = ?self.key, version = self.version, %why, "a response cannot be written");
    }

    /// Waits until it may be answered: see [`Connection::turn`]. The answers that wait for it do not count.
    pub(super) async fn turn(&self) -> Lease {
        let turn = self.connection.turn().await;
        self.connection.in_order.room_for(self.turn).await;
        turn
    }

    /// Whether its answer says only how things are, so that nobody misses it whose connection is gone.
    pub(super) fn is_question(&self) -> bool {
        use ApiKey as Key;
        matches!(
            self.key,
            Key::ListOffsets
                | Key::Metadata
                | Key::OffsetFetch
                | Key::FindCoordinator
                | Key::DescribeGroups
                | Key::ListGroups
                | Key::OffsetForLeaderEpoch
                | Key::DescribeConfigs
                | Key::DescribeLogDirs
                | Key::ListPartitionReassignments
                | Key::DescribeQuorum
                | Key::DescribeCluster
                | Key::DescribeProducers
                | Key::ListConfigResources
                | Key::DescribeTopicPartitions
                | Key::DescribeClientQuotas
        )
    }

    /// Waits until there is room for so many bytes, if a fetch of this body has not been lent as many.
    pub(super) async fn holds(&mut self, bytes: u64, body: &[u8]) {
        if let Some(lease) = &mut self.lease {
            self.connection.lease_for_fetch(lease, bytes, body.len()).await;
        }
    }

    /// See [`RequestLease::give_bytes_back`].
    pub(super) fn give_bytes_back(&mut self) {
        if let Some(lease) = &mut self.lease {
            lease.give_bytes_back();
        }
    }

    fn answer(&mut self, frame: Vec<u8>, rest: Vec<Piece>) {
        if let Some(lease) = self.lease.take() {
            let answer = Answer { frame, rest, lease };
            let Connection { in_order, outbox, .. } = &*self.connection;
            in_order.answer(self.turn, answer, outbox);
        }
    }
}

impl Drop for Reply {
    /// What gets no answer ends the connection: the next one would be taken for it.
    fn drop(&mut self) {
        if self.lease.is_some() {
            self.answer(Vec::new(), Vec::new());
            self.connection.outbox.hang_up();
        }
    }
}
