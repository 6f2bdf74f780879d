//! The host of a broker, alone or one of several: its disk, its power, and the broker that runs on it.

use std::{
    cell::{Cell, RefCell},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use futures::{FutureExt as _, future::join_all};
use headwater_engine::{
    Signal,
    disk::{Directory as _, EntryKind, SimDisk},
};

use crate::{
    broker::{
        assembly::{Assembly, Door, open_door},
        serve::Server,
    },
    cluster::{self, Agreement, LocalLog, Membership, PEER_PORT, TopicStore},
    config::Config,
    core::mesh::{CoreMessage, Listeners, Mesh},
    image::Address,
    machine::{
        self, Bound, Disk,
        simulated::{ProcessId, World, clock::Clock, here, host::DiskId, net::Net},
        spawn,
    },
    metrics::{CoreSnapshot, Family, LookAtQuorum},
};

/// The port that all cores share.
pub(super) const PORT: u16 = 9292;

/// The port of the first core; the others follow.
const CORE_PORTS: u16 = 9300;

/// All ports of clients.
pub(super) const CLIENT_PORTS: RangeInclusive<u16> = PORT..=CORE_PORTS + 99;

const _: () = assert!(PEER_PORT > CORE_PORTS + 99);

/// Where a broker of several says that it has stopped in order.
const CLEAN_MARKER: &str = "clean-shutdown";

/// So long a stop waits for the control plane.
const CONTROL_WAIT: Duration = Duration::from_secs(10);

/// Descriptors of segment files on each core, where they are few and where they are many.
const OPEN_FILES: [usize; 2] = [3, 1000];

/// How often there is a look at what is held for clients that are gone.
const REST_LOOK_EVERY: Duration = Duration::from_millis(200);

/// Cores of a broker, at most.
pub(super) const CORES_MAX: usize = 3;

/// A broker that runs, or is about to.
struct Run {
    process: ProcessId,
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    mesh: RefCell<Option<Mesh>>,
    stop: RefCell<Option<cluster::Stop>>,
    failed: RefCell<Option<String>>,
    is_ready: Cell<bool>,
    quorum: RefCell<Option<LookAtQuorum>>,
    cores_ended: Cell<usize>,
    /// It was told to stop.
    is_stopping: Cell<bool>,
    /// Its process has ended.
    is_gone: Cell<bool>,
    /// Tasks of the control plane that have not ended.
    desks: Cell<usize>,
    changed: Signal,
}

impl State {
    async fn until<T>(&self, look: impl Fn(&State) -> Option<T>) -> T {
        loop {
            let changed = self.changed.wait();
            if let Some(seen) = look(self) {
                return seen;
            }
            changed.await;
        }
    }

    /// Its process has ended.
    fn goes(&self) {
        self.is_gone.set(true);
        self.changed.notify();
    }

    /// Starts a task of the control plane.
    fn attend(self: &Rc<Self>, desk: impl Future<Output = ()> + 'static) {
        self.desks.set(self.desks.get() + 1);
        let state = Rc::clone(self);
        spawn(async move {
            desk.await;
            state.desks.set(state.desks.get() - 1);
            state.changed.notify();
        });
    }
}

pub(super) struct House {
    pub(super) world: Rc<World>,
    pub(super) host: IpAddr,
    config: Arc<Config>,
    /// What it agrees on with others; none if it is alone.
    quorum: Option<Rc<Agreement>>,
    disk: RefCell<SimDisk>,
    drive: Cell<DiskId>,
    run: RefCell<Option<Run>>,
    /// How often a broker was started.
    starts: Cell<u64>,
    /// Its clock is right, as the age of records goes by it.
    pub(super) is_timely: Cell<bool>,
    /// So many disks may be lost in the whole cluster: what is acknowledged is on two.
    pub(super) disks_to_lose: Rc<Cell<u32>>,
    /// Something of what was on the disk is gone.
    pub(super) has_lost: Cell<bool>,
    /// Cores that a broker has here, at most.
    pub(super) cores_max: usize,
    when_it_has_ended: RefCell<Option<WhenEnded>>,
}

/// Looks at what is left on the disk.
type WhenEnded = Box<dyn Fn(&House, &SimDisk)>;

impl House {
    pub(super) fn new(world: &Rc<World>, host: IpAddr, config: Config, quorum: Option<Rc<Agreement>>) -> House {
        let disk = SimDisk::new(world.random());
        House {
            drive: Cell::new(world.add_disk(host, &disk)),
            world: Rc::clone(world),
            host,
            config: Arc::new(config),
            quorum,
            disk: RefCell::new(disk),
            run: RefCell::default(),
            starts: Cell::new(0),
            is_timely: Cell::default(),
            disks_to_lose: Rc::default(),
            has_lost: Cell::default(),
            cores_max: CORES_MAX,
            when_it_has_ended: RefCell::default(),
        }
    }

    /// Where clients find the broker.
    pub(super) fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, PORT)
    }

    pub(super) fn disk(&self) -> SimDisk {
        self.disk.borrow().clone()
    }

    pub(super) fn drive(&self) -> DiskId {
        self.drive.get()
    }

    pub(super) fn process(&self) -> Option<ProcessId> {
        self.run.borrow().as_ref().map(|run| run.process)
    }

    /// Starts a broker with any number of cores; returns without waiting for it.
    pub(super) fn begin(&self) {
        let cores = self.world.draw(1..=self.cores_max);
        let number = self.starts.replace(self.starts.get() + 1);
        let clock = Clock {
            rate: self.world.draw(0.999..1.001),
            wall_ms: 0,
        };
        let name = match &self.quorum {
            None => format!("broker-{number}"),
            Some(_) => format!("broker-{}.{number}", self.config.broker.id),
        };
        let process = self.world.process(name, self.host, clock);
        self.world.tell(Some(process), format!("starts with {cores} cores"));
        let state = Rc::new(State::default());
        let disk = self.disk();
        let config = Arc::clone(&self.config);
        let quorum = self.quorum.clone();
        let told = Rc::clone(&state);
        let open_files = OPEN_FILES[self.world.draw(0..OPEN_FILES.len())];
        self.world.spawn(process, async move {
            match serve(config, disk, quorum, (cores, open_files), &told).await {
                Ok(()) => told.is_ready.set(true),
                Err(reason) => *told.failed.borrow_mut() = Some(reason),
            }
            told.changed.notify();
        });
        *self.run.borrow_mut() = Some(Run { process, state });
    }

    /// Waits until the broker serves, or says why it does not. Not if its machine stops meanwhile.
    pub(super) async fn is_ready(&self) -> Result<(), String> {
        let state = match &*self.run.borrow() {
            Some(run) => Rc::clone(&run.state),
            None => return Err("no broker runs".to_owned()),
        };
        state
            .until(|state| {
                let failed = state.failed.borrow().clone();
                failed.map(Err).or_else(|| state.is_ready.get().then_some(Ok(())))
            })
            .await
    }

    /// The log of what is agreed on has failed, and the broker ends by itself.
    pub(super) fn ends_by_itself(&self) -> bool {
        let run = self.run.borrow();
        let serving = run.as_ref().filter(|run| run.state.is_ready.get());
        let serving = serving.filter(|run| !run.state.is_stopping.get());
        serving.is_some_and(|run| run.state.quorum.borrow().as_ref().is_some_and(|look| !look().is_up))
    }

    /// What the broker's cores hold at the moment; nothing if it is not there to say.
    pub(super) async fn figures(&self) -> Option<Vec<CoreSnapshot>> {
        let mesh = self.run.borrow().as_ref()?.state.mesh.borrow().clone()?;
        let asked = mesh.ids().map(|core| {
            mesh.ask(core, |reply| CoreMessage::Metrics {
                with_times: false,
                reply,
            })
        });
        join_all(asked).await.into_iter().collect()
    }

    /// No core holds more than it may.
    pub(super) async fn check_budgets(&self) {
        let Config { cores, limits, .. } = &*self.config;
        for figures in self.figures().await.into_iter().flatten() {
            for (held, most) in [
                // What was let in while there was room may be more than there was.
                (Family::TailBytes, 2 * cores.tail_buffer_bytes_max.bytes()),
                (Family::ColdBytes, cores.cold_read_bytes_max.bytes()),
                (Family::InFlightBytes, cores.in_flight_bytes_max.bytes()),
                (Family::ReadBufferBytes, cores.connection_bytes_max.bytes()),
                (Family::Connections, u64::from(limits.connections_max)),
            ] {
                let bytes = figures.sum(held);
                assert!(bytes <= most, "{held:?} is {bytes}; it may be {most}");
            }
        }
    }

    /// Nothing is held for clients that are gone, within some time.
    pub(super) async fn check_at_rest(&self, within: Duration) {
        let deadline = machine::now() + within;
        loop {
            let figures = self.figures().await;
            let held = figures
                .iter()
                .flatten()
                .map(|figures| figures.sum(Family::InFlightBytes));
            let held: u64 = held.sum();
            if held == 0 {
                return;
            }
            assert!(
                machine::now() < deadline,
                "{held} bytes of requests that nobody waits for"
            );
            machine::sleep(REST_LOOK_EVERY).await;
        }
    }

    /// The host loses power: what was not flushed may be gone, and peers hear nothing.
    pub(super) fn lose_power(&self) {
        let run = self.run.take();
        let after = self.disk().crash(self.world.random());
        self.world.set_power(self.host, false);
        if let Some(run) = run {
            self.world.tell(Some(run.process), "loses power");
            Net::lose(&self.world, run.process);
            self.world.end(run.process);
            run.state.goes();
        }
        self.look_at(&after);
        self.world.remove_disk(self.drive());
        self.drive.set(self.world.add_disk(self.host, &after));
        *self.disk.borrow_mut() = after;
    }

    /// Somebody looks at what a broker that has ended has left for certain.
    fn look_at(&self, left: &SimDisk) {
        if let Some(look) = &*self.when_it_has_ended.borrow() {
            // At a copy: nobody reads a disk for nothing.
            look(self, &left.certain_image(0));
        }
    }

    /// From now on somebody looks at what a loss of power leaves, or a broker that has stopped in order.
    pub(super) fn when_it_has_ended(&self, look: impl Fn(&House, &SimDisk) + 'static) {
        *self.when_it_has_ended.borrow_mut() = Some(Box::new(look));
    }

    /// The host gets another disk, on which there is nothing.
    pub(super) fn lose_disk(&self) {
        self.lose_power();
        self.has_lost.set(true);
        self.world.tell(None, format!("{} gets another disk", self.host));
        let disk = SimDisk::new(self.world.random());
        self.world.remove_disk(self.drive());
        self.drive.set(self.world.add_disk(self.host, &disk));
        *self.disk.borrow_mut() = disk;
    }

    /// Some of what a broker that does not run has on its disk is gone: directories of partitions, each with this probability.
    pub(super) async fn lose_directories(&self, probability: f64) {
        self.has_lost.set(true);
        let (disk, data) = (self.disk(), &self.config.log.directory);
        disk.heal();
        for entry in disk.list(data).await.unwrap_or_default() {
            if entry.kind == EntryKind::Directory && self.world.chance(probability) {
                self.world.tell(None, format!("{} loses {}", self.host, entry.name));
                let removed = disk.remove_dir_all(&data.join(entry.name)).await;
                removed.expect("a sound disk removes");
            }
        }
    }

    /// Whether the broker is one of several.
    pub(super) fn has_peers(&self) -> bool {
        self.quorum.is_some()
    }

    pub(super) fn power_is_back(&self) {
        self.world.set_power(self.host, true);
    }

    /// The broker is killed: its connections end, and what it has written stays.
    pub(super) fn kill(&self) {
        if let Some(run) = self.run.take() {
            self.world.tell(Some(run.process), "is killed");
            self.world.end(run.process);
            run.state.goes();
            let disk = self.disk().kill();
            *self.disk.borrow_mut() = disk;
        }
    }

    /// Stops the broker in order, unless it is killed meanwhile. False if it did not come to its end in the time that it may take.
    pub(super) async fn stop(&self) -> bool {
        let running = self
            .run
            .borrow()
            .as_ref()
            .map(|run| (run.process, Rc::clone(&run.state)));
        let Some((process, state)) = running else { return true };
        self.world.tell(Some(process), "is told to stop");
        state.is_stopping.set(true);
        drop(state.stop.take());
        let attended = state.until(|state| (state.desks.get() == 0 || state.is_gone.get()).then_some(()));
        if machine::until(machine::now() + CONTROL_WAIT, attended).await.is_none() {
            self.world.tell(Some(process), "has a control plane that does not end");
        }
        if state.is_gone.get() {
            return true;
        }
        let mesh = state.mesh.borrow().clone();
        let Some(mesh) = mesh else {
            self.kill();
            return true;
        };
        for core in mesh.ids() {
            mesh.send(core, CoreMessage::Stop);
        }
        let cores = mesh.len();
        let ended = state.until(|state| (state.cores_ended.get() == cores || state.is_gone.get()).then_some(()));
        let limit = Duration::from_millis(
            self.config.limits.shutdown_grace_ms.get() + self.config.limits.shutdown_close_ms_max.get(),
        );
        let deadline = machine::now() + limit + Duration::from_secs(10);
        let has_ended = machine::until(deadline, ended).await.is_some();
        if state.is_gone.get() {
            return true;
        }
        self.world
            .tell(Some(process), format!("has stopped in order: {has_ended}"));
        if has_ended && self.quorum.is_some() {
            let (disk, marker) = (self.disk(), self.config.log.directory.join(CLEAN_MARKER));
            let written = async { disk.replace_file(&marker, Vec::new()).await };
            // A disk that does not take it makes it a crash.
            let _ = machine::until(machine::now() + CONTROL_WAIT, written).await;
        }
        if !state.is_gone.get() {
            self.kill();
            self.look_at(&self.disk());
        }
        has_ended
    }
}

