//! What a start does with the journals of the last run, before any log is opened: hands what they hold to the partitions.
//!
//! ```text
//! read a journal ─► batches that were not settled ─► a file beside each partition's segments ─► the journals are put away
//! ```
//! Each arrow is durable before the next, and all of it may be done again after a crash: no log is opened before the last. It matters
//! nothing which core had a partition, or how many cores there are now. Most of the batches are in segments already; opening the
//! log finds out. Memory is bounded: a journal is read in pieces, twice, and what it holds is handed on in pieces too.
//!
//! The newest whole frame says which frames have to be there. One behind it that is torn was never acknowledged; one before it that does
//! not read back is damage, as each was durable before the next was begun.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsStr,
    io,
    ops::Range,
    path::{Path, PathBuf},
};

use headwater_protocol::id::Offset;

use super::{
    BLOCK, EXTENSION, EXTENSION_NEW, EXTENSION_OLD, FRAME_BYTES_MAX,
    aside::Aside,
    beside::{self, Forgotten},
    frame::{Entry, FileHead, Frame},
};
use crate::{
    disk::{DirEntry, Directory, EntryKind, is_full},
    error::LogError,
    owner::Owner,
    segment::base_offset_of,
};

/// Bytes of a journal that are read at a time.
const READ_BYTES: usize = 8 << 20;

/// Bytes of batches in memory before they are handed on.
const HELD_BYTES_MAX: u64 = 32 << 20;

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
}

/// Sets aside, in the directories of their partitions, what the journals in the data directory hold, and puts the journals away. To be called
/// at each start before any log is opened, also if no journal is to be used.
///
/// An error if a journal is damaged, or cannot be read, if there is no room for what it holds, or if it is not known which directory is that
/// of a partition: then nothing is lost, and it may be tried again once that is put right.
pub async fn recover<D: Directory>(disk: &D, directory: &Path) -> Result<JournalRecovery, LogError> {
    let entries = disk.list(directory).await.map_err(LogError::io("list", directory))?;
    let named = |extensions: &[&str]| -> Vec<(PathBuf, u64)> {
        let has_one = |path: &Path| {
            extensions
                .iter()
                .any(|known| path.extension() == Some(OsStr::new(known)))
        };
        let files = entries.iter().filter(|entry| entry.kind == EntryKind::File);
        let files = files.map(|entry| (directory.join(&entry.name), entry.size));
        files.filter(|(path, _)| has_one(path)).collect()
    };
    // No core has begun with these in the last run, and what is to be written may need their room.
    for (path, _) in named(&[EXTENSION_OLD, EXTENSION_NEW]) {
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
    }
    let journals = named(&[EXTENSION]);
    let mut handing = Handing {
        disk,
        directory,
        entries: &entries,
        places: None,
        partitions: BTreeMap::new(),
        bytes: 0,
        emptied: BTreeSet::new(),
    };
    for (path, size) in &journals {
        take(path, *size, &mut handing).await?;
    }
    let report = handing.report(journals.len());
    let emptied = handing.emptied;
    for (path, _) in &journals {
        if emptied.contains(path) {
            disk.remove_file(path).await.map_err(LogError::io("remove", path))?;
            continue;
        }
        let old = path.with_extension(EXTENSION_OLD);
        disk.rename(path, &old).await.map_err(LogError::io("rename", path))?;
    }
    for (path, _) in named(&[beside::EXTENSION]) {
        disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
    }
    Ok(report)
}

/// Where partitions are, and what was handed to them.
struct Handing<'a, D: Directory> {
    disk: &'a D,
    directory: &'a Path,
    entries: &'a [DirEntry],
    /// Looked for when they are needed.
    places: Option<Places>,
    /// Of which there was something, and whether they are there.
    partitions: BTreeMap<Owner, bool>,
    bytes: u64,
    /// Journals of which only what is needed still has space.
    emptied: BTreeSet<PathBuf>,
}

/// Whose directories there are.
struct Places {
    of: HashMap<Owner, Vec<PathBuf>>,
    /// Why it is not known whose one of them is.
    unknown: Option<LogError>,
}

