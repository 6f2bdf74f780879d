//! Every place at which the machine can stop or the disk can fail, one after the other.

use std::collections::BTreeSet;

use super::disk::{Fault, Outcome};
use super::*;
use crate::cluster::quorum::PRODUCER_ID_BLOCK;

/// The files of a data directory without partitions.
const METADATA: [&str; 1] = [QUORUM_FILE];

/// Calls `run` with faults at operation 0, 1, … until one lies beyond the last operation; `run` says if it did not.
pub(super) fn at_every_operation(operations_min: usize, mut run: impl FnMut(usize) -> bool) {
    let mut at = 0;
    while run(at) {
        at += 1;
        assert!(at < 1000, "the operations never end");
    }
    assert!(at >= operations_min, "only {at} operations were there to fail");
}

/// A disk with the topic `kept`, which has records, and `orders` if wanted.
fn populated(with_orders: bool) -> MemoryDisk {
    let disk = MemoryDisk::default();
    let mut store = open(&disk);
    now(store.create(&new_topic("kept", 2))).unwrap();
    disk.write("/data/kept-1/0.log", b"kept");
    if with_orders {
        now(store.create(&new_topic("orders", 3))).unwrap();
        for partition in 0..3 {
            disk.write(&format!("/data/orders-{partition}/0.log"), b"records");
            disk.write(&format!("/data/orders-{partition}/0.index"), b"index");
        }
    }
    disk
}

/// Opens the store and checks that the disk holds exactly what it says: `kept`, and `orders` wholly or not at all.
/// Returns whether `orders` is there.
fn orders_wholly_there_or_gone(disk: &MemoryDisk, with_records: bool) -> bool {
    let (store, recovery) = try_open(disk, config()).unwrap();
    assert_eq!((recovery.missing, recovery.orphans), (vec![], vec![]));
    let mut expected: BTreeSet<String> = METADATA.map(str::to_owned).into();
    expected.extend(["kept-0", "kept-1", "kept-1/0.log"].map(str::to_owned));
    let image = store.image();
    let orders = image.topic("orders");
    for partition in orders.iter().flat_map(|topic| topic.partitions()) {
        expected.insert(format!("orders-{partition}"));
        if with_records {
            expected.extend([
                format!("orders-{partition}/0.index"),
                format!("orders-{partition}/0.log"),
            ]);
        }
    }
    assert_eq!(disk.paths().into_iter().collect::<BTreeSet<_>>(), expected);
    assert!(image.topics().all(|topic| topic.state == TopicState::Ready));
    assert!(orders.is_none_or(|topic| topic.partition_count == 3));
    open(disk);
    orders.is_some()
}

#[test]
fn a_crash_during_a_first_start_leaves_a_directory_that_starts() {
    for outcome in Outcome::ALL {
        at_every_operation(5, |at| {
            let disk = MemoryDisk::default();
            disk.plan(Fault::crash(at, outcome));
            let first = try_open(&disk, config())
                .ok()
                .map(|(store, _)| store.identity().clone());
            let crashed = disk.heal();
            let store = open(&disk);
            assert!(first.is_none_or(|identity| identity == *store.identity()));
            assert_eq!(open(&disk).identity(), store.identity());
            assert_eq!(disk.paths(), METADATA);
            crashed
        });
    }
}

#[test]
fn a_crash_at_any_operation_of_create_leaves_the_topic_wholly_there_or_gone() {
    for outcome in Outcome::ALL {
        let mut seen = BTreeSet::new();
        at_every_operation(6, |at| {
            let disk = populated(false);
            let mut store = open(&disk);
            disk.plan(Fault::crash(at, outcome));
            let acknowledged = now(store.create(&new_topic("orders", 3))).is_ok();
            let crashed = disk.heal();
            let is_there = orders_wholly_there_or_gone(&disk, false);
            assert!(
                is_there || !acknowledged,
                "acknowledged and lost: crash at operation {at}, {outcome:?}"
            );
            seen.insert(is_there);
            crashed
        });
        assert_eq!(seen.len(), 2, "both ends must be seen");
    }
}

#[test]
fn a_crash_at_any_operation_of_delete_leaves_the_topic_wholly_there_or_gone() {
    for outcome in Outcome::ALL {
        let mut seen = BTreeSet::new();
        at_every_operation(9, |at| {
            let disk = populated(true);
            let mut store = open(&disk);
            disk.plan(Fault::crash(at, outcome));
            let begun = now(store.begin_delete("orders", None));
            if let Ok(topic) = &begun {
                let _ = now(store.finish_delete(topic.id));
            }
            let crashed = disk.heal();
            let is_there = orders_wholly_there_or_gone(&disk, true);
            assert!(
                !is_there || begun.is_err(),
                "deleted and there again: crash at operation {at}, {outcome:?}"
            );
            seen.insert(is_there);
            crashed
        });
        // The first operation stores the decision: only if that was not done the topic is still there.
        assert_eq!(seen.len(), if outcome == Outcome::Done { 1 } else { 2 }, "{outcome:?}");
    }
}

