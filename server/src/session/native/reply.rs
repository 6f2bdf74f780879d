//! Frames that answer requests, made from heads in their owned form.

use headwater_protocol::{error::ErrorCode, frame, head::ResponseHead, id::CorrelationId, schema::ErrorResponseT};

/// The version of every api today.
const VERSION: u16 = 0;

/// The head of a response as it is sent, and the error that it tells.
pub(crate) struct Encoded {
    pub(crate) bytes: Vec<u8>,
    pub(crate) error: ErrorCode,
}

/// A response without payload.
pub(crate) fn head<H: ResponseHead>(id: CorrelationId, head: &H) -> Encoded {
    head_of_payload(id, head, 0)
}

/// A response that `payload_len` bytes follow.
pub(crate) fn head_of_payload<H: ResponseHead>(id: CorrelationId, head: &H, payload_len: u64) -> Encoded {
    Encoded {
        // The fetch limits are far below 4 GiB; the configuration is checked for it.
        bytes: frame::encode_head(head, VERSION, id, payload_len as usize),
        error: ErrorCode::from_i16(head.error()),
    }
}

/// The answer to a request that has no response of its own.
pub(crate) fn error(id: CorrelationId, code: ErrorCode, message: &str) -> Encoded {
    head(
        id,
        &ErrorResponseT {
            error: code as i16,
            message: Some(message.to_owned()),
        },
    )
}
