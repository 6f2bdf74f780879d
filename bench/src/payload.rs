//! What the values of records are: pseudo-random bytes, or the lines of a file. A function of (stream, sequence) alone.
//! `sizes` says how large they are, `keys` what keys go with them.
//!
//! Shared read-only by all producers and the verifier, so that a value is made and checked by reading memory: no
//! generator runs for each record, and nothing is allocated. The pool's bytes never change between versions, as data
//! may be verified by another process than the one that produced it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub use keys::{KeySource, Keys};
pub use sizes::Sizes;

use crate::workload::{Sequence, StreamId};

mod keys;
mod sizes;

/// Offsets at which a generated value can begin: a power of two, small enough to stay in a shared cache.
const POOL_OFFSETS: usize = 4 << 20;

/// Largest value, in bytes, generated or line: with its batch it stays below the broker's default limit on batches.
pub const VALUE_SIZE_MAX: usize = 1 << 20;

/// Largest file of lines, in bytes, as it is held in memory.
pub const FILE_SIZE_MAX: u64 = 256 << 20;

/// Why there is no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The file cannot be read.
    #[error("cannot read the payload {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It holds nothing to send.
    #[error("the payload {} holds no text: name a file with at least one line that is not empty", .0.display())]
    Empty(PathBuf),
    /// It does not fit into memory.
    #[error(
        "the payload {} is larger than {FILE_SIZE_MAX} bytes, which are held in memory: \
         take a part of it, such as `head -c {FILE_SIZE_MAX} FILE > PART`", .0.display()
    )]
    FileTooLarge(PathBuf),
    /// A line is too long for a record.
    #[error(
        "line {line} of the payload {} has {size} bytes; a record may have {VALUE_SIZE_MAX}: \
         split it, such as with `fold -b -w {VALUE_SIZE_MAX}`", path.display()
    )]
    LineTooLong {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Its length in bytes, without the end of line.
        size: usize,
    },
}

/// The source of values.
#[derive(Debug)]
pub enum Payload {
    /// Values taken from a pool of pseudo-random bytes at an offset that the record's identity gives.
    Generated(Pool),
    /// The lines of a file, over and over.
    Lines(Lines),
}

impl Payload {
    /// Pseudo-random values of `size` bytes, at most [`VALUE_SIZE_MAX`].
    #[cfg(test)]
    pub fn generated(size: usize) -> Self {
        Self::random(Sizes::fixed(size), 0.0)
    }

    /// Pseudo-random values of these sizes, of which this share (0 to 1) can be compressed away.
    pub fn random(sizes: Sizes, compressibility: f64) -> Self {
        Self::Generated(Pool::new(sizes, compressibility))
    }

    /// The lines of a file, without their ends (`\n`).
    pub fn lines(path: &Path) -> Result<Self, PayloadError> {
        Lines::load(path).map(Self::Lines)
    }

    /// The value of the record that `sequence` numbers in `stream`.
    #[inline]
    pub fn value(&self, stream: StreamId, sequence: Sequence) -> &[u8] {
        match self {
            Self::Generated(pool) => pool.value(stream, sequence),
            Self::Lines(lines) => lines.value(stream, sequence),
        }
    }

    /// Bytes of memory that it takes.
    pub fn memory(&self) -> usize {
        match self {
            Self::Generated(pool) => pool.bytes.len(),
            Self::Lines(lines) => lines.text.len() + lines.starts.len() * size_of::<u32>(),
        }
    }
}

/// Pseudo-random bytes, with runs of one byte between them if they are to be compressible.
#[derive(Debug)]
pub struct Pool {
    bytes: Vec<u8>,
    sizes: Sizes,
    /// Bytes from where a value begins to where the next one does; odd, so that every offset has its turn.
    stride: u64,
}

/// Bytes of the pool in which the share that can be compressed away is a run: large enough for codecs to find it.
const PATTERN: usize = 256;

