//! A machine on which everything is as it should be, as a tree of files and answers, for tests to spoil.

use std::path::PathBuf;

use super::*;

/// A solid-state disk with one partition, an Ethernet card, two CPUs on one node, 8 GiB.
const FILES: &[(&str, &str)] = &[
    ("proc/meminfo", "MemTotal:        8388608 kB\nMemFree: 1 kB\n"),
    ("proc/swaps", "Filename Type Size Used Priority\n"),
    ("proc/1/comm", "systemd\n"),
    ("proc/self/cgroup", "0::/\n"),
    (
        "proc/self/mountinfo",
        "20 1 259:2 / / rw,noatime shared:1 - ext4 /dev/root rw\n",
    ),
    ("proc/locks", ""),
    (
        "proc/interrupts",
        "      CPU0 CPU1\n 40:  5  0 PCI-MSIX nvme0q1\n 41:  0  9 PCI-MSIX nvme0q2\n 50: 7 0 PCI-MSIX eth0\n",
    ),
    ("proc/irq/40/effective_affinity_list", "0\n"),
    ("proc/irq/41/effective_affinity_list", "1\n"),
    ("proc/irq/50/effective_affinity_list", "0\n"),
    ("proc/sys/kernel/io_uring_disabled", "0\n"),
    ("proc/sys/vm/swappiness", "60\n"),
    ("proc/sys/net/core/somaxconn", "4096\n"),
    ("proc/sys/net/ipv4/tcp_max_syn_backlog", "4096\n"),
    ("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n"),
    ("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n"),
    ("proc/sys/net/ipv4/ip_local_port_range", "32768\t60999\n"),
    ("sys/devices/system/cpu/online", "0-1\n"),
    ("sys/devices/system/cpu/cpufreq/boost", "1\n"),
    ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "performance\n"),
    ("sys/devices/system/cpu/cpu0/topology/thread_siblings_list", "0\n"),
    ("sys/devices/system/cpu/cpu1/topology/thread_siblings_list", "1\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/name", "POLL\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "0\n"),
    ("sys/devices/system/cpu/cpu0/cpuidle/state0/disable", "0\n"),
    ("sys/devices/system/cpu/cpuidle/current_governor", "menu\n"),
    ("sys/devices/system/cpu/vulnerabilities/meltdown", "Mitigation: PTI\n"),
    ("sys/devices/system/node/node0/cpulist", "0-1\n"),
    (
        "sys/devices/system/clocksource/clocksource0/current_clocksource",
        "tsc\n",
    ),
    (
        "sys/devices/system/clocksource/clocksource0/available_clocksource",
        "tsc hpet acpi_pm \n",
    ),
    ("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n"),
    (
        "sys/kernel/mm/transparent_hugepage/defrag",
        "always defer defer+madvise [madvise] never\n",
    ),
    ("sys/devices/pci/01.0/msi_irqs/40", ""),
    ("sys/devices/pci/01.0/msi_irqs/41", ""),
    ("sys/devices/pci/01.0/nvme/nvme0/nvme0n1/nvme0n1p2/partition", "2\n"),
    ("sys/devices/pci/02.0/msi_irqs/50", ""),
    ("sys/devices/pci/02.0/net/eth0/mtu", "1500\n"),
];

/// The disk's directory.
pub(super) const DISK: &str = "sys/devices/pci/01.0/nvme/nvme0/nvme0n1";

/// Of its queue.
const QUEUE: &[(&str, &str)] = &[
    ("scheduler", "[none] mq-deadline\n"),
    ("write_cache", "write back\n"),
    ("rotational", "0\n"),
    ("nr_requests", "1023\n"),
    ("read_ahead_kb", "1024\n"),
    ("max_sectors_kb", "128\n"),
];

const LINKS: &[(&str, &str)] = &[
    (
        "sys/dev/block/259:2",
        "../../devices/pci/01.0/nvme/nvme0/nvme0n1/nvme0n1p2",
    ),
    ("sys/devices/pci/01.0/nvme/nvme0/nvme0n1/device", "../../nvme0"),
    ("sys/class/net/eth0", "../../devices/pci/02.0/net/eth0"),
    ("sys/devices/pci/02.0/net/eth0/device", "../../../02.0"),
];

pub(super) struct Machine {
    tree: tempfile::TempDir,
    pub asked: Asked,
    pub directory: DirectoryFacts,
    pub tls: facts::TlsFacts,
    pub open: facts::OpenFacts,
    pub config: Config,
}

impl Machine {
    pub fn good() -> Self {
        let mut machine = Self {
            tree: tempfile::tempdir().unwrap(),
            asked: Asked {
                kernel_release: "6.18.0".to_owned(),
                io_uring: Probe::Passed,
                cpus: vec![0, 1],
                memlock_bytes: Some(8 << 20),
                open_files: Some(20_000),
                clock_ns: 25,
                system_call_ns: 100,
            },
            directory: DirectoryFacts {
                path: PathBuf::from("/srv/data"),
                nearest: PathBuf::from("/srv/data"),
                usable: Probe::Passed,
                is_new: true,
                direct_io: Some(Probe::Passed),
                alignment_bytes: Some(512),
                calls: Some(facts::Calls {
                    unwaiting: true,
                    allocation: true,
                }),
                free_bytes: Some(100 << 30),
                misplaced: Vec::new(),
                lock_inode: None,
            },
            tls: facts::TlsFacts::default(),
            open: facts::OpenFacts::default(),
            config: Config::default(),
        };
        for (path, text) in FILES {
            machine.write(path, text);
        }
        for (name, text) in QUEUE {
            machine.write(&format!("{DISK}/queue/{name}"), text);
        }
        for (path, target) in LINKS {
            machine.link(path, target);
        }
        machine
    }

    fn path(&self, path: &str) -> PathBuf {
        let path = self.tree.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Puts a file there.
    pub fn write(&mut self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// Takes a file or directory away.
    pub fn remove(&mut self, path: &str) {
        let path = self.path(path);
        std::fs::remove_file(&path)
            .or_else(|_| std::fs::remove_dir_all(&path))
            .unwrap();
    }

    pub fn link(&mut self, path: &str, target: &str) {
        std::os::unix::fs::symlink(target, self.path(path)).unwrap();
    }

    /// The data directory is mounted like this.
    pub fn mount(&mut self, line: &str) {
        self.write("proc/self/mountinfo", line);
    }

    /// A file of the disk's queue.
    pub fn queue(&mut self, name: &str, text: &str) {
        self.write(&format!("{DISK}/queue/{name}"), text);
    }

    pub fn facts(self) -> (Facts, Config) {
        let root = Root::new(self.tree.path());
        let mut facts = Facts::gather(&root, self.asked, self.directory);
        facts.tls = self.tls;
        facts.open = self.open;
        (facts, self.config)
    }

    pub fn report(self) -> Report {
        let (facts, config) = self.facts();
        Report::of(&facts, &config)
    }
}

/// What is found on a good machine that `spoil` changed.
pub(super) fn report(spoil: impl FnOnce(&mut Machine)) -> Report {
    let mut machine = Machine::good();
    spoil(&mut machine);
    machine.report()
}

/// The finding on one item of such a machine.
pub(super) fn finding(name: &str, spoil: impl FnOnce(&mut Machine)) -> Finding {
    let items = report(spoil).items;
    let row = items.into_iter().find(|row| row.name == name);
    row.unwrap_or_else(|| panic!("no item {name}")).finding
}
