//! Each item, on a good machine that is spoilt in one way: the verdict, and what is to be done.

use std::collections::BTreeSet;

use super::machine::{DISK, Machine, finding, report};
use super::*;
use crate::config::ByteSize;

/// Item, what is wrong with the machine, verdict, and part of the command or advice.
type Case = (&'static str, fn(&mut Machine), Verdict, &'static str);

const BETTER: Verdict = Verdict::CouldBeBetter;
const MUST: Verdict = Verdict::MustChange;
const FORBIDS: Verdict = Verdict::ForbidsStart;

fn mounted(machine: &mut Machine, kind: &str, options: &str) {
    machine.mount(&format!("20 1 259:2 / / rw,noatime - {kind} /dev/root rw,{options}\n"));
}

/// Of four CPUs, the core is pinned to the first.
fn one_core_of_four(machine: &mut Machine) {
    machine.asked.cpus = vec![0, 1, 2, 3];
    machine.config.cores.set = [0].into_iter().collect();
    machine.write("sys/devices/system/cpu/online", "0-3\n");
}

fn irqs_on(machine: &mut Machine, cpu: &str) {
    for irq in [40, 41, 50] {
        machine.write(&format!("proc/irq/{irq}/effective_affinity_list"), cpu);
    }
}

const CPU_CASES: &[Case] = &[
    (
        "cores",
        |m| {
            m.config.cores.count = 3;
            m.config.cores.pin = false;
        },
        BETTER,
        "set cores.count = 2",
    ),
    ("cores", |m| m.config.cores.pin = false, BETTER, "cores.pin = true"),
    ("cores", |m| m.config.cores.count = 3, FORBIDS, "cores.pin = false"),
    (
        "core ports",
        |m| m.config.broker.core_port_base = 65_535,
        FORBIDS,
        "allowed is up to 65534",
    ),
    (
        "CPU quota",
        |m| m.write("sys/fs/cgroup/cpu.max", "150000 100000\n"),
        BETTER,
        "docker: --cpus 2), or set cores.count = 1",
    ),
    (
        "NUMA",
        |m| {
            m.write("sys/devices/system/node/node0/cpulist", "0,2\n");
            m.write("sys/devices/system/node/node1/cpulist", "1\n");
        },
        BETTER,
        "cores.set = \"0,2\"",
    ),
    (
        "SMT",
        |m| {
            for cpu in 0..2 {
                m.write(
                    &format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"),
                    "0-1",
                );
            }
        },
        BETTER,
        "cores.set = \"0\"",
    ),
    (
        "frequency governor",
        |m| m.write("sys/devices/system/cpu/cpu1/cpufreq/scaling_governor", "powersave\n"),
        BETTER,
        "echo performance | tee",
    ),
    (
        "idle states",
        |m| {
            for (state, (name, latency)) in ["C1", "C1E", "C6"].iter().zip(["1", "20", "170"]).enumerate() {
                let state = format!("sys/devices/system/cpu/cpu0/cpuidle/state{}", state + 1);
                m.write(&format!("{state}/name"), name);
                m.write(&format!("{state}/latency"), latency);
                m.write(&format!("{state}/disable"), "0");
            }
        },
        BETTER,
        "cpuidle/state[2-3]/disable",
    ),
    (
        "interrupts",
        |m| irqs_on(m, "1"),
        BETTER,
        "echo 0 > /proc/irq/41/smp_affinity_list",
    ),
    (
        "interrupts",
        |m| {
            one_core_of_four(m);
            irqs_on(m, "0");
        },
        BETTER,
        "for irq in 40 41 50; do echo 1 > /proc/irq/$irq/smp_affinity_list; done",
    ),
    (
        "irqbalance",
        |m| {
            one_core_of_four(m);
            m.write("proc/77/comm", "irqbalance\n");
        },
        BETTER,
        "systemctl disable --now irqbalance",
    ),
];

