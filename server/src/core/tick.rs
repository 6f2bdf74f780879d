//! How late a task of a core gets its turn: what a request feels when something holds the core up, by whatever cause.

use std::{rc::Rc, time::Duration};

use crate::{core::Core, machine, metrics::Stage};

/// Asks for a turn every `metrics.tick_us`, and counts how late it came. Does nothing if that is 0.
pub(crate) async fn keep(core: Rc<Core>) {
    let every = Duration::from_micros(core.config.metrics.tick_us.get());
    if every.is_zero() {
        return;
    }
    loop {
        let due = machine::now() + every;
        machine::sleep(every).await;
        core.metrics.passed(Stage::Tick, machine::since(due));
    }
}
