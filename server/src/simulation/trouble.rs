//! What goes wrong, and when. Everything heals when the trouble is over.

use std::{net::IpAddr, rc::Rc, time::Duration};

use futures::future::{Either, select};
use headwater_engine::disk::{Fault, OpKind};

use super::{house::House, wire::pause};
use crate::machine::{
    self,
    simulated::{ProcessId, clock::Clock, net::Net},
};

/// Between two pieces of trouble, at most.
const QUIET_MAX: Duration = Duration::from_millis(1500);

/// What is off for a while is off for so long at most.
const WHILE_MAX: Duration = Duration::from_secs(4);

/// A client that stands still does so for so long at most: the others take it for dead meanwhile.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// So long a broker may take to start on a sound disk, while others may be in trouble that it needs.
const READY_MAX: Duration = Duration::from_mins(10);

/// A broker that ends by itself is started again within this time.
const SUPERVISOR_LOOKS_EVERY: Duration = Duration::from_secs(1);

/// So long a supervisor waits for a broker that it has told to stop, at most. It takes about as long if something is in its way.
const STOP_WAIT: Duration = Duration::from_secs(3);

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

/// A client, which trouble may come to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Guest {
    pub(super) host: IpAddr,
    pub(super) process: ProcessId,
}

/// Makes so much trouble, one piece after the other; afterwards the broker runs, or is about to.
pub(super) async fn make(house: &Rc<House>, pieces: usize, guests: &[Guest]) {
    for _ in 0..pieces {
        pause(QUIET_MAX).await;
        if house.process().is_none() || house.disk().is_crashed() {
            restart(house).await;
            continue;
        }
        one(house, guests).await;
    }
    house.disk().heal();
    house.disk().set_capacity(None);
    if let Some(process) = house.process() {
        let clock = house.world.clock(process);
        house.world.set_clock(process, Clock { wall_ms: 0, ..clock });
    }
    bring_up(house).await;
}

async fn one(house: &Rc<House>, guests: &[Guest]) {
    let world = &house.world;
    let tell = |line: String| world.tell(None, line);
    let a_while = WHILE_MAX.mul_f64(machine::random());
    let disks = &house.disks_to_lose;
    if disks.get() > 0 && world.chance(0.3) {
        disks.set(disks.get() - 1);
        if world.chance(0.5) {
            house.lose_disk();
        } else {
            house.kill();
            house.lose_directories(0.7).await;
        }
        return restart(house).await;
    }
    match world.draw(0..20) {
        0..3 => {
            house.lose_power();
            restart(house).await;
        }
        3 | 4 => crash_in_an_operation(house, 30).await,
        // What one has left lies behind what comes until the next: mostly the first batch of whoever is back first.
        5 => {
            for _ in 0..world.draw(2..=6) {
                crash_in_an_operation(house, 12).await;
            }
        }
        6 => {
            house.kill();
            restart(house).await;
        }
        7 => {
            stop_or_kill(house).await;
            restart(house).await;
        }
        8 => {
            let is_silent = world.chance(0.4);
            let done = Net::break_one(world, is_silent);
            tell(format!("a connection breaks (silently: {is_silent}): {done}"));
        }
        9 => {
            let client = guests[world.draw(0..guests.len())].host;
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
            // What had no room lies behind what comes now.
            if world.chance(0.7) {
                crash_in_an_operation(house, 8).await;
            }
        }
        15 | 16 => build_on_sand(house).await,
        17 => {
            let guest = guests[world.draw(0..guests.len())];
            let silence = SILENCE_MAX.mul_f64(machine::random());
            tell(format!("{} stands still for {silence:?}", guest.host));
            world.freeze(guest.process, silence);
        }
        18 => {
            let Some(process) = house.process() else { return };
            tell(format!("the broker stands still for {a_while:?}"));
            world.freeze(process, a_while);
        }
        _ => want_something(house, a_while).await,
    }
}

/// The broker lacks descriptors, the right time, or a disk that it can rely on.
async fn want_something(house: &Rc<House>, a_while: Duration) {
    let (world, disk) = (&house.world, house.disk());
    let Some(process) = house.process() else { return };
    match world.draw(0..3) {
        0 => {
            world.tell(None, format!("no descriptor is left for {a_while:?}"));
            Net::exhaust(world, process, a_while);
            disk.fail_randomly(OpKind::Open, 0.9, Fault::OutOfFiles);
            machine::sleep(a_while).await;
            disk.heal();
        }
        1 if !house.is_timely.get() => {
            let wall_ms = world.draw(-CLOCK_SLOW_MS_MAX..CLOCK_FAST_MS_MAX);
            world.tell(None, format!("the broker's clock is put {wall_ms} ms off"));
            let clock = world.clock(process);
            world.set_clock(process, Clock { wall_ms, ..clock });
        }
        _ => {
            world.tell(None, "operations on the disk fail now and then for a while");
            let kind = FAILING[world.draw(0..FAILING.len())];
            disk.fail_randomly(kind, 0.2, Fault::InputOutput);
            machine::sleep(a_while).await;
            disk.heal();
        }
    }
}

