//! Answers that are long: what they take is counted until the caller has them.

use std::convert::Infallible;

use axum::{
    body::Body,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;

use crate::admission::Charge;

/// So much is handed to the connection at a time.
const PIECE_BYTES: usize = 64 << 10;

/// An answer, with what it takes of the memory there is.
pub(crate) struct Written {
    bytes: Bytes,
    charge: Charge,
    kind: &'static str,
}

impl Written {
    /// JSON that was written piece by piece.
    pub(crate) fn json(bytes: impl Into<Bytes>, charge: Charge) -> Written {
        Written {
            bytes: bytes.into(),
            charge,
            kind: "application/json",
        }
    }

    /// Bytes as they are.
    pub(crate) fn raw(bytes: Bytes, charge: Charge) -> Written {
        Written {
            bytes,
            charge,
            kind: "application/octet-stream",
        }
    }
}

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        let Written { bytes, charge, kind } = self;
        let length = bytes.len();
        let body = if length <= PIECE_BYTES {
            Body::from(bytes)
        } else {
            // The charge goes when the last piece has gone.
            let pieces = stream::unfold((bytes, charge), async |(mut rest, charge)| {
                let piece = rest.split_to(rest.len().min(PIECE_BYTES));
                (!piece.is_empty()).then_some((Ok::<Bytes, Infallible>(piece), (rest, charge)))
            });
            Body::from_stream(pieces)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}
