//! The ports of a broker: all are bound before anything runs.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use super::error::StartError;
use crate::{
    config::{Config, HttpAddress, PeerListen},
    machine,
    session::listener,
};

/// How long a port may be in use by a broker that was killed: the kernel closes what its rings hold after the process is gone.
const PORT_WAIT_MAX: Duration = Duration::from_secs(5);

/// Between two attempts to bind a port.
const PORT_RETRY: Duration = Duration::from_millis(10);

/// The listening sockets, bound before anything runs.
pub(super) struct Ports {
    pub(super) address: SocketAddr,
    pub(super) of_cores: Vec<u16>,
    /// For each core the shared port and its own.
    pub(super) listeners: Vec<[TcpListener; 2]>,
}

pub(super) fn bind_all(config: &Config, cores: usize) -> Result<Ports, StartError> {
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
pub(super) fn bind(
    address: SocketAddr,
    shared: bool,
    key: &'static str,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let deadline = machine::now() + PORT_WAIT_MAX;
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

/// The port of the other members, if there are any.
pub(super) fn bind_peers(config: &Config) -> Result<Option<(TcpListener, SocketAddr)>, StartError> {
    let bind = |address: PeerListen| bind(address.get(), false, "cluster.listen");
    config.cluster.listen.map(bind).transpose()
}

/// Until there is authentication, whoever reaches a port may do everything there.
pub(super) fn warn_of_strangers(config: &Config) {
    let metrics = config.metrics.listen.map(|address| ("metrics.listen", address.get()));
    let peers = config.cluster.listen.map(|address| ("cluster.listen", address.get()));
    for (key, address) in [("broker.listen", config.broker.listen)]
        .into_iter()
        .chain(metrics)
        .chain(peers)
    {
        if !address.ip().is_loopback() {
            tracing::warn!(key, %address, "other machines can reach this port, and nobody is asked who they are: let a firewall decide who may");
        }
    }
}