const KERNEL_AND_MEMORY_CASES: &[Case] = &[
    (
        "kernel",
        |m| m.asked.kernel_release = "5.14.0".to_owned(),
        FORBIDS,
        "Linux 5.15 or newer",
    ),
    (
        "io_uring",
        |m| {
            m.asked.io_uring = failed(io::ErrorKind::PermissionDenied);
            m.write("proc/sys/kernel/io_uring_disabled", "2\n");
        },
        FORBIDS,
        "sysctl -w kernel.io_uring_disabled=0",
    ),
    (
        "locked memory",
        |m| m.asked.memlock_bytes = Some(65_536),
        FORBIDS,
        "ulimit -l 512",
    ),
    (
        "open files",
        |m| m.asked.open_files = Some(1024),
        FORBIDS,
        "ulimit -n 16512",
    ),
    (
        "open files",
        |m| m.asked.open_files = Some(10_000),
        BETTER,
        "ulimit -n 16512",
    ),
    (
        "open files",
        |m| {
            m.asked.open_files = Some(20_000);
            m.config.cores.open_files_max = 10_000;
        },
        FORBIDS,
        "cores.open_files_max",
    ),
    (
        "memory budgets",
        |m| m.write("sys/fs/cgroup/memory.max", "314572800"),
        MUST,
        "cores.tail_buffer_bytes_max",
    ),
    (
        "memory budgets",
        |m| m.config.cores.tail_buffer_bytes_max = ByteSize::new(3 << 30),
        BETTER,
        "cores.tail_buffer_bytes_max",
    ),
    (
        "memory budgets",
        |m| {
            m.config.cores.tail_buffer_bytes_max = ByteSize::new(1 << 40);
            m.config.cores.prefault = true;
        },
        FORBIDS,
        "cores.tail_buffer_bytes_max",
    ),
    (
        "memory budgets",
        |m| {
            m.config.cores.cold_read_bytes_max = ByteSize::new(1 << 40);
            m.config.cores.prefault = true;
        },
        FORBIDS,
        "cores.tail_buffer_bytes_max",
    ),
    (
        "huge pages",
        |m| m.write("sys/kernel/mm/transparent_hugepage/enabled", "always madvise [never]"),
        BETTER,
        "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
    ),
    (
        "huge page defrag",
        |m| m.write("sys/kernel/mm/transparent_hugepage/defrag", "always defer [never]"),
        BETTER,
        "echo madvise > /sys/kernel/mm/transparent_hugepage/defrag",
    ),
    (
        "swap",
        |m| m.write("proc/swaps", "Filename Type\n/dev/sda2 partition 8 0 -2\n"),
        BETTER,
        "sysctl -w vm.swappiness=1",
    ),
    (
        "free page reporting",
        |m| {
            m.write(
                "sys/bus/virtio/drivers/virtio_balloon/virtio3/features",
                "01100100000000000000000000000000100000\n",
            );
        },
        BETTER,
        "echo virtio3 > /sys/bus/virtio/drivers/virtio_balloon/unbind",
    ),
];

