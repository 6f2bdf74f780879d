//! One segment file, walked from front to back with every check that there is; what does not hold is named, and the walk goes on
//! behind it.
//!
//! The file is opened for reading only. Reads in windows, so that memory is bounded by the window and the largest batch; a length is
//! believed when it is small or the checksum of all that it spans holds.

use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;

use bytes::Bytes;
use headwater_protocol::batch::{BatchHeader, BatchLimits, HEADER_LEN, RecordBatch, RecordSet};

/// Read at a time, and the size up to which a batch's own word is taken for it.
const WINDOW: usize = 4 << 20;

/// What the records of a batch may become when they are decompressed: what a broker takes in.
const DECOMPRESSED_SIZE_MAX: usize = 64 << 20;

/// Byte of the magic number in a header, and the number.
const MAGIC_AT: usize = 16;
const MAGIC: u8 = 2;

/// First byte that a batch's checksum covers.
const CRC_FROM: usize = 21;

/// A whole batch.
#[derive(Debug, Clone)]
pub struct Batch {
    /// Where in the file.
    pub position: u64,
    bytes: Bytes,
}

impl Batch {
    pub fn header(&self) -> BatchHeader<'_> {
        BatchHeader::read(&self.bytes).expect("it was checked when it was read")
    }

    pub fn records(&self) -> RecordSet {
        RecordSet::decode_without_crc(&self.bytes, DECOMPRESSED_SIZE_MAX).expect("they were read before")
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// What comes next in a file.
#[derive(Debug, Clone)]
pub enum Step {
    Batch(Batch),
    /// Bytes that are not the batch that has to come; `None`: there is no other behind them.
    Bad {
        reason: String,
        next: Option<Boundary>,
    },
    /// Zeros up to the end of the file: space that was reserved.
    Reserved,
    /// The end of the file.
    End,
}

/// A batch boundary, and the offset that begins there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boundary {
    pub position: u64,
    pub offset: u64,
}

/// A walk over the batches of a file.
#[derive(Debug)]
pub struct Walk {
    window: Window,
    at: Boundary,
    /// Compaction may have taken out offsets.
    has_holes: bool,
}

impl Walk {
    /// From the beginning of the file, where a batch with this offset has to be.
    pub fn open(path: &Path, base_offset: u64, has_holes: bool) -> io::Result<Self> {
        Ok(Self {
            window: Window::open(path)?,
            at: Boundary {
                position: 0,
                offset: base_offset,
            },
            has_holes,
        })
    }

    /// Where the next batch has to begin, and with which offset.
    pub fn place(&self) -> Boundary {
        self.at
    }

    /// Whether the path still leads to the file that is read.
    pub fn is_named(&self, path: &Path) -> bool {
        let identity = |metadata: Metadata| (metadata.dev(), metadata.ino());
        let (file, named) = (self.window.file.metadata(), fs::metadata(path));
        file.is_ok_and(|file| named.is_ok_and(|named| identity(named) == identity(file)))
    }

    /// The next batch, or why there is none.
    pub fn next(&mut self) -> io::Result<Step> {
        let Boundary { position, offset } = self.at;
        if position >= self.window.size {
            return Ok(Step::End);
        }
        match self.look(position, offset)? {
            Ok(batch) => {
                self.at = Boundary {
                    position: position + batch.size(),
                    offset: batch.header().next_offset().get(),
                };
                Ok(Step::Batch(batch))
            }
            Err(_) if self.is_zero_from(position)? => {
                self.at.position = self.window.size;
                Ok(Step::Reserved)
            }
            Err(reason) => {
                let next = self.find(position, offset)?;
                self.at = next.unwrap_or(Boundary {
                    position: self.window.size,
                    offset,
                });
                Ok(Step::Bad { reason, next })
            }
        }
    }

