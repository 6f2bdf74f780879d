//! Batches of one partition that were durable in a journal and are not in its segments, in a file of the partition's own directory: what
//! [`recover`](super::recover) finds, and what a log that has failed leaves to the next one. Opening the log takes them in, and then
//! removes the file.
//!
//! First line: format name, version and the CRC-32C of what follows, in hexadecimal; then whole batches, in order.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use headwater_protocol::{
    batch::{BatchLimits, Batches, RecordBatch},
    id::Offset,
};

use crate::{disk::Directory, error::LogError};

const FORMAT: &str = "headwater-journaled 1";

/// What was set aside for a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Aside {
    bytes: Vec<u8>,
}

impl Aside {
    /// Name of the file in the partition's directory.
    pub(crate) const FILE_NAME: &str = "journaled";

    /// Whole batches, in order.
    pub(crate) fn of(bytes: Vec<u8>) -> Aside {
        Aside { bytes }
    }

    /// What lies in the partition's directory, if there is anything.
    pub(crate) async fn read(disk: &impl Directory, directory: &Path) -> Result<Option<Aside>, LogError> {
        let path = directory.join(Aside::FILE_NAME);
        match disk.read_file(&path).await {
            Ok(file) => Aside::decode(file).map(Some).map_err(|reason| LogError::Corrupt {
                path,
                position: 0,
                reason: format!("{reason}; it holds acknowledged records, so move it away only if replicas have them"),
                resume_at: None,
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(LogError::io("read", &path)(error)),
        }
    }

    /// The file in the partition's directory, and what stands in it.
    pub(super) fn file(&self, directory: &Path) -> (PathBuf, Vec<u8>) {
        (directory.join(Aside::FILE_NAME), self.encode())
    }

    /// Durable when it returns.
    pub(crate) async fn write(&self, disk: &impl Directory, directory: &Path) -> Result<(), LogError> {
        let (path, content) = self.file(directory);
        // Without it nothing can be let go.
        let written = disk.replace_file_to_make_room(&path, content).await;
        written.map_err(LogError::io("write", &path))
    }

    /// Its batches are in the segments, or are to be forgotten.
    pub(crate) async fn remove(disk: &impl Directory, directory: &Path) -> Result<(), LogError> {
        let path = directory.join(Aside::FILE_NAME);
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))
    }

    /// Its batches; an error if it does not hold whole ones.
    pub(crate) fn batches(&self) -> Result<Vec<RecordBatch<'_>>, String> {
        let limits = BatchLimits {
            batch_size_max: self.bytes.len(),
        };
        let batches = Batches::new(&self.bytes, &limits).collect::<Result<_, _>>();
        batches.map_err(|error| error.to_string())
    }

    /// Those of its batches that end at this offset or before.
    pub(super) fn before(&self, offset: Offset) -> Result<Vec<u8>, String> {
        let batches = self.batches()?.into_iter();
        let before = batches.take_while(|batch| batch.next_offset() <= offset);
        Ok(before.flat_map(|batch| batch.bytes().iter().copied()).collect())
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = format!("{FORMAT} {:08x}\n", crc32c::crc32c(&self.bytes)).into_bytes();
        out.extend_from_slice(&self.bytes);
        out
    }

    fn decode(mut file: Vec<u8>) -> Result<Aside, String> {
        let end_of_line = file
            .iter()
            .position(|byte| *byte == b'\n')
            .ok_or("it has no first line")?;
        let bytes = file.split_off(end_of_line + 1);
        let expected = format!("{FORMAT} {:08x}\n", crc32c::crc32c(&bytes));
        if file == expected.as_bytes() {
            Ok(Aside { bytes })
        } else {
            Err(format!("it does not begin with '{FORMAT}' and the right checksum"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_reads_back_and_every_flipped_bit_is_noticed() {
        let aside = Aside::of(b"some batches".to_vec());
        let file = aside.encode();
        assert_eq!(Aside::decode(file.clone()), Ok(aside.clone()));
        for bit in 0..file.len() * 8 {
            let mut damaged = file.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(Aside::decode(damaged).is_err(), "bit {bit}");
        }
        assert!(aside.batches().is_err(), "they are no batches");
    }
}