impl Pool {
    fn new(sizes: Sizes, compressibility: f64) -> Self {
        assert!(sizes.max() <= VALUE_SIZE_MAX, "the command line bounds the size");
        let mut state = 0_u64;
        let words = (POOL_OFFSETS + sizes.max()).div_ceil(size_of::<u64>());
        let mut bytes = Vec::with_capacity(words * size_of::<u64>());
        for _ in 0..words {
            // SplitMix64: each state is scrambled to a word.
            state = state.wrapping_add(GOLDEN);
            bytes.extend_from_slice(&scramble(state).to_le_bytes());
        }
        let run = (PATTERN as f64 * compressibility.clamp(0.0, 1.0)).round() as usize;
        for pattern in bytes.chunks_mut(PATTERN) {
            let length = run.min(pattern.len());
            pattern[..length].fill(b'.');
        }
        let stride = sizes.max() as u64 | 1;
        Self { bytes, sizes, stride }
    }

    #[inline]
    fn value(&self, stream: StreamId, sequence: Sequence) -> &[u8] {
        // Values that follow each other lie behind each other, so that memory is read in order, and share no bytes, so that
        // no codec finds in one what was in another.
        let place = scramble(stream.get()).wrapping_add(sequence.get().wrapping_mul(self.stride));
        let offset = place as usize % POOL_OFFSETS;
        let identity = scramble(stream.get() ^ sequence.get().wrapping_mul(GOLDEN));
        let size = self.sizes.pick((identity >> 32) as u32);
        &self.bytes[offset..offset + size]
    }
}

