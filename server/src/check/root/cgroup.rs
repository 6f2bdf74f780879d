//! What the control group of this process may use: cgroups(7), version 2 and version 1.

use super::Root;

/// CPUs' worth of time. None: no limit is visible.
pub(in crate::check) fn cpu_quota(root: &Root) -> Option<f64> {
    let v2 = directories(root, "").into_iter().filter_map(|directory| {
        // `max 100000` or `50000 100000`: microseconds in each period of microseconds.
        let text = root.text(format!("{directory}/cpu.max"))?;
        let (quota, period) = text.split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let v1 = directories(root, "cpu").into_iter().filter_map(|directory| {
        // -1: no limit.
        let quota: u64 = root.number(format!("{directory}/cpu.cfs_quota_us"))?;
        let period: u64 = root.number(format!("{directory}/cpu.cfs_period_us"))?;
        Some(quota as f64 / period as f64)
    });
    v2.chain(v1).min_by(f64::total_cmp)
}

/// Bytes of memory. None: no limit is visible.
pub(in crate::check) fn memory_max(root: &Root) -> Option<u64> {
    let file = |directories: Vec<String>, name: &str| {
        let numbers = directories
            .iter()
            .map(|directory| root.number::<u64>(format!("{directory}/{name}")));
        numbers.flatten().min()
    };
    let v2 = file(directories(root, ""), "memory.max");
    let v1 = file(directories(root, "memory"), "memory.limit_in_bytes");
    v2.into_iter().chain(v1).min()
}

/// The directories whose limits hold for this process: that of its group and all above. `controller` is empty for
/// version 2. In a container the path may be that of the host; then the mount point itself is the group.
fn directories(root: &Root, controller: &str) -> Vec<String> {
    let groups = root.text("proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        let path = fields.next()?;
        controllers.split(',').any(|name| name == controller).then_some(path)
    });
    let mount = match controller {
        "" => "sys/fs/cgroup".to_owned(),
        name => format!("sys/fs/cgroup/{name}"),
    };
    let mut directories = vec![mount.clone()];
    let path = path.unwrap_or_default().trim_matches('/');
    let ends = path.match_indices('/').map(|(end, _)| end).chain([path.len()]);
    directories.extend(
        ends.filter(|end| *end > 0)
            .map(|end| format!("{mount}/{}", &path[..end])),
    );
    directories
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> (tempfile::TempDir, Root) {
        let temporary = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = temporary.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let root = Root::new(temporary.path());
        (temporary, root)
    }

    #[test]
    fn the_least_limit_of_a_group_and_those_above_holds() {
        let (_tree, root) = tree(&[
            ("proc/self/cgroup", "0::/a/b\n"),
            ("sys/fs/cgroup/a/cpu.max", "150000 100000\n"),
            ("sys/fs/cgroup/a/b/cpu.max", "max 100000\n"),
            ("sys/fs/cgroup/a/memory.max", "max\n"),
            ("sys/fs/cgroup/a/b/memory.max", "4096\n"),
        ]);
        assert_eq!(cpu_quota(&root), Some(1.5));
        assert_eq!(memory_max(&root), Some(4096));
    }

    #[test]
    fn a_container_finds_the_limits_at_the_mount_point_in_both_versions() {
        let (_tree, root) = tree(&[
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/cpu.max", "50000 100000"),
            ("sys/fs/cgroup/memory.max", "8192"),
        ]);
        assert_eq!((cpu_quota(&root), memory_max(&root)), (Some(0.5), Some(8192)));
        let (_tree, root) = tree(&[
            ("proc/self/cgroup", "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "200000"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "16384"),
        ]);
        assert_eq!((cpu_quota(&root), memory_max(&root)), (Some(2.0), Some(16384)));
    }

    #[test]
    fn no_limit_is_none() {
        let (_tree, root) = tree(&[
            ("proc/self/cgroup", "0::/a\n1:cpu:/\n"),
            ("sys/fs/cgroup/a/cpu.max", "max 100000"),
            ("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1"),
            ("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000"),
        ]);
        assert_eq!((cpu_quota(&root), memory_max(&root)), (None, None));
    }
}
