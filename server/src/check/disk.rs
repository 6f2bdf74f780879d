//! The file system and the disks below the data directory: are flushes sent on, and what slows them down.

use headwater_engine::disk::REGION_SIZE;

use super::cores::core_count;
use super::facts::Facts;
use super::finding::Finding;
use super::root::mount::Mount;
use super::root::storage::Disk;
use crate::config::Config;
use crate::session::read_ahead;

/// The largest write of the log.
const WRITE_KIB_MAX: u64 = 512;

/// The steps in which the kernel is told to read ahead of consumers.
const STEP_KIB: u64 = read_ahead::STEP_BYTES / 1024;

fn mount(facts: &Facts) -> Option<&Mount> {
    facts.storage.mount.as_ref()
}

pub(super) fn file_system(facts: &Facts, _: &Config) -> Finding {
    let recommended = "ext4 or XFS";
    let Some(Mount { kind, point, .. }) = mount(facts) else {
        return Finding::unseen("not known", recommended);
    };
    let path = facts.directory.path.display();
    let finding = Finding::new(format!("{kind} on {point}"), recommended);
    let choose = "choose a disk with ext4 or XFS with --data-dir";
    match kind.as_str() {
        "ext4" | "xfs" => finding,
        "tmpfs" | "ramfs" => finding
            .must(format!(
                "The data directory {path} is on a file system in memory: nothing in it survives a restart of the machine"
            ))
            .advice("choose a disk with --data-dir"),
        "overlay" => finding
            .better("It stands over another file system, whose options cannot be seen from here, and goes with its container")
            .advice("mount a volume for the data directory (docker: --volume /srv/headwater:/srv/headwater)"),
        "btrfs" | "zfs" | "bcachefs" => finding
            .better("It copies what is written again, so that flushes cost more and files fall into pieces")
            .advice(choose),
        "nfs" | "nfs4" | "cifs" | "smb3" | "ceph" | "9p" | "virtiofs" => finding
            .better("Each flush waits for a network or a host, and what a flush means is theirs to say")
            .advice(choose),
        kind if kind.starts_with("fuse") => finding
            .better("Each write passes through a program, and what a flush means is its own to say")
            .advice(choose),
        _ => finding.better("Headwater is not measured on it").advice(choose),
    }
}

pub(super) fn mount_options(facts: &Facts, _: &Config) -> Finding {
    let recommended = "without nobarrier, volatile, data=journal, sync, discard";
    let Some(mount) = mount(facts) else {
        return Finding::unseen("not known", recommended);
    };
    let finding = Finding::new(mount.options.join(","), recommended);
    let point = &mount.point;
    let wrong = |names: &[&'static str]| {
        names
            .iter()
            .copied()
            .find(|name| mount.options.iter().any(|option| option == name))
    };
    if let Some(option) = wrong(&["nobarrier", "barrier=0"]) {
        finding
            .must(format!(
                "The file system on {point} is mounted with {option}: flushes do not reach the disk, and a power failure \
                 loses records that were acknowledged"
            ))
            .command(format!("mount -o remount,barrier {point}"))
    } else if wrong(&["volatile"]).is_some() {
        finding
            .must(format!(
                "The overlay on {point} is mounted with volatile: flushes do not reach the disk, and a power failure loses records \
                 that were acknowledged"
            ))
            .advice("mount it again without that option, or a volume for the data directory")
    } else if wrong(&["data=journal"]).is_some() {
        finding
            .must(format!(
                "The file system on {point} is mounted with data=journal: direct I/O is not direct, and all is written twice"
            ))
            .advice("mount it again without that option, which cannot be changed while it is mounted")
    } else if let Some(option) = wrong(&["sync", "dirsync"]) {
        finding
            .must(format!(
                "The file system on {point} is mounted with {option}: every change waits for the disk, also those that need not"
            ))
            .command(match option {
                "sync" => format!("mount -o remount,async {point}"),
                _ => format!("mount -o remount,nodirsync {point}"),
            })
    } else if wrong(&["discard"]).is_some() {
        finding
            .better(format!(
                "The file system on {point} is mounted with discard: the disk is told of every file that goes, and may hold up all \
                 reads and writes meanwhile; once a week is enough"
            ))
            .command(format!(
                "mount -o remount,nodiscard {point} && systemctl enable --now fstrim.timer"
            ))
    } else {
        finding
    }
}

pub(super) fn access_times(facts: &Facts, _: &Config) -> Finding {
    let recommended = "noatime";
    let Some(mount) = mount(facts) else {
        return Finding::unseen("not known", recommended);
    };
    let modes = ["noatime", "relatime", "strictatime"];
    let mode = mount.options.iter().find(|option| modes.contains(&option.as_str()));
    let mode = mode.map_or("strictatime", String::as_str);
    let finding = Finding::new(mode, recommended);
    if mode == recommended {
        return finding;
    }
    finding
        .better("Each read of what was just written changes the access time of its file, which passes through the file system's journal")
        .command(format!("mount -o remount,noatime {}", mount.point))
}