impl<D: Directory> Handing<'_, D> {
    fn report(&self, journals: usize) -> JournalRecovery {
        let gone = self.partitions.values().filter(|is_there| !**is_there).count();
        JournalRecovery {
            journals,
            partitions: self.partitions.len() - gone,
            bytes: self.bytes,
            gone,
        }
    }

    async fn find_places(&self) -> Places {
        let mut places = Places {
            of: HashMap::new(),
            unknown: None,
        };
        for entry in self.entries.iter().filter(|entry| entry.kind == EntryKind::Directory) {
            let directory = self.directory.join(&entry.name);
            let Some(number) = number_of(&directory) else { continue };
            match owner_of(self.disk, &directory).await {
                Ok(Some(owner)) if owner.partition.to_string() == number => {
                    places.of.entry(owner).or_default().push(directory);
                }
                Ok(_) => {}
                Err(error) => places.unknown = Some(error),
            }
        }
        places
    }

    /// Writes what is kept into the directories of its partitions.
    async fn hand_on(&mut self, kept: HashMap<Owner, Kept>, journal: &Journaled<'_>) -> Result<(), LogError> {
        if kept.is_empty() {
            return Ok(());
        }
        let places = match self.places.take() {
            Some(places) => places,
            None => self.find_places().await,
        };
        let mut files = Vec::new();
        for (owner, Kept { mut bytes, first }) in kept {
            let directory = match places.of.get(&owner).map(Vec::as_slice) {
                Some([directory]) => directory,
                Some([one, other, ..]) => {
                    let reason = format!("{} says too that it is {owner}: move away what is not", one.display());
                    return Err(unusable(other.clone(), reason));
                }
                Some([]) | None => {
                    if let Some(error) = &places.unknown {
                        // It may be this one.
                        return Err(error.clone());
                    }
                    if self.partitions.insert(owner, false).is_none() {
                        tracing::warn!(%owner, "what its journal has kept is dropped: the partition is not there any more");
                    }
                    continue;
                }
            };
            self.partitions.insert(owner, true);
            self.bytes += bytes.len() as u64;
            if let Some(before) = Aside::read(self.disk, directory).await? {
                let before = before.before(first);
                let before = before.map_err(|reason| unusable(directory.clone(), reason))?;
                bytes.splice(0..0, before);
            }
            files.push(Aside::of(bytes).file(directory));
        }
        self.places = Some(places);
        self.write(&files, journal).await
    }

    /// On a full disk the space of what is not needed of the journal is given back for them.
    async fn write(&mut self, files: &[(PathBuf, Vec<u8>)], journal: &Journaled<'_>) -> Result<(), LogError> {
        let mut written = self.disk.replace_files_to_make_room(files).await;
        if written.as_ref().is_err_and(is_full) && self.emptied.insert(journal.path.to_owned()) {
            if let Err(error) = self.disk.give_back(journal.path, &journal.unneeded()).await {
                tracing::warn!(path = %journal.path.display(), %error, "the space of what is not needed of the journal is not given back");
            }
            written = self.disk.replace_files_to_make_room(files).await;
        }
        written.map_err(|error| {
            let bytes: usize = files.iter().map(|(_, content)| content.len()).sum();
            let error = if is_full(&error) {
                let reason = format!(
                    "the disk has no room for {bytes} bytes of acknowledged records: make some, and start again"
                );
                io::Error::new(io::ErrorKind::StorageFull, reason)
            } else {
                error
            };
            LogError::io("write what journals hold in", self.directory)(error)
        })
    }
}

/// Where the frames of a journal lie that are needed.
struct Journaled<'a> {
    path: &'a Path,
    size: u64,
    needed: Vec<Range<u64>>,
}

impl Journaled<'_> {
    /// What lies between them, behind the head.
    fn unneeded(&self) -> Vec<Range<u64>> {
        let mut needed = self.needed.clone();
        needed.sort_unstable_by_key(|needed| needed.start);
        let mut at = BLOCK;
        let mut unneeded = Vec::new();
        needed.push(self.size..self.size);
        for range in needed {
            if at < range.start {
                unneeded.push(at..range.start);
            }
            at = range.end;
        }
        unneeded
    }
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

/// Where a frame lies, and the oldest that it needs.
#[derive(Debug, Clone, Copy)]
struct Found {
    position: u64,
    size: u64,
    first_needed: u64,
}

