//! From the data directory to the disks: the mounted file system, the block devices below it, the broker that holds it.

use std::path::{Path, PathBuf};

use super::Root;
use super::mount::Mount;
use crate::check::facts::DirectoryFacts;

#[derive(Debug)]
pub(in crate::check) struct StorageFacts {
    pub mount: Option<Mount>,
    /// The block device that the file system is on, such as `dm-0` or `nvme0n1` (the disk of a partition).
    pub device: Option<String>,
    /// How far the kernel reads ahead on that device.
    pub read_ahead_kib: Option<u64>,
    /// The disks that it is made of, itself if it is a disk.
    pub disks: Vec<Disk>,
    /// The process that holds the lock of the data directory.
    pub owner: Option<u32>,
}

#[derive(Debug)]
pub(in crate::check) struct Disk {
    pub name: String,
    /// Its directory in `/sys`.
    pub path: PathBuf,
    pub scheduler: Option<String>,
    pub write_cache: Option<String>,
    pub rotational: Option<bool>,
    pub requests: Option<u64>,
    pub request_kib_max: Option<u64>,
}

impl StorageFacts {
    pub(in crate::check) fn read(root: &Root, directory: &DirectoryFacts) -> Self {
        let mounts = root.text("proc/self/mountinfo").unwrap_or_default();
        let mount = Mount::find(&mounts, &directory.nearest);
        let device = mount.as_ref().and_then(|mount| device_of(root, mount));
        let mut disks = Vec::new();
        if let Some(device) = &device {
            add_disks(root, device, &mut disks);
        }
        Self {
            read_ahead_kib: device
                .as_ref()
                .and_then(|device| root.number(device.join("queue/read_ahead_kb"))),
            device: device.as_deref().map(name_of),
            disks,
            owner: mount
                .as_ref()
                .zip(directory.lock_inode)
                .and_then(|(mount, inode)| lock_owner(&root.text("proc/locks")?, &mount.number, inode)),
            mount,
        }
    }
}

/// The directory in `/sys` of the device of a file system; of the disk, if it is a partition.
fn device_of(root: &Root, mount: &Mount) -> Option<PathBuf> {
    let by_number = || root.resolve(format!("sys/dev/block/{}", mount.number));
    // btrfs has a number of its own, but names a device.
    let by_name = || {
        let node = root.resolve(mount.source.strip_prefix('/')?)?;
        root.resolve(format!("sys/class/block/{}", name_of(&node)))
    };
    Some(whole(root, by_number().or_else(by_name)?))
}

fn whole(root: &Root, device: PathBuf) -> PathBuf {
    let is_partition = root.text(device.join("partition")).is_some();
    match device.parent() {
        Some(disk) if is_partition => disk.to_owned(),
        _ => device,
    }
}

/// Goes down through LVM, encryption and RAID (device mapper, md) to the disks.
fn add_disks(root: &Root, device: &Path, disks: &mut Vec<Disk>) {
    let below = root.names(device.join("slaves"));
    for name in &below {
        if let Some(device) = root.resolve(device.join("slaves").join(name)) {
            add_disks(root, &whole(root, device), disks);
        }
    }
    if below.is_empty() && disks.iter().all(|disk| disk.path != device) {
        let queue = device.join("queue");
        disks.push(Disk {
            name: name_of(device),
            path: device.to_owned(),
            // Where there is no choice, there are no brackets either.
            scheduler: root
                .chosen(queue.join("scheduler"))
                .or_else(|| root.text(queue.join("scheduler"))),
            write_cache: root.text(queue.join("write_cache")),
            rotational: root.number::<u8>(queue.join("rotational")).map(|flag| flag != 0),
            requests: root.number(queue.join("nr_requests")),
            request_kib_max: root.number(queue.join("max_sectors_kb")),
        });
    }
}

fn name_of(device: &Path) -> String {
    let name = device.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Who holds an flock(2) on a file: `/proc/locks` (proc(5)), whose device numbers are hexadecimal. To try the lock instead
/// would make a broker fail that starts at that moment.
fn lock_owner(locks: &str, number: &str, inode: u64) -> Option<u32> {
    let (major, minor) = number.split_once(':')?;
    let (major, minor) = (major.parse::<u32>().ok()?, minor.parse::<u32>().ok()?);
    let file = format!("{major:02x}:{minor:02x}:{inode}");
    locks.lines().find_map(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let is_held = fields.next()? == "FLOCK";
        let process = fields.nth(2)?;
        (is_held && fields.next()? == file).then(|| process.parse().ok())?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_lock_is_read_and_who_waits_for_it_is_not() {
        let locks = "\
            1: FLOCK  ADVISORY  WRITE 16470 fe:00:9987392 0 EOF\n\
            1: -> FLOCK  ADVISORY  WRITE 16471 fe:00:9987392 0 EOF\n\
            2: POSIX  ADVISORY  WRITE 17 fe:00:42 0 EOF\n";
        assert_eq!(lock_owner(locks, "254:0", 9_987_392), Some(16470));
        assert_eq!(lock_owner(locks, "254:0", 42), None);
        assert_eq!(lock_owner(locks, "8:0", 9_987_392), None);
    }
}