/// 2^64 divided by the golden ratio: multiples of it are spread evenly.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finishing function of `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[inline]
fn scramble(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// The lines of a file, held in memory.
#[derive(Debug)]
pub struct Lines {
    text: Vec<u8>,
    /// Where each line starts, and behind them where one more would: a line ends one byte before the next start.
    starts: Vec<u32>,
}

impl Lines {
    fn load(path: &Path) -> Result<Self, PayloadError> {
        let read = |source| PayloadError::Read {
            path: path.to_owned(),
            source,
        };
        let mut text = Vec::new();
        let file = File::open(path).map_err(read)?;
        // The length is not asked for: the file may be a pipe, or grow.
        file.take(FILE_SIZE_MAX + 1).read_to_end(&mut text).map_err(read)?;
        if text.len() as u64 > FILE_SIZE_MAX {
            return Err(PayloadError::FileTooLarge(path.to_owned()));
        }
        Self::split(text, path)
    }

    fn split(mut text: Vec<u8>, path: &Path) -> Result<Self, PayloadError> {
        if text.last().is_some_and(|&last| last != b'\n') {
            text.push(b'\n');
        }
        if text.iter().all(|&byte| byte == b'\n') {
            return Err(PayloadError::Empty(path.to_owned()));
        }
        let mut starts = vec![0];
        for (end, _) in text.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
            let start = starts[starts.len() - 1] as usize;
            if end - start > VALUE_SIZE_MAX {
                return Err(PayloadError::LineTooLong {
                    path: path.to_owned(),
                    line: starts.len(),
                    size: end - start,
                });
            }
            starts.push(end as u32 + 1);
        }
        text.shrink_to_fit();
        starts.shrink_to_fit();
        Ok(Self { text, starts })
    }

    /// Every stream goes through the file in its order. The first one begins at the first line, others elsewhere, so that
    /// a record that ended up in the wrong stream does not look right there.
    #[inline]
    fn value(&self, stream: StreamId, sequence: Sequence) -> &[u8] {
        let count = self.starts.len() as u64 - 1;
        let start = u64::from(stream.place()).wrapping_mul(GOLDEN) >> 32;
        let index = (start.wrapping_add(sequence.get()) % count) as usize;
        &self.text[self.starts[index] as usize..self.starts[index + 1] as usize - 1]
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use headwater_client::PartitionIndex;

    use super::*;
    use crate::workload::{ProducerIndex, RunId};

    fn stream(producer: u16, partition: i32) -> StreamId {
        let producer = ProducerIndex::new(producer).unwrap();
        StreamId::new(RunId::new(7), producer, PartitionIndex::new(partition)).unwrap()
    }

    fn lines(text: &[u8]) -> Result<Payload, PayloadError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text).unwrap();
        Payload::lines(file.path())
    }

    fn values(payload: &Payload, stream: StreamId, count: u64) -> Vec<&[u8]> {
        (0..count).map(|i| payload.value(stream, Sequence::new(i))).collect()
    }

    #[test]
    fn generated_values_have_the_size_asked_for_and_differ_by_stream_and_sequence() {
        for size in [0, 1, 1024, VALUE_SIZE_MAX] {
            let payload = Payload::generated(size);
            assert!(
                values(&payload, stream(0, 0), 50)
                    .iter()
                    .all(|value| value.len() == size)
            );
        }
        let payload = Payload::generated(32);
        let mut all = values(&payload, stream(0, 0), 1000);
        all.extend(values(&payload, stream(1, 0), 1000));
        all.extend(values(&payload, stream(0, 1), 1000));
        all.sort_unstable();
        all.dedup();
        // By chance a few begin at the same place.
        assert!(all.len() > 2990, "{}", all.len());
    }

    #[test]
    fn generated_values_are_the_same_in_every_process_and_version() {
        let payload = Payload::generated(8);
        let value = payload.value(stream(3, 5), Sequence::new(1_000_000));
        assert_eq!(value, [250, 203, 145, 42, 117, 92, 103, 48]);
    }

    #[test]
    fn the_share_of_a_value_that_is_compressible_is_the_one_asked_for() {
        for share in [0.0, 0.25, 0.5, 1.0] {
            let payload = Payload::random(Sizes::fixed(4096), share);
            let values = values(&payload, stream(0, 0), 100);
            let runs = values
                .iter()
                .flat_map(|value| value.iter())
                .filter(|&&byte| byte == b'.');
            let found = runs.count() as f64 / 409_600.0;
            assert!((found - share).abs() < 0.01, "{found} for {share}");
        }
    }

    #[test]
    fn values_have_the_sizes_of_their_distribution() {
        let payload = Payload::random("10..20".parse().unwrap(), 0.0);
        let mut sizes: Vec<_> = values(&payload, stream(0, 0), 1000)
            .iter()
            .map(|value| value.len())
            .collect();
        sizes.sort_unstable();
        sizes.dedup();
        assert_eq!(sizes, (10..=20).collect::<Vec<_>>());
    }

    #[test]
    fn every_stream_goes_through_the_lines_of_the_file_in_order_and_starts_over() {
        let payload = lines(b"one\n\nthree\xff").unwrap();
        let want: [&[u8]; 5] = [b"one", b"", b"three\xff", b"one", b""];
        assert_eq!(values(&payload, stream(0, 0), 5), want);
        let other = values(&payload, stream(0, 1), 3);
        let first = want.iter().position(|line| *line == other[0]).unwrap();
        assert_eq!(other, [want[first], want[(first + 1) % 3], want[(first + 2) % 3]]);
    }

    #[test]
    fn a_payload_without_text_or_with_a_line_that_is_too_long_is_refused_by_name() {
        assert!(matches!(lines(b""), Err(PayloadError::Empty(_))));
        assert!(matches!(lines(b"\n\n"), Err(PayloadError::Empty(_))));
        assert!(lines(&vec![b'x'; VALUE_SIZE_MAX]).is_ok());
        let mut text = b"short\n".to_vec();
        text.resize(text.len() + VALUE_SIZE_MAX + 1, b'x');
        assert!(matches!(lines(&text), Err(PayloadError::LineTooLong { line: 2, .. })));
        assert!(matches!(
            Payload::lines(Path::new("/nowhere/at/all")),
            Err(PayloadError::Read { .. })
        ));
    }
}
