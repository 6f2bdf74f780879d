//! A network: connections that keep the order of their bytes and nothing else. They are slow, each in its own way; they are cut;
//! they go silent, with either end or both none the wiser; and the peer of a host without power hears nothing at all.

mod held;
mod stream;

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    rc::{Rc, Weak},
    task::Waker,
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};

pub(crate) use self::{
    held::HeldStream,
    stream::{Listener, Stream},
};
use super::world::{Happening, ProcessId, World};

/// What a packet takes, at the median.
const LATENCIES: [Duration; 3] = [
    Duration::from_micros(30),
    Duration::from_micros(500),
    Duration::from_millis(8),
];

/// A packet that does not come through is sent again after so long.
const SENT_AGAIN: Duration = Duration::from_millis(200);

pub(crate) struct Net {
    latency: Duration,
    /// Of each connection, in bytes, at the least.
    window_min: Cell<usize>,
    ports: RefCell<Vec<Rc<Port>>>,
    /// Open connections, by number: each with the end that has begun it.
    connections: RefCell<BTreeMap<u64, Weak<End>>>,
    /// Nothing comes through from one host to another until then.
    cuts: RefCell<Vec<(IpAddr, IpAddr, Duration)>>,
    /// Processes that have no descriptor left for a connection until then.
    exhausted: RefCell<BTreeMap<ProcessId, Duration>>,
    /// Streams that are kept for those who know their numbers.
    held: RefCell<BTreeMap<u64, Stream>>,
    /// Processes that come to any of these ports of a host, whichever they ask for.
    detours: RefCell<BTreeMap<ProcessId, RangeInclusive<u16>>>,
}

struct Port {
    address: SocketAddr,
    process: ProcessId,
    queue: RefCell<VecDeque<Stream>>,
    waker: RefCell<Option<Waker>>,
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
            window_min: Cell::default(),
            ports: RefCell::default(),
            connections: RefCell::default(),
            cuts: RefCell::default(),
            exhausted: RefCell::default(),
            held: RefCell::default(),
            detours: RefCell::default(),
        }
    }

    fn delay(world: &World) -> Duration {
        // Now and then one takes much longer than the others, so connections overtake each other.
        let factor = if world.chance(0.03) { 30.0 } else { world.draw(0.3..3.0) };
        world.net.latency.mul_f64(factor)
    }

    /// Until when nothing comes through from one host to another.
    fn blocked_until(&self, from: IpAddr, to: IpAddr, now: Duration) -> Option<Duration> {
        let cuts = self.cuts.borrow();
        let blocking = cuts
            .iter()
            .filter(|(a, b, until)| *until > now && (*a, *b) == (from, to));
        blocking.map(|(.., until)| *until).max()
    }

    /// Whether two hosts can speak with each other: in both directions something comes through.
    pub(crate) fn is_open(world: &World, one: IpAddr, other: IpAddr) -> bool {
        let is_blocked = |from, to| world.net.blocked_until(from, to, world.now()).is_some();
        !is_blocked(one, other) && !is_blocked(other, one)
    }

    /// Lets nothing through between two hosts for so long.
    pub(crate) fn part(world: &World, one: IpAddr, other: IpAddr, duration: Duration) {
        Net::cut(world, one, other, duration);
        Net::cut(world, other, one, duration);
    }

    /// Lets nothing through from one host to another for so long. What goes the other way comes.
    pub(crate) fn cut(world: &World, from: IpAddr, to: IpAddr, duration: Duration) {
        let until = world.now() + duration;
        world.net.cuts.borrow_mut().push((from, to, until));
    }

    /// From now on so much may be on its way on every connection.
    pub(crate) fn widen(world: &World, window_min: usize) {
        world.net.window_min.set(window_min);
    }

    /// Everything comes through again.
    pub(crate) fn heal(world: &World) {
        world.net.cuts.borrow_mut().clear();
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

    /// From now on the process comes to any of these ports of a host, as through an address that they share.
    pub(crate) fn lead_astray(world: &World, process: ProcessId, ports: RangeInclusive<u16>) {
        world.net.detours.borrow_mut().insert(process, ports);
    }

    /// Where a process comes that asks for an address.
    fn way_of(&self, process: ProcessId, address: SocketAddr, world: &World) -> SocketAddr {
        let detours = self.detours.borrow();
        let Some(shared) = detours.get(&process).filter(|_| world.chance(0.3)) else {
            return address;
        };
        let ports = self.ports.borrow();
        let is_there = |port: &&Rc<Port>| port.address.ip() == address.ip() && shared.contains(&port.address.port());
        let there: Vec<&Rc<Port>> = ports.iter().filter(is_there).collect();
        match there.len() {
            0 => address,
            count => there[world.draw(0..count)].address,
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
