//! Names and small whole files through `std::fs`: for threads that may wait. Blocking, so it belongs to no core; a core calls it
//! on its blocking pool. Shares one [`Reserve`] among all threads of a broker, for a disk that is full.

use std::{
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    ops::Range,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rustix::fs::{FallocateFlags, fallocate};

use super::{DirEntry, Directory, EntryKind, is_full, out_of_place, reserve::Reserve};

/// Files that are replaced at the same time, where there are several.
const REPLACED_AT_ONCE: usize = 16;

/// Blocking [`Directory`] over `std::fs`, for threads that may wait: the control plane, tools and tests. Its futures are
/// ready at once.
#[derive(Debug, Clone, Default)]
pub struct StdDirectory {
    reserve: Option<Arc<Reserve>>,
}

impl StdDirectory {
    /// Keeps a file of one mebibyte in `directory`, which must be there, whose space is given up to changes that make room on
    /// a full disk. It is made again when there is room. Clones share it.
    pub fn with_reserve(directory: &Path) -> StdDirectory {
        let reserve = Reserve::new(directory);
        reserve.refill();
        StdDirectory {
            reserve: Some(Arc::new(reserve)),
        }
    }

    /// Writes the file that is to take the place of that at `path`, and that must be flushed before it does.
    pub(super) fn begin_replacing(&self, path: &Path, content: &[u8]) -> io::Result<(std::fs::File, Replacement)> {
        self.refill();
        let parent = Self::open_parent(path)?;
        let mut temporary = path.as_os_str().to_owned();
        temporary.push(".tmp");
        let temporary = PathBuf::from(temporary);
        let written = std::fs::File::create(&temporary).and_then(|mut file| {
            file.write_all(content)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                let path = path.to_owned();
                Ok((
                    file,
                    Replacement {
                        temporary,
                        path,
                        parent,
                    },
                ))
            }
            Err(error) => Err(abandon(&temporary, error)),
        }
    }

    fn replace(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let (file, replacement) = self.begin_replacing(path, content)?;
        replacement.finish(file.sync_all())?.sync_all()
    }

    fn replace_to_make_room(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        match (self.replace(path, content), &self.reserve) {
            (Err(error), Some(reserve)) if is_full(&error) => {
                reserve.become_file(path, content)?;
                Self::sync_parent(path)
            }
            (replaced, _) => replaced,
        }
    }

    /// Space may have become free.
    fn refill(&self) {
        if let Some(reserve) = &self.reserve {
            reserve.refill();
        }
    }

    pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
        Self::open_parent(path)?.sync_all()
    }

    fn remove(&self, path: &Path, remove: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
        let removed = Self::open_parent(path).and_then(|parent| {
            remove(path)?;
            parent.sync_all()
        });
        match removed {
            Ok(()) => {
                self.refill();
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// To be opened before anything is done: if there is no descriptor left for it, nothing has been.
    fn open_parent(path: &Path) -> io::Result<std::fs::File> {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => std::fs::File::open(parent),
            _ => std::fs::File::open("."),
        }
    }
}

/// A file that is to take the place of another.
#[derive(Debug)]
pub(super) struct Replacement {
    temporary: PathBuf,
    path: PathBuf,
    /// Opened before anything was done: if there had been no descriptor left for it, nothing would have been.
    parent: std::fs::File,
}

impl Replacement {
    /// Takes its place if it was flushed. The directory that this returns must be flushed too before the change is durable.
    pub(super) fn finish(self, flushed: io::Result<()>) -> io::Result<std::fs::File> {
        if let Err(error) = flushed {
            return Err(abandon(&self.temporary, error));
        }
        std::fs::rename(&self.temporary, &self.path)?;
        Ok(self.parent)
    }
}

/// What there is of a temporary file would only take space.
fn abandon(temporary: &Path, error: io::Error) -> io::Error {
    let _ = std::fs::remove_file(temporary);
    error
}

impl Directory for StdDirectory {
    async fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = path;
        while !at.as_os_str().is_empty() && !at.is_dir() {
            missing.push(at.to_path_buf());
            match at.parent() {
                Some(parent) => at = parent,
                None => break,
            }
        }
        for directory in missing.iter().rev() {
            let parent = Self::open_parent(directory)?;
            match std::fs::create_dir(directory) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            parent.sync_all()?;
        }
        Ok(())
    }

    async fn create_dirs(&self, paths: &[PathBuf]) -> io::Result<()> {
        for path in paths {
            match std::fs::create_dir(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        paths.first().map_or(Ok(()), |path| Self::sync_parent(path))
    }

    async fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        match kind_of(std::fs::symlink_metadata(path)?.file_type()) {
            EntryKind::Directory => {}
            kind => return Err(out_of_place(kind)),
        }
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            // Names that are not UTF-8 are nobody's we know: they are left alone by not being listed.
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(DirEntry {
                    name,
                    kind: kind_of(metadata.file_type()),
                    size: if metadata.is_file() { metadata.len() } else { 0 },
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    async fn read_file(&self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    async fn read_part(&self, path: &Path, position: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(position))?;
        let mut bytes = Vec::new();
        file.take(length as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    async fn replace_file(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.replace(path, &content)
    }

    async fn replace_file_to_make_room(&self, path: &Path, content: Vec<u8>) -> io::Result<()> {
        self.replace_to_make_room(path, &content)
    }

    async fn replace_files_to_make_room(&self, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
        let next = AtomicUsize::new(0);
        let replace_some = || -> io::Result<()> {
            while let Some((path, content)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.replace_to_make_room(path, content)?;
            }
            Ok(())
        };
        // Their flushes share the commits of the file system's journal.
        thread::scope(|scope| {
            let others: Vec<_> = (1..REPLACED_AT_ONCE.min(files.len()))
                .map(|_| scope.spawn(replace_some))
                .collect();
            let own = replace_some();
            let all = others.into_iter().map(thread::ScopedJoinHandle::join);
            all.fold(own, |all, other| {
                let other = other.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                all.and(other)
            })
        })
    }

    async fn give_back(&self, path: &Path, parts: &[Range<u64>]) -> io::Result<()> {
        let file = std::fs::OpenOptions::new().write(true).open(path)?;
        for part in parts {
            let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, how, part.start, part.end - part.start)?;
        }
        // The space is free when the file system's journal says so.
        file.sync_all()
    }

    async fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let parent = Self::open_parent(to)?;
        std::fs::rename(from, to)?;
        parent.sync_all()
    }

    async fn rename_all(&self, names: &[(PathBuf, PathBuf)]) -> io::Result<()> {
        let Some((_, first)) = names.first() else {
            return Ok(());
        };
        let parent = Self::open_parent(first)?;
        for (from, to) in names {
            std::fs::rename(from, to)?;
        }
        parent.sync_all()
    }

    async fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove(path, |path| std::fs::remove_file(path))
    }

    async fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove(path, remove_tree)
    }

    async fn remove_dirs_all(&self, paths: &[PathBuf]) -> io::Result<()> {
        let Some(first) = paths.first() else {
            return Ok(());
        };
        let parent = Self::open_parent(first)?;
        for path in paths {
            match remove_tree(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        parent.sync_all()?;
        self.refill();
        Ok(())
    }
}

fn kind_of(file_type: std::fs::FileType) -> EntryKind {
    if file_type.is_file() {
        EntryKind::File
    } else if file_type.is_dir() {
        EntryKind::Directory
    } else if file_type.is_symlink() {
        EntryKind::Link
    } else {
        EntryKind::Other
    }
}

/// Removes whatever has this name; links are not followed.
fn remove_tree(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(path),
        Ok(found) => {
            if found.is_symlink() {
                let target = std::fs::read_link(path).unwrap_or_default();
                tracing::warn!(path = %path.display(), target = %target.display(), "a symbolic link is removed, and what it leads to is left");
            }
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> T {
        future.now_or_never().unwrap()
    }

    #[test]
    fn many_files_are_replaced_at_once_and_an_error_is_told() {
        let temporary = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = StdDirectory::default();
        let file = |number: usize| {
            (
                temporary.path().join(number.to_string()),
                vec![u8::try_from(number).unwrap(); number],
            )
        };
        let mut files: Vec<_> = (0..50).map(file).collect();
        now(disk.replace_files_to_make_room(&files)).unwrap();
        for (path, content) in &files {
            assert_eq!(&std::fs::read(path).unwrap(), content);
        }
        assert_eq!(now(disk.read_part(&files[40].0, 35, 10)).unwrap(), [40; 5]);
        assert!(now(disk.read_part(&files[40].0, 40, 10)).unwrap().is_empty());
        files[20].0 = temporary.path().join("missing").join("20");
        assert!(now(disk.replace_files_to_make_room(&files)).is_err());
        now(disk.replace_files_to_make_room(&[])).unwrap();
    }

    #[test]
    fn what_is_given_back_is_free_and_reads_as_zeros() {
        use std::os::unix::fs::MetadataExt as _;
        let temporary = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = StdDirectory::default();
        let path = temporary.path().join("file");
        now(disk.replace_file(&path, vec![7; 64 << 10])).unwrap();
        let before = std::fs::metadata(&path).unwrap().blocks();
        now(disk.give_back(&path, &[8 << 10..16 << 10, 32 << 10..64 << 10])).unwrap();
        assert_eq!(before - std::fs::metadata(&path).unwrap().blocks(), (8 + 32) * 2);
        let mut expected = vec![7; 64 << 10];
        expected[8 << 10..16 << 10].fill(0);
        expected[32 << 10..].fill(0);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn many_directories_are_made_renamed_and_removed_at_once_and_any_that_are_there_or_gone_already_do_not_matter() {
        let temporary = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let disk = StdDirectory::default();
        let path = |name: &str| temporary.path().join(name);
        let names = || -> Vec<String> {
            let entries = now(disk.list(temporary.path())).unwrap();
            entries.into_iter().map(|entry| entry.name).collect()
        };
        now(disk.create_dir(&path("b"))).unwrap();
        now(disk.create_dirs(&[path("a"), path("b"), path("c")])).unwrap();
        assert_eq!(names(), ["a", "b", "c"]);
        std::fs::write(path("a").join("file"), "x").unwrap();
        now(disk.rename_all(&[(path("a"), path("d")), (path("b"), path("e"))])).unwrap();
        assert_eq!(names(), ["c", "d", "e"]);
        now(disk.remove_dirs_all(&[path("x"), path("d"), path("e")])).unwrap();
        assert_eq!(names(), ["c"]);
        now(disk.create_dirs(&[])).unwrap();
        now(disk.rename_all(&[])).unwrap();
        now(disk.remove_dirs_all(&[])).unwrap();
    }
}