/// The broker, with tasks in the place of threads. Returns when it serves.
async fn serve(
    config: Arc<Config>,
    disk: SimDisk,
    quorum: Option<Rc<Agreement>>,
    (cores, open_files_max): (usize, usize),
    state: &Rc<State>,
) -> Result<(), String> {
    let names = Disk::Simulated(disk.clone());
    let is_alone = quorum.is_none();
    let (quorum, agree) = match quorum {
        None => {
            let opened = LocalLog::open(&names, &config).await;
            let (handle, work) = opened.map_err(|error| error.to_string())?;
            (handle, work.boxed_local())
        }
        Some(quorum) => {
            let joined = quorum.join(&names, &config).await;
            let (handle, work) = joined.map_err(|error| error.to_string())?;
            (handle, work.boxed_local())
        }
    };
    spawn(agree);
    *state.quorum.borrow_mut() = is_alone.then(|| quorum.look());
    let opened = TopicStore::open(names, Arc::clone(&config), quorum).await;
    let (mut store, _) = opened.map_err(|error| error.to_string())?;
    let marker = config.log.directory.join(CLEAN_MARKER);
    let was_clean = !is_alone && disk.read_file(&marker).await.is_ok();
    disk.remove_file(&marker).await.map_err(|error| error.to_string())?;
    let host = config.broker.listen.ip();
    let own = Address {
        host: host.to_string(),
        port: PORT,
        core_ports: (0..cores as u16).map(|core| CORE_PORTS + core).collect(),
    };
    let recovered = headwater_engine::journal::recover(&disk, &config.log.directory).await;
    recovered.map_err(|error| error.to_string())?;
    let (mesh, inboxes) = Mesh::new(cores);
    let mut membership = if is_alone {
        None
    } else {
        let registered = Membership::register(&mut store, &mesh, (own.clone(), None), was_clean).await;
        Some(registered.map_err(|refusal| refusal.message)?)
    };
    let door = Door {
        host: own.host,
        port: own.port,
        core_ports: own.core_ports.clone(),
        kafka: None,
        tls: Arc::default(),
        assignment: membership.as_ref().map(|own| Arc::new(own.assignment())),
    };
    let mut assembly = Assembly::new(&config, store, (mesh.clone(), inboxes), open_files_max, door);
    *state.mesh.borrow_mut() = Some(mesh.clone());
    for (id, setup, inbox) in assembly.cores() {
        let disk = Disk::Simulated(disk.of_another_core());
        let core = Server::new(id, setup, disk, Arc::default());
        let state = Rc::clone(state);
        spawn(async move {
            if let Err(error) = core.run(inbox).await {
                tracing::warn!(%error, "a core has not closed all");
            }
            state.cores_ended.set(state.cores_ended.get() + 1);
            state.changed.notify();
        });
    }
    match &mut membership {
        None => assembly.publish().await,
        Some(membership) => membership.follow().await,
    }
    let bound = |port| Bound::Simulated(SocketAddr::new(host, port));
    let listeners = own.core_ports.into_iter().map(|port| Listeners {
        native: [PORT, port].map(bound).into(),
        kafka: Vec::new(),
    });
    open_door(&mesh, listeners);
    if let Some(membership) = &mut membership {
        if let Err(refusal) = membership.enter().await {
            tracing::warn!(why = refusal.message, "the broker is not let in yet; it asks again");
        }
        membership.follow().await;
    }
    let (stop, stopped) = cluster::stop();
    *state.stop.borrow_mut() = Some(stop);
    if let Some(membership) = membership {
        state.attend(membership.run(stopped.clone()));
    }
    let (topics, ids) = cluster::desks(assembly.into_control(), stopped);
    state.attend(topics());
    state.attend(ids());
    if let Some(here) = here() {
        here.world.tell(Some(here.process), "serves");
    }
    Ok(())
}
