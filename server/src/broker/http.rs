//! REST: a client of the cluster on a thread of its own, so that no load of HTTP delays the heartbeats of the quorum, nor a core.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use futures::channel::oneshot;
use headwater_client::SaslMechanism as ClientMechanism;
use headwater_http::{BrokerTls, Limits, MetricsText, Service, Settings};

use crate::{
    admin_http::{SecureDoor, metrics_text},
    config::{Config, Files, Millis, SaslMechanism},
    core::mesh::Mesh,
    failure::{Part, StopError},
    metrics::LookAtQuorum,
    tls::Tls,
};

/// The thread.
pub(super) struct Http {
    stop: oneshot::Sender<()>,
    part: Part,
}

impl Http {
    /// Serves at this port. Brokers are asked when somebody asks, this one at `native`.
    pub(super) fn start(
        config: &Arc<Config>,
        listener: TcpListener,
        (native, cluster_id): (SocketAddr, String),
        (mesh, quorum, tls): (&Mesh, LookAtQuorum, &Arc<Tls>),
    ) -> io::Result<Http> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let metrics = metrics(mesh, quorum, config, tls);
        let service = Service::new(settings(config, (native, cluster_id), metrics));
        let tls = Arc::clone(tls);
        let (stop, stopped) = oneshot::channel::<()>();
        let part = Part::start("http", mesh.alarm(), move || {
            let served = runtime.block_on(serve(service, listener, tls, stopped));
            // What still goes on is of no use to anybody.
            runtime.shutdown_background();
            served.map_err(|error| error.to_string())
        })?;
        Ok(Http { stop, part })
    }

    /// Answers what is under way.
    pub(super) fn end(self, deadline: Instant) -> Result<(), StopError> {
        drop(self.stop);
        self.part.join(deadline)
    }
}

async fn serve(
    service: Service,
    listener: TcpListener,
    tls: Arc<Tls>,
    stopped: oneshot::Receiver<()>,
) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stopped = async move {
        let _dropped = stopped.await;
    };
    if tls.http.is_some() {
        let door = SecureDoor::open(listener, tls, |tls| tls.http.as_ref())?;
        service.serve(door, stopped).await
    } else {
        service.serve(listener, stopped).await
    }
}

/// The broker's own metrics, for the console's charts.
fn metrics(mesh: &Mesh, quorum: LookAtQuorum, config: &Arc<Config>, tls: &Arc<Tls>) -> MetricsText {
    let (mesh, config, tls) = (mesh.clone(), Arc::clone(config), Arc::clone(tls));
    MetricsText::by(move || {
        let text = metrics_text(mesh.clone(), Arc::clone(&quorum), Arc::clone(&config), Arc::clone(&tls));
        async { text.await.map_err(|error| error.to_string()) }
    })
}

fn settings(config: &Config, (native, cluster_id): (SocketAddr, String), metrics: MetricsText) -> Settings {
    let (http, broker) = (&config.http, &config.broker);
    let time = |millis: Millis| Duration::from_millis(millis.get());
    let tls = (!broker.tls_certificate.is_empty()).then(|| BrokerTls {
        ca: first(&http.broker_ca),
        certificate: first(&http.broker_certificate).zip(first(&http.broker_key)),
    });
    // The certificate is for the name that clients use.
    let host = match tls {
        Some(_) => config.advertised_host(),
        None => reachable(native.ip()).to_string(),
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    Settings {
        cluster_id,
        bootstrap: vec![format!("{host}:{}", native.port())],
        mechanism: mechanism(config),
        broker_tls: tls,
        console_writes: http.console_writes,
        metrics: Some(metrics),
        is_local: http.listen.is_some_and(|listen| listen.get().ip().is_loopback()),
        allowed_origins: http.allowed_origins.iter().map(str::to_owned).collect(),
        limits: Limits {
            connections: http.connections_max as usize,
            requests: http.requests_in_flight_max as usize,
            request_time: time(http.request_ms_max),
            body_bytes: http.body_bytes_max.bytes() as usize,
            memory_bytes: http.memory_bytes_max.bytes() as usize,
            streams: http.streams_max as usize,
            consumers: http.consumers_max as usize,
            consumer_idle: time(http.consumer_idle_ms),
            users: http.users_max as usize,
            idempotency_keys: http.idempotency_keys_max as usize,
            idempotency_time: time(http.idempotency_ms),
        },
    }
}

/// The one by which a password is not sent, where there is one.
fn mechanism(config: &Config) -> Option<ClientMechanism> {
    let offered = &config.security.sasl;
    [
        (SaslMechanism::ScramSha256, ClientMechanism::ScramSha256),
        (SaslMechanism::ScramSha512, ClientMechanism::ScramSha512),
        (SaslMechanism::Plain, ClientMechanism::Plain),
    ]
    .into_iter()
    .find(|(own, _)| offered.has(*own))
    .map(|(_, mechanism)| mechanism)
}

fn first(files: &Files) -> Option<PathBuf> {
    files.iter().next().map(Path::to_owned)
}

/// Where to reach what is listened to at this address, from here.
fn reachable(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    }
}
