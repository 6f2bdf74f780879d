//! What a path is: a segment, a partition or a data directory.
//!
//! Follows no symbolic link to a partition or a segment, as the broker does not; opens nothing for writing and takes no lock.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::fs::{major, minor};

use super::listing::{Entry, base_offset_of, cannot, sorted_entries};
use super::partition::{self, Partition};
use crate::failure::Failure;

/// All that a path stands for.
#[derive(Debug)]
pub struct Place {
    pub partitions: Vec<Partition>,
    /// A broker that uses it has this process id.
    pub in_use_by: Option<u32>,
}

impl Place {
    /// Finds out what there is.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let found = fs::metadata(path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Failure::not_found(format!("there is no {}", path.display())),
            _ => cannot("read", path, &error),
        })?;
        let path = fs::canonicalize(path).map_err(|error| cannot("read", path, &error))?;
        if found.is_file() {
            return Self::of_segment(&path);
        }
        let is_one = is_partition(&path)?;
        let data = if is_one { path.parent() } else { Some(&*path) };
        let in_use_by = data.and_then(lock_owner);
        let mut partitions = Vec::new();
        if is_one {
            partitions.push(partition::read(&path, in_use_by.is_some())?);
        } else {
            for entry in sorted_entries(&path)? {
                let directory = path.join(&entry.name);
                if entry.is_directory && !entry.name.ends_with(".deleted") && is_partition(&directory)? {
                    partitions.push(partition::read(&directory, in_use_by.is_some())?);
                }
            }
        }
        if partitions.is_empty() {
            let message = format!("{} holds no partition", path.display());
            return Err(Failure::not_found(message)
                .hint("name a data directory, a partition's directory in it, or one of its .log files"));
        }
        Ok(Self { partitions, in_use_by })
    }

    fn of_segment(path: &Path) -> Result<Self, Failure> {
        let directory = path.parent().unwrap_or(Path::new("/"));
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if base_offset_of(&name).is_none() {
            let message = format!("{} is not a segment", path.display());
            return Err(Failure::usage(message).hint("a segment's name is 20 digits and .log"));
        }
        let in_use_by = directory.parent().and_then(lock_owner);
        let mut partition = partition::read(directory, in_use_by.is_some())?;
        partition.segments.retain(|segment| segment.path == path);
        partition.damage.retain(|damage| damage.file == path);
        Ok(Self {
            partitions: vec![partition],
            in_use_by,
        })
    }

    /// Says on standard error that what is read may change meanwhile.
    pub fn warn_if_in_use(&self) {
        if let Some(process) = self.in_use_by {
            anstream::eprintln!(
                "note: a broker (process {process}) uses this directory: what it is writing is not looked at"
            );
        }
    }
}

/// One without records has no file yet, but its place.
fn is_partition(directory: &Path) -> Result<bool, Failure> {
    let is_of_partition = |entry: &Entry| entry.name == "checkpoint" || base_offset_of(&entry.name).is_some();
    let is_in_place = || {
        let parent = directory.parent();
        // The second is of brokers before there was a quorum.
        parent.is_some_and(|parent| {
            ["quorum.redb", "topics.json"]
                .iter()
                .any(|name| parent.join(name).exists())
        })
    };
    let name = directory.file_name().unwrap_or_default().to_string_lossy();
    let is_named = partition::topic_and_number(&name).is_some() && is_in_place();
    Ok(is_named || sorted_entries(directory)?.iter().any(is_of_partition))
}

/// The process that holds the data directory's lock (flock(2)), as `/proc/locks` has it: to try the lock would take it.
fn lock_owner(data_directory: &Path) -> Option<u32> {
    let lock = fs::metadata(data_directory.join("lock")).ok()?;
    let device = lock.dev();
    let file = format!("{:02x}:{:02x}:{}", major(device), minor(device), lock.ino());
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_held = fields.next()? == "FLOCK";
        let process = fields.nth(2)?;
        (is_held && fields.next()? == file).then(|| process.parse().ok())?
    })
}
