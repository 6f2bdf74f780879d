//! The sockets of a core, so that they can be shut down when it has failed: an executor that has panicked leaves them open, and
//! their peers would wait for ever, those included whom the kernel hands to a listening socket that nobody accepts from.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
};

use rustix::net::Shutdown;

thread_local! {
    static OPEN: RefCell<BTreeSet<RawFd>> = const { RefCell::new(BTreeSet::new()) };
}

/// A socket of this core, for as long as this lives: drop it before the socket.
#[derive(Debug)]
pub(crate) struct Listed(RawFd);

impl Listed {
    pub(crate) fn new(socket: BorrowedFd<'_>) -> Listed {
        let number = socket.as_raw_fd();
        OPEN.with_borrow_mut(|open| open.insert(number));
        Listed(number)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        OPEN.with_borrow_mut(|open| open.remove(&self.0));
    }
}

/// Shuts down all sockets of the core that ran on this thread.
pub(crate) fn shut_down_all() {
    for number in OPEN.take() {
        // SAFETY: a listed socket has not been closed, as it outlives its place in the list.
        let socket = unsafe { BorrowedFd::borrow_raw(number) };
        if let Err(error) = rustix::net::shutdown(socket, Shutdown::Both) {
            tracing::debug!(%error, "a peer was gone already");
        }
    }
}