/// The broker is told to stop, and is killed, or its host loses power, if it has not ended then.
pub(super) async fn stop_or_kill(house: &Rc<House>) {
    let world = &house.world;
    if world.chance(0.6) {
        assert!(house.stop().await, "the broker does not stop");
        return;
    }
    let patience = STOP_WAIT.mul_f64(machine::random());
    if machine::until(machine::now() + patience, house.stop()).await.is_none() {
        world.tell(None, format!("it has not stopped within {patience:?}"));
        if world.chance(0.5) {
            house.kill();
        } else {
            house.lose_power();
        }
    }
}

/// Power is lost in the middle of an operation that changes the disk, if one comes in time.
async fn crash_in_an_operation(house: &Rc<House>, most: u64) {
    let disk = house.disk();
    let after = house.world.draw(0..most);
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

/// The process dies while it writes, or when a flush has failed, and its successor may build on what was never flushed; soon after that
/// the power is lost.
async fn build_on_sand(house: &Rc<House>) {
    let (world, disk) = (&house.world, house.disk());
    let (writes, flushes) = (disk.count(OpKind::Write), disk.count(OpKind::Sync));
    let fails = world.chance(0.5);
    if fails {
        disk.fail_nth(OpKind::Sync, 0, Fault::InputOutput);
    }
    world.tell(
        None,
        format!("a flush fails: {fails}, and the broker is killed soon after"),
    );
    let deadline = machine::now() + Duration::from_secs(1);
    let is_time = || {
        if fails {
            disk.count(OpKind::Sync) > flushes
        } else {
            disk.count(OpKind::Write) > writes
        }
    };
    let has_come = world.until_on_disk(house.drive(), || is_time() && disk.in_flight() > 0);
    let _ = machine::until(deadline, has_come).await;
    if fails {
        // The broker may know of it when it dies, or not.
        pause(Duration::from_millis(20)).await;
    }
    house.kill();
    disk.heal();
    house.begin();
    let ready = std::pin::pin!(house.is_ready());
    let waited = std::pin::pin!(machine::sleep(Duration::from_secs(10)));
    let _ = select(ready, waited).await;
    if world.chance(0.5) {
        // Before a flush of what comes now, which covers what lay there before as well.
        return crash_in_an_operation(house, 8).await;
    }
    pause(Duration::from_millis(600)).await;
    house.lose_power();
    restart(house).await;
}

/// Starts the broker again whenever it has ended by itself, as a supervisor does.
pub(super) async fn supervise(house: Rc<House>) {
    loop {
        machine::sleep(SUPERVISOR_LOOKS_EVERY).await;
        if house.ends_by_itself() {
            house.world.tell(None, "the broker has ended by itself");
            house.kill();
            house.begin();
        }
    }
}

/// Starts a broker, whatever becomes of it.
async fn restart(house: &Rc<House>) {
    if house.process().is_some() {
        house.lose_power();
    }
    pause(Duration::from_millis(500)).await;
    house.power_is_back();
    house.begin();
    if house.world.chance(0.8) {
        let ready = std::pin::pin!(house.is_ready());
        let waited = std::pin::pin!(machine::sleep(Duration::from_secs(10)));
        if let Either::Left((Err(reason), _)) = select(ready, waited).await {
            house.world.tell(None, format!("the broker does not start: {reason}"));
            house.kill();
        }
    }
}

/// Has a broker run, come what may. One of several may have to wait for the others, and to try again.
pub(super) async fn bring_up(house: &Rc<House>) {
    let attempts = if house.has_peers() { 50 } else { 3 };
    for _ in 0..attempts {
        if house.process().is_none() || house.disk().is_crashed() {
            restart(house).await;
        }
        if house.process().is_some() {
            let ready = machine::until(machine::now() + READY_MAX, house.is_ready()).await;
            match ready {
                Some(Ok(())) => return,
                Some(Err(reason)) => house.world.tell(None, format!("the broker does not start: {reason}")),
                None => break,
            }
        }
        house.kill();
    }
    panic!("a broker on a sound disk does not start");
}
