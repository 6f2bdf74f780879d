//! The data directory: may the broker use it, does direct I/O work there, how much is free.
//!
//! To look changes nothing in it: the probe is a file without a name. Only where a file system has no such files, one with
//! a name is made, and removed at once.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use headwater_engine::disk::BLOCK_SIZE;
use rustix::fs::{Access, AtFlags, FallocateFlags, OFlags, StatxFlags};
use rustix::io::{Errno, ReadWriteFlags};

use super::facts::{Calls, DirectoryFacts, Facts, Probe};
use super::finding::Finding;
use super::lock_path;
use super::root::rounded;
use crate::cluster;
use crate::config::Config;

/// Segments that must fit on the disk for a partition to roll while its oldest segment waits for retention.
const SEGMENTS_FREE_MIN: u64 = 3;

/// As many are named.
const MISPLACED_MAX: usize = 8;

impl DirectoryFacts {
    /// Looks, without making the directory.
    pub(super) fn look(path: &Path) -> Self {
        let nearest = nearest(path);
        let access = Access::WRITE_OK | Access::EXEC_OK;
        let usable = if nearest.is_dir() {
            rustix::fs::access(&nearest, access).map_err(io::Error::from)
        } else {
            Err(io::ErrorKind::NotADirectory.into())
        };
        Self::with(path, nearest, usable.into())
    }

    /// Looks after an attempt to make the directory and to take its lock.
    pub(super) fn after(path: &Path, taken: Probe) -> Self {
        Self::with(path, nearest(path), taken)
    }

    fn with(path: &Path, nearest: PathBuf, usable: Probe) -> Self {
        let mut facts = Self {
            is_new: !cluster::is_in_use(path),
            lock_inode: std::fs::metadata(lock_path(path)).ok().map(|file| file.ino()),
            path: path.to_owned(),
            nearest,
            usable,
            direct_io: None,
            alignment_bytes: None,
            calls: None,
            free_bytes: None,
            misplaced: misplaced(path),
        };
        if let Probe::Passed = facts.usable {
            let direct = try_direct_io(&facts.nearest);
            facts.alignment_bytes = direct.as_ref().ok().and_then(|(alignment, _)| *alignment);
            facts.calls = direct.as_ref().ok().map(|(_, calls)| *calls);
            facts.direct_io = Some(direct.map(drop).into());
            let stat = rustix::fs::statvfs(&facts.nearest).ok();
            facts.free_bytes = stat.map(|stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        }
        facts
    }
}

/// The path, or what exists of it.
fn nearest(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let existing = absolute.ancestors().find_map(|path| path.canonicalize().ok());
    existing.unwrap_or(absolute)
}

/// Names of partitions that do not stand for directories: a broker follows no symbolic link to a partition.
fn misplaced(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let others = entries.filter(|entry| entry.file_type().is_ok_and(|file_type| !file_type.is_dir()));
    let names = others.filter_map(|entry| entry.file_name().into_string().ok());
    names
        .filter(|name| cluster::is_partition(name))
        .take(MISPLACED_MAX)
        .collect()
}

/// Writes one block the way segments are written, and flushes it. Returns the alignment that is needed, if it is known, and what
/// else the file system has.
fn try_direct_io(directory: &Path) -> io::Result<(Option<u32>, Calls)> {
    #[repr(align(4096))]
    struct Block([u8; BLOCK_SIZE]);

    let (file, mut block) = (open_direct(directory)?, Box::new(Block([0x5a; BLOCK_SIZE])));
    file.write_all_at(&block.0, 0)?;
    file.sync_data()?;
    let stat = rustix::fs::statx(&file, "", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN);
    let alignment = stat.ok().map(|stat| stat.stx_dio_offset_align);
    let mut into = [io::IoSliceMut::new(&mut block.0)];
    let unwaiting = rustix::io::preadv2(&file, &mut into, 0, ReadWriteFlags::NOWAIT);
    let allocation = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, BLOCK_SIZE as u64);
    let calls = Calls {
        unwaiting: unwaiting != Err(Errno::OPNOTSUPP),
        allocation: allocation != Err(Errno::OPNOTSUPP),
    };
    Ok((alignment.filter(|bytes| *bytes > 0), calls))
}

