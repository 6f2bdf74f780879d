//! The kernel, and what it lets this process have: rings, locked memory, open files.

use super::cores::core_count;
use super::facts::{Facts, KernelFacts, Probe};
use super::finding::Finding;
use super::root::{Root, rounded};
use crate::config::Config;

/// 5.15 is the oldest long-term kernel whose io_uring workers are threads of the process (since 5.12), bound by its
/// limits and ended with it, and whose rings are not charged to memlock.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// glommio 0.9.0 refuses to make a reactor below this (`MIN_MEMLOCK_LIMIT` in `src/sys/uring.rs`).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// A partition's active segment, and one that a consumer reads.
const FILES_PER_PARTITION: u64 = 2;

/// A connection's socket, and the handle that ends what the kernel still does with it.
const FILES_PER_CONNECTION: u64 = 2;

/// Descriptors for segment files of one core: with fewer it would do little but open and close them, and with more than the other
/// number the kernel's memory for them would be more than they are worth.
const SEGMENT_FILES_MIN: u64 = 64;
const SEGMENT_FILES_MAX: u64 = 16_384;

/// Rings, event descriptors and listeners of one core.
const FILES_PER_CORE: u64 = 32;

/// Standard streams, the lock, the control plane, metadata files.
const FILES_OF_PROCESS: u64 = 64;

impl KernelFacts {
    pub(super) fn read(root: &Root) -> Self {
        let directory = "sys/devices/system/cpu/vulnerabilities";
        let names = root.names(directory).into_iter();
        Self {
            io_uring_disabled: root.number("proc/sys/kernel/io_uring_disabled"),
            vulnerabilities: names
                .filter_map(|name| root.text(format!("{directory}/{name}")))
                .collect(),
        }
    }
}

/// `6.18.44-generic` is (6, 18).
pub(super) fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

pub(super) fn version(facts: &Facts, _: &Config) -> Finding {
    let release = &facts.asked.kernel_release;
    let (major, minor) = KERNEL_MIN;
    let finding = Finding::new(release, format!("{major}.{minor} or newer"));
    match kernel_version(release) {
        None => finding.not_judged(),
        Some(version) if version < KERNEL_MIN => finding
            .forbids(format!("The kernel is {release}"))
            .advice(format!("run on Linux {major}.{minor} or newer")),
        Some(_) => finding,
    }
}

pub(super) fn io_uring(facts: &Facts, _: &Config) -> Finding {
    let recommended = "allowed";
    let Probe::Failed(error) = &facts.asked.io_uring else {
        return Finding::new("allowed, and a ring can be made", recommended);
    };
    let finding = Finding::new(format!("no ring can be made: {error}"), recommended);
    match facts.kernel.io_uring_disabled {
        Some(value @ 1..) => finding
            .forbids(format!(
                "io_uring is switched off by kernel.io_uring_disabled = {value}"
            ))
            .command("sysctl -w kernel.io_uring_disabled=0"),
        _ if error.kind() == std::io::ErrorKind::PermissionDenied => finding
            .forbids(format!("io_uring is not permitted ({error})"))
            .advice("allow it in the container's seccomp profile (docker: --security-opt seccomp=PROFILE)"),
        _ => finding
            .forbids(format!("io_uring cannot be set up ({error})"))
            .advice("run a kernel that has it (CONFIG_IO_URING), and allow it in the container's seccomp profile if this is one"),
    }
}

pub(super) fn locked_memory(facts: &Facts, _: &Config) -> Finding {
    let recommended = format!("{} or more", rounded(MEMLOCK_BYTES_MIN));
    let Some(limit) = facts.asked.memlock_bytes else {
        return Finding::new("unlimited", recommended);
    };
    let finding = Finding::new(rounded(limit), recommended);
    if limit >= MEMLOCK_BYTES_MIN {
        return finding;
    }
    let kibibytes = MEMLOCK_BYTES_MIN / 1024;
    finding
        .forbids(format!("The limit on locked memory is {} KiB", limit / 1024))
        .advice(format!(
            "raise it to {kibibytes} KiB or more (`ulimit -l {kibibytes}` as root in the shell that starts the broker, or \
             LimitMEMLOCK={kibibytes}K in its systemd unit)"
        ))
}

/// What is open besides segment files.
fn other_files(config: &Config, cores: u64) -> u64 {
    let http = config.http.listen.map_or(0, |_| u64::from(config.http.connections_max));
    u64::from(config.limits.connections_max) * FILES_PER_CONNECTION + http + cores * FILES_PER_CORE + FILES_OF_PROCESS
}

/// Descriptors for segment files that each core may keep open, of so many that the process may.
pub(super) fn segment_files(config: &Config, limit: Option<u64>, cores: u64) -> u64 {
    let configured = u64::from(config.cores.open_files_max);
    if configured > 0 {
        return configured;
    }
    let left = limit.map(|limit| limit.saturating_sub(other_files(config, cores)));
    left.map_or(SEGMENT_FILES_MAX, |left| left / cores)
        .clamp(SEGMENT_FILES_MIN, SEGMENT_FILES_MAX)
}

pub(super) fn open_files(facts: &Facts, config: &Config) -> Finding {
    let (cores, limit) = (
        core_count(&config.cores, &facts.asked.cpus) as u64,
        facts.asked.open_files,
    );
    let configured = u64::from(config.cores.open_files_max);
    let connections = config.limits.connections_max;
    let partitions = u64::from(config.limits.partitions_max);
    let (wanted, other_key) = if configured > 0 {
        (cores * configured, "cores.open_files_max")
    } else {
        (partitions * FILES_PER_PARTITION, "limits.partitions_max")
    };
    let needed = other_files(config, cores) + wanted;
    let segment_files = segment_files(config, limit, cores);
    let recommended = format!("{needed} or more");
    let Some(limit) = limit else {
        let value = format!("unlimited, {segment_files} of each core for segments");
        return Finding::new(value, recommended);
    };
    let finding = Finding::new(
        format!("{limit}, {segment_files} of each core for segments"),
        recommended,
    );
    if limit >= needed {
        return finding;
    }
    let reason = format!(
        "The limit on open files is {limit}, but {connections} connections and the segments of {partitions} partitions may need \
         {needed}"
    );
    // Files of segments give way to each other; a connection has to have its own.
    let finding = if limit < other_files(config, cores) + cores * segment_files {
        finding.forbids(reason)
    } else {
        finding.better(format!("{reason}, so files are closed and opened again"))
    };
    finding.advice(format!(
        "raise it (`ulimit -n {needed}` as root in the shell that starts the broker, or LimitNOFILE={needed} in its \
             systemd unit), or lower limits.connections_max or {other_key}"
    ))
}

/// For information: whether to trade safety for speed is not for a broker to say.
pub(super) fn mitigations(facts: &Facts, _: &Config) -> Finding {
    let all = &facts.kernel.vulnerabilities;
    let count = |prefix: &str| all.iter().filter(|text| text.starts_with(prefix)).count();
    let recommended = "as they are";
    if all.is_empty() {
        return Finding::unseen("not visible", recommended);
    }
    let value = format!("{} on, {} vulnerable", count("Mitigation"), count("Vulnerable"));
    Finding::new(value, recommended).not_judged()
}
