//! The signals that stop a broker.

use std::{io, pin::pin};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    failure::{self, EXIT_SECOND_SIGNAL},
    machine,
    tls::Reloading,
};

/// SIGTERM and SIGINT; SIGHUP only has certificates read again. From when this is made they no longer end the process, and one that comes is kept until
/// [`run_until`](Broker::run_until): make it before the broker, or a signal while it starts would leave it unclean.
#[derive(Debug)]
pub struct StopSignals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl StopSignals {
    /// Begins to catch the signals.
    pub fn catch() -> io::Result<StopSignals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt, hangup) = {
            let _entered = runtime.enter();
            let catch = |kind| signal(kind);
            (
                catch(SignalKind::terminate())?,
                catch(SignalKind::interrupt())?,
                catch(SignalKind::hangup())?,
            )
        };
        Ok(StopSignals {
            runtime,
            terminate,
            interrupt,
            hangup,
        })
    }

    /// Waits for a signal, and names it; `None` if the other thing happens first.
    pub(super) fn wait(&mut self, other: impl Future<Output = ()>) -> Option<&'static str> {
        let (terminate, interrupt, hangup) = (&mut self.terminate, &mut self.interrupt, &mut self.hangup);
        self.runtime.block_on(async {
            let mut other = pin!(other);
            loop {
                tokio::select! {
                    _ = terminate.recv() => return Some("SIGTERM"),
                    _ = interrupt.recv() => return Some("SIGINT"),
                    _ = hangup.recv() => Reloading::ask(),
                    () = other.as_mut() => return None,
                }
            }
        })
    }

    /// Has the next signal end the process, whatever hangs.
    pub(super) fn end_process_at_next(mut self) {
        let watching = machine::start_thread("signals", move || {
            if let Some(signal) = self.wait(std::future::pending()) {
                failure::end_process(EXIT_SECOND_SIGNAL, move || {
                    tracing::warn!(
                        signal,
                        "the broker ends at once, at a second signal; what was acknowledged is on disk"
                    );
                });
            }
        });
        if let Err(error) = watching {
            tracing::warn!(%error, "a second signal will not end the broker at once");
        }
    }
}
