//! Time in a simulated world: it stands still while a task runs, but for a little for each poll.

use std::{
    future::Future,
    pin::Pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use headwater_protocol::id::Timestamp;

use super::{Here, World, here, tasks::Entry, world::Happening};

/// When worlds begin, by the time of day.
const NOON_MS: i64 = 1_700_000_000_000;

/// What instants in simulated worlds count from. Far enough from the beginning of time to subtract from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// The clock of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// So many seconds pass on it for each that does in the world.
    pub(crate) rate: f64,
    /// How far its time of day is off.
    pub(crate) wall_ms: i64,
}

impl Default for Clock {
    fn default() -> Clock {
        Clock { rate: 1.0, wall_ms: 0 }
    }
}

impl Here {
    fn passed(&self) -> Duration {
        self.world.now().mul_f64(self.world.clock(self.process).rate)
    }

    pub(crate) fn now(&self) -> Instant {
        *BEGINNING + self.passed()
    }

    pub(crate) fn monotonic(&self) -> Duration {
        self.passed()
    }

    pub(crate) fn wall(&self) -> Timestamp {
        let off = self.world.clock(self.process).wall_ms;
        Timestamp::new(NOON_MS + off + self.world.now().as_millis() as i64)
    }
}

/// Waits for a moment of the world in which it is polled. Holds nothing of that world, so whoever has to be able to change threads
/// may hold it.
pub(crate) struct Sleep {
    until: Duration,
    /// Where it is planned, and who is to be woken then.
    planned: Option<(Entry, Waker)>,
}

impl Sleep {
    pub(super) fn new(world: &World, duration: Duration) -> Sleep {
        Sleep {
            until: world.now().saturating_add(duration),
            planned: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let here = here().expect("it is polled in its world");
        if here.world.now() >= self.until {
            return Poll::Ready(());
        }
        if self
            .planned
            .as_ref()
            .is_some_and(|(_, waker)| waker.will_wake(context.waker()))
        {
            return Poll::Pending;
        }
        if let Some((entry, _)) = self.planned.take() {
            here.world.forget(entry);
        }
        let waker = context.waker().clone();
        let entry = here.world.plan(self.until, Happening::Wake(waker.clone()));
        self.planned = Some((entry, waker));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let (Some(here), Some((entry, _))) = (here(), self.planned.take()) {
            here.world.forget(entry);
        }
    }
}