fn open_direct(directory: &Path) -> io::Result<File> {
    let direct = OFlags::DIRECT.bits().cast_signed();
    let nameless = OFlags::TMPFILE.bits().cast_signed();
    let opened = File::options()
        .read(true)
        .write(true)
        .custom_flags(direct | nameless)
        .open(directory);
    match opened {
        // open(2): the file system, or the kernel, has no files without a name.
        Err(error) if matches!(error.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => {}
        opened => return opened,
    }
    let path = directory.join(format!("direct-io-check-{}.tmp", std::process::id()));
    let opened = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .custom_flags(direct)
        .open(&path);
    // The file may be there although the open failed: file systems without O_DIRECT make it first.
    match std::fs::remove_file(&path) {
        Err(error) if opened.is_ok() => Err(error),
        _ => opened,
    }
}

pub(super) fn usable(facts: &Facts, _: &Config) -> Finding {
    let directory = &facts.directory;
    let path = directory.path.display();
    let recommended = "one that this user may write to";
    match &directory.usable {
        Probe::Passed => {}
        Probe::Failed(error) if error.kind() == io::ErrorKind::WouldBlock => {
            // The lock's error already names the process which holds it.
            return Finding::new(path.to_string(), recommended)
                .forbids(error.to_string())
                .advice("stop that broker, or choose another directory with --data-dir");
        }
        Probe::Failed(error) => {
            return Finding::new(path.to_string(), recommended)
                .forbids(format!("The data directory {path} cannot be made or written ({error})"))
                .advice("give this user the right to, or choose another with --data-dir");
        }
    }
    let state = match (facts.storage.owner, directory.is_new) {
        (Some(process), _) => format!("in use by a broker, process {process}"),
        (None, false) => "used before; no broker is seen to hold it".to_owned(),
        (None, true) if directory.path.exists() => "not used before".to_owned(),
        (None, true) => format!("to be made in {}", directory.nearest.display()),
    };
    Finding::new(format!("{path}, {state}"), recommended)
}

pub(super) fn direct_io(facts: &Facts, _: &Config) -> Finding {
    let directory = &facts.directory;
    let recommended = format!("in blocks of {BLOCK_SIZE} bytes or less");
    let remedy = "put it on a file system which has it, such as ext4 or XFS, with --data-dir";
    let path = directory.path.display();
    match &directory.direct_io {
        None => Finding::unseen("not tried", recommended),
        // A broker with a full disk must start: it serves what it has, and deletes what has passed its retention.
        Some(Probe::Failed(error)) if error.kind() == io::ErrorKind::StorageFull => {
            Finding::unseen("not tried: the disk is full", recommended)
        }
        Some(Probe::Failed(error)) => Finding::new(format!("does not work: {error}"), recommended)
            .forbids(format!(
                "Direct I/O (O_DIRECT) does not work in the data directory {path} ({error})"
            ))
            .advice(remedy),
        Some(Probe::Passed) => {
            let alignment = directory.alignment_bytes;
            let value = alignment.map_or_else(
                || "works".to_owned(),
                |bytes| format!("works, in blocks of {bytes} bytes"),
            );
            Finding::new(value, recommended)
        }
    }
}

pub(super) fn calls(facts: &Facts, _: &Config) -> Finding {
    let recommended = "reads that do not wait (RWF_NOWAIT), and reserving of space (fallocate)";
    let Some(Calls { unwaiting, allocation }) = facts.directory.calls else {
        return Finding::unseen("not tried", recommended);
    };
    let word = |has: bool| if has { "yes" } else { "no" };
    let finding = Finding::new(
        format!("RWF_NOWAIT: {}, fallocate: {}", word(unwaiting), word(allocation)),
        recommended,
    );
    let lacks = match (unwaiting, allocation) {
        (true, true) => return finding,
        (false, true) => {
            "cannot say what is in the page cache, so that records which are not in memory are sent through a kernel thread"
        }
        (true, false) => "cannot reserve space, so that files grow with each write and a full disk is noticed late",
        (false, false) => {
            "can neither say what is in the page cache nor reserve space, so that consumers of old records and flushes take longer"
        }
    };
    finding
        .better(format!("The file system of {} {lacks}", facts.directory.path.display()))
        .advice("choose a disk with ext4 or XFS with --data-dir")
}

pub(super) fn free_space(facts: &Facts, config: &Config) -> Finding {
    let segment = config.log.segment_size_bytes;
    let needed = segment.bytes().saturating_mul(SEGMENTS_FREE_MIN);
    let recommended = format!("{} or more ({SEGMENTS_FREE_MIN} segments)", rounded(needed));
    let Some(free) = facts.directory.free_bytes else {
        return Finding::unseen("not known", recommended);
    };
    let finding = Finding::new(rounded(free), recommended);
    if free >= needed {
        return finding;
    }
    let why = format!(
        "The disk of the data directory {} has {} free, less than {SEGMENTS_FREE_MIN} segments of {segment}",
        facts.directory.path.display(),
        rounded(free)
    );
    // Existing data must stay readable on a full disk; a new broker there has nothing to offer.
    let finding = if facts.directory.is_new {
        finding.forbids(why)
    } else {
        finding.must(why)
    };
    finding.advice("free some, choose another with --data-dir, or lower log.segment_size_bytes")
}

pub(super) fn partitions(facts: &Facts, _: &Config) -> Finding {
    let misplaced = facts.directory.misplaced.join(", ");
    let recommended = "directories, in the data directory itself";
    if misplaced.is_empty() {
        return Finding::new("directories, or none yet", recommended);
    }
    Finding::new(format!("others: {misplaced}"), recommended)
        .must(format!(
            "{misplaced} in the data directory {} is a symbolic link or a file, and the broker serves no partition from there",
            facts.directory.path.display()
        ))
        .advice("move the directory itself to its place")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_of_direct_io_is_direct_and_leaves_nothing() {
        let temporary = tempfile::tempdir().unwrap();
        let file = open_direct(temporary.path()).unwrap();
        assert!(rustix::fs::fcntl_getfl(&file).unwrap().contains(OFlags::DIRECT));
        assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_the_file_system_has_is_tried_and_not_guessed() {
        // Not where the system keeps temporary files, which may be in memory.
        let temporary = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let calls = DirectoryFacts::look(temporary.path()).calls.unwrap();
        let file = temporary.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let file = File::options().read(true).write(true).open(file).unwrap();
        let mut byte = [0];
        let mut into = [io::IoSliceMut::new(&mut byte)];
        let read = rustix::io::preadv2(&file, &mut into, 0, ReadWriteFlags::NOWAIT);
        assert_eq!(calls.unwaiting, read.is_ok());
        let allocated = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, 1);
        assert_eq!(calls.allocation, allocated.is_ok());
    }

    #[test]
    fn a_directory_is_new_until_a_broker_has_its_identity_in_it() {
        let temporary = tempfile::tempdir().unwrap();
        std::fs::create_dir(temporary.path().join("lost+found")).unwrap();
        assert!(DirectoryFacts::look(temporary.path()).is_new);
        std::fs::write(temporary.path().join(cluster::QUORUM_FILE), "").unwrap();
        assert!(!DirectoryFacts::look(temporary.path()).is_new);
    }

    #[test]
    fn only_what_is_named_as_a_partition_must_be_a_directory() {
        let temporary = tempfile::tempdir().unwrap();
        let path = |name: &str| temporary.path().join(name);
        for directory in ["orders-0", "elsewhere"] {
            std::fs::create_dir(path(directory)).unwrap();
        }
        std::os::unix::fs::symlink(path("elsewhere"), path("orders-1")).unwrap();
        std::os::unix::fs::symlink(path("nowhere"), path("links")).unwrap();
        std::fs::write(path("topics.json"), "").unwrap();
        assert_eq!(DirectoryFacts::look(temporary.path()).misplaced, ["orders-1"]);
    }

    #[test]
    fn a_directory_that_is_not_there_is_judged_by_the_nearest_above() {
        let temporary = tempfile::tempdir().unwrap();
        let facts = DirectoryFacts::look(&temporary.path().join("a/b"));
        assert_eq!(facts.nearest, temporary.path().canonicalize().unwrap());
        assert!(matches!(facts.direct_io, Some(Probe::Passed)), "{facts:?}");
        let file = temporary.path().join("file");
        std::fs::write(&file, "").unwrap();
        let facts = DirectoryFacts::look(&file.join("data"));
        assert!(matches!(&facts.usable, Probe::Failed(error) if error.kind() == io::ErrorKind::NotADirectory));
    }
}
