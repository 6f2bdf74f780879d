mod machine;
mod verdicts;

use std::io;

use super::kernel::kernel_version;
use super::*;
use machine::Machine;

fn failed(kind: io::ErrorKind) -> Probe {
    Probe::Failed(io::Error::from(kind))
}

/// What is said at the start on a good machine that `spoil` changed.
fn judged(spoil: impl FnOnce(&mut Machine)) -> (Vec<String>, Vec<String>) {
    let mut machine = Machine::good();
    spoil(&mut machine);
    let (facts, config) = machine.facts();
    let (failures, warnings) = sentences(&facts, &config);
    for sentence in failures.iter().chain(&warnings) {
        assert!(
            sentence.ends_with('.') && sentence.contains("; ") && !sentence.contains('\n'),
            "{sentence}"
        );
    }
    (failures, warnings)
}

#[track_caller]
fn fails(spoil: impl FnOnce(&mut Machine), remedy: &str) {
    let (failures, warnings) = judged(spoil);
    assert!(failures.len() == 1 && warnings.is_empty(), "{failures:?} {warnings:?}");
    assert!(failures[0].contains(remedy), "{failures:?}");
}

#[track_caller]
fn warns(spoil: impl FnOnce(&mut Machine), remedy: &str) {
    let (failures, warnings) = judged(spoil);
    assert!(failures.is_empty() && warnings.len() == 1, "{failures:?} {warnings:?}");
    assert!(warnings[0].contains(remedy), "{warnings:?}");
}

#[test]
fn a_good_machine_passes_without_a_word() {
    assert_eq!(judged(|_| {}), (vec![], vec![]));
    let unlimited = judged(|machine| {
        machine.asked.memlock_bytes = None;
        machine.asked.open_files = None;
    });
    assert_eq!(unlimited, (vec![], vec![]));
}

#[test]
fn what_only_costs_speed_is_not_said_at_the_start() {
    let slow = judged(|machine| machine.write("proc/sys/net/core/somaxconn", "128"));
    assert_eq!(slow, (vec![], vec![]));
}

#[test]
fn an_unfit_kernel_is_refused_with_the_remedy() {
    let release = |release: &'static str| |machine: &mut Machine| machine.asked.kernel_release = release.to_owned();
    fails(release("5.14.21-generic"), "run on Linux 5.15 or newer");
    assert_eq!(judged(release("5.15.0")), (vec![], vec![]));
    let denied = |machine: &mut Machine| machine.asked.io_uring = failed(io::ErrorKind::PermissionDenied);
    fails(denied, "seccomp");
    fails(
        |machine| {
            denied(machine);
            machine.write("proc/sys/kernel/io_uring_disabled", "2");
        },
        "run `sysctl -w kernel.io_uring_disabled=0` as root",
    );
    fails(
        |machine| machine.asked.io_uring = failed(io::ErrorKind::Unsupported),
        "CONFIG_IO_URING",
    );
    assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
    assert_eq!(kernel_version("5.4-rc1"), Some((5, 4)));
    assert_eq!(kernel_version("linux"), None);
}

#[test]
fn limits_of_the_process_are_refused_with_the_remedy() {
    fails(
        |machine| machine.asked.memlock_bytes = Some((512 << 10) - 1),
        "raise it to 512 KiB",
    );
    fails(
        |machine| machine.asked.open_files = Some(8_000),
        "lower limits.connections_max or limits.partitions_max",
    );
    // Not every partition is in use at once.
    let (failures, _) = judged(|machine| machine.asked.open_files = Some(16_000));
    assert!(failures.is_empty(), "{failures:?}");
    warns(
        |machine| machine.write("proc/meminfo", "MemTotal: 307200 kB"),
        "448 MiB, more than the 300 MiB of memory; lower",
    );
}

#[test]
fn cpus_that_the_process_may_not_use_are_refused() {
    fails(
        |machine| machine.config.cores.set = [1, 5].into_iter().collect(),
        "names CPU 5, which this process may not use; choose from 0-1",
    );
    let three = |machine: &mut Machine| machine.config.cores.count = 3;
    fails(three, "cores.count is 3");
    let unpinned = |machine: &mut Machine| {
        three(machine);
        machine.config.cores.pin = false;
    };
    assert_eq!(judged(unpinned), (vec![], vec![]));
    let mut machine = Machine::good();
    unpinned(&mut machine);
    let cpus = cores::chosen(&machine.config.cores, &machine.asked.cpus);
    assert_eq!(cpus, [0, 1, 0], "executors may share CPUs when they are not pinned");
}

#[test]
fn ports_that_do_not_fit_the_machines_cores_are_refused() {
    let from = |base| move |machine: &mut Machine| machine.config.broker.core_port_base = base;
    fails(from(9291), "ports 9291 to 9292 of 2 cores");
    fails(from(65_535), "allowed is up to 65534");
    let mut machine = Machine::good();
    from(9291)(&mut machine);
    machine
        .config
        .validate()
        .expect("only the machine tells how many cores there are");
}

