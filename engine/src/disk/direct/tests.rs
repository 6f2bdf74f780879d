use std::{
    path::Path,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use super::*;
use crate::disk::{BLOCKING_THREADS, BlockPool, Directory as _, REGION_SIZE};

/// Page faults of this thread so far: field 10 of `proc_pid_stat(5)`.
fn page_faults() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(')').unwrap();
    fields.split(' ').nth(8).unwrap().parse().unwrap()
}

/// Does something with a disk on a core of its own; the file at the path is not there yet.
fn on_a_core(body: impl AsyncFnOnce(&DirectDisk, &Path) + Send + 'static) {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("file");
    let builder = glommio::LocalExecutorBuilder::default()
        .blocking_thread_pool_placement(glommio::PoolPlacement::Unbound(BLOCKING_THREADS));
    let running = builder.spawn(move || async move {
        let disk = DirectDisk::new().unwrap();
        body(&disk, &path).await;
        disk.ring().close().await;
    });
    running.unwrap().join().unwrap();
}

#[test]
fn a_read_into_memory_that_nobody_has_used_does_not_make_the_core_wait_for_it() {
    const REGIONS: usize = 16;
    on_a_core(async |disk, path| {
        std::fs::write(path, vec![7; REGION_SIZE]).unwrap();
        let file = disk.open(path, false).await.unwrap();
        let pool = BlockPool::new((REGIONS + 1) * REGION_SIZE);
        // The first of all reads has other memory to find.
        pool.prefault(REGION_SIZE);
        let read = || file.read_into(pool.take(REGION_SIZE).unwrap(), 0, REGION_SIZE);
        let mut done = vec![read().await.unwrap()];
        (0..REGIONS).for_each(|_| pool.grow());
        let before = page_faults();
        let reading: Vec<_> = (0..REGIONS).map(|_| read()).collect();
        let faults = page_faults() - before;
        for reading in reading {
            done.push(reading.await.unwrap());
        }
        assert!(done.iter().all(|buffer| buffer.bytes() == vec![7; REGION_SIZE]));
        assert!(faults < REGIONS as u64, "{faults} page faults on the core's thread");
    });
}

#[test]
fn a_file_is_made_however_much_there_is_to_do_that_may_wait() {
    on_a_core(async |disk, path| {
        let (end, ended) = mpsc::channel::<()>();
        let ended = Arc::new(Mutex::new(ended));
        let deadline = Instant::now() + Duration::from_secs(30);
        let work = |_| {
            let ended = Arc::clone(&ended);
            let wait = move || deadline.saturating_duration_since(Instant::now());
            disk.aside(move || ended.lock().unwrap().recv_timeout(wait()))
        };
        let working = futures::future::join_all((0..3 * BLOCKING_THREADS).map(work));
        let making = async {
            disk.open(path, true).await.unwrap();
            disk.rename(path, &path.with_extension("new")).await.unwrap();
            drop(end);
        };
        let (worked, ()) = futures::join!(working, making);
        let end = Err(mpsc::RecvTimeoutError::Disconnected);
        assert!(
            worked.iter().all(|ended| *ended == end),
            "the file was not made meanwhile"
        );
    });
}

#[test]
fn what_comes_later_waits_for_what_nobody_waits_for_any_more() {
    on_a_core(async |disk, path| {
        let (go_on, may_go_on) = mpsc::channel::<()>();
        let written = path.to_owned();
        let mut write = Box::pin(disk.aside(move || {
            may_go_on.recv().unwrap_err();
            std::fs::write(written, b"late").unwrap();
        }));
        assert!(futures::poll!(&mut write).is_pending());
        drop(write);
        let going_on = async {
            // In any of these it would be read, if nothing kept it from that.
            for _ in 0..100 {
                glommio::executor().spawn_blocking(|| ()).await;
            }
            drop(go_on);
        };
        let (read, ()) = futures::join!(disk.read_file(path), going_on);
        assert_eq!(read.unwrap(), b"late");
    });
}

#[test]
fn what_takes_long_is_done_on_another_thread() {
    on_a_core(async |disk, _path| {
        let other = disk.aside(|| std::thread::current().id()).await;
        assert_ne!(other, std::thread::current().id());
    });
}
