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
    disk: SimDisk,
    pace: Duration,
    /// Nothing completes before.
    stalled_until: Duration,
    /// A completion is planned.
    is_armed: bool,
    watcher: Option<Waker>,
}

#[derive(Default)]
pub(crate) struct Hosts {
    drives: RefCell<Vec<Drive>>,
    down: RefCell<BTreeSet<IpAddr>>,
}

impl Hosts {
    pub(super) fn is_down(&self, host: IpAddr) -> bool {
        self.down.borrow().contains(&host)
    }

    /// Plans what each disk completes next.
    pub(super) fn pump(&self, world: &World) {
        for (number, drive) in self.drives.borrow_mut().iter_mut().enumerate() {
            if drive.disk.is_crashed() {
                if let Some(waker) = drive.watcher.take() {
                    waker.wake();
                }
            } else if !drive.is_armed && drive.disk.in_flight() > 0 {
                drive.is_armed = true;
                let took = drive.pace.mul_f64(world.draw(0.2..3.0));
                let at = (world.now() + took).max(drive.stalled_until);
                world.plan(at, Happening::Disk(number));
            }
        }
    }

    pub(super) fn complete_one(&self, number: usize) {
        let disk = {
            let drive = &mut self.drives.borrow_mut()[number];
            drive.is_armed = false;
            drive.disk.clone()
        };
        disk.complete_one();
    }
}

impl World {
    /// Plugs a disk in: from now on time passes until its operations complete.
    pub(crate) fn add_disk(&self, disk: &SimDisk) -> DiskId {
        disk.wait_to_be_told();
        let mut drives = self.hosts.drives.borrow_mut();
        drives.push(Drive {
            disk: disk.clone(),
            pace: PACES[self.draw(0..PACES.len())],
            stalled_until: Duration::ZERO,
            is_armed: false,
            watcher: None,
        });
        DiskId(drives.len() - 1)
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
