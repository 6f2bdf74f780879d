//! A network of hosts in network namespaces of their own, which loses, delays and cuts as it is told.
//!
//! Each host has a device of its own (TUN), and this process is the wire between them: every packet passes through here, as the
//! kernel has made it. So it takes neither netem nor a firewall in the kernel, and any direction between any two hosts can be cut for
//! itself. The namespaces have no names: they go with the processes that are in them and with this one, however these end.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    fs::File,
    io::{self, Read as _, Write as _},
    net::Ipv4Addr,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rand::{RngExt as _, rngs::SmallRng};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{Mode, OFlags, Timespec},
    ioctl::{Updater, ioctl, opcode},
    thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe},
};

/// The name of each host's only device.
const DEVICE: &str = "wire";

/// The largest packet: far above what Ethernet has, so that there are few of them.
const MTU: usize = 9_000;

/// How long the wire may sleep before it looks whether it is still wanted.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The network; it ends when it is dropped.
pub struct Network {
    hosts: Vec<OwnedFd>,
    faults: Arc<Mutex<Faults>>,
    has_ended: Arc<AtomicBool>,
    wire: Option<thread::JoinHandle<()>>,
}

/// What is wrong with the network.
struct Faults {
    /// From whom nothing reaches whom.
    cuts: Vec<(usize, usize)>,
    loss: f64,
    delay: Duration,
    random: SmallRng,
    lost: u64,
}

impl Network {
    /// So many hosts that reach each other; or why there cannot be any.
    pub fn new(hosts: usize, random: SmallRng) -> Result<Network, String> {
        let made: Result<Vec<(OwnedFd, File)>, String> = (0..hosts)
            // A thread of its own, as it is in the host's namespace from then on.
            .map(|host| thread::spawn(move || make_host(host)).join().unwrap())
            .collect();
        let (hosts, devices) = made?.into_iter().unzip();
        let faults = Arc::new(Mutex::new(Faults {
            cuts: Vec::new(),
            loss: 0.0,
            delay: Duration::ZERO,
            random,
            lost: 0,
        }));
        let has_ended = Arc::new(AtomicBool::new(false));
        let wire = Wire {
            devices,
            faults: Arc::clone(&faults),
            has_ended: Arc::clone(&has_ended),
            under_way: BinaryHeap::new(),
        };
        Ok(Network {
            hosts,
            faults,
            has_ended,
            wire: Some(thread::spawn(move || wire.carry())),
        })
    }

    /// The address of a host.
    pub fn ip(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1 + host as u8)
    }

    /// A command that becomes another one on a host.
    pub fn launcher(&self, host: usize) -> Vec<String> {
        vec!["nsenter".to_owned(), format!("--net={}", path(&self.hosts[host]))]
    }

    /// Does something on a host, in a thread of its own.
    pub fn on<T: Send + 'static>(
        &self,
        host: usize,
        what: impl FnOnce() -> T + Send + 'static,
    ) -> thread::JoinHandle<T> {
        let namespace = self.hosts[host].try_clone().unwrap();
        thread::spawn(move || {
            enter(&namespace);
            what()
        })
    }

    /// What every thread has to do first that is to be on a host.
    pub fn entrance(&self, host: usize) -> impl Fn() + Send + Sync + 'static {
        let namespace = self.hosts[host].try_clone().unwrap();
        move || enter(&namespace)
    }

    /// From now on nothing gets from one of the first hosts to one of the others.
    pub fn cut(&self, from: &[usize], to: &[usize]) {
        let cuts = from.iter().flat_map(|from| to.iter().map(|to| (*from, *to)));
        self.faults.lock().unwrap().cuts.extend(cuts);
    }

    /// The same in both directions.
    pub fn part(&self, some: &[usize], others: &[usize]) {
        self.cut(some, others);
        self.cut(others, some);
    }

    /// From now on such a share of all packets is lost, and the others take so long.
    pub fn disturb(&self, loss: f64, delay: Duration) {
        let mut faults = self.faults.lock().unwrap();
        (faults.loss, faults.delay) = (loss, delay);
    }

    /// From now on nothing is wrong.
    pub fn heal(&self) {
        self.faults.lock().unwrap().cuts.clear();
        self.disturb(0.0, Duration::ZERO);
    }

    /// How many packets were lost so far.
    pub fn lost(&self) -> u64 {
        self.faults.lock().unwrap().lost
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.has_ended.store(true, Ordering::Relaxed);
        // A panic of the wire has been told already.
        let _ = self.wire.take().map(thread::JoinHandle::join);
    }
}

/// Where every process of this machine finds a namespace that this one holds.
fn path(namespace: &OwnedFd) -> String {
    format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd())
}

