//! A site: a data directory on a real disk and a loopback address of its own, on which brokers are started one after another.
//!
//! All of 127.0.0.0/8 is this machine, so that every site can have fixed ports: a restarted broker is found where it was, and
//! a client whose broker is down can never reach that of another test instead.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use headwater_client::{Client, NewTopic};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{broker::Broker, pause};

/// The port that all cores share.
const SHARED_PORT: u16 = 9292;
/// Port of core 0; the others follow.
const CORE_PORT_BASE: u16 = 9300;
const METRICS_PORT: u16 = 9644;
const HTTP_PORT: u16 = 9680;
/// Where members of a quorum reach each other.
const PEER_PORT: u16 = 9293;

pub struct Site {
    directory: PathBuf,
    /// Removed with the site.
    _temporary: Option<TempDir>,
    ip: Ipv4Addr,
    settings: Vec<(String, String)>,
    launcher: Vec<String>,
}

impl Site {
    /// With small budgets and segments, and executors that share the CPUs with the other tests.
    pub fn new() -> Site {
        // Not where the system keeps temporary files: that may be in memory, which has no direct I/O.
        let temporary = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let site = Site::at(&temporary.path().join("data"));
        Site {
            _temporary: Some(temporary),
            ..site
        }
    }

    /// With its data in this directory, which stays.
    pub fn at(directory: &Path) -> Site {
        let site = Site {
            directory: directory.to_owned(),
            _temporary: None,
            ip: own_ip(),
            settings: Vec::new(),
            launcher: Vec::new(),
        };
        site.cores(2)
            .set("cores.pin", "false")
            .set("cores.tail_buffer_bytes_max", "8MiB")
            .set("cores.cold_read_bytes_max", "4MiB")
            .set("cores.connection_bytes_max", "16MiB")
            .set("cores.in_flight_bytes_max", "16MiB")
            .set("log.segment_size_bytes", "16MiB")
            .set("log.batch_size_bytes_max", "1MiB")
            .set("limits.frame_size_bytes_max", "2MiB")
            .set("limits.fetch_size_bytes_max", "8MiB")
            .set("limits.requests_in_flight_bytes_max", "4MiB")
            .set("limits.connections_max", "512")
            .set("limits.partitions_max", "512")
            .set("limits.partitions_per_topic_max", "256")
            // Whoever waits for a fetch's time to be over, waits for ever.
            .set("limits.fetch_wait_ms_max", "1h")
            .set("limits.shutdown_grace_ms", "10s")
    }

    /// On this address instead of one of its own.
    pub fn on(self, ip: Ipv4Addr) -> Site {
        Site { ip, ..self }
    }

    pub fn cores(self, count: u16) -> Site {
        self.set("cores.count", &count.to_string())
    }

    /// Sets a key of the configuration; a later value wins.
    pub fn set(mut self, key: &str, value: &str) -> Site {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Brokers are started by this command, which becomes one.
    pub fn launched_by(mut self, launcher: Vec<String>) -> Site {
        self.launcher = launcher;
        self
    }

    /// With the endpoint for metrics.
    pub fn with_metrics(self) -> Site {
        let address = self.metrics_address().to_string();
        self.set("metrics.listen", &address)
    }

    /// With REST.
    pub fn with_http(self) -> Site {
        let address = self.http_address().to_string();
        self.set("http.listen", &address)
    }

    pub fn http_address(&self) -> SocketAddr {
        (self.ip, HTTP_PORT).into()
    }

    pub fn metrics_address(&self) -> SocketAddr {
        (self.ip, METRICS_PORT).into()
    }

    pub fn peer_address(&self) -> String {
        format!("{}:{PEER_PORT}", self.ip)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a broker and waits until it is ready.
    pub fn start(&self) -> Broker {
        let broker = self.launch();
        broker.await_ready();
        broker
    }

    /// Starts a broker without waiting for it.
    pub fn launch(&self) -> Broker {
        let listen = SocketAddr::new(self.ip.into(), SHARED_PORT).to_string();
        let mut arguments = vec![
            "--log-format".to_owned(),
            "json".to_owned(),
            "--listen".to_owned(),
            listen,
        ];
        arguments.extend(["--data-dir".to_owned(), self.directory.display().to_string()]);
        let core_ports = ("broker.core_port_base".to_owned(), CORE_PORT_BASE.to_string());
        for (key, value) in std::iter::once(&core_ports).chain(&self.settings) {
            arguments.extend(["--set".to_owned(), format!("{key}={value}")]);
        }
        Broker::launch(&self.launcher, &arguments)
    }

    /// The port that all cores share.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), SHARED_PORT)
    }

    /// The port of one core.
    pub fn core_address(&self, core: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(self.ip), CORE_PORT_BASE + core)
    }

    /// What the endpoint for metrics answers: the first line, and the rest.
    pub async fn get(&self, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(self.metrics_address()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: broker\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (status, rest) = response.split_once("\r\n").unwrap();
        (status.to_owned(), rest.to_owned())
    }

    /// The value of every metric, rounded down.
    pub async fn scrape(&self) -> HashMap<String, u64> {
        let (status, response) = self.get("/metrics").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        let is_sample = |line: &&str| line.starts_with("headwater_") || line.starts_with("process_");
        let samples = response.lines().filter(is_sample);
        let split = samples.map(|line| line.rsplit_once(' ').unwrap());
        split
            .map(|(name, value)| (name.to_owned(), value.parse::<f64>().unwrap() as u64))
            .collect()
    }

    /// The sum of a gauge over all cores, in a moment: it is mostly asked for until it has changed.
    pub async fn gauge(&self, name: &str) -> u64 {
        pause().await;
        let prefix = format!("headwater_{name}{{core=");
        let samples = self.scrape().await.into_iter();
        samples
            .filter(|(name, _)| name.starts_with(&prefix))
            .map(|(_, value)| value)
            .sum()
    }

    pub async fn client(&self) -> Client {
        client_of(self.address()).await
    }

    /// A client for which the topic has just been created.
    pub async fn client_with_topic(&self, topic: &str, partitions: i32) -> Client {
        let client = self.client().await;
        let new = NewTopic::new(topic).partitions(partitions);
        client.admin().create_topic(new).await.unwrap();
        client
    }
}

/// A client that gives up late and tries again soon.
pub async fn client_of(address: SocketAddr) -> Client {
    let client = Client::builder()
        .bootstrap([address.to_string()])
        .request_timeout(Duration::from_secs(15))
        .call_timeout(Duration::from_secs(30))
        .backoff(Duration::from_millis(5), Duration::from_millis(50));
    client.build().await.unwrap()
}

/// A loopback address that no other site of this or any other process has.
pub fn own_ip() -> Ipv4Addr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    /// 0 and 255 are left out of the last byte.
    const OF_EACH: u16 = 254;
    let process = std::process::id();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(
        number < 2 * OF_EACH,
        "a process has addresses for {} sites",
        2 * OF_EACH
    );
    // Not 127.0, where everything else on the machine listens: of 1 to 252 two for each process.
    let second = 1 + 2 * (process / 256 % 126) as u8 + (number / OF_EACH) as u8;
    Ipv4Addr::new(127, second, (process % 256) as u8, 1 + (number % OF_EACH) as u8)
}
