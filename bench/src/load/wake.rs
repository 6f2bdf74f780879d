//! When somebody was told of something, as opposed to when it got round to it.
//!
//! A task that waits for an acknowledgement, or for records, runs some time after it was woken: because the machine is busy, or the
//! runtime, or the task itself with the one before. That time is the bench's, not the system's. So whoever wakes notes the moment.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;

use super::clock::Moment;

/// Never.
const NEVER: u64 = 0;

/// Takes wake-ups, and passes them on to the task that polls.
#[derive(Debug, Default)]
pub struct Told {
    /// The last wake-up since the last poll.
    woken: AtomicU64,
    /// The one that led to the poll that is going on, or was the last.
    followed: AtomicU64,
    task: AtomicWaker,
}

impl Wake for Told {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(Moment::now().as_nanos(), Ordering::Relaxed);
        self.task.wake();
    }
}

impl Told {
    /// Polls so that wake-ups are noted.
    fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>, task: &Waker) -> Poll<F::Output> {
        self.task.register(task);
        let woken = self.woken.swap(NEVER, Ordering::Relaxed);
        self.followed.store(woken, Ordering::Relaxed);
        let waker = Waker::from(Arc::clone(self));
        future.poll(&mut Context::from_waker(&waker))
    }

    /// When the task was told of what it does now; `None` if it was not, as what it came for was there already.
    pub fn moment(&self) -> Option<Moment> {
        let nanos = self.followed.load(Ordering::Relaxed);
        (nanos != NEVER).then_some(Moment::from_nanos(nanos))
    }

    /// Waits for a future, so that within it [`moment`](Self::moment) says when it was woken. Cancelling this cancels it.
    pub async fn wait<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        // The runtime wakes a task on its own account to have it give way.
        let mut future = pin!(tokio::task::unconstrained(future));
        std::future::poll_fn(|context| self.poll(future.as_mut(), context.waker())).await
    }
}

/// Something that is about to happen, with when the bench was told that it had.
pub struct Timed<F: Future> {
    future: F,
    told: Arc<Told>,
    happened: Option<(F::Output, Moment)>,
}

impl<F: Future + Unpin> Timed<F> {
    /// Listens from now on, however long it takes until somebody waits.
    pub fn listen(mut future: F) -> Self {
        let told = Arc::new(Told::default());
        let happened = match told.poll(Pin::new(&mut future), Waker::noop()) {
            Poll::Ready(output) => Some((output, Moment::now())),
            Poll::Pending => None,
        };
        Self { future, told, happened }
    }
}

impl<F: Future<Output: Unpin> + Unpin> Future for Timed<F> {
    type Output = (F::Output, Moment);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some(happened) = self.happened.take() {
            return Poll::Ready(happened);
        }
        let told = Arc::clone(&self.told);
        let mut future = pin!(tokio::task::unconstrained(&mut self.future));
        let polled = told.poll(future.as_mut(), context.waker());
        polled.map(|output| (output, told.moment().unwrap_or_else(Moment::now)))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn what_happened_is_timed_by_when_it_did_however_late_it_is_looked_at() {
        let (send, receive) = oneshot::channel();
        let timed = Timed::listen(receive);
        let before = Moment::now();
        send.send(7).unwrap();
        let after = Moment::now();
        super::super::clock::sleep(std::time::Duration::from_millis(5));
        let (output, moment) = timed.now_or_never().unwrap();
        assert_eq!(output, Ok(7));
        assert!((before..=after).contains(&moment), "{before:?} {moment:?} {after:?}");
    }

    #[test]
    fn what_had_happened_before_anybody_listened_happened_then() {
        let before = Moment::now();
        let timed = Timed::listen(std::future::ready(7));
        let after = Moment::now();
        let (_, moment) = timed.now_or_never().unwrap();
        assert!((before..=after).contains(&moment));
    }

    #[test]
    fn within_a_wait_it_is_known_when_it_was_woken() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let told = Arc::new(Told::default());
            let (send, receive) = oneshot::channel();
            let waiting = told.wait(async { (receive.await, told.moment()) });
            let mut waiting = pin!(waiting);
            assert!(waiting.as_mut().now_or_never().is_none());
            let before = Moment::now();
            send.send(7).unwrap();
            let after = Moment::now();
            let (output, moment) = waiting.await;
            assert_eq!(output, Ok(7));
            assert!((before..=after).contains(&moment.unwrap()));
            // The next one is there already.
            assert_eq!(told.wait(async { told.moment() }).await, None);
        });
    }
}
