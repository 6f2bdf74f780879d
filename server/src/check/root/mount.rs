//! Mounted file systems, as `/proc/self/mountinfo` lists them.

use std::path::Path;

/// A mounted file system.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where it is mounted.
    pub point: String,
    /// Such as `ext4`.
    pub kind: String,
    /// Options of the mount and of the file system, each once.
    pub options: Vec<String>,
    /// What is mounted, such as `/dev/nvme0n1p2`.
    pub source: String,
    /// `MAJOR:MINOR`.
    pub(in crate::check) number: String,
}

impl Mount {
    /// The file system that a file or directory lies on, if that can be found out.
    pub fn of(path: &Path) -> Option<Self> {
        let path = std::fs::canonicalize(path).ok()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
        Self::find(&mounts, &path)
    }

    /// Reads `/proc/self/mountinfo` (proc(5)). By path and not by device number, as btrfs shows another one there.
    pub(in crate::check) fn find(mounts: &str, path: &Path) -> Option<Self> {
        let above = mounts
            .lines()
            .filter_map(Self::parse)
            .filter(|mount| path.starts_with(&mount.point));
        // Of several on one point the last one is on top.
        above.max_by_key(|mount| mount.point.len())
    }

    fn parse(line: &str) -> Option<Self> {
        let (mount, source) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(2);
        let number = mount.next()?.to_owned();
        let point = mount.nth(1)?.replace("\\040", " ");
        let options = mount.next()?;
        let mut source = source.split(' ');
        let kind = source.next()?.to_owned();
        let device = source.next()?.to_owned();
        let mut all = Vec::new();
        for option in options.split(',').chain(source.next()?.split(',')) {
            // `rw` is one of both.
            if all.iter().all(|known| known != option) {
                all.push(option.to_owned());
            }
        }
        Some(Self {
            point,
            kind,
            options: all,
            source: device,
            number,
        })
    }
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
        let kind = |path: &str| Mount::find(mounts, Path::new(path)).unwrap().kind;
        assert_eq!(kind("/mnt/my disk/data"), "xfs");
        assert_eq!(kind("/mnt/my"), "tmpfs");
        assert_eq!(kind("/mnt/myself"), "ext4");
        let mount = Mount::find(mounts, Path::new("/home")).unwrap();
        assert_eq!((mount.number.as_str(), mount.source.as_str()), ("98:0", "/dev/root"));
        assert_eq!(mount.options, ["rw", "noatime", "errors=continue"]);
    }
}
