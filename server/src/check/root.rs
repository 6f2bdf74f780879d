//! Reads `/proc` and `/sys` below a root that tests put elsewhere. What is absent or unreadable is `None`.

pub(super) mod cgroup;
pub(super) mod mount;
pub(super) mod storage;

use std::path::{Path, PathBuf};

use crate::config::{CpuSet, Value as _};

/// The directory that `proc` and `sys` lie in. Paths given to it are relative.
#[derive(Debug, Clone)]
pub(super) struct Root(PathBuf);

impl Root {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// This machine.
    pub(super) fn machine() -> Self {
        Self::new("/")
    }

    /// The whole file, without the white space around it.
    pub(super) fn text(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = std::fs::read_to_string(self.0.join(path)).ok()?;
        Some(text.trim().to_owned())
    }

    pub(super) fn number<T: std::str::FromStr>(&self, path: impl AsRef<Path>) -> Option<T> {
        self.text(path)?.parse().ok()
    }

    /// A list of CPUs, such as `0,2-3`.
    pub(super) fn cpus(&self, path: impl AsRef<Path>) -> Option<Vec<u16>> {
        let mut set = CpuSet::default();
        set.read(&self.text(path)?).ok()?;
        Some(set.iter().collect())
    }

    /// The word in brackets of a choice, such as `madvise` of `always [madvise] never`.
    pub(super) fn chosen(&self, path: impl AsRef<Path>) -> Option<String> {
        let text = self.text(path)?;
        let chosen = text.split_once('[')?.1.split_once(']')?.0;
        Some(chosen.to_owned())
    }

    /// The names in a directory, in order; none if it is not there.
    pub(super) fn names(&self, directory: impl AsRef<Path>) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join(directory))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Where a symbolic link of `/sys` leads, with all links resolved; below the root as well.
    pub(super) fn resolve(&self, path: impl AsRef<Path>) -> Option<PathBuf> {
        self.0.join(path).canonicalize().ok()
    }
}

/// `3` of `cpu3`, given the prefix `cpu`; none for `cpufreq`.
pub(super) fn numbered(name: &str, prefix: &str) -> Option<u16> {
    name.strip_prefix(prefix)?.parse().ok()
}

/// `0-3,6` for CPUs in rising order.
pub(super) fn shown(cpus: &[u16]) -> String {
    cpus.chunk_by(|a, b| a + 1 == *b)
        .map(|run| match run {
            [only] => only.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect::<Vec<_>>()
        .join(",")
}

/// For people: a tenth of the unit is enough, and none if it is whole.
pub(crate) fn rounded(bytes: u64) -> String {
    bytesize::ByteSize::b(bytes)
        .display()
        .iec()
        .to_string()
        .replace(".0 ", " ")
}

/// `2 connections`, `1 connection`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_shown_as_ranges() {
        assert_eq!(shown(&[0, 1, 2, 3, 6, 8, 9]), "0-3,6,8-9");
        assert_eq!(shown(&[]), "");
    }

    #[test]
    fn what_is_not_there_is_none() {
        let root = Root::new("/nowhere");
        assert_eq!(root.text("proc/version"), None);
        assert_eq!(root.number::<u32>("proc/x"), None);
        assert!(root.names("sys").is_empty());
    }
}