/// Opens the store and checks that `orders` is there with all that belongs to it. Returns whether it has been altered.
fn orders_altered_or_as_before(disk: &MemoryDisk) -> bool {
    let (store, recovery) = try_open(disk, config()).unwrap();
    assert_eq!((recovery.missing, recovery.orphans), (vec![], vec![]));
    let image = store.image();
    let orders = image.topic("orders").unwrap();
    let mine = disk.paths().into_iter().filter(|path| path.starts_with("orders"));
    let mut expected: BTreeSet<String> = orders.partitions().map(|index| format!("orders-{index}")).collect();
    for index in 0..3 {
        expected.extend([format!("orders-{index}/0.index"), format!("orders-{index}/0.log")]);
    }
    assert_eq!(mine.collect::<BTreeSet<_>>(), expected);
    assert_eq!((orders.state, &orders.becoming), (TopicState::Ready, &None));
    let found = (
        orders.partition_count,
        orders.overrides.is_empty(),
        settings(orders).retention_ms,
    );
    open(disk);
    let is_altered = orders.partition_count == 5;
    let default = config().log.retention_ms;
    let expected = if is_altered {
        (5, false, Some(crate::config::Millis::new(1000)))
    } else {
        (3, true, default)
    };
    assert_eq!(found, expected, "partitions and settings change together");
    is_altered
}

fn alteration() -> TopicAlteration {
    TopicAlteration {
        name: "orders".to_owned(),
        configs: vec![("retention.ms".to_owned(), Some("1000".to_owned()).into())],
        is_all: false,
        partitions: 5,
        assignments: None,
    }
}

#[test]
fn a_crash_at_any_operation_of_an_alteration_leaves_it_wholly_done_or_not_begun() {
    for outcome in Outcome::ALL {
        let mut seen = BTreeSet::new();
        at_every_operation(5, |at| {
            let disk = populated(true);
            let mut store = open(&disk);
            disk.plan(Fault::crash(at, outcome));
            let acknowledged = now(store.alter(&alteration())).is_ok();
            let crashed = disk.heal();
            let mut ends = BTreeSet::new();
            // And at any operation of the recovery that follows.
            for outcome in Outcome::ALL {
                at_every_operation(4, |at| {
                    let disk = disk.copy();
                    disk.plan(Fault::crash(at, outcome));
                    let _ = try_open(&disk, config());
                    let crashed = disk.heal();
                    ends.insert(orders_altered_or_as_before(&disk));
                    crashed
                });
            }
            assert_eq!(ends.len(), 1, "a second crash changed what the first had settled");
            assert!(
                !acknowledged || ends.contains(&true),
                "acknowledged and lost: {at}, {outcome:?}"
            );
            seen.extend(ends);
            crashed
        });
        assert_eq!(seen.len(), 2, "both ends must be seen");
    }
}

/// Whether the log takes orders: it does not, after a failed write, until the broker is started again.
fn takes_orders(store: &Store) -> bool {
    now(store.quorum().register()).is_ok()
}

fn started_again_if_need_be(store: Store, disk: &MemoryDisk) -> Store {
    if takes_orders(&store) {
        return store;
    }
    drop(store);
    try_open(disk, config()).unwrap().0
}

/// The disk fails for a while and the broker lives on.
#[test]
fn an_alteration_that_fails_with_the_disk_changes_nothing_that_is_served_and_can_be_made_again() {
    for fault in short_faults() {
        at_every_operation(5, |at| {
            let fault = Fault { at, ..fault };
            let disk = populated(true);
            let mut store = open(&disk);
            let before = Topic::clone(store.image().topic("orders").unwrap());
            disk.plan(fault);
            let done = now(store.alter(&alteration())).is_ok();
            let failed = disk.heal();
            let image = store.image();
            let mut served = Topic::clone(image.topic("orders").unwrap());
            let is_settled = served.becoming.take().is_none();
            assert_eq!(done, served.partition_count == 5, "{fault:?}");
            assert!(done || served == before, "{fault:?}");
            let could_be_undone = fault.count == 1 && takes_orders(&store);
            assert!(!could_be_undone || is_settled, "refused and not undone: {fault:?}");
            // What is served after a restart is all of one or all of the other.
            let is_altered = orders_altered_or_as_before(&disk.copy());
            assert!(!done || is_altered, "acknowledged and undone: {fault:?}");
            // The disk is well again.
            let mut store = started_again_if_need_be(store, &disk);
            let altered = now(store.alter(&alteration())).unwrap();
            assert_eq!((altered.partition_count, &altered.becoming), (5, &None));
            assert!(orders_altered_or_as_before(&disk));
            failed
        });
    }
}

