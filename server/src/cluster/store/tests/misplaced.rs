//! What has the name of a partition's directory and is not what the broker made.

use std::path::Path;

use super::disk::{Fault, Outcome};
use super::*;

/// A store in a real directory.
fn open_real(config: &Arc<Config>) -> Result<TopicStore<StdDirectory>, StoreError> {
    now(open_on(&StdDirectory::default(), Arc::clone(config))).map(|(store, _)| store)
}

/// The configuration of a store in a real directory, and that directory.
fn real() -> (tempfile::TempDir, Arc<Config>) {
    let temporary = tempfile::tempdir().unwrap();
    let mut config = config();
    config.log.directory = temporary.path().join("data");
    (temporary, Arc::new(config))
}

/// Puts something in the place of a partition's directory.
type Put<'a> = &'a dyn Fn(&Path);

#[test]
fn a_new_topic_never_takes_over_what_has_the_name_of_its_partition_whatever_that_is() {
    let (temporary, config) = real();
    let mut store = open_real(&config).unwrap();
    now(store.create(&new_topic("grown", 1))).unwrap();
    let elsewhere = temporary.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("records"), "old").unwrap();
    let path = |name: &str| config.log.directory.join(name);
    let put: [(&str, Put<'_>); 4] = [
        ("a link", &|path| std::os::unix::fs::symlink(&elsewhere, path).unwrap()),
        ("a link to nothing", &|path| {
            std::os::unix::fs::symlink("/nowhere/at/all", path).unwrap();
        }),
        ("a file", &|path| std::fs::write(path, "old").unwrap()),
        ("a directory", &|path| std::fs::create_dir(path).unwrap()),
    ];
    for (what, put) in put {
        for name in ["orders-1", "grown-1"] {
            put(&path(name));
            let refused = if name == "orders-1" {
                now(store.create(&new_topic("orders", 2))).unwrap_err()
            } else {
                now(store.alter(&alteration_of("grown", 2))).unwrap_err()
            };
            assert!(
                matches!(&refused, TopicError::InTheWay { path } if path.ends_with(name)),
                "{what}: {refused}"
            );
            assert!(!path("orders-0").exists());
            std::fs::rename(path(name), temporary.path().join(format!("{what}-{name}"))).unwrap();
        }
    }
    now(store.create(&new_topic("orders", 2))).unwrap();
    now(store.alter(&alteration_of("grown", 2))).unwrap();
    assert!(path("orders-1").is_dir() && path("grown-1").is_dir());
}

fn alteration_of(name: &str, partitions: i32) -> TopicAlteration {
    TopicAlteration {
        name: name.to_owned(),
        configs: Vec::new(),
        is_all: false,
        partitions,
        assignments: None,
    }
}

#[test]
fn a_topic_whose_partition_is_a_link_or_a_file_is_deleted_with_all_its_names_and_nothing_else() {
    let (temporary, config) = real();
    let elsewhere = temporary.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::write(elsewhere.join("records"), "old").unwrap();
    let path = |name: &str| config.log.directory.join(name);
    for finished_by_recovery in [false, true] {
        let mut store = open_real(&config).unwrap();
        now(store.create(&new_topic("orders", 3))).unwrap();
        for name in ["orders-0", "orders-1"] {
            std::fs::remove_dir(path(name)).unwrap();
        }
        std::os::unix::fs::symlink(&elsewhere, path("orders-0")).unwrap();
        std::fs::write(path("orders-1"), "").unwrap();
        let (_, recovery) = now(open_on(&StdDirectory::default(), Arc::clone(&config))).unwrap();
        let missing: Vec<i32> = recovery.missing.iter().map(|(_, partition)| partition.get()).collect();
        assert_eq!(missing, [0, 1]);
        let topic = now(store.begin_delete("orders", None)).unwrap();
        if finished_by_recovery {
            store = open_real(&config).unwrap();
        } else {
            now(store.finish_delete(topic.id)).unwrap();
        }
        let left = std::fs::read_dir(&config.log.directory).unwrap();
        let left: Vec<_> = left
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert!(left.iter().all(|name| !name.starts_with("orders")), "{left:?}");
        assert_eq!(std::fs::read(elsewhere.join("records")).unwrap(), b"old");
        now(store.create(&new_topic("orders", 1))).unwrap();
        assert_eq!(std::fs::read_dir(path("orders-0")).unwrap().count(), 0);
        delete_real(&mut store, "orders");
    }
}

fn delete_real(store: &mut TopicStore<StdDirectory>, name: &str) {
    let topic = now(store.begin_delete(name, None)).unwrap();
    now(store.finish_delete(topic.id)).unwrap();
}

#[test]
fn what_was_put_where_a_partition_was_being_made_is_not_taken_for_it() {
    for grows in [false, true] {
        let disk = MemoryDisk::default();
        let mut store = open(&disk);
        if grows {
            now(store.create(&new_topic("orders", 1))).unwrap();
        }
        let interrupted = |disk: &MemoryDisk| {
            // The machine stops when the decision is stored, and nothing is made yet.
            disk.plan(Fault::crash(2, Outcome::Undone));
        };
        interrupted(&disk);
        if grows {
            now(store.alter(&alteration_of("orders", 2))).unwrap_err();
        } else {
            now(store.create(&new_topic("orders", 2))).unwrap_err();
        }
        assert!(disk.heal());
        disk.make_dir("/data/orders-1");
        disk.write("/data/orders-1/0.log", b"somebody's");
        let refused = try_open(&disk, config()).err().unwrap();
        assert!(
            matches!(&refused, StoreError::InTheWay { path, .. } if path.ends_with("orders-1")),
            "{refused}"
        );
        disk.remove("/data/orders-1/0.log");
        let (store, _) = try_open(&disk, config()).unwrap();
        assert_eq!(store.image().topic("orders").unwrap().partition_count, 2);
    }
}
