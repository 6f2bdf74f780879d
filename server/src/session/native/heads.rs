//! Heads of responses, written into frames.

use std::cell::RefCell;

use flatbuffers::FlatBufferBuilder;
use headwater_protocol::{frame, head::Head, id::CorrelationId};

/// The version of every api today.
const VERSION: u16 = 0;

/// Memory for heads that is kept for the next one, in bytes.
const KEPT_BYTES_MAX: usize = 64 << 10;

/// Where a core makes its heads, one after the other.
#[derive(Default)]
pub(crate) struct Heads(RefCell<FlatBufferBuilder<'static>>);

impl Heads {
    pub(super) fn append<H: Head>(&self, head: &H, id: CorrelationId, payload_len: u64, frames: &mut Vec<u8>) {
        let mut builder = self.0.borrow_mut();
        let before = frames.len();
        // The fetch limits are far below 4 GiB; the configuration is checked for it.
        frame::append_head(head, VERSION, id, payload_len as usize, &mut builder, frames);
        if frames.len() - before > KEPT_BYTES_MAX {
            *builder = FlatBufferBuilder::new();
        }
    }
}
