//! The files of a segment by name: its log and the two side files of its index. Knows nothing of what is in the log.

use std::{io::ErrorKind, path::Path};

use headwater_protocol::id::Offset;

use crate::{
    disk::Disk,
    error::LogError,
    index::{Index, IndexDamage},
    memory::IndexCounts,
    segment::segment_path,
    transactions::aborted,
};

/// Extensions of an index's two files.
const INDEX_EXTENSIONS: [&str; 2] = ["index", "timeindex"];

/// Removes a segment's files, the log itself last, so that an interrupted removal is begun again.
pub(super) async fn remove_segment_files<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
) -> Result<(), LogError> {
    remove_index(disk, directory, base_offset).await?;
    let path = segment_path(directory, base_offset, "log");
    disk.remove_file(&path).await.map_err(LogError::io("remove", &path))
}

/// Removes the files of a segment's indexes, that of aborted transactions among them, or what is in their place.
pub(super) async fn remove_index<D: Disk>(disk: &D, directory: &Path, base_offset: Offset) -> Result<(), LogError> {
    for extension in INDEX_EXTENSIONS.into_iter().chain([aborted::EXTENSION]) {
        let path = segment_path(directory, base_offset, extension);
        let removed = match disk.remove_file(&path).await {
            Err(error) if error.kind() == ErrorKind::IsADirectory => disk.remove_dir_all(&path).await,
            removed => removed,
        };
        removed.map_err(LogError::io("remove", &path))?;
    }
    Ok(())
}

/// Writes the files of an index. What is in their place and is no file is removed, for the next attempt.
pub(super) async fn write_index<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
    files: [Vec<u8>; 2],
) -> Result<(), LogError> {
    for (extension, content) in INDEX_EXTENSIONS.into_iter().zip(files) {
        let path = segment_path(directory, base_offset, extension);
        let written = disk.replace_file(&path, content).await;
        if written
            .as_ref()
            .is_err_and(|error| error.kind() == ErrorKind::IsADirectory)
        {
            remove_index(disk, directory, base_offset).await?;
        }
        written.map_err(LogError::io("write", &path))?;
    }
    Ok(())
}

/// The index in a segment's side files as of `size`, or `None` if they are missing or damaged, or cannot be read: it never
/// decides what is in the log, so it can be made anew whatever is wrong with it.
pub(super) async fn read_index<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
    size: u64,
    interval_bytes: u32,
    counts: &IndexCounts,
) -> Option<Index> {
    let mut files = Vec::with_capacity(INDEX_EXTENSIONS.len());
    for extension in INDEX_EXTENSIONS {
        let path = segment_path(directory, base_offset, extension);
        match disk.read_file(&path).await {
            Ok(file) => files.push(file),
            Err(error) => {
                if let Some(unsaid) = counts.said_rebuilt.may_speak(disk.now()) {
                    tracing::warn!(path = %path.display(), %error, unsaid, "the index is rebuilt from the segment");
                }
                return None;
            }
        }
    }
    let decoded = Index::decode(base_offset, size, interval_bytes, &files[0], &files[1]);
    let damaged = |damage: &IndexDamage| {
        let path = segment_path(directory, base_offset, "index");
        if let Some(unsaid) = counts.said_rebuilt.may_speak(disk.now()) {
            tracing::warn!(path = %path.display(), %damage, unsaid, "the index is rebuilt from the segment");
        }
    };
    decoded.inspect_err(damaged).ok()
}
