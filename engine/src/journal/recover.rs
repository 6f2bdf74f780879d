//! What a start does with the journals of the last run, before any log is opened: hands what they hold to the partitions.
//!
//! ```text
//! read every journal ─► batches that were not settled ─► a file beside each partition's segments ─► the journals are put away
//! ```
//! Each arrow is durable before the next, and all of it may be done again after a crash: no log is opened before the last. It matters
//! nothing which core had a partition, or how many cores there are now. Most of the batches are in segments already; opening the
//! log finds out.
//!
//! The newest whole frame says which frames have to be there. One behind it that is torn was never acknowledged; one before it that does
//! not read back is damage, as each was durable before the next was begun.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use headwater_protocol::id::Offset;

use super::{
    BLOCK, EXTENSION, EXTENSION_NEW, EXTENSION_OLD,
    aside::Aside,
    frame::{Entry, FileHead, Frame},
};
use crate::{
    disk::{Directory, EntryKind},
    error::LogError,
    owner::Owner,
    segment::base_offset_of,
};

/// What was found in journals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JournalRecovery {
    /// Journals that were there.
    pub journals: usize,
    /// Partitions for which they had batches that may not be in segments.
    pub partitions: usize,
    /// Bytes of those batches.
    pub bytes: u64,
    /// Partitions that are not there any more: their topics are deleted.
    pub gone: usize,
}

/// Batches of one partition, in order.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    first: Offset,
    next: Offset,
}

impl Kept {
    fn beginning_at(first: Offset) -> Kept {
        Kept {
            bytes: Vec::new(),
            first,
            next: first,
        }
    }
}

/// Sets aside, in the directories of their partitions, what the journals in the data directory hold, and puts the journals away. To be called
/// at each start before any log is opened, also if no journal is to be used.
///
/// An error if a journal is damaged, or cannot be read, or if it is not known which directory is that of a partition: then nothing is
/// lost, and it may be tried again once that is put right.
pub async fn recover<D: Directory>(disk: &D, directory: &Path) -> Result<JournalRecovery, LogError> {
    let entries = disk.list(directory).await.map_err(LogError::io("list", directory))?;
    let named = |extensions: &[&str]| -> Vec<PathBuf> {
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let paths = files.map(|entry| directory.join(&entry.name));
        paths
            .filter(|path| {
                extensions
                    .iter()
                    .any(|known| path.extension() == Some(OsStr::new(known)))
            })
            .collect()
    };
    let journals = named(&[EXTENSION]);
    let mut kept: HashMap<Owner, Kept> = HashMap::new();
    for path in &journals {
        let file = disk.read_file(path).await.map_err(LogError::io("read", path))?;
        take(&file, path, &mut kept)?;
    }
    let mut report = JournalRecovery {
        journals: journals.len(),
        ..JournalRecovery::default()
    };
    if !kept.is_empty() {
        let directories = entries.iter().filter(|entry| entry.kind == EntryKind::Directory);
        let directories = directories.map(|entry| directory.join(&entry.name)).collect();
        set_aside(disk, directories, kept, &mut report).await?;
    }
    // No core has begun with these in the last run.
    for path in named(&[EXTENSION_OLD, EXTENSION_NEW]) {
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
    }
    for path in &journals {
        let old = path.with_extension(EXTENSION_OLD);
        disk.rename(path, &old).await.map_err(LogError::io("rename", path))?;
    }
    Ok(report)
}

/// Writes what is kept into the directories of its partitions.
async fn set_aside<D: Directory>(
    disk: &D,
    directories: Vec<PathBuf>,
    mut kept: HashMap<Owner, Kept>,
    report: &mut JournalRecovery,
) -> Result<(), LogError> {
    let mut places: HashMap<Owner, PathBuf> = HashMap::new();
    let mut unknown = None;
    for directory in directories {
        let Some(number) = number_of(&directory) else { continue };
        match owner_of(disk, &directory).await {
            Ok(Some(owner)) if owner.partition.to_string() == number && kept.contains_key(&owner) => {
                if let Some(other) = places.insert(owner, directory.clone()) {
                    let reason = format!("{} says too that it is {owner}: move away what is not", other.display());
                    return Err(unusable(directory, reason));
                }
            }
            Ok(_) => {}
            Err(error) => unknown = Some(error),
        }
    }
    report.gone = kept.len() - places.len();
    if let Some(error) = unknown.filter(|_| report.gone > 0) {
        // It may be one of those that have not been found.
        return Err(error);
    }
    for (owner, directory) in places {
        let Some(Kept { mut bytes, first, .. }) = kept.remove(&owner) else {
            continue;
        };
        report.partitions += 1;
        report.bytes += bytes.len() as u64;
        if let Some(before) = Aside::read(disk, &directory).await? {
            let before = before
                .before(first)
                .map_err(|reason| unusable(directory.clone(), reason))?;
            bytes.splice(0..0, before);
        }
        Aside::of(bytes).write(disk, &directory).await?;
    }
    for owner in kept.keys() {
        tracing::warn!(%owner, "what its journal has kept is dropped: the partition is not there any more");
    }
    Ok(())
}

