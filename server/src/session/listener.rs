//! Listening sockets: the port that all cores share and the port of each core, bound before any core runs.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    rc::Rc,
};

use headwater_engine::disk::Disk as _;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::{
    core::warn_seldom,
    machine::{self, Bound, Listener},
    metrics::Failure,
    session::{connection, sessions::Sessions},
};

/// Connections that the kernel has accepted and the core has not yet.
pub(crate) const BACKLOG: i32 = 1024;

/// How long a core waits after it could not accept, so that a lack of descriptors does not spin it.
const ACCEPT_RETRY: std::time::Duration = std::time::Duration::from_millis(50);

/// So long a connection that comes too soon after others of its address is kept, unread, before it is closed.
const TURNED_AWAY_MAX: std::time::Duration = std::time::Duration::from_secs(1);

/// What is spoken on a port.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Speaks {
    Native,
    Kafka,
}

impl Speaks {
    /// Where in the configuration the port is.
    pub(crate) const fn section(self) -> &'static str {
        match self {
            Speaks::Native => "broker",
            Speaks::Kafka => "kafka",
        }
    }
}

/// Binds a listening socket. `shared`: several cores bind the same port and the kernel spreads connections over them.
pub(crate) fn bind(address: SocketAddr, shared: bool) -> io::Result<StdListener> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    if shared {
        sockopt::set_socket_reuseport(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(StdListener::from(socket))
}

/// Accepts connections and serves each on this core until the broker stops.
pub(crate) async fn accept(sessions: Rc<Sessions>, bound: Bound, speaks: Speaks) {
    let core = &sessions.core;
    let listener = match Listener::new(bound, &core.disk) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "a core cannot accept connections"),
    };
    loop {
        let accepted = std::pin::pin!(listener.accept());
        let stopping = std::pin::pin!(core.stopping());
        let stream = match futures::future::select(accepted, stopping).await {
            futures::future::Either::Left((Ok(accepted), _)) => accepted,
            futures::future::Either::Left((Err(error), _)) => {
                warn_seldom!(%error, "a connection could not be accepted");
                core.metrics.failed(Failure::Accept);
                // It may have been for lack of a descriptor.
                core.disk.open_files().give_way();
                machine::sleep(ACCEPT_RETRY).await;
                continue;
            }
            futures::future::Either::Right(_) => return,
        };
        let Some(admitted) = core.admit() else {
            core.metrics.connection_refused();
            warn_seldom!("a connection is refused: limits.connections_max are open");
            continue;
        };
        if core.quotas.are_set()
            && let Some(wait) = stream
                .peer()
                .and_then(|peer| core.quotas.connects(peer, machine::now()))
        {
            core.metrics.connection_over_quota();
            let core = Rc::clone(core);
            // Whoever tries again at once is not to be sooner there.
            machine::spawn(async move {
                let _stopped = machine::until(machine::now() + wait.min(TURNED_AWAY_MAX), core.stopping()).await;
                drop((stream, admitted));
            });
            continue;
        }
        let sessions = Rc::clone(&sessions);
        machine::spawn(connection::serve(sessions, stream, speaks, admitted));
    }
}
