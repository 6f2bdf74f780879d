//! What a directory has, and what the names of a log's files say.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use crate::failure::Failure;

/// The offset that a segment's name tells.
pub fn base_offset_of(name: &str) -> Option<u64> {
    offset(name.strip_suffix(".log")?)
}

fn offset(digits: &str) -> Option<u64> {
    let is_offset = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_offset.then(|| digits.parse().ok())?
}

/// A file that compaction is about to put in the place of those with these offsets; the first, and the one behind the last.
pub fn swap_of(name: &str) -> Option<(u64, u64)> {
    let (first, next) = name.strip_suffix(".swap")?.split_once('-')?;
    Some((offset(first)?, offset(next)?))
}

/// The failure of a call of the operating system.
pub fn cannot(what: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::failed(format!("cannot {what} {}: {error}", path.display()))
}

/// A file or a directory.
#[derive(Debug)]
pub struct Entry {
    pub name: String,
    pub is_directory: bool,
    pub is_file: bool,
    pub size: u64,
}

/// What a directory has, by name; names that are not text are nobody's that is known.
pub fn sorted_entries(directory: &Path) -> Result<Vec<Entry>, Failure> {
    let read = || -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let metadata = match entry.metadata() {
                // Retention has removed it meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            if let Ok(name) = entry.file_name().into_string() {
                entries.push(Entry {
                    name,
                    is_directory: metadata.is_dir(),
                    is_file: metadata.is_file(),
                    size: metadata.len(),
                });
            }
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    };
    read().map_err(|error| cannot("list", directory, &error))
}
