//! The ports of a broker: all are bound before anything runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant},
};

use super::{error::StartError, known_ports::KnownPorts};
use crate::{
    config::{Config, HttpAddress, PeerListen},
    core::mesh::Listeners,
    machine,
    session::listener,
};

/// How long a port may be in use by a broker that was killed: the kernel closes what its rings hold after the process is gone.
const PORT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Between two attempts to bind a port.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// The listening sockets, bound before anything runs.
pub(super) struct Ports {
    pub(super) native: Doors,
    pub(super) kafka: Option<Doors>,
}

/// Those of one protocol.
pub(super) struct Doors {
    /// Of the port that all cores share.
    pub(super) address: SocketAddr,
    pub(super) of_cores: Vec<u16>,
    /// For each core the shared port, and its own if it has one.
    listeners: Vec<Vec<TcpListener>>,
}

/// What is listened to, and which settings say so.
struct Wanted {
    shared: (SocketAddr, &'static str),
    /// The port of the first core, or 0 for any; none if cores have no ports of their own.
    core_port_base: Option<(u16, &'static str)>,
}

pub(super) fn bind_all(config: &Config, cores: usize) -> Result<Ports, StartError> {
    let native = Wanted {
        shared: (config.broker.listen, "broker.listen"),
        core_port_base: Some((config.broker.core_port_base, "broker.core_port_base")),
    };
    let kafka = config.kafka_listen().map(|address| Wanted {
        shared: (address, "kafka.listen"),
        core_port_base: (config.kafka.core_nodes).then_some((config.kafka.core_port_base, "kafka.core_port_base")),
    });
    let mut known = KnownPorts::read(&config.log.directory);
    let chosen = chosen(config, cores);
    let mut bind = |wanted: Wanted| {
        let key = wanted.core_port_base.filter(|(base, _)| *base == 0).map(|(_, key)| key);
        let mut ports = key.map_or(Vec::new(), |key| known.of(key).to_vec());
        // One that is to be another's by now would be in its way.
        ports
            .iter_mut()
            .filter(|port| chosen.contains(port))
            .for_each(|port| *port = 0);
        let doors = bind_doors(&wanted, cores, &ports)?;
        if let Some(key) = key {
            known.are(key, &doors.of_cores);
        }
        Ok::<Doors, StartError>(doors)
    };
    let ports = Ports {
        native: bind(native)?,
        kafka: kafka.map(bind).transpose()?,
    };
    known.keep();
    Ok(ports)
}

/// Ports that are said in the configuration.
fn chosen(config: &Config, cores: usize) -> Vec<u16> {
    let metrics = config.metrics.listen.map(HttpAddress::get);
    let http = config.http.listen.map(HttpAddress::get);
    let peers = config.cluster.listen.map(PeerListen::get);
    let addresses = [Some(config.broker.listen), config.kafka_listen(), metrics, http, peers];
    let of_cores = [config.broker.core_port_base, config.kafka.core_port_base];
    let of_cores = of_cores.into_iter().filter(|base| *base > 0);
    let of_cores = of_cores.flat_map(|base| (base..=u16::MAX).take(cores));
    let addresses = addresses.into_iter().flatten().map(|address| address.port());
    addresses.chain(of_cores).collect()
}

/// `known`: ports that cores had the last time, 0 for any. All together they are not waited for longer than one is.
fn bind_doors(wanted: &Wanted, cores: usize, known: &[u16]) -> Result<Doors, StartError> {
    let deadline = machine::now() + PORT_WAIT_MAX;
    let (mut address, key) = wanted.shared;
    let mut doors = Doors {
        address,
        of_cores: Vec::new(),
        listeners: Vec::new(),
    };
    // Shared among our cores only: without this, a second broker could take the port as well, and half of the connections.
    drop(bind(address, false, key)?);
    for index in 0..cores {
        let shared = bind(address, true, key)?;
        // Port 0 becomes the port that the first core got.
        address = shared.1;
        let mut listeners = vec![shared.0];
        if let Some((base, key)) = wanted.core_port_base {
            let at = |port: u16| SocketAddr::new(address.ip(), port);
            let own = match known.get(index).copied().unwrap_or(0) {
                _ if base > 0 => bind(at(base + index as u16), false, key)?,
                0 => bind(at(0), false, key)?,
                known => match bind_until(deadline, at(known), false, key) {
                    Ok(own) => own,
                    Err(_is_somebodys) => bind(at(0), false, key)?,
                },
            };
            doors.of_cores.push(own.1.port());
            listeners.push(own.0);
        }
        doors.listeners.push(listeners);
    }
    doors.address = address;
    Ok(doors)
}

impl Ports {
    /// What each core listens to.
    pub(super) fn into_listeners(self) -> impl Iterator<Item = Listeners> {
        let bound = |listeners: Vec<TcpListener>| listeners.into_iter().map(machine::bound).collect();
        let mut kafka = self.kafka.map(|doors| doors.listeners.into_iter());
        self.native.listeners.into_iter().map(move |native| Listeners {
            native: bound(native),
            kafka: bound(kafka.as_mut().and_then(Iterator::next).unwrap_or_default()),
        })
    }
}

/// Binds a port, waiting a little for one that is in use.
pub(super) fn bind(
    address: SocketAddr,
    shared: bool,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    bind_until(machine::now() + PORT_WAIT_MAX, address, shared, key)
}

fn bind_until(
    deadline: Instant,
    address: SocketAddr,
    shared: bool,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    loop {
        let bound = listener::bind(address, shared).and_then(|listener| Ok((listener.local_addr()?, listener)));
        match bound {
            Ok((bound, listener)) => return Ok((listener, bound)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && machine::now() < deadline => {
                machine::pause_thread(PORT_RETRY);
            }
            Err(source) => return Err(StartError::Listen { address, key, source }),
        }
    }
}

/// The port of the metrics, if they are wanted.
pub(super) fn bind_metrics(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let bind = |address: HttpAddress| bind(address.get(), false, "metrics.listen");
    config.metrics.listen.map(bind).transpose()
}

/// The port of REST, if it is wanted.
pub(super) fn bind_http(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let bind = |address: HttpAddress| bind(address.get(), false, "http.listen");
    config.http.listen.map(bind).transpose()
}

/// The port of the other members, if there are any.
pub(super) fn bind_peers(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let bind = |address: PeerListen| bind(address.get(), false, "cluster.listen");
    config.cluster.listen.map(bind).transpose()
}
