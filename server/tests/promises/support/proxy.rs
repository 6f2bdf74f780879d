//! A network that fails: forwards connections to a broker, and cuts each of them at a random byte.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rand::{RngExt as _, rngs::SmallRng};
use rustix::net::sockopt::set_socket_linger;
use tokio::{
    io::AsyncReadExt as _,
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// Cuts fall anywhere from the first byte of a connection to this one, as often among the first ten as among the last
/// nine tenths.
const CUT_AFTER_BYTES_MAX: f64 = 400_000.0;

/// Listens on the broker's ports at another address.
pub struct Proxy {
    wire: Arc<Wire>,
    _tasks: JoinSet<()>,
}

struct Wire {
    random: Mutex<SmallRng>,
    cuts: AtomicU64,
    cuts_max: AtomicU64,
}

/// Where and how one connection ends.
struct Cut {
    /// Bytes that pass before it, of what the client sends and of what the broker sends; one of them is without limit.
    after_bytes: [u64; 2],
    /// With a reset, so that whatever is on its way is lost, or as if either side had closed it.
    by_reset: bool,
}

impl Proxy {
    /// Stands before these listeners, as a faithful wire so far.
    pub async fn start(ip: Ipv4Addr, listeners: &[SocketAddr], random: SmallRng) -> Proxy {
        let wire = Arc::new(Wire {
            random: Mutex::new(random),
            cuts: AtomicU64::new(0),
            cuts_max: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        for target in listeners.iter().copied() {
            let listener = TcpListener::bind((ip, target.port())).await.unwrap();
            tasks.spawn(accept(Arc::clone(&wire), listener, target));
        }
        Proxy { wire, _tasks: tasks }
    }

    /// Cuts the connections that are made from now on, until it has cut so many.
    pub fn begin_to_cut(&self, cuts: u64) {
        self.wire.cuts_max.store(cuts, Ordering::Relaxed);
    }

    /// Connections that were cut.
    pub fn cuts(&self) -> u64 {
        self.wire.cuts.load(Ordering::Relaxed)
    }
}

async fn accept(wire: Arc<Wire>, listener: TcpListener, target: SocketAddr) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        // A broker that does not listen looks to the client like one that closes at once.
        if let Ok(broker) = TcpStream::connect(target).await {
            connections.spawn(connect(Arc::clone(&wire), client, broker));
        }
    }
}

async fn connect(wire: Arc<Wire>, client: TcpStream, broker: TcpStream) {
    client.set_nodelay(true).unwrap();
    broker.set_nodelay(true).unwrap();
    let cut = wire.next_cut();
    let ((from_client, to_client), (from_broker, to_broker)) = (client.into_split(), broker.into_split());
    let was_cut = tokio::select! {
        was_cut = forward(from_client, &to_broker, cut.after_bytes[0]) => was_cut,
        was_cut = forward(from_broker, &to_client, cut.after_bytes[1]) => was_cut,
    };
    if was_cut {
        wire.cuts.fetch_add(1, Ordering::Relaxed);
        if cut.by_reset {
            for socket in [to_client.as_ref(), to_broker.as_ref()] {
                set_socket_linger(socket, Some(std::time::Duration::ZERO)).unwrap();
            }
        }
    }
}

/// Returns whether the connection is to be cut now; false if a side has closed it.
async fn forward(mut from: OwnedReadHalf, to: &OwnedWriteHalf, mut bytes: u64) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    while bytes > 0 {
        let room = buffer.len().min(usize::try_from(bytes).unwrap_or(usize::MAX));
        match from.read(&mut buffer[..room]).await {
            Ok(count @ 1..) => {
                let mut rest = &buffer[..count];
                while !rest.is_empty() {
                    if to.writable().await.is_err() {
                        return false;
                    }
                    match to.try_write(rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                        Err(_gone) => return false,
                    }
                }
                bytes -= count as u64;
            }
            _ => return false,
        }
    }
    true
}

impl Wire {
    fn next_cut(&self) -> Cut {
        let mut random = self.random.lock().unwrap();
        let after = CUT_AFTER_BYTES_MAX.powf(random.random_range(0.0..1.0)) as u64;
        // Responses are far smaller than requests.
        let after_bytes = match random.random_bool(0.5) {
            _ if self.cuts.load(Ordering::Relaxed) >= self.cuts_max.load(Ordering::Relaxed) => [u64::MAX; 2],
            true => [after, u64::MAX],
            false => [u64::MAX, after.div_ceil(20)],
        };
        let by_reset = random.random_bool(0.5);
        Cut { after_bytes, by_reset }
    }
}
