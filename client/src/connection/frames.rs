//! Splits the bytes of a socket into frames without copying them: a frame is a slice of the buffer it was read into.
//!
//! Owned by a connection's reader task. Buffers are used again once all frames in them have been dropped, as fresh
//! memory costs a page fault every 4 KiB. Does no I/O; no buffer is larger than the largest frame allowed.

use bytes::{Buf, Bytes, BytesMut};
use headwater_protocol::frame::{FrameError, FrameHeader, HEADER_LEN};

use crate::runtime;

/// Capacity of a buffer for frames that are not larger themselves.
const BUFFER_SIZE: usize = 1 << 20;

/// Buffers begin at places of their own within this many bytes, see [`FrameReader::swap_buffer`].
const PAGE: usize = 4096;

/// The least room to read into: what a socket can deliver at once should fit.
const READ_SIZE_MIN: usize = 256 << 10;

/// How many buffers that still have frames in use are kept for later.
const RETIRED_MAX: usize = 4;

/// One frame.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) header: FrameHeader,
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
}

/// The reading end of a connection, as bytes in and frames out.
#[derive(Debug)]
pub(crate) struct FrameReader {
    buffer: BytesMut,
    /// Full size of `buffer`, whatever has been split off since.
    buffer_size: usize,
    /// Used-up buffers with their sizes, oldest first. Some of their frames may be alive.
    retired: Vec<(BytesMut, usize)>,
    /// Header of the frame at the start of `buffer`, once it is there.
    header: Option<FrameHeader>,
    /// The head of that frame was handed out before the rest had come.
    is_announced: bool,
    /// Bytes in the largest of the last frames.
    frame_len_recent: usize,
    frame_size_max: u32,
}

impl FrameReader {
    /// `frame_size_max`: the largest frame to take, in bytes after its size field.
    pub(crate) fn new(frame_size_max: u32) -> Self {
        Self {
            buffer: BytesMut::new(),
            buffer_size: 0,
            retired: Vec::new(),
            header: None,
            is_announced: false,
            frame_len_recent: 0,
            frame_size_max,
        }
    }

    /// What has come, if there was no whole frame in it.
    pub(crate) fn without_frame(&self) -> Option<&[u8]> {
        (self.frame_len_recent == 0).then_some(&self.buffer[..])
    }

    /// The buffer to read into next; it has room, for the whole of the frame that has begun if its length is known.
    pub(crate) fn room(&mut self) -> &mut BytesMut {
        let have = self.buffer.len();
        let need = match self.header {
            Some(header) => header.frame_len() - have,
            // At a frame's start, room for one more like the last saves moving its beginning later.
            None => self.frame_len_recent.max(READ_SIZE_MIN),
        };
        if self.buffer.capacity() - have < need {
            self.swap_buffer(have + need);
        }
        &mut self.buffer
    }

