//! One core: a pinned executor that owns partitions, connections and memory. No other thread touches any of it.
//!
//! What comes from outside arrives in the inbox. A core opens the partitions that the cluster image gives to it, serves
//! connections until it is told to stop, then answers what it has taken in and makes everything durable.

pub(crate) mod budget;
pub(crate) mod mesh;
pub(crate) mod remote;
mod tick;
pub(crate) mod watchdog;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{StreamExt, channel::mpsc, stream};
use headwater_engine::{
    ColdMemory, Memory, Seldom, Signal, TailMemory,
    disk::{DirectDisk, Disk as _, StdDirectory},
};
use headwater_protocol::id::CoreId;

use self::{
    budget::Budget,
    mesh::{CoreMessage, Mesh},
    watchdog::Activity,
};
use crate::{
    cluster::ControlHandle,
    config::Config,
    coordinator,
    image::ClusterImage,
    machine::{self, Daemons},
    metrics::{self, CoreMetrics, Failure},
    model::id::PartitionId,
    ops::{fetch, forwarded::Forwarded, offsets, topics},
    partition::{Partition, closing, compaction, partitions::Owned, reopen},
    session::{
        listener,
        native::{frame::ReadBuffers, reply::Heads},
    },
};

/// How long a core that has answered everything waits for what its tasks still do.
const REST_WAIT_MAX: Duration = Duration::from_secs(2);

/// Partitions whose segments are sealed at the same time.
const SEALED_AT_ONCE: usize = 4;

/// What all cores are told when they start.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) config: Arc<Config>,
    /// Names and whole files, with the space that is kept for a full disk.
    pub(crate) names: StdDirectory,
    /// Descriptors of segment files on each core.
    pub(crate) open_files_max: usize,
    pub(crate) mesh: Mesh,
    pub(crate) control: ControlHandle,
    /// Where clients find the broker and each core.
    pub(crate) addresses: Arc<Addresses>,
}

/// The broker as clients see it.
#[derive(Debug)]
pub(crate) struct Addresses {
    pub(crate) cluster_id: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) core_ports: Vec<u16>,
}

/// Log lines that clients, or a disk that is full or fails, can have repeated without end: of each kind one in a while.
#[derive(Debug, Default)]
pub(crate) struct SeldomLines {
    /// Records cannot be read.
    pub(crate) unreadable: Seldom,
    /// There is no space for records.
    pub(crate) no_space: Seldom,
    /// There is no descriptor for records.
    pub(crate) no_descriptor: Seldom,
    /// A connection could not be accepted.
    pub(crate) unaccepted: Seldom,
    /// There are too many connections.
    pub(crate) refused: Seldom,
    /// Somebody speaks another protocol.
    pub(crate) strangers: Seldom,
    /// By what was to be done.
    upkeep: [Seldom; 3],
    /// A partition could not be compacted.
    pub(crate) uncompacted: Seldom,
    /// Records of groups could not be stored.
    pub(crate) unstored: Seldom,
    /// The record of a group would be too large.
    pub(crate) too_large: Seldom,
}

