//! What goes wrong, and when. Everything heals when the trouble is over.

use std::{rc::Rc, time::Duration};

use futures::future::{Either, select};
use headwater_engine::disk::{Fault, OpKind};

use super::{house::House, producer::pause};
use crate::machine::{
    self,
    simulated::{clock::Clock, net::Net},
};

/// Between two pieces of trouble, at most.
const QUIET_MAX: Duration = Duration::from_millis(1500);

/// What is off for a while is off for so long at most.
const WHILE_MAX: Duration = Duration::from_secs(4);

/// Cores of a broker, at most.
pub(super) const CORES_MAX: usize = 3;

/// The broker refuses records that are an hour ahead of its clock.
const CLOCK_SLOW_MS_MAX: i64 = 55 * 60 * 1000;
const CLOCK_FAST_MS_MAX: i64 = 10 * 60 * 60 * 1000;

const FAILING: [OpKind; 13] = [
    OpKind::Write,
    OpKind::WriteDurable,
    OpKind::WriteZeros,
    OpKind::Sync,
    OpKind::Read,
    OpKind::Allocate,
    OpKind::Truncate,
    OpKind::Open,
    OpKind::List,
    OpKind::ReadFile,
    OpKind::ReplaceFile,
    OpKind::Rename,
    OpKind::RemoveFile,
];

/// Makes so much trouble, one piece after the other; afterwards the broker runs, or is about to.
pub(super) async fn make(house: &Rc<House>, pieces: usize, clients: &[std::net::IpAddr]) {
    for _ in 0..pieces {
        pause(QUIET_MAX).await;
        if house.process().is_none() || house.disk().is_crashed() {
            restart(house).await;
            continue;
        }
        one(house, clients).await;
    }
    house.disk().heal();
    house.disk().set_capacity(None);
    if let Some(process) = house.process() {
        let clock = house.world.clock(process);
        house.world.set_clock(process, Clock { wall_ms: 0, ..clock });
    }
    bring_up(house).await;
}

async fn one(house: &Rc<House>, clients: &[std::net::IpAddr]) {
    let world = &house.world;
    let tell = |line: String| world.tell(None, line);
    let a_while = WHILE_MAX.mul_f64(machine::random());
    match world.draw(0..16) {
        0..3 => {
            house.lose_power();
            restart(house).await;
        }
        3..6 => crash_in_an_operation(house).await,
        6 => {
            house.kill();
            restart(house).await;
        }
        7 => {
            assert!(house.stop().await, "the broker does not stop");
            restart(house).await;
        }
        8 => {
            let is_silent = world.chance(0.4);
            let done = Net::break_one(world, is_silent);
            tell(format!("a connection breaks (silently: {is_silent}): {done}"));
        }
        9 => {
            let client = clients[world.draw(0..clients.len())];
            tell(format!("{client} is cut off for {a_while:?}"));
            Net::part(world, house.host, client, a_while);
        }
        10 => {
            tell(format!("the disk stands still for {a_while:?}"));
            world.stall_disk(house.drive(), a_while);
        }
        11..14 => {
            let kind = FAILING[world.draw(0..FAILING.len())];
            let nth = world.draw(0..8);
            tell(format!("{kind:?} number {nth} from now on will fail"));
            house.disk().fail_nth(kind, nth, Fault::InputOutput);
        }
        14 => {
            let disk = house.disk();
            let room = world.draw(0..200_000);
            tell(format!("the disk is full but for {room} bytes, for {a_while:?}"));
            disk.set_capacity(Some(disk.used() + room));
            machine::sleep(a_while).await;
            disk.set_capacity(None);
        }
        _ => {
            let Some(process) = house.process() else { return };
            match world.draw(0..3) {
                0 => {
                    tell(format!("no descriptor is left for {a_while:?}"));
                    Net::exhaust(world, process, a_while);
                    let disk = house.disk();
                    disk.fail_randomly(OpKind::Open, 0.9, Fault::OutOfFiles);
                    machine::sleep(a_while).await;
                    disk.heal();
                }
                1 => {
                    let wall_ms = world.draw(-CLOCK_SLOW_MS_MAX..CLOCK_FAST_MS_MAX);
                    tell(format!("the broker's clock is put {wall_ms} ms off"));
                    let clock = world.clock(process);
                    world.set_clock(process, Clock { wall_ms, ..clock });
                }
                _ => {
                    tell("operations on the disk fail now and then for a while".to_owned());
                    let disk = house.disk();
                    let kind = FAILING[world.draw(0..FAILING.len())];
                    disk.fail_randomly(kind, 0.2, Fault::InputOutput);
                    machine::sleep(a_while).await;
                    disk.heal();
                }
            }
        }
    }
}

/// Power is lost in the middle of an operation that changes the disk, if one comes in time.
async fn crash_in_an_operation(house: &Rc<House>) {
    let disk = house.disk();
    let after = house.world.draw(0..30);
    disk.crash_at(disk.changes() + after);
    let crashed = std::pin::pin!(house.world.has_crashed(house.drive()));
    let waited = std::pin::pin!(machine::sleep(WHILE_MAX));
    let came = matches!(select(crashed, waited).await, Either::Left(_));
    house
        .world
        .tell(None, format!("in changing operation {after} from now on: {came}"));
    house.lose_power();
    restart(house).await;
}

/// Starts a broker, with any number of cores; whatever becomes of it.
async fn restart(house: &Rc<House>) {
    if house.process().is_some() {
        house.lose_power();
    }
    pause(Duration::from_millis(500)).await;
    house.power_is_back();
    house.begin(house.world.draw(1..=CORES_MAX));
    if house.world.chance(0.8) {
        let ready = std::pin::pin!(house.is_ready());
        let waited = std::pin::pin!(machine::sleep(Duration::from_secs(10)));
        if let Either::Left((Err(reason), _)) = select(ready, waited).await {
            house.world.tell(None, format!("the broker does not start: {reason}"));
            house.kill();
        }
    }
}

/// Has a broker run, come what may.
pub(super) async fn bring_up(house: &Rc<House>) {
    for _ in 0..3 {
        if house.process().is_none() || house.disk().is_crashed() {
            restart(house).await;
        }
        if house.process().is_some() && house.is_ready().await.is_ok() {
            return;
        }
        house.kill();
    }
    panic!("a broker on a sound disk does not start");
}
