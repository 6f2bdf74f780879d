//! Putting a compacted segment in the place of those that it was made of, so that a crash at any step loses nothing.
//!
//! ```text
//! 20 digits.cleaned                 being written; opening a log removes it
//!   │ a checkpoint that knows the end of each segment that goes, and a note that offsets may be missing there
//!   ▼ rename: from here on the swap is finished, by this process or by the next
//! 20 digits-20 digits.swap          the offsets that it covers: its base offset and the one after its last
//!   │ the checkpoint that knows it instead of the others; then their files are removed
//!   ▼ rename
//! 20 digits.log                     and then its indexes
//! ```
//!
//! Fetches that have found something in a segment that goes read on in its open file, which has no name any more. Invariant: a
//! swap is finished, or undone, before anything else changes the segments.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
};

use headwater_protocol::id::Offset;

use super::{
    super::{
        Log,
        files::{remove_index, remove_segment_files},
        upkeep::Purpose,
    },
    output::{self, Output},
    progress::Swap,
};
use crate::{
    checkpoint::{self, Checkpoint, SegmentFacts},
    disk::{DirEntry, Disk},
    error::LogError,
    moment::Since,
    segment::{Segment, Stage, base_offset_of, segment_path},
};

/// Extension of a file that is about to take the place of others.
const EXTENSION: &str = "swap";

fn swap_path(directory: &Path, base_offset: Offset, next_offset: Offset) -> PathBuf {
    directory.join(format!(
        "{:020}-{:020}.{EXTENSION}",
        base_offset.get(),
        next_offset.get()
    ))
}

/// The offsets in the name of such a file.
fn offsets_of(name: &str) -> Option<(Offset, Offset)> {
    let (base_offset, rest) = name.split_once('-')?;
    let base_offset = base_offset_of(&format!("{base_offset}.{EXTENSION}"), EXTENSION)?;
    Some((base_offset, base_offset_of(rest, EXTENSION)?))
}

impl<D: Disk> Log<D> {
    /// Replaces the sources by what was made of them, unless they are not all there any more or the log was truncated since
    /// `truncations` were counted. Returns whether it did.
    pub(super) async fn swap_in(
        &self,
        output: Output<D>,
        sources: &[Rc<Segment<D>>],
        truncations: u64,
    ) -> Result<bool, LogError> {
        let _entered = self.upkeep_gate.enter().await;
        self.finish_swap().await?;
        let is_there = {
            let state = self.state.borrow();
            let first = state
                .segments
                .iter()
                .position(|segment| Rc::ptr_eq(segment, &sources[0]));
            let there = first.into_iter().flat_map(|first| state.segments.iter().skip(first));
            there.zip(sources).filter(|(a, b)| Rc::ptr_eq(a, b)).count() == sources.len()
                && state.compaction.truncations == truncations
        };
        if !is_there || self.compactor.halted.get() {
            return Ok(false);
        }
        let last = sources.last().expect("at least one segment is replaced");
        let (base_offset, next_offset) = (output.base_offset(), last.extent.get().next_offset);
        // Recovery adjusts it, so it must know what goes, and must not point into it.
        self.write_checkpoint(Purpose::Routine).await?;
        // They live on in their open files, for those who read them.
        let mut files = Vec::with_capacity(sources.len());
        for source in sources {
            files.push(source.open(&self.disk).await?);
        }
        let path = swap_path(&self.directory, base_offset, next_offset);
        self.state.borrow_mut().compaction.doubtful = Some(path.clone());
        let renamed = self.disk.rename(&output.path, &path).await;
        renamed.map_err(LogError::io("rename", &path))?;
        self.replace(output, sources, path);
        // Held until nothing closes them any more.
        drop(files);
        self.finish_swap().await?;
        Ok(true)
    }

    /// The swap is bound to happen: from here on the log consists of the new segment.
    fn replace(&self, output: Output<D>, sources: &[Rc<Segment<D>>], path: PathBuf) {
        let mut state = self.state.borrow_mut();
        let base_offset = output.base_offset();
        let segment = Segment::new(
            &self.directory,
            base_offset,
            &self.memory,
            self.config().index_interval_bytes,
        );
        let last = sources.last().expect("at least one segment is replaced");
        output.fill(&segment, last.extent.get(), self.disk.open_files());
        segment.stage.set(Stage::Sealed);
        segment
            .transactions
            .open_since
            .set(sources[0].transactions.open_since.get());
        let segment = Rc::new(segment);
        let first = state
            .segments
            .iter()
            .position(|segment| Rc::ptr_eq(segment, &sources[0]));
        let first = first.expect("looked up under the same gate");
        state.segments.drain(first..first + sources.len());
        state.segments.insert(first, Rc::clone(&segment));
        for source in sources {
            source.retire();
            state.spares.forget(source.base_offset);
        }
        state.changed();
        state.compaction.doubtful = None;
        state.compaction.swap = Some(Rc::new(Swap {
            path,
            segment,
            replaced: sources.iter().map(|source| source.base_offset).collect(),
        }));
    }

