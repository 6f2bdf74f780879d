//! How other threads, and the tasks themselves, tell a core's driver that a task is ready.
//!
//! A core that sleeps says so first and then looks whether the bell has rung; who rings it says so first and then looks whether the core
//! sleeps. So one of them always notices the other, and a core that is awake costs nobody a system call.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering::SeqCst},
    },
    task::{Wake, Waker},
};

use futures::task::AtomicWaker;
use rustix::{
    event::{EventfdFlags, eventfd},
    io::Errno,
};

/// The core runs tasks.
const AWAKE: u8 = 0;
/// It sleeps in its ring, which polls `event`.
const ASLEEP: u8 = 1;
/// Its executor has it, and is woken by its own waker.
const ELSEWHERE: u8 = 2;

/// The bell of one core.
#[derive(Debug, Default)]
pub(super) struct Bell {
    has_rung: AtomicBool,
    state: AtomicU8,
    event: OnceLock<OwnedFd>,
    executor: AtomicWaker,
}

impl Bell {
    /// Makes what a ring can poll.
    pub(super) fn open(&self) -> Result<(), Errno> {
        if self.event.get().is_none() {
            let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
            // Nobody else makes one: a core has one driver.
            let _ = self.event.set(event);
        }
        Ok(())
    }

    pub(super) fn event(&self) -> Option<BorrowedFd<'_>> {
        Some(self.event.get()?.as_fd())
    }

    /// The ring has found that it was rung.
    pub(super) fn answer(&self) {
        let mut count = [0; 8];
        if let Some(event) = self.event.get()
            && let Err(error) = rustix::io::read(event, &mut count)
        {
            tracing::trace!(%error, "somebody has answered before");
        }
    }

    /// What has rung so far will be looked after.
    pub(super) fn hush(&self) {
        self.has_rung.swap(false, SeqCst);
    }

    pub(super) fn has_rung(&self) -> bool {
        self.has_rung.load(SeqCst)
    }

    /// The core is about to sleep in its ring. False if it must not.
    pub(super) fn sleeps(&self) -> bool {
        self.state.store(ASLEEP, SeqCst);
        let may_sleep = !self.has_rung();
        if !may_sleep {
            self.is_awake();
        }
        may_sleep
    }

    /// The executor has the core; it is woken by this. Look whether it has rung afterwards.
    pub(super) fn is_with(&self, executor: &Waker) {
        self.executor.register(executor);
        self.state.store(ELSEWHERE, SeqCst);
    }

    /// It ends: its waker must not outlive it.
    pub(super) fn forget_executor(&self) {
        drop(self.executor.take());
    }

    pub(super) fn is_awake(&self) {
        self.state.store(AWAKE, SeqCst);
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.has_rung.store(true, SeqCst);
        let state = self.state.load(SeqCst);
        if state == AWAKE || self.state.compare_exchange(state, AWAKE, SeqCst, SeqCst).is_err() {
            return; // Or somebody else has woken it just now.
        }
        if state == ELSEWHERE {
            self.executor.wake();
        } else if let Some(event) = self.event.get()
            && let Err(error) = rustix::io::write(event, &1_u64.to_ne_bytes())
        {
            tracing::error!(%error, "cannot wake a core");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rung() -> (Arc<Bell>, Waker) {
        let bell = Arc::<Bell>::default();
        bell.open().unwrap();
        let waker = Waker::from(Arc::clone(&bell));
        (bell, waker)
    }

    fn has_written(bell: &Bell) -> bool {
        rustix::io::read(bell.event().unwrap(), &mut [0; 8]).is_ok()
    }

    #[test]
    fn a_core_that_sleeps_is_woken_once_and_one_that_is_awake_costs_no_system_call() {
        let (bell, waker) = rung();
        waker.wake_by_ref();
        assert!(bell.has_rung() && !has_written(&bell), "it is awake");
        assert!(!bell.sleeps(), "it has rung since it was looked");
        bell.hush();
        assert!(bell.sleeps());
        waker.wake_by_ref();
        assert!(has_written(&bell), "it sleeps in its ring");
        waker.wake_by_ref();
        assert!(!has_written(&bell), "it is on its way");
    }

    #[test]
    fn a_core_that_its_executor_has_is_woken_by_it() {
        let (bell, waker) = rung();
        let (executor, woken) = (Arc::<Bell>::default(), Waker::from(Arc::<Bell>::default()));
        drop(woken);
        bell.is_with(&Waker::from(Arc::clone(&executor)));
        waker.wake();
        assert!(executor.has_rung() && !has_written(&bell));
    }
}
