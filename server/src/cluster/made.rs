//! Which partitions this broker had when it last did all that was agreed on. What of them is missing now was lost; what is not among them
//! is new, though a crash may have come before its directory. Kept in a file of the data directory.

use std::{
    collections::BTreeSet,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use headwater_engine::disk::Directory;

use super::store::error::StoreError;
use crate::image::PartitionId;

/// Name of the file.
const FILE: &str = "made-partitions";

/// The version of the file's form.
const FORMAT_VERSION: u8 = 1;

/// Bytes of the checksum that the file begins with.
const CRC_LEN: usize = 4;

/// What the file says.
pub(super) struct Made {
    path: PathBuf,
    /// None: it is not known, and whatever is missing may have been lost.
    partitions: Option<BTreeSet<PartitionId>>,
}

impl Made {
    /// Reads the file of a data directory. Without one that can be read, nothing is taken to be new.
    pub(super) async fn read(disk: &impl Directory, directory: &Path) -> Made {
        let path = directory.join(FILE);
        let read = match disk.read_file(&path).await {
            Ok(bytes) => decode(&bytes),
            Err(error) if error.kind() == ErrorKind::NotFound => return Made { path, partitions: None },
            Err(error) => Err(error),
        };
        let partitions = read
            .inspect_err(
                |error| tracing::warn!(path = %path.display(), %error, "the file cannot be read; it is written anew"),
            )
            .ok();
        Made { path, partitions }
    }

    /// Whether the partition has come since.
    pub(super) fn is_new(&self, id: PartitionId) -> bool {
        self.partitions.as_ref().is_some_and(|made| !made.contains(&id))
    }

    /// This broker has these partitions now.
    pub(super) async fn note(&mut self, disk: &impl Directory, own: &BTreeSet<PartitionId>) -> Result<(), StoreError> {
        if self.partitions.as_ref() == Some(own) {
            return Ok(());
        }
        let written = disk.replace_file(&self.path, encode(own)).await;
        written.map_err(StoreError::io("write", &self.path))?;
        self.partitions = Some(own.clone());
        Ok(())
    }
}

fn encode(partitions: &BTreeSet<PartitionId>) -> Vec<u8> {
    let content = postcard::to_extend(&(FORMAT_VERSION, partitions), Vec::new());
    let content = content.expect("a vector takes all bytes, and a set has a known length");
    let mut bytes = crc32c::crc32c(&content).to_le_bytes().to_vec();
    bytes.extend(content);
    bytes
}

fn decode(bytes: &[u8]) -> io::Result<BTreeSet<PartitionId>> {
    let damaged = |why: &str| io::Error::new(ErrorKind::InvalidData, why.to_owned());
    let (crc, content) = bytes
        .split_first_chunk::<CRC_LEN>()
        .ok_or_else(|| damaged("it is too short"))?;
    if crc32c::crc32c(content) != u32::from_le_bytes(*crc) {
        return Err(damaged("its checksum is wrong"));
    }
    match content.first() {
        Some(&FORMAT_VERSION) => {}
        _ => return Err(damaged("a newer broker has written it")),
    }
    let (_, partitions): (u8, BTreeSet<PartitionId>) = postcard::from_bytes(content).map_err(io::Error::other)?;
    Ok(partitions)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use headwater_engine::disk::StdDirectory;

    use super::*;

    #[test]
    fn what_was_not_there_before_is_new_and_nothing_is_if_that_is_not_known() {
        let directory = tempfile::tempdir().unwrap();
        let disk = StdDirectory::default();
        block_on(async {
            let read = async || Made::read(&disk, directory.path()).await;
            let mut made = read().await;
            assert!(!made.is_new(PartitionId::of_test(0)), "there may have been a file");
            made.note(&disk, &BTreeSet::new()).await.unwrap();
            assert!(read().await.is_new(PartitionId::of_test(0)));
            made.note(&disk, &[PartitionId::of_test(0), PartitionId::of_test(7)].into())
                .await
                .unwrap();
            let made = read().await;
            assert_eq!(
                [0, 1, 7].map(|index| made.is_new(PartitionId::of_test(index))),
                [false, true, false]
            );
            let path = directory.path().join(FILE);
            let bytes = std::fs::read(&path).unwrap();
            for at in 0..bytes.len() {
                let mut damaged = bytes.clone();
                damaged[at] ^= 1;
                std::fs::write(&path, damaged).unwrap();
                assert!(!read().await.is_new(PartitionId::of_test(1)), "byte {at} is another");
            }
            std::fs::write(&path, &bytes[..3]).unwrap();
            assert!(!read().await.is_new(PartitionId::of_test(1)));
        });
    }
}
