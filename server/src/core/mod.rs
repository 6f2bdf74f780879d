//! One core: a pinned executor, with its memory, its disk and what it counts. No other thread touches any of it.
//!
//! What every task of a core may use is in [`Core`]; the partitions, groups and connections of a core are built upon it, each in a
//! room of its own, and it knows nothing of them. Other threads and cores are reached through the [`mesh`].

pub(crate) mod budget;
pub(crate) mod catch_up;
pub(crate) mod errands;
pub(crate) mod lease;
pub(crate) mod mesh;
pub(crate) mod quotas;
pub(crate) mod remote;
mod tick;
pub(crate) mod watchdog;

use std::{
    cell::Cell,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use headwater_engine::{ColdMemory, Memory, Signal, TailMemory, Wait};
use headwater_protocol::id::CoreId;

use self::{
    budget::Budget,
    catch_up::CatchUp,
    lease::Lease,
    mesh::Mesh,
    quotas::{Accounts, Quotas},
    watchdog::Activity,
};
use crate::{
    config::Config,
    machine::{self, Daemons, Disk},
    metrics::CoreMetrics,
};

/// How long a core that has answered everything waits for what its tasks still do.
const REST_WAIT_MAX: Duration = Duration::from_secs(2);

/// Warns of what clients, or a disk that is full or fails, can have repeated without end: once in a while on each core, with how often it
/// was not said since.
macro_rules! warn_seldom {
    ($($line:tt)+) => {{
        thread_local!(static KIND: headwater_engine::Seldom = headwater_engine::Seldom::default());
        if let Some(unsaid) = KIND.with(|kind| kind.may_speak($crate::machine::now())) {
            tracing::warn!(unsaid, $($line)+);
        }
    }};
}
pub(crate) use warn_seldom;

/// What the cores of a broker share.
pub(crate) struct Shared {
    pub(crate) catch_up: Arc<CatchUp>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) accounts: Arc<Accounts>,
}

/// What the tasks of one core share.
pub(crate) struct Core {
    pub(crate) id: CoreId,
    pub(crate) config: Arc<Config>,
    pub(crate) mesh: Mesh,
    pub(crate) disk: Disk,
    pub(crate) memory: Memory,
    /// Requests that are not answered yet, in bytes.
    pub(crate) in_flight: Rc<Budget>,
    /// Memory of connections for what they read, in bytes.
    pub(crate) reading: Rc<Budget>,
    /// One turn: to decompress records before they are taken in.
    pub(crate) vetting: Rc<Budget>,
    /// What the broker sends to replicas that are not in sync.
    pub(crate) catch_up: Arc<CatchUp>,
    /// Whether the broker may take itself for the leader of what it led when it was last told.
    pub(crate) lease: Arc<Lease>,
    /// Who may use how much.
    pub(crate) quotas: Quotas,
    pub(crate) metrics: CoreMetrics,
    /// A partition is offline or fenced that was not before.
    pub(crate) failed: Signal,
    lifecycle: Lifecycle,
}

/// What a core's tasks tell each other.
struct Lifecycle {
    began: Instant,
    stopping: Cell<bool>,
    connections: Cell<usize>,
    changed: Signal,
    /// Some partition needs maintenance before its interval is over.
    early: Signal,
    activity: Arc<Activity>,
}

impl std::fmt::Debug for Core {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Core {
    /// Makes the core's state. Call it on the core's executor.
    pub(crate) fn new(
        id: CoreId,
        config: Arc<Config>,
        mesh: Mesh,
        Shared {
            catch_up,
            lease,
            accounts,
        }: Shared,
        disk: Disk,
        activity: Arc<Activity>,
    ) -> Rc<Core> {
        let lifecycle = Lifecycle {
            began: machine::now(),
            stopping: Cell::new(false),
            connections: Cell::new(0),
            changed: Signal::default(),
            early: Signal::default(),
            activity,
        };
        let memory = Memory::new(
            TailMemory::new(config.cores.tail_buffer_bytes_max.bytes() as usize),
            ColdMemory::new(config.cores.cold_read_bytes_max.bytes() as usize),
        );
        if config.cores.prefault {
            memory.prefault();
        }
        Rc::new(Core {
            id,
            mesh,
            disk,
            memory,
            reading: Budget::new(config.cores.connection_bytes_max.bytes()),
            in_flight: Budget::new(config.cores.in_flight_bytes_max.bytes()),
            vetting: Budget::new(1),
            catch_up,
            lease,
            quotas: Quotas::new(accounts),
            metrics: CoreMetrics::default(),
            failed: Signal::default(),
            lifecycle,
            config,
        })
    }

