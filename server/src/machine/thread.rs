//! Threads, for what may block: the control plane, the watchdog, and what must be said when a process ends.

use std::{io, thread, time::Duration};

/// Starts a thread.
pub(crate) fn start_thread(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<thread::JoinHandle<()>> {
    thread::Builder::new().name(name.to_owned()).spawn(body)
}

/// Waits for so long in a task of a thread that has tokio's timers.
pub(crate) async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Holds the thread up for so long.
pub(crate) fn pause_thread(duration: Duration) {
    thread::sleep(duration);
}

/// What the thread that calls is called.
pub(crate) fn thread_name() -> String {
    thread::current().name().unwrap_or("a helper").to_owned()
}
