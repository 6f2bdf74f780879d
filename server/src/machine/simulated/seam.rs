//! What code outside asks of the machine: of the simulated process that asks, or, where there is none, of the real one.

use std::{
    cell::RefCell,
    future::Future,
    io,
    time::{Duration, Instant},
};

use headwater_engine::{Moment, Timed, TimedSnapshot, disk::Elsewhere};
use headwater_protocol::id::Timestamp;
use rand::distr::{Distribution, StandardUniform};

use super::{
    TaskId,
    disk::{Disk, File},
    here, is_running,
};
use crate::machine::{clock, disk, random as chance, tasks, thread};

pub(crate) fn now() -> Instant {
    here().map_or_else(clock::now, |here| here.now())
}

pub(crate) fn wall() -> Timestamp {
    here().map_or_else(clock::wall, |here| here.wall())
}

pub(crate) fn moment() -> Moment {
    here().map_or_else(clock::moment, |here| Moment {
        monotonic: here.monotonic(),
        clock: here.wall(),
    })
}

pub(crate) fn random<T>() -> T
where
    StandardUniform: Distribution<T>,
{
    here().map_or_else(chance::random, |here| here.random())
}

#[derive(Default)]
pub(crate) struct Daemons {
    real: tasks::Daemons,
    simulated: RefCell<Vec<TaskId>>,
}

impl Daemons {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        match here() {
            Some(here) => self.simulated.borrow_mut().push(here.spawn(task)),
            None => self.real.spawn(task),
        }
    }

    pub(crate) fn spawn_background(&self, task: impl Future<Output = ()> + 'static) {
        if is_running() {
            self.spawn(task);
        } else {
            self.real.spawn_background(task);
        }
    }

    pub(crate) async fn end(&self) {
        let Some(here) = here() else {
            return self.real.end().await;
        };
        for task in self.simulated.take() {
            here.world.cancel(task);
        }
    }
}

pub(crate) fn spawn(task: impl Future<Output = ()> + 'static) {
    match here() {
        Some(here) => {
            here.spawn(tasks::counted(task));
        }
        None => tasks::spawn(task),
    }
}

pub(crate) async fn blocking_threads_rest() {
    if !is_running() {
        tasks::blocking_threads_rest().await;
    }
}

/// Has a thread for what would block the core do something.
pub(crate) async fn on_blocking_thread(what: impl FnOnce() + Send + 'static) {
    let _elsewhere = Elsewhere::begin();
    glommio::executor().spawn_blocking(what).await;
}

pub(crate) async fn sleep(duration: Duration) {
    match here() {
        Some(here) => here.sleep(duration).await,
        None => tasks::sleep(duration).await,
    }
}

pub(crate) async fn pause(duration: Duration) {
    match here() {
        Some(here) => here.sleep(duration).await,
        None => thread::pause(duration).await,
    }
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if is_running() {
        work()
    } else {
        tasks::blocking(work).await
    }
}

pub(crate) async fn yield_now() {
    if is_running() {
        super::yield_now().await;
    } else {
        tasks::yield_now().await;
    }
}

pub(crate) fn busy() -> Duration {
    if is_running() { Duration::ZERO } else { tasks::busy() }
}

pub(crate) fn reap(disk: &Disk) {
    if !is_running() {
        disk::reap(disk);
    }
}

pub(crate) fn disk_stages(disk: &Disk) -> (TimedSnapshot, TimedSnapshot) {
    if is_running() {
        return (Timed::default().snapshot(), Timed::default().snapshot());
    }
    disk::disk_stages(disk)
}

pub(crate) fn is_resident(file: &File, position: u64, length: u64) -> io::Result<bool> {
    Ok(!is_running() && disk::is_resident(file, position, length)?)
}

pub(crate) fn prefetch(disk: &Disk, file: &File, position: u64, length: u32) -> io::Result<bool> {
    Ok(!is_running() && disk::prefetch(disk, file, position, length)?)
}
