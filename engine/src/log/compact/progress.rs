//! How far a log is compacted: a small file beside the checkpoint, replaced atomically, and what is under way.
//!
//! First line: format name, version and the CRC-32C of what follows, in hexadecimal; then one JSON object. It is written before
//! the first segment of a pass is replaced, because recovery must know where offsets may be missing; it is removed by nobody.

use std::{
    cell::{Cell, RefCell},
    path::{Path, PathBuf},
    rc::Rc,
};

use headwater_protocol::id::{Offset, Timestamp};
use serde::{Deserialize, Serialize};

use super::super::Gate;
use crate::{disk::Disk, error::LogError, segment::Segment, signal::Signal};

const FORMAT: &str = "headwater-compaction 1";

/// Name of the file in the partition's directory.
pub(in crate::log) const FILE_NAME: &str = "compaction";

/// What the file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(in crate::log) struct Record {
    /// Segments that begin below this offset may lack offsets.
    holes_below: u64,
    /// Below this offset no key has a later record below it: the first dirty offset.
    clean_below: u64,
    /// The earliest delete horizon of a tombstone below that, in milliseconds since the epoch.
    horizon_ms: Option<i64>,
}

impl Record {
    /// What is not known must be expected.
    const UNKNOWN: Record = Record {
        holes_below: Offset::MAX.get(),
        clean_below: 0,
        horizon_ms: None,
    };

    fn encode(self) -> serde_json::Result<Vec<u8>> {
        let body = serde_json::to_vec(&self)?;
        let mut out = format!("{FORMAT} {:08x}\n", crc32c::crc32c(&body)).into_bytes();
        out.extend_from_slice(&body);
        Ok(out)
    }

    fn decode(file: &[u8]) -> Option<Record> {
        let end_of_line = file.iter().position(|byte| *byte == b'\n')?;
        let (head, body) = (&file[..end_of_line], &file[end_of_line + 1..]);
        let stored = std::str::from_utf8(head).ok()?.strip_prefix(FORMAT)?.trim();
        let is_whole = stored == format!("{:08x}", crc32c::crc32c(body));
        serde_json::from_slice(body).ok().filter(|_| is_whole)
    }

    /// Reads the file; a missing one is as if nothing had ever been compacted, a damaged one as if everything might have been.
    pub(in crate::log) async fn read<D: Disk>(disk: &D, directory: &Path) -> Result<Record, LogError> {
        let path = directory.join(FILE_NAME);
        match disk.read_file(&path).await {
            Ok(file) => Ok(Record::decode(&file).unwrap_or_else(|| {
                tracing::warn!(path = %path.display(), "it is not known any more how far the log was compacted");
                Record::UNKNOWN
            })),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Record::default()),
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    }

    pub(in crate::log) async fn write<D: Disk>(self, disk: &D, directory: &Path) -> Result<(), LogError> {
        let path = directory.join(FILE_NAME);
        let written = match self.encode() {
            Ok(content) => disk.replace_file(&path, content).await,
            Err(error) => Err(error.into()),
        };
        written.map_err(LogError::io("write", &path))
    }

    /// Whether the segment that begins there may lack offsets.
    pub(in crate::log) fn has_holes(self, base_offset: Offset) -> bool {
        base_offset.get() < self.holes_below
    }

    /// No offset is missing from here on.
    pub(in crate::log) fn holes_below(self) -> Offset {
        Offset::new(self.holes_below)
    }

    pub(super) fn clean_below(self) -> Offset {
        Offset::new(self.clean_below)
    }

    /// Whether a tombstone may be dropped by now, or is kept for longer than any is now: its horizon was set when the clock was
    /// ahead, or tombstones were kept for longer.
    pub(super) fn is_horizon_past(self, now: Timestamp, max: Timestamp) -> bool {
        let is_past = |horizon| horizon <= now.get() || horizon > max.get();
        self.horizon_ms.is_some_and(is_past)
    }

    /// Segments up to `end` are about to be replaced, or come from a leader that has replaced them.
    pub(in crate::log) fn with_holes_below(mut self, end: Offset) -> Record {
        self.holes_below = self.holes_below.max(end.get());
        self
    }

    /// A pass is over.
    pub(super) fn with_clean_below(mut self, end: Offset, horizon: Option<Timestamp>) -> Record {
        self.clean_below = end.get();
        self.horizon_ms = horizon.map(Timestamp::get);
        self
    }

    /// The log ends there, perhaps after a truncation: what comes will be dirty, and whole.
    pub(in crate::log) fn cut(self, end: Offset) -> Record {
        Record {
            holes_below: self.holes_below.min(end.get()),
            clean_below: self.clean_below.min(end.get()),
            ..self
        }
    }
}

/// A segment that is to take the place of others: already in memory, not yet on disk under its name.
#[derive(Debug)]
pub(super) struct Swap<D: Disk> {
    pub(super) path: PathBuf,
    pub(super) segment: Rc<Segment<D>>,
    /// Base offsets of those whose files go.
    pub(super) replaced: Vec<Offset>,
}

/// The part of a log's state that compaction owns.
#[derive(Debug)]
pub(in crate::log) struct Progress<D: Disk> {
    pub(in crate::log) record: Record,
    /// Truncations so far: what is not there any more supersedes nothing.
    pub(in crate::log) truncations: u64,
    pub(super) swap: Option<Rc<Swap<D>>>,
    /// A file that may be there or not, and must not be found by recovery.
    pub(super) doubtful: Option<PathBuf>,
}

impl<D: Disk> Progress<D> {
    pub(in crate::log) fn new(record: Record) -> Progress<D> {
        Progress {
            record,
            truncations: 0,
            swap: None,
            doubtful: None,
        }
    }
}

/// One compaction at a time, and a way to end it early.
#[derive(Debug, Default)]
pub(in crate::log) struct Compactor {
    pub(super) gate: Gate,
    pub(super) halted: Cell<bool>,
    pub(super) halt: Signal,
}

/// What a compaction has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactionReport {
    /// Passes over the log: more than one if the offset map was too small for all new keys.
    pub passes: u64,
    /// Bytes of segments that were read; what is new is read twice.
    pub read_bytes: u64,
    /// Bytes of segments that were written.
    pub written_bytes: u64,
    /// Records that were looked at while segments were written anew.
    pub records: u64,
    /// Records that were removed, tombstones among them.
    pub removed_records: u64,
    /// Segments that were replaced.
    pub replaced_segments: u64,
}

/// A report in the making.
pub(super) type Tally = RefCell<CompactionReport>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_every_flipped_bit_is_noticed() {
        let record = Record {
            holes_below: 7,
            clean_below: 5,
            horizon_ms: Some(9),
        };
        let file = record.encode().unwrap();
        assert_eq!(Record::decode(&file), Some(record));
        for at in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert_eq!(Record::decode(&damaged), None, "bit {at}");
        }
    }
}
