//! A small file system in a file, mounted as a loop device, which takes the rights of root.

use std::{
    fs,
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rustix::fs::{MemfdFlags, memfd_create};
use tempfile::TempDir;

const DISK_BYTES: u64 = 64 << 20;

/// An empty file in memory, for what lies below a file system whose flushes nobody asks about: a real disk would take long for each.
pub struct MemoryFile {
    path: PathBuf,
    /// It is there as long as this is open, or a loop device has it.
    _file: OwnedFd,
}

impl MemoryFile {
    pub fn new() -> MemoryFile {
        let file = memfd_create("image", MemfdFlags::CLOEXEC).unwrap();
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()));
        MemoryFile { path, _file: file }
    }

    /// Where every process of this machine finds it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A mounted file system of its own; unmounted when it is dropped.
pub struct SmallDisk {
    image: MemoryFile,
    mount: PathBuf,
    _temporary: TempDir,
}

impl SmallDisk {
    /// For a test of this name, mounted with these options. `None`, and a sentence on why, where that is not possible.
    pub fn new(test: &str, options: &str) -> Option<SmallDisk> {
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (image, mount) = (MemoryFile::new(), temporary.path().join("mount"));
        fs::File::create(image.path()).unwrap().set_len(DISK_BYTES).unwrap();
        fs::create_dir(&mount).unwrap();
        // No blocks reserved for root: the broker may be root, and would not notice that the disk is full.
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-m", "0"])
            .arg(image.path())
            .output();
        let mounted = made.and_then(|made| {
            let mut mounting = succeeded(made)?;
            mounting.args(["-o", options]).arg(image.path()).arg(&mount).output()
        });
        if let Err(error) = mounted.and_then(succeeded) {
            super::skip(test, &format!("no small file system can be mounted here: {error}"));
            return None;
        }
        Some(SmallDisk {
            image,
            mount,
            _temporary: temporary,
        })
    }

    /// Where a broker may have its data.
    pub fn directory(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// The block device below it.
    pub fn device(&self) -> PathBuf {
        let output = Command::new("losetup")
            .args(["--noheadings", "--output", "NAME", "--associated"])
            .arg(self.image.path())
            .output()
            .unwrap();
        PathBuf::from(String::from_utf8(output.stdout).unwrap().trim())
    }

    /// A file that takes all space but so many bytes.
    pub fn fill(&self, but_bytes: u64) -> Ballast {
        let number = fs::read_dir(&self.mount).unwrap().count();
        let path = self.mount.join(format!("ballast-{number}"));
        let file = fs::File::create(&path).unwrap();
        let mut len = 0;
        // Smaller and smaller pieces: the file's own bookkeeping takes space too, and the broker gives some back.
        for piece in [1 << 20, 64 << 10, 4 << 10] {
            while self.free_bytes() >= but_bytes + piece
                && rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), len, piece).is_ok()
            {
                len += piece;
            }
        }
        Ballast { path }
    }

    fn free_bytes(&self) -> u64 {
        let found = rustix::fs::statvfs(&self.mount).unwrap();
        found.f_bavail * found.f_frsize
    }
}

/// What the next command is built from: `mount`, if this one has succeeded.
fn succeeded(output: Output) -> std::io::Result<Command> {
    if output.status.success() {
        return Ok(Command::new("mount"));
    }
    let reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(std::io::Error::other(reason))
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The broker is gone; if anything else still looks at it, the mount goes as soon as that does.
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.mount).output();
        if let Err(error) = unmounted.and_then(succeeded) {
            eprintln!("{} stays mounted: {error}", self.mount.display());
        }
    }
}

/// What fills a disk.
pub struct Ballast {
    path: PathBuf,
}

impl Ballast {
    pub fn free(self) {
        fs::remove_file(self.path).unwrap();
    }
}