const DISK_CASES: &[Case] = &[
    (
        "data directory",
        |m| m.directory.usable = failed(io::ErrorKind::PermissionDenied),
        FORBIDS,
        "choose another with --data-dir",
    ),
    (
        "direct I/O",
        |m| m.directory.direct_io = Some(failed(io::ErrorKind::InvalidInput)),
        FORBIDS,
        "ext4 or XFS",
    ),
    ("free space", |m| m.directory.free_bytes = Some(0), FORBIDS, "free some"),
    (
        "partitions",
        |m| m.directory.misplaced = vec!["orders-1".to_owned()],
        MUST,
        "to its place",
    ),
    ("file system", |m| mounted(m, "tmpfs", "size=1g"), MUST, "choose a disk"),
    (
        "file system",
        |m| mounted(m, "overlay", "lowerdir=/a"),
        BETTER,
        "mount a volume",
    ),
    ("file system", |m| mounted(m, "btrfs", "ssd"), BETTER, "ext4 or XFS"),
    ("file system", |m| mounted(m, "nfs4", "hard"), BETTER, "ext4 or XFS"),
    ("file system", |m| mounted(m, "fuse.sshfs", "x"), BETTER, "ext4 or XFS"),
    ("file system", |m| mounted(m, "f2fs", "x"), BETTER, "ext4 or XFS"),
    (
        "file system calls",
        |m| m.directory.calls.as_mut().unwrap().unwaiting = false,
        BETTER,
        "ext4 or XFS",
    ),
    (
        "file system calls",
        |m| m.directory.calls.as_mut().unwrap().allocation = false,
        BETTER,
        "ext4 or XFS",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "volatile"),
        MUST,
        "without that option",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "nobarrier"),
        MUST,
        "mount -o remount,barrier /",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "barrier=0"),
        MUST,
        "mount -o remount,barrier /",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "data=journal"),
        MUST,
        "without that option",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "sync"),
        MUST,
        "mount -o remount,async /",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "dirsync"),
        MUST,
        "mount -o remount,nodirsync /",
    ),
    (
        "mount options",
        |m| mounted(m, "ext4", "discard"),
        BETTER,
        "mount -o remount,nodiscard / && systemctl enable --now fstrim.timer",
    ),
    (
        "access times",
        |m| m.mount("20 1 259:2 / / rw,relatime - ext4 /dev/root rw\n"),
        BETTER,
        "mount -o remount,noatime /",
    ),
    ("block device", |m| m.queue("rotational", "1"), BETTER, "solid-state"),
    (
        "I/O scheduler",
        |m| m.queue("scheduler", "none [mq-deadline]"),
        BETTER,
        "echo none > /sys/block/nvme0n1/queue/scheduler",
    ),
    (
        "I/O scheduler",
        |m| m.queue("rotational", "1"),
        BETTER,
        "echo mq-deadline > /sys/block/nvme0n1/queue/scheduler",
    ),
    (
        "write cache",
        |m| m.queue("write_cache", "write through"),
        Verdict::NotJudged,
        "",
    ),
    // 2 cores, 8 writes of 512 KiB, in requests of 128 KiB.
    (
        "queue depth",
        |m| m.queue("nr_requests", "63"),
        BETTER,
        "echo 64 > /sys/block/nvme0n1/queue/nr_requests",
    ),
    (
        "read-ahead",
        |m| {
            m.config.cores.cold_read_bytes_max = ByteSize::new(0);
            m.queue("read_ahead_kb", "128");
        },
        BETTER,
        "echo 512 > /sys/block/nvme0n1/queue/read_ahead_kb",
    ),
];

const NETWORK_AND_CLOCK_CASES: &[Case] = &[
    (
        "accept queue",
        |m| m.write("proc/sys/net/core/somaxconn", "128"),
        BETTER,
        "sysctl -w net.core.somaxconn=1024",
    ),
    (
        "SYN queue",
        |m| m.write("proc/sys/net/ipv4/tcp_max_syn_backlog", "512"),
        BETTER,
        "sysctl -w net.ipv4.tcp_max_syn_backlog=1024",
    ),
    (
        "receive buffers",
        |m| m.write("proc/sys/net/ipv4/tcp_rmem", "4096 131072 1048576"),
        BETTER,
        "sysctl -w net.ipv4.tcp_rmem=\"4096 131072 4194304\"",
    ),
    (
        "send buffers",
        |m| m.write("proc/sys/net/ipv4/tcp_wmem", "4096 16384 1048576"),
        BETTER,
        "sysctl -w net.ipv4.tcp_wmem=\"4096 16384 4194304\"",
    ),
    (
        "local ports",
        |m| m.write("proc/sys/net/ipv4/ip_local_port_range", "60000 61000"),
        BETTER,
        "sysctl -w net.ipv4.ip_local_port_range=\"1024 65535\"",
    ),
    (
        "clock source",
        |m| {
            m.write(
                "sys/devices/system/clocksource/clocksource0/current_clocksource",
                "hpet\n",
            );
        },
        BETTER,
        "echo tsc > /sys/devices/system/clocksource/clocksource0/current_clocksource",
    ),
    (
        "TLS",
        |m| {
            m.tls
                .wrong
                .push("the certificate in /etc/c.pem names no host".to_owned());
        },
        MUST,
        "Make it safe",
    ),
    (
        "TLS",
        |m| m.tls.unusable = Some("broker.tls_key: it is gone".to_owned()),
        FORBIDS,
        "give the files",
    ),
    (
        "what is open",
        |m| m.config.broker.listen = ([0, 0, 0, 0], 9292).into(),
        BETTER,
        "set broker.tls_certificate",
    ),
    (
        "what is open",
        |m| m.open.expiries = vec![("kafka", 0)],
        MUST,
        "get another of its CA",
    ),
    (
        "what is open",
        |m| m.open.unreadable = Some("/etc/p: it is gone".to_owned()),
        FORBIDS,
        "put the password there",
    ),
    (
        "clock reading",
        |m| m.asked.clock_ns = 100,
        BETTER,
        "mend the clock source",
    ),
];

