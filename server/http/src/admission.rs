//! How much is taken in at one time. What is too much is refused at once, with 503 and when to come again, so that nobody waits in a
//! queue that grows.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt as _;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{door::Peer, problem::Problem, service::Service, settings::Limits};

/// Memory is counted in pieces of this size.
const PIECE: usize = 1 << 10;

/// An answer may have so much as long as nothing has come for it, and however little memory there is.
const ANSWER_MIN: usize = 64 << 10;

/// Nothing takes longer, whatever becomes of it; a request has limits of its own below that.
const WAIT_MAX: Duration = Duration::from_mins(1);

/// What there is.
pub(crate) struct Admission {
    requests: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    memory: Arc<Semaphore>,
}

/// A part of the memory for bodies; it is given back when this is dropped.
#[derive(Debug, Default)]
pub(crate) struct Charge(Option<OwnedSemaphorePermit>);

impl Charge {
    fn add(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.0 {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
    }
}

/// A body as a whole, and the memory that it takes.
#[derive(Debug)]
pub(crate) struct Whole {
    pub(crate) bytes: Bytes,
    /// Until the request is answered.
    pub(crate) charge: Charge,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Admission {
        Admission {
            requests: Arc::new(Semaphore::new(limits.requests)),
            streams: Arc::new(Semaphore::new(limits.streams)),
            memory: Arc::new(Semaphore::new(limits.memory_bytes / PIECE)),
        }
    }

    /// A stream, or a request that waits for records, for as long as this is kept.
    pub(crate) fn stream(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_full| {
            Problem::busy(
                "as many streams and requests that wait for records are there as may be",
                "try again after the time that Retry-After says, or raise http.streams_max",
            )
        })
    }

    /// Memory for so many bytes.
    pub(crate) fn charge(&self, bytes: usize) -> Result<Charge, Problem> {
        let mut charge = Charge::default();
        self.charge_more(&mut charge, bytes)?;
        Ok(charge)
    }

    /// Memory for an answer that may take so many bytes, of which none has come yet.
    pub(crate) fn begin_answer(&self, bytes: usize) -> Result<Charge, Problem> {
        self.charge(bytes.min(ANSWER_MIN))
    }

    /// It comes. Says for how many bytes there is memory, which are fewer where others have it.
    pub(crate) fn go_on(&self, charge: &mut Charge, bytes: usize) -> usize {
        let more = bytes.saturating_sub(ANSWER_MIN);
        match self.charge_more(charge, more) {
            Ok(()) => bytes,
            Err(_full) => bytes.min(ANSWER_MIN),
        }
    }

    fn charge_more(&self, charge: &mut Charge, bytes: usize) -> Result<(), Problem> {
        let pieces = bytes.div_ceil(PIECE) as u32;
        let permit = Arc::clone(&self.memory)
            .try_acquire_many_owned(pieces)
            .map_err(|_full| {
                Problem::busy(
                    "requests that are under way have all the memory that they may",
                    "try again after the time that Retry-After says, or raise http.memory_bytes_max",
                )
            })?;
        charge.add(permit);
        Ok(())
    }

    /// Reads a body, which is paid for as it comes.
    pub(crate) async fn read(&self, body: Body, limits: &Limits) -> Result<Whole, Problem> {
        let deadline = Instant::now() + limits.request_time;
        let mut stream = body.into_data_stream();
        let (mut parts, mut charge) = (BytesMut::new(), Charge::default());
        loop {
            let next = timeout_at(deadline, stream.next()).await.map_err(|_late| {
                Problem::new(
                    headwater_client::ErrorCode::RequestTimedOut,
                    "the body did not come in time",
                )
                .status(axum::http::StatusCode::REQUEST_TIMEOUT)
                .next("send it faster, or raise http.request_ms_max")
            })?;
            let Some(part) = next else {
                return Ok(Whole {
                    bytes: parts.freeze(),
                    charge,
                });
            };
            let part = part.map_err(|error| Problem::invalid(format!("the body cannot be read: {error}")))?;
            if parts.len() + part.len() > limits.body_bytes {
                return Err(Problem::too_large(limits.body_bytes));
            }
            // What is left of the last piece is paid for already.
            let paid = parts.len().next_multiple_of(PIECE);
            let wanted = parts.len() + part.len();
            if wanted > paid {
                self.charge_more(&mut charge, wanted - paid)?;
            }
            parts.extend_from_slice(&part);
        }
    }
}

/// Lets a request in, if there is room for it.
pub(crate) async fn admit(State(service): State<Service>, request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let _busy = peer.map(|ConnectInfo(peer)| peer.begin());
    let Ok(_permit) = service.admission.requests.try_acquire() else {
        return Problem::busy(
            "as many requests are under way as may be",
            "try again after the time that Retry-After says, or raise http.requests_in_flight_max",
        )
        .into_response();
    };
    let limit = service.settings.limits.request_time * 2 + WAIT_MAX;
    match timeout_at(Instant::now() + limit, next.run(request)).await {
        Ok(response) => response,
        Err(_late) => Problem::new(headwater_client::ErrorCode::RequestTimedOut, "it took too long").into_response(),
    }
}
