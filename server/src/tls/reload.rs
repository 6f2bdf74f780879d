//! The thread that reads certificates again: when their files have changed, or somebody asks for it.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::all::Tls;
use crate::failure::{Part, StopError};

/// How often files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Times that the process was asked (SIGHUP) to read its files again.
static ASKED: AtomicU64 = AtomicU64::new(0);

/// The thread, for as long as there is a certificate that may change.
#[derive(Debug)]
pub(crate) struct Reloading {
    stop: Arc<(Mutex<bool>, Condvar)>,
    part: Part,
}

impl Reloading {
    /// Has all brokers of this process read their files again when they look at them the next time, changed or not.
    pub(crate) fn ask() {
        ASKED.fetch_add(1, Ordering::Relaxed);
    }

    /// None if there is nothing to read.
    pub(crate) fn start(
        tls: &Arc<Tls>,
        tell: impl FnOnce(StopError) + Send + 'static,
    ) -> std::io::Result<Option<Reloading>> {
        if !tls.is_any() {
            return Ok(None);
        }
        let stop = Arc::<(Mutex<bool>, Condvar)>::default();
        let (stopped, tls) = (Arc::clone(&stop), Arc::clone(tls));
        let part = Part::start("certificates", tell, move || {
            let mut asked = ASKED.load(Ordering::Relaxed);
            while !is_over(&stopped) {
                let before = std::mem::replace(&mut asked, ASKED.load(Ordering::Relaxed));
                tls.read_again(asked != before);
            }
            Ok(())
        })?;
        Ok(Some(Reloading { stop, part }))
    }

    pub(crate) fn end(self, deadline: Instant) -> Result<(), StopError> {
        *self.stop.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.stop.1.notify_all();
        self.part.join(deadline)
    }
}

/// Waits until it is time to look again; true if there is no time left.
fn is_over((over, changed): &(Mutex<bool>, Condvar)) -> bool {
    let over = over.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = changed.wait_timeout_while(over, LOOK_EVERY, |over| !*over);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}
