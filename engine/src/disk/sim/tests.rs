use std::{cell::RefCell, collections::BTreeSet, future::pending, io::ErrorKind, path::PathBuf};

use super::*;
use crate::disk::{BLOCK_SIZE, BlockBuffer, EntryKind};

const BLOCK: u64 = BLOCK_SIZE as u64;
const SEEDS: u64 = 200;

fn blocks(byte: u8, count: usize) -> BlockSlice {
    let buffer = Rc::new(BlockBuffer::new(count * BLOCK_SIZE));
    buffer.append(&vec![byte; count * BLOCK_SIZE]);
    buffer.blocks(0, count * BLOCK_SIZE)
}

fn path() -> PathBuf {
    PathBuf::from("log")
}

fn run<T>(disk: &SimDisk, seed: u64, future: impl Future<Output = T>) -> T {
    SimExecutor::new(disk, seed)
        .block_on(future)
        .expect("it runs to its end")
}

/// Content of the file on a disk that a crash with this seed leaves.
fn left(disk: &SimDisk, seed: u64) -> Vec<u8> {
    let image = disk.image(seed);
    run(&image, seed, image.read_file(&path())).expect("its name is durable")
}

/// What each of many crashes leaves, first bytes of sectors only.
fn all_left(disk: &SimDisk) -> BTreeSet<Vec<u8>> {
    (0..SEEDS)
        .map(|seed| left(disk, seed).chunks(512).map(|sector| sector[0]).collect())
        .collect()
}

#[test]
fn flushed_writes_survive_every_crash_and_others_tear() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        file.write(blocks(1, 2), 0).await.unwrap();
        file.sync().await.unwrap();
    });
    assert_eq!(all_left(&disk), BTreeSet::from([vec![1; 16]]));
    run(&disk, 2, async {
        let file = disk.open(&path(), false).await.unwrap();
        file.write(blocks(2, 1), BLOCK).await.unwrap();
        assert_eq!(file.read(0, 3 * BLOCK_SIZE).await.unwrap()[BLOCK_SIZE], 2);
    });
    let left = all_left(&disk);
    assert!(left.iter().all(|sectors| sectors[..8] == [1; 8]));
    let with = |tail: [u8; 8]| left.iter().any(|sectors| sectors[8..] == tail);
    assert!(with([1; 8]), "never lost");
    assert!(with([2; 8]), "never kept");
    assert!(with([2, 2, 2, 1, 1, 1, 1, 1]), "never a prefix");
    assert!(left.len() > 20, "hardly torn: {}", left.len());
}

#[test]
fn a_flush_covers_only_what_had_completed_when_it_was_asked_for() {
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let file = disk.open(&path(), true).await.unwrap();
            file.allocate(0, 2 * BLOCK).await.unwrap();
            file.write(blocks(1, 1), 0).await.unwrap();
            let flush = file.sync();
            file.write(blocks(2, 1), BLOCK).await.unwrap();
            flush.await.unwrap();
        });
        let certain = disk.certain_image(seed);
        let bytes = run(&certain, seed, certain.read_file(&path())).unwrap();
        assert_eq!((bytes[0], bytes[BLOCK_SIZE]), (1, 0), "seed {seed}");
    }
}

#[test]
fn a_durable_write_saves_itself_and_older_ones_do_not_undo_it() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        file.write(blocks(1, 2), 0).await.unwrap();
        file.write_durable(blocks(2, 1), 0).await.unwrap();
    });
    let left = all_left(&disk);
    assert!(left.iter().all(|sectors| sectors[..8] == [2; 8]));
    assert!(left.iter().any(|sectors| sectors.len() < 16 || sectors[8..] == [0; 8]));
    assert!(left.iter().any(|sectors| sectors[8..] == [1; 8]));
    run(&disk, 2, async {
        disk.open(&path(), false).await.unwrap().sync().await.unwrap();
    });
    assert_eq!(all_left(&disk), BTreeSet::from([[[2; 8], [1; 8]].concat()]));
}

#[test]
fn writes_under_way_complete_in_any_order_and_may_be_lost() {
    let mut orders = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let file = executor.block_on(disk.open(&path(), true)).unwrap().unwrap();
        let order = Rc::new(RefCell::new(Vec::new()));
        for number in 0..3 {
            let writing = file.write(blocks(number + 1, 1), u64::from(number) * BLOCK);
            let order = Rc::clone(&order);
            executor.spawn(async move {
                writing.await.unwrap();
                order.borrow_mut().push(number);
            });
        }
        executor.run().unwrap();
        orders.insert(order.take());
    }
    assert_eq!(orders.len(), 6);
}