#[test]
fn an_unfit_data_directory_is_refused_with_the_remedy() {
    fails(
        |machine| machine.directory.usable = failed(io::ErrorKind::PermissionDenied),
        "choose another with --data-dir",
    );
    fails(
        |machine| machine.directory.direct_io = Some(failed(io::ErrorKind::InvalidInput)),
        "such as ext4 or XFS",
    );
    warns(
        |machine| machine.mount("20 1 0:40 / / rw,noatime - tmpfs tmpfs rw"),
        "choose a disk",
    );
    warns(
        |machine| machine.mount("20 1 259:2 / / rw,noatime - ext4 /dev/root rw,nobarrier"),
        "loses records that were acknowledged; run `mount -o remount,barrier /`",
    );
}

#[test]
fn a_full_disk_forbids_a_first_start_but_not_a_restart() {
    let full = |machine: &mut Machine| {
        machine.directory.free_bytes = Some(0);
        machine.directory.direct_io = Some(failed(io::ErrorKind::StorageFull));
    };
    fails(full, "less than 3 segments of 1GiB");
    warns(
        |machine| {
            full(machine);
            machine.directory.is_new = false;
        },
        "lower log.segment_size_bytes",
    );
}

/// The configuration of a small broker in a fresh directory, which the machine of any developer can run.
fn small(directory: &Path) -> Config {
    let mut config = Config::default();
    config.log.directory = directory.join("made/by/the/check");
    config.log.segment_size_bytes = crate::config::ByteSize::new(8 << 20);
    config.limits.connections_max = 64;
    config.limits.partitions_max = 64;
    config
}

#[test]
fn only_one_broker_gets_a_data_directory() {
    let temporary = tempfile::tempdir().unwrap();
    let config = small(temporary.path());
    let first = Checks::run(&config);
    assert_eq!(first.failures, Vec::<String>::new());
    let lock = first.into_lock().unwrap();
    let second = Checks::run(&config);
    let owner = format!("is in use by process {}", std::process::id());
    assert!(
        second.failures.len() == 1 && second.failures[0].contains(&owner),
        "{:?}",
        second.failures
    );
    assert!(second.into_lock().is_err());
    drop(lock);
    Checks::run(&config).into_lock().expect("the lock goes with its owner");
}

#[test]
fn the_checks_leave_nothing_but_the_lock() {
    let temporary = tempfile::tempdir().unwrap();
    let config = small(temporary.path());
    let checks = Checks::run(&config);
    let names = std::fs::read_dir(&config.log.directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["lock"]);
    drop(checks);
}

#[test]
fn a_data_directory_that_cannot_be_made_is_named() {
    let temporary = tempfile::tempdir().unwrap();
    let file = temporary.path().join("file");
    std::fs::write(&file, "not a directory").unwrap();
    let checks = Checks::run(&small(&file));
    assert!(
        checks.failures.len() == 1 && checks.failures[0].contains("cannot be made"),
        "{:?}",
        checks.failures
    );
    assert!(checks.into_lock().is_err());
}

#[test]
fn the_soft_limit_on_open_files_is_raised_to_the_hard_limit() {
    let temporary = tempfile::tempdir().unwrap();
    let mut limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current = limit.maximum.map(|maximum| maximum - 1).or(Some(10_000));
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let _checks = Checks::run(&small(temporary.path()));
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    assert_eq!(limit.current, limit.maximum);
}

#[test]
fn segments_get_what_connections_leave_of_the_limit_on_open_files_between_two_bounds() {
    let mut config = Config::default();
    let share = |config: &Config, limit, cores| kernel::segment_files(config, limit, cores);
    assert_eq!(share(&config, Some(20_000), 1), 20_000 - 2 * 4096 - 32 - 64);
    assert_eq!(share(&config, Some(20_000), 4), (20_000 - 2 * 4096 - 4 * 32 - 64) / 4);
    assert_eq!(share(&config, Some(1_000), 4), 64);
    assert_eq!(share(&config, Some(1 << 20), 4), 16_384);
    assert_eq!(share(&config, None, 4), 16_384);
    config.cores.open_files_max = 99;
    assert_eq!(share(&config, Some(20_000), 4), 99);
}

#[test]
fn a_report_makes_nothing_and_locks_nothing() {
    let temporary = tempfile::tempdir().unwrap();
    let config = small(temporary.path());
    let text = Report::look(&config).text(false);
    assert!(text.contains("to be made in"), "{text}");
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0);
    let held = Checks::run(&config).into_lock().unwrap();
    let text = Report::look(&config).text(false);
    let owner = format!("in use by a broker, process {}", std::process::id());
    assert!(text.contains(&owner), "{text}");
    drop(held);
    let text = Report::look(&config).text(false);
    assert!(!text.contains("in use by a broker"), "{text}");
}

#[test]
fn tuning_md_explains_every_item_and_no_other() {
    let (_, section) = include_str!("../../../../tuning.md")
        .split_once("\n## The machine\n")
        .unwrap();
    let section = section.split("\n## ").next().unwrap();
    let rows = section
        .lines()
        .filter_map(|line| line.strip_prefix("| **")?.split_once("** |"));
    let explained: Vec<&str> = rows.map(|(name, _)| name).collect();
    let items: Vec<&str> = ITEMS.iter().map(|item| item.name).collect();
    assert_eq!(explained, items);
}