fn enter(namespace: &OwnedFd) {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

/// What TUNSETIFF is given: an interface's name, and flags.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// Makes a namespace of the calling thread, with a device; returns both.
fn make_host(host: usize) -> Result<(OwnedFd, File), String> {
    // SAFETY: only this thread's view of networks changes.
    let unshared = unsafe { unshare_unsafe(UnshareFlags::NEWNET) };
    unshared.map_err(|error| format!("no network namespace can be made: {error}"))?;
    let namespace = File::open("/proc/thread-self/ns/net").unwrap();
    let device = device().map_err(|error| format!("no TUN device can be made: {error}"))?;
    let address = format!("{}/24", Network::ip(host));
    let mtu = MTU.to_string();
    for command in [
        &["link", "set", "lo", "up"][..],
        &["address", "add", &address, "dev", DEVICE],
        &["link", "set", DEVICE, "mtu", &mtu, "up"],
    ] {
        let output = Command::new("ip").args(command).output();
        let output = output.map_err(|error| format!("ip (iproute2) cannot be run: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "ip {}: {}",
                command.join(" "),
                String::from_utf8_lossy(&output.stderr)
            ));
        }
    }
    Ok((namespace.into(), device))
}

fn device() -> io::Result<File> {
    const IFF_TUN: u16 = 1;
    const IFF_NO_PI: u16 = 0x1000;
    const TUNSETIFF: rustix::ioctl::Opcode = opcode::write::<i32>(b'T', 202);
    let device = rustix::fs::open(
        "/dev/net/tun",
        OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut request = InterfaceRequest {
        name: [0; 16],
        flags: IFF_TUN | IFF_NO_PI,
        rest: [0; 22],
    };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    // SAFETY: TUNSETIFF takes an `ifreq`, which this is, and writes nothing beyond it.
    unsafe { ioctl(&device, Updater::<TUNSETIFF, InterfaceRequest>::new(&mut request)) }?;
    Ok(device.into())
}

/// What carries packets from device to device.
struct Wire {
    devices: Vec<File>,
    faults: Arc<Mutex<Faults>>,
    has_ended: Arc<AtomicBool>,
    /// Those that are to arrive later: when, for whom, and what.
    under_way: BinaryHeap<Reverse<(Instant, usize, Vec<u8>)>>,
}

impl Wire {
    fn carry(mut self) {
        let mut packet = [0; MTU];
        while !self.has_ended.load(Ordering::Relaxed) {
            self.deliver();
            self.sleep();
            for from in 0..self.devices.len() {
                while let Ok(len) = (&self.devices[from]).read(&mut packet) {
                    self.take(from, &packet[..len]);
                }
            }
        }
    }

    /// Until there is a packet, or one is to arrive.
    fn sleep(&self) {
        let next = self.under_way.peek().map_or(LOOK_EVERY, |Reverse((due, ..))| {
            due.saturating_duration_since(Instant::now()).min(LOOK_EVERY)
        });
        let mut polled: Vec<PollFd<'_>> = self
            .devices
            .iter()
            .map(|device| PollFd::new(device, PollFlags::IN))
            .collect();
        let limit = Timespec::try_from(next).unwrap();
        // A signal is no reason to end.
        let _ = poll(&mut polled, Some(&limit));
    }

    fn take(&mut self, from: usize, packet: &[u8]) {
        // The kernel speaks of neighbours over IPv6 too, whom nobody has here.
        let is_ipv4 = packet.first().is_some_and(|first| first >> 4 == 4);
        let Some(to) = packet
            .get(19)
            .filter(|_| is_ipv4)
            .map(|last| usize::from(*last).wrapping_sub(1))
        else {
            return;
        };
        if to >= self.devices.len() {
            return;
        }
        let mut faults = self.faults.lock().unwrap();
        let loss = faults.loss;
        if faults.cuts.contains(&(from, to)) || faults.random.random_bool(loss) {
            faults.lost += 1;
            return;
        }
        let delay = faults.delay;
        drop(faults);
        if delay.is_zero() && self.under_way.is_empty() {
            self.hand_over(to, packet);
        } else {
            self.under_way
                .push(Reverse((Instant::now() + delay, to, packet.to_vec())));
        }
    }

    fn deliver(&mut self) {
        let now = Instant::now();
        while let Some(Reverse((due, ..))) = self.under_way.peek()
            && *due <= now
        {
            let Some(Reverse((_, to, packet))) = self.under_way.pop() else {
                return;
            };
            self.hand_over(to, &packet);
        }
    }

    /// A host whose queue is full loses it, as hosts do.
    fn hand_over(&self, to: usize, packet: &[u8]) {
        let _ = (&self.devices[to]).write(packet);
    }
}
