//! Where a broker in this process has its data: a new directory on a real disk, which is gone when the bench is.
//!
//! Whoever makes one locks a file in it for as long as it lives, and the kernel lets go of the lock however the process ends. So the
//! next bench knows which directories beside its own were left by one that was killed, and removes those and nothing else: what
//! is kept on purpose has no such file.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags};
use tempfile::TempDir;

use crate::environment::FileSystem;
use crate::error::BenchError;

/// What is left free on the disk, in bytes.
const RESERVE: u64 = 1 << 30;

/// How the names of the directories begin.
const PREFIX: &str = "headwater-bench-";

/// Locked by whoever the directory belongs to.
const OWNER: &str = "bench-owner";

/// Where the data is.
#[derive(Debug)]
pub struct DataDirectory {
    // Before the lock, so that nobody else takes it for left over while it is removed.
    directory: TempDir,
    /// Locked, unless the directory is to stay.
    owner: Option<File>,
    /// What the user should know about it.
    pub notes: Vec<String>,
}

impl DataDirectory {
    /// Makes a new directory: in `parent`, or else on the first of the usual places that is a real disk. What benches that were
    /// killed have left there is removed.
    pub fn make(parent: Option<&Path>, keep: bool) -> Result<Self, BenchError> {
        let mut notes = Vec::new();
        let parent = match parent {
            Some(parent) => {
                fs::create_dir_all(parent).map_err(|source| BenchError::Directory {
                    path: parent.to_owned(),
                    source,
                })?;
                if let Some(filesystem) = FileSystem::of(parent).filter(|found| !found.is_disk()) {
                    notes.push(format!(
                        "the data is on {filesystem}: the figures are not those of a disk"
                    ));
                }
                parent.to_owned()
            }
            None => usual_place(&mut notes)?,
        };
        remove_leftovers(&parent, &mut notes);
        let failed = |source| BenchError::Directory {
            path: parent.clone(),
            source,
        };
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .disable_cleanup(keep)
            .tempdir_in(&parent)
            .map_err(failed)?;
        let owner = if keep {
            notes.push(format!("the data stays in {}", directory.path().display()));
            None
        } else {
            Some(own(directory.path()).map_err(failed)?)
        };
        Ok(Self {
            directory,
            owner,
            notes,
        })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How many bytes of records it can take. Compression is not counted on.
    pub fn room(&self) -> Result<u64, BenchError> {
        let statistics = rustix::fs::statvfs(self.path()).map_err(|error| BenchError::Directory {
            path: self.path().to_owned(),
            source: error.into(),
        })?;
        let free = statistics.f_bavail * statistics.f_frsize;
        // Keys and headers of batches come on top of the values, and most so for small ones.
        Ok(free.saturating_sub(RESERVE) / 2)
    }
}

impl Drop for DataDirectory {
    fn drop(&mut self) {
        if self.owner.is_some() {
            // The directory itself goes with its own drop, which tries once more.
            let _ = empty(self.path());
        }
    }
}

/// Removes everything in a directory but the file that tells whose it is: if that is cut short, the next bench goes on.
fn empty(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name() == OWNER {
            continue;
        }
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Puts the locked file into a directory. It is there only once it is locked.
fn own(directory: &Path) -> io::Result<File> {
    let unlocked = directory.join("bench-owner.new");
    let file = File::create_new(&unlocked)?;
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
    fs::rename(unlocked, directory.join(OWNER))?;
    Ok(file)
}

/// Removes the directories of owners that are gone. What cannot be looked at or removed is somebody else's, or stays as it is.
fn remove_leftovers(parent: &Path, notes: &mut Vec<String>) {
    let entries = fs::read_dir(parent).into_iter().flatten().filter_map(Result::ok);
    let ours = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for path in ours.map(|entry| entry.path()) {
        let Some(_lock) = abandoned(&path) else {
            continue;
        };
        let removed = match empty(&path).and_then(|()| fs::remove_dir_all(&path)) {
            Ok(()) => "removed",
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => &format!("could not remove ({error})"),
        };
        let path = path.display();
        notes.push(format!("{removed} {path}, the data of a bench that was killed"));
    }
}

/// The lock of a directory whose owner is gone; `None` of any other.
fn abandoned(path: &Path) -> Option<File> {
    let found = fs::symlink_metadata(path).ok()?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file: File = rustix::fs::open(path.join(OWNER), flags, Mode::empty()).ok()?.into();
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    Some(file)
}

/// The first of the usual places that is a real disk; else the first that is at least no memory.
pub fn usual_place(notes: &mut Vec<String>) -> Result<PathBuf, BenchError> {
    let target = PathBuf::from("target");
    let places = [
        target,
        std::env::temp_dir(),
        PathBuf::from("/var/tmp"),
        PathBuf::from("."),
    ];
    let known: Vec<_> = places
        .into_iter()
        .filter(|place| place.is_dir())
        .filter_map(|place| Some((FileSystem::of(&place)?, place)))
        .collect();
    if let Some((_, place)) = known.iter().find(|(filesystem, _)| filesystem.is_disk()) {
        return Ok(place.clone());
    }
    let (filesystem, place) = known
        .into_iter()
        .find(|(filesystem, _)| !filesystem.is_memory())
        .ok_or_else(|| {
            BenchError::Options(
                "there is no disk to be found for the data: name a directory on one with --data-dir".into(),
            )
        })?;
    notes.push(format!(
        "the data is on {filesystem}, as no plain disk was found: name one with --data-dir"
    ));
    Ok(place)
}

/// Tells the kernel that the pages of all files in a directory are not needed any more. What is not written yet stays.
pub fn drop_page_cache(directory: &Path) -> Result<(), BenchError> {
    let failed = |source: std::io::Error| BenchError::Directory {
        path: directory.to_owned(),
        source,
    };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.is_dir() {
            drop_page_cache(&path)?;
        } else if path.is_file() {
            let file = fs::File::open(&path).map_err(failed)?;
            let advised = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
            advised.map_err(|error| failed(error.into()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On the disk that cargo builds on, as the system's own directory may be memory.
    fn place() -> TempDir {
        TempDir::new_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("../target")).unwrap()
    }

    fn directory(parent: &Path, name: &str) -> PathBuf {
        let path = parent.join(name);
        fs::create_dir_all(path.join("bench-0")).unwrap();
        fs::write(path.join("bench-0/00000000000000000000.log"), "records").unwrap();
        path
    }

    /// Lets go of a lock as when its process ends. To close the file is not enough: a program that another test starts at this
    /// moment has it too, from fork(2) to execve(2).
    fn let_go(lock: &File) {
        rustix::fs::flock(lock, FlockOperation::Unlock).unwrap();
    }

    #[test]
    fn only_what_a_bench_has_left_that_is_gone_is_removed() {
        let place = place();
        let parent = place.path();
        let killed = directory(parent, "headwater-bench-killed");
        let_go(&own(&killed).unwrap());
        let running = directory(parent, "headwater-bench-running");
        let lock = own(&running).unwrap();
        let kept = directory(parent, "headwater-bench-kept");
        let other = directory(parent, "precious");
        let_go(&own(&other).unwrap());
        let file = parent.join("headwater-bench-file");
        fs::write(&file, "text").unwrap();
        let link = parent.join("headwater-bench-link");
        std::os::unix::fs::symlink(&other, &link).unwrap();
        let linked_owner = directory(parent, "headwater-bench-linked-owner");
        std::os::unix::fs::symlink(other.join(OWNER), linked_owner.join(OWNER)).unwrap();

        let made = DataDirectory::make(Some(parent), false).unwrap();
        assert!(!killed.exists(), "{:?}", made.notes);
        assert!(
            made.notes
                .iter()
                .any(|note| note.contains("removed") && note.contains("killed")),
            "{:?}",
            made.notes
        );
        for path in [&running, &kept, &other, &file, &link, &linked_owner] {
            assert!(path.exists(), "{} is gone", path.display());
        }
        assert!(other.join("bench-0/00000000000000000000.log").exists());
        let_go(&lock);
        let again = DataDirectory::make(Some(parent), false).unwrap();
        assert!(!running.exists() && made.path().exists() && again.path().exists());
    }

    #[test]
    fn a_directory_that_is_kept_is_never_taken_for_left_over() {
        let place = place();
        let kept = DataDirectory::make(Some(place.path()), true).unwrap();
        let path = kept.path().to_owned();
        drop(kept);
        let made = DataDirectory::make(Some(place.path()), false).unwrap();
        assert!(path.exists());
        let of_its_own = made.path().to_owned();
        drop(made);
        assert!(!of_its_own.exists());
    }
}
