//! The client library in the simulated world: its tasks, timers and connections are the world's.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    time::{Duration, Instant},
};

use futures::{FutureExt as _, future::BoxFuture};
use headwater_client::{
    Client, Timestamp,
    simulation::{self, Halves},
};
use tokio::sync::oneshot;

use super::wire::{pause, tell};
use crate::machine::{
    self,
    simulated::{
        here, is_running,
        net::{HeldStream, Stream},
    },
};

/// So long a client waits for an answer, and for a connection.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// Whatever world the code that asks runs in.
struct Wherever;

impl simulation::World for Wherever {
    fn is_here(&self) -> bool {
        is_running()
    }

    fn now(&self) -> Instant {
        machine::now()
    }

    fn wall(&self) -> Timestamp {
        machine::wall()
    }

    fn random(&self) -> u64 {
        machine::random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        spawn_here(task);
    }

    fn sleep_until(&self, at: Instant) -> BoxFuture<'static, ()> {
        let here = here().expect("the library asks within a world");
        here.sleep(at.saturating_duration_since(here.now())).boxed()
    }

    fn connect(&self, host: &str, port: u16) -> BoxFuture<'static, io::Result<Halves>> {
        let host: IpAddr = host.parse().expect("hosts of a simulated world go by their addresses");
        let (sender, connected) = oneshot::channel();
        spawn_here(async move {
            let stream = Stream::connect(SocketAddr::new(host, port)).await;
            // Nobody may wait for it any more: then it is closed.
            let _ = sender.send(stream.map(HeldStream::new));
        });
        Box::pin(async move {
            let stream = connected.await.map_err(io::Error::other)??;
            let halves: Halves = (Box::new(stream.clone()), Box::new(stream));
            Ok(halves)
        })
    }
}

/// Starts a task that may hold what belongs to its thread.
fn spawn_here(task: impl Future<Output = ()> + 'static) {
    here().expect("the library asks within a world").spawn(task);
}

/// Where clients find the brokers, of which there is one at least.
#[derive(Clone)]
pub(super) struct Brokers(Rc<[SocketAddr]>);

impl Brokers {
    pub(super) fn new(addresses: impl IntoIterator<Item = SocketAddr>) -> Brokers {
        Brokers(addresses.into_iter().collect())
    }

    /// One of them, whether it is there or not.
    pub(super) fn any(&self) -> SocketAddr {
        match here() {
            Some(here) if self.0.len() > 1 => self.0[here.world.draw(0..self.0.len())],
            _ => self.0[0],
        }
    }
}

/// Connects, however long that takes.
pub(super) async fn connect(brokers: &Brokers) -> Client {
    connect_with(brokers, PATIENCE).await
}

/// The same for one who waits so long for an answer.
pub(super) async fn connect_with(brokers: &Brokers, patience: Duration) -> Client {
    simulation::install(&Wherever);
    loop {
        let connecting = Client::builder()
            .bootstrap(brokers.0.iter().map(ToString::to_string))
            .connect_timeout(PATIENCE)
            .request_timeout(patience)
            .call_timeout(Duration::from_secs(20))
            .build();
        match connecting.await {
            Ok(client) => return client,
            Err(error) => tell(&format!("cannot connect: {error}")),
        }
        pause(Duration::from_millis(400)).await;
    }
}
