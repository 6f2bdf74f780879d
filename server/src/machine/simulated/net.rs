//! A network: connections that keep the order of their bytes and nothing else. They are slow, each in its own way; they are cut;
//! they go silent, with either end or both none the wiser; and the peer of a host without power hears nothing at all.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    future::poll_fn,
    io,
    net::{IpAddr, SocketAddr},
    rc::{Rc, Weak},
    task::{Poll, Waker},
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};

use super::{
    Here, here,
    world::{Happening, ProcessId, World},
};

/// What a packet takes, at the median.
const LATENCIES: [Duration; 3] = [
    Duration::from_micros(30),
    Duration::from_micros(500),
    Duration::from_millis(8),
];

/// What may be on its way and unread of one direction, in bytes.
const WINDOWS: [usize; 3] = [1500, 20_000, 300_000];

/// A packet that does not come through is sent again after so long.
const SENT_AGAIN: Duration = Duration::from_millis(200);

/// Nobody waits longer for a connection.
const CONNECT_MAX: Duration = Duration::from_secs(3);

/// Connections that nobody has accepted yet.
const BACKLOG: usize = 64;

pub(crate) struct Net {
    latency: Duration,
    ports: RefCell<Vec<Rc<Port>>>,
    /// Open connections, by number: each with the end that has begun it.
    connections: RefCell<BTreeMap<u64, Weak<End>>>,
    /// Nothing comes through between these hosts until then.
    partitions: RefCell<Vec<(IpAddr, IpAddr, Duration)>>,
    /// Processes that have no descriptor left for a connection until then.
    exhausted: RefCell<BTreeMap<ProcessId, Duration>>,
}

struct Port {
    address: SocketAddr,
    process: ProcessId,
    queue: RefCell<VecDeque<Stream>>,
    waker: RefCell<Option<Waker>>,
}

/// A listening socket.
pub(crate) struct Listener {
    here: Here,
    port: Rc<Port>,
}

/// One end of a connection. Clones are the same end; when the last is dropped it is closed.
#[derive(Debug)]
pub(crate) struct Stream {
    end: Rc<End>,
}

pub(crate) struct End {
    world: Rc<World>,
    process: ProcessId,
    remote: IpAddr,
    window: usize,
    handles: Cell<usize>,
    peer: RefCell<Weak<End>>,
    state: RefCell<State>,
}

impl std::fmt::Debug for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("End")
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}

#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each happens by itself")]
struct State {
    /// What has arrived and was not read.
    inbox: VecDeque<u8>,
    /// The peer sends nothing more.
    is_over: bool,
    /// The connection is broken.
    is_reset: bool,
    /// This end was closed.
    is_closed: bool,
    /// The host has lost power, and this end with it.
    is_lost: bool,
    /// Packets vanish, in both directions.
    is_silent: bool,
    /// What this end has sent and has not arrived.
    under_way: VecDeque<Packet>,
    bytes_under_way: usize,
    is_armed: bool,
    readers: Vec<Waker>,
    writers: Vec<Waker>,
    watchers: Vec<Waker>,
}

enum Packet {
    Bytes(Vec<u8>),
    End,
    Reset,
}

fn wake(wakers: &mut Vec<Waker>) {
    wakers.drain(..).for_each(Waker::wake);
}

impl State {
    fn wake_all(&mut self) {
        wake(&mut self.readers);
        wake(&mut self.writers);
        wake(&mut self.watchers);
    }
}

impl Net {
    pub(super) fn new(random: &mut SmallRng) -> Net {
        Net {
            latency: LATENCIES[random.random_range(0..LATENCIES.len())],
            ports: RefCell::default(),
            connections: RefCell::default(),
            partitions: RefCell::default(),
            exhausted: RefCell::default(),
        }
    }

    fn delay(world: &World) -> Duration {
        // Now and then one takes much longer than the others, so connections overtake each other.
        let factor = if world.chance(0.03) { 30.0 } else { world.draw(0.3..3.0) };
        world.net.latency.mul_f64(factor)
    }

