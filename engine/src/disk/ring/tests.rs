//! Operations of a ring, among them those that the kernel does not take at once.

use std::{
    fs::{File, OpenOptions},
    os::fd::AsFd as _,
};

use futures::{FutureExt as _, future::join_all};
use rustix::pipe::{PipeFlags, pipe_with};

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// Runs a test with a ring on an executor of its own. One that does not end in time fails, though the ring then waits for ever for what
/// the kernel never got.
fn with_ring<F: Future<Output = ()> + 'static>(test: impl FnOnce(Ring) -> F + Send + 'static) {
    let (ended, is_ended) = std::sync::mpsc::channel::<()>();
    let running = glommio::LocalExecutorBuilder::default().spawn(move || async move {
        let ring = Ring::new().unwrap();
        let _tells_its_end = ended;
        test(ring.clone()).await;
        ring.close().await;
    });
    let end = is_ended.recv_timeout(LIMIT);
    assert_eq!(
        end,
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected),
        "it takes for ever"
    );
    running.unwrap().join().unwrap();
}

/// A file to which everything is appended, so that its size tells how often it was written.
fn appended() -> File {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let path = directory.path().join("file");
    let file = OpenOptions::new().append(true).read(true).create_new(true).open(path);
    file.unwrap()
}

/// Appends these bytes, which the ring keeps.
fn append(ring: &Ring, file: &Rc<File>, bytes: &Rc<Vec<u8>>) -> Submitted<(Rc<File>, Rc<Vec<u8>>)> {
    let write = opcode::Write::new(Fd(file.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32);
    let resources = Rc::new((Rc::clone(file), Rc::clone(bytes)));
    // SAFETY: the resources own the descriptor and the memory, which does not change.
    unsafe { ring.submit(write.offset(u64::MAX).build(), resources) }
}

fn flush(ring: &Ring, file: &Rc<File>) -> Submitted<Rc<File>> {
    let flush = opcode::Fsync::new(Fd(file.as_raw_fd())).build();
    // SAFETY: the resources own the descriptor; there is no memory.
    unsafe { ring.submit(flush, Rc::new(Rc::clone(file))) }
}

fn fail(ring: &Ring, count: usize, error: Errno) {
    ring.inner.queues.borrow_mut().failures = (count, error);
}

fn under_way(ring: &Ring, kind: Kind) -> usize {
    ring.inner.queues.borrow().lanes[kind as usize].under_way
}

#[test]
fn what_the_kernel_does_not_take_at_once_is_done_once_later_with_its_own_result() {
    for error in [Errno::AGAIN, Errno::BUSY, Errno::NOMEM, Errno::INTR] {
        with_ring(async move |ring| {
            let file = Rc::new(appended());
            let (first, second) = (Rc::new(vec![1; 1000]), Rc::new(vec![2; 300]));
            fail(&ring, 5, error);
            // Nothing else happens that could have the kernel asked again.
            assert_eq!(append(&ring, &file, &first).await.0.unwrap(), 1000);
            fail(&ring, 5, error);
            let (a, b, c) = (
                append(&ring, &file, &first),
                flush(&ring, &file),
                append(&ring, &file, &second),
            );
            let ((a, _), (b, _), (c, _)) = futures::join!(a, b, c);
            assert_eq!((a.unwrap(), b.unwrap(), c.unwrap()), (1000, 0, 300));
            assert_eq!(file.metadata().unwrap().len(), 2300);
        });
    }
}

#[test]
fn what_waits_for_the_kernel_keeps_its_memory_and_its_name_though_nobody_waits_for_it() {
    with_ring(async |ring| {
        let file = Rc::new(appended());
        let bytes = Rc::new(vec![7; 1000]);
        fail(&ring, 4, Errno::AGAIN);
        drop(append(&ring, &file, &bytes));
        assert_eq!(Rc::strong_count(&bytes), 2, "the kernel will read it");
        // Were the dropped one forgotten, this one would have its name, and be told of its end.
        let (flushed, _) = flush(&ring, &file).await;
        assert_eq!(flushed.unwrap(), 0);
        while Rc::strong_count(&bytes) > 1 {
            glommio::timer::sleep(PAUSE).await;
            ring.reap();
        }
        assert_eq!(file.metadata().unwrap().len(), 1000);
        assert!(ring.inner.operations.borrow().is_empty());
    });
}

#[test]
fn a_ring_that_fails_otherwise_ends_its_core() {
    let running = glommio::LocalExecutorBuilder::default().spawn(|| async {
        let ring = Ring::new().unwrap();
        fail(&ring, 1, Errno::BADF);
        flush(&ring, &Rc::new(appended())).await.0.unwrap();
    });
    assert!(running.unwrap().join().is_err());
}

#[test]
fn what_is_more_than_may_be_under_way_waits_for_its_turn_and_all_is_done() {
    with_ring(async |ring| {
        let file = Rc::new(appended());
        let byte = Rc::new(vec![9]);
        let count = 2 * FILE_OPERATIONS_MAX + 100;
        let mut most = 0;
        let begin = |_| {
            let begun = append(&ring, &file, &byte);
            most = most.max(under_way(&ring, Kind::File));
            begun
        };
        let appending: Vec<_> = (0..count).map(begin).collect();
        assert!(most <= FILE_OPERATIONS_MAX, "{most}");
        let done = join_all(appending).await;
        assert!(done.into_iter().all(|(result, _)| result.unwrap() == 1));
        assert_eq!(file.metadata().unwrap().len(), count as u64);
        assert_eq!(under_way(&ring, Kind::File), 0);
    });
}

#[test]
fn sockets_that_are_never_ready_do_not_keep_files_waiting() {
    with_ring(async |ring| {
        let (_read, full) = pipe_with(PipeFlags::NONBLOCK).unwrap();
        while rustix::io::write(&full, &[0; 4096]).is_ok() {}
        let mut polls: Vec<_> = (0..POLLS_MAX + 10)
            .map(|_| Box::pin(ring.writable(full.as_fd())))
            .collect();
        for poll in &mut polls {
            assert!(poll.now_or_never().is_none());
        }
        assert_eq!(under_way(&ring, Kind::Poll), POLLS_MAX);
        let file = Rc::new(appended());
        assert_eq!(append(&ring, &file, &Rc::new(vec![1; 10])).await.0.unwrap(), 10);
    });
}

#[test]
fn only_so_many_prefetches_are_under_way_and_more_can_begin_when_they_have_ended() {
    with_ring(async |ring| {
        let file = File::open(std::env::current_exe().unwrap()).unwrap();
        let begun = (0..1000).filter(|_| ring.prefetch(file.as_fd(), 0, 4096)).count();
        assert_eq!(begun, PREFETCHES_MAX);
        while !ring.prefetch(file.as_fd(), 0, 4096) {
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
    });
}
