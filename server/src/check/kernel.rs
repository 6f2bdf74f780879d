//! The kernel, and what it lets this process have: rings, locked memory, open files.

use super::cores::core_count;
use super::facts::{Facts, Probe};
use super::item::Finding;
use super::root::{Root, rounded};
use crate::config::Config;

/// 5.15 is the oldest long-term kernel whose io_uring workers are threads of the process (since 5.12), bound by its
/// limits and ended with it, and whose rings are not charged to memlock.
const KERNEL_MIN: (u32, u32) = (5, 15);

/// glommio 0.9.0 refuses to make a reactor below this (`MIN_MEMLOCK_LIMIT` in `src/sys/uring.rs`).
const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// A partition's active segment, and up to two more that a roll, a cold fetch or retention has open.
const FILES_PER_PARTITION: u64 = 3;

/// Rings, event descriptors and listeners of one core.
const FILES_PER_CORE: u64 = 32;

/// Standard streams, the lock, the control thread, metadata files.
const FILES_OF_PROCESS: u64 = 64;

#[derive(Debug)]
pub(super) struct KernelFacts {
    /// `kernel.io_uring_disabled` (Linux 6.6): 0 allowed, 1 for privileged processes only, 2 for none.
    io_uring_disabled: Option<u32>,
    /// What `/sys/devices/system/cpu/vulnerabilities` says of each, such as `Mitigation: PTI`.
    vulnerabilities: Vec<String>,
}

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
            .advice("run a kernel that has it (CONFIG_IO_URING) and allows it"),
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

pub(super) fn open_files(facts: &Facts, config: &Config) -> Finding {
    let limits = &config.limits;
    let partitions = u64::from(limits.partitions_max);
    let besides = u64::from(limits.connections_max)
        + core_count(&config.cores, &facts.asked.cpus) as u64 * FILES_PER_CORE
        + FILES_OF_PROCESS;
    let needed = besides + partitions * FILES_PER_PARTITION;
    let recommended = format!("{needed} or more");
    let Some(limit) = facts.asked.open_files else {
        return Finding::new("unlimited", recommended);
    };
    let finding = Finding::new(limit.to_string(), recommended);
    if limit >= needed {
        return finding;
    }
    let reason = format!(
        "The limit on open files is {limit}, but {} connections and {} partitions may need {needed}",
        limits.connections_max, limits.partitions_max
    );
    // Partitions that are not in use hold no file, and those that are written to hold one.
    let finding = if limit < besides + partitions {
        finding.forbids(reason)
    } else {
        finding.better(reason)
    };
    finding.advice(format!(
        "raise it (`ulimit -n {needed}` as root in the shell that starts the broker, or LimitNOFILE={needed} in its \
             systemd unit), or lower limits.connections_max or limits.partitions_max"
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
