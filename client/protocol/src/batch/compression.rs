//! The codecs of a batch's records, in the framings that Kafka's Java clients write and read.
//!
//! gzip and zstd are one stream each. lz4 is the frame format with independent blocks. snappy is written in the framing
//! of xerial's snappy-java and read with or without it. Decompression never yields, nor allocates, more than its limit
//! allows, whatever the input claims.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use super::BatchError;

/// How the records of a batch are compressed. The numbers are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Compression {
    /// Not at all.
    #[default]
    None = 0,
    /// RFC 1952.
    Gzip = 1,
    /// Snappy blocks in xerial's framing.
    Snappy = 2,
    /// The LZ4 frame format.
    Lz4 = 3,
    /// RFC 8878.
    Zstd = 4,
}

impl Compression {
    /// Every codec, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The codec with this number in a batch's attributes.
    #[inline]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The number in a batch's attributes.
    #[inline]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Kafka's name for it, as in `compression.type`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A name that is not a codec's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {0:?}: it is one of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompressionName(String);

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(name: &str) -> Result<Self, UnknownCompressionName> {
        let known = Self::ALL.into_iter().find(|compression| compression.name() == name);
        known.ok_or_else(|| UnknownCompressionName(name.to_owned()))
    }
}

/// What begins a stream of snappy-java's `SnappyOutputStream`: its magic, then version 1 and compatible version 1.
const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Bytes of [`XERIAL_HEADER`] that tell the framing; the versions after it never differed.
const XERIAL_MAGIC_LEN: usize = 8;

/// Bytes that snappy-java puts into one block.
const XERIAL_BLOCK_SIZE: usize = 32 * 1024;

/// No snappy block becomes more than this many times as long: its densest element makes 64 bytes of three.
const SNAPPY_RATIO_MAX: usize = 22;

/// A frame of zstd's that says that it becomes no longer than this is decompressed at once.
const ZSTD_FRAME_AT_ONCE_MAX: usize = 64 * 1024;

thread_local! {
    /// What zstd needs to compress takes longer to set up than to compress an ordinary batch, so each thread keeps its own: up to
    /// about 2 MiB, but only once it has compressed.
    static ZSTD_COMPRESSOR: RefCell<zstd::bulk::Compressor<'static>> = RefCell::default();
    /// The same to decompress at once: about 160 KiB.
    static ZSTD_DECOMPRESSOR: RefCell<zstd::bulk::Decompressor<'static>> = RefCell::default();
}

/// Compresses `records` to the end of `out`.
pub(super) fn compress(compression: Compression, records: &[u8], out: &mut Vec<u8>) {
    let result = match compression {
        Compression::None => {
            out.extend_from_slice(records);
            Ok(())
        }
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(out, flate2::Compression::default());
            encoder.write_all(records).and_then(|()| encoder.finish()).map(drop)
        }
        Compression::Snappy => compress_xerial(records, out),
        Compression::Lz4 => compress_lz4(records, out),
        Compression::Zstd => compress_zstd(records, out),
    };
    result.expect("compressing at most 1 GiB from memory to memory does not fail");
}

fn compress_xerial(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_HEADER);
    let mut encoder = snap::raw::Encoder::new();
    let mut block = vec![0; snap::raw::max_compress_len(XERIAL_BLOCK_SIZE)];
    for chunk in records.chunks(XERIAL_BLOCK_SIZE) {
        let len = encoder.compress(chunk, &mut block)?;
        out.extend_from_slice(&(len as u32).to_be_bytes());
        out.extend_from_slice(&block[..len]);
    }
    Ok(())
}

fn compress_lz4(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
    // Java's reader accepts nothing but independent blocks.
    let info = FrameInfo::new()
        .block_mode(BlockMode::Independent)
        .block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(records)?;
    encoder.finish()?;
    Ok(())
}

fn compress_zstd(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // As it is set up by itself: at the default level.
    let frame = ZSTD_COMPRESSOR.with_borrow_mut(|compressor| compressor.compress(records))?;
    out.extend_from_slice(&frame);
    Ok(())
}

/// Decompresses `input` to at most `size_max` bytes.
pub(super) fn decompress(compression: Compression, input: &[u8], size_max: usize) -> Result<Vec<u8>, BatchError> {
    let mut records = Vec::new();
    let mut decoder = Decoder::new(compression, input, size_max)?;
    while decoder.more(&mut records, size_max)? {}
    Ok(records)
}

/// Decompresses piece by piece, to no more than a limit.
pub(super) struct Decoder<'a> {
    compression: Compression,
    source: Source<'a>,
    size_max: usize,
}

