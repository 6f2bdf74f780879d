//! The first bytes of a request of Kafka's protocol.
//!
//! ```text
//! 0          4         6             8                    12
//! | size i32 | api i16 | version i16 | correlation id i32 | client id, tags, body … |
//! ```
//! All big endian; `size` counts what follows it.

use crate::session::frame::FrameHead;

/// Bytes in the size field, which does not count itself.
const SIZE_LEN: usize = 4;

/// Api, version, correlation id: no request is smaller.
const REQUEST_LEN_MIN: u32 = 8;

/// Produce, which brings records.
const PRODUCE: i16 = 0;

/// Fetch, which waits for records.
const FETCH: i16 = 1;

/// What a request is about, and where it ends.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    size: u32,
    pub(super) api: i16,
}

/// Why bytes are no request. Kafka has no answer to that but to close the connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HeadError {
    /// Shorter than any request.
    #[error("a request says that it has {0} bytes")]
    TooSmall(i32),
    /// Larger than what is read.
    #[error("a request has {size} bytes; at most {size_max} are allowed (limits.frame_size_bytes_max)")]
    TooLarge { size: u32, size_max: u32 },
}

impl FrameHead for Head {
    const LEN: usize = SIZE_LEN + 2;

    type Error = HeadError;

    fn parse(bytes: &[u8], size_max: u32) -> Result<Option<Head>, HeadError> {
        let Some((size, rest)) = bytes.split_first_chunk() else {
            return Ok(None);
        };
        // A size that cannot be is not waited for.
        let signed = i32::from_be_bytes(*size);
        let size = signed.cast_unsigned();
        if signed < 0 || size < REQUEST_LEN_MIN {
            return Err(HeadError::TooSmall(signed));
        }
        if size > size_max {
            return Err(HeadError::TooLarge { size, size_max });
        }
        let api = rest.first_chunk().map(|api| i16::from_be_bytes(*api));
        Ok(api.map(|api| Head { size, api }))
    }

    fn frame_len(&self) -> usize {
        SIZE_LEN + self.size as usize
    }

    fn is_fetch(&self) -> bool {
        self.api == FETCH
    }

    fn is_produce(&self) -> bool {
        self.api == PRODUCE
    }
}

impl Head {
    /// What follows the size: the request's header, and its body.
    pub(super) fn request(bytes: &[u8]) -> &[u8] {
        &bytes[SIZE_LEN..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_that_cannot_be_is_told_before_anything_follows_it() {
        let parse = |size: i32| Head::parse(&size.to_be_bytes(), 1000);
        for size in [-1, i32::MIN, 0, 7] {
            assert!(
                matches!(parse(size), Err(HeadError::TooSmall(found)) if found == size),
                "{size}"
            );
        }
        assert!(matches!(parse(1001), Err(HeadError::TooLarge { size: 1001, .. })));
        assert!(matches!(parse(1000), Ok(None)), "it is waited for");
        let whole = [0, 0, 0, 10, 0, 1];
        assert!((0..whole.len()).all(|len| matches!(Head::parse(&whole[..len], 1000), Ok(None))));
        let head = Head::parse(&whole, 1000).unwrap().unwrap();
        assert_eq!((head.api, head.frame_len(), head.is_fetch()), (1, 14, true));
    }
}