/// What stands behind the last hyphen of the name of a partition's directory; `None` if a directory has not the name of one.
fn number_of(directory: &Path) -> Option<&str> {
    let name = directory.file_name().and_then(OsStr::to_str)?;
    let (_, number) = name.rsplit_once('-')?;
    number.parse::<u32>().is_ok().then_some(number)
}

/// Whose a directory is; `None` if it is nobody's, and an error if it has records and does not say whose.
async fn owner_of<D: Directory>(disk: &D, directory: &Path) -> Result<Option<Owner>, LogError> {
    if let Some(owner) = Owner::read(disk, directory).await? {
        return Ok(Some(owner));
    }
    let entries = disk.list(directory).await.map_err(LogError::io("list", directory))?;
    if entries.iter().any(|entry| base_offset_of(&entry.name, "log").is_some()) {
        let reason = "it has records and does not say whose, and a journal has kept records of a partition that is not found: \
                      move the directory away, or the journal, to start without";
        return Err(unusable(directory.to_owned(), reason.to_owned()));
    }
    Ok(None)
}

fn unusable(path: PathBuf, reason: String) -> LogError {
    LogError::Corrupt {
        path,
        position: 0,
        reason,
        resume_at: None,
    }
}

/// Takes what one journal holds.
fn take(file: &[u8], path: &Path, kept: &mut HashMap<Owner, Kept>) -> Result<(), LogError> {
    let damaged = |position: u64, reason: String| LogError::Corrupt {
        path: path.to_owned(),
        position,
        reason: format!(
            "{reason}; acknowledged records may be lost: move the file away only if replicas have them, or to do without"
        ),
        resume_at: None,
    };
    let head = FileHead::decode(file).map_err(|reason| damaged(0, reason.to_owned()))?;
    if file.len() as u64 != head.size {
        let reason = format!("it has {} bytes of {}", file.len(), head.size);
        return Err(damaged(0, reason));
    }
    let frames = frames_of(file, &head);
    let Some((newest, (_, last))) = frames.last_key_value() else {
        return Ok(());
    };
    let mut end = BLOCK;
    for sequence in last.head.first_needed..=*newest {
        let Some((position, frame)) = frames.get(&sequence) else {
            let reason = format!("frame {sequence} does not read back, although frame {newest} was written after it");
            return Err(damaged(end, reason));
        };
        end = position + frame.size();
        let entries = frame
            .entries()
            .map_err(|reason| damaged(*position, reason.to_owned()))?;
        for entry in entries {
            take_entry(entry, kept).map_err(|reason| damaged(*position, reason))?;
        }
    }
    Ok(())
}

fn take_entry(entry: Entry<'_>, kept: &mut HashMap<Owner, Kept>) -> Result<(), String> {
    match entry {
        Entry::Settled { owner } => {
            kept.remove(&owner);
        }
        Entry::Batches {
            owner,
            base,
            next,
            bytes,
        } => {
            let kept = kept.entry(owner).or_insert_with(|| Kept::beginning_at(base));
            if base < kept.next {
                return Err(format!("offset {base} of {owner} follows {}", kept.next));
            }
            kept.bytes.extend_from_slice(bytes);
            kept.next = next;
        }
    }
    Ok(())
}

/// All whole frames of the file's generation, by their numbers, with their positions.
fn frames_of<'a>(file: &'a [u8], head: &FileHead) -> BTreeMap<u64, (u64, Frame<'a>)> {
    let mut frames = BTreeMap::new();
    let mut position = BLOCK;
    while position < file.len() as u64 {
        match Frame::read(&file[position as usize..], head.generation) {
            Some(frame) => {
                frames.insert(frame.head.sequence, (position, frame));
                position += frame.size();
            }
            None => position += BLOCK,
        }
    }
    frames
}
