//! The files of a segment by name: its log and the two side files of its index. Knows nothing of what is in the log.

use std::path::Path;

use headwater_protocol::id::Offset;

use crate::{disk::Disk, error::LogError, index::Index, segment::segment_path};

/// Removes a segment's files, the log itself last, so that an interrupted removal is begun again.
pub(super) async fn remove_segment_files<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
) -> Result<(), LogError> {
    for extension in ["index", "timeindex", "log"] {
        let path = segment_path(directory, base_offset, extension);
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
    }
    Ok(())
}

/// The index in a segment's side files as of `size`, or `None` if they are missing or damaged.
pub(super) async fn read_index<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
    size: u64,
    interval_bytes: u32,
) -> Result<Option<Index>, LogError> {
    let mut files = Vec::with_capacity(2);
    for extension in ["index", "timeindex"] {
        let path = segment_path(directory, base_offset, extension);
        match disk.read_file(&path).await {
            Ok(file) => files.push(file),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(LogError::io("read", &path)(error)),
        }
    }
    match Index::decode(base_offset, size, interval_bytes, &files[0], &files[1]) {
        Ok(index) => Ok(Some(index)),
        Err(damage) => {
            let path = segment_path(directory, base_offset, "index");
            tracing::warn!(path = %path.display(), %damage, "the index is rebuilt from the segment");
            Ok(None)
        }
    }
}
