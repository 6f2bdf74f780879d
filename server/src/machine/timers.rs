//! The deadlines of a core, in the order in which they come.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

/// What has no end in sight.
const FAR: Duration = Duration::from_hours(24 * 365);

/// Who waits for which moment.
#[derive(Debug, Default)]
pub(super) struct Timers {
    waiting: RefCell<BTreeMap<(Instant, u64), Waker>>,
    number: Cell<u64>,
}

impl Timers {
    /// Resolves when so much time has passed.
    pub(super) fn sleep(self: &Rc<Self>, time: Duration) -> Sleep {
        let now = Instant::now();
        Sleep {
            timers: Rc::clone(self),
            due: now.checked_add(time).unwrap_or(now + FAR),
            is_due: time.is_zero(),
            number: None,
        }
    }

    /// The next deadline.
    pub(super) fn next(&self) -> Option<Instant> {
        let waiting = self.waiting.borrow();
        waiting.first_key_value().map(|((due, _), _)| *due)
    }

    /// Wakes all whose time has come.
    pub(super) fn fire(&self, now: Instant) {
        while self.next().is_some_and(|due| due <= now) {
            let first = self.waiting.borrow_mut().pop_first();
            if let Some((_, waker)) = first {
                waker.wake();
            }
        }
    }
}

/// Future of [`Timers::sleep`]. Dropping it leaves nothing behind.
#[must_use = "futures do nothing unless awaited"]
pub(super) struct Sleep {
    timers: Rc<Timers>,
    due: Instant,
    is_due: bool,
    /// Among those that wait.
    number: Option<u64>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_due {
            return Poll::Ready(());
        }
        let mut waiting = self.timers.waiting.borrow_mut();
        let Some(number) = self.number else {
            let number = self.timers.number.replace(self.timers.number.get() + 1);
            waiting.insert((self.due, number), context.waker().clone());
            drop(waiting);
            self.number = Some(number);
            return Poll::Pending;
        };
        if let Some(waker) = waiting.get_mut(&(self.due, number)) {
            waker.clone_from(context.waker());
            return Poll::Pending;
        }
        drop(waiting);
        (self.is_due, self.number) = (true, None);
        Poll::Ready(())
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.timers.waiting.borrow_mut().remove(&(self.due, number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn who_sleeps_is_woken_when_the_time_has_come_and_who_gives_up_leaves_nothing_behind() {
        let timers = Rc::<Timers>::default();
        assert_eq!(timers.sleep(Duration::ZERO).now_or_never(), Some(()));
        assert_eq!(timers.sleep(Duration::MAX).now_or_never(), None);
        assert_eq!(timers.next(), None);
        let mut context = Context::from_waker(Waker::noop());
        let mut late = pin!(timers.sleep(Duration::from_mins(2)));
        let mut early = pin!(timers.sleep(Duration::from_mins(1)));
        assert!(late.poll_unpin(&mut context).is_pending() && early.poll_unpin(&mut context).is_pending());
        let due = timers.next().unwrap();
        timers.fire(Instant::now());
        assert!(early.poll_unpin(&mut context).is_pending());
        timers.fire(due);
        assert!(early.poll_unpin(&mut context).is_ready() && late.poll_unpin(&mut context).is_pending());
    }
}
