//! The broker as a whole: starts the cores, the watchdog and the control plane, and stops them in order.
//!
//! Start: check the machine, lock the directory, join the quorum, find the topics, bind every port, register if others may be there, start
//! the cores, let them open their partitions, and only then accept, and be let in. Stop: no new requests, what was taken in is answered, everything is durable, then the
//! threads end, and the clean marker is written last.

pub(crate) mod assembly;
mod error;
mod http;
mod known_ports;
mod membership;
mod ports;
pub(crate) mod serve;
mod signals;

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::{
    FutureExt,
    channel::{mpsc, oneshot},
    executor::block_on,
};
use headwater_engine::disk::{Directory, StdDirectory};
use headwater_protocol::id::CoreId;

use self::assembly::{Assembly, Door, open_door};
pub use self::error::StartError;
use self::http::Http;
use self::membership::Wait;
use self::ports::{bind_all, bind_http, bind_metrics};
use self::serve::{Server, Setup};
pub use self::signals::StopSignals;
use crate::{
    check::{self, Checks, DirectoryLock, Open},
    cluster::{self, Control, Membership, QuorumThread, StoreError, TopicStore},
    config::{Config, Role},
    core::{
        mesh::{CoreMessage, Mesh},
        watchdog::{Activity, Watchdog},
    },
    failure::{Part, StopError},
    image::{Address, Assignment, KafkaAddress, Wishes},
    machine,
    model::refusal::Refusal,
    tls::{Reloading, Tls},
    tokens::Fetching,
};

/// So long a core's executor goes on when the core is gone, to close its files.
const CLOSE_WAIT: Duration = Duration::from_millis(2);

/// So long a core that could not start may take to say why.
const START_WAIT: Duration = Duration::from_secs(5);

/// So long a stop waits for a change of topics that is under way. Each of its steps is durable, and the next start finishes it.
const CONTROL_WAIT: Duration = Duration::from_secs(10);

/// So long a stop waits for requests over HTTP that are under way.
const HTTP_WAIT: Duration = Duration::from_secs(5);

/// So much longer than what the configuration grants a core may take to stop, for what is bounded otherwise.
const STOP_MARGIN: Duration = Duration::from_secs(5);

/// A running broker. It is stopped in order by [`shutdown`](Broker::shutdown), and also when it is dropped.
///
/// If a part of it panics it stops as a whole: its clients' connections are closed, and [`failure`](Broker::failure) tells.
pub struct Broker {
    address: SocketAddr,
    /// As others reach it.
    own: Address,
    kafka_address: Option<SocketAddr>,
    metrics_address: Option<SocketAddr>,
    http_address: Option<SocketAddr>,
    mesh: Mesh,
    cores: Vec<Part>,
    control: Option<Control>,
    http: Option<Http>,
    quorum: Option<QuorumThread>,
    /// There until it has been stopped.
    watchdog: Option<Watchdog>,
    /// Where there are certificates that may change.
    reloading: Option<Reloading>,
    /// Where clients may come in by tokens.
    fetching: Option<Fetching>,
    clean_marker: PathBuf,
    /// The longest that the cores may take to stop.
    stop_max: Duration,
    lock: Option<DirectoryLock>,
}

/// Written when the broker has stopped in order, removed when it starts: tells an unclean restart (KIP-966).
const CLEAN_MARKER: &str = "clean-shutdown";

impl Broker {
    /// Starts a broker; it accepts connections when this returns. As a member of a quorum of several it waits for the others.
    pub fn start(config: Config) -> Result<Broker, StartError> {
        Broker::start_waiting(config, None)
    }

    /// Starts a broker that is one of several. It does nothing to a partition before it is told who has it
    /// ([`assign`](Self::assign)), and never takes itself to be alone.
    pub fn start_assigned(config: Config, assignment: Assignment) -> Result<Broker, StartError> {
        Broker::start_waiting(config, Some(Arc::new(assignment)))
    }

