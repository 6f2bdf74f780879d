//! The time, by two clocks: one that never jumps, for all that happens within this process, and the time of day.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use headwater_engine::Moment;
use headwater_protocol::id::Timestamp;

/// Now, by the clock that never jumps.
#[inline]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// How long ago that was; nothing if it is still to come.
#[inline]
pub(crate) fn since(then: Instant) -> Duration {
    super::now().saturating_duration_since(then)
}

/// The time of day.
#[inline]
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}

/// When this process has asked first.
static BEGAN: LazyLock<Instant> = LazyLock::new(now);

/// The time by both clocks.
pub(crate) fn moment() -> Moment {
    Moment {
        monotonic: since(*BEGAN),
        clock: wall(),
    }
}