    /// The batch at a position, which has to have this offset; or what is wrong.
    fn look(&mut self, position: u64, offset: u64) -> io::Result<Result<Batch, String>> {
        let head = self.window.at(position, HEADER_LEN)?;
        let header = match BatchHeader::read(&head) {
            Ok(header) => header,
            Err(error) => return Ok(Err(error.to_string())),
        };
        let found = header.base_offset().get();
        if found != offset && !(self.has_holes && found > offset) {
            return Ok(Err(format!("offset {found} where {offset} has to follow")));
        }
        let (size, left) = (header.size(), self.window.size - position);
        if size as u64 > left {
            return Ok(Err(format!("a batch claims {size} bytes, and {left} are left")));
        }
        if size > WINDOW && self.window.checksum(position, size)? != header.crc() {
            return Ok(Err(format!(
                "a batch claims {size} bytes, and its checksum does not hold"
            )));
        }
        let bytes = self.window.at(position, size)?;
        let bytes = bytes.slice(..size.min(bytes.len()));
        let checked = RecordBatch::parse(&bytes, &BatchLimits { batch_size_max: size })
            .and_then(|batch| RecordSet::open(&batch, &bytes, DECOMPRESSED_SIZE_MAX))
            .and_then(|records| records.iter().try_for_each(|record| record.map(drop)));
        Ok(match checked {
            Ok(()) => Ok(Batch { position, bytes }),
            Err(error) => Err(error.to_string()),
        })
    }

    /// The batch at a position, if it is whole and only those before it are missing: no checksum covers its offset, but the next
    /// one goes on from it.
    fn is_behind_a_gap(&mut self, position: u64, offset: u64) -> io::Result<Option<Boundary>> {
        let head = self.window.at(position, HEADER_LEN)?;
        let Ok(found) = BatchHeader::read(&head).map(|header| header.base_offset().get()) else {
            return Ok(None);
        };
        let Ok(batch) = self.look(position, found)? else {
            return Ok(None);
        };
        let behind = self.window.at(position + batch.size(), HEADER_LEN)?;
        let goes_on = BatchHeader::read(&behind).is_ok_and(|next| next.base_offset() == batch.header().next_offset());
        let place = Boundary {
            position,
            offset: found,
        };
        Ok((found > offset && goes_on).then_some(place))
    }

    fn is_zero_from(&mut self, mut position: u64) -> io::Result<bool> {
        while position < self.window.size {
            let bytes = self.window.at(position, WINDOW)?;
            if bytes.is_empty() {
                break;
            }
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
        Ok(true)
    }

    /// The next whole batch that may follow in the log, from a bad place on.
    fn find(&mut self, bad: u64, offset: u64) -> io::Result<Option<Boundary>> {
        if let Some(place) = self.is_behind_a_gap(bad, offset)? {
            return Ok(Some(place));
        }
        let mut position = bad + 1;
        loop {
            let bytes = self.window.at(position, HEADER_LEN)?;
            if bytes.len() < HEADER_LEN {
                return Ok(None);
            }
            for at in 0..=bytes.len() - HEADER_LEN {
                if bytes[at + MAGIC_AT] != MAGIC {
                    continue;
                }
                let candidate = BatchHeader::read(&bytes[at..]).map(|header| header.base_offset().get());
                if let Ok(found) = candidate
                    && found >= offset
                    && self.look(position + at as u64, found)?.is_ok()
                {
                    return Ok(Some(Boundary {
                        position: position + at as u64,
                        offset: found,
                    }));
                }
            }
            position += (bytes.len() - HEADER_LEN + 1) as u64;
        }
    }
}

/// A stretch of a file in memory.
#[derive(Debug)]
struct Window {
    file: File,
    size: u64,
    start: u64,
    bytes: Bytes,
}

impl Window {
    fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self {
            file,
            size,
            start: 0,
            bytes: Bytes::new(),
        })
    }

    /// At least `wanted` bytes from `position` on, unless the file ends before.
    fn at(&mut self, position: u64, wanted: usize) -> io::Result<Bytes> {
        let left = usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX);
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + wanted.min(left) as u64 > end {
            let mut bytes = vec![0; wanted.max(WINDOW).min(left)];
            let read = read_at(&self.file, &mut bytes, position)?;
            // The file may have become shorter.
            bytes.truncate(read);
            self.bytes = bytes.into();
            self.start = position;
        }
        Ok(self.bytes.slice((position - self.start) as usize..))
    }

    /// The checksum of a batch of this size, piece by piece.
    fn checksum(&mut self, position: u64, size: usize) -> io::Result<u32> {
        let (mut computed, mut done) = (0, CRC_FROM);
        while done < size {
            let piece = self.at(position + done as u64, WINDOW.min(size - done))?;
            let piece = &piece[..piece.len().min(size - done)];
            if piece.is_empty() {
                break;
            }
            computed = crc32c::crc32c_append(computed, piece);
            done += piece.len();
        }
        Ok(computed)
    }
}

/// Reads until the buffer is full or the file ends.
fn read_at(file: &File, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], position + done as u64) {
            Ok(0) => break,
            Ok(read) => done += read,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}
