//! What the figures depend on besides the program: the machine, and how much memory the process took.
//!
//! Read from `/proc` once for each report; whatever cannot be found out is left out rather than guessed.

use std::fs;
use std::path::Path;

use headwater_server::check::Mount;
use serde::Serialize;

/// The machine and the program.
#[derive(Debug, Clone, Serialize)]
pub struct Environment {
    /// Of the bench.
    pub version: &'static str,
    /// Without optimisation figures mean nothing.
    pub optimised: bool,
    /// The commit it was built from, if that was known.
    pub commit: Option<&'static str>,
    /// Release of the kernel.
    pub kernel: String,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Their model.
    pub cpu_model: Option<String>,
    /// How their frequency is governed.
    pub governor: Option<String>,
    /// Memory of the machine.
    pub memory_bytes: Option<u64>,
    /// Where the data is, if this process stores it.
    pub filesystem: Option<FileSystem>,
    /// The block device below it.
    pub disk: Option<Disk>,
}

/// A block device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Disk {
    /// Such as `nvme0n1`.
    pub name: String,
    /// What it calls itself.
    pub model: Option<String>,
    /// The scheduler of its queue.
    pub scheduler: Option<String>,
    /// `write back` or `write through`.
    pub write_cache: Option<String>,
    /// In bytes.
    pub size_bytes: Option<u64>,
}

impl Disk {
    /// The one that a file or directory lies on, if it is a plain one.
    fn of(path: &Path) -> Option<Self> {
        let device = rustix::fs::stat(path).ok()?.st_dev;
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let place = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")).ok()?;
        // The queue of a partition is that of the whole device.
        let whole = if place.join("partition").exists() {
            place.parent()?.to_owned()
        } else {
            place
        };
        let read = |name: &str| {
            let text = fs::read_to_string(whole.join(name)).ok()?;
            Some(text.trim().to_owned()).filter(|text| !text.is_empty())
        };
        // The one in use stands in brackets.
        let in_use = |text: String| text.split_once('[')?.1.split_once(']').map(|(name, _)| name.to_owned());
        Some(Self {
            name: whole.file_name()?.to_string_lossy().into_owned(),
            model: read("device/model"),
            scheduler: read("queue/scheduler").and_then(in_use),
            write_cache: read("queue/write_cache"),
            // In sectors of 512 bytes, whatever the device has.
            size_bytes: read("size").and_then(|text| text.parse::<u64>().ok()?.checked_mul(512)),
        })
    }
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
            commit: headwater_server::COMMIT,
            kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
            cpus,
            cpu_model: field("/proc/cpuinfo", "model name"),
            governor: fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .ok()
                .map(|text| text.trim().to_owned()),
            memory_bytes: field("/proc/meminfo", "MemTotal").and_then(|text| kibibytes(&text)),
            filesystem: data.and_then(FileSystem::of),
            disk: data.and_then(Disk::of),
        }
    }
}

impl FileSystem {
    /// The file system that a file or directory lies on.
    pub fn of(path: &Path) -> Option<Self> {
        let Mount {
            kind, source, options, ..
        } = Mount::of(path)?;
        Some(Self {
            kind,
            device: source,
            options: options.join(","),
        })
    }

    /// In memory, so that nothing on it is durable and its speed says nothing of a disk.
    pub fn is_memory(&self) -> bool {
        matches!(self.kind.as_str(), "tmpfs" | "ramfs")
    }

    /// A plain disk: not memory, and not over another file system, as in containers, at a cost of its own.
    pub fn is_disk(&self) -> bool {
        !self.is_memory() && self.kind != "overlay"
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
    fn this_process_has_had_memory() {
        assert!(peak_resident_bytes().unwrap() > 100_000);
    }
}
