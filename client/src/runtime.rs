//! The seam to the world: time, chance and tasks. Nothing else in this crate reads a clock, draws a random number or starts a task.
//!
//! They are tokio's and the machine's. With the feature `simulation`, code that runs in a [simulated world](crate::runtime::simulation) gets
//! that world's.

#[cfg(feature = "simulation")]
pub mod simulation;
pub(crate) mod sync;
pub(crate) mod transport;

use std::time::Duration;

use futures::FutureExt as _;
#[cfg(feature = "simulation")]
use futures::future::Either;
use headwater_protocol::id::Timestamp;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
pub(crate) use tokio::time::Instant;

#[cfg(feature = "simulation")]
use self::simulation::SimulatedTask;
use crate::deadline::LONGEST;

/// Now, by the clock that never jumps.
pub(crate) fn now() -> Instant {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::here() {
        return Instant::from_std(world.now());
    }
    Instant::now()
}

/// How long ago that was; nothing if it is still to come.
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// The time of day.
pub(crate) fn wall() -> Timestamp {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::here() {
        return world.wall();
    }
    Timestamp::now()
}

/// A random number.
pub(crate) fn random() -> u64 {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::here() {
        return world.random();
    }
    rand::random()
}

/// Resolves at that moment.
pub(crate) fn sleep_until(at: Instant) -> impl Future<Output = ()> + Send {
    let sleep = || tokio::time::sleep_until(at);
    #[cfg(feature = "simulation")]
    let sleep = || match simulation::here() {
        Some(world) => Either::Left(world.sleep_until(at.into_std())),
        None => Either::Right(sleep()),
    };
    sleep()
}

/// Resolves after so long.
pub(crate) fn sleep(duration: Duration) -> impl Future<Output = ()> + Send {
    sleep_until(now() + duration.min(LONGEST))
}

/// What the future gives, or `None` if that moment comes first.
pub(crate) fn timeout_at<F: Future>(at: Instant, future: F) -> impl Future<Output = Option<F::Output>> {
    #[cfg(feature = "simulation")]
    if let Some(world) = simulation::here() {
        return Either::Left(simulation::timeout_at(world, at.into_std(), future));
    }
    let limited = tokio::time::timeout_at(at, future).map(Result::ok);
    #[cfg(feature = "simulation")]
    let limited = Either::Right(limited);
    limited
}

/// What the future gives, or `None` if so much time passes first.
pub(crate) fn timeout<F: Future>(limit: Duration, future: F) -> impl Future<Output = Option<F::Output>> {
    timeout_at(now() + limit.min(LONGEST), future)
}

/// Lets other tasks run.
pub(crate) async fn yield_now() {
    #[cfg(feature = "simulation")]
    if simulation::here().is_some() {
        return simulation::yield_now().await;
    }
    tokio::task::yield_now().await;
}

/// Starts a task on the runtime that the caller runs in.
pub(crate) fn spawn(task: impl Future<Output = ()> + Send + 'static) -> Task {
    Runtime::current().spawn(task)
}

/// Where tasks can be started, also by those who do not run there.
#[derive(Debug, Clone)]
pub(crate) enum Runtime {
    Tokio(Handle),
    #[cfg(feature = "simulation")]
    Simulated,
}

impl Runtime {
    /// The one that the caller runs in.
    pub(crate) fn current() -> Self {
        #[cfg(feature = "simulation")]
        if simulation::here().is_some() {
            return Self::Simulated;
        }
        Self::Tokio(Handle::current())
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> Task {
        match self {
            Self::Tokio(handle) => Task::Tokio(handle.spawn(task)),
            #[cfg(feature = "simulation")]
            Self::Simulated => Task::Simulated(SimulatedTask::spawn(task)),
        }
    }
}

/// A task that was started; it goes on if this is dropped.
#[derive(Debug)]
pub(crate) enum Task {
    Tokio(JoinHandle<()>),
    #[cfg(feature = "simulation")]
    Simulated(SimulatedTask),
}

impl Task {
    /// Ends it where it waits.
    pub(crate) fn abort(&self) {
        match self {
            Self::Tokio(task) => task.abort(),
            #[cfg(feature = "simulation")]
            Self::Simulated(task) => task.abort(),
        }
    }

    pub(crate) fn is_finished(&self) -> bool {
        match self {
            Self::Tokio(task) => task.is_finished(),
            #[cfg(feature = "simulation")]
            Self::Simulated(task) => task.is_finished(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// What only this module may use.
    const OF_THE_WORLD: [&str; 10] = [
        "Instant::now",
        "SystemTime::now",
        "Timestamp::now",
        ".elapsed()",
        "rand::random",
        "tokio::spawn",
        "tokio::time::",
        "tokio::task::",
        "Handle::current",
        "thread::s",
    ];

    /// The blocking client brings a runtime of its own; tests may do what they like.
    fn is_exempt(path: &Path) -> bool {
        let own = ["src/runtime.rs", "src/blocking.rs"];
        own.iter().any(|own| path.ends_with(own)) || path.ends_with("tests") || path.ends_with("tests.rs")
    }

    fn check_below(directory: &Path) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if is_exempt(&path) {
                continue;
            }
            if path.is_dir() {
                check_below(&path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in lines {
                for name in OF_THE_WORLD {
                    assert!(!line.contains(name), "{} uses {name}", path.display());
                }
            }
            let [selects, biased] = ["select! {", "biased;"].map(|text| code.matches(text).count());
            assert_eq!(selects, biased, "{} leaves an order to chance", path.display());
        }
    }

    #[test]
    fn nothing_else_asks_the_world_for_time_chance_or_tasks() {
        check_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    }
}
