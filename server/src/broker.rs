//! The broker as a whole: starts the cores, the watchdog and the control plane, and stops them in order.
//!
//! Start: check the machine, lock the directory, open the topic store, bind every port, start the cores, let them open their
//! partitions, and only then accept. Stop: no new requests, what was taken in is answered, everything is durable, then the
//! threads end, and the clean marker is written last.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{
    FutureExt,
    channel::{mpsc, oneshot},
    executor::block_on,
};
use headwater_engine::disk::{Directory, StdDirectory};
use headwater_protocol::id::CoreId;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::{
    check::{self, CheckError, Checks, DirectoryLock},
    config::Config,
    control::{self, Control},
    core::{Addresses, Core, Setup},
    listener,
    mesh::{CoreMessage, Mesh},
    runtime::{self, CoreThread},
    topics::{StoreError, TopicStore},
    watchdog::{Activity, Watchdog},
};

/// How long a port may be in use by a broker that was killed: the kernel closes what its rings hold after the process is gone.
const PORT_WAIT_MAX: Duration = Duration::from_secs(5);

/// So long a core's executor goes on when the core is gone, to close its files.
const CLOSE_WAIT: Duration = Duration::from_millis(2);

/// Between two attempts to bind a port.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The machine is not fit for it.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// The data directory is not.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A port cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another port with {key}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The setting that names it.
        key: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A core or thread cannot be started.
    #[error("cannot start {what}: {reason}")]
    Thread {
        /// Which.
        what: String,
        /// The cause.
        reason: String,
    },
}

/// A core or thread did not end as it should.
#[derive(Debug, thiserror::Error)]
#[error("{what} has failed: {reason}")]
pub struct StopError {
    /// Which.
    what: String,
    /// How.
    reason: String,
}

/// A running broker. It is stopped in order by [`shutdown`](Broker::shutdown), and also when it is dropped.
pub struct Broker {
    address: SocketAddr,
    metrics_address: Option<SocketAddr>,
    mesh: Mesh,
    cores: Vec<CoreThread>,
    control: Option<Control>,
    watchdog: Option<Watchdog>,
    clean_marker: PathBuf,
    _lock: DirectoryLock,
}

/// SIGTERM and SIGINT. From when this is made they no longer end the process, and one that comes is kept until
/// [`run_until`](Broker::run_until): make it before the broker, or a signal while it starts would leave it unclean.
#[derive(Debug)]
pub struct StopSignals {
    runtime: tokio::runtime::Runtime,
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Begins to catch the signals.
    pub fn catch() -> io::Result<StopSignals> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (terminate, interrupt) = {
            let _entered = runtime.enter();
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
        };
        Ok(StopSignals {
            runtime,
            terminate,
            interrupt,
        })
    }

    /// Waits for a signal, and names it.
    fn wait(self) -> &'static str {
        let StopSignals {
            runtime,
            mut terminate,
            mut interrupt,
        } = self;
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            }
        })
    }
}

/// Written when the broker has stopped in order, removed when it starts: tells an unclean restart (KIP-966).
const CLEAN_MARKER: &str = "clean-shutdown";

