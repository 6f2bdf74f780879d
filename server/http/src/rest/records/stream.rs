//! Records as they come, as Server-Sent Events.
//!
//! A caller that does not read holds up its own stream and nothing else: no more is fetched than fits ahead of it, and its connection
//! is cut off when it takes nothing for too long.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use futures::stream;
use headwater_client::{Advance, Consumer, Offset, Records, Start};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::read::{Much, Place, ReadQuery, consumer, write};
use crate::{caller::Caller, problem::Problem, rest::data::Format, service::Service};

/// The name of the header by which a reader says how far it came.
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// So often something is sent, so that what lies between does not take the connection for dead.
const ALIVE_EVERY: Duration = Duration::from_secs(15);

/// Fetched ahead of a reader.
const AHEAD_BYTES: usize = 1 << 20;

/// A piece of the stream is ended when it has so many bytes.
const PIECE_BYTES: usize = 256 << 10;

/// Where a browser that lost its connection waits before it asks again.
const BEGIN: &[u8] = b"retry: 2000\n\n";

struct Listening {
    service: Service,
    consumer: Consumer,
    place: Place,
    format: Format,
    /// What is left of a batch, from this offset on.
    current: Option<(Records, Offset)>,
    state: State,
    _permit: OwnedSemaphorePermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Over,
}

/// Begins a stream.
pub(super) async fn open(
    service: Service,
    caller: Caller,
    place: Place,
    query: &ReadQuery,
    headers: &HeaderMap,
) -> Result<Response, Problem> {
    if query.max.is_some() || query.max_bytes.is_some() || query.wait_ms.is_some() {
        return Err(Problem::invalid(
            "max, max_bytes and wait_ms are not for streams, which go on until they are closed",
        ));
    }
    let start = match headers.get(LAST_EVENT_ID) {
        Some(last) => behind(last)?,
        None => query.start()?,
    };
    let permit = service.admission.stream()?;
    let much = Much {
        records: usize::MAX,
        bytes: AHEAD_BYTES,
        wait: Duration::ZERO,
    };
    let listening = Listening {
        consumer: consumer(&caller, &place, start, much).await?,
        service,
        place,
        format: query.format,
        current: None,
        state: State::New,
        _permit: permit,
    };
    let pieces = stream::unfold(listening, async |mut listening| {
        let piece = listening.next().await?;
        Some((Ok::<Bytes, std::convert::Infallible>(piece), listening))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-cache"),
        (HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// Where a reader goes on that has seen this event.
fn behind(last: &HeaderValue) -> Result<Start, Problem> {
    let last: Option<u64> = last.to_str().ok().and_then(|last| last.trim().parse().ok());
    let fits = last.filter(|last| *last < i64::MAX as u64);
    let fits = fits.ok_or_else(|| Problem::invalid("Last-Event-ID is the offset of the last record that was seen"))?;
    Ok(Start::Offset(Offset::new(fits + 1)))
}

impl Listening {
    /// What is sent next; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.state {
            State::New => {
                self.state = State::Open;
                return Some(Bytes::from_static(BEGIN));
            }
            State::Open => {}
            State::Over => return None,
        }
        loop {
            if let Some((records, from)) = self.current.take() {
                return Some(match self.events(&records, from) {
                    Ok(piece) => piece,
                    Err(problem) => self.end(&problem),
                });
            }
            let advanced = tokio::select! {
                advanced = timeout(ALIVE_EVERY, self.consumer.advance()) => advanced,
                () = self.service.stopping() => return None,
            };
            match advanced {
                Ok(Ok(Advance::Records(records))) => self.current = Some((records, Offset::default())),
                Ok(Ok(Advance::Skip(_))) => {}
                Ok(Err(error)) => return Some(self.end(&error.into())),
                Err(_nothing) => return Some(Bytes::from_static(b": still here\n\n")),
            }
        }
    }

    /// The events of records from an offset on, until the piece is long enough.
    fn events(&mut self, records: &Records, from: Offset) -> Result<Bytes, Problem> {
        let mut piece = Vec::with_capacity(PIECE_BYTES + (8 << 10));
        for record in records {
            let record = record?;
            if record.offset < from {
                continue;
            }
            if piece.len() >= PIECE_BYTES {
                let from = record.offset;
                self.current = Some((records.clone(), from));
                break;
            }
            event(&mut piece, &self.place, &record, self.format);
        }
        Ok(piece.into())
    }

    /// Says why there is no more.
    fn end(&mut self, problem: &Problem) -> Bytes {
        self.state = State::Over;
        let problem = serde_json::to_string(problem).unwrap_or_default();
        format!("event: problem\ndata: {problem}\n\n").into()
    }
}

/// Writes an event. JSON that was stored may be of several lines, and each is one of the data.
fn event(piece: &mut Vec<u8>, place: &Place, record: &headwater_client::RecordView<'_>, format: Format) {
    piece.extend_from_slice(format!("id: {}\ndata: ", record.offset).as_bytes());
    let began = piece.len();
    write(piece, &place.topic, place.partition, record, format);
    if format == Format::Json && piece[began..].iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
        let text = piece.split_off(began);
        for byte in text {
            match byte {
                b'\n' => piece.extend_from_slice(b"\ndata: "),
                // It is white space between JSON's words, and would end a line too.
                b'\r' => {}
                byte => piece.push(byte),
            }
        }
    }
    piece.extend_from_slice(b"\n\n");
}
