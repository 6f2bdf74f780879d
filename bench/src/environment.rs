//! What the figures depend on besides the program: the machine, and how much memory the process took.
//!
//! Read from `/proc` once for each report; whatever cannot be found out is left out rather than guessed.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine and the program.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Of the bench.
    pub version: &'static str,
    /// Without optimisation figures mean nothing.
    pub optimised: bool,
    /// Release of the kernel.
    pub kernel: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Their model.
    pub cpu_model: Option<String>,
    /// Memory of the machine.
    pub memory_bytes: Option<u64>,
    /// Where the data is, if this process stores it.
    pub filesystem: Option<FileSystem>,
}

/// A mounted file system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileSystem {
    /// Such as `ext4`.
    #[serde(rename = "type")]
    pub kind: String,
    /// What is mounted.
    pub device: String,
    /// Mount options, those of the file system itself included.
    pub options: String,
}

impl Environment {
    /// As it is now; `data` is the directory of the data.
    pub fn look(data: Option<&Path>) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            version: env!("CARGO_PKG_VERSION"),
            optimised: !cfg!(debug_assertions),
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus,
            cpu_model: field("/proc/cpuinfo", "model name"),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
            filesystem: data.and_then(FileSystem::of),
        }
    }
}

impl FileSystem {
    /// The file system that a file or directory lies on.
    pub fn of(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::find(&mounts, &path)
    }

    /// Reads `/proc/self/mountinfo` (proc(5)). By path and not by device number, as btrfs shows another one there.
    fn find(mounts: &str, path: &Path) -> Option<Self> {
        let mounts = mounts.lines().filter_map(Self::parse);
        let above = mounts.filter(|(point, _)| path.starts_with(point));
        // Of several on one point the last one is on top.
        above.max_by_key(|(point, _)| point.len()).map(|(_, found)| found)
    }

    /// One line: mount point and file system.
    fn parse(line: &str) -> Option<(String, Self)> {
        let (mount, source) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(4);
        let point = mount.next()?.replace("\\040", " ");
        let options = mount.next()?;
        let mut source = source.split(' ');
        let found = Self {
            kind: source.next()?.to_owned(),
            device: source.next()?.to_owned(),
            options: format!("{options},{}", source.next()?),
        };
        Some((point, found))
    }

    /// In memory, so that nothing on it is durable and its speed says nothing of a disk.
    pub fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// Over another file system, as in containers, at a cost of its own.
    pub fn is_overlay(&self) -> bool {
        self.kind == "overlay"
    }
}

impl std::fmt::Display for FileSystem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} on {} ({})", self.kind, self.device, self.options)
    }
}

/// The most memory that this process has had resident so far, in bytes.
pub fn peak_resident_bytes() -> Option<u64> {
    field("/proc/self/status", "VmHWM").and_then(|text| kibibytes(&text))
}

/// The first `name: value` of a file.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim() == name).then(|| value.trim().to_owned())
    })
}

fn kibibytes(text: &str) -> Option<u64> {
    Some(text.strip_suffix(" kB")?.trim().parse::<u64>().ok()? << 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_lies_on_the_nearest_mount_above_it_and_the_last_one_made_there() {
        let mounts = "\
            20 1 98:0 / / rw,noatime - ext4 /dev/root rw,errors=continue\n\
            36 20 98:1 /sub /mnt/my\\040disk rw master:1 shared:2 - btrfs /dev/b ssd\n\
            37 20 0:44 / /mnt/my\\040disk rw - xfs /dev/x rw\n\
            38 20 0:45 / /mnt/my ro - tmpfs tmpfs size=1g\n\
            broken\n";
        let kind = |path: &str| FileSystem::find(mounts, Path::new(path)).unwrap().kind;
        assert_eq!(kind("/mnt/my disk/data"), "xfs");
        assert_eq!(kind("/mnt/my"), "tmpfs");
        assert_eq!(kind("/mnt/myself"), "ext4");
        let root = FileSystem::find(mounts, Path::new("/home")).unwrap();
        assert_eq!(root.to_string(), "ext4 on /dev/root (rw,noatime,rw,errors=continue)");
    }

    #[test]
    fn this_process_has_had_memory() {
        assert!(peak_resident_bytes().unwrap() > 100_000);
    }
}