    /// Until when nothing comes through.
    fn blocked_until(&self, one: IpAddr, other: IpAddr, now: Duration) -> Option<Duration> {
        let partitions = self.partitions.borrow();
        let blocking = partitions
            .iter()
            .filter(|(a, b, until)| *until > now && ((*a, *b) == (one, other) || (*b, *a) == (one, other)));
        blocking.map(|(.., until)| *until).max()
    }

    /// Lets nothing through between two hosts for so long.
    pub(crate) fn part(world: &World, one: IpAddr, other: IpAddr, duration: Duration) {
        let until = world.now() + duration;
        world.net.partitions.borrow_mut().push((one, other, until));
    }

    /// Lets a process accept nothing for so long: it has no descriptor left.
    pub(crate) fn exhaust(world: &World, process: ProcessId, duration: Duration) {
        let until = world.now() + duration;
        world.net.exhausted.borrow_mut().insert(process, until);
        for port in world.net.ports.borrow().iter() {
            if let Some(waker) = port.waker.borrow_mut().take() {
                waker.wake();
            }
        }
    }

    /// Breaks one connection, if there is one: both ends are told, or neither is.
    pub(crate) fn break_one(world: &World, is_silent: bool) -> bool {
        let open: Vec<Rc<End>> = {
            let mut connections = world.net.connections.borrow_mut();
            connections.retain(|_, end| end.strong_count() > 0);
            connections.values().filter_map(Weak::upgrade).collect()
        };
        if open.is_empty() {
            return false;
        }
        let end = &open[world.draw(0..open.len())];
        let peer = end.peer.borrow().upgrade();
        for end in [Some(Rc::clone(end)), peer].into_iter().flatten() {
            let mut state = end.state.borrow_mut();
            if is_silent {
                state.is_silent = true;
            } else {
                state.is_reset = true;
                state.inbox.clear();
                state.wake_all();
            }
        }
        true
    }

    /// The ends of a process whose host has lost power say nothing more.
    pub(crate) fn lose(world: &World, process: ProcessId) {
        let connections = world.net.connections.borrow();
        for end in connections.values().filter_map(Weak::upgrade) {
            let peer = end.peer.borrow().upgrade();
            for end in [Some(end), peer].into_iter().flatten() {
                if end.process == process {
                    end.state.borrow_mut().is_lost = true;
                }
            }
        }
    }

    /// The oldest packet of an end arrives.
    pub(super) fn arrive(world: &World, end: &Rc<End>) {
        end.state.borrow_mut().is_armed = false;
        let from = world.host_of(end.process);
        if end.state.borrow().is_lost || end.state.borrow().is_silent {
            return;
        }
        if let Some(until) = world.net.blocked_until(from, end.remote, world.now()) {
            return end.arm(until.saturating_sub(world.now()) + SENT_AGAIN);
        }
        let peer = end.peer.borrow().upgrade();
        let is_there = peer.as_ref().is_some_and(|peer| !peer.state.borrow().is_lost);
        if !is_there && world.hosts.is_down(end.remote) {
            return end.arm(SENT_AGAIN);
        }
        let Some(packet) = end.take_packet() else { return };
        let peer = peer.filter(|peer| {
            let state = peer.state.borrow();
            !state.is_lost && !state.is_closed && !state.is_reset
        });
        match (peer, packet) {
            (Some(peer), packet) => {
                let mut state = peer.state.borrow_mut();
                match packet {
                    Packet::Bytes(bytes) => state.inbox.extend(bytes),
                    Packet::End => {
                        state.is_over = true;
                        wake(&mut state.watchers);
                    }
                    Packet::Reset => {
                        state.is_reset = true;
                        if world.chance(0.5) {
                            state.inbox.clear();
                        }
                        state.wake_all();
                    }
                }
                wake(&mut state.readers);
            }
            // Nobody is there to take it, and says so.
            (None, Packet::Bytes(_)) => {
                let mut state = end.state.borrow_mut();
                state.is_reset = true;
                state.wake_all();
            }
            (None, Packet::End | Packet::Reset) => {}
        }
        if !end.state.borrow().under_way.is_empty() {
            end.arm(Net::delay(world));
        }
    }
}