/// The state of one core.
pub(crate) struct Core {
    pub(crate) id: CoreId,
    pub(crate) config: Arc<Config>,
    pub(crate) mesh: Mesh,
    pub(crate) control: ControlHandle,
    pub(crate) addresses: Arc<Addresses>,
    pub(crate) disk: DirectDisk,
    pub(crate) memory: Memory,
    pub(crate) read_buffers: Rc<ReadBuffers>,
    pub(crate) heads: Heads,
    /// Requests that are not answered yet, in bytes.
    pub(crate) in_flight: Rc<Budget>,
    /// One turn: to decompress records before they are taken in.
    pub(crate) vetting: Rc<Budget>,
    pub(crate) metrics: CoreMetrics,
    pub(crate) seldom: SeldomLines,
    pub(crate) groups: coordinator::Service,
    pub(crate) forwarded: Forwarded,
    /// A partition is offline or fenced that was not before.
    pub(crate) failed: Signal,
    /// The partition that is being opened again, whose directory must not go meanwhile.
    pub(crate) opening: Cell<Option<PartitionId>>,
    pub(crate) opened: Signal,
    pub(crate) image: RefCell<Arc<ClusterImage>>,
    pub(crate) partitions: RefCell<HashMap<PartitionId, Owned>>,
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
    pub(crate) fn new(id: CoreId, setup: Setup, activity: Arc<Activity>) -> std::io::Result<Rc<Core>> {
        let Setup {
            config,
            names,
            open_files_max,
            mesh,
            control,
            addresses,
        } = setup;
        let lifecycle = Lifecycle {
            began: Instant::now(),
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
        let disk = DirectDisk::with_names(names)?;
        disk.open_files().set_limit(open_files_max);
        Ok(Rc::new(Core {
            id,
            mesh,
            control,
            addresses,
            disk,
            memory,
            read_buffers: ReadBuffers::new(config.cores.connection_bytes_max.bytes()),
            heads: Heads::default(),
            in_flight: Budget::new(config.cores.in_flight_bytes_max.bytes()),
            vetting: Budget::new(1),
            metrics: CoreMetrics::default(),
            seldom: SeldomLines::default(),
            groups: coordinator::Service::new(&config.groups),
            forwarded: Forwarded::default(),
            failed: Signal::default(),
            opening: Cell::new(None),
            opened: Signal::default(),
            image: RefCell::default(),
            partitions: RefCell::default(),
            lifecycle,
            config,
        }))
    }

    /// Serves until the core is told to stop and everything is durable. An error if partitions were left to be recovered.
    pub(crate) async fn run(self: Rc<Self>, mut inbox: mpsc::UnboundedReceiver<CoreMessage>) -> io::Result<()> {
        let daemons = Daemons::default();
        daemons.spawn(pulse(Rc::clone(&self)));
        daemons.spawn(tick::keep(Rc::clone(&self)));
        let log = &self.config.log;
        let upkeep = [
            (Upkeep::Checkpoint, log.checkpoint_interval_ms),
            (Upkeep::Retention, log.retention_check_interval_ms),
        ];
        for (what, interval) in upkeep {
            let interval = Duration::from_millis(interval.get());
            daemons.spawn_background(maintain(Rc::clone(&self), what, interval));
        }
        daemons.spawn_background(maintain_early(Rc::clone(&self)));
        daemons.spawn_background(seal_rolled(Rc::clone(&self)));
        daemons.spawn(coordinator::service::keep_time(Rc::clone(&self)));
        daemons.spawn_background(compaction::run(Rc::clone(&self)));
        daemons.spawn_background(reopen::run(Rc::clone(&self)));
        while let Some(message) = inbox.next().await {
            if matches!(message, CoreMessage::Stop) {
                break;
            }
            self.take(message);
        }
        self.lifecycle.stopping.set(true);
        self.lifecycle.changed.notify();
        // Other cores may still need answers while their connections are being drained.
        let inbox_open = async {
            while let Some(message) = inbox.next().await {
                self.take(message);
            }
        };
        futures::future::select(std::pin::pin!(self.drained()), std::pin::pin!(inbox_open)).await;
        let closed = closing::close_partitions(&self).await;
        self.at_rest().await;
        daemons.end().await;
        // A blocking operation whose task was ended just now.
        machine::blocking_threads_rest().await;
        closed
    }

    fn take(self: &Rc<Self>, message: CoreMessage) {
        let core = Rc::clone(self);
        match message {
            CoreMessage::Forward(request) => self.forwarded.take(&core, request),
            CoreMessage::Fetch { items, room, reply } => {
                machine::spawn(fetch::answer_other_core(core, items, room, reply));
            }
            CoreMessage::AwaitNews { seen, reply } => {
                machine::spawn(mesh::answer(reply, fetch::news_for_other_core(core, seen)));
            }
            CoreMessage::ListOffsets { items, reply } => machine::spawn(async move {
                let _ = reply.send(offsets::list_here(&core, items).await);
            }),
            CoreMessage::DeleteRecords { id, before, reply } => machine::spawn(async move {
                let _ = reply.send(offsets::delete_here(&core, id, before).await);
            }),
            CoreMessage::Describe { ids, reply } => {
                let _ = reply.send(topics::describe_here(&core, &ids));
            }
            CoreMessage::ListGroups { wanted, reply } => {
                let _ = reply.send(core.groups.list(&wanted));
            }
            CoreMessage::Metrics { reply } => {
                let _ = reply.send(metrics::snapshot(&core));
            }
            CoreMessage::Apply { image, reply } => machine::spawn(async move {
                core.apply(image).await;
                coordinator::service::follow(&core);
                let _ = reply.send(());
            }),
            CoreMessage::Serve { listeners } => {
                for listener in listeners {
                    machine::spawn(listener::accept(Rc::clone(&core), listener));
                }
            }
            CoreMessage::Stop => {}
            #[cfg(test)]
            CoreMessage::Run(what) => what(),
        }
    }

    /// The cluster as it is known now.
    pub(crate) fn image(&self) -> Arc<ClusterImage> {
        Arc::clone(&self.image.borrow())
    }

    /// For how long the core has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.lifecycle.began.elapsed()
    }