impl Broker {
    /// Starts a broker; it accepts connections when this returns.
    pub fn start(mut config: Config) -> Result<Broker, StartError> {
        let checks = Checks::run(&config);
        for warning in &checks.warnings {
            tracing::warn!("{warning}");
        }
        let lock = checks.into_lock()?;
        // Links may lead to the data directory, but none leads on from there.
        let directory = &mut config.log.directory;
        *directory = directory.canonicalize().map_err(StoreError::io("find", directory))?;
        let config = Arc::new(config);
        let names = StdDirectory::with_reserve(&config.log.directory);
        let opened = TopicStore::open(names.clone(), Arc::clone(&config)).now_or_never();
        let (store, producer_ids, recovery) = opened.expect("a StdDirectory's futures are ready at once")?;
        if !recovery.orphans.is_empty() {
            tracing::warn!(directories = ?recovery.orphans,
                "what looks like partitions belongs to no topic; it is left alone and takes up space");
        }
        begin_unclean(&config.log.directory)?;
        warn_of_strangers(&config);
        let cpus = check::cpus(&config.cores);
        let (mesh, inboxes) = Mesh::new(cpus.len());
        let ports = bind_all(&config, cpus.len())?;
        let metrics = config
            .metrics
            .listen
            .map(|address| bind(address.get(), false, "metrics.listen"))
            .transpose()?;
        let (metrics, metrics_address) = metrics.unzip();
        let addresses = Arc::new(Addresses {
            cluster_id: store.identity().cluster_id.as_str().to_owned(),
            host: config.advertised_host(),
            port: ports.address.port(),
            core_ports: ports.of_cores,
        });
        let (control, queues) = control::channel();
        let setup = Setup {
            config: Arc::clone(&config),
            names,
            open_files_max: check::open_files_max(&config) as usize,
            mesh: mesh.clone(),
            control,
            addresses,
        };
        let activities: Vec<Arc<Activity>> = cpus.iter().map(|_| Arc::default()).collect();
        let thread = |what: &str, error: io::Error| StartError::Thread {
            what: what.to_owned(),
            reason: error.to_string(),
        };
        let watchdog = Watchdog::start(activities.clone()).map_err(|error| thread("the watchdog", error))?;
        let mut broker = Broker {
            address: ports.address,
            metrics_address,
            mesh: mesh.clone(),
            cores: Vec::new(),
            control: None,
            watchdog: Some(watchdog),
            clean_marker: config.log.directory.join(CLEAN_MARKER),
            _lock: lock,
        };
        for ((index, inbox), (cpu, activity)) in inboxes.into_iter().enumerate().zip(cpus.iter().zip(activities)) {
            let cpu = config.cores.pin.then_some(*cpu);
            let core = start_core(CoreId::new(index as u16), cpu, setup.clone(), inbox, activity);
            broker.cores.push(core.map_err(|reason| StartError::Thread {
                what: format!("core {index}"),
                reason,
            })?);
        }
        block_on(control::publish(&mesh, store.image()));
        let metrics = metrics.map(|listener| (listener, Arc::clone(&config)));
        let control = Control::start(store, producer_ids, mesh.clone(), queues, metrics);
        broker.control = Some(control.map_err(|error| thread("the control plane", error))?);
        for (core, listeners) in mesh.ids().zip(ports.listeners) {
            mesh.send(core, CoreMessage::Serve { listeners });
        }
        if let Some(address) = broker.metrics_address {
            tracing::info!("metrics are at http://{address}/metrics");
        }
        tracing::info!(address = %broker.address, cores = cpus.len(), data = %config.log.directory.display(), "the broker is ready");
        Ok(broker)
    }

    /// Address of the port that all cores share.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Address of the HTTP endpoint `/metrics`, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Answers what has been taken in, makes everything durable, and ends.
    pub fn shutdown(mut self) -> Result<(), StopError> {
        self.stop()
    }

    /// Runs until one of the signals has come, then shuts down in order.
    pub fn run_until(self, signals: StopSignals) -> Result<(), StopError> {
        let signal = signals.wait();
        tracing::info!(signal, "the broker stops");
        self.shutdown()
    }

    fn stop(&mut self) -> Result<(), StopError> {
        if self.cores.is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        drop(self.control.take());
        for core in self.mesh.ids() {
            self.mesh.send(core, CoreMessage::Stop);
        }
        let mut result = Ok(());
        for (index, core) in self.cores.drain(..).enumerate() {
            if let Err(reason) = core.join() {
                let what = format!("core {index}");
                result = Err(StopError { what, reason });
            }
        }
        drop(self.watchdog.take());
        result?;
        let written = StdDirectory::default()
            .replace_file(&self.clean_marker, Vec::new())
            .now_or_never();
        let written = written.expect("a StdDirectory's futures are ready at once");
        written.map_err(|error| StopError {
            what: "the clean marker".to_owned(),
            reason: error.to_string(),
        })?;
        tracing::info!(
            "stopped after {:.1} s, everything durable",
            began.elapsed().as_secs_f64()
        );
        Ok(())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            tracing::error!(%error, "the broker did not stop in order");
        }
    }
}