impl End {
    fn new(world: &Rc<World>, process: ProcessId, remote: IpAddr, window: usize) -> Rc<End> {
        Rc::new(End {
            world: Rc::clone(world),
            process,
            remote,
            window,
            handles: Cell::new(0),
            peer: RefCell::default(),
            state: RefCell::default(),
        })
    }

    fn arm(self: &Rc<Self>, after: Duration) {
        if !std::mem::replace(&mut self.state.borrow_mut().is_armed, true) {
            self.world.plan_in(after, Happening::Packet(Rc::clone(self)));
        }
    }

    fn send(self: &Rc<Self>, packet: Packet) {
        if let Packet::Bytes(bytes) = &packet {
            self.state.borrow_mut().bytes_under_way += bytes.len();
        }
        self.state.borrow_mut().under_way.push_back(packet);
        self.arm(Net::delay(&self.world));
    }

    fn take_packet(&self) -> Option<Packet> {
        let mut state = self.state.borrow_mut();
        let packet = state.under_way.pop_front()?;
        if let Packet::Bytes(bytes) = &packet {
            state.bytes_under_way -= bytes.len();
        }
        Some(packet)
    }

    /// Bytes that may be sent now.
    fn room(&self) -> usize {
        let peer = self.peer.borrow().upgrade();
        let unread = peer.map_or(0, |peer| peer.state.borrow().inbox.len());
        self.window.saturating_sub(self.state.borrow().bytes_under_way + unread)
    }

    fn shut_down(self: &Rc<Self>) {
        let (is_gone, is_unread) = {
            let mut state = self.state.borrow_mut();
            let is_gone = std::mem::replace(&mut state.is_closed, true) || state.is_lost || state.is_reset;
            state.wake_all();
            (is_gone, !state.inbox.is_empty())
        };
        if is_gone {
            return;
        }
        // Who closes and has not read all breaks the connection.
        self.send(if is_unread { Packet::Reset } else { Packet::End });
    }
}

impl Clone for Stream {
    fn clone(&self) -> Stream {
        Stream::of(&self.end)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.end.handles.set(self.end.handles.get() - 1);
        if self.end.handles.get() == 0 {
            self.end.shut_down();
        }
    }
}

impl Stream {
    fn of(end: &Rc<End>) -> Stream {
        end.handles.set(end.handles.get() + 1);
        Stream { end: Rc::clone(end) }
    }

    /// Connects the process that asks to an address.
    pub(crate) async fn connect(address: SocketAddr) -> io::Result<Stream> {
        let here = here().ok_or_else(|| io::Error::other("there is no simulated world"))?;
        let world = &here.world;
        let host = world.host_of(here.process);
        let give_up = world.now() + CONNECT_MAX;
        loop {
            here.sleep(Net::delay(world)).await;
            let is_blocked = world.net.blocked_until(host, address.ip(), world.now()).is_some();
            if !is_blocked && !world.hosts.is_down(address.ip()) {
                break;
            }
            if world.now() >= give_up {
                return Err(io::ErrorKind::TimedOut.into());
            }
            here.sleep(SENT_AGAIN).await;
        }
        let stream = Stream::knock(&here, host, address)?;
        here.sleep(Net::delay(world)).await;
        Ok(stream)
    }

