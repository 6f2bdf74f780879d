//! One connection: a loop that takes requests in and a loop that sends responses, on the core that accepted it.
//!
//! Requests are taken in one after the other, so produce requests are appended in the order of their arrival; everything that
//! waits is a task of its own, and responses leave in the order in which they are ready. Before a frame is read there must be
//! room for it: in the connection's share, in the core's, and in the tail buffers. Otherwise the socket is simply not read.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use futures::future::{Either, select};
use glommio::net::TcpStream;
use headwater_protocol::{
    error::ErrorCode,
    frame::{Api, FrameHeader},
};

use crate::{
    budget::Budget,
    core::Core,
    dispatch::{self, Taken},
    frames::{FrameReader, ReadError},
    outbox::{Outbox, RequestLease, Response},
    reply, runtime,
    transfer::Sender,
};

/// Small responses that leave in one system call, in bytes.
const COALESCE_BYTES: usize = 64 * 1024;

/// A request's share of the budgets beyond its bytes: its task and its response.
const REQUEST_OVERHEAD_BYTES: u64 = 512;

/// What belongs to one connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) outbox: Outbox,
    budget: Rc<Budget>,
}

/// Serves a connection until either side ends it.
pub(crate) async fn serve(core: Rc<Core>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    let limits = &core.config.limits;
    let connection = Rc::new(Connection {
        outbox: Outbox::default(),
        budget: Budget::new(limits.requests_in_flight_bytes_max.get()),
    });
    let frame_size_max = limits.frame_size_bytes_max.get() as u32;
    let mut reader = FrameReader::new(stream, Rc::clone(&core.read_buffers), frame_size_max);
    let socket = match rustix::io::dup(reader.fd()) {
        Ok(socket) => socket,
        Err(error) => return tracing::warn!(%error, "a connection is refused: raise the limit on open files"),
    };
    let ended = match Sender::new(std::os::fd::AsFd::as_fd(&socket), &core.disk) {
        Ok(sender) => {
            let requests = std::pin::pin!(take_in(&core, &connection, &mut reader));
            let responses = std::pin::pin!(send_out(&core, &connection.outbox, &sender));
            match select(requests, responses).await {
                Either::Left((result, responses)) => {
                    // What has been taken in is still answered, unless the client has left or the grace is over.
                    let grace = Instant::now() + Duration::from_millis(core.config.limits.shutdown_grace_ms.get());
                    let drained = std::pin::pin!(connection.outbox.drained());
                    let _ = runtime::until(grace, select(drained, responses)).await;
                    result
                }
                Either::Right((error, _)) => Err(ReadError::Io(error)),
            }
        }
        Err(error) => Err(ReadError::Io(error)),
    };
    connection.outbox.close();
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection has ended");
    }
    // Also ends polls on the socket that the kernel still has.
    if let Err(error) = rustix::net::shutdown(&socket, rustix::net::Shutdown::Both) {
        tracing::trace!(%error, "the socket was gone already");
    }
}

/// Takes requests in until the client leaves, the broker stops, or what comes is not the protocol.
async fn take_in(core: &Rc<Core>, connection: &Rc<Connection>, reader: &mut FrameReader) -> Result<(), ReadError> {
    let idle = Duration::from_millis(core.config.limits.connection_idle_ms.get());
    let requests_max = core.config.limits.requests_in_flight_max as usize;
    loop {
        connection.outbox.below(requests_max).await;
        core.memory.room().await;
        let header = {
            let next = std::pin::pin!(runtime::until(Instant::now() + idle, reader.next()));
            match select(next, std::pin::pin!(core.stopping())).await {
                Either::Right(_) => return Ok(()),
                Either::Left((None, _)) if connection.outbox.in_flight() > 0 => continue,
                Either::Left((None, _)) => return Ok(()),
                Either::Left((Some(next), _)) => next,
            }
        };
        let header = match header {
            Ok(Some(header)) => header,
            Ok(None) => return Ok(()),
            Err(ReadError::Frame(error)) => {
                refuse(core, connection, &error).await;
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        let lease = lease(core, connection, header).await;
        connection.outbox.begin();
        let taken = dispatch::take(core, connection, &reader.frame(header), lease);
        reader.consume(header);
        if let Taken::Close(reason) = taken {
            tracing::info!(reason, "a connection is closed: its request cannot be answered");
            return Ok(());
        }
        // The flush that this request may have started must reach the disk while the socket still has more.
        core.disk.ring().reap();
        runtime::yield_now().await;
    }
}

async fn lease(core: &Rc<Core>, connection: &Connection, header: FrameHeader) -> RequestLease {
    let bytes = header.frame_len() as u64 + REQUEST_OVERHEAD_BYTES;
    let own = connection.budget.lease(bytes).await;
    RequestLease::new(core.in_flight.lease(bytes).await, own)
}

/// Says why the connection will be closed.
async fn refuse(core: &Rc<Core>, connection: &Connection, error: &headwater_protocol::frame::FrameError) {
    let id = error.correlation_id();
    let head = reply::error(id, ErrorCode::InvalidRequest, &error.to_string());
    let lease = RequestLease::new(core.in_flight.lease(0).await, connection.budget.lease(0).await);
    connection.outbox.push(Response::of(head), lease);
}

/// Sends responses until the socket fails.
async fn send_out(core: &Core, outbox: &Outbox, sender: &Sender<'_>) -> io::Error {
    loop {
        let (mut response, lease) = outbox.next().await;
        let mut leases = vec![lease];
        if response.payload.is_empty() {
            while response.head.len() < COALESCE_BYTES
                && let Some((small, lease)) = outbox.next_small()
            {
                response.head.extend_from_slice(&small.head);
                leases.push(lease);
            }
        }
        let result = sender.send(response).await;
        drop(leases);
        outbox.sent();
        if let Err(error) = result {
            return error;
        }
        core.disk.ring().reap();
    }
}
