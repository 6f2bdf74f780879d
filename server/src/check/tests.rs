use std::io;

use super::facts::{DirectoryFacts, kernel_version};
use super::*;
use crate::config::CpuSet;

/// A machine on which everything is as it should be.
fn good() -> Facts {
    Facts {
        kernel: Some((6, 18)),
        kernel_release: "6.18.0".to_owned(),
        io_uring: Probe::Passed,
        io_uring_disabled: Some(0),
        cpus: vec![0, 1],
        memlock_bytes: Some(8 << 20),
        open_files: Some(20_000),
        memory_bytes: Some(8 << 30),
        directory: DirectoryFacts {
            path: PathBuf::from("/srv/data"),
            lock: Probe::Passed,
            is_new: true,
            direct_io: Probe::Passed,
            in_memory: false,
            free_bytes: Some(100 << 30),
        },
    }
}

fn failed(kind: io::ErrorKind) -> Probe {
    Probe::Failed(io::Error::from(kind))
}

/// What is said about `config` on a good machine that `spoil` changed in one way.
fn judged(config: &Config, spoil: impl FnOnce(&mut Facts)) -> (Vec<String>, Vec<String>) {
    let mut facts = good();
    spoil(&mut facts);
    let (failures, warnings) = judge(config, &facts);
    for sentence in failures.iter().chain(&warnings) {
        assert!(
            sentence.ends_with('.') && sentence.contains("; ") && !sentence.contains('\n'),
            "{sentence}"
        );
    }
    (failures, warnings)
}

#[track_caller]
fn fails(spoil: impl FnOnce(&mut Facts), remedy: &str) {
    let (failures, warnings) = judged(&Config::default(), spoil);
    assert!(failures.len() == 1 && warnings.is_empty(), "{failures:?} {warnings:?}");
    assert!(failures[0].contains(remedy), "{failures:?}");
}

#[track_caller]
fn warns(spoil: impl FnOnce(&mut Facts), remedy: &str) {
    let (failures, warnings) = judged(&Config::default(), spoil);
    assert!(failures.is_empty() && warnings.len() == 1, "{failures:?} {warnings:?}");
    assert!(warnings[0].contains(remedy), "{warnings:?}");
}

#[test]
fn a_good_machine_passes_without_a_word() {
    assert_eq!(judged(&Config::default(), |_| {}), (vec![], vec![]));
    assert_eq!(
        judged(&Config::default(), |facts| {
            facts.memlock_bytes = None;
            facts.open_files = None;
        }),
        (vec![], vec![])
    );
}

#[test]
fn an_unfit_kernel_is_refused_with_the_remedy() {
    fails(|facts| facts.kernel = Some((5, 14)), "run on Linux 5.15 or newer");
    warns(|facts| facts.kernel = None, "Linux 5.15 or newer is needed");
    let denied = |facts: &mut Facts| facts.io_uring = failed(io::ErrorKind::PermissionDenied);
    fails(denied, "seccomp");
    fails(
        |facts| {
            denied(facts);
            facts.io_uring_disabled = Some(2);
        },
        "sysctl kernel.io_uring_disabled=0",
    );
    fails(
        |facts| facts.io_uring = failed(io::ErrorKind::Unsupported),
        "CONFIG_IO_URING",
    );
    assert_eq!(kernel_version("6.18.44-fc-v657"), Some((6, 18)));
    assert_eq!(kernel_version("5.4-rc1"), Some((5, 4)));
    assert_eq!(kernel_version("linux"), None);
}

#[test]
fn limits_of_the_process_are_refused_with_the_remedy() {
    fails(
        |facts| facts.memlock_bytes = Some((512 << 10) - 1),
        "raise it to 512 KiB",
    );
    fails(
        |facts| facts.open_files = Some(16_000),
        "lower limits.connections_max or limits.partitions_max",
    );
    warns(
        |facts| facts.memory_bytes = Some(300 << 20),
        "384.0 MiB, more than the 300.0 MiB of memory; lower",
    );
}

#[test]
fn cpus_that_the_process_may_not_use_are_refused() {
    let mut config = Config::default();
    config.cores.set = [1, 5].into_iter().collect::<CpuSet>();
    let (failures, _) = judged(&config, |_| {});
    assert!(
        failures[0].contains("names CPU 5") && failures[0].contains("choose from 0,1"),
        "{failures:?}"
    );
    config.cores.set = CpuSet::default();
    config.cores.count = 3;
    let (failures, _) = judged(&config, |_| {});
    assert!(failures[0].contains("cores.count is 3"), "{failures:?}");
    config.cores.pin = false;
    assert_eq!(judged(&config, |_| {}), (vec![], vec![]));
    assert_eq!(
        cpus(&config.cores).len(),
        3,
        "executors may share CPUs when they are not pinned"
    );
}

#[test]
fn ports_that_do_not_fit_the_machines_cores_are_refused() {
    let mut config = Config::default();
    config.broker.core_port_base = 9291;
    config.validate().unwrap();
    let (failures, _) = judged(&config, |_| {});
    assert!(failures[0].contains("ports 9291 to 9292 of 2 cores"), "{failures:?}");
    config.broker.core_port_base = 65_535;
    let (failures, _) = judged(&config, |_| {});
    assert!(failures[0].contains("allowed is up to 65534"), "{failures:?}");
}

#[test]
fn an_unfit_data_directory_is_refused_with_the_remedy() {
    fails(
        |facts| facts.directory.lock = failed(io::ErrorKind::PermissionDenied),
        "choose another with --data-dir",
    );
    fails(
        |facts| facts.directory.direct_io = failed(io::ErrorKind::InvalidInput),
        "such as ext4 or XFS",
    );
    warns(|facts| facts.directory.in_memory = true, "choose a disk");
}

#[test]
fn a_full_disk_forbids_a_first_start_but_not_a_restart() {
    let full = |facts: &mut Facts| {
        facts.directory.free_bytes = Some(0);
        facts.directory.direct_io = failed(io::ErrorKind::StorageFull);
    };
    fails(full, "less than 3 segments of 1GiB");
    warns(
        |facts| {
            full(facts);
            facts.directory.is_new = false;
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
