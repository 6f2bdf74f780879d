//! Frames that answer requests, made from heads in their owned form.

use headwater_protocol::{error::ErrorCode, frame, head::Head, id::CorrelationId, schema::ErrorResponseT};

/// The version of every api today.
const VERSION: u16 = 0;

/// A response without payload.
pub(crate) fn head<H: Head>(id: CorrelationId, head: &H) -> Vec<u8> {
    frame::encode_head(head, VERSION, id, 0)
}

/// A response that `payload_len` bytes follow.
pub(crate) fn head_of_payload<H: Head>(id: CorrelationId, head: &H, payload_len: u64) -> Vec<u8> {
    // The fetch limits are far below 4 GiB; the configuration is checked for it.
    frame::encode_head(head, VERSION, id, payload_len as usize)
}

/// The answer to a request that has no response of its own.
pub(crate) fn error(id: CorrelationId, code: ErrorCode, message: &str) -> Vec<u8> {
    head(
        id,
        &ErrorResponseT {
            error: code as i16,
            message: Some(message.to_owned()),
        },
    )
}
