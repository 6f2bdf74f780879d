//! How much one request may ask for, and one answer may tell: a few bytes that name the same thing many times, or everything, must not
//! make the broker allocate out of proportion.

use headwater_protocol::{error::ErrorCode, head::REQUEST_TABLES_MAX};

use crate::model::refusal::Refusal;

/// Most topics, partitions or states that a request may list: as many as it may when each is a table.
pub(crate) const ITEMS_MAX: usize = REQUEST_TABLES_MAX;

/// Most that the head of an answer may take in bytes. A client takes 64 MiB by default.
pub(crate) const ANSWER_BYTES_MAX: usize = 32 << 20;

/// Refuses a request that lists too much.
pub(crate) fn check_items(what: &str, count: usize) -> Result<(), Refusal> {
    if count <= ITEMS_MAX {
        return Ok(());
    }
    let message = format!("the request lists {count} {what}; at most {ITEMS_MAX} are allowed: ask in parts");
    Err(Refusal::new(ErrorCode::InvalidRequest, message))
}

/// What an answer takes, summed up before it is made.
#[derive(Debug, Default)]
pub(crate) struct AnswerSize {
    bytes: usize,
}

impl AnswerSize {
    /// What the table of an item takes at most besides its texts, with its place in memory.
    const ITEM_BYTES: usize = 128;

    /// Counts an item with texts of so many bytes. `instead` says how to ask for less.
    pub(crate) fn add(&mut self, text_len: usize, instead: &str) -> Result<(), Refusal> {
        self.bytes += Self::ITEM_BYTES + text_len;
        if self.bytes <= ANSWER_BYTES_MAX {
            return Ok(());
        }
        let message = format!(
            "the answer would take more than {} MiB: {instead}",
            ANSWER_BYTES_MAX >> 20
        );
        Err(Refusal::new(ErrorCode::InvalidRequest, message))
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::{
        frame::{Api, FrameHeader},
        id::CorrelationId,
    };

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_largest_answer_that_may_be_allowed_fits_a_frame() {
        let largest = |name: &str| {
            let knob = Config::KNOBS.iter().find(|knob| knob.name() == name).unwrap();
            usize::try_from(*knob.range.as_ref().unwrap().end()).unwrap()
        };
        // The first batch of a fetch may be larger than what is left for it.
        let records = largest("limits.fetch_size_bytes_max") + largest("log.batch_size_bytes_max");
        let partition = 128;
        let head = ANSWER_BYTES_MAX.max(ITEMS_MAX * partition);
        let header = FrameHeader::new(Api::Fetch.as_u16(), 0, CorrelationId::new(0), head, records);
        assert!(header.is_some(), "{head} + {records} bytes");
    }
}
