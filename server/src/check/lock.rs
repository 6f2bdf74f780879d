//! One broker per data directory: an flock(2) on a file in it, held for the life of the process.
//!
//! The lock goes with the process however it ends, so that nothing is left to clean up after a crash. The file holds the
//! process id of its owner, for people only; it is never removed, since a removal races with the next owner.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

use super::lock_path;

/// The data directory is ours while this lives.
#[derive(Debug)]
pub struct DirectoryLock {
    file: File,
}

impl DirectoryLock {
    /// Takes the lock. `WouldBlock`: another process has it, which the error names.
    pub fn take(directory: &Path) -> io::Result<Self> {
        let path = lock_path(directory);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                file.read_to_string(&mut owner)?;
                let message = format!(
                    "The data directory {} is in use by process {}",
                    directory.display(),
                    owner.trim()
                );
                return Err(io::Error::new(io::ErrorKind::WouldBlock, message));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        // On a full disk the lock holds without the number.
        match writeln!(file, "{}", std::process::id()) {
            Err(error) if error.kind() != io::ErrorKind::StorageFull => Err(error),
            _ => Ok(Self { file }),
        }
    }
}

impl Drop for DirectoryLock {
    /// To close the file is not enough where the broker runs inside another program: if that starts a process just now, the new
    /// one has the file too, from fork(2) to execve(2), and with it the lock.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_goes_even_if_a_process_that_was_started_meanwhile_has_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap();
        assert!(DirectoryLock::take(directory.path()).is_err(), "the lock is held");
        let of_the_new_process = lock.file.try_clone().unwrap();
        drop(lock);
        assert!(DirectoryLock::take(directory.path()).is_ok(), "and is let go of");
        drop(of_the_new_process);
    }
}
