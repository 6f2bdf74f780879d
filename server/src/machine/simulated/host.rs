//! Hosts: whether each has power, and its disk, whose operations complete one by one.

use std::{
    cell::RefCell,
    collections::BTreeSet,
    future::poll_fn,
    net::IpAddr,
    task::{Poll, Waker},
    time::Duration,
};

use headwater_engine::disk::SimDisk;

use super::world::{Happening, World};

/// What a disk's operation takes, at the median: some seeds have fast disks, some slow ones.
const PACES: [Duration; 3] = [
    Duration::from_micros(10),
    Duration::from_micros(150),
    Duration::from_millis(2),
];

/// Number of a disk in its world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskId(usize);

struct Drive {
    host: IpAddr,
    disk: SimDisk,
    pace: Duration,
    /// Nothing completes before.
    stalled_until: Duration,
    /// A completion is planned.
    is_armed: bool,
    watcher: Option<Waker>,
    /// Is told whenever operations begin.
    looks: Option<Waker>,
}

impl Drive {
    fn arm(&mut self, world: &World, number: usize) {
        if self.disk.is_crashed() {
            if let Some(waker) = self.watcher.take() {
                waker.wake();
            }
        } else if !self.is_armed && self.disk.in_flight() > 0 {
            if let Some(waker) = self.looks.take() {
                waker.wake();
            }
            self.is_armed = true;
            let took = self.pace.mul_f64(world.draw(0.2..3.0));
            let at = (world.now() + took).max(self.stalled_until);
            world.plan(at, Happening::Disk(number));
        }
    }
}

#[derive(Default)]
pub(crate) struct Hosts {
    drives: RefCell<Vec<Drive>>,
    /// Those of them that are plugged in.
    plugged: RefCell<Vec<usize>>,
    down: RefCell<BTreeSet<IpAddr>>,
}

impl Hosts {
    pub(super) fn is_down(&self, host: IpAddr) -> bool {
        self.down.borrow().contains(&host)
    }

    /// Plans what disks complete next: that of a host where something was done, or any.
    pub(super) fn pump(&self, world: &World, host: Option<IpAddr>) {
        let mut drives = self.drives.borrow_mut();
        for number in self.plugged.borrow().iter().copied() {
            let drive = &mut drives[number];
            if host.is_none_or(|host| host == drive.host) {
                drive.arm(world, number);
            }
        }
    }

    pub(super) fn complete_one(&self, world: &World, number: usize) {
        let disk = {
            let drive = &mut self.drives.borrow_mut()[number];
            drive.is_armed = false;
            drive.disk.clone()
        };
        disk.complete_one();
        self.drives.borrow_mut()[number].arm(world, number);
    }
}

impl World {
    /// Plugs a disk of a host in: from now on time passes until its operations complete.
    pub(crate) fn add_disk(&self, host: IpAddr, disk: &SimDisk) -> DiskId {
        disk.wait_to_be_told();
        let mut drives = self.hosts.drives.borrow_mut();
        drives.push(Drive {
            host,
            disk: disk.clone(),
            pace: PACES[self.draw(0..PACES.len())],
            stalled_until: Duration::ZERO,
            is_armed: false,
            watcher: None,
            looks: None,
        });
        let number = drives.len() - 1;
        self.hosts.plugged.borrow_mut().push(number);
        DiskId(number)
    }

    /// Pulls a disk out, whose machine has stopped.
    pub(crate) fn remove_disk(&self, disk: DiskId) {
        self.hosts.plugged.borrow_mut().retain(|number| *number != disk.0);
        if let Some(waker) = self.hosts.drives.borrow_mut()[disk.0].watcher.take() {
            waker.wake();
        }
    }

    /// Nothing on the disk completes for so long.
    pub(crate) fn stall_disk(&self, disk: DiskId, duration: Duration) {
        self.hosts.drives.borrow_mut()[disk.0].stalled_until = self.now() + duration;
    }

    /// Resolves when the disk's machine has stopped in the middle of an operation, as it was told to.
    pub(crate) async fn has_crashed(&self, disk: DiskId) {
        poll_fn(|context| {
            let drive = &mut self.hosts.drives.borrow_mut()[disk.0];
            if drive.disk.is_crashed() {
                return Poll::Ready(());
            }
            drive.watcher = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Resolves when this is so; looked at whenever an operation may have begun on the disk.
    pub(crate) async fn until_on_disk(&self, disk: DiskId, is_so: impl Fn() -> bool) {
        poll_fn(|context| {
            if is_so() {
                return Poll::Ready(());
            }
            self.hosts.drives.borrow_mut()[disk.0].looks = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the host has power.
    pub(crate) fn set_power(&self, host: IpAddr, is_on: bool) {
        let mut down = self.hosts.down.borrow_mut();
        if is_on {
            down.remove(&host);
        } else {
            down.insert(host);
        }
    }
}
