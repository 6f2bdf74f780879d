//! A partition's directory: its segments, and what the small files beside them say that these must be like.
//!
//! What a crash has left between two steps of retention or compaction is taken for what the next start makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::Damage;
use super::listing::{Entry, base_offset_of, sorted_entries, swap_of};
use crate::failure::Failure;

/// How often a partition in which something is wrong is looked at again while a broker uses it.
const LOOKS_AGAIN_MAX: usize = 8;

/// A segment file.
#[derive(Debug, Clone)]
pub struct Segment {
    pub path: PathBuf,
    pub base_offset: u64,
    pub size: u64,
    /// Compaction may have taken out offsets.
    pub has_holes: bool,
    /// Base offset of the one behind it.
    pub next: Option<u64>,
    /// A broker appends to it.
    pub is_written: bool,
    /// Up to here it was durable and whole when the last checkpoint was written, in bytes.
    pub settled: u64,
}

/// A partition as its files say it is.
#[derive(Debug)]
pub struct Partition {
    /// Name of the directory: topic and number.
    pub name: String,
    pub segments: Vec<Segment>,
    /// What is wrong besides the bytes of segments.
    pub damage: Vec<Damage>,
}

impl Partition {
    /// Topic and number.
    pub fn split_name(&self) -> (&str, i32) {
        topic_and_number(&self.name).unwrap_or((&self.name, -1))
    }

    /// Bytes of all segments.
    pub fn size(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }
}

/// What a partition's directory is named after.
pub fn topic_and_number(name: &str) -> Option<(&str, i32)> {
    let (topic, number) = name.rsplit_once('-')?;
    Some((topic, number.parse().ok()?))
}

/// The checkpoint, as far as it says what segments must be like.
#[derive(Debug, Default, Deserialize)]
struct Checkpoint {
    log_start_offset: u64,
    recovery: Recovery,
    segments: Vec<Known>,
}

/// From where on recovery looks at segments; every one before it is known.
#[derive(Debug, Default, Deserialize)]
struct Recovery {
    segment: u64,
}

/// A segment up to which the log was durable.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Known {
    base_offset: u64,
    size: u64,
    next_offset: u64,
}

impl Checkpoint {
    /// Retention was about to remove it, or has.
    fn lets_go(&self, known: &Known) -> bool {
        known.base_offset < self.recovery.segment && known.next_offset <= self.log_start_offset
    }
}

/// How far the log was compacted.
#[derive(Debug, Default, Deserialize)]
struct Compaction {
    holes_below: u64,
}

/// A small file with a first line that has the CRC-32C of the JSON behind it.
fn read_sealed<T: DeserializeOwned>(path: &Path, format: &str) -> Result<Option<T>, String> {
    let file = match fs::read(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("it cannot be read: {error}")),
    };
    let end_of_line = file.iter().position(|byte| *byte == b'\n');
    let (head, body) = file.split_at(end_of_line.ok_or("it has no first line")?);
    let body = &body[1..];
    let stored = std::str::from_utf8(head)
        .ok()
        .and_then(|head| head.strip_prefix(format));
    let stored = stored.ok_or_else(|| format!("it does not begin with '{format}'"))?;
    if stored.trim() != format!("{:08x}", crc32c::crc32c(body)) {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_slice(body)
        .map(Some)
        .map_err(|error| error.to_string())
}

/// Finds out what is in a partition's directory.
pub fn read(directory: &Path, is_in_use: bool) -> Result<Partition, Failure> {
    let mut partition = look(directory, is_in_use)?;
    for _ in 0..LOOKS_AGAIN_MAX {
        if partition.damage.is_empty() || !is_in_use {
            break;
        }
        // The broker may have changed something between two things that were read.
        partition = look(directory, is_in_use)?;
    }
    Ok(partition)
}

fn look(directory: &Path, is_in_use: bool) -> Result<Partition, Failure> {
    let mut damage = Vec::new();
    let mut found = |name: &str, reason: String| damage.push(Damage::of_file(directory.join(name), reason));
    let checkpoint: Checkpoint = read_sealed(&directory.join("checkpoint"), "headwater-checkpoint 1")
        .unwrap_or_else(|error| {
            found("checkpoint", error);
            None
        })
        .unwrap_or_default();
    // When it is not known where offsets may be missing, they may be anywhere.
    let compaction: Compaction = read_sealed(&directory.join("compaction"), "headwater-compaction 1")
        .unwrap_or_else(|error| {
            found("compaction", error);
            Some(Compaction { holes_below: u64::MAX })
        })
        .unwrap_or_default();
    let (files, known) = settle(sorted_entries(directory)?, &checkpoint);
    for lost in known.values().filter(|known| !files.contains_key(&known.base_offset)) {
        if lost.size > 0 && !checkpoint.lets_go(lost) {
            found(
                &format!("{:020}.log", lost.base_offset),
                "the file is missing".to_owned(),
            );
        }
    }
    let mut following: Vec<Option<u64>> = files.keys().skip(1).copied().map(Some).collect();
    following.push(None);
    let segments = files
        .into_iter()
        .zip(following)
        .map(|((base_offset, file), next)| Segment {
            path: directory.join(&file.name),
            base_offset,
            size: file.size,
            has_holes: base_offset < compaction.holes_below,
            next,
            is_written: is_in_use && next.is_none(),
            settled: known.get(&base_offset).map_or(0, |known| known.size),
        });
    Ok(Partition {
        segments: segments.collect(),
        name: directory.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        damage,
    })
}

/// The segments' files and what is known of them, by their base offsets, once what was begun is finished.
fn settle(entries: Vec<Entry>, checkpoint: &Checkpoint) -> (BTreeMap<u64, Entry>, BTreeMap<u64, Known>) {
    let known = checkpoint.segments.iter();
    let mut known: BTreeMap<u64, Known> = known.map(|known| (known.base_offset, *known)).collect();
    let mut files = BTreeMap::new();
    let mut swaps = Vec::new();
    for entry in entries.into_iter().filter(|entry| entry.is_file) {
        if let Some(base_offset) = base_offset_of(&entry.name) {
            files.insert(base_offset, entry);
        } else if let Some(offsets) = swap_of(&entry.name) {
            swaps.push((offsets, entry));
        }
    }
    for ((base_offset, next_offset), entry) in swaps {
        let is_replaced = |other: &u64| (base_offset..next_offset).contains(other);
        files.retain(|other, _| !is_replaced(other));
        known.retain(|other, _| !is_replaced(other));
        let size = entry.size;
        let whole = Known {
            base_offset,
            size,
            next_offset,
        };
        known.insert(base_offset, whole);
        files.insert(base_offset, entry);
    }
    files.retain(|base_offset, _| {
        let is_kept = |known: &Known| !checkpoint.lets_go(known);
        *base_offset >= checkpoint.recovery.segment || known.get(base_offset).is_some_and(is_kept)
    });
    (files, known)
}
