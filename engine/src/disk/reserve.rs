//! Space that is kept for a full disk: a file that holds nothing, and becomes what must be written before anything can be deleted.
//!
//! It becomes the new file, by a rename, instead of being removed for it: whoever else waits for space could otherwise take what
//! was given up. Shared by all threads; invariant: never in use by two at once. It needs no recovery: whatever a crash leaves of it
//! is filled up at the next start.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{FallocateFlags, fallocate};

/// Name of the file.
const FILE_NAME: &str = "reserve";

/// Sizes to try, in bytes: when little room comes back, a small reserve is better than none.
const SIZES: [u64; 3] = [1 << 20, 128 << 10, 16 << 10];

#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    /// It has its full size.
    is_full: Mutex<bool>,
}

impl Reserve {
    pub(super) fn new(directory: &Path) -> Reserve {
        Reserve {
            path: directory.join(FILE_NAME),
            is_full: Mutex::new(false),
        }
    }

    fn lock(&self) -> MutexGuard<'_, bool> {
        // A flag is whole whenever its lock is free.
        self.is_full.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> io::Result<File> {
        OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&self.path)
    }

    /// Takes space, as far as there is some, if it has not all that it should.
    pub(super) fn refill(&self) {
        let mut is_full = self.lock();
        if *is_full {
            return;
        }
        let reserved = self.open().map(|file| {
            let mut sizes = SIZES.iter();
            sizes.find(|size| fallocate(&file, FallocateFlags::empty(), 0, **size).is_ok())
        });
        match reserved {
            Ok(size) => *is_full = size == SIZES.first(),
            Err(error) => tracing::debug!(path = %self.path.display(), %error, "no space can be kept for a full disk"),
        }
    }

    /// Becomes the file at `path`, atomically, with this content; its data is durable, its name not yet.
    pub(super) fn become_file(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        let mut is_full = self.lock();
        *is_full = false;
        let mut file = self.open()?;
        file.write_all(content)?;
        file.set_len(content.len() as u64)?;
        file.sync_all()?;
        std::fs::rename(&self.path, path)?;
        tracing::info!(path = %path.display(), bytes = content.len(), "the disk is full: wrote into space that was kept for that");
        Ok(())
    }
}