enum Source<'a> {
    Stream(Box<dyn Read + 'a>),
    /// One block without any framing.
    SnappyBlock(Option<&'a [u8]>),
    /// One frame that becomes so long, and that is little.
    ZstdFrame(Option<(&'a [u8], usize)>),
    /// What is left of the blocks in xerial's framing.
    XerialBlocks(&'a [u8]),
}

impl<'a> Decoder<'a> {
    pub(super) fn new(compression: Compression, input: &'a [u8], size_max: usize) -> Result<Self, BatchError> {
        let bad = |reason: String| BatchError::BadCompression { compression, reason };
        let source = match compression {
            Compression::None => Source::Stream(Box::new(input)),
            Compression::Gzip => Source::Stream(Box::new(flate2::read::MultiGzDecoder::new(input))),
            Compression::Snappy if input.starts_with(&XERIAL_HEADER[..XERIAL_MAGIC_LEN]) => {
                Source::XerialBlocks(input.get(XERIAL_HEADER.len()..).ok_or_else(xerial_is_cut_off)?)
            }
            Compression::Snappy => Source::SnappyBlock(Some(input)),
            Compression::Lz4 => Source::Stream(Box::new(lz4_flex::frame::FrameDecoder::new(input))),
            Compression::Zstd => match small_zstd_frame(input) {
                Some(size) => Source::ZstdFrame(Some((input, size))),
                // A frame may claim a window of up to 128 MiB, the library's own limit: as much address space, but memory
                // only for what is then decompressed.
                None => Source::Stream(Box::new(
                    zstd::Decoder::with_buffer(input).map_err(|error| bad(error.to_string()))?,
                )),
            },
        };
        Ok(Self {
            compression,
            source,
            size_max,
        })
    }

    /// Decompresses about `piece` bytes more to the end of `records`, a whole block of snappy's or a small frame of zstd's at least. Returns whether there may
    /// be more. `records` holds what came before, and nothing else.
    pub(super) fn more(&mut self, records: &mut Vec<u8>, piece: usize) -> Result<bool, BatchError> {
        let size_max = self.size_max;
        match &mut self.source {
            Source::Stream(stream) => {
                // No further than one byte beyond the limit.
                let left = (size_max - records.len()).saturating_add(1);
                let piece = left.min(piece.saturating_add(1));
                let read = stream.take(piece as u64).read_to_end(records);
                let read = read.map_err(|error| BatchError::BadCompression {
                    compression: self.compression,
                    reason: error.to_string(),
                })?;
                if records.len() > size_max {
                    return Err(BatchError::DecompressedTooLarge { max: size_max });
                }
                Ok(read == piece)
            }
            Source::SnappyBlock(block) => {
                if let Some(block) = block.take() {
                    decompress_snappy_block(block, size_max, records)?;
                }
                Ok(false)
            }
            Source::ZstdFrame(frame) => {
                if let Some((frame, size)) = frame.take() {
                    decompress_zstd_frame(frame, size, size_max, records)?;
                }
                Ok(false)
            }
            Source::XerialBlocks(rest) => {
                let end = records.len().saturating_add(piece);
                while !rest.is_empty() && records.len() < end {
                    let (len, after) = rest.split_first_chunk::<4>().ok_or_else(xerial_is_cut_off)?;
                    let (block, after) = after
                        .split_at_checked(u32::from_be_bytes(*len) as usize)
                        .ok_or_else(xerial_is_cut_off)?;
                    decompress_snappy_block(block, size_max, records)?;
                    *rest = after;
                }
                Ok(!rest.is_empty())
            }
        }
    }
}

fn xerial_is_cut_off() -> BatchError {
    BatchError::BadCompression {
        compression: Compression::Snappy,
        reason: "the xerial framing is cut off".to_owned(),
    }
}

/// How long a frame says that it becomes, if that is little and there is nothing behind it.
fn small_zstd_frame(input: &[u8]) -> Option<usize> {
    let size = zstd::zstd_safe::get_frame_content_size(input).ok()??;
    let is_all = zstd::zstd_safe::find_frame_compressed_size(input).is_ok_and(|len| len == input.len());
    (is_all && size <= ZSTD_FRAME_AT_ONCE_MAX as u64).then_some(size as usize)
}

/// Decompresses one frame that says that it becomes so long to the end of `records`, which is to stay within the limit.
fn decompress_zstd_frame(frame: &[u8], size: usize, size_max: usize, records: &mut Vec<u8>) -> Result<(), BatchError> {
    let start = records.len();
    if size > size_max - start {
        return Err(BatchError::DecompressedTooLarge { max: size_max });
    }
    records.resize(start + size, 0);
    let to = &mut records[start..];
    let len = ZSTD_DECOMPRESSOR.with_borrow_mut(|decompressor| decompressor.decompress_to_buffer(frame, to));
    let len = len.map_err(|error| BatchError::BadCompression {
        compression: Compression::Zstd,
        reason: error.to_string(),
    })?;
    records.truncate(start + len);
    Ok(())
}

/// Decompresses one block to the end of `records`, which is to stay within the limit.
fn decompress_snappy_block(block: &[u8], size_max: usize, records: &mut Vec<u8>) -> Result<(), BatchError> {
    let bad = |reason| BatchError::BadCompression {
        compression: Compression::Snappy,
        reason,
    };
    let claimed = snap::raw::decompress_len(block).map_err(|error| bad(error.to_string()))?;
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(bad(format!(
            "a block of {} bytes claims to hold {claimed}",
            block.len()
        )));
    }
    let start = records.len();
    if claimed > size_max - start {
        return Err(BatchError::DecompressedTooLarge { max: size_max });
    }
    records.resize(start + claimed, 0);
    let len = snap::raw::Decoder::new().decompress(block, &mut records[start..]);
    records.truncate(start + len.map_err(|error| bad(error.to_string()))?);
    Ok(())
}