#[test]
fn a_topic_that_could_neither_grow_nor_be_put_back_can_be_deleted_with_all_its_directories() {
    let mut unsettled = 0;
    for fault in short_faults() {
        at_every_operation(5, |at| {
            let disk = populated(true);
            let mut store = open(&disk);
            disk.plan(Fault { at, ..fault });
            let _ = now(store.alter(&alteration()));
            let failed = disk.heal();
            unsettled += usize::from(store.image().topic("orders").unwrap().becoming.is_some());
            let mut store = started_again_if_need_be(store, &disk);
            delete(&mut store, "orders").unwrap();
            assert!(!orders_wholly_there_or_gone(&disk, true));
            failed
        });
    }
    assert!(unsettled > 0, "it never came to that");
}

#[test]
fn a_crash_at_any_operation_of_a_recovery_is_recovered_from() {
    for (with_orders, outcome) in [true, false]
        .into_iter()
        .flat_map(|with| Outcome::ALL.map(|how| (with, how)))
    {
        at_every_operation(6, |at| {
            let disk = populated(with_orders);
            let mut store = open(&disk);
            disk.plan(Fault::crash(at, outcome));
            let done = if with_orders {
                delete(&mut store, "orders").is_ok()
            } else {
                now(store.create(&new_topic("orders", 3))).is_ok()
            };
            let crashed = disk.heal();
            let mut ends = BTreeSet::new();
            for outcome in Outcome::ALL {
                at_every_operation(5, |at| {
                    let disk = disk.copy();
                    disk.plan(Fault::crash(at, outcome));
                    let _ = try_open(&disk, config());
                    let crashed = disk.heal();
                    ends.insert(orders_wholly_there_or_gone(&disk, with_orders));
                    crashed
                });
            }
            assert_eq!(ends.len(), 1, "a second crash changed what the first had settled");
            assert!(!done || ends.contains(&!with_orders));
            crashed
        });
    }
}

/// The disk fails for a while and the broker lives on: what it serves afterwards is what a restart finds.
#[test]
fn a_topic_that_is_served_after_a_failure_of_the_disk_is_there_after_a_restart() {
    for (fault, with_orders) in short_faults().flat_map(|fault| [(fault, true), (fault, false)]) {
        at_every_operation(6, |at| {
            let fault = Fault { at, ..fault };
            let disk = populated(with_orders);
            let mut store = open(&disk);
            disk.plan(fault);
            let (done, is_expected) = if with_orders {
                (delete(&mut store, "orders").is_ok(), false)
            } else {
                (now(store.create(&new_topic("orders", 3))).is_ok(), true)
            };
            let failed = disk.heal();
            let state = store.image().topic("orders").map(|topic| topic.state);
            let is_ready = state == Some(TopicState::Ready);
            let is_there = orders_wholly_there_or_gone(&disk.copy(), with_orders);
            let case = format!("{fault:?}: {state:?}");
            assert!(!is_ready || is_there, "served and lost: {case}");
            assert!(!done || is_there == is_expected, "acknowledged and undone: {case}");
            let is_refused = !with_orders && !done;
            assert!(!is_refused || !is_ready, "refused and served: {case}");
            let could_be_undone = fault.count == 1 && takes_orders(&store);
            assert!(
                !is_refused || !could_be_undone || state.is_none(),
                "refused and not undone: {case}"
            );

            // The disk is well again: whatever is left of the topic can be deleted, and its name used.
            let mut store = started_again_if_need_be(store, &disk);
            if store.image().topic("orders").is_some() {
                delete(&mut store, "orders").unwrap();
            }
            now(store.create(&new_topic("orders", 3))).unwrap();
            assert!(orders_wholly_there_or_gone(&disk, false));
            failed
        });
    }
}

/// Failures of one to four operations, with every pair of outcomes for the first and the others.
fn short_faults() -> impl Iterator<Item = Fault> {
    let outcomes = Outcome::ALL
        .into_iter()
        .flat_map(|outcome| Outcome::ALL.map(|then| (outcome, then)));
    let at = 0;
    outcomes.flat_map(move |(outcome, then)| {
        (1..=4).map(move |count| Fault {
            at,
            count,
            outcome,
            then,
        })
    })
}

#[test]
fn no_producer_id_is_given_twice_whatever_fails() {
    let crashes = Outcome::ALL.map(|outcome| Fault::crash(0, outcome));
    for fault in short_faults().chain(crashes) {
        at_every_operation(2, |at| {
            let disk = MemoryDisk::default();
            let mut given = BTreeSet::new();
            let mut take = |store: &Store| {
                let reserve = || now(store.quorum().propose(Order::ReserveProducerIds));
                for outcome in (0..2).filter_map(|_| reserve().ok()) {
                    let crate::cluster::quorum::Outcome::ProducerIds { first } = outcome else {
                        panic!("{outcome:?}")
                    };
                    for id in first..first + PRODUCER_ID_BLOCK {
                        assert!(id >= 0 && given.insert(id), "{id} is given twice");
                    }
                }
            };
            let store = open(&disk);
            disk.plan(Fault { at, ..fault });
            (0..2).for_each(|_| take(&store));
            let failed = disk.heal();
            take(&open(&disk));
            take(&open(&disk));
            assert!(given.len() >= 4 * PRODUCER_ID_BLOCK as usize);
            failed
        });
    }
}