    /// Finishes what was begun and failed on its way. Called by all that changes segments, under its gate.
    pub(in crate::log) async fn finish_swap(&self) -> Result<(), LogError> {
        let doubtful = self.state.borrow().compaction.doubtful.clone();
        if let Some(path) = doubtful {
            let removed = self.disk.remove_file(&path).await;
            removed.map_err(LogError::io("remove", &path))?;
            self.state.borrow_mut().compaction.doubtful = None;
        }
        let swap = self.state.borrow().compaction.swap.clone();
        let Some(swap) = swap else { return Ok(()) };
        self.state.borrow_mut().changed();
        self.write_checkpoint(Purpose::MakesRoom).await?;
        remove_replaced(&self.disk, &self.directory, swap.segment.base_offset, &swap.replaced).await?;
        match self.disk.rename(&swap.path, &swap.segment.path).await {
            // An attempt that failed may have done it.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            renamed => renamed.map_err(LogError::io("rename", &swap.path))?,
        }
        self.state.borrow_mut().compaction.swap = None;
        let segment = &swap.segment;
        segment.is_named();
        self.store_index(segment, segment.end()).await;
        self.store_aborted(segment, Offset::MAX).await;
        Ok(())
    }
}

/// Removes the files of segments whose place the one at `base_offset` takes, but for the one that it will replace by its name.
async fn remove_replaced<D: Disk>(
    disk: &D,
    directory: &Path,
    base_offset: Offset,
    replaced: &[Offset],
) -> Result<(), LogError> {
    for replaced in replaced.iter().filter(|replaced| **replaced != base_offset) {
        remove_segment_files(disk, directory, *replaced).await?;
    }
    remove_index(disk, directory, base_offset).await
}

/// Finishes or undoes what a crash has left of a compaction, before a log is opened. Returns whether names have changed.
pub(in crate::log) async fn recover<D: Disk>(
    disk: &D,
    directory: &Path,
    entries: &[DirEntry],
) -> Result<bool, LogError> {
    let mut changed = false;
    for entry in entries {
        let path = directory.join(&entry.name);
        if base_offset_of(&entry.name, output::EXTENSION).is_some() {
            disk.remove_file(&path).await.map_err(LogError::io("remove", &path))?;
            changed = true;
        } else if let Some((base_offset, next_offset)) = offsets_of(&entry.name) {
            let facts = SegmentFacts {
                base_offset: base_offset.get(),
                size: entry.size,
                next_offset: next_offset.get(),
                max_timestamp: -1,
                appended: Since::UNKNOWN,
                untimed: false,
                open_since: None,
                aborted: 0,
                transactional: false,
            };
            finish(disk, directory, &path, facts, entries).await?;
            changed = true;
        }
    }
    Ok(changed)
}

/// As [`Log::finish_swap`], for a file that the process before has left.
async fn finish<D: Disk>(
    disk: &D,
    directory: &Path,
    path: &Path,
    facts: SegmentFacts,
    entries: &[DirEntry],
) -> Result<(), LogError> {
    let checkpoint_path = directory.join(checkpoint::FILE_NAME);
    match disk.read_file(&checkpoint_path).await {
        Ok(file) => {
            let replace = move || {
                let mut checkpoint = Checkpoint::decode(&file)?;
                checkpoint.replace(facts);
                Ok::<_, String>(checkpoint.encode())
            };
            // Without one every segment is scanned.
            if let Ok(content) = disk.aside(replace).await {
                let written = match content {
                    Ok(content) => disk.replace_file_to_make_room(&checkpoint_path, content).await,
                    Err(error) => Err(error.into()),
                };
                written.map_err(LogError::io("write", &checkpoint_path))?;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(LogError::io("read", &checkpoint_path)(error)),
    }
    let base_offset = Offset::new(facts.base_offset);
    let logs = entries.iter().filter_map(|entry| base_offset_of(&entry.name, "log"));
    let replaced: Vec<Offset> = logs
        .filter(|offset| (facts.base_offset..facts.next_offset).contains(&offset.get()))
        .collect();
    remove_replaced(disk, directory, base_offset, &replaced).await?;
    let log = segment_path(directory, base_offset, "log");
    disk.rename(path, &log).await.map_err(LogError::io("rename", path))?;
    tracing::info!(path = %log.display(), replaced = replaced.len(), "finished a compaction that a crash had interrupted");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_swap_is_known_by_its_name() {
        let path = swap_path(Path::new("/d"), Offset::new(7), Offset::new(90));
        let name = path.file_name().and_then(|name| name.to_str()).unwrap();
        assert_eq!(name, "00000000000000000007-00000000000000000090.swap");
        assert_eq!(offsets_of(name), Some((Offset::new(7), Offset::new(90))));
        for other in ["00000000000000000007.swap", "7-90.swap", "checkpoint", "a-b.swap"] {
            assert_eq!(offsets_of(other), None);
        }
    }
}
