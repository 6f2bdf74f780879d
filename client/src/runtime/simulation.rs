//! For tests: where this crate's code runs when neither the clock nor the network is the machine's.
//!
//! Whoever simulates a world [installs](install) it once for the process. Code that asks while the world says that it is run there
//! gets its time, its chance, its tasks and its connections; all other code gets tokio's.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Instant;

use futures::future::{AbortHandle, BoxFuture, Either, abortable, select};
use headwater_protocol::id::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

/// What a connection is made of: what comes, and what goes.
pub type Halves = (Box<dyn AsyncRead + Send + Unpin>, Box<dyn AsyncWrite + Send + Unpin>);

/// A world that is a function of a seed.
pub trait World: Sync {
    /// Whether the code that asks runs there.
    fn is_here(&self) -> bool;

    /// Now, by the clock of whoever asks.
    fn now(&self) -> Instant;

    /// The time of day, by the clock of whoever asks.
    fn wall(&self) -> Timestamp;

    /// A random number.
    fn random(&self) -> u64;

    /// Starts a task.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Resolves at that moment by the clock of whoever asks.
    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()>;

    /// Connects to a host.
    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Halves>>;
}

static WORLD: OnceLock<&'static dyn World> = OnceLock::new();

/// Lets the code that runs in this world find it; only the first that a process installs counts.
pub fn install(world: &'static dyn World) {
    WORLD.get_or_init(|| world);
}

/// The world, if the code that asks runs in one.
pub(crate) fn here() -> Option<&'static dyn World> {
    WORLD.get().copied().filter(|world| world.is_here())
}

pub(crate) async fn timeout_at<F: Future>(world: &dyn World, at: Instant, future: F) -> Option<F::Output> {
    match select(pin!(future), world.sleep_until(at)).await {
        Either::Left((output, _)) => Some(output),
        Either::Right(_) => None,
    }
}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    let mut is_first = true;
    std::future::poll_fn(|context| {
        if std::mem::take(&mut is_first) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}

/// A task in a simulated world.
#[derive(Debug)]
pub(crate) struct SimulatedTask {
    abort: AbortHandle,
    has_ended: Arc<AtomicBool>,
}

impl SimulatedTask {
    /// # Panics
    /// Outside of a simulated world.
    pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Self {
        let world = here().expect("it is spawned within the world");
        let (task, abort) = abortable(task);
        let has_ended = Arc::new(AtomicBool::new(false));
        let ends = Arc::clone(&has_ended);
        world.spawn(Box::pin(async move {
            // Whether it was ended or came to its end.
            let _ = task.await;
            ends.store(true, Ordering::Relaxed);
        }));
        Self { abort, has_ended }
    }

    pub(crate) fn abort(&self) {
        self.abort.abort();
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}
