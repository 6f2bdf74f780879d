//! What is read, past the page cache or into it, before a consumer asks for it. Decides only; no I/O.
//!
//! A position that goes on where an earlier piece of the same segment ended belongs to a consumer who reads in order: for it a
//! whole window is read ahead. For any other, no more than the response holds, so that reads here and there do not make the
//! disk read what nobody wants.

use headwater_engine::disk::REGION_SIZE;

/// How much is read at a time.
pub(crate) const STEP_BYTES: u64 = 1 << 20;

/// Consumers whose windows fit the memory for cold reads at the same time.
const WINDOWS_MIN: u64 = 4;

/// How far ahead to read for one consumer, given what is asked for and the memory for cold reads.
pub(crate) fn window(read_ahead: u64, memory: u64) -> u64 {
    if memory < REGION_SIZE as u64 {
        return read_ahead; // The page cache has no such limit.
    }
    read_ahead.min(memory / WINDOWS_MIN)
}

/// Positions of one connection in segment files that are remembered, so that a consumer who goes on is read ahead for across
/// its requests.
const READERS_MAX: usize = 16;

/// The positions at which a connection's consumers may go on. The one that was used last is at the end.
#[derive(Debug, Default)]
pub(crate) struct Readers(Vec<Reader>);

/// How far a file is being read in order.
#[derive(Debug, Clone, Copy)]
struct Reader {
    /// Number of the segment.
    segment: u64,
    /// Where it goes on.
    position: u64,
    /// What was begun to be read ends here.
    ahead: u64,
}

/// What to read ahead for a piece that is sent now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ReadAhead {
    /// What was begun to be read ends here; at or after the piece's first byte.
    ahead: u64,
    /// It is to be read up to here, in steps.
    end: u64,
    step: u64,
    /// There is nothing to read from here on.
    file_end: u64,
}

impl Readers {
    /// A piece at `position` is to be sent, of a response that holds `length` bytes from there. `window`: how far to read ahead;
    /// 0 leaves it to the kernel. `file_end`: where the durable part of the file ends.
    pub(crate) fn begin(&mut self, segment: u64, position: u64, length: u64, window: u64, file_end: u64) -> ReadAhead {
        let known = self
            .0
            .iter()
            .position(|reader| reader.segment == segment && reader.position == position)
            .map(|at| self.0.remove(at));
        let wanted = if known.is_some() { window } else { window.min(length) };
        ReadAhead {
            // Sending may have overtaken it.
            ahead: known.map_or(position, |reader| reader.ahead.max(position)),
            end: file_end.min(position + wanted),
            step: window.min(STEP_BYTES),
            file_end,
        }
    }

    /// The piece was sent up to `position`.
    pub(crate) fn end(&mut self, segment: u64, position: u64, ahead: ReadAhead) {
        if self.0.len() == READERS_MAX {
            self.0.remove(0);
        }
        let ahead = ahead.ahead;
        self.0.push(Reader {
            segment,
            position,
            ahead,
        });
    }
}

impl ReadAhead {
    /// Nothing at or after `position` is there: what had been read ahead was given up.
    pub(crate) fn restart(&mut self, position: u64) {
        self.ahead = position;
    }

    /// The next part to read, as position and length; none if all is done, or what is left is less than a step and more of it
    /// will be wanted soon.
    pub(crate) fn next(&self) -> Option<(u64, u64)> {
        let is_due = self.ahead < self.end && (self.end - self.ahead >= self.step || self.end == self.file_end);
        is_due.then(|| (self.ahead, (self.file_end - self.ahead).min(self.step)))
    }

    /// The next part was begun to be read, or need not be.
    pub(crate) fn told(&mut self) {
        if let Some((position, length)) = self.next() {
            self.ahead = position + length;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIB: u64 = 1 << 20;
    const WINDOW: u64 = 8 * MIB;
    const FILE_END: u64 = 100 * MIB;

    /// All parts that the kernel is told to read for a piece.
    fn parts(readers: &mut Readers, position: u64, length: u64, window: u64, sent: u64) -> Vec<(u64, u64)> {
        let mut ahead = readers.begin(1, position, length, window, FILE_END);
        let mut parts = Vec::new();
        while let Some(part) = ahead.next() {
            parts.push(part);
            ahead.told();
            assert!(parts.len() < 10_000, "without end");
        }
        readers.end(1, position + sent, ahead);
        parts
    }

    #[test]
    fn who_reads_in_order_is_read_ahead_for_by_a_window_and_others_by_what_they_asked_for() {
        let mut readers = Readers::default();
        let first = parts(&mut readers, 0, 2 * MIB, WINDOW, MIB / 4);
        assert_eq!(first, [(0, MIB), (MIB, MIB)]);
        let second = parts(&mut readers, MIB / 4, 2 * MIB - MIB / 4, WINDOW, 2 * MIB);
        assert_eq!(second.first(), Some(&(2 * MIB, MIB)));
        assert_eq!(second.len(), 6, "up to 8.25 MiB, in whole steps");
        assert_eq!(parts(&mut readers, 50 * MIB, 1000, WINDOW, 1000), []);
        assert_eq!(
            parts(&mut readers, 2 * MIB + MIB / 4, MIB, WINDOW, 1000),
            [(8 * MIB, MIB), (9 * MIB, MIB)]
        );
    }

    #[test]
    fn at_the_end_of_the_file_the_rest_is_read_whatever_its_length() {
        let parts = parts(&mut Readers::default(), FILE_END - MIB - 5, MIB + 5, WINDOW, 5);
        assert_eq!(parts, [(FILE_END - MIB - 5, MIB), (FILE_END - 5, 5)]);
    }

    #[test]
    fn what_was_given_up_is_read_again_from_where_the_consumer_is() {
        let mut readers = Readers::default();
        parts(&mut readers, 0, MIB, WINDOW, MIB);
        parts(&mut readers, MIB, MIB, WINDOW, MIB);
        let mut ahead = readers.begin(1, 2 * MIB, MIB, WINDOW, FILE_END);
        assert_eq!(ahead.next(), Some((9 * MIB, MIB)));
        ahead.restart(2 * MIB);
        assert_eq!(ahead.next(), Some((2 * MIB, MIB)));
    }

    #[test]
    fn a_window_leaves_memory_to_others_where_it_is_bounded() {
        assert_eq!(window(8 * MIB, 32 * MIB), 8 * MIB);
        assert_eq!(window(8 * MIB, 4 * MIB), MIB);
        assert_eq!(window(MIB, 32 * MIB), MIB);
        assert_eq!(window(8 * MIB, MIB), 8 * MIB);
        assert_eq!(window(0, 32 * MIB), 0);
    }

    #[test]
    fn a_window_of_nothing_reads_nothing_ahead() {
        let mut readers = Readers::default();
        for piece in 0..10 {
            assert_eq!(parts(&mut readers, piece * MIB, 10 * MIB, 0, MIB), []);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_parts_lie_in_the_window_in_order_and_none_is_read_twice(
            window in prop_oneof![Just(0), 1..3 * MIB, Just(WINDOW)],
            pieces in proptest::collection::vec((1..3 * MIB, 1..3 * MIB), 1..30),
        ) {
            let mut readers = Readers::default();
            let (mut position, mut told) = (0, 0);
            for (length, sent) in pieces {
                for (at, bytes) in parts(&mut readers, position, length, window, sent) {
                    prop_assert!(bytes > 0 && at >= told && at >= position);
                    told = at + bytes;
                    prop_assert!(told <= position + window && told <= FILE_END);
                }
                position += sent;
            }
        }
    }
}