    fn start_waiting(config: Config, assignment: Option<Arc<Assignment>>) -> Result<Broker, StartError> {
        let wait: Wait<'_> = &mut |joining| {
            block_on(joining);
            true
        };
        let started = Broker::start_if(config, assignment, wait);
        started.map(|broker| broker.expect("it waits until it has joined"))
    }

    /// The same as [`start`](Self::start), but one of the signals ends the wait for others. `None`: it has come.
    pub fn start_unless(config: Config, signals: &mut StopSignals) -> Result<Option<Broker>, StartError> {
        Broker::start_if(config, None, &mut |joining| signals.wait(joining).is_none())
    }

    fn start_if(
        mut config: Config,
        assignment: Option<Arc<Assignment>>,
        wait: Wait<'_>,
    ) -> Result<Option<Broker>, StartError> {
        let checks = Checks::run(&config);
        for warning in &checks.warnings {
            tracing::warn!("{warning}");
        }
        for Open { code, what, remedy } in &checks.open {
            tracing::warn!(code, "open to others: {what}; {remedy}");
        }
        let lock = checks.into_lock()?;
        // Links may lead to the data directory, but none leads on from there.
        let directory = &mut config.log.directory;
        *directory = directory.canonicalize().map_err(StoreError::io("find", directory))?;
        let config = Arc::new(config);
        let tls = Tls::read(&config).map_err(|error| StartError::Tls {
            reason: error.to_string(),
        })?;
        let tls = Arc::new(tls);
        match config.cluster.role {
            Role::Both => Broker::serve(&config, (lock, &tls), assignment, wait),
            Role::Coordinator => Broker::coordinate(&config, (lock, &tls), wait),
        }
    }

    /// A member of the quorum that serves clients.
    fn serve(
        config: &Arc<Config>,
        (lock, tls): (DirectoryLock, &Arc<Tls>),
        assignment: Option<Arc<Assignment>>,
        wait: Wait<'_>,
    ) -> Result<Option<Broker>, StartError> {
        let names = StdDirectory::with_reserve(&config.log.directory);
        let cpus = check::cpus(&config.cores);
        let (mesh, inboxes) = Mesh::new(cpus.len());
        let Some((quorum, mut store)) = membership::with_topics(config, &names, (&mesh, tls), wait)? else {
            return Ok(None);
        };
        let was_clean = begin_unclean(&config.log.directory)?;
        recover_journals(&names, &config.log.directory)?;
        let ports = bind_all(config, cpus.len())?;
        let (metrics, metrics_address) = bind_metrics(config)?.unzip();
        let (http, http_address) = bind_http(config)?.unzip();
        let own = Address {
            host: config.advertised_host(),
            port: ports.native.address.port(),
            core_ports: ports.native.of_cores.clone(),
        };
        let kafka = ports.kafka.as_ref().map(|doors| KafkaAddress {
            host: config.host_told_at(doors.address),
            port: doors.address.port(),
            core_ports: doors.of_cores.clone(),
        });
        let mut membership = if assignment.is_none() && store.may_have_peers() {
            Some(register(&mut store, &mesh, (own.clone(), kafka.clone()), was_clean)?)
        } else {
            None
        };
        let door = Door {
            host: own.host.clone(),
            port: own.port,
            core_ports: own.core_ports.clone(),
            kafka,
            tls: Arc::clone(tls),
            assignment: assignment.or_else(|| membership.as_ref().map(|own| Arc::new(own.assignment()))),
        };
        let open_files_max = check::open_files_max(config) as usize;
        let cluster_id = store.identity().cluster_id.as_str().to_owned();
        let mut assembly = Assembly::new(config, store, (mesh.clone(), inboxes), open_files_max, door);
        let activities: Vec<Arc<Activity>> = cpus.iter().map(|_| Arc::default()).collect();
        let mut broker = Broker {
            address: ports.native.address,
            kafka_address: ports.kafka.as_ref().map(|doors| doors.address),
            own,
            metrics_address,
            http_address,
            mesh: mesh.clone(),
            cores: Vec::new(),
            control: None,
            http: None,
            quorum: Some(quorum),
            watchdog: Some(watchdog(&activities, &mesh)?),
            reloading: reloading(tls, &mesh)?,
            fetching: fetching(tls, &mesh)?,
            clean_marker: config.log.directory.join(CLEAN_MARKER),
            stop_max: stop_max(config),
            lock: Some(lock),
        };
        for ((id, setup, inbox), (cpu, activity)) in assembly.cores().zip(cpus.iter().zip(activities)) {
            let cpu = config.cores.pin.then_some(*cpu);
            let core = start_core(id, cpu, setup, names.clone(), inbox, activity);
            broker.cores.push(core.map_err(|reason| StartError::Thread {
                what: format!("core {id}"),
                reason,
            })?);
        }
        match &mut membership {
            None => block_on(assembly.publish()),
            Some(membership) => block_on(membership.follow()),
        }
        broker.check()?;
        open_door(&mesh, ports.into_listeners());
        if let Some(membership) = &mut membership {
            // Not before it can be reached.
            if let Err(refusal) = block_on(membership.enter()) {
                tracing::warn!(why = refusal.message, "the broker is not let in yet; it asks again");
            }
            block_on(membership.follow());
        }
        let metrics = metrics.map(|listener| (listener, Arc::clone(config), Arc::clone(tls)));
        let control = assembly.into_control();
        let quorum = control.store.quorum().look();
        let control = Control::start(control, membership, metrics);
        broker.control = Some(control.map_err(|error| thread("the control plane", &error))?);
        if let Some(listener) = http {
            let http = Http::start(config, listener, (broker.address, cluster_id), (&mesh, quorum, tls));
            broker.http = Some(http.map_err(|error| thread("HTTP", &error))?);
        }
        broker.say_ready(config);
        Ok(Some(broker))
    }

    /// A member of the quorum and nothing else.
    fn coordinate(
        config: &Arc<Config>,
        (lock, tls): (DirectoryLock, &Arc<Tls>),
        wait: Wait<'_>,
    ) -> Result<Option<Broker>, StartError> {
        let names = StdDirectory::with_reserve(&config.log.directory);
        let (mesh, _) = Mesh::new(0);
        let Some((quorum, handle, address)) = membership::alone(config, &names, (&mesh, tls), wait)? else {
            return Ok(None);
        };
        begin_unclean(&config.log.directory)?;
        let (metrics, metrics_address) = bind_metrics(config)?.unzip();
        let metrics = metrics.map(|listener| (listener, Arc::clone(config), Arc::clone(tls)));
        let control = Control::start_without_topics(&mesh, handle.look(), metrics);
        let broker = Broker {
            address,
            kafka_address: None,
            own: Address {
                host: config.advertised_host(),
                port: address.port(),
                core_ports: Vec::new(),
            },
            metrics_address,
            http_address: None,
            cores: Vec::new(),
            http: None,
            control: Some(control.map_err(|error| thread("the control plane", &error))?),
            quorum: Some(quorum),
            watchdog: Some(watchdog(&[], &mesh)?),
            reloading: reloading(tls, &mesh)?,
            fetching: None,
            mesh,
            clean_marker: config.log.directory.join(CLEAN_MARKER),
            stop_max: stop_max(config),
            lock: Some(lock),
        };
        broker.say_ready(config);
        Ok(Some(broker))
    }

    fn say_ready(&self, config: &Config) {
        if let Some(address) = self.metrics_address {
            tracing::info!("metrics are at http://{address}/metrics");
        }
        if let Some(address) = self.http_address {
            tracing::info!("REST is at {address}, and described at /docs");
        }
        if let Some(address) = self.kafka_address {
            tracing::info!("Kafka's protocol is spoken at {address}");
        }
        tracing::info!(address = %self.address, cores = self.cores.len(), data = %config.log.directory.display(), "the broker is ready");
    }

    /// Address of the port that all cores share.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Address of the port where Kafka's protocol is spoken, which all cores share, if there is one.
    pub fn kafka_addr(&self) -> Option<SocketAddr> {
        self.kafka_address
    }

    /// Address of the HTTP endpoint `/metrics`, if there is one.
    pub fn metrics_addr(&self) -> Option<SocketAddr> {
        self.metrics_address
    }

    /// Address of REST, if there is one.
    pub fn http_addr(&self) -> Option<SocketAddr> {
        self.http_address
    }

    /// Where clients and other brokers reach it: what it registers with.
    pub fn own_address(&self) -> &Address {
        &self.own
    }

    /// Brokers and replicas are as this says from now on. All cores go by it when this returns; what they copy from each other then
    /// comes in time. Of two states of a partition the one with the later epoch counts, in whatever order they come.
    ///
    /// # Panics
    /// If the broker was started alone.
    pub fn assign(&self, assignment: Assignment) {
        block_on(cluster::assign(&self.mesh, &Arc::new(assignment)));
    }

    /// What its cores would have the coordinator change of the replicas that it has. To be asked for now and then: some of it comes
    /// of time that has passed.
    pub fn wishes(&self) -> Wishes {
        block_on(cluster::wishes(&self.mesh))
    }

    /// The failure of a part of the broker, because of which all of it stops.
    pub fn failure(&self) -> Option<StopError> {
        self.mesh.failure().get().cloned()
    }

    /// Opening the partitions may have been too much for a core.
    fn check(&self) -> Result<(), StartError> {
        self.failure()
            .map_or(Ok(()), |failure| Err(StartError::Failed(failure)))
    }

    /// Answers what has been taken in, makes everything durable, and ends. An error if something fails, or it takes longer than the
    /// configuration allows: then threads of the broker may be left, and its directory stays locked until the process ends.
    pub fn shutdown(mut self) -> Result<(), StopError> {
        self.stop()
    }

    /// Runs until one of the signals has come, or a part has failed, then shuts down in order. Another signal ends the process at
    /// once, with the code [`EXIT_SECOND_SIGNAL`].
    pub fn run_until(self, mut signals: StopSignals) -> Result<(), StopError> {
        let failed = self.mesh.failure().has_come();
        if let Some(signal) = signals.wait(failed) {
            tracing::info!(signal, "the broker stops");
        }
        signals.end_process_at_next();
        self.shutdown()
    }

    fn stop(&mut self) -> Result<(), StopError> {
        let Some(watchdog) = self.watchdog.take() else {
            return Ok(());
        };
        let began = machine::now();
        let mut ended = Vec::new();
        // It asks all others.
        ended.extend(self.http.take().map(|http| http.end(began + HTTP_WAIT)));
        if let Some(control) = self.control.take() {
            ended.extend(control.end(began + CONTROL_WAIT));
        }
        ended.extend(
            self.reloading
                .take()
                .map(|reloading| reloading.end(began + CONTROL_WAIT)),
        );
        ended.extend(self.fetching.take().map(|fetching| fetching.end(began + CONTROL_WAIT)));
        // It has nobody left who could ask for something.
        ended.extend(self.quorum.take().map(|quorum| quorum.end(began + CONTROL_WAIT)));
        for core in self.mesh.ids() {
            self.mesh.send(core, CoreMessage::Stop);
        }
        let deadline = machine::now() + self.stop_max;
        ended.extend(self.cores.drain(..).map(|core| core.join(deadline)));
        // Until here it has kept the cores awake.
        ended.push(watchdog.end(deadline));
        if ended.iter().any(|ended| matches!(ended, Err(StopError::Hung { .. }))) {
            // It may still write.
            std::mem::forget(self.lock.take());
        }
        self.failure().map_or(Ok(()), Err)?;
        ended.into_iter().collect::<Result<(), StopError>>()?;
        let written = StdDirectory::default()
            .replace_file(&self.clean_marker, Vec::new())
            .now_or_never();
        let written = written.expect("a StdDirectory's futures are ready at once");
        written.map_err(|error| StopError::Failed {
            what: "the clean marker".to_owned(),
            reason: error.to_string(),
        })?;
        tracing::info!(
            "stopped after {:.1} s, everything durable",
            machine::since(began).as_secs_f64()
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

fn thread(what: &str, error: &io::Error) -> StartError {
    StartError::Thread {
        what: what.to_owned(),
        reason: error.to_string(),
    }
}

fn watchdog(activities: &[Arc<Activity>], mesh: &Mesh) -> Result<Watchdog, StartError> {
    let watchdog = Watchdog::start(activities.to_vec(), mesh);
    watchdog.map_err(|error| thread("the watchdog", &error))
}

fn reloading(tls: &Arc<Tls>, mesh: &Mesh) -> Result<Option<Reloading>, StartError> {
    let started = Reloading::start(tls, mesh.alarm());
    started.map_err(|error| thread("the look at certificates", &error))
}

fn fetching(tls: &Tls, mesh: &Mesh) -> Result<Option<Fetching>, StartError> {
    let started = tls.tokens.as_ref().map(|tokens| Fetching::start(tokens, mesh.alarm()));
    started
        .transpose()
        .map_err(|error| thread("the look for keys of tokens", &error))
}

/// Presents the broker to its cluster.
fn register(
    store: &mut TopicStore<StdDirectory>,
    mesh: &Mesh,
    reached: (Address, Option<KafkaAddress>),
    was_clean: bool,
) -> Result<Membership<StdDirectory>, StartError> {
    let registered = block_on(Membership::register(store, mesh, reached, was_clean));
    registered.map_err(|Refusal { message: reason, .. }| StartError::Quorum { reason })
}

/// From here on the last stop counts as unclean, until this one is over. Says whether the last one was clean.
fn begin_unclean(directory: &Path) -> Result<bool, StartError> {
    let marker = directory.join(CLEAN_MARKER);
    let was_clean = marker.exists();
    let removed = StdDirectory::default().remove_file(&marker).now_or_never();
    removed
        .expect("a StdDirectory's futures are ready at once")
        .map_err(StoreError::io("remove", &marker))?;
    tracing::info!(was_clean, "the data directory is open");
    Ok(was_clean)
}

/// The longest that the cores may take to stop.
fn stop_max(config: &Config) -> Duration {
    let limits = &config.limits;
    Duration::from_millis(limits.shutdown_grace_ms.get() + limits.shutdown_close_ms_max.get()) + STOP_MARGIN
}

/// Hands what the journals of the last run hold to the partitions, before any is opened: also if there is to be no journal now.
fn recover_journals(names: &StdDirectory, directory: &Path) -> Result<(), StartError> {
    let found = block_on(headwater_engine::journal::recover(names, directory)).map_err(StartError::Journal)?;
    if found.partitions > 0 {
        tracing::info!(
            journals = found.journals,
            partitions = found.partitions,
            bytes = found.bytes,
            "journals were read; their partitions take in what is not in segments"
        );
    }
    Ok(())
}

/// Starts a core and waits until it takes messages.
fn start_core(
    id: CoreId,
    cpu: Option<u16>,
    setup: Setup,
    names: StdDirectory,
    inbox: mpsc::UnboundedReceiver<CoreMessage>,
    activity: Arc<Activity>,
) -> Result<Part, String> {
    let (ready, started) = oneshot::channel();
    let alarm = setup.mesh.alarm();
    let spin = Duration::from_micros(setup.config.cores.spin_before_park_us.get());
    let run = async move || -> Result<(), String> {
        let disk = machine::open_disk(names).map_err(|error| error.to_string())?;
        let server = Server::new(id, setup, disk.clone(), activity);
        let _ = ready.send(());
        let ended = server.run(inbox).await;
        // The files of the core's partitions are closed in the executor's next turns.
        machine::close_disk(&disk).await;
        machine::sleep(CLOSE_WAIT).await;
        ended.map_err(|error| error.to_string())
    };
    let part = Part::start(&format!("core-{id}"), alarm, move || machine::run_core(cpu, spin, run));
    let part = part.map_err(|error| error.to_string())?;
    if block_on(started).is_ok() {
        return Ok(part);
    }
    match part.join(machine::now() + START_WAIT) {
        Ok(()) => Err("it ended at once".to_owned()),
        Err(StopError::Failed { reason, .. }) => Err(reason),
        Err(error @ StopError::Hung { .. }) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests;