fn cases() -> impl Iterator<Item = &'static Case> {
    [CPU_CASES, KERNEL_AND_MEMORY_CASES, DISK_CASES, NETWORK_AND_CLOCK_CASES]
        .into_iter()
        .flatten()
}

#[test]
fn a_good_machine_is_ok_in_every_item() {
    let report = report(|_| {});
    let others = report.items.iter().filter(|row| row.finding.verdict != Verdict::Ok);
    let others: Vec<&str> = others.map(|row| row.name).collect();
    assert_eq!(others, ["mitigations"], "for information only");
    assert!(report.starts && report.passed);
    assert!(!report.text(false).contains("# "), "{}", report.text(false));
}

#[test]
fn what_is_wrong_is_judged_by_its_item_with_the_remedy() {
    for (name, spoil, verdict, remedy) in cases() {
        let found = finding(name, spoil);
        let remedies = format!("{:?} {:?}", found.command, found.advice).replace("\\\"", "\"");
        assert!(
            found.verdict == *verdict && remedies.contains(remedy),
            "{name}: expected {verdict:?} with {remedy:?}, found {found:?}"
        );
        let is_wrong = *verdict != Verdict::NotJudged;
        assert_eq!(is_wrong, !found.why.is_empty() && remedies != "None None", "{found:?}");
    }
}

#[test]
fn what_is_wrong_in_one_item_leaves_the_others_alone() {
    // One change may spoil two things: a tmpfs is not a disk, a disk that turns wants another scheduler.
    let exempt = ["block device", "I/O scheduler"];
    for (name, spoil, ..) in cases().filter(|(name, ..)| !exempt.contains(name)) {
        let wrong = report(*spoil)
            .items
            .into_iter()
            .filter(|row| !row.finding.why.is_empty());
        let others: Vec<&str> = wrong.map(|row| row.name).filter(|other| other != name).collect();
        assert!(others.is_empty(), "{name} spoils {others:?}");
    }
}

#[test]
fn no_item_is_always_ok() {
    let judged: BTreeSet<&str> = cases().map(|(name, ..)| *name).chain(["mitigations"]).collect();
    assert_eq!(judged, ITEMS.iter().map(|item| item.name).collect());
}

#[test]
fn what_cannot_be_seen_is_not_judged() {
    let report = report(|machine| {
        machine.remove("proc");
        machine.remove("sys");
        machine.directory.free_bytes = None;
        machine.directory.alignment_bytes = None;
    });
    assert!(report.starts && report.passed, "{}", report.text(false));
    let better = report.items.iter().filter(|row| !row.finding.why.is_empty());
    assert_eq!(better.count(), 0, "{}", report.text(false));
}

#[test]
fn what_needs_the_cores_pinned_is_silent_without() {
    for (name, spoil, ..) in CPU_CASES
        .iter()
        .filter(|(name, ..)| ["SMT", "irqbalance"].contains(name))
    {
        let found = finding(name, |machine| {
            spoil(machine);
            machine.config.cores.pin = false;
        });
        assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
    }
}

#[test]
fn a_core_that_spins_does_not_mind_idle_states() {
    let (_, spoil, ..) = CPU_CASES.iter().find(|(name, ..)| *name == "idle states").unwrap();
    let found = finding("idle states", |machine| {
        spoil(machine);
        machine.config.cores.spin_before_park_us = crate::config::Micros::new(170);
    });
    assert_eq!(found.verdict, Verdict::Ok, "{found:?}");
}