/// Takes what one journal holds, and hands it on.
async fn take<D: Directory>(path: &Path, size: u64, handing: &mut Handing<'_, D>) -> Result<(), LogError> {
    let damaged = |position: u64, reason: String| LogError::Corrupt {
        path: path.to_owned(),
        position,
        reason: format!(
            "{reason}; acknowledged records may be lost: move the file away only if replicas have them, or to do without"
        ),
        resume_at: None,
    };
    let unread = |error| LogError::io("read", path)(error);
    let mut window = Window {
        disk: handing.disk,
        path,
        size,
        start: 0,
        bytes: Vec::new(),
    };
    let head = FileHead::decode(window.at(0).await.map_err(unread)?);
    let head = head.map_err(|reason| damaged(0, reason.to_owned()))?;
    if size != head.size {
        return Err(damaged(0, format!("it has {size} bytes of {}", head.size)));
    }
    let (frames, settled) = look_through(&mut window, &head).await.map_err(unread)?;
    let Some((newest, last)) = frames.last_key_value() else {
        return Ok(());
    };
    let needed = frames.range(last.first_needed..).map(|(_, found)| found);
    let journal = Journaled {
        path,
        size,
        needed: needed
            .map(|found| found.position..found.position + found.size)
            .collect(),
    };
    let forgotten = Forgotten::read(handing.disk, path, head.generation).await?;
    let mut taking = Taking {
        settled,
        forgotten,
        ends: HashMap::new(),
        kept: HashMap::new(),
        held_bytes: 0,
    };
    let mut end = BLOCK;
    for sequence in last.first_needed..=*newest {
        let found = frames.get(&sequence);
        let frame = match found {
            Some(found) => Frame::read(window.at(found.position).await.map_err(unread)?, head.generation),
            None => None,
        };
        let (Some(found), Some(frame)) = (found, frame) else {
            let reason = format!("frame {sequence} does not read back, although frame {newest} was written after it");
            return Err(damaged(end, reason));
        };
        end = found.position + frame.size();
        let entries = frame.entries();
        let entries = entries.map_err(|reason| damaged(found.position, reason.to_owned()))?;
        for (number, entry) in entries.into_iter().enumerate() {
            taking
                .take(entry, (sequence, number))
                .map_err(|reason| damaged(found.position, reason))?;
        }
        if taking.held_bytes > HELD_BYTES_MAX {
            handing.hand_on(taking.let_go(), &journal).await?;
        }
    }
    handing.hand_on(taking.let_go(), &journal).await
}

/// Number of a frame, and of an entry in it.
type EntryNumber = (u64, usize);

/// All whole frames of the file's generation, by their numbers, and the last entry that says of a partition that it was settled.
async fn look_through<D: Directory>(
    window: &mut Window<'_, D>,
    head: &FileHead,
) -> io::Result<(BTreeMap<u64, Found>, HashMap<Owner, EntryNumber>)> {
    let (mut frames, mut settled) = (BTreeMap::new(), HashMap::new());
    let mut position = BLOCK;
    while position < window.size {
        let Some(frame) = Frame::read(window.at(position).await?, head.generation) else {
            position += BLOCK;
            continue;
        };
        let (sequence, first_needed) = (frame.head.sequence, frame.head.first_needed);
        for (number, entry) in frame.entries().into_iter().flatten().enumerate() {
            if let Entry::Settled { owner } = entry {
                let last: &mut EntryNumber = settled.entry(owner).or_default();
                *last = (*last).max((sequence, number));
            }
        }
        let size = frame.size();
        let found = Found {
            position,
            size,
            first_needed,
        };
        frames.insert(sequence, found);
        position += size;
    }
    Ok((frames, settled))
}

/// What is taken of a journal, in the order of its entries.
struct Taking {
    settled: HashMap<Owner, EntryNumber>,
    forgotten: BTreeSet<Owner>,
    /// How far the batches of each partition have come.
    ends: HashMap<Owner, Offset>,
    kept: HashMap<Owner, Kept>,
    held_bytes: u64,
}

impl Taking {
    fn take(&mut self, entry: Entry<'_>, number: EntryNumber) -> Result<(), String> {
        let Entry::Batches {
            owner,
            base,
            next,
            bytes,
        } = entry
        else {
            return Ok(());
        };
        let is_settled = self.settled.get(&owner).is_some_and(|last| number < *last);
        if is_settled || self.forgotten.contains(&owner) {
            return Ok(());
        }
        if let Some(end) = self.ends.insert(owner, next)
            && base < end
        {
            return Err(format!("offset {base} of {owner} follows {end}"));
        }
        let kept = self.kept.entry(owner).or_insert_with(|| Kept {
            bytes: Vec::new(),
            first: base,
        });
        kept.bytes.extend_from_slice(bytes);
        self.held_bytes += bytes.len() as u64;
        Ok(())
    }

    fn let_go(&mut self) -> HashMap<Owner, Kept> {
        self.held_bytes = 0;
        std::mem::take(&mut self.kept)
    }
}

/// A part of a journal in memory.
struct Window<'a, D: Directory> {
    disk: &'a D,
    path: &'a Path,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<D: Directory> Window<'_, D> {
    /// What lies from `position` on: as much as a frame may have, unless the file ends before.
    async fn at(&mut self, position: u64) -> io::Result<&[u8]> {
        let wanted = FRAME_BYTES_MAX.min(self.size - position);
        let end = self.start + self.bytes.len() as u64;
        if position < self.start || position + wanted > end {
            self.bytes = self.disk.read_part(self.path, position, READ_BYTES).await?;
            self.start = position;
        }
        Ok(&self.bytes[(position - self.start) as usize..])
    }
}