    /// For how long the core has been there.
    pub(crate) fn uptime(&self) -> Duration {
        machine::since(self.lifecycle.began)
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.lifecycle.connections.get()
    }

    /// How often the watchdog found this core stuck, and for how long in all.
    pub(crate) fn stalls(&self) -> (u64, Duration) {
        self.lifecycle.activity.stalls()
    }

    /// Starts what keeps the core awake, and says how late its tasks are.
    pub(crate) fn keep_awake(self: &Rc<Self>, daemons: &Daemons) {
        daemons.spawn(pulse(Rc::clone(self)));
        daemons.spawn(tick::keep(Rc::clone(self)));
    }

    /// Tells all tasks that the core is to stop.
    pub(crate) fn stop(&self) {
        self.lifecycle.stopping.set(true);
        self.lifecycle.changed.notify();
    }

    /// Whether the core has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lifecycle.stopping.get()
    }

    /// Resolves once the core has been told to stop.
    pub(crate) async fn stopping(&self) {
        self.lifecycle.changed.until(|| self.lifecycle.stopping.get()).await;
    }

    /// Resolves when no connection is left, or the grace is over.
    pub(crate) async fn drained(&self) {
        let grace = Duration::from_millis(self.config.limits.shutdown_grace_ms.get());
        let gone = self.lifecycle.changed.until(|| self.lifecycle.connections.get() == 0);
        if machine::until(machine::now() + grace, gone).await.is_none() {
            let left = self.lifecycle.connections.get();
            tracing::warn!(left, "connections are closed before their requests were answered");
        }
    }

    /// Resolves when the core has been told to stop and no client is left for whom anything could still be done, or the grace is over.
    pub(crate) async fn unneeded(&self) {
        self.stopping().await;
        let grace = Duration::from_millis(self.config.limits.shutdown_grace_ms.get());
        let gone = self.lifecycle.changed.until(|| self.lifecycle.connections.get() == 0);
        let _ = machine::until(machine::now() + grace, gone).await;
    }

    /// Waits for tasks that are still at work. One that waited for glommio's blocking pool beyond the end of its executor would
    /// have the pool's thread panic.
    pub(crate) async fn at_rest(&self) {
        let deadline = machine::now() + REST_WAIT_MAX;
        while self.lifecycle.activity.has_work() && machine::now() < deadline {
            machine::sleep(Duration::from_millis(1)).await;
        }
        // The connections that wanted it are gone.
        let closed = machine::until(deadline, self.memory.cold.close()).await;
        if closed.is_none() {
            tracing::warn!("the disk still reads what consumers wanted; the memory for it is lost");
        }
    }

    /// Counts a connection for as long as the guard lives; `None` if there are as many as allowed.
    pub(crate) fn admit(self: &Rc<Self>) -> Option<Admitted> {
        let connections = self.lifecycle.connections.get();
        let share = (self.config.limits.connections_max as usize).div_ceil(self.mesh.len());
        if connections >= share || self.lifecycle.stopping.get() {
            return None;
        }
        self.lifecycle.connections.set(connections + 1);
        Some(Admitted { core: Rc::clone(self) })
    }

    /// Maintenance has something to do before its interval is over.
    pub(crate) fn is_needed_early(&self) {
        self.lifecycle.early.notify();
    }

    /// Resolves at the next time that maintenance has something to do early.
    pub(crate) fn needed_early(&self) -> Wait<'_> {
        self.lifecycle.early.wait()
    }

    /// Says for as long as the guard lives that the core has work to do.
    pub(crate) fn working(&self) -> watchdog::Working {
        self.lifecycle.activity.begin()
    }
}

/// A connection that counts.
pub(crate) struct Admitted {
    core: Rc<Core>,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let connections = &self.core.lifecycle.connections;
        connections.set(connections.get() - 1);
        self.core.lifecycle.changed.notify();
    }
}

/// Wakes up whenever the watchdog says so; see there.
async fn pulse(core: Rc<Core>) {
    loop {
        core.lifecycle.activity.beat().await;
        machine::reap(&core.disk);
    }
}