/// The listening sockets, bound before anything runs.
struct Ports {
    address: SocketAddr,
    of_cores: Vec<u16>,
    /// For each core the shared port and its own.
    listeners: Vec<[TcpListener; 2]>,
}

fn bind_all(config: &Config, cores: usize) -> Result<Ports, StartError> {
    let mut address = config.broker.listen;
    let mut ports = Ports {
        address,
        of_cores: Vec::new(),
        listeners: Vec::new(),
    };
    // Shared among our cores only: without this, a second broker could take the port as well, and half of the connections.
    drop(bind(address, false, "broker.listen")?);
    for index in 0..cores {
        let shared = bind(address, true, "broker.listen")?;
        // Port 0 becomes the port that the first core got.
        address = shared.1;
        let own_port = match config.broker.core_port_base {
            0 => 0,
            base => base + index as u16,
        };
        let own = bind(SocketAddr::new(address.ip(), own_port), false, "broker.core_port_base")?;
        ports.of_cores.push(own.1.port());
        ports.listeners.push([shared.0, own.0]);
    }
    ports.address = address;
    Ok(ports)
}

/// Binds a port, waiting a little for one that is in use.
fn bind(address: SocketAddr, shared: bool, key: &'static str) -> Result<(TcpListener, SocketAddr), StartError> {
    let deadline = Instant::now() + PORT_WAIT_MAX;
    loop {
        let bound = listener::bind(address, shared).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((bound, listener)) => return Ok((listener, bound)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(PORT_RETRY);
            }
            Err(source) => return Err(StartError::Listen { address, key, source }),
        }
    }
}

/// Until there is authentication, whoever reaches a port may do everything there.
fn warn_of_strangers(config: &Config) {
    let metrics = config.metrics.listen.map(|address| ("metrics.listen", address.get()));
    for (key, address) in [("broker.listen", config.broker.listen)].into_iter().chain(metrics) {
        if !address.ip().is_loopback() {
            tracing::warn!(key, %address, "other machines can reach this port, and nobody is asked who they are: let a firewall decide who may");
        }
    }
}

/// From here on the last stop counts as unclean, until this one is over.
fn begin_unclean(directory: &Path) -> Result<(), StartError> {
    let marker = directory.join(CLEAN_MARKER);
    let was_clean = marker.exists();
    let removed = StdDirectory::default().remove_file(&marker).now_or_never();
    removed
        .expect("a StdDirectory's futures are ready at once")
        .map_err(StoreError::io("remove", &marker))?;
    tracing::info!(was_clean, "the data directory is open");
    Ok(())
}

/// Starts a core and waits until it takes messages.
fn start_core(
    id: CoreId,
    cpu: Option<u16>,
    setup: Setup,
    inbox: mpsc::UnboundedReceiver<CoreMessage>,
    activity: Arc<Activity>,
) -> Result<CoreThread, String> {
    let (ready, started) = oneshot::channel();
    let spin = Duration::from_micros(setup.config.cores.spin_before_park_us.get());
    let run = move || async move {
        let core = Core::new(id, setup, activity)?;
        let _ = ready.send(());
        let ring = core.disk.ring().clone();
        let ended = core.run(inbox).await;
        // The files of the core's partitions are closed in the executor's next turns.
        ring.close().await;
        runtime::sleep(CLOSE_WAIT).await;
        ended
    };
    let thread = CoreThread::start(&format!("core-{id}"), cpu, spin, run)?;
    if block_on(started).is_ok() {
        return Ok(thread);
    }
    thread.join()?;
    Err("it ended at once".to_owned())
}
