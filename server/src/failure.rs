//! What becomes of a broker when a part of it fails: it ends as a whole, and nobody waits for what will not come.
//!
//! Each thread of the broker is a [`Part`]. One that panics is reported to the [`Failure`], which every core and the broker's
//! owner look at: whoever waits for an answer gets an error, the other cores stop in order, and the broker's handle says why. A
//! process that is nothing but a broker does not go even that far: see [`end_process_on_panic`].

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind},
    process,
    sync::{
        OnceLock,
        mpsc::{Receiver, RecvTimeoutError, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::machine;

/// Exit code of a process whose broker has panicked: `EX_SOFTWARE` of `sysexits.h`.
pub const EXIT_PANIC: i32 = 70;

/// Exit code of a process that a second signal has ended.
pub const EXIT_SECOND_SIGNAL: i32 = 3;

/// A process that ends does not wait for longer than this for whoever reads what it has to say.
const LAST_WORDS_MAX: Duration = Duration::from_secs(2);

/// A part of the broker did not end as it should.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// It has ended otherwise.
    #[error("{what} has failed: {reason}")]
    Failed {
        /// Which.
        what: String,
        /// How.
        reason: String,
    },
    /// It has not ended, and may still write.
    #[error(
        "{what} has not ended in the time that a shutdown may take (limits.shutdown_grace_ms, limits.shutdown_close_ms_max): look \
         for a disk that hangs; what was acknowledged is on disk, and the next start recovers it"
    )]
    Hung {
        /// Which.
        what: String,
    },
}

/// The first failure of a part of the broker.
#[derive(Debug, Default)]
pub(crate) struct Failure {
    first: OnceLock<StopError>,
    reported: Notify,
}

impl Failure {
    pub(crate) fn report(&self, error: StopError) {
        // Later ones follow from the first.
        let _ = self.first.set(error);
        self.reported.notify_waiters();
    }

    pub(crate) fn get(&self) -> Option<&StopError> {
        self.first.get()
    }

    /// Resolves when a part has failed.
    pub(crate) async fn has_come(&self) {
        // Before looking, so that a report between the two is not missed.
        let reported = self.reported.notified();
        if self.first.get().is_none() {
            reported.await;
        }
    }
}

/// A thread of the broker.
#[derive(Debug)]
pub(crate) struct Part {
    what: String,
    ended: Receiver<Result<(), String>>,
    thread: JoinHandle<()>,
}

impl Part {
    /// Starts one. If it panics, `tell` tells the whole broker.
    pub(crate) fn start(
        what: &str,
        tell: impl FnOnce(StopError) + Send + 'static,
        body: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> std::io::Result<Part> {
        let (end, ended) = sync_channel(1);
        let name = what.to_owned();
        let thread = machine::start_thread(what, move || {
            let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
                let reason = format!("it has panicked: {}", text_of(panic.as_ref()));
                tell(StopError::Failed {
                    what: name,
                    reason: reason.clone(),
                });
                Err(reason)
            });
            // Whoever started it may not wait for its end.
            let _ = end.send(result);
        })?;
        Ok(Part {
            what: what.to_owned(),
            ended,
            thread,
        })
    }

    /// Waits for its end. A thread that has not ended by the deadline is left alone.
    pub(crate) fn join(self, deadline: Instant) -> Result<(), StopError> {
        let what = self.what;
        let left = deadline.saturating_duration_since(machine::now());
        let ended = match self.ended.recv_timeout(left) {
            Ok(ended) => ended,
            Err(RecvTimeoutError::Timeout) => return Err(StopError::Hung { what }),
            Err(RecvTimeoutError::Disconnected) => Err("it has ended without a word".to_owned()),
        };
        // It has said all that it had to say.
        let _ = self.thread.join();
        ended.map_err(|reason| StopError::Failed { what, reason })
    }
}

/// What a panic says.
fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it does not say why")
}

/// From now on a panic in any thread ends the process: with the usual message, and its backtrace if `RUST_BACKTRACE` asks for
/// one, then with [`EXIT_PANIC`], or, with `core_dump`, by SIGABRT. For a process that is nothing but a broker: the part that
/// panicked may have left anything half done, and what was acknowledged is on disk.
pub fn end_process_on_panic(core_dump: bool) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let end = move || -> ! {
            if core_dump {
                process::abort();
            }
            process::exit(EXIT_PANIC)
        };
        // Whoever reads stderr may have stopped.
        let _ = machine::start_thread("last-words", move || {
            machine::pause_thread(LAST_WORDS_MAX);
            end()
        });
        // Before the backtrace, which takes long where the CPUs are busy.
        tracing::error!(
            thread = machine::thread_name(),
            "the broker ends at once, because a part of it has panicked: this is a bug, please report it"
        );
        usual(panic);
        end()
    }));
}

/// Ends the process with a code, once it has said why.
pub(crate) fn end_process(code: i32, say: impl FnOnce() + Send + 'static) -> ! {
    let (end, said) = sync_channel(1);
    let saying = machine::start_thread("last-words", move || {
        say();
        let _ = end.send(());
    });
    if saying.is_ok() {
        // Whether it was said or nobody listens makes no difference.
        let _ = said.recv_timeout(LAST_WORDS_MAX);
    }
    process::exit(code)
}