#[test]
fn the_disks_below_logical_volumes_are_found_and_read_ahead_is_that_of_the_volume() {
    let volume = |machine: &mut Machine| {
        machine.mount("20 1 253:0 / / rw,noatime - xfs /dev/mapper/data rw\n");
        machine.link("sys/dev/block/253:0", "../../devices/virtual/block/dm-0");
        machine.write("sys/devices/virtual/block/dm-0/queue/read_ahead_kb", "128\n");
        let partition = format!("../../../../../{}/nvme0n1p2", DISK.strip_prefix("sys/").unwrap());
        machine.link("sys/devices/virtual/block/dm-0/slaves/nvme0n1p2", &partition);
        machine.queue("scheduler", "none [kyber]");
        machine.config.cores.cold_read_bytes_max = ByteSize::new(0);
    };
    assert_eq!(finding("block device", volume).value, "dm-0 on nvme0n1 (solid-state)");
    let scheduler = finding("I/O scheduler", volume).command.unwrap();
    assert_eq!(scheduler, "echo none > /sys/block/nvme0n1/queue/scheduler");
    let ahead = finding("read-ahead", volume).command.unwrap();
    assert_eq!(ahead, "echo 512 > /sys/block/dm-0/queue/read_ahead_kb");
}

#[test]
fn a_file_system_without_a_device_number_is_found_by_the_name_of_its_device() {
    let found = finding("block device", |machine| {
        machine.mount("20 1 0:44 / / rw,noatime - btrfs /dev/nvme0n1p2 rw\n");
        machine.write("dev/nvme0n1p2", "");
        machine.link("sys/class/block/nvme0n1p2", "../../dev/block/259:2");
    });
    assert_eq!(found.value, "nvme0n1 (solid-state)");
    let unseen = finding("block device", mounted_nowhere);
    assert_eq!(unseen.verdict, Verdict::NotJudged);
}

fn mounted_nowhere(machine: &mut Machine) {
    machine.mount("20 1 0:44 / / rw,noatime - overlay overlay rw\n");
}

#[test]
fn a_virtual_disk_that_is_said_to_rotate_is_not_believed() {
    let found = finding("I/O scheduler", |machine| {
        machine.write("sys/devices/vda/queue/rotational", "1");
        machine.write("sys/devices/vda/queue/scheduler", "[none]");
        machine.remove("sys/dev/block/259:2");
        machine.link("sys/dev/block/259:2", "../../devices/vda");
    });
    assert_eq!((found.verdict, found.value.as_str()), (Verdict::Ok, "none"));
}

#[test]
fn a_broker_that_runs_is_reported_and_is_no_fault() {
    let found = finding("data directory", |machine| {
        machine.directory.lock_inode = Some(42);
        machine.write("proc/locks", "1: FLOCK  ADVISORY  WRITE 4711 103:02:42 0 EOF\n");
    });
    assert_eq!(found.value, "/srv/data, in use by a broker, process 4711");
    assert_eq!(found.verdict, Verdict::Ok);
}

#[test]
fn json_says_what_the_table_says() {
    let report = report(|machine| mounted(machine, "ext4", "nobarrier"));
    let json: serde_json::Value = serde_json::from_str(&report.json().unwrap()).unwrap();
    assert_eq!((&json["starts"], &json["passed"]), (&true.into(), &false.into()));
    let items = json["items"].as_array().unwrap();
    assert_eq!(items.len(), ITEMS.len());
    let item = items.iter().find(|item| item["name"] == "mount options").unwrap();
    assert_eq!(item["section"], "disk");
    assert_eq!(item["verdict"], "must change");
    assert_eq!(item["value"], "rw,noatime,nobarrier");
    assert_eq!(item["command"], "mount -o remount,barrier /");
    let text = report.text(false);
    for part in ["recommended", "value", "why", "command"] {
        let part = item.get(part).and_then(serde_json::Value::as_str).unwrap();
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.contains("1 item must change; 0 could be better"), "{text}");
}