#[test]
fn a_dropped_future_does_not_stop_its_operation() {
    let mut written = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let file = executor.block_on(disk.open(&path(), true)).unwrap().unwrap();
        drop(file.write_durable(blocks(1, 1), 0));
        while disk.complete_one() {}
        written += usize::from(left(&disk, seed).len() == BLOCK_SIZE);
    }
    assert!(
        written > 0 && written < SEEDS as usize,
        "some start when made, others only when polled: {written}"
    );
}

#[test]
fn memory_that_is_filled_during_a_write_reaches_the_disk_in_any_mixture() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let file = executor.block_on(disk.open(&path(), true)).unwrap().unwrap();
        let buffer = Rc::new(BlockBuffer::new(BLOCK_SIZE));
        buffer.append(&[1; 100]);
        let writing = file.write_durable(buffer.blocks(0, 100), 0);
        buffer.append(&[2; 100]);
        executor.block_on(writing).unwrap().unwrap();
        let bytes = left(&disk, seed);
        assert!(bytes[..100].iter().all(|byte| *byte == 1), "what was filled is written");
        seen.insert(bytes.iter().position(|byte| *byte == 0).unwrap() - 100);
    }
    assert!(seen.contains(&0) && seen.contains(&100) && seen.len() > 5, "{seen:?}");
}

#[test]
fn a_read_beside_a_write_sees_old_or_new_sectors() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        let executor = SimExecutor::new(&disk, seed);
        let file = executor.block_on(disk.open(&path(), true)).unwrap().unwrap();
        executor.block_on(file.write(blocks(1, 1), 0)).unwrap().unwrap();
        let writing = file.write(blocks(2, 1), 0);
        executor.spawn(async move { writing.await.unwrap() });
        let bytes = executor.block_on(file.read(100, BLOCK_SIZE)).unwrap().unwrap();
        assert_eq!(bytes.len(), BLOCK_SIZE - 100);
        seen.insert(bytes);
    }
    assert!(seen.len() > 5, "{}", seen.len());
}

#[test]
fn a_failed_flush_is_not_mended_by_a_later_one() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        run(&disk, seed, async {
            let file = disk.open(&path(), true).await.unwrap();
            file.write(blocks(1, 1), 0).await.unwrap();
            disk.fail_nth(OpKind::Sync, 0, Fault::InputOutput);
            let error = file.sync().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(5));
            file.sync().await.unwrap();
            assert_eq!(file.read(0, BLOCK_SIZE).await.unwrap(), vec![1; BLOCK_SIZE]);
        });
        lost += usize::from(left(&disk, seed) != vec![1; BLOCK_SIZE]);
    }
    assert!(lost > 50, "lost {lost} times");
}

#[test]
fn a_disk_fills_up_and_room_comes_back() {
    let disk = SimDisk::new(1);
    disk.set_capacity(Some(4 * BLOCK));
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        file.allocate(0, 3 * BLOCK).await.unwrap();
        assert_eq!(disk.used(), 3 * BLOCK);
        let error = file.write(blocks(1, 2), 3 * BLOCK).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        file.write(blocks(1, 3), 0).await.expect("reserved blocks are there");
        let other = PathBuf::from("other");
        file.truncate(3 * BLOCK).await.unwrap();
        let error = disk.replace_file(&other, vec![0; 2 * BLOCK_SIZE]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::StorageFull);
        disk.remove_file(&PathBuf::from("other.tmp")).await.unwrap();
        disk.remove_file(&path()).await.unwrap();
        assert_eq!(disk.used(), 3 * BLOCK, "an open file keeps its blocks");
        drop(file);
        assert_eq!(disk.used(), 0);
        disk.replace_file(&other, vec![0; 2 * BLOCK_SIZE]).await.unwrap();
    });
}

#[test]
fn a_cut_is_durable() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        file.write(blocks(1, 2), 0).await.unwrap();
        file.truncate(700).await.unwrap();
    });
    assert!(all_left(&disk).iter().all(|sectors| sectors.len() == 2));
    assert_eq!(left(&disk, 1).len(), 700);
}

#[test]
fn a_replaced_file_is_old_or_new_after_a_crash() {
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let disk = SimDisk::new(seed);
        run(&disk, seed, disk.replace_file(&path(), vec![1; 10])).unwrap();
        disk.crash_at(1);
        let halt = SimExecutor::new(&disk, seed).block_on(disk.replace_file(&path(), vec![2; 20]));
        assert_eq!(halt.unwrap_err(), Halt::Crashed);
        let names: Vec<String> = {
            let image = disk.crash(seed);
            let entries = run(&image, seed, image.list(Path::new(""))).unwrap();
            entries.into_iter().map(|entry| entry.name).collect()
        };
        seen.insert((left(&disk, seed), names.len()));
    }
    let expected = [(vec![1; 10], 2), (vec![2; 20], 1)];
    assert_eq!(seen, BTreeSet::from(expected));
}