    /// The next whole frame, if it has been read.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let header = match self.header {
            Some(header) => header,
            None => match FrameHeader::parse(&self.buffer, self.frame_size_max)? {
                Some(header) => *self.header.insert(header),
                None => return Ok(None),
            },
        };
        let len = header.frame_len();
        if self.buffer.len() < len {
            return Ok(None);
        }
        self.header = None;
        self.is_announced = false;
        // Falls by an eighth with each frame, so that one large frame does not cost large buffers for ever.
        self.frame_len_recent = len.max(self.frame_len_recent - self.frame_len_recent / 8);
        let mut rest = self.buffer.split_to(len).freeze();
        let _header = rest.split_to(HEADER_LEN);
        let head = rest.split_to(header.head_len());
        Ok(Some(Frame {
            header,
            head,
            payload: rest,
        }))
    }

    /// Header and head of the frame that is still coming, once.
    pub(crate) fn announced(&mut self) -> Option<(FrameHeader, Bytes)> {
        let header = self.header.filter(|_| !self.is_announced)?;
        let head = self.buffer.get(HEADER_LEN..HEADER_LEN + header.head_len())?;
        self.is_announced = true;
        Some((header, Bytes::copy_from_slice(head)))
    }

    /// Goes on in another buffer with room for at least `size` bytes, taking along what has been read of the next
    /// frame.
    ///
    /// It begins at a random place in a page. The kernel copies records that the broker sends from a file out of the
    /// page cache, and with `rep movsb` that is four times slower when the target lies 1 to 24 bytes further into
    /// its page than the source. From a fixed place, one size of batch would have that in every copy; so, one buffer
    /// in 170 has it.
    fn swap_buffer(&mut self, size: usize) {
        let size = size.max(BUFFER_SIZE) + PAGE;
        let (mut next, next_size) = self
            .take_retired(size)
            .unwrap_or_else(|| (BytesMut::with_capacity(size), size));
        let place = runtime::random() as usize % PAGE;
        next.resize(place, 0);
        next.advance(place);
        next.extend_from_slice(&self.buffer);
        let mut used = std::mem::replace(&mut self.buffer, next);
        let used_size = std::mem::replace(&mut self.buffer_size, next_size);
        used.clear();
        if used_size > 0 {
            if self.retired.len() == RETIRED_MAX {
                self.retired.remove(0);
            }
            self.retired.push((used, used_size));
        }
    }

    /// A retired buffer that nobody reads any more, whole again, if it has `size` bytes and not far more.
    fn take_retired(&mut self, size: usize) -> Option<(BytesMut, usize)> {
        let fits = |&(ref buffer, buffer_size): &(BytesMut, usize)| {
            debug_assert!(buffer.is_empty());
            size <= buffer_size && buffer_size <= size.saturating_mul(4)
        };
        for index in 0..self.retired.len() {
            if fits(&self.retired[index]) && {
                let (buffer, buffer_size) = &mut self.retired[index];
                buffer.try_reclaim(*buffer_size)
            } {
                return Some(self.retired.remove(index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use headwater_protocol::frame::{self, Api};
    use headwater_protocol::id::CorrelationId;
    use proptest::prelude::*;

    use super::*;

    fn frame(id: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame::encode(Api::Fetch, 0, CorrelationId::new(id), &[7; 12], payload.len());
        bytes.extend_from_slice(payload);
        bytes
    }

    /// Feeds `stream` in pieces, at most as large as the room offered, and collects all frames.
    fn read_in_pieces(reader: &mut FrameReader, stream: &[u8], pieces: &[usize]) -> Vec<Frame> {
        let mut pieces = pieces.iter().copied().cycle();
        let mut frames = Vec::new();
        let mut rest = stream;
        while !rest.is_empty() {
            let room = reader.room();
            let spare = room.capacity() - room.len();
            assert!(spare > 0, "there is always room to read into");
            let len = pieces.next().unwrap().min(spare).min(rest.len());
            room.extend_from_slice(&rest[..len]);
            rest = &rest[len..];
            while let Some(frame) = reader.next_frame().unwrap() {
                frames.push(frame);
            }
        }
        frames
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn frames_come_out_as_they_went_in_whatever_the_pieces(
            sizes in prop::collection::vec(0_usize..300_000, 1..8),
            pieces in prop::collection::vec(1_usize..400_000, 1..8),
        ) {
            let payloads: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(i, &n)| vec![i as u8; n]).collect();
            let stream: Vec<u8> = payloads.iter().enumerate().flat_map(|(i, p)| frame(i as u32, p)).collect();
            let frames = read_in_pieces(&mut FrameReader::new(1 << 20), &stream, &pieces);
            prop_assert_eq!(frames.len(), payloads.len());
            for (i, (frame, payload)) in frames.iter().zip(&payloads).enumerate() {
                prop_assert_eq!(frame.header.correlation_id.get(), i as u32);
                prop_assert_eq!(&frame.head[..12], &[7; 12]);
                prop_assert_eq!(&frame.payload, payload);
            }
        }
    }

    #[test]
    fn a_buffer_is_used_again_once_its_frames_are_dropped_and_never_before() {
        let mut reader = FrameReader::new(1 << 20);
        let stream = frame(1, &vec![1; 600_000]);
        let first = read_in_pieces(&mut reader, &stream, &[1 << 20]).remove(0);
        let begin = first.head.as_ptr() as usize;
        let buffer = begin.saturating_sub(2 * PAGE)..begin + BUFFER_SIZE;
        let second = read_in_pieces(&mut reader, &frame(2, &vec![2; 600_000]), &[1 << 20]).remove(0);
        assert!(!buffer.contains(&(second.head.as_ptr() as usize)));
        assert!(
            first.payload.iter().all(|&byte| byte == 1),
            "a frame in use was overwritten"
        );
        drop(first);
        let third = read_in_pieces(&mut reader, &frame(3, &vec![3; 600_000]), &[1 << 20]).remove(0);
        assert!(
            buffer.contains(&(third.head.as_ptr() as usize)),
            "the first buffer is free and was not used again"
        );
        assert!(second.payload.iter().all(|&byte| byte == 2));
    }

    #[test]
    fn the_head_of_a_frame_is_announced_once_and_only_while_its_payload_is_still_coming() {
        let mut reader = FrameReader::new(1 << 20);
        let stream = frame(9, &[1; 5000]);
        let mut announced = Vec::new();
        for byte in &stream {
            reader.room().extend_from_slice(&[*byte]);
            if reader.next_frame().unwrap().is_none() {
                announced.extend(
                    reader
                        .announced()
                        .map(|(header, head)| (header, head, reader.buffer.len())),
                );
            }
        }
        let [(header, head, read)] = announced.as_slice() else {
            panic!("announced {} times", announced.len());
        };
        assert_eq!(header.correlation_id, CorrelationId::new(9));
        assert_eq!((&head[..12], *read), (&[7; 12][..], HEADER_LEN + head.len()));
        // All at once: there is nothing to announce.
        reader.room().extend_from_slice(&stream);
        assert!(reader.next_frame().unwrap().is_some());
        assert!(reader.announced().is_none());
    }

    #[test]
    fn a_frame_above_the_limit_is_refused_before_any_room_is_made_for_it() {
        let mut reader = FrameReader::new(1000);
        let room = reader.room();
        let before = room.capacity();
        room.extend_from_slice(&frame(5, &[0; 2000])[..HEADER_LEN]);
        assert!(matches!(
            reader.next_frame(),
            Err(FrameError::TooLarge { max: 1000, .. })
        ));
        assert_eq!(reader.buffer.capacity(), before);
    }

    #[test]
    fn payloads_lie_at_changing_places_in_their_pages() {
        let mut reader = FrameReader::new(1 << 20);
        let places: std::collections::HashSet<usize> = (0..64)
            .map(|id| {
                let frame = read_in_pieces(&mut reader, &frame(id, &vec![1; 900_000]), &[1 << 20]).remove(0);
                frame.payload.as_ptr() as usize % PAGE
            })
            .collect();
        assert!(places.len() > 32, "only {} places in 64 frames", places.len());
    }

    #[test]
    fn memory_kept_for_reuse_is_bounded_even_while_every_frame_stays_in_use() {
        let mut reader = FrameReader::new(1 << 20);
        let mut alive = Vec::new();
        for id in 0..20 {
            alive.extend(read_in_pieces(&mut reader, &frame(id, &vec![0; 700_000]), &[1 << 20]));
        }
        assert_eq!(alive.len(), 20);
        assert!(reader.retired.len() <= RETIRED_MAX);
    }
}