    /// Open connections.
    pub(crate) fn connections(&self) -> usize {
        self.lifecycle.connections.get()
    }

    /// How often the watchdog found this core stuck, and for how long in all.
    pub(crate) fn stalls(&self) -> (u64, Duration) {
        self.lifecycle.activity.stalls()
    }

    /// Whether the core has been told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        self.lifecycle.stopping.get()
    }

    /// Resolves once the core has been told to stop.
    pub(crate) async fn stopping(&self) {
        loop {
            let changed = self.lifecycle.changed.wait();
            if self.lifecycle.stopping.get() {
                return;
            }
            changed.await;
        }
    }

    /// Resolves when no connection is left, or the grace is over.
    async fn drained(&self) {
        let grace = Duration::from_millis(self.config.limits.shutdown_grace_ms.get());
        let gone = async {
            loop {
                let changed = self.lifecycle.changed.wait();
                if self.lifecycle.connections.get() == 0 {
                    return;
                }
                changed.await;
            }
        };
        if machine::until(Instant::now() + grace, gone).await.is_none() {
            let left = self.lifecycle.connections.get();
            tracing::warn!(left, "connections are closed before their requests were answered");
        }
    }

    /// Waits for tasks that are still at work. One that waited for glommio's blocking pool beyond the end of its executor would
    /// have the pool's thread panic.
    async fn at_rest(&self) {
        let deadline = Instant::now() + REST_WAIT_MAX;
        while self.lifecycle.activity.has_work() && Instant::now() < deadline {
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
        core.disk.ring().reap();
    }
}

/// What is done to every partition now and then, each at an interval of its own.
#[derive(Debug, Clone, Copy)]
enum Upkeep {
    Checkpoint,
    Retention,
    Sealing,
}

/// One partition after the other.
async fn maintain(core: Rc<Core>, what: Upkeep, interval: Duration) {
    loop {
        machine::sleep(interval).await;
        for partition in core.online() {
            if core.lifecycle.stopping.get() {
                return;
            }
            maintain_one(&core, &partition, what).await;
        }
    }
}

async fn maintain_one(core: &Core, partition: &Partition, what: Upkeep) {
    let _working = core.working();
    let now = machine::moment();
    let done = match what {
        Upkeep::Checkpoint => {
            partition.unscanned.clear();
            partition.log.checkpoint(now).await
        }
        Upkeep::Retention => partition.log.retain(now).await,
        Upkeep::Sealing => partition.log.seal_rolled().await,
    };
    if let Err(error) = done {
        core.metrics.failed(match what {
            Upkeep::Checkpoint => Failure::Checkpoint,
            Upkeep::Retention => Failure::Retention,
            Upkeep::Sealing => Failure::Sealing,
        });
        if let Some(unsaid) = core.seldom.upkeep[what as usize].may_speak(Instant::now()) {
            tracing::warn!(directory = %partition.log.directory().display(), %error, ?what, unsaid, "maintenance failed; it is tried again");
        }
    }
    machine::yield_now().await;
}

/// Seals segments as they are rolled: those that are not are work for the stop, and too many keep producers waiting.
async fn seal_rolled(core: Rc<Core>) {
    loop {
        let more = core.memory.unsealed.came();
        let due = core
            .online()
            .into_iter()
            .filter(|partition| partition.log.take_unsealed());
        let sealing = due.map(|partition| {
            let core = Rc::clone(&core);
            async move { maintain_one(&core, &partition, Upkeep::Sealing).await }
        });
        stream::iter(sealing)
            .buffer_unordered(SEALED_AT_ONCE)
            .collect::<()>()
            .await;
        more.await;
    }
}

/// What does not wait for its interval: retention where a segment was filled, as what it deletes is the file of the next segment,
/// and where less is to be kept, which may be to make room on a full disk; and a checkpoint where so much was written that recovery
/// would take long, which bounds it however many partitions there are.
async fn maintain_early(core: Rc<Core>) {
    loop {
        let needed = core.lifecycle.early.wait();
        for partition in core.online() {
            if core.lifecycle.stopping.get() {
                return;
            }
            if partition.retains_early.take() {
                maintain_one(&core, &partition, Upkeep::Retention).await;
            }
            if partition.unscanned.is_due(core.config.log.checkpoint_bytes_max.bytes()) {
                maintain_one(&core, &partition, Upkeep::Checkpoint).await;
            }
        }
        needed.await;
    }
}