#[test]
fn a_crash_stops_everything_at_the_chosen_change() {
    let disk = SimDisk::new(3);
    disk.crash_at(2);
    let executor = SimExecutor::new(&disk, 3);
    let halt = executor.block_on(async {
        let file = disk.open(&path(), true).await.unwrap();
        file.write_durable(blocks(1, 1), 0).await.unwrap();
        let _ = file.write_durable(blocks(2, 1), 0).await;
        unreachable!("no task runs after the crash");
    });
    assert_eq!(halt, Err::<(), _>(Halt::Crashed));
    assert!(disk.is_crashed());
    let seen: BTreeSet<u8> = all_left(&disk).into_iter().flatten().collect();
    assert_eq!(seen, BTreeSet::from([1, 2]));
}

#[test]
fn a_lost_wake_up_is_a_deadlock_and_not_a_hang() {
    let disk = SimDisk::new(1);
    let executor = SimExecutor::new(&disk, 1);
    assert_eq!(executor.block_on(pending::<()>()), Err(Halt::Deadlock));
    executor.spawn(pending());
    assert_eq!(executor.run(), Err(Halt::Deadlock));
}

#[test]
fn names_are_a_tree() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let deep = PathBuf::from("/data/topic-0");
        assert!(disk.open(&deep.join("a"), true).await.is_err(), "no parent");
        disk.create_dir(&deep).await.unwrap();
        disk.create_dir(&deep).await.unwrap();
        disk.replace_file(&deep.join("b"), vec![1; 3]).await.unwrap();
        disk.open(&deep.join("a"), true).await.unwrap();
        disk.rename(&deep, Path::new("/data/topic-1")).await.unwrap();
        let entries = disk.list(Path::new("/data/topic-1")).await.unwrap();
        let entries: Vec<_> = entries.iter().map(|entry| (entry.name.as_str(), entry.size)).collect();
        assert_eq!(entries, [("a", 0), ("b", 3)]);
        let entries = disk.list(Path::new("/data")).await.unwrap();
        assert_eq!((entries.len(), entries[0].kind), (1, EntryKind::Directory));
        assert_eq!(disk.list(&deep).await.unwrap_err().kind(), ErrorKind::NotFound);
        disk.remove_dir_all(Path::new("/data")).await.unwrap();
        disk.remove_file(Path::new("/data/x")).await.unwrap();
        assert!(disk.list(Path::new("/")).await.unwrap().is_empty());
    });
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let disk = SimDisk::new(seed);
        disk.fail_randomly(OpKind::Write, 0.2, Fault::InputOutput);
        let executor = SimExecutor::new(&disk, seed);
        let file = executor.block_on(disk.open(&path(), true)).unwrap().unwrap();
        let done = Rc::new(RefCell::new(Vec::new()));
        for number in 0..10 {
            let (done, writing) = (
                Rc::clone(&done),
                file.write(blocks(number, 1), u64::from(number) * BLOCK),
            );
            executor.spawn(async move {
                let ok = writing.await.is_ok();
                done.borrow_mut().push((number, ok));
            });
        }
        executor.run().unwrap();
        (done.take(), left(&disk, seed))
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn it_works_without_its_own_executor() {
    futures::executor::block_on(async {
        let disk = SimDisk::new(1);
        let file = disk.open(&path(), true).await.unwrap();
        let (first, second) = futures::join!(file.write(blocks(1, 1), 0), file.write(blocks(2, 1), BLOCK));
        first.and(second).unwrap();
        assert_eq!(file.size().await.unwrap(), 2 * BLOCK);
        let after = disk.crash(1);
        assert!(file.sync().await.is_err(), "it has crashed");
        after.open(&path(), false).await.unwrap();
    });
}

#[test]
#[should_panic(expected = "while a write of")]
fn a_block_in_two_writes_at_once_is_a_bug_of_the_caller() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        let _ = futures::join!(file.write(blocks(1, 2), 0), file.write(blocks(2, 1), BLOCK));
    });
}

#[test]
#[should_panic(expected = "is cut to 4096 while")]
fn a_cut_of_what_is_being_written_is_a_bug_of_the_caller() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        let _ = futures::join!(file.write(blocks(1, 2), 0), file.truncate(BLOCK));
    });
}

#[test]
#[should_panic(expected = "is not whole blocks")]
fn a_write_between_blocks_is_a_bug_of_the_caller() {
    let disk = SimDisk::new(1);
    run(&disk, 1, async {
        let file = disk.open(&path(), true).await.unwrap();
        let _ = file.write(blocks(1, 1), 512).await;
    });
}