/// What is the same of all disks once, else each with its name.
fn each(disks: &[Disk], text: impl Fn(&Disk) -> String) -> String {
    let texts: Vec<String> = disks.iter().map(&text).collect();
    match texts.first() {
        Some(first) if texts.iter().all(|text| text == first) => first.clone(),
        _ => disks
            .iter()
            .map(|disk| format!("{}: {}", disk.name, text(disk)))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// Made by a hypervisor, which seldom says what is below.
fn is_virtual(disk: &Disk) -> bool {
    ["vd", "xvd"].iter().any(|prefix| disk.name.starts_with(prefix))
}

fn spins(disk: &Disk) -> bool {
    disk.rotational == Some(true) && !is_virtual(disk)
}

const NO_DISK: &str = "no block device is visible";

pub(super) fn device(facts: &Facts, _: &Config) -> Finding {
    let recommended = "a solid-state disk";
    let disks = &facts.storage.disks;
    let Some(device) = facts.storage.device.as_ref().filter(|_| !disks.is_empty()) else {
        return Finding::unseen(NO_DISK, recommended);
    };
    let kind = |disk: &Disk| match disk {
        disk if is_virtual(disk) => "virtual",
        disk if spins(disk) => "rotating",
        _ => "solid-state",
    };
    let named = |disk: &Disk| format!("{} ({})", disk.name, kind(disk));
    let list = disks.iter().map(named).collect::<Vec<_>>().join(", ");
    let is_disk = disks.iter().any(|disk| disk.name == *device);
    let value = if is_disk { list } else { format!("{device} on {list}") };
    let finding = Finding::new(value, recommended);
    if disks.iter().any(spins) {
        return finding
            .better("Each flush waits for a platter to turn, about 10 ms")
            .advice("choose a solid-state disk with --data-dir");
    }
    finding
}

pub(super) fn scheduler(facts: &Facts, _: &Config) -> Finding {
    let disks = &facts.storage.disks;
    let recommended = if disks.iter().any(spins) { "mq-deadline" } else { "none" };
    if disks.is_empty() {
        return Finding::unseen(NO_DISK, recommended);
    }
    let wanted = |disk: &Disk| if spins(disk) { "mq-deadline" } else { "none" };
    let scheduler = |disk: &Disk| disk.scheduler.clone().unwrap_or_else(|| "none".to_owned());
    let finding = Finding::new(each(disks, scheduler), recommended);
    match disks.iter().find(|disk| scheduler(disk) != wanted(disk)) {
        None => finding,
        Some(disk) => finding
            .better(if spins(disk) {
                "Without order, the heads of the disk move for each request"
            } else {
                "It sorts requests for a disk that needs no order, and its lock and queue cost each request some time"
            })
            .command(format!(
                "echo {} > /sys/block/{}/queue/scheduler",
                wanted(disk),
                disk.name
            )),
    }
}

/// For information: whether a cache keeps what it holds when the power fails cannot be asked. The kernel sends flushes to
/// one that is `write back` and none to one that is `write through`.
pub(super) fn write_cache(facts: &Facts, _: &Config) -> Finding {
    let recommended = "write back, unless the disk's cache survives a power failure";
    let disks = &facts.storage.disks;
    if disks.iter().all(|disk| disk.write_cache.is_none()) {
        return Finding::unseen(NO_DISK, recommended);
    }
    let cache = |disk: &Disk| match disk.write_cache.as_deref() {
        Some("write back") => "write back: flushes are sent".to_owned(),
        Some("write through") => "write through: no flush is sent".to_owned(),
        other => other.unwrap_or("unknown").to_owned(),
    };
    let finding = Finding::new(each(disks, cache), recommended);
    if disks
        .iter()
        .any(|disk| disk.write_cache.as_deref() != Some("write back"))
    {
        return finding.not_judged();
    }
    finding
}

pub(super) fn queue_depth(facts: &Facts, config: &Config) -> Finding {
    let disks = &facts.storage.disks;
    let cores = core_count(&config.cores, &facts.asked.cpus) as u64;
    let writes = cores * u64::from(config.flush.writes_in_flight_max);
    let needed = |disk: &Disk| writes * WRITE_KIB_MAX.div_ceil(disk.request_kib_max.unwrap_or(WRITE_KIB_MAX).max(1));
    let most = disks.iter().map(needed).max().unwrap_or(writes);
    let recommended = format!("{most} or more");
    if disks.iter().all(|disk| disk.requests.is_none()) {
        return Finding::unseen(NO_DISK, recommended);
    }
    let requests = |disk: &Disk| {
        disk.requests
            .map_or_else(|| "unknown".to_owned(), |requests| requests.to_string())
    };
    let finding = Finding::new(each(disks, requests), recommended);
    match disks.iter().find(|disk| disk.requests.is_some_and(|requests| requests < needed(disk))) {
        None => finding,
        Some(disk) => finding
            .better(format!(
                "One busy partition on each of {cores} cores has {} requests under way; the kernel makes those beyond wait",
                needed(disk)
            ))
            .command(format!("echo {} > /sys/block/{}/queue/nr_requests", needed(disk), disk.name))
            .advice("lower flush.writes_in_flight_max where the disk has no deeper queue"),
    }
}

pub(super) fn read_ahead(facts: &Facts, config: &Config) -> Finding {
    // Segments are opened with POSIX_FADV_SEQUENTIAL, which doubles it.
    let enough = STEP_KIB / 2;
    let is_through_cache = config.cores.cold_read_bytes_max.bytes() < REGION_SIZE as u64;
    let recommended = if is_through_cache {
        format!("{enough} KiB or more")
    } else {
        "any, as consumers of old records do not read through the page cache".to_owned()
    };
    let Some((device, kib)) = facts.storage.device.as_ref().zip(facts.storage.read_ahead_kib) else {
        return Finding::unseen(NO_DISK, recommended);
    };
    let finding = Finding::new(format!("{kib} KiB"), recommended);
    if !is_through_cache || kib >= enough {
        return finding;
    }
    finding
        .better(format!(
            "Consumers who read old records are read ahead for in steps of {STEP_KIB} KiB, of which the kernel may read no more than {} KiB",
            kib * 2
        ))
        .command(format!("echo {enough} > /sys/block/{device}/queue/read_ahead_kb"))
}