    /// Puts a connection into the queue of a listener, of any if several share the port.
    fn knock(here: &Here, host: IpAddr, address: SocketAddr) -> io::Result<Stream> {
        let world = &here.world;
        let port = {
            let ports = world.net.ports.borrow();
            let open: Vec<&Rc<Port>> = ports.iter().filter(|port| port.address == address).collect();
            if open.is_empty() {
                return Err(io::ErrorKind::ConnectionRefused.into());
            }
            Rc::clone(open[world.draw(0..open.len())])
        };
        if port.queue.borrow().len() >= BACKLOG {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let window = WINDOWS[world.draw(0..WINDOWS.len())];
        let mine = End::new(world, here.process, address.ip(), window);
        let theirs = End::new(world, port.process, host, window);
        *mine.peer.borrow_mut() = Rc::downgrade(&theirs);
        *theirs.peer.borrow_mut() = Rc::downgrade(&mine);
        let number = world.draw(0..=u64::MAX);
        world.net.connections.borrow_mut().insert(number, Rc::downgrade(&mine));
        port.queue.borrow_mut().push_back(Stream::of(&theirs));
        if let Some(waker) = port.waker.borrow_mut().take() {
            waker.wake();
        }
        Ok(Stream::of(&mine))
    }

    /// Who is at the other end.
    pub(crate) fn peer(&self) -> IpAddr {
        self.end.remote
    }

    /// Closes the connection.
    pub(crate) fn shut_down(&self) {
        self.end.shut_down();
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let mut state = self.end.state.borrow_mut();
        if state.inbox.is_empty() {
            if state.is_reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            return Ok((state.is_over || state.is_closed).then_some(0));
        }
        let count = buffer.len().min(state.inbox.len());
        for (to, from) in buffer.iter_mut().zip(state.inbox.drain(..count)) {
            *to = from;
        }
        drop(state);
        if let Some(peer) = self.end.peer.borrow().upgrade() {
            wake(&mut peer.state.borrow_mut().writers);
        }
        Ok(Some(count))
    }

    pub(crate) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        poll_fn(|context| match self.try_read(buffer) {
            Ok(None) => {
                self.end.state.borrow_mut().readers.push(context.waker().clone());
                Poll::Pending
            }
            Ok(Some(count)) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(error)),
        })
        .await
    }

    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<Option<usize>> {
        {
            let state = self.end.state.borrow();
            if state.is_reset {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            if state.is_closed {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
        }
        let count = bytes.len().min(self.end.room());
        if count == 0 {
            return Ok(None);
        }
        let world = &self.end.world;
        // What is sent at once may arrive in pieces.
        let first = if world.chance(0.2) {
            world.draw(0..=count)
        } else {
            count
        };
        for piece in [&bytes[..first], &bytes[first..count]] {
            if !piece.is_empty() {
                self.end.send(Packet::Bytes(piece.to_vec()));
            }
        }
        Ok(Some(count))
    }

    /// Resolves when something can be sent, or the connection is gone.
    pub(crate) async fn writable(&self) {
        poll_fn(|context| {
            let room = self.end.room();
            let mut state = self.end.state.borrow_mut();
            if room > 0 || state.is_reset || state.is_closed {
                return Poll::Ready(());
            }
            state.writers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Resolves when the peer sends nothing more.
    pub(crate) async fn hung_up(&self) {
        poll_fn(|context| {
            let mut state = self.end.state.borrow_mut();
            if state.is_over || state.is_reset || state.is_closed {
                return Poll::Ready(());
            }
            state.watchers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Listener {
    /// Listens as the process that asks.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Listener> {
        let here = here().ok_or_else(|| io::Error::other("there is no simulated world"))?;
        let port = Rc::new(Port {
            address,
            process: here.process,
            queue: RefCell::default(),
            waker: RefCell::default(),
        });
        here.world.net.ports.borrow_mut().push(Rc::clone(&port));
        Ok(Listener { here, port })
    }

    fn is_exhausted(&self) -> bool {
        let world = &self.here.world;
        let exhausted = world.net.exhausted.borrow();
        exhausted
            .get(&self.port.process)
            .is_some_and(|until| *until > world.now())
    }

    /// The next connection.
    pub(crate) async fn accept(&self) -> io::Result<Stream> {
        poll_fn(|context| {
            if !self.port.queue.borrow().is_empty() && self.is_exhausted() {
                return Poll::Ready(Err(rustix::io::Errno::MFILE.into()));
            }
            if let Some(stream) = self.port.queue.borrow_mut().pop_front() {
                return Poll::Ready(Ok(stream));
            }
            *self.port.waker.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let ports = &self.here.world.net.ports;
        ports.borrow_mut().retain(|port| !Rc::ptr_eq(port, &self.port));
        // Whoever waits to be accepted is told that nobody is there.
        self.port.queue.take();
    }
}
